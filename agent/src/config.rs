//! The local config file: TOML in, a checked [`Config`] out.
//!
//! Invariant: a `Config` that exists is valid. Unknown keys are refused, every error names the
//! file and the place. Reads the file and nothing else.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use globset::{Glob, GlobSet, GlobSetBuilder};
use holdfast_common::verdict::{Decision, FailureReason};
use serde::{Deserialize, Deserializer};

/// The whole file.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Folder for the journal, the quarantine and the host key; root-only.
    pub state_dir: PathBuf,
    /// The control socket, root-only.
    pub socket: PathBuf,
    /// Held opens.
    pub on_access: OnAccess,
    /// The scan core.
    #[serde(default)]
    pub scan: Scan,
    /// The quarantine.
    #[serde(default)]
    pub quarantine: Quarantine,
    /// The journal.
    #[serde(default)]
    pub journal: Journal,
    /// The eBPF sensor.
    #[serde(default)]
    pub sensor: Sensor,
    /// Self-proof.
    #[serde(default)]
    pub self_proof: SelfProof,
}

/// `[on_access]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OnAccess {
    /// What is protected.
    pub protect: Protect,
    /// Deny and quarantine, or only report.
    pub mode: Mode,
    /// No open waits longer than this for its answer. 50 to 30,000 ms.
    #[serde(default = "default_deadline", rename = "deadline_ms", deserialize_with = "deadline")]
    pub deadline: Duration,
    /// Files above this many bytes are a `too_large` failure on open, and are rescanned later.
    #[serde(default = "default_max_file_size")]
    pub max_file_size: ByteSize,
    /// Deny on every failure that `failure` does not name.
    #[serde(default)]
    pub strict: bool,
    /// Rows of the failure table that differ from the default.
    #[serde(default)]
    pub failure: BTreeMap<FailureReason, Decision>,
    /// What is never held, or allowed whatever matches.
    #[serde(default)]
    pub exclude: Exclude,
}

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

/// `[on_access.exclude]`
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Exclude {
    /// Path globs (`*` stays inside one folder, `**` does not).
    #[serde(default, deserialize_with = "globs")]
    pub paths: GlobSet,
    /// SHA-256 of content that is allowed.
    #[serde(default, deserialize_with = "sha256_list")]
    pub hashes: Vec<String>,
    /// Globs on the opener's executable (`/proc/PID/exe`).
    #[serde(default, deserialize_with = "globs")]
    pub processes: GlobSet,
}

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
}

impl Default for Scan {
    fn default() -> Self {
        Self { bundle: None, workers: 0, memory_limit: ByteSize(1 << 30), rescan_limit_s: 120 }
    }
}

/// `[quarantine]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Quarantine {
    /// Bytes on disk for all items together; beyond it files stay where they are, denied.
    pub max_size: ByteSize,
}

impl Default for Quarantine {
    fn default() -> Self {
        Self { max_size: ByteSize(4 << 30) }
    }
}

/// `[journal]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Journal {
    /// Telemetry events kept; the oldest go first.
    pub max_telemetry: u64,
    /// All other events kept; the oldest go first.
    pub max_events: u64,
}

impl Default for Journal {
    fn default() -> Self {
        Self { max_telemetry: 200_000, max_events: 100_000 }
    }
}

/// `[sensor]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Sensor {
    /// Load the eBPF programs.
    pub enabled: bool,
    /// Where the kernel refuses BPF trampolines, watch all system calls for ptrace, mounts,
    /// memfd and the like. Costs every system call of the host.
    pub system_calls: bool,
}

impl Default for Sensor {
    fn default() -> Self {
        Self { enabled: true, system_calls: true }
    }
}

/// `[self_proof]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SelfProof {
    /// Without it the host is never green.
    pub enabled: bool,
    /// Between two whole rounds, 5 s to a day.
    #[serde(rename = "interval_s", deserialize_with = "interval")]
    pub interval: Duration,
    /// The systemd unit that must be enabled at boot; not looked at when absent.
    pub unit: Option<String>,
}

impl Default for SelfProof {
    fn default() -> Self {
        Self { enabled: true, interval: Duration::from_secs(300), unit: None }
    }
}

/// A number of bytes: an integer, or text such as `"64 MiB"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteSize(pub u64);

/// Why a config was not taken.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file could not be read.
    #[error("cannot read config {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// It is not what it should be; the message of the parser names line and column.
    #[error("{path}: {message}")]
    Parse {
        /// The file.
        path: PathBuf,
        /// Line, column and what is wrong.
        message: String,
    },
}

impl Config {
    /// Reads and checks a config file.
    ///
    /// # Errors
    /// [`ConfigError`] with the file and the place.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
        Self::parse(&text).map_err(|message| ConfigError::Parse { path: path.to_owned(), message })
    }

    fn parse(text: &str) -> Result<Self, String> {
        let config: Self = toml::from_str(text).map_err(|error| error.to_string())?;
        for (key, path) in [("state_dir", &config.state_dir), ("socket", &config.socket)] {
            if !path.is_absolute() {
                return Err(format!("{key}: {} is not an absolute path", path.display()));
            }
        }
        Ok(config)
    }

    /// The reply for one row of the failure table.
    pub fn failure_decision(&self, reason: FailureReason) -> Decision {
        self.on_access.failure_decision(reason)
    }
}

impl OnAccess {
    /// The reply for one row of the failure table: what the config says of the row, else deny
    /// when strict, else allow. A program that changes while it is about to run is denied.
    pub fn failure_decision(&self, reason: FailureReason) -> Decision {
        match self.failure.get(&reason) {
            Some(decision) => *decision,
            None if self.strict || reason == FailureReason::ChangingExec => Decision::Deny,
            None => Decision::Allow,
        }
    }
}

const fn default_deadline() -> Duration {
    Duration::from_millis(3000)
}

const fn default_max_file_size() -> ByteSize {
    ByteSize(64 << 20)
}

fn deadline<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let milliseconds = u64::deserialize(deserializer)?;
    if (50..=30_000).contains(&milliseconds) {
        Ok(Duration::from_millis(milliseconds))
    } else {
        Err(serde::de::Error::custom("deadline_ms must be 50 to 30000"))
    }
}

fn interval<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let seconds = u64::deserialize(deserializer)?;
    if (5..=86_400).contains(&seconds) {
        Ok(Duration::from_secs(seconds))
    } else {
        Err(serde::de::Error::custom("interval_s must be 5 to 86400"))
    }
}

fn globs<'de, D: Deserializer<'de>>(deserializer: D) -> Result<GlobSet, D::Error> {
    let mut set = GlobSetBuilder::new();
    for pattern in Vec::<String>::deserialize(deserializer)? {
        let glob = globset::GlobBuilder::new(&pattern)
            .literal_separator(true)
            .backslash_escape(true)
            .build()
            .map_err(serde::de::Error::custom)?;
        set.add(Glob::clone(&glob));
    }
    set.build().map_err(serde::de::Error::custom)
}

fn sha256_list<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
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

#[cfg(test)]
mod tests {
    use super::*;

    const SMALLEST: &str = r#"
state_dir = "/var/lib/holdfast"
socket = "/run/holdfast/holdfast.sock"
[on_access]
protect = ["/srv"]
mode = "block"
"#;

    #[test]
    fn the_smallest_config_is_taken_with_defaults() {
        let config = Config::parse(SMALLEST).expect("smallest config");
        assert_eq!(config.on_access.deadline, Duration::from_secs(3));
        assert_eq!(config.on_access.max_file_size, ByteSize(64 << 20));
        assert_eq!(config.failure_decision(FailureReason::Deadline), Decision::Allow);
        assert_eq!(config.failure_decision(FailureReason::ChangingExec), Decision::Deny);
    }

    #[test]
    fn an_unknown_key_is_refused_with_its_line() {
        let error = Config::parse(&format!("{SMALLEST}mod = \"block\"\n")).expect_err("typo");
        assert!(error.contains("line 7") && error.contains("mod"), "{error}");
    }

    #[test]
    fn strict_denies_what_the_table_does_not_name() {
        let text = format!("{SMALLEST}strict = true\n[on_access.failure]\ntoo_large = \"allow\"\n");
        let config = Config::parse(&text).expect("strict config");
        assert_eq!(config.failure_decision(FailureReason::Deadline), Decision::Deny);
        assert_eq!(config.failure_decision(FailureReason::TooLarge), Decision::Allow);
    }

    #[test]
    fn sizes_globs_and_hashes_are_checked() {
        assert_eq!(parse_size("64 MiB"), Some(64 << 20));
        assert_eq!(parse_size("12"), Some(12));
        assert_eq!(parse_size("99999999 TiB"), None);
        assert_eq!(parse_size("MiB"), None);
        for bad in ["paths = [\"a[\"]", "hashes = [\"12\"]"] {
            let text = format!("{SMALLEST}[on_access.exclude]\n{bad}\n");
            assert!(Config::parse(&text).is_err(), "{bad}");
        }
        for bad in ["protect = \"some\"", "protect = [\"srv\"]", "protect = []"] {
            let text = SMALLEST.replace("protect = [\"/srv\"]", bad);
            assert!(Config::parse(&text).is_err(), "{bad}");
        }
    }
}
