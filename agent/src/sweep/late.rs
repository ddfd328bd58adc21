//! How long a file had lain there when a scan found it.
//!
//! The status change time decides: writing, renaming, linking and changing owner or mode all move
//! it, and no call sets it, so nothing of the file has changed since. Birth tells when the file was
//! made here, but not when it got this content; the modification time is whatever its owner says.
//! None of them withstands who sets the clock or writes to the disk itself, which is root.

use holdfast_common::scans::{FileTime, LateFind};

use crate::sys::identity::Facts;

/// Without the rule's origin.
pub(super) fn late_find(facts: &Facts, now_ms: i64) -> LateFind {
    let milliseconds = |(seconds, nanoseconds): (i64, u32)| {
        seconds.saturating_mul(1000).saturating_add(i64::from(nanoseconds / 1_000_000))
    };
    let credible = |time_ms: i64| time_ms > 0 && time_ms <= now_ms;
    let born_ms = Some(milliseconds(facts.identity.born)).filter(|born| *born > 0);
    let changed_ms = milliseconds(facts.identity.changed);
    let (since_ms, by) = if credible(changed_ms) {
        (changed_ms, FileTime::Ctime)
    } else if let Some(born_ms) = born_ms.filter(|born| credible(*born)) {
        (born_ms, FileTime::Btime)
    } else {
        (milliseconds(facts.modified), FileTime::Mtime)
    };
    let lain_s = now_ms.saturating_sub(since_ms).max(0).unsigned_abs() / 1000;
    LateFind { since_ms, by, lain_s, born_ms, rule: None }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::fd::AsFd;
    use std::time::{Duration, SystemTime};

    use super::*;

    #[test]
    fn a_forged_modification_time_moves_nothing() {
        let file = tempfile::NamedTempFile::new().expect("file");
        let years = SystemTime::now() - Duration::from_secs(4 * 365 * 86_400);
        file.as_file().set_modified(years).expect("utimes");
        let facts = Facts::of(File::open(file.path()).expect("open").as_fd()).expect("statx");
        let now = crate::now_ms();
        let late = late_find(&facts, now);
        assert_eq!(late.by, FileTime::Ctime);
        assert!(late.lain_s < 3600, "{late:?}");
        let later = late_find(&facts, now + 4 * 365 * 86_400_000);
        assert!(later.lain_s >= 4 * 365 * 86_400 - 3600);
        // A clock that was set back: the change lies in the future.
        let earlier = late_find(&facts, now - 86_400_000);
        assert_eq!((earlier.by, earlier.lain_s / 86_400), (FileTime::Mtime, 4 * 365 - 1));
    }
}
