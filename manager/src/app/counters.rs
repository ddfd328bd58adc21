//! What is counted since the start, for `/metrics` and tests.

use std::sync::Arc;
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
    /// What the link counts at its port.
    pub link: Arc<LinkCounters>,
}

/// What happened at the link's port since the start.
#[derive(Debug, Default)]
pub struct LinkCounters {
    /// Streams of hosts that are open now.
    pub agents: AtomicU64,
    /// Connections that were accepted.
    pub accepted: AtomicU64,
    /// Handshakes that failed or took too long.
    pub failed: AtomicU64,
    /// Connections that found no place.
    pub turned_away: AtomicU64,
    /// Streams and requests that were refused: no certificate, revoked, cloned, no token.
    pub refused: AtomicU64,
    /// Streams that were ended for what they sent, or for sending nothing.
    pub ended: AtomicU64,
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
