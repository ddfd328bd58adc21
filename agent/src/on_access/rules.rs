//! What the loops decide by, as it is now: one value that is replaced as a whole.
//!
//! INVARIANT: each loop owns its copy and gets the next one as a message, so that nothing on the
//! held path locks or counts; whoever replaces rules keeps the old ones alive until every loop has
//! let go of them, so that no loop frees them either. An open that was read under a longer deadline
//! is not late by a shorter one.

use std::sync::Arc;
use std::time::{Duration, Instant};

use holdfast_common::verdict::{Decision, FailureReason};

use crate::config::OnAccess;
use crate::on_access::places::Places;

/// The rules in force.
#[derive(Debug)]
pub(super) struct Rules {
    pub(super) config: OnAccess,
    /// Paths that are denied.
    pub(super) denied: Arc<Places>,
    /// When a loop answers by the failure table: a little before the deadline.
    pub(super) soft_deadline: Duration,
    /// When the watchdog answers for a loop that is stuck.
    pub(super) hard_deadline: Duration,
    /// The reply should an event be dropped by mistake.
    pub(super) fallback: Decision,
    /// Time for one file that nobody waits for.
    pub(super) rescan_limit: Duration,
    /// Opens that were read before this had a longer deadline.
    longer: Option<(Instant, Duration)>,
}

impl Rules {
    /// In place of `before`.
    pub(super) fn new(
        config: OnAccess,
        denied: Arc<Places>,
        rescan_limit_s: u64,
        before: Option<&Self>,
    ) -> Self {
        let margin = margin(config.deadline);
        let longer = before
            .filter(|before| before.config.deadline > config.deadline)
            .map(|before| (Instant::now(), before.config.deadline));
        Self {
            soft_deadline: config.deadline - margin,
            hard_deadline: config.deadline - margin / 2,
            fallback: config.failure_decision(FailureReason::Overload),
            rescan_limit: Duration::from_secs(rescan_limit_s),
            longer,
            config,
            denied,
        }
    }

    /// The same with other paths denied.
    pub(super) fn denying(&self, denied: Arc<Places>) -> Self {
        let longer = self.longer;
        let rescan_limit_s = self.rescan_limit.as_secs();
        Self { longer, ..Self::new(self.config.clone(), denied, rescan_limit_s, Some(self)) }
    }

    /// How long an open that was read then may be held.
    pub(super) fn deadline_of(&self, since: Instant) -> Duration {
        match self.longer {
            // The loop reads on for a moment before it has the new rules.
            Some((changed, longer)) if since < changed + longer => longer,
            Some(_) | None => self.config.deadline,
        }
    }

    /// How often the watchdog looks.
    pub(super) fn tick(&self) -> Duration {
        margin(self.config.deadline) / 4
    }
}

/// Answers are begun so much earlier: a crowd takes a while to be answered.
fn margin(deadline: Duration) -> Duration {
    (deadline / 5).clamp(Duration::from_millis(20), Duration::from_millis(500))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(deadline_ms: u64) -> OnAccess {
        let text = format!("protect = \"all\"\nmode = \"block\"\ndeadline_ms = {deadline_ms}");
        toml::from_str(&text).expect("config")
    }

    #[test]
    fn an_open_is_not_late_by_a_deadline_that_came_after_it() {
        let long = Rules::new(config(3000), Arc::default(), 120, None);
        assert_eq!(long.deadline_of(Instant::now()), Duration::from_secs(3));
        let before = Instant::now();
        let short = Rules::new(config(100), Arc::default(), 120, Some(&long));
        assert_eq!(short.deadline_of(before), Duration::from_secs(3));
        assert_eq!(short.deadline_of(before + Duration::from_secs(10)), Duration::from_millis(100));
        let long = Rules::new(config(3000), Arc::default(), 120, Some(&short));
        assert_eq!(long.deadline_of(before), Duration::from_secs(3));
        assert!(
            long.soft_deadline < long.hard_deadline && long.hard_deadline < long.config.deadline
        );
    }
}
