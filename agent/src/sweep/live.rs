//! A scan that waits, runs or is paused: its record, and the word of whoever steers it.
//!
//! INVARIANT: the record is bounded whatever a tree holds, and its state is what the scan does,
//! not what was asked: `Paused` is told once it waits.

use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use holdfast_common::control::ScanSteer;
use holdfast_common::process::printable;
use holdfast_common::scans::{LeftOut, LeftOutReason, ScanFind, ScanRecord, ScanState};

/// Examples of what was left out, for each reason.
const MOST_EXAMPLES: usize = 5;
/// Finds that are told one by one; all are events.
pub(super) const MOST_FINDS: usize = 100;
/// Longest path or text in a record, bytes.
const LONGEST: usize = 1024;
/// The busy part of a turn, where a scan has less than a whole core.
const TURN: Duration = Duration::from_millis(10);
/// Longest rest in one go.
const LONGEST_REST: Duration = Duration::from_secs(2);

/// Why a scan ends before its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum End {
    /// Somebody took it back; who.
    Cancelled(String),
    /// The agent stops.
    Stopping,
}

/// What was asked.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Wanted {
    Run,
    Pause,
    End(End),
}

/// One scan. Its runner and whoever asks share it.
#[derive(Debug)]
pub(super) struct Live {
    record: Mutex<ScanRecord>,
    wanted: Mutex<Wanted>,
    changed: Condvar,
}

impl Live {
    pub(super) fn new(record: ScanRecord) -> Arc<Self> {
        Arc::new(Self {
            record: Mutex::new(record),
            wanted: Mutex::new(Wanted::Run),
            changed: Condvar::new(),
        })
    }

    pub(super) fn record(&self) -> MutexGuard<'_, ScanRecord> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wanted(&self) -> MutexGuard<'_, Wanted> {
        self.wanted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a word of a person; a scan that is to end does not go on.
    pub(super) fn steer(&self, steer: ScanSteer) {
        let mut wanted = self.wanted();
        match (&*wanted, steer) {
            (Wanted::End(_), _) => return,
            (_, ScanSteer::Pause) => *wanted = Wanted::Pause,
            (_, ScanSteer::Resume) => *wanted = Wanted::Run,
            (_, ScanSteer::Cancel) => {
                *wanted = Wanted::End(End::Cancelled("by an operator".into()))
            }
        }
        self.changed.notify_all();
    }

    /// Ends it, whatever it does.
    pub(super) fn end(&self, end: End) {
        let mut wanted = self.wanted();
        if !matches!(*wanted, Wanted::End(_)) {
            *wanted = Wanted::End(end);
        }
        self.changed.notify_all();
    }

    /// How it is to end, if it is.
    pub(super) fn ending(&self) -> Option<End> {
        match &*self.wanted() {
            Wanted::End(end) => Some(end.clone()),
            Wanted::Run | Wanted::Pause => None,
        }
    }

    /// Something was not scanned.
    pub(super) fn left_out(&self, path: &Path, why: LeftOutReason, cause: Option<&str>) {
        let mut record = self.record();
        if why.is_failure() {
            record.progress.failed += 1;
        } else {
            record.progress.skipped += 1;
        }
        let list = &mut record.left_out;
        let place = match list.iter().position(|one| one.reason == why) {
            Some(place) => place,
            None => {
                list.push(LeftOut { reason: why, count: 0, examples: Vec::new() });
                list.len() - 1
            }
        };
        let one = &mut list[place];
        one.count += 1;
        if one.examples.len() < MOST_EXAMPLES {
            let cause = cause.map(|cause| format!(" ({cause})")).unwrap_or_default();
            one.examples.push(format!("{}{cause}", shown(path)));
        }
    }

    /// A malicious file.
    pub(super) fn found(&self, find: ScanFind) {
        let mut record = self.record();
        record.progress.found += 1;
        if record.finds.len() < MOST_FINDS {
            record.finds.push(find);
        }
    }
}

/// A path for people, cut.
pub(super) fn shown(path: &Path) -> String {
    cut(printable(path.as_os_str().as_bytes()))
}

/// Cut at a character.
pub(super) fn cut(mut text: String) -> String {
    if text.len() > LONGEST {
        let end = (0..=LONGEST).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
        text.truncate(end);
    }
    text
}

/// Keeps a scan to its share of a core, and lets it wait and end.
///
/// The share is of time by the clock: a scan with 25 percent works 10 ms and rests 30. What it
/// works is the walk and the worker's scan together, so it uses no more of a core than that.
#[derive(Debug)]
pub(super) struct Pace<'a> {
    live: &'a Live,
    /// Percent, 1 to 100.
    share: u32,
    busy_since: Instant,
    /// Without what came before the last pause.
    running_since: Instant,
    ran: Duration,
}

/// A worker that must not go on while its scan rests.
pub(super) trait Halt {
    fn suspend(&self);
    fn resume(&self);
}

impl<'a> Pace<'a> {
    pub(super) fn new(live: &'a Live, share: u8) -> Self {
        let now = Instant::now();
        let share = u32::from(share.clamp(1, 100));
        Self { live, share, busy_since: now, running_since: now, ran: Duration::ZERO }
    }

    /// How long it ran, pauses left out.
    pub(super) fn ran(&self) -> Duration {
        self.ran + self.running_since.elapsed()
    }

    /// Until when a worker may work before it is looked at again.
    pub(super) fn turn_ends(&self) -> Instant {
        if self.share == 100 { Instant::now() + TURN * 10 } else { self.busy_since + TURN }
    }

    /// Rests where it is time to, waits while the scan is paused, says when it is to end.
    pub(super) fn step(&mut self, worker: Option<&dyn Halt>) -> Result<(), End> {
        let mut wanted = self.live.wanted();
        if let Wanted::End(end) = &*wanted {
            return Err(end.clone());
        }
        let busy = self.busy_since.elapsed();
        let rest = if self.share == 100 || busy < TURN {
            Duration::ZERO
        } else {
            (busy * (100 - self.share) / self.share).min(LONGEST_REST)
        };
        if rest.is_zero() && *wanted == Wanted::Run {
            if self.share == 100 {
                self.busy_since = Instant::now();
            }
            return Ok(());
        }
        worker.iter().for_each(|worker| worker.suspend());
        let rested = Instant::now() + rest;
        let mut paused_at = None;
        let end = loop {
            match &*wanted {
                Wanted::End(end) => break Err(end.clone()),
                Wanted::Pause => {
                    paused_at.get_or_insert_with(|| {
                        self.ran += self.running_since.elapsed();
                        self.live.record().state = ScanState::Paused;
                        Instant::now()
                    });
                    wanted = self.live.changed.wait(wanted).unwrap_or_else(PoisonError::into_inner);
                }
                Wanted::Run => {
                    let left = rested.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        break Ok(());
                    }
                    wanted = self
                        .live
                        .changed
                        .wait_timeout(wanted, left)
                        .unwrap_or_else(PoisonError::into_inner)
                        .0;
                }
            }
        };
        drop(wanted);
        if paused_at.is_some() {
            self.running_since = Instant::now();
            self.live.record().state = ScanState::Running;
        }
        worker.iter().for_each(|worker| worker.resume());
        self.busy_since = Instant::now();
        end
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::cell::Cell;

    use holdfast_common::control::ScanProgress;
    use holdfast_common::scans::ScanScope;

    use super::*;

    pub(in crate::sweep) fn record() -> ScanRecord {
        ScanRecord {
            scan_id: uuid::Uuid::now_v7(),
            scope: ScanScope::Paths,
            places: Vec::new(),
            started_by: "a test".into(),
            schedule: None,
            state: ScanState::Running,
            note: None,
            cpu_share: 50,
            asked_ms: 1,
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

    #[derive(Default)]
    struct Worker(Cell<u32>, Cell<u32>);

    impl Halt for Worker {
        fn suspend(&self) {
            self.0.set(self.0.get() + 1);
        }
        fn resume(&self) {
            self.1.set(self.1.get() + 1);
        }
    }

    #[test]
    fn a_scan_rests_for_what_it_does_not_have_of_a_core() {
        let live = Live::new(record());
        let worker = Worker::default();
        let mut pace = Pace::new(&live, 20);
        let begun = Instant::now();
        let mut busy = Duration::ZERO;
        while begun.elapsed() < Duration::from_millis(500) {
            let at = Instant::now();
            while at.elapsed() < Duration::from_millis(2) {
                std::hint::spin_loop();
            }
            busy += at.elapsed();
            pace.step(Some(&worker)).expect("goes on");
        }
        let share = busy.as_secs_f64() / begun.elapsed().as_secs_f64();
        assert!(share < 0.25, "{share}");
        assert_eq!(worker.0, worker.1, "what was stopped goes on");
        assert!(worker.0.get() > 0);
    }

    #[test]
    fn a_paused_scan_waits_and_does_not_count_the_time_and_ends_when_told() {
        let live = Live::new(record());
        live.steer(ScanSteer::Pause);
        let other = Arc::clone(&live);
        let thread = std::thread::spawn(move || {
            let mut pace = Pace::new(&other, 100);
            pace.step(None).expect("resumed");
            let ran = pace.ran();
            loop {
                if let Err(end) = pace.step(None) {
                    return (ran, end);
                }
            }
        });
        while live.record().state != ScanState::Paused {
            std::thread::yield_now();
        }
        let paused = Instant::now();
        while paused.elapsed() < Duration::from_millis(200) {
            std::thread::yield_now();
        }
        live.steer(ScanSteer::Resume);
        while live.record().state != ScanState::Running {
            std::thread::yield_now();
        }
        live.steer(ScanSteer::Cancel);
        // Too late.
        live.steer(ScanSteer::Resume);
        let (ran, end) = thread.join().expect("thread");
        assert!(ran < Duration::from_millis(150), "{ran:?}");
        assert_eq!(end, End::Cancelled("by an operator".into()));
    }

    #[test]
    fn what_is_left_out_is_counted_and_only_the_first_are_named() {
        let live = Live::new(record());
        let long = "x".repeat(5000);
        for number in 0..1000 {
            let path = format!("/{number}\n{long}");
            live.left_out(Path::new(&path), LeftOutReason::Symlink, None);
        }
        live.left_out(Path::new("/y"), LeftOutReason::Unreadable, Some("EIO"));
        let record = live.record();
        assert_eq!((record.progress.skipped, record.progress.failed), (1000, 1));
        assert_eq!(record.left_out[0].examples.len(), MOST_EXAMPLES);
        assert!(record.left_out[0].examples.iter().all(|one| one.len() <= LONGEST + 10));
        assert!(!record.left_out[0].examples[0].contains('\n'));
        assert_eq!(record.left_out[1].examples, ["/y (EIO)"]);
    }
}
