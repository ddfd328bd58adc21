//! Response tasks on this host: taken onto the disk, begun once, told until the manager has it.
//!
//! ```text
//!  take ─▶ waiting ─▶ begun ─▶ ended            told: Delivered ─▶ Executed ─▶ Verified | Failed
//!             │         └────▶ delivering ─▶ ended       (a file: verified when the manager has it)
//!             └─▶ ended (expired, cancelled)
//! ```
//!
//! INVARIANT: a task is on disk before `Delivered` is told and marked as begun before it is begun.
//! One that was begun when the agent ended is not done again unless it only reads; what it did is
//! looked at instead. Tasks of different weight have different places, so that isolating never
//! waits for a scan.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use holdfast_common::link::wire;
use holdfast_common::task::{Action, Progress, Stage};
use tokio::sync::Notify;
use uuid::Uuid;

use super::Host;
use super::actions::{self, Outcome};
use super::session::SessionError;
use super::spool::Spool;
use super::store::{Order, Spooled, State, Store, progress};
use crate::journal::Journal;
use crate::now_ms;
use crate::shell::{self, Shells};

/// Tasks that wait; more are refused.
const MOST_WAITING: usize = 256;
/// Longest text of the manager that is kept, characters.
const LONGEST: usize = 1000;

/// Where a task has its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Weight {
    /// Stops an attack.
    Urgent,
    /// Seconds.
    Quick,
    /// Minutes to hours.
    Long,
    /// As long as somebody types. How many there may be is the shells' own to say.
    Shell,
}

impl Weight {
    const fn of(action: &Action) -> Self {
        match action {
            Action::Isolate { .. }
            | Action::Release
            | Action::Kill { .. }
            | Action::DenyHash { .. }
            | Action::DenyPath { .. }
            | Action::Undeny { .. } => Self::Urgent,
            Action::Restore { .. }
            | Action::Delete { .. }
            | Action::Download { .. }
            | Action::Collect { .. }
            | Action::ProcessList
            | Action::Diagnostics => Self::Quick,
            Action::Scan { .. } | Action::Simulate { .. } => Self::Long,
            Action::Shell { .. } => Self::Shell,
        }
    }

    const fn places(self) -> usize {
        match self {
            Self::Urgent => 4,
            Self::Quick | Self::Long => 2,
            // One that is too many is refused at once, and does not wait.
            Self::Shell => 2 * shell::MOST,
        }
    }
}

/// What tasks need.
pub(super) struct Needs {
    pub(super) store: Arc<Store>,
    pub(super) host: Arc<dyn Host>,
    pub(super) shells: Arc<Shells>,
    pub(super) journal: Journal,
    pub(super) state_dir: PathBuf,
    /// Bytes of files that wait to be delivered.
    pub(super) spool: u64,
}

/// The tasks of this host.
pub(super) struct Tasks {
    store: Arc<Store>,
    context: actions::Context,
    told: Notify,
    spooled: Notify,
    /// What runs, with its weight and whether it was cancelled.
    running: Mutex<HashMap<Uuid, (Weight, Arc<AtomicBool>)>>,
    /// The manager's clock before ours, milliseconds.
    ahead_ms: AtomicI64,
}

impl std::fmt::Debug for Tasks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tasks").field("store", &self.store).finish_non_exhaustive()
    }
}

impl Tasks {
    /// Takes up what an earlier agent left. Blocks.
    pub(super) fn start(needs: Needs) -> Result<Arc<Self>, SessionError> {
        let Needs { store, host, shells, journal, state_dir, spool } = needs;
        let delivering = store.tasks(State::Delivering)?;
        let needed: Vec<PathBuf> =
            delivering.into_iter().filter_map(|(_, spooled)| Some(spooled?.path)).collect();
        let spool = Spool::open(&state_dir, spool, &needed)?;
        let tasks = Arc::new(Self {
            store,
            context: actions::Context { host, shells, journal, spool },
            told: Notify::new(),
            spooled: Notify::new(),
            running: Mutex::default(),
            ahead_ms: AtomicI64::new(0),
        });
        for (order, _) in tasks.store.tasks(State::Begun)? {
            tasks.take_up(&order)?;
        }
        tasks.begin_waiting()?;
        Ok(tasks)
    }

    pub(super) fn store(&self) -> Arc<Store> {
        Arc::clone(&self.store)
    }

    /// Returns when there is something to tell.
    pub(super) async fn told(&self) {
        self.told.notified().await;
    }

    /// Returns when there is a file to deliver.
    pub(super) async fn spooled(&self) {
        self.spooled.notified().await;
    }

    /// Begins what has a place now, ends what has waited too long.
    pub(super) fn look(self: &Arc<Self>) -> Result<(), SessionError> {
        self.begin_waiting()
    }

    /// How far the manager's clock is before ours, milliseconds.
    pub(super) fn set_clock(&self, ahead_ms: i64) {
        self.ahead_ms.store(ahead_ms, Ordering::Relaxed);
    }

    /// Takes a task. One that is known is left as it is.
    pub(super) fn take(self: &Arc<Self>, task: wire::Task) -> Result<(), SessionError> {
        let cut = |text: String| text.chars().take(LONGEST).collect();
        let order = Order {
            id: task.id,
            action: serde_json::from_slice(&task.action).unwrap_or_default(),
            expires_ms: task.expires_ms,
            filed_by: cut(task.filed_by),
            reason: cut(task.reason),
        };
        if Uuid::try_parse(&order.id).is_err() {
            return Err(SessionError::Garbled("a task without an id"));
        }
        let delivered = progress(Stage::Delivered, "");
        let taken = match parse(&order) {
            Err(why) => self.store.task_take(&order, &progress(Stage::Failed, why))?,
            Ok(_) if self.store.tasks(State::Waiting)?.len() >= MOST_WAITING => {
                let why = format!("{MOST_WAITING} tasks wait on this host already");
                self.store.task_take(&order, &progress(Stage::Failed, why))?
            }
            Ok(action) => {
                let taken = self.store.task_take(&order, &delivered)?;
                if taken {
                    let (action, by) = (action.name(), &order.filed_by);
                    tracing::info!(task = order.id, action, by, "a response task was taken");
                }
                taken
            }
        };
        if taken {
            self.told.notify_one();
            self.begin_waiting()?;
        }
        Ok(())
    }

    /// Takes a task back, if it is not too late.
    pub(super) fn cancel(self: &Arc<Self>, id: &str) -> Result<(), SessionError> {
        let end = [progress(Stage::Cancelled, "before it was begun")];
        if self.store.task_move(id, &[State::Waiting], State::Ended, None, &end)? {
            self.told.notify_one();
            return Ok(());
        }
        let running = self.running();
        if let Some((_, cancelled)) = Uuid::try_parse(id).ok().and_then(|id| running.get(&id)) {
            cancelled.store(true, Ordering::Relaxed);
            return Ok(());
        }
        drop(running);
        // It may come after its cancellation.
        let (action, text) = (serde_json::Value::Null, String::new);
        let order =
            Order { id: id.to_owned(), action, expires_ms: 0, filed_by: text(), reason: text() };
        if Uuid::try_parse(id).is_ok()
            && self.store.task_take(&order, &progress(Stage::Cancelled, "before it came"))?
        {
            self.told.notify_one();
        }
        Ok(())
    }

    /// A file's delivery has ended.
    pub(super) fn delivered(
        self: &Arc<Self>,
        order: &Order,
        spooled: Option<&Spooled>,
        outcome: Result<(), String>,
    ) -> Result<(), SessionError> {
        let end = match (outcome, spooled) {
            (Ok(()), Some(spooled)) => Progress {
                result: serde_json::json!({ "size": spooled.size, "sha256": spooled.sha256 }),
                ..progress(
                    Stage::Verified,
                    format!("{}; the manager has the whole file", spooled.observed),
                )
            },
            (Ok(()), None) => progress(Stage::Failed, "its file is not known"),
            (Err(why), _) => progress(Stage::Failed, why),
        };
        self.store.task_move(&order.id, &[State::Delivering], State::Ended, None, &[end])?;
        if let Some(spooled) = spooled {
            // The next start sweeps what is left.
            let _ = std::fs::remove_file(&spooled.path);
        }
        self.told.notify_one();
        Ok(())
    }

    fn running(&self) -> MutexGuard<'_, HashMap<Uuid, (Weight, Arc<AtomicBool>)>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One that was begun when the agent ended.
    fn take_up(self: &Arc<Self>, order: &Order) -> Result<(), SessionError> {
        let action = match parse(order) {
            Ok(action) if actions::only_reads(&action) => {
                let again = [State::Begun];
                self.store.task_move(&order.id, &again, State::Waiting, None, &[])?;
                return Ok(());
            }
            Ok(action) => action,
            Err(why) => {
                let end = [progress(Stage::Failed, why)];
                self.store.task_move(&order.id, &[State::Begun], State::Ended, None, &end)?;
                return Ok(());
            }
        };
        let executed = |observed: &str| self.executed(&order.id, observed);
        let outcome = actions::observe(&self.context, &action, &executed);
        self.end(&order.id, outcome)
    }

    /// Begins what waits, as far as there are places.
    fn begin_waiting(self: &Arc<Self>) -> Result<(), SessionError> {
        for (order, _) in self.store.tasks(State::Waiting)? {
            let (Ok(id), Ok(action)) = (Uuid::try_parse(&order.id), parse(&order)) else {
                continue;
            };
            let now = now_ms().saturating_add(self.ahead_ms.load(Ordering::Relaxed));
            if now > order.expires_ms {
                let end = [progress(Stage::Expired, "its time was over before it was begun")];
                self.store.task_move(&order.id, &[State::Waiting], State::Ended, None, &end)?;
                self.told.notify_one();
                continue;
            }
            let weight = Weight::of(&action);
            let cancelled = Arc::new(AtomicBool::new(false));
            {
                let mut running = self.running();
                let taken = running.values().filter(|one| one.0 == weight).count();
                if taken >= weight.places() || running.contains_key(&id) {
                    continue;
                }
                running.insert(id, (weight, Arc::clone(&cancelled)));
            }
            if !self.store.task_move(&order.id, &[State::Waiting], State::Begun, None, &[])? {
                self.running().remove(&id);
                continue;
            }
            self.begin(id, order, action, cancelled)?;
        }
        Ok(())
    }

    /// On a thread of its own.
    fn begin(
        self: &Arc<Self>,
        id: Uuid,
        order: Order,
        action: Action,
        cancelled: Arc<AtomicBool>,
    ) -> Result<(), SessionError> {
        let tasks = Arc::clone(self);
        let name = order.id.clone();
        let body = move || {
            let order = actions::Ordered { id, by: order.filed_by, reason: order.reason };
            let text = id.to_string();
            let executed = |observed: &str| tasks.executed(&text, observed);
            let progress = |so_far: &str| tasks.progress(&text, so_far);
            let acts =
                actions::Acts { cancelled: &cancelled, executed: &executed, progress: &progress };
            let outcome = actions::carry_out(&tasks.context, &order, &action, &acts);
            let ended = tasks.end(&text, outcome);
            tasks.running().remove(&id);
            if let Err(error) = ended.and_then(|()| tasks.begin_waiting()) {
                tracing::error!(error = crate::error_chain(&error), "a task's end is not kept");
            }
        };
        if let Err(error) = std::thread::Builder::new().name("task".to_owned()).spawn(body) {
            self.running().remove(&id);
            self.end(&name, Outcome::Failed(format!("no thread can be started: {error}")))?;
        }
        Ok(())
    }

    fn end(&self, id: &str, outcome: Outcome) -> Result<(), SessionError> {
        let from = [State::Begun];
        let told = match &outcome {
            // It is taken up by the next start.
            Outcome::LeftOff => return Ok(()),
            Outcome::Verified { observed, result } => {
                Progress { result: result.clone(), ..progress(Stage::Verified, observed) }
            }
            Outcome::Spooled(spooled) => progress(Stage::Executed, &spooled.observed),
            Outcome::Failed(why) => progress(Stage::Failed, why),
            Outcome::Cancelled(what) => progress(Stage::Cancelled, what),
        };
        let moved = match &outcome {
            Outcome::Spooled(spooled) => {
                self.store.task_move(id, &from, State::Delivering, Some(spooled), &[told])?
            }
            Outcome::Verified { .. }
            | Outcome::Failed(_)
            | Outcome::Cancelled(_)
            | Outcome::LeftOff => self.store.task_move(id, &from, State::Ended, None, &[told])?,
        };
        if moved {
            self.told.notify_one();
            self.spooled.notify_one();
        }
        Ok(())
    }

    /// It goes on. Only the last such word waits to be told, however long the manager is away.
    fn progress(&self, id: &str, so_far: &str) {
        match self.store.task_goes_on(id, &progress(Stage::Delivered, so_far)) {
            Ok(()) => self.told.notify_one(),
            Err(error) => {
                let error = crate::error_chain(&error);
                tracing::warn!(error, "a task's progress is not kept");
            }
        }
    }

    /// It is done; whether it holds is not yet seen.
    fn executed(&self, id: &str, observed: &str) {
        let told = [progress(Stage::Executed, observed)];
        match self.store.task_move(id, &[State::Begun], State::Begun, None, &told) {
            Ok(_) => self.told.notify_one(),
            Err(error) => {
                tracing::error!(
                    error = crate::error_chain(&error),
                    "a task's progress is not kept"
                );
            }
        }
    }
}

fn parse(order: &Order) -> Result<Action, String> {
    serde_json::from_value(order.action.clone())
        .map_err(|error| format!("this agent does not know what is asked: {error}"))
}
