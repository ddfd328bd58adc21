//! A storm is put together before it is dropped: which events are told one by one, and which only
//! counted in the first of their like.
//!
//! Equal ones (same parent and same program, or same process and same deed) share a window. In it
//! the first few are told; of the rest those with a command line that the window has not seen
//! (so that a storm hides no other command, up to [`DISTINCT`]); all others are counted, and told
//! as one event with that count when the window ends. While more than [`EACH_SECOND`] are told a
//! second, windows are made coarser (one for each program, whoever its parent is) and only the
//! first of each is told, up to four times as many.
//!
//! INVARIANT: every offer is either given back at once, or counted in exactly one later event.
//! Bounded: [`WINDOWS`] windows, beyond which there is one for each kind.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use holdfast_common::abi::Kind;

/// Execs told one by one in each window.
pub const EXECS: u32 = 8;
/// Different command lines told in each window beyond those.
pub const DISTINCT: usize = 128;
/// Other activities told one by one in each window.
pub const ACTIVITIES: u32 = 8;
/// Events told in a second, of all windows, before windows become coarser.
pub const EACH_SECOND: u32 = 400;
/// Open windows.
pub const WINDOWS: usize = 4096;
/// Length of a window.
const SHORT: Duration = Duration::from_secs(1);
/// Length of a window of forks and exits, which every process has.
const LONG: Duration = Duration::from_secs(10);

/// What is equal to what.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Alike {
    /// What it is.
    pub kind: Kind,
    /// Equal for events that may be put together.
    pub key: u64,
    /// Equal for those that may be under pressure.
    pub coarse: u64,
    /// Differs where the window is to tell one more; `None` where nothing does.
    pub variant: Option<u64>,
}

/// Counts and keeps the first of each window, a `T`.
pub(super) struct Gather<T> {
    windows: HashMap<(u32, u64), Window<T>>,
    second: Instant,
    told: u32,
}

struct Window<T> {
    ends: Instant,
    told: u32,
    seen: Vec<u64>,
    held: Option<(T, u64)>,
}

impl<T> Gather<T> {
    pub(super) fn new(now: Instant) -> Self {
        Self { windows: HashMap::new(), second: now, told: 0 }
    }

    /// Gives an event back when it is to be told now; keeps or counts it otherwise.
    pub(super) fn offer(&mut self, alike: Alike, now: Instant, event: T) -> Option<T> {
        if now.saturating_duration_since(self.second) >= SHORT {
            (self.second, self.told) = (now, 0);
        }
        let pressed = self.told >= EACH_SECOND;
        let mut place = (alike.kind as u32, if pressed { alike.coarse } else { alike.key });
        if self.windows.len() >= WINDOWS && !self.windows.contains_key(&place) {
            place.1 = 0;
        }
        let (mut each, length) = limits(alike.kind);
        if pressed {
            each = u32::from(self.told < 4 * EACH_SECOND);
        }
        let window = self.windows.entry(place).or_insert_with(|| Window {
            ends: now + length,
            told: 0,
            seen: Vec::new(),
            held: None,
        });
        let fresh = alike.variant.is_some_and(|variant| {
            let fresh = window.seen.len() < DISTINCT && !window.seen.contains(&variant);
            if fresh {
                window.seen.push(variant);
            }
            fresh
        });
        if window.told < each || (fresh && !pressed) {
            window.told += 1;
            self.told += 1;
            return Some(event);
        }
        match &mut window.held {
            Some((_, count)) => *count += 1,
            held @ None => *held = Some((event, 1)),
        }
        None
    }

    /// Some window has counted what was not told.
    pub(super) fn holds_something(&self) -> bool {
        self.windows.values().any(|window| window.held.is_some())
    }

    /// Takes the events of windows that have ended, each with its count; of all when `all`.
    pub(super) fn take_due(&mut self, now: Instant, all: bool) -> Vec<(T, u64)> {
        let mut due = Vec::new();
        self.windows.retain(|_, window| {
            let ended = all || now >= window.ends;
            if ended {
                due.extend(window.held.take());
            }
            !ended
        });
        due
    }
}

/// How many are told one by one, in how long a window.
fn limits(kind: Kind) -> (u32, Duration) {
    match kind {
        Kind::Exec => (EXECS, SHORT),
        Kind::Fork | Kind::Exit => (1, LONG),
        // Equal ones are to one peer, or of one name: a second one says nothing new.
        Kind::Connect | Kind::Accept | Kind::Bind | Kind::Listen | Kind::Send | Kind::Dns => {
            (1, SHORT)
        }
        Kind::Socket
        | Kind::Capability
        | Kind::Credentials
        | Kind::Ptrace
        | Kind::MemoryWrite
        | Kind::Signal
        | Kind::ModuleLoad
        | Kind::BpfLoad
        | Kind::Memfd
        | Kind::Mount
        | Kind::Namespaces => (ACTIVITIES, SHORT),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn alike(key: u64, variant: u64) -> Alike {
        Alike { kind: Kind::Exec, key, coarse: 7, variant: Some(variant) }
    }

    /// Told at once, and the counts of what was put together.
    fn run(offers: impl Iterator<Item = Alike>) -> (usize, u64) {
        let start = Instant::now();
        let mut gather = Gather::new(start);
        let told = offers.filter_map(|alike| gather.offer(alike, start, ())).count();
        let counted = gather.take_due(start + SHORT, false);
        assert!(gather.take_due(start + SHORT, true).is_empty());
        (told, counted.into_iter().map(|(_, count)| count).sum())
    }

    #[test]
    fn a_storm_of_equal_execs_is_one_event_with_its_count() {
        let (told, counted) = run((0..100_000).map(|_| alike(1, 1)));
        assert_eq!((told, told as u64 + counted), (EXECS as usize, 100_000));
    }

    #[test]
    fn a_storm_does_not_hide_another_command_of_the_same_program() {
        let start = Instant::now();
        let mut gather = Gather::new(start);
        let storm: Vec<_> =
            (0..10_000).filter_map(|_| gather.offer(alike(1, 1), start, "storm")).collect();
        assert_eq!(storm.len(), EXECS as usize);
        assert_eq!(gather.offer(alike(1, 2), start, "other"), Some("other"));
        assert_eq!(gather.offer(alike(1, 2), start, "other"), None);
    }

    #[test]
    fn different_commands_are_bounded_in_each_window_and_over_all() {
        let (told, counted) = run((0..100_000).map(|n| alike(1, n)));
        assert!(told <= EXECS as usize + DISTINCT, "{told}");
        assert_eq!(told as u64 + counted, 100_000);
        let (told, counted) = run((0..100_000).map(|n| alike(n, n)));
        // And at most the first of the coarse window.
        assert!(told <= EACH_SECOND as usize + 1, "{told}");
        assert_eq!(told as u64 + counted, 100_000);
    }

    #[test]
    fn memory_is_bounded_whatever_comes() {
        let start = Instant::now();
        let mut gather = Gather::new(start);
        for n in 0..100_000 {
            let alike = Alike { kind: Kind::Exec, key: n, coarse: n, variant: Some(n) };
            gather.offer(alike, start, ());
        }
        assert!(gather.windows.len() <= WINDOWS + 1);
    }

    #[test]
    fn the_next_window_tells_again() {
        let start = Instant::now();
        let mut gather = Gather::new(start);
        for _ in 0..1000 {
            gather.offer(alike(1, 1), start, ());
        }
        let later = start + SHORT;
        assert_eq!(gather.take_due(later, false).len(), 1);
        assert!(gather.offer(alike(1, 1), later, ()).is_some());
    }
}
