//! Walks a tree by descriptors: each step goes from the descriptor of the folder above, follows no
//! link, and looks at what it holds before it opens it for reading.
//!
//! INVARIANT: whoever can rename, replace or mount under the walk cannot lead it elsewhere than to
//! what lies in the folder that it holds open. It keeps one open folder a level and nothing of a
//! folder's entries, so a folder of a million costs what one of ten does. What is done with a file
//! is the visitor's.

use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use holdfast_common::scans::LeftOutReason;
use rustix::fs::{Dir, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use crate::sys::identity::Facts;

/// Folders inside folders. Each open one costs a descriptor.
pub(super) const MOST_DEPTH: usize = 256;

/// `statfs(2)` types that hold no files of people: proc, sysfs, cgroup, cgroup2, debugfs, tracefs,
/// securityfs, bpf, devpts, configfs, pstore, efivarfs, mqueue, selinuxfs, nsfs, binfmt_misc.
const PSEUDO: [i64; 16] = [
    0x9fa0,
    0x6265_6572,
    0x27_e0eb,
    0x6367_7270,
    0x6462_6720,
    0x7472_6163,
    0x7363_6673,
    0xcafe_4a11,
    0x1cd1,
    0x6265_6570,
    0x6165_676c,
    0xde5e_81e4,
    0x1980_0202,
    0xf97c_ff8c,
    0x6e73_6673,
    0x4249_4e4d,
];

/// The same that somebody serves who may never answer: FUSE, NFS, CIFS, SMB2, 9p, autofs, ceph.
const REMOTE: [i64; 7] =
    [0x6573_5546, 0x6969, 0xff53_4d42, 0xfe53_4d42, 0x0102_1997, 0x0187, 0x00c3_6400];

/// Takes what the walk comes to.
pub(super) trait Visit {
    /// The walk ends.
    type End;

    /// A regular file: its path as it was walked, and a descriptor of it that reads nothing
    /// (`O_PATH`).
    fn file(&mut self, path: &Path, handle: OwnedFd) -> Result<(), Self::End>;

    /// What is not gone into. `cause` is the system's word for it.
    fn left_out(&mut self, path: &Path, why: LeftOutReason, cause: Option<Errno>);

    /// Called for each entry, whatever it is.
    fn step(&mut self) -> Result<(), Self::End>;
}

/// One open folder.
struct Level {
    dir: Dir,
    mount: u64,
    /// Where its name ends in the path.
    path_length: usize,
}

/// Walks what `root` holds: a folder with all below it, or one file.
///
/// `into_mounts`: go into local file systems that are mounted below; else they are left out.
pub(super) fn walk<V: Visit>(
    root: &Path,
    handle: OwnedFd,
    into_mounts: bool,
    visit: &mut V,
) -> Result<(), V::End> {
    let mut walk = Walk { path: root.as_os_str().as_bytes().to_vec(), levels: Vec::new() };
    walk.entry(handle, None, into_mounts, visit)?;
    while let Some(level) = walk.levels.last_mut() {
        walk.path.truncate(level.path_length);
        visit.step()?;
        let entry = match level.dir.next() {
            None => {
                walk.levels.pop();
                continue;
            }
            Some(Err(error)) => {
                visit.left_out(&walk.shown(), LeftOutReason::Unreadable, Some(error));
                walk.levels.pop();
                continue;
            }
            Some(Ok(entry)) => entry,
        };
        let name = entry.file_name();
        if name == c"." || name == c".." {
            continue;
        }
        let mount = level.mount;
        if walk.path.last() != Some(&b'/') {
            walk.path.push(b'/');
        }
        walk.path.extend_from_slice(name.to_bytes());
        if let Some(why) = by_type(entry.file_type()) {
            visit.left_out(&walk.shown(), why, None);
            continue;
        }
        let Some(level) = walk.levels.last() else { return Ok(()) };
        match level.dir.fd().and_then(|folder| peek(folder, name)) {
            Ok(handle) => walk.entry(handle, Some(mount), into_mounts, visit)?,
            Err(error) => visit.left_out(&walk.shown(), reason_of(error), Some(error)),
        }
    }
    Ok(())
}

struct Walk {
    path: Vec<u8>,
    levels: Vec<Level>,
}

impl Walk {
    fn shown(&self) -> PathBuf {
        PathBuf::from(std::ffi::OsStr::from_bytes(&self.path))
    }

    /// What an entry is by its descriptor decides, not what its folder said of it.
    fn entry<V: Visit>(
        &mut self,
        handle: OwnedFd,
        above: Option<u64>,
        into_mounts: bool,
        visit: &mut V,
    ) -> Result<(), V::End> {
        let path = self.shown();
        let kind = rustix::fs::fstat(&handle).map(|stat| FileType::from_raw_mode(stat.st_mode));
        match kind {
            Ok(FileType::RegularFile) => match Facts::of(handle.as_fd()) {
                // A file can be mounted, too.
                Ok(facts) if !into_mounts && above.is_some_and(|above| above != facts.mount) => {
                    visit.left_out(&path, LeftOutReason::OtherMount, None);
                    Ok(())
                }
                Ok(_) | Err(_) => visit.file(&path, handle),
            },
            Ok(FileType::Directory) => {
                match self.open(&handle, above, into_mounts) {
                    Ok(level) => self.levels.push(level),
                    Err((why, cause)) => visit.left_out(&path, why, cause),
                }
                Ok(())
            }
            Ok(FileType::Symlink) => {
                visit.left_out(&path, LeftOutReason::Symlink, None);
                Ok(())
            }
            Ok(_) => {
                visit.left_out(&path, LeftOutReason::Special, None);
                Ok(())
            }
            Err(error) => {
                visit.left_out(&path, reason_of(error), Some(error));
                Ok(())
            }
        }
    }

    fn open(
        &self,
        handle: &OwnedFd,
        above: Option<u64>,
        into_mounts: bool,
    ) -> Result<Level, (LeftOutReason, Option<Errno>)> {
        let facts = Facts::of(handle.as_fd()).map_err(|error| {
            (LeftOutReason::Unreadable, error.raw_os_error().map(Errno::from_raw_os_error))
        })?;
        let failed = |error: Errno| (reason_of(error), Some(error));
        // Mount ids are told from 5.8 on; before, each folder is asked.
        let crossed = above.is_none_or(|above| above != facts.mount);
        if crossed || facts.mount == 0 {
            let kind = rustix::fs::fstatfs(handle).map_err(failed)?.f_type;
            if PSEUDO.contains(&kind) {
                return Err((LeftOutReason::PseudoFileSystem, None));
            }
            if REMOTE.contains(&kind) {
                return Err((LeftOutReason::RemoteFileSystem, None));
            }
        }
        if above.is_some() && crossed && !into_mounts {
            return Err((LeftOutReason::OtherMount, None));
        }
        if self.levels.len() >= MOST_DEPTH {
            return Err((LeftOutReason::TooDeep, None));
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let quiet = flags | OFlags::NOATIME;
        let folder = rustix::fs::openat(handle, c".", quiet, Mode::empty())
            .or_else(|_| rustix::fs::openat(handle, c".", flags, Mode::empty()))
            .map_err(failed)?;
        let dir = Dir::new(folder).map_err(failed)?;
        Ok(Level { dir, mount: facts.mount, path_length: self.path.len() })
    }
}

/// What needs no look.
fn by_type(told: FileType) -> Option<LeftOutReason> {
    match told {
        FileType::Symlink => Some(LeftOutReason::Symlink),
        FileType::Fifo | FileType::Socket | FileType::CharacterDevice | FileType::BlockDevice => {
            Some(LeftOutReason::Special)
        }
        FileType::RegularFile | FileType::Directory | FileType::Unknown => None,
    }
}

/// One step down: neither reads nor mounts nor follows anything.
pub(super) fn peek(folder: BorrowedFd<'_>, name: &CStr) -> Result<OwnedFd, Errno> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let resolve = ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    match rustix::fs::openat2(folder, name, flags, Mode::empty(), resolve) {
        // Before 5.6; one component and O_NOFOLLOW come to the same.
        Err(Errno::NOSYS) => rustix::fs::openat(folder, name, flags, Mode::empty()),
        opened => opened,
    }
}

fn reason_of(error: Errno) -> LeftOutReason {
    match error {
        Errno::NOENT => LeftOutReason::Vanished,
        Errno::LOOP => LeftOutReason::Symlink,
        _ => LeftOutReason::Unreadable,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    type Act = Box<dyn FnMut(&Path)>;

    #[derive(Default)]
    struct Seen {
        files: Vec<PathBuf>,
        left_out: BTreeMap<LeftOutReason, Vec<PathBuf>>,
        steps: usize,
        on_file: Option<Act>,
    }

    impl Visit for Seen {
        type End = ();

        fn file(&mut self, path: &Path, _handle: OwnedFd) -> Result<(), ()> {
            self.files.push(path.to_owned());
            if let Some(act) = &mut self.on_file {
                act(path);
            }
            Ok(())
        }

        fn left_out(&mut self, path: &Path, why: LeftOutReason, _cause: Option<Errno>) {
            self.left_out.entry(why).or_default().push(path.to_owned());
        }

        fn step(&mut self) -> Result<(), ()> {
            self.steps += 1;
            if self.steps > 100_000 { Err(()) } else { Ok(()) }
        }
    }

    fn run(root: &Path, seen: &mut Seen) {
        let handle =
            rustix::fs::open(root, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).expect("root");
        walk(root, handle, true, seen).expect("to its end");
    }

    #[test]
    fn every_file_is_met_once_whatever_its_name_and_links_are_left() {
        let folder = tempfile::tempdir().expect("folder");
        let root = folder.path();
        fs::create_dir_all(root.join("a/b")).expect("folders");
        let odd = root.join(std::ffi::OsStr::from_bytes(b"a/new\nline\xff \x1b[2J"));
        for path in [root.join("one"), root.join("a/two"), root.join("a/b/three"), odd.clone()] {
            fs::write(path, "x").expect("file");
        }
        symlink("/", root.join("a/up")).expect("link");
        rustix::fs::mknodat(rustix::fs::CWD, root.join("pipe"), FileType::Fifo, Mode::RUSR, 0)
            .expect("pipe");
        let mut seen = Seen::default();
        run(root, &mut seen);
        seen.files.sort();
        assert_eq!(seen.files.len(), 4, "{:?}", seen.files);
        assert!(seen.files.contains(&odd));
        assert_eq!(seen.left_out[&LeftOutReason::Symlink], [root.join("a/up")]);
        assert_eq!(seen.left_out[&LeftOutReason::Special], [root.join("pipe")]);
        let mut seen = Seen::default();
        run(&root.join("one"), &mut seen);
        assert_eq!(seen.files, [root.join("one")], "a file is its own walk");
    }

    #[test]
    fn a_folder_swapped_for_a_link_under_the_walk_leads_nowhere() {
        let folder = tempfile::tempdir().expect("folder");
        let (root, outside) = (folder.path().join("root"), folder.path().join("outside"));
        for name in ["a", "b", "c", "d"] {
            fs::create_dir_all(root.join(name)).expect("folders");
            fs::write(root.join(name).join("file"), "x").expect("file");
        }
        fs::create_dir(&outside).expect("folder");
        fs::write(outside.join("secret"), "x").expect("file");
        let (moving, target) = (root.clone(), outside.clone());
        let act = move |_: &Path| {
            // Whatever is walked now, every folder becomes a link to the outside.
            for name in ["a", "b", "c", "d"] {
                let path = moving.join(name);
                if path.symlink_metadata().is_ok_and(|facts| facts.is_dir()) {
                    let _ = fs::rename(&path, target.join(format!("was-{name}")));
                    let _ = symlink(&target, &path);
                }
            }
        };
        let mut seen = Seen { on_file: Some(Box::new(act)), ..Seen::default() };
        run(&root, &mut seen);
        assert_eq!(seen.files.len(), 1, "{:?}", seen.files);
        assert!(!seen.files.iter().any(|path| path.ends_with("secret")), "{:?}", seen.files);
    }

    #[test]
    fn a_tree_deeper_than_the_limit_is_cut_and_said_so() {
        let folder = tempfile::tempdir().expect("folder");
        let mut at =
            rustix::fs::open(folder.path(), OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty())
                .expect("root");
        for _ in 0..MOST_DEPTH + 50 {
            rustix::fs::mkdirat(&at, c"d", Mode::RWXU).expect("folder");
            let flags = OFlags::RDONLY | OFlags::DIRECTORY;
            at = rustix::fs::openat(&at, c"d", flags, Mode::empty()).expect("below");
        }
        let mut seen = Seen::default();
        run(folder.path(), &mut seen);
        assert_eq!(seen.left_out[&LeftOutReason::TooDeep].len(), 1);
    }

    #[test]
    fn kernel_interfaces_are_not_gone_into() {
        let mut seen = Seen::default();
        run(Path::new("/proc"), &mut seen);
        assert!(seen.files.is_empty());
        assert_eq!(seen.left_out[&LeftOutReason::PseudoFileSystem], [PathBuf::from("/proc")]);
    }
}
