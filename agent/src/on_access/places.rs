//! Denied paths, as the held path asks for them.
//!
//! A file is denied by the name that the kernel has for it (so no `..`, symbolic link or folder under
//! another name is a way around), and by its inode where the agent has seen it lie at a denied path:
//! another name of it, a bind mount or another mount namespace show the same inode. A name alone
//! condemns no inode: with a mount namespace of his own anybody makes any file appear there.
//!
//! INVARIANT: where no path is denied, asking costs two comparisons. Where some are, it makes one
//! system call, opens nothing and waits for nobody; what this host runs on is never denied by it,
//! and neither is a file whose name the kernel does not say. A value that is replaced as a whole:
//! each loop has it among its rules.

use std::collections::HashSet;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use globset::GlobSet;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::path::DecInt;

use crate::sys::identity::Facts;

/// Bytes of a path, as the kernel gives it (`PATH_MAX`).
const LONGEST: usize = 4096;
/// What the kernel puts behind the name of a file that has none any more.
const DELETED: &[u8] = b" (deleted)";

/// What is told of in one [`WINDOW`], each file once; the rest is counted.
const MOST_TOLD: usize = 60;
const WINDOW: Duration = Duration::from_secs(10);

/// Device, inode and birth: the last so that a number that is used again is not the same file.
pub type Inode = ((u32, u32), u64, (i64, u32));

/// What is denied.
#[derive(Debug, Default)]
pub struct Places {
    /// Paths without a sign that stands for others.
    pub names: HashSet<Vec<u8>>,
    /// The others.
    pub globs: GlobSet,
    /// What lies, or has lain, at those of `names`.
    pub inodes: HashSet<Inode>,
    /// What this host runs on: never denied, under whatever name.
    pub spared: HashSet<Inode>,
    /// `/proc/self/fd`, where names are asked for.
    pub descriptors: Option<OwnedFd>,
}

/// The inode of an open file.
#[must_use]
pub fn inode_of(facts: &Facts) -> Inode {
    let identity = &facts.identity;
    (identity.device, identity.inode, identity.born)
}

/// Where names of this process's descriptors are asked for.
///
/// # Errors
/// As `open(2)`.
pub fn descriptors() -> std::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(rustix::fs::open("/proc/self/fd", flags, Mode::empty())?)
}

impl Places {
    /// Nothing is denied.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.names.is_empty() && self.globs.is_empty()
    }

    /// Whether this open file is denied.
    #[must_use]
    #[inline]
    pub fn covers(&self, file: BorrowedFd<'_>, facts: &Facts) -> bool {
        !self.is_empty() && facts.regular && self.look(file, &inode_of(facts))
    }

    /// Apart, so that its buffer costs nothing where nothing is denied.
    #[inline(never)]
    fn look(&self, file: BorrowedFd<'_>, inode: &Inode) -> bool {
        if self.spared.contains(inode) {
            return false;
        }
        if self.inodes.contains(inode) {
            return true;
        }
        let Some(descriptors) = &self.descriptors else { return false };
        let number = DecInt::from_fd(file);
        let mut buffer = [MaybeUninit::<u8>::uninit(); LONGEST];
        let told =
            rustix::fs::readlinkat_raw(descriptors.as_fd(), number.as_c_str(), &mut buffer[..]);
        match told {
            Ok((name, _)) if name.len() < LONGEST => {
                self.denies(name)
                    || name.strip_suffix(DELETED).is_some_and(|left| self.denies(left))
            }
            // Too long for the kernel to say, which no exact path is: whoever hides so deep from a
            // pattern gains nothing.
            Ok(_) | Err(Errno::NAMETOOLONG) => !self.globs.is_empty(),
            // No reason to deny every file of the host.
            Err(_) => false,
        }
    }

    fn denies(&self, name: &[u8]) -> bool {
        self.names.contains(name)
            || self.globs.is_match(Path::new(std::ffi::OsStr::from_bytes(name)))
    }
}

/// Which denied files were told of a moment ago: a program may try again and again.
#[derive(Debug, Default)]
pub(super) struct Told(Mutex<Option<(Instant, HashSet<Inode>)>>);

impl Told {
    /// Whether this one is to be told of.
    pub(super) fn is_news(&self, inode: Inode, now: Instant) -> bool {
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let fresh = told.take().filter(|(since, _)| now.duration_since(*since) < WINDOW);
        let (since, mut files) = fresh.unwrap_or_else(|| (now, HashSet::new()));
        let news = files.len() < MOST_TOLD && files.insert(inode);
        *told = Some((since, files));
        news
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use globset::GlobSetBuilder;

    use super::*;

    fn covers(places: &Places, path: &Path) -> bool {
        let file = File::open(path).expect("open");
        let facts = Facts::of(file.as_fd()).expect("facts");
        places.covers(file.as_fd(), &facts)
    }

    #[test]
    fn a_file_is_denied_by_its_true_name_and_by_what_has_lain_there() {
        let folder = tempfile::tempdir().expect("folder");
        let real = folder.path().canonicalize().expect("real");
        let (exact, other) = (real.join("exact"), real.join("other"));
        std::fs::create_dir(real.join("sub")).expect("folder");
        for path in [&exact, &other] {
            std::fs::write(path, "x").expect("write");
        }
        std::fs::hard_link(&exact, real.join("hard")).expect("link");
        std::os::unix::fs::symlink(&exact, real.join("soft")).expect("link");
        let mut places = Places {
            names: [exact.as_os_str().as_bytes().to_vec()].into(),
            descriptors: Some(descriptors().expect("descriptors")),
            ..Places::default()
        };
        for name in ["exact", "soft", "sub/../exact"] {
            assert!(covers(&places, &real.join(name)), "{name}");
        }
        assert!(!covers(&places, &other) && !covers(&places, &real.join("hard")));
        // The agent saw it there: other names of it are no way around.
        let file = File::open(&exact).expect("open");
        places.inodes.insert(inode_of(&Facts::of(file.as_fd()).expect("facts")));
        assert!(covers(&places, &real.join("hard")) && !covers(&places, &other));
        std::fs::rename(&exact, real.join("away")).expect("rename");
        assert!(covers(&places, &real.join("away")), "moved away");
        std::fs::rename(&other, &exact).expect("rename");
        assert!(covers(&places, &exact), "put in its place");
        // One that has no name any more still has had it.
        let file = File::open(&exact).expect("open");
        std::fs::remove_file(&exact).expect("remove");
        let facts = Facts::of(file.as_fd()).expect("facts");
        assert!(places.covers(file.as_fd(), &facts));
        assert!(!Places::default().covers(file.as_fd(), &facts));
        places.spared.insert(inode_of(&facts));
        assert!(!places.covers(file.as_fd(), &facts), "what the host runs on");
        // Where no name can be asked for, nothing is denied that was not seen.
        let nameless = Places { descriptors: None, spared: HashSet::new(), ..places };
        assert!(!nameless.covers(file.as_fd(), &facts));
    }

    #[test]
    fn a_file_is_told_of_once_in_a_while_and_a_crowd_of_files_is_bounded() {
        let (told, begin) = (Told::default(), Instant::now());
        let file = |number| ((0, 0), number, (0, 0));
        assert!(told.is_news(file(1), begin) && !told.is_news(file(1), begin));
        let crowd = (2..1000).filter(|number| told.is_news(file(*number), begin)).count();
        assert_eq!(crowd, MOST_TOLD - 1);
        assert!(told.is_news(file(1), begin + WINDOW));
    }

    #[test]
    fn a_pattern_covers_what_comes_later_and_no_more_than_it_says() {
        let folder = tempfile::tempdir().expect("folder");
        let real = folder.path().canonicalize().expect("real");
        let pattern = format!("{}/**/*.tmp", real.display());
        let mut globs = GlobSetBuilder::new();
        globs.add(holdfast_common::denial::glob(&pattern).expect("pattern"));
        let places = Places {
            globs: globs.build().expect("set"),
            descriptors: Some(descriptors().expect("descriptors")),
            ..Places::default()
        };
        std::fs::create_dir_all(real.join("a/b")).expect("folders");
        for (name, wanted) in
            [("a/b/x.tmp", true), ("x.tmp", true), ("a/x.tmpl", false), ("a/.tmp", true)]
        {
            std::fs::write(real.join(name), "x").expect("write");
            assert_eq!(covers(&places, &real.join(name)), wanted, "{name}");
        }
        let folder = File::open(real.join("a")).expect("open");
        let facts = Facts::of(folder.as_fd()).expect("facts");
        assert!(!places.covers(folder.as_fd(), &facts), "files alone are denied");
    }
}
