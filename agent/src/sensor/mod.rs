//! What runs on this host and who opens packet sockets: eBPF programs, the process table, and
//! the reader that turns records into events.
//!
//! Follow a record: `ebpf/src/process.rs` or `network.rs` (the kernel's side), [`reader`] (the
//! ring buffers), [`decode`], `process.rs`, `activity.rs` or `network.rs` here (the table is brought
//! up to date, the event is made, or put together with its like by [`gather`]), the sink. Which
//! program is attached where stands in [`programs`].
//! Nothing here blocks on a process that it looks at, but the threads that fill in the arguments
//! of processes that were there before the agent.

mod activity;
pub mod btf;
pub mod decode;
pub mod files;
mod gather;
pub mod images;
mod kernel_log;
pub mod layout;
mod links;
mod namespaces;
mod network;
mod poll;
pub mod proc;
mod process;
mod programs;
mod reader;
mod shared;
mod storms;
pub mod table;
mod traffic;

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use holdfast_common::abi::{ARGS_MAX, Kind};
use holdfast_common::control::{DoctorLine, SensorState};

use crate::config;
pub use images::ImageHashes;
pub use proc::observe;
pub use shared::Sink;
pub use table::ProcessTable;

use layout::Layout;
use programs::{ATTEMPTS, Programs};
use reader::Reader;
use shared::Shared;

/// What the sensor is built from.
pub struct Needs {
    /// Which parts.
    pub config: config::Sensor,
    /// Kept up to date.
    pub table: Arc<ProcessTable>,
    /// Hashes of programs; `None` where no exec is held.
    pub hashes: Option<ImageHashes>,
    /// Patterns of the agent's own files, which are watched with those that matter.
    pub own_files: Vec<String>,
    /// Gets every event, from the reader thread and (for `found` sockets) the poll thread. It
    /// must not wait for the sensor.
    pub sink: Sink,
}

/// Owns the loaded programs and the reader threads; dropping it stops it.
pub struct Sensor {
    programs: Programs,
    shared: Arc<Shared>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    problem: Option<String>,
    missing: Vec<String>,
    files: Option<Arc<files::Account>>,
}

impl Sensor {
    /// Loads, attaches and reads. Never fails as a whole: what could not be loaded is in
    /// [`Sensor::states`].
    pub fn start(needs: Needs) -> Self {
        let policy =
            files::Policy { files: needs.config.files.clone(), own: needs.own_files.clone() };
        let layout = Layout::of_running_kernel();
        let mut programs = Programs::load(&layout, &needs.config);
        let follows = [Kind::Exec, Kind::Fork, Kind::Exit]
            .into_iter()
            .all(|kind| programs.sight(kind).active);
        // What started between the table's first look and the programs.
        needs.table.sync_with_proc();
        let shared = Arc::new(Shared::new(needs, follows));
        let mut threads = Vec::new();
        let mut problem = layout.problem;
        if let Some(process) = programs.process_ring.take() {
            let reader = Reader {
                shared: Arc::clone(&shared),
                process,
                rings: std::mem::take(&mut programs.rings),
                lost: programs.loss_counter(),
                seen_lost: 0,
                log: programs.log.take(),
                on_demand: programs.on_demand(),
            };
            spawn(&mut threads, &mut problem, "sensor", move || reader.run());
        }
        let poller = Arc::clone(&shared);
        spawn(&mut threads, &mut problem, "sensor-poll", move || poller.poll());
        let files = policy.files.enabled.then(|| {
            let account: Arc<files::Account> = Arc::default();
            let watcher = files::Watcher::new(Arc::clone(&shared), Arc::clone(&account), policy);
            if let Some(watcher) = watcher {
                spawn(&mut threads, &mut problem, "sensor-files", move || watcher.run());
            }
            account
        });
        shared::fill_arguments(&shared);
        let missing = layout.missing.into_iter().map(|(_, text)| text).collect();
        Self { programs, shared, threads: Mutex::new(threads), problem, missing, files }
    }

    /// Detaches the programs, tells what they still had seen, and what waited for its like. The
    /// account is exact then. A second call does nothing.
    pub fn stop(&self) {
        self.programs.unload();
        self.shared.stop();
        let mut threads = self.threads.lock().unwrap_or_else(PoisonError::into_inner);
        for thread in threads.drain(..) {
            // A panic there has been reported by the panic hook.
            let _ = thread.join();
        }
    }

    /// What the sensor sees, and the account of each kind of record: generated = delivered +
    /// aggregated + lost, but for what is still in a ring buffer.
    pub fn states(&self) -> Vec<SensorState> {
        let mut states: Vec<SensorState> =
            Kind::ALL.iter().filter_map(|kind| self.state(*kind)).collect();
        let found = self.shared.found.load(Ordering::Relaxed);
        states.push(SensorState {
            name: "packet sockets (fallback)".to_owned(),
            mechanism: "/proc/net/packet, raw, raw6, nfnetlink_log: 5 s; rtnetlink".to_owned(),
            active: true,
            note: None,
            generated: found,
            delivered: found,
            aggregated: 0,
            lost: 0,
        });
        states.extend(self.files.as_ref().map(|account| account.state()));
        states
    }

    /// True once every file of the list that was there at the start is watched.
    pub fn files_are_watched(&self) -> bool {
        self.files.as_ref().is_some_and(|account| account.walked())
    }

    /// The sensor's lines of `holdfast doctor`.
    pub fn doctor(&self) -> Vec<DoctorLine> {
        let mut lines = vec![DoctorLine {
            check: "kernel type information (BTF)".to_owned(),
            ok: self.problem.is_none(),
            evidence: match (&self.problem, self.missing.as_slice()) {
                (Some(problem), _) => problem.clone(),
                (None, []) => "every field that the sensor reads was found".to_owned(),
                (None, missing) => format!("not in this kernel: {}", missing.join("; ")),
            },
            advice: self
                .problem
                .as_ref()
                .map(|_| "boot a kernel with CONFIG_DEBUG_INFO_BTF, and mount /sys".to_owned()),
        }];
        lines.extend(self.states().into_iter().map(|state| DoctorLine {
            ok: state.active && state.lost == 0,
            evidence: evidence(&state),
            advice: advice(&state),
            check: format!("sensor: {} ({})", state.name, state.mechanism),
        }));
        lines.extend(self.blind_spots());
        let (living, ended, refused) = self.shared.table.sizes();
        lines.push(DoctorLine {
            check: "process table".to_owned(),
            ok: refused == 0,
            evidence: format!(
                "{living} living, {ended} ended, {refused} without a place; \
                 arguments up to {ARGS_MAX} bytes"
            ),
            advice: None,
        });
        lines
    }

    /// What no program of this kernel sees, and why.
    fn blind_spots(&self) -> Vec<DoctorLine> {
        let line = |check: &str, ok: bool, evidence: &str| DoctorLine {
            check: format!("sensor: {check}"),
            ok,
            evidence: evidence.to_owned(),
            advice: None,
        };
        let memory = self.programs.sight(Kind::MemoryWrite);
        let through_files = memory.mechanism.contains("mem_write");
        let modules = self.programs.sight(Kind::ModuleLoad).active;
        let mut lines = vec![line(
            "SHA-256 of programs",
            self.shared.hashes.is_some(),
            "of programs on protected file systems, from the descriptor that holds their exec; \
             not of those that were only opened while their ignore mark stood, nor on overlays",
        )];
        if !through_files {
            // Not a failure of this agent: nothing that it could do here would show them.
            let why = "need BPF trampolines; opening it is not seen here either";
            lines.push(line("NOT SEEN: writes through /proc/PID/mem", true, why));
        }
        if !modules && !std::path::Path::new("/proc/modules").exists() {
            lines.push(line("kernel modules", true, "this kernel loads none"));
        }
        lines
    }

    /// `None` for what nobody misses here: kernel modules where the kernel has none; the use of
    /// CAP_NET_RAW where the kernel does not tell it, since the socket program is then always there.
    /// Whether a program tells of such deeds.
    #[must_use]
    pub fn sees(&self, kind: Kind) -> bool {
        self.programs.sight(kind).active
    }

    fn state(&self, kind: Kind) -> Option<SensorState> {
        let sight = self.programs.sight(kind);
        let missed = match kind {
            Kind::Capability => false,
            // A kernel without modules has no such tracepoint either.
            Kind::ModuleLoad => std::path::Path::new("/proc/modules").exists(),
            Kind::Exec
            | Kind::Fork
            | Kind::Exit
            | Kind::Socket
            | Kind::Connect
            | Kind::Accept
            | Kind::Bind
            | Kind::Listen
            | Kind::Send
            | Kind::Dns
            | Kind::Credentials
            | Kind::Ptrace
            | Kind::MemoryWrite
            | Kind::Signal
            | Kind::BpfLoad
            | Kind::Memfd
            | Kind::Mount
            | Kind::Namespaces => true,
        };
        if !missed && !sight.active {
            return None;
        }
        let (generated, lost) = self.programs.count(kind);
        let [delivered, aggregated, undecoded] = self.shared.account(kind);
        let while_wanted = kind == Kind::Socket && self.programs.waits_for_capability;
        Some(SensorState {
            name: kind.title().to_owned(),
            mechanism: if while_wanted {
                format!("{}, while CAP_NET_RAW is in use", sight.mechanism)
            } else {
                sight.mechanism
            },
            active: sight.active,
            note: sight.note,
            generated,
            delivered,
            aggregated,
            lost: lost + undecoded,
        })
    }
}

impl Drop for Sensor {
    fn drop(&mut self) {
        self.stop();
    }
}

fn spawn(
    threads: &mut Vec<JoinHandle<()>>,
    problem: &mut Option<String>,
    name: &str,
    body: impl FnOnce() + Send + 'static,
) {
    match std::thread::Builder::new().name(name.to_owned()).spawn(body) {
        Ok(thread) => threads.push(thread),
        Err(error) => *problem = Some(format!("cannot start thread {name}: {error}")),
    }
}

fn evidence(state: &SensorState) -> String {
    let account = format!(
        "{} generated, {} delivered, {} aggregated, {} lost",
        state.generated, state.delivered, state.aggregated, state.lost
    );
    match (&state.note, state.active) {
        (None, true) => account,
        (Some(note), true) => format!("{account}; {note}"),
        (note, false) => format!("not attached: {}", note.as_deref().unwrap_or("unknown")),
    }
}

fn advice(state: &SensorState) -> Option<String> {
    let attempts = state.note.as_deref().is_some_and(|note| note.starts_with(ATTEMPTS));
    if !state.active {
        Some("run as root with CAP_BPF and CAP_PERFMON on Linux 5.8 or later".to_owned())
    } else if attempts {
        Some("a kernel that allows BPF trampolines (fentry) shows what was really done".to_owned())
    } else if state.lost > 0 {
        Some("the host made records faster than they were read".to_owned())
    } else {
        None
    }
}
