//! Content that a model's response or an operator denied on this host: it may not be opened or run.
//!
//! The list becomes one more hash list of the rule bundle ([`DenyList::lines`]), so that denied
//! content is judged, denied and quarantined as all malicious content is, and `holdfast
//! quarantine restore --allow` takes it back. One JSON file, written whole.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use holdfast_common::denial;
use serde::{Deserialize, Serialize};

/// Entries that are kept; beyond it the oldest goes that a model's response made.
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
    /// Until when; without it until it is lifted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until_ms: Option<i64>,
    /// An operator's order, and no model's response.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub ordered: bool,
}

impl Denied {
    fn stands(&self, now_ms: i64) -> bool {
        denial::stands(self.until_ms, now_ms)
    }
}

/// The list.
#[derive(Debug)]
pub struct DenyList {
    file: PathBuf,
    entries: Mutex<Vec<Denied>>,
    /// What the manager denies besides; kept by [`super::Orders`].
    fleet: Mutex<Vec<Denied>>,
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
    /// No more orders are taken.
    #[error("{} hashes are denied on this host by order: lift some", denial::MOST)]
    Full,
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
        Ok(Self { file, entries: Mutex::new(entries), fleet: Mutex::default() })
    }

    /// Adds one; it is on disk when this returns. False when it is there already, and as long.
    ///
    /// # Errors
    /// [`DenyListError::Io`], [`DenyListError::Full`]; the list stays as it was.
    pub fn add(&self, new: Denied) -> Result<bool, DenyListError> {
        let mut entries = self.entries();
        let now_ms = crate::now_ms();
        let same = |one: &&Denied| one.sha256 == new.sha256 && one.stands(now_ms);
        let there = entries.iter().find(same);
        if there.is_some_and(|one| denial::outlasts(one.until_ms, new.until_ms)) {
            return Ok(false);
        }
        let mut next = entries.clone();
        next.retain(|one| one.sha256 != new.sha256 && one.stands(now_ms));
        if new.ordered && next.iter().filter(|one| one.ordered).count() >= denial::MOST {
            return Err(DenyListError::Full);
        }
        next.push(new);
        if next.len() > MOST
            && let Some(oldest) = next.iter().position(|one| !one.ordered)
        {
            next.remove(oldest);
        }
        self.put(&mut entries, next)?;
        Ok(true)
    }

    /// Takes one away; it is off the disk when this returns. False when it is not there.
    ///
    /// # Errors
    /// [`DenyListError::Io`]; the list stays as it was.
    pub fn remove(&self, sha256: &str) -> Result<bool, DenyListError> {
        let mut entries = self.entries();
        let mut next = entries.clone();
        next.retain(|one| one.sha256 != sha256);
        if next.len() == entries.len() {
            return Ok(false);
        }
        self.put(&mut entries, next)?;
        Ok(true)
    }

    fn put(&self, entries: &mut Vec<Denied>, next: Vec<Denied>) -> Result<(), DenyListError> {
        let failed =
            |source| DenyListError::Io { action: "write", path: self.file.clone(), source };
        self.write(&next).map_err(failed)?;
        *entries = next;
        Ok(())
    }

    /// Takes what the manager denies.
    pub fn set_fleet(&self, fleet: Vec<Denied>) {
        *self.fleet.lock().unwrap_or_else(PoisonError::into_inner) = fleet;
    }

    /// What this host alone denies now.
    #[must_use]
    pub fn list(&self) -> Vec<Denied> {
        let now_ms = crate::now_ms();
        self.entries().iter().filter(|one| one.stands(now_ms)).cloned().collect()
    }

    /// What is denied now, as a hash list: a SHA-256 and a name on each line.
    #[must_use]
    pub fn lines(&self) -> String {
        let now_ms = crate::now_ms();
        let line = |one: &Denied| {
            let name: String =
                one.model.chars().map(|c| if c.is_alphanumeric() { c } else { '_' }).collect();
            format!("{} Holdfast.Denied.{name}\n", one.sha256)
        };
        let fleet = self.fleet.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let entries = self.entries();
        entries.iter().chain(&fleet).filter(|one| one.stands(now_ms)).map(line).collect()
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
            until_ms: None,
            ordered: false,
        };
        assert!(list.add(denied.clone()).expect("add"));
        assert!(!list.add(denied.clone()).expect("again"));
        let list = DenyList::open(folder.path()).expect("again");
        let line = format!("{} Holdfast.Denied.Data_Encrypted_for_Impact\n", "ab".repeat(32));
        assert_eq!(list.lines(), line);
        let theirs =
            Denied { sha256: "cd".repeat(32), model: "order".to_owned(), ..denied.clone() };
        list.set_fleet(vec![theirs]);
        assert!(list.lines().contains("Holdfast.Denied.order"));
        assert!(!list.remove(&"cd".repeat(32)).expect("the manager's"));
        assert!(list.remove(&denied.sha256).expect("remove"));
        assert_eq!(DenyList::open(folder.path()).expect("again").lines(), "");
        std::fs::write(folder.path().join("denied.json"), "{").expect("write");
        assert!(DenyList::open(folder.path()).is_err());
    }

    #[test]
    fn a_denial_ends_at_its_time_and_an_order_is_never_pushed_out_but_refused() {
        let folder = tempfile::tempdir().expect("folder");
        let list = DenyList::open(folder.path()).expect("empty");
        let now = crate::now_ms();
        let order = |number: usize, until_ms| Denied {
            sha256: format!("{number:064x}"),
            path: "any file".to_owned(),
            model: "order".to_owned(),
            since_ms: 1,
            until_ms,
            ordered: true,
        };
        assert!(list.add(order(0, Some(now - 1))).expect("over") && list.list().is_empty());
        assert_eq!(list.lines(), "");
        assert!(list.add(order(0, Some(now + 3_600_000))).expect("for an hour"));
        assert!(!list.add(order(0, Some(now + 1_800_000))).expect("for less"));
        assert!(list.add(order(0, None)).expect("for ever"));
        assert!(!list.add(order(0, Some(now + 3_600_000))).expect("for less"));
        assert_eq!(list.list().len(), 1);
        let full: Vec<Denied> = (0..denial::MOST).map(|number| order(number, None)).collect();
        list.put(&mut list.entries(), full).expect("put");
        let refused = list.add(order(denial::MOST, None)).expect_err("full");
        assert!(matches!(refused, DenyListError::Full), "{refused}");
        assert!(list.add(Denied { ordered: false, ..order(denial::MOST, None) }).expect("model's"));
        assert_eq!(list.list().len(), denial::MOST + 1);
    }
}
