//! The opens that wait for a verdict, oldest first.
//!
//! INVARIANT: an open leaves this table only by being answered. The loop that read it answers by
//! ticket; the watchdog answers what is overdue should the loop itself be stuck (a file system
//! that blocks in `close`, for one). That second reader is why the table has a lock; nobody
//! holds it across a call that can block.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use holdfast_common::verdict::Decision;

use crate::on_access::cache::Epoch;
use crate::sys::fanotify::Pending;
use crate::sys::identity::Facts;

/// One held open.
#[derive(Debug)]
pub(super) struct Waiter {
    pub(super) pending: Pending,
    /// The file before the scan.
    pub(super) facts: Facts,
    /// Its last change lies far enough back for the verdict to be kept.
    pub(super) settled: bool,
    /// Its last modification lies far enough back for a bad verdict to be kept.
    pub(super) written_long_ago: bool,
    /// Opens that can write, before the scan.
    pub(super) epoch: Epoch,
    /// When the loop read the event.
    pub(super) since: Instant,
    /// The open belongs to an exec: what is read must be what runs.
    pub(super) program: bool,
    /// Times that it changed while it was scanned.
    pub(super) changes: u8,
    /// Scans begun.
    pub(super) attempts: u8,
    /// What to answer, once that is settled: it is held only for its opener to be looked up.
    pub(super) decided: Option<Decision>,
}

/// Time to answer one waiter, generously.
const ANSWER: Duration = Duration::from_micros(50);

/// Names a waiter; never used twice.
pub(super) type Ticket = u64;

/// The table.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    // A ticket's place is its low 32 bits; the rest tells a reused place from an old ticket.
    places: Vec<Option<(Ticket, Waiter)>>,
    free: Vec<u32>,
    // By age; tickets already answered are skipped when they come to the front.
    order: VecDeque<(Instant, Ticket)>,
    issued: u32,
    count: usize,
}

impl Waiting {
    pub(super) fn len(&self) -> usize {
        self.count
    }

    pub(super) fn insert(&mut self, waiter: Waiter) -> Ticket {
        let place = self.free.pop().unwrap_or_else(|| {
            self.places.push(None);
            // Bounded by the number of descriptors.
            u32::try_from(self.places.len() - 1).unwrap_or(u32::MAX)
        });
        self.issued = self.issued.wrapping_add(1);
        let ticket = (u64::from(self.issued) << 32) | u64::from(place);
        // By age: one that was here before, and is tried again, goes back to its old rank.
        let rank = self.order.partition_point(|(since, _)| *since <= waiter.since);
        self.order.insert(rank, (waiter.since, ticket));
        self.count += 1;
        if let Some(slot) = self.places.get_mut(place as usize) {
            *slot = Some((ticket, waiter));
        }
        ticket
    }

    pub(super) fn get_mut(&mut self, ticket: Ticket) -> Option<&mut Waiter> {
        match self.places.get_mut(place(ticket)) {
            Some(Some((known, waiter))) if *known == ticket => Some(waiter),
            _ => None,
        }
    }

    /// Takes a waiter out to be answered. `None` when it has been answered already.
    pub(super) fn remove(&mut self, ticket: Ticket) -> Option<Waiter> {
        let slot = self.places.get_mut(place(ticket))?;
        if slot.as_ref().is_none_or(|(known, _)| *known != ticket) {
            return None;
        }
        let (_, waiter) = slot.take()?;
        self.free.push(u32::try_from(place(ticket)).unwrap_or(u32::MAX));
        self.count -= 1;
        // Keeps `order` as short as the table.
        while self.order.front().is_some_and(|(_, first)| self.is_gone(*first)) {
            self.order.pop_front();
        }
        Some(waiter)
    }

    /// How long the oldest may wait so that the last of the crowd behind it is still answered
    /// within `limit`.
    pub(super) fn patience(&self, limit: Duration) -> Duration {
        let crowd = u32::try_from(self.count).unwrap_or(u32::MAX);
        limit - ANSWER.saturating_mul(crowd).min(limit / 2)
    }

    /// Takes out the oldest waiter if it has waited for as long as `limit` allows.
    pub(super) fn remove_overdue(
        &mut self,
        now: Instant,
        limit: Duration,
    ) -> Option<(Ticket, Waiter)> {
        let (since, ticket) = *self.order.front()?;
        if now.saturating_duration_since(since) < self.patience(limit) {
            return None;
        }
        self.remove(ticket).map(|waiter| (ticket, waiter))
    }

    /// Takes out any waiter: the agent stops.
    pub(super) fn remove_any(&mut self) -> Option<Waiter> {
        let (_, ticket) = *self.order.front()?;
        self.remove(ticket)
    }

    /// Since when the oldest waits.
    pub(super) fn oldest(&self) -> Option<Instant> {
        self.order.front().map(|(since, _)| *since)
    }

    fn is_gone(&self, ticket: Ticket) -> bool {
        !matches!(self.places.get(place(ticket)), Some(Some((known, _))) if *known == ticket)
    }
}

fn place(ticket: Ticket) -> usize {
    (ticket & u64::from(u32::MAX)) as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::on_access::cache::Cache;
    use crate::sys::fanotify::Pending;

    fn waiter(since: Instant) -> Waiter {
        use std::os::fd::AsFd;
        let file = std::fs::File::open("/proc/self/stat").expect("open");
        let facts = Facts::of(file.as_fd()).expect("statx");
        let epoch = Cache::default().epoch(&facts.identity);
        let pending = Pending::unconnected(file.into());
        Waiter {
            pending,
            facts,
            settled: false,
            written_long_ago: false,
            epoch,
            since,
            program: false,
            changes: 0,
            attempts: 0,
            decided: None,
        }
    }

    #[test]
    fn the_oldest_is_overdue_first_even_when_it_came_back() {
        let start = Instant::now();
        let mut waiting = Waiting::default();
        let first = waiting.insert(waiter(start));
        let second = waiting.insert(waiter(start + Duration::from_millis(10)));
        let came_back = waiting.remove(first).expect("first");
        let first_again = waiting.insert(came_back);
        assert!(waiting.get_mut(first).is_none(), "an old ticket names nobody");
        let limit = Duration::from_millis(50);
        assert!(waiting.remove_overdue(start + Duration::from_millis(48), limit).is_none());
        let now = start + Duration::from_millis(55);
        assert_eq!(waiting.remove_overdue(now, limit).map(|(ticket, _)| ticket), Some(first_again));
        assert!(waiting.remove_overdue(now, limit).is_none());
        assert!(waiting.remove(second).is_some());
        assert!(waiting.remove(second).is_none(), "answered once");
        assert_eq!((waiting.len(), waiting.oldest()), (0, None));
    }
}
