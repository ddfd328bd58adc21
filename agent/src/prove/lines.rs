//! The lines of a proof, kept from round to round: what is proven, what is red and since when.
//!
//! Pure: no clock but the times that it is given, no I/O.

use std::collections::BTreeMap;

use holdfast_common::control::{ProofLine, ProofState};
use holdfast_common::event::ProofEvent;

/// One line as a round found it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Found {
    /// What was to be proven.
    pub capability: String,
    /// Proven.
    pub ok: bool,
    /// What was seen.
    pub evidence: String,
    /// What to do when it is red.
    pub advice: Option<String>,
    /// Milliseconds since the epoch.
    pub time_ms: i64,
}

/// All lines, by capability.
#[derive(Debug, Default)]
pub(super) struct Lines {
    lines: BTreeMap<String, ProofLine>,
    proven_ms: Option<i64>,
}

/// What a round found about capabilities that are no more, such as unmounted file systems.
pub(super) const GONE: &str = "gone";

impl Lines {
    /// Takes what was found; the changes are returned. A line named [`GONE`] ends.
    pub(super) fn take(&mut self, found: Vec<Found>) -> Vec<ProofEvent> {
        let mut changed = Vec::new();
        let mut latest = None;
        for found in found {
            if found.evidence == GONE {
                self.lines.remove(&found.capability);
                continue;
            }
            latest = latest.max(Some(found.time_ms));
            let before = self.lines.get(&found.capability);
            let same = before.is_some_and(|line| line.ok == found.ok);
            // Green from the first is what everybody expects.
            if !same && (before.is_some() || !found.ok) {
                changed.push(ProofEvent {
                    capability: found.capability.clone(),
                    ok: found.ok,
                    evidence: found.evidence.clone(),
                });
            }
            let since_ms = before.filter(|_| same).map_or(found.time_ms, |line| line.since_ms);
            let proven_ms = before.and_then(|line| line.proven_ms);
            let line = ProofLine {
                capability: found.capability.clone(),
                ok: found.ok,
                evidence: found.evidence,
                advice: found.advice,
                time_ms: found.time_ms,
                since_ms,
                proven_ms: if found.ok { Some(found.time_ms) } else { proven_ms },
            };
            self.lines.insert(found.capability, line);
        }
        if !self.lines.is_empty() && self.lines.values().all(|line| line.ok) {
            self.proven_ms = latest.or(self.proven_ms);
        }
        changed
    }

    /// True when the line is there already, as it is.
    pub(super) fn is_known(&self, found: &Found) -> bool {
        self.lines.get(&found.capability).is_some_and(|line| line.ok == found.ok)
    }

    /// Names of the lines that begin so.
    pub(super) fn names(&self, begin: &str) -> Vec<String> {
        self.lines.keys().filter(|name| name.starts_with(begin)).cloned().collect()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    /// What is red.
    pub(super) fn problems(&self) -> Vec<String> {
        let red = self.lines.values().filter(|line| !line.ok);
        red.map(|line| format!("not proven: {}: {}", line.capability, line.evidence)).collect()
    }

    /// For status.
    pub(super) fn state(&self) -> ProofState {
        ProofState {
            enabled: true,
            interval_s: 0,
            last_proven_ms: self.proven_ms,
            lines: self.lines.values().cloned().collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(capability: &str, ok: bool, time_ms: i64) -> Found {
        let (capability, evidence) = (capability.to_owned(), format!("at {time_ms}"));
        Found { capability, ok, evidence, advice: None, time_ms }
    }

    #[test]
    fn only_changes_are_told_and_red_knows_since_when() {
        let mut lines = Lines::default();
        assert!(lines.take(vec![found("a", true, 1), found("b", true, 1)]).is_empty());
        assert_eq!(lines.state().last_proven_ms, Some(1));
        let told = lines.take(vec![found("a", false, 2), found("b", true, 2)]);
        assert_eq!((told.len(), told[0].capability.as_str(), told[0].ok), (1, "a", false));
        assert!(lines.take(vec![found("a", false, 3)]).is_empty(), "told once");
        let state = lines.state();
        assert_eq!(state.last_proven_ms, Some(1), "red since: not all is proven");
        assert_eq!((state.lines[0].since_ms, state.lines[0].proven_ms), (2, Some(1)));
        assert_eq!(lines.problems(), ["not proven: a: at 3"]);
        assert_eq!(lines.take(vec![found("a", true, 4)]).len(), 1, "green again is told");
        assert_eq!(lines.state().last_proven_ms, Some(4));
    }

    #[test]
    fn red_from_the_first_is_told_and_what_is_gone_is_no_problem() {
        let mut lines = Lines::default();
        assert_eq!(lines.take(vec![found("a", false, 1)]).len(), 1);
        let gone = Found { evidence: GONE.to_owned(), ..found("a", true, 2) };
        assert!(lines.take(vec![gone]).is_empty());
        assert!(lines.problems().is_empty() && lines.is_empty());
    }
}
