//! Content that a model's response denied: programs that may not be opened or run any more.
//!
//! The list becomes one more hash list of the rule bundle ([`DenyList::lines`]), so that denied
//! content is judged, denied and quarantined as all malicious content is, and `holdfast
//! quarantine restore --allow` takes it back. One JSON file, written whole.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

/// Entries that are kept; beyond it the oldest goes.
const MOST: usize = 10_000;

/// One denied content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Denied {
    /// SHA-256 in hex.
    pub sha256: String,
    /// Where it lay.
    pub path: String,
    /// The model whose response it was.
    pub model: String,
    /// When, milliseconds since the epoch.
    pub since_ms: i64,
}

/// The list.
#[derive(Debug)]
pub struct DenyList {
    file: PathBuf,
    entries: Mutex<Vec<Denied>>,
}

/// Why the list could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum DenyListError {
    /// A system call failed.
    #[error("cannot {action} {path}")]
    Io {
        /// read, write.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// What stands there is no list.
    #[error("{path}: not a list of denied content")]
    Parse {
        /// The file.
        path: PathBuf,
        /// Line and column.
        #[source]
        source: serde_json::Error,
    },
}

impl DenyList {
    /// Reads the list; a missing file is an empty one.
    ///
    /// # Errors
    /// [`DenyListError`] when there is a file that cannot be understood: nothing is changed.
    pub fn open(state_dir: &Path) -> Result<Self, DenyListError> {
        let file = state_dir.join("denied.json");
        let entries = match std::fs::read(&file) {
            Ok(text) => serde_json::from_slice(&text)
                .map_err(|source| DenyListError::Parse { path: file.clone(), source })?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
            Err(source) => return Err(DenyListError::Io { action: "read", path: file, source }),
        };
        Ok(Self { file, entries: Mutex::new(entries) })
    }

    /// Adds one; it is on disk when this returns. False when it is there already.
    ///
    /// # Errors
    /// [`DenyListError::Io`]; the list stays as it was.
    pub fn add(&self, new: Denied) -> Result<bool, DenyListError> {
        let mut entries = self.entries();
        if entries.iter().any(|one| one.sha256 == new.sha256) {
            return Ok(false);
        }
        let mut next = entries.clone();
        next.push(new);
        let over = next.len().saturating_sub(MOST);
        next.drain(..over);
        self.write(&next).map_err(|source| DenyListError::Io {
            action: "write",
            path: self.file.clone(),
            source,
        })?;
        *entries = next;
        Ok(true)
    }

    /// As a hash list: a SHA-256 and a name on each line.
    #[must_use]
    pub fn lines(&self) -> String {
        let line = |one: &Denied| {
            let name: String =
                one.model.chars().map(|c| if c.is_alphanumeric() { c } else { '_' }).collect();
            format!("{} Holdfast.Denied.{name}\n", one.sha256)
        };
        self.entries().iter().map(line).collect()
    }

    fn write(&self, entries: &[Denied]) -> std::io::Result<()> {
        crate::durable::replace(&self.file, &[&serde_json::to_vec_pretty(entries)?])
    }

    fn entries(&self) -> MutexGuard<'_, Vec<Denied>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_denied_is_denied_after_a_restart_and_stands_once() {
        let folder = tempfile::tempdir().expect("folder");
        let list = DenyList::open(folder.path()).expect("empty");
        let denied = Denied {
            sha256: "ab".repeat(32),
            path: "/tmp/x".to_owned(),
            model: "Data Encrypted for Impact".to_owned(),
            since_ms: 1,
        };
        assert!(list.add(denied.clone()).expect("add"));
        assert!(!list.add(denied).expect("again"));
        let list = DenyList::open(folder.path()).expect("again");
        let line = format!("{} Holdfast.Denied.Data_Encrypted_for_Impact\n", "ab".repeat(32));
        assert_eq!(list.lines(), line);
        std::fs::write(folder.path().join("denied.json"), "{").expect("write");
        assert!(DenyList::open(folder.path()).is_err());
    }
}
