//! What is counted since the start, for `/metrics` and tests.

use std::sync::atomic::{AtomicU64, Ordering};

/// Numbers that only grow.
#[derive(Debug, Default)]
pub struct Counters {
    /// Events kept.
    pub events_stored: Counter,
    /// Events that were there already.
    pub events_doubled: Counter,
    /// What was no event.
    pub events_refused: Counter,
    /// Heartbeats kept.
    pub heartbeats: Counter,
    /// Heartbeats and the like of streams that are not the host's any more.
    pub stale_messages: Counter,
    /// Detections counted on alerts.
    pub detections: Counter,
    /// Streams let in.
    pub admitted: Counter,
    /// Streams refused.
    pub refused: Counter,
    /// Progress of tasks that was not taken: another host's task, or after its end.
    pub progress_refused: Counter,
    /// Sign-ins that failed.
    pub sign_in_failures: Counter,
    /// Batches that were written one by one, since one of them failed.
    pub batches_split: Counter,
}

/// One number.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds.
    pub fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    /// Reads.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
