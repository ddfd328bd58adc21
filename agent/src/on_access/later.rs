//! Scans that nobody waits for: files that a writer has closed, and files that were allowed by
//! failure. Each kind has a thread, a worker and a bounded queue of its own.
//!
//! A closed file rests a moment before it is scanned: a burst of writes to one file is one scan,
//! and its change time is old enough by then for a clean verdict to be kept. A file that is
//! closed again and again (a log) is scanned every two seconds and once after the last time;
//! every open of it is held all the same, which is why dropping an entry here loses no
//! protection, only a head start.

use std::collections::HashMap;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, OnceLock, mpsc};
use std::time::{Duration, Instant, SystemTime};

use holdfast_common::verdict::{FailureReason, ScanType, Verdict};

use crate::on_access::Shared;
use crate::on_access::cache::{self, Epoch};
use crate::on_access::counters::count;
use crate::on_access::decide::{FollowUp, Outcome, decide};
use crate::on_access::rewrites::{self, Rewrites, SAMPLE};
use crate::respond::{BootTime, Found};
use crate::scan::{ScanFailed, Worker, WorkerFactory};
use crate::sys::descriptors::share;
use crate::sys::fanotify::Closed;
use crate::sys::identity::{Facts, has_writer};

/// How long a closed file rests.
const REST: Duration = Duration::from_millis(30);

/// A file that keeps being closed is scanned at most this often.
const MOST_OFTEN: Duration = Duration::from_secs(2);

/// Entries of the table that knows which files were scanned lately.
const MOST_RECENT: usize = 4096;

/// Files that wait for their next turn, at most. Each holds a descriptor.
const MOST_POSTPONED: usize = 64;

/// Workers that one file may cost.
const MOST_ATTEMPTS: usize = 3;

/// The two queues; closed files pass by the count of rewritten ones first.
pub(super) struct Later {
    own_pid: u32,
    seen: mpsc::SyncSender<Resting>,
    closed: mpsc::SyncSender<Resting>,
    rescans: mpsc::SyncSender<Rescan>,
    // The threads begin when `Shared`, which they need and which holds this, is complete.
    ends: std::sync::Mutex<Option<Ends>>,
    shared: OnceLock<std::sync::Weak<Shared>>,
}

#[derive(Debug)]
struct Ends {
    seen: mpsc::Receiver<Resting>,
    closed: mpsc::Receiver<Resting>,
    rescans: mpsc::Receiver<Rescan>,
}

#[derive(Debug)]
struct Resting {
    closed: Closed,
    since: Instant,
    seen: BootTime,
}

#[derive(Debug)]
struct Rescan {
    file: OwnedFd,
    pid: u32,
    seen: BootTime,
}

/// A file to scan when nobody waits.
struct Job {
    file: OwnedFd,
    facts: Facts,
    settled: bool,
    epoch: Epoch,
    pid: u32,
    /// When the process was seen at the file.
    seen: BootTime,
    scan_type: ScanType,
}

impl Later {
    pub(super) fn new(own_pid: u32) -> Self {
        let (seen, seen_end) = mpsc::sync_channel(share(16));
        let (closed, closed_end) = mpsc::sync_channel(share(8));
        let (rescans, rescans_end) = mpsc::sync_channel(share(32));
        let ends = Some(Ends { seen: seen_end, closed: closed_end, rescans: rescans_end });
        Self {
            own_pid,
            seen,
            closed,
            rescans,
            ends: std::sync::Mutex::new(ends),
            shared: OnceLock::new(),
        }
    }

    /// Begins the threads.
    pub(super) fn start(shared: &Arc<Shared>, factory: &Arc<WorkerFactory>) -> std::io::Result<()> {
        let later = &shared.later;
        // Set once, by the one caller.
        let _ = later.shared.set(Arc::downgrade(shared));
        let ends = later.ends.lock().ok().and_then(|mut ends| ends.take());
        let Some(Ends { seen, closed, rescans }) = ends else { return Ok(()) };
        let counting = Arc::downgrade(shared);
        std::thread::Builder::new()
            .name("count-closed".to_owned())
            .spawn(move || count_rewrites(&seen, &counting))?;
        let mut scanner = Scanner::new(shared, factory);
        std::thread::Builder::new()
            .name("scan-closed".to_owned())
            .spawn(move || scanner.run_closed(&closed))?;
        let mut scanner = Scanner::new(shared, factory);
        std::thread::Builder::new()
            .name("rescan".to_owned())
            .spawn(move || scanner.run_rescans(&rescans))?;
        Ok(())
    }

    /// A writer has closed a file. Called from the permission loop: never blocks.
    pub(super) fn closed(&self, closed: Closed) {
        if closed.pid == self.own_pid {
            return;
        }
        let resting = Resting { closed, since: Instant::now(), seen: BootTime::now() };
        if self.seen.try_send(resting).is_err()
            && let Some(shared) = self.shared.get().and_then(std::sync::Weak::upgrade)
        {
            count(&shared.counters.closed_skipped);
        }
    }

    /// A file was answered without a verdict. Never blocks. False when there was no room.
    pub(super) fn rescan(&self, file: OwnedFd, pid: u32) -> bool {
        let queued = self.rescans.try_send(Rescan { file, pid, seen: BootTime::now() }).is_ok();
        if let Some(shared) = self.shared.get().and_then(std::sync::Weak::upgrade) {
            count(if queued {
                &shared.counters.rescans_waiting
            } else {
                &shared.counters.rescans_dropped
            });
        }
        queued
    }
}

/// Counts who rewrites many files, and hands every file on to be scanned.
fn count_rewrites(seen: &mpsc::Receiver<Resting>, shared: &std::sync::Weak<Shared>) {
    let mut rewrites = Rewrites::default();
    let mut sample = [0; SAMPLE];
    while let Ok(resting) = seen.recv() {
        let Some(shared) = shared.upgrade() else { return };
        let file = &resting.closed.file;
        let counts = Facts::of(file.as_fd()).ok().filter(|facts| {
            rewrites::was_there(facts, SystemTime::now())
                && rustix::io::pread(file, &mut sample, 0)
                    .is_ok_and(|length| rewrites::is_noise(&sample[..length]))
        });
        let mass =
            counts.and_then(|facts| rewrites.add(resting.closed.pid, &facts, Instant::now()));
        if let Some(mass) = mass {
            (shared.mass)(mass, crate::respond::path_of(file));
        }
        if shared.later.closed.try_send(resting).is_err() {
            count(&shared.counters.closed_skipped);
        }
    }
}

struct Scanner {
    shared: std::sync::Weak<Shared>,
    factory: Arc<WorkerFactory>,
    worker: Option<Worker>,
    /// When a file was last scanned after a close.
    recent: HashMap<InodeKey, Instant>,
    /// Files that were closed again too soon.
    postponed: HashMap<InodeKey, Resting>,
}

type InodeKey = ((u32, u32), u64);

impl Scanner {
    fn new(shared: &Arc<Shared>, factory: &Arc<WorkerFactory>) -> Self {
        Self {
            shared: Arc::downgrade(shared),
            factory: Arc::clone(factory),
            worker: None,
            recent: HashMap::new(),
            postponed: HashMap::new(),
        }
    }

    fn run_closed(&mut self, closed: &mpsc::Receiver<Resting>) {
        loop {
            let next = if self.postponed.is_empty() {
                closed.recv().map_err(|_| mpsc::RecvTimeoutError::Disconnected)
            } else {
                closed.recv_timeout(MOST_OFTEN / 4)
            };
            match next {
                Ok(resting) => self.scan_closed(resting),
                Err(mpsc::RecvTimeoutError::Timeout) => {}
                Err(mpsc::RecvTimeoutError::Disconnected) => return,
            }
            let now = Instant::now();
            let due = self.postponed.extract_if(|_, resting| now >= resting.since + MOST_OFTEN);
            for resting in due.map(|(_, resting)| resting).collect::<Vec<_>>() {
                self.scan_closed(resting);
            }
        }
    }

    fn scan_closed(&mut self, Resting { closed, since, seen }: Resting) {
        std::thread::sleep(REST.saturating_sub(since.elapsed()));
        let Some(shared) = self.shared.upgrade() else { return };
        let Ok(facts) = Facts::of(closed.file.as_fd()) else { return };
        if self.was_here_lately(&facts) {
            let key = (facts.identity.device, facts.identity.inode);
            if self.postponed.len() < MOST_POSTPONED || self.postponed.contains_key(&key) {
                self.postponed.insert(key, Resting { closed, since, seen });
            } else {
                count(&shared.counters.closed_skipped);
            }
        } else if let Some(job) =
            self.job(&shared, closed.file, (closed.pid, seen), ScanType::OnClose)
        {
            count(&shared.counters.closed_scanned);
            self.scan(&shared, job);
        }
    }

    fn run_rescans(&mut self, rescans: &mpsc::Receiver<Rescan>) {
        while let Ok(Rescan { file, pid, seen }) = rescans.recv() {
            let Some(shared) = self.shared.upgrade() else { return };
            shared.counters.rescans_waiting.fetch_sub(1, Relaxed);
            if let Some(job) = self.job(&shared, file, (pid, seen), ScanType::Rescan) {
                self.scan(&shared, job);
            }
            count(&shared.counters.rescans_done);
        }
    }

    /// Whether and how to scan. `None` for what is known or left out.
    fn job(
        &self,
        shared: &Shared,
        file: OwnedFd,
        (pid, seen): (u32, BootTime),
        scan_type: ScanType,
    ) -> Option<Job> {
        let facts = Facts::of(file.as_fd()).ok()?;
        let identity = &facts.identity;
        if !facts.regular
            || identity.size == 0
            || shared.cache.is_clean(identity)
            || shared.exclusions.covers(file.as_fd(), pid)
        {
            return None;
        }
        let epoch = shared.cache.epoch(identity);
        // A writer that is there before the scan can store unseen and be gone after it.
        let settled = !has_writer(file.as_fd()) && cache::settled(identity, SystemTime::now());
        Some(Job { file, facts, settled, epoch, pid, seen, scan_type })
    }

    /// True when this inode was scanned a moment ago; notes it otherwise.
    fn was_here_lately(&mut self, facts: &Facts) -> bool {
        let now = Instant::now();
        let key = (facts.identity.device, facts.identity.inode);
        if let Some(last) = self.recent.get(&key)
            && now.duration_since(*last) < MOST_OFTEN
        {
            return true;
        }
        if self.recent.len() >= MOST_RECENT {
            self.recent.retain(|_, last| now.duration_since(*last) < MOST_OFTEN);
            if self.recent.len() >= MOST_RECENT {
                self.recent.clear();
            }
        }
        self.recent.insert(key, now);
        false
    }

    fn scan(&mut self, shared: &Shared, job: Job) {
        let generation = shared.generation.load(Relaxed);
        let mut reason = FailureReason::ScannerUnavailable;
        let limit = shared.rules().rescan_limit;
        // A worker may have been killed for reasons of its own: its file is tried again.
        for _ in 0..MOST_ATTEMPTS {
            let Some(worker) = self.worker(generation) else { break };
            match worker.scan(false, job.file.as_fd(), limit) {
                Ok(scanned) => return self.conclude(shared, job, scanned, generation),
                Err(ScanFailed::Unreadable(_)) => {
                    reason = FailureReason::Unreadable;
                    break;
                }
                Err(ScanFailed::TimedOut) => {
                    self.worker = None;
                    reason = FailureReason::Deadline;
                    break;
                }
                Err(ScanFailed::Died(_)) => {
                    self.worker = None;
                    reason = FailureReason::ScannerCrashed;
                }
            }
        }
        shared.report_failure(reason, None, Some(job.file), job.pid);
    }

    /// A worker with the current rules.
    fn worker(&mut self, generation: u64) -> Option<&Worker> {
        if self.worker.as_ref().is_none_or(|worker| worker.generation() != generation) {
            self.worker = self.factory.spawn().ok();
        }
        self.worker.as_ref()
    }

    fn conclude(&self, shared: &Shared, job: Job, scanned: crate::scan::Scanned, generation: u64) {
        match scanned.verdict {
            Verdict::Clean => {
                if job.settled {
                    shared.remember(job.file.as_fd(), &job.facts, job.epoch, generation);
                }
            }
            Verdict::Malicious(signature) => {
                let hashes = scanned.hashes.map(|hashes| hashes.to_hex()).unwrap_or_default();
                let allowed = shared.exclusions.allow_content(&hashes.sha256);
                let outcome = Outcome::Verdict(Verdict::Malicious(signature.clone()));
                let resolution = decide(&outcome, allowed, &shared.rules().config);
                if resolution.follow_up == FollowUp::Nothing {
                    return;
                }
                let found = Found {
                    pid: job.pid,
                    seen: job.seen,
                    answer_to: None,
                    file: job.file,
                    facts: job.facts,
                    signature,
                    hashes,
                    scan_type: job.scan_type,
                    decision: None,
                    quarantine: resolution.follow_up == FollowUp::Quarantine,
                };
                // Flooded: the file stays where it is, and every open of it is denied.
                if shared.responder.found(found).is_err() {
                    count(&shared.counters.closed_skipped);
                }
            }
        }
    }
}
