//! The bounded queue between those who record events and the writer.
//!
//! Bounded by number and by bytes, since an attacker chooses how long a command line is.
//! When it is full telemetry is dropped and counted; other events wait for room.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use holdfast_common::event::Event;

/// Most entries.
const MAX_ENTRIES: usize = 16_384;
/// Most bytes of JSON.
const MAX_BYTES: usize = 32 << 20;
/// How long telemetry alone is gathered before it is written.
const GATHER: Duration = Duration::from_millis(50);

/// One event, ready to be written.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) event: Arc<Event>,
    pub(super) json: String,
}

impl Entry {
    /// `None` when the event cannot be put into JSON.
    pub(super) fn new(event: Event) -> Option<Self> {
        match serde_json::to_string(&event) {
            Ok(json) => Some(Self { event: Arc::new(event), json }),
            Err(error) => {
                tracing::error!(kind = event.body.kind(), %error, "an event cannot be written");
                None
            }
        }
    }
}

/// What the writer has to do next.
#[derive(Debug, Default)]
pub(super) struct Work {
    pub(super) entries: Vec<Entry>,
    /// Somebody waits until everything is on disk.
    pub(super) flush: bool,
    /// No handle is left: write and end.
    pub(super) closed: bool,
    /// Position of the last entry, to be reported back by [`Queue::done`].
    position: u64,
    flush_wanted: u64,
}

#[derive(Debug, Default)]
pub(super) struct Queue {
    state: Mutex<State>,
    /// For the writer: there is something to do.
    work: Condvar,
    /// For callers: there is room, or something was finished.
    progress: Condvar,
}

#[derive(Debug, Default)]
struct State {
    entries: VecDeque<Entry>,
    bytes: usize,
    /// Not telemetry, or a flush: do not gather any longer.
    urgent: bool,
    closed: bool,
    /// The writer is gone; nobody may wait for it.
    ended: bool,
    dropped: u64,
    /// Entries ever pushed, and of those the ones that the writer has finished with.
    pushed: u64,
    finished: u64,
    /// Flushes ever asked for, and done.
    flush_wanted: u64,
    flush_done: u64,
}

impl State {
    fn has_room(&self, bytes: usize) -> bool {
        self.entries.is_empty()
            || (self.entries.len() < MAX_ENTRIES && self.bytes + bytes <= MAX_BYTES)
    }

    fn has_work(&self) -> bool {
        !self.entries.is_empty() || self.closed || self.flush_wanted > self.flush_done
    }
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn push(&self, entry: Entry) {
        let telemetry = entry.event.body.is_telemetry();
        let mut state = self.lock();
        while !state.closed && !state.has_room(entry.json.len()) {
            if telemetry {
                state.dropped += 1;
                return;
            }
            state = self.progress.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        if state.closed {
            state.dropped += 1;
            return;
        }
        let wake = state.entries.is_empty() || (!telemetry && !state.urgent);
        state.bytes += entry.json.len();
        state.urgent |= !telemetry;
        state.entries.push_back(entry);
        state.pushed += 1;
        drop(state);
        if wake {
            self.work.notify_one();
        }
    }

    pub(super) fn count_dropped(&self, number: u64) {
        self.lock().dropped += number;
    }

    pub(super) fn dropped(&self) -> u64 {
        self.lock().dropped
    }

    /// For the writer: waits for work, at most until `patience` has passed.
    pub(super) fn take(&self, patience: Duration) -> Work {
        let mut state = self.lock();
        let until = Instant::now() + patience;
        while !state.has_work() {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            state = self.wait_for_work(state, left);
        }
        let until = Instant::now() + GATHER;
        while !state.urgent && !state.closed && state.entries.len() < MAX_ENTRIES / 4 {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() || state.entries.is_empty() {
                break;
            }
            state = self.wait_for_work(state, left);
        }
        state.bytes = 0;
        state.urgent = false;
        let work = Work {
            entries: state.entries.drain(..).collect(),
            flush: state.flush_wanted > state.flush_done,
            closed: state.closed,
            position: state.pushed,
            flush_wanted: state.flush_wanted,
        };
        drop(state);
        self.progress.notify_all();
        work
    }

    fn wait_for_work<'a>(
        &self,
        state: MutexGuard<'a, State>,
        patience: Duration,
    ) -> MutexGuard<'a, State> {
        self.work.wait_timeout(state, patience).unwrap_or_else(PoisonError::into_inner).0
    }

    /// For the writer: this work was dealt with.
    pub(super) fn done(&self, position: &Position) {
        let mut state = self.lock();
        state.finished = state.finished.max(position.entries);
        state.flush_done = state.flush_done.max(position.flushes);
        drop(state);
        self.progress.notify_all();
    }

    /// Waits until the writer has dealt with everything recorded so far, and synced it.
    pub(super) fn flush(&self) {
        let mut state = self.lock();
        state.flush_wanted += 1;
        state.urgent = true;
        let wanted = state.flush_wanted;
        self.work.notify_one();
        while state.flush_done < wanted && !state.ended {
            state = self.progress.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Waits until the writer has dealt with everything recorded so far, but not for ever.
    pub(super) fn wait_drained(&self, patience: Duration) {
        let until = Instant::now() + patience;
        let mut state = self.lock();
        let wanted = state.pushed;
        if state.finished < wanted {
            state.urgent = true;
            self.work.notify_one();
        }
        while state.finished < wanted && !state.ended {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            state =
                self.progress.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// For the writer: it ends, whatever the reason.
    pub(super) fn end(&self) {
        let mut state = self.lock();
        state.ended = true;
        state.closed = true;
        state.dropped += state.entries.len() as u64;
        state.entries = VecDeque::new();
        drop(state);
        self.progress.notify_all();
    }

    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.work.notify_one();
        self.progress.notify_all();
    }
}

/// How far the writer is.
#[derive(Debug)]
pub(super) struct Position {
    entries: u64,
    flushes: u64,
}

impl Work {
    pub(super) fn position(&self) -> Position {
        Position { entries: self.position, flushes: self.flush_wanted }
    }
}
