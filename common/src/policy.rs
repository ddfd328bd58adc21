//! A policy: a document with tables and keys of the agent's config that a manager may rule.
//!
//! One parser for both: the manager checks a document before it is kept, the agent checks it again
//! before anything changes. Invariant: a [`Document`] that exists is valid as far as can be told
//! without the host. What would make a host deaf (where its state and its manager are, sensor,
//! self-proof, self-protection) or belongs to one host alone (bundle, workers) has no place in it.
//! Applies nothing.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use globset::GlobSet;
use serde::{Deserialize, Deserializer, Serialize};

use crate::settings::{
    self, ByteSize, Mode, Protect, Responses, ScheduleEntry, ShellMode, cpu_share, deadline,
    endpoints, globs, places, sha256_list, shell_time,
};
use crate::verdict::{Decision, FailureReason};

/// Bytes of a document.
pub const MAX_DOCUMENT: usize = 64 << 10;
/// Schedules, rows of responses and models that are off.
const MOST_ROWS: usize = 100;
/// Bytes of an error: the parser quotes the line that is wrong.
const LONGEST_ERROR: usize = 1000;

/// Why a document is no policy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct PolicyError {
    text: String,
    /// Line and column.
    place: Option<(usize, usize)>,
}

impl PolicyError {
    /// Line and column that are wrong, from 1, where it is one place.
    #[must_use]
    pub const fn place(&self) -> Option<(usize, usize)> {
        self.place
    }
}

/// A table that policies rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Table {
    /// `[on_access]`
    OnAccess,
    /// `[scan]`
    Scan,
    /// `[quarantine]`
    Quarantine,
    /// `[models]`
    Models,
    /// `[isolation]`
    Isolation,
    /// `[shell]`
    Shell,
}

impl Table {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::OnAccess, Self::Scan, Self::Quarantine, Self::Models, Self::Isolation, Self::Shell];

    /// As in the document.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::OnAccess => "on_access",
            Self::Scan => "scan",
            Self::Quarantine => "quarantine",
            Self::Models => "models",
            Self::Isolation => "isolation",
            Self::Shell => "shell",
        }
    }
}

/// A policy's content. What it does not name stays as the host's own config has it.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Document {
    /// `[on_access]`
    pub on_access: OnAccess,
    /// `[scan]`
    pub scan: Scan,
    /// `[quarantine]`
    pub quarantine: Quarantine,
    /// `[models]`
    pub models: Models,
    /// `[isolation]`
    pub isolation: Isolation,
    /// `[shell]`
    pub shell: Shell,
}

/// `[on_access]`
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct OnAccess {
    /// What is protected.
    pub protect: Option<Protect>,
    /// Deny and quarantine, or only report.
    pub mode: Option<Mode>,
    /// No open waits longer than this.
    #[serde(rename = "deadline_ms", deserialize_with = "deadline_some")]
    pub deadline: Option<Duration>,
    /// Larger files are a `too_large` failure on open.
    pub max_file_size: Option<ByteSize>,
    /// Deny on every failure that the table does not name.
    pub strict: Option<bool>,
    /// Rows of the failure table.
    pub failure: BTreeMap<FailureReason, Decision>,
    /// What is never held, or allowed whatever matches.
    pub exclude: Exclude,
}

/// `[on_access.exclude]`
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Exclude {
    /// Path globs.
    #[serde(deserialize_with = "globs_some")]
    pub paths: Option<GlobSet>,
    /// SHA-256 of content that is allowed.
    #[serde(deserialize_with = "sha256_some")]
    pub hashes: Option<Vec<String>>,
    /// Globs on the opener's executable.
    #[serde(deserialize_with = "globs_some")]
    pub processes: Option<GlobSet>,
}

/// `[scan]`
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Scan {
    /// Time for one rescan or on-demand scan of a file, seconds.
    #[serde(deserialize_with = "rescan_limit_some")]
    pub rescan_limit_s: Option<u64>,
    /// Percent of one core for scans in the background.
    #[serde(deserialize_with = "cpu_share_some")]
    pub cpu_share: Option<u8>,
    /// Places of a quick scan.
    #[serde(deserialize_with = "places_some")]
    pub quick: Option<Vec<PathBuf>>,
    /// Places of a full scan.
    #[serde(deserialize_with = "places_some")]
    pub full: Option<Vec<PathBuf>>,
    /// Scans that come again, in place of all of the config's.
    pub schedule: Option<Vec<ScheduleEntry>>,
}

/// `[quarantine]`
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Quarantine {
    /// Bytes on disk for all items together.
    pub max_size: Option<ByteSize>,
}

/// `[models]`
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Models {
    /// What follows when a model fires, by its id or title.
    pub response: BTreeMap<String, Responses>,
    /// Models that are off, by id or title.
    pub off: Option<Vec<String>>,
}

/// `[isolation]`
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Isolation {
    /// What stays reachable; the manager does in any case.
    #[serde(deserialize_with = "endpoints_some")]
    pub allow: Option<Vec<String>>,
    /// DHCP servers that may be asked.
    pub dhcp: Option<Vec<IpAddr>>,
}

/// `[shell]`: narrower than the host's own config, never wider.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Shell {
    /// Which shells may be opened.
    pub mode: Option<ShellMode>,
    /// One where nobody types for so long is closed.
    #[serde(rename = "idle_s", deserialize_with = "shell_time_some")]
    pub idle: Option<Duration>,
    /// One is closed after so long, whoever types.
    #[serde(rename = "longest_s", deserialize_with = "shell_time_some")]
    pub longest: Option<Duration>,
}

impl Document {
    /// Reads and checks a document.
    ///
    /// # Errors
    /// [`PolicyError`] with line, column and key.
    pub fn parse(bytes: &[u8]) -> Result<Self, PolicyError> {
        let refuse = |text: String| Err(PolicyError { text, place: None });
        if bytes.len() > MAX_DOCUMENT {
            return refuse(format!("{} bytes; a policy has at most {MAX_DOCUMENT}", bytes.len()));
        }
        let text = match std::str::from_utf8(bytes) {
            Ok(text) => text,
            Err(error) => {
                let before = &bytes[..error.valid_up_to()];
                let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
                let text = format!("line {line}: not UTF-8");
                return Err(PolicyError { text, place: Some((line, 1)) });
            }
        };
        let document: Self = toml::from_str(text).map_err(|error| explain(text, &error))?;
        document.check()?;
        Ok(document)
    }

    /// What no single value shows.
    fn check(&self) -> Result<(), PolicyError> {
        let refuse = |text: String| Err(PolicyError { text, place: None });
        let schedules = self.scan.schedule.as_deref().unwrap_or_default();
        let off = self.models.off.as_deref().unwrap_or_default();
        for (key, count) in [
            ("scan.schedule", schedules.len()),
            ("models.response", self.models.response.len()),
            ("models.off", off.len()),
        ] {
            if count > MOST_ROWS {
                return refuse(format!("{key}: {count} of them; at most {MOST_ROWS}"));
            }
        }
        for (place, ScheduleEntry(schedule)) in schedules.iter().enumerate() {
            if schedules[..place].iter().any(|one| one.0.name == schedule.name) {
                return refuse(format!(
                    "scan.schedule: there are two of the name {:?}",
                    schedule.name
                ));
            }
        }
        Ok(())
    }

    /// What of it weakens a host so much that whoever sets it should see it said.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        /// Nobody has written these names: what covers them covers everything.
        const ANYTHING: [&str; 2] = ["/holdfast.q7Jx/k2/z9", "/holdfast.q7Jx"];
        let mut warnings = Vec::new();
        let everything = |globs: &Option<GlobSet>| {
            globs.as_ref().is_some_and(|globs| ANYTHING.iter().any(|path| globs.is_match(path)))
        };
        if everything(&self.on_access.exclude.paths) {
            warnings.push("on_access.exclude.paths covers every file: nothing is held".to_owned());
        }
        if everything(&self.on_access.exclude.processes) {
            let text = "on_access.exclude.processes covers every program: nothing is held";
            warnings.push(text.to_owned());
        }
        if self.on_access.mode == Some(Mode::Detect) {
            warnings.push("on_access.mode is detect: nothing is denied".to_owned());
        }
        if self.on_access.max_file_size.is_some_and(|size| size.0 < 1 << 20) {
            warnings.push("on_access.max_file_size: files of a megabyte are not held".to_owned());
        }
        if self.quarantine.max_size.is_some_and(|size| size.0 < 64 << 20) {
            warnings.push("quarantine.max_size: there is hardly room for a file".to_owned());
        }
        warnings
    }
}

/// The parser's words, and why a table that the config has is none here.
fn explain(document: &str, error: &toml::de::Error) -> PolicyError {
    const HOSTS_OWN: [&str; 14] = [
        "state_dir",
        "socket",
        "manager",
        "journal",
        "sensor",
        "self_proof",
        "self_protection",
        "policy",
        "bundle",
        "workers",
        "memory_limit",
        "folder",
        "cgroup",
        "pins",
    ];
    let mut text = error.to_string();
    let own = HOSTS_OWN.iter().find(|key| text.contains(&format!("unknown field `{key}`")));
    if text.len() > LONGEST_ERROR {
        let end = (0..=LONGEST_ERROR).rev().find(|end| text.is_char_boundary(*end));
        text.truncate(end.unwrap_or(0));
    }
    if let Some(key) = own {
        text = format!("{}\n{key} is each host's own: no policy can set it", text.trim_end());
    }
    let place = error.span().and_then(|span| document.get(..span.start)).map(|before| {
        let line = before.bytes().filter(|byte| *byte == b'\n').count() + 1;
        let column = before.chars().rev().take_while(|sign| *sign != '\n').count() + 1;
        (line, column)
    });
    PolicyError { text: text.trim_end().to_owned(), place }
}

macro_rules! some {
    ($($name:ident = $read:path => $type:ty;)*) => { $(
        fn $name<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<$type>, D::Error> {
            $read(deserializer).map(Some)
        }
    )* };
}

some! {
    deadline_some = deadline => Duration;
    globs_some = globs => GlobSet;
    sha256_some = sha256_list => Vec<String>;
    cpu_share_some = cpu_share => u8;
    rescan_limit_some = settings::rescan_limit => u64;
    places_some = places => Vec<PathBuf>;
    endpoints_some = endpoints => Vec<String>;
    shell_time_some = shell_time => Duration;
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn refused(text: &str) -> String {
        Document::parse(text.as_bytes()).expect_err(text).to_string()
    }

    #[test]
    fn a_document_has_the_configs_tables_and_keys() {
        let text = r#"
[on_access]
protect = ["/srv"]
mode = "detect"
deadline_ms = 500
max_file_size = "64 MiB"
strict = true
[on_access.failure]
too_large = "allow"
[on_access.exclude]
paths = ["/srv/cache/**"]
[scan]
cpu_share = 10
[[scan.schedule]]
name = "nightly"
kind = "full"
cron = "0 1 * * *"
[quarantine]
max_size = "1 GiB"
[models]
off = ["Cron"]
[models.response]
"Data Encrypted for Impact" = ["kill", "deny"]
[isolation]
allow = ["[2001:db8::1]:443"]
dhcp = ["192.0.2.1"]
[shell]
mode = "restricted"
idle_s = 60
"#;
        let document = Document::parse(text.as_bytes()).expect("a policy");
        assert_eq!(document.on_access.mode, Some(Mode::Detect));
        assert_eq!(document.on_access.deadline, Some(Duration::from_millis(500)));
        assert_eq!(document.shell.mode, Some(ShellMode::Restricted));
        assert_eq!(document.shell.idle, Some(Duration::from_secs(60)));
        assert_eq!(document.scan.schedule.map(|list| list.len()), Some(1));
        let empty = Document::parse(b"").expect("nothing is ruled");
        assert!(empty.on_access.mode.is_none() && empty.isolation.allow.is_none());
    }

    #[test]
    fn what_is_the_hosts_own_is_refused_with_its_line_and_why() {
        for (text, key) in [
            ("state_dir = \"/tmp\"", "state_dir"),
            ("[manager]\nproxy = \"http://x\"", "manager"),
            ("[self_proof]\nenabled = false", "self_proof"),
            ("[self_protection]\nenabled = false", "self_protection"),
            ("[policy]\naccept = false", "policy"),
            ("[scan]\nbundle = \"/tmp\"", "bundle"),
            ("[models]\nfolder = \"/tmp\"", "folder"),
            ("[isolation]\npins = \"/tmp\"", "pins"),
        ] {
            let error = refused(text);
            assert!(error.contains("line ") && error.contains("no policy can set it"), "{error}");
            assert!(error.contains(key), "{error}");
        }
    }

    #[test]
    fn what_is_wrong_is_named_with_its_place() {
        for (text, named) in [
            ("\n[on_access]\nmod = \"block\"", "line 3"),
            ("[on_access]\nmode = \"off\"", "unknown variant `off`"),
            ("[on_access]\ndeadline_ms = 1", "50 to 30000"),
            ("[on_access.exclude]\npaths = [\"a[\"]", "line 2"),
            ("[scan]\nrescan_limit_s = 0", "rescan_limit_s"),
            ("[[scan.schedule]]\nname = \"x\"\nkind = \"full\"\ncron = \"99 * * * *\"", "minute"),
            ("[models.response]\nx = \"explode\"", "kill"),
            ("[isolation]\nallow = [\"nowhere\"]", "is not an endpoint"),
            ("[shell]\nmode = \"root\"", "unknown variant `root`"),
            ("[shell]\nidle_s = 4", "5 to 86400"),
        ] {
            let error = refused(text);
            assert!(error.contains(named), "{text}: {error}");
        }
        let wrong = Document::parse(b"# \xc3\xa9\n[scan]\n cpu_share = 0").expect_err("wrong");
        assert_eq!(wrong.place(), Some((3, 14)), "{wrong}");
        let twice = "[[scan.schedule]]\nname = \"x\"\nkind = \"full\"\ncron = \"0 1 * * *\"\n";
        let wrong = Document::parse(twice.repeat(2).as_bytes()).expect_err("twice");
        assert!(wrong.to_string().contains("two of the name") && wrong.place().is_none());
    }

    #[test]
    fn hostile_documents_are_refused_in_bounded_words() {
        assert!(refused(&"#".repeat(MAX_DOCUMENT + 1)).contains("at most"));
        let error = Document::parse(b"[scan]\n\xff").expect_err("not text").to_string();
        assert_eq!(error, "line 2: not UTF-8");
        let deep = format!("[on_access]\nprotect = {}{}", "[".repeat(20_000), "]".repeat(20_000));
        assert!(refused(&deep).len() < 2000);
        let tables = format!("[{}x]", "a.".repeat(20_000));
        assert!(refused(&tables).len() < 2000);
        let long = format!("[on_access]\nmode = \"{}\"", "é".repeat(20_000));
        assert!(refused(&long).len() < 2000);
    }

    #[test]
    fn a_policy_that_leaves_everything_out_is_taken_and_said_loudly() {
        let warnings = |text: &str| Document::parse(text.as_bytes()).expect(text).warnings();
        for pattern in ["/**", "**", "/**/*", "/[a-z]*/**", "{/srv/**,/**}"] {
            let text = format!("[on_access.exclude]\npaths = [\"{pattern}\"]");
            assert!(warnings(&text)[0].contains("every file"), "{pattern}");
        }
        assert!(warnings("[on_access.exclude]\npaths = [\"/srv/**\"]").is_empty());
        assert!(warnings("[on_access]\nmode = \"detect\"")[0].contains("nothing is denied"));
        assert!(warnings("[on_access.exclude]\nprocesses = [\"/**\"]")[0].contains("program"));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]
        #[test]
        fn arbitrary_bytes_are_refused_or_are_a_policy(
            bytes in prop::collection::vec(any::<u8>(), 0..200),
        ) {
            if let Err(error) = Document::parse(&bytes) {
                prop_assert!(error.to_string().len() < 2000);
            }
        }
    }
}
