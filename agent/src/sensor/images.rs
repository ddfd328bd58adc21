//! SHA-256 of programs, from the descriptors by which their execs were held.
//!
//! The loop that holds an exec hands a copy of the descriptor to a thread of its own here and goes
//! on; the exec's record names the file by device, inode, size and change time, and finds the hash
//! if it is there by then. No path is used. Hashing is not parsing: no byte is interpreted.
//!
//! INVARIANT: a hash belongs to one state of one file, which was the same before and after it was
//! read. Bounded: [`KEPT`] hashes, [`WAITING`] files to hash; beyond that the oldest go, and new
//! files wait for their next exec.

use std::collections::HashMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sha2::{Digest, Sha256};

use crate::sys::identity::{Facts, Identity};

/// Hashes kept, in two halves of which the older one goes at once.
pub const KEPT: usize = 8192;
/// Files that may wait to be hashed; each holds a descriptor.
const WAITING: usize = 64;
/// Larger programs are not hashed: one would keep all others waiting for a second.
const LARGEST: u64 = 1 << 30;
const CHUNK: usize = 128 << 10;

/// What names one state of a file's content, as an exec record has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct FileState {
    /// Major and minor number.
    pub device: (u32, u32),
    /// Inode number.
    pub inode: u64,
    /// Bytes.
    pub size: u64,
    /// Status change: seconds and nanoseconds.
    pub changed: (i64, u32),
}

impl From<&Identity> for FileState {
    fn from(identity: &Identity) -> Self {
        Self {
            device: identity.device,
            inode: identity.inode,
            size: identity.size,
            changed: identity.changed,
        }
    }
}

/// The hashes; clones share them.
#[derive(Clone)]
pub struct ImageHashes {
    known: Arc<Mutex<Known>>,
    waiting: SyncSender<(OwnedFd, FileState)>,
}

#[derive(Default)]
struct Known {
    newer: HashMap<FileState, [u8; 32]>,
    older: HashMap<FileState, [u8; 32]>,
}

impl ImageHashes {
    /// Starts the thread that hashes. It ends with the last clone.
    ///
    /// # Errors
    /// When the thread cannot be started.
    pub fn start() -> std::io::Result<Self> {
        let known: Arc<Mutex<Known>> = Arc::default();
        let (waiting, next) = sync_channel(WAITING);
        let kept = Arc::clone(&known);
        std::thread::Builder::new()
            .name("image-hashes".to_owned())
            .spawn(move || hash_all(&next, &kept))?;
        Ok(Self { known, waiting })
    }

    /// Hashes this program soon, unless its hash is known. Never blocks.
    pub fn offer(&self, file: BorrowedFd<'_>, identity: &Identity) {
        let state = FileState::from(identity);
        if state.size > LARGEST || lock(&self.known).get(&state).is_some() {
            return;
        }
        if let Ok(file) = file.try_clone_to_owned() {
            // Full: its next exec brings it here again, as long as the kernel asks about it.
            let _ = self.waiting.try_send((file, state));
        }
    }

    /// The hash of a file in this state, if it is known.
    pub fn get(&self, state: &FileState) -> Option<[u8; 32]> {
        lock(&self.known).get(state)
    }
}

impl Known {
    fn get(&self, state: &FileState) -> Option<[u8; 32]> {
        self.newer.get(state).or_else(|| self.older.get(state)).copied()
    }

    fn put(&mut self, state: FileState, hash: [u8; 32]) {
        if self.newer.len() >= KEPT / 2 {
            self.older = std::mem::take(&mut self.newer);
        }
        self.newer.insert(state, hash);
    }
}

fn lock(known: &Mutex<Known>) -> MutexGuard<'_, Known> {
    known.lock().unwrap_or_else(PoisonError::into_inner)
}

fn hash_all(next: &Receiver<(OwnedFd, FileState)>, known: &Mutex<Known>) {
    let mut chunk = Vec::new();
    while let Ok((file, state)) = next.recv() {
        if lock(known).get(&state).is_some() {
            continue;
        }
        chunk.resize(CHUNK, 0);
        if let Some(hash) = hash(file.as_fd(), &state, &mut chunk) {
            lock(known).put(state, hash);
        }
    }
}

/// `None` when it cannot be read, or is not in that state any more.
fn hash(file: BorrowedFd<'_>, state: &FileState, chunk: &mut [u8]) -> Option<[u8; 32]> {
    let mut hasher = Sha256::new();
    let mut at = 0;
    while at < state.size {
        let read = rustix::io::pread(file, &mut *chunk, at).ok()?;
        if read == 0 {
            break;
        }
        hasher.update(&chunk[..read]);
        at += read as u64;
    }
    let now = Facts::of(file).ok()?.identity;
    (FileState::from(&now) == *state && at == state.size).then(|| hasher.finalize().into())
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn a_program_is_hashed_once_for_each_state() {
        let images = ImageHashes::start().expect("thread");
        let mut file = tempfile::NamedTempFile::new().expect("file");
        file.write_all(b"abc").expect("write");
        let facts = Facts::of(file.as_file().as_fd()).expect("facts");
        images.offer(file.as_file().as_fd(), &facts.identity);
        let state = FileState::from(&facts.identity);
        let end = Instant::now() + Duration::from_secs(10);
        let hash = loop {
            if let Some(hash) = images.get(&state) {
                break hash;
            }
            assert!(Instant::now() < end, "not hashed");
            std::thread::yield_now();
        };
        assert_eq!(hash[..4], [0xba, 0x78, 0x16, 0xbf]);
        assert!(images.get(&FileState { size: 4, ..state }).is_none());
    }

    #[test]
    fn a_file_that_changed_before_it_was_read_has_no_hash() {
        let mut file = tempfile::NamedTempFile::new().expect("file");
        file.write_all(b"abc").expect("write");
        let facts = Facts::of(file.as_file().as_fd()).expect("facts");
        file.write_all(b"def").expect("write");
        let state = FileState::from(&facts.identity);
        assert!(hash(file.as_file().as_fd(), &state, &mut [0; 16]).is_none());
    }

    #[test]
    fn memory_is_bounded_and_the_newest_stay() {
        let mut known = Known::default();
        let state = |inode| FileState { device: (8, 1), inode, size: 1, changed: (1, 1) };
        for inode in 0..3 * KEPT as u64 {
            known.put(state(inode), [7; 32]);
        }
        assert!(known.newer.len() + known.older.len() <= KEPT);
        assert!(known.get(&state(3 * KEPT as u64 - 1)).is_some());
        assert!(known.get(&state(0)).is_none());
    }
}
