//! What scans came to, on disk, with the schedules and where each stands. SQLite, WAL, every commit
//! synced: it survives a kill and a power loss.
//!
//! INVARIANT: bounded: the oldest ended scans go first. A file that is corrupt is moved aside and
//! named; where none can be written at all, one in memory serves, so that scans are run all the
//! same.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use holdfast_common::scans::{ScanRecord, ScanScope, ScanState};
use rusqlite::{Connection, ErrorCode, OptionalExtension, params};
use serde::Serialize;
use serde::de::DeserializeOwned;
use uuid::Uuid;

/// Scans that are remembered.
const MOST_SCANS: i64 = 500;

const SCHEMA: &str = "
    CREATE TABLE IF NOT EXISTS scan (
        id TEXT PRIMARY KEY, state TEXT NOT NULL, scope TEXT NOT NULL, json TEXT NOT NULL
    ) STRICT;
    CREATE TABLE IF NOT EXISTS schedule (name TEXT PRIMARY KEY, json TEXT NOT NULL) STRICT;
    CREATE TABLE IF NOT EXISTS standing (name TEXT PRIMARY KEY, json TEXT NOT NULL) STRICT;
    CREATE TABLE IF NOT EXISTS bundle (
        number INTEGER PRIMARY KEY, digest TEXT NOT NULL UNIQUE, path TEXT NOT NULL,
        loaded_ms INTEGER NOT NULL
    ) STRICT;
    CREATE TABLE IF NOT EXISTS rule (
        key INTEGER PRIMARY KEY, bundle INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;
    PRAGMA user_version = 1;
";

/// Why the history could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum HistoryError {
    /// SQLite refused.
    #[error("cannot {operation} the scan history {path}")]
    Sql {
        /// What was tried.
        operation: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: rusqlite::Error,
    },
    /// What stands there cannot be understood.
    #[error("a row of {path} is damaged")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
}

/// Rows that are kept by name.
#[derive(Debug, Clone, Copy)]
pub(super) enum Named {
    /// Schedules that were added.
    Schedule,
    /// Where each schedule stands.
    Standing,
}

impl Named {
    const fn table(self) -> &'static str {
        match self {
            Self::Schedule => "schedule",
            Self::Standing => "standing",
        }
    }
}

/// The file. One connection, shared.
#[derive(Debug)]
pub(super) struct History {
    path: PathBuf,
    connection: Mutex<Connection>,
    /// Why nothing of it will be there after a restart.
    problem: Option<String>,
}

impl History {
    /// Opens or creates `state_dir/scans.db` (mode 0600).
    pub(super) fn open(state_dir: &Path) -> Result<Self, HistoryError> {
        let path = state_dir.join("scans.db");
        let opened = match open_file(&path) {
            Err(error) if is_corrupt(&error) => {
                let now = crate::now_ms();
                let aside = state_dir.join(format!("scans.db.corrupt-{now}"));
                tracing::error!(aside = %aside.display(), "the scan history was corrupt");
                for end in ["", "-wal", "-shm"] {
                    let named = |path: &Path| PathBuf::from(format!("{}{end}", path.display()));
                    // Those that are not there need not be moved; else opening fails again.
                    let _ = std::fs::rename(named(&path), named(&aside));
                }
                open_file(&path)
            }
            opened => opened,
        };
        let failed = |source| HistoryError::Sql { operation: "open", path: path.clone(), source };
        let (connection, problem) = match opened {
            Ok(connection) => (connection, None),
            Err(error) => {
                let problem = crate::error_chain(&failed(error));
                tracing::error!(problem, "scans are not remembered");
                let connection = Connection::open_in_memory().map_err(failed)?;
                connection.execute_batch(SCHEMA).map_err(failed)?;
                (connection, Some(problem))
            }
        };
        Ok(Self { path, connection: Mutex::new(connection), problem })
    }

    pub(super) fn problem(&self) -> Option<&str> {
        self.problem.as_deref()
    }

    fn lock(&self) -> MutexGuard<'_, Connection> {
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn failed(&self, operation: &'static str) -> impl Fn(rusqlite::Error) -> HistoryError + '_ {
        move |source| HistoryError::Sql { operation, path: self.path.clone(), source }
    }

    fn decoded<T: DeserializeOwned>(&self, json: &str) -> Result<T, HistoryError> {
        serde_json::from_str(json)
            .map_err(|source| HistoryError::Damaged { path: self.path.clone(), source })
    }

    fn encoded<T: Serialize>(&self, value: &T) -> Result<String, HistoryError> {
        serde_json::to_string(value)
            .map_err(|source| HistoryError::Damaged { path: self.path.clone(), source })
    }

    /// Keeps a scan as it stands.
    pub(super) fn put(&self, record: &ScanRecord) -> Result<(), HistoryError> {
        let json = self.encoded(record)?;
        let connection = self.lock();
        let write = || {
            connection
                .prepare_cached(
                    "INSERT INTO scan (id, state, scope, json) VALUES (?1, ?2, ?3, ?4)
                     ON CONFLICT (id) DO UPDATE SET state = ?2, json = ?4",
                )?
                .execute(params![
                    record.scan_id.to_string(),
                    record.state.name(),
                    record.scope.name(),
                    json
                ])?;
            if record.state.is_end() {
                // Ids of version 7 are in the order of time.
                connection.execute(
                    "DELETE FROM scan WHERE id IN (SELECT id FROM scan WHERE state NOT IN
                     ('waiting', 'running', 'paused') ORDER BY id DESC LIMIT -1 OFFSET ?1)",
                    [MOST_SCANS],
                )?;
            }
            Ok(())
        };
        write().map_err(self.failed("write"))
    }

    /// At most so many, newest first; 0 for all.
    pub(super) fn list(&self, limit: u64) -> Result<Vec<ScanRecord>, HistoryError> {
        let limit = if limit == 0 { -1 } else { i64::try_from(limit).unwrap_or(-1) };
        self.query("SELECT json FROM scan ORDER BY id DESC LIMIT ?1", [limit])
    }

    pub(super) fn get(&self, id: Uuid) -> Result<Option<ScanRecord>, HistoryError> {
        let found = self.query("SELECT json FROM scan WHERE id = ?1", [id.to_string()])?;
        Ok(found.into_iter().next())
    }

    /// The last scan of the same places that came to its end.
    pub(super) fn last_alike(&self, of: &ScanRecord) -> Result<Option<ScanRecord>, HistoryError> {
        let done: Vec<ScanRecord> = self.query(
            "SELECT json FROM scan WHERE scope = ?1 AND state = 'done' ORDER BY id DESC LIMIT 50",
            [of.scope.name()],
        )?;
        let alike = |one: &ScanRecord| of.scope != ScanScope::Paths || one.places == of.places;
        Ok(done.into_iter().find(alike))
    }

    /// Those that an agent before this one did not bring to an end are said to be interrupted.
    pub(super) fn interrupt(&self) -> Result<Vec<ScanRecord>, HistoryError> {
        let mut open: Vec<ScanRecord> = self.query(
            "SELECT json FROM scan WHERE state IN ('waiting', 'running', 'paused') ORDER BY id",
            [],
        )?;
        for record in &mut open {
            let was = record.state.name();
            record.note = Some(format!("the agent ended while the scan was {was}"));
            record.state = ScanState::Interrupted;
            record.estimate = None;
            self.put(record)?;
        }
        Ok(open)
    }

    /// All rows of a kind, by name.
    pub(super) fn named<T: DeserializeOwned>(&self, of: Named) -> Result<Vec<T>, HistoryError> {
        self.query(&format!("SELECT json FROM {} ORDER BY name", of.table()), [])
    }

    /// Keeps one.
    pub(super) fn put_named<T: Serialize>(
        &self,
        of: Named,
        name: &str,
        value: &T,
    ) -> Result<(), HistoryError> {
        let json = self.encoded(value)?;
        let text = format!(
            "INSERT INTO {} (name, json) VALUES (?1, ?2) ON CONFLICT (name) DO UPDATE SET json = ?2",
            of.table()
        );
        self.lock().execute(&text, params![name, json]).map(drop).map_err(self.failed("write"))
    }

    /// Keeps a scan together with where its schedule stands, or neither.
    pub(super) fn put_due<T: Serialize>(
        &self,
        record: &ScanRecord,
        standing: Option<(&str, &T)>,
    ) -> Result<(), HistoryError> {
        let Some((name, standing)) = standing else { return self.put(record) };
        let (scan, standing) = (self.encoded(record)?, self.encoded(standing)?);
        let mut connection = self.lock();
        let write = |connection: &mut Connection| {
            let transaction = connection.transaction()?;
            transaction.execute(
                "INSERT INTO scan (id, state, scope, json) VALUES (?1, ?2, ?3, ?4)",
                params![record.scan_id.to_string(), record.state.name(), record.scope.name(), scan],
            )?;
            transaction.execute(
                "INSERT INTO standing (name, json) VALUES (?1, ?2)
                 ON CONFLICT (name) DO UPDATE SET json = ?2",
                params![name, standing],
            )?;
            transaction.commit()
        };
        write(&mut connection).map_err(self.failed("write"))
    }

    /// Forgets one; whether it was there.
    pub(super) fn remove_named(&self, of: Named, name: &str) -> Result<bool, HistoryError> {
        let text = format!("DELETE FROM {} WHERE name = ?1", of.table());
        self.lock().execute(&text, [name]).map(|count| count > 0).map_err(self.failed("write"))
    }

    /// Notes a bundle with the keys of its rules; keys that are known stay with their first bundle.
    pub(super) fn put_bundle(
        &self,
        (digest, path, loaded_ms): (&str, &str, i64),
        keys: &mut dyn Iterator<Item = i64>,
    ) -> Result<(), HistoryError> {
        let mut connection = self.lock();
        let write = |connection: &mut Connection| {
            let transaction = connection.transaction()?;
            // Two threads may have seen it new.
            let new = transaction.execute(
                "INSERT OR IGNORE INTO bundle (digest, path, loaded_ms) VALUES (?1, ?2, ?3)",
                params![digest, path, loaded_ms],
            )?;
            if new == 0 {
                return Ok(());
            }
            let number = transaction.last_insert_rowid();
            {
                let mut insert = transaction
                    .prepare("INSERT OR IGNORE INTO rule (key, bundle) VALUES (?1, ?2)")?;
                for key in keys {
                    insert.execute(params![key, number])?;
                }
            }
            transaction.commit()
        };
        write(&mut connection).map_err(self.failed("write"))
    }

    /// Whether a bundle was noted.
    pub(super) fn knows_bundle(&self, digest: &str) -> Result<bool, HistoryError> {
        self.lock()
            .query_row("SELECT 1 FROM bundle WHERE digest = ?1", [digest], |_| Ok(()))
            .optional()
            .map(|row| row.is_some())
            .map_err(self.failed("read"))
    }

    /// How many rules are known.
    pub(super) fn rules(&self) -> Result<u64, HistoryError> {
        self.lock()
            .query_row("SELECT count(*) FROM rule", [], |row| row.get::<_, i64>(0))
            .map(i64::unsigned_abs)
            .map_err(self.failed("read"))
    }

    /// The first bundle that held a rule: digest, folder, when it was loaded.
    pub(super) fn origin(&self, key: i64) -> Result<Option<(String, String, i64)>, HistoryError> {
        self.lock()
            .query_row(
                "SELECT digest, path, loaded_ms FROM rule JOIN bundle ON number = bundle
                 WHERE key = ?1",
                [key],
                |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)),
            )
            .optional()
            .map_err(self.failed("read"))
    }

    fn query<T: DeserializeOwned, P: rusqlite::Params>(
        &self,
        text: &str,
        parameters: P,
    ) -> Result<Vec<T>, HistoryError> {
        let connection = self.lock();
        let read = || {
            connection
                .prepare_cached(text)?
                .query_map(parameters, |row| row.get(0))?
                .collect::<rusqlite::Result<Vec<String>>>()
        };
        let rows = read().map_err(self.failed("read"))?;
        drop(connection);
        rows.iter().map(|json| self.decoded(json)).collect()
    }
}

fn open_file(path: &Path) -> rusqlite::Result<Connection> {
    use std::os::unix::fs::OpenOptionsExt;
    // SQLite gives its other files the mode of this one.
    let mut options = std::fs::OpenOptions::new();
    let _ = options.write(true).create(true).truncate(false).mode(0o600).open(path);
    let connection = Connection::open(path)?;
    connection.execute_batch(
        "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;
         PRAGMA trusted_schema = OFF; PRAGMA cell_size_check = ON;",
    )?;
    connection.execute_batch(&format!("BEGIN IMMEDIATE; {SCHEMA} COMMIT;"))?;
    Ok(connection)
}

fn is_corrupt(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase))
}

#[cfg(test)]
mod tests {
    use super::super::live::tests::record;
    use super::*;

    #[test]
    fn the_history_is_bounded_and_says_what_was_interrupted() {
        let folder = tempfile::tempdir().expect("folder");
        let history = History::open(folder.path()).expect("open");
        let mut open = record();
        open.state = ScanState::Paused;
        for _ in 0..MOST_SCANS + 20 {
            history.put(&ScanRecord { state: ScanState::Done, ..record() }).expect("put");
        }
        open.scan_id = Uuid::now_v7();
        history.put(&open).expect("put");
        assert_eq!(history.list(0).expect("list").len() as i64, MOST_SCANS + 1);
        drop(history);
        let history = History::open(folder.path()).expect("again");
        let interrupted = history.interrupt().expect("interrupt");
        assert_eq!(interrupted.len(), 1);
        let now = history.get(open.scan_id).expect("get").expect("there");
        assert_eq!(now.state, ScanState::Interrupted);
        assert!(now.note.expect("a note").contains("paused"));
        assert!(history.interrupt().expect("interrupt").is_empty());
    }

    #[test]
    fn a_corrupt_file_is_moved_aside_and_a_new_one_begun() {
        let folder = tempfile::tempdir().expect("folder");
        std::fs::write(folder.path().join("scans.db"), [7; 4096]).expect("write");
        let history = History::open(folder.path()).expect("open");
        assert_eq!(history.problem(), None);
        history.put(&record()).expect("put");
        let names: Vec<String> = std::fs::read_dir(folder.path())
            .expect("list")
            .map(|entry| entry.expect("entry").file_name().to_string_lossy().into_owned())
            .collect();
        assert!(names.iter().any(|name| name.starts_with("scans.db.corrupt-")), "{names:?}");
    }

    #[test]
    fn a_rule_stays_with_the_bundle_that_brought_it() {
        let folder = tempfile::tempdir().expect("folder");
        let history = History::open(folder.path()).expect("open");
        history.put_bundle(("one", "/rules", 10), &mut [1, 2].into_iter()).expect("first");
        history.put_bundle(("two", "/rules", 20), &mut [2, 3].into_iter()).expect("second");
        let origin = |key| history.origin(key).expect("read").map(|origin| origin.0);
        assert_eq!(origin(2).as_deref(), Some("one"));
        assert_eq!(origin(3).as_deref(), Some("two"));
        assert_eq!(origin(4), None);
        assert!(history.knows_bundle("two").expect("read"));
    }
}
