//! Events, each once.
//!
//! An event's number comes of its time, host and id (`numbers.rs`), and a number that another event
//! has goes to the next. So the same event of the same host finds itself, without an index of ids,
//! and a host cannot stand in another's way.

use std::borrow::{Borrow, Cow};
use std::collections::{HashMap, HashSet};
use std::fmt::Write;
use std::sync::LazyLock;

use sqlx::AssertSqlSafe;
use uuid::Uuid;

use super::index::Indexed;
use super::numbers::number_of;
use super::{Backend, StoreError, Tx, clean, column, failed, id_value, places};

/// Rows of one statement.
const ROWS: usize = 256;
const ROWS_POSTGRES: usize = 1024;
/// Rows of one statement for SQLite's index of words; five values each, of at most 32,766.
const TEXT_ROWS: usize = 6000;

/// Parts the values of a column in what PostgreSQL gets. No JSON has it but escaped.
const SEPARATOR: char = '\u{1e}';

/// A statement's text.
type Sql = Cow<'static, str>;
type Insert = sqlx::query::Query<'static, sqlx::Any, sqlx::any::AnyArguments>;

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

/// Keeps events; the answer is in their order.
///
/// # Errors
/// [`StoreError`]; drop the transaction then.
pub async fn events_insert(
    tx: &mut Tx,
    events: &[impl Borrow<NewEvent> + Sync],
) -> Result<Vec<Placed>, StoreError> {
    if tx.backend() == Backend::Postgres && events.len() >= ROWS {
        // A plan for each call, as searches need it, would be made with all values in it.
        sqlx::raw_sql("SET LOCAL plan_cache_mode = force_generic_plan")
            .execute(tx.conn())
            .await
            .map_err(failed("store events"))?;
    }
    let events: Vec<&NewEvent> = events.iter().map(Borrow::borrow).collect();
    let events = events.as_slice();
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
            let event = events[index];
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
            let event = events[index];
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

/// Puts events at free numbers; those that found their place. The next statement is made while the
/// database works on one.
async fn insert(
    tx: &mut Tx,
    events: &[&NewEvent],
    free: &[(usize, i64)],
) -> Result<Vec<(usize, i64)>, StoreError> {
    match tx.backend() {
        Backend::Sqlite => {
            let done = insert_sqlite(tx, events, free).await?;
            for chunk in done.chunks(TEXT_ROWS) {
                insert_text(tx, events, chunk).await?;
            }
            Ok(done)
        }
        Backend::Postgres => insert_postgres(tx, events, free).await,
    }
}

/// `(?, ?), (?, ?)`, as SQLite likes it best (see [`places`]).
fn rows(count: usize, columns: usize) -> String {
    let row = format!("({})", places(Backend::Sqlite, 1, columns));
    vec![row.as_str(); count].join(", ")
}

static INSERT_SQLITE: LazyLock<String> = LazyLock::new(|| insert_sqlite_sql(ROWS));

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

/// The statement that is used all the time is made and prepared once.
fn statement_sqlite(events: &[&NewEvent], chunk: &[(usize, i64)], more: &str) -> Insert {
    let whole = chunk.len() == ROWS && more.is_empty();
    let sql = if whole {
        Sql::Borrowed(INSERT_SQLITE.as_str())
    } else {
        Sql::Owned(insert_sqlite_sql(chunk.len()) + more)
    };
    let query = sqlx::query(AssertSqlSafe(sql)).persistent(whole);
    chunk.iter().fold(query, |query, (index, number)| {
        let event = events[*index];
        query
            .bind(*number)
            .bind(event.host)
            .bind(id_value(event.id))
            .bind(clean(&event.kind))
            .bind(event.received_ms)
            .bind(size(event))
            .bind(clean(&event.body))
    })
}

/// Each row that comes back wakes two threads, and most chunks find all places free: so which did
/// is asked only when some did not, of the same statement again.
async fn insert_sqlite(
    tx: &mut Tx,
    events: &[&NewEvent],
    free: &[(usize, i64)],
) -> Result<Vec<(usize, i64)>, StoreError> {
    let (begin, undo, end) = ("SAVEPOINT places", "ROLLBACK TO places", "RELEASE places");
    let mut done = Vec::with_capacity(free.len());
    let mut chunks = free.chunks(ROWS);
    let mut make = || chunks.next().map(|chunk| (chunk, statement_sqlite(events, chunk, "")));
    let mut next = make();
    while let Some((chunk, query)) = next {
        plain(tx, begin).await?;
        let inserted;
        (inserted, next) = tokio::join!(query.execute(tx.conn()), async { make() });
        let inserted = inserted.map_err(failed("store events"))?.rows_affected();
        if inserted == chunk.len() as u64 {
            done.extend_from_slice(chunk);
        } else if inserted > 0 {
            plain(tx, undo).await?;
            let again = statement_sqlite(events, chunk, " RETURNING number");
            let rows = again.fetch_all(tx.conn()).await.map_err(failed("store events"))?;
            let numbers = rows.iter().map(|row| column(row, "number"));
            done.extend(placed(numbers.collect::<Result<_, _>>()?, chunk));
        }
        plain(tx, end).await?;
    }
    Ok(done)
}

async fn plain(tx: &mut Tx, sql: &'static str) -> Result<(), StoreError> {
    sqlx::query(sql).execute(tx.conn()).await.map(drop).map_err(failed("store events"))
}

/// Puts words into SQLite's index: in as few statements as can be, since each ends with a part of
/// the index being written out and put together with others.
async fn insert_text(
    tx: &mut Tx,
    events: &[&NewEvent],
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

/// A column is one text of all its values: thousands of parameters, and a list of values to be
/// planned, would take the server a third of its time.
const INSERT_POSTGRES: &str = "WITH done AS (\
     INSERT INTO events (number, host, id, kind, received_ms, size, body, words) \
     SELECT number, host, decode(id, 'hex'), COALESCE(kind, ''), received_ms, size, \
     COALESCE(body, ''), COALESCE(words, '')::tsvector FROM (SELECT \
     unnest(string_to_array(CAST($1 AS TEXT), chr(30))::bigint[]) AS number, \
     unnest(string_to_array(CAST($2 AS TEXT), chr(30))::bigint[]) AS host, \
     unnest(string_to_array(CAST($3 AS TEXT), chr(30))) AS id, \
     unnest(string_to_array(CAST($4 AS TEXT), chr(30))) AS kind, \
     unnest(string_to_array(CAST($5 AS TEXT), chr(30))::bigint[]) AS received_ms, \
     unnest(string_to_array(CAST($6 AS TEXT), chr(30))::bigint[]) AS size, \
     unnest(string_to_array(CAST($7 AS TEXT), chr(30))) AS body, \
     unnest(string_to_array(CAST($8 AS TEXT), chr(30))) AS words) AS come \
     ON CONFLICT (number) DO NOTHING RETURNING number) \
     SELECT string_agg(CAST(number AS TEXT), ' ') AS numbers FROM done";

fn statement_postgres(events: &[&NewEvent], chunk: &[(usize, i64)]) -> Insert {
    let mut columns: [String; 8] = Default::default();
    let bytes: usize = chunk.iter().map(|(index, _)| events[*index].body.len() + 1).sum();
    columns[6].reserve(bytes);
    for (index, number) in chunk {
        let event = events[*index];
        if !columns[0].is_empty() {
            columns.iter_mut().for_each(|column| column.push(SEPARATOR));
        }
        let [numbers, hosts, ids, kinds, received, sizes, bodies, words] = &mut columns;
        // Writing to memory does not fail.
        let _ = write!(numbers, "{number}");
        let _ = write!(hosts, "{}", event.host);
        let _ = write!(ids, "{}", event.id.as_simple());
        separable(kinds, &event.kind);
        let _ = write!(received, "{}", event.received_ms);
        let _ = write!(sizes, "{}", size(event));
        separable(bodies, &event.body);
        event.indexed.tsvector(words);
    }
    columns.into_iter().fold(sqlx::query(INSERT_POSTGRES), |query, column| query.bind(column))
}

/// Adds a text to its column. INVARIANT: what is added has no separator, whatever came, so that no
/// event gets another's values.
fn separable(column: &mut String, text: &str) {
    let bytes = text.as_bytes();
    if bytes.contains(&0) || bytes.contains(&(SEPARATOR as u8)) {
        column.push_str(&text.replace(['\0', SEPARATOR], "\u{fffd}"));
    } else {
        column.push_str(text);
    }
}

async fn insert_postgres(
    tx: &mut Tx,
    events: &[&NewEvent],
    free: &[(usize, i64)],
) -> Result<Vec<(usize, i64)>, StoreError> {
    let mut done = Vec::with_capacity(free.len());
    let mut chunks = free.chunks(ROWS_POSTGRES);
    let mut make = || chunks.next().map(|chunk| (chunk, statement_postgres(events, chunk)));
    let mut next = make();
    while let Some((chunk, query)) = next {
        let row;
        (row, next) = tokio::join!(query.fetch_one(tx.conn()), async { make() });
        let row = row.map_err(failed("store events"))?;
        let numbers: Option<String> = column(&row, "numbers")?;
        let numbers = numbers.unwrap_or_default();
        let numbers: Result<Vec<i64>, _> =
            numbers.split(' ').filter(|n| !n.is_empty()).map(str::parse).collect();
        let numbers = numbers.map_err(|error| StoreError::corrupt("store events", error))?;
        done.extend(placed(numbers, chunk));
    }
    Ok(done)
}

/// Which of a chunk found their place.
fn placed(numbers: Vec<i64>, chunk: &[(usize, i64)]) -> Vec<(usize, i64)> {
    if numbers.len() == chunk.len() {
        return chunk.to_vec();
    }
    let numbers: HashSet<i64> = numbers.into_iter().collect();
    chunk.iter().copied().filter(|(_, number)| numbers.contains(number)).collect()
}

fn size(event: &NewEvent) -> i64 {
    i64::try_from(event.body.len()).unwrap_or(i64::MAX)
}
