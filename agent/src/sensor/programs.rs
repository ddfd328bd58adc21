//! Loads and attaches the eBPF programs, each on its own: one that the kernel refuses leaves the
//! others standing and says why.
//!
//! Dropping [`Programs`] detaches all of them. Reads no records.

use std::sync::Arc;

use aya::maps::{MapData, PerCpuArray, RingBuf};
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
}

/// What is in the kernel.
pub(super) struct Programs {
    /// Holds programs and links.
    _object: Option<Ebpf>,
    /// All of them.
    pub loaded: Vec<Loaded>,
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

static PROGRAMS: [Program; 4] = [
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
        let loaded = PROGRAMS.iter().map(|program| attach(&mut object, program, layout)).collect();
        let mut ring = |name| object.take_map(name).and_then(|map| RingBuf::try_from(map).ok());
        Self {
            loaded,
            process_ring: ring("PROCESS_EVENTS"),
            network_ring: ring("NETWORK_EVENTS"),
            counters: object
                .take_map("COUNTERS")
                .and_then(|map| PerCpuArray::try_from(map).ok())
                .map(Arc::new),
            _object: Some(object),
        }
    }

    fn none(why: &str) -> Self {
        let loaded = PROGRAMS.iter().map(|program| Loaded {
            program,
            active: false,
            note: Some(why.to_owned()),
        });
        Self {
            loaded: loaded.collect(),
            process_ring: None,
            network_ring: None,
            counters: None,
            _object: None,
        }
    }

    /// Generated and lost records of a kind.
    pub(super) fn count(&self, kind: Kind) -> (u64, u64) {
        sum(&self.counters, kind as u32)
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

fn sum(counters: &Counters, kind: u32) -> (u64, u64) {
    let values = counters.as_ref().and_then(|counters| counters.get(&kind, 0).ok());
    values.map_or((0, 0), |values| {
        values.iter().fold((0, 0), |(made, lost), [more, missed]| (made + more, lost + missed))
    })
}

fn attach(object: &mut Ebpf, program: &'static Program, layout: &Layout) -> Loaded {
    let inactive = |note: String| Loaded { program, active: false, note: Some(note) };
    if program.kind == Kind::Socket && cfg!(not(target_arch = "x86_64")) {
        return inactive("the program knows the registers of x86-64 alone".to_owned());
    }
    let missing = layout.missing_of(program.needs);
    if !missing.is_empty() {
        return inactive(layout.problem.clone().unwrap_or_else(|| missing.join("; ")));
    }
    match load_and_attach(object, program) {
        Ok(()) => {
            let missing = layout.missing_of(program.wants);
            let note = (!missing.is_empty()).then(|| format!("without {}", missing.join("; ")));
            Loaded { program, active: true, note }
        }
        Err(note) => inactive(note),
    }
}

fn load_and_attach(object: &mut Ebpf, program: &Program) -> Result<(), String> {
    let found = object.program_mut(program.function).ok_or("not in the object")?;
    let tracepoint: &mut aya::programs::RawTracePoint =
        found.try_into().map_err(|error: aya::programs::ProgramError| chain(&error))?;
    tracepoint.load().map_err(|error| chain(&error))?;
    tracepoint.attach(program.tracepoint).map_err(|error| chain(&error))?;
    Ok(())
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
