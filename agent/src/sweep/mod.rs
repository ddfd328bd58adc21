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
mod line;
mod live;
mod places;
mod plan;
mod rules;
mod walk;

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError, RwLock};
use std::thread::JoinHandle;

use holdfast_common::control::ScanSteer;
use holdfast_common::event::EventBody;
use holdfast_common::scans::{ScanOrder, ScanRecord, ScanSchedule, ScheduleState, check_order};
use uuid::Uuid;

pub use self::history::HistoryError;
pub use self::places::QUICK;
pub use self::plan::PlanError;

use self::history::History;
use self::line::Inner;
use self::live::End;
use self::plan::Planner;
use crate::config;
use crate::control::Answerer;
use crate::journal::Journal;
use crate::now_ms;
use crate::on_access::Exclusions;
use crate::respond::Respond;
use crate::scan::WorkerFactory;

/// What scans need from the rest of the agent.
pub struct Needs {
    /// How scans go.
    pub rules: SweepRules,
    /// The state folder.
    pub state_dir: PathBuf,
    /// Where their beginning and end are told.
    pub journal: Journal,
    /// Starts their workers.
    pub factory: Arc<WorkerFactory>,
    /// What is left out.
    pub exclusions: Arc<Exclusions>,
}

/// How scans go, as config and policy say.
#[derive(Debug, Clone)]
pub struct SweepRules {
    /// `[scan]`
    pub config: config::Scan,
    /// Finds are sealed: block mode.
    pub quarantine: bool,
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
    Schedule(#[from] PlanError),
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
        let planner = Planner::open(&needs.rules.config, &history, now_ms())?;
        let rules = RwLock::new(Arc::new(needs.rules.clone()));
        let inner = Arc::new(Inner {
            needs,
            rules,
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

    /// Other rules from now on; a scan that runs goes on by them from its next file.
    ///
    /// # Errors
    /// [`SweepError`]; then nothing has changed.
    pub fn apply(&self, rules: SweepRules) -> Result<(), SweepError> {
        let planned = {
            let mut planner = self.inner.planner();
            planner.replace(&rules.config, &self.inner.history, now_ms())
        };
        planned?;
        *self.inner.rules.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(rules);
        self.inner.changed.notify_all();
        Ok(())
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

fn check(order: &ScanOrder) -> Result<(), SweepError> {
    check_order(order).map_err(SweepError::Order)
}
