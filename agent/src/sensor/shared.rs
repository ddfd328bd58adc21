//! What the sensor's threads share: the process table, the sink, the account, the alarm clock.
//!
//! Each subject adds its own part of `impl Shared`: `process.rs`, `activity.rs` and `network.rs`
//! turn records into table entries and events.

use std::collections::{HashMap, VecDeque};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use holdfast_common::abi::{KINDS, Kind};
use holdfast_common::event::EventBody;
use holdfast_common::process::ProcessInfo;
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};

use super::Needs;
use super::decode::{Record, Who};
use super::images::ImageHashes;
use super::links::Promiscuous;
use super::namespaces;
use super::poll::Seen;
use super::proc::{ProcDir, read_file, user_name};
use super::storms::Storms;
use super::table::{ProcessTable, pids};
use super::traffic::Listeners;

/// Ancestors that an event carries.
const PARENTS: usize = 8;
const FILLERS: usize = 4;
/// Processes that the poll is called for at once; further ones are found by their turn.
const NUDGED_MAX: usize = 256;

/// What gets the sensor's events.
pub type Sink = Box<dyn Fn(EventBody) + Send + Sync>;

/// What the threads and the owner share.
pub(super) struct Shared {
    pub(super) table: Arc<ProcessTable>,
    sink: Sink,
    /// Fork, exec and exit records come, so that the table needs no polling.
    pub(super) follows: bool,
    /// Control groups of version 1 are mounted too: the kernel's record names those of version 2.
    pub(super) older_groups: bool,
    delivered: [AtomicU64; KINDS],
    /// Put together with others.
    aggregated: [AtomicU64; KINDS],
    /// Came and could not be decoded.
    undecoded: [AtomicU64; KINDS],
    pub(super) storms: Storms,
    pub(super) hashes: Option<ImageHashes>,
    /// Sockets that the poll found.
    pub(super) found: AtomicU64,
    pub(super) seen: Seen,
    /// Who listened before the sensor came.
    pub(super) listeners: OnceLock<Listeners>,
    /// Who used a capability for networks lately.
    pub(super) capable: Mutex<VecDeque<(Instant, Who)>>,
    /// When a program last told that an interface became promiscuous.
    pub(super) promiscuous: Mutex<HashMap<Promiscuous, Instant>>,
    /// Inode of the agent's own network namespace.
    pub(super) namespace: u64,
    stopping: AtomicBool,
    /// Readable when stopping; `None` when the kernel gave none: stopping then takes a tick.
    wake: Option<OwnedFd>,
    /// Readable when the poll is called before its time.
    nudge: Option<OwnedFd>,
    /// For which processes.
    nudged: Mutex<Vec<u32>>,
}

impl Shared {
    pub(super) fn new(needs: Needs, follows: bool) -> Self {
        let zeros = || std::array::from_fn(|_| AtomicU64::new(0));
        Self {
            table: needs.table,
            sink: needs.sink,
            follows,
            older_groups: has_older_groups(),
            delivered: zeros(),
            aggregated: zeros(),
            undecoded: zeros(),
            storms: Storms::new(),
            hashes: needs.hashes,
            found: AtomicU64::new(0),
            seen: Seen::default(),
            listeners: OnceLock::new(),
            capable: Mutex::default(),
            promiscuous: Mutex::default(),
            namespace: namespaces::own().unwrap_or(0),
            stopping: AtomicBool::new(false),
            wake: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).ok(),
            nudge: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).ok(),
            nudged: Mutex::default(),
        }
    }

    /// One record of a ring buffer.
    pub(super) fn apply(&self, kind: Kind, record: Record<'_>) {
        let told = match record {
            Record::Process(record) => self.process(record),
            Record::Activity(record) => self.activity(record),
            Record::Network(record) => self.network(record),
            Record::Traffic(record) => self.traffic(record),
        };
        let row = if told { &self.delivered } else { &self.aggregated };
        row[kind as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// A record that could not be decoded: declared lost, if its kind is known.
    pub(super) fn lose(&self, bytes: &[u8]) {
        let kind = bytes.first_chunk().map(|number| u32::from_ne_bytes(*number));
        if let Some(kind) = kind.and_then(Kind::from_number) {
            self.undecoded[kind as usize].fetch_add(1, Ordering::Relaxed);
        }
        tracing::error!(?kind, "malformed record from the eBPF programs");
    }

    /// Delivered, aggregated, undecoded.
    pub(super) fn account(&self, kind: Kind) -> [u64; 3] {
        [&self.delivered, &self.aggregated, &self.undecoded]
            .map(|row| row[kind as usize].load(Ordering::Relaxed))
    }

    pub(super) fn emit(&self, event: EventBody) {
        (self.sink)(event);
    }

    /// Ancestors as events carry them, nearest first.
    pub(super) fn parents(&self, of: &ProcessInfo) -> Vec<ProcessInfo> {
        self.table.ancestors(of, PARENTS)
    }

    /// The process as the table has it, with the user that the record saw.
    pub(super) fn process_of(&self, who: &Who) -> ProcessInfo {
        if who.key.pid == 0 {
            return ProcessInfo::default();
        }
        let known = self.table.get(who.key);
        let known = known.or_else(|| ProcDir::open_key(who.key).map(|folder| folder.facts()));
        ProcessInfo {
            key: who.key,
            uid: who.uid,
            euid: who.euid,
            user: user_name(who.uid),
            comm: who.name(),
            ..known.unwrap_or_default()
        }
    }

    pub(super) fn stop(&self) {
        self.stopping.store(true, Ordering::Release);
        if let Some(wake) = &self.wake {
            // Never read, so it stays readable for all threads.
            let _ = rustix::io::write(wake, &1u64.to_ne_bytes());
        }
    }

    pub(super) fn stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    /// Readable when the sensor stops; never to be read.
    pub(super) fn wake(&self) -> Option<BorrowedFd<'_>> {
        self.wake.as_ref().map(AsFd::as_fd)
    }

    /// Waits until something is readable, the sensor stops or the time is over.
    pub(super) fn wait(&self, sources: &[BorrowedFd<'_>], most: Duration) {
        let mut waiting: Vec<PollFd<'_>> =
            sources.iter().map(|source| PollFd::from_borrowed_fd(*source, PollFlags::IN)).collect();
        if let Some(wake) = &self.wake {
            waiting.push(PollFd::new(wake, PollFlags::IN));
        }
        let most = Timespec { tv_sec: most.as_secs() as i64, tv_nsec: most.subsec_nanos().into() };
        // An interrupted wait is a short one.
        let _ = poll(&mut waiting, Some(&most));
    }

    /// Calls the poll before its time, for this process first.
    pub(super) fn nudge(&self, pid: u32) {
        let mut nudged = self.nudged();
        if nudged.len() < NUDGED_MAX {
            nudged.push(pid);
        }
        drop(nudged);
        if let Some(nudge) = &self.nudge {
            let _ = rustix::io::write(nudge, &1u64.to_ne_bytes());
        }
    }

    /// For whom the poll was called.
    pub(super) fn take_nudged(&self) -> Vec<u32> {
        std::mem::take(&mut *self.nudged())
    }

    /// Waits until the poll is called, something is readable, or this long.
    pub(super) fn wait_for_nudge(&self, source: Option<BorrowedFd<'_>>, most: Duration) {
        let nudge = self.nudge.as_ref().map(AsFd::as_fd);
        let sources: Vec<BorrowedFd<'_>> = nudge.into_iter().chain(source).collect();
        self.wait(&sources, most);
        if let Some(nudge) = &self.nudge {
            // Empty when the time was over.
            let _ = rustix::io::read(nudge, &mut [0; 8]);
        }
    }

    fn nudged(&self) -> MutexGuard<'_, Vec<u32>> {
        self.nudged.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn has_older_groups() -> bool {
    const LISTING_MAX: u64 = 64 << 10;
    let listing = read_file("/proc/self/cgroup".as_ref(), LISTING_MAX).unwrap_or_default();
    listing.split(|byte| *byte == b'\n').any(|line| !line.is_empty() && !line.starts_with(b"0::"))
}

/// Fills in the arguments of processes that were there before the agent, on threads that may
/// block: one hostile process holds up one of them for as long as it lives, and nothing else.
/// They are not joined, for the same reason.
pub(super) fn fill_arguments(shared: &Arc<Shared>) {
    let pids = Arc::new(pids());
    let next = Arc::new(AtomicUsize::new(0));
    for _ in 0..FILLERS {
        let (shared, pids, next) = (Arc::clone(shared), Arc::clone(&pids), Arc::clone(&next));
        let fill = move || {
            while let Some(pid) = pids.get(next.fetch_add(1, Ordering::Relaxed))
                && !shared.stopping()
            {
                shared.table.fill_arguments(*pid);
            }
        };
        // Without the thread those arguments stay unknown.
        let _ = std::thread::Builder::new().name("sensor-arguments".to_owned()).spawn(fill);
    }
}
