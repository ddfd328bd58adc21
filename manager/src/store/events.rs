//! Events, each once.
//!
//! An event's number is its time and 19 bits of a hash of host and id; a number that another event
//! has goes to the next. So the same event of the same host finds itself, without an index of ids,
//! and a host cannot stand in another's way.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::LazyLock;

use sha2::{Digest, Sha256};
use sqlx::AssertSqlSafe;
use uuid::Uuid;

use super::index::Indexed;
use super::{Backend, StoreError, Tx, clean, column, failed, id_value, placeholders, places};

/// Bits of a number below the time.
const LOW: u32 = 19;
/// The last time that has a number (in the year 2248); the next number never overflows.
const LAST_MS: i64 = (1 << 43) - 1;
/// Rows of one statement.
const ROWS: usize = 256;
/// Rows of one statement for SQLite's index of words; five values each, of at most 32,766.
const TEXT_ROWS: usize = 6000;

/// A statement's text.
type Sql = Cow<'static, str>;
type Insert<'q> = sqlx::query::Query<'q, sqlx::Any, sqlx::any::AnyArguments>;

/// An event to be kept.
#[derive(Debug, Clone)]
pub struct NewEvent {
    /// The host's number.
    pub host: i64,
    /// The event's id.
    pub id: Uuid,
    /// When it happened, milliseconds since the epoch.
    pub time_ms: i64,
    /// What it is.
    pub kind: String,
    /// When it came.
    pub received_ms: i64,
    /// Its JSON.
    pub body: String,
    /// What is searched.
    pub indexed: Indexed,
}

/// Where an event came to lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Placed {
    /// Its number.
    pub number: i64,
    /// False when it was there already.
    pub new: bool,
}

/// The lowest number of a time, and the lowest of another, or above all.
#[must_use]
pub fn numbers(from_ms: i64, until_ms: i64) -> (i64, i64) {
    let until = if until_ms > LAST_MS { i64::MAX } else { until_ms.max(0) << LOW };
    (from_ms.clamp(0, LAST_MS) << LOW, until)
}

/// The time in a number.
#[must_use]
pub const fn time_of(number: i64) -> i64 {
    number >> LOW
}

/// The lowest number of a thing of this time or later.
#[must_use]
pub fn first_number(time_ms: i64) -> i64 {
    time_ms.clamp(0, LAST_MS) << LOW
}

/// The number where a thing of this time and these bytes is looked for first.
#[must_use]
pub fn number_of(time_ms: i64, owner: i64, id: Uuid) -> i64 {
    let mut hash = Sha256::new();
    hash.update(owner.to_be_bytes());
    hash.update(id.as_bytes());
    let hash = hash.finalize();
    let low = u32::from_be_bytes([hash[0], hash[1], hash[2], hash[3]]) >> (32 - LOW);
    time_ms.clamp(0, LAST_MS) << LOW | i64::from(low)
}

/// Keeps events; the answer is in their order.
///
/// # Errors
/// [`StoreError`]; drop the transaction then.
pub async fn events_insert(tx: &mut Tx, events: &[NewEvent]) -> Result<Vec<Placed>, StoreError> {
    if tx.backend() == Backend::Postgres && events.len() >= ROWS {
        // A plan for each call, as searches need it, would be made with all values in it.
        sqlx::raw_sql("SET LOCAL plan_cache_mode = force_generic_plan")
            .execute(tx.conn())
            .await
            .map_err(failed("store events"))?;
    }
    let mut placed: Vec<Option<Placed>> = vec![None; events.len()];
    // By number, which event of this call is to lie there.
    let mut wanted: HashMap<i64, usize> = HashMap::new();
    let mut open: Vec<(usize, i64)> = events
        .iter()
        .enumerate()
        .map(|(index, event)| (index, number_of(event.time_ms, event.host, event.id)))
        .collect();
    while !open.is_empty() {
        let mut moved = Vec::new();
        let mut free = Vec::new();
        for (index, number) in open {
            let event = &events[index];
            match wanted.get(&number).copied() {
                // Whether that one comes to lie there is known after this round. Passing by now
                // would be to pass by oneself, where it is this event that lies there.
                Some(other) if placed[other].is_none() => moved.push((index, number)),
                Some(other) if (events[other].host, events[other].id) == (event.host, event.id) => {
                    placed[index] = Some(Placed { number, new: false });
                }
                Some(_) => moved.push((index, number + 1)),
                None => {
                    wanted.insert(number, index);
                    free.push((index, number));
                }
            }
        }
        // In one order everywhere, so that two managers never wait for each other.
        free.sort_unstable_by_key(|(_, number)| *number);
        for (index, number) in insert(tx, events, &free).await? {
            placed[index] = Some(Placed { number, new: true });
        }
        // Who lies where there was no room: the same event, or another one.
        free.retain(|(index, _)| placed[*index].is_none());
        let taken = taken(tx, &free).await?;
        for (index, number) in free {
            let event = &events[index];
            match taken.get(&number) {
                Some(same) if *same == (event.host, event.id) => {
                    placed[index] = Some(Placed { number, new: false });
                }
                Some(_) => {
                    wanted.remove(&number);
                    moved.push((index, number + 1));
                }
                // It was removed in this moment.
                None => {
                    wanted.remove(&number);
                    moved.push((index, number));
                }
            }
        }
        open = moved;
    }
    placed
        .into_iter()
        .map(|placed| placed.ok_or(StoreError::corrupt("store events", "an event without place")))
        .collect()
}

/// Who lies at these numbers.
async fn taken(
    tx: &mut Tx,
    open: &[(usize, i64)],
) -> Result<HashMap<i64, (i64, Uuid)>, StoreError> {
    let mut found = HashMap::new();
    for chunk in open.chunks(ROWS) {
        // Statements of one length are prepared once: the rest is filled with the last number.
        let sql = format!(
            "SELECT number, host, id FROM events WHERE number IN ({})",
            places(tx.backend(), 1, ROWS)
        );
        let mut query = sqlx::query(AssertSqlSafe(sql));
        for row in 0..ROWS {
            query = query.bind(chunk[row.min(chunk.len() - 1)].1);
        }
        let rows = query.fetch_all(tx.conn()).await.map_err(failed("look events up"))?;
        for row in &rows {
            let number: i64 = column(row, "number")?;
            found.insert(number, (column(row, "host")?, super::id_column(row, "id")?));
        }
    }
    Ok(found)
}

/// Puts events at free numbers; those that found their place.
async fn insert(
    tx: &mut Tx,
    events: &[NewEvent],
    free: &[(usize, i64)],
) -> Result<Vec<(usize, i64)>, StoreError> {
    let mut done = Vec::with_capacity(free.len());
    for chunk in free.chunks(ROWS) {
        let placed = match tx.backend() {
            Backend::Sqlite => insert_sqlite(tx, events, chunk).await?,
            Backend::Postgres => insert_postgres(tx, events, chunk).await?,
        };
        done.extend(placed);
    }
    if tx.backend() == Backend::Sqlite {
        for chunk in done.chunks(TEXT_ROWS) {
            insert_text(tx, events, chunk).await?;
        }
    }
    Ok(done)
}

/// `(?, ?), (?, ?)`, as SQLite likes it best (see [`places`]).
fn rows(count: usize, columns: usize) -> String {
    let row = format!("({})", places(Backend::Sqlite, 1, columns));
    vec![row.as_str(); count].join(", ")
}

/// A statement for so many rows; the one for whole chunks is made once.
fn statement(count: usize, whole: &'static LazyLock<String>, make: fn(usize) -> String) -> Sql {
    if count == ROWS { Sql::Borrowed(whole.as_str()) } else { Sql::Owned(make(count)) }
}

static INSERT_SQLITE: LazyLock<String> = LazyLock::new(|| insert_sqlite_sql(ROWS));
static INSERT_POSTGRES: LazyLock<String> = LazyLock::new(|| insert_postgres_sql(ROWS));

fn insert_sqlite_sql(count: usize) -> String {
    format!(
        "INSERT INTO events (number, host, id, kind, received_ms, size, body) VALUES {} \
         ON CONFLICT (number) DO NOTHING",
        rows(count, 7)
    )
}

fn insert_text_sql(count: usize) -> String {
    format!(
        "INSERT INTO events_text (rowid, cmdline, path, other, facts) VALUES {}",
        rows(count, 5)
    )
}

fn insert_postgres_sql(count: usize) -> String {
    let values: Vec<_> = (0..count)
        .map(|row| {
            let first = row * 8 + 1;
            format!("({}, CAST(${} AS TEXT)::tsvector)", placeholders(first, 7), first + 7)
        })
        .collect();
    format!(
        "INSERT INTO events (number, host, id, kind, received_ms, size, body, words) VALUES {} \
         ON CONFLICT (number) DO NOTHING RETURNING number",
        values.join(", ")
    )
}

/// Each row that comes back wakes two threads, and most chunks find all places free: so which did
/// is asked only when some did not, of the same statement again.
async fn insert_sqlite(
    tx: &mut Tx,
    events: &[NewEvent],
    chunk: &[(usize, i64)],
) -> Result<Vec<(usize, i64)>, StoreError> {
    let (begin, undo, end) = ("SAVEPOINT places", "ROLLBACK TO places", "RELEASE places");
    let sql = statement(chunk.len(), &INSERT_SQLITE, insert_sqlite_sql);
    let bound = |sql: Sql, persistent| {
        let query = sqlx::query(AssertSqlSafe(sql)).persistent(persistent);
        chunk.iter().fold(query, |query, (index, number)| row(query, *number, &events[*index]))
    };
    plain(tx, begin).await?;
    let inserted = bound(sql.clone(), chunk.len() == ROWS).execute(tx.conn()).await;
    let inserted = inserted.map_err(failed("store events"))?.rows_affected();
    let done = if inserted == chunk.len() as u64 {
        chunk.to_vec()
    } else if inserted == 0 {
        Vec::new()
    } else {
        plain(tx, undo).await?;
        let again = Sql::Owned(format!("{sql} RETURNING number"));
        returned(bound(again, false).fetch_all(tx.conn()).await, chunk)?
    };
    plain(tx, end).await?;
    Ok(done)
}

async fn plain(tx: &mut Tx, sql: &'static str) -> Result<(), StoreError> {
    sqlx::query(sql).execute(tx.conn()).await.map(drop).map_err(failed("store events"))
}

/// Puts words into SQLite's index: in as few statements as can be, since each ends with a part of
/// the index being written out and put together with others.
async fn insert_text(
    tx: &mut Tx,
    events: &[NewEvent],
    done: &[(usize, i64)],
) -> Result<(), StoreError> {
    let mut query = sqlx::query(AssertSqlSafe(insert_text_sql(done.len()))).persistent(false);
    for (index, number) in done {
        let indexed = &events[*index].indexed;
        query = query
            .bind(*number)
            .bind(indexed.cmdline.as_str())
            .bind(indexed.path.as_str())
            .bind(indexed.other.as_str())
            .bind(indexed.facts.as_str());
    }
    query.execute(tx.conn()).await.map(drop).map_err(failed("index events"))
}

async fn insert_postgres(
    tx: &mut Tx,
    events: &[NewEvent],
    chunk: &[(usize, i64)],
) -> Result<Vec<(usize, i64)>, StoreError> {
    let sql = statement(chunk.len(), &INSERT_POSTGRES, insert_postgres_sql);
    let mut query = sqlx::query(AssertSqlSafe(sql)).persistent(chunk.len() == ROWS);
    for (index, number) in chunk {
        let event = &events[*index];
        query = row(query, *number, event).bind(event.indexed.tsvector());
    }
    returned(query.fetch_all(tx.conn()).await, chunk)
}

/// Which of a chunk found their place.
fn returned(
    rows: Result<Vec<sqlx::any::AnyRow>, sqlx::Error>,
    chunk: &[(usize, i64)],
) -> Result<Vec<(usize, i64)>, StoreError> {
    let rows = rows.map_err(failed("store events"))?;
    let by_number: HashMap<i64, usize> =
        chunk.iter().map(|(index, number)| (*number, *index)).collect();
    let mut done = Vec::with_capacity(rows.len());
    for row in &rows {
        let number: i64 = column(row, "number")?;
        if let Some(index) = by_number.get(&number) {
            done.push((*index, number));
        }
    }
    Ok(done)
}

/// The seven columns that both databases have.
fn row<'q>(query: Insert<'q>, number: i64, event: &NewEvent) -> Insert<'q> {
    query
        .bind(number)
        .bind(event.host)
        .bind(id_value(event.id))
        .bind(clean(&event.kind))
        .bind(event.received_ms)
        .bind(size(event))
        .bind(clean(&event.body))
}

fn size(event: &NewEvent) -> i64 {
    i64::try_from(event.body.len()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_order_by_time_and_give_it_back() {
        let id = Uuid::now_v7();
        let early = number_of(1_000, 1, id);
        assert!(early < number_of(1_001, 1, id) && time_of(early) == 1_000);
        assert_eq!(early, number_of(1_000, 1, id));
        assert_eq!(time_of(number_of(-5, 1, id)), 0);
        assert_eq!(time_of(number_of(i64::MAX, 1, id)), LAST_MS);
        let (from, until) = numbers(1_000, 1_001);
        assert!(from <= early && early < until);
    }
}
