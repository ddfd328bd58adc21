//! The journal's one writer: takes what is queued, commits it, shows it to the followers.
//!
//! INVARIANT: it never stops because of the disk. What cannot be written stays in a bounded
//! memory, is tried again every second, and what does not fit there is counted as a loss.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use holdfast_common::event::{Event, EventBody, LossEvent};
use uuid::Uuid;

use super::follow::{self, Mailbox};
use super::queue::{Entry, Queue};
use super::store::{self, Place, Store};

/// Pause between two tries while the disk refuses.
const RETRY: Duration = Duration::from_secs(1);
/// Losses are told at once, then at most this often: they must not push detections out.
const TELL_LOSS: Duration = Duration::from_secs(60);
/// A disk that corrupts each new file must not be filled with what is moved aside.
const BEGIN_ANEW: Duration = Duration::from_secs(600);
/// Bounds of what is kept while the disk refuses.
const MAX_BACKLOG: usize = 16_384;
const MAX_BACKLOG_BYTES: usize = 32 << 20;

/// What handles, writer and followers share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) queue: Queue,
    pub(super) events: AtomicU64,
    pub(super) problem: Mutex<Option<String>>,
    /// Commits so far.
    pub(super) written: tokio::sync::watch::Sender<u64>,
    followers: Mutex<Vec<Arc<Mailbox>>>,
}

impl Shared {
    pub(super) fn new(events: u64) -> Self {
        Self {
            queue: Queue::default(),
            events: AtomicU64::new(events),
            problem: Mutex::new(None),
            written: tokio::sync::watch::Sender::new(0),
            followers: Mutex::new(Vec::new()),
        }
    }

    pub(super) fn followers(&self) -> MutexGuard<'_, Vec<Arc<Mailbox>>> {
        self.followers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(super) struct Writer {
    shared: Arc<Shared>,
    place: Place,
    /// `None` while the disk has no room even to open it.
    store: Option<Store>,
    host: String,
    /// Taken from the queue, not yet on disk. Empty unless the disk refuses.
    backlog: Vec<Entry>,
    told_dropped: u64,
    told_at: Option<Instant>,
    begun_anew_at: Option<Instant>,
}

/// The event for a journal that was corrupt.
pub(super) fn moved_aside(to: &Path) -> EventBody {
    let queue = format!("journal (it was corrupt, and was moved to {})", to.display());
    EventBody::Loss(LossEvent { queue, count: 0 })
}

impl Writer {
    pub(super) fn new(
        shared: Arc<Shared>,
        place: Place,
        store: Option<Store>,
        host: String,
    ) -> Self {
        Self {
            shared,
            place,
            store,
            host,
            backlog: Vec::new(),
            told_dropped: 0,
            told_at: None,
            begun_anew_at: None,
        }
    }

    /// Works until the last handle is gone.
    pub(super) fn run(&mut self) {
        let _end = End(Arc::clone(&self.shared));
        loop {
            let work = self.shared.queue.take(self.patience());
            let position = work.position();
            let fresh = self.backlog.len();
            self.backlog.extend(work.entries);
            // A loss is told when it can be written; until then it only grows.
            if fresh == 0 || work.closed {
                self.add_loss(work.closed);
            }
            self.write(fresh, work.flush || work.closed);
            self.shared.queue.done(&position);
            if work.closed {
                return;
            }
        }
    }

    fn patience(&self) -> Duration {
        if !self.backlog.is_empty() {
            RETRY
        } else if self.shared.queue.dropped() > self.told_dropped {
            self.told_at.map_or(Duration::ZERO, |at| TELL_LOSS.saturating_sub(at.elapsed()))
        } else {
            TELL_LOSS
        }
    }

    /// Puts an event for what was dropped behind the others, when one is due.
    fn add_loss(&mut self, last_chance: bool) {
        let dropped = self.shared.queue.dropped();
        let due = last_chance || self.told_at.is_none_or(|at| at.elapsed() >= TELL_LOSS);
        if dropped == self.told_dropped || !due {
            return;
        }
        let count = dropped - self.told_dropped;
        self.push(EventBody::Loss(LossEvent { queue: "journal".into(), count }));
        self.told_dropped = dropped;
        self.told_at = Some(Instant::now());
    }

    fn push(&mut self, body: EventBody) {
        let (id, time_ms) = (Uuid::now_v7(), crate::now_ms());
        self.backlog.extend(Entry::new(Event { id, time_ms, host: self.host.clone(), body }));
    }

    /// Tries to commit the backlog; entries from `fresh` on are shown to the followers.
    fn write(&mut self, fresh: usize, sync: bool) {
        let shared = Arc::clone(&self.shared);
        let mut followers = shared.followers();
        let written = self.insert(sync);
        shared.events.store(self.store.as_ref().map_or(0, Store::events), Ordering::Relaxed);
        for entry in self.backlog.iter().skip(fresh) {
            follow::publish(&mut followers, &entry.event, entry.json.len());
        }
        drop(followers);
        match written {
            Ok(()) => {
                if !self.backlog.is_empty() {
                    shared.written.send_modify(|commits| *commits = commits.wrapping_add(1));
                }
                self.backlog.clear();
                self.set_problem(None);
            }
            Err(problem) => {
                self.set_problem(Some(problem));
                self.bound_backlog();
            }
        }
    }

    /// Commits the backlog, opening or replacing the file where that is needed.
    fn insert(&mut self, sync: bool) -> Result<(), String> {
        let store = match self.store.take() {
            Some(store) => store,
            None => {
                let opened = Store::open(&self.place).map_err(|error| unwritable(&error))?;
                if let (_, Some(moved)) = &opened {
                    self.push(moved_aside(moved));
                }
                opened.0
            }
        };
        let store = self.store.insert(store);
        store.insert(&self.backlog, sync).map_err(|error| {
            if store::is_corrupt(&error) {
                self.begin_anew();
            }
            unwritable(&error)
        })
    }

    fn begin_anew(&mut self) {
        if self.begun_anew_at.is_some_and(|at| at.elapsed() < BEGIN_ANEW) {
            return;
        }
        self.begun_anew_at = Some(Instant::now());
        let Some(store) = &mut self.store else { return };
        match store.begin_anew() {
            Ok(moved) => self.push(moved_aside(&moved)),
            Err(error) => tracing::error!(%error, "no new journal can be begun"),
        }
    }

    /// Keeps what must not be lost, as far as it fits; the rest is counted.
    fn bound_backlog(&mut self) {
        let before = self.backlog.len();
        let (mut entries, mut bytes) = (0, 0);
        self.backlog.retain(|entry| {
            if entry.event.body.is_telemetry() {
                return false;
            }
            entries += 1;
            bytes += entry.json.len();
            entries <= MAX_BACKLOG && bytes <= MAX_BACKLOG_BYTES
        });
        self.shared.queue.count_dropped((before - self.backlog.len()) as u64);
    }

    /// Remembers the problem for `status`, and says once when it comes and when it goes.
    fn set_problem(&self, problem: Option<String>) {
        let mut known = self.shared.problem.lock().unwrap_or_else(PoisonError::into_inner);
        match (&*known, &problem) {
            (None, Some(problem)) => tracing::error!("{problem}"),
            (Some(_), None) => tracing::info!("the journal can be written again"),
            (None, None) | (Some(_), Some(_)) => {}
        }
        *known = problem;
    }
}

/// A problem for people, with its cause.
fn unwritable(error: &dyn std::error::Error) -> String {
    let cause = error.source().map(|cause| format!(": {cause}")).unwrap_or_default();
    format!("the journal cannot be written: {error}{cause}")
}

/// Lets everybody go who would wait for the writer, even when it panicked.
struct End(Arc<Shared>);

impl Drop for End {
    fn drop(&mut self) {
        self.0.queue.end();
        follow::close(&mut self.0.followers());
    }
}
