//! Events: immutable facts that happened, as they stand in the journal and go to the manager.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::process::{ProcessInfo, ProcessKey};
use crate::verdict::{Decision, Disposition, FailureReason, Hashes, ScanType, Signature};

/// One fact.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// UUID version 7: unique, and sorted by time.
    pub id: Uuid,
    /// Milliseconds since the Unix epoch, when it happened.
    pub time_ms: i64,
    /// Host name.
    pub host: String,
    /// What happened.
    #[serde(flatten)]
    pub body: EventBody,
}

/// What happened. The tag is the `kind` that `holdfast events --kind` takes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum EventBody {
    /// Malicious content was found (real-time or on demand).
    Malware(Box<MalwareDetection>),
    /// A detection model fired.
    Model(Box<ModelDetection>),
    /// A file was answered without a verdict.
    Failure(Box<ScanFailure>),
    /// A file was put back from, or deleted in, or exported from quarantine.
    Quarantine(QuarantineAction),
    /// A program started.
    Exec(Box<ExecEvent>),
    /// A packet or raw socket was opened or bound.
    PacketSocket(Box<PacketSocketEvent>),
    /// The agent became ready.
    AgentStarted(AgentStarted),
    /// The agent stopped in order.
    AgentStopped,
    /// Nobody answered opens for a while: the agent had died.
    ProtectionGap(ProtectionGap),
    /// A rule bundle was loaded, or refused as a whole.
    Bundle(BundleEvent),
    /// A file system came under protection, left it, or cannot be protected.
    Coverage(CoverageEvent),
    /// Something was dropped, and how much of it.
    Loss(LossEvent),
}

impl EventBody {
    /// The tag, as in JSON.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Malware(_) => "malware",
            Self::Model(_) => "model",
            Self::Failure(_) => "failure",
            Self::Quarantine(_) => "quarantine",
            Self::Exec(_) => "exec",
            Self::PacketSocket(_) => "packet_socket",
            Self::AgentStarted(_) => "agent_started",
            Self::AgentStopped => "agent_stopped",
            Self::ProtectionGap(_) => "protection_gap",
            Self::Bundle(_) => "bundle",
            Self::Coverage(_) => "coverage",
            Self::Loss(_) => "loss",
        }
    }

    /// Telemetry may be dropped (and counted) under load; everything else may not.
    #[must_use]
    pub const fn is_telemetry(&self) -> bool {
        matches!(self, Self::Exec(_) | Self::PacketSocket(_))
    }
}

/// Malicious content in one file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MalwareDetection {
    /// Where the file lay, as the kernel named it; `\xNN` for bytes that are not printable.
    pub path: String,
    /// The file.
    pub file: FileFacts,
    /// Hashes of the content that was scanned.
    #[serde(flatten)]
    pub hashes: Hashes,
    /// What matched.
    pub signature: Signature,
    /// What brought the file to the scan core.
    pub scan_type: ScanType,
    /// Who opened, ran or wrote it; `None` on demand, or when it was gone.
    pub process: Option<ProcessInfo>,
    /// Its ancestors, nearest first.
    pub parents: Vec<ProcessInfo>,
    /// The reply to the kernel; `None` where nothing was held.
    pub decision: Option<Decision>,
    /// What finally happened to the file.
    pub disposition: Disposition,
    /// The quarantine item, when there is one.
    pub quarantine_id: Option<Uuid>,
    /// Why the disposition is not better, for people (e.g. "no space left in quarantine").
    pub reason: Option<String>,
}

/// `statx` of the file when it was judged.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileFacts {
    /// Bytes.
    pub size: u64,
    /// Device, `major:minor`.
    pub device: String,
    /// Inode number.
    pub inode: u64,
    /// Owner and group.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Permission bits.
    pub mode: u32,
    /// Content change, milliseconds since the epoch.
    pub modified_ms: i64,
    /// Status change, milliseconds since the epoch.
    pub changed_ms: i64,
}

/// A detection model fired.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ModelDetection {
    /// The model's id (Sigma `id`).
    pub model_id: Uuid,
    /// The model's title.
    pub title: String,
    /// Sigma level: informational, low, medium, high, critical.
    pub level: String,
    /// ATT&CK technique ids, e.g. `T1040`.
    pub attack: Vec<String>,
    /// The process that did it.
    pub process: ProcessInfo,
    /// Its ancestors, nearest first.
    pub parents: Vec<ProcessInfo>,
    /// The fields that the model looked at.
    pub evidence: BTreeMap<String, String>,
    /// True when `holdfast simulate` caused it.
    pub simulated: bool,
}

/// A file was answered, or passed, without a verdict.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ScanFailure {
    /// The row of the failure table.
    pub reason: FailureReason,
    /// What the table said.
    pub decision: Option<Decision>,
    /// Where the file lay.
    pub path: String,
    /// pid of the opener, 0 when there was none.
    pub pid: u32,
    /// How many such answers this event stands for (equal ones are put together for a second).
    pub count: u64,
    /// True when the file goes to a rescan without a deadline.
    pub rescan: bool,
}

/// What was done with a quarantine item.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct QuarantineAction {
    /// The item.
    pub item: Uuid,
    /// restored, restored_and_allowed, deleted, exported.
    pub action: String,
    /// Where the file was, or now is again.
    pub path: String,
    /// SHA-256 of the content.
    pub sha256: String,
}

/// A program started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecEvent {
    /// The new image.
    pub process: ProcessInfo,
    /// Ancestors, nearest first (at most a few; the process table has the rest).
    pub parents: Vec<ProcessInfo>,
}

/// A packet or raw socket.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PacketSocketEvent {
    /// The process that opened it.
    pub process: ProcessInfo,
    /// Ancestors, nearest first.
    pub parents: Vec<ProcessInfo>,
    /// What it did: `socket`, `bind`, `promiscuous`, `ring`, or `found` (seen in /proc/net/packet).
    pub action: String,
    /// `AF_PACKET`, `AF_INET`, `AF_INET6`.
    pub family: String,
    /// `SOCK_RAW`, `SOCK_DGRAM`…
    pub socket_type: String,
    /// Protocol in host order (`ETH_P_ALL` = 3 for packet sockets).
    pub protocol: u32,
    /// Interface index of a bind or membership, 0 for all.
    pub interface: u32,
}

/// The agent became ready.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentStarted {
    /// The agent's version.
    pub version: String,
    /// Kernel release.
    pub kernel: String,
    /// block or detect.
    pub mode: String,
}

/// Nobody answered opens between these two moments.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProtectionGap {
    /// Last sign of life of the agent that died, milliseconds since the epoch.
    pub from_ms: i64,
    /// When protection stood again.
    pub until_ms: i64,
}

/// A rule bundle.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BundleEvent {
    /// Folder that it came from.
    pub path: String,
    /// SHA-256 over its files, in hex.
    pub digest: String,
    /// Number of hashes.
    pub hashes: u64,
    /// Number of YARA rules.
    pub yara_rules: u64,
    /// Why it was refused; the last good one stays. `None` when it was loaded.
    pub error: Option<String>,
}

/// What is protected changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CoverageEvent {
    /// Mount point.
    pub mount: String,
    /// File system type.
    pub fs_type: String,
    /// True when permission events for it are held from now on.
    pub protected: bool,
    /// Why not.
    pub reason: Option<String>,
}

/// Something was dropped.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LossEvent {
    /// Which queue.
    pub queue: String,
    /// How many since the last such event.
    pub count: u64,
}

/// Evidence that a process key belongs to a known process.
impl From<&ProcessInfo> for ProcessKey {
    fn from(process: &ProcessInfo) -> Self {
        process.key
    }
}
