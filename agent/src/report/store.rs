//! What the link must not forget, on disk: how far the outbox is acknowledged, response tasks, and
//! what is to be told of them. SQLite, WAL, every commit synced.
//!
//! INVARIANT: a task is here before the manager hears `Delivered`, and marked as begun before it is
//! begun; a progress is here until the manager has acknowledged it.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use holdfast_common::task::{Progress, Stage};
use rusqlite::{Connection, ErrorCode, OptionalExtension, params};
use serde::{Deserialize, Serialize};

/// Ended tasks that are remembered, so that one is not done twice.
const MOST_ENDED: i64 = 10_000;
/// Progress that waits to be told; beyond it no task is taken.
const MOST_PROGRESS: i64 = 20_000;

const SCHEMA: &str = "
    CREATE TABLE IF NOT EXISTS lane (
        telemetry INTEGER PRIMARY KEY, host TEXT NOT NULL, journal TEXT NOT NULL,
        number INTEGER NOT NULL, ordinal INTEGER NOT NULL, dropped INTEGER NOT NULL
    ) STRICT;
    CREATE TABLE IF NOT EXISTS task (
        number INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, json TEXT NOT NULL,
        state TEXT NOT NULL, spool TEXT
    ) STRICT;
    CREATE INDEX IF NOT EXISTS task_by_state ON task (state, number);
    CREATE TABLE IF NOT EXISTS progress (
        number INTEGER PRIMARY KEY AUTOINCREMENT, task TEXT NOT NULL, json TEXT NOT NULL
    ) STRICT;
    CREATE TABLE IF NOT EXISTS note (name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;
    PRAGMA user_version = 1;
";

/// Why the link's memory cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum StoreError {
    /// SQLite refused.
    #[error("cannot {operation} {path}")]
    Sql {
        operation: &'static str,
        path: PathBuf,
        #[source]
        source: rusqlite::Error,
    },
    /// What stands there cannot be understood.
    #[error("a row of {path} is damaged")]
    Damaged {
        path: PathBuf,
        #[source]
        source: serde_json::Error,
    },
    /// Bounds are reached.
    #[error("{0}")]
    Full(&'static str),
}

/// How far one class of events was acknowledged.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Mark {
    /// The journal that the numbers are of.
    pub(super) journal: String,
    /// The last event's number.
    pub(super) number: i64,
    /// How many events of the class there ever were up to it.
    pub(super) ordinal: u64,
    /// How many of them were given up.
    pub(super) dropped: u64,
}

/// A response task as it was delivered.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Order {
    /// Its id.
    pub(super) id: String,
    /// The action, JSON of `task::Action`.
    pub(super) action: serde_json::Value,
    /// Not to be begun after this, milliseconds since the epoch, by the manager's clock.
    pub(super) expires_ms: i64,
    /// Who filed it.
    pub(super) filed_by: String,
    /// Why.
    pub(super) reason: String,
}

/// How far a task is on this host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// Stored, not begun.
    Waiting,
    /// Begun, perhaps done.
    Begun,
    /// Its file waits to be delivered.
    Delivering,
    /// Over.
    Ended,
}

impl State {
    const fn name(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Begun => "begun",
            Self::Delivering => "delivering",
            Self::Ended => "ended",
        }
    }
}

/// A file that waits to be delivered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Spooled {
    /// Where it lies.
    pub(super) path: PathBuf,
    /// Bytes.
    pub(super) size: u64,
    /// In hex.
    pub(super) sha256: String,
    /// What was seen when it was made.
    pub(super) observed: String,
}

/// The file. One connection, shared.
#[derive(Debug)]
pub(super) struct Store {
    path: PathBuf,
    connection: Mutex<Connection>,
}

impl Store {
    /// Opens or creates `state_dir/link.db` (mode 0600). A corrupt one is moved aside: what it knew
    /// of tasks is lost, the outbox begins at the journal's oldest event again.
    pub(super) fn open(state_dir: &Path) -> Result<Self, StoreError> {
        let path = state_dir.join("link.db");
        match Self::open_as_it_is(&path) {
            Err(error) if is_corrupt(&error) => {
                let aside = state_dir.join(format!("link.db.corrupt-{}", crate::now_ms()));
                tracing::error!(aside = %aside.display(), "the link's memory was corrupt");
                for end in ["", "-wal", "-shm"] {
                    let named = |path: &Path| PathBuf::from(format!("{}{end}", path.display()));
                    // Those that are not there need not be moved; else opening fails again.
                    let _ = std::fs::rename(named(&path), named(&aside));
                }
                Self::open_as_it_is(&path).map_err(|source| sql("open", &path, source))
            }
            opened => opened.map_err(|source| sql("open", &path, source)),
        }
    }

    fn open_as_it_is(path: &Path) -> rusqlite::Result<Self> {
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
        Ok(Self { path: path.to_owned(), connection: Mutex::new(connection) })
    }

    fn lock(&self) -> MutexGuard<'_, Connection> {
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn failed(&self, operation: &'static str) -> impl Fn(rusqlite::Error) -> StoreError + '_ {
        move |source| sql(operation, &self.path, source)
    }

    /// The mark of a class; of another host's it is the beginning.
    pub(super) fn mark(&self, telemetry: bool, host: &str) -> Result<Mark, StoreError> {
        self.lock()
            .query_row(
                "SELECT journal, number, ordinal, dropped FROM lane
                 WHERE telemetry = ?1 AND host = ?2",
                params![telemetry, host],
                |row| {
                    Ok(Mark {
                        journal: row.get(0)?,
                        number: row.get(1)?,
                        ordinal: row.get::<_, i64>(2)?.unsigned_abs(),
                        dropped: row.get::<_, i64>(3)?.unsigned_abs(),
                    })
                },
            )
            .optional()
            .map(Option::unwrap_or_default)
            .map_err(self.failed("read"))
    }

    /// Keeps the marks of classes.
    pub(super) fn set_marks(&self, host: &str, marks: &[(bool, Mark)]) -> Result<(), StoreError> {
        let mut connection = self.lock();
        let write = |connection: &mut Connection| {
            let transaction = connection.transaction()?;
            for (telemetry, mark) in marks {
                transaction.execute(
                    "INSERT OR REPLACE INTO lane VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
                    params![
                        telemetry,
                        host,
                        mark.journal,
                        mark.number,
                        mark.ordinal as i64,
                        mark.dropped as i64
                    ],
                )?;
            }
            transaction.commit()
        };
        write(&mut connection).map_err(self.failed("write"))
    }

    /// Takes a task with what is told of it. False when it is known already.
    pub(super) fn task_take(&self, order: &Order, told: &Progress) -> Result<bool, StoreError> {
        let json = self.json(order)?;
        let progress = self.json(told)?;
        let mut connection = self.lock();
        let waiting: i64 = connection
            .query_row("SELECT count(*) FROM progress", [], |row| row.get(0))
            .map_err(self.failed("read"))?;
        if waiting >= MOST_PROGRESS {
            return Err(StoreError::Full("too much progress of other tasks waits to be told"));
        }
        let state = if told.stage.is_end() { State::Ended } else { State::Waiting };
        let write = |connection: &mut Connection| {
            let transaction = connection.transaction()?;
            let new = transaction.execute(
                "INSERT OR IGNORE INTO task (id, json, state) VALUES (?1, ?2, ?3)",
                params![order.id, json, state.name()],
            )?;
            if new == 1 {
                transaction.execute(
                    "INSERT INTO progress (task, json) VALUES (?1, ?2)",
                    params![order.id, progress],
                )?;
                transaction.execute(
                    "DELETE FROM task WHERE state = 'ended' AND number <=
                     (SELECT max(number) FROM task) - ?1",
                    [MOST_ENDED],
                )?;
            }
            transaction.commit()?;
            Ok(new == 1)
        };
        write(&mut connection).map_err(self.failed("write"))
    }

    /// Moves a task on, from one of these states, and keeps what is told of it. False when it was
    /// in none of them: somebody else was quicker.
    pub(super) fn task_move(
        &self,
        id: &str,
        from: &[State],
        to: State,
        spooled: Option<&Spooled>,
        told: &[Progress],
    ) -> Result<bool, StoreError> {
        let spool = spooled.map(|spooled| self.json(spooled)).transpose()?;
        let told = told.iter().map(|one| self.json(one)).collect::<Result<Vec<_>, _>>()?;
        let mut connection = self.lock();
        let write = |connection: &mut Connection| {
            let transaction = connection.transaction()?;
            let now: Option<String> = transaction
                .query_row("SELECT state FROM task WHERE id = ?1", [id], |row| row.get(0))
                .optional()?;
            if !from.iter().any(|state| now.as_deref() == Some(state.name())) {
                return Ok(false);
            }
            transaction.execute(
                "UPDATE task SET state = ?2, spool = ?3 WHERE id = ?1",
                params![id, to.name(), spool],
            )?;
            for one in &told {
                transaction.execute(
                    "INSERT INTO progress (task, json) VALUES (?1, ?2)",
                    params![id, one],
                )?;
            }
            transaction.commit()?;
            Ok(true)
        };
        write(&mut connection).map_err(self.failed("write"))
    }

    /// A word of a task that was begun and goes on; it takes the place of the one before it.
    pub(super) fn task_goes_on(&self, id: &str, told: &Progress) -> Result<(), StoreError> {
        let told = self.json(told)?;
        let mut connection = self.lock();
        let write = |connection: &mut Connection| {
            let transaction = connection.transaction()?;
            transaction.execute(
                "DELETE FROM progress WHERE task = ?1 AND json_extract(json, '$.stage') = ?2",
                params![id, "delivered"],
            )?;
            transaction.execute(
                "INSERT INTO progress (task, json)
                 SELECT id, ?2 FROM task WHERE id = ?1 AND state = ?3",
                params![id, told, State::Begun.name()],
            )?;
            transaction.commit()
        };
        write(&mut connection).map_err(self.failed("write"))
    }

    /// Tasks in a state, oldest first.
    pub(super) fn tasks(&self, state: State) -> Result<Vec<(Order, Option<Spooled>)>, StoreError> {
        let read = |connection: &Connection| {
            connection
                .prepare_cached("SELECT json, spool FROM task WHERE state = ?1 ORDER BY number")?
                .query_map([state.name()], |row| Ok((row.get(0)?, row.get(1)?)))?
                .collect::<rusqlite::Result<Vec<(String, Option<String>)>>>()
        };
        let rows = read(&self.lock()).map_err(self.failed("read"))?;
        let parse = |(order, spool): (String, Option<String>)| {
            let spool = spool.map(|spool| self.parsed(&spool)).transpose()?;
            Ok((self.parsed(&order)?, spool))
        };
        rows.into_iter().map(parse).collect()
    }

    /// What is to be told after this number, oldest first: number, task, JSON of the progress.
    pub(super) fn progress_after(
        &self,
        number: i64,
        most: usize,
    ) -> Result<Vec<(i64, String, String)>, StoreError> {
        let read = |connection: &Connection| {
            connection
                .prepare_cached(
                    "SELECT number, task, json FROM progress WHERE number > ?1
                     ORDER BY number LIMIT ?2",
                )?
                .query_map(params![number, most as i64], |row| {
                    Ok((row.get(0)?, row.get(1)?, row.get(2)?))
                })?
                .collect::<rusqlite::Result<Vec<_>>>()
        };
        read(&self.lock()).map_err(self.failed("read"))
    }

    /// The manager has it.
    pub(super) fn progress_told(&self, number: i64) -> Result<(), StoreError> {
        self.lock()
            .execute("DELETE FROM progress WHERE number = ?1", [number])
            .map(drop)
            .map_err(self.failed("write"))
    }

    /// Forgets all tasks: the host is another manager's now.
    pub(super) fn begin_anew(&self) -> Result<(), StoreError> {
        self.lock()
            .execute_batch("BEGIN; DELETE FROM task; DELETE FROM progress; COMMIT;")
            .map_err(self.failed("write"))
    }

    /// A short text under a name.
    pub(super) fn note(&self, name: &str) -> Result<Option<String>, StoreError> {
        self.lock()
            .query_row("SELECT value FROM note WHERE name = ?1", [name], |row| row.get(0))
            .optional()
            .map_err(self.failed("read"))
    }

    /// Keeps it.
    pub(super) fn set_note(&self, name: &str, value: &str) -> Result<(), StoreError> {
        self.lock()
            .execute("INSERT OR REPLACE INTO note VALUES (?1, ?2)", [name, value])
            .map(drop)
            .map_err(self.failed("write"))
    }

    fn json<T: Serialize>(&self, value: &T) -> Result<String, StoreError> {
        serde_json::to_string(value)
            .map_err(|source| StoreError::Damaged { path: self.path.clone(), source })
    }

    fn parsed<T: serde::de::DeserializeOwned>(&self, text: &str) -> Result<T, StoreError> {
        serde_json::from_str(text)
            .map_err(|source| StoreError::Damaged { path: self.path.clone(), source })
    }
}

/// A progress of now.
pub(super) fn progress(stage: Stage, observed: impl Into<String>) -> Progress {
    Progress {
        stage,
        time_ms: crate::now_ms(),
        observed: observed.into(),
        result: serde_json::Value::Null,
    }
}

fn is_corrupt(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase))
}

fn sql(operation: &'static str, path: &Path, source: rusqlite::Error) -> StoreError {
    StoreError::Sql { operation, path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(id: &str) -> Order {
        let action = serde_json::json!({ "action": "release" });
        Order { id: id.into(), action, expires_ms: 1, filed_by: "a".into(), reason: "b".into() }
    }

    #[test]
    fn a_task_is_taken_once_and_moves_on_from_where_it_is() {
        let folder = tempfile::tempdir().expect("folder");
        let store = Store::open(folder.path()).expect("store");
        let delivered = progress(Stage::Delivered, "");
        assert!(store.task_take(&order("1"), &delivered).expect("taken"));
        assert!(!store.task_take(&order("1"), &delivered).expect("again"));
        drop(store);
        let store = Store::open(folder.path()).expect("store");
        assert_eq!(store.tasks(State::Waiting).expect("tasks"), [(order("1"), None)]);
        let begin = || store.task_move("1", &[State::Waiting], State::Begun, None, &[]);
        assert!(begin().expect("begun"));
        assert!(!begin().expect("not twice"));
        let end = [progress(Stage::Executed, "x"), progress(Stage::Verified, "y")];
        assert!(store.task_move("1", &[State::Begun], State::Ended, None, &end).expect("ended"));
        let told = store.progress_after(0, 10).expect("progress");
        assert_eq!(told.iter().map(|one| one.0).collect::<Vec<_>>(), [1, 2, 3]);
        store.progress_told(2).expect("told");
        assert_eq!(store.progress_after(1, 10).expect("progress")[0].0, 3);
        assert!(!store.task_take(&order("1"), &delivered).expect("an ended one is known"));
    }

    #[test]
    fn marks_are_kept_for_the_host_that_they_were_made_for() {
        let folder = tempfile::tempdir().expect("folder");
        let store = Store::open(folder.path()).expect("store");
        let mark = Mark { journal: "j".into(), number: 7, ordinal: 5, dropped: 2 };
        store.set_marks("h", &[(true, mark.clone())]).expect("kept");
        assert_eq!(store.mark(true, "h").expect("mark"), mark);
        assert_eq!(store.mark(true, "other").expect("mark"), Mark::default());
        assert_eq!(store.mark(false, "h").expect("mark"), Mark::default());
    }

    #[test]
    fn a_corrupt_file_is_moved_aside() {
        let folder = tempfile::tempdir().expect("folder");
        std::fs::write(folder.path().join("link.db"), vec![7; 8192]).expect("write");
        let store = Store::open(folder.path()).expect("store");
        assert_eq!(store.note("x").expect("read"), None);
        let aside = std::fs::read_dir(folder.path()).expect("list").flatten();
        let aside = aside.filter(|one| one.file_name().to_string_lossy().contains("corrupt"));
        assert!(aside.count() >= 1);
    }
}
