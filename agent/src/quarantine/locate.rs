//! Where an open inode has its name: the parent folder, open, and the entry in it.
//!
//! Invariant: a place is handed out only after the entry was seen to be that inode; from then on
//! the folder is used by its descriptor, never by its path. No symbolic link is ever followed: a
//! path that the kernel gives has none, so one that is there now was put there by somebody.
//! Changes nothing.

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, ResolveFlags, fstat, openat2, readlinkat, statat};
use rustix::io::Errno;

use super::facts::Inode;
use super::overlay::through_overlay;
use crate::sys::inode::{handle_of, open_handle};

/// What the kernel adds to the path of an entry that was removed.
const DELETED: &[u8] = b" (deleted)";
/// Mounts of one file system that are tried.
const MOUNTS_TRIED: usize = 64;

/// An entry in an open folder (`O_PATH`).
pub(super) struct Place {
    /// The folder in which the inode was seen.
    pub(super) parent: OwnedFd,
    /// The same folder as a mounted overlay shows it; changes are made there.
    pub(super) through: Option<OwnedFd>,
    pub(super) name: OsString,
    pub(super) path: PathBuf,
}

impl Place {
    /// The folder in which changes are made.
    pub(super) fn folder(&self) -> BorrowedFd<'_> {
        self.through.as_ref().unwrap_or(&self.parent).as_fd()
    }

    /// True when the entry is this inode now.
    pub(super) fn holds(&self, inode: Inode) -> bool {
        statat(&self.parent, &self.name, AtFlags::SYMLINK_NOFOLLOW)
            .is_ok_and(|stat| Inode::from(&stat) == inode)
    }
}

/// Finds a name of an open inode: the path that it was opened by, the path that the kernel gives
/// it now, and the paths that it has through other mounts of its file system (the first two may
/// be relative to a mount that only another namespace, or an overlay, can see).
pub(super) fn locate(file: BorrowedFd<'_>, inode: Inode, path: &Path) -> Option<Place> {
    let current = descriptor_path(file);
    [Some(path.to_owned()), Some(without_deleted(path)), current]
        .into_iter()
        .flatten()
        .find_map(|path| at(&path, inode))
        .or_else(|| through_other_mounts(file, inode))
        .map(through_overlay)
}

/// The path without the kernel's mark for removed entries.
pub(super) fn without_deleted(path: &Path) -> PathBuf {
    let bytes = path.as_os_str().as_bytes();
    PathBuf::from(OsStr::from_bytes(bytes.strip_suffix(DELETED).unwrap_or(bytes)))
}

/// Opens a folder as `O_PATH`, following no link in any component.
pub(super) fn open_folder(path: &Path) -> Result<OwnedFd, Errno> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let resolve = ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    openat2(CWD, path, flags, Mode::empty(), resolve)
}

/// An absolute path's folder and last component.
pub(super) fn split(path: &Path) -> Option<(&Path, &OsStr)> {
    // `file_name` would overlook a trailing slash or dot, which is not the name of a file.
    let plain = path.is_absolute()
        && !path.as_os_str().as_bytes().ends_with(b"/")
        && !path.as_os_str().as_bytes().ends_with(b"/.");
    if plain { Some((path.parent()?, path.file_name()?)) } else { None }
}

fn at(path: &Path, inode: Inode) -> Option<Place> {
    let (folder, name) = split(path)?;
    let parent = open_folder(folder).ok()?;
    let place = Place { parent, through: None, name: name.to_owned(), path: path.to_owned() };
    place.holds(inode).then_some(place)
}

/// The kernel's present path of a descriptor.
pub(super) fn descriptor_path(file: BorrowedFd<'_>) -> Option<PathBuf> {
    let link = format!("/proc/self/fd/{}", file.as_raw_fd());
    let target = readlinkat(CWD, link, Vec::new()).ok()?;
    Some(PathBuf::from(OsString::from_vec(target.into_bytes())))
}

fn through_other_mounts(file: BorrowedFd<'_>, inode: Inode) -> Option<Place> {
    if fstat(file).ok()?.st_nlink == 0 {
        return None;
    }
    let mut handle = handle_of(file).ok()?;
    let mounts = std::fs::read("/proc/self/mountinfo").ok()?;
    let device = super::facts::device(inode.device);
    mount_points(&mounts, &device).take(MOUNTS_TRIED).find_map(|mount| {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let resolve = ResolveFlags::NO_SYMLINKS;
        let root = openat2(CWD, mount, flags, Mode::empty(), resolve).ok()?;
        let seen = open_handle(root.as_fd(), &mut handle).ok()?;
        at(&descriptor_path(seen.as_fd())?, inode)
    })
}

/// Mount points of a device, out of `/proc/self/mountinfo` (proc_pid_mountinfo(5)).
fn mount_points<'a>(mounts: &'a [u8], device: &'a str) -> impl Iterator<Item = PathBuf> + 'a {
    mounts.split(|&b| b == b'\n').filter_map(move |line| {
        let mut fields = line.split(|&b| b == b' ');
        let found = fields.nth(2)?;
        let mount = fields.nth(1)?;
        (found == device.as_bytes()).then(|| PathBuf::from(OsString::from_vec(unescape(mount))))
    })
}

/// Undoes the kernel's `\ooo` for space, tab, newline and backslash.
pub(super) fn unescape(field: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&first, after)) = rest.split_first() {
        match (first, after) {
            (b'\\', [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', after @ ..]) => {
                plain.push(((a - b'0') << 6) | ((b - b'0') << 3) | (c - b'0'));
                rest = after;
            }
            _ => {
                plain.push(first);
                rest = after;
            }
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mount_points_of_a_device_are_found_and_unescaped() {
        let text = b"22 1 253:0 / / rw - ext4 /dev/vda rw\n\
            30 22 0:25 / /run rw - tmpfs tmpfs rw\n\
            31 22 253:0 /sub /mnt/a\\040b\\134 rw,nosuid shared:3 - ext4 /dev/vda rw\n\
            broken\n";
        let found: Vec<_> = mount_points(text, "253:0").collect();
        assert_eq!(found, [PathBuf::from("/"), PathBuf::from("/mnt/a b\\")]);
    }

    #[test]
    fn only_absolute_paths_of_files_are_split() {
        assert_eq!(split(Path::new("/a/b")), Some((Path::new("/a"), OsStr::new("b"))));
        for bad in ["a/b", "", "/", "/a/", "/a/..", "/a/."] {
            assert_eq!(split(Path::new(bad)), None, "{bad}");
        }
    }

    #[test]
    fn the_mark_of_a_removed_entry_is_taken_off_once() {
        assert_eq!(without_deleted(Path::new("/a (deleted)")), PathBuf::from("/a"));
        assert_eq!(without_deleted(Path::new("/a")), PathBuf::from("/a"));
    }
}
