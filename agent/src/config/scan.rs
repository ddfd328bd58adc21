//! `[scan]` and `[[scan.schedule]]`: the scan core, scans in the background, scans that come again.
//!
//! What a schedule's words mean is [`crate::sweep`]'s; an error names the value that is wrong.

use std::path::PathBuf;

use holdfast_common::scans::{ScanSchedule, ScanScope};
use serde::{Deserialize, Deserializer};

use super::ByteSize;

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
    #[serde(deserialize_with = "cpu_share")]
    pub cpu_share: u8,
    /// The places of a quick scan beside the programs that run: absolute paths; `~/` stands for
    /// every home.
    #[serde(deserialize_with = "places")]
    pub quick: Vec<PathBuf>,
    /// A full scan looks at the local file systems mounted at or below these.
    #[serde(deserialize_with = "places")]
    pub full: Vec<PathBuf>,
    /// Scans that come again.
    pub schedule: Vec<ScheduleEntry>,
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
        }
    }
}

/// `[[scan.schedule]]`
#[derive(Debug, Clone, Deserialize)]
#[serde(try_from = "ScheduleTable")]
pub struct ScheduleEntry(pub ScanSchedule);

/// As it is written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ScheduleTable {
    name: String,
    #[serde(default)]
    kind: Option<ScanScope>,
    #[serde(default)]
    paths: Vec<PathBuf>,
    #[serde(default, deserialize_with = "cron")]
    cron: Option<String>,
    #[serde(default, deserialize_with = "every")]
    every: Option<String>,
    #[serde(default, deserialize_with = "jitter")]
    jitter: u32,
    #[serde(default)]
    catch_up: bool,
    #[serde(default)]
    cpu_share: Option<u8>,
    #[serde(default = "local_time", deserialize_with = "timezone")]
    timezone: String,
}

impl TryFrom<ScheduleTable> for ScheduleEntry {
    type Error = String;

    fn try_from(table: ScheduleTable) -> Result<Self, String> {
        let when = match (table.cron, table.every) {
            (Some(cron), None) => cron,
            (None, Some(every)) => format!("every {every}"),
            (None, None) | (Some(_), Some(_)) => {
                return Err("a schedule has either cron or every".to_owned());
            }
        };
        let paths = if table.paths.is_empty() { None } else { Some(ScanScope::Paths) };
        let scope = table.kind.or(paths).ok_or("a schedule has a kind or paths")?;
        let schedule = ScanSchedule {
            name: table.name,
            scope,
            paths: table.paths,
            when,
            jitter_s: table.jitter,
            catch_up: table.catch_up,
            cpu_share: table.cpu_share,
            timezone: table.timezone,
        };
        crate::sweep::check_schedule(&schedule).map_err(|error| error.to_string())?;
        Ok(Self(schedule))
    }
}

fn local_time() -> String {
    "local".to_owned()
}

fn cron<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    let text = String::deserialize(deserializer)?;
    crate::sweep::check_when(&text).map_err(serde::de::Error::custom)?;
    Ok(Some(text))
}

fn every<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    let text = String::deserialize(deserializer)?;
    crate::sweep::check_when(&format!("every {text}")).map_err(serde::de::Error::custom)?;
    Ok(Some(text))
}

fn timezone<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let text = String::deserialize(deserializer)?;
    crate::sweep::check_timezone(&text).map_err(serde::de::Error::custom)?;
    Ok(text)
}

fn jitter<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
    let text = String::deserialize(deserializer)?;
    crate::sweep::parse_jitter(&text).ok_or_else(|| {
        serde::de::Error::custom("jitter: a time such as 90s, 30m or 2h, 12h at most")
    })
}

fn cpu_share<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u8, D::Error> {
    let share = u8::deserialize(deserializer)?;
    if (1..=100).contains(&share) {
        Ok(share)
    } else {
        Err(serde::de::Error::custom("cpu_share must be 1 to 100"))
    }
}

fn places<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<PathBuf>, D::Error> {
    /// Each is opened and told in the history.
    const MOST: usize = 100;
    let list = Vec::<PathBuf>::deserialize(deserializer)?;
    if list.len() > MOST {
        return Err(serde::de::Error::custom(format!("at most {MOST} paths")));
    }
    match list.iter().find(|path| !path.is_absolute() && !path.starts_with("~")) {
        None => Ok(list),
        Some(path) => Err(serde::de::Error::custom(format!(
            "{} is neither an absolute path nor below ~/",
            path.display()
        ))),
    }
}
