//! Puts equal denials together, so that nobody fills the journal by trying again.
//!
//! Invariant: the first of its kind is told at once; every further one is told as a number within
//! [`WINDOW`]; what found no place is counted. Bounded by [`MOST`].

use std::collections::HashMap;
use std::hash::Hash;
use std::time::{Duration, Instant};

/// How long equal ones are put together.
pub(super) const WINDOW: Duration = Duration::from_secs(10);
/// Different ones in one window.
const MOST: usize = 64;

/// The denials of one window. `E` is what is told again with its number.
pub(super) struct Repeats<K, E> {
    begin: Instant,
    seen: HashMap<K, (E, u64)>,
    /// Found no place.
    over: u64,
}

/// What was put together.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Summary<E> {
    /// Each with how many more of it there were.
    pub(super) repeated: Vec<(E, u64)>,
    /// Others, of which nothing but the number is known.
    pub(super) over: u64,
}

impl<K: Eq + Hash, E> Repeats<K, E> {
    pub(super) fn new(now: Instant) -> Self {
        Self { begin: now, seen: HashMap::new(), over: 0 }
    }

    /// True when this one is to be told now; then `make` says what is told again later.
    pub(super) fn is_first(&mut self, key: K, make: impl FnOnce() -> E) -> bool {
        if let Some((_, more)) = self.seen.get_mut(&key) {
            *more += 1;
            return false;
        }
        if self.seen.len() >= MOST {
            self.over += 1;
            return false;
        }
        self.seen.insert(key, (make(), 0));
        true
    }

    /// When the window is over: what it held.
    pub(super) fn take(&mut self, now: Instant) -> Option<Summary<E>> {
        if now.duration_since(self.begin) < WINDOW {
            return None;
        }
        self.begin = now;
        let repeated = self.seen.drain().map(|(_, entry)| entry).filter(|(_, more)| *more > 0);
        Some(Summary { repeated: repeated.collect(), over: std::mem::take(&mut self.over) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_is_told_and_the_rest_counted() {
        let begin = Instant::now();
        let mut repeats = Repeats::new(begin);
        assert!(repeats.is_first(1, || 'a'));
        assert!(!repeats.is_first(1, || 'b') && !repeats.is_first(1, || 'b'));
        assert!(repeats.is_first(2, || 'c'));
        assert_eq!(repeats.take(begin + WINDOW / 2), None);
        let summary = repeats.take(begin + WINDOW).expect("over");
        assert_eq!(summary, Summary { repeated: vec![('a', 2)], over: 0 });
        assert!(repeats.is_first(1, || 'd'), "a new window");
    }

    #[test]
    fn a_flood_of_different_ones_is_counted() {
        let begin = Instant::now();
        let mut repeats = Repeats::new(begin);
        let told = (0..1000).filter(|key| repeats.is_first(*key, || ())).count();
        assert_eq!(told, MOST);
        let summary = repeats.take(begin + WINDOW).expect("over");
        assert_eq!((summary.repeated.len(), summary.over), (0, 1000 - MOST as u64));
    }
}
