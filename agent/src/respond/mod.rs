//! What follows a detection: look the opener up while it is still held, answer, quarantine,
//! report.
//!
//! Three threads, one duty each, so that no wait of one delays another: [`attribute`] looks
//! openers up, [`act`] seals files, [`failures`] puts equal failures together. None of them
//! answers a held open: the permission loop does, when it is told, and at the deadline anyway.
//! All queues are bounded; the permission loop never waits for any of them. [`model`] is the fourth:
//! it carries out what follows a detection model ([`tree`], [`denied`]). [`denials`] are orders. What a killed agent sealed and
//! did not tell, the next one tells ([`untold`]).

mod act;
mod allowed;
mod attribute;
mod denials;
mod denied;
mod failures;
mod model;
mod tree;
mod untold;

use std::os::fd::OwnedFd;
use std::sync::{Arc, mpsc};

use holdfast_common::verdict::{Decision, FailureReason, Hashes, ScanType, Signature};

pub use self::act::{Judged, Respond, malware_event};
pub use self::allowed::{AllowList, AllowListError};
pub(crate) use self::attribute::path_of;
pub use self::denials::{Essentials, Order, Orders, file_at};
pub use self::denied::{Denied, DenyList, DenyListError};
pub use self::model::{Act, ModelResponder, Needs as ModelNeeds};
pub use self::tree::kill;
pub use self::untold::{UntoldError, tell_untold};

use crate::journal::Journal;
use crate::prove::Witness;
use crate::quarantine::Vault;
use crate::sensor::ProcessTable;
use crate::sys::descriptors::share;
use crate::sys::identity::Facts;

/// A malicious file.
#[derive(Debug)]
pub struct Found {
    /// Who opened, ran or closed it.
    pub pid: u32,
    /// When that process was seen: one with this pid that began later is another.
    pub seen: BootTime,
    /// Whom to tell that the opener has been looked up, if one is held for that.
    pub answer_to: Option<LookedUp>,
    /// The file.
    pub file: OwnedFd,
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

/// Tells the loop that holds an opener that it may go.
pub struct LookedUp(pub Box<dyn FnOnce() + Send>);

impl std::fmt::Debug for LookedUp {
    fn fmt(&self, to: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        to.write_str("LookedUp")
    }
}

/// Nanoseconds since boot, sleep included: the clock of process start times.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct BootTime(pub u64);

impl BootTime {
    /// Now.
    #[must_use]
    pub fn now() -> Self {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        let nanoseconds = now.tv_sec.saturating_mul(1_000_000_000).saturating_add(now.tv_nsec);
        Self(nanoseconds.unsigned_abs())
    }
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
    /// Knows the prover's markers.
    pub witness: Arc<Witness>,
}

impl Responder {
    /// Begins the threads; they end when the last handle is dropped.
    ///
    /// # Errors
    /// When a thread cannot be started.
    pub fn start(needs: &Needs) -> std::io::Result<Self> {
        // Each holds a descriptor, and the first somebody who waits.
        let (found, found_end) = mpsc::sync_channel(share(64));
        let (failed, failed_end) = mpsc::sync_channel(share(32));
        let (judged, judged_end) = mpsc::sync_channel(share(32));
        let attribution = attribute::Attribution::new(needs, judged)?;
        thread("attribute", move || attribution.run(&found_end))?;
        let respond = {
            let (vault, witness) = (Arc::clone(&needs.vault), Arc::clone(&needs.witness));
            Respond::new(needs.journal.clone(), vault, witness)
        };
        thread("respond", move || respond.run(&judged_end))?;
        let journal = needs.journal.clone();
        thread("failures", move || failures::run(&journal, &failed_end))?;
        Ok(Self { found, failed })
    }

    /// Hands a detection over.
    ///
    /// # Errors
    /// Gives it back when too many wait.
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
