//! The threads of the sensor: one reads the ring buffers, keeps the process table and calls the
//! sink; one polls; a few fill in old processes' arguments and end.
//!
//! Invariant: a process record is applied to the table before any socket record that came after
//! it. When records were lost, the table is made from /proc again.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use aya::maps::{MapData, RingBuf};
use holdfast_common::abi::{KINDS, Kind};
use holdfast_common::event::{EventBody, ExecEvent, PacketSocketEvent};
use holdfast_common::process::{ProcessInfo, ProcessKey};
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};

use super::decode::{Exec, Record, Socket, Who};
use super::poll::{self, Seen};
use super::proc::{ProcDir, user_name};
use super::programs::{LossCounter, OnDemand};
use super::table::{ProcessTable, pids};

/// Ancestors that an event carries.
const PARENTS: usize = 16;
/// How often `/proc/net/packet` is read.
const POLL_EVERY: Duration = Duration::from_secs(5);
/// How often the reader looks for losses while nothing comes.
const TICK: Duration = Duration::from_secs(1);
/// Process records read before a look at the sockets, so that a storm cannot starve them.
const BATCH: usize = 4096;
/// Between two rounds of the poll, however often it is called.
const PAUSE: Duration = Duration::from_millis(50);
const FILLERS: usize = 4;
/// Processes that the poll is called for at once; further ones are found by their turn.
const NUDGED_MAX: usize = 256;

/// What the threads and the owner share.
pub(super) struct Shared {
    pub(super) table: Arc<ProcessTable>,
    sink: Box<dyn Fn(EventBody) + Send + Sync>,
    /// Fork, exec and exit records come, so that the table needs no polling.
    follows: bool,
    delivered: [AtomicU64; KINDS],
    /// Sockets that the poll found.
    pub(super) found: AtomicU64,
    seen: Seen,
    stopping: AtomicBool,
    /// Readable when stopping; `None` when the kernel gave none: stopping then takes a tick.
    wake: Option<OwnedFd>,
    /// Readable when the poll is called before its time.
    nudge: Option<OwnedFd>,
    /// For which processes.
    nudged: Mutex<Vec<u32>>,
}

/// The reader thread.
pub(super) struct Reader {
    pub(super) shared: Arc<Shared>,
    pub(super) process: RingBuf<MapData>,
    pub(super) network: RingBuf<MapData>,
    pub(super) lost: LossCounter,
    pub(super) on_demand: Option<OnDemand>,
}

impl Shared {
    pub(super) fn new(
        table: Arc<ProcessTable>,
        sink: Box<dyn Fn(EventBody) + Send + Sync>,
        follows: bool,
    ) -> Self {
        Self {
            table,
            sink,
            follows,
            delivered: Default::default(),
            found: AtomicU64::new(0),
            seen: Seen::default(),
            stopping: AtomicBool::new(false),
            wake: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).ok(),
            nudge: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).ok(),
            nudged: Mutex::default(),
        }
    }

    pub(super) fn delivered(&self, kind: Kind) -> u64 {
        self.delivered[kind as usize].load(Ordering::Relaxed)
    }

    pub(super) fn stop(&self) {
        self.stopping.store(true, Ordering::Release);
        if let Some(wake) = &self.wake {
            // Never read, so it stays readable for both threads.
            let _ = rustix::io::write(wake, &1u64.to_ne_bytes());
        }
    }

    /// The poll thread.
    pub(super) fn poll(&self) {
        loop {
            if !self.follows {
                self.table.sync_with_proc();
            }
            let first = std::mem::take(&mut *self.nudged());
            for found in poll::round(&self.seen, &first) {
                self.found.fetch_add(1, Ordering::Relaxed);
                let Some(process) = self.table.lookup(found.pid).or_else(|| {
                    let folder = ProcDir::open(found.pid)?;
                    Some(folder.facts())
                }) else {
                    continue;
                };
                self.socket_event(process, |event| {
                    event.action = "found".to_owned();
                    event.family = found.family;
                    event.socket_type = found.socket_type;
                    event.protocol = found.listed.protocol;
                    event.interface = found.listed.interface;
                });
            }
            self.wait(Vec::new(), PAUSE);
            self.wait(self.nudge.as_ref().map(AsFd::as_fd).into_iter().collect(), POLL_EVERY);
            if let Some(nudge) = &self.nudge {
                // Empty when the time was over.
                let _ = rustix::io::read(nudge, &mut [0; 8]);
            }
            if self.stopping.load(Ordering::Acquire) {
                return;
            }
        }
    }

    fn nudge(&self, pid: u32) {
        let mut nudged = self.nudged();
        if nudged.len() < NUDGED_MAX {
            nudged.push(pid);
        }
        drop(nudged);
        if let Some(nudge) = &self.nudge {
            let _ = rustix::io::write(nudge, &1u64.to_ne_bytes());
        }
    }

    fn nudged(&self) -> MutexGuard<'_, Vec<u32>> {
        self.nudged.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until something is readable, the sensor stops or the time is over.
    fn wait(&self, sources: Vec<BorrowedFd<'_>>, most: Duration) {
        let mut waiting: Vec<PollFd<'_>> = sources
            .into_iter()
            .map(|source| PollFd::from_borrowed_fd(source, PollFlags::IN))
            .collect();
        if let Some(wake) = &self.wake {
            waiting.push(PollFd::new(wake, PollFlags::IN));
        }
        let most = Timespec { tv_sec: most.as_secs() as i64, tv_nsec: most.subsec_nanos().into() };
        // An interrupted wait is a short one.
        let _ = poll(&mut waiting, Some(&most));
    }

    fn apply(&self, record: Record) {
        self.delivered[record.kind() as usize].fetch_add(1, Ordering::Relaxed);
        match record {
            Record::Exec(exec) => self.exec(exec),
            Record::Fork(child, parent) => self.fork(&child, parent),
            Record::Exit(who) => self.table.ended(who.key),
            Record::Socket(socket) => self.socket(socket),
            // The reader has attached the program and called the poll.
            Record::Capability(_) => {}
        }
    }

    fn fork(&self, child: &Who, parent: ProcessKey) {
        if self.table.forked(child.key, parent) {
            return;
        }
        if let Some(folder) = ProcDir::open_key(child.key) {
            self.table.executed(&ProcessInfo { parent: Some(parent), ..folder.facts() });
        }
    }

    fn exec(&self, exec: Exec) {
        let before = self.table.get(exec.who.key);
        // Only what cannot change between the record and now is taken from /proc.
        let folder = ProcDir::open_key(exec.who.key);
        let live = |name: &str| folder.as_ref().map(|folder| folder.link(name));
        let container = match &folder {
            Some(folder) => folder.container(),
            None => before.as_ref().and_then(|info| info.container.clone()),
        };
        let process = ProcessInfo {
            key: exec.who.key,
            parent: exec.parent,
            exe: exec.exe.or_else(|| live("exe")).unwrap_or_default(),
            comm: exec.who.comm,
            args: exec.args,
            args_truncated: exec.args_truncated,
            uid: exec.who.uid,
            euid: exec.who.euid,
            login_uid: exec.login_uid,
            user: user_name(exec.who.uid),
            cwd: live("cwd").filter(|cwd| !cwd.is_empty()).unwrap_or_else(|| {
                before.as_ref().map(|info| info.cwd.clone()).unwrap_or_default()
            }),
            container,
            ..ProcessInfo::default()
        };
        self.table.executed(&process);
        let process = self.table.get(process.key).unwrap_or(process);
        let parents = self.table.ancestors(&process, PARENTS);
        (self.sink)(EventBody::Exec(Box::new(ExecEvent { process, parents, count: 1 })));
    }

    fn socket(&self, socket: Socket) {
        self.seen.note(socket.inode, socket.protocol);
        let process = self.process_of(&socket.who);
        self.socket_event(process, |event| {
            event.action = socket.action.to_owned();
            event.family = socket.family;
            event.socket_type = socket.socket_type;
            event.protocol = socket.protocol;
            event.interface = socket.interface;
        });
    }

    /// The process as the table has it, with the user that the record saw: setuid leaves no
    /// record of its own.
    fn process_of(&self, who: &Who) -> ProcessInfo {
        let known = self.table.get(who.key);
        let known = known.or_else(|| ProcDir::open_key(who.key).map(|folder| folder.facts()));
        ProcessInfo {
            key: who.key,
            uid: who.uid,
            euid: who.euid,
            user: user_name(who.uid),
            comm: who.comm.clone(),
            ..known.unwrap_or_default()
        }
    }

    fn socket_event(&self, process: ProcessInfo, fill: impl FnOnce(&mut PacketSocketEvent)) {
        let parents = self.table.ancestors(&process, PARENTS);
        let mut event = PacketSocketEvent {
            process,
            parents,
            action: String::new(),
            family: String::new(),
            socket_type: String::new(),
            protocol: 0,
            interface: 0,
        };
        fill(&mut event);
        (self.sink)(EventBody::PacketSocket(Box::new(event)));
    }
}

impl Reader {
    pub(super) fn run(mut self) {
        let mut lost = 0;
        loop {
            self.drain_processes();
            let more = self.drain_sockets();
            let now = self.lost.total();
            if now != lost {
                lost = now;
                tracing::warn!(lost, "sensor records were lost; reading /proc again");
                self.shared.table.sync_with_proc();
            }
            if let Some(on_demand) = &mut self.on_demand {
                on_demand.tick();
            }
            if self.shared.stopping.load(Ordering::Acquire) {
                return;
            }
            if !more {
                self.shared.wait(vec![self.process.as_fd(), self.network.as_fd()], TICK);
            }
        }
    }

    /// First the program, then the poll: what happens to a socket before the program is there,
    /// the poll sees in its listing.
    fn prepare(&mut self, record: &Record) {
        if let (Record::Capability(who), Some(on_demand)) = (record, &mut self.on_demand) {
            on_demand.want();
            self.shared.nudge(who.key.pid);
        }
    }

    fn drain_processes(&mut self) {
        for _ in 0..BATCH {
            let Some(item) = self.process.next() else { return };
            let record = Record::decode(&item);
            drop(item);
            match record {
                Ok(record) => self.shared.apply(record),
                Err(error) => tracing::error!(%error, "process record"),
            }
        }
    }

    /// Reads socket records, each after the process records that came before it.
    fn drain_sockets(&mut self) -> bool {
        for _ in 0..BATCH {
            let Some(item) = self.network.next() else { return false };
            let record = Record::decode(&item);
            drop(item);
            self.drain_processes();
            match record {
                Ok(record) => {
                    self.prepare(&record);
                    self.shared.apply(record);
                }
                Err(error) => tracing::error!(%error, "socket record"),
            }
        }
        true
    }
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
                && !shared.stopping.load(Ordering::Acquire)
            {
                shared.table.fill_arguments(*pid);
            }
        };
        // Without the thread those arguments stay unknown.
        let _ = std::thread::Builder::new().name("sensor-arguments".to_owned()).spawn(fill);
    }
}
