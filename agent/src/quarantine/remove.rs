//! Removes one inode's entry from a folder that others write to.
//!
//! A name can be given to another file between any look at it and `unlink`. So the entry is first
//! moved into a folder of our own beside it (root's, mode 0700, where nobody unprivileged can
//! swap it any more), looked at there, and only then unlinked. What turns out to be another file
//! goes back without replacing anything; if its name was taken meanwhile, it is kept under a new
//! name beside it and that is said.
//!
//! Invariant: no inode but the given one is ever unlinked, and it only as it was sealed. Knows nothing of containers.

use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, IFlags, Mode, OFlags, RenameFlags, Stat, fstat, fsync, ioctl_getflags, ioctl_setflags,
    linkat, mkdirat, openat, renameat, renameat_with, statat, unlinkat,
};
use rustix::io::Errno;
use uuid::Uuid;

use super::facts::{Inode, mtime};
use super::locate::Place;

/// The entry's name while it is in our folder.
const MOVED: &str = "original";

/// What became of the entry.
pub(super) enum Outcome {
    /// Gone, and the folder is on disk.
    Removed,
    /// The inode has no longer this name; if another file had to get a new name, which.
    Vanished(Option<PathBuf>),
    /// It is where it was, but no longer what was sealed.
    Changed,
    /// It is where it was, and why.
    StillThere(String),
    /// It could be neither removed nor put back; it lies there.
    Stranded(PathBuf, Errno),
}

/// Our folder beside the entry.
pub(super) struct Aside {
    dir: OwnedFd,
    /// The same folder in the overlay's upper layer, where inodes have their own numbers.
    layer: Option<OwnedFd>,
    name: String,
}

impl Aside {
    fn make(place: &Place, id: Uuid) -> Result<Self, Errno> {
        let folder = place.folder();
        mkdirat(folder, name_of(id), Mode::RWXU)?;
        let layer = match &place.through {
            None => Ok(None),
            Some(_) => Self::find(place.parent.as_fd(), id).map(|found| Some(found.dir)),
        };
        match (Self::find(folder, id), layer) {
            (Ok(aside), Ok(layer)) => Ok(Self { layer, ..aside }),
            (Err(errno), _) | (_, Err(errno)) => {
                // Empty, or not ours and then not to be removed.
                let _ = unlinkat(folder, name_of(id), AtFlags::REMOVEDIR);
                Err(errno)
            }
        }
    }

    /// Opens the folder that belongs to an item, if it is ours.
    pub(super) fn find(parent: BorrowedFd<'_>, id: Uuid) -> Result<Self, Errno> {
        let name = name_of(id);
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let dir = openat(parent, &name, flags, Mode::empty())?;
        let stat = fstat(&dir)?;
        let ours = stat.st_uid == rustix::process::geteuid().as_raw() && stat.st_mode & 0o077 == 0;
        if ours { Ok(Self { dir, layer: None, name }) } else { Err(Errno::PERM) }
    }

    /// The moved entry.
    pub(super) fn moved(&self) -> Result<Stat, Errno> {
        statat(self.layer.as_ref().unwrap_or(&self.dir), MOVED, AtFlags::SYMLINK_NOFOLLOW)
    }

    /// Destroys the moved entry.
    pub(super) fn unlink(&self) -> Result<(), Errno> {
        unlinkat(&self.dir, MOVED, AtFlags::empty())
    }

    /// Puts the moved entry back. If its name is taken, gives it a new one beside it and returns
    /// that.
    pub(super) fn put_back(
        &self,
        parent: BorrowedFd<'_>,
        name: &OsStr,
        id: Uuid,
    ) -> Result<Option<String>, Errno> {
        match move_without_replacing(self.dir.as_fd(), MOVED.as_ref(), parent, name) {
            Ok(()) => Ok(None),
            Err(_) => {
                let kept = format!("holdfast-kept-{id}");
                move_without_replacing(self.dir.as_fd(), MOVED.as_ref(), parent, kept.as_ref())?;
                Ok(Some(kept))
            }
        }
    }

    /// Removes our folder, if it is empty, and brings the parent to disk.
    pub(super) fn close(self, parent: BorrowedFd<'_>) -> Result<(), Errno> {
        let gone = unlinkat(parent, &self.name, AtFlags::REMOVEDIR);
        sync_folder(parent)?;
        gone
    }
}

/// What is removed and from where.
pub(super) struct Entry<'a> {
    /// The inode, open, so that its number cannot be given to another one.
    pub(super) file: BorrowedFd<'a>,
    pub(super) inode: Inode,
    /// Size and modification time that it must still have, or it stays.
    pub(super) as_sealed: Option<(u64, (i64, u32))>,
    pub(super) place: &'a Place,
    /// The item that holds it.
    pub(super) id: Uuid,
}

/// Removes an inode's entry.
pub(super) fn remove(entry: &Entry<'_>) -> Outcome {
    if !entry.place.holds(entry.inode) {
        return Outcome::Vanished(None);
    }
    let aside = match Aside::make(entry.place, entry.id) {
        Ok(aside) => aside,
        Err(errno) => return Outcome::StillThere(reason("its folder cannot be changed", errno)),
    };
    let outcome = move_and_check(entry, &aside);
    // The outcome stands, whatever becomes of our empty folder; what is not on disk yet is the
    // removal alone, and the container is.
    if let Err(errno) = aside.close(entry.place.folder()) {
        tracing::warn!(item = %entry.id, error = %errno, "cannot clear up beside a quarantined file");
    }
    outcome
}

fn move_and_check(entry: &Entry<'_>, aside: &Aside) -> Outcome {
    let (folder, name) = (entry.place.folder(), &entry.place.name);
    let move_aside = || match renameat_with(folder, name, &aside.dir, MOVED, RenameFlags::NOREPLACE)
    {
        // The file system does not know the flag; our folder is empty.
        Err(Errno::INVAL) => renameat(folder, name, &aside.dir, MOVED),
        moved => moved,
    };
    let mut freed = None;
    let moved = match move_aside() {
        Err(Errno::PERM) => {
            freed = free_from_flags(entry.file);
            move_aside()
        }
        moved => moved,
    };
    let outcome = match moved {
        Ok(()) => settle(entry, aside),
        Err(Errno::NOENT) => Outcome::Vanished(None),
        Err(errno) => Outcome::StillThere(reason("it cannot be moved", errno)),
    };
    if let (Some(flags), Outcome::StillThere(_) | Outcome::Changed) = (freed, &outcome)
        && let Err(errno) = ioctl_setflags(entry.file, flags)
    {
        tracing::warn!(item = %entry.id, error = %errno, "cannot give a file its inode flags back");
    }
    outcome
}

/// The entry is in our folder: is it the inode, as it was sealed?
fn settle(entry: &Entry<'_>, aside: &Aside) -> Outcome {
    let found = aside.moved().ok().filter(|stat| Inode::from(stat) == entry.inode);
    let sealed = |stat: &Stat| {
        entry.as_sealed.is_none_or(|sealed| sealed == (stat.st_size.unsigned_abs(), mtime(stat)))
    };
    let why = match &found {
        None => None,
        Some(stat) if !sealed(stat) => Some(None),
        Some(_) => match aside.unlink() {
            Ok(()) => return Outcome::Removed,
            Err(errno) => Some(Some(errno)),
        },
    };
    let beside = |name: &str| entry.place.path.with_file_name(name);
    match (aside.put_back(entry.place.folder(), &entry.place.name, entry.id), why) {
        (Ok(kept), None) => Outcome::Vanished(kept.map(|name| beside(&name))),
        (Ok(None), Some(None)) => Outcome::Changed,
        (Ok(None), Some(Some(errno))) => {
            Outcome::StillThere(reason("it cannot be unlinked", errno))
        }
        // It has a new name beside the old one, under which it is found again.
        (Ok(Some(_)), Some(_)) => Outcome::Vanished(None),
        (Err(errno), _) => Outcome::Stranded(beside(&aside.name).join(MOVED), errno),
    }
}

/// Takes the immutable and append-only flags off, and returns those that were there.
fn free_from_flags(file: BorrowedFd<'_>) -> Option<IFlags> {
    let holding = IFlags::IMMUTABLE | IFlags::APPEND;
    let flags = ioctl_getflags(file).ok()?;
    if !flags.intersects(holding) {
        return None;
    }
    ioctl_setflags(file, flags - holding).ok()?;
    Some(flags)
}

/// Renames, never over an existing entry; by link and unlink where the file system cannot
/// (`EINVAL` from renameat2).
fn move_without_replacing(
    from: BorrowedFd<'_>,
    name: &OsStr,
    to: BorrowedFd<'_>,
    new_name: &OsStr,
) -> Result<(), Errno> {
    match renameat_with(from, name, to, new_name, RenameFlags::NOREPLACE) {
        Err(Errno::INVAL) => {
            linkat(from, name, to, new_name, AtFlags::empty())?;
            unlinkat(from, name, AtFlags::empty())
        }
        done => done,
    }
}

/// Brings a folder that is open as `O_PATH` to disk.
pub(super) fn sync_folder(folder: BorrowedFd<'_>) -> Result<(), Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    fsync(openat(folder, Path::new("."), flags, Mode::empty())?)
}

fn reason(what: &str, errno: Errno) -> String {
    format!("{what}: {errno}")
}

fn name_of(id: Uuid) -> String {
    format!(".holdfast-{id}")
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;
    use crate::quarantine::locate::locate;

    #[test]
    fn a_file_that_changed_since_it_was_sealed_goes_back_whole() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("evil");
        std::fs::write(&path, "malicious").expect("write");
        let file = File::open(&path).expect("open");
        let stat = fstat(&file).expect("stat");
        let inode = Inode::from(&stat);
        let place = locate(file.as_fd(), inode, &path).expect("its name");
        let sealed = (9, mtime(&stat));
        let entry = |as_sealed| Entry {
            file: file.as_fd(),
            inode,
            as_sealed,
            place: &place,
            id: Uuid::nil(),
        };
        std::fs::write(&path, "malicious, and a mail").expect("write");
        assert!(matches!(remove(&entry(Some(sealed))), Outcome::Changed));
        assert_eq!(std::fs::read(&path).expect("read"), b"malicious, and a mail");
        assert_eq!(std::fs::read_dir(folder.path()).expect("folder").count(), 1);

        // The last time it goes all the same.
        assert!(matches!(remove(&entry(None)), Outcome::Removed));
        assert_eq!(std::fs::read_dir(folder.path()).expect("folder").count(), 0);
        assert!(matches!(remove(&entry(None)), Outcome::Vanished(None)));
    }

    #[test]
    fn a_folder_that_is_already_there_is_not_used() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("evil");
        std::fs::write(&path, "malicious").expect("write");
        let theirs = folder.path().join(name_of(Uuid::nil()));
        std::fs::create_dir(&theirs).expect("folder");
        std::fs::write(theirs.join(MOVED), "innocent").expect("write");
        let file = File::open(&path).expect("open");
        let inode = Inode::from(&fstat(&file).expect("stat"));
        let place = locate(file.as_fd(), inode, &path).expect("its name");
        let entry =
            Entry { file: file.as_fd(), inode, as_sealed: None, place: &place, id: Uuid::nil() };
        assert!(matches!(remove(&entry), Outcome::StillThere(_)));
        assert_eq!(std::fs::read(theirs.join(MOVED)).expect("read"), b"innocent");
        assert!(path.exists());
    }
}
