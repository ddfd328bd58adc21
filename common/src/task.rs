//! Response tasks: an order, its action, and what was observed.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::control::path_bytes;
use crate::denial::DenialKind;
use crate::process::ProcessKey;
use crate::scans::ScanScope;

/// Longest time after which something ends by itself, seconds.
pub const LONGEST_S: u64 = 366 * 86_400;

/// When what begins now ends by itself, milliseconds since the epoch; nothing without a duration.
///
/// # Errors
/// Why the duration is none.
pub fn until(now_ms: i64, duration_s: Option<u64>) -> Result<Option<i64>, String> {
    let Some(seconds) = duration_s else { return Ok(None) };
    if seconds == 0 || seconds > LONGEST_S {
        return Err(format!("1 second to {} days", LONGEST_S / 86_400));
    }
    Ok(Some(now_ms.saturating_add(i64::try_from(seconds).unwrap_or(i64::MAX).saturating_mul(1000))))
}

/// What an operator wants done on a host.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "action", rename_all = "snake_case", deny_unknown_fields)]
pub enum Action {
    /// Cut the host off; verified by the proof of the cut.
    Isolate {
        /// Until it ends by itself, seconds; without it not.
        duration_s: Option<u64>,
    },
    /// Let the host go; verified by the state afterwards.
    Release,
    /// Scan; verified by the end of the scan.
    Scan {
        /// What to look at.
        #[serde(default, skip_serializing_if = "is_paths")]
        scope: ScanScope,
        /// Absolute paths of files and folders, where these are what to look at.
        #[serde(default, with = "path_bytes")]
        paths: Vec<PathBuf>,
        /// Percent of one core, 1 to 100; without it what the host's config says.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        cpu_share: Option<u8>,
    },
    /// Put a quarantined item back; verified by the file's hash in its place.
    Restore {
        /// The item.
        item: Uuid,
        /// Allow its content from now on.
        allow: bool,
        /// No longer than this, seconds from when it is put back; only with `allow`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        duration_s: Option<u64>,
    },
    /// Destroy a quarantined item; verified by its absence.
    Delete {
        /// The item.
        item: Uuid,
    },
    /// Deliver a quarantined item as an AES zip.
    Download {
        /// The item.
        item: Uuid,
        /// Password of the zip.
        password: String,
    },
    /// Deliver a file as an AES zip.
    Collect {
        /// An absolute path.
        #[serde(with = "path_bytes")]
        path: Option<PathBuf>,
        /// Password of the zip.
        password: String,
        /// Refuse larger ones, bytes.
        limit: u64,
    },
    /// Kill a process; verified by its end.
    Kill {
        /// Which.
        process: ProcessKey,
    },
    /// Deny content by its SHA-256 from now on.
    DenyHash {
        /// In hex.
        sha256: String,
        /// Until it ends by itself, seconds; without it not.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        duration_s: Option<u64>,
    },
    /// Deny what lies at a path on this host, whatever its content.
    DenyPath {
        /// Absolute; `*` stays in one folder, `**` does not.
        path: String,
        /// Until it ends by itself, seconds; without it not.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        duration_s: Option<u64>,
    },
    /// Deny it no more, where this host alone denies it.
    Undeny {
        /// Content or path.
        kind: DenialKind,
        /// As it was denied.
        value: String,
    },
    /// Run a model's simulation; verified by its detection.
    Simulate {
        /// Its name.
        simulation: String,
    },
    /// Open a terminal for the one who files it. It is delivered when it is open, and verified when
    /// it has ended and nothing of it runs any more.
    Shell {
        /// The fixed commands alone, no shell of the host's.
        restricted: bool,
        /// Of the terminal, at its beginning.
        columns: u16,
        /// The same.
        rows: u16,
    },
    /// All processes.
    ProcessList,
    /// Status, doctor's lines, counters and the agent's newest events, as a zip.
    Diagnostics,
}

/// Agents that know no other scope take the order all the same.
fn is_paths(scope: &ScanScope) -> bool {
    *scope == ScanScope::Paths
}

impl Action {
    /// The tag, as in JSON.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Isolate { .. } => "isolate",
            Self::Release => "release",
            Self::Scan { .. } => "scan",
            Self::Restore { .. } => "restore",
            Self::Delete { .. } => "delete",
            Self::Download { .. } => "download",
            Self::Collect { .. } => "collect",
            Self::Kill { .. } => "kill",
            Self::DenyHash { .. } => "deny_hash",
            Self::DenyPath { .. } => "deny_path",
            Self::Undeny { .. } => "undeny",
            Self::Simulate { .. } => "simulate",
            Self::Shell { .. } => "shell",
            Self::ProcessList => "process_list",
            Self::Diagnostics => "diagnostics",
        }
    }
}

/// How far a task is. `Queued → Delivered → Executed → Verified`, or one of the other ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// Filed at the manager.
    Queued,
    /// The agent has it on its disk.
    Delivered,
    /// Done, not yet seen to hold.
    Executed,
    /// Seen to hold.
    Verified,
    /// Not done, or not seen to hold.
    Failed,
    /// Nobody took it in time.
    Expired,
    /// Taken back before it was done.
    Cancelled,
}

impl Stage {
    /// Nothing comes after it.
    #[must_use]
    pub const fn is_end(self) -> bool {
        matches!(self, Self::Verified | Self::Failed | Self::Expired | Self::Cancelled)
    }
}

/// What the agent tells of a task.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Progress {
    /// How far.
    pub stage: Stage,
    /// When, milliseconds since the epoch, by the host's clock.
    pub time_ms: i64,
    /// What was observed, or why it failed, for people.
    pub observed: String,
    /// The action's own result.
    #[serde(default)]
    pub result: serde_json::Value,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_ordered_for_a_time_ends_after_it_and_has_bounds() {
        assert_eq!(until(5, None), Ok(None));
        assert_eq!(until(5, Some(2)), Ok(Some(2005)));
        assert!(until(5, Some(LONGEST_S)).is_ok());
        assert!(until(5, Some(0)).is_err() && until(5, Some(LONGEST_S + 1)).is_err());
    }
}
