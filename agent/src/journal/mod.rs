//! The journal: a bounded local store of events that survives `kill -9` and power loss.
//!
//! [`Journal`] is a handle: callers put events into a bounded queue ([`queue`]), one writer
//! thread ([`writer`]) commits them in batches to SQLite ([`store`]) and hands them to whoever
//! follows ([`follow`]). Reading uses connections of its own and never waits for a caller.
//!
//! INVARIANT: an event that is not telemetry is written, or counted in a `loss` event; it is
//! never dropped in silence. It knows nothing of what events mean, and sends nothing anywhere.

mod follow;
mod queue;
mod reader;
mod store;
#[cfg(test)]
mod tests;
mod writer;

use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use holdfast_common::event::{Event, EventBody};
use uuid::Uuid;

pub use follow::{Follower, Next};
pub use reader::{Page, Reader, Row, Waiting};

use crate::config;
use crate::now_ms;
use queue::Entry;
use store::{Place, Store};
use writer::{Shared, Writer};

/// How long a reader waits for what was recorded before it.
const DRAIN: Duration = Duration::from_secs(2);

/// Why the journal could not be opened or read.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The state folder cannot be used.
    #[error("cannot use the state folder {path}")]
    StateDir {
        /// The folder.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The file was written by a later version; it was left as it is.
    #[error(
        "{path} has journal version {found}, this agent knows versions up to {known}: \
         install the newer agent again, or move the file away"
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: i64,
        /// The version that this agent writes.
        known: i64,
    },
    /// A corrupt file could not be moved aside.
    #[error("{path} is corrupt and cannot be moved aside")]
    MoveAside {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// SQLite refused.
    #[error("cannot {operation} the journal {path}")]
    Sql {
        /// What was tried.
        operation: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: rusqlite::Error,
    },
    /// The writer thread could not be started.
    #[error("cannot start the journal's writer")]
    Thread(#[source] std::io::Error),
}

/// Which events to read. The default takes all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// Only events at or after this, milliseconds since the epoch.
    pub since_ms: Option<i64>,
    /// Only this kind ([`EventBody::kind`]).
    pub kind: Option<String>,
    /// At most this many, the newest; 0 for no limit.
    pub limit: u64,
    /// Only this event.
    pub id: Option<Uuid>,
}

/// Numbers for `holdfast status`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct JournalCounts {
    /// Events in the store.
    pub events: u64,
    /// Events dropped since start.
    pub dropped: u64,
}

/// The handle; clones share one store. The last one dropped writes what is left and closes.
#[derive(Debug, Clone)]
pub struct Journal {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    host: String,
    file: PathBuf,
    shared: Arc<Shared>,
    writer: Option<JoinHandle<()>>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.shared.queue.close();
        if let Some(writer) = self.writer.take() {
            let _ = writer.join();
        }
    }
}

impl Journal {
    /// Opens or creates `state_dir/journal.db` (mode 0600) and starts the writer.
    ///
    /// A corrupt file is renamed to `journal.db.corrupt-TIME`, reported, and a new one begun. A
    /// full disk is no error: events are kept in memory, and the file is opened when it can be.
    ///
    /// # Errors
    /// [`JournalError`]; a file of a newer version is refused and not changed.
    pub fn open(
        state_dir: &Path,
        host: String,
        limits: &config::Journal,
    ) -> Result<Self, JournalError> {
        let place = Place::new(state_dir, limits);
        let file = place.file.clone();
        let (store, moved) = match Store::open(&place) {
            Ok((store, moved)) => (Some(store), moved),
            Err(error) if store::is_full(&error) => (None, None),
            Err(error) => return Err(error),
        };
        let shared = Arc::new(Shared::new(store.as_ref().map_or(0, Store::events)));
        let mut writer = Writer::new(Arc::clone(&shared), place, store, host.clone());
        let thread = std::thread::Builder::new()
            .name("journal".into())
            .spawn(move || writer.run())
            .map_err(JournalError::Thread)?;
        let inner = Inner { host, file, shared, writer: Some(thread) };
        let journal = Self { inner: Arc::new(inner) };
        if let Some(moved) = moved {
            journal.record(writer::moved_aside(&moved));
        }
        Ok(journal)
    }

    /// Puts an event into the queue and returns its id. Telemetry is dropped and counted when
    /// the queue is full; anything else waits for room. Never call it on the held path.
    pub fn record(&self, body: EventBody) -> Uuid {
        let id = Uuid::now_v7();
        self.record_as(id, body);
        id
    }

    /// The same, for an event that has been given its id (UUID version 7) already.
    pub fn record_as(&self, id: Uuid, body: EventBody) {
        let event = Event { id, time_ms: now_ms(), host: self.inner.host.clone(), body };
        match Entry::new(event) {
            Some(entry) => self.inner.shared.queue.push(entry),
            None => self.inner.shared.queue.count_dropped(1),
        }
    }

    /// The events that pass the filter, oldest first, among them all recorded before the call.
    ///
    /// # Errors
    /// [`JournalError::Sql`]
    pub fn query(&self, filter: &Filter) -> Result<Vec<Event>, JournalError> {
        let mut events = Vec::new();
        self.each(filter, &mut |event| {
            events.push(event);
            true
        })?;
        Ok(events)
    }

    /// Like [`Journal::query`], event by event in bounded memory, until `visit` returns false.
    ///
    /// # Errors
    /// [`JournalError::Sql`]
    pub fn each(
        &self,
        filter: &Filter,
        visit: &mut dyn FnMut(Event) -> bool,
    ) -> Result<(), JournalError> {
        self.inner.shared.queue.wait_drained(DRAIN);
        store::each(&self.inner.file, filter, i64::MAX, visit)
    }

    /// What happens from now on. A reader that is too slow is told how many it missed.
    #[must_use]
    pub fn follow(&self) -> Follower {
        let mut followers = self.inner.shared.followers();
        follow::subscribe(&mut followers, None)
    }

    /// First what passes the filter (to `visit`, see [`Journal::each`]), then what happens from
    /// there on: no event twice, none left out between the two (but while the disk refuses, what
    /// waits for it is in neither). The follower keeps to the filter's kind.
    ///
    /// # Errors
    /// [`JournalError::Sql`]
    pub fn tail(
        &self,
        filter: &Filter,
        visit: &mut dyn FnMut(Event) -> bool,
    ) -> Result<Follower, JournalError> {
        self.inner.shared.queue.wait_drained(DRAIN);
        let (follower, newest) = {
            // The writer commits and publishes under this lock, so the border is exact.
            let mut followers = self.inner.shared.followers();
            let newest = store::newest(&self.inner.file)?;
            (follow::subscribe(&mut followers, filter.kind.clone()), newest)
        };
        store::each(&self.inner.file, filter, newest, visit)?;
        Ok(follower)
    }

    /// Changes whenever events were written.
    #[must_use]
    pub fn written(&self) -> tokio::sync::watch::Receiver<u64> {
        self.inner.shared.written.subscribe()
    }

    /// How many events there are, and how many were dropped since start.
    #[must_use]
    pub fn counts(&self) -> JournalCounts {
        JournalCounts {
            events: self.inner.shared.events.load(Ordering::Relaxed),
            dropped: self.inner.shared.queue.dropped(),
        }
    }

    /// Waits until all events recorded before the call are on disk (power loss included).
    /// False when they could not be written; they are kept in memory and tried again.
    pub fn flush(&self) -> bool {
        self.inner.shared.queue.flush();
        self.problem().is_none()
    }

    /// Why events cannot be written at this moment, for `holdfast status`.
    #[must_use]
    pub fn problem(&self) -> Option<String> {
        self.inner.shared.problem.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
