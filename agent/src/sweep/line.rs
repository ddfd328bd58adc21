//! The line of scans: who waits, who runs, who is asked to end; and what is due comes into it.
//!
//! INVARIANT: a scan that has an id is in the history before anybody hears of it, and has an end
//! there, whichever way it went. One in the background at a time.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use holdfast_common::control::{Reply, ScanProgress};
use holdfast_common::event::EventBody;
use holdfast_common::process::printable;
use holdfast_common::scans::{ScanOrder, ScanRecord, ScanScope, ScanState};
use uuid::Uuid;

use super::drive::{Parts, Sweep};
use super::history::History;
use super::live::{End, Live, cut, shown};
use super::plan::{self, Planner};
use super::{Needs, SweepError, SweepRules, check, places, rules};
use crate::control::Answerer;
use crate::now_ms;
use crate::respond::Respond;

/// Scans that wait in line.
const MOST_WAITING: usize = 32;
/// Scans that somebody waits for, at once. Each costs a worker and descriptors.
const MOST_ATTENDED: usize = 4;
/// Places that a record names.
const MOST_PLACES: usize = 50;
/// How often the schedules are looked at when nothing is due: the clock may be set.
const LOOK: Duration = Duration::from_secs(5);

/// What the scans' threads and whoever asks share.
pub(super) struct Inner {
    pub(super) needs: Needs,
    pub(super) rules: RwLock<Arc<SweepRules>>,
    pub(super) respond: Respond,
    pub(super) history: History,
    pub(super) planner: Mutex<Planner>,
    pub(super) line: Mutex<Line>,
    /// A scan came into line, a schedule changed, or the agent stops.
    pub(super) changed: Condvar,
    pub(super) attended: AtomicUsize,
    pub(super) stopping: AtomicBool,
}

/// Scans that wait, and all that have not ended.
#[derive(Default)]
pub(super) struct Line {
    pub(super) waiting: VecDeque<(Arc<Live>, ScanOrder)>,
    pub(super) open: Vec<Arc<Live>>,
}

impl Inner {
    pub(super) fn line(&self) -> MutexGuard<'_, Line> {
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn rules(&self) -> Arc<SweepRules> {
        Arc::clone(&self.rules.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn planner(&self) -> MutexGuard<'_, Planner> {
        self.planner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn open(&self, id: Uuid) -> Option<Arc<Live>> {
        self.line().open.iter().find(|live| live.record().scan_id == id).cloned()
    }

    fn stops(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }

    fn record_of(&self, order: &ScanOrder, schedule: Option<&str>, share: u8) -> ScanRecord {
        let places = match order.scope {
            ScanScope::Paths => order.paths.iter().take(MOST_PLACES).map(|p| shown(p)).collect(),
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

    pub(super) fn put_in_line(
        &self,
        order: ScanOrder,
        due: Option<&plan::Due>,
    ) -> Result<ScanRecord, SweepError> {
        check(&order)?;
        let schedule = due.map(|due| due.schedule.name.as_str());
        let record = self.record_of(&order, schedule, self.rules().config.cpu_share);
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

    pub(super) fn attend(
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
        let record = live.record().clone();
        self.keep(&record);
        if told_id && answer.reply(Reply::Scan(Box::new(record))).is_err() {
            live.end(End::Cancelled("nobody waits for it any more".to_owned()));
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
                let plan = places::plan(order, &self.rules().config);
                self.begin(live, &plan);
                let (inner, needs, respond) = (self, &self.needs, &self.respond);
                let history = &self.history;
                let parts = Parts { inner, needs, respond, history, live, answer };
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
    pub(super) fn leave_line(&self, live: &Arc<Live>) {
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
    pub(super) fn run_line(&self) {
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
    pub(super) fn run_plan(&self) {
        let mut noted = None;
        while !self.stops() {
            // A bundle that is in use between two scans counts, too.
            let generation = Some(self.needs.factory.generation());
            if noted != generation {
                noted = generation;
                if let Err(error) = rules::note(&self.history, &self.needs.factory) {
                    let error = crate::error_chain(&error);
                    tracing::warn!(error, "the rules' history is not kept");
                }
            }
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
        let mut record = self.record_of(&order, name, self.rules().config.cpu_share);
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
