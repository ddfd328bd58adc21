//! Scans of a host's files: what is asked for, how far one is, what came of it, and schedules.
//!
//! All texts that come from a host's files are printable already; all lists are bounded by the
//! agent that fills them.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::control::{ScanProgress, path_bytes};
use crate::verdict::Disposition;

/// What a scan looks at.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ScanScope {
    /// What runs, what starts by itself, and where downloads land.
    Quick,
    /// Every local file system.
    Full,
    /// Files and folders by name.
    #[default]
    Paths,
}

impl ScanScope {
    /// As in JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Quick => "quick",
            Self::Full => "full",
            Self::Paths => "paths",
        }
    }
}

/// How far a scan is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ScanState {
    /// Behind others.
    Waiting,
    /// It runs.
    Running,
    /// It waits for somebody to resume it.
    Paused,
    /// It came to its end.
    Done,
    /// Somebody took it back.
    Cancelled,
    /// The agent ended in the middle of it.
    Interrupted,
    /// It was not begun.
    Skipped,
}

impl ScanState {
    /// As in JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Done => "done",
            Self::Cancelled => "cancelled",
            Self::Interrupted => "interrupted",
            Self::Skipped => "skipped",
        }
    }

    /// Nothing comes after it.
    #[must_use]
    pub const fn is_end(self) -> bool {
        match self {
            Self::Waiting | Self::Running | Self::Paused => false,
            Self::Done | Self::Cancelled | Self::Interrupted | Self::Skipped => true,
        }
    }
}

/// What is asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScanOrder {
    /// What to look at.
    #[serde(default)]
    pub scope: ScanScope,
    /// Absolute paths, for [`ScanScope::Paths`].
    #[serde(default, with = "path_bytes")]
    pub paths: Vec<PathBuf>,
    /// Who asks, for people.
    #[serde(default)]
    pub started_by: String,
    /// Percent of one core, 1 to 100; without it what the config says.
    #[serde(default)]
    pub cpu_share: Option<u8>,
}

/// One scan, as the history has it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ScanRecord {
    /// UUID version 7.
    pub scan_id: Uuid,
    /// What it looks at.
    pub scope: ScanScope,
    /// Where: what was asked for, or what that came to.
    pub places: Vec<String>,
    /// Who started it.
    pub started_by: String,
    /// The schedule that it belongs to.
    #[serde(default)]
    pub schedule: Option<String>,
    /// How far it is.
    pub state: ScanState,
    /// Why it is in that state, for people.
    #[serde(default)]
    pub note: Option<String>,
    /// Percent of one core that it may take.
    pub cpu_share: u8,
    /// When it was asked for, milliseconds since the epoch.
    pub asked_ms: i64,
    /// When it was begun.
    #[serde(default)]
    pub began_ms: Option<i64>,
    /// When it ended.
    #[serde(default)]
    pub ended_ms: Option<i64>,
    /// How long it ran, without the time in which it was paused, milliseconds.
    pub running_ms: u64,
    /// The numbers.
    pub progress: ScanProgress,
    /// The file that it is at.
    #[serde(default)]
    pub at: String,
    /// How much is left; none where nothing tells.
    #[serde(default)]
    pub estimate: Option<ScanEstimate>,
    /// What was not scanned and why.
    #[serde(default)]
    pub left_out: Vec<LeftOut>,
    /// The first finds.
    #[serde(default)]
    pub finds: Vec<ScanFind>,
    /// SHA-256 of the rule bundle that it began with.
    #[serde(default)]
    pub bundle: String,
}

impl ScanRecord {
    /// As it goes into an event: fewer examples.
    #[must_use]
    pub fn brief(&self) -> Self {
        const FINDS: usize = 20;
        let mut brief = self.clone();
        brief.finds.truncate(FINDS);
        brief.left_out.iter_mut().for_each(|one| one.examples.truncate(1));
        brief
    }
}

/// A guess.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScanEstimate {
    /// Files in all.
    pub files: u64,
    /// 0 to 100.
    pub percent: u8,
    /// Seconds of running that are left.
    pub left_s: Option<u64>,
    /// What it rests on: `last scan`, `file systems`.
    pub basis: String,
}

/// Files and folders that a scan did not look into, for one reason.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeftOut {
    /// Why.
    pub reason: LeftOutReason,
    /// How many.
    pub count: u64,
    /// The first of them.
    pub examples: Vec<String>,
}

/// Why something was not scanned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LeftOutReason {
    /// A symbolic link: never followed.
    Symlink,
    /// A pipe, socket or device.
    Special,
    /// The config excludes it.
    Excluded,
    /// A kernel interface.
    PseudoFileSystem,
    /// Served by somebody who may never answer.
    RemoteFileSystem,
    /// A mount that this scan does not go into; a full scan has it as a place of its own.
    OtherMount,
    /// Another name of a file that was scanned.
    HardLink,
    /// It was gone when its turn came.
    Vanished,
    /// The config allows its content.
    Allowed,
    /// It could not be opened or read.
    Unreadable,
    /// Its scan took longer than the limit.
    TooSlow,
    /// The scan worker died of it.
    ScannerDied,
    /// No scan worker starts.
    NoScanner,
    /// Folders in folders beyond the limit.
    TooDeep,
    /// Named, and not there.
    NotFound,
}

impl LeftOutReason {
    /// As in JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Symlink => "symlink",
            Self::Special => "special",
            Self::Excluded => "excluded",
            Self::PseudoFileSystem => "pseudo_file_system",
            Self::RemoteFileSystem => "remote_file_system",
            Self::OtherMount => "other_mount",
            Self::HardLink => "hard_link",
            Self::Vanished => "vanished",
            Self::Allowed => "allowed",
            Self::Unreadable => "unreadable",
            Self::TooSlow => "too_slow",
            Self::ScannerDied => "scanner_died",
            Self::NoScanner => "no_scanner",
            Self::TooDeep => "too_deep",
            Self::NotFound => "not_found",
        }
    }

    /// It should have been scanned and was not.
    #[must_use]
    pub const fn is_failure(self) -> bool {
        match self {
            Self::Symlink
            | Self::Special
            | Self::Excluded
            | Self::PseudoFileSystem
            | Self::RemoteFileSystem
            | Self::OtherMount
            | Self::HardLink
            | Self::Vanished
            | Self::Allowed => false,
            Self::Unreadable
            | Self::TooSlow
            | Self::ScannerDied
            | Self::NoScanner
            | Self::TooDeep
            | Self::NotFound => true,
        }
    }
}

/// A malicious file that a scan found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScanFind {
    /// Where it lay.
    pub path: String,
    /// The rule.
    pub signature: String,
    /// Of its content.
    pub sha256: String,
    /// What became of it.
    pub disposition: Disposition,
    /// The quarantine item.
    #[serde(default)]
    pub quarantine_id: Option<Uuid>,
    /// How long it had lain there.
    #[serde(default)]
    pub late: Option<LateFind>,
}

/// How long a file had lain there when a scan found it. The times are those of its inode: root can
/// forge them all, anybody the modification time of his own files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LateFind {
    /// Nothing of the file had changed since then, milliseconds since the epoch.
    pub since_ms: i64,
    /// Which time says so.
    pub by: FileTime,
    /// Seconds from then to the find.
    pub lain_s: u64,
    /// When the file was made, where the file system knows.
    #[serde(default)]
    pub born_ms: Option<i64>,
    /// The rule's history on this host.
    #[serde(default)]
    pub rule: Option<RuleOrigin>,
}

/// A time of an inode, as `statx` tells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FileTime {
    /// Birth: no call sets it.
    Btime,
    /// Status change: no call sets it, but whoever sets the clock or writes to the disk does.
    Ctime,
    /// Modification: its owner sets it as he likes.
    Mtime,
}

impl FileTime {
    /// As in JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Btime => "btime",
            Self::Ctime => "ctime",
            Self::Mtime => "mtime",
        }
    }
}

/// Which bundle brought a rule to this host first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleOrigin {
    /// The rule.
    pub name: String,
    /// SHA-256 of the first bundle that was seen to hold it.
    pub bundle: String,
    /// Its folder.
    pub path: String,
    /// When that bundle was loaded, milliseconds since the epoch.
    pub since_ms: i64,
    /// True when that was after the file had last changed: no earlier scan could have found it.
    pub newer_than_file: bool,
}

/// A scan that comes again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScanSchedule {
    /// Its name, 1 to 64 characters.
    pub name: String,
    /// What to look at.
    #[serde(default)]
    pub scope: ScanScope,
    /// Absolute paths, for [`ScanScope::Paths`].
    #[serde(default, with = "path_bytes")]
    pub paths: Vec<PathBuf>,
    /// A cron expression of five fields, or `every 3 days at 01:00`.
    pub when: String,
    /// Whole seconds, up to which each run is put off by chance.
    #[serde(default)]
    pub jitter_s: u32,
    /// After a downtime, do once what was missed.
    #[serde(default)]
    pub catch_up: bool,
    /// Percent of one core, 1 to 100; without it what the config says.
    #[serde(default)]
    pub cpu_share: Option<u8>,
    /// `local`, `UTC`, or a name such as `Europe/Berlin`.
    #[serde(default = "local")]
    pub timezone: String,
}

fn local() -> String {
    "local".to_owned()
}

/// A schedule and where it stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScheduleState {
    /// What was asked for.
    #[serde(flatten)]
    pub schedule: ScanScheduleShown,
    /// `config` or `added`.
    pub origin: String,
    /// When it is due next, milliseconds since the epoch; none when never again.
    pub next_ms: Option<i64>,
    /// When it was due last, as far as that was dealt with.
    pub last_ms: Option<i64>,
    /// What came of that, for people.
    pub last: Option<String>,
}

/// A schedule for people: [`ScanSchedule`] with printable paths.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScanScheduleShown {
    /// Its name.
    pub name: String,
    /// What it looks at.
    pub scope: ScanScope,
    /// Where.
    pub paths: Vec<String>,
    /// When.
    pub when: String,
    /// Seconds.
    pub jitter_s: u32,
    /// After a downtime, do once what was missed.
    pub catch_up: bool,
    /// Percent of one core.
    pub cpu_share: Option<u8>,
    /// Whose clock.
    pub timezone: String,
}

/// Paths of one scan.
const MOST_PATHS: usize = 1000;

/// Whether an order can be meant.
///
/// # Errors
/// Why not.
pub fn check_order(order: &ScanOrder) -> Result<(), String> {
    match order.scope {
        ScanScope::Paths if order.paths.is_empty() => Err("no path is given".to_owned()),
        ScanScope::Paths if order.paths.len() > MOST_PATHS => {
            Err(format!("at most {MOST_PATHS} paths"))
        }
        ScanScope::Quick | ScanScope::Full if !order.paths.is_empty() => {
            Err("paths are given beside quick or full".to_owned())
        }
        ScanScope::Quick | ScanScope::Full | ScanScope::Paths => {
            if let Some(path) = order.paths.iter().find(|path| !path.is_absolute()) {
                let shown = crate::process::printable(path.as_os_str().as_encoded_bytes());
                let shown: String = shown.chars().take(1000).collect();
                return Err(format!("{shown} is not an absolute path"));
            }
            if order.cpu_share.is_some_and(|share| !(1..=100).contains(&share)) {
                return Err("the CPU share is 1 to 100 percent".to_owned());
            }
            Ok(())
        }
    }
}
