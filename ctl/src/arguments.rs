//! The command line of `holdfast-ctl`. Says what can be asked, and does nothing.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use uuid::Uuid;

use crate::tasks::order::Order;

/// The command line of a Holdfast manager: everything that its API can do.
#[derive(Debug, Parser)]
#[command(name = "holdfast-ctl", version, max_term_width = 100)]
#[command(after_help = "Examples:
  export HOLDFAST_MANAGER=https://manager.example:8443 HOLDFAST_CA_FINGERPRINT=4f2a…
  holdfast-ctl sign-in admin --save ~/.holdfast-token
  export HOLDFAST_TOKEN_FILE=~/.holdfast-token
  holdfast-ctl alerts list --state new
  holdfast-ctl search 'host:web1 kind:exec cmdline:\"tcpdump -c\"' --since 7d
  holdfast-ctl tasks file web1 --reason 'ticket 4711' --wait isolate

Exit codes: 0 done, 1 failed or refused, 2 a task is still under way at --timeout, \
64 wrong usage, 78 a wrong token, certificate or other file.")]
pub(crate) struct Arguments {
    #[command(flatten)]
    pub(crate) place: Place,
    /// Print JSON, one object a line.
    #[arg(long, global = true)]
    pub(crate) json: bool,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Where the manager is, who it must be, and who asks.
#[derive(Debug, Args)]
pub(crate) struct Place {
    /// The manager: https://host[:port]; http:// on the loopback only.
    #[arg(long, global = true, value_name = "URL", env = "HOLDFAST_MANAGER")]
    #[arg(default_value = "https://localhost:8443")]
    pub(crate) manager: String,
    /// The Unix socket of a manager on this machine, in place of --manager.
    #[arg(long, global = true, value_name = "PATH", env = "HOLDFAST_MANAGER_SOCKET")]
    pub(crate) socket: Option<PathBuf>,
    /// The manager's certificate authority, a PEM file; without it and --ca-fingerprint those of
    /// the system.
    #[arg(long, global = true, value_name = "FILE", env = "HOLDFAST_CA")]
    pub(crate) ca: Option<PathBuf>,
    /// SHA-256 of the manager's own authority, in hex, as the manager prints it; where no --ca is
    /// given.
    #[arg(long, global = true, value_name = "HEX", env = "HOLDFAST_CA_FINGERPRINT")]
    pub(crate) ca_fingerprint: Option<String>,
    /// The token; others see a command line, so better in the environment or a file.
    #[arg(long, global = true, env = "HOLDFAST_TOKEN", hide_env_values = true)]
    pub(crate) token: Option<String>,
    /// A file that holds the token, for nobody else to read.
    #[arg(long, global = true, value_name = "FILE", env = "HOLDFAST_TOKEN_FILE")]
    pub(crate) token_file: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Sign in with a password (asked for, or the first line of standard input); prints the token.
    /// A password that must be changed is changed at once (asked for, or the second line).
    #[command(after_help = "Examples:\n  holdfast-ctl sign-in admin --save ~/.holdfast-token\n  \
HOLDFAST_TOKEN=$(holdfast-ctl sign-in admin < password)")]
    SignIn {
        /// The user's name.
        user: String,
        /// Keep the token in this file (0600) and do not print it.
        #[arg(long, value_name = "FILE")]
        save: Option<PathBuf>,
    },
    /// End this sign-in.
    #[command(after_help = "Example:\n  holdfast-ctl sign-out")]
    SignOut,
    /// Who is signed in, and with what role.
    #[command(after_help = "Example:\n  holdfast-ctl whoami --json | jq -r .role")]
    Whoami,
    /// Change one's own password: the old one, then the new one (asked for, or two lines).
    #[command(after_help = "Example:\n  holdfast-ctl password")]
    Password,
    /// Hosts.
    #[command(subcommand)]
    Hosts(Hosts),
    /// Alerts.
    #[command(subcommand)]
    Alerts(Alerts),
    /// Events.
    #[command(subcommand)]
    Events(Events),
    /// Events that match a query, newest first; the same as `events list`.
    #[command(
        after_help = "Examples:\n  holdfast-ctl search 'cmdline:\"tcpdump -c\"' --since 7d\n  \
holdfast-ctl search 'host:web1 (kind:malware OR kind:model)' --json"
    )]
    Search(EventList),
    /// Quarantined files of all hosts; what is done with them is a task.
    #[command(subcommand)]
    Quarantine(Quarantine),
    /// Response tasks.
    #[command(subcommand)]
    Tasks(Tasks),
    /// What is denied on all hosts at once, or on those of a group.
    #[command(subcommand)]
    Denials(Denials),
    /// Open a shell on a host; it is recorded. Its exit status is this command's.
    #[command(after_help = "Examples:\n  holdfast-ctl shell web1 --reason 'ticket 4711'\n  \
holdfast-ctl shell web1 --reason triage --restricted")]
    Shell(Shell),
    /// Remote shells and their recordings.
    #[command(subcommand)]
    Shells(Shells),
    /// Policies: what groups of hosts go by.
    #[command(subcommand)]
    Policies(Policies),
    /// Users.
    #[command(subcommand)]
    Users(Users),
    /// One's own API tokens; made with a sign-in only.
    #[command(subcommand)]
    ApiTokens(ApiTokens),
    /// Tokens that hosts enroll with.
    #[command(subcommand)]
    EnrollmentTokens(EnrollmentTokens),
    /// Who did what, newest first.
    #[command(after_help = "Example:\n  holdfast-ctl audit --since 30d --limit 0 --json")]
    Audit {
        #[command(flatten)]
        period: Period,
        #[command(flatten)]
        limit: Limit,
    },
    /// Any request: for what has no command of its own.
    #[command(after_help = "Examples:\n  holdfast-ctl api GET /api/v1/openapi.json\n  \
holdfast-ctl api GET /metrics\n  echo '{\"text\":\"seen\"}' | holdfast-ctl api POST \
/api/v1/alerts/0197a2…/notes --data -")]
    Api {
        /// GET, POST, PATCH, PUT or DELETE.
        method: String,
        /// With its query: /api/v1/hosts?limit=5
        path: String,
        /// A file with the JSON body; - is standard input.
        #[arg(long, value_name = "FILE")]
        data: Option<PathBuf>,
        /// Keep the answer's body in this file.
        #[arg(long, short, value_name = "FILE")]
        output: Option<PathBuf>,
        /// Replace the file.
        #[arg(long, requires = "output")]
        force: bool,
    },
}

/// Which time.
#[derive(Debug, Clone, Args)]
pub(crate) struct Period {
    /// From then on: a span back from now (30m, 2h, 3d), or an RFC 3339 time [default: 24h]
    #[arg(long, value_name = "T")]
    pub(crate) since: Option<String>,
    /// Before then; written the same way.
    #[arg(long, value_name = "T")]
    pub(crate) until: Option<String>,
}

/// How many.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct Limit {
    /// At most this many; 0 for all.
    #[arg(long, value_name = "N", default_value_t = 200)]
    pub(crate) limit: u64,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Quarantine {
    /// Items, newest first.
    #[command(after_help = "Examples:\n  holdfast-ctl quarantine list --state held\n  \
holdfast-ctl quarantine list --host web1 --limit 0 --json")]
    List {
        /// Of this host, by id or name.
        #[arg(long)]
        host: Option<String>,
        /// held, restored, restored_and_allowed or deleted.
        #[arg(long)]
        state: Option<String>,
        /// With this content.
        #[arg(long)]
        sha256: Option<String>,
        #[command(flatten)]
        limit: Limit,
    },
    /// An item.
    #[command(after_help = "Example:\n  holdfast-ctl quarantine show web1 \
0197a2f0-0000-7000-8000-000000000000")]
    Show {
        /// Id or name of the host.
        host: String,
        /// The item's id.
        item: Uuid,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Hosts {
    /// Hosts in the order of their enrollment.
    #[command(after_help = "Examples:\n  holdfast-ctl hosts list --health red\n  \
holdfast-ctl hosts list --follow --json")]
    List {
        /// new, green or red.
        #[arg(long)]
        health: Option<String>,
        #[command(flatten)]
        limit: Limit,
        /// Stay, and print each host that changes.
        #[arg(long, short)]
        follow: bool,
    },
    /// A host with its last heartbeat.
    #[command(after_help = "Example:\n  holdfast-ctl hosts show web1 --json | jq .heartbeat")]
    Show {
        /// Id or name.
        host: String,
    },
    /// Take a host and its certificates back.
    #[command(after_help = "Example:\n  holdfast-ctl hosts revoke web1 --reason 'taken down'")]
    Revoke {
        /// Id or name.
        host: String,
        /// For the audit log.
        #[arg(long)]
        reason: String,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Alerts {
    /// Alerts that changed in the period, those made last first.
    #[command(after_help = "Examples:\n  holdfast-ctl alerts list --state new\n  \
holdfast-ctl alerts list --host web1 --since 7d\n  holdfast-ctl alerts list --follow --json")]
    List {
        /// new, in_progress or resolved.
        #[arg(long)]
        state: Option<String>,
        /// malware, model, tampering, gap, isolation, health …
        #[arg(long)]
        kind: Option<String>,
        /// Id or name.
        #[arg(long)]
        host: Option<String>,
        #[command(flatten)]
        period: Period,
        #[command(flatten)]
        limit: Limit,
        /// Stay, and print each alert that is made or changes.
        #[arg(long, short)]
        follow: bool,
    },
    /// An alert with its notes and tasks.
    #[command(after_help = "Example:\n  holdfast-ctl alerts show 0197a2c4-…")]
    Show {
        /// Its id.
        id: String,
    },
    /// The events of an alert, newest first.
    #[command(after_help = "Example:\n  holdfast-ctl alerts events 0197a2c4-… --json")]
    Events {
        /// Its id.
        id: String,
        #[command(flatten)]
        limit: Limit,
    },
    /// Change state, resolution or assignee.
    #[command(after_help = "Examples:\n  holdfast-ctl alerts edit 0197a2c4-… --state in_progress \
--assignee anna\n  holdfast-ctl alerts edit 0197a2c4-… --state resolved --resolution \
false_positive")]
    Edit {
        /// Its id.
        id: String,
        /// new, in_progress or resolved.
        #[arg(long)]
        state: Option<String>,
        /// true_positive, false_positive, ignored or allowed; with resolved only.
        #[arg(long)]
        resolution: Option<String>,
        /// A user; empty for nobody.
        #[arg(long)]
        assignee: Option<String>,
    },
    /// Add a note.
    #[command(after_help = "Example:\n  holdfast-ctl alerts note 0197a2c4-… 'known: backup'")]
    Note {
        /// Its id.
        id: String,
        /// The note.
        text: String,
    },
}

#[derive(Debug, Args)]
pub(crate) struct EventList {
    /// E.g. host:web1 kind:exec cmdline:"tcpdump -c"; without it all.
    #[arg(allow_hyphen_values = true)]
    pub(crate) query: Option<String>,
    #[command(flatten)]
    pub(crate) period: Period,
    #[command(flatten)]
    pub(crate) limit: Limit,
    /// Stay, and print what comes, oldest first (asked for each second; events that their hosts
    /// held back for more than ten minutes are not shown).
    #[arg(long, short)]
    pub(crate) follow: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Events {
    /// Events that match a query, newest first.
    #[command(after_help = "Examples:\n  holdfast-ctl events list kind:malware --since 7d\n  \
holdfast-ctl events list 'host:web1 -kind:exec' --follow")]
    List(EventList),
    /// One event, whole.
    #[command(after_help = "Example:\n  holdfast-ctl events show 4611686018427387904")]
    Show {
        /// Its number, as the list has it.
        number: String,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Tasks {
    /// Tasks filed in the period, newest first.
    #[command(after_help = "Examples:\n  holdfast-ctl tasks list --stage queued\n  \
holdfast-ctl tasks list --host web1 --since 30d --limit 0 --json")]
    List {
        /// queued, delivered, executed, verified, failed, expired or cancelled.
        #[arg(long)]
        stage: Option<String>,
        /// Id or name.
        #[arg(long)]
        host: Option<String>,
        /// Those of an alert.
        #[arg(long)]
        alert: Option<String>,
        #[command(flatten)]
        period: Period,
        #[command(flatten)]
        limit: Limit,
        /// Stay, and print each task that is filed or goes on.
        #[arg(long, short)]
        follow: bool,
    },
    /// A task, and what was observed.
    #[command(after_help = "Example:\n  holdfast-ctl tasks show 0197a2c4-…")]
    Show {
        /// Its id.
        id: String,
    },
    /// File a task.
    #[command(
        after_help = "Examples:\n  holdfast-ctl tasks file web1 --reason 'ticket 4711' --wait \
isolate --for 2h\n  holdfast-ctl tasks file web1 --reason triage --output passwd.zip collect \
/etc/passwd\n  holdfast-ctl tasks file web1 --reason triage --wait --json process-list\n  \
holdfast-ctl tasks file web1 --reason x --key roll-out-42 deny-hash 3f5f09b7…"
    )]
    File(Box<Filing>),
    /// Wait for the end of a task: exit 0 verified, 1 any other end, 2 still under way.
    #[command(after_help = "Example:\n  holdfast-ctl tasks wait 0197a2c4-… --timeout 5m")]
    Wait {
        /// Its id.
        id: String,
        /// How long: 45s, 30m, 2h; without it as long as it takes.
        #[arg(long, value_name = "TIME")]
        timeout: Option<String>,
    },
    /// Take a task back.
    #[command(
        after_help = "Example:\n  holdfast-ctl tasks cancel 0197a2c4-… --reason 'not needed'"
    )]
    Cancel {
        /// Its id.
        id: String,
        /// For the audit log.
        #[arg(long)]
        reason: String,
    },
    /// Copy out the file that a task delivered, an AES zip (7-Zip and bsdtar open it).
    #[command(
        after_help = "Example:\n  holdfast-ctl tasks download 0197a2c4-… --output passwd.zip"
    )]
    Download {
        /// Its id.
        id: String,
        /// The file, 0600 [default: ID.zip]
        #[arg(long, short, value_name = "FILE")]
        output: Option<PathBuf>,
        /// Replace the file.
        #[arg(long)]
        force: bool,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Filing {
    /// Id or name of the host.
    pub(crate) host: String,
    /// Why, for the audit log and the host.
    #[arg(long)]
    pub(crate) reason: String,
    /// The alert that it belongs to.
    #[arg(long, value_name = "ID")]
    pub(crate) alert: Option<String>,
    /// How long it may wait for the host: 45s, 30m, 2h, 3d [default: a day]
    #[arg(long, value_name = "TIME")]
    pub(crate) expires: Option<String>,
    /// The same key again files nothing and gets the same task [default: a new one]
    #[arg(long)]
    pub(crate) key: Option<String>,
    /// Wait for its end, as `tasks wait` does.
    #[arg(long)]
    pub(crate) wait: bool,
    /// How long to wait.
    #[arg(long, value_name = "TIME")]
    pub(crate) timeout: Option<String>,
    /// Wait, and copy its file there (0600).
    #[arg(long, short, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    /// Replace the file.
    #[arg(long, requires = "output")]
    pub(crate) force: bool,
    #[command(subcommand)]
    pub(crate) order: Order,
}

#[derive(Debug, Args)]
pub(crate) struct Shell {
    /// Id or name.
    pub(crate) host: String,
    /// Why, for the audit log and the host.
    #[arg(long)]
    pub(crate) reason: String,
    /// The fixed commands alone.
    #[arg(long)]
    pub(crate) restricted: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Shells {
    /// Those that were opened, newest first.
    #[command(after_help = "Example:\n  holdfast-ctl shells list --since 30d")]
    List {
        /// Of this host: id or name.
        #[arg(long)]
        host: Option<String>,
        #[command(flatten)]
        period: Period,
        #[command(flatten)]
        limit: Limit,
    },
    /// Keep a recording, an asciicast.
    #[command(after_help = "Example:\n  holdfast-ctl shells recording 0197a2c4-… -o ticket.cast")]
    Recording {
        /// The shell's id.
        id: String,
        /// The file; ID.cast without it.
        #[arg(long, short, value_name = "FILE")]
        output: Option<PathBuf>,
        /// Replace the file.
        #[arg(long)]
        force: bool,
    },
    /// Look at one that is open, or go on with one's own. Ctrl-] leaves it.
    #[command(after_help = "Example:\n  holdfast-ctl shells join 0197a2c4-…")]
    Join {
        /// The shell's id.
        id: String,
    },
}

/// How roll-outs of a policy go.
#[derive(Debug, Args)]
pub(crate) struct Course {
    /// Percent of the hosts in each stage, the last one 100 [default: 5,25,100]
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    pub(crate) stages: Vec<u32>,
    /// How long a stage is watched: 0, 90s, 30m, 2h [default: 10m]
    #[arg(long, value_name = "TIME")]
    pub(crate) soak: Option<String>,
    /// Whether hosts go back to the version before when it stops [default: true]
    #[arg(long, value_name = "BOOL")]
    pub(crate) roll_back: Option<bool>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Denials {
    /// Those that stand, newest first, and how many hosts have each in force.
    #[command(after_help = "Example:\n  holdfast-ctl denials list")]
    List {
        /// Those that were taken back in the last year.
        #[arg(long)]
        removed: bool,
        #[command(flatten)]
        limit: Limit,
    },
    /// Deny content, or what lies at a path, on hosts that are there and those that come.
    #[command(after_help = "Examples:\n  holdfast-ctl denials add path /usr/bin/nc --reason \
'ticket 4711'\n  holdfast-ctl denials add hash 275a02… --group web --reason miner")]
    Add {
        /// hash or path.
        #[arg(value_parser = ["hash", "path"])]
        kind: String,
        /// SHA-256 in hex, or an absolute path: * stays in one folder, ** does not.
        value: String,
        /// Hosts of this group alone.
        #[arg(long)]
        group: Option<String>,
        /// Why; hosts show it too.
        #[arg(long)]
        reason: String,
        /// Until it ends by itself: 30m, 2h, 3d.
        #[arg(long = "for", value_name = "TIME")]
        limit: Option<String>,
    },
    /// Take one back. What was quarantined stays there.
    #[command(after_help = "Example:\n  holdfast-ctl denials remove ID --reason 'false alarm'")]
    Remove {
        /// Its id.
        denial: String,
        /// For the audit log.
        #[arg(long)]
        reason: String,
    },
    /// Whether each host has it in force, and why not.
    #[command(after_help = "Example:\n  holdfast-ctl denials hosts ID")]
    Hosts {
        /// Its id.
        denial: String,
        #[command(flatten)]
        limit: Limit,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Policies {
    /// All policies by name.
    #[command(after_help = "Example:\n  holdfast-ctl policies list")]
    List,
    /// Make a policy. It rules nobody and holds nothing yet.
    #[command(after_help = "Example:\n  holdfast-ctl policies create web --soak 1h")]
    Create {
        /// Its name.
        name: String,
        #[command(flatten)]
        course: Course,
    },
    /// Change its name, or how its next roll-outs go.
    #[command(after_help = "Examples:\n  holdfast-ctl policies edit web --stages 1,10,100\n  \
holdfast-ctl policies edit web --name www")]
    Edit {
        /// Id or name.
        policy: String,
        /// Another name.
        #[arg(long, value_name = "NAME")]
        name: Option<String>,
        #[command(flatten)]
        course: Course,
    },
    /// Take a policy away with its versions. One that rules groups is refused.
    #[command(after_help = "Example:\n  holdfast-ctl policies delete old --reassign web \
--reason 'ticket 4711'")]
    Delete {
        /// Id or name.
        policy: String,
        /// The policy that its groups have then: id or name.
        #[arg(long, value_name = "POLICY")]
        reassign: Option<String>,
        /// For the audit log.
        #[arg(long)]
        reason: String,
    },
    /// Say whose hosts it rules: all its groups.
    #[command(after_help = "Examples:\n  holdfast-ctl policies assign web --group web --group \
proxy --reason 'ticket 4711'\n  holdfast-ctl policies assign web --reason 'nobody any more'")]
    Assign {
        /// Id or name.
        policy: String,
        /// A group of hosts; repeatable.
        #[arg(long = "group", value_name = "GROUP")]
        groups: Vec<String>,
        /// For the audit log.
        #[arg(long)]
        reason: String,
    },
    /// A policy, or the document of one of its versions.
    #[command(after_help = "Example:\n  holdfast-ctl policies show web --version 3 > web.toml")]
    Show {
        /// Id or name.
        policy: String,
        /// Print this version's document.
        #[arg(long, value_name = "N")]
        version: Option<u64>,
    },
    /// Its versions, newest first.
    #[command(after_help = "Example:\n  holdfast-ctl policies versions web")]
    Versions {
        /// Id or name.
        policy: String,
        #[command(flatten)]
        limit: Limit,
    },
    /// Say what putting a document would say, and keep nothing.
    #[command(after_help = "Example:\n  holdfast-ctl policies check web.toml")]
    Check {
        /// The document; - is standard input.
        file: PathBuf,
    },
    /// Put a new version; its roll-out begins.
    #[command(after_help = "Example:\n  holdfast-ctl policies put web web.toml --reason 'block'")]
    Put {
        /// Id or name.
        policy: String,
        /// The document, TOML as in the agent's config; - is standard input.
        file: PathBuf,
        /// Why.
        #[arg(long)]
        reason: String,
        /// To all hosts at once, without stages.
        #[arg(long)]
        at_once: bool,
    },
    /// Put a new version with the document of an older one.
    #[command(after_help = "Example:\n  holdfast-ctl policies roll-back web --version 3 \
--reason 'too slow' --at-once")]
    RollBack {
        /// Id or name.
        policy: String,
        /// Which one.
        #[arg(long, value_name = "N")]
        version: u64,
        /// Why.
        #[arg(long)]
        reason: String,
        /// To all hosts at once, without stages.
        #[arg(long)]
        at_once: bool,
    },
    /// What differs between two versions.
    #[command(after_help = "Examples:\n  holdfast-ctl policies diff web\n  \
holdfast-ctl policies diff web --from 2 --to 5")]
    Diff {
        /// Id or name.
        policy: String,
        /// The older one; 0 is empty [default: the one before --to]
        #[arg(long, value_name = "N")]
        from: Option<u64>,
        /// The newer one [default: the newest]
        #[arg(long, value_name = "N")]
        to: Option<u64>,
    },
    /// How the roll-out of the newest version stands, host by host.
    #[command(after_help = "Example:\n  holdfast-ctl policies rollout web")]
    Rollout {
        /// Id or name.
        policy: String,
    },
    /// Let the roll-out wait: no further host gets it.
    #[command(after_help = "Example:\n  holdfast-ctl policies pause web --reason 'weekend'")]
    Pause {
        /// Id or name.
        policy: String,
        /// For the audit log.
        #[arg(long)]
        reason: String,
    },
    /// Let it go on.
    #[command(after_help = "Example:\n  holdfast-ctl policies resume web --reason 'monday'")]
    Resume {
        /// Id or name.
        policy: String,
        /// For the audit log.
        #[arg(long)]
        reason: String,
    },
    /// End it; hosts go back where the policy says so.
    #[command(after_help = "Example:\n  holdfast-ctl policies stop web --reason 'wrong file'")]
    Stop {
        /// Id or name.
        policy: String,
        /// For the audit log.
        #[arg(long)]
        reason: String,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Users {
    /// All users by name.
    #[command(after_help = "Example:\n  holdfast-ctl users list")]
    List,
    /// Make a user; the first password is asked for, or the first line of standard input.
    #[command(after_help = "Example:\n  holdfast-ctl users create anna --role operator")]
    Create {
        /// Its name.
        name: String,
        /// viewer, operator or admin.
        #[arg(long)]
        role: String,
    },
    /// Change a user. Its sign-ins end.
    #[command(after_help = "Examples:\n  holdfast-ctl users edit anna --role viewer\n  \
holdfast-ctl users edit anna --disable\n  holdfast-ctl users edit anna --password")]
    Edit {
        /// Id or name.
        user: String,
        /// viewer, operator or admin.
        #[arg(long)]
        role: Option<String>,
        /// It can sign in no more.
        #[arg(long)]
        disable: bool,
        /// It can again.
        #[arg(long, conflicts_with = "disable")]
        enable: bool,
        /// It may open remote shells, or may not any more.
        #[arg(long, value_name = "on|off", value_parser = ["on", "off"])]
        shell: Option<String>,
        /// A new first password: asked for, or the first line of standard input.
        #[arg(long)]
        password: bool,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum ApiTokens {
    /// One's own, newest first.
    #[command(after_help = "Example:\n  holdfast-ctl api-tokens list")]
    List,
    /// Make one; it is shown once.
    #[command(after_help = "Example:\n  holdfast-ctl api-tokens create backup --scope read \
--valid 90d --save backup.token")]
    Create {
        /// Its name.
        name: String,
        /// read, respond, administer, metrics or shell; repeatable.
        #[arg(long = "scope", required = true)]
        scopes: Vec<String>,
        /// How long: 12h, 90d.
        #[arg(long, value_name = "TIME")]
        valid: String,
        /// Keep it in this file (0600) and do not print it.
        #[arg(long, value_name = "FILE")]
        save: Option<PathBuf>,
    },
    /// End one.
    #[command(after_help = "Example:\n  holdfast-ctl api-tokens delete 0197a2c4-…")]
    Delete {
        /// Its id.
        id: String,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum EnrollmentTokens {
    /// All, newest first.
    #[command(after_help = "Example:\n  holdfast-ctl enrollment-tokens list")]
    List,
    /// Make one; it is shown once.
    #[command(
        after_help = "Example:\n  holdfast-ctl enrollment-tokens create --group web --uses 20 \
--valid 24h"
    )]
    Create {
        /// Group of its hosts.
        #[arg(long, default_value = "default")]
        group: String,
        /// How many hosts.
        #[arg(long, default_value_t = 1)]
        uses: u32,
        /// How long: 1h, 7d.
        #[arg(long, value_name = "TIME", default_value = "1h")]
        valid: String,
        /// For people.
        #[arg(long, default_value = "")]
        note: String,
    },
    /// Take one back.
    #[command(after_help = "Example:\n  holdfast-ctl enrollment-tokens revoke 0197a2c4-…")]
    Revoke {
        /// Its id.
        id: String,
    },
}
