//! Which files matter: the shipped list, and what the config adds and takes away.
//!
//! Pure: patterns in, rules out. A pattern is an absolute path whose components may be globs;
//! `**` as its last component stands for everything below; `~` as its first for the home of every
//! user who can sign in. Nothing here looks at a file.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use globset::{GlobBuilder, GlobMatcher};
use serde::{Deserialize, Deserializer};

/// Part of the list that a file belongs to; the `class` of its events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Class {
    /// Passwords, keys, tokens.
    Credentials,
    /// Cron and at.
    Cron,
    /// Units, and what else is started at boot or sign-in.
    Systemd,
    /// Who may sign in by key.
    SshKeys,
    /// What a shell runs when it starts.
    ShellProfile,
    /// What the dynamic linker loads into every program.
    Preload,
    /// Who may become root.
    Sudoers,
    /// How people are authenticated.
    Pam,
    /// Kernel tunables and modules.
    Kernel,
    /// What a web server serves and runs.
    WebRoot,
    /// Logs and shells' histories.
    Logs,
    /// The agent's own.
    Agent,
    /// Named by the config.
    Watched,
}

impl Class {
    /// As in events.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Credentials => "credentials",
            Self::Cron => "cron",
            Self::Systemd => "systemd",
            Self::SshKeys => "ssh_keys",
            Self::ShellProfile => "shell_profile",
            Self::Preload => "preload",
            Self::Sudoers => "sudoers",
            Self::Pam => "pam",
            Self::Kernel => "kernel",
            Self::WebRoot => "web_root",
            Self::Logs => "logs",
            Self::Agent => "agent",
            Self::Watched => "watched",
        }
    }
}

/// What is told of a file. Names (create, rename, delete) and attributes always are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Tell {
    /// Reads and writes.
    Reads,
    /// Writes.
    #[default]
    Writes,
    /// That a writer has closed it: for files that somebody writes all day.
    Closes,
    /// That it became shorter, or was overwritten in place: logs grow all day.
    Cuts,
}

/// `[sensor.files]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Files {
    /// Watch the list at all.
    pub enabled: bool,
    /// More rows.
    pub add: Vec<Addition>,
    /// Rows of the shipped list (as written there), or whole classes, that are not wanted.
    #[serde(deserialize_with = "shipped")]
    pub remove: Vec<String>,
}

impl Default for Files {
    fn default() -> Self {
        Self { enabled: true, add: Vec::new(), remove: Vec::new() }
    }
}

/// One row that the config adds.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Addition {
    /// `class` of its events.
    #[serde(default = "watched")]
    pub class: Class,
    /// The pattern.
    #[serde(deserialize_with = "pattern")]
    pub path: String,
    /// What is told.
    #[serde(default)]
    pub tell: Tell,
}

const fn watched() -> Class {
    Class::Watched
}

/// The shipped list.
#[rustfmt::skip]
pub const SHIPPED: &[(Class, Tell, &[&str])] = &[
    (Class::Credentials, Tell::Reads, &[
        "/etc/shadow", "/etc/shadow-", "/etc/gshadow", "/etc/gshadow-", "/etc/security/opasswd",
        "/etc/ssh/*_key", "/etc/krb5.keytab", "/etc/ppp/*-secrets", "/etc/ipsec.secrets",
        "/etc/kubernetes/*.conf", "/etc/kubernetes/pki/*.key",
        "~/.ssh/id_*", "~/.aws/credentials", "~/.azure/msal_token_cache.*",
        "~/.azure/accessTokens.json", "~/.config/gcloud/credentials.db",
        "~/.config/gcloud/access_tokens.db",
        "~/.config/gcloud/application_default_credentials.json", "~/.kube/config",
        "~/.docker/config.json", "~/.git-credentials", "~/.netrc", "~/.pgpass", "~/.my.cnf",
    ]),
    (Class::Credentials, Tell::Writes, &["/etc/passwd", "/etc/group"]),
    (Class::Cron, Tell::Writes, &[
        "/etc/crontab", "/etc/anacrontab", "/etc/cron.*/*", "/etc/cron.allow", "/etc/cron.deny",
        "/etc/at.allow", "/etc/at.deny", "/var/spool/cron/*", "/var/spool/cron/*/*",
    ]),
    (Class::Systemd, Tell::Writes, &[
        "/etc/systemd/**", "/usr/lib/systemd/system/**", "/lib/systemd/system/**",
        "/usr/local/lib/systemd/system/**", "/run/systemd/system/**",
        "/usr/lib/systemd/user/**", "/usr/lib/systemd/system-generators/*",
        "/etc/init.d/*", "/etc/rc.local", "/etc/xdg/autostart/*",
        "~/.config/systemd/user/**", "~/.local/share/systemd/user/**", "~/.config/autostart/*",
    ]),
    (Class::SshKeys, Tell::Writes, &[
        "~/.ssh/authorized_keys", "~/.ssh/authorized_keys2", "~/.ssh/rc", "~/.ssh/environment",
        "/etc/ssh/sshd_config", "/etc/ssh/sshd_config.d/*", "/etc/ssh/authorized_keys/*",
    ]),
    (Class::ShellProfile, Tell::Writes, &[
        "/etc/profile", "/etc/profile.d/*", "/etc/bash.bashrc", "/etc/bashrc", "/etc/zsh/*",
        "/etc/environment", "~/.bashrc", "~/.bash_profile", "~/.bash_login", "~/.bash_logout",
        "~/.profile", "~/.zshrc", "~/.zshenv", "~/.zprofile", "~/.zlogin",
        "~/.config/fish/config.fish",
    ]),
    (Class::Preload, Tell::Writes, &[
        "/etc/ld.so.preload", "/etc/ld.so.conf", "/etc/ld.so.conf.d/*",
    ]),
    (Class::Sudoers, Tell::Writes, &[
        "/etc/sudoers", "/etc/sudoers.d/*", "/etc/doas.conf", "/etc/polkit-1/rules.d/*",
    ]),
    (Class::Pam, Tell::Writes, &[
        "/etc/pam.conf", "/etc/pam.d/*", "/etc/security/*.conf", "/etc/nsswitch.conf",
        "/usr/lib/{x86_64,aarch64}-linux-gnu/security/*", "/usr/lib64/security/*",
        "/usr/lib/security/*",
    ]),
    (Class::Kernel, Tell::Writes, &[
        "/etc/sysctl.conf", "/etc/sysctl.d/*", "/etc/modules", "/etc/modules-load.d/*",
        "/usr/lib/modules-load.d/*", "/etc/modprobe.d/*", "/etc/udev/rules.d/*",
        "/etc/default/grub",
    ]),
    (Class::WebRoot, Tell::Writes, &[
        "/var/www/**", "/srv/www/**", "/srv/http/**", "/usr/share/nginx/html/**",
        "/usr/local/apache2/htdocs/**",
    ]),
    (Class::Logs, Tell::Cuts, &[
        "/var/log/**", "/run/utmp", "~/.bash_history", "~/.zsh_history",
    ]),
];

/// One pattern, ready to be walked.
#[derive(Debug, Clone)]
pub(super) struct Rule {
    pub(super) class: Class,
    pub(super) tell: Tell,
    parts: Vec<Part>,
}

/// One component.
#[derive(Debug, Clone)]
pub(super) enum Part {
    Name(Vec<u8>),
    Glob(GlobMatcher),
    /// `**`
    Below,
}

/// What a name in a folder is to a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fit {
    /// Nothing.
    No,
    /// A listed file, when it is one.
    Last,
    /// A folder on the way.
    Way,
    /// Either.
    Both,
}

impl Rule {
    /// `None` for a pattern that [`check`] refuses.
    pub(super) fn new(class: Class, tell: Tell, pattern: &str) -> Option<Self> {
        let parts: Vec<Part> =
            pattern.split('/').filter(|part| !part.is_empty()).map(part).collect::<Option<_>>()?;
        let below = parts.iter().position(|part| matches!(part, Part::Below));
        let sound = pattern.starts_with('/')
            && !parts.is_empty()
            && below.is_none_or(|at| at + 1 == parts.len());
        sound.then_some(Self { class, tell, parts })
    }

    /// What a name is in a folder that `at` components lead to.
    pub(super) fn fit(&self, at: usize, name: &[u8]) -> Fit {
        let last = at + 1 == self.parts.len();
        let fits = match self.parts.get(at) {
            None => false,
            Some(Part::Below) => return Fit::Both,
            Some(Part::Name(own)) => own == name,
            Some(Part::Glob(glob)) => glob.is_match(Path::new(OsStr::from_bytes(name))),
        };
        match (fits, last) {
            (false, _) => Fit::No,
            (true, true) => Fit::Last,
            (true, false) => Fit::Way,
        }
    }

    /// Where a folder that fits leads to.
    pub(super) fn next(&self, at: usize) -> usize {
        if matches!(self.parts.get(at), Some(Part::Below)) { at } else { at + 1 }
    }

    pub(super) fn part(&self, at: usize) -> Option<&Part> {
        self.parts.get(at)
    }

    /// True when listed files may lie directly in a folder that `at` components lead to.
    pub(super) fn ends_in(&self, at: usize) -> bool {
        at + 1 == self.parts.len()
    }
}

fn part(text: &str) -> Option<Part> {
    if text == "**" {
        return Some(Part::Below);
    }
    if !text.contains(['*', '?', '[', '{']) {
        return (text != "." && text != "..").then(|| Part::Name(text.as_bytes().to_vec()));
    }
    let glob = GlobBuilder::new(text).literal_separator(true).backslash_escape(true).build();
    glob.ok().map(|glob| Part::Glob(glob.compile_matcher()))
}

/// All rules: the shipped ones that are not removed, the added ones, and the agent's own files.
pub(super) fn rules(files: &Files, homes: &[PathBuf], own: &[String]) -> Vec<Rule> {
    let removed = |class: Class, pattern: &str| {
        files.remove.iter().any(|removed| removed == pattern || removed == class.name())
    };
    let mut rules = Vec::new();
    let mut add = |class, tell, pattern: &str| match pattern.strip_prefix('~') {
        None => rules.extend(Rule::new(class, tell, pattern)),
        Some(rest) => {
            for home in ["/root", "/home/*"]
                .map(Path::new)
                .into_iter()
                .chain(homes.iter().map(PathBuf::as_path))
            {
                // A home whose name is not text is left to the config.
                let home = home.to_str().unwrap_or_default();
                rules.extend(Rule::new(class, tell, &format!("{home}{rest}")));
            }
        }
    };
    // The agent's own come first: a folder of logs may hold them.
    for pattern in own {
        add(Class::Agent, Tell::Closes, pattern);
    }
    for addition in &files.add {
        add(addition.class, addition.tell, &addition.path);
    }
    for (class, tell, patterns) in SHIPPED {
        for pattern in patterns.iter().filter(|pattern| !removed(*class, pattern)) {
            add(*class, *tell, pattern);
        }
    }
    rules
}

/// Homes of users who can sign in and that `/root` and `/home/*` do not cover, from the text of
/// `/etc/passwd`. At most [`MOST_HOMES`].
pub(super) fn homes(passwd: &[u8]) -> Vec<PathBuf> {
    let mut homes = Vec::new();
    for line in passwd.split(|byte| *byte == b'\n') {
        let fields: Vec<&[u8]> = line.split(|byte| *byte == b':').collect();
        let [_, _, _, _, _, home, shell] = fields.as_slice() else { continue };
        let home = Path::new(OsStr::from_bytes(home));
        let nobody = shell.ends_with(b"/nologin") || shell.ends_with(b"/false");
        let covered = home == Path::new("/root") || home.parent() == Some(Path::new("/home"));
        let plain = home.to_str().is_some_and(|text| !text.contains(['*', '?', '[', '{', '\\']));
        if home.is_absolute()
            && home.parent().is_some()
            && plain
            && !nobody
            && !covered
            && homes.len() < MOST_HOMES
            && !homes.iter().any(|known| known == home)
        {
            homes.push(home.to_owned());
        }
    }
    homes
}

/// Users' homes outside of `/home` that are watched.
pub(super) const MOST_HOMES: usize = 64;

/// # Errors
/// Why it is no pattern, in words.
fn check(pattern: &str) -> Result<(), String> {
    let absolute = match pattern.strip_prefix('~') {
        Some(rest) if rest.starts_with('/') => rest.to_owned(),
        _ => pattern.to_owned(),
    };
    match Rule::new(Class::Watched, Tell::Writes, &absolute) {
        Some(_) => Ok(()),
        None => Err(format!(
            "{pattern:?} is not a pattern: an absolute path, or one that begins with ~/, whose \
             components may be globs and whose last one may be **"
        )),
    }
}

fn pattern<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let pattern = String::deserialize(deserializer)?;
    check(&pattern).map_err(serde::de::Error::custom)?;
    Ok(pattern)
}

/// Only what is there can be removed: a typing error must not pass for a removal.
fn shipped<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    let removed = Vec::<String>::deserialize(deserializer)?;
    let known = |word: &str| {
        SHIPPED.iter().any(|(class, _, patterns)| class.name() == word || patterns.contains(&word))
    };
    match removed.iter().find(|word| !known(word)) {
        None => Ok(removed),
        Some(word) => Err(serde::de::Error::custom(format!(
            "{word:?} is neither a class nor a row of the shipped list of files"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shipped_row_is_a_pattern() {
        for (_, _, patterns) in SHIPPED {
            for pattern in *patterns {
                assert_eq!(check(pattern), Ok(()));
            }
        }
    }

    #[test]
    fn a_rule_knows_its_way_and_its_end() {
        let rule = Rule::new(Class::Cron, Tell::Writes, "/etc/cron.*/*").expect("rule");
        assert_eq!(rule.fit(0, b"etc"), Fit::Way);
        assert_eq!(rule.fit(1, b"cron.d"), Fit::Way);
        assert_eq!(rule.fit(1, b"crontab"), Fit::No);
        assert_eq!(rule.fit(2, b".hidden"), Fit::Last);
        assert!(rule.ends_in(2) && !rule.ends_in(1));
        let below = Rule::new(Class::WebRoot, Tell::Writes, "/var/www/**").expect("rule");
        assert_eq!((below.fit(2, b"x"), below.next(2)), (Fit::Both, 2));
    }

    #[test]
    fn what_is_no_pattern_is_refused() {
        for bad in ["etc/x", "", "/", "/a/**/b", "/a/../b", "/a/[", "~x/y", "~"] {
            assert!(check(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn homes_come_from_those_who_can_sign_in() {
        let passwd = b"root:x:0:0:r:/root:/bin/bash\nu:x:1000:1000::/home/u:/bin/sh\n\
            pg:x:5:5::/var/lib/postgresql:/bin/bash\nwww:x:33:33::/var/www:/usr/sbin/nologin\n\
            odd:x:1:1::/a*b:/bin/sh\nslash:x:1:1::/:/bin/sh\nbroken\n";
        assert_eq!(homes(passwd), [PathBuf::from("/var/lib/postgresql")]);
    }

    #[test]
    fn rows_are_added_and_removed_by_name_and_by_class() {
        let text = "remove = [\"/etc/shadow\", \"logs\"]\n[[add]]\npath = \"/srv/keys/*\"\n\
            class = \"credentials\"\ntell = \"reads\"\n";
        let files: Files = toml::from_str(text).expect("config");
        let rules = rules(&files, &[], &["/opt/holdfast/*".to_owned()]);
        let fits = |path: &[&str]| {
            rules.iter().any(|rule| {
                let (last, way) = path.split_last().expect("path");
                way.iter().enumerate().all(|(at, name)| rule.fit(at, name.as_bytes()) == Fit::Way)
                    && rule.fit(way.len(), last.as_bytes()) == Fit::Last
            })
        };
        assert!(fits(&["srv", "keys", "a"]) && fits(&["etc", "gshadow"]));
        assert!(fits(&["opt", "holdfast", "holdfastd"]));
        assert!(fits(&["home", "u", ".ssh", "authorized_keys"]));
        assert!(!fits(&["etc", "shadow"]) && rules.iter().all(|rule| rule.class != Class::Logs));
        assert!(toml::from_str::<Files>("remove = [\"/etc/shadw\"]").is_err());
        assert!(toml::from_str::<Files>("[[add]]\npath = \"relative\"").is_err());
    }
}
