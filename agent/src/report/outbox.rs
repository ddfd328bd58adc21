//! The outbox: events that the manager does not have yet.
//!
//! There is no second copy of them: the journal is on disk, synced and bounded already, keeps
//! telemetry and all other events apart, and numbers both. So the outbox is two marks in it, one
//! for each class, moved when the manager acknowledges. What goes first when there is no room is
//! the journal's policy: within each class the oldest, and telemetry never at the cost of
//! anything else. Besides, events beyond an age are given up. Both are counted, exactly: the
//! journal counts what it takes out of a class.
//!
//! INVARIANT: a mark moves over an event only when the manager has it or it is counted as given
//! up. Events that are not telemetry go first, and always find a place in the window.

use std::collections::VecDeque;
use std::sync::Arc;

use holdfast_common::link::{MOST_EVENTS, OutboxState};

use super::store::{Mark, Store, StoreError};
use crate::journal::{Journal, JournalError, Reader};

/// Bytes of one message; its last event may go beyond.
const BYTES: usize = 512 << 10;
/// A larger event is given up: it fits no message.
const LARGEST: usize = 2 << 20;
/// Messages on the way, and how many of them may be telemetry.
const WINDOW: usize = 6;
const WINDOW_TELEMETRY: usize = 4;

/// Why the outbox cannot go on.
#[derive(Debug, thiserror::Error)]
pub(super) enum OutboxError {
    /// The journal cannot be read.
    #[error("cannot read the journal")]
    Journal(#[from] JournalError),
    /// The marks cannot be read or written.
    #[error("cannot keep the outbox's marks")]
    Store(#[from] StoreError),
    /// The manager acknowledges what was never sent.
    #[error("the manager acknowledges message {0}, which was not sent")]
    Unknown(u64),
}

/// Events for one message.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Batch {
    /// The message's number.
    pub(super) number: u64,
    /// JSON each.
    pub(super) events: Vec<String>,
}

/// The outbox of one stream; a new one begins at the marks on disk.
#[derive(Debug)]
pub(super) struct Outbox {
    store: Arc<Store>,
    reader: Reader,
    host: String,
    max_age_ms: i64,
    lanes: [Lane; 2],
    sent: u64,
    on_the_way: VecDeque<(u64, usize, Mark)>,
}

#[derive(Debug, Default)]
struct Lane {
    /// Acknowledged.
    kept: Mark,
    /// Read and sent.
    read: Mark,
}

/// Other events first.
const OTHER: usize = 0;
const TELEMETRY: usize = 1;

impl Outbox {
    pub(super) fn open(
        store: Arc<Store>,
        journal: &Journal,
        host: &str,
        max_age_ms: i64,
    ) -> Result<Self, OutboxError> {
        let lane = |telemetry| {
            let kept = store.mark(telemetry, host)?;
            Ok::<_, StoreError>(Lane { read: kept.clone(), kept })
        };
        let lanes = [lane(false)?, lane(true)?];
        let (reader, host) = (journal.reader(), host.to_owned());
        let on_the_way = VecDeque::new();
        Ok(Self { store, reader, host, max_age_ms, lanes, sent: 0, on_the_way })
    }

    /// The next message; `None` when there is nothing to send or the window is full.
    pub(super) fn next(&mut self, now_ms: i64) -> Result<Option<Batch>, OutboxError> {
        for lane in [OTHER, TELEMETRY] {
            let on_the_way = self.on_the_way.iter().filter(|one| lane == OTHER || one.1 == lane);
            let most = if lane == OTHER { WINDOW } else { WINDOW_TELEMETRY };
            if on_the_way.count() >= most {
                continue;
            }
            let events = self.read(lane, now_ms)?;
            if !events.is_empty() {
                self.sent += 1;
                self.on_the_way.push_back((self.sent, lane, self.lanes[lane].read.clone()));
                return Ok(Some(Batch { number: self.sent, events }));
            }
        }
        Ok(None)
    }

    /// Reads on in a class, over what is too old or too large.
    fn read(&mut self, which: usize, now_ms: i64) -> Result<Vec<String>, OutboxError> {
        let oldest = now_ms.saturating_sub(self.max_age_ms);
        loop {
            let lane = &mut self.lanes[which];
            let page =
                self.reader.page(which == TELEMETRY, lane.read.number, MOST_EVENTS, BYTES)?;
            if page.journal != lane.read.journal {
                // Begun anew: its numbers are others. What the old one still held is gone, and the
                // journal itself tells of that.
                let dropped = lane.read.dropped;
                lane.read = Mark { journal: page.journal, number: 0, ordinal: 0, dropped };
                continue;
            }
            let gone = page.trimmed.saturating_sub(lane.read.ordinal);
            lane.read.ordinal += gone;
            lane.read.dropped += gone;
            let mut events = Vec::with_capacity(page.rows.len());
            for row in page.rows {
                lane.read.number = row.number;
                lane.read.ordinal += 1;
                if row.time_ms < oldest || row.json.len() > LARGEST {
                    lane.read.dropped += 1;
                } else {
                    events.push(row.json);
                }
            }
            let moved = lane.read != lane.kept;
            let idle = self.on_the_way.iter().all(|one| one.1 != which);
            if events.is_empty() && moved && idle {
                // Nothing of it needs an acknowledgement.
                let before = lane.kept.number;
                lane.kept = lane.read.clone();
                self.store.set_marks(&self.host, &[(which == TELEMETRY, lane.kept.clone())])?;
                if lane.kept.number != before {
                    continue;
                }
            }
            return Ok(events);
        }
    }

    /// The manager has all messages up to this one.
    pub(super) fn acknowledged(&mut self, number: u64) -> Result<(), OutboxError> {
        if number > self.sent {
            return Err(OutboxError::Unknown(number));
        }
        let mut moved = [false; 2];
        while self.on_the_way.front().is_some_and(|one| one.0 <= number) {
            let Some((_, lane, mark)) = self.on_the_way.pop_front() else { break };
            self.lanes[lane].kept = mark;
            moved[lane] = true;
        }
        let marks: Vec<(bool, Mark)> = [OTHER, TELEMETRY]
            .into_iter()
            .filter(|lane| moved[*lane])
            .map(|lane| (lane == TELEMETRY, self.lanes[lane].kept.clone()))
            .collect();
        if !marks.is_empty() {
            self.store.set_marks(&self.host, &marks)?;
        }
        Ok(())
    }
}

/// What waits, for a host that is enrolled. Needs no connection.
pub(super) fn state(
    store: &Store,
    reader: &mut Reader,
    host: &str,
    now_ms: i64,
) -> Result<OutboxState, OutboxError> {
    let mut state = OutboxState::default();
    let mut oldest: Option<i64> = None;
    for telemetry in [false, true] {
        let mark = store.mark(telemetry, host)?;
        let page = reader.page(telemetry, mark.number, 1, 1)?;
        let same = page.journal == mark.journal;
        let number = if same { mark.number } else { 0 };
        let waiting = reader.waiting(telemetry, number)?;
        state.events += waiting.events;
        state.bytes += waiting.bytes;
        state.dropped += mark.dropped;
        if same {
            state.dropped += page.trimmed.saturating_sub(mark.ordinal);
        }
        oldest = oldest.into_iter().chain(waiting.oldest_ms).min();
    }
    let age = oldest.map_or(0, |oldest| now_ms.saturating_sub(oldest).max(0));
    state.oldest_s = age.unsigned_abs() / 1000;
    Ok(state)
}

#[cfg(test)]
mod tests {
    use holdfast_common::event::{Event, EventBody, ExecEvent, LossEvent};
    use holdfast_common::process::ProcessInfo;

    use super::*;
    use crate::config;

    const DAY: i64 = 86_400_000;

    struct Stage {
        folder: tempfile::TempDir,
        journal: Journal,
        store: Arc<Store>,
    }

    fn stage(max_telemetry: u64, max_events: u64) -> Stage {
        let folder = tempfile::tempdir().expect("folder");
        let limits = config::Journal { max_telemetry, max_events };
        let journal = Journal::open(folder.path(), "host".into(), &limits).expect("journal");
        let store = Arc::new(Store::open(folder.path()).expect("store"));
        Stage { folder, journal, store }
    }

    impl Stage {
        fn outbox(&self, host: &str) -> Outbox {
            Outbox::open(Arc::clone(&self.store), &self.journal, host, DAY).expect("outbox")
        }

        fn record(&self, telemetry: bool, range: std::ops::Range<u64>) {
            for count in range {
                self.journal.record(if telemetry {
                    let (process, parents) = (ProcessInfo::default(), Vec::new());
                    EventBody::Exec(Box::new(ExecEvent { process, parents, count }))
                } else {
                    EventBody::Loss(LossEvent { queue: "test".into(), count })
                });
            }
            assert!(self.journal.flush());
        }

        fn state(&self) -> OutboxState {
            state(&self.store, &mut self.journal.reader(), "h", now()).expect("state")
        }
    }

    fn now() -> i64 {
        crate::report::now_ms()
    }

    fn counts(batch: &Batch) -> Vec<u64> {
        let count = |json: &String| match serde_json::from_str::<Event>(json).expect("json").body {
            EventBody::Loss(loss) => loss.count,
            EventBody::Exec(exec) => exec.count,
            other => panic!("{other:?}"),
        };
        batch.events.iter().map(count).collect()
    }

    #[test]
    fn what_was_not_acknowledged_is_sent_again_after_a_restart() {
        let stage = stage(100, 100);
        stage.record(false, 0..3);
        let mut outbox = stage.outbox("h");
        let first = outbox.next(now()).expect("next").expect("batch");
        assert_eq!((first.number, counts(&first)), (1, vec![0, 1, 2]));
        assert_eq!(outbox.next(now()).expect("next"), None);
        stage.record(false, 3..4);
        assert_eq!(counts(&outbox.next(now()).expect("next").expect("batch")), [3]);
        outbox.acknowledged(1).expect("acknowledged");
        assert!(matches!(outbox.acknowledged(3), Err(OutboxError::Unknown(3))));
        let mut again = stage.outbox("h");
        assert_eq!(counts(&again.next(now()).expect("next").expect("batch")), [3]);
        assert_eq!(stage.state().events, 1);
        again.acknowledged(1).expect("acknowledged");
        let clean = OutboxState::default();
        assert_eq!(stage.state(), clean);
        let mut other = stage.outbox("another manager's");
        assert_eq!(other.next(now()).expect("next").expect("batch").events.len(), 4);
    }

    #[test]
    fn detections_overtake_telemetry_and_always_find_a_place() {
        let stage = stage(100_000, 100);
        stage.record(true, 0..MOST_EVENTS as u64 * 5);
        let mut outbox = stage.outbox("h");
        let mut sent = 0;
        while outbox.next(now()).expect("next").is_some() {
            sent += 1;
        }
        assert_eq!(sent, WINDOW_TELEMETRY);
        stage.record(false, 7..8);
        let batch = outbox.next(now()).expect("next").expect("a place is free");
        assert_eq!(counts(&batch), [7]);
    }

    #[test]
    fn a_full_outbox_gives_up_the_oldest_telemetry_counts_it_and_keeps_the_rest() {
        let stage = stage(10, 100);
        stage.record(false, 0..5);
        stage.record(true, 0..4);
        let mut outbox = stage.outbox("h");
        while let Some(batch) = outbox.next(now()).expect("next") {
            outbox.acknowledged(batch.number).expect("acknowledged");
        }
        // The manager is away.
        drop(outbox);
        stage.record(true, 4..34);
        stage.record(false, 5..9);
        let state = stage.state();
        assert_eq!((state.events, state.dropped), (14, 20));
        let mut outbox = stage.outbox("h");
        let other = outbox.next(now()).expect("next").expect("batch");
        assert_eq!(counts(&other), [5, 6, 7, 8]);
        let telemetry = outbox.next(now()).expect("next").expect("batch");
        assert_eq!(counts(&telemetry), (24..34).collect::<Vec<_>>());
        outbox.acknowledged(2).expect("acknowledged");
        let state = stage.state();
        assert_eq!((state.events, state.bytes, state.dropped), (0, 0, 20), "counted once");
        stage.record(true, 34..36);
        let batch = outbox.next(now()).expect("next").expect("batch");
        assert_eq!(counts(&batch), [34, 35]);
    }

    #[test]
    fn old_events_are_given_up_and_counted() {
        let stage = stage(100, 100);
        stage.record(false, 0..3);
        let mut outbox = stage.outbox("h");
        assert_eq!(outbox.next(now() + 2 * DAY).expect("next"), None);
        stage.record(false, 3..4);
        assert_eq!(counts(&outbox.next(now()).expect("next").expect("batch")), [3]);
        outbox.acknowledged(1).expect("acknowledged");
        assert_eq!(stage.state().dropped, 3);
    }

    #[test]
    fn a_journal_that_was_begun_anew_is_sent_from_its_beginning() {
        let mut stage = stage(100, 100);
        stage.record(false, 0..5);
        let mut outbox = stage.outbox("h");
        outbox.next(now()).expect("next").expect("batch");
        outbox.acknowledged(1).expect("acknowledged");
        drop(outbox);
        let limits = config::Journal::default();
        let other = tempfile::tempdir().expect("folder");
        stage.journal = Journal::open(other.path(), "host".into(), &limits).expect("journal");
        let folder = stage.folder.path();
        std::fs::write(folder.join("journal.db"), "nonsense").expect("write");
        stage.journal = Journal::open(folder, "host".into(), &limits).expect("journal");
        stage.journal.flush();
        let batch = stage.outbox("h").next(now()).expect("next").expect("batch");
        assert!(batch.events[0].contains("it was corrupt"), "{batch:?}");
    }
}
