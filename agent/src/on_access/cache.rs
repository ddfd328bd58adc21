//! Which content is known to be clean, so that it is not scanned again.
//!
//! Two memories with one rule each:
//! - the kernel's ignore mark, where root alone can write the file: the next open never leaves
//!   the kernel, and any modification drops the mark;
//! - this table, for every file: identity (device, inode, size, change time, birth time) → clean.
//!
//! INVARIANT: an entry stands only for content that nobody could have changed since it was
//! scanned. Change times are as coarse as a clock tick, and stores through a shared mapping of
//! tmpfs move none at all; so a verdict is kept only when the file was *settled* before the scan,
//! nobody has it open for writing after it, and no open that can write came in between (the
//! write epoch of its inode is the same).

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::sys::identity::Identity;

/// Entries of one shard; a full shard starts anew, which costs scans and nothing else.
const SHARD_ENTRIES: usize = 4096;
const SHARDS: usize = 16;
const EPOCHS: usize = 1024;

/// Two ticks of the slowest clock (HZ=100) after a change, the next change gets another time.
const SETTLED_NS: i128 = 20_000_000;

type InodeKey = ((u32, u32), u64);

/// The verdict cache.
#[derive(Debug)]
pub struct Cache {
    // One state an inode, so that old ones do not pile up.
    shards: [Mutex<HashMap<InodeKey, Identity>>; SHARDS],
    // Counts opens that can write; inodes share counters, which costs scans and nothing else.
    epochs: Box<[AtomicU64; EPOCHS]>,
    hasher: RandomState,
}

/// The write epoch of an inode, as it was before a scan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Epoch(u64);

impl Default for Cache {
    fn default() -> Self {
        Self {
            shards: std::array::from_fn(|_| Mutex::default()),
            epochs: Box::new(std::array::from_fn(|_| AtomicU64::new(0))),
            hasher: RandomState::new(),
        }
    }
}

impl Cache {
    /// True when exactly this state of the file was found clean.
    #[must_use]
    pub fn is_clean(&self, identity: &Identity) -> bool {
        let (key, hash) = self.key(identity);
        self.shard(hash).get(&key) == Some(identity)
    }

    /// The epoch to hand to [`Cache::remember`] later.
    pub fn epoch(&self, identity: &Identity) -> Epoch {
        let (_, hash) = self.key(identity);
        Epoch(self.epochs[hash % EPOCHS].load(Ordering::Acquire))
    }

    /// Keeps a clean verdict, unless an open that can write came since `before`.
    pub fn remember(&self, identity: &Identity, before: Epoch) -> bool {
        let (key, hash) = self.key(identity);
        let mut shard = self.shard(hash);
        // Under the shard's lock: `forget` counts first and then takes the same lock.
        if Epoch(self.epochs[hash % EPOCHS].load(Ordering::Acquire)) != before {
            return false;
        }
        if shard.len() >= SHARD_ENTRIES && !shard.contains_key(&key) {
            shard.clear();
        }
        shard.insert(key, *identity);
        true
    }

    /// Somebody can write this inode now, or could until a moment ago.
    pub fn forget(&self, identity: &Identity) {
        let (key, hash) = self.key(identity);
        self.epochs[hash % EPOCHS].fetch_add(1, Ordering::AcqRel);
        self.shard(hash).remove(&key);
    }

    /// Drops everything: the rules changed.
    pub fn clear(&self) {
        for epoch in self.epochs.iter() {
            epoch.fetch_add(1, Ordering::AcqRel);
        }
        for shard in &self.shards {
            shard.lock().unwrap_or_else(PoisonError::into_inner).clear();
        }
    }

    fn key(&self, identity: &Identity) -> (InodeKey, usize) {
        let key = (identity.device, identity.inode);
        // The cut to usize is what a hash is for.
        #[expect(clippy::cast_possible_truncation, reason = "any part of a hash will do")]
        let hash = self.hasher.hash_one(key) as usize;
        (key, hash)
    }

    fn shard(&self, hash: usize) -> MutexGuard<'_, HashMap<InodeKey, Identity>> {
        self.shards[(hash / EPOCHS) % SHARDS].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// True when the file's last change lies so far back that the next one must get another time.
#[must_use]
pub fn settled(identity: &Identity, now: SystemTime) -> bool {
    long_ago(identity.changed, now)
}

/// True when a time stamp of a file lies two clock ticks back, and not in the future.
#[must_use]
pub fn long_ago(stamp: (i64, u32), now: SystemTime) -> bool {
    let Ok(now) = now.duration_since(UNIX_EPOCH) else { return false };
    let stamp = i128::from(stamp.0) * 1_000_000_000 + i128::from(stamp.1);
    // Cannot overflow: nanoseconds since 1970 fit 64 bits until 2554.
    now.as_nanos().cast_signed() - stamp > SETTLED_NS
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn identity(inode: u64, changed: i64) -> Identity {
        Identity { device: (8, 1), inode, size: 4096, changed: (changed, 0), born: (0, 0) }
    }

    #[test]
    fn a_verdict_stands_for_one_state_of_one_inode() {
        let cache = Cache::default();
        let (old, new) = (identity(7, 1), identity(7, 2));
        assert!(cache.remember(&old, cache.epoch(&old)));
        assert!(cache.is_clean(&old));
        assert!(!cache.is_clean(&new));
        assert!(!cache.is_clean(&identity(8, 1)));
        cache.forget(&new);
        assert!(!cache.is_clean(&old));
    }

    #[test]
    fn a_writer_during_the_scan_spoils_the_verdict() {
        let cache = Cache::default();
        let file = identity(7, 1);
        let before = cache.epoch(&file);
        cache.forget(&file);
        assert!(!cache.remember(&file, before));
        assert!(!cache.is_clean(&file));
        let before = cache.epoch(&file);
        cache.clear();
        assert!(!cache.remember(&file, before));
    }

    #[test]
    fn memory_is_bounded() {
        let cache = Cache::default();
        for inode in 0..200_000 {
            let file = identity(inode, 1);
            cache.remember(&file, cache.epoch(&file));
        }
        let entries: usize =
            cache.shards.iter().map(|shard| shard.lock().expect("shard").len()).sum();
        assert!(entries <= SHARDS * SHARD_ENTRIES, "{entries}");
    }

    #[test]
    fn a_fresh_change_or_one_in_the_future_is_not_settled() {
        let now = UNIX_EPOCH + Duration::from_millis(100_000);
        let at = |ms: i64| Identity {
            changed: (ms / 1000, u32::try_from(ms % 1000).expect("small") * 1_000_000),
            ..identity(1, 0)
        };
        assert!(settled(&at(99_900), now));
        assert!(!settled(&at(99_990), now));
        assert!(!settled(&at(100_500), now));
    }
}
