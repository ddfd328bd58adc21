//! The journal as the outbox reads it: one class of events at a time, in the order of their
//! numbers, with what was taken out before it could be read.
//!
//! INVARIANT: numbers of a journal are never given twice, and a journal that was begun anew has
//! another id. Reads on a connection of its own and never waits for a caller of the journal.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rusqlite::{Connection, OpenFlags, OptionalExtension, TransactionBehavior, params};

use super::store::{connect, sql};
use super::{Journal, JournalError};

/// One event as it stands in the journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// Its number.
    pub number: i64,
    /// When it happened, milliseconds since the epoch.
    pub time_ms: i64,
    /// JSON of `event::Event`.
    pub json: String,
}

/// Events of one class.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// The journal's id; another one means that numbers began again.
    pub journal: String,
    /// How many events of the class were ever taken out to keep the bounds.
    pub trimmed: u64,
    /// Oldest first.
    pub rows: Vec<Row>,
}

/// What lies behind a number.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Waiting {
    /// Events.
    pub events: u64,
    /// Their bytes of JSON.
    pub bytes: u64,
    /// When the first one happened, milliseconds since the epoch.
    pub oldest_ms: Option<i64>,
}

/// A reader with a connection of its own.
#[derive(Debug)]
pub struct Reader {
    file: PathBuf,
    /// With the file's device and inode: a journal may be begun anew under the same name.
    open: Option<(Connection, (u64, u64))>,
}

impl Journal {
    /// A reader by number.
    #[must_use]
    pub fn reader(&self) -> Reader {
        Reader { file: self.inner.file.clone(), open: None }
    }
}

impl Reader {
    /// Events of a class behind a number: at most `most`, and no more once `bytes` are reached.
    ///
    /// # Errors
    /// [`JournalError::Sql`]
    pub fn page(
        &mut self,
        telemetry: bool,
        after: i64,
        most: usize,
        bytes: usize,
    ) -> Result<Page, JournalError> {
        self.read(|connection| {
            let transaction =
                connection.transaction_with_behavior(TransactionBehavior::Deferred)?;
            let column = if telemetry { "telemetry" } else { "other" };
            let (journal, trimmed): (String, i64) = transaction.query_row(
                &format!("SELECT id, {column} FROM kept LIMIT 1"),
                [],
                |row| Ok((row.get(0)?, row.get(1)?)),
            )?;
            let mut rows = Vec::new();
            {
                let mut statement = transaction.prepare_cached(
                    "SELECT seq, time_ms, json FROM event WHERE telemetry = ?1 AND seq > ?2
                     ORDER BY telemetry, seq LIMIT ?3",
                )?;
                let most = i64::try_from(most).unwrap_or(i64::MAX);
                let mut found = statement.query(params![telemetry, after, most])?;
                let mut total = 0;
                while total < bytes
                    && let Some(row) = found.next()?
                {
                    let row = Row { number: row.get(0)?, time_ms: row.get(1)?, json: row.get(2)? };
                    total += row.json.len();
                    rows.push(row);
                }
            }
            Ok(Page { journal, trimmed: trimmed.unsigned_abs(), rows })
        })
    }

    /// What lies behind a number in a class.
    ///
    /// # Errors
    /// [`JournalError::Sql`]
    pub fn waiting(&mut self, telemetry: bool, after: i64) -> Result<Waiting, JournalError> {
        self.read(|connection| {
            let (events, bytes, first): (i64, i64, Option<i64>) = connection
                .prepare_cached(
                    "SELECT count(*), coalesce(sum(bytes), 0), min(seq) FROM event
                     WHERE telemetry = ?1 AND seq > ?2",
                )?
                .query_row(params![telemetry, after], |row| {
                    Ok((row.get(0)?, row.get(1)?, row.get(2)?))
                })?;
            let oldest_ms = match first {
                Some(first) => connection
                    .prepare_cached("SELECT time_ms FROM event WHERE seq = ?1")?
                    .query_row([first], |row| row.get(0))
                    .optional()?,
                None => None,
            };
            Ok(Waiting { events: events.unsigned_abs(), bytes: bytes.unsigned_abs(), oldest_ms })
        })
    }

    fn read<T>(
        &mut self,
        look: impl FnOnce(&mut Connection) -> rusqlite::Result<T>,
    ) -> Result<T, JournalError> {
        let there = identity(&self.file);
        let failed = |source| sql("read", &self.file, source);
        let opened = self.open.take().filter(|(_, opened)| Some(*opened) == there);
        let mut connection = match opened {
            Some((connection, _)) => connection,
            None => connect(&self.file, OpenFlags::SQLITE_OPEN_READ_ONLY).map_err(failed)?,
        };
        // One that failed is not used again.
        let read = look(&mut connection).map_err(failed)?;
        self.open = Some((connection, there.unwrap_or_default()));
        Ok(read)
    }
}

fn identity(file: &Path) -> Option<(u64, u64)> {
    std::fs::metadata(file).ok().map(|facts| (facts.dev(), facts.ino()))
}

#[cfg(test)]
mod tests {
    use holdfast_common::event::{Event, EventBody, LossEvent};

    use super::*;
    use crate::config;

    fn loss(count: u64) -> EventBody {
        EventBody::Loss(LossEvent { queue: "test".to_owned(), count })
    }

    fn counts(page: &Page) -> Vec<u64> {
        let count = |row: &Row| match serde_json::from_str::<Event>(&row.json).expect("json").body {
            EventBody::Loss(loss) => loss.count,
            other => panic!("{other:?}"),
        };
        page.rows.iter().map(count).collect()
    }

    #[test]
    fn what_is_taken_out_before_it_was_read_is_known_by_its_number() {
        let folder = tempfile::tempdir().expect("folder");
        let limits = config::Journal { max_telemetry: 10, max_events: 3 };
        let journal = Journal::open(folder.path(), "host".into(), &limits).expect("journal");
        let mut reader = journal.reader();
        for count in 0..2 {
            journal.record(loss(count));
        }
        journal.flush();
        let first = reader.page(false, 0, 10, 1 << 20).expect("page");
        assert_eq!((counts(&first), first.trimmed), (vec![0, 1], 0));
        for count in 2..7 {
            journal.record(loss(count));
        }
        journal.flush();
        let after = first.rows[1].number;
        let second = reader.page(false, after, 10, 1 << 20).expect("page");
        assert_eq!((counts(&second), second.trimmed), (vec![4, 5, 6], 4), "2 and 3 are gone");
        assert_eq!(second.journal, first.journal);
        assert_eq!(reader.waiting(false, after).expect("waiting").events, 3);
        assert_eq!(counts(&reader.page(false, 0, 10, 1).expect("page")), [4], "by bytes");
        drop(journal);
        // Numbers and the count go on.
        let journal = Journal::open(folder.path(), "host".into(), &limits).expect("again");
        journal.record(loss(7));
        journal.flush();
        let third = journal.reader().page(false, second.rows[2].number, 10, 1 << 20).expect("page");
        assert_eq!((counts(&third), third.trimmed), (vec![7], 5));
    }

    #[test]
    fn a_journal_that_was_begun_anew_has_another_id() {
        let folder = tempfile::tempdir().expect("folder");
        let limits = config::Journal::default();
        let open = || Journal::open(folder.path(), "host".into(), &limits).expect("journal");
        let journal = open();
        let mut reader = journal.reader();
        let before = reader.page(true, 0, 1, 1).expect("page").journal;
        drop(journal);
        std::fs::write(folder.path().join("journal.db"), "nonsense").expect("write");
        let journal = open();
        journal.flush();
        assert_ne!(reader.page(true, 0, 1, 1).expect("page").journal, before);
    }
}
