//! Which schedules are due, given the clock. Keeps no time of its own and starts nothing.
//!
//! INVARIANT: a due time is dealt with once, whatever the clock does: it is compared with the last
//! one that was, which is on disk together with the scan that it led to. Several that passed at once
//! come to one run. Those that passed while the agent ran (the host slept, the clock was set
//! forward) are always run; those of a downtime where the schedule catches up. A clock that is set
//! back by a day or less repeats nothing; by more, what was dealt with lay in a time that never
//! was, and the schedule begins anew.

use std::hash::{BuildHasher, Hasher};

use holdfast_common::scans::{ScanSchedule, ScanScheduleShown, ScheduleState};
use holdfast_common::schedule::{ScheduleError, When, check_schedule, zone};
use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};

use super::history::{History, HistoryError, Named};
use super::live::shown;
use crate::config::{Scan, ScheduleEntry};

/// Schedules in all.
const MOST_SCHEDULES: usize = 100;
/// A clock that goes back by no more than this is corrected, not wrong.
const CREDIBLE: i64 = 86_400_000;
/// Missed times that are counted one by one.
const MOST_COUNTED: u64 = 1000;
/// Where the look for the last of them goes on then.
const LAST_DAY: i64 = 25 * 3_600_000;

/// Why a schedule was not taken or forgotten.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// It cannot be meant.
    #[error(transparent)]
    Schedule(#[from] ScheduleError),
    /// It could not be kept.
    #[error(transparent)]
    History(#[from] HistoryError),
}

/// Where a schedule stands; kept on disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Standing {
    name: String,
    /// As it was when `last_ms` was counted: of another expression it says nothing.
    when: String,
    timezone: String,
    /// The last due time that was dealt with.
    last_ms: i64,
    /// Whether any was.
    dealt: bool,
    last: Option<String>,
    /// For the jitter.
    seed: u64,
}

/// A schedule whose time has come.
#[derive(Debug, Clone)]
pub(super) struct Due {
    pub(super) schedule: ScanSchedule,
    /// What is kept with the scan that it leads to.
    pub(super) standing: Standing,
    /// Times that came to this run.
    count: u64,
    missed: bool,
}

impl Due {
    /// Said behind the schedule's name.
    pub(super) fn why(&self) -> String {
        match (self.missed, self.count) {
            (false, 0 | 1) => String::new(),
            (false, count) => format!(" (once for {count} times that passed)"),
            (true, 0 | 1) => " (missed while the agent was down)".to_owned(),
            (true, count) => format!(" (once for {count} times missed while the agent was down)"),
        }
    }
}

#[derive(Debug)]
struct Entry {
    schedule: ScanSchedule,
    when: When,
    added: bool,
    standing: Standing,
}

/// All schedules.
#[derive(Debug)]
pub(super) struct Planner {
    entries: Vec<Entry>,
    /// Those that were not added are a policy's.
    by_policy: bool,
    /// Since then nothing is missed by downtime.
    started_ms: i64,
}

impl Planner {
    /// The config's schedules and those that were added, each where it stood.
    pub(super) fn open(
        config: &Scan,
        history: &History,
        now_ms: i64,
    ) -> Result<Self, super::SweepError> {
        let by_policy = config.schedule_by_policy;
        let mut planner = Self { entries: Vec::new(), by_policy, started_ms: now_ms };
        let standings: Vec<Standing> = history.named(Named::Standing)?;
        let added: Vec<ScanSchedule> = history.named(Named::Schedule)?;
        let config = config.schedule.iter().map(|ScheduleEntry(one)| (one.clone(), false));
        for (schedule, added) in config.chain(added.into_iter().map(|schedule| (schedule, true))) {
            let name = schedule.name.clone();
            let standing = standings.iter().find(|one| one.name == name).cloned();
            match planner.enter(schedule, added, standing, now_ms) {
                Ok(entry) => history.put_named(Named::Standing, &name, &entry.standing)?,
                // What was added is not the config's to refuse the start for.
                Err(error) if added => {
                    tracing::error!(error = crate::error_chain(&error), "a schedule is left out");
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(planner)
    }

    /// Other schedules in place of the config's; each of the same name and time goes on where it
    /// stands.
    ///
    /// # Errors
    /// [`super::SweepError`]; then nothing has changed.
    pub(super) fn replace(
        &mut self,
        config: &Scan,
        history: &History,
        now_ms: i64,
    ) -> Result<(), super::SweepError> {
        let started_ms = self.started_ms;
        *self = Self { started_ms, ..Self::open(config, history, now_ms)? };
        Ok(())
    }

    fn enter(
        &mut self,
        schedule: ScanSchedule,
        added: bool,
        standing: Option<Standing>,
        now_ms: i64,
    ) -> Result<&Entry, PlanError> {
        check_schedule(&schedule)?;
        let wrong = |why: &str| {
            Err(ScheduleError::Wrong { name: schedule.name.clone(), why: why.to_owned() }.into())
        };
        if self.entries.iter().any(|entry| entry.schedule.name == schedule.name) {
            return wrong("there is one of this name");
        }
        if self.entries.len() >= MOST_SCHEDULES {
            return wrong("there are 100 schedules already");
        }
        let when: When = schedule.when.parse()?;
        let same = |one: &Standing| one.when == schedule.when && one.timezone == schedule.timezone;
        let standing = standing.filter(same).unwrap_or_else(|| Standing {
            name: schedule.name.clone(),
            when: schedule.when.clone(),
            timezone: schedule.timezone.clone(),
            last_ms: now_ms,
            dealt: false,
            last: None,
            seed: std::hash::RandomState::new().build_hasher().finish(),
        });
        self.entries.push(Entry { schedule, when, added, standing });
        self.entries.last().ok_or_else(|| ScheduleError::Zone(String::new()).into())
    }

    /// Adds one, on disk when this returns.
    pub(super) fn add(
        &mut self,
        schedule: ScanSchedule,
        history: &History,
        now_ms: i64,
    ) -> Result<(), PlanError> {
        let name = schedule.name.clone();
        let standing = self.enter(schedule.clone(), true, None, now_ms)?.standing.clone();
        let kept = history
            .put_named(Named::Schedule, &name, &schedule)
            .and_then(|()| history.put_named(Named::Standing, &name, &standing));
        if kept.is_err() {
            self.entries.retain(|entry| entry.schedule.name != name);
        }
        Ok(kept?)
    }

    /// Forgets one that was added.
    pub(super) fn remove(&mut self, name: &str, history: &History) -> Result<(), PlanError> {
        let wrong = |why: &str| {
            Err(PlanError::Schedule(ScheduleError::Wrong {
                name: name.to_owned(),
                why: why.to_owned(),
            }))
        };
        match self.entries.iter().find(|entry| entry.schedule.name == name) {
            None => return wrong("there is none of this name"),
            Some(entry) if !entry.added && self.by_policy => {
                return wrong("it stands in the manager's policy: remove it there");
            }
            Some(entry) if !entry.added => {
                return wrong("it stands in the config: remove it there");
            }
            Some(_) => {}
        }
        history.remove_named(Named::Schedule, name)?;
        history.remove_named(Named::Standing, name)?;
        self.entries.retain(|entry| entry.schedule.name != name);
        Ok(())
    }

    /// What is due now. The caller keeps [`Due::standing`] with what it does about it.
    pub(super) fn due(&mut self, now_ms: i64, history: &History) -> Vec<Due> {
        // The start lies in no time that is to come: the clock was set back.
        self.started_ms = self.started_ms.min(now_ms);
        let started_ms = self.started_ms;
        let mut due = Vec::new();
        for entry in &mut self.entries {
            let Ok(zone) = zone(&entry.schedule.timezone) else { continue };
            let Some(found) = entry.due(now_ms, started_ms, &zone) else { continue };
            match found {
                Found::Run(one) => due.push(*one),
                Found::Forgone => {
                    let (name, standing) = (&entry.schedule.name, &entry.standing);
                    keep(history, name, standing);
                }
            }
        }
        due
    }

    /// One that was due was not begun.
    pub(super) fn skipped(&mut self, name: &str, why: &str, history: &History) {
        if let Some(entry) = self.entries.iter_mut().find(|entry| entry.schedule.name == name) {
            entry.standing.last = Some(format!("skipped: {why}"));
            keep(history, name, &entry.standing);
        }
    }

    /// When to look again.
    pub(super) fn next_ms(&self, now_ms: i64) -> Option<i64> {
        self.entries.iter().filter_map(|entry| entry.next_ms(now_ms)).min()
    }

    /// All, for people.
    pub(super) fn states(&self, now_ms: i64) -> Vec<ScheduleState> {
        let config = if self.by_policy { "policy" } else { "config" };
        self.entries.iter().map(|entry| entry.state(config, now_ms)).collect()
    }
}

fn keep(history: &History, name: &str, standing: &Standing) {
    if let Err(error) = history.put_named(Named::Standing, name, standing) {
        tracing::warn!(error = crate::error_chain(&error), "a schedule's state is not kept");
    }
}

enum Found {
    Run(Box<Due>),
    /// Missed, and not to be caught up.
    Forgone,
}

impl Entry {
    fn due(&mut self, now_ms: i64, started_ms: i64, zone: &TimeZone) -> Option<Found> {
        let standing = &mut self.standing;
        if standing.last_ms.saturating_sub(now_ms) > CREDIBLE {
            standing.last_ms = now_ms;
            standing.last = Some("the clock was set back by more than a day".to_owned());
            return Some(Found::Forgone);
        }
        let (mut last, mut count) = (None, 0);
        let mut at = standing.last_ms;
        while let Some(next) = self.when.next_after(at, zone) {
            if next.saturating_add(jitter_ms(&self.schedule, standing.seed, next)) > now_ms {
                break;
            }
            last = Some(next);
            count += 1;
            at = if count == MOST_COUNTED { next.max(now_ms - LAST_DAY) } else { next };
        }
        let last = last?;
        let effective = last.saturating_add(jitter_ms(&self.schedule, standing.seed, last));
        let missed = effective < started_ms;
        standing.last_ms = last;
        standing.dealt = true;
        if missed && !self.schedule.catch_up {
            standing.last = Some(format!("missed while the agent was down, {count} times"));
            return Some(Found::Forgone);
        }
        standing.last = Some(if missed { "caught up" } else { "begun" }.to_owned());
        let (schedule, standing) = (self.schedule.clone(), standing.clone());
        Some(Found::Run(Box::new(Due { schedule, standing, count, missed })))
    }

    fn next_ms(&self, now_ms: i64) -> Option<i64> {
        let zone = zone(&self.schedule.timezone).ok()?;
        // After a clock that was wrong it begins anew.
        let wrong = self.standing.last_ms.saturating_sub(now_ms) > CREDIBLE;
        let from = if wrong { now_ms } else { self.standing.last_ms };
        let next = self.when.next_after(from, &zone)?;
        Some(next.saturating_add(jitter_ms(&self.schedule, self.standing.seed, next)))
    }

    fn state(&self, config: &str, now_ms: i64) -> ScheduleState {
        let schedule = &self.schedule;
        ScheduleState {
            schedule: ScanScheduleShown {
                name: schedule.name.clone(),
                scope: schedule.scope,
                paths: schedule.paths.iter().map(|path| shown(path)).collect(),
                when: schedule.when.clone(),
                jitter_s: schedule.jitter_s,
                catch_up: schedule.catch_up,
                cpu_share: schedule.cpu_share,
                timezone: schedule.timezone.clone(),
            },
            origin: if self.added { "added" } else { config }.to_owned(),
            next_ms: self.next_ms(now_ms),
            last_ms: self.standing.dealt.then_some(self.standing.last_ms),
            last: self.standing.last.clone(),
        }
    }
}

/// The same for one time however often it is asked, another for each time, host and schedule.
fn jitter_ms(schedule: &ScanSchedule, seed: u64, due_ms: i64) -> i64 {
    let range = u64::from(schedule.jitter_s) * 1000 + 1;
    // SplitMix64's mixing (Steele, Lea, Flood 2014).
    let mut mixed = seed ^ due_ms.cast_unsigned().wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (mixed ^ (mixed >> 31)).rem_euclid(range).cast_signed()
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use holdfast_common::scans::ScanScope;
    use proptest::prelude::*;

    use super::*;

    const HOUR: i64 = 3_600_000;
    const DAY: i64 = 24 * HOUR;
    /// Monday 5 January 2026, 00:00 UTC.
    const MONDAY: i64 = 1_767_571_200_000;

    fn schedule(when: &str) -> ScanSchedule {
        ScanSchedule {
            name: "nightly".into(),
            scope: ScanScope::Quick,
            paths: Vec::new(),
            when: when.into(),
            jitter_s: 0,
            catch_up: false,
            cpu_share: None,
            timezone: "UTC".into(),
        }
    }

    struct World {
        _folder: tempfile::TempDir,
        history: History,
        config: Scan,
    }

    impl World {
        fn new(schedule: ScanSchedule) -> Self {
            let folder = tempfile::tempdir().expect("folder");
            let history = History::open(folder.path()).expect("history");
            let config = Scan { schedule: vec![ScheduleEntry(schedule)], ..Scan::default() };
            Self { _folder: folder, history, config }
        }

        /// The agent starts.
        fn start(&self, now: i64) -> Planner {
            Planner::open(&self.config, &self.history, now).expect("planner")
        }

        /// What is due, kept as the agent keeps it.
        fn tick(&self, planner: &mut Planner, now: i64) -> Vec<Due> {
            let due = planner.due(now, &self.history);
            for one in &due {
                keep(&self.history, &one.schedule.name, &one.standing);
            }
            due
        }
    }

    #[test]
    fn each_time_is_run_once_however_often_one_looks() {
        let world = World::new(schedule("0 1 * * *"));
        let mut planner = world.start(MONDAY);
        let mut runs = 0;
        for minute in 0..3 * 24 * 60 {
            runs += world.tick(&mut planner, MONDAY + minute * 60_000).len();
        }
        assert_eq!(runs, 3);
    }

    #[test]
    fn a_clock_that_is_set_back_doubles_nothing_and_forward_loses_nothing() {
        let world = World::new(schedule("0 1 * * *"));
        let mut planner = world.start(MONDAY);
        assert_eq!(world.tick(&mut planner, MONDAY + HOUR).len(), 1);
        assert_eq!(world.tick(&mut planner, MONDAY - HOUR).len(), 0, "two hours back");
        assert_eq!(world.tick(&mut planner, MONDAY + HOUR).len(), 0, "one o'clock again");
        let due = world.tick(&mut planner, MONDAY + 5 * DAY);
        assert_eq!(due.len(), 1, "five days forward");
        assert!(due[0].why().contains("once for 4 times"), "{}", due[0].why());
        assert_eq!(world.tick(&mut planner, MONDAY + 5 * DAY + HOUR).len(), 1);
    }

    #[test]
    fn a_clock_that_was_years_ahead_does_not_silence_a_schedule() {
        let world = World::new(schedule("0 1 * * *"));
        let mut planner = world.start(MONDAY + 4000 * DAY);
        world.tick(&mut planner, MONDAY + 4001 * DAY);
        assert_eq!(world.tick(&mut planner, MONDAY).len(), 0);
        assert_eq!(world.tick(&mut planner, MONDAY + HOUR).len(), 1);
        let state = &planner.states(MONDAY + HOUR)[0];
        assert_eq!(state.next_ms, Some(MONDAY + DAY + HOUR));
    }

    #[test]
    fn what_a_downtime_missed_is_caught_up_once_or_said_to_be_missed() {
        for catch_up in [true, false] {
            let world = World::new(ScanSchedule { catch_up, ..schedule("0 1 * * *") });
            drop(world.start(MONDAY));
            let mut planner = world.start(MONDAY + 10 * DAY);
            let due = world.tick(&mut planner, MONDAY + 10 * DAY);
            assert_eq!(due.len(), usize::from(catch_up));
            if let Some(due) = due.first() {
                assert!(due.why().contains("once for 10 times missed"), "{}", due.why());
            }
            let last = planner.states(MONDAY + 10 * DAY)[0].last.clone().expect("told");
            assert!(last.contains(if catch_up { "caught up" } else { "10 times" }), "{last}");
            drop(planner);
            let mut planner = world.start(MONDAY + 10 * DAY + 60_000);
            assert_eq!(world.tick(&mut planner, MONDAY + 10 * DAY + 60_000).len(), 0, "no more");
            assert_eq!(world.tick(&mut planner, MONDAY + 10 * DAY + HOUR).len(), 1, "the next");
        }
    }

    #[test]
    fn a_year_of_missed_minutes_is_one_run_and_soon_counted() {
        let world = World::new(ScanSchedule { catch_up: true, ..schedule("* * * * *") });
        drop(world.start(MONDAY));
        let mut planner = world.start(MONDAY + 365 * DAY);
        let begun = std::time::Instant::now();
        assert_eq!(world.tick(&mut planner, MONDAY + 365 * DAY).len(), 1);
        assert_eq!(world.tick(&mut planner, MONDAY + 365 * DAY + 1000).len(), 0);
        assert!(begun.elapsed() < std::time::Duration::from_secs(10));
    }

    #[test]
    fn jitter_puts_a_run_off_within_its_bound_and_stays_the_same() {
        let world = World::new(ScanSchedule { jitter_s: 1800, ..schedule("0 1 * * *") });
        let mut planner = world.start(MONDAY);
        let mut offsets = std::collections::HashSet::new();
        for day in 0..20 {
            let due = MONDAY + day * DAY + HOUR;
            let next = planner.states(due - 1)[0].next_ms.expect("next");
            assert!((due..=due + 1_800_000).contains(&next), "{next}");
            drop(planner);
            planner = world.start(due - 1);
            assert_eq!(planner.states(due - 1)[0].next_ms, Some(next), "a restart draws no lot");
            assert_eq!(world.tick(&mut planner, next - 1).len(), 0);
            assert_eq!(world.tick(&mut planner, next).len(), 1);
            offsets.insert(next - due);
        }
        assert!(offsets.len() > 10, "{offsets:?}");
    }

    #[test]
    fn added_schedules_are_kept_and_the_configs_are_not_removed() {
        let world = World::new(schedule("0 1 * * *"));
        let mut planner = world.start(MONDAY);
        let more = ScanSchedule { name: "more".into(), ..schedule("every 2 hours") };
        planner.add(more.clone(), &world.history, MONDAY).expect("added");
        let error = planner.add(more, &world.history, MONDAY).expect_err("twice").to_string();
        assert!(error.contains("there is one"), "{error}");
        assert!(planner.remove("nightly", &world.history).is_err());
        let mut planner = world.start(MONDAY);
        assert_eq!(planner.states(MONDAY).len(), 2);
        planner.remove("more", &world.history).expect("removed");
        assert_eq!(world.start(MONDAY).states(MONDAY).len(), 1);
    }

    #[test]
    fn a_policys_schedules_take_the_place_of_the_configs_and_lose_and_repeat_nothing() {
        let world = World::new(schedule("0 1 * * *"));
        let mut planner = world.start(MONDAY);
        planner
            .add(
                ScanSchedule { name: "more".into(), ..schedule("0 5 * * *") },
                &world.history,
                MONDAY,
            )
            .expect("added");
        assert_eq!(world.tick(&mut planner, MONDAY + 2 * HOUR).len(), 1);
        let hourly = ScanSchedule { name: "hourly".into(), ..schedule("every 1 hours") };
        let both = [schedule("0 1 * * *"), hourly].map(ScheduleEntry).to_vec();
        let policy = Scan { schedule: both, schedule_by_policy: true, ..Scan::default() };
        planner.replace(&policy, &world.history, MONDAY + 2 * HOUR).expect("replaced");
        let origins: Vec<String> =
            planner.states(MONDAY).into_iter().map(|state| state.origin).collect();
        assert_eq!(origins, ["policy", "policy", "added"]);
        assert!(world.tick(&mut planner, MONDAY + 2 * HOUR + 1).is_empty(), "it was run");
        let error = planner.remove("hourly", &world.history).expect_err("not here").to_string();
        assert!(error.contains("policy"), "{error}");
        assert_eq!(world.tick(&mut planner, MONDAY + 3 * HOUR).len(), 1);
        planner.replace(&world.config, &world.history, MONDAY + 3 * HOUR).expect("back");
        assert_eq!(planner.states(MONDAY).len(), 2);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// The clock jumps by up to 20 hours in either direction, the agent restarts at times.
        #[test]
        fn no_time_is_doubled_and_none_that_passed_is_lost(
            steps in proptest::collection::vec((-20_i64..40, any::<bool>()), 1..60),
        ) {
            let world = World::new(ScanSchedule { catch_up: true, ..schedule("0 */5 * * *") });
            let mut now = MONDAY;
            let mut planner = world.start(now);
            let (mut seen, mut latest, mut dealt) = (HashMap::new(), now, MONDAY);
            for (hours, restart) in steps {
                // Never further back than a day from where it has been.
                now = (now + hours * HOUR).max(latest - 23 * HOUR);
                latest = latest.max(now);
                if restart {
                    planner = world.start(now);
                }
                for due in world.tick(&mut planner, now) {
                    *seen.entry(due.standing.last_ms).or_insert(0) += 1;
                    prop_assert!(due.standing.last_ms > dealt);
                    dealt = due.standing.last_ms;
                }
                // Whatever lies before now has been dealt with.
                let when: When = "0 */5 * * *".parse().expect("cron");
                let next = when.next_after(dealt, &TimeZone::UTC).expect("next");
                prop_assert!(next > now, "{next} was due at {now}");
            }
            prop_assert!(seen.values().all(|times| *times == 1), "{seen:?}");
        }
    }
}
