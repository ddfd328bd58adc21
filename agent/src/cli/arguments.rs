//! The command line of `holdfast`. Says what can be asked, and does nothing.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

/// Holdfast holds every file open on this host until it is known to be clean.
#[derive(Debug, Parser)]
#[command(name = "holdfast", version, max_term_width = 100)]
#[command(after_help = "Exit codes: 0 fine, 1 failed (scan: malicious files found), \
2 scan error, 64 wrong usage, 78 wrong key or container.")]
pub(super) struct Arguments {
    /// The agent's control socket.
    #[arg(long, global = true, value_name = "PATH", env = "HOLDFAST_SOCKET")]
    #[arg(default_value = "/run/holdfast/holdfast.sock")]
    pub(super) socket: PathBuf,
    /// Print JSON, one object a line.
    #[arg(long, global = true)]
    pub(super) json: bool,
    #[command(subcommand)]
    pub(super) command: Command,
}

#[derive(Debug, Subcommand)]
pub(super) enum Deny {
    /// What is denied by order, also by the manager's.
    #[command(after_help = "Example:\n  sudo holdfast deny list")]
    List,
    /// Deny content by its SHA-256, and quarantine it wherever it is opened.
    #[command(after_help = "Example:\n  sudo holdfast deny hash 275a02… --reason 'ticket 4711'")]
    Hash {
        /// In hex.
        sha256: String,
        /// Why.
        #[arg(long)]
        reason: String,
        /// Until it ends by itself: 45s, 30m, 2h, 3d.
        #[arg(long = "for", value_name = "TIME")]
        limit: Option<String>,
    },
    /// Deny what lies at a path, whatever its content.
    #[command(
        after_help = "Examples:\n  sudo holdfast deny path /usr/bin/nc --reason 'ticket 4711'\n  \
sudo holdfast deny path '/tmp/**' --reason 'ticket 4711' --for 2h"
    )]
    Path {
        /// Absolute; * stays in one folder, ** does not.
        path: String,
        /// Why.
        #[arg(long)]
        reason: String,
        /// Until it ends by itself: 45s, 30m, 2h, 3d.
        #[arg(long = "for", value_name = "TIME")]
        limit: Option<String>,
    },
    /// Deny a hash or path no more that this host alone denies.
    #[command(after_help = "Example:\n  sudo holdfast deny remove /usr/bin/nc")]
    Remove {
        /// As it was denied.
        value: String,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Whether this host is protected, and the agent's numbers.
    #[command(after_help = "Examples:\n  holdfast status\n  holdfast status --json | jq .problems")]
    Status,
    /// The agent's numbers in the Prometheus text format.
    #[command(
        after_help = "Example:\n  holdfast metrics > /var/lib/node_exporter/textfile/holdfast.prom"
    )]
    Metrics,
    /// Check what protection needs on this host, and say what to do.
    #[command(
        after_help = "Examples:\n  sudo holdfast doctor\n  holdfast doctor --json | jq 'select(.ok | not)'"
    )]
    Doctor,
    /// Scan now, or again and again. Exits 0 clean, 1 found, 2 error.
    #[command(after_help = "Examples:\n  sudo holdfast scan /srv/incoming\n  \
holdfast scan --json . > found.jsonl\n  sudo holdfast scan --full --background\n  \
sudo holdfast scan --full --schedule 'every 3 days at 01:00' --jitter 30m --catch-up\n  \
sudo holdfast scan /srv --schedule '0 1 */3 * *' --name srv")]
    Scan(Scan),
    /// Scans that were, that run, and that come again [default: list]
    Scans(Scans),
    /// What happened, oldest first.
    #[command(after_help = "Examples:\n  holdfast events --since 24h --kind malware\n  \
holdfast events --since 2026-11-22T08:00:00+01:00\n  holdfast events --follow --json")]
    Events(Events),
    /// Files in quarantine.
    #[command(subcommand)]
    Quarantine(Quarantine),
    /// Detection models.
    #[command(subcommand)]
    Models(Models),
    /// Harmless simulations that prove the detection models.
    #[command(subcommand)]
    Simulate(Simulate),
    /// The rule bundle.
    #[command(subcommand)]
    Bundle(Bundle),
    /// Which policy of the manager's runs here, and which settings are in force.
    #[command(after_help = "Examples:\n  sudo holdfast policy\n  sudo holdfast policy --document")]
    Policy {
        /// Print the document that runs.
        #[arg(long)]
        document: bool,
    },
    /// Deny content or a path on this host, and show what is denied by order.
    #[command(subcommand)]
    Deny(Deny),
    /// Cut this host off from the network, but for its management endpoints.
    #[command(after_help = "Examples:\n  sudo holdfast isolate --reason 'ticket 4711'\n  \
sudo holdfast isolate --for 2h")]
    Isolate(Isolate),
    /// Let an isolated host go.
    #[command(after_help = "Examples:\n  sudo holdfast release\n  \
sudo holdfast release --without-agent   # no agent is running")]
    Release(Release),
    /// The isolation of this host.
    #[command(subcommand)]
    Isolation(Isolation),
    /// Enroll this host with a manager.
    #[command(
        after_help = "Examples:\n  sudo holdfast enroll --manager https://manager.example:8442 \
--token - --ca-fingerprint 4f2a…\n  sudo holdfast enroll --manager https://manager.example:8442 \
--token hf-… --ca-fingerprint 4f2a… --proxy http://user:password@proxy.example:3128"
    )]
    Enroll(Enroll),
}

#[derive(Debug, Args)]
pub(super) struct Scan {
    /// Files and folders.
    #[arg(value_name = "PATH", required_unless_present_any = ["quick", "full"])]
    #[arg(conflicts_with_all = ["quick", "full"])]
    pub(super) paths: Vec<PathBuf>,
    /// What runs, what starts by itself, and where downloads land.
    #[arg(long, conflicts_with = "full")]
    pub(super) quick: bool,
    /// Every local file system.
    #[arg(long)]
    pub(super) full: bool,
    /// Do not wait for it: it runs idle, and `holdfast scans` shows it.
    #[arg(long)]
    pub(super) background: bool,
    /// What it may take of one core [default: 100; in the background as in the config]
    #[arg(long, value_name = "PERCENT", value_parser = clap::value_parser!(u8).range(1..=100))]
    pub(super) cpu_share: Option<u8>,
    /// Not now, but then: a cron expression, or 'every 3 days at 01:00'.
    #[arg(long, value_name = "WHEN", conflicts_with = "background")]
    pub(super) schedule: Option<String>,
    /// The schedule's name [default: quick, full or paths]
    #[arg(long, requires = "schedule")]
    pub(super) name: Option<String>,
    /// Put each run off by up to this, by chance: 90s, 30m, 2h.
    #[arg(long, value_name = "TIME", requires = "schedule")]
    pub(super) jitter: Option<String>,
    /// After a downtime, do once what was missed.
    #[arg(long, requires = "schedule")]
    pub(super) catch_up: bool,
    /// Whose clock: local, UTC, or a name such as Europe/Berlin.
    #[arg(long, requires = "schedule", default_value = "local")]
    pub(super) timezone: String,
}

#[derive(Debug, Args)]
pub(super) struct Scans {
    #[command(subcommand)]
    pub(super) command: Option<ScansCommand>,
}

#[derive(Debug, Subcommand)]
pub(super) enum ScansCommand {
    /// The newest first.
    #[command(after_help = "Example:\n  holdfast scans list --limit 5")]
    List {
        /// At most this many; 0 for all.
        #[arg(long, value_name = "N", default_value_t = 20)]
        limit: u64,
    },
    /// What was scanned, found, left out and why.
    #[command(after_help = "Example:\n  holdfast scans show 0197a2")]
    Show {
        /// The scan, or the beginning of its id.
        id: String,
    },
    /// Let a scan wait, in the middle of a file too.
    #[command(after_help = "Example:\n  holdfast scans pause 0197a2")]
    Pause {
        /// The scan, or the beginning of its id.
        id: String,
    },
    /// Let it go on.
    #[command(after_help = "Example:\n  holdfast scans resume 0197a2")]
    Resume {
        /// The scan, or the beginning of its id.
        id: String,
    },
    /// End it. What it found stays found.
    #[command(after_help = "Example:\n  holdfast scans cancel 0197a2")]
    Cancel {
        /// The scan, or the beginning of its id.
        id: String,
    },
    /// Scans that come again.
    #[command(subcommand)]
    Schedules(Schedules),
}

#[derive(Debug, Subcommand)]
pub(super) enum Schedules {
    /// All, with when they are due.
    #[command(after_help = "Example:\n  holdfast scans schedules list")]
    List,
    /// Forget one that was added with `holdfast scan --schedule`.
    #[command(after_help = "Example:\n  holdfast scans schedules delete srv")]
    Delete {
        /// Its name.
        name: String,
    },
}

#[derive(Debug, Args)]
pub(super) struct Enroll {
    /// The manager: https://host[:port].
    #[arg(long, value_name = "URL")]
    pub(super) manager: String,
    /// The token that the manager gave out; - reads it from standard input.
    #[arg(long, env = "HOLDFAST_TOKEN", hide_env_values = true)]
    pub(super) token: String,
    /// SHA-256 of the manager's authority, in hex, as the manager shows it.
    #[arg(long, value_name = "HEX")]
    pub(super) ca_fingerprint: String,
    /// The HTTP proxy on the way: http://[user:password@]host:port.
    #[arg(long, value_name = "URL", env = "HOLDFAST_PROXY", hide_env_values = true)]
    pub(super) proxy: Option<String>,
    /// The agent's config, for a host where no agent runs yet.
    #[arg(long, value_name = "FILE", default_value = "/etc/holdfast/holdfast.toml")]
    pub(super) config: PathBuf,
}

#[derive(Debug, Args)]
pub(super) struct Isolate {
    /// Release by itself after this: 45s, 30m, 2h, 3d.
    #[arg(long = "for", value_name = "TIME")]
    pub(super) limit: Option<String>,
    /// Why; it stands in the journal.
    #[arg(long, default_value = "by root on this host")]
    pub(super) reason: String,
}

#[derive(Debug, Args)]
pub(super) struct Release {
    /// Why; it stands in the journal.
    #[arg(long, default_value = "by root on this host")]
    pub(super) reason: String,
    /// Take everything down directly; refused while an agent runs.
    #[arg(long)]
    pub(super) without_agent: bool,
    /// The agent's config, for --without-agent.
    #[arg(long, value_name = "FILE", default_value = "/etc/holdfast/holdfast.toml")]
    pub(super) config: PathBuf,
}

#[derive(Debug, Subcommand)]
pub(super) enum Isolation {
    /// Whether the host is cut off, by which layers, and what was dropped and let through.
    #[command(after_help = "Examples:\n  holdfast isolation status\n  \
holdfast isolation status --json | jq .layers")]
    Status,
    /// Cut off again what was cut off before a reboot; needs no agent (for the boot unit).
    #[command(after_help = "Example:\n  holdfast isolation restore --stay")]
    Restore {
        /// The agent's config.
        #[arg(long, value_name = "FILE", default_value = "/etc/holdfast/holdfast.toml")]
        config: PathBuf,
        /// Look after new interfaces until an agent takes over.
        #[arg(long)]
        stay: bool,
    },
}

#[derive(Debug, Args)]
pub(super) struct Events {
    /// Stay, and print what happens.
    #[arg(long, short)]
    pub(super) follow: bool,
    /// Only from then on: a span back from now (30m, 2h, 3d), or an RFC 3339 time.
    #[arg(long, value_name = "T")]
    pub(super) since: Option<String>,
    /// Only this kind: malware, model, failure, quarantine, scan, exec, packet_socket, agent_started,
    /// agent_stopped, protection_gap, bundle, coverage, isolation, loss.
    #[arg(long, value_name = "KIND")]
    pub(super) kind: Option<String>,
    /// At most this many, the newest; 0 for no limit [default: 0; 10 before --follow]
    #[arg(long, value_name = "N")]
    pub(super) limit: Option<u64>,
}

#[derive(Debug, Subcommand)]
pub(super) enum Quarantine {
    /// All items, newest first.
    #[command(after_help = "Example:\n  holdfast quarantine list")]
    List,
    /// Everything that is known of an item.
    #[command(after_help = "Example:\n  holdfast quarantine show 0197a2")]
    Show {
        /// The item, or the beginning of its id.
        id: String,
    },
    /// Put a file back where it was, as it was. Never overwrites.
    #[command(after_help = "Examples:\n  holdfast quarantine restore 0197a2 --to /root/sample\n  \
holdfast quarantine restore 0197a2 --allow\n  \
holdfast quarantine restore 0197a2 --allow --for 2h")]
    Restore {
        /// The item, or the beginning of its id.
        id: String,
        /// Allow this content from now on; without it the file is detected again.
        #[arg(long)]
        allow: bool,
        /// Allow it no longer than this (90s, 10m, 2h, 1d).
        #[arg(long = "for", value_name = "TIME", requires = "allow")]
        limit: Option<String>,
        /// Put it here instead.
        #[arg(long, value_name = "PATH")]
        to: Option<PathBuf>,
    },
    /// Destroy an item for good.
    #[command(after_help = "Example:\n  holdfast quarantine delete 0197a2 --yes")]
    Delete {
        /// The item, or the beginning of its id.
        id: String,
        /// Do not ask.
        #[arg(long)]
        yes: bool,
    },
    /// Copy an item out as an AES-256 encrypted zip (7-Zip and bsdtar open it).
    #[command(after_help = "Example:\n  holdfast quarantine export 0197a2 --output sample.zip")]
    Export {
        /// The item, or the beginning of its id.
        id: String,
        /// The zip, which must not exist yet [default: ID.zip]
        #[arg(long, short, value_name = "FILE")]
        output: Option<PathBuf>,
        /// The zip's password; the default is the convention among analysts.
        #[arg(long, value_name = "PASSWORD", default_value = "infected")]
        password: String,
    },
    /// Open a raw container, on any machine, without an agent.
    #[command(
        after_help = "Example:\n  holdfast quarantine unseal 0197a2c4.hfq --key host.key --output sample"
    )]
    Unseal {
        /// The container.
        container: PathBuf,
        /// The key of the host that sealed it.
        #[arg(long, value_name = "FILE", default_value = "/var/lib/holdfast/host.key")]
        key: PathBuf,
        /// The content, which must not exist yet [default: CONTAINER.content]
        #[arg(long, short, value_name = "FILE")]
        output: Option<PathBuf>,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum Models {
    /// All models, and which of them can fire on this host.
    #[command(after_help = "Example:\n  holdfast models list")]
    List,
    /// Switch a model on.
    #[command(after_help = "Example:\n  holdfast models enable 'Network Sniffing'")]
    Enable {
        /// Id, the beginning of it, or title.
        model: String,
    },
    /// Switch a model off.
    #[command(after_help = "Example:\n  holdfast models disable 'Network Sniffing'")]
    Disable {
        /// Id, the beginning of it, or title.
        model: String,
    },
    /// Keep a model from firing for events with a value in a field, for a time.
    #[command(after_help = "Example:\n  holdfast models suppress Cron Image=/usr/bin/ansible \
--for 7d --reason 'roll-out 42'")]
    Suppress {
        /// Id, the beginning of it, or title.
        model: String,
        /// A field of its events and the value; `*` stands for any text.
        #[arg(value_name = "FIELD=VALUE")]
        what: String,
        /// How long: 30m, 2h, 7d, 4w.
        #[arg(long = "for", value_name = "SPAN")]
        span: String,
        /// Why, for whoever reads it later.
        #[arg(long)]
        reason: String,
    },
    /// What is suppressed.
    #[command(subcommand)]
    Suppressions(Suppressions),
}

#[derive(Debug, Subcommand)]
pub(super) enum Suppressions {
    /// Those that stand.
    #[command(after_help = "Example:\n  holdfast models suppressions list")]
    List,
    /// End one.
    #[command(after_help = "Example:\n  holdfast models suppressions remove 0197a2")]
    Remove {
        /// Its id, or the beginning of it.
        id: String,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum Simulate {
    /// All simulations.
    #[command(after_help = "Example:\n  holdfast simulate list")]
    List,
    /// Do what the model watches for, harmlessly, and undo it.
    #[command(after_help = "Examples:\n  sudo holdfast simulate run network-sniffing\n  \
sudo holdfast simulate run --all --dry-run")]
    Run {
        /// Its name.
        #[arg(required_unless_present = "all", conflicts_with = "all")]
        name: Option<String>,
        /// One after the other.
        #[arg(long)]
        all: bool,
        /// Only say what would be done.
        #[arg(long)]
        dry_run: bool,
        /// Where files are made; `ransomware` is seen on protected file systems alone.
        #[arg(long, value_name = "PATH", default_value = "/var/tmp")]
        folder: PathBuf,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum Bundle {
    /// Load the rule bundle folder again; a bad one is refused as a whole.
    #[command(after_help = "Example:\n  holdfast bundle reload")]
    Reload,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_sound_and_every_command_has_an_example() {
        fn check(command: &clap::Command) {
            if command.get_name() == "help" {
                return;
            }
            let mut leaves = command.get_subcommands().peekable();
            if leaves.peek().is_none() {
                let help = command.get_after_help().map(ToString::to_string);
                assert!(help.is_some_and(|help| help.contains("Example")), "{command:?}");
            }
            leaves.for_each(check);
        }
        Arguments::command().debug_assert();
        check(&Arguments::command());
    }
}
