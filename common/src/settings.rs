//! Values of settings: what a config file and a policy have in common, each checked as it is read.
//!
//! Invariant: a value that exists is valid; an error says which value is wrong, and the parser of
//! the file adds line and column. Knows no file, no table and no default.

use std::path::PathBuf;
use std::time::Duration;

use globset::{GlobSet, GlobSetBuilder};
use serde::{Deserialize, Deserializer};

use crate::scans::{ScanSchedule, ScanScope};

/// `[on_access] protect`
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Protect {
    /// `"all"`: every local file system.
    All,
    /// The file systems that hold these absolute paths, and those mounted below them.
    Paths(Vec<PathBuf>),
}

/// `[on_access] mode`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Malicious opens are denied, the file is quarantined.
    Block,
    /// Malicious opens are allowed and reported.
    Detect,
}

impl Mode {
    /// As in the config.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Block => "block",
            Self::Detect => "detect",
        }
    }
}

/// What follows when a model fires.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Response {
    /// It is in the journal, and that is all.
    None,
    /// People are told.
    Alert,
    /// The process and all that it started are killed.
    Kill,
    /// The content of its program is denied from now on.
    Deny,
    /// The host is cut off from the network.
    Isolate,
}

impl Response {
    /// As in the config.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Alert => "alert",
            Self::Kill => "kill",
            Self::Deny => "deny",
            Self::Isolate => "isolate",
        }
    }
}

/// `[shell] mode`, from the narrowest to the widest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ShellMode {
    /// None.
    Off,
    /// The fixed commands alone.
    Restricted,
    /// Root's own shell too.
    Full,
}

impl ShellMode {
    /// As in the config.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Restricted => "restricted",
            Self::Full => "full",
        }
    }
}

/// One response or a list of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Responses(pub Vec<Response>);

/// A number of bytes: an integer, or text such as `"64 MiB"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteSize(pub u64);

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
        crate::schedule::check_schedule(&schedule).map_err(|error| error.to_string())?;
        Ok(Self(schedule))
    }
}

fn local_time() -> String {
    "local".to_owned()
}

fn cron<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    let text = String::deserialize(deserializer)?;
    crate::schedule::check_when(&text).map_err(serde::de::Error::custom)?;
    Ok(Some(text))
}

fn every<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    let text = String::deserialize(deserializer)?;
    crate::schedule::check_when(&format!("every {text}")).map_err(serde::de::Error::custom)?;
    Ok(Some(text))
}

fn timezone<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let text = String::deserialize(deserializer)?;
    crate::schedule::check_timezone(&text).map_err(serde::de::Error::custom)?;
    Ok(text)
}

fn jitter<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
    let text = String::deserialize(deserializer)?;
    crate::schedule::parse_jitter(&text).ok_or_else(|| {
        serde::de::Error::custom("jitter: a time such as 90s, 30m or 2h, 12h at most")
    })
}

/// A time in milliseconds, 50 to 30,000.
///
/// # Errors
/// What is wrong with it.
pub fn deadline<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let milliseconds = u64::deserialize(deserializer)?;
    if (50..=30_000).contains(&milliseconds) {
        Ok(Duration::from_millis(milliseconds))
    } else {
        Err(serde::de::Error::custom("deadline_ms must be 50 to 30000"))
    }
}

/// How long a shell may be, in seconds, 5 to 86,400.
///
/// # Errors
/// What is wrong with it.
pub fn shell_time<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let seconds = u64::deserialize(deserializer)?;
    if (5..=86_400).contains(&seconds) {
        Ok(Duration::from_secs(seconds))
    } else {
        Err(serde::de::Error::custom("5 to 86400 seconds"))
    }
}

/// Path globs: `*` stays inside one folder, `**` does not.
///
/// # Errors
/// What is wrong with it.
pub fn globs<'de, D: Deserializer<'de>>(deserializer: D) -> Result<GlobSet, D::Error> {
    let mut set = GlobSetBuilder::new();
    for pattern in Vec::<String>::deserialize(deserializer)? {
        let glob = globset::GlobBuilder::new(&pattern)
            .literal_separator(true)
            .backslash_escape(true)
            .build()
            .map_err(serde::de::Error::custom)?;
        set.add(glob);
    }
    set.build().map_err(serde::de::Error::custom)
}

/// What stays reachable, 16 at most.
///
/// # Errors
/// What is wrong with it.
pub fn endpoints<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    /// Addresses of names come on top; the programs' table has 64 places.
    const MOST: usize = 16;
    let list = Vec::<String>::deserialize(deserializer)?;
    if list.len() > MOST {
        return Err(serde::de::Error::custom(format!("allow: at most {MOST} endpoints")));
    }
    match list.iter().find(|endpoint| split_endpoint(endpoint).is_none()) {
        None => Ok(list),
        Some(wrong) => Err(serde::de::Error::custom(format!(
            "allow: {wrong:?} is not an endpoint: host:port, or [address]:port for IPv6"
        ))),
    }
}

/// Host and port of `host:port` or `[address]:port`.
#[must_use]
pub fn split_endpoint(text: &str) -> Option<(&str, u16)> {
    let (host, port) = text.rsplit_once(':')?;
    let port = port.parse().ok().filter(|port| *port != 0)?;
    let host = match host.strip_prefix('[') {
        Some(address) => {
            let address = address.strip_suffix(']')?;
            address.parse::<std::net::Ipv6Addr>().ok()?;
            address
        }
        None => host,
    };
    let plain = !text.starts_with('[') && host.contains(':');
    (!host.is_empty() && !plain && !host.contains(char::is_whitespace)).then_some((host, port))
}

/// SHA-256 hashes in hex.
///
/// # Errors
/// What is wrong with it.
pub fn sha256_list<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    let list = Vec::<String>::deserialize(deserializer)?;
    list.into_iter()
        .map(|hash| {
            if hash.len() == 64 && hash.bytes().all(|b| b.is_ascii_hexdigit()) {
                Ok(hash.to_ascii_lowercase())
            } else {
                Err(serde::de::Error::custom(format!(
                    "{hash:?} is not a SHA-256 in hex (64 digits)"
                )))
            }
        })
        .collect()
}

/// Seconds for one file, 1 to a day.
///
/// # Errors
/// What is wrong with it.
pub fn rescan_limit<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    let seconds = u64::deserialize(deserializer)?;
    if (1..=86_400).contains(&seconds) {
        Ok(seconds)
    } else {
        Err(serde::de::Error::custom("rescan_limit_s must be 1 to 86400"))
    }
}

/// Percent of one core, 1 to 100.
///
/// # Errors
/// What is wrong with it.
pub fn cpu_share<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u8, D::Error> {
    let share = u8::deserialize(deserializer)?;
    if (1..=100).contains(&share) {
        Ok(share)
    } else {
        Err(serde::de::Error::custom("cpu_share must be 1 to 100"))
    }
}

/// Absolute paths, or below `~/`, 100 at most.
///
/// # Errors
/// What is wrong with it.
pub fn places<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<PathBuf>, D::Error> {
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

impl<'de> Deserialize<'de> for Responses {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Either {
            One(Response),
            List(Vec<Response>),
        }
        let list = match Either::deserialize(deserializer) {
            Ok(Either::One(one)) => vec![one],
            Ok(Either::List(list)) if !list.is_empty() => list,
            Ok(Either::List(_)) | Err(_) => {
                return Err(serde::de::Error::custom(
                    "a response is none, alert, kill, deny or isolate, or a list of these",
                ));
            }
        };
        if list.len() > 1 && list.contains(&Response::None) {
            return Err(serde::de::Error::custom("the response none goes with no other"));
        }
        Ok(Self(list))
    }
}

impl<'de> Deserialize<'de> for Protect {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Either {
            Word(String),
            Paths(Vec<PathBuf>),
        }
        match Either::deserialize(deserializer)? {
            Either::Word(word) if word == "all" => Ok(Self::All),
            Either::Word(word) => Err(serde::de::Error::custom(format!(
                "protect is \"all\" or a list of absolute paths, not {word:?}"
            ))),
            Either::Paths(paths) => match paths.iter().find(|path| !path.is_absolute()) {
                Some(path) => Err(serde::de::Error::custom(format!(
                    "protect: {} is not an absolute path",
                    path.display()
                ))),
                None if paths.is_empty() => {
                    Err(serde::de::Error::custom("protect names no path at all"))
                }
                None => Ok(Self::Paths(paths)),
            },
        }
    }
}

impl<'de> Deserialize<'de> for ByteSize {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Either {
            Number(u64),
            Text(String),
        }
        match Either::deserialize(deserializer)? {
            Either::Number(number) => Ok(Self(number)),
            Either::Text(text) => parse_size(&text).map(Self).ok_or_else(|| {
                serde::de::Error::custom(format!(
                    "{text:?} is not a size: a number of bytes, or with KiB, MiB, GiB behind it"
                ))
            }),
        }
    }
}

fn parse_size(text: &str) -> Option<u64> {
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let shift = match unit.trim() {
        "" | "B" => 0,
        "KiB" => 10,
        "MiB" => 20,
        "GiB" => 30,
        "TiB" => 40,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(1 << shift)
}
