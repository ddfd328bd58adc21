//! Removes one inode's entry from a folder that others write to.
//!
//! A name can be given to another file between any look at it and `unlink`. So the entry is first
//! moved into a folder of our own beside it (root's, mode 0700, where nobody unprivileged can
//! swap it any more), looked at there, and only then unlinked. What turns out to be another file
//! goes back without replacing anything; if its name was taken meanwhile, it is kept under a new
//! name beside it and that is said.
//!
//! Invariant: no inode but the given one is ever unlinked. Knows nothing of containers.

use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, IFlags, Mode, OFlags, RenameFlags, Stat, fstat, fsync, ioctl_getflags, ioctl_setflags,
    linkat, mkdirat, openat, renameat, renameat_with, statat, unlinkat,
};
use rustix::io::Errno;
use uuid::Uuid;

use super::facts::Inode;
use super::locate::Place;

/// The entry's name while it is in our folder.
const MOVED: &str = "original";

/// What became of the entry.
pub(super) enum Outcome {
    /// Gone, and the folder is on disk.
    Removed,
    /// The inode has no longer this name; if another file had to get a new name, which.
    Vanished(Option<PathBuf>),
    /// It is where it was, and why.
    StillThere(String),
    /// It could be neither removed nor put back; it lies there.
    Stranded(PathBuf, Errno),
}

/// Our folder beside the entry.
pub(super) struct Aside {
    dir: OwnedFd,
    name: String,
}

impl Aside {
    fn make(parent: BorrowedFd<'_>, id: Uuid) -> Result<Self, Errno> {
        mkdirat(parent, name_of(id), Mode::RWXU)?;
        Self::find(parent, id)
    }

    /// Opens the folder that belongs to an item, if it is ours.
    pub(super) fn find(parent: BorrowedFd<'_>, id: Uuid) -> Result<Self, Errno> {
        let name = name_of(id);
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let dir = openat(parent, &name, flags, Mode::empty())?;
        let stat = fstat(&dir)?;
        let ours = stat.st_uid == rustix::process::geteuid().as_raw() && stat.st_mode & 0o077 == 0;
        if ours { Ok(Self { dir, name }) } else { Err(Errno::PERM) }
    }

    /// The moved entry.
    pub(super) fn moved(&self) -> Result<Stat, Errno> {
        statat(&self.dir, MOVED, AtFlags::SYMLINK_NOFOLLOW)
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

/// Removes `inode`'s entry at `place`. `file` is the same inode, open, so that its number cannot
/// be given to another one.
pub(super) fn remove(file: BorrowedFd<'_>, inode: Inode, place: &Place, id: Uuid) -> Outcome {
    let parent = place.parent.as_fd();
    if !place.holds(inode) {
        return Outcome::Vanished(None);
    }
    let aside = match Aside::make(parent, id) {
        Ok(aside) => aside,
        Err(errno) => return Outcome::StillThere(reason("its folder cannot be changed", errno)),
    };
    let outcome = move_and_check(file, inode, place, &aside, id);
    // The outcome stands, whatever becomes of our empty folder; what is not on disk yet is the
    // removal alone, and the container is.
    if let Err(errno) = aside.close(parent) {
        tracing::warn!(item = %id, error = %errno, "cannot clear up beside a quarantined file");
    }
    outcome
}

fn move_and_check(
    file: BorrowedFd<'_>,
    inode: Inode,
    place: &Place,
    aside: &Aside,
    id: Uuid,
) -> Outcome {
    let move_aside = || renameat(&place.parent, &place.name, &aside.dir, MOVED);
    let mut freed = None;
    let moved = match move_aside() {
        Err(Errno::PERM) => {
            freed = free_from_flags(file);
            move_aside()
        }
        moved => moved,
    };
    let outcome = match moved {
        Ok(()) => settle(inode, place, aside, id),
        Err(Errno::NOENT) => Outcome::Vanished(None),
        Err(errno) => Outcome::StillThere(reason("it cannot be moved", errno)),
    };
    if let (Some(flags), Outcome::StillThere(_)) = (freed, &outcome)
        && let Err(errno) = ioctl_setflags(file, flags)
    {
        tracing::warn!(item = %id, error = %errno, "cannot give a file its inode flags back");
    }
    outcome
}

/// The entry is in our folder: is it the inode?
fn settle(inode: Inode, place: &Place, aside: &Aside, id: Uuid) -> Outcome {
    let parent = place.parent.as_fd();
    let ours = aside.moved().is_ok_and(|stat| Inode::from(&stat) == inode);
    let unlinked = if ours { aside.unlink() } else { Ok(()) };
    if ours && unlinked.is_ok() {
        return Outcome::Removed;
    }
    let beside = |name: &str| place.path.with_file_name(name);
    match (aside.put_back(parent, &place.name, id), unlinked) {
        (Ok(None), Err(errno)) => Outcome::StillThere(reason("it cannot be unlinked", errno)),
        (Ok(Some(kept)), Err(errno)) => Outcome::Stranded(beside(&kept), errno),
        (Ok(kept), Ok(())) => Outcome::Vanished(kept.map(|name| beside(&name))),
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
