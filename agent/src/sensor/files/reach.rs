//! Opens files by their path without ever waiting for anybody.
//!
//! Invariant: only `O_PATH` descriptors of file systems that no server answers for (FUSE, NFS …)
//! and that are no kernel interface: users may mount FUSE in their own folders, and a look into
//! one can hang for ever. Every component is opened on its own, and where it crosses a mount, the
//! mount's type is looked up first. Symbolic links are followed only on request.

use std::cell::RefCell;
use std::collections::HashMap;
use std::ffi::OsStr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{AtFlags, Mode, OFlags, ResolveFlags, StatxFlags};
use rustix::io::Errno;

use crate::on_access::mounts;

/// Links that one look follows (the kernel's own limit is 40).
const MOST_LINKS: usize = 16;

/// What can be reached.
#[derive(Default)]
pub(super) struct Reach {
    /// Mounts that may be entered, by id.
    mounts: RefCell<HashMap<u64, bool>>,
}

/// Something that was reached.
#[derive(Debug)]
pub(super) struct Reached {
    /// Open as `O_PATH`.
    pub(super) fd: OwnedFd,
    pub(super) kind: Kind,
    pub(super) uid: u32,
    /// Permission bits.
    pub(super) mode: u32,
    /// Bytes.
    pub(super) size: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Folder,
    Regular,
    Link,
    Other,
}

impl Reach {
    /// The mount table has changed.
    pub(super) fn forget(&self) {
        self.mounts.borrow_mut().clear();
    }

    /// One component, which may be a link itself.
    pub(super) fn step(&self, folder: BorrowedFd<'_>, name: &[u8]) -> Option<Reached> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let name = OsStr::from_bytes(name);
        let inside = ResolveFlags::NO_XDEV | ResolveFlags::NO_MAGICLINKS;
        let fd = match rustix::fs::openat2(folder, name, flags, Mode::empty(), inside) {
            Ok(fd) => fd,
            Err(Errno::XDEV) => {
                let all = ResolveFlags::NO_MAGICLINKS;
                let fd = rustix::fs::openat2(folder, name, flags, Mode::empty(), all).ok()?;
                self.may_enter(fd.as_fd()).then_some(fd)?
            }
            Err(_) => return None,
        };
        reached(fd)
    }

    /// A path from the root that has no links in it.
    pub(super) fn real(&self, path: &Path) -> Option<Reached> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let mut at = reached(rustix::fs::open("/", flags, Mode::empty()).ok()?)?;
        for component in path.components() {
            match component {
                Component::RootDir => {}
                Component::Normal(name) => at = self.step(at.fd.as_fd(), name.as_bytes())?,
                Component::ParentDir | Component::CurDir | Component::Prefix(_) => return None,
            }
        }
        Some(at)
    }

    /// What a link in the folder `real` leads to, and its path without links.
    pub(super) fn follow(&self, real: &Path, link: BorrowedFd<'_>) -> Option<(Reached, PathBuf)> {
        let mut at = real.to_owned();
        let mut rest = Vec::new();
        push_target(&mut at, &mut rest, link)?;
        let mut links = 1;
        while let Some(name) = rest.pop() {
            if name == b".." {
                at.pop();
                continue;
            }
            let folder = self.real(&at)?;
            let next = self.step(folder.fd.as_fd(), &name)?;
            match next.kind {
                Kind::Link => {
                    links += 1;
                    if links > MOST_LINKS {
                        return None;
                    }
                    push_target(&mut at, &mut rest, next.fd.as_fd())?;
                }
                Kind::Folder | Kind::Regular | Kind::Other => at.push(OsStr::from_bytes(&name)),
            }
        }
        Some((self.real(&at)?, at))
    }

    /// Names in a folder, at most so many; true when those were all.
    pub(super) fn names(&self, folder: BorrowedFd<'_>, most: usize) -> (Vec<Vec<u8>>, bool) {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOATIME;
        let open = |flags| rustix::fs::openat(folder, ".", flags, Mode::empty());
        // O_NOATIME is refused on other users' files without CAP_FOWNER.
        let Ok(listed) = open(flags).or_else(|_| open(flags - OFlags::NOATIME)) else {
            return (Vec::new(), false);
        };
        let Ok(entries) = rustix::fs::Dir::read_from(&listed) else { return (Vec::new(), false) };
        let mut names = Vec::new();
        for entry in entries {
            let Ok(entry) = entry else { return (names, false) };
            let name = entry.file_name().to_bytes();
            if name == b"." || name == b".." {
                continue;
            }
            if names.len() == most {
                return (names, false);
            }
            names.push(name.to_vec());
        }
        (names, true)
    }

    /// Whether the mount that this lies on may be entered. Asks the kernel's books, not the file
    /// system.
    fn may_enter(&self, object: BorrowedFd<'_>) -> bool {
        let books = format!("/proc/self/fdinfo/{}", object.as_raw_fd());
        let books = std::fs::read_to_string(books).unwrap_or_default();
        let id = books.lines().find_map(|line| line.strip_prefix("mnt_id:"));
        let Some(id) = id.and_then(|id| id.trim().parse::<u64>().ok()) else { return false };
        if let Some(known) = self.mounts.borrow().get(&id) {
            return *known;
        }
        let table = std::fs::read("/proc/self/mountinfo").unwrap_or_default();
        let table = mounts::parse(&table);
        let mut known = self.mounts.borrow_mut();
        known.clear();
        known.extend(table.iter().map(|mount| (mount.id, mounts::is_local(&mount.fs_type))));
        known.get(&id).copied().unwrap_or(false)
    }
}

/// Puts a link's target in front of what is left to walk; `rest` is reversed.
fn push_target(at: &mut PathBuf, rest: &mut Vec<Vec<u8>>, link: BorrowedFd<'_>) -> Option<()> {
    let target = rustix::fs::readlinkat(link, "", Vec::new()).ok()?;
    let target = target.as_bytes();
    if target.starts_with(b"/") {
        *at = PathBuf::from("/");
    }
    let parts = target.split(|byte| *byte == b'/').rev();
    rest.extend(parts.filter(|part| !part.is_empty() && *part != b".").map(<[u8]>::to_vec));
    Some(())
}

fn reached(fd: OwnedFd) -> Option<Reached> {
    let flags = AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC;
    let statx = rustix::fs::statx(&fd, "", flags, StatxFlags::BASIC_STATS).ok()?;
    let kind = match u32::from(statx.stx_mode) & libc::S_IFMT {
        libc::S_IFDIR => Kind::Folder,
        libc::S_IFREG => Kind::Regular,
        libc::S_IFLNK => Kind::Link,
        _ => Kind::Other,
    };
    let mode = u32::from(statx.stx_mode) & 0o7777;
    Some(Reached { fd, kind, uid: statx.stx_uid, mode, size: statx.stx_size })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn links_are_followed_to_a_path_without_links() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let root = folder.path().canonicalize().expect("path");
        std::fs::create_dir_all(root.join("a/b")).expect("folders");
        std::fs::write(root.join("a/b/file"), "1234567").expect("write");
        symlink("a", root.join("to-a")).expect("link");
        symlink("../to-a/b/./file", root.join("a/to-file")).expect("link");
        symlink("round", root.join("round")).expect("link");
        let reach = Reach::default();
        let inside = reach.real(&root.join("a")).expect("folder");
        let link = reach.step(inside.fd.as_fd(), b"to-file").expect("link");
        assert_eq!(link.kind, Kind::Link);
        let (file, path) = reach.follow(&root.join("a"), link.fd.as_fd()).expect("file");
        assert_eq!((file.kind, file.size), (Kind::Regular, 7));
        assert_eq!(path, root.join("a/b/file"));
        let top = reach.real(&root).expect("folder");
        let round = reach.step(top.fd.as_fd(), b"round").expect("link");
        assert!(reach.follow(&root, round.fd.as_fd()).is_none());
        assert!(reach.real(&root.join("to-a/b")).is_none(), "a link on the way");
        assert_eq!(reach.names(top.fd.as_fd(), 2).0.len(), 2);
        assert!(!reach.names(top.fd.as_fd(), 2).1 && reach.names(top.fd.as_fd(), 3).1);
    }

    #[test]
    fn kernel_interfaces_are_not_entered() {
        let reach = Reach::default();
        assert!(reach.real(Path::new("/proc/self")).is_none());
        assert!(reach.real(Path::new("/etc")).is_some());
    }
}
