//! Scans of files that nobody has opened: on demand, in the background, on a schedule.
//!
//! ```text
//!  holdfast scan, a task, a schedule
//!        │ ScanOrder
//!        ▼
//!  places (what quick and full come to) ─▶ walk (by descriptors) ─▶ drive (worker, verdict, act)
//!        ▲                                                              │
//!  plan (schedule: when it is due) ◀── history (scans.db) ◀── live (record, pause, cancel)
//! ```
//!
//! INVARIANT: one scan in the background at a time, the others wait in line, bounded; those that
//! somebody waits for run beside it, a few. Whatever a scan does, held opens do not wait for it
//! ([`drive`]). Every scan that was begun has its end in the history, a kill of the agent too. The
//! scan core itself is [`crate::scan`]'s.

mod drive;
mod history;
mod late;
mod live;
mod places;
mod plan;
mod rules;
mod schedule;
mod walk;

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use holdfast_common::control::{Reply, ScanProgress, ScanSteer};
use holdfast_common::event::EventBody;
use holdfast_common::process::printable;
use holdfast_common::scans::{
    ScanOrder, ScanRecord, ScanSchedule, ScanScope, ScanState, ScheduleState,
};
use uuid::Uuid;

pub use self::history::HistoryError;
pub use self::places::QUICK;
pub use self::schedule::{ScheduleError, check_schedule, check_timezone, check_when, parse_jitter};

use self::drive::{Parts, Sweep};
use self::history::History;
use self::live::{End, Live, cut};
use self::plan::Planner;
use crate::config;
use crate::control::Answerer;
use crate::journal::Journal;
use crate::on_access::Exclusions;
use crate::respond::Respond;
use crate::scan::WorkerFactory;

/// Scans that wait in line.
const MOST_WAITING: usize = 32;
/// Scans that somebody waits for, at once. Each costs a worker and descriptors.
const MOST_ATTENDED: usize = 4;
/// Paths of one scan.
const MOST_PATHS: usize = 1000;
/// Places that a record names.
const MOST_PLACES: usize = 50;
/// How often the schedules are looked at when nothing is due: the clock may be set.
const LOOK: Duration = Duration::from_secs(5);

/// What scans need from the rest of the agent.
pub struct Needs {
    /// `[scan]`
    pub config: config::Scan,
    /// Finds are sealed: block mode.
    pub quarantine: bool,
    /// The state folder.
    pub state_dir: PathBuf,
    /// Where their beginning and end are told.
    pub journal: Journal,
    /// Starts their workers.
    pub factory: Arc<WorkerFactory>,
    /// What is left out.
    pub exclusions: Arc<Exclusions>,
}

/// Why something asked of scans was not done.
#[derive(Debug, thiserror::Error)]
pub enum SweepError {
    /// The order cannot be meant.
    #[error("{0}")]
    Order(String),
    /// No room.
    #[error("{0}")]
    Busy(String),
    /// There is no such scan.
    #[error("there is no scan {0}")]
    Unknown(Uuid),
    /// It has ended.
    #[error("scan {id} is {state} already")]
    Ended {
        /// Which.
        id: Uuid,
        /// How.
        state: &'static str,
    },
    /// A schedule.
    #[error(transparent)]
    Schedule(#[from] ScheduleError),
    /// The history.
    #[error(transparent)]
    History(#[from] HistoryError),
    /// No thread.
    #[error("cannot start the scans' threads")]
    Thread(#[source] std::io::Error),
}

/// All scans of this host.
pub struct Sweeps {
    inner: Arc<Inner>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl std::fmt::Debug for Sweeps {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sweeps").finish_non_exhaustive()
    }
}

struct Inner {
    needs: Needs,
    respond: Respond,
    history: History,
    planner: Mutex<Planner>,
    line: Mutex<Line>,
    /// A scan came into line, a schedule changed, or the agent stops.
    changed: Condvar,
    attended: AtomicUsize,
    stopping: AtomicBool,
}

/// Scans that wait, and all that have not ended.
#[derive(Default)]
struct Line {
    waiting: VecDeque<(Arc<Live>, ScanOrder)>,
    open: Vec<Arc<Live>>,
}

impl Sweeps {
    /// Opens the history and starts the threads.
    ///
    /// # Errors
    /// [`SweepError`]
    pub fn start(needs: Needs, respond: Respond) -> Result<Self, SweepError> {
        let history = History::open(&needs.state_dir)?;
        for record in history.interrupt()? {
            needs.journal.record(EventBody::Scan(Box::new(record.brief())));
        }
        let planner = Planner::open(&needs.config.schedule, &history, now_ms())?;
        let inner = Arc::new(Inner {
            needs,
            respond,
            history,
            planner: Mutex::new(planner),
            line: Mutex::default(),
            changed: Condvar::new(),
            attended: AtomicUsize::new(0),
            stopping: AtomicBool::new(false),
        });
        let spawn = |name: &str, body: fn(&Inner)| {
            let inner = Arc::clone(&inner);
            std::thread::Builder::new()
                .name(name.to_owned())
                .spawn(move || body(&inner))
                .map_err(SweepError::Thread)
        };
        let threads = vec![spawn("sweep", Inner::run_line)?, spawn("sweep-plan", Inner::run_plan)?];
        Ok(Self { inner, threads: Mutex::new(threads) })
    }

    /// Puts a scan in line; it runs in the background.
    ///
    /// # Errors
    /// [`SweepError`]
    pub fn put_in_line(&self, order: ScanOrder) -> Result<ScanRecord, SweepError> {
        self.inner.put_in_line(order, None)
    }

    /// Runs a scan here and now, telling how it goes; it ends when nobody listens.
    ///
    /// # Errors
    /// [`SweepError`]; what goes wrong with single files is told.
    pub fn attend(
        &self,
        order: &ScanOrder,
        told_id: bool,
        answer: &mut dyn Answerer,
    ) -> Result<(), SweepError> {
        self.inner.attend(order, told_id, answer)
    }

    /// Scans, newest first; 0 for all that are remembered.
    ///
    /// # Errors
    /// [`SweepError::History`]
    pub fn list(&self, limit: u64) -> Result<Vec<ScanRecord>, SweepError> {
        let mut all = self.inner.history.list(limit)?;
        for record in &mut all {
            if let Some(live) = self.inner.open(record.scan_id) {
                *record = live.record().clone();
            }
        }
        Ok(all)
    }

    /// One scan.
    ///
    /// # Errors
    /// [`SweepError`]
    pub fn show(&self, id: Uuid) -> Result<ScanRecord, SweepError> {
        if let Some(live) = self.inner.open(id) {
            return Ok(live.record().clone());
        }
        self.inner.history.get(id)?.ok_or(SweepError::Unknown(id))
    }

    /// Lets a scan wait, go on or end.
    ///
    /// # Errors
    /// [`SweepError`]
    pub fn steer(&self, id: Uuid, steer: ScanSteer) -> Result<ScanRecord, SweepError> {
        let Some(live) = self.inner.open(id) else {
            let record = self.show(id)?;
            return Err(SweepError::Ended { id, state: record.state.name() });
        };
        live.steer(steer);
        self.inner.leave_line(&live);
        let record = live.record().clone();
        Ok(record)
    }

    /// All schedules.
    #[must_use]
    pub fn schedules(&self) -> Vec<ScheduleState> {
        self.inner.planner().states(now_ms())
    }

    /// Adds a schedule, which is kept.
    ///
    /// # Errors
    /// [`SweepError::Schedule`], also for a name that is taken.
    pub fn schedule_add(&self, schedule: ScanSchedule) -> Result<ScheduleState, SweepError> {
        let name = schedule.name.clone();
        let mut planner = self.inner.planner();
        planner.add(schedule, &self.inner.history, now_ms())?;
        let states = planner.states(now_ms());
        drop(planner);
        self.inner.changed.notify_all();
        let added = states.into_iter().find(|state| state.schedule.name == name);
        added.ok_or_else(|| SweepError::Order(format!("schedule {name:?} is not there")))
    }

    /// Forgets a schedule that was added.
    ///
    /// # Errors
    /// [`SweepError::Schedule`]
    pub fn schedule_remove(&self, name: &str) -> Result<(), SweepError> {
        Ok(self.inner.planner().remove(name, &self.inner.history)?)
    }

    /// What is red, by name.
    #[must_use]
    pub fn problems(&self) -> Vec<String> {
        let history = self.inner.history.problem();
        history.map(|problem| format!("scans are not remembered: {problem}")).into_iter().collect()
    }

    /// Ends what runs and the threads. The history says that it was interrupted.
    pub fn stop(&self) {
        self.inner.stopping.store(true, Ordering::Relaxed);
        for live in &self.inner.line().open {
            live.end(End::Stopping);
        }
        self.inner.changed.notify_all();
        let threads: Vec<_> =
            self.threads.lock().unwrap_or_else(PoisonError::into_inner).drain(..).collect();
        for thread in threads {
            if thread.join().is_err() {
                tracing::error!("a thread of the scans had panicked");
            }
        }
    }
}

impl Drop for Sweeps {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Inner {
    fn line(&self) -> MutexGuard<'_, Line> {
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn planner(&self) -> MutexGuard<'_, Planner> {
        self.planner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn open(&self, id: Uuid) -> Option<Arc<Live>> {
        self.line().open.iter().find(|live| live.record().scan_id == id).cloned()
    }

    fn stops(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }

    fn record_of(&self, order: &ScanOrder, schedule: Option<&str>, share: u8) -> ScanRecord {
        let places = match order.scope {
            ScanScope::Paths => {
                order.paths.iter().take(MOST_PLACES).map(|p| live::shown(p)).collect()
            }
            ScanScope::Quick | ScanScope::Full => Vec::new(),
        };
        ScanRecord {
            scan_id: Uuid::now_v7(),
            scope: order.scope,
            places,
            started_by: cut(printable(order.started_by.as_bytes())),
            schedule: schedule.map(str::to_owned),
            state: ScanState::Waiting,
            note: None,
            cpu_share: order.cpu_share.unwrap_or(share),
            asked_ms: now_ms(),
            began_ms: None,
            ended_ms: None,
            running_ms: 0,
            progress: ScanProgress::default(),
            at: String::new(),
            estimate: None,
            left_out: Vec::new(),
            finds: Vec::new(),
            bundle: String::new(),
        }
    }

    fn put_in_line(
        &self,
        order: ScanOrder,
        due: Option<&plan::Due>,
    ) -> Result<ScanRecord, SweepError> {
        check(&order)?;
        let schedule = due.map(|due| due.schedule.name.as_str());
        let record = self.record_of(&order, schedule, self.needs.config.cpu_share);
        {
            let mut line = self.line();
            if line.waiting.len() >= MOST_WAITING || self.stops() {
                return Err(SweepError::Busy(format!("{MOST_WAITING} scans wait already")));
            }
            // Together, so that a kill in between neither loses the run nor doubles it.
            let standing = due.map(|due| (due.schedule.name.as_str(), &due.standing));
            self.history.put_due(&record, standing)?;
            let live = Live::new(record.clone());
            line.open.push(Arc::clone(&live));
            line.waiting.push_back((live, order));
        }
        self.changed.notify_all();
        Ok(record)
    }

    fn attend(
        &self,
        order: &ScanOrder,
        told_id: bool,
        answer: &mut dyn Answerer,
    ) -> Result<(), SweepError> {
        check(order)?;
        let _seat = Seat::take(&self.attended).ok_or_else(|| {
            SweepError::Busy(format!("{MOST_ATTENDED} scans run already that somebody waits for"))
        })?;
        let live = Live::new(self.record_of(order, None, 100));
        {
            let mut line = self.line();
            if self.stops() {
                return Err(SweepError::Busy("the agent stops".to_owned()));
            }
            line.open.push(Arc::clone(&live));
        }
        if told_id {
            let record = live.record().clone();
            if answer.reply(Reply::Scan(Box::new(record))).is_err() {
                live.end(End::Cancelled("nobody waits for it any more".to_owned()));
            }
        }
        self.carry_out(&live, order, false, answer);
        let record = live.record().clone();
        match record.state {
            ScanState::Done => {
                // Nobody may be there to hear it.
                let _ = answer.reply(Reply::ScanDone(record.progress));
                Ok(())
            }
            ScanState::Waiting
            | ScanState::Running
            | ScanState::Paused
            | ScanState::Cancelled
            | ScanState::Interrupted
            | ScanState::Skipped => {
                let note = record.note.unwrap_or_default();
                Err(SweepError::Busy(format!("the scan was {}: {note}", record.state.name())))
            }
        }
    }

    /// From its beginning to its end, whichever that is.
    fn carry_out(
        &self,
        live: &Live,
        order: &ScanOrder,
        background: bool,
        answer: &mut dyn Answerer,
    ) {
        let ended = match live.ending() {
            Some(end) => Err(end),
            None => {
                let plan = places::plan(order, &self.needs.config);
                self.begin(live, &plan);
                let (needs, respond, history) = (&self.needs, &self.respond, &self.history);
                let parts = Parts { needs, respond, history, live, answer };
                Sweep::new(parts, background).run(plan)
            }
        };
        let record = {
            let mut record = live.record();
            record.ended_ms = Some(now_ms());
            (record.state, record.note) = match ended {
                Ok(()) => (ScanState::Done, None),
                Err(End::Cancelled(why)) => (ScanState::Cancelled, Some(why)),
                Err(End::Stopping) => {
                    (ScanState::Interrupted, Some("the agent was stopped".to_owned()))
                }
            };
            record.clone()
        };
        self.keep(&record);
        self.line().open.retain(|open| !std::ptr::eq(&raw const **open, live));
        self.needs.journal.record(EventBody::Scan(Box::new(record.brief())));
    }

    fn begin(&self, live: &Live, plan: &places::Plan) {
        let record = {
            let mut record = live.record();
            record.state = ScanState::Running;
            record.began_ms = Some(now_ms());
            record.bundle = self.needs.factory.bundle().digest;
            if record.scope == ScanScope::Full {
                record.places =
                    plan.places.iter().take(MOST_PLACES).map(places::Place::shown).collect();
            }
            record.clone()
        };
        self.keep(&record);
        self.needs.journal.record(EventBody::Scan(Box::new(record.brief())));
    }

    fn keep(&self, record: &ScanRecord) {
        if let Err(error) = self.history.put(record) {
            tracing::warn!(error = crate::error_chain(&error), "a scan is not remembered");
        }
    }

    /// One that is cancelled before its turn ends at once.
    fn leave_line(&self, live: &Arc<Live>) {
        if live.ending().is_none() {
            return;
        }
        let left = {
            let mut line = self.line();
            let place = line.waiting.iter().position(|(one, _)| Arc::ptr_eq(one, live));
            place.and_then(|place| line.waiting.remove(place))
        };
        if let Some((live, order)) = left {
            self.carry_out(&live, &order, true, &mut Nobody);
        }
    }

    /// The scans in line, one after the other.
    fn run_line(&self) {
        loop {
            let next = {
                let mut line = self.line();
                loop {
                    if let Some(next) = line.waiting.pop_front() {
                        break next;
                    }
                    if self.stops() {
                        return;
                    }
                    line = self.changed.wait(line).unwrap_or_else(PoisonError::into_inner);
                }
            };
            self.carry_out(&next.0, &next.1, true, &mut Nobody);
        }
    }

    /// Files what is due.
    fn run_plan(&self) {
        while !self.stops() {
            let now = now_ms();
            let due = self.planner().due(now, &self.history);
            for due in due {
                self.file_due(&due);
            }
            let next = self.planner().next_ms(now);
            let wait = next
                .map(|next| {
                    Duration::from_millis(next.saturating_sub(now_ms()).max(10).unsigned_abs())
                })
                .map_or(LOOK, |wait| wait.min(LOOK));
            let line = self.line();
            if !self.stops() {
                drop(self.changed.wait_timeout(line, wait));
            }
        }
    }

    fn file_due(&self, due: &plan::Due) {
        let schedule = &due.schedule;
        let order = ScanOrder {
            scope: schedule.scope,
            paths: schedule.paths.clone(),
            started_by: format!("schedule {}{}", schedule.name, due.why()),
            cpu_share: schedule.cpu_share,
        };
        let name = Some(schedule.name.as_str());
        let still = self.line().open.iter().any(|live| live.record().schedule.as_deref() == name);
        let skipped = if still {
            Some("the run before it is still going".to_owned())
        } else {
            self.put_in_line(order.clone(), Some(due)).err().map(|error| crate::error_chain(&error))
        };
        let Some(why) = skipped else { return };
        tracing::warn!(schedule = schedule.name, why, "a scheduled scan was skipped");
        let mut record = self.record_of(&order, name, self.needs.config.cpu_share);
        record.state = ScanState::Skipped;
        record.note = Some(why.clone());
        record.ended_ms = Some(record.asked_ms);
        self.keep(&record);
        self.needs.journal.record(EventBody::Scan(Box::new(record)));
        self.planner().skipped(&schedule.name, &why, &self.history);
    }
}

/// A scan that nobody waits for.
struct Nobody;

impl Answerer for Nobody {
    fn reply(&mut self, _reply: Reply) -> std::io::Result<()> {
        Ok(())
    }
    fn data(&mut self, _bytes: &[u8]) -> std::io::Result<()> {
        Ok(())
    }
    fn gone(&self) -> bool {
        false
    }
}

/// One of the few that somebody waits for.
struct Seat<'a>(&'a AtomicUsize);

impl<'a> Seat<'a> {
    fn take(taken: &'a AtomicUsize) -> Option<Self> {
        let more = |now| (now < MOST_ATTENDED).then_some(now + 1);
        taken.fetch_update(Ordering::AcqRel, Ordering::Acquire, more).ok()?;
        Some(Self(taken))
    }
}

impl Drop for Seat<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

fn check(order: &ScanOrder) -> Result<(), SweepError> {
    let wrong = |text: String| Err(SweepError::Order(text));
    match order.scope {
        ScanScope::Paths if order.paths.is_empty() => wrong("no path is given".to_owned()),
        ScanScope::Paths if order.paths.len() > MOST_PATHS => {
            wrong(format!("at most {MOST_PATHS} paths"))
        }
        ScanScope::Quick | ScanScope::Full if !order.paths.is_empty() => {
            wrong("paths are given beside quick or full".to_owned())
        }
        ScanScope::Quick | ScanScope::Full | ScanScope::Paths => {
            if let Some(path) = order.paths.iter().find(|path| !path.is_absolute()) {
                return wrong(format!("{} is not an absolute path", live::shown(path)));
            }
            if order.cpu_share.is_some_and(|share| !(1..=100).contains(&share)) {
                return wrong("the CPU share is 1 to 100 percent".to_owned());
            }
            Ok(())
        }
    }
}

/// Milliseconds since the epoch.
fn now_ms() -> i64 {
    jiff::Timestamp::now().as_millisecond()
}
