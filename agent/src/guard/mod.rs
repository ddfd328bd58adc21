//! Self-protection. Where the kernel has BPF LSM, its programs deny to everybody but the agent,
//! process 1 and the package managers what would stop the agent, look into it, or change its
//! files and eBPF objects; where not, what the sensor saw of that is told ([`tampering_of`]).
//!
//! Follow a denial: `ebpf/src/guard.rs` (a hook), [`watch`] (the record becomes an event).
//! INVARIANT: "denies" is said only after the kernel has denied and told a signal and a write of a
//! child of the agent's own ([`trial`]): programs that load and attach may never run, or let pass.
//! Nothing is pinned: when the agent ends, however it ends, the protection ends with it.

mod layout;
mod programs;
mod repeats;
mod subjects;
mod tell;
mod trial;
mod watch;

use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use holdfast_common::control::DoctorLine;
use holdfast_common::event::{EventBody, TamperingEvent};
use rustix::event::{EventfdFlags, eventfd};

pub use tell::{Own, tampering_of};
pub use trial::{WORD as TRIAL, main as trial_main};

use crate::config::Config;
use crate::sensor::ProcessTable;
use programs::{Counted, Hooks};

/// The kernel's security modules, in the order in which they are asked.
const MODULES: &str = "/sys/kernel/security/lsm";

/// What the protection needs.
pub struct Needs {
    /// The agent's config.
    pub config: Config,
    /// The file that it came from.
    pub config_path: PathBuf,
    /// Names who did it.
    pub table: Arc<ProcessTable>,
    /// Is told whether the kernel denies.
    pub seen: Arc<Seen>,
    /// Gets [`EventBody::Tampering`] and [`EventBody::Loss`].
    pub report: Box<dyn Fn(EventBody) + Send>,
}

/// Tells of tampering that the sensor sees, as long as nothing denies it.
#[derive(Debug)]
pub struct Seen {
    own: Own,
    denied: AtomicBool,
}

impl Seen {
    /// For this process.
    #[must_use]
    pub fn new(own: Own) -> Self {
        Self { own, denied: AtomicBool::new(false) }
    }

    /// See [`tampering_of`]. Nothing where the kernel denies: what then happens all the same, an
    /// exempt process did.
    #[must_use]
    pub fn tampering_of(&self, event: &EventBody) -> Option<TamperingEvent> {
        if self.denied.load(Ordering::Acquire) { None } else { tampering_of(event, &self.own) }
    }
}

/// Owns the programs; dropping it takes them off.
pub struct Guard {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

struct Shared {
    state: Mutex<State>,
    stopping: AtomicBool,
    /// Readable when stopping.
    wake: Option<OwnedFd>,
}

#[derive(Debug, Clone)]
enum State {
    Starting,
    Off,
    /// Why nothing is denied here.
    Unavailable(String),
    Denies(Box<Standing>),
}

/// What stands.
#[derive(Debug, Clone, Default)]
struct Standing {
    hooks: Hooks,
    files: usize,
    /// Paths that are there and were shown.
    shown: usize,
    upgraders: usize,
    objects: usize,
    counted: Counted,
    /// What the newest trial found wrong.
    unproven: Option<String>,
}

impl Guard {
    /// Begins on a thread of its own: loading takes up to a second. Never fails as a whole; what
    /// stands is in [`Guard::doctor`].
    pub fn start(needs: Needs) -> Self {
        let enabled = needs.config.self_protection.enabled;
        let shared = Arc::new(Shared {
            state: Mutex::new(if enabled { State::Starting } else { State::Off }),
            stopping: AtomicBool::new(false),
            wake: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).ok(),
        });
        let mut thread = None;
        if enabled {
            let own = Arc::clone(&shared);
            let begun = std::thread::Builder::new()
                .name("guard".to_owned())
                .spawn(move || watch::run(&own, &needs));
            match begun {
                Ok(begun) => thread = Some(begun),
                Err(error) => {
                    shared.set(State::Unavailable(format!("its thread does not start: {error}")));
                }
            }
        }
        Self { shared, thread: Mutex::new(thread) }
    }

    /// Takes the programs off.
    pub fn stop(&self) {
        self.shared.stopping.store(true, Ordering::Release);
        if let Some(wake) = &self.shared.wake {
            // Never read, so it stays readable.
            let _ = rustix::io::write(wake, &1u64.to_ne_bytes());
        }
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            // A panic there has been reported by the panic hook.
            let _ = thread.join();
        }
    }

    /// What is red: a trial that was not denied, and hooks that the kernel refused although it
    /// runs others. A kernel that cannot deny at all is not red; `doctor` says so.
    pub fn problems(&self) -> Vec<String> {
        let State::Denies(standing) = self.shared.state().clone() else { return Vec::new() };
        let unproven = standing.unproven.iter();
        unproven
            .map(|why| format!("self-protection does not deny: {why}"))
            .chain(
                standing
                    .hooks
                    .refused
                    .iter()
                    .map(|(hook, why)| format!("self-protection lacks {hook}: {why}")),
            )
            .collect()
    }

    /// The lines of `holdfast doctor`.
    pub fn doctor(&self) -> Vec<DoctorLine> {
        let state = self.shared.state().clone();
        let line = |ok: bool, evidence: String, advice: Option<&str>| DoctorLine {
            check: "self-protection: denied by the kernel (BPF LSM)".to_owned(),
            ok,
            evidence,
            advice: advice.map(str::to_owned),
        };
        match state {
            State::Starting => vec![line(false, "still loading".to_owned(), None)],
            State::Off => vec![line(
                false,
                "switched off in the config".to_owned(),
                Some("set enabled = true under [self_protection]"),
            )],
            State::Unavailable(why) => vec![line(
                false,
                format!("not available, so that tampering is told but not denied: {why}"),
                Some(
                    "boot a kernel with CONFIG_BPF_LSM, and bpf in its list of security modules (lsm=…,bpf)",
                ),
            )],
            State::Denies(standing) => {
                let evidence = evidence(&standing);
                let mut lines = vec![match &standing.unproven {
                    None => line(true, format!("a trial was denied; {evidence}"), None),
                    Some(why) => line(
                        false,
                        format!("a trial was not denied: {why}; {evidence}"),
                        Some("tampering is told as the sensor sees it; tried again every minute"),
                    ),
                }];
                lines.extend(standing.hooks.refused.iter().map(|(hook, why)| DoctorLine {
                    check: format!("self-protection: {hook}"),
                    ok: false,
                    evidence: format!("not attached: {why}"),
                    advice: None,
                }));
                lines
            }
        }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, state: State) {
        *self.state() = state;
    }

    fn stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }
}

fn evidence(standing: &Standing) -> String {
    let absent = match standing.hooks.absent.as_slice() {
        [] => String::new(),
        absent => format!("; this kernel has no {}", absent.join(", ")),
    };
    format!(
        "{} hooks run; {} paths ({} inodes), {} eBPF objects, {} package managers known; \
         {} denied, {} let through as exempt, {} records lost{absent}",
        standing.hooks.active.len(),
        standing.shown,
        standing.files,
        standing.objects,
        standing.upgraders,
        standing.counted.denied,
        standing.counted.exempt,
        standing.counted.lost,
    )
}
