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
    /// When that ends; without it, never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    until_ms: Option<i64>,
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

    /// The hashes, each with when its being allowed ends.
    #[must_use]
    pub fn hashes(&self) -> Vec<(String, Option<i64>)> {
        let entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        entries.iter().map(|entry| (entry.sha256.clone(), entry.until_ms)).collect()
    }

    /// Adds one until then, or for good; it is on disk when this returns. What was said of this
    /// content before holds no more, and what has ended is forgotten.
    ///
    /// # Errors
    /// [`AllowListError::Write`]; the list stays as it was.
    pub fn add(
        &self,
        sha256: &str,
        path: &str,
        until_ms: Option<i64>,
    ) -> Result<(), AllowListError> {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        let now_ms = crate::now_ms();
        let mut next = entries.clone();
        next.retain(|entry| {
            entry.sha256 != sha256 && entry.until_ms.is_none_or(|until_ms| now_ms < until_ms)
        });
        next.push(Allowed {
            sha256: sha256.to_owned(),
            path: path.to_owned(),
            since_ms: now_ms,
            until_ms,
        });
        self.write(&next)
            .map_err(|source| AllowListError::Write { path: self.file.clone(), source })?;
        *entries = next;
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
        list.add("aa", "/x", None).expect("add");
        list.add("aa", "/y", None).expect("add");
        list.add("bb", "/z", None).expect("add");
        let again = AllowList::open(folder.path()).expect("open");
        assert_eq!(again.hashes(), [("aa".to_owned(), None), ("bb".to_owned(), None)]);
    }

    #[test]
    fn the_last_word_of_a_content_holds_and_what_has_ended_is_forgotten() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let list = AllowList::open(folder.path()).expect("open");
        list.add("ended", "/x", Some(1)).expect("add");
        list.add("aa", "/x", Some(i64::MAX)).expect("add");
        list.add("bb", "/x", None).expect("add");
        list.add("aa", "/x", None).expect("add");
        list.add("bb", "/x", Some(i64::MAX)).expect("add");
        let again = AllowList::open(folder.path()).expect("open");
        assert_eq!(again.hashes(), [("aa".to_owned(), None), ("bb".to_owned(), Some(i64::MAX))]);
    }

    #[test]
    fn a_list_from_before_there_were_ends_is_for_good() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let text = r#"[{"sha256": "aa", "path": "/x", "since_ms": 5}]"#;
        std::fs::write(folder.path().join("allowed.json"), text).expect("write");
        let list = AllowList::open(folder.path()).expect("open");
        assert_eq!(list.hashes(), [("aa".to_owned(), None)]);
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
