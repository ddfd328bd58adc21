//! Marker files: planted where protection is to be proven, and swept.
//!
//! INVARIANT: a marker is made under a new random name (`O_EXCL`), belongs to root alone, and is
//! removed by inode: whatever else has come to lie under its name stays.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use holdfast_common::container::to_hex;
use rustix::fs::{AtFlags, Dir, Mode, OFlags};
use rustix::io::Errno;
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::witness::FileId;
use crate::sys::identity::Facts;
use crate::worker::marker::TEXT;

/// Names of markers begin so.
const PREFIX: &str = ".holdfast-proof-";

/// Names looked at in one folder when it is swept.
const MOST_NAMES: usize = 100_000;

/// Device and inode number.
type Inode = ((u32, u32), u64);

/// One planted file.
#[derive(Debug)]
pub(super) struct Planted {
    /// Where.
    pub path: PathBuf,
    /// Which content.
    pub id: FileId,
    inode: Inode,
    folder: OwnedFd,
    name: String,
    // Held open: the inode number is nobody else's as long as it is.
    _file: File,
}

impl Planted {
    /// Writes a marker into a folder. Tells its identity before its name is of use to anybody.
    pub(super) fn plant(folder: &Path, mut tell: impl FnMut(FileId)) -> Result<Self, Errno> {
        let at = open_folder(folder)?;
        let name = format!("{PREFIX}{}", Uuid::now_v7().simple());
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&at, &name, flags, Mode::RUSR | Mode::WUSR)?;
        let mut file = File::from(file);
        let inode = inode_of(file.as_fd())?;
        let content = format!("{TEXT}{}\n", Uuid::now_v7());
        let id = to_hex(&Sha256::digest(content.as_bytes()));
        tell(id.clone());
        let written = file.write_all(content.as_bytes());
        // The writing descriptor is closed, so that nobody seems to write it still.
        drop(file);
        let path_only = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let held = written
            .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))
            .and_then(|()| rustix::fs::openat(&at, &name, path_only, Mode::empty()));
        match held {
            Ok(held) => {
                let path = folder.join(&name);
                Ok(Self { path, id, inode, folder: at, name, _file: held.into() })
            }
            Err(error) => {
                // Best effort: the next sweep finds it.
                let _ = rustix::fs::unlinkat(&at, &name, AtFlags::empty());
                Err(error)
            }
        }
    }

    /// Removes it if it is still there.
    pub(super) fn remove(&self) {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let Ok(there) = rustix::fs::openat(&self.folder, &self.name, flags, Mode::empty()) else {
            return;
        };
        if inode_of(there.as_fd()) == Ok(self.inode) {
            // Somebody was quicker, or the file system is read-only by now.
            let _ = rustix::fs::unlinkat(&self.folder, &self.name, AtFlags::empty());
        }
    }
}

fn inode_of(file: BorrowedFd<'_>) -> Result<Inode, Errno> {
    let facts = Facts::of(file).map_err(|_| Errno::IO)?;
    Ok((facts.identity.device, facts.identity.inode))
}

/// Removes the markers that a killed agent left in a folder; how many.
pub(super) fn sweep(folder: &Path) -> usize {
    let Ok(at) = open_folder(folder) else { return 0 };
    let Ok(listing) = Dir::read_from(&at) else { return 0 };
    let mut removed = 0;
    for entry in listing.take(MOST_NAMES).flatten() {
        let name = entry.file_name();
        if name.to_bytes().starts_with(PREFIX.as_bytes()) && is_marker(&at, name) {
            removed += usize::from(rustix::fs::unlinkat(&at, name, AtFlags::empty()).is_ok());
        }
    }
    removed
}

/// True for a name that a marker has had.
#[must_use]
pub(crate) fn is_name(path: &Path) -> bool {
    use std::os::unix::ffi::OsStrExt;
    path.file_name().is_some_and(|name| name.as_bytes().starts_with(PREFIX.as_bytes()))
}

/// A regular file of root that begins as markers do.
fn is_marker(folder: &OwnedFd, name: &std::ffi::CStr) -> bool {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let Ok(file) = rustix::fs::openat(folder, name, flags, Mode::empty()) else { return false };
    let ours = rustix::fs::fstat(&file).is_ok_and(|stat| {
        stat.st_uid == 0 && rustix::fs::FileType::from_raw_mode(stat.st_mode).is_file()
    });
    let mut head = [0; TEXT.len()];
    ours && File::from(file).read_exact(&mut head).is_ok() && head == TEXT.as_bytes()
}

fn open_folder(folder: &Path) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(folder, flags, Mode::empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markers_are_removed_and_what_took_their_name_is_not() {
        let folder = tempfile::tempdir().expect("folder");
        let mut told = None;
        let planted = Planted::plant(folder.path(), |id| told = Some(id)).expect("planted");
        assert_eq!(told.as_ref(), Some(&planted.id));
        std::fs::remove_file(&planted.path).expect("remove");
        std::fs::write(&planted.path, "somebody else's").expect("write");
        planted.remove();
        assert!(planted.path.exists());
        assert_eq!(sweep(folder.path()), 0, "not a marker's content");
        let left = Planted::plant(folder.path(), |_| ()).expect("planted");
        assert_eq!(sweep(folder.path()), 1);
        assert!(!left.path.exists());
    }
}
