//! Isolation: cuts the host off from the network, but for the management endpoints, and lets it
//! go again.
//!
//! ```text
//!  isolate: resolve names → cut (cut.rs: all layers) → write it down → prove the way → isolated
//!                                                                  └ no answer → take down: refused
//!  agent killed or upgraded: the layers stand (pins, table); the next agent takes them over
//!  reboot: `holdfast isolation restore` before the network comes up
//!  release, or the time is over: take down → forget
//! ```
//!
//! INVARIANT: a host counts as isolated only when the required layers stand and an endpoint has
//! answered under them (or the config names none). Whatever is interrupted in between is undone
//! by the next start. Nobody else's rules, queues, filters or programs are changed.
//!
//! One thread watches: interfaces that come are cut off, what somebody takes away is put back and
//! told, the time runs out. Decides nothing about when to isolate.

mod cut;
mod egress;
mod endpoints;
mod guard;
mod links;
mod netlink;
mod programs;
mod prove;
mod record;
mod watch;
mod without_agent;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::thread::JoinHandle;
use std::time::Duration;

use holdfast_common::control::{DoctorLine, IsolationState};
use holdfast_common::event::{EventBody, IsolationEvent};

pub use without_agent::{release as release_without_agent, restore};

use self::cut::{Cut, Needs as CutNeeds};
use self::endpoints::Place;
use self::programs::Programs;
use self::record::Record;
use crate::config;
use crate::now_ms;

/// Why a host was not isolated or released.
#[derive(Debug, thiserror::Error)]
pub enum IsolateError {
    /// It must not be cut off at all, see the guard.
    #[error("{0}")]
    Refused(String),
    /// A name has no address; nothing was cut.
    #[error("{0}; nothing was cut")]
    Resolve(String),
    /// A layer that must stand does not; everything was undone.
    #[error("the host cannot be cut off: {0}; everything was undone")]
    Cut(String),
    /// No endpoint answered; everything was undone.
    #[error("no management endpoint answers under the rules: {0}; everything was undone")]
    Unproven(String),
    /// The record could not be written, read or removed.
    #[error("the record in {path} cannot be changed")]
    Record {
        /// The state folder.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Something could not be taken down.
    #[error("not everything could be taken down: {0}")]
    Remove(String),
    /// Somebody released the host before it was proven.
    #[error("the host was released before an endpoint answered")]
    Released,
    /// An agent holds the state folder.
    #[error("an agent is running: ask it")]
    AgentRuns,
}

/// Where events go.
pub type Report = Box<dyn Fn(EventBody) + Send + Sync>;

/// The isolation of this host.
#[derive(Debug)]
pub struct Isolation {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

/// What the watching thread shares.
struct Shared {
    config: RwLock<Arc<config::Isolation>>,
    state_dir: PathBuf,
    report: Report,
    /// What else stays reachable: the manager, once it is known.
    manager: Mutex<Vec<String>>,
    inner: Mutex<Inner>,
    stop: AtomicBool,
    /// Woken for a new cut and for the end (eventfd(2)).
    wake: rustix::fd::OwnedFd,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("config", &self.config()).finish_non_exhaustive()
    }
}

/// What changes.
#[derive(Debug, Default)]
struct Inner {
    /// Loaded for the next time; while the host is cut off they are in the cut.
    prepared: Option<Programs>,
    current: Option<Current>,
    /// Why it could not be prepared, taken over or taken down.
    problem: Option<String>,
    /// What was last told as broken, so that it is not told each second.
    broken: Vec<String>,
}

#[derive(Debug)]
struct Current {
    cut: Cut,
    record: Record,
}

impl Isolation {
    /// Takes over what an earlier agent left in force, else loads the programs for when they are
    /// wanted. Never fails as a whole: what went wrong is in [`Isolation::problems`].
    ///
    /// # Errors
    /// When the process has no descriptor or thread for it.
    pub fn start(
        config: config::Isolation,
        state_dir: PathBuf,
        report: Report,
    ) -> std::io::Result<Self> {
        let wake = rustix::event::eventfd(0, rustix::event::EventfdFlags::CLOEXEC)?;
        let shared = Arc::new(Shared {
            config: RwLock::new(Arc::new(config)),
            state_dir,
            report,
            manager: Mutex::default(),
            inner: Mutex::default(),
            stop: AtomicBool::new(false),
            wake,
        });
        shared.take_over();
        let watched = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name("isolation".to_owned())
            .spawn(move || watch::run(&watched))?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// Cuts the host off. One that is cut off already stays so, with the new reason and time.
    ///
    /// # Errors
    /// Why not; nothing has changed then.
    pub fn isolate(
        &self,
        reason: &str,
        duration: Option<Duration>,
    ) -> Result<IsolationState, IsolateError> {
        let isolated = self.shared.isolate(reason, duration);
        if let Err(error) = &isolated {
            self.shared.tell("refused", &format!("{reason}: {error}"), &[]);
        }
        isolated
    }

    /// Lets the host go.
    ///
    /// # Errors
    /// What could not be taken down.
    pub fn release(&self, reason: &str) -> Result<IsolationState, IsolateError> {
        self.shared.release("released", reason)?;
        Ok(self.status())
    }

    /// From the next time on these stay reachable in place of what the config names.
    pub fn replace(&self, allow: Vec<String>, dhcp: Option<Vec<std::net::IpAddr>>) {
        let mut config = self.shared.config.write().unwrap_or_else(PoisonError::into_inner);
        *config = Arc::new(config::Isolation { allow, dhcp, ..config::Isolation::clone(&config) });
    }

    /// From the next time on these endpoints stay reachable, too.
    pub fn keep_reachable(&self, endpoints: Vec<String>) {
        *self.shared.manager.lock().unwrap_or_else(PoisonError::into_inner) = endpoints;
    }

    /// How it stands.
    #[must_use]
    pub fn status(&self) -> IsolationState {
        self.shared.lock().state(&self.shared.config())
    }

    /// What is red, by name.
    #[must_use]
    pub fn problems(&self) -> Vec<String> {
        let inner = self.shared.lock();
        let mut problems: Vec<String> =
            inner.problem.iter().map(|problem| format!("isolation: {problem}")).collect();
        if let Some(current) = &inner.current {
            let layers = current.cut.layers().into_iter().filter(|layer| !layer.standing);
            let required = layers.filter(|layer| layer.name == "interfaces");
            problems.extend(required.map(|layer| format!("isolation: {}", layer.note)));
        }
        problems
    }

    /// The isolation's lines of `holdfast doctor`.
    #[must_use]
    pub fn doctor(&self) -> Vec<DoctorLine> {
        let inner = self.shared.lock();
        let allow = self.shared.allow();
        let ready = inner.problem.is_none();
        vec![DoctorLine {
            check: "isolation".to_owned(),
            ok: ready,
            evidence: match (&inner.problem, &inner.current) {
                (Some(problem), _) => problem.clone(),
                (None, Some(_)) => "the host is cut off (holdfast isolation status)".to_owned(),
                (None, None) if allow.is_empty() => {
                    "ready; the config names no endpoint that would stay reachable".to_owned()
                }
                (None, None) => format!("ready; {} would stay reachable", allow.join(", ")),
            },
            advice: (!ready).then(|| "see the log, and holdfast isolation status".to_owned()),
        }]
    }
}

impl Drop for Isolation {
    /// Ends the watching. What is cut off stays cut off.
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        self.shared.wake();
        if let Some(thread) = self.thread.take() {
            // A panic there has been reported by the panic hook.
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn config(&self) -> Arc<config::Isolation> {
        Arc::clone(&self.config.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What stays reachable.
    fn allow(&self) -> Vec<String> {
        let mut all = self.config().allow.clone();
        for endpoint in &*self.manager.lock().unwrap_or_else(PoisonError::into_inner) {
            if !all.contains(endpoint) {
                all.push(endpoint.clone());
            }
        }
        all
    }

    /// The same, resolved. The manager's name may be beyond reach where its addresses are known.
    fn places(&self) -> Result<Vec<Place>, String> {
        let mut places = endpoints::resolve(&self.config().allow)?;
        let manager = self.manager.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut unresolved = None;
        for endpoint in manager {
            match endpoints::resolve(&[endpoint]) {
                Ok(found) => {
                    let known = |place: &Place| {
                        let known = |at| places.iter().any(|one| one.addresses.contains(at));
                        place.addresses.iter().all(known)
                    };
                    let new: Vec<Place> = found.into_iter().filter(|place| !known(place)).collect();
                    places.extend(new);
                }
                Err(why) => unresolved = Some(why),
            }
        }
        match unresolved {
            Some(why) if places.is_empty() => Err(why),
            Some(_) | None => Ok(places),
        }
    }

    fn wake(&self) {
        // It fails only when it is full, and then it is awake.
        let _ = rustix::io::write(&self.wake, &1_u64.to_ne_bytes());
    }

    fn tell(&self, action: &str, reason: &str, places: &[Place]) {
        let allowed = places.iter().map(Place::text).collect();
        tracing::warn!(action, reason, "isolation");
        (self.report)(EventBody::Isolation(IsolationEvent {
            action: action.to_owned(),
            reason: reason.to_owned(),
            allowed,
        }));
    }

    fn isolate(
        &self,
        reason: &str,
        duration: Option<Duration>,
    ) -> Result<IsolationState, IsolateError> {
        let since_ms = now_ms();
        let lasting = |limit: Duration| i64::try_from(limit.as_millis()).unwrap_or(i64::MAX);
        let until_ms = duration.map(|limit| since_ms.saturating_add(lasting(limit)));
        if let Some(current) = &mut self.lock().current {
            current.record.until_ms = until_ms;
            reason.clone_into(&mut current.record.reason);
            self.store(&current.record)?;
            return Ok(current.state(&self.config()));
        }
        let cgroup =
            guard::cgroup(self.config().cgroup.as_deref()).map_err(IsolateError::Refused)?;
        // Names first: when the host is cut off nothing answers.
        let places = self.places().map_err(IsolateError::Resolve)?;
        let mut record = Record {
            since_ms,
            until_ms,
            reason: reason.to_owned(),
            places,
            dhcp: self.config().dhcp.clone().unwrap_or_else(endpoints::known_dhcp_servers),
            ..Record::default()
        };
        self.cut(&mut record, cgroup)?;
        self.wake();
        let places = record.places.clone();
        if let Err(why) = self.prove(record) {
            return Err(match self.release("undone", &why) {
                Ok(true) => IsolateError::Unproven(why),
                Ok(false) => IsolateError::Released,
                Err(error) => error,
            });
        }
        self.tell("isolated", reason, &places);
        Ok(self.lock().state(&self.config()))
    }

    /// All layers, and then the record: the pins alone are undone by the next start.
    fn cut(
        &self,
        record: &mut Record,
        cgroup: (std::fs::File, PathBuf),
    ) -> Result<(), IsolateError> {
        let mut inner = self.lock();
        if inner.current.is_some() {
            // Somebody else was quicker.
            return Ok(());
        }
        let programs = match inner.prepared.take() {
            Some(programs) => programs,
            None => Programs::load(&self.config().pins).map_err(IsolateError::Cut)?,
        };
        let config = self.config();
        let needs = CutNeeds {
            programs,
            cgroup,
            part_of_host: config.cgroup.is_some(),
            allowed: record.allowed(),
            queues: Vec::new(),
            pins: &config.pins,
        };
        let mut cut = match Cut::make(needs, false) {
            Ok(cut) => cut,
            Err(failed) => {
                inner.prepared = Some(failed.programs);
                let undone = cut::remove(&self.config().pins, &failed.queues);
                let undone = undone.err().map(|why| format!("; {why}")).unwrap_or_default();
                return Err(IsolateError::Cut(format!("{}{undone}", failed.why)));
            }
        };
        cut.finish();
        record.queues = cut.queues().to_vec();
        let stored = self.store(record);
        inner.problem = None;
        inner.current = Some(Current { cut, record: record.clone() });
        drop(inner);
        if let Err(error) = stored {
            self.release("undone", "the record cannot be written")?;
            return Err(error);
        }
        Ok(())
    }

    /// Writes down that an endpoint has answered.
    fn prove(&self, record: Record) -> Result<(), String> {
        let endpoints = record.endpoints();
        if !endpoints.is_empty() {
            prove::reach(&endpoints)?;
        }
        let mut inner = self.lock();
        let Some(current) = &mut inner.current else {
            return Err("the host was released meanwhile".to_owned());
        };
        current.record.proven = true;
        current.record.store(&self.state_dir).map_err(|error| error.to_string())
    }

    /// Takes everything down; false when nothing stood. `undone` is told by the caller.
    fn release(&self, action: &str, reason: &str) -> Result<bool, IsolateError> {
        let mut inner = self.lock();
        let (stood, places, removed) = match inner.current.take() {
            Some(Current { cut, record }) => {
                let (programs, removed) = cut.remove(&self.config().pins);
                inner.prepared = Some(programs);
                (true, record.places, removed)
            }
            None => {
                let record = Record::load(&self.state_dir).ok().flatten();
                let stood = record.is_some() || programs::left_behind(&self.config().pins);
                let Record { places, queues, .. } = record.unwrap_or_default();
                let removed =
                    if stood { cut::remove(&self.config().pins, &queues) } else { Ok(()) };
                (stood, places, removed)
            }
        };
        inner.broken.clear();
        inner.problem = removed.as_ref().err().cloned();
        removed.map_err(IsolateError::Remove)?;
        Record::remove(&self.state_dir).map_err(|source| self.record_error(source))?;
        drop(inner);
        if stood && action != "undone" {
            self.tell(action, reason, &places);
        }
        Ok(stood)
    }

    /// At the start: goes on with a cut that was made before, undoes half of one.
    fn take_over(&self) {
        let record = match Record::load(&self.state_dir) {
            Ok(record) => record,
            Err(error) => {
                let problem = format!("the record of it cannot be read: {error}");
                tracing::error!(problem, "isolation: what stands is left standing");
                self.lock().problem = Some(problem);
                return;
            }
        };
        let undo = |action: &str, reason: &str| {
            if let Err(error) = self.release(action, reason) {
                tracing::error!(error = crate::error_chain(&error), "isolation: not taken down");
            }
        };
        match record {
            Some(record) if record.expired(now_ms()) => undo("expired", &record.reason),
            Some(record) => self.restore(record),
            None if programs::left_behind(&self.config().pins) => {
                undo("undone", "interrupted");
                self.tell("refused", "the agent ended while it cut the host off", &[]);
            }
            None => {}
        }
        let mut inner = self.lock();
        if inner.current.is_none() && inner.problem.is_none() {
            match Programs::load(&self.config().pins) {
                Ok(programs) => inner.prepared = Some(programs),
                Err(why) => inner.problem = Some(format!("its programs cannot be loaded: {why}")),
            }
        }
    }

    fn restore(&self, record: Record) {
        match without_agent::cut_again(&self.config(), &record) {
            Ok(mut cut) => {
                cut.finish();
                self.tell("restored", &record.reason, &record.places);
                self.lock().current = Some(Current { cut, record });
            }
            Err(why) => {
                tracing::error!(why, "isolation: it cannot be taken over");
                self.lock().problem = Some(format!("it cannot be taken over: {why}"));
            }
        }
    }

    fn store(&self, record: &Record) -> Result<(), IsolateError> {
        record.store(&self.state_dir).map_err(|source| self.record_error(source))
    }

    fn record_error(&self, source: std::io::Error) -> IsolateError {
        IsolateError::Record { path: self.state_dir.clone(), source }
    }
}

impl Inner {
    fn state(&self, config: &config::Isolation) -> IsolationState {
        let mut state = match &self.current {
            Some(current) => current.state(config),
            None => IsolationState::default(),
        };
        state.warnings.extend(self.problem.clone());
        state.warnings.extend(self.broken.iter().cloned());
        state
    }
}

impl Current {
    fn state(&self, config: &config::Isolation) -> IsolationState {
        let Record { since_ms, until_ms, reason, proven, places, dhcp, .. } = &self.record;
        let mut warnings = Vec::new();
        if places.is_empty() {
            warnings.push(
                "the config names no endpoint: nothing but the loopback is reachable".to_owned(),
            );
        }
        if dhcp.is_empty() && config.dhcp.is_none() {
            warnings.push(
                "no DHCP server is known: addresses that have a lease will end with it".to_owned(),
            );
        }
        IsolationState {
            isolated: true,
            since_ms: Some(*since_ms),
            until_ms: *until_ms,
            reason: reason.clone(),
            allowed: places.iter().map(Place::text).collect(),
            dhcp: dhcp.iter().map(ToString::to_string).collect(),
            proven: *proven && !places.is_empty(),
            layers: self.cut.layers(),
            counts: self.cut.counts(),
            warnings,
        }
    }
}

/// Whether an agent holds this state folder.
fn agent_runs(state_dir: &Path) -> bool {
    let Ok(lock) = std::fs::File::open(state_dir.join("lock")) else { return false };
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::NonBlockingLockShared).is_err()
}
