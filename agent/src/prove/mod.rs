//! Self-proof: the protection is made to act, every few minutes, and what is seen of that *is*
//! the health of the host.
//!
//! Follow a round in [`round`]: plant markers ([`marker`]), let a child do what must be noticed
//! ([`probe`]), collect what the parts saw ([`witness`]), turn it into lines ([`lines`]). Between
//! rounds [`checks`] are looked at, and what differs from the last proof brings the next one at
//! once.
//!
//! INVARIANT: a line is green only by what was observed in its own round. Nothing here answers
//! opens, repairs, or is waited for by anybody who is held.

mod checks;
mod lines;
mod marker;
mod probe;
mod round;
mod witness;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use holdfast_common::control::{BundleState, FileSystemState, ProofState, QuarantineState};
use holdfast_common::event::EventBody;
use uuid::Uuid;

pub(crate) use self::marker::is_name as is_marker_name;
pub use self::probe::{WORD as PROBE, main as probe_main};
pub use self::witness::{Fate, FileId, Witness};

use self::lines::Lines;
use self::round::Depth;
use crate::config::SelfProof;

/// Title of the model that fires for the prover's own process.
pub const MODEL: &str = "Holdfast Self-Proof";

/// Between two looks at what needs no marker.
const LOOK: Duration = Duration::from_secs(10);
/// Between two quick rounds: one file system in turn, nothing sealed, no packet socket.
const QUICK: Duration = Duration::from_secs(30);
/// A whole round that a look asks for is not repeated sooner.
const PAUSE: Duration = Duration::from_secs(20);
/// Until the first round has ended nobody is red for want of proof.
const GRACE: Duration = Duration::from_secs(60);

/// The agent as the prover sees it. Calls may block, but never on a held open.
pub trait Protection: Send + Sync {
    /// What is protected.
    fn file_systems(&self) -> Vec<FileSystemState>;
    /// Whether the file system of a folder carries a mark; `None` where that cannot be told (an
    /// overlay whose layers are marked instead).
    fn is_marked(&self, folder: &Path) -> Option<bool>;
    /// Malicious opens are denied, not only reported.
    fn blocks(&self) -> bool;
    /// Nobody waits longer for an answer.
    fn deadline(&self) -> Duration;
    /// The rules in use, and whether the config names a bundle.
    fn bundle(&self) -> (BundleState, bool);
    /// The sensor is to be there, and what it does not see.
    fn sensor(&self) -> Option<Vec<String>>;
    /// The model named [`MODEL`] is on.
    fn model_is_on(&self) -> bool;
    /// The quarantine's limit in bytes and what is used of it.
    fn quarantine(&self) -> (u64, QuarantineState);
    /// Items that markers left: id, and the path that each had.
    fn items_of_markers(&self) -> Vec<(Uuid, PathBuf)>;
    /// Destroys a marker's item.
    fn destroy_item(&self, id: Uuid) -> Result<(), String>;
    /// Writes an event; the id by which it can be read back.
    fn record(&self, event: EventBody) -> Uuid;
    /// True when that event is on disk.
    fn is_journalled(&self, id: Uuid) -> Result<bool, String>;
}

/// The prover's thread, and what it last found.
pub struct Prover {
    inner: Arc<Inner>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

struct Inner {
    config: SelfProof,
    state_dir: PathBuf,
    program: PathBuf,
    protection: Arc<dyn Protection>,
    witness: Arc<Witness>,
    lines: Mutex<Lines>,
    /// One round at a time.
    round: Mutex<()>,
    baseline: Mutex<Baseline>,
    turn: Mutex<usize>,
    stopping: Mutex<bool>,
    wake: Condvar,
    /// A whole round is wanted now.
    wanted: AtomicBool,
    began: Instant,
}

/// What was attached and not marked when all was looked at.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Baseline {
    unmarked: BTreeSet<PathBuf>,
    programs: BTreeSet<String>,
}

impl Prover {
    /// Sweeps what a killed agent left, then proves, now and again and again.
    ///
    /// # Errors
    /// When the thread cannot be started or the agent's own program is not known.
    pub fn start(
        config: SelfProof,
        state_dir: PathBuf,
        protection: Arc<dyn Protection>,
        witness: Arc<Witness>,
    ) -> std::io::Result<Self> {
        let inner = Arc::new(Inner {
            config,
            state_dir,
            program: std::env::current_exe()?,
            protection,
            witness,
            lines: Mutex::default(),
            round: Mutex::default(),
            baseline: Mutex::default(),
            turn: Mutex::default(),
            stopping: Mutex::default(),
            wake: Condvar::new(),
            wanted: AtomicBool::new(false),
            began: Instant::now(),
        });
        let thread = if inner.config.enabled {
            let inner = Arc::clone(&inner);
            let body = move || inner.run();
            Some(std::thread::Builder::new().name("prove".to_owned()).spawn(body)?)
        } else {
            None
        };
        Ok(Self { inner, thread: Mutex::new(thread) })
    }

    /// Proves everything now, and tells what was found.
    pub fn prove(&self) -> ProofState {
        self.inner.prove(Depth::Whole);
        self.state()
    }

    /// Changes what is proven between two rounds, and has it proven soon.
    pub fn undisturbed<T>(&self, change: impl FnOnce() -> T) -> T {
        let round = lock(&self.inner.round);
        let changed = change();
        drop(round);
        // Under its lock, so that the thread does not go to sleep in between.
        let stopping = lock(&self.inner.stopping);
        self.inner.wanted.store(true, Ordering::Relaxed);
        self.inner.wake.notify_all();
        drop(stopping);
        changed
    }

    /// What was last found.
    #[must_use]
    pub fn state(&self) -> ProofState {
        ProofState {
            enabled: self.inner.config.enabled,
            interval_s: self.inner.config.interval.as_secs(),
            ..lock(&self.inner.lines).state()
        }
    }

    /// What is red, by name.
    #[must_use]
    pub fn problems(&self) -> Vec<String> {
        if !self.inner.config.enabled {
            return vec!["self-proof is switched off in the config".to_owned()];
        }
        let lines = lock(&self.inner.lines);
        let mut problems = lines.problems();
        if lines.is_empty() && self.inner.began.elapsed() > GRACE {
            problems.push("nothing was proven since the start".to_owned());
        }
        problems
    }

    /// Ends the thread. A round that runs waits for nothing more, and what it did not see counts
    /// for nothing.
    pub fn stop(&self) {
        *lock(&self.inner.stopping) = true;
        self.inner.wake.notify_all();
        self.inner.witness.close();
        let thread = lock(&self.thread).take();
        if thread.is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the prover had panicked");
        }
    }
}

impl Drop for Prover {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Inner {
    fn run(&self) {
        self.sweep();
        let mut whole = Instant::now();
        let mut quick = whole + QUICK;
        let mut asked = whole;
        loop {
            let now = Instant::now();
            if self.wanted.swap(false, Ordering::Relaxed) || now >= whole {
                self.prove(Depth::Whole);
                whole = Instant::now() + self.config.interval;
                quick = Instant::now() + QUICK;
            } else if self.look() && now >= asked {
                self.prove(Depth::Whole);
                asked = Instant::now() + PAUSE;
            } else if now >= quick {
                self.prove(Depth::Quick);
                quick = Instant::now() + QUICK;
            }
            let next = whole.min(quick).min(Instant::now() + LOOK);
            if self.wait_until(next) {
                return;
            }
        }
    }

    /// One round; what it found is told where it differs from before.
    fn prove(&self, depth: Depth) {
        let _one = lock(&self.round);
        let found = round::Round::new(self, depth).run();
        self.take(found);
        if depth == Depth::Whole {
            *lock(&self.baseline) = self.baseline_now();
        }
    }

    /// Looks at what needs no marker. True when a whole round is due.
    fn look(&self) -> bool {
        let found = round::looked_at(self);
        let red = found.iter().any(|line| !line.ok);
        let known = {
            let lines = lock(&self.lines);
            found.iter().all(|line| lines.is_known(line))
        };
        self.take(found);
        (red && !known) || *lock(&self.baseline) != self.baseline_now()
    }

    fn take(&self, found: Vec<lines::Found>) {
        if *lock(&self.stopping) {
            return;
        }
        let changed = lock(&self.lines).take(found);
        for event in changed {
            if event.ok {
                tracing::info!(capability = event.capability, evidence = event.evidence, "proven");
            } else {
                tracing::error!(
                    capability = event.capability,
                    evidence = event.evidence,
                    "not proven"
                );
            }
            self.protection.record(EventBody::Proof(event));
        }
    }

    fn baseline_now(&self) -> Baseline {
        let unmarked = |folder: &PathBuf| self.protection.is_marked(folder) == Some(false);
        Baseline {
            unmarked: self.folders().into_iter().filter(unmarked).collect(),
            programs: checks::attached_programs(),
        }
    }

    /// Files and items that a killed agent left.
    fn sweep(&self) {
        let mut swept = 0;
        for folder in self.folders() {
            swept += marker::sweep(&folder);
        }
        for (id, path) in self.protection.items_of_markers() {
            if marker::is_name(&path) {
                swept += usize::from(self.protection.destroy_item(id).is_ok());
            }
        }
        if swept > 0 {
            tracing::info!(swept, "markers of an agent that was killed were removed");
        }
    }

    /// Mount points of the protected file systems.
    fn folders(&self) -> Vec<PathBuf> {
        let systems = self.protection.file_systems();
        systems.iter().filter(|system| system.protected).map(round::folder_of).collect()
    }

    /// True when it is time to stop.
    fn wait_until(&self, end: Instant) -> bool {
        let mut stopping = lock(&self.stopping);
        while !*stopping {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() || self.wanted.load(Ordering::Relaxed) {
                return false;
            }
            stopping =
                self.wake.wait_timeout(stopping, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
