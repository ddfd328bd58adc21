//! Detections that a killed agent sealed and did not live to tell: their items tell them.
//!
//! A file is sealed first and told of then, so that its event can say what became of it; and an
//! event that is recorded is on disk a moment later. Who kills the agent in between takes the event
//! with it, never the file. INVARIANT: what is told here is on disk before the start of this agent
//! is, by which the next one knows how far back to look.

use std::collections::HashSet;

use holdfast_common::container::Metadata;
use holdfast_common::event::{EventBody, MalwareDetection};
use holdfast_common::verdict::{Disposition, Engine};

use crate::journal::{Filter, Journal, JournalError};
use crate::quarantine::{Vault, VaultError};
use crate::worker::marker;

/// How long before an agent's first event its first item may have been sealed, and how far a
/// clock may have been set back meanwhile, milliseconds.
const MARGIN_MS: i64 = 10 * 60_000;

const REASON: &str = "told late: the agent was ended before it could tell";

/// What was sealed and what was told could not be compared.
#[derive(Debug, thiserror::Error)]
pub enum UntoldError {
    /// The journal was not read.
    #[error("look for what was told")]
    Journal(#[from] JournalError),
    /// The quarantine was not read.
    #[error("look for what was sealed")]
    Vault(#[from] VaultError),
}

/// Tells what was sealed since the last agent's start and has no event; how many. Only after an
/// agent that did not end in order, and before this one seals anything.
///
/// # Errors
/// When journal or quarantine cannot be read.
pub fn tell_untold(journal: &Journal, vault: &Vault) -> Result<usize, UntoldError> {
    let Some(since_ms) = last_start(journal)?.map(|start| start.saturating_sub(MARGIN_MS)) else {
        // No agent wrote this journal: the items are older than it is.
        return Ok(0);
    };
    let filter = Filter {
        since_ms: Some(since_ms.saturating_sub(MARGIN_MS)),
        kind: Some("malware".to_owned()),
        ..Filter::default()
    };
    let mut told = HashSet::new();
    journal.each(&filter, &mut |event| {
        if let EventBody::Malware(found) = event.body {
            told.extend(found.quarantine_id);
        }
        true
    })?;
    let mut count = 0;
    for item in vault.sealed_since(since_ms)? {
        let is_own =
            item.signature.engine == Engine::SelfProof || item.signature.name == marker::NAME;
        if is_own || item.damaged.is_some() || told.contains(&item.id) {
            continue;
        }
        tracing::warn!(item = %item.id, path = item.path, "{REASON}");
        journal.record(EventBody::Malware(Box::new(detection(item))));
        count += 1;
    }
    Ok(count)
}

fn last_start(journal: &Journal) -> Result<Option<i64>, JournalError> {
    let kind = Some("agent_started".to_owned());
    let newest = journal.query(&Filter { kind, limit: 1, ..Filter::default() })?;
    Ok(newest.first().map(|event| event.time_ms))
}

fn detection(item: Metadata) -> MalwareDetection {
    MalwareDetection {
        path: item.path,
        file: item.file,
        hashes: item.hashes,
        signature: item.signature,
        scan_type: item.scan_type,
        process: item.process,
        parents: Vec::new(),
        // Whether somebody was held, and how it was answered, went with the agent.
        decision: None,
        disposition: Disposition::Quarantined,
        quarantine_id: Some(item.id),
        reason: Some(REASON.to_owned()),
        late: None,
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;
    use std::path::Path;

    use holdfast_common::event::AgentStarted;
    use holdfast_common::verdict::{ScanType, Signature};

    use super::*;
    use crate::quarantine::Sealing;

    fn sealed(vault: &Vault, folder: &Path, name: &str, signature: &str) -> uuid::Uuid {
        let path = folder.join(name);
        std::fs::write(&path, name).expect("write");
        let file = std::fs::File::open(&path).expect("open");
        let name = signature.to_owned();
        let sealing = Sealing {
            path,
            signature: Signature { name, engine: Engine::Yara },
            scan_type: ScanType::OnOpen,
            process: None,
            sha256: None,
        };
        vault.seal(file.as_fd(), &sealing).expect("sealed").id
    }

    fn malware(journal: &Journal) -> Vec<MalwareDetection> {
        assert!(journal.flush());
        let kind = Some("malware".to_owned());
        let events = journal.query(&Filter { kind, ..Filter::default() }).expect("query");
        let found = events.into_iter().map(|event| match event.body {
            EventBody::Malware(found) => *found,
            other => panic!("{other:?}"),
        });
        found.collect()
    }

    #[test]
    fn what_was_sealed_and_not_told_is_told_once() {
        let folder = tempfile::tempdir().expect("folder");
        let state = folder.path().join("state");
        std::fs::create_dir(&state).expect("state");
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o700);
        std::fs::set_permissions(&state, mode).expect("chmod");
        let config = crate::config::Journal::default();
        let journal = Journal::open(&state, "host".to_owned(), &config).expect("journal");
        let vault = Vault::open(&state, 1 << 20).expect("vault");
        sealed(&vault, folder.path(), "older", "Evil");
        assert_eq!(tell_untold(&journal, &vault).expect("told"), 0, "no agent wrote this journal");
        journal.record(EventBody::AgentStarted(AgentStarted {
            version: String::new(),
            kernel: String::new(),
            mode: "block".to_owned(),
        }));
        assert!(journal.flush());
        let told = sealed(&vault, folder.path(), "told", "Evil");
        let metadata = vault.show(told).expect("item");
        journal.record(EventBody::Malware(Box::new(detection(metadata))));
        let untold = sealed(&vault, folder.path(), "untold", "Evil");
        sealed(&vault, folder.path(), "marker", marker::NAME);
        assert!(journal.flush());
        // The older one lies within the margin: better told late than never.
        assert_eq!(tell_untold(&journal, &vault).expect("told"), 2);
        let found = malware(&journal);
        let late = found.iter().find(|one| one.quarantine_id == Some(untold)).expect("told");
        assert_eq!(late.reason.as_deref(), Some(REASON));
        assert!(late.path.ends_with("/untold") && late.file.size == 6);
        assert_eq!(tell_untold(&journal, &vault).expect("told"), 0);
        assert_eq!(malware(&journal).len(), 3);
    }
}
