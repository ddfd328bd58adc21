//! On access: every open and exec on a protected file system is held until the scan core has
//! given its verdict, or the deadline has passed.
//!
//! [`hold`] is the loop that everything else serves: [`settle`] (answers), [`waiting`] (who waits), [`cache`] and [`condemned`] (what is
//! known), [`decide`] (the table), [`rules`] (what it is asked with), [`exclude`], [`later`] (scans that nobody waits for),
//! [`places`] (paths that are denied), [`nursery`] (new workers), [`watchdog`] (for a loop that is stuck), [`coverage`], [`mounts`]
//! and [`layers`] (what is marked), [`elsewhere`], [`namespaces`] and [`view`] (and what is marked
//! that only others see), [`counters`].

mod cache;
mod condemned;
mod counters;
mod coverage;
mod decide;
mod elsewhere;
mod exclude;
mod hold;
mod inbox;
mod later;
mod layers;
mod marks;
pub(crate) mod mounts;
mod namespaces;
mod nursery;
pub mod places;
mod rewrites;
mod rules;
mod settle;
mod view;
mod waiting;
mod watchdog;

use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use holdfast_common::control::{FileSystemState, OnAccessCounters};
use holdfast_common::event::EventBody;
use holdfast_common::verdict::{Decision, FailureReason};

pub use self::counters::Counters;
pub use self::coverage::check_paths;
pub use self::exclude::Exclusions;
pub use self::rewrites::MassRewrite;

use self::cache::{Cache, Epoch};
use self::condemned::Condemned;
use self::coverage::Coverage;
use self::elsewhere::Elsewhere;
use self::hold::{Loop, Parts};
use self::inbox::{Inbox, Message};
use self::later::Later;
use self::marks::Marks;
use self::nursery::Nursery;
use self::places::{Places, Told};
use self::rules::Rules;
use self::waiting::Waiter;
use self::watchdog::{Watchdog, Watched};
use crate::config::{Config, Mode, Protect};
use crate::respond::{Failed, Responder};
use crate::scan::WorkerFactory;
use crate::sensor::ImageHashes;
use crate::sys::fanotify::{Group, Pending};
use crate::sys::identity::Facts;

/// How long a loop may take to get to its next turn before rules are not put in force.
const APPLY: Duration = Duration::from_secs(60);

/// What all loops and the scanner threads share.
pub(crate) struct Shared {
    group: Arc<Group>,
    marks: Arc<Marks>,
    /// What the loops have copies of.
    rules: RwLock<Arc<Rules>>,
    own_pid: u32,
    counters: Arc<Counters>,
    exclusions: Arc<Exclusions>,
    cache: Cache,
    condemned: Condemned,
    /// Paths are denied: no ignore mark is set, since what is clean under one name may be opened
    /// under another.
    denies_paths: AtomicBool,
    /// Denied paths that were told of a moment ago.
    told: Told,
    /// Verdicts of workers with older rules are used once and not kept.
    generation: AtomicU64,
    /// Opens held by one loop at most.
    most_held: usize,
    later: Later,
    images: Option<ImageHashes>,
    responder: Responder,
    factory: Arc<WorkerFactory>,
    mass: MassSink,
}

/// Gets who rewrites many files, and the path of the last one. Called from a thread of its own.
pub type MassSink = Box<dyn Fn(MassRewrite, std::path::PathBuf) + Send + Sync>;

/// On-access protection, running.
pub struct OnAccess {
    shared: Arc<Shared>,
    coverage: Arc<Coverage>,
    elsewhere: Arc<Elsewhere>,
    inboxes: Vec<Arc<Inbox>>,
    factory: Arc<WorkerFactory>,
    workers_failing: Arc<AtomicBool>,
    stop: OwnedFd,
    /// One change of rules at a time.
    applying: Mutex<()>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

/// What on-access protection needs from the rest of the agent.
pub struct Needs {
    /// The checked config.
    pub config: Config,
    /// Starts workers.
    pub factory: Arc<WorkerFactory>,
    /// Exclusions in force.
    pub exclusions: Arc<Exclusions>,
    /// Paths that are denied from the beginning.
    pub denied: Arc<Places>,
    /// Takes detections and failures.
    pub responder: Responder,
    /// The counters, which the responder shares.
    pub counters: Arc<Counters>,
    /// Hashes programs whose exec is held.
    pub images: Option<ImageHashes>,
    /// Takes coverage events.
    pub report: Box<dyn Fn(EventBody) + Send + Sync>,
    /// Takes mass rewriting.
    pub mass: MassSink,
}

/// Why protection could not start.
#[derive(Debug, thiserror::Error)]
pub enum OnAccessError {
    /// fanotify refused.
    #[error(
        "cannot open a fanotify permission group (needs root and a kernel with CONFIG_FANOTIFY_ACCESS_PERMISSIONS)"
    )]
    Group(#[source] std::io::Error),
    /// A protected path is not there.
    #[error("{0}")]
    Path(String),
    /// The first workers did not start.
    #[error("cannot start scan workers")]
    Workers(#[source] crate::scan::ScanError),
    /// A loop did not take the rules.
    #[error("a loop that holds opens is stuck")]
    Stuck,
    /// What the kernel lets pass by itself stays so.
    #[error("ignore marks could not be dropped")]
    Marks(#[source] std::io::Error),
    /// A thread, a descriptor or the mount table.
    #[error("cannot start on-access protection")]
    Start(#[source] std::io::Error),
}

impl OnAccess {
    /// Starts loops and workers, then marks the file systems: nothing is held before somebody
    /// can answer.
    ///
    /// # Errors
    /// [`OnAccessError`]; nothing stays marked then.
    pub fn start(needs: Needs) -> Result<Self, OnAccessError> {
        let Needs { config, factory, exclusions, denied, responder, .. } = needs;
        let Needs { counters, images, report, mass, .. } = needs;
        coverage::check_paths(&config.on_access.protect).map_err(OnAccessError::Path)?;
        let group = Arc::new(Group::new().map_err(OnAccessError::Group)?);
        let protect = Arc::new(coverage::resolve(&config.on_access.protect));
        let no_long_pins = coverage::kernel_at_least(6, 5);
        let marks = Arc::new(Marks::new(Arc::clone(&group), no_long_pins));
        let coverage = Arc::new(Coverage::new(
            Arc::clone(&group),
            Arc::clone(&marks),
            Arc::clone(&protect),
            report,
        ));
        let elsewhere = Elsewhere::new(
            Arc::clone(&group),
            protect,
            Arc::clone(&coverage),
            Arc::clone(&counters),
        );
        let elsewhere = Arc::new(elsewhere.map_err(OnAccessError::Start)?);
        let (loops, seats) = layout(config.scan.workers);
        let denies_paths = AtomicBool::new(!denied.is_empty());
        let rules = Rules::new(config.on_access, denied, config.scan.rescan_limit_s, None);
        let shared = Arc::new(Shared {
            group,
            mass,
            marks,
            own_pid: std::process::id(),
            counters,
            exclusions,
            cache: Cache::default(),
            condemned: Condemned::default(),
            denies_paths,
            told: Told::default(),
            generation: AtomicU64::new(factory.generation()),
            most_held: most_held(loops),
            later: Later::new(std::process::id()),
            images,
            factory: Arc::clone(&factory),
            responder,
            rules: RwLock::new(Arc::new(rules)),
        });
        Later::start(&shared, &factory).map_err(OnAccessError::Start)?;
        let stop = rustix::event::eventfd(0, rustix::event::EventfdFlags::CLOEXEC)
            .map_err(|error| OnAccessError::Start(error.into()))?;
        let mut new = Self {
            shared,
            coverage,
            elsewhere,
            inboxes: Vec::new(),
            factory,
            workers_failing: Arc::default(),
            stop,
            applying: Mutex::default(),
            threads: Mutex::default(),
        };
        new.start_loops(loops, seats)?;
        new.follow_owners().map_err(OnAccessError::Start)?;
        new.coverage.refresh().map_err(OnAccessError::Start)?;
        new.elsewhere.look();
        new.follow_mounts().map_err(OnAccessError::Start)?;
        Ok(new)
    }

    /// `leading` loops read events; one more stands by.
    fn start_loops(&mut self, leading: usize, seats: usize) -> Result<(), OnAccessError> {
        for _ in 0..=leading {
            self.inboxes.push(Arc::new(Inbox::new().map_err(OnAccessError::Start)?));
        }
        let failing = Arc::clone(&self.workers_failing);
        let nursery = Nursery::start(Arc::clone(&self.factory), self.inboxes.clone(), failing)
            .map_err(OnAccessError::Start)?;
        let mut watched = Vec::new();
        for (index, inbox) in self.inboxes.iter().enumerate() {
            let first = if index < leading { seats } else { 0 };
            let workers = (0..first)
                .map(|_| self.factory.spawn_patiently())
                .collect::<Result<Vec<_>, _>>()
                .map_err(OnAccessError::Workers)?;
            let parts = Parts {
                shared: Arc::clone(&self.shared),
                waiting: Arc::default(),
                inbox: Arc::clone(inbox),
                pulse: Arc::default(),
                nursery: nursery.clone(),
                index,
                seats,
                workers,
            };
            watched.push(Watched {
                waiting: Arc::clone(&parts.waiting),
                pulse: Arc::clone(&parts.pulse),
                inbox: Arc::clone(inbox),
            });
            let new = Loop::new(parts).map_err(OnAccessError::Start)?;
            self.spawn("hold", move || {
                prefer_this_thread();
                new.run();
            })
            .map_err(OnAccessError::Start)?;
        }
        let stop = self.stop.try_clone().map_err(OnAccessError::Start)?;
        let watchdog = Watchdog::new(Arc::clone(&self.shared), watched, stop);
        self.spawn("watchdog", move || {
            prefer_this_thread();
            watchdog.run();
        })
        .map_err(OnAccessError::Start)
    }

    fn follow_owners(&self) -> std::io::Result<()> {
        let marks = Arc::clone(&self.shared.marks);
        let stop = self.stop.try_clone()?;
        self.spawn("owners", move || {
            if let Err(error) = marks.follow(&stop) {
                tracing::error!(%error, "changes of owner are not followed any more");
            }
        })
    }

    fn follow_mounts(&self) -> std::io::Result<()> {
        let coverage = Arc::clone(&self.coverage);
        let stop = self.stop.try_clone()?;
        self.spawn("mounts", move || {
            if let Err(error) = coverage.follow(&stop) {
                tracing::error!(%error, "mount changes are not followed any more");
            }
        })?;
        let elsewhere = Arc::clone(&self.elsewhere);
        let stop = self.stop.try_clone()?;
        self.spawn("namespaces", move || {
            if let Err(error) = elsewhere.follow(&stop) {
                tracing::error!(%error, "other mount namespaces are not followed any more");
            }
        })
    }

    fn spawn(&self, name: &str, body: impl FnOnce() + Send + 'static) -> std::io::Result<()> {
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn(body)?;
        if let Ok(mut threads) = self.threads.lock() {
            threads.push(thread);
        }
        Ok(())
    }

    /// Puts the factory's newest bundle to use: no older verdict or worker is used again when
    /// this returns.
    pub fn renew(&self) {
        self.shared.generation.store(self.factory.generation(), Ordering::SeqCst);
        let (done, wait) = mpsc::channel();
        for inbox in &self.inboxes {
            inbox.send(Message::NewBundle(done.clone()));
        }
        drop(done);
        while wait.recv().is_ok() {}
        self.shared.forget_everything();
    }

    /// Puts other rules in force: what is added is protected before anything else changes, what is
    /// left out is let go last. Every loop decides by them when this returns; no open is let go or
    /// waits for it.
    ///
    /// # Errors
    /// Why not. Some of them may be in force then: put the old ones back.
    pub fn apply(&self, config: &Config) -> Result<(), OnAccessError> {
        let _one = self.applying.lock().unwrap_or_else(PoisonError::into_inner);
        let old = self.shared.rules();
        let (denied, limit) = (Arc::clone(&old.denied), config.scan.rescan_limit_s);
        let new = Rules::new(config.on_access.clone(), denied, limit, Some(&old));
        self.protect(&config.on_access.protect)?;
        self.put_in_force(new, old)
    }

    /// Denies these paths and no others: the next open is decided so when this returns, also of
    /// files that the kernel let pass by itself before.
    ///
    /// # Errors
    /// Why not; it may be half in force then, and is to be asked for again.
    pub fn deny_paths(&self, denied: Arc<Places>) -> Result<(), OnAccessError> {
        let _one = self.applying.lock().unwrap_or_else(PoisonError::into_inner);
        let old = self.shared.rules();
        let any = !denied.is_empty();
        if any {
            // First: who sets a mark from here on looks after that whether it may.
            self.shared.denies_paths.store(true, Ordering::SeqCst);
        }
        self.put_in_force(old.denying(denied), old)?;
        if any {
            // Those from before. Verdicts stay: paths are asked for before them.
            return self.shared.group.notice_all().map_err(OnAccessError::Marks);
        }
        self.shared.denies_paths.store(false, Ordering::SeqCst);
        Ok(())
    }

    fn put_in_force(&self, new: Rules, old: Arc<Rules>) -> Result<(), OnAccessError> {
        let new = Arc::new(new);
        *self.shared.rules.write().unwrap_or_else(PoisonError::into_inner) = Arc::clone(&new);
        let (done, wait) = mpsc::channel();
        for inbox in &self.inboxes {
            inbox.send(Message::NewRules(Arc::clone(&new), done.clone()));
        }
        drop(done);
        for _ in &self.inboxes {
            wait.recv_timeout(APPLY).map_err(|_| OnAccessError::Stuck)?;
        }
        // Here, and not in a loop, is where they are freed.
        drop(old);
        Ok(())
    }

    /// Marks what is to be protected, here and in other mount namespaces, then lets go what is not
    /// any more.
    fn protect(&self, protect: &Protect) -> Result<(), OnAccessError> {
        let protect = Arc::new(coverage::resolve(protect));
        if !self.coverage.is_other(&protect) {
            return Ok(());
        }
        self.elsewhere.set_protect(Arc::clone(&protect));
        let narrowed = self.coverage.set_protect(protect).map_err(OnAccessError::Start)?;
        self.elsewhere.look();
        self.coverage.let_go(narrowed, &self.elsewhere.protected());
        // Nobody saw who wrote there while it was not marked.
        self.shared.forget_everything();
        Ok(())
    }

    /// From now on [`OnAccess::mounted`] tells of everybody's mounts and mount namespaces, or not:
    /// then they are looked for all the time.
    pub fn expect_mounts(&self, told: bool) {
        self.elsewhere.expect_calls(told);
    }

    /// Somebody mounts, or makes or enters a mount namespace. Never waits.
    pub fn mounted(&self) {
        self.elsewhere.call();
    }

    /// The numbers.
    #[must_use]
    pub fn counters(&self) -> OnAccessCounters {
        self.shared.counters.report()
    }

    /// What is protected.
    #[must_use]
    pub fn file_systems(&self) -> Vec<FileSystemState> {
        let mut states = self.coverage.states();
        states.extend(self.elsewhere.states());
        states
    }

    /// Those of them that this process can reach by their mount points.
    #[must_use]
    pub fn reachable_file_systems(&self) -> Vec<FileSystemState> {
        self.coverage.states()
    }

    /// Whether the file system of a folder carries our mark; `None` where that cannot be told: an
    /// overlay, whose layers may be marked in its place, or a folder that cannot be looked at.
    #[must_use]
    pub fn is_marked(&self, folder: &Path) -> Option<bool> {
        self.coverage.is_marked(folder)
    }

    /// Workers ready for held opens.
    #[must_use]
    pub fn workers(&self) -> u64 {
        self.shared.counters.workers.load(Ordering::Relaxed)
    }

    /// True while scan workers do not start.
    #[must_use]
    pub fn workers_failing(&self) -> bool {
        self.workers_failing.load(Ordering::Relaxed)
    }

    /// Lets everybody go, then ends the threads. The kernel lets through whoever comes between.
    pub fn stop(&self) {
        // No new open is held from here on; the loops answer those that are.
        if let Err(error) = self.shared.group.release_all() {
            tracing::error!(%error, "file systems stay marked until the process ends");
        }
        for inbox in &self.inboxes {
            inbox.send(Message::Stop);
        }
        let _ = rustix::io::write(&self.stop, &1_u64.to_ne_bytes());
        let threads = self.threads.lock().map(|mut threads| std::mem::take(&mut *threads));
        for thread in threads.unwrap_or_default() {
            if thread.join().is_err() {
                tracing::error!("a thread of on-access protection had panicked");
            }
        }
    }
}

impl Shared {
    /// The agent itself, or a worker that is being started: its program and libraries may lie on
    /// a protected file system, and nobody may be there yet to judge them.
    fn is_own(&self, pid: u32) -> bool {
        pid == self.own_pid || (self.factory.starting() && parent_of(pid) == Some(self.own_pid))
    }

    /// A file named as the prover's markers are, opened by a child of this process: a denied path
    /// is none to them, or no proof would be made there any more.
    fn is_own_marker(&self, pending: &Pending) -> bool {
        crate::prove::is_marker_name(&crate::respond::path_of(&pending.file()))
            && parent_of(pending.pid()) == Some(self.own_pid)
    }

    /// For all but the loops, which have their own copy.
    fn rules(&self) -> Arc<Rules> {
        Arc::clone(&self.rules.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn answer(
        &self,
        rules: &Rules,
        pending: Pending,
        since: Instant,
        decision: Decision,
    ) -> OwnedFd {
        let file = pending.answer(decision);
        self.counters.count_answer(decision, since.elapsed(), rules.deadline_of(since));
        file
    }

    /// Answers by the failure table, reports it, and has the file scanned later where that helps.
    fn fail(&self, rules: &Rules, pending: Pending, since: Instant, reason: FailureReason) {
        let outcome = decide::Outcome::Failure(reason);
        let resolution = decide::decide(&outcome, false, &rules.config);
        let pid = pending.pid();
        let file = self.answer(rules, pending, since, resolution.decision);
        self.counters.count_failure(reason);
        let again = file.try_clone().ok();
        let rescan =
            resolution.follow_up == decide::FollowUp::Rescan && self.later.rescan(file, pid);
        self.responder.failed(Failed {
            reason,
            decision: Some(resolution.decision),
            file: again,
            pid,
            rescan,
        });
    }

    /// Answers somebody who has waited long enough: as decided, or by the failure table.
    fn answer_overdue(&self, rules: &Rules, waiter: Waiter, reason: FailureReason) {
        let sentence = self.condemned.get(&waiter.facts);
        let known_malicious = rules.config.mode == Mode::Block
            && sentence.is_some_and(|known| !self.exclusions.allow_content(&known.hashes.sha256));
        match waiter.decided.or(known_malicious.then_some(Decision::Deny)) {
            Some(decision) => drop(self.answer(rules, waiter.pending, waiter.since, decision)),
            None => self.fail(rules, waiter.pending, waiter.since, reason),
        }
    }

    /// A scan that nobody waited for came to nothing.
    fn report_failure(
        &self,
        reason: FailureReason,
        decision: Option<Decision>,
        file: Option<OwnedFd>,
        pid: u32,
    ) {
        self.counters.count_failure(reason);
        self.responder.failed(Failed { reason, decision, file, pid, rescan: false });
    }

    /// Keeps a clean verdict if nothing can have changed since the scan (see [`cache`]), and the
    /// rules have not (`generation` is that of the worker).
    fn remember(&self, file: BorrowedFd<'_>, facts: &Facts, epoch: Epoch, generation: u64) {
        let current = || self.generation.load(Ordering::SeqCst) == generation;
        if !current() || !self.marks.keeps_verdicts(facts) || crate::sys::identity::has_writer(file)
        {
            return;
        }
        let unchanged = Facts::of(file).is_ok_and(|now| now.identity == facts.identity);
        if unchanged && self.cache.remember(&facts.identity, epoch) {
            self.ignore_if_safe(file, facts);
            // New rules are counted first and everything old dropped after: whichever of the two
            // comes last sees the other.
            if !current() {
                self.cache.forget(&facts.identity);
                self.marks.notice(file);
            }
        }
    }

    /// Lets later opens pass inside the kernel, where root alone can write the file.
    /// INVARIANT: mark first, look again after: a change in between is seen, a later one drops
    /// the mark, and the kernel sets none while somebody can write.
    fn ignore_if_safe(&self, file: BorrowedFd<'_>, facts: &Facts) {
        let denies_paths = || self.denies_paths.load(Ordering::SeqCst);
        if denies_paths() || !self.marks.ignore(file, facts) {
            return;
        }
        if denies_paths() {
            self.marks.notice(file);
        }
        let unchanged = Facts::of(file).is_ok_and(|now| now.identity == facts.identity);
        if !unchanged || !self.cache.is_clean(&facts.identity) {
            self.cache.forget(&facts.identity);
            self.marks.notice(file);
        }
    }

    fn forget_everything(&self) {
        self.cache.clear();
        self.condemned.clear();
        if let Err(error) = self.group.notice_all() {
            tracing::error!(%error, "ignore marks could not be dropped");
        }
    }
}

/// Field 4 of `/proc/PID/stat` (proc_pid_stat(5)). The process is held, so it stays what it is.
fn parent_of(pid: u32) -> Option<u32> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in brackets may hold anything, brackets too.
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_ascii_whitespace().nth(1)?.parse().ok()
}

/// Somebody waits for this thread: it goes before ordinary ones when processors are short
/// (`setpriority(2)`: on Linux a thread has its own).
fn prefer_this_thread() {
    if let Err(error) = rustix::process::setpriority_process(None, -10) {
        tracing::warn!(%error, "no preference for held opens when processors are short");
    }
}

/// How many loops lead, and workers for each: a loop a few cores, two workers at least, since one
/// takes small files alone.
fn layout(workers: usize) -> (usize, usize) {
    let cores = std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
    let leading = (cores / 4).clamp(1, 4);
    let workers = if workers == 0 { cores } else { workers };
    (leading, workers.div_ceil(leading).max(2))
}

/// Opens that one loop may hold: with two descriptors each, half of all of them together.
fn most_held(leading: usize) -> usize {
    crate::sys::descriptors::share(4) / leading
}
