//! A policy laid over the host's own config, key by key. Pure.

use holdfast_common::policy::{Document, Table};
use holdfast_common::ruled::{MOST, PolicySetting};
use holdfast_common::verdict::Decision;

use crate::config::{ByteSize, Config, Protect, ScheduleEntry};

/// What comes of it.
pub(super) struct Overlaid {
    /// What is in force.
    pub(super) config: Config,
    /// Keys that the policy set.
    pub(super) ruled: Vec<String>,
    /// Keys of it that the host keeps.
    pub(super) kept: Vec<String>,
}

impl Overlaid {
    /// `local` alone.
    pub(super) fn none(local: &Config) -> Self {
        Self { config: local.clone(), ruled: Vec::new(), kept: Vec::new() }
    }

    /// The policy over `local`, but for the tables that it keeps.
    pub(super) fn new(local: &Config, document: Document) -> Self {
        let mut new = Self::none(local);
        let Document { on_access, scan, quarantine, models, isolation, shell } = document;
        let table = Table::OnAccess;
        new.set(table, "protect", on_access.protect, |c, v| c.on_access.protect = v);
        new.set(table, "mode", on_access.mode, |c, v| c.on_access.mode = v);
        new.set(table, "deadline_ms", on_access.deadline, |c, v| c.on_access.deadline = v);
        new.set(table, "max_file_size", on_access.max_file_size, |c, v| {
            c.on_access.max_file_size = v;
        });
        new.set(table, "strict", on_access.strict, |c, v| c.on_access.strict = v);
        for (reason, decision) in on_access.failure {
            let key = format!("failure.{}", reason.name());
            new.set(table, &key, Some(decision), |c, v| {
                c.on_access.failure.insert(reason, v);
            });
        }
        let exclude = on_access.exclude;
        new.set(table, "exclude.paths", exclude.paths, |c, v| c.on_access.exclude.paths = v);
        new.set(table, "exclude.hashes", exclude.hashes, |c, v| c.on_access.exclude.hashes = v);
        new.set(table, "exclude.processes", exclude.processes, |c, v| {
            c.on_access.exclude.processes = v;
        });
        let table = Table::Scan;
        new.set(table, "rescan_limit_s", scan.rescan_limit_s, |c, v| c.scan.rescan_limit_s = v);
        new.set(table, "cpu_share", scan.cpu_share, |c, v| c.scan.cpu_share = v);
        new.set(table, "quick", scan.quick, |c, v| c.scan.quick = v);
        new.set(table, "full", scan.full, |c, v| c.scan.full = v);
        new.set(table, "schedule", scan.schedule, |c, v| {
            c.scan.schedule = v;
            c.scan.schedule_by_policy = true;
        });
        new.set(Table::Quarantine, "max_size", quarantine.max_size, |c, v| {
            c.quarantine.max_size = v;
        });
        for (model, responses) in models.response {
            let key = format!("response.{model:?}");
            new.set(Table::Models, &key, Some(responses), |c, v| {
                c.models.response.insert(model, v);
            });
        }
        new.set(Table::Models, "off", models.off, |c, v| c.models.off = v);
        new.set(Table::Isolation, "allow", isolation.allow, |c, v| c.isolation.allow = v);
        new.set(Table::Isolation, "dhcp", isolation.dhcp, |c, v| c.isolation.dhcp = Some(v));
        let own = &local.shell;
        new.narrow(Table::Shell, "mode", shell.mode, own.mode, |c, v| c.shell.mode = v);
        new.narrow(Table::Shell, "idle_s", shell.idle, own.idle, |c, v| c.shell.idle = v);
        new.narrow(Table::Shell, "longest_s", shell.longest, own.longest, |c, v| {
            c.shell.longest = v;
        });
        new
    }

    fn set<T>(
        &mut self,
        table: Table,
        key: &str,
        value: Option<T>,
        put: impl FnOnce(&mut Config, T),
    ) {
        let Some(value) = value else { return };
        let key = format!("{}.{key}", table.name());
        if self.config.policy.keep.contains(&table) {
            self.kept.push(key);
        } else {
            put(&mut self.config, value);
            self.ruled.push(key);
        }
    }

    /// Of what the host's own config forbids the host keeps all, whatever the policy says.
    fn narrow<T: Ord>(
        &mut self,
        table: Table,
        key: &str,
        value: Option<T>,
        own: T,
        put: impl FnOnce(&mut Config, T),
    ) {
        match value {
            Some(wider) if wider > own => self.kept.push(format!("{}.{key}", table.name())),
            value => self.set(table, key, value, put),
        }
    }

    /// What can be ruled, as it is in force.
    pub(super) fn settings(&self) -> Vec<PolicySetting> {
        let config = &self.config;
        let (on_access, scan) = (&config.on_access, &config.scan);
        let count = |count: usize, what: &str| format!("{count} {what}");
        let paths = |paths: &[std::path::PathBuf]| {
            let shown = paths.iter().map(|path| path.display().to_string());
            shown.collect::<Vec<_>>().join(", ")
        };
        let bytes = |size: ByteSize| format!("{} bytes", size.0);
        let mut rows = vec![
            (
                "on_access.protect".to_owned(),
                match &on_access.protect {
                    Protect::All => "all".to_owned(),
                    Protect::Paths(list) => paths(list),
                },
            ),
            ("on_access.mode".to_owned(), on_access.mode.name().to_owned()),
            ("on_access.deadline_ms".to_owned(), on_access.deadline.as_millis().to_string()),
            ("on_access.max_file_size".to_owned(), bytes(on_access.max_file_size)),
            ("on_access.strict".to_owned(), on_access.strict.to_string()),
            ("on_access.exclude.paths".to_owned(), count(on_access.exclude.paths.len(), "globs")),
            (
                "on_access.exclude.processes".to_owned(),
                count(on_access.exclude.processes.len(), "globs"),
            ),
            (
                "on_access.exclude.hashes".to_owned(),
                count(on_access.exclude.hashes.len(), "hashes"),
            ),
            ("scan.rescan_limit_s".to_owned(), scan.rescan_limit_s.to_string()),
            ("scan.cpu_share".to_owned(), scan.cpu_share.to_string()),
            ("scan.quick".to_owned(), paths(&scan.quick)),
            ("scan.full".to_owned(), paths(&scan.full)),
            ("scan.schedule".to_owned(), {
                let names = scan.schedule.iter().map(|ScheduleEntry(one)| one.name.clone());
                names.collect::<Vec<_>>().join(", ")
            }),
            ("quarantine.max_size".to_owned(), bytes(config.quarantine.max_size)),
            ("models.off".to_owned(), config.models.off.join(", ")),
            ("isolation.allow".to_owned(), config.isolation.allow.join(", ")),
            (
                "isolation.dhcp".to_owned(),
                match &config.isolation.dhcp {
                    None => "the leases'".to_owned(),
                    Some(list) => {
                        list.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
                    }
                },
            ),
        ];
        let shell = &config.shell;
        rows.extend([
            ("shell.mode".to_owned(), shell.mode.name().to_owned()),
            ("shell.idle_s".to_owned(), shell.idle.as_secs().to_string()),
            ("shell.longest_s".to_owned(), shell.longest.as_secs().to_string()),
        ]);
        for (reason, decision) in &on_access.failure {
            let key = format!("on_access.failure.{}", reason.name());
            let word = if *decision == Decision::Deny { "deny" } else { "allow" };
            rows.push((key, word.to_owned()));
        }
        for (model, responses) in config.models.response.iter().take(MOST) {
            let words: Vec<&str> = responses.0.iter().map(|one| one.name()).collect();
            rows.push((format!("models.response.{model:?}"), words.join(", ")));
        }
        let row = |(key, value): (String, String)| PolicySetting {
            by_policy: self.ruled.contains(&key),
            key,
            value,
        };
        rows.into_iter().map(row).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Mode, ShellMode};

    fn local(more: &str) -> Config {
        let text = format!(
            "state_dir = \"/s\"\nsocket = \"/r\"\n[on_access]\nprotect = [\"/srv\"]\n\
             mode = \"block\"\nstrict = true\n[on_access.failure]\ntoo_large = \"allow\"\n{more}"
        );
        toml::from_str(&text).expect("config")
    }

    fn document(text: &str) -> Document {
        Document::parse(text.as_bytes()).expect("policy")
    }

    #[test]
    fn a_policy_goes_over_the_config_key_by_key() {
        let policy = document(
            "[on_access]\nmode = \"detect\"\n[on_access.failure]\nunreadable = \"deny\"\n\
             [quarantine]\nmax_size = 5",
        );
        let Overlaid { config, ruled, kept } = Overlaid::new(&local(""), policy);
        assert_eq!(config.on_access.mode, Mode::Detect);
        assert!(config.on_access.strict, "not named: as it was");
        assert_eq!(config.on_access.failure.len(), 2, "rows of both");
        assert_eq!(config.quarantine.max_size, ByteSize(5));
        assert_eq!(
            ruled,
            ["on_access.mode", "on_access.failure.unreadable", "quarantine.max_size"]
        );
        assert!(kept.is_empty());
    }

    #[test]
    fn a_policy_narrows_what_shells_may_be_and_never_widens_it() {
        let of = |config: &str, policy: &str| {
            let new = Overlaid::new(&local(config), document(policy));
            (new.config.shell.mode, new.config.shell.idle.as_secs(), new.ruled, new.kept)
        };
        let (mode, idle, ruled, kept) =
            of("[shell]\nmode = \"full\"", "[shell]\nmode = \"off\"\nidle_s = 60");
        assert_eq!((mode, idle), (ShellMode::Off, 60));
        assert_eq!(
            (ruled, kept),
            (vec!["shell.mode".to_owned(), "shell.idle_s".to_owned()], vec![])
        );
        // What the config leaves to its default it forbids, too.
        for config in ["", "[shell]\nmode = \"restricted\"\nidle_s = 600"] {
            let (mode, idle, ruled, kept) =
                of(config, "[shell]\nmode = \"full\"\nidle_s = 601\nlongest_s = 86400");
            assert_eq!((mode, idle), (ShellMode::Restricted, 600), "{config}");
            assert_eq!(ruled, [""; 0]);
            assert_eq!(kept, ["shell.mode", "shell.idle_s", "shell.longest_s"]);
        }
        let kept = "[shell]\nmode = \"full\"\n[policy]\nkeep = [\"shell\"]";
        assert_eq!(of(kept, "[shell]\nmode = \"off\"").0, ShellMode::Full);
    }

    #[test]
    fn tables_that_the_host_keeps_stay() {
        let policy = document("[on_access]\nmode = \"detect\"\n[scan]\ncpu_share = 5");
        let new = Overlaid::new(&local("[policy]\nkeep = [\"on_access\"]"), policy);
        assert_eq!(new.config.on_access.mode, Mode::Block);
        assert_eq!(new.config.scan.cpu_share, 5);
        assert_eq!(
            (new.ruled.as_slice(), new.kept.as_slice()),
            (&["scan.cpu_share".to_owned()][..], &["on_access.mode".to_owned()][..],)
        );
        let shown = new.settings();
        let of = |key: &str| shown.iter().find(|row| row.key == key).expect("a row");
        assert!(of("scan.cpu_share").by_policy && !of("on_access.mode").by_policy);
        assert_eq!(of("on_access.mode").value, "block");
    }
}
