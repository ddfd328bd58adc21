//! Events: immutable facts that happened, as they stand in the journal and go to the manager.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::process::{ProcessInfo, ProcessKey};
use crate::scans::{LateFind, ScanRecord};
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
    /// A scan was begun, ended, or was not begun.
    Scan(Box<ScanRecord>),
    /// A program started.
    Exec(Box<ExecEvent>),
    /// A packet or raw socket was opened or bound.
    PacketSocket(Box<PacketSocketEvent>),
    /// A process did something to itself, another process or the kernel.
    Activity(Box<ActivityEvent>),
    /// A process used the network.
    Network(Box<NetworkEvent>),
    /// Somebody touched a file that matters.
    File(Box<FileEvent>),
    /// The protection proved itself, or failed to, and that differs from the last time.
    Proof(ProofEvent),
    /// The host was cut off or released.
    Isolation(IsolationEvent),
    /// A remote shell was opened, refused or closed.
    Shell(ShellEvent),
    /// Somebody interfered with the agent.
    Tampering(Box<TamperingEvent>),
    /// The agent became ready.
    AgentStarted(AgentStarted),
    /// The agent stopped in order.
    AgentStopped,
    /// Nobody answered opens for a while: the agent had died.
    ProtectionGap(ProtectionGap),
    /// A rule bundle was loaded, or refused as a whole.
    Bundle(BundleEvent),
    /// A policy of the manager's was put in force, refused or taken away.
    Policy(PolicyEvent),
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
            Self::Scan(_) => "scan",
            Self::Exec(_) => "exec",
            Self::PacketSocket(_) => "packet_socket",
            Self::Activity(_) => "activity",
            Self::Network(_) => "network",
            Self::File(_) => "file",
            Self::Proof(_) => "proof",
            Self::Isolation(_) => "isolation",
            Self::Shell(_) => "shell",
            Self::Tampering(_) => "tampering",
            Self::AgentStarted(_) => "agent_started",
            Self::AgentStopped => "agent_stopped",
            Self::ProtectionGap(_) => "protection_gap",
            Self::Bundle(_) => "bundle",
            Self::Policy(_) => "policy",
            Self::Coverage(_) => "coverage",
            Self::Loss(_) => "loss",
        }
    }

    /// Telemetry may be dropped (and counted) under load; everything else may not.
    #[must_use]
    pub const fn is_telemetry(&self) -> bool {
        matches!(
            self,
            Self::Exec(_)
                | Self::PacketSocket(_)
                | Self::Activity(_)
                | Self::Network(_)
                | Self::File(_)
        )
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
    /// How long the file had lain there when a scan found it; `None` where it was no scan.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub late: Option<Box<LateFind>>,
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
    /// Ids of the events that made it, oldest first; more than one for correlations.
    #[serde(default)]
    pub events: Vec<Uuid>,
    /// What an operator should look at and do.
    #[serde(default)]
    pub advice: String,
    /// What the policy asks for: none, alert, kill, deny, isolate.
    #[serde(default)]
    pub response: String,
    /// What was done, with its success or failure in words; empty when nothing was to be done.
    #[serde(default)]
    pub responded: String,
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
    /// How many starts this event stands for: equal ones (same parent, same executable) are put
    /// together while there are more than can be told one by one. The first one's facts are shown.
    #[serde(default = "one")]
    pub count: u64,
}

const fn one() -> u64 {
    1
}

/// What a process did, other than start or use the network or files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ActivityEvent {
    /// Who did it.
    pub process: ProcessInfo,
    /// Ancestors, nearest first.
    pub parents: Vec<ProcessInfo>,
    /// What.
    #[serde(flatten)]
    pub activity: Activity,
    /// How many equal ones this event stands for.
    #[serde(default = "one")]
    pub count: u64,
}

/// What a process did. The tag in JSON is `activity`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "activity", rename_all = "snake_case")]
pub enum Activity {
    /// Made a process (`fork`, `clone` without `CLONE_THREAD`).
    Fork {
        /// The new process.
        child: ProcessKey,
        /// New namespaces that it got: `mnt`, `pid`, `net`, `user`, `uts`, `ipc`, `cgroup`,
        /// `time`.
        namespaces: Vec<String>,
    },
    /// Ended.
    Exit {
        /// Exit status, 0 to 255.
        code: u32,
        /// Signal that ended it.
        signal: Option<u32>,
    },
    /// Has other user ids or capabilities than before, other than by exec.
    Credentials {
        /// The system call or hook that showed it, e.g. `setuid`.
        call: String,
        /// Real user id before.
        old_uid: u32,
        /// Effective user id before.
        old_euid: u32,
        /// Real user id after.
        new_uid: u32,
        /// Effective user id after.
        new_euid: u32,
    },
    /// `ptrace`.
    Ptrace {
        /// `attach`, `seize`, `poke`, `traceme`, or the request's number.
        request: String,
        /// The other process.
        target: Box<ProcessInfo>,
    },
    /// `process_vm_writev`, or a write to `/proc/PID/mem`.
    MemoryWrite {
        /// Whose memory.
        target: Box<ProcessInfo>,
    },
    /// A signal to the agent or one of its workers.
    Signal {
        /// Its number.
        signal: u32,
        /// Who gets it.
        target: Box<ProcessInfo>,
    },
    /// A kernel module was loaded.
    ModuleLoad {
        /// Its name.
        name: String,
        /// True when it taints the kernel (out of tree, unsigned, forced).
        tainted: bool,
    },
    /// An eBPF program was loaded.
    BpfLoad {
        /// The program type's name, e.g. `kprobe`.
        program_type: String,
        /// Name that its author gave it.
        name: String,
    },
    /// `memfd_create`.
    Memfd {
        /// Its name.
        name: String,
    },
    /// `mount`, `move_mount`, `umount` …
    Mount {
        /// The system call.
        call: String,
        /// Where it is mounted.
        target: String,
        /// What is mounted; empty when unknown.
        source: String,
        /// File system type; empty when unknown.
        fs_type: String,
    },
    /// `setns` or `unshare`.
    Namespaces {
        /// The system call.
        call: String,
        /// As in [`Activity::Fork`].
        namespaces: Vec<String>,
    },
}

impl Activity {
    /// The tag, as in JSON.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Fork { .. } => "fork",
            Self::Exit { .. } => "exit",
            Self::Credentials { .. } => "credentials",
            Self::Ptrace { .. } => "ptrace",
            Self::MemoryWrite { .. } => "memory_write",
            Self::Signal { .. } => "signal",
            Self::ModuleLoad { .. } => "module_load",
            Self::BpfLoad { .. } => "bpf_load",
            Self::Memfd { .. } => "memfd",
            Self::Mount { .. } => "mount",
            Self::Namespaces { .. } => "namespaces",
        }
    }
}

/// A process used the network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkEvent {
    /// Who did it; for `accept`, who listens.
    pub process: ProcessInfo,
    /// Ancestors, nearest first.
    pub parents: Vec<ProcessInfo>,
    /// `connect`, `accept`, `bind`, `listen`, `send` (UDP to a new peer), `dns_question`,
    /// `dns_answer`.
    pub action: String,
    /// `tcp`, `udp`, or the protocol's number.
    pub protocol: String,
    /// This host's address, empty when not chosen yet.
    pub local_address: String,
    /// This host's port, 0 when not chosen yet.
    pub local_port: u16,
    /// The other side's address; empty for bind and listen.
    pub remote_address: String,
    /// The other side's port.
    pub remote_port: u16,
    /// The name that was asked for; empty but for DNS.
    #[serde(default)]
    pub dns_name: String,
    /// `A`, `AAAA`, `TXT`…; empty but for DNS.
    #[serde(default)]
    pub dns_type: String,
    /// Addresses and names that were answered.
    #[serde(default)]
    pub dns_answers: Vec<String>,
    /// How many equal ones this event stands for.
    #[serde(default = "one")]
    pub count: u64,
}

/// Somebody touched a file that the policy's list names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileEvent {
    /// Who did it; only its key where it was gone before it could be looked at.
    pub process: ProcessInfo,
    /// Ancestors, nearest first.
    pub parents: Vec<ProcessInfo>,
    /// `read`, `open_write` (a writer closed it, no write was seen), `write`, `truncate` (a log is
    /// shorter than it was), `create`, `rename`, `delete`, `attributes` (mode, owner, times,
    /// extended attributes, links), `mass_rewrite`.
    pub action: String,
    /// The file.
    pub path: String,
    /// Its name before, for a rename.
    #[serde(default)]
    pub from: Option<String>,
    /// Which part of the list: `credentials`, `cron`, `systemd`, `ssh_keys`, `shell_profile`,
    /// `preload`, `sudoers`, `pam`, `kernel`, `web_root`, `logs`, `agent`, `watched`.
    pub class: String,
    /// Permission bits after it happened, where the file is still there.
    #[serde(default)]
    pub mode: Option<u32>,
    /// True when a set-user-id or set-group-id bit is there now.
    #[serde(default)]
    pub set_id: bool,
    /// How many equal ones this event stands for.
    #[serde(default = "one")]
    pub count: u64,
}

/// One line of a self-proof that differs from the last time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProofEvent {
    /// What was to be proven, e.g. `on access: /srv`.
    pub capability: String,
    /// Proven or not.
    pub ok: bool,
    /// What was seen.
    pub evidence: String,
}

/// The host was cut off from the network, or released.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IsolationEvent {
    /// `isolated`, `released`, `restored` (at boot or after an upgrade), `refused` (rolled back),
    /// `expired`, `broken` (somebody removed a part).
    pub action: String,
    /// Why, or who asked.
    pub reason: String,
    /// The addresses that stay reachable.
    pub allowed: Vec<String>,
}

/// A terminal of this host that the manager's people use.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShellEvent {
    /// Its response task.
    pub task: Uuid,
    /// `opened`, `refused` or `closed`.
    pub action: String,
    /// Who opened it.
    pub by: String,
    /// Why; of `refused` and `closed`: how that came.
    pub reason: String,
    /// The fixed commands alone.
    pub restricted: bool,
    /// How long it was open, seconds.
    pub open_s: u64,
}

/// Somebody interfered with the agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TamperingEvent {
    /// Who, when it is known.
    pub process: Option<ProcessInfo>,
    /// Ancestors, nearest first.
    pub parents: Vec<ProcessInfo>,
    /// What: `signal`, `ptrace`, `unlink`, `write`, `detach`, `unit_disabled`…
    pub action: String,
    /// What it was done to.
    pub target: String,
    /// True when it was denied.
    pub denied: bool,
    /// How many equal ones this event stands for.
    #[serde(default = "one")]
    pub count: u64,
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
    /// Inode of the network namespace of an interface that was found promiscuous, else 0.
    #[serde(default)]
    pub network_namespace: u64,
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

/// A policy of the manager's.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyEvent {
    /// `applied`, `refused` or `removed`.
    pub action: String,
    /// Its name.
    pub name: String,
    /// Which version.
    pub version: u64,
    /// Why it was refused.
    pub error: Option<String>,
    /// What of it weakens the host much.
    pub warnings: Vec<String>,
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
