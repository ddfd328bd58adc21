//! The permission loop: read, look the file up, scan with a deadline, decide, answer.
//!
//! ```text
//!  kernel ──event──▶ admit ──known clean──▶ allow
//!                      │
//!                      ▼ ticket
//!            quick / slow queue ──order──▶ caged worker
//!                                              │ answer
//!  kernel ◀──reply── settle ◀──────────────────┘
//!                      └─▶ remember · found (report, quarantine) · failed (report, rescan)
//! ```
//!
//! INVARIANT: nothing here opens a file, resolves a name, logs, or waits for anybody but the
//! kernel's queue, the workers' sockets and its own inbox. The agent's own opens pass first.
//! Several loops may read one group: they share the process's descriptor table. One of them
//! stands by, and leads when the watchdog finds the others stuck.

use std::collections::VecDeque;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use holdfast_common::verdict::{Decision, FailureReason, ScanType, Verdict};
use holdfast_common::wire::{Answer, Finding, RawHashes};
use rustix::event::epoll;

use crate::on_access::Shared;
use crate::on_access::cache::{self, Epoch};
use crate::on_access::counters::count;
use crate::on_access::decide::{FollowUp, Outcome, Resolution, decide};
use crate::on_access::inbox::{Inbox, Message};
use crate::on_access::nursery::Nursery;
use crate::on_access::waiting::{Ticket, Waiter, Waiting};
use crate::respond::{Failed, Found, Held};
use crate::scan::Worker;
use crate::sys::fanotify::{Event, Pending, ReadBuffer};
use crate::sys::identity::{Facts, has_writer};

/// Files up to this size never wait behind larger ones: one worker takes no others.
const QUICK_SIZE: u64 = 1 << 20;

/// A file whose scan killed the worker is tried once more; one that changes while it is about to
/// run, twice.
const MOST_ATTEMPTS: u8 = 3;

/// How long a loop looks for the next event or answer before it sleeps: see the same figure in
/// [`crate::worker`]. Whoever else wants the processor gets it at each look (`sched_yield`).
const AWAKE: Duration = Duration::from_micros(60);

const NOT_AT_ALL: rustix::event::Timespec = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };

/// Clean files that may wait to be remembered; each holds a descriptor.
const MOST_ANSWERED: usize = 64;

const GROUP: u64 = 0;
const INBOX: u64 = 1;
const FIRST_SEAT: u64 = 2;

/// One loop. Owns its workers and the opens that it has read.
pub(super) struct Loop {
    shared: Arc<Shared>,
    waiting: Arc<Mutex<Waiting>>,
    inbox: Arc<Inbox>,
    pulse: Arc<AtomicU64>,
    nursery: Nursery,
    index: usize,
    epoll: OwnedFd,
    seats: Vec<Seat>,
    quick: VecDeque<Ticket>,
    slow: VecDeque<Ticket>,
    buffer: Box<ReadBuffer>,
    events: Vec<Event>,
    /// Clean files that were answered, but not yet remembered.
    answered: Vec<Clean>,
    stopping: bool,
}

/// A file that was found clean.
struct Clean {
    file: OwnedFd,
    facts: Facts,
    epoch: Epoch,
    generation: u64,
}

/// A place for one worker.
#[derive(Default)]
struct Seat {
    worker: Option<Worker>,
    busy: Option<Ticket>,
    /// A new worker has been asked for.
    ordered: bool,
}

/// What a loop is made of.
pub(super) struct Parts {
    pub(super) shared: Arc<Shared>,
    pub(super) waiting: Arc<Mutex<Waiting>>,
    pub(super) inbox: Arc<Inbox>,
    /// Beats with every turn of the loop.
    pub(super) pulse: Arc<AtomicU64>,
    pub(super) nursery: Nursery,
    pub(super) index: usize,
    /// Places for workers.
    pub(super) seats: usize,
    /// The first workers; none for a loop that stands by, which gets them when it has to lead.
    pub(super) workers: Vec<Worker>,
}

impl Loop {
    pub(super) fn new(parts: Parts) -> std::io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        epoll::add(
            &epoll,
            parts.inbox.as_fd(),
            epoll::EventData::new_u64(INBOX),
            epoll::EventFlags::IN,
        )?;
        let mut new = Self {
            shared: parts.shared,
            waiting: parts.waiting,
            inbox: parts.inbox,
            pulse: parts.pulse,
            nursery: parts.nursery,
            index: parts.index,
            epoll,
            seats: (0..parts.seats).map(|_| Seat::default()).collect(),
            quick: VecDeque::with_capacity(1024),
            slow: VecDeque::with_capacity(1024),
            buffer: Box::default(),
            events: Vec::with_capacity(128),
            answered: Vec::with_capacity(MOST_ANSWERED),
            stopping: false,
        };
        if !parts.workers.is_empty() {
            new.lead();
        }
        for (seat, worker) in parts.workers.into_iter().enumerate() {
            new.seat_worker(seat, worker);
        }
        Ok(new)
    }

    /// Begins to read events. Where several loops lead, an event wakes one of them.
    fn lead(&mut self) {
        let flags = epoll::EventFlags::IN | epoll::EventFlags::EXCLUSIVE;
        let data = epoll::EventData::new_u64(GROUP);
        // EEXIST: it leads already.
        let _ = epoll::add(&self.epoll, self.shared.group.as_fd(), data, flags);
    }

    pub(super) fn run(mut self) {
        let mut ready = Vec::with_capacity(16);
        let mut awake_until = Instant::now();
        while !self.stopping {
            let now = Instant::now();
            let awake = now < awake_until || !self.answered.is_empty();
            let timeout = if awake { Some(NOT_AT_ALL) } else { self.next_deadline() };
            ready.clear();
            match epoll::wait(
                &self.epoll,
                rustix::buffer::spare_capacity(&mut ready),
                timeout.as_ref(),
            ) {
                Ok(0) if awake => {
                    // Nobody waits just now: the moment for what nobody waits for.
                    match self.answered.pop() {
                        Some(clean) => remember(&self.shared, &clean),
                        None => rustix::thread::sched_yield(),
                    }
                    continue;
                }
                Ok(0) => {}
                Ok(_) => awake_until = now + AWAKE,
                Err(rustix::io::Errno::INTR) => {}
                // The epoll descriptor is ours and valid: nothing else can come.
                Err(_) => break,
            }
            self.pulse.fetch_add(1, Relaxed);
            for event in &ready {
                match event.data.u64() {
                    GROUP => self.read_events(),
                    INBOX => self.read_inbox(),
                    seat => {
                        self.read_answer(usize::try_from(seat - FIRST_SEAT).unwrap_or(usize::MAX))
                    }
                }
            }
            self.expire();
            self.dispatch();
        }
        self.let_everybody_go();
    }

    // ---- from the kernel -------------------------------------------------------------------

    fn read_events(&mut self) {
        let group = Arc::clone(&self.shared.group);
        let fallback = self.shared.failure_fallback;
        let mut events = std::mem::take(&mut self.events);
        let read = group.read(&mut self.buffer, fallback, |event| events.push(event));
        for event in events.drain(..) {
            match event {
                Event::Permission(pending) => self.admit(pending),
                Event::Closed(closed) => self.shared.later.closed(closed),
                Event::Overflow => self.report_failure(FailureReason::QueueOverflow, None),
            }
        }
        self.events = events;
        if read.is_err() {
            // No descriptor was free: the kernel has denied that open itself.
            self.report_failure(FailureReason::Overload, None);
        }
    }

    /// The first look at a held open: most are answered here.
    fn admit(&mut self, pending: Pending) {
        let since = Instant::now();
        let shared = Arc::clone(&self.shared);
        let counters = &shared.counters;
        count(&counters.held);
        if shared.is_own(pending.pid()) {
            count(&counters.own);
            drop(pending.answer(Decision::Allow));
            return;
        }
        let Ok(facts) = Facts::of(pending.file()) else {
            return self.fail_unheld(pending, since, FailureReason::Unreadable);
        };
        if !facts.regular || facts.identity.size == 0 {
            return self.allow(pending, since);
        }
        if shared.exclusions.covers(pending.file(), pending.pid()) {
            count(&counters.excluded);
            return self.allow(pending, since);
        }
        if has_writer(pending.file()) {
            shared.cache.forget(&facts.identity);
        } else if shared.cache.is_clean(&facts.identity) {
            count(&counters.cached);
            let file = self.answer(pending, since, Decision::Allow);
            shared.ignore_if_safe(file.as_fd(), &facts);
            return;
        }
        if facts.identity.size > shared.config.max_file_size.0 {
            return self.fail_unheld(pending, since, FailureReason::TooLarge);
        }
        let settled = cache::settled(&facts.identity, SystemTime::now());
        let epoch = shared.cache.epoch(&facts.identity);
        let waiter = Waiter { pending, facts, settled, epoch, since, attempts: 0 };
        let mut waiting = lock(&self.waiting);
        if waiting.len() >= shared.most_held {
            drop(waiting);
            return self.fail(waiter, FailureReason::Overload);
        }
        let ticket = waiting.insert(waiter);
        drop(waiting);
        self.queue(ticket, facts.identity.size);
    }

    fn queue(&mut self, ticket: Ticket, size: u64) {
        if size <= QUICK_SIZE {
            self.quick.push_back(ticket);
        } else {
            self.slow.push_back(ticket);
        }
    }

    // ---- to and from the workers -----------------------------------------------------------

    /// Gives queued tickets to free workers. The first seat takes quick ones alone.
    fn dispatch(&mut self) {
        for index in 0..self.seats.len() {
            if self.seats[index].busy.is_some() || self.seats[index].worker.is_none() {
                continue;
            }
            while let Some(ticket) = self.next_ticket(index != 0) {
                if self.order(index, ticket) {
                    break;
                }
            }
        }
    }

    fn next_ticket(&mut self, any_size: bool) -> Option<Ticket> {
        self.quick.pop_front().or_else(|| if any_size { self.slow.pop_front() } else { None })
    }

    /// Hands one ticket to the worker of a seat. False when that ticket needs no worker any more.
    fn order(&mut self, index: usize, ticket: Ticket) -> bool {
        let mut waiting = lock(&self.waiting);
        let Some(waiter) = waiting.get_mut(ticket) else { return false };
        // Another open of the same file may have been judged while this one stood in the queue.
        if waiter.attempts == 0
            && self.shared.cache.is_clean(&waiter.facts.identity)
            && !has_writer(waiter.pending.file())
        {
            let Some(waiter) = waiting.remove(ticket) else { return false };
            drop(waiting);
            count(&self.shared.counters.cached);
            drop(self.answer(waiter.pending, waiter.since, Decision::Allow));
            return false;
        }
        waiter.attempts += 1;
        let seat = &mut self.seats[index];
        let Some(worker) = &seat.worker else { return false };
        let sent = worker.order(ticket, false, waiter.pending.file());
        seat.busy = Some(ticket);
        drop(waiting);
        if sent.is_err() {
            self.lose_worker(index);
        }
        true
    }

    fn read_answer(&mut self, index: usize) {
        let Some(worker) = self.seats.get(index).and_then(|seat| seat.worker.as_ref()) else {
            return;
        };
        match worker.poll_answer() {
            Ok(None) => {}
            Ok(Some(Answer::Scanned { ticket, finding, hashes, .. }))
                if self.seats[index].busy == Some(ticket) =>
            {
                let generation = worker.generation();
                self.seats[index].busy = None;
                if generation != self.shared.generation.load(Relaxed) {
                    self.retire(index);
                }
                self.settle(ticket, finding, hashes, generation);
            }
            // Anything else is not what was asked: that worker cannot be trusted any more.
            Ok(Some(_)) | Err(_) => self.lose_worker(index),
        }
    }

    /// A worker died, or lied. Its file is tried once more.
    fn lose_worker(&mut self, index: usize) {
        let ticket = self.seats[index].busy.take();
        self.retire(index);
        let Some(ticket) = ticket else { return };
        let mut waiting = lock(&self.waiting);
        let Some(waiter) = waiting.get_mut(ticket) else { return };
        if waiter.attempts < MOST_ATTEMPTS - 1 {
            let size = waiter.facts.identity.size;
            drop(waiting);
            self.queue(ticket, size);
        } else {
            let waiter = waiting.remove(ticket);
            drop(waiting);
            if let Some(waiter) = waiter {
                self.fail(waiter, FailureReason::ScannerCrashed);
            }
        }
    }

    /// Empties a seat and orders a new worker for it.
    fn retire(&mut self, index: usize) {
        let seat = &mut self.seats[index];
        seat.busy = None;
        // Closing its socket takes it out of the epoll set; its process is killed and reaped.
        if seat.worker.take().is_some() {
            self.shared.counters.workers.fetch_sub(1, Relaxed);
        }
        if !seat.ordered {
            seat.ordered = true;
            self.nursery.order(self.index, index);
        }
    }

    fn seat_worker(&mut self, index: usize, worker: Worker) {
        let Some(seat) = self.seats.get_mut(index) else { return };
        let token = FIRST_SEAT + index as u64;
        let added = epoll::add(
            &self.epoll,
            worker.socket(),
            epoll::EventData::new_u64(token),
            epoll::EventFlags::IN,
        );
        seat.ordered = false;
        seat.busy = None;
        seat.worker = added.is_ok().then_some(worker);
        if seat.worker.is_some() {
            count(&self.shared.counters.workers);
        }
    }

    fn read_inbox(&mut self) {
        for message in self.inbox.take() {
            match message {
                Message::Worker { seat, worker } => {
                    if worker.generation() == self.shared.generation.load(Relaxed) {
                        self.seat_worker(seat, worker);
                    } else {
                        self.seats[seat].ordered = false;
                        self.retire(seat);
                    }
                }
                Message::NewBundle(done) => {
                    for index in 0..self.seats.len() {
                        let seat = &self.seats[index];
                        if seat.busy.is_none() && seat.worker.is_some() {
                            self.retire(index);
                        }
                    }
                    self.answered.clear();
                    // Nobody may listen any more.
                    let _ = done.send(());
                }
                Message::Lead => {
                    self.lead();
                    for seat in 0..self.seats.len() {
                        if self.seats[seat].worker.is_none() {
                            self.retire(seat);
                        }
                    }
                }
                Message::Stop => self.stopping = true,
            }
        }
    }

    // ---- answers ---------------------------------------------------------------------------

    /// The whole product in one function: a scan has ended, somebody waits.
    fn settle(
        &mut self,
        ticket: Ticket,
        finding: Finding,
        hashes: Option<RawHashes>,
        generation: u64,
    ) {
        let Some(waiter) = lock(&self.waiting).remove(ticket) else { return };
        let outcome = match finding {
            Finding::Clean if waiter.pending.is_exec() && changed(&waiter) => {
                return self.try_again(waiter);
            }
            Finding::Clean => Outcome::Verdict(Verdict::Clean),
            Finding::Malicious(signature) => Outcome::Verdict(Verdict::Malicious(signature)),
            Finding::Unreadable(_) => Outcome::Failure(FailureReason::Unreadable),
        };
        let allowed_content = matches!(outcome, Outcome::Verdict(Verdict::Malicious(_)))
            && hashes.is_some_and(|hashes| {
                self.shared.exclusions.allow_content(&hashes.to_hex().sha256)
            });
        let resolution = decide(&outcome, allowed_content, &self.shared.config);
        match (outcome, resolution.follow_up) {
            (
                Outcome::Verdict(Verdict::Malicious(signature)),
                FollowUp::Report | FollowUp::Quarantine,
            ) => {
                let scan_type =
                    if waiter.pending.is_exec() { ScanType::OnExec } else { ScanType::OnOpen };
                self.found(waiter, resolution, |waiter| Found {
                    pid: waiter.pending.pid(),
                    since: Some(waiter.since),
                    held: Held::Waiting(waiter.pending),
                    facts: waiter.facts,
                    signature,
                    hashes: hashes.map(|hashes| hashes.to_hex()).unwrap_or_default(),
                    scan_type,
                    decision: Some(resolution.decision),
                    quarantine: resolution.follow_up == FollowUp::Quarantine,
                });
            }
            (Outcome::Failure(reason), _) => self.fail(waiter, reason),
            (Outcome::Verdict(_), _) => {
                let file = self.answer(waiter.pending, waiter.since, resolution.decision);
                if resolution.follow_up == FollowUp::Remember && waiter.settled {
                    let Waiter { facts, epoch, .. } = waiter;
                    self.answered.push(Clean { file, facts, epoch, generation });
                    if self.answered.len() == MOST_ANSWERED {
                        self.answered.drain(..).for_each(|clean| remember(&self.shared, &clean));
                    }
                }
            }
        }
    }

    /// The file changed while its exec was held: what was scanned is not what would run.
    fn try_again(&mut self, mut waiter: Waiter) {
        if waiter.attempts >= MOST_ATTEMPTS {
            return self.fail(waiter, FailureReason::ChangingExec);
        }
        let Ok(facts) = Facts::of(waiter.pending.file()) else {
            return self.fail(waiter, FailureReason::Unreadable);
        };
        waiter.facts = facts;
        waiter.settled = false;
        let ticket = lock(&self.waiting).insert(waiter);
        self.queue(ticket, facts.identity.size);
    }

    /// Hands a held detection to the responder, which looks the opener up while it is held and
    /// then answers. When the responder is flooded, the answer goes out without that.
    fn found(&self, waiter: Waiter, resolution: Resolution, found: impl FnOnce(Waiter) -> Found) {
        if let Err(found) = self.shared.responder.found(found(waiter))
            && let Held::Waiting(pending) = found.held
        {
            let since = found.since.unwrap_or_else(Instant::now);
            let file = self.answer(pending, since, resolution.decision);
            self.shared.later.rescan(file, found.pid);
        }
    }

    /// No verdict: the failure table decides.
    fn fail(&self, waiter: Waiter, reason: FailureReason) {
        self.fail_unheld(waiter.pending, waiter.since, reason);
    }

    fn fail_unheld(&self, pending: Pending, since: Instant, reason: FailureReason) {
        self.shared.fail(pending, since, reason);
    }

    fn allow(&self, pending: Pending, since: Instant) {
        drop(self.answer(pending, since, Decision::Allow));
    }

    fn answer(&self, pending: Pending, since: Instant, decision: Decision) -> OwnedFd {
        self.shared.answer(pending, since, decision)
    }

    fn report_failure(&self, reason: FailureReason, decision: Option<Decision>) {
        self.shared.counters.count_failure(reason);
        self.shared.responder.failed(Failed {
            reason,
            decision,
            file: None,
            pid: 0,
            rescan: false,
        });
    }

    // ---- deadlines -------------------------------------------------------------------------

    fn next_deadline(&self) -> Option<rustix::event::Timespec> {
        let oldest = lock(&self.waiting).oldest()?;
        let left = self.shared.soft_deadline.saturating_sub(oldest.elapsed());
        // One millisecond more than left, so that it has passed on waking.
        let left = left + Duration::from_millis(1);
        rustix::event::Timespec::try_from(left).ok()
    }

    fn expire(&mut self) {
        let now = Instant::now();
        while let Some((ticket, waiter)) =
            { lock(&self.waiting).remove_overdue(now, self.shared.soft_deadline) }
        {
            let no_worker = self.seats.iter().all(|seat| seat.worker.is_none());
            let reason =
                if no_worker { FailureReason::ScannerUnavailable } else { FailureReason::Deadline };
            self.fail(waiter, reason);
            // A worker that has not finished by now hangs, for all we know.
            if let Some(index) = self.seats.iter().position(|seat| seat.busy == Some(ticket)) {
                self.retire(index);
            }
        }
    }

    fn let_everybody_go(&mut self) {
        while let Some(waiter) = { lock(&self.waiting).remove_any() } {
            self.allow(waiter.pending, waiter.since);
        }
    }
}

/// Keeps a clean verdict, unless the rules have changed since.
fn remember(shared: &Shared, clean: &Clean) {
    if clean.generation == shared.generation.load(Relaxed) {
        shared.remember(clean.file.as_fd(), &clean.facts, clean.epoch);
    }
}

/// True when the file is not what it was before the scan, or somebody can still change it.
fn changed(waiter: &Waiter) -> bool {
    has_writer(waiter.pending.file())
        || Facts::of(waiter.pending.file())
            .map_or(true, |now| now.identity != waiter.facts.identity)
}

pub(super) fn lock(waiting: &Mutex<Waiting>) -> MutexGuard<'_, Waiting> {
    waiting.lock().unwrap_or_else(PoisonError::into_inner)
}
