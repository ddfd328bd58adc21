//! How much the quarantine holds, and how much it may.
//!
//! Invariant: the containers together with those being written never exceed the limit that stood
//! when room was taken. Knows
//! numbers only; what is on disk is counted once, when the quarantine is opened.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};

use holdfast_common::control::QuarantineState;

use super::error::VaultError;

/// The numbers.
pub(super) struct Space {
    limit: AtomicU64,
    state: Mutex<QuarantineState>,
}

impl Space {
    pub(super) const fn new(limit: u64, state: QuarantineState) -> Self {
        Self { limit: AtomicU64::new(limit), state: Mutex::new(state) }
    }

    /// Another limit from now on. What is there stays, also beyond it.
    pub(super) fn set_limit(&self, limit: u64) {
        self.limit.store(limit, Relaxed);
    }

    pub(super) fn state(&self) -> QuarantineState {
        self.lock().clone()
    }

    /// Takes room for a container before it is written.
    pub(super) fn reserve(&self, bytes: u64) -> Result<Reservation<'_>, VaultError> {
        let mut reservation = Reservation { space: self, bytes: 0 };
        reservation.grow_to(bytes)?;
        Ok(reservation)
    }

    /// An item is gone.
    pub(super) fn release(&self, bytes: u64) {
        let mut state = self.lock();
        state.items = state.items.saturating_sub(1);
        state.bytes = state.bytes.saturating_sub(bytes);
    }

    fn lock(&self) -> MutexGuard<'_, QuarantineState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Room for one container; given back when dropped.
pub(super) struct Reservation<'a> {
    space: &'a Space,
    bytes: u64,
}

impl Reservation<'_> {
    /// Makes it at least this large.
    pub(super) fn grow_to(&mut self, bytes: u64) -> Result<(), VaultError> {
        let more = bytes.saturating_sub(self.bytes);
        let mut state = self.space.lock();
        let total = state.bytes.saturating_add(more);
        let limit = self.space.limit.load(Relaxed);
        if total > limit && more > 0 {
            return Err(VaultError::Full { needed: bytes, limit });
        }
        state.bytes = total;
        self.bytes += more;
        Ok(())
    }

    /// The container is whole and has this size.
    pub(super) fn keep(mut self, bytes: u64) {
        let mut state = self.space.lock();
        state.items += 1;
        state.bytes = state.bytes.saturating_sub(self.bytes).saturating_add(bytes);
        drop(state);
        self.bytes = 0;
    }
}

impl Drop for Reservation<'_> {
    fn drop(&mut self) {
        let mut state = self.space.lock();
        state.bytes = state.bytes.saturating_sub(self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_is_taken_grown_kept_and_given_back() {
        let space = Space::new(100, QuarantineState { items: 1, bytes: 40 });
        let mut first = space.reserve(30).expect("fits");
        assert!(matches!(space.reserve(31), Err(VaultError::Full { needed: 31, limit: 100 })));
        first.grow_to(60).expect("fits just");
        assert!(first.grow_to(61).is_err());
        first.keep(50);
        assert_eq!(space.state(), QuarantineState { items: 2, bytes: 90 });
        space.set_limit(95);
        assert!(matches!(space.reserve(10), Err(VaultError::Full { needed: 10, limit: 95 })));
        space.set_limit(100);
        drop(space.reserve(10).expect("fits"));
        space.release(50);
        assert_eq!(space.state(), QuarantineState { items: 1, bytes: 40 });
    }
}
