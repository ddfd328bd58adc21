//! The process table: who is who, by pid and start time, with ancestry.
//!
//! Invariant: bounded ([`MAX_LIVE`] living, [`MAX_EXITED`] ended, the latter for [`KEEP`]); a
//! lookup never reads /proc and never blocks on a process. Filled from /proc at the start, then by
//! the sensor's fork, exec and exit records, and again from /proc when records were lost.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::{Duration, Instant};

use holdfast_common::process::{ProcessInfo, ProcessKey};

use super::proc::{ProcDir, user_name};

/// Living processes kept; further ones are counted and left out.
pub const MAX_LIVE: usize = 131_072;
/// Ended processes kept, the newest.
pub const MAX_EXITED: usize = 16_384;
/// How long an ended process is kept.
pub const KEEP: Duration = Duration::from_secs(600);

/// All processes that are known.
pub struct ProcessTable {
    inner: RwLock<Inner>,
}

#[derive(Default)]
struct Inner {
    entries: HashMap<ProcessKey, Entry>,
    newest: HashMap<u32, ProcessKey>,
    exited: VecDeque<(Instant, ProcessKey)>,
    refused: u64,
}

struct Entry {
    parent: Option<ProcessKey>,
    /// What runs in it; its `key` and `parent` are not used, since a fork shares it.
    image: Arc<ProcessInfo>,
    exited: bool,
}

impl ProcessTable {
    /// All processes of now, without their arguments: those can block, see
    /// [`ProcessTable::fill_arguments`].
    pub fn from_proc() -> Self {
        let table = Self { inner: RwLock::default() };
        table.sync_with_proc();
        table
    }

    /// The newest process with that pid; ended ones too, for a while.
    pub fn lookup(&self, pid: u32) -> Option<ProcessInfo> {
        let inner = self.read();
        inner.info(*inner.newest.get(&pid)?)
    }

    /// Exactly this process.
    pub fn get(&self, key: ProcessKey) -> Option<ProcessInfo> {
        self.read().info(key)
    }

    /// Parents, nearest first, as they were when each child was first seen.
    pub fn ancestors(&self, of: &ProcessInfo, most: usize) -> Vec<ProcessInfo> {
        let inner = self.read();
        let mut line: Vec<ProcessInfo> = Vec::new();
        let mut next = of.parent;
        while let Some(key) = next
            && line.len() < most
            && key != of.key
            && line.iter().all(|seen| seen.key != key)
            && let Some(info) = inner.info(key)
        {
            next = info.parent;
            line.push(info);
        }
        line
    }

    /// Number of living and of ended processes, and of those that found no place.
    pub fn sizes(&self) -> (usize, usize, u64) {
        let inner = self.read();
        (inner.entries.len() - inner.exited.len(), inner.exited.len(), inner.refused)
    }

    /// A process was made; it runs its parent's image. False when the parent is not known.
    pub fn forked(&self, key: ProcessKey, parent: ProcessKey) -> bool {
        let mut inner = self.write();
        if inner.entries.contains_key(&key) {
            // Found in /proc before its record was read; it may run its own image already.
            return true;
        }
        let Some(image) = inner.entries.get(&parent).map(|entry| Arc::clone(&entry.image)) else {
            return false;
        };
        inner.insert(key, Some(parent), image);
        true
    }

    /// A process runs a new image, as [`ProcessTable::run`].
    pub fn executed(&self, info: &ProcessInfo) {
        self.run(info.key, info.parent, Arc::new(info.clone()));
    }

    /// A process runs a new image, whose `key` and `parent` are not used; returns the one before.
    /// The parent that the table already has stays: it is the one that made the process, while
    /// the record's may be who adopted it.
    pub fn run(
        &self,
        key: ProcessKey,
        parent: Option<ProcessKey>,
        image: Arc<ProcessInfo>,
    ) -> Option<Arc<ProcessInfo>> {
        let mut inner = self.write();
        let before = inner.entries.get(&key);
        let known = before.and_then(|entry| entry.parent);
        let former = before.map(|entry| Arc::clone(&entry.image));
        inner.insert(key, known.or(parent), image);
        former
    }

    /// Who made this process.
    pub fn parent_of(&self, key: ProcessKey) -> Option<ProcessKey> {
        self.read().entries.get(&key)?.parent
    }

    /// What runs in a process, without its own key and parent; cheap.
    pub fn image(&self, key: ProcessKey) -> Option<Arc<ProcessInfo>> {
        self.read().entries.get(&key).map(|entry| Arc::clone(&entry.image))
    }

    /// A process has these user ids now; returns the ones before when they differ.
    pub fn set_users(&self, key: ProcessKey, uid: u32, euid: u32) -> Option<(u32, u32)> {
        let before = self.image(key)?;
        if (before.uid, before.euid) == (uid, euid) {
            return None;
        }
        let user = user_name(uid);
        let mut inner = self.write();
        let image = Arc::make_mut(&mut inner.entries.get_mut(&key)?.image);
        (image.uid, image.euid, image.user) = (uid, euid, user);
        Some((before.uid, before.euid))
    }

    /// A process ended. It stays for a while.
    pub fn ended(&self, key: ProcessKey, now: Instant) {
        self.write().end(key, now);
    }

    /// Makes the table agree with /proc: for the start, and after losses. Does not block.
    pub fn sync_with_proc(&self) {
        let before: Vec<ProcessKey> = {
            let inner = self.read();
            let living = inner.entries.iter().filter(|(_, entry)| !entry.exited);
            living.map(|(key, _)| *key).collect()
        };
        let mut alive = HashSet::new();
        for pid in pids() {
            let Some(folder) = ProcDir::open(pid) else { continue };
            alive.insert(folder.key);
            if !self.read().entries.contains_key(&folder.key) {
                let mut facts = folder.facts();
                facts.parent = ProcDir::open(folder.parent).map(|parent| parent.key);
                self.executed(&facts);
            }
        }
        let mut inner = self.write();
        for key in before.into_iter().filter(|key| !alive.contains(key)) {
            inner.end(key, Instant::now());
        }
    }

    /// Reads the arguments of processes that have none yet. **May block for ever** on a process
    /// that wants it to: call it on a thread of its own.
    pub fn fill_arguments(&self, pid: u32) {
        let Some(folder) = ProcDir::open(pid) else { return };
        let missing =
            self.get(folder.key).is_some_and(|info| info.args.is_empty() && !info.args_truncated);
        if !missing {
            return;
        }
        let (args, args_truncated) = folder.arguments();
        let environment = folder.environment();
        let mut inner = self.write();
        if let Some(entry) = inner.entries.get_mut(&folder.key)
            && entry.image.args.is_empty()
        {
            let image = Arc::make_mut(&mut entry.image);
            (image.args, image.args_truncated) = (args, args_truncated);
            image.environment = environment;
        }
    }

    fn read(&self) -> RwLockReadGuard<'_, Inner> {
        self.inner.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Inner> {
        self.inner.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn info(&self, key: ProcessKey) -> Option<ProcessInfo> {
        let entry = self.entries.get(&key)?;
        let mut info = ProcessInfo::clone(&entry.image);
        info.key = key;
        info.parent = entry.parent;
        Some(info)
    }

    fn insert(&mut self, key: ProcessKey, parent: Option<ProcessKey>, image: Arc<ProcessInfo>) {
        if let Some(entry) = self.entries.get_mut(&key) {
            entry.image = image;
            entry.parent = parent;
            return;
        }
        if self.entries.len() - self.exited.len() >= MAX_LIVE {
            self.refused += 1;
            return;
        }
        self.entries.insert(key, Entry { parent, image, exited: false });
        // A reused pid: whoever had it is gone, whether its end was seen or not.
        if let Some(former) = self.newest.insert(key.pid, key) {
            if former.start_ns > key.start_ns {
                self.newest.insert(key.pid, former);
            } else {
                self.end(former, Instant::now());
            }
        }
    }

    fn end(&mut self, key: ProcessKey, now: Instant) {
        let Some(entry) = self.entries.get_mut(&key) else { return };
        if !entry.exited {
            entry.exited = true;
            self.exited.push_back((now, key));
        }
        while let Some((ended, oldest)) = self.exited.front().copied()
            && (self.exited.len() > MAX_EXITED || now.duration_since(ended) > KEEP)
        {
            self.exited.pop_front();
            self.entries.remove(&oldest);
            if self.newest.get(&oldest.pid) == Some(&oldest) {
                self.newest.remove(&oldest.pid);
            }
        }
    }
}

/// Pids that /proc lists now.
pub fn pids() -> Vec<u32> {
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(pid: u32, start_ns: u64) -> ProcessKey {
        ProcessKey { pid, start_ns }
    }

    fn empty() -> ProcessTable {
        ProcessTable { inner: RwLock::default() }
    }

    fn run(table: &ProcessTable, of: ProcessKey, parent: Option<ProcessKey>, exe: &str) {
        let exe = exe.to_owned();
        table.executed(&ProcessInfo { key: of, parent, exe, ..ProcessInfo::default() });
    }

    #[test]
    fn a_child_runs_its_parents_image_until_it_executes_its_own() {
        let table = empty();
        run(&table, key(1, 10), None, "/sbin/init");
        assert!(table.forked(key(2, 20), key(1, 10)));
        assert_eq!(table.lookup(2).map(|info| info.exe), Some("/sbin/init".to_owned()));
        run(&table, key(2, 20), None, "/bin/sh");
        let child = table.lookup(2).expect("child");
        assert_eq!((child.exe.as_str(), child.parent), ("/bin/sh", Some(key(1, 10))));
        assert!(!table.forked(key(3, 30), key(9, 9)), "unknown parent");
    }

    #[test]
    fn a_reused_pid_is_the_newer_process_and_ancestry_keeps_the_older() {
        let table = empty();
        run(&table, key(5, 10), None, "/bin/old");
        assert!(table.forked(key(6, 20), key(5, 10)));
        table.ended(key(5, 10), Instant::now());
        run(&table, key(5, 30), None, "/bin/new");
        assert_eq!(table.lookup(5).map(|info| info.exe), Some("/bin/new".to_owned()));
        let child = table.lookup(6).expect("child");
        assert_eq!(table.ancestors(&child, 9)[0].exe, "/bin/old");
        // A late record of the old process does not take the pid back.
        run(&table, key(5, 10), None, "/bin/old");
        assert_eq!(table.lookup(5).map(|info| info.key), Some(key(5, 30)));
    }

    #[test]
    fn parents_that_form_a_circle_end_the_line() {
        let table = empty();
        run(&table, key(1, 1), Some(key(2, 1)), "/a");
        run(&table, key(2, 1), Some(key(1, 1)), "/b");
        let one = table.lookup(1).expect("one");
        assert_eq!(table.ancestors(&one, 100).len(), 1);
        run(&table, key(3, 1), Some(key(3, 1)), "/own parent");
        assert!(table.ancestors(&table.lookup(3).expect("three"), 100).is_empty());
    }

    #[test]
    fn a_storm_of_short_processes_does_not_grow_the_table_without_bound() {
        let table = empty();
        run(&table, key(1, 1), None, "/sbin/init");
        for number in 0..MAX_EXITED as u32 + 5000 {
            let child = key(2 + number, u64::from(number));
            assert!(table.forked(child, key(1, 1)));
            table.ended(child, Instant::now());
            table.ended(child, Instant::now());
        }
        assert_eq!(table.sizes(), (1, MAX_EXITED, 0));
        assert!(table.lookup(2).is_none(), "the oldest went first");
    }

    #[test]
    fn more_living_processes_than_fit_are_counted() {
        let table = empty();
        run(&table, key(1, 1), None, "/sbin/init");
        for number in 0..MAX_LIVE as u32 + 10 {
            table.forked(key(2 + number, 1), key(1, 1));
        }
        assert_eq!(table.sizes(), (MAX_LIVE, 0, 11));
    }

    #[test]
    fn the_table_from_proc_knows_this_process_and_its_parents() {
        let table = ProcessTable::from_proc();
        let me = table.lookup(std::process::id()).expect("own process");
        assert!(me.exe.starts_with('/'));
        let parents = table.ancestors(&me, 64);
        assert_eq!(parents[0].key.pid, std::os::unix::process::parent_id());
        table.fill_arguments(std::process::id());
        let me = table.lookup(std::process::id()).expect("own process");
        assert_eq!(me.args, std::env::args().collect::<Vec<_>>());
    }
}
