//! Following the journal: each follower has a bounded queue of its own.
//!
//! INVARIANT: the writer never waits for a follower. What does not fit is counted, and the
//! follower gets one `loss` event in its place.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use holdfast_common::event::{Event, EventBody, LossEvent};
use uuid::Uuid;

/// Most events that wait for one follower.
const MAX_EVENTS: usize = 4096;
/// Most bytes of JSON that wait for one follower.
const MAX_BYTES: usize = 8 << 20;

/// What a follower gets.
#[derive(Debug, Clone, PartialEq)]
pub enum Next {
    /// An event.
    Event(Arc<Event>),
    /// Nothing happened in the time given.
    Nothing,
    /// The journal is closed.
    Closed,
}

/// One reader of what happens from now on.
#[derive(Debug)]
pub struct Follower {
    mailbox: Arc<Mailbox>,
}

#[derive(Debug)]
pub(super) struct Mailbox {
    kind: Option<String>,
    state: Mutex<State>,
    arrived: Condvar,
}

#[derive(Debug, Default)]
struct State {
    events: VecDeque<(Arc<Event>, usize)>,
    bytes: usize,
    /// Events missed since the last one in `events`; those behind it wait until this is told.
    missed: u64,
    host: String,
    closed: bool,
    gone: bool,
}

impl Follower {
    /// The next event, waiting at most this long.
    #[must_use]
    pub fn next(&self, patience: Duration) -> Next {
        let until = Instant::now() + patience;
        let mut state = self.mailbox.lock();
        loop {
            if let Some((event, bytes)) = state.events.pop_front() {
                state.bytes -= bytes;
                return Next::Event(event);
            }
            if state.missed > 0 {
                let count = std::mem::take(&mut state.missed);
                let body = EventBody::Loss(LossEvent { queue: "follower".into(), count });
                let host = state.host.clone();
                let (id, time_ms) = (Uuid::now_v7(), crate::now_ms());
                return Next::Event(Arc::new(Event { id, time_ms, host, body }));
            }
            if state.closed {
                return Next::Closed;
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Next::Nothing;
            }
            state = self
                .mailbox
                .arrived
                .wait_timeout(state, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        let mut state = self.mailbox.lock();
        state.gone = true;
        state.events = VecDeque::new();
    }
}

impl Mailbox {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// False when nobody reads it any more.
    fn put(&self, event: &Arc<Event>, bytes: usize) -> bool {
        let mut state = self.lock();
        if state.gone {
            return false;
        }
        if self.kind.as_deref().is_some_and(|kind| kind != event.body.kind()) {
            return true;
        }
        let full = state.events.len() >= MAX_EVENTS
            || (!state.events.is_empty() && state.bytes + bytes > MAX_BYTES);
        if full || state.missed > 0 {
            state.missed += 1;
            if state.host.is_empty() {
                state.host.clone_from(&event.host);
            }
        } else {
            state.events.push_back((Arc::clone(event), bytes));
            state.bytes += bytes;
        }
        drop(state);
        self.arrived.notify_one();
        true
    }
}

pub(super) fn subscribe(mailboxes: &mut Vec<Arc<Mailbox>>, kind: Option<String>) -> Follower {
    let state = Mutex::new(State::default());
    let mailbox = Arc::new(Mailbox { kind, state, arrived: Condvar::new() });
    mailboxes.push(Arc::clone(&mailbox));
    Follower { mailbox }
}

/// Hands an event to all followers and forgets those that are gone.
pub(super) fn publish(mailboxes: &mut Vec<Arc<Mailbox>>, event: &Arc<Event>, bytes: usize) {
    mailboxes.retain(|mailbox| mailbox.put(event, bytes));
}

pub(super) fn close(mailboxes: &mut Vec<Arc<Mailbox>>) {
    for mailbox in mailboxes.drain(..) {
        mailbox.lock().closed = true;
        mailbox.arrived.notify_one();
    }
}
