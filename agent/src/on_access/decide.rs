//! From what is known of a file to the reply and what follows it. Pure: one table, no I/O.

use holdfast_common::verdict::{Decision, FailureReason, Verdict};

use crate::config::{Mode, OnAccess};

/// What the scan of a held file came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The scan core concluded.
    Verdict(Verdict),
    /// It did not.
    Failure(FailureReason),
}

/// The reply to the kernel and what follows it.
#[must_use]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Resolution {
    /// The reply.
    pub decision: Decision,
    /// What follows.
    pub follow_up: FollowUp,
}

/// What follows the reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FollowUp {
    /// Nothing: the content is allowed by its hash.
    Nothing,
    /// The clean verdict may spare later opens a scan.
    Remember,
    /// The detection is reported, the file stays.
    Report,
    /// The detection is reported, the file goes to quarantine.
    Quarantine,
    /// The failure is reported.
    ReportFailure,
    /// The failure is reported and the file scanned again without a deadline.
    Rescan,
}

/// Decides. `allowed_content` says that the operator allowed this very content by its hash.
pub fn decide(outcome: &Outcome, allowed_content: bool, config: &OnAccess) -> Resolution {
    use FollowUp::{Nothing, Quarantine, Remember, Report, ReportFailure, Rescan};
    let (decision, follow_up) = match (outcome, config.mode) {
        (Outcome::Verdict(Verdict::Clean), _) => (Decision::Allow, Remember),
        (Outcome::Verdict(Verdict::Malicious(_)), _) if allowed_content => {
            (Decision::Allow, Nothing)
        }
        (Outcome::Verdict(Verdict::Malicious(_)), Mode::Block) => (Decision::Deny, Quarantine),
        (Outcome::Verdict(Verdict::Malicious(_)), Mode::Detect) => (Decision::Allow, Report),
        (Outcome::Failure(reason), mode) => {
            let decision = match mode {
                Mode::Block => config.failure_decision(*reason),
                Mode::Detect => Decision::Allow,
            };
            (decision, if worth_another_scan(*reason) { Rescan } else { ReportFailure })
        }
    };
    Resolution { decision, follow_up }
}

/// A rescan helps where time or a worker was missing, not where the file itself cannot be read.
const fn worth_another_scan(reason: FailureReason) -> bool {
    match reason {
        FailureReason::Deadline
        | FailureReason::ScannerCrashed
        | FailureReason::ScannerUnavailable
        | FailureReason::TooLarge
        | FailureReason::Overload => true,
        FailureReason::Unreadable | FailureReason::QueueOverflow | FailureReason::ChangingExec => {
            false
        }
    }
}

#[cfg(test)]
mod tests {
    use holdfast_common::verdict::{Engine, Signature};

    use super::*;
    use crate::config::Config;

    fn config(extra: &str) -> OnAccess {
        let text = format!(
            "state_dir = \"/s\"\nsocket = \"/r\"\n[on_access]\nprotect = \"all\"\n{extra}\n"
        );
        toml::from_str::<Config>(&text).expect("config").on_access
    }

    fn malicious() -> Outcome {
        let signature = Signature { name: "x".to_owned(), engine: Engine::Eicar };
        Outcome::Verdict(Verdict::Malicious(signature))
    }

    fn reply(outcome: &Outcome, allowed: bool, extra: &str) -> (Decision, FollowUp) {
        let Resolution { decision, follow_up } = decide(outcome, allowed, &config(extra));
        (decision, follow_up)
    }

    #[test]
    fn the_whole_table() {
        use Decision::{Allow, Deny};
        let clean = Outcome::Verdict(Verdict::Clean);
        let late = Outcome::Failure(FailureReason::Deadline);
        let exec = Outcome::Failure(FailureReason::ChangingExec);
        let block = "mode = \"block\"";
        let detect = "mode = \"detect\"";
        let strict = "mode = \"block\"\nstrict = true";
        let strict_detect = "mode = \"detect\"\nstrict = true";
        let rows = [
            (&clean, false, block, (Allow, FollowUp::Remember)),
            (&clean, false, detect, (Allow, FollowUp::Remember)),
            (&malicious(), false, block, (Deny, FollowUp::Quarantine)),
            (&malicious(), true, block, (Allow, FollowUp::Nothing)),
            (&malicious(), false, detect, (Allow, FollowUp::Report)),
            (&late, false, block, (Allow, FollowUp::Rescan)),
            (&late, false, strict, (Deny, FollowUp::Rescan)),
            (&late, false, strict_detect, (Allow, FollowUp::Rescan)),
            (&exec, false, block, (Deny, FollowUp::ReportFailure)),
            (&exec, false, detect, (Allow, FollowUp::ReportFailure)),
        ];
        for (outcome, allowed, extra, expected) in rows {
            assert_eq!(reply(outcome, allowed, extra), expected, "{outcome:?} {extra}");
        }
    }
}
