//! Which heartbeats are written whole, and which only as a sign of life.
//!
//! A heartbeat is some 16 KiB that say nearly the same each time; a fleet's would be most of what
//! the database writes. What is judged from one is looked at each time, and any change is written
//! at once; the rest every [`WHOLE`]. Invariant: what is not known here is written whole.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use holdfast_common::denial::DenialState;
use holdfast_common::ruled::PolicyState;
use uuid::Uuid;

use super::health::Reason;

/// A whole one at least so often, as long as nothing changes.
const WHOLE: Duration = Duration::from_secs(15);
/// After such a pause the host may stand as silent: whole again.
const PAUSE: Duration = Duration::from_secs(20);

/// The last heartbeat of each stream of this manager.
#[derive(Debug, Default)]
pub(super) struct Beats(Mutex<HashMap<Uuid, Beat>>);

/// What a host says of its policy, and of what it denies.
type Said<'a> = (&'a PolicyState, &'a DenialState);

#[derive(Debug)]
struct Beat {
    whole: Instant,
    last: Instant,
    reasons: Vec<Reason>,
    /// Hash of what it last said of its policy and of what it denies: the words are the host's, and
    /// may be long.
    said: Option<u64>,
}

impl Beats {
    /// Whether this one is to be written whole.
    pub(super) fn is_due(&self, session: Uuid, reasons: &[Reason], now: Instant) -> bool {
        let mut beats = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(beat) = beats.get_mut(&session) {
            let fresh = now.duration_since(beat.whole) < WHOLE;
            let heard = now.duration_since(beat.last) < PAUSE;
            if fresh && heard && beat.reasons == reasons {
                beat.last = now;
                return false;
            }
        }
        let said = beats.remove(&session).and_then(|beat| beat.said);
        let reasons = reasons.to_vec();
        beats.insert(session, Beat { whole: now, last: now, reasons, said });
        true
    }

    /// Whether a stream says something else of these than the last time it was kept.
    pub(super) fn is_other(&self, session: Uuid, said: Said<'_>) -> bool {
        let beats = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        beats.get(&session).is_none_or(|beat| beat.said != Some(hash_of(said)))
    }

    /// What it says of these is kept.
    pub(super) fn kept(&self, session: Uuid, said: Said<'_>) {
        let mut beats = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(beat) = beats.get_mut(&session) {
            beat.said = Some(hash_of(said));
        }
    }

    /// The stream is over, or its last heartbeat was not kept.
    pub(super) fn forget(&self, session: Uuid) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&session);
    }
}

fn hash_of(said: Said<'_>) -> u64 {
    let mut hasher = DefaultHasher::new();
    said.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_is_the_first_the_changed_the_late_and_what_comes_after_a_pause() {
        let (beats, session, begin) = (Beats::default(), Uuid::now_v7(), Instant::now());
        let at = |seconds| begin + Duration::from_secs(seconds);
        let red = [Reason::new("sensor", "blind")];
        assert!(beats.is_due(session, &[], at(0)));
        assert!(!beats.is_due(session, &[], at(5)));
        assert!(!beats.is_due(session, &[], at(10)));
        assert!(beats.is_due(session, &[], at(15)));
        assert!(beats.is_due(session, &red, at(16)), "changed");
        assert!(!beats.is_due(session, &red, at(17)));
        assert!(beats.is_due(session, &[], at(18)), "changed back");
        assert!(beats.is_due(Uuid::now_v7(), &[], at(18)), "another stream");
        assert!(beats.is_due(session, &[], at(60)), "after a pause");
        beats.forget(session);
        assert!(beats.is_due(session, &[], at(61)));
    }
}
