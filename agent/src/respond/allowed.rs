//! Content that operators allowed by its hash (`holdfast quarantine restore --allow`).
//!
//! One JSON file in the state folder, written whole: a new file, fsync, rename.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};

/// One allowed content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Allowed {
    sha256: String,
    /// Where it lay when it was allowed.
    path: String,
    /// When, milliseconds since the epoch.
    since_ms: i64,
}

/// The list.
#[derive(Debug)]
pub struct AllowList {
    file: PathBuf,
    entries: Mutex<Vec<Allowed>>,
}

/// Why the list could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum AllowListError {
    /// Reading.
    #[error("cannot read {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// What stands there is no list.
    #[error("{path}: not a list of allowed content")]
    Parse {
        /// The file.
        path: PathBuf,
        /// Line and column.
        #[source]
        source: serde_json::Error,
    },
    /// Writing.
    #[error("cannot write {path}")]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

impl AllowList {
    /// Reads the list; a missing file is an empty one.
    ///
    /// # Errors
    /// [`AllowListError`] when there is a file that cannot be understood: nothing is changed.
    pub fn open(state_dir: &Path) -> Result<Self, AllowListError> {
        let file = state_dir.join("allowed.json");
        let entries = match std::fs::read(&file) {
            Ok(text) => serde_json::from_slice(&text)
                .map_err(|source| AllowListError::Parse { path: file.clone(), source })?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
            Err(source) => return Err(AllowListError::Read { path: file, source }),
        };
        Ok(Self { file, entries: Mutex::new(entries) })
    }

    /// The hashes.
    #[must_use]
    pub fn hashes(&self) -> Vec<String> {
        let entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        entries.iter().map(|entry| entry.sha256.clone()).collect()
    }

    /// Adds one; it is on disk when this returns.
    ///
    /// # Errors
    /// [`AllowListError::Write`]; the list stays as it was.
    pub fn add(&self, sha256: &str, path: &str) -> Result<(), AllowListError> {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        if entries.iter().any(|entry| entry.sha256 == sha256) {
            return Ok(());
        }
        let mut longer = entries.clone();
        longer.push(Allowed {
            sha256: sha256.to_owned(),
            path: path.to_owned(),
            since_ms: crate::now_ms(),
        });
        self.write(&longer)
            .map_err(|source| AllowListError::Write { path: self.file.clone(), source })?;
        *entries = longer;
        Ok(())
    }

    fn write(&self, entries: &[Allowed]) -> std::io::Result<()> {
        crate::durable::replace(&self.file, &[&serde_json::to_vec_pretty(entries)?])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn allowed_content_survives_a_restart_and_is_kept_once() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let list = AllowList::open(folder.path()).expect("open");
        list.add("aa", "/x").expect("add");
        list.add("aa", "/y").expect("add");
        list.add("bb", "/z").expect("add");
        let again = AllowList::open(folder.path()).expect("open");
        assert_eq!(again.hashes(), ["aa", "bb"]);
    }

    #[test]
    fn a_damaged_list_is_refused_by_name_and_left_alone() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let file = folder.path().join("allowed.json");
        std::fs::write(&file, "[{").expect("write");
        let error = AllowList::open(folder.path()).expect_err("damaged");
        assert!(error.to_string().contains("allowed.json"), "{error}");
        assert_eq!(std::fs::read(&file).expect("read"), b"[{");
    }
}
