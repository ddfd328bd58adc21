//! What operators decided about models and must survive a restart: `models.json`.
//!
//! Written whole: beside it, synchronised, renamed. A file of a later version, or one that is
//! not valid, is refused and left as it is.

use std::path::{Path, PathBuf};

use holdfast_common::control::Suppression;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

const FILE: &str = "models.json";
const FILE_MAX: u64 = 4 << 20;
/// 2 has suppressions.
const VERSION: u32 = 2;
/// Suppressions that can stand at once.
pub(super) const SUPPRESSIONS_MAX: usize = 1000;

/// Why the file could not be used.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// It could not be read or written.
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
    /// It is not what it should be.
    #[error("{path}: {message}")]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// What and where.
        message: String,
    },
}

/// What is in it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Saved {
    version: u32,
    /// Also models that this version does not know: they are kept for the one that does.
    pub(super) disabled: Vec<Uuid>,
    #[serde(default)]
    pub(super) suppressions: Vec<Suppression>,
}

pub(super) fn file(state_dir: &Path) -> PathBuf {
    state_dir.join(FILE)
}

pub(super) fn read(path: &Path) -> Result<Saved, StateError> {
    let corrupt = |message: String| StateError::Corrupt { path: path.to_owned(), message };
    let read = std::fs::metadata(path).and_then(|facts| {
        if facts.len() > FILE_MAX { Ok(None) } else { std::fs::read(path).map(Some) }
    });
    let bytes = match read {
        Ok(Some(bytes)) => bytes,
        Ok(None) => return Err(corrupt("too large".to_owned())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Saved::default()),
        Err(source) => {
            return Err(StateError::Io { action: "read", path: path.to_owned(), source });
        }
    };
    let saved: Saved =
        serde_json::from_slice(&bytes).map_err(|error| corrupt(error.to_string()))?;
    if !(1..=VERSION).contains(&saved.version) {
        return Err(corrupt(format!("version {}, not 1 to {VERSION}", saved.version)));
    }
    Ok(saved)
}

pub(super) fn write(path: &Path, saved: &Saved) -> Result<(), StateError> {
    let saved = Saved { version: VERSION, ..saved.clone() };
    let write = || crate::durable::replace(path, &[&serde_json::to_vec_pretty(&saved)?]);
    write().map_err(|source| StateError::Io { action: "write", path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broken_or_newer_state_file_is_refused_by_name() {
        let folder = tempfile::tempdir().expect("folder");
        let path = file(folder.path());
        for bad in ["", "{", r#"{"version":3,"disabled":[]}"#, r#"{"version":1,"disabled":[1]}"#] {
            std::fs::write(&path, bad).expect("write");
            let error = read(&path).expect_err("refused");
            assert!(error.to_string().contains("models.json"), "{error}");
        }
        std::fs::write(&path, r#"{"version":1,"disabled":[]}"#).expect("write");
        assert_eq!(read(&path).expect("the first version").suppressions, []);
    }
}
