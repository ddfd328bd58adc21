//! Content that was found malicious a moment ago, so that a crowd at one file is answered by one
//! scan, and no deadline lets through what is known.
//!
//! INVARIANT: an entry spares a scan only while nobody writes the file; while somebody does, it
//! counts where there is no time for a scan. Content is known by its modification time, not by its
//! change time, which moves with every name that sealing takes away. Whoever can forge the one
//! owns the file, and gains a denial.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use holdfast_common::verdict::{Hashes, Signature};

use crate::sys::identity::Facts;

/// Files remembered; a full table starts anew, which costs scans and nothing else.
const MOST: usize = 256;

/// The table.
#[derive(Debug, Default)]
pub(super) struct Condemned(Mutex<HashMap<Content, Sentence>>);

/// Device, inode, birth, size and modification time.
type Content = ((u32, u32), u64, (i64, u32), u64, (i64, u32));

fn content(facts: &Facts) -> Content {
    let identity = &facts.identity;
    (identity.device, identity.inode, identity.born, identity.size, facts.modified)
}

/// What was found.
#[derive(Debug, Clone)]
pub(super) struct Sentence {
    pub(super) signature: Signature,
    pub(super) hashes: Hashes,
}

impl Condemned {
    pub(super) fn add(&self, facts: &Facts, sentence: Sentence) {
        let mut table = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if table.len() >= MOST {
            table.clear();
        }
        table.insert(content(facts), sentence);
    }

    pub(super) fn get(&self, facts: &Facts) -> Option<Sentence> {
        let table = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        table.get(&content(facts)).cloned()
    }

    /// The rules changed.
    pub(super) fn clear(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}
