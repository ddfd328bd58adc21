//! The one place that knows all parts of the agent: builds them in order, waits, stops them.
//!
//! ```text
//!  config → state folder → journal, vault, allow list, models
//!         → scan workers → process table → responder → on access (marks stand: ready)
//!         → sensor → control socket → wait for a signal → on access stops first
//! ```
//!
//! INVARIANT: whatever fails after the marks stand is reported and leaves protection standing;
//! whatever fails before ends the start with one clear error.

mod demand;
pub mod log;
mod operator;
mod proof;
mod state;
mod watch;

use std::path::Path;
use std::process::ExitCode;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use holdfast_common::event::{AgentStarted, EventBody, ModelDetection, ProtectionGap};
use tokio::signal::unix::{Signal, SignalKind, signal};

use self::operator::Desk;
use self::state::StateDir;
use crate::config::Config;
use crate::control::Server;
use crate::detect::{Models, ModelsError};
use crate::journal::{Journal, JournalError};
use crate::on_access::{self, Counters, Exclusions, OnAccess, OnAccessError};
use crate::prove::{Prover, Witness};
use crate::quarantine::{Vault, VaultError};
use crate::respond::{self, AllowList, AllowListError, Responder};
use crate::scan::{ScanError, WorkerFactory};
use crate::sensor::{self, ImageHashes, ProcessTable, Sensor};

/// sysexits.h: something is wrong in the configuration.
pub const EXIT_CONFIG: u8 = 78;

/// Runs the agent until a signal ends it.
#[must_use]
pub fn main(config: &Path) -> ExitCode {
    let config = match Config::load(config) {
        Ok(config) => config,
        Err(error) => return refuse(EXIT_CONFIG, &crate::error_chain(&error)),
    };
    let state = match StateDir::open(&config.state_dir) {
        Ok(state) => state,
        Err(error) => return refuse(EXIT_CONFIG, &crate::error_chain(&error)),
    };
    prepare_process();
    match run(config, &state) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => refuse(exit_code(&error), &format!("{error:#}")),
    }
}

/// What somebody wrote wrong is told from what went wrong.
fn exit_code(error: &anyhow::Error) -> u8 {
    let written = error.is::<JournalError>()
        || error.is::<VaultError>()
        || error.is::<AllowListError>()
        || error.is::<ModelsError>()
        || matches!(error.downcast_ref(), Some(ScanError::Bundle(_) | ScanError::Rules(_)))
        || matches!(error.downcast_ref(), Some(OnAccessError::Path(_)));
    if written { EXIT_CONFIG } else { 1 }
}

fn refuse(code: u8, message: &str) -> ExitCode {
    eprintln!("holdfastd: {message}");
    ExitCode::from(code)
}

/// Limits, signals and memory of the process, before any thread begins.
fn prepare_process() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o077));
    crate::sys::memory::ignore_stray_signals();
    // Each held open costs descriptors. Failing that, fewer opens are held at once.
    if let Ok((_, hard)) = getrlimit(Resource::RLIMIT_NOFILE) {
        let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    }
    if let Err(error) = crate::sys::memory::lock_touched_pages() {
        tracing::warn!(%error, "memory cannot be locked: under memory pressure opens wait for swap");
    }
}

/// Everything that runs.
pub(crate) struct Agent {
    pub(crate) config: Config,
    pub(crate) host: String,
    pub(crate) journal: Journal,
    pub(crate) vault: Arc<Vault>,
    pub(crate) allowed: AllowList,
    pub(crate) exclusions: Arc<Exclusions>,
    pub(crate) models: Arc<Models>,
    pub(crate) factory: Arc<WorkerFactory>,
    pub(crate) on_access: OnAccess,
    pub(crate) sensor: Option<Sensor>,
    pub(crate) witness: Arc<Witness>,
    /// There once the rest stands.
    pub(crate) prover: OnceLock<Prover>,
    pub(crate) ready: Instant,
}

fn run(config: Config, state: &StateDir) -> anyhow::Result<()> {
    let agent = Arc::new(build(config, state)?);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let signals = {
        let _entered = runtime.enter();
        Signals::listen()?
    };
    let operator = Arc::new(Desk::new(Arc::clone(&agent)));
    let server = Server::start(&agent.config.socket, operator)?;
    announce(&agent, state);
    start_prover(&agent);
    runtime.block_on(watch::until_told_to_stop(&agent, state, signals));
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Stopping]);
    // First of all, so that nobody waits for what follows.
    agent.on_access.stop();
    if let Some(prover) = agent.prover.get() {
        prover.stop();
    }
    drop(server);
    // Before the last event, since it tells what it has still seen.
    if let Some(sensor) = &agent.sensor {
        sensor.stop();
    }
    agent.journal.record(EventBody::AgentStopped);
    agent.journal.flush();
    state.stopped()?;
    tracing::info!("stopped");
    Ok(())
}

fn build(config: Config, state: &StateDir) -> anyhow::Result<Agent> {
    let host = nix::unistd::gethostname()?.to_string_lossy().into_owned();
    let journal = Journal::open(&config.state_dir, host.clone(), &config.journal)?;
    let vault = Arc::new(Vault::open(&config.state_dir, config.quarantine.max_size.0)?);
    let allowed = AllowList::open(&config.state_dir)?;
    let exclusions = Arc::new(Exclusions::new(&config.on_access.exclude, allowed.hashes()));
    let models = Arc::new(Models::load(&config.state_dir)?);
    let factory = Arc::new(WorkerFactory::new(&config.scan, crate::scan::default_binary()?)?);
    let table = Arc::new(ProcessTable::from_proc());
    let counters = Arc::new(Counters::default());
    let witness = Arc::new(Witness::new(&std::env::current_exe()?));
    let responder = Responder::start(&respond::Needs {
        journal: journal.clone(),
        vault: Arc::clone(&vault),
        table: Arc::clone(&table),
        witness: Arc::clone(&witness),
    })?;
    let hashes = config.sensor.enabled.then(ImageHashes::start).transpose()?;
    let coverage_journal = journal.clone();
    let on_access = OnAccess::start(on_access::Needs {
        config: config.clone(),
        factory: Arc::clone(&factory),
        exclusions: Arc::clone(&exclusions),
        responder,
        counters,
        images: hashes.clone(),
        report: Box::new(move |body| {
            coverage_journal.record(body);
        }),
    })?;
    if let Some(from_ms) = state.died_at() {
        let until_ms = jiff::Timestamp::now().as_millisecond();
        journal.record(EventBody::ProtectionGap(ProtectionGap { from_ms, until_ms }));
    }
    let sensor = config.sensor.enabled.then(|| {
        let (config, table) = (config.sensor.clone(), Arc::clone(&table));
        let sink = sink(&journal, &models, &witness);
        Sensor::start(sensor::Needs { config, table, hashes, sink })
    });
    Ok(Agent {
        config,
        host,
        journal,
        vault,
        allowed,
        exclusions,
        models,
        factory,
        on_access,
        sensor,
        witness,
        prover: OnceLock::new(),
        ready: Instant::now(),
    })
}

/// Sensor events go to the journal, and through the models.
fn sink(journal: &Journal, models: &Arc<Models>, witness: &Arc<Witness>) -> sensor::Sink {
    let (journal, models, witness) = (journal.clone(), Arc::clone(models), Arc::clone(witness));
    Box::new(move |body| {
        if witness.takes(&body) {
            // Its start is what its model is to fire for; the rest must fire nothing.
            if matches!(body, EventBody::Exec(_)) {
                models.evaluate(&body).iter().for_each(|detection| witness.fired(detection));
            }
            return;
        }
        let detections = models.evaluate(&body);
        journal.record(body);
        for detection in detections {
            report_model(&journal, detection);
        }
    })
}

fn report_model(journal: &Journal, detection: ModelDetection) {
    tracing::warn!(
        model = detection.title,
        pid = detection.process.key.pid,
        command_line = detection.process.command_line(),
        "detection model fired"
    );
    journal.record(EventBody::Model(Box::new(detection)));
}

/// Without its proof the host is not green, but it is protected.
fn start_prover(agent: &Arc<Agent>) {
    let watched = Arc::new(proof::Watched(Arc::downgrade(agent)));
    let config = agent.config.self_proof.clone();
    let state_dir = agent.config.state_dir.clone();
    match Prover::start(config, state_dir, watched, Arc::clone(&agent.witness)) {
        // It is started once.
        Ok(prover) => drop(agent.prover.set(prover)),
        Err(error) => tracing::error!(%error, "the self-proof does not start"),
    }
}

/// Protection stands and the socket answers: say so to people, systemd and the journal.
fn announce(agent: &Agent, state: &StateDir) {
    state.alive();
    agent.journal.record(EventBody::AgentStarted(AgentStarted {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        kernel: rustix::system::uname().release().to_string_lossy().into_owned(),
        mode: agent.config.on_access.mode.name().to_owned(),
    }));
    for file_system in agent.on_access.file_systems() {
        let why = file_system.reason.map(|reason| format!(": {reason}")).unwrap_or_default();
        let word = if file_system.protected { "protected" } else { "NOT protected" };
        eprintln!("holdfastd: {} ({}) {word}{why}", file_system.mount, file_system.fs_type);
    }
    eprintln!("holdfastd: ready");
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
}

/// The signals that mean something.
pub(crate) struct Signals {
    pub(crate) terminate: Signal,
    pub(crate) interrupt: Signal,
    pub(crate) reload: Signal,
}

impl Signals {
    fn listen() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            reload: signal(SignalKind::hangup())?,
        })
    }
}
