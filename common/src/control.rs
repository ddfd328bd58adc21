//! What the CLI asks and the agent answers, over the agent's Unix socket.
//!
//! One JSON object a line in both directions; one request a connection; the agent sends any
//! number of replies and ends with [`Reply::Done`] or [`Reply::Error`].

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::container::Metadata;
use crate::denial::{Denial, DenialKind, DenialState};
use crate::event::{Event, MalwareDetection};
use crate::link::OutboxState;
use crate::ruled::{PolicyReport, PolicyState};
use crate::scans::{ScanOrder, ScanRecord, ScanSchedule, ScheduleState};
use crate::verdict::FailureReason;

/// Longest request line, in bytes.
pub const MAX_REQUEST: usize = 1 << 20;

/// One order of an operator.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "snake_case", deny_unknown_fields)]
pub enum Request {
    /// Answer: one [`Reply::Status`].
    Status,
    /// Answer: [`Reply::DoctorLine`] each.
    Doctor,
    /// Scan these absolute paths. Answer: [`Reply::ScanProgress`], [`Reply::ScanFound`],
    /// [`Reply::ScanFailed`], last a [`Reply::ScanDone`].
    Scan {
        /// Files and folders.
        #[serde(with = "path_bytes")]
        paths: Vec<PathBuf>,
    },
    /// Start a scan. Answer: one [`Reply::Scan`]; with `follow` then as for [`Request::Scan`],
    /// and the scan is cancelled when nobody listens any more.
    ScanStart {
        /// What is asked for.
        order: ScanOrder,
        /// Stay until it ends.
        follow: bool,
    },
    /// Answer: [`Reply::Scan`] each, newest first.
    ScanList {
        /// At most so many; 0 for no limit.
        limit: u64,
    },
    /// Answer: one [`Reply::Scan`].
    ScanShow {
        /// Which.
        id: Uuid,
    },
    /// Let a scan wait, go on, or end. Answer: one [`Reply::Scan`].
    ScanSteer {
        /// Which.
        id: Uuid,
        /// What to do.
        steer: ScanSteer,
    },
    /// Answer: [`Reply::Schedule`] each.
    ScheduleList,
    /// Add a schedule, which is kept. Answer: one [`Reply::Schedule`].
    ScheduleAdd {
        /// What is asked for.
        schedule: ScanSchedule,
    },
    /// Forget a schedule that was added. Answer: `Done`.
    ScheduleRemove {
        /// Its name.
        name: String,
    },
    /// Answer: [`Reply::Event`] each, oldest first.
    Events {
        /// Only events at or after this, milliseconds since the epoch.
        since_ms: Option<i64>,
        /// Only this kind.
        kind: Option<String>,
        /// At most this many, the newest; 0 for no limit.
        limit: u64,
        /// Stay, and send what happens from now on.
        follow: bool,
    },
    /// Answer: [`Reply::QuarantineItem`] each, newest first.
    QuarantineList,
    /// Answer: one [`Reply::QuarantineItem`].
    QuarantineShow {
        /// The item.
        id: Uuid,
    },
    /// Put an item back. Never overwrites. Answer: one [`Reply::Restored`].
    QuarantineRestore {
        /// The item.
        id: Uuid,
        /// Allow this content by its SHA-256 from now on.
        allow: bool,
        /// No longer than this, seconds; only with `allow`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        duration_s: Option<u64>,
        /// Another place than where it was.
        #[serde(default, with = "path_bytes")]
        to: Option<PathBuf>,
    },
    /// Destroy an item. Answer: `Done`.
    QuarantineDelete {
        /// The item.
        id: Uuid,
    },
    /// An AES-256 zip of the content. Answer: [`Reply::Data`] with the bytes behind it.
    QuarantineExport {
        /// The item.
        id: Uuid,
        /// Password of the zip.
        password: String,
    },
    /// Answer: [`Reply::Model`] each.
    ModelList,
    /// Switch a model on or off. Answer: one [`Reply::Model`].
    ModelSwitch {
        /// Id or exact title.
        model: String,
        /// On or off.
        enabled: bool,
    },
    /// Matches of a model with this value in a field fire nothing until then. Answer: one
    /// [`Reply::Suppression`].
    ModelSuppress {
        /// Id or exact title.
        model: String,
        /// A field of the model's events.
        field: String,
        /// Its value; `*` stands for any text.
        value: String,
        /// When it ends, milliseconds since the epoch.
        until_ms: i64,
        /// Why, for whoever reads it later.
        reason: String,
    },
    /// Answer: [`Reply::Suppression`] each.
    SuppressionList,
    /// Ends one. Answer: `Done`.
    SuppressionRemove {
        /// Which.
        id: Uuid,
    },
    /// Load the rule bundle folder again. Answer: `Done`, or `Error` while the old one stays.
    BundleReload,
    /// Which policy runs, and what is in force. Answer: one [`Reply::Policy`].
    Policy,
    /// What is denied by order. Answer: [`Reply::Denial`] each.
    DenialList,
    /// Deny content or a path on this host. Answer: `Done`.
    Deny {
        /// Content or path.
        kind: DenialKind,
        /// SHA-256 in hex, or an absolute path.
        value: String,
        /// Why, and who asks.
        reason: String,
        /// Until it ends by itself, seconds; without it not.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        duration_s: Option<u64>,
    },
    /// Deny it no more, where this host alone denies it. Answer: `Done`.
    Undeny {
        /// Content or path.
        kind: DenialKind,
        /// As it was denied.
        value: String,
    },
    /// Cut the host off from the network. Answer: one [`Reply::Isolation`].
    Isolate {
        /// Why, and who asks.
        reason: String,
        /// Until it ends by itself, seconds; without it not.
        duration_s: Option<u64>,
    },
    /// Let the host go. Answer: one [`Reply::Isolation`].
    Release {
        /// Why, and who asks.
        reason: String,
    },
    /// Answer: one [`Reply::Isolation`].
    IsolationStatus,
    /// Enroll this host with a manager. Answer: one [`Reply::Enrolled`].
    Enroll {
        /// `https://host:port`.
        manager: String,
        /// Buys the certificate.
        token: String,
        /// SHA-256 of the certificate of the manager's authority, hex.
        fingerprint: String,
        /// `http://[user:password@]host:port`.
        proxy: Option<String>,
    },
}

/// One answer of the agent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "reply", rename_all = "snake_case")]
pub enum Reply {
    /// See [`Request::Status`].
    Status(Box<StatusReport>),
    /// See [`Request::Doctor`].
    DoctorLine(DoctorLine),
    /// See [`Request::Policy`].
    Policy(Box<PolicyReport>),
    /// See [`Request::Events`].
    Event(Box<Event>),
    /// So far.
    ScanProgress(ScanProgress),
    /// A malicious file.
    ScanFound(Box<MalwareDetection>),
    /// A file that could not be scanned.
    ScanFailed {
        /// Which.
        path: String,
        /// Why.
        reason: String,
    },
    /// The end of a scan.
    ScanDone(ScanProgress),
    /// A scan.
    Scan(Box<ScanRecord>),
    /// A schedule.
    Schedule(Box<ScheduleState>),
    /// A quarantine item.
    QuarantineItem(Box<Metadata>),
    /// Where an item was put back.
    Restored {
        /// The path.
        path: String,
        /// True when the content is allowed from now on.
        allowed: bool,
        /// When that ends, milliseconds since the epoch by the host's clock; without it, never.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        until_ms: Option<i64>,
    },
    /// This many raw bytes follow the line, then the next line.
    Data {
        /// Number of bytes.
        length: u64,
    },
    /// A detection model.
    Model(ModelState),
    /// What a model does not fire for.
    Suppression(Suppression),
    /// The isolation.
    Isolation(Box<IsolationState>),
    /// Something that is denied by order.
    Denial(DenialLine),
    /// This host has its certificate.
    Enrolled {
        /// The id that the manager gave it.
        host: String,
    },
    /// The request was carried out.
    Done,
    /// The request was not carried out, and nothing was changed.
    Error {
        /// What and where.
        message: String,
    },
}

/// Something that is denied on this host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DenialLine {
    /// What, who, why and since when; with the manager's id where the manager denies it.
    #[serde(flatten)]
    pub denial: Denial,
    /// Why it is not in force.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
}

/// What to do with a scan.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ScanSteer {
    /// It waits, in the middle of a file too.
    Pause,
    /// It goes on.
    Resume,
    /// It ends.
    Cancel,
}

/// Numbers of a running scan.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScanProgress {
    /// Files scanned.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Malicious ones.
    pub found: u64,
    /// Files that could not be scanned.
    pub failed: u64,
    /// Files left out on purpose (excluded, not regular, changed file system).
    pub skipped: u64,
}

/// The agent at a glance.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StatusReport {
    /// Agent version.
    pub version: String,
    /// Host name.
    pub host: String,
    /// Its pid.
    pub pid: u32,
    /// Seconds since it became ready.
    pub uptime_s: u64,
    /// block or detect.
    pub mode: String,
    /// Red reasons in words; empty means healthy.
    pub problems: Vec<String>,
    /// What is protected, and what is not and why.
    pub file_systems: Vec<FileSystemState>,
    /// The numbers of on-access protection.
    pub on_access: OnAccessCounters,
    /// Scan workers alive.
    pub workers: u64,
    /// The loaded bundle.
    pub bundle: BundleState,
    /// Items and bytes in quarantine.
    pub quarantine: QuarantineState,
    /// What was last proven.
    #[serde(default)]
    pub proof: ProofState,
    /// What the sensor sees.
    pub sensor: Vec<SensorState>,
    /// Events in the journal.
    pub journal_events: u64,
    /// Telemetry events dropped since start, counted.
    pub journal_dropped: u64,
    /// Cut off from the network.
    #[serde(default)]
    pub isolated: bool,
    /// The link to the manager.
    #[serde(default)]
    pub manager: ManagerState,
    /// The manager's policy.
    #[serde(default)]
    pub policy: PolicyState,
    /// Remote shells that are open.
    #[serde(default)]
    pub shells: Vec<ShellState>,
    /// What is denied by order.
    #[serde(default)]
    pub denials: DenialState,
}

/// A remote shell that is open.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShellState {
    /// Its response task.
    pub task: Uuid,
    /// Who opened it.
    pub by: String,
    /// Why.
    pub reason: String,
    /// The fixed commands alone.
    pub restricted: bool,
    /// Open since then, milliseconds since the epoch.
    pub since_ms: i64,
}

/// The link to the manager.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ManagerState {
    /// This host has a certificate.
    pub enrolled: bool,
    /// `https://host:port`.
    pub manager: String,
    /// The id that the manager gave this host.
    pub host: String,
    /// The manager answers.
    pub connected: bool,
    /// Connected or not since then, milliseconds since the epoch.
    pub since_ms: i64,
    /// When the certificate ends, milliseconds since the epoch.
    pub certificate_ends_ms: i64,
    /// Why not connected.
    pub problem: Option<String>,
    /// What waits to be sent.
    pub outbox: OutboxState,
}

/// One mount.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileSystemState {
    /// Mount point.
    pub mount: String,
    /// Type.
    pub fs_type: String,
    /// Marked.
    pub protected: bool,
    /// Why not.
    pub reason: Option<String>,
}

/// Counters since start.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OnAccessCounters {
    /// Opens and execs that were held.
    pub held: u64,
    /// Answered allow.
    pub allowed: u64,
    /// Answered deny.
    pub denied: u64,
    /// The agent's and its workers' own.
    pub own: u64,
    /// Answered from the verdict cache.
    pub cached: u64,
    /// Answered by an exclusion.
    pub excluded: u64,
    /// Opens of files that lie at denied paths.
    #[serde(default)]
    pub denied_paths: u64,
    /// Files scanned because a writer closed them.
    pub closed_scanned: u64,
    /// Close-after-write scans given up under pressure; the next open is held all the same.
    pub closed_skipped: u64,
    /// Answers by failure, by reason.
    pub failures: Vec<(FailureReason, u64)>,
    /// Answers later than the deadline. Always 0.
    pub past_deadline: u64,
    /// Longest time that an open was held, microseconds.
    pub longest_held_us: u64,
    /// Rescans waiting.
    pub rescans_waiting: u64,
    /// Rescans done.
    pub rescans_done: u64,
    /// Rescans that found no place in their queue.
    pub rescans_dropped: u64,
    /// Mount namespaces beside the agent's own, when they were last looked at.
    #[serde(default)]
    pub namespaces: u64,
    /// Such namespaces, and file systems in them, that could not be looked at then: one is not
    /// open to us, or there were more than the time and the memory for it allow.
    #[serde(default)]
    pub namespaces_unseen: u64,
    /// Coverage events of such namespaces that were not told, being too many in a minute.
    #[serde(default)]
    pub coverage_untold: u64,
}

/// The rule bundle in use.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BundleState {
    /// Folder, empty for the built-in rules alone.
    pub path: String,
    /// SHA-256 over its files.
    pub digest: String,
    /// When it was loaded.
    pub loaded_ms: i64,
    /// Number of hashes.
    pub hashes: u64,
    /// Number of YARA rules.
    pub yara_rules: u64,
    /// Why a newer one was refused.
    pub refused: Option<String>,
}

/// The quarantine folder.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct QuarantineState {
    /// Items.
    pub items: u64,
    /// Bytes on disk.
    pub bytes: u64,
}

/// One thing that the sensor sees.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SensorState {
    /// What: exec, fork, exit, packet sockets…
    pub name: String,
    /// By which mechanism: tracepoint, LSM, /proc poll…
    pub mechanism: String,
    /// Attached.
    pub active: bool,
    /// Why not, or which fields are missing.
    pub note: Option<String>,
    /// Records that the kernel side made.
    pub generated: u64,
    /// Records that arrived.
    pub delivered: u64,
    /// Records put together with others.
    pub aggregated: u64,
    /// Records declared lost.
    pub lost: u64,
}

/// The self-proof: the health of the host.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProofState {
    /// False when it is switched off in the config.
    pub enabled: bool,
    /// Seconds between two whole rounds.
    pub interval_s: u64,
    /// When all lines were last green, milliseconds since the epoch.
    pub last_proven_ms: Option<i64>,
    /// One for each capability.
    pub lines: Vec<ProofLine>,
}

/// One capability.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProofLine {
    /// Its name, e.g. `on access: /srv`.
    pub capability: String,
    /// Proven in the last round that tried.
    pub ok: bool,
    /// What was seen.
    pub evidence: String,
    /// What to do when it is red.
    pub advice: Option<String>,
    /// When that was, milliseconds since the epoch.
    pub time_ms: i64,
    /// Red or green since then.
    pub since_ms: i64,
    /// Last green.
    pub proven_ms: Option<i64>,
}

/// One line of `holdfast doctor`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DoctorLine {
    /// What was looked at.
    pub check: String,
    /// Fine or not.
    pub ok: bool,
    /// What was seen.
    pub evidence: String,
    /// What to do when it is not fine.
    pub advice: Option<String>,
}

/// A detection model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelState {
    /// Sigma id.
    pub id: Uuid,
    /// Title.
    pub title: String,
    /// On.
    pub enabled: bool,
    /// Sigma level.
    pub level: String,
    /// ATT&CK techniques.
    pub attack: Vec<String>,
    /// Whether it can fire on this host.
    pub can_fire: bool,
    /// Why not.
    pub why_not: Option<String>,
    /// Milliseconds since the epoch.
    pub last_fired_ms: Option<i64>,
    /// Times fired since the journal began.
    pub fired: u64,
    /// `shipped`, or the file that it came from.
    #[serde(default)]
    pub origin: String,
    /// What follows when it fires: none, alert, kill, deny, isolate.
    #[serde(default)]
    pub response: String,
    /// What an operator should look at and do.
    #[serde(default)]
    pub advice: String,
    /// Matches that a suppression kept back since the agent started.
    #[serde(default)]
    pub suppressed: u64,
}

/// A model fires nothing for events with this value in a field, until a time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Suppression {
    /// Its own id.
    pub id: Uuid,
    /// The model.
    pub model: Uuid,
    /// A field of the model's events.
    pub field: String,
    /// Its value; `*` stands for any text.
    pub value: String,
    /// Why.
    pub reason: String,
    /// Since when, milliseconds since the epoch.
    pub since_ms: i64,
    /// When it ends by itself.
    pub until_ms: i64,
    /// Matches that it kept back since the agent started.
    #[serde(default)]
    pub kept_back: u64,
}

/// The isolation, as it stands.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct IsolationState {
    /// Cut off.
    pub isolated: bool,
    /// Since when, milliseconds since the epoch.
    pub since_ms: Option<i64>,
    /// When it ends by itself.
    pub until_ms: Option<i64>,
    /// Why, and who asked.
    pub reason: String,
    /// The endpoints that stay reachable, with their addresses.
    pub allowed: Vec<String>,
    /// The DHCP servers that stay reachable.
    pub dhcp: Vec<String>,
    /// Whether an endpoint answered under the rules.
    pub proven: bool,
    /// What stands, and what does not and why.
    pub layers: Vec<IsolationLayer>,
    /// Packets by where they were judged and why, since it began.
    pub counts: Vec<IsolationCount>,
    /// What the operator should know.
    pub warnings: Vec<String>,
}

/// One layer of the isolation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IsolationLayer {
    /// `sockets`, `interfaces`, `egress`, `new sockets`.
    pub name: String,
    /// By which mechanism of the kernel.
    pub mechanism: String,
    /// It stands.
    pub standing: bool,
    /// Why not, or what it covers.
    pub note: String,
}

/// Packets that were let through or dropped for one reason.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IsolationCount {
    /// Where: `socket_out`, `socket_in`, `interface_out`, `interface_in`, `egress`,
    /// `socket_create`.
    pub at: String,
    /// Why: `management`, `loopback`, `neighbour`, `dhcp`, `path_mtu`, `ipv4`, `ipv6`,
    /// `fragment`, `other`.
    pub reason: String,
    /// Dropped, not let through.
    pub dropped: bool,
    /// How many.
    pub packets: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// Paths in JSON without loss: text where it is UTF-8, else the list of its bytes. A file must
/// not escape a scan by its name.
pub(crate) mod path_bytes {
    use std::ffi::OsString;
    use std::os::unix::ffi::{OsStrExt, OsStringExt};
    use std::path::{Path, PathBuf};

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    #[derive(Serialize)]
    #[serde(untagged)]
    enum Written<'a> {
        Text(&'a str),
        Bytes(&'a [u8]),
    }

    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Read {
        Text(String),
        Bytes(Vec<u8>),
    }

    fn write(path: &Path) -> Written<'_> {
        path.to_str().map_or(Written::Bytes(path.as_os_str().as_bytes()), Written::Text)
    }

    fn read(path: Read) -> PathBuf {
        match path {
            Read::Text(text) => text.into(),
            Read::Bytes(bytes) => OsString::from_vec(bytes).into(),
        }
    }

    pub(crate) fn serialize<S: Serializer, P>(paths: &P, serializer: S) -> Result<S::Ok, S::Error>
    where
        P: Paths,
    {
        paths.write(serializer)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>, P>(deserializer: D) -> Result<P, D::Error>
    where
        P: Paths,
    {
        P::read(deserializer)
    }

    /// What holds paths.
    pub(crate) trait Paths: Sized {
        fn write<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error>;
        fn read<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error>;
    }

    impl Paths for Vec<PathBuf> {
        fn write<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            serializer.collect_seq(self.iter().map(|path| write(path)))
        }

        fn read<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            Ok(Vec::<Read>::deserialize(deserializer)?.into_iter().map(read).collect())
        }
    }

    impl Paths for Option<PathBuf> {
        fn write<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            self.as_deref().map(write).serialize(serializer)
        }

        fn read<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            Ok(Option::<Read>::deserialize(deserializer)?.map(read))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;

    use super::*;

    #[test]
    fn paths_that_are_not_text_survive_the_socket() {
        let hostile = PathBuf::from(OsStr::from_bytes(b"/srv/\xff\n\xfe"));
        for path in [PathBuf::from("/srv/caf\u{e9}"), hostile] {
            let id = Uuid::nil();
            let requests = [
                Request::Scan { paths: vec![path.clone()] },
                Request::QuarantineRestore {
                    id,
                    allow: true,
                    duration_s: Some(60),
                    to: Some(path),
                },
                Request::QuarantineRestore { id, allow: false, duration_s: None, to: None },
            ];
            for request in requests {
                let line = serde_json::to_string(&request).expect("json");
                assert_eq!(serde_json::from_str::<Request>(&line).expect("request"), request);
            }
        }
        let plain = r#"{"request":"scan","paths":["/srv"]}"#;
        let scan = Request::Scan { paths: vec!["/srv".into()] };
        assert_eq!(serde_json::to_string(&scan).expect("json"), plain);
    }
}
