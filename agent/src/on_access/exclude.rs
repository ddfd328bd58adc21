//! What the config leaves out: paths, processes, content by hash.
//!
//! A name alone proves nothing: with a mount namespace of his own, anybody can make a file or a
//! program appear under any path. So a match counts only when that path, seen from the agent,
//! leads to the same inode.

use std::collections::{HashMap, HashSet};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use globset::GlobSet;

use crate::config::Exclude;

/// The exclusions in force, for all but the loops: these have paths and processes among their own
/// rules.
#[derive(Debug)]
pub struct Exclusions {
    config: RwLock<Arc<Exclude>>,
    hashes: RwLock<Hashes>,
}

/// Allowed content.
#[derive(Debug, Default)]
struct Hashes {
    /// By the config.
    configured: HashSet<String>,
    /// By operators, each with the time when that ends.
    allowed: HashMap<String, Option<i64>>,
}

impl Exclusions {
    /// From the config, and the hashes that operators allowed.
    #[must_use]
    pub fn new(config: &Exclude, allowed: impl IntoIterator<Item = (String, Option<i64>)>) -> Self {
        let hashes = Hashes { allowed: allowed.into_iter().collect(), ..Hashes::default() };
        let new = Self { config: RwLock::default(), hashes: RwLock::new(hashes) };
        new.replace(config);
        new
    }

    /// Others in place of the config's.
    pub fn replace(&self, config: &Exclude) {
        let configured = config.hashes.iter().cloned().collect();
        *self.config.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(config.clone());
        self.hashes.write().unwrap_or_else(PoisonError::into_inner).configured = configured;
    }

    /// True when this opener or this path is excluded. Costs nothing where none is configured.
    #[must_use]
    pub fn covers(&self, file: BorrowedFd<'_>, pid: u32) -> bool {
        let config = Arc::clone(&self.config.read().unwrap_or_else(PoisonError::into_inner));
        covers(&config, file, pid)
    }

    /// True when this content is allowed, whatever matches. Asked only of content that matched, and
    /// what is allowed is never remembered as clean: so the end of it holds from the next open on.
    #[must_use]
    pub fn allow_content(&self, sha256: &str) -> bool {
        let hashes = self.hashes.read().unwrap_or_else(PoisonError::into_inner);
        hashes.configured.contains(sha256)
            || hashes
                .allowed
                .get(sha256)
                .is_some_and(|until| until.is_none_or(|until_ms| crate::now_ms() < until_ms))
    }

    /// Allows content from now on, until then (milliseconds since the epoch) or for good.
    pub fn add_content(&self, sha256: String, until_ms: Option<i64>) {
        let mut hashes = self.hashes.write().unwrap_or_else(PoisonError::into_inner);
        hashes.allowed.insert(sha256, until_ms);
    }
}

/// True when this opener or this path is excluded. Costs nothing where none is configured.
#[must_use]
pub(super) fn covers(config: &Exclude, file: BorrowedFd<'_>, pid: u32) -> bool {
    (!config.paths.is_empty() && covers_path(config, file))
        || (!config.processes.is_empty() && covers_process(config, pid))
}

fn covers_path(config: &Exclude, file: BorrowedFd<'_>) -> bool {
    let link = PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()));
    leads_to(&config.paths, &link)
}

fn covers_process(config: &Exclude, pid: u32) -> bool {
    leads_to(&config.processes, &PathBuf::from(format!("/proc/{pid}/exe")))
}

/// True when the magic link leads to a path that matches, and that path to the same inode.
fn leads_to(globs: &GlobSet, link: &Path) -> bool {
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
    #[test]
    fn others_take_the_place_of_the_configs_and_not_of_operators() {
        let (ours, theirs) = ("a".repeat(64), "b".repeat(64));
        let config = toml::from_str(&format!("hashes = [\"{ours}\"]")).expect("exclusions");
        let exclusions = Exclusions::new(&config, [(theirs.clone(), None)]);
        assert!(exclusions.allow_content(&ours) && exclusions.allow_content(&theirs));
        exclusions.replace(&Exclude::default());
        assert!(!exclusions.allow_content(&ours) && exclusions.allow_content(&theirs));
    }

    #[test]
    fn content_is_allowed_until_its_time_is_over() {
        let exclusions = exclusions("");
        exclusions.add_content("a".to_owned(), Some(crate::now_ms() + 3_600_000));
        exclusions.add_content("b".to_owned(), Some(crate::now_ms()));
        assert!(exclusions.allow_content("a") && !exclusions.allow_content("b"));
        exclusions.add_content("b".to_owned(), None);
        assert!(exclusions.allow_content("b"));
    }
}
