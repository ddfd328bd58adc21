//! What the reader remembers from one record to the next, so that a storm of equal ones costs
//! little: images that were made before, control groups that were looked up, open windows.
//!
//! Everything here is bounded and forgotten at random or by age; nothing is lost by it but time.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hash, Hasher, RandomState};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use holdfast_common::event::{Activity, NetworkEvent};
use holdfast_common::process::{ProcessInfo, ProcessKey};

use super::decode::Who;
use super::gather::Gather;

/// Images kept by what they were made from.
const IMAGES: usize = 512;
/// Sets of control groups kept.
const GROUPS: usize = 512;
/// The kernel may use the name of a set again.
const GROUPS_FRESH: Duration = Duration::from_secs(60);

/// An event that waits for its like.
pub(super) enum Held {
    /// A program started.
    Exec(ProcessKey, Option<ProcessKey>, Arc<ProcessInfo>),
    /// A process did something.
    Activity(ProcessKey, Arc<ProcessInfo>, Activity),
    /// A process used the network; all but the process is filled in.
    Network(Who, Box<NetworkEvent>),
}

/// The path of a control group, and the container's id.
pub(super) type Groups = (String, Option<String>);

/// See the module.
pub(super) struct Storms {
    hasher: RandomState,
    images: Mutex<HashMap<u64, Arc<ProcessInfo>>>,
    groups: Mutex<HashMap<(u64, u64), (Instant, Groups)>>,
    gather: Mutex<Gather<Held>>,
    /// The set-user-id calls that were tried, by process, until somebody has seen what came of it.
    tried: Mutex<HashMap<ProcessKey, &'static str>>,
}

impl Storms {
    pub(super) fn new() -> Self {
        Self {
            hasher: RandomState::new(),
            images: Mutex::default(),
            groups: Mutex::default(),
            gather: Mutex::new(Gather::new(Instant::now())),
            tried: Mutex::default(),
        }
    }

    /// A hash that nobody outside can foresee.
    pub(super) fn hash(&self, feed: impl FnOnce(&mut dyn Hasher)) -> u64 {
        let mut hasher = self.hasher.build_hasher();
        feed(&mut hasher);
        hasher.finish()
    }

    /// The same for something that can hash itself.
    pub(super) fn hash_of(&self, value: impl Hash) -> u64 {
        self.hasher.hash_one(value)
    }

    /// The image of this hash, made when it is not there.
    pub(super) fn image(&self, hash: u64, make: impl FnOnce() -> ProcessInfo) -> Arc<ProcessInfo> {
        if let Some(image) = lock(&self.images).get(&hash) {
            return Arc::clone(image);
        }
        let image = Arc::new(make());
        let mut images = lock(&self.images);
        if images.len() >= IMAGES {
            images.clear();
        }
        images.insert(hash, Arc::clone(&image));
        image
    }

    /// The groups of a set, looked up when they are not known or not fresh.
    pub(super) fn groups(&self, set: (u64, u64), find: impl FnOnce() -> Option<Groups>) -> Groups {
        let now = Instant::now();
        if let Some((since, groups)) = lock(&self.groups).get(&set)
            && now.saturating_duration_since(*since) < GROUPS_FRESH
        {
            return groups.clone();
        }
        let Some(groups) = find() else { return Groups::default() };
        let mut known = lock(&self.groups);
        if known.len() >= GROUPS {
            known.clear();
        }
        known.insert(set, (now, groups.clone()));
        groups
    }

    pub(super) fn gather(&self) -> MutexGuard<'_, Gather<Held>> {
        lock(&self.gather)
    }

    /// A process tried to change its user ids.
    pub(super) fn try_call(&self, key: ProcessKey, call: &'static str) {
        let mut tried = lock(&self.tried);
        if tried.len() >= GROUPS {
            tried.clear();
        }
        tried.insert(key, call);
    }

    /// The call that it tried last, if any.
    pub(super) fn tried_call(&self, key: ProcessKey) -> Option<&'static str> {
        lock(&self.tried).remove(&key)
    }
}

fn lock<T>(what: &Mutex<T>) -> MutexGuard<'_, T> {
    what.lock().unwrap_or_else(PoisonError::into_inner)
}
