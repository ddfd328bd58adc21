//! From what the kernel tells to what happened: an open becomes a read or a write, equal things
//! become one with a count.
//!
//! An open does not say what it is for. It is a `read` when it was closed by somebody who could
//! not write, or when nothing was written for [`OPEN_FOR`]; `open_write` when a writer closed it
//! and no write was seen (a mapping may have been written). Everything rests for [`REST`], so that
//! the process table has caught up with a process that lived for a moment; equal things in the
//! [`WINDOW`] after that are counted and told once. Pure: no I/O, the time is handed in.

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::list::Class;
use super::tree::{Act, Touch};

/// How long everything rests before it is told.
pub(super) const REST: Duration = Duration::from_millis(30);
/// How long equal things are put together.
pub(super) const WINDOW: Duration = Duration::from_secs(1);
/// An open that nobody has written through, and nobody has closed, is told as a read after this.
const OPEN_FOR: Duration = Duration::from_secs(1);
/// Things that rest or are counted at once; beyond it all go out and are counted anew.
const MOST: usize = 4096;

/// What is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Told<W> {
    pub(super) action: &'static str,
    pub(super) path: PathBuf,
    pub(super) from: Option<PathBuf>,
    pub(super) class: Class,
    pub(super) mode: Option<u32>,
    pub(super) who: W,
    pub(super) count: u64,
}

type Key = (u32, PathBuf, Act);

struct Resting<W> {
    told: Told<W>,
    /// Things go out in the order in which they came.
    turn: u64,
    /// When it goes out, or the window of what went out ends.
    due: Instant,
    sent: bool,
}

struct Open<W> {
    since: Instant,
    touch: Touch,
    who: W,
}

/// What rests.
pub(super) struct Rest<W> {
    resting: HashMap<Key, Resting<W>>,
    opens: HashMap<(u32, PathBuf), Open<W>>,
    /// Written through a descriptor that is still open, as far as is known.
    dirty: HashMap<(u32, PathBuf), Instant>,
    /// Things that happened.
    pub(super) generated: u64,
    turn: u64,
}

impl<W> Default for Rest<W> {
    fn default() -> Self {
        let (resting, opens, dirty) = (HashMap::new(), HashMap::new(), HashMap::new());
        Self { resting, opens, dirty, generated: 0, turn: 0 }
    }
}

impl<W: Clone> Rest<W> {
    /// Something happened by the process with this pid. `out` gets what must make room.
    pub(super) fn add(
        &mut self,
        pid: u32,
        who: &W,
        touch: Touch,
        now: Instant,
        out: &mut Vec<Told<W>>,
    ) {
        let file = (pid, touch.path.clone());
        for act in touch.acts.clone() {
            match act {
                Act::Opened => {
                    self.opened(&file, who, &touch, now);
                    continue;
                }
                Act::ClosedRead => {
                    if self.opens.remove(&file).is_none() {
                        continue;
                    }
                }
                Act::Wrote => {
                    self.opens.remove(&file);
                    self.wrote(&file, now);
                }
                Act::ClosedWrite => {
                    self.opens.remove(&file);
                    if self.dirty.remove(&file).is_some() {
                        continue;
                    }
                }
                Act::Renamed | Act::Deleted => self.drop_link_count(&file),
                Act::Created | Act::Overwrote | Act::Cut | Act::Attributes | Act::Links => {}
            }
            self.tell(pid, act, who, &touch, now, out);
        }
    }

    fn opened(&mut self, file: &(u32, PathBuf), who: &W, touch: &Touch, now: Instant) {
        if self.opens.len() < MOST {
            let open = || Open { since: now, touch: touch.clone(), who: who.clone() };
            self.opens.entry(file.clone()).or_insert_with(open);
        }
    }

    fn wrote(&mut self, file: &(u32, PathBuf), now: Instant) {
        if self.dirty.len() >= MOST {
            // Their close is told as `open_write` should it still come.
            self.dirty.retain(|_, since| now.duration_since(*since) < WINDOW);
        }
        if self.dirty.len() < MOST {
            self.dirty.insert(file.clone(), now);
        }
    }

    /// Taking a name away changes the number of names: that is not told beside it.
    fn drop_link_count(&mut self, (pid, path): &(u32, PathBuf)) {
        let key = (*pid, path.clone(), Act::Links);
        if self.resting.get(&key).is_some_and(|resting| !resting.sent)
            && let Some(resting) = self.resting.remove(&key)
        {
            self.generated -= resting.told.count;
        }
    }

    fn tell(
        &mut self,
        pid: u32,
        act: Act,
        who: &W,
        touch: &Touch,
        now: Instant,
        out: &mut Vec<Told<W>>,
    ) {
        self.generated += 1;
        self.turn += 1;
        let key = (pid, touch.path.clone(), act);
        if let Some(resting) = self.resting.get_mut(&key) {
            resting.told.count += 1;
            resting.told.mode = touch.mode.or(resting.told.mode);
            return;
        }
        if self.resting.len() >= MOST {
            let all = self.resting.drain().map(|(_, resting)| (resting.turn, resting.told));
            hand_out(all.filter(|(_, told)| told.count > 0).collect(), out);
        }
        let told = Told {
            action: action(act),
            path: touch.path.clone(),
            from: touch.from.clone(),
            class: touch.class,
            mode: touch.mode,
            who: who.clone(),
            count: 1,
        };
        self.resting.insert(key, Resting { told, turn: self.turn, due: now + REST, sent: false });
    }

    /// What is to be told now.
    pub(super) fn due(&mut self, now: Instant, out: &mut Vec<Told<W>>) {
        let long_open: Vec<(u32, PathBuf)> = self
            .opens
            .iter()
            .filter(|(_, open)| now >= open.since + OPEN_FOR)
            .map(|(file, _)| file.clone())
            .collect();
        for file in long_open {
            if let Some(open) = self.opens.remove(&file) {
                self.tell(file.0, Act::ClosedRead, &open.who, &open.touch, now, out);
            }
        }
        let mut going = Vec::new();
        self.resting.retain(|_, resting| {
            if now < resting.due {
                return true;
            }
            if resting.told.count == 0 {
                return false;
            }
            going.push((resting.turn, resting.told.clone()));
            // It stays for a window, as one of which nothing more has happened yet.
            resting.told.count = 0;
            resting.sent = true;
            resting.due = now + WINDOW;
            true
        });
        hand_out(going, out);
    }

    /// When to look again; `None` when nothing rests.
    pub(super) fn next(&self) -> Option<Instant> {
        let opens = self.opens.values().map(|open| open.since + OPEN_FOR);
        self.resting.values().map(|resting| resting.due).chain(opens).min()
    }
}

fn hand_out<W>(mut going: Vec<(u64, Told<W>)>, out: &mut Vec<Told<W>>) {
    going.sort_by_key(|(turn, _)| *turn);
    out.extend(going.into_iter().map(|(_, told)| told));
}

/// The `action` of an event.
const fn action(act: Act) -> &'static str {
    match act {
        Act::Opened | Act::ClosedRead => "read",
        Act::ClosedWrite => "open_write",
        Act::Wrote | Act::Overwrote => "write",
        Act::Cut => "truncate",
        Act::Created => "create",
        Act::Renamed => "rename",
        Act::Deleted => "delete",
        Act::Attributes | Act::Links => "attributes",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn touch(acts: &[Act]) -> Touch {
        Touch {
            acts: acts.to_vec(),
            path: PathBuf::from("/etc/shadow"),
            from: None,
            class: Class::Credentials,
            mode: None,
        }
    }

    /// What is told in the end, when these things happen at these milliseconds.
    fn told(happenings: &[(u64, &[Act])], until: u64) -> Vec<(&'static str, u64)> {
        let start = Instant::now();
        let mut rest = Rest::default();
        let mut out = Vec::new();
        let mut happenings = happenings.iter().peekable();
        for millisecond in 0..until {
            let now = start + Duration::from_millis(millisecond);
            while let Some((_, acts)) = happenings.next_if(|(at, _)| *at == millisecond) {
                rest.add(7, &"who", touch(acts), now, &mut out);
            }
            rest.due(now, &mut out);
        }
        let sum: u64 = out.iter().map(|told| told.count).sum();
        assert_eq!(sum, rest.generated, "every one is in a count");
        out.into_iter().map(|told| (told.action, told.count)).collect()
    }

    #[test]
    fn an_open_is_a_read_when_it_is_closed_without_a_write() {
        assert_eq!(told(&[(0, &[Act::Opened, Act::ClosedRead])], 100), [("read", 1)]);
        assert_eq!(told(&[(0, &[Act::Opened]), (5, &[Act::ClosedRead])], 100), [("read", 1)]);
        assert_eq!(told(&[(0, &[Act::Opened])], 900), []);
        assert_eq!(told(&[(0, &[Act::Opened])], 2000), [("read", 1)]);
        assert_eq!(told(&[(0, &[Act::ClosedRead])], 100), [], "opened before we looked");
    }

    #[test]
    fn an_open_that_is_written_through_is_a_write_alone() {
        let written = [Act::Opened, Act::Wrote, Act::ClosedWrite];
        assert_eq!(told(&[(0, &written)], 3000), [("write", 1)]);
        let late: [(u64, &[Act]); 3] =
            [(0, &[Act::Opened]), (500, &[Act::Wrote]), (2900, &[Act::ClosedWrite])];
        assert_eq!(told(&late, 3000), [("write", 1)]);
        assert_eq!(told(&[(0, &[Act::Opened, Act::ClosedWrite])], 3000), [("open_write", 1)]);
    }

    #[test]
    fn equal_things_are_counted_and_told_once_a_second() {
        let many: Vec<(u64, &[Act])> = (0..500).map(|at| (at, &[Act::Wrote][..])).collect();
        let told = told(&many, 4000);
        assert_eq!(told.len(), 2, "{told:?}");
        assert!(told[0].1 <= 31 && told[0].1 + told[1].1 == 500, "{told:?}");
    }

    #[test]
    fn the_number_of_names_is_not_told_beside_a_delete() {
        let deleted: [(u64, &[Act]); 2] = [(0, &[Act::Links]), (1, &[Act::Deleted])];
        assert_eq!(told(&deleted, 100), [("delete", 1)]);
        assert_eq!(told(&[(0, &[Act::Links])], 100), [("attributes", 1)]);
        let set: [(u64, &[Act]); 2] = [(0, &[Act::Attributes]), (1, &[Act::Deleted])];
        assert_eq!(told(&set, 100), [("attributes", 1), ("delete", 1)]);
    }

    #[test]
    fn a_storm_of_different_files_is_bounded_and_loses_nothing() {
        let now = Instant::now();
        let mut rest = Rest::default();
        let mut out = Vec::new();
        for number in 0..20_000 {
            let path = PathBuf::from(format!("/var/www/{number}"));
            rest.add(1, &(), Touch { path, ..touch(&[Act::Created]) }, now, &mut out);
            assert!(rest.resting.len() <= MOST);
        }
        rest.due(now + REST, &mut out);
        assert_eq!((out.len(), rest.generated), (20_000, 20_000));
    }
}
