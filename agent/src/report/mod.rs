//! The link to the manager: enrollment, the outbox, the heartbeat, response tasks.
//!
//! ```text
//!  identity? ─no─▶ wait for `holdfast enroll`
//!     │
//!  connect (connect.rs: proxy, TLS) ─▶ session (session.rs) ─┬─ events      (outbox.rs ◀ journal)
//!     ▲                                                      ├─ heartbeats
//!     └── back-off with jitter ◀── any failure ──────────────┼─ tasks       (tasks.rs ▶ actions.rs)
//!                                                            ├─ files       (deliver.rs ◀ spool)
//!                                                            └─ terminals   (crate::shell)
//! ```
//!
//! INVARIANT: everything here runs on a thread and in tasks of its own, and is bounded. The rest of
//! the agent never waits for it: without a manager the host is protected just the same, and status
//! shows a red line. What is done for a task is done by the code that the CLI's requests use.

mod actions;
mod connect;
mod deliver;
mod enroll;
mod facts;
mod identity;
mod outbox;
mod proxy;
mod session;
mod spool;
mod store;
mod tasks;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use holdfast_common::control::{ManagerState, Request, StatusReport};
use holdfast_common::denial::{DenialKind, FleetDenials};
use holdfast_common::event::{EventBody, LossEvent};
use holdfast_common::link::{Capability, ModelReach, OutboxState};
use holdfast_common::process::{ProcessInfo, ProcessKey};
use tokio::sync::watch;

pub use self::enroll::{EnrollError, Invitation, enroll};
pub use self::facts::host_facts;
pub use self::proxy::Proxy;

use self::connect::{Addresses, Way};
use self::session::{End, SessionError};
use self::store::Store;
use self::tasks::Tasks;
use crate::config;
use crate::control::Answerer;
use crate::journal::Journal;
use crate::now_ms;
use crate::policy::Offer;
use crate::shell::Shells;

/// Between two looks at whether this host was enrolled.
const LOOK: Duration = Duration::from_secs(1);
/// First and longest pause before the next connection.
const PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// Pause after the manager has refused this host.
const REFUSED: Duration = Duration::from_secs(120);
/// How long the end is waited for.
const STOP: Duration = Duration::from_secs(2);

/// The agent as the link sees it. Calls may block.
pub trait Host: Send + Sync + 'static {
    /// Carries an operator's request out, as for the CLI.
    ///
    /// # Errors
    /// What went wrong, for people.
    fn carry_out(&self, request: Request, answer: &mut dyn Answerer) -> Result<(), String>;
    /// The numbers; `None` while the agent ends.
    fn status(&self) -> Option<StatusReport>;
    /// Each capability, as it was last seen to work. Proves nothing anew.
    fn capabilities(&self) -> Vec<Capability>;
    /// How the shipped detection models stand here.
    fn models(&self) -> Vec<ModelReach>;
    /// Ends a process and all that it started.
    ///
    /// # Errors
    /// Who is left.
    fn kill(&self, process: ProcessKey) -> Result<String, String>;
    /// Denies content or a path on this host from now on, or for so long.
    ///
    /// # Errors
    /// Why not.
    fn deny(
        &self,
        kind: DenialKind,
        value: &str,
        why: &str,
        duration_s: Option<u64>,
    ) -> Result<String, String>;
    /// Denies it no more, where this host alone denied it.
    ///
    /// # Errors
    /// Why not.
    fn undeny(&self, kind: DenialKind, value: &str) -> Result<String, String>;
    /// Whether it is denied by the rules that are in use.
    fn is_denied(&self, kind: DenialKind, value: &str) -> bool;
    /// Denies what the manager denies, and no more what it does not any more.
    fn denials(&self, list: FleetDenials);
    /// Processes that run, at most so many.
    fn processes(&self, most: usize) -> Vec<ProcessInfo>;
    /// Puts a policy in force, or refuses it; the next heartbeats say which.
    fn policy(&self, offer: Offer);
    /// What must stay reachable when the host is cut off, beside what the config names.
    fn keep_reachable(&self, endpoints: Vec<String>);
}

/// What the link needs from the rest of the agent.
pub struct Needs {
    /// `[manager]`
    pub config: config::Manager,
    /// The state folder.
    pub state_dir: PathBuf,
    /// Where events come from.
    pub journal: Journal,
    /// Who carries tasks out.
    pub host: Arc<dyn Host>,
    /// Remote shells.
    pub shells: Arc<Shells>,
}

/// The running link.
#[derive(Debug)]
pub struct Link {
    shared: Arc<Shared>,
    stop: watch::Sender<bool>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// What the parts of the link share.
struct Shared {
    config: config::Manager,
    state_dir: PathBuf,
    journal: Journal,
    host: Arc<dyn Host>,
    shells: Arc<Shells>,
    addresses: Arc<Addresses>,
    state: Mutex<State>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("config", &self.config).finish_non_exhaustive()
    }
}

/// For status.
#[derive(Debug, Default)]
struct State {
    enrolled: Option<(String, String)>,
    connected: bool,
    since_ms: i64,
    problem: Option<String>,
    ends_ms: i64,
    outbox: OutboxState,
    /// How many given up events were told of, and when.
    told_dropped: Option<u64>,
    dropped_at: Option<Instant>,
}

impl Link {
    /// Starts the thread.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(needs: Needs) -> std::io::Result<Self> {
        let Needs { config, state_dir, journal, host, shells } = needs;
        let (addresses, state) = (Arc::default(), Mutex::default());
        let shared =
            Arc::new(Shared { config, state_dir, journal, host, shells, addresses, state });
        let (stop, mut stopped) = watch::channel(false);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .max_blocking_threads(8)
            .thread_name("link-work")
            .build()?;
        let running = Arc::clone(&shared);
        let thread = std::thread::Builder::new().name("link".to_owned()).spawn(move || {
            runtime.block_on(async {
                tokio::select! {
                    () = running.run() => {}
                    _ = stopped.wait_for(|stop| *stop) => {}
                }
            });
            runtime.shutdown_timeout(STOP);
        })?;
        Ok(Self { shared, stop, thread: Mutex::new(Some(thread)) })
    }

    /// For status.
    #[must_use]
    pub fn state(&self) -> ManagerState {
        let state = self.shared.state();
        let (manager, host) = state.enrolled.clone().unwrap_or_default();
        ManagerState {
            enrolled: state.enrolled.is_some(),
            manager,
            host,
            connected: state.connected,
            since_ms: state.since_ms,
            certificate_ends_ms: state.ends_ms,
            problem: state.problem.clone(),
            outbox: state.outbox,
        }
    }

    /// What is red, by name.
    #[must_use]
    pub fn problems(&self) -> Vec<String> {
        let state = self.shared.state();
        let mut problems: Vec<String> =
            state.problem.iter().map(|problem| format!("manager: {problem}")).collect();
        problems.extend(outbox_problem(&state).map(|why| format!("outbox: {why}")));
        problems
    }

    /// Ends the connection and the thread. A task that runs is taken up by the next start.
    pub fn stop(&self) {
        // Without a receiver the thread has ended already.
        let _ = self.stop.send(true);
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if thread.is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the link's thread had panicked");
        }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Connects, again and again.
    async fn run(self: &Arc<Self>) {
        let mut tasks: Option<Arc<Tasks>> = None;
        let mut backoff = Backoff::default();
        loop {
            let pause = match self.attempt(&mut tasks).await {
                Ok(None) => LOOK,
                Ok(Some(End::Renewed | End::Replaced)) => {
                    backoff.reset();
                    continue;
                }
                Ok(Some(End::Closed { lasting })) => {
                    if lasting {
                        backoff.reset();
                    }
                    self.failed("the manager closed the connection".to_owned());
                    backoff.next()
                }
                Err(error) => {
                    let refused = error.is_refusal();
                    if error.lasted() {
                        backoff.reset();
                    }
                    self.failed(crate::error_chain(&error));
                    if refused { REFUSED } else { backoff.next() }
                }
            };
            let enrolled = self.state().enrolled.is_some();
            if let Some(tasks) = tasks.as_ref().filter(|_| enrolled) {
                self.count_outbox(tasks).await;
            }
            let before = identity_mark(&self.state_dir);
            let end = Instant::now() + pause;
            // Somebody may enroll the host meanwhile.
            while Instant::now() < end && identity_mark(&self.state_dir) == before {
                tokio::time::sleep(LOOK.min(end.saturating_duration_since(Instant::now()))).await;
            }
        }
    }

    /// One connection to its end; `None` when this host is not enrolled.
    async fn attempt(
        self: &Arc<Self>,
        tasks: &mut Option<Arc<Tasks>>,
    ) -> Result<Option<End>, SessionError> {
        let Some(identity) = identity::load(&self.state_dir)? else {
            *self.state() = State::default();
            return Ok(None);
        };
        let proxy = self.config.proxy.clone().or_else(|| identity.proxy.clone());
        let way = Way::new(&identity.manager, proxy, Arc::clone(&self.addresses))?;
        {
            let mut state = self.state();
            let enrolled = Some((identity.manager.clone(), identity.host.clone()));
            if state.enrolled != enrolled {
                *state = State { enrolled, since_ms: now_ms(), ..State::default() };
            }
            state.ends_ms = identity.ends_ms;
        }
        let running = match tasks {
            Some(running) => Arc::clone(running),
            None => {
                let (shared, hop) = (Arc::clone(self), way.first_hop());
                let started = blocking(move || shared.start_tasks(&hop)).await?;
                Arc::clone(tasks.insert(started))
            }
        };
        self.keep_reachable(&way);
        session::run(self, &running, &way, identity).await.map(Some)
    }

    fn start_tasks(&self, hop: &str) -> Result<Arc<Tasks>, SessionError> {
        let store = Arc::new(Store::open(&self.state_dir)?);
        // Of another way than now they would be wrong.
        if store.note("hop")?.as_deref() == Some(hop) {
            let known = store.note("addresses")?.unwrap_or_default();
            self.addresses.set(known.split(' ').filter_map(|one| one.parse().ok()).collect());
        }
        let needs = tasks::Needs {
            store,
            host: Arc::clone(&self.host),
            shells: Arc::clone(&self.shells),
            journal: self.journal.clone(),
            state_dir: self.state_dir.clone(),
            spool: self.config.spool.0,
        };
        Tasks::start(needs)
    }

    /// Tells the isolation where the manager is, now that it is known.
    fn keep_reachable(&self, way: &Way) {
        let mut endpoints = vec![way.first_hop()];
        endpoints.extend(self.addresses.get().iter().map(ToString::to_string));
        self.host.keep_reachable(endpoints);
    }

    fn failed(&self, problem: String) {
        let mut state = self.state();
        if state.connected || state.problem.is_none() {
            state.since_ms = now_ms();
            tracing::warn!(problem, "no connection to the manager");
        }
        state.connected = false;
        state.problem = Some(problem);
    }

    fn connected(&self) {
        let mut state = self.state();
        tracing::info!("connected to the manager");
        state.connected = true;
        state.since_ms = now_ms();
        state.problem = None;
    }

    /// The outbox as it is now; what was given up since the last time is an event.
    fn look_at_outbox(&self, outbox: OutboxState) {
        /// Told at most so often.
        const TELL: Duration = Duration::from_secs(60);
        let mut state = self.state();
        state.outbox = outbox;
        // What was given up before the start was told then.
        let told = *state.told_dropped.get_or_insert(outbox.dropped);
        let count = outbox.dropped.saturating_sub(told);
        if count == 0 || state.dropped_at.is_some_and(|at| at.elapsed() < TELL) {
            return;
        }
        state.told_dropped = Some(outbox.dropped);
        state.dropped_at = Some(Instant::now());
        drop(state);
        self.journal.record(EventBody::Loss(LossEvent { queue: "outbox".to_owned(), count }));
    }

    /// The same while there is no connection.
    async fn count_outbox(self: &Arc<Self>, tasks: &Tasks) {
        let (shared, store) = (Arc::clone(self), tasks.store());
        let host = self.state().enrolled.clone().unwrap_or_default().1;
        let counted = blocking(move || {
            let mut reader = shared.journal.reader();
            outbox::state(&store, &mut reader, &host, now_ms())
                .map(|outbox| shared.look_at_outbox(outbox))
        });
        if let Err(error) = counted.await {
            tracing::warn!(error = crate::error_chain(&error), "the outbox cannot be counted");
        }
    }
}

/// Red for ten minutes after events were given up.
fn outbox_problem(state: &State) -> Option<String> {
    const RED: Duration = Duration::from_secs(600);
    state.dropped_at.filter(|at| at.elapsed() < RED)?;
    Some(format!("{} events were given up for want of room or for age", state.outbox.dropped))
}

/// The longer nobody answers, the longer the pause; with jitter, so that a fleet does not call at
/// once when its manager comes back.
#[derive(Debug, Default)]
struct Backoff(u32);

impl Backoff {
    fn reset(&mut self) {
        self.0 = 0;
    }

    fn next(&mut self) -> Duration {
        let longest = PAUSE.saturating_mul(1 << self.0.min(16)).min(LONGEST_PAUSE);
        self.0 = self.0.saturating_add(1);
        longest.mul_f64(0.5 + jitter() / 2.0)
    }
}

/// 0 to 1.
fn jitter() -> f64 {
    let mut random = [0; 4];
    // Without it all wait the same: no harm to this host.
    let _ = rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::NONBLOCK);
    f64::from(u32::from_ne_bytes(random)) / f64::from(u32::MAX)
}

/// Inode and change time of the identity: another one was put in its place.
fn identity_mark(state_dir: &std::path::Path) -> Option<(u64, i64, i64)> {
    use std::os::unix::fs::MetadataExt;
    let facts = std::fs::metadata(identity::file(state_dir)).ok()?;
    Some((facts.ino(), facts.mtime(), facts.mtime_nsec()))
}

/// Runs what blocks where it may.
async fn blocking<T: Send + 'static, E: Send + 'static>(
    act: impl FnOnce() -> Result<T, E> + Send + 'static,
) -> Result<T, SessionError>
where
    SessionError: From<E>,
{
    match tokio::task::spawn_blocking(act).await {
        Ok(done) => Ok(done?),
        Err(_) => Err(SessionError::Ended),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_bound_and_differ() {
        let mut backoff = Backoff::default();
        let pauses: Vec<Duration> = (0..40).map(|_| backoff.next()).collect();
        assert!(pauses[0] <= PAUSE && pauses[0] >= PAUSE / 2);
        assert!(pauses[20..].iter().all(|p| *p >= LONGEST_PAUSE / 2 && *p <= LONGEST_PAUSE));
        assert!(pauses[20..].windows(2).any(|two| two[0] != two[1]));
        backoff.reset();
        assert!(backoff.next() <= PAUSE);
    }
}
