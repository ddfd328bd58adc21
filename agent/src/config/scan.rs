//! `[scan]` and `[[scan.schedule]]`: the scan core, scans in the background, scans that come again.
//!
//! What the values mean is [`holdfast_common::settings`]'s; here are the defaults.

use std::path::PathBuf;

use holdfast_common::settings::{self, ByteSize, ScheduleEntry};
use serde::Deserialize;

/// `[scan]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Scan {
    /// Folder of rules; without it the built-in ones (EICAR) alone.
    pub bundle: Option<PathBuf>,
    /// Number of workers for held opens; 0 means one a core, at least two.
    pub workers: usize,
    /// Address space of one worker.
    pub memory_limit: ByteSize,
    /// Time for one rescan or on-demand scan, seconds.
    pub rescan_limit_s: u64,
    /// What scans in the background may take of one core, percent, 1 to 100.
    #[serde(deserialize_with = "settings::cpu_share")]
    pub cpu_share: u8,
    /// The places of a quick scan beside the programs that run: absolute paths; `~/` stands for
    /// every home.
    #[serde(deserialize_with = "settings::places")]
    pub quick: Vec<PathBuf>,
    /// A full scan looks at the local file systems mounted at or below these.
    #[serde(deserialize_with = "settings::places")]
    pub full: Vec<PathBuf>,
    /// Scans that come again.
    pub schedule: Vec<ScheduleEntry>,
    /// They are a policy's, and not this file's.
    #[serde(skip)]
    pub schedule_by_policy: bool,
}

impl Default for Scan {
    fn default() -> Self {
        Self {
            bundle: None,
            workers: 0,
            memory_limit: ByteSize(1 << 30),
            rescan_limit_s: 120,
            cpu_share: 25,
            quick: crate::sweep::QUICK.iter().map(PathBuf::from).collect(),
            full: vec![PathBuf::from("/")],
            schedule: Vec::new(),
            schedule_by_policy: false,
        }
    }
}
