//! What follows a detection: look the opener up while it is still held, answer, quarantine,
//! report.
//!
//! Three threads, one duty each, so that no wait of one delays another: [`attribute`] answers
//! held opens within milliseconds, [`act`] seals files, [`failures`] puts equal failures
//! together. All queues are bounded; the permission loop never waits for any of them.

mod act;
mod allowed;
mod attribute;
mod failures;

use std::os::fd::OwnedFd;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use holdfast_common::verdict::{Decision, FailureReason, Hashes, ScanType, Signature};

pub use self::act::{Judged, Respond, malware_event};
pub use self::allowed::{AllowList, AllowListError};

use crate::journal::Journal;
use crate::on_access::Counters;
use crate::quarantine::Vault;
use crate::sensor::ProcessTable;
use crate::sys::fanotify::Pending;
use crate::sys::identity::Facts;

/// Detections that may wait for their opener to be looked up. Each holds somebody.
const FOUND_QUEUE: usize = 256;

/// Failures that may wait to be put together; more are counted in the counters alone.
const FAILED_QUEUE: usize = 1024;

/// A malicious file.
#[derive(Debug)]
pub struct Found {
    /// Who opened, ran or closed it.
    pub pid: u32,
    /// Since when it is held.
    pub since: Option<Instant>,
    /// The file.
    pub held: Held,
    /// The file before the scan.
    pub facts: Facts,
    /// What matched.
    pub signature: Signature,
    /// Of the scanned content.
    pub hashes: Hashes,
    /// What brought it to the scan core.
    pub scan_type: ScanType,
    /// The reply, given or to be given.
    pub decision: Option<Decision>,
    /// Quarantine it.
    pub quarantine: bool,
}

/// A file that is still open.
#[derive(Debug)]
pub enum Held {
    /// Somebody waits for the reply.
    Waiting(Pending),
    /// Nobody does.
    Answered(OwnedFd),
}

/// A file without a verdict.
#[derive(Debug)]
pub struct Failed {
    /// Which row of the failure table.
    pub reason: FailureReason,
    /// What it said.
    pub decision: Option<Decision>,
    /// The file, for its name.
    pub file: Option<OwnedFd>,
    /// Who opened it, 0 when unknown.
    pub pid: u32,
    /// It is scanned again.
    pub rescan: bool,
}

/// Takes detections and failures; never blocks.
#[derive(Debug, Clone)]
pub struct Responder {
    found: mpsc::SyncSender<Found>,
    failed: mpsc::SyncSender<Failed>,
}

/// What the responder needs from the rest of the agent.
#[derive(Clone)]
pub struct Needs {
    /// Where events stay.
    pub journal: Journal,
    /// Where files go.
    pub vault: Arc<Vault>,
    /// Who is who.
    pub table: Arc<ProcessTable>,
    /// Counts answers.
    pub counters: Arc<Counters>,
    /// The deadline of held opens.
    pub deadline: Duration,
}

impl Responder {
    /// Begins the threads; they end when the last handle is dropped.
    ///
    /// # Errors
    /// When a thread cannot be started.
    pub fn start(needs: &Needs) -> std::io::Result<Self> {
        let (found, found_end) = mpsc::sync_channel(FOUND_QUEUE);
        let (failed, failed_end) = mpsc::sync_channel(FAILED_QUEUE);
        let (judged, judged_end) = mpsc::sync_channel(FOUND_QUEUE * 4);
        let attribution = attribute::Attribution::new(needs, judged)?;
        thread("attribute", move || attribution.run(&found_end))?;
        let respond = Respond::new(needs.journal.clone(), Arc::clone(&needs.vault));
        thread("respond", move || respond.run(&judged_end))?;
        let journal = needs.journal.clone();
        thread("failures", move || failures::run(&journal, &failed_end))?;
        Ok(Self { found, failed })
    }

    /// Hands a detection over.
    ///
    /// # Errors
    /// Gives it back when too many wait: whoever is held must be answered by the caller.
    pub fn found(&self, found: Found) -> Result<(), Box<Found>> {
        self.found.try_send(found).map_err(|error| match error {
            mpsc::TrySendError::Full(found) | mpsc::TrySendError::Disconnected(found) => {
                Box::new(found)
            }
        })
    }

    /// Reports a failure. Beyond the queue's bound only the counters know it.
    pub fn failed(&self, failed: Failed) {
        // Counted by the caller already; the event is the lesser loss.
        let _ = self.failed.try_send(failed);
    }
}

fn thread(name: &str, body: impl FnOnce() + Send + 'static) -> std::io::Result<()> {
    std::thread::Builder::new().name(name.to_owned()).spawn(body).map(drop)
}
