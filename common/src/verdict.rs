//! What a scan concluded about content, and what was done about it.
//!
//! A *verdict* is about content; a *decision* is the reply to the kernel; a *disposition* is
//! what finally happened to the file (OCSF `disposition_id`).

use serde::{Deserialize, Serialize};

/// Conclusion about one file's content.
#[must_use]
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "verdict", rename_all = "snake_case")]
pub enum Verdict {
    /// No rule matched.
    Clean,
    /// At least one rule matched; the first one names it.
    Malicious(Signature),
}

/// The rule that matched.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signature {
    /// The rule's name as its author wrote it, at most [`Signature::MAX_NAME`] bytes.
    pub name: String,
    /// Which part of the scan core matched.
    pub engine: Engine,
}

impl Signature {
    /// Longest name kept, in bytes; longer ones are cut at a character boundary.
    pub const MAX_NAME: usize = 200;
}

/// The parts of the scan core.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Engine {
    /// The EICAR test file as its standard defines it.
    Eicar,
    /// A hash list of the bundle.
    Hash,
    /// A YARA rule of the bundle.
    Yara,
    /// None: an operator denied the path that the file lies at.
    DeniedPath,
    /// The agent's own marker, where the bundle has no YARA rule to find it by.
    SelfProof,
}

/// Hashes of one file's whole content.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hashes {
    /// SHA-256, 64 lower-case hex digits.
    pub sha256: String,
    /// SHA-1, 40 lower-case hex digits.
    pub sha1: String,
    /// MD5, 32 lower-case hex digits.
    pub md5: String,
}

/// Why there is no verdict. Each is one row of the failure table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureReason {
    /// The deadline passed before a verdict came.
    Deadline,
    /// The worker that scanned the file died.
    ScannerCrashed,
    /// No worker could be started.
    ScannerUnavailable,
    /// Reading the file failed.
    Unreadable,
    /// The file is larger than `on_access.max_file_size`.
    TooLarge,
    /// More opens were held at once than the agent admits.
    Overload,
    /// The kernel's own queue overflowed: opens went by unseen.
    QueueOverflow,
    /// A program was about to run from a file that somebody still changes.
    ChangingExec,
}

impl FailureReason {
    /// Every row of the failure table.
    pub const ALL: [Self; 8] = [
        Self::Deadline,
        Self::ScannerCrashed,
        Self::ScannerUnavailable,
        Self::Unreadable,
        Self::TooLarge,
        Self::Overload,
        Self::QueueOverflow,
        Self::ChangingExec,
    ];

    /// The name in configs, events and counters.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Deadline => "deadline",
            Self::ScannerCrashed => "scanner_crashed",
            Self::ScannerUnavailable => "scanner_unavailable",
            Self::Unreadable => "unreadable",
            Self::TooLarge => "too_large",
            Self::Overload => "overload",
            Self::QueueOverflow => "queue_overflow",
            Self::ChangingExec => "changing_exec",
        }
    }
}

/// Reply to the kernel.
#[must_use]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Decision {
    /// `FAN_ALLOW`
    Allow,
    /// `FAN_DENY`: the opener gets `EPERM`.
    Deny,
}

/// What finally happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Disposition {
    /// The access went through (detect mode, allowed hash, or allow by failure).
    Allowed,
    /// The access was denied, the file still lies where it was.
    Blocked,
    /// The file was sealed into quarantine and removed.
    Quarantined,
    /// The file was put back from quarantine.
    Restored,
    /// The file was gone before it could be quarantined.
    Vanished,
}

/// What brought a file to the scan core.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ScanType {
    /// A held open.
    OnOpen,
    /// A held exec.
    OnExec,
    /// A writer closed the file.
    OnClose,
    /// A file that was allowed by failure, scanned again without a deadline.
    Rescan,
    /// A scan that somebody started.
    OnDemand,
    /// A scan that a schedule started.
    Scheduled,
}
