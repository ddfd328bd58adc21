//! The mount namespaces that tasks of this host live in, found through `/proc`.
//!
//! A namespace is known by its inode number (namespaces(7)); a thread may have one of its own.
//! Bounded by time, not by number: a census that was cut goes on where it stopped. Does not find
//! a namespace that no task is in, and looks into none: see [`super::view`].

use std::collections::BTreeMap;
use std::fs;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Instant;

use rustix::fs::readlinkat;

/// Tasks remembered of each namespace: one may end before it is asked, or see only a part.
const TASKS: usize = 4;

/// `/proc/PID/task` has a link for each thread beside its own two (`proc_task_getattr`).
const LINKS_OF_ONE_THREAD: u64 = 3;

/// Number of the mount namespace of a task (its folder in `/proc`, or an entry in it).
///
/// # Errors
/// `ENOENT`, `ESRCH` when the task has ended.
pub(super) fn mount_namespace(task: impl AsFd, name: &Path) -> rustix::io::Result<u64> {
    number(readlinkat(task, name, Vec::new())?.to_bytes())
}

/// The same for its user namespace.
pub(super) fn user_namespace(task: impl AsFd) -> rustix::io::Result<u64> {
    number(readlinkat(task, c"ns/user", Vec::new())?.to_bytes())
}

/// `mnt:[4026531841]`
fn number(link: &[u8]) -> rustix::io::Result<u64> {
    std::str::from_utf8(link)
        .ok()
        .and_then(|link| link.split_once(":[")?.1.strip_suffix(']')?.parse().ok())
        .ok_or(rustix::io::Errno::INVAL)
}

/// Goes through the tasks, from where it stopped the last time.
#[derive(Debug, Default)]
pub(super) struct Census {
    next_pid: u32,
}

/// What a census has found.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// Folders in `/proc` of some tasks of each namespace, by the namespace's number.
    pub(super) tasks: BTreeMap<u64, Vec<PathBuf>>,
    /// False when time was up before every task was asked.
    pub(super) complete: bool,
}

impl Census {
    /// Asks every task, but for those in the namespace `own`, until `end`.
    ///
    /// # Errors
    /// When `/proc` cannot be listed.
    pub(super) fn take(&mut self, own: u64, end: Instant) -> std::io::Result<Found> {
        let mut pids: Vec<u32> = fs::read_dir("/proc")?
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
            .collect();
        pids.sort_unstable();
        let begin = pids.partition_point(|pid| *pid < self.next_pid);
        pids.rotate_left(begin);
        let mut found = Found { complete: true, ..Found::default() };
        let mut note = |namespace: u64, task: PathBuf| {
            let tasks = found.tasks.entry(namespace).or_default();
            if namespace != own && tasks.len() < TASKS {
                tasks.push(task);
            }
        };
        for pid in pids {
            if Instant::now() >= end {
                self.next_pid = pid;
                found.complete = false;
                break;
            }
            for task in tasks_of(pid) {
                // One that has ended meanwhile has no namespace any more.
                if let Ok(namespace) = mount_namespace(rustix::fs::CWD, &task.join("ns/mnt")) {
                    note(namespace, task);
                }
            }
        }
        found.tasks.remove(&own);
        Ok(found)
    }
}

/// The process itself, or each of its threads.
fn tasks_of(pid: u32) -> Vec<PathBuf> {
    let process = PathBuf::from(format!("/proc/{pid}"));
    let threads = process.join("task");
    let several = fs::metadata(&threads).is_ok_and(|task| task.nlink() > LINKS_OF_ONE_THREAD);
    let listed = several.then(|| fs::read_dir(&threads).ok()).flatten();
    match listed {
        Some(threads) => threads.flatten().map(|thread| thread.path()).collect(),
        None => vec![process],
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn own() -> u64 {
        mount_namespace(rustix::fs::CWD, Path::new("/proc/self/ns/mnt")).expect("own namespace")
    }

    #[test]
    fn a_link_that_is_not_as_documented_is_no_number() {
        assert_eq!(number(b"mnt:[4026531841]"), Ok(4_026_531_841));
        for bad in [&b"mnt:[]"[..], b"mnt:4026531841", b"mnt:[-1]", b"", b"\xff:[1]"] {
            assert!(number(bad).is_err());
        }
    }

    #[test]
    fn a_namespace_of_one_thread_alone_is_found_and_our_own_is_left_out() {
        // Needs CAP_SYS_ADMIN, as the whole agent does.
        let (ready, wait) = std::sync::mpsc::channel();
        let (done, hold) = std::sync::mpsc::channel::<()>();
        let thread = std::thread::spawn(move || {
            nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).expect("unshare");
            let link = Path::new("/proc/thread-self/ns/mnt");
            ready.send(mount_namespace(rustix::fs::CWD, link).expect("number")).expect("send");
            let _ = hold.recv();
        });
        let namespace = wait.recv().expect("its namespace");
        assert_ne!(namespace, own());
        let end = Instant::now() + Duration::from_secs(60);
        let found = Census::default().take(own(), end).expect("census");
        assert!(found.complete);
        assert!(!found.tasks.contains_key(&own()));
        let tasks = found.tasks.get(&namespace).expect("found");
        assert!(tasks[0].starts_with(format!("/proc/{}/task", std::process::id())), "{tasks:?}");
        drop(done);
        thread.join().expect("thread");
    }

    #[test]
    fn a_census_that_was_cut_goes_on_where_it_stopped() {
        let mut census = Census::default();
        let found = census.take(own(), Instant::now()).expect("census");
        assert!(!found.complete && found.tasks.is_empty());
        assert_eq!(census.next_pid, 1, "nobody was asked");
        let long = Instant::now() + Duration::from_secs(60);
        assert!(census.take(own(), long).expect("census").complete);
    }
}
