//! The local config file: TOML in, a checked [`Config`] out.
//!
//! Invariant: a `Config` that exists is valid. Unknown keys are refused, every error names the
//! file and the place. Reads the file and nothing else.

mod scan;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use globset::GlobSet;
pub use holdfast_common::config::ConfigError;
pub use holdfast_common::policy::Table;
use holdfast_common::settings;
pub use holdfast_common::settings::{
    ByteSize, Mode, Protect, Response, Responses, ScheduleEntry, ShellMode, split_endpoint,
};
use holdfast_common::verdict::{Decision, FailureReason};
use serde::{Deserialize, Deserializer};

pub use self::scan::Scan;

use crate::sensor::files::list::Files;

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
    /// Detection models.
    #[serde(default)]
    pub models: Models,
    /// Cutting the host off.
    #[serde(default)]
    pub isolation: Isolation,
    /// Self-protection.
    #[serde(default)]
    pub self_protection: SelfProtection,
    /// The link to the manager.
    #[serde(default)]
    pub manager: Manager,
    /// Remote shells.
    #[serde(default)]
    pub shell: Shell,
    /// What the manager's policies may change here.
    #[serde(default)]
    pub policy: Policy,
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
    #[serde(
        default = "default_deadline",
        rename = "deadline_ms",
        deserialize_with = "settings::deadline"
    )]
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

/// `[on_access.exclude]`
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Exclude {
    /// Path globs (`*` stays inside one folder, `**` does not).
    #[serde(default, deserialize_with = "settings::globs")]
    pub paths: GlobSet,
    /// SHA-256 of content that is allowed.
    #[serde(default, deserialize_with = "settings::sha256_list")]
    pub hashes: Vec<String>,
    /// Globs on the opener's executable (`/proc/PID/exe`).
    #[serde(default, deserialize_with = "settings::globs")]
    pub processes: GlobSet,
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
    /// Load the eBPF programs, watch the files that matter.
    pub enabled: bool,
    /// Which files matter.
    pub files: Files,
    /// Where the kernel refuses BPF trampolines, watch all system calls for ptrace, mounts,
    /// memfd and the like. Costs every system call of the host.
    pub system_calls: bool,
}

impl Default for Sensor {
    fn default() -> Self {
        Self { enabled: true, system_calls: true, files: Files::default() }
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

/// `[models]`
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Models {
    /// Folder of Sigma rules, besides the shipped models.
    #[serde(deserialize_with = "absolute")]
    pub folder: Option<PathBuf>,
    /// What follows when a model fires, by its id or title, in place of what the model says.
    pub response: BTreeMap<String, Responses>,
    /// Models that are off, by id or title, whatever `holdfast models enable` says.
    pub off: Vec<String>,
}

/// `[isolation]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Isolation {
    /// What stays reachable by TCP: `host:port` or `[address]:port`. Empty: nothing but the
    /// loopback.
    #[serde(deserialize_with = "settings::endpoints")]
    pub allow: Vec<String>,
    /// DHCP servers that may be asked; without it those that this host's leases name.
    pub dhcp: Option<Vec<std::net::IpAddr>>,
    /// Folder of the cgroup (version 2) that is cut off; without it the root. For trials: with
    /// it, a host is refused whose network namespace is the first one.
    pub cgroup: Option<PathBuf>,
    /// Folder for the pins, on a BPF file system.
    pub pins: PathBuf,
}

impl Default for Isolation {
    fn default() -> Self {
        Self {
            allow: Vec::new(),
            dhcp: None,
            cgroup: None,
            pins: PathBuf::from("/sys/fs/bpf/holdfast/isolation"),
        }
    }
}

/// `[manager]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Manager {
    /// The HTTP proxy on the way, in place of the one that the host was enrolled with:
    /// `http://[user:password@]host:port`.
    pub proxy: Option<crate::report::Proxy>,
    /// Events that the manager could not be given within so many days are given up, 1 to 3650.
    #[serde(deserialize_with = "days")]
    pub max_age_days: i64,
    /// Bytes of collected files that wait to be delivered.
    pub spool: ByteSize,
}

impl Default for Manager {
    fn default() -> Self {
        Self { proxy: None, max_age_days: 30, spool: ByteSize(1 << 30) }
    }
}

impl Manager {
    /// The age in milliseconds.
    #[must_use]
    pub const fn max_age_ms(&self) -> i64 {
        self.max_age_days * 86_400_000
    }
}

/// `[shell]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Shell {
    /// What this host allows, whatever its manager asks for.
    pub mode: ShellMode,
    /// One where nobody types for so long is closed. 5 s to a day.
    #[serde(rename = "idle_s", deserialize_with = "settings::shell_time")]
    pub idle: Duration,
    /// One is closed after so long, whoever types. 5 s to a day.
    #[serde(rename = "longest_s", deserialize_with = "settings::shell_time")]
    pub longest: Duration,
}

impl Default for Shell {
    fn default() -> Self {
        let (idle, longest) = (Duration::from_secs(600), Duration::from_secs(14_400));
        Self { mode: ShellMode::Restricted, idle, longest }
    }
}

/// `[policy]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Policy {
    /// Take the manager's policies.
    pub accept: bool,
    /// Tables that stay as they stand in this file, whatever a policy says.
    pub keep: Vec<Table>,
}

impl Default for Policy {
    fn default() -> Self {
        Self { accept: true, keep: Vec::new() }
    }
}

/// `[self_protection]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SelfProtection {
    /// Deny, where the kernel can.
    pub enabled: bool,
    /// Executables that, with all that they start, may change and stop the agent: absolute paths,
    /// looked up once when the agent starts. Those that are not there are left out.
    #[serde(deserialize_with = "absolute_paths")]
    pub package_managers: Vec<PathBuf>,
}

impl Default for SelfProtection {
    fn default() -> Self {
        let paths = ["dpkg", "rpm", "dnf5", "microdnf", "zypper"];
        Self {
            enabled: true,
            package_managers: paths.iter().map(|name| Path::new("/usr/bin").join(name)).collect(),
        }
    }
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

fn days<'de, D: Deserializer<'de>>(deserializer: D) -> Result<i64, D::Error> {
    let days = i64::deserialize(deserializer)?;
    if (1..=3650).contains(&days) {
        Ok(days)
    } else {
        Err(serde::de::Error::custom("max_age_days must be 1 to 3650"))
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

fn absolute_paths<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<PathBuf>, D::Error> {
    /// The programs' table has room for more.
    const MOST: usize = 64;
    let list = Vec::<PathBuf>::deserialize(deserializer)?;
    if list.len() > MOST {
        return Err(serde::de::Error::custom(format!("at most {MOST} paths")));
    }
    match list.iter().find(|path| !path.is_absolute()) {
        None => Ok(list),
        Some(path) => {
            Err(serde::de::Error::custom(format!("{} is not an absolute path", path.display())))
        }
    }
}

fn absolute<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<PathBuf>, D::Error> {
    let path = PathBuf::deserialize(deserializer)?;
    if path.is_absolute() {
        Ok(Some(path))
    } else {
        Err(serde::de::Error::custom(format!("{} is not an absolute path", path.display())))
    }
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
    fn responses_are_one_word_or_a_list_of_known_ones() {
        let parse = |value: &str| {
            Config::parse(&format!("{SMALLEST}[models.response]\n\"A Model\" = {value}\n"))
        };
        let config = parse("[\"kill\", \"deny\"]").expect("list");
        assert_eq!(config.models.response["A Model"].0, [Response::Kill, Response::Deny]);
        assert_eq!(parse("\"none\"").expect("word").models.response["A Model"].0, [Response::None]);
        for bad in ["\"explode\"", "[]", "[\"none\", \"kill\"]", "1"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
        assert!(Config::parse(&format!("{SMALLEST}[models]\nfolder = \"rules\"\n")).is_err());
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
    fn endpoints_are_checked() {
        assert_eq!(split_endpoint("manager.example:8443"), Some(("manager.example", 8443)));
        assert_eq!(split_endpoint("[2001:db8::1]:443"), Some(("2001:db8::1", 443)));
        for bad in ["manager", ":443", "m:0", "m:70000", "2001:db8::1:443", "[m]:443", "a b:1"] {
            assert_eq!(split_endpoint(bad), None, "{bad}");
            let text = format!("{SMALLEST}[isolation]\nallow = [\"{bad}\"]\n");
            assert!(Config::parse(&text).expect_err(bad).contains("is not an endpoint"));
        }
    }

    #[test]
    fn package_managers_are_absolute_paths() {
        let config = Config::parse(SMALLEST).expect("smallest config");
        assert!(config.self_protection.enabled);
        assert!(config.self_protection.package_managers.contains(&PathBuf::from("/usr/bin/dpkg")));
        let text = format!("{SMALLEST}[self_protection]\npackage_managers = [\"dpkg\"]\n");
        let error = Config::parse(&text).expect_err("relative");
        assert!(error.contains("dpkg is not an absolute path"), "{error}");
    }

    #[test]
    fn sizes_globs_and_hashes_are_checked() {
        for bad in ["\"99999999 TiB\"", "\"MiB\"", "-1"] {
            let text = format!("{SMALLEST}max_file_size = {bad}\n");
            assert!(Config::parse(&text).is_err(), "{bad}");
        }
        let text = format!("{SMALLEST}max_file_size = \"64 MiB\"\n");
        assert_eq!(Config::parse(&text).expect("size").on_access.max_file_size.0, 64 << 20);
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
