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
//! kernel's queue, the workers' sockets and its own inbox; what it decides by is its own copy. The agent's own opens pass first.
//! What a scan comes to is settled in [`super::settle`].
//! Several loops may read one group: they share the process's descriptor table. One of them
//! stands by, and leads when the watchdog finds the others stuck.

use std::collections::VecDeque;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use holdfast_common::verdict::{Decision, FailureReason};
use holdfast_common::wire::Answer;
use rustix::event::epoll;

use crate::on_access::Shared;
use crate::on_access::cache;
use crate::on_access::counters::count;
use crate::on_access::exclude;
use crate::on_access::inbox::{Inbox, Message};
use crate::on_access::nursery::Nursery;
use crate::on_access::rules::Rules;
use crate::on_access::settle::{Clean, MOST_ANSWERED};
use crate::on_access::waiting::{Ticket, Waiter, Waiting};
use crate::scan::Worker;
use crate::sys::fanotify::{Event, Pending, ReadBuffer};
use crate::sys::identity::{Facts, has_writer};

/// Files up to this size never wait behind larger ones: one worker takes no others.
const QUICK_SIZE: u64 = 1 << 20;

/// Workers that one file may cost.
const MOST_ATTEMPTS: u8 = 3;

/// How long a loop looks for the next event or answer before it sleeps: see the same figure in
/// [`crate::worker`]. Whoever else wants the processor gets it at each look (`sched_yield`).
const AWAKE: Duration = Duration::from_micros(60);

const NOT_AT_ALL: rustix::event::Timespec = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };

/// Execs whose second event is awaited.
const MOST_EXECS: usize = 64;

const GROUP: u64 = 0;
const INBOX: u64 = 1;
const FIRST_SEAT: u64 = 2;

/// One loop. Owns its workers and the opens that it has read.
pub(super) struct Loop {
    pub(super) shared: Arc<Shared>,
    pub(super) rules: Arc<Rules>,
    pub(super) waiting: Arc<Mutex<Waiting>>,
    pub(super) inbox: Arc<Inbox>,
    pulse: Arc<AtomicU64>,
    nursery: Nursery,
    index: usize,
    epoll: OwnedFd,
    seats: Vec<Seat>,
    quick: VecDeque<Ticket>,
    slow: VecDeque<Ticket>,
    buffer: Box<ReadBuffer>,
    /// Programs that changed, and when to look again.
    pub(super) changing: VecDeque<(Instant, Ticket)>,
    execs: VecDeque<(u32, (u32, u32), u64)>,
    events: Vec<Event>,
    /// Clean files that were answered, but not yet remembered.
    pub(super) answered: Vec<Clean>,
    stopping: bool,
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
            rules: parts.shared.rules(),
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
            changing: VecDeque::new(),
            execs: VecDeque::with_capacity(MOST_EXECS),
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
                        Some(clean) => clean.remember(&self.shared),
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
        let fallback = self.rules.fallback;
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
        let mut pending = pending;
        if self.rules.denied.covers(pending.file(), &facts) {
            let Some(undecided) = self.deny_place(pending, facts, since) else { return };
            pending = undecided;
        }
        if !facts.regular || facts.identity.size == 0 {
            return self.allow(pending, since);
        }
        let program = self.is_program(&pending, &facts);
        if program && let Some(images) = &shared.images {
            images.offer(pending.file(), &facts.identity);
        }
        let writer = has_writer(pending.file());
        if writer {
            // First of all, so that an excluded opener, too, is known to write.
            shared.cache.forget(&facts.identity);
        }
        if exclude::covers(&self.rules.config.exclude, pending.file(), pending.pid()) {
            count(&counters.excluded);
            return self.allow(pending, since);
        }
        if !writer && shared.cache.is_clean(&facts.identity) {
            count(&counters.cached);
            let file = self.answer(pending, since, Decision::Allow);
            shared.ignore_if_safe(file.as_fd(), &facts);
            return;
        }
        if facts.identity.size > self.rules.config.max_file_size.0 {
            return self.fail_unheld(pending, since, FailureReason::TooLarge);
        }
        let epoch = shared.cache.epoch(&facts.identity);
        // A writer that is there before the scan can store through a mapping, unseen, and be gone
        // after it: such a verdict is used once.
        let now = SystemTime::now();
        let settled = !writer && cache::settled(&facts.identity, now);
        let written_long_ago = cache::long_ago(facts.modified, now);
        let (changes, attempts, decided) = (0, 0, None);
        let waiter = Waiter {
            pending,
            facts,
            settled,
            written_long_ago,
            epoch,
            since,
            program,
            changes,
            attempts,
            decided,
        };
        let mut waiting = lock(&self.waiting);
        if waiting.len() >= shared.most_held {
            drop(waiting);
            return self.fail(waiter, FailureReason::Overload);
        }
        let ticket = waiting.insert(waiter);
        drop(waiting);
        self.queue(ticket, facts.identity.size);
    }

    /// An exec is asked about twice: as exec, then as open. Both must see what will run.
    fn is_program(&mut self, pending: &Pending, facts: &Facts) -> bool {
        let key = (pending.pid(), facts.identity.device, facts.identity.inode);
        if pending.is_exec() {
            if self.execs.len() == MOST_EXECS {
                self.execs.pop_front();
            }
            self.execs.push_back(key);
            return true;
        }
        let known = self.execs.iter().position(|exec| *exec == key);
        known.is_some_and(|at| self.execs.remove(at).is_some())
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
        while self.changing.front().is_some_and(|(due, _)| *due <= Instant::now()) {
            self.quick.extend(self.changing.pop_front().map(|(_, ticket)| ticket));
        }
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
        if let Some(sentence) = self.shared.condemned.get(&waiter.facts)
            && !has_writer(waiter.pending.file())
        {
            let Some(waiter) = waiting.remove(ticket) else { return false };
            drop(waiting);
            self.condemn(waiter, sentence);
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
        if waiter.attempts < MOST_ATTEMPTS {
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
                Message::LookedUp(ticket) => self.release(ticket),
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
                Message::NewRules(rules, done) => {
                    self.rules = rules;
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

    // ---- deadlines -------------------------------------------------------------------------

    fn next_deadline(&self) -> Option<rustix::event::Timespec> {
        let (oldest, patience) = {
            let waiting = lock(&self.waiting);
            (waiting.oldest()?, waiting.patience(self.rules.soft_deadline))
        };
        let mut left = patience.saturating_sub(oldest.elapsed());
        if let Some((due, _)) = self.changing.front() {
            left = left.min(due.saturating_duration_since(Instant::now()));
        }
        // One millisecond more than left, so that it has passed on waking.
        let left = left + Duration::from_millis(1);
        rustix::event::Timespec::try_from(left).ok()
    }

    fn expire(&mut self) {
        let now = Instant::now();
        while let Some((ticket, waiter)) =
            { lock(&self.waiting).remove_overdue(now, self.rules.soft_deadline) }
        {
            let no_worker = self.seats.iter().all(|seat| seat.worker.is_none());
            let reason =
                if no_worker { FailureReason::ScannerUnavailable } else { FailureReason::Deadline };
            self.shared.answer_overdue(&self.rules, waiter, reason);
            // A worker that has not finished by now hangs, for all we know.
            if let Some(index) = self.seats.iter().position(|seat| seat.busy == Some(ticket)) {
                self.retire(index);
            }
        }
    }

    /// Nothing is marked any more: what is held, and what still waits in the kernel, passes.
    fn let_everybody_go(&mut self) {
        while let Some(waiter) = { lock(&self.waiting).remove_any() } {
            let decision = waiter.decided.unwrap_or(Decision::Allow);
            drop(self.answer(waiter.pending, waiter.since, decision));
        }
        let group = Arc::clone(&self.shared.group);
        let pass = |event| {
            if let Event::Permission(pending) = event {
                drop(pending.answer(Decision::Allow));
            }
        };
        while group.read(&mut self.buffer, Decision::Allow, pass).is_ok_and(|read| read > 0) {}
    }
}

pub(super) fn lock(waiting: &Mutex<Waiting>) -> MutexGuard<'_, Waiting> {
    waiting.lock().unwrap_or_else(PoisonError::into_inner)
}
