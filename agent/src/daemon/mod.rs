//! The one place that knows all parts of the agent: builds them in order, waits, stops them.
//!
//! ```text
//!  config → state folder → journal, models, policy (what is in force), isolation, vault, allow list, models
//!         → scan workers → process table → responder → on access (marks stand: ready)
//!         → sensor → control socket → link → self-protection → wait for a signal → on access stops first
//! ```
//!
//! INVARIANT: whatever fails after the marks stand is reported and leaves protection standing;
//! whatever fails before ends the start with one clear error.

mod denials;
mod link;
pub mod log;
mod operator;
mod policy;
mod proof;
mod sink;
mod state;
mod watch;

use std::path::Path;
use std::process::ExitCode;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use holdfast_common::abi::Kind;
use holdfast_common::event::{AgentStarted, EventBody, ProtectionGap};
use tokio::signal::unix::{Signal, SignalKind, signal};

use self::denials::Denials;
use self::operator::Desk;
use self::sink::Sinks;
use self::state::StateDir;
use crate::config::Config;
use crate::control::Server;
use crate::detect::{Models, ModelsError};
use crate::guard::{self, Guard, Own, Seen};
use crate::isolate::Isolation;
use crate::journal::{Journal, JournalError};
use crate::on_access::{self, Counters, Exclusions, OnAccess, OnAccessError};
use crate::policy::Policies;
use crate::prove::{Prover, Witness};
use crate::quarantine::{Vault, VaultError};
use crate::report::Link;
use crate::respond::{
    self, AllowList, AllowListError, DenyList, DenyListError, ModelNeeds, ModelResponder, Responder,
};
use crate::scan::{ScanError, WorkerFactory};
use crate::sensor::{self, ImageHashes, ProcessTable, Sensor};
use crate::shell::Shells;
use crate::sweep::{self, Sweeps};

/// sysexits.h: something is wrong in the configuration.
pub const EXIT_CONFIG: u8 = 78;

/// Runs the agent until a signal ends it.
#[must_use]
pub fn main(config_path: &Path) -> ExitCode {
    let config = match Config::load(config_path) {
        Ok(config) => config,
        Err(error) => return refuse(EXIT_CONFIG, &crate::error_chain(&error)),
    };
    let state = match StateDir::open(&config.state_dir) {
        Ok(state) => state,
        Err(error) => return refuse(EXIT_CONFIG, &crate::error_chain(&error)),
    };
    prepare_process();
    match run(config, config_path, &state) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => refuse(exit_code(&error), &format!("{error:#}")),
    }
}

/// What somebody wrote wrong is told from what went wrong.
fn exit_code(error: &anyhow::Error) -> u8 {
    let written = error.is::<JournalError>()
        || error.is::<VaultError>()
        || error.is::<AllowListError>()
        || error.is::<DenyListError>()
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
    /// As it was at the start: what no policy rules is read from here, the rest from `policies`.
    pub(crate) config: Config,
    pub(crate) policies: Policies,
    pub(crate) host: String,
    pub(crate) journal: Journal,
    pub(crate) vault: Arc<Vault>,
    pub(crate) allowed: AllowList,
    pub(crate) exclusions: Arc<Exclusions>,
    pub(crate) models: Arc<Models>,
    pub(crate) factory: Arc<WorkerFactory>,
    pub(crate) on_access: Arc<OnAccess>,
    pub(crate) sensor: Option<Sensor>,
    pub(crate) witness: Arc<Witness>,
    pub(crate) table: Arc<ProcessTable>,
    pub(crate) tampering: Arc<Seen>,
    /// There once the rest stands.
    pub(crate) prover: OnceLock<Prover>,
    pub(crate) isolation: Arc<Isolation>,
    pub(crate) denied: Arc<DenyList>,
    pub(crate) denials: Denials,
    pub(crate) sweeps: Sweeps,
    pub(crate) shells: Arc<Shells>,
    /// There once the rest stands.
    pub(crate) link: OnceLock<Link>,
    /// Last of all.
    pub(crate) guard: OnceLock<Guard>,
    pub(crate) ready: Instant,
}

fn run(config: Config, config_path: &Path, state: &StateDir) -> anyhow::Result<()> {
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
    denials::start(&agent)?;
    link::start(&agent);
    start_guard(&agent, config_path);
    // Reading the kernel's types and the rules took much that is not needed again.
    crate::sys::memory::give_back();
    runtime.block_on(watch::until_told_to_stop(&agent, state, signals));
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Stopping]);
    // First of all, so that nobody waits for what follows.
    agent.on_access.stop();
    if let Some(prover) = agent.prover.get() {
        prover.stop();
    }
    if let Some(guard) = agent.guard.get() {
        guard.stop();
    }
    agent.sweeps.stop();
    // While the link can still tell of it.
    agent.shells.stop();
    if let Some(link) = agent.link.get() {
        link.stop();
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

fn build(local: Config, state: &StateDir) -> anyhow::Result<Agent> {
    let host = nix::unistd::gethostname()?.to_string_lossy().into_owned();
    let journal = Journal::open(&local.state_dir, host.clone(), &local.journal)?;
    let models = Arc::new(Models::load(&local.state_dir, &local.models)?);
    let policies = Policies::open(local);
    let config = Config::clone(&policies.config());
    if let Err(error) = models.rule(&config.models) {
        policies.fault(&format!("models: {error}; the config's are in force"));
    }
    let isolation = Arc::new(start_isolation(&config, &journal)?);
    let vault = Arc::new(Vault::open(&config.state_dir, config.quarantine.max_size.0)?);
    if state.died_at().is_some() {
        respond::tell_untold(&journal, &vault)?;
    }
    let allowed = AllowList::open(&config.state_dir)?;
    let exclusions = Arc::new(Exclusions::new(&config.on_access.exclude, allowed.hashes()));
    models.recall(&journal)?;
    for refused in models.refused() {
        tracing::error!(rule = refused.origin, reason = refused.reason, "a rule was left out");
    }
    let denied = Arc::new(DenyList::open(&config.state_dir)?);
    let denials = Denials::open(&config.state_dir)?;
    denials::begin(&denials, &denied);
    let scanner = crate::scan::default_binary()?;
    let factory = WorkerFactory::keeping(&config.scan, scanner, &config.state_dir, denied.lines())?;
    let factory = Arc::new(factory);
    let table = Arc::new(ProcessTable::from_proc());
    let counters = Arc::new(Counters::default());
    let witness = Arc::new(Witness::new(&std::env::current_exe()?));
    let tampering = Arc::new(Seen::new(Own::current()));
    let sinks = Sinks::new(&journal, &models, &witness, &tampering);
    let responder = Responder::start(&respond::Needs {
        journal: journal.clone(),
        vault: Arc::clone(&vault),
        table: Arc::clone(&table),
        witness: Arc::clone(&witness),
    })?;
    let hashes = config.sensor.enabled.then(ImageHashes::start).transpose()?;
    let coverage_journal = journal.clone();
    let on_access = Arc::new(OnAccess::start(on_access::Needs {
        config: config.clone(),
        factory: Arc::clone(&factory),
        exclusions: Arc::clone(&exclusions),
        denied: Arc::new(denials.begin()),
        responder,
        counters,
        images: hashes.clone(),
        report: Box::new(move |body| {
            coverage_journal.record(body);
        }),
        mass: sink::mass_rewrites(&table, sinks.sink()),
    })?);
    if let Some(from_ms) = state.died_at() {
        let until_ms = crate::now_ms();
        journal.record(EventBody::ProtectionGap(ProtectionGap { from_ms, until_ms }));
    }
    sinks.respond_with(ModelResponder::start(ModelNeeds {
        journal: journal.clone(),
        table: Arc::clone(&table),
        deny: sink::deny(&denied, &factory, &on_access),
        isolate: Some(sink::isolate(&isolation)),
    })?);
    let sensor = config.sensor.enabled.then(|| {
        Sensor::start(sensor::Needs {
            config: config.sensor.clone(),
            table: Arc::clone(&table),
            hashes,
            own_files: sink::own_files(&config.state_dir),
            sink: sink::telling_of_mounts(&on_access, sinks.sink()),
        })
    });
    on_access.expect_mounts(sensor.as_ref().is_some_and(|sensor| {
        [Kind::Mount, Kind::Namespaces, Kind::Fork].iter().all(|kind| sensor.sees(*kind))
    }));
    let shells = Arc::new(Shells::new(policies.local(), &config.shell, journal.clone()));
    let sweeps = start_sweeps(&config, &journal, &factory, &exclusions, (&vault, &witness))?;
    Ok(Agent {
        config,
        policies,
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
        table,
        tampering,
        prover: OnceLock::new(),
        isolation,
        denied,
        denials,
        sweeps,
        shells,
        link: OnceLock::new(),
        guard: OnceLock::new(),
        ready: Instant::now(),
    })
}

fn start_sweeps(
    config: &Config,
    journal: &Journal,
    factory: &Arc<WorkerFactory>,
    exclusions: &Arc<Exclusions>,
    (vault, witness): (&Arc<Vault>, &Arc<Witness>),
) -> anyhow::Result<Sweeps> {
    let respond = respond::Respond::new(journal.clone(), Arc::clone(vault), Arc::clone(witness));
    let needs = sweep::Needs {
        rules: policy::sweep_rules(config),
        state_dir: config.state_dir.clone(),
        journal: journal.clone(),
        factory: Arc::clone(factory),
        exclusions: Arc::clone(exclusions),
    };
    Ok(Sweeps::start(needs, respond)?)
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

/// Without it the agent protects all the same, but not itself.
fn start_guard(agent: &Arc<Agent>, config_path: &Path) {
    let journal = agent.journal.clone();
    let guard = Guard::start(guard::Needs {
        config: agent.config.clone(),
        config_path: config_path.to_owned(),
        table: Arc::clone(&agent.table),
        seen: Arc::clone(&agent.tampering),
        report: Box::new(move |body| {
            journal.record(body);
        }),
    });
    // It is started once.
    drop(agent.guard.set(guard));
}

/// A host that is cut off stays so: this takes over what stands.
fn start_isolation(config: &Config, journal: &Journal) -> std::io::Result<Isolation> {
    let journal = journal.clone();
    let report = Box::new(move |body| {
        journal.record(body);
    });
    Isolation::start(config.isolation.clone(), config.state_dir.clone(), report)
}

/// Protection stands and the socket answers: say so to people, systemd and the journal.
fn announce(agent: &Agent, state: &StateDir) {
    state.alive();
    agent.journal.record(EventBody::AgentStarted(AgentStarted {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        kernel: rustix::system::uname().release().to_string_lossy().into_owned(),
        mode: agent.config.on_access.mode.name().to_owned(),
    }));
    if agent.factory.bundle().refused.is_some() {
        watch::report_bundle(agent);
    }
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
