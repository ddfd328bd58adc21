//! What an operator denies on hosts: content by its hash, files by their path.
//!
//! INVARIANT: manager and agent check by the same words, so that nothing is kept that hosts refuse
//! for its form, and nothing that a host cannot run without is denied by mistake. The agent knows
//! more of what it runs on, and refuses that besides. Denies nothing itself.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Denials of one fleet, and of paths, and of hashes, on one host besides.
pub const MOST: usize = 1000;
/// Those of them that are patterns: every open is compared with each.
pub const MOST_PATTERNS: usize = 50;
/// Bytes of a path.
pub const LONGEST: usize = 1024;
/// Bytes of who and why, as hosts get it.
pub const WHY: usize = 300;
/// Denials for which a host says why they are not in force; of the others it only says that.
pub const MOST_WHYS: usize = 50;

/// What is denied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DenialKind {
    /// Content, by its SHA-256: denied and quarantined wherever it lies.
    Hash,
    /// What lies at a path, whatever its content: denied, and left where it is.
    Path,
}

impl DenialKind {
    /// As in JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Hash => "hash",
            Self::Path => "path",
        }
    }
}

/// One denial.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Denial {
    /// The manager's id of it; nothing for one of this host alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<Uuid>,
    /// Content or path.
    pub kind: DenialKind,
    /// SHA-256 in lower-case hex, or an absolute path; `*` stays in one folder, `**` does not.
    pub value: String,
    /// Who denied it, and why.
    pub why: String,
    /// Since when, milliseconds since the epoch.
    pub since_ms: i64,
    /// Until when by the host's clock, milliseconds since the epoch; without it until it is lifted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until_ms: Option<i64>,
}

impl Denial {
    /// Whether it is in force at a time.
    #[must_use]
    pub fn stands(&self, now_ms: i64) -> bool {
        stands(self.until_ms, now_ms)
    }
}

/// Whether what ends then, or never, is in force at a time.
#[must_use]
pub fn stands(until_ms: Option<i64>, now_ms: i64) -> bool {
    until_ms.is_none_or(|until| now_ms < until)
}

/// Whether what ends then, or never, stands as long as what ends at the other time, or never.
#[must_use]
pub fn outlasts(until_ms: Option<i64>, other_ms: Option<i64>) -> bool {
    until_ms.is_none_or(|until| other_ms.is_some_and(|other| other <= until))
}

/// All that a manager denies on one host: it takes the place of what it denied there before.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FleetDenials {
    /// The last change of the manager's list that is in here.
    pub through: i64,
    /// All of them.
    pub denials: Vec<Denial>,
}

/// One that is not in force on a host.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct DenialRefusal {
    /// The manager's id of it.
    pub id: Uuid,
    /// Why.
    pub why: String,
}

/// How a host stands to what is denied.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct DenialState {
    /// The last change of the manager's list that is in force; 0: none ever came.
    pub through: i64,
    /// Paths that are denied, whoever denied them.
    pub paths: u64,
    /// Hashes that the manager denies.
    pub hashes: u64,
    /// Those of the manager that are not in force here; why is said of the first [`MOST_WHYS`].
    pub refused: Vec<DenialRefusal>,
}

/// What no host can be run or mended without, wherever the distribution has it.
#[cfg(feature = "settings")]
const PROGRAMS: &[&str] = &[
    "bin/sh",
    "bin/bash",
    "bin/dash",
    "bin/busybox",
    "bin/login",
    "bin/mount",
    "bin/su",
    "bin/sudo",
    "bin/kmod",
    "bin/systemctl",
    "bin/dbus-daemon",
    "bin/dbus-broker",
    "bin/holdfast",
    "bin/holdfastd",
    "bin/holdfast-scan",
    "sbin/init",
    "sbin/agetty",
    "sbin/sshd",
    "sbin/sulogin",
    "sbin/holdfastd",
    "sbin/holdfast-scan",
    "lib/systemd/systemd",
    "lib/systemd/systemd-executor",
    "lib/systemd/systemd-journald",
    "lib/systemd/systemd-logind",
    "lib/systemd/systemd-udevd",
    "lib/holdfast/holdfastd",
    "lib/holdfast/holdfast-scan",
    "lib/ld-musl-x86_64.so.1",
    "lib64/ld-linux-x86-64.so.2",
    "lib64/libc.so.6",
    "lib/x86_64-linux-gnu/ld-linux-x86-64.so.2",
    "lib/x86_64-linux-gnu/libc.so.6",
    "lib/x86_64-linux-gnu/libgcc_s.so.1",
    "lib/x86_64-linux-gnu/libpam.so.0",
];

/// The same of files that are not programs.
#[cfg(feature = "settings")]
const FILES: &[&str] = &[
    "/etc/passwd",
    "/etc/group",
    "/etc/shadow",
    "/etc/nsswitch.conf",
    "/etc/ld.so.cache",
    "/etc/ld.so.preload",
    "/etc/fstab",
    "/etc/pam.d/login",
    "/etc/pam.d/sshd",
    "/etc/ssh/sshd_config",
    "/etc/systemd/system.conf",
    "/etc/holdfast/holdfastd.toml",
    "/var/lib/holdfast/journal.db",
];

/// Whether a value of this kind can be denied anywhere; as it is to be kept.
///
/// # Errors
/// Why not, for whoever orders it.
#[cfg(feature = "settings")]
pub fn check(kind: DenialKind, value: &str) -> Result<String, String> {
    match kind {
        DenialKind::Hash => {
            let hex = value.len() == 64 && value.bytes().all(|digit| digit.is_ascii_hexdigit());
            if hex { Ok(value.to_ascii_lowercase()) } else { Err("64 hex digits".to_owned()) }
        }
        DenialKind::Path => {
            check_form(value)?;
            let pattern = glob(value)?.compile_matcher();
            if let Some(path) = essentials().find(|path| pattern.is_match(path)) {
                return Err(refusal(&path));
            }
            Ok(value.to_owned())
        }
    }
}

/// What hosts cannot do without, as paths.
#[cfg(feature = "settings")]
pub fn essentials() -> impl Iterator<Item = String> {
    let programs =
        PROGRAMS.iter().flat_map(|name| ["", "/usr"].map(|root| format!("{root}/{name}")));
    programs.chain(FILES.iter().map(|file| (*file).to_owned()))
}

/// Why what covers this path is not denied.
#[must_use]
pub fn refusal(path: &str) -> String {
    format!("it covers {path}, which hosts cannot run or be mended without")
}

/// Whether a path has no sign that stands for others.
#[must_use]
pub fn is_exact(pattern: &str) -> bool {
    !pattern.contains(['*', '?', '[', '{', '\\'])
}

/// A pattern as it is matched.
///
/// # Errors
/// What is wrong with it.
#[cfg(feature = "settings")]
pub fn glob(pattern: &str) -> Result<globset::Glob, String> {
    globset::GlobBuilder::new(pattern)
        .literal_separator(true)
        .backslash_escape(true)
        .build()
        .map_err(|error| error.to_string())
}

#[cfg(feature = "settings")]
fn check_form(path: &str) -> Result<(), String> {
    let refuse = |why: &str| Err(why.to_owned());
    if path.len() > LONGEST {
        return Err(format!("a path has at most {LONGEST} bytes"));
    }
    if !path.starts_with('/') {
        return refuse("a path is absolute");
    }
    if path.ends_with('/') {
        return refuse("a path names files; FOLDER/** is all that is in a folder");
    }
    if path.chars().any(char::is_control) {
        return refuse("a path has no control characters");
    }
    if path[1..].split('/').any(|part| matches!(part, "" | "." | "..")) {
        return refuse("a path is given without . and .. and //");
    }
    Ok(())
}

#[cfg(all(test, feature = "settings"))]
mod tests {
    use super::*;

    #[test]
    fn what_would_stop_a_host_is_refused_and_says_what_it_covers() {
        for pattern in [
            "/**",
            "/*/**",
            "/**/*",
            "/usr/**",
            "/usr/bin/bash",
            "/bin/*sh",
            "/usr/bin/{bash,nc}",
            "/**/libc.so*",
            "/usr/lib/**/*.so*",
            "/lib64/*",
            "/etc/**",
            "/etc/passw[d]",
            "/var/lib/holdfast/**",
            "/usr/sbin/sshd",
            "/?in/sh",
            "/usr/bin/holdfast*",
        ] {
            let why = check(DenialKind::Path, pattern).expect_err(pattern);
            assert!(why.contains("cannot run"), "{pattern}: {why}");
        }
    }

    #[test]
    fn a_denial_ends_by_itself_at_its_time_and_not_before() {
        assert!(stands(None, 5) && stands(Some(6), 5) && !stands(Some(5), 5));
        assert!(outlasts(None, None) && outlasts(None, Some(1)) && outlasts(Some(2), Some(2)));
        assert!(!outlasts(Some(2), None) && !outlasts(Some(2), Some(3)));
    }

    #[test]
    fn a_path_is_absolute_and_plain_and_a_hash_is_one() {
        for bad in
            ["", "/", "bash", "/a/../b", "/a/./b", "//a", "/a/", "/a\nb", "/a\0b", "/[", "/{a"]
        {
            assert!(check(DenialKind::Path, bad).is_err(), "{bad:?}");
        }
        assert!(check(DenialKind::Path, &format!("/{}", "a".repeat(LONGEST))).is_err());
        for fine in ["/usr/bin/nc", "/tmp/**", "/**/xmrig", "/home/*/.cache/x", "/srv/a b"] {
            assert_eq!(check(DenialKind::Path, fine).expect(fine), fine);
        }
        let hash = "AB".repeat(32);
        assert_eq!(check(DenialKind::Hash, &hash).expect("fine"), hash.to_lowercase());
        for bad in ["", "ab", &"g".repeat(64), &"a".repeat(65)] {
            assert!(check(DenialKind::Hash, bad).is_err(), "{bad}");
        }
    }
}
