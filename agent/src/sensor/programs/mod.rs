//! Loads and attaches the eBPF programs, each on its own: one that the kernel refuses leaves the
//! others standing and says why.
//!
//! Which programs there are stands in one table a subject ([`process`], [`activity`], [`network`],
//! [`traffic`]),
//! how each kind of program is attached in [`attach`]. [`Programs::unload`] takes them all
//! out again. Reads no records.

mod activity;
mod attach;
mod network;
mod on_demand;
mod process;
mod traffic;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use aya::maps::{Array, MapData, PerCpuArray, RingBuf};
use aya::{Ebpf, EbpfLoader};
use holdfast_common::abi::{Field, KINDS, Kind};

use self::attach::{Attach, Attacher, Link, chain};
pub(super) use self::on_demand::OnDemand;
use super::kernel_log::KernelLog;
use super::layout::Layout;
use crate::config;

static OBJECT: &[u8] = aya::include_bytes_aligned!(env!("HOLDFAST_BPF_OBJECT"));

/// The tables, in the order in which they are loaded.
const TABLES: [&[Program]; 4] =
    [&process::PROGRAMS, &network::PROGRAMS, &traffic::PROGRAMS, &activity::PROGRAMS];

/// Rings beside the one of processes, in the order in which they are read.
const RINGS: [&str; 3] = ["ACTIVITY_EVENTS", "NETWORK_EVENTS", "TRAFFIC_EVENTS"];

/// What the note of a kind begins with that is only seen by its attempts.
pub(super) const ATTEMPTS: &str = "attempts only";

/// When a program is loaded, and whether it is missed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    /// Always; a kind that lacks one is not wholly seen.
    Main,
    /// Always; adds to what others see.
    More,
    /// For kinds that lack one of their main programs, which must stand before it in the table.
    Instead,
}

/// A program of the object.
pub(super) struct Program {
    /// The kinds of its records: what it sees.
    pub kinds: &'static [Kind],
    /// Its name in the object.
    function: &'static str,
    attach: Attach,
    role: Role,
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
    link: Option<Link>,
}

/// What is in the kernel.
pub(super) struct Programs {
    /// Holds programs and links.
    object: Arc<Mutex<Option<Ebpf>>>,
    /// All of them.
    pub loaded: Vec<Loaded>,
    /// The socket program is attached only while somebody uses `CAP_NET_RAW`.
    pub(super) waits_for_capability: bool,
    /// Exec, fork, exit records.
    pub process_ring: Option<RingBuf<MapData>>,
    /// All other records.
    pub rings: Vec<RingBuf<MapData>>,
    /// What the programs log.
    pub log: Option<KernelLog>,
    counters: Counters,
}

/// What is seen of one kind, by what, and what is not.
pub(super) struct Sight {
    /// Some program sees it.
    pub active: bool,
    /// By which mechanism; what was tried when by none.
    pub mechanism: String,
    /// What is missing and why.
    pub note: Option<String>,
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

impl Programs {
    /// Loads everything that this kernel takes.
    pub(super) fn load(layout: &Layout, config: &config::Sensor) -> Self {
        let loaded = EbpfLoader::new()
            .btf(None)
            .override_global("OFFSETS", layout.offsets.as_slice(), true)
            .override_global("AGENT", &std::process::id(), true)
            .load(OBJECT);
        match loaded {
            Ok(object) => Self::attach_all(object, layout, config),
            Err(error) => Self::none(&chain(&error)),
        }
    }

    fn attach_all(mut object: Ebpf, layout: &Layout, config: &config::Sensor) -> Self {
        let mut attacher = Attacher::default();
        let mut loaded: Vec<Loaded> = Vec::new();
        for program in TABLES.into_iter().flatten() {
            let one = match program.role {
                Role::Main | Role::More => load_one(&mut object, &mut attacher, program, layout),
                Role::Instead => {
                    let unseen = unseen(&loaded, program.kinds);
                    if unseen.is_empty() {
                        continue;
                    }
                    if config.system_calls {
                        watch(&mut object, &unseen);
                        load_one(&mut object, &mut attacher, program, layout)
                    } else {
                        let note = Some("switched off (system_calls)".to_owned());
                        Loaded { program, active: false, note, link: None }
                    }
                }
            };
            loaded.push(one);
        }
        let waits_for_capability = on_demand::detach_until_wanted(&mut object, &mut loaded);
        let log = KernelLog::open(&mut object);
        let mut ring = |name| object.take_map(name).and_then(|map| RingBuf::try_from(map).ok());
        Self {
            loaded,
            waits_for_capability,
            process_ring: ring("PROCESS_EVENTS"),
            log,
            rings: RINGS.into_iter().filter_map(&mut ring).collect(),
            counters: object
                .take_map("COUNTERS")
                .and_then(|map| PerCpuArray::try_from(map).ok())
                .map(Arc::new),
            object: Arc::new(Mutex::new(Some(object))),
        }
    }

    fn none(why: &str) -> Self {
        let loaded = TABLES.into_iter().flatten().map(|program| Loaded {
            program,
            active: false,
            note: Some(why.to_owned()),
            link: None,
        });
        Self {
            loaded: loaded.collect(),
            waits_for_capability: false,
            process_ring: None,
            rings: Vec::new(),
            log: None,
            counters: None,
            object: Arc::default(),
        }
    }

    /// Generated and lost records of a kind.
    pub(super) fn count(&self, kind: Kind) -> (u64, u64) {
        sum(&self.counters, kind as u32)
    }

    /// How this kind is seen.
    pub(super) fn sight(&self, kind: Kind) -> Sight {
        let of_kind = || self.loaded.iter().filter(|one| one.program.kinds.contains(&kind));
        let covered = unseen(&self.loaded, &[kind]).is_empty();
        // One that stands in for the others is not by what a kind is seen that they see.
        let used = |one: &&Loaded| !covered || one.program.role != Role::Instead;
        let active = of_kind().filter(used).any(|one| one.active);
        let by: Vec<&Loaded> = of_kind().filter(used).filter(|one| one.active || !active).collect();
        let noted: Vec<(String, &str)> = of_kind()
            .filter(used)
            .filter_map(|one| Some((one.program.attach.to_string(), one.note.as_deref()?)))
            .collect();
        let mut notes = together(&noted);
        if active && by.iter().all(|one| one.program.role == Role::Instead) {
            notes.insert(0, ATTEMPTS.to_owned());
        }
        Sight {
            active,
            mechanism: by
                .iter()
                .map(|one| one.program.attach.to_string())
                .collect::<Vec<_>>()
                .join(", "),
            note: (!notes.is_empty()).then(|| notes.join("; ")),
        }
    }

    /// Takes all programs out of the kernel; what they have sent can still be read and counted.
    pub(super) fn unload(&self) {
        let taken = lock(&self.object).take();
        drop(taken);
    }

    /// The socket program's switch; `None` when it is attached for good, or cannot be.
    pub(super) fn on_demand(&self) -> Option<OnDemand> {
        self.waits_for_capability.then(|| OnDemand::new(Arc::clone(&self.object)))
    }

    /// The losses, for a thread of its own.
    pub(super) fn loss_counter(&self) -> LossCounter {
        LossCounter(self.counters.clone())
    }
}

fn lock(object: &Mutex<Option<Ebpf>>) -> MutexGuard<'_, Option<Ebpf>> {
    object.lock().unwrap_or_else(PoisonError::into_inner)
}

fn sum(counters: &Counters, kind: u32) -> (u64, u64) {
    let values = counters.as_ref().and_then(|counters| counters.get(&kind, 0).ok());
    values.map_or((0, 0), |values| {
        values.iter().fold((0, 0), |(made, lost), [more, missed]| (made + more, lost + missed))
    })
}

/// Equal notes once, with all whom they are about.
fn together(noted: &[(String, &str)]) -> Vec<String> {
    let mut notes: Vec<(&str, Vec<&str>)> = Vec::new();
    for (who, note) in noted {
        match notes.iter_mut().find(|(known, _)| known == note) {
            Some((_, all)) => all.push(who),
            None => notes.push((note, vec![who])),
        }
    }
    notes.into_iter().map(|(note, all)| format!("{}: {note}", all.join(", "))).collect()
}

/// Those of the kinds that lack one of their main programs.
fn unseen(loaded: &[Loaded], kinds: &[Kind]) -> Vec<Kind> {
    let main = |kind: &Kind| {
        let mut of_kind = loaded
            .iter()
            .filter(|one| one.program.kinds.contains(kind) && one.program.role == Role::Main);
        of_kind.any(|one| !one.active)
    };
    kinds.iter().copied().filter(main).collect()
}

/// Tells the watch of all system calls which kinds it is to report.
fn watch(object: &mut Ebpf, kinds: &[Kind]) {
    let bits = kinds.iter().fold(0u64, |bits, kind| bits | 1 << *kind as u32);
    let map = object.map_mut("WATCHED").and_then(|map| Array::<_, u64>::try_from(map).ok());
    if let Some(Err(error)) = map.map(|mut map| map.set(0, bits, 0)) {
        tracing::error!(error = chain(&error), "cannot choose what is watched");
    }
}

fn load_one(
    object: &mut Ebpf,
    attacher: &mut Attacher,
    program: &'static Program,
    layout: &Layout,
) -> Loaded {
    let inactive = |note: String| Loaded { program, active: false, note: Some(note), link: None };
    if program.attach.reads_registers() && cfg!(not(target_arch = "x86_64")) {
        return inactive("the program knows the registers of x86-64 alone".to_owned());
    }
    let missing = layout.missing_of(program.needs);
    if !missing.is_empty() {
        return inactive(layout.problem.clone().unwrap_or_else(|| missing.join("; ")));
    }
    match attacher.attach(object, program.function, &program.attach) {
        Ok(link) => {
            let missing = layout.missing_of(program.wants);
            let note = (!missing.is_empty()).then(|| format!("without {}", missing.join("; ")));
            Loaded { program, active: true, note, link: Some(link) }
        }
        Err(note) => inactive(note),
    }
}
