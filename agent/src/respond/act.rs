//! Acts on a malicious file: seals it into quarantine and writes the event.
//!
//! The same path serves held opens, closed files, rescans and `holdfast scan`.

use std::collections::HashMap;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::{Duration, Instant};

use holdfast_common::event::{EventBody, FileFacts, MalwareDetection};
use holdfast_common::process::{ProcessInfo, printable};
use holdfast_common::scans::LateFind;
use holdfast_common::verdict::{Decision, Disposition, Hashes, ScanType, Signature};
use uuid::Uuid;

use crate::journal::Journal;
use crate::prove::{self, Witness};
use crate::quarantine::{Removal, Sealing, Vault};
use crate::sys::identity::{Facts, Identity};

/// A file that was sealed a moment ago is not sealed again for each of its other openers.
const RECENT: Duration = Duration::from_secs(60);

/// Files remembered as sealed.
const MOST_RECENT: usize = 1024;

/// A malicious file, answered and attributed.
#[derive(Debug)]
pub struct Judged {
    /// Open for reading.
    pub file: OwnedFd,
    /// As the kernel names it.
    pub path: PathBuf,
    /// Before the scan.
    pub facts: Facts,
    /// What matched.
    pub signature: Signature,
    /// Of the scanned content.
    pub hashes: Hashes,
    /// What brought it to the scan core.
    pub scan_type: ScanType,
    /// The reply, if somebody was held.
    pub decision: Option<Decision>,
    /// Quarantine it.
    pub quarantine: bool,
    /// Who opened, ran or closed it.
    pub process: Option<ProcessInfo>,
    /// Its ancestors.
    pub parents: Vec<ProcessInfo>,
    /// How long it had lain there, where a scan found it.
    pub late: Option<LateFind>,
}

/// Seals and reports.
pub struct Respond {
    journal: Journal,
    vault: Arc<Vault>,
    witness: Arc<Witness>,
    recent: Mutex<HashMap<Inode, Recent>>,
}

/// Device, inode, birth: what stays the same while a file is moved and unlinked. It cannot be
/// another file's as long as a descriptor holds this one.
type Inode = ((u32, u32), u64, (i64, u32));

fn inode_of(identity: &Identity) -> Inode {
    (identity.device, identity.inode, identity.born)
}

/// A file sealed a moment ago.
#[derive(Clone)]
struct Recent {
    item: Uuid,
    /// Where it was: its openers' descriptors name the place where it is destroyed.
    path: PathBuf,
    at: Instant,
}

/// What became of the file.
struct Fate {
    disposition: Disposition,
    item: Option<Uuid>,
    reason: Option<String>,
}

impl Respond {
    /// Nothing runs yet.
    #[must_use]
    pub fn new(journal: Journal, vault: Arc<Vault>, witness: Arc<Witness>) -> Self {
        Self { journal, vault, witness, recent: Mutex::default() }
    }

    pub(super) fn run(&self, judged: &mpsc::Receiver<Judged>) {
        while let Ok(judged) = judged.recv() {
            // Two ways led to one file, and nobody waited on this one.
            let known = judged.decision.is_none()
                && judged.quarantine
                && self.sealed_lately(&judged).is_some();
            if !known {
                self.act(judged);
            }
        }
    }

    /// Seals the file if it is to be sealed, and writes the event, which is returned; `None` for
    /// the prover's own marker, of which the prover alone is told.
    pub fn act(&self, mut judged: Judged) -> Option<MalwareDetection> {
        let marker = self.witness.is_marker(&judged.hashes.sha256);
        judged.quarantine &= marker != Some(false);
        let fate = if judged.quarantine {
            self.seal(&mut judged)
        } else {
            let disposition = match judged.decision {
                Some(Decision::Deny) => Disposition::Blocked,
                Some(Decision::Allow) | None => Disposition::Allowed,
            };
            Fate { disposition, item: None, reason: None }
        };
        if marker.is_some() {
            let told = prove::Fate {
                signature: judged.signature,
                disposition: fate.disposition,
                item: fate.item,
                reason: fate.reason,
            };
            self.witness.tell_fate(&judged.hashes.sha256, told);
            return None;
        }
        let detection = malware_event(judged, fate.disposition, fate.item, fate.reason);
        tracing::warn!(
            path = detection.path,
            signature = detection.signature.name,
            disposition = ?detection.disposition,
            "malicious file"
        );
        self.journal.record(EventBody::Malware(Box::new(detection.clone())));
        Some(detection)
    }

    fn seal(&self, judged: &mut Judged) -> Fate {
        if let Some(Recent { item, path, .. }) = self.sealed_lately(judged) {
            judged.path = path;
            return Fate { disposition: Disposition::Quarantined, item: Some(item), reason: None };
        }
        let sealing = Sealing {
            path: judged.path.clone(),
            signature: judged.signature.clone(),
            scan_type: judged.scan_type,
            process: judged.process.clone(),
            sha256: Some(judged.hashes.sha256.clone()).filter(|hash| !hash.is_empty()),
        };
        match self.vault.seal(judged.file.as_fd(), &sealing) {
            Ok(sealed) => {
                let (disposition, reason) = match sealed.removal {
                    Removal::Removed => (Disposition::Quarantined, None),
                    Removal::Vanished => (Disposition::Vanished, None),
                    Removal::StillThere(why) => (Disposition::Blocked, Some(why)),
                };
                if disposition == Disposition::Quarantined {
                    self.note_sealed(
                        inode_of(&judged.facts.identity),
                        sealed.id,
                        judged.path.clone(),
                    );
                }
                let item = (disposition != Disposition::Blocked).then_some(sealed.id);
                Fate { disposition, item, reason: reason.or(sealed.note) }
            }
            Err(error) => {
                let reason = crate::error_chain(&error);
                tracing::error!(reason, "quarantine failed; the file stays and is denied");
                Fate { disposition: Disposition::Blocked, item: None, reason: Some(reason) }
            }
        }
    }

    /// The item of a file that has no name left and was sealed a moment ago.
    fn sealed_lately(&self, judged: &Judged) -> Option<Recent> {
        let now = Facts::of(judged.file.as_fd()).ok()?;
        if now.links != 0 {
            return None;
        }
        let recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        let known = recent.get(&inode_of(&now.identity))?;
        (known.at.elapsed() < RECENT).then(|| known.clone())
    }

    fn note_sealed(&self, inode: Inode, item: Uuid, path: PathBuf) {
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        if recent.len() >= MOST_RECENT {
            recent.retain(|_, known| known.at.elapsed() < RECENT);
        }
        if recent.len() < MOST_RECENT {
            recent.insert(inode, Recent { item, path, at: Instant::now() });
        }
    }
}

/// The event of a malicious file.
#[must_use]
pub fn malware_event(
    judged: Judged,
    disposition: Disposition,
    quarantine_id: Option<Uuid>,
    reason: Option<String>,
) -> MalwareDetection {
    MalwareDetection {
        path: printable(judged.path.as_os_str().as_bytes()),
        file: file_facts(&judged.facts),
        hashes: judged.hashes,
        signature: judged.signature,
        scan_type: judged.scan_type,
        process: judged.process,
        parents: judged.parents,
        decision: judged.decision,
        disposition,
        quarantine_id,
        reason,
        late: judged.late.map(Box::new),
    }
}

fn file_facts(facts: &Facts) -> FileFacts {
    let milliseconds = |(seconds, nanoseconds): (i64, u32)| {
        seconds.saturating_mul(1000).saturating_add(i64::from(nanoseconds / 1_000_000))
    };
    FileFacts {
        size: facts.identity.size,
        device: format!("{}:{}", facts.identity.device.0, facts.identity.device.1),
        inode: facts.identity.inode,
        uid: facts.uid,
        gid: facts.gid,
        mode: u32::from(facts.mode),
        modified_ms: milliseconds(facts.modified),
        changed_ms: milliseconds(facts.identity.changed),
    }
}
