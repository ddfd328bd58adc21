//! Mass rewriting: one process turns many files that were there before into noise, as ransomware
//! does.
//!
//! Counted is a file on a protected file system that a writer has closed, that was made more than
//! [`WINDOW`] ago, and whose beginning is noise: so neither an untar nor a checkout nor a build
//! counts, which write new files or plain ones. Told is the [`FIRST`] such file of a process
//! within [`WINDOW`], and each doubling. Not seen: an encryptor that writes new files and removes
//! the old ones, one process a file, content that is noise only further behind, or encoded.
//! Bounded; only bytes are counted, none interpreted.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant, SystemTime};

use crate::sys::identity::Facts;

/// How long a file counts, and how old it must have been.
pub const WINDOW: Duration = Duration::from_secs(10);
/// Files after which a process is told of for the first time.
pub const FIRST: u64 = 50;
/// Processes that are counted at once.
const MOST_PROCESSES: usize = 1024;
/// Files that are remembered of one process.
const MOST_FILES: usize = 8192;
/// Bytes of a file that are looked at.
pub(super) const SAMPLE: usize = 4096;
/// Less cannot be told from text.
const LEAST: usize = 256;

/// A process rewrites many files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MassRewrite {
    /// Its pid.
    pub pid: u32,
    /// Files within [`WINDOW`].
    pub count: u64,
}

/// Files of a process: when, and which.
struct Recent {
    files: VecDeque<(Instant, InodeKey)>,
    next: u64,
}

type InodeKey = ((u32, u32), u64);

/// Who rewrote what lately.
#[derive(Default)]
pub(super) struct Rewrites {
    processes: HashMap<u32, Recent>,
}

impl Rewrites {
    /// A file that counts was closed by this process.
    pub(super) fn add(&mut self, pid: u32, facts: &Facts, now: Instant) -> Option<MassRewrite> {
        let key = (facts.identity.device, facts.identity.inode);
        if self.processes.len() >= MOST_PROCESSES && !self.processes.contains_key(&pid) {
            self.processes.retain(|_, recent| recent.is_fresh(now));
            if self.processes.len() >= MOST_PROCESSES {
                return None;
            }
        }
        let recent = self
            .processes
            .entry(pid)
            .or_insert_with(|| Recent { files: VecDeque::new(), next: FIRST });
        while recent.files.front().is_some_and(|(at, _)| now.duration_since(*at) > WINDOW) {
            recent.files.pop_front();
        }
        if recent.files.is_empty() {
            recent.next = FIRST;
        }
        if recent.files.len() < MOST_FILES && !recent.files.iter().any(|(_, known)| *known == key) {
            recent.files.push_back((now, key));
        }
        let count = recent.files.len() as u64;
        if count < recent.next {
            return None;
        }
        recent.next = count * 2;
        Some(MassRewrite { pid, count })
    }
}

impl Recent {
    fn is_fresh(&self, now: Instant) -> bool {
        self.files.back().is_some_and(|(at, _)| now.duration_since(*at) <= WINDOW)
    }
}

/// True for a file that was there before the window. A file system that does not tell when a file
/// was made (birth time) has none.
pub(super) fn was_there(facts: &Facts, now: SystemTime) -> bool {
    let (seconds, nanoseconds) = facts.identity.born;
    let born = u64::try_from(seconds).ok().filter(|seconds| *seconds > 0);
    let born = born.map(|seconds| SystemTime::UNIX_EPOCH + Duration::new(seconds, nanoseconds));
    facts.regular && born.is_some_and(|born| now.duration_since(born).is_ok_and(|age| age > WINDOW))
}

/// True for bytes that look drawn at random: their entropy is about what so many random bytes
/// have (Miller and Madow's estimate). Text stays far below, machine code too.
pub(super) fn is_noise(bytes: &[u8]) -> bool {
    if bytes.len() < LEAST {
        return false;
    }
    let mut counts = [0_u32; 256];
    for byte in bytes {
        counts[usize::from(*byte)] += 1;
    }
    let length = bytes.len() as f64;
    let entropy: f64 = counts
        .iter()
        .filter(|count| **count > 0)
        .map(|count| f64::from(*count) / length)
        .map(|share| -share * share.log2())
        .sum();
    let random = 8.0 - 255.0 / (2.0 * length * std::f64::consts::LN_2);
    entropy > random - 0.35
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::identity::Identity;

    fn facts(inode: u64, born: i64) -> Facts {
        Facts {
            identity: Identity { device: (8, 1), inode, size: 9, changed: (0, 0), born: (born, 0) },
            regular: true,
            uid: 0,
            gid: 0,
            mode: 0o644,
            links: 1,
            modified: (0, 0),
            mount: 0,
        }
    }

    /// xorshift64: noise without a crate.
    fn noise(length: usize) -> Vec<u8> {
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 32) as u8
        };
        (0..length).map(|_| next()).collect()
    }

    #[test]
    fn noise_is_told_from_text_programs_and_base64() {
        for length in [256, 512, 1024, SAMPLE] {
            assert!(is_noise(&noise(length)), "{length}");
        }
        assert!(!is_noise(&noise(255)), "too short to be judged");
        let text = include_bytes!("rewrites.rs");
        assert!(!is_noise(&text[..SAMPLE]) && !is_noise(&text[..300]));
        let program = std::fs::read("/proc/self/exe").expect("own program");
        for chunk in program.chunks(SAMPLE).step_by(997).take(50) {
            assert!(!is_noise(chunk));
        }
        let base64: Vec<u8> = noise(SAMPLE).iter().map(|byte| b'0' + byte % 64).collect();
        assert!(!is_noise(&base64));
    }

    #[test]
    fn fifty_files_in_ten_seconds_are_told_and_then_each_doubling() {
        let start = Instant::now();
        let mut rewrites = Rewrites::default();
        let mut add = |inode, seconds| {
            rewrites.add(7, &facts(inode, 1), start + Duration::from_secs(seconds))
        };
        for inode in 0..49 {
            assert_eq!(add(inode, 0), None);
            assert_eq!(add(inode, 0), None, "the same file");
        }
        assert_eq!(add(49, 1), Some(MassRewrite { pid: 7, count: 50 }));
        for inode in 50..99 {
            assert_eq!(add(inode, 2), None);
        }
        assert_eq!(add(99, 3).map(|mass| mass.count), Some(100));
        assert_eq!(add(100, 60), None, "all over");
        let slow = (0..200).filter_map(|at| add(1000 + at, 100 + at)).count();
        assert_eq!(slow, 0, "one a second is not mass");
    }

    #[test]
    fn only_files_that_were_there_count() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1000);
        assert!(was_there(&facts(1, 989), now));
        assert!(!was_there(&facts(1, 991), now), "just made");
        assert!(!was_there(&facts(1, 0), now), "nobody knows");
        assert!(!was_there(&facts(1, 2000), now), "made in the future");
    }

    #[test]
    fn the_memory_is_bounded() {
        let now = Instant::now();
        let mut rewrites = Rewrites::default();
        for pid in 0..5000 {
            rewrites.add(pid, &facts(1, 1), now);
        }
        assert!(rewrites.processes.len() <= MOST_PROCESSES);
        let after = now + WINDOW * 2;
        rewrites.add(9999, &facts(1, 1), after);
        assert_eq!(rewrites.processes.len(), 1);
    }
}
