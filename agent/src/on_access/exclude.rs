//! What the config leaves out: paths, processes, content by hash.
//!
//! A name alone proves nothing: with a mount namespace of his own, anybody can make a file or a
//! program appear under any path. So a match counts only when that path, seen from the agent,
//! leads to the same inode.

use std::collections::HashSet;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::sync::{PoisonError, RwLock};

use globset::GlobSet;

use crate::config::Exclude;

/// The exclusions in force.
#[derive(Debug)]
pub struct Exclusions {
    paths: GlobSet,
    processes: GlobSet,
    hashes: RwLock<HashSet<String>>,
}

impl Exclusions {
    /// From the config, and the hashes that operators allowed.
    #[must_use]
    pub fn new(config: &Exclude, allowed: impl IntoIterator<Item = String>) -> Self {
        Self {
            paths: config.paths.clone(),
            processes: config.processes.clone(),
            hashes: RwLock::new(config.hashes.iter().cloned().chain(allowed).collect()),
        }
    }

    /// True when this opener or this path is excluded. Costs nothing where none is configured.
    #[must_use]
    pub fn covers(&self, file: BorrowedFd<'_>, pid: u32) -> bool {
        (!self.paths.is_empty() && self.covers_path(file))
            || (!self.processes.is_empty() && self.covers_process(pid))
    }

    /// True when this content is allowed, whatever matches.
    #[must_use]
    pub fn allow_content(&self, sha256: &str) -> bool {
        self.hashes.read().unwrap_or_else(PoisonError::into_inner).contains(sha256)
    }

    /// Allows content from now on.
    pub fn add_content(&self, sha256: String) {
        self.hashes.write().unwrap_or_else(PoisonError::into_inner).insert(sha256);
    }

    fn covers_path(&self, file: BorrowedFd<'_>) -> bool {
        let link = PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()));
        covers(&self.paths, &link)
    }

    fn covers_process(&self, pid: u32) -> bool {
        covers(&self.processes, &PathBuf::from(format!("/proc/{pid}/exe")))
    }
}

/// True when the magic link leads to a path that matches, and that path to the same inode.
fn covers(globs: &GlobSet, link: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let Ok(path) = std::fs::read_link(link) else { return false };
    if !globs.is_match(&path) {
        return false;
    }
    let (Ok(named), Ok(real)) = (std::fs::symlink_metadata(&path), std::fs::metadata(link)) else {
        return false;
    };
    (named.dev(), named.ino()) == (real.dev(), real.ino())
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::fd::AsFd;

    use super::*;

    fn exclusions(text: &str) -> Exclusions {
        Exclusions::new(&toml::from_str(text).expect("exclusions"), [])
    }

    #[test]
    fn a_path_glob_covers_the_file_at_that_path_and_no_other() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let folder = folder.path().canonicalize().expect("real path");
        let path = folder.join("skipped.log");
        std::fs::write(&path, "x").expect("write");
        let file = File::open(&path).expect("open");
        let globs = exclusions(&format!("paths = [\"{}/*.log\"]", folder.display()));
        assert!(globs.covers(file.as_fd(), 1));
        // Another file has taken the name: the open one is not excluded any more.
        std::fs::remove_file(&path).expect("remove");
        std::fs::write(&path, "y").expect("write");
        assert!(!globs.covers(file.as_fd(), 1));
        let other = folder.join("other.txt");
        std::fs::write(&other, "x").expect("write");
        assert!(!globs.covers(File::open(&other).expect("open").as_fd(), 1));
    }

    #[test]
    fn a_process_glob_covers_by_executable() {
        let file = File::open("/proc/self/status").expect("open");
        let me = std::env::current_exe().expect("own path");
        let globs = exclusions(&format!("processes = [\"{}\"]", me.display()));
        assert!(globs.covers(file.as_fd(), std::process::id()));
        assert!(!globs.covers(file.as_fd(), 1));
    }
}
