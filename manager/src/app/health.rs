//! Green or red, by name: what a heartbeat says, judged. Pure.
//!
//! Invariant: green needs evidence. A heartbeat without capabilities, with an old proof or from
//! another time is red.

use holdfast_common::link::{CapabilityState, Heartbeat};
use serde::{Deserialize, Serialize};

use super::cut;

/// Oldest evidence that counts, by the host's own clock.
const OLDEST_MS: i64 = 15 * 60_000;
/// Largest difference between the host's clock and ours.
const CLOCK_MS: i64 = 5 * 60_000;
/// Oldest event that may wait on the host, seconds.
const OUTBOX_S: u64 = 600;
/// Reasons and capabilities that are looked at.
const MOST: usize = 256;
/// Bytes of a name and of an evidence.
const TEXT: usize = 500;

/// Why a host is red.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reason {
    /// What: a capability, `silent`, `blind`, `clock`, `outbox`.
    pub name: String,
    /// What was seen.
    pub evidence: String,
}

impl Reason {
    pub(super) fn new(name: &str, evidence: impl Into<String>) -> Self {
        let evidence = evidence.into();
        Self { name: cut(name, TEXT).to_owned(), evidence: cut(&evidence, TEXT).to_owned() }
    }
}

/// Every reason against green.
pub(super) fn judge(heartbeat: &Heartbeat, now_ms: i64) -> Vec<Reason> {
    let mut reasons = Vec::new();
    if heartbeat.capabilities.iter().all(|c| c.state != CapabilityState::Ok) {
        reasons.push(Reason::new("blind", "no capability was seen to work"));
    }
    for capability in heartbeat.capabilities.iter().take(MOST) {
        match capability.state {
            CapabilityState::Off => {}
            CapabilityState::Red => {
                reasons.push(Reason::new(&capability.name, capability.evidence.as_str()));
            }
            CapabilityState::Ok => {
                let age = heartbeat.time_ms.saturating_sub(capability.time_ms);
                if age > OLDEST_MS {
                    let evidence = format!("last seen {} s before the heartbeat", age / 1000);
                    reasons.push(Reason::new(&capability.name, evidence));
                }
            }
        }
    }
    if heartbeat.capabilities.len() > MOST {
        reasons.push(Reason::new("blind", format!("more than {MOST} capabilities")));
    }
    let skew = heartbeat.time_ms.saturating_sub(now_ms);
    if skew.saturating_abs() > CLOCK_MS {
        let evidence = format!("the host's clock differs by {} s", skew / 1000);
        reasons.push(Reason::new("clock", evidence));
    }
    if heartbeat.outbox.oldest_s > OUTBOX_S {
        let evidence = format!(
            "{} events wait, the oldest for {} s",
            heartbeat.outbox.events, heartbeat.outbox.oldest_s
        );
        reasons.push(Reason::new("outbox", evidence));
    }
    reasons
}

#[cfg(test)]
mod tests {
    use holdfast_common::control::StatusReport;
    use holdfast_common::link::{Capability, OutboxState};

    use super::*;

    fn heartbeat(capabilities: Vec<Capability>) -> Heartbeat {
        let status: StatusReport = serde_json::from_value(serde_json::json!({
            "version": "0", "host": "h", "pid": 1, "uptime_s": 1, "mode": "block", "problems": [],
            "file_systems": [], "workers": 1, "sensor": [], "journal_events": 0,
            "journal_dropped": 0,
            "on_access": {"held": 0, "allowed": 0, "denied": 0, "own": 0, "cached": 0,
                "excluded": 0, "closed_scanned": 0, "closed_skipped": 0, "failures": [],
                "past_deadline": 0, "longest_held_us": 0, "rescans_waiting": 0,
                "rescans_done": 0, "rescans_dropped": 0},
            "bundle": {"path": "", "digest": "", "loaded_ms": 0, "hashes": 0, "yara_rules": 0,
                "refused": null},
            "quarantine": {"items": 0, "bytes": 0}
        }))
        .expect("status");
        Heartbeat {
            time_ms: 1_000_000,
            capabilities,
            status,
            outbox: OutboxState::default(),
            models: None,
        }
    }

    fn capability(name: &str, state: CapabilityState, time_ms: i64) -> Capability {
        Capability { name: name.to_owned(), state, evidence: "seen".to_owned(), time_ms }
    }

    fn names(heartbeat: &Heartbeat, now_ms: i64) -> Vec<String> {
        judge(heartbeat, now_ms).into_iter().map(|reason| reason.name).collect()
    }

    #[test]
    fn green_needs_a_capability_that_was_seen_to_work() {
        assert_eq!(names(&heartbeat(vec![]), 1_000_000), ["blind"]);
        let off = capability("x", CapabilityState::Off, 1_000_000);
        assert_eq!(names(&heartbeat(vec![off]), 1_000_000), ["blind"]);
        let fine = capability("on access: /", CapabilityState::Ok, 990_000);
        assert!(names(&heartbeat(vec![fine]), 1_000_000).is_empty());
    }

    #[test]
    fn red_capabilities_and_old_evidence_are_named() {
        let red = capability("sensor", CapabilityState::Red, 1_000_000);
        let old = capability("on access: /", CapabilityState::Ok, 1_000_000 - OLDEST_MS - 1);
        let fine = capability("models", CapabilityState::Ok, 1_000_000);
        let list = vec![red, old, fine];
        assert_eq!(names(&heartbeat(list), 1_000_000), ["sensor", "on access: /"]);
    }

    #[test]
    fn another_time_and_a_full_outbox_are_red() {
        let fine = capability("models", CapabilityState::Ok, 1_000_000);
        let mut beat = heartbeat(vec![fine]);
        assert_eq!(names(&beat, 1_000_000 + CLOCK_MS + 1), ["clock"]);
        beat.outbox.oldest_s = OUTBOX_S + 1;
        assert_eq!(names(&beat, 1_000_000), ["outbox"]);
        beat.time_ms = i64::MIN;
        assert!(names(&beat, i64::MAX).contains(&"clock".to_owned()));
    }
}
