//! The mounts of one namespace as one of its tasks sees them, and a way to each that cannot hang
//! or be led astray by whoever owns that namespace.
//!
//! The way goes from the task's root from mount to mount, as its own table says. INVARIANT:
//!
//! - A task is asked through its open folder in `/proc`: another one that gets its pid is not it.
//! - A path is walked inside one mount at a time (`RESOLVE_NO_XDEV`), follows no link of `/proc`,
//!   and leaves nothing upwards. After each step the kernel is asked which mount was reached; one
//!   that is not the expected one ends the walk.
//! - Where a user's server could be asked (FUSE, an overlay that a user has mounted) only what the
//!   kernel has in memory is used (`RESOLVE_CACHED`, 5.12), as mount points always are.
//!
//! Marks nothing. The descriptors are `O_PATH`, for a moment: they keep mounts from going.

use std::collections::HashMap;
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, ResolveFlags, Statx, StatxFlags, openat, openat2};
use rustix::io::Errno;

use crate::on_access::mounts::{Mount, holder, parse};
use crate::on_access::namespaces::{mount_namespace, user_namespace};

/// Bytes of a mount table that are read: 100,000 mounts, the kernel's own limit, of 160 bytes.
const MOST_TABLE: u64 = 16 << 20;

/// Mounts on one another from a root to a mount.
const MOST_STEPS: usize = 256;

/// Tries of a walk that others' renames and mounts disturb (`EAGAIN`, openat2(2)).
const TRIES: usize = 8;

/// Never out of one mount, never up, never through `/proc`.
const INSIDE: ResolveFlags =
    ResolveFlags::BENEATH.union(ResolveFlags::NO_XDEV).union(ResolveFlags::NO_MAGICLINKS);

/// The last step to a mount point: it alone may cross.
const ACROSS: ResolveFlags =
    ResolveFlags::BENEATH.union(ResolveFlags::NO_SYMLINKS).union(ResolveFlags::NO_MAGICLINKS);

/// One task's sight of its mount namespace.
#[derive(Debug)]
pub(super) struct View {
    pub(super) mounts: Vec<Mount>,
    by_id: HashMap<u64, usize>,
    root: OwnedFd,
    root_mount: u64,
    /// In a user namespace of its own: its mounts may be made by somebody unprivileged.
    pub(super) of_users: bool,
}

/// Why a task gave no view.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NoView {
    /// It has ended or left: nothing is missed.
    Gone,
    /// Its root is not in its own table, or lies on a server that could hang.
    Closed,
}

impl View {
    /// Through a task's folder in `/proc`. `own_users` is the agent's user namespace.
    pub(super) fn of(task: &Path, namespace: u64, own_users: u64) -> Result<Self, NoView> {
        let gone = |_| NoView::Gone;
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let task = openat(CWD, task, flags, Mode::empty()).map_err(gone)?;
        if mount_namespace(&task, Path::new("ns/mnt")).map_err(gone)? != namespace {
            return Err(NoView::Gone);
        }
        let of_users = user_namespace(&task).map_err(gone)? != own_users;
        let table = OFlags::RDONLY | OFlags::CLOEXEC;
        let table = openat(&task, c"mountinfo", table, Mode::empty()).map_err(gone)?;
        let mut text = Vec::new();
        std::fs::File::from(table)
            .take(MOST_TABLE)
            .read_to_end(&mut text)
            .map_err(|_| NoView::Gone)?;
        let mounts = parse(&text);
        if mounts.iter().any(|mount| mount.point == Path::new("/") && mount.is_remote()) {
            return Err(NoView::Closed);
        }
        // A magic link: goes to the task's root by itself, walks nothing.
        let root = openat(&task, c"root", flags, Mode::empty()).map_err(gone)?;
        let root_mount = mount_of(root.as_fd()).ok_or(NoView::Closed)?;
        let by_id: HashMap<u64, usize> =
            mounts.iter().enumerate().map(|(index, mount)| (mount.id, index)).collect();
        if !by_id.contains_key(&root_mount) {
            return Err(NoView::Closed);
        }
        Ok(Self { mounts, by_id, root, root_mount, of_users })
    }

    /// The mount point of a mount of this view.
    pub(super) fn reach(&self, mount: &Mount) -> Result<OwnedFd, String> {
        let steps = self.steps(mount).ok_or("not to be reached from the root of its task")?;
        let mut at = self.root.try_clone().map_err(|error| error.to_string())?;
        let mut from = self.mount(self.root_mount).ok_or("its task has another root by now")?;
        for step in steps {
            let way = step.point.strip_prefix(&from.point).map_err(|error| error.to_string())?;
            // One mount on the other at one point: the walk there has ended on the topmost.
            if !way.as_os_str().is_empty() {
                if mount_of(at.as_fd()) != Some(from.id) {
                    return Err("hidden below another mount".to_owned());
                }
                at = self.cross(at.as_fd(), from, way)?;
            }
            from = step;
        }
        if mount_of(at.as_fd()) == Some(mount.id) {
            Ok(at)
        } else {
            Err("hidden below another mount".to_owned())
        }
    }

    /// A folder by its path, on a file system that no server and no other file system lies behind.
    pub(super) fn folder(&self, path: &Path) -> Result<OwnedFd, String> {
        let plain =
            path.components().all(|part| matches!(part, Component::RootDir | Component::Normal(_)));
        if !path.is_absolute() || !plain {
            return Err("not a full path".to_owned());
        }
        let mount = holder(&self.mounts, path).ok_or("on no mount")?;
        if mount.is_remote() || mount.fs_type == "overlay" {
            return Err(format!("lies on {}, which cannot be marked", mount.fs_type));
        }
        let at = self.reach(mount)?;
        let rest = path.strip_prefix(&mount.point).map_err(|error| error.to_string())?;
        if rest.as_os_str().is_empty() {
            return Ok(at);
        }
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        self.open(at.as_fd(), mount, rest, flags, INSIDE).map_err(|error| error.to_string())
    }

    /// From a root to a mount, the root itself left out.
    fn steps<'m>(&'m self, mount: &'m Mount) -> Option<Vec<&'m Mount>> {
        let mut steps = Vec::new();
        let mut at = mount;
        while at.id != self.root_mount {
            if steps.len() >= MOST_STEPS {
                return None;
            }
            steps.push(at);
            at = self.mount(at.parent)?;
        }
        steps.reverse();
        Some(steps)
    }

    fn mount(&self, id: u64) -> Option<&Mount> {
        self.mounts.get(*self.by_id.get(&id)?)
    }

    /// Walks inside `from` to the folder of a mount point, then onto what is mounted there.
    fn cross(&self, at: BorrowedFd<'_>, from: &Mount, way: &Path) -> Result<OwnedFd, String> {
        let name = PathBuf::from(way.file_name().ok_or("a mount point without a name")?);
        let folder = way.parent().filter(|folder| !folder.as_os_str().is_empty());
        let flags = OFlags::PATH | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let folder = folder
            .map(|folder| {
                let inside = INSIDE | ResolveFlags::NO_SYMLINKS;
                self.open(at, from, folder, flags | OFlags::DIRECTORY, inside)
            })
            .transpose()
            .map_err(|error| format!("the way to it: {error}"))?;
        let folder = folder.as_ref().map_or(at, AsFd::as_fd);
        self.open(folder, from, &name, flags, ACROSS).map_err(|error| error.to_string())
    }

    fn open(
        &self,
        at: BorrowedFd<'_>,
        on: &Mount,
        path: &Path,
        flags: OFlags,
        resolve: ResolveFlags,
    ) -> Result<OwnedFd, Errno> {
        let walk = |resolve| {
            let mut tries = (0..TRIES).map(|_| openat2(at, path, flags, Mode::empty(), resolve));
            tries.find(|walked| !matches!(walked, Err(Errno::AGAIN))).unwrap_or(Err(Errno::AGAIN))
        };
        let may_ask = on.is_remote() || (on.fs_type == "overlay" && self.of_users);
        match walk(resolve | ResolveFlags::CACHED) {
            Err(Errno::AGAIN) if !may_ask => walk(resolve),
            walked => walked,
        }
    }
}

/// Which mount an open file is on (5.8); asks no server.
fn mount_of(file: BorrowedFd<'_>) -> Option<u64> {
    let statx = look(file)?;
    (statx.stx_mask & StatxFlags::MNT_ID.bits() != 0).then_some(statx.stx_mnt_id)
}

/// The device of what an open file lies on; asks no server.
pub(super) fn device_of(file: BorrowedFd<'_>) -> Option<(u32, u32)> {
    look(file).map(|statx| (statx.stx_dev_major, statx.stx_dev_minor))
}

fn look(file: BorrowedFd<'_>) -> Option<Statx> {
    let flags = AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC;
    rustix::fs::statx(file, c"", flags, StatxFlags::MNT_ID).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own() -> View {
        let task = Path::new("/proc/self");
        let namespace = mount_namespace(CWD, &task.join("ns/mnt")).expect("own");
        let task = openat(CWD, task, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).expect("self");
        let users = user_namespace(&task).expect("own users");
        View::of(Path::new("/proc/self"), namespace, users).expect("own view")
    }

    #[test]
    fn every_mount_of_our_own_is_reached_or_named_as_hidden() {
        let view = own();
        assert!(!view.of_users);
        let mut reached = 0;
        for mount in &view.mounts {
            match view.reach(mount) {
                Ok(point) => {
                    assert_eq!(mount_of(point.as_fd()), Some(mount.id));
                    reached += 1;
                }
                // Tests beside this one unmount theirs.
                Err(reason) => println!("{}: {reason}", mount.point.display()),
            }
        }
        assert!(reached > 1, "{:?}", view.mounts);
    }

    #[test]
    fn a_folder_is_found_by_its_mount_and_nothing_is_walked_upwards_or_onto_servers() {
        let view = own();
        assert!(view.folder(Path::new("/tmp")).is_ok() || view.folder(Path::new("/")).is_ok());
        assert!(view.folder(Path::new("/tmp/../etc")).is_err());
        assert!(view.folder(Path::new("tmp")).is_err());
        assert_eq!(
            view.folder(Path::new("/holdfast-is-not-there")).map(|_| ()),
            Err(Errno::NOENT.to_string())
        );
    }

    #[test]
    fn a_task_that_is_gone_or_is_in_another_namespace_gives_no_view() {
        let none = View::of(Path::new("/proc/4294967290"), 1, 1);
        assert_eq!(none.err(), Some(NoView::Gone));
        assert_eq!(View::of(Path::new("/proc/self"), 1, 1).err(), Some(NoView::Gone));
    }
}
