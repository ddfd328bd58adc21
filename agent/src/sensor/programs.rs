//! Loads and attaches the eBPF programs, each on its own: one that the kernel refuses leaves the
//! others standing and says why.
//!
//! Dropping [`Programs`] detaches all of them. Reads no records.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use aya::maps::{MapData, PerCpuArray, RingBuf};
use aya::programs::RawTracePoint;
use aya::programs::raw_trace_point::RawTracePointLinkId;
use aya::{Ebpf, EbpfLoader};
use holdfast_common::abi::{Field, KINDS, Kind};

use super::layout::Layout;

static OBJECT: &[u8] = aya::include_bytes_aligned!(env!("HOLDFAST_BPF_OBJECT"));

/// A program of the object.
pub(super) struct Program {
    /// For people.
    pub name: &'static str,
    /// The row of the counters.
    pub kind: Kind,
    function: &'static str,
    /// Raw tracepoint that it is attached to.
    pub tracepoint: &'static str,
    /// Without these it tells nothing and is not loaded.
    needs: &'static [Field],
    /// Without these it tells less.
    wants: &'static [Field],
}

/// A program and what became of it.
pub(super) struct Loaded {
    /// Which.
    pub program: &'static Program,
    /// Attached.
    pub active: bool,
    /// Why not, or what it cannot tell.
    pub note: Option<String>,
    link: Option<RawTracePointLinkId>,
}

/// What is in the kernel.
pub(super) struct Programs {
    /// Holds programs and links.
    object: Option<Arc<Mutex<Ebpf>>>,
    /// All of them.
    pub loaded: Vec<Loaded>,
    /// The socket program is attached only while somebody uses `CAP_NET_RAW`.
    pub(super) waits_for_capability: bool,
    /// Exec, fork, exit records.
    pub process_ring: Option<RingBuf<MapData>>,
    /// Socket records.
    pub network_ring: Option<RingBuf<MapData>>,
    counters: Counters,
}

/// By [`Kind`]: generated, lost.
type Counters = Option<Arc<PerCpuArray<MapData, [u64; 2]>>>;

/// The sum of all losses, for the reader.
pub(super) struct LossCounter(Counters);

impl LossCounter {
    /// Records lost since the start.
    pub(super) fn total(&self) -> u64 {
        (0..KINDS as u32).map(|kind| sum(&self.0, kind).1).sum()
    }
}

const WHO: [Field; 3] = [Field::TaskTgid, Field::TaskLeader, Field::TaskStart];

static PROGRAMS: [Program; 5] = [
    Program {
        name: "exec",
        kind: Kind::Exec,
        function: "process_exec",
        tracepoint: "sched_process_exec",
        needs: &WHO,
        wants: &[
            Field::TaskCred,
            Field::CredUid,
            Field::CredEuid,
            Field::TaskComm,
            Field::TaskLoginUid,
            Field::TaskParent,
            Field::TaskMm,
            Field::MmArgStart,
            Field::MmArgEnd,
            Field::MmExeFile,
            Field::FileMount,
            Field::FileDentry,
            Field::DentryParent,
            Field::DentryName,
            Field::DentryHash,
            Field::MountParent,
            Field::MountPoint,
            Field::MountMnt,
            Field::VfsmountRoot,
        ],
    },
    Program {
        name: "fork",
        kind: Kind::Fork,
        function: "process_fork",
        tracepoint: "sched_process_fork",
        needs: &WHO,
        wants: &[Field::TaskPid, Field::TaskParent],
    },
    Program {
        name: "exit",
        kind: Kind::Exit,
        function: "process_exit",
        tracepoint: "sched_process_exit",
        needs: &[
            Field::TaskTgid,
            Field::TaskLeader,
            Field::TaskStart,
            Field::TaskSignal,
            Field::SignalLive,
        ],
        wants: &[],
    },
    Program {
        name: "use of CAP_NET_RAW",
        kind: Kind::Capability,
        function: "network_capability",
        tracepoint: "cap_capable",
        needs: &WHO,
        wants: &[],
    },
    Program {
        name: "packet and raw sockets",
        kind: Kind::Socket,
        function: "network_sockets",
        tracepoint: "sys_exit",
        needs: &[
            Field::TaskTgid,
            Field::TaskLeader,
            Field::TaskStart,
            Field::TaskFiles,
            Field::FilesFdt,
            Field::FdtableMax,
            Field::FdtableFd,
            Field::FileInode,
            Field::FilePrivate,
            Field::InodeSuper,
            Field::SuperMagic,
            Field::SocketSock,
            Field::SocketType,
            Field::SockFamily,
        ],
        wants: &[
            Field::TaskCred,
            Field::CredUid,
            Field::CredEuid,
            Field::TaskComm,
            Field::TaskStatus,
            Field::InodeNumber,
            Field::SockProtocol,
            Field::PacketNum,
            Field::PacketInterface,
            Field::PacketMemberships,
            Field::MembershipType,
            Field::MembershipInterface,
        ],
    },
];

impl Programs {
    /// Loads everything that this kernel takes.
    pub(super) fn load(layout: &Layout) -> Self {
        let loaded = EbpfLoader::new()
            .btf(None)
            .override_global("OFFSETS", layout.offsets.as_slice(), true)
            .load(OBJECT);
        match loaded {
            Ok(object) => Self::attach_all(object, layout),
            Err(error) => Self::none(&chain(&error)),
        }
    }

    fn attach_all(mut object: Ebpf, layout: &Layout) -> Self {
        let mut loaded: Vec<Loaded> =
            PROGRAMS.iter().map(|program| attach(&mut object, program, layout)).collect();
        let sockets = detach_until_wanted(&mut object, &mut loaded);
        let mut ring = |name| object.take_map(name).and_then(|map| RingBuf::try_from(map).ok());
        Self {
            loaded,
            waits_for_capability: sockets,
            process_ring: ring("PROCESS_EVENTS"),
            network_ring: ring("NETWORK_EVENTS"),
            counters: object
                .take_map("COUNTERS")
                .and_then(|map| PerCpuArray::try_from(map).ok())
                .map(Arc::new),
            object: Some(Arc::new(Mutex::new(object))),
        }
    }

    fn none(why: &str) -> Self {
        let loaded = PROGRAMS.iter().map(|program| Loaded {
            program,
            active: false,
            note: Some(why.to_owned()),
            link: None,
        });
        Self {
            loaded: loaded.collect(),
            waits_for_capability: false,
            process_ring: None,
            network_ring: None,
            counters: None,
            object: None,
        }
    }

    /// Generated and lost records of a kind.
    pub(super) fn count(&self, kind: Kind) -> (u64, u64) {
        sum(&self.counters, kind as u32)
    }

    /// The socket program's switch; `None` when it is attached for good, or cannot be.
    pub(super) fn on_demand(&self) -> Option<OnDemand> {
        let object = Arc::clone(self.object.as_ref().filter(|_| self.waits_for_capability)?);
        Some(OnDemand { object, attached: None })
    }

    /// The losses, for a thread of its own.
    pub(super) fn loss_counter(&self) -> LossCounter {
        LossCounter(self.counters.clone())
    }

    /// True when this kind of record comes.
    pub(super) fn is_active(&self, kind: Kind) -> bool {
        self.loaded.iter().any(|loaded| loaded.program.kind == kind && loaded.active)
    }
}

/// Attaches the socket program while it is wanted: each system call of the whole host costs more
/// (about 200 ns on the machine where it was measured) as long as it is there.
pub(super) struct OnDemand {
    object: Arc<Mutex<Ebpf>>,
    attached: Option<(RawTracePointLinkId, Instant)>,
}

impl OnDemand {
    /// Attached this long after the last wish.
    const STAY: Duration = Duration::from_secs(30);

    /// Attaches it, or lets it stay.
    pub(super) fn want(&mut self) {
        let until = Instant::now() + Self::STAY;
        if let Some((_, end)) = &mut self.attached {
            *end = until;
            return;
        }
        let mut object = self.object.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(program) = sockets(&mut object) else { return };
        match program.attach("sys_exit") {
            Ok(link) => self.attached = Some((link, until)),
            Err(error) => tracing::error!(error = chain(&error), "cannot attach to sys_exit"),
        }
    }

    /// Detaches it when nobody wants it any more.
    pub(super) fn tick(&mut self) {
        let Some((link, end)) = self.attached.take() else { return };
        if Instant::now() < end {
            self.attached = Some((link, end));
            return;
        }
        let mut object = self.object.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(program) = sockets(&mut object)
            && let Err(error) = program.detach(link)
        {
            tracing::error!(error = chain(&error), "cannot detach from sys_exit");
        }
    }
}

fn sockets(object: &mut Ebpf) -> Option<&mut RawTracePoint> {
    object.program_mut("network_sockets")?.try_into().ok()
}

/// Takes the socket program off again when the kernel tells who uses `CAP_NET_RAW`. Before 6.14
/// it does not, and the program stays.
fn detach_until_wanted(object: &mut Ebpf, loaded: &mut [Loaded]) -> bool {
    let active = |kind: Kind| loaded.iter().position(|one| one.program.kind == kind && one.active);
    let (Some(_), Some(at)) = (active(Kind::Capability), active(Kind::Socket)) else {
        return false;
    };
    let Some(link) = loaded[at].link.take() else { return false };
    sockets(object).is_some_and(|program| program.detach(link).is_ok())
}

fn sum(counters: &Counters, kind: u32) -> (u64, u64) {
    let values = counters.as_ref().and_then(|counters| counters.get(&kind, 0).ok());
    values.map_or((0, 0), |values| {
        values.iter().fold((0, 0), |(made, lost), [more, missed]| (made + more, lost + missed))
    })
}

fn attach(object: &mut Ebpf, program: &'static Program, layout: &Layout) -> Loaded {
    let inactive = |note: String| Loaded { program, active: false, note: Some(note), link: None };
    if program.kind == Kind::Socket && cfg!(not(target_arch = "x86_64")) {
        return inactive("the program knows the registers of x86-64 alone".to_owned());
    }
    let missing = layout.missing_of(program.needs);
    if !missing.is_empty() {
        return inactive(layout.problem.clone().unwrap_or_else(|| missing.join("; ")));
    }
    match load_and_attach(object, program) {
        Ok(link) => {
            let missing = layout.missing_of(program.wants);
            let note = (!missing.is_empty()).then(|| format!("without {}", missing.join("; ")));
            Loaded { program, active: true, note, link: Some(link) }
        }
        Err(note) => inactive(note),
    }
}

fn load_and_attach(object: &mut Ebpf, program: &Program) -> Result<RawTracePointLinkId, String> {
    let found = object.program_mut(program.function).ok_or("not in the object")?;
    let tracepoint: &mut RawTracePoint =
        found.try_into().map_err(|error: aya::programs::ProgramError| chain(&error))?;
    tracepoint.load().map_err(|error| chain(&error))?;
    tracepoint.attach(program.tracepoint).map_err(|error| chain(&error))
}

/// An error with its causes in one line, cut: a verifier's log may have a megabyte.
fn chain(error: &dyn std::error::Error) -> String {
    const MOST: usize = 2000;
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text.push_str(": ");
        text.push_str(&inner.to_string());
        cause = inner.source();
    }
    // The end of a verifier's log says why.
    let start = text.len().saturating_sub(MOST);
    let start = (start..text.len()).find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    text[start..].replace('\n', " | ")
}
