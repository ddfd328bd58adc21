//! The numbers of on-access protection. Written from the held path: atomics only.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use holdfast_common::control::OnAccessCounters;
use holdfast_common::verdict::{Decision, FailureReason};

/// Counters since start.
#[derive(Debug, Default)]
pub struct Counters {
    pub(super) held: AtomicU64,
    pub(super) allowed: AtomicU64,
    pub(super) denied: AtomicU64,
    pub(super) own: AtomicU64,
    pub(super) cached: AtomicU64,
    pub(super) excluded: AtomicU64,
    pub(super) denied_paths: AtomicU64,
    pub(super) closed_scanned: AtomicU64,
    pub(super) closed_skipped: AtomicU64,
    pub(super) failures: [AtomicU64; FailureReason::ALL.len()],
    pub(super) past_deadline: AtomicU64,
    pub(super) longest_held_us: AtomicU64,
    pub(super) rescans_waiting: AtomicU64,
    pub(super) rescans_done: AtomicU64,
    pub(super) rescans_dropped: AtomicU64,
    pub(super) namespaces: AtomicU64,
    pub(super) namespaces_unseen: AtomicU64,
    pub(super) coverage_untold: AtomicU64,
    pub(super) workers: AtomicU64,
}

/// Adds one.
pub(super) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Relaxed);
}

impl Counters {
    pub(super) fn count_failure(&self, reason: FailureReason) {
        if let Some(at) = FailureReason::ALL.iter().position(|row| *row == reason) {
            count(&self.failures[at]);
        }
    }

    /// An open was answered after `held`.
    pub(crate) fn count_answer(&self, decision: Decision, held: Duration, deadline: Duration) {
        count(match decision {
            Decision::Allow => &self.allowed,
            Decision::Deny => &self.denied,
        });
        self.longest_held_us
            .fetch_max(u64::try_from(held.as_micros()).unwrap_or(u64::MAX), Relaxed);
        if held > deadline {
            count(&self.past_deadline);
        }
    }

    /// All of them, for `holdfast status`.
    #[must_use]
    pub fn report(&self) -> OnAccessCounters {
        let read = |counter: &AtomicU64| counter.load(Relaxed);
        OnAccessCounters {
            held: read(&self.held),
            allowed: read(&self.allowed),
            denied: read(&self.denied),
            own: read(&self.own),
            cached: read(&self.cached),
            excluded: read(&self.excluded),
            denied_paths: read(&self.denied_paths),
            closed_scanned: read(&self.closed_scanned),
            closed_skipped: read(&self.closed_skipped),
            failures: FailureReason::ALL.into_iter().zip(self.failures.iter().map(read)).collect(),
            past_deadline: read(&self.past_deadline),
            longest_held_us: read(&self.longest_held_us),
            rescans_waiting: read(&self.rescans_waiting),
            rescans_done: read(&self.rescans_done),
            rescans_dropped: read(&self.rescans_dropped),
            namespaces: read(&self.namespaces),
            namespaces_unseen: read(&self.namespaces_unseen),
            coverage_untold: read(&self.coverage_untold),
        }
    }
}
