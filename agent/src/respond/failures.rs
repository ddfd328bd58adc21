//! Puts equal failures together: one event a second for each reason, decision and opener.

use std::collections::BTreeMap;
use std::os::unix::ffi::OsStrExt;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use holdfast_common::event::{EventBody, ScanFailure};
use holdfast_common::process::printable;
use holdfast_common::verdict::{Decision, FailureReason};

use crate::journal::Journal;
use crate::respond::Failed;
use crate::respond::attribute::path_of;

const TOGETHER: Duration = Duration::from_secs(1);

/// Different openers that one second can tell apart; the rest is put together under pid 0.
const MOST_KINDS: usize = 64;

type Kind = (FailureReason, bool, u32);

pub(super) fn run(journal: &Journal, failed: &mpsc::Receiver<Failed>) {
    while let Ok(first) = failed.recv() {
        let mut kinds: BTreeMap<Kind, ScanFailure> = BTreeMap::new();
        add(&mut kinds, first);
        let until = Instant::now() + TOGETHER;
        while let Ok(next) = failed.recv_timeout(until.saturating_duration_since(Instant::now())) {
            add(&mut kinds, next);
        }
        for (_, failure) in kinds {
            tracing::warn!(
                reason = failure.reason.name(),
                count = failure.count,
                path = failure.path,
                "answered without a verdict"
            );
            journal.record(EventBody::Failure(Box::new(failure)));
        }
    }
}

fn add(kinds: &mut BTreeMap<Kind, ScanFailure>, failed: Failed) {
    let denied = failed.decision == Some(Decision::Deny);
    let mut kind = (failed.reason, denied, failed.pid);
    if kinds.len() >= MOST_KINDS && !kinds.contains_key(&kind) {
        kind.2 = 0;
    }
    let failure = kinds.entry(kind).or_insert_with(|| ScanFailure {
        reason: failed.reason,
        decision: failed.decision,
        path: failed
            .file
            .as_ref()
            .map(|file| printable(path_of(file).as_os_str().as_bytes()))
            .unwrap_or_default(),
        pid: kind.2,
        count: 0,
        rescan: failed.rescan,
    });
    failure.count += 1;
}
