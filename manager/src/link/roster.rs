//! Which hosts have a stream at this manager: one each, the newest.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use uuid::Uuid;

/// The streams of this manager.
#[derive(Debug, Default)]
pub(super) struct Roster(Mutex<HashMap<Uuid, (Uuid, Arc<Notify>)>>);

/// A stream's place; given back when it is dropped.
#[derive(Debug)]
pub(super) struct Seat {
    roster: Arc<Roster>,
    host: Uuid,
    session: Uuid,
    replaced: Arc<Notify>,
}

impl Roster {
    fn seats(&self) -> MutexGuard<'_, HashMap<Uuid, (Uuid, Arc<Notify>)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the host's seat; an older stream of it is told to end.
    pub(super) fn take(self: &Arc<Self>, host: Uuid, session: Uuid) -> Seat {
        let replaced = Arc::new(Notify::new());
        if let Some((_, older)) = self.seats().insert(host, (session, Arc::clone(&replaced))) {
            older.notify_one();
        }
        Seat { roster: Arc::clone(self), host, session, replaced }
    }

    /// How many hosts have a stream.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.seats().len()
    }
}

impl Seat {
    /// Returns when a newer stream of the host has come.
    pub(super) async fn replaced(&self) {
        self.replaced.notified().await;
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut seats = self.roster.seats();
        if seats.get(&self.host).is_some_and(|(session, _)| *session == self.session) {
            seats.remove(&self.host);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_newer_stream_takes_the_place_of_an_older_one() {
        let roster = Arc::new(Roster::default());
        let host = Uuid::now_v7();
        let first = roster.take(host, Uuid::now_v7());
        let second = roster.take(host, Uuid::now_v7());
        first.replaced().await;
        drop(first);
        assert_eq!(roster.len(), 1, "the place is the newer one's");
        drop(second);
        assert_eq!(roster.len(), 0);
    }
}
