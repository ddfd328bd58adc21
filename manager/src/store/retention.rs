//! What goes when: events by kind, in days and bytes; PostgreSQL's partitions.

use sqlx::AssertSqlSafe;

use super::numbers::{numbers, time_of};
use super::{Backend, Store, StoreError, Tx, column, failed, places};

/// Milliseconds of a day.
pub const DAY_MS: i64 = 86_400_000;
/// Rows of one transaction.
pub const ROWS: i64 = 2_000;
/// Key of the lock for partitions.
const LOCK: i64 = 0x6461_7973;

/// What is kept of a kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KindTotal {
    /// The kind.
    pub kind: String,
    /// Its events.
    pub events: i64,
    /// Their bytes.
    pub bytes: i64,
}

/// Counts events of a day and kind.
///
/// # Errors
/// [`StoreError`]
pub async fn totals_add(
    tx: &mut Tx,
    day: i64,
    kind: &str,
    writer: i64,
    events: i64,
    bytes: i64,
) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO event_totals (day, kind, writer, events, bytes) VALUES ($1, $2, $3, $4, $5) \
         ON CONFLICT (kind, day, writer) DO UPDATE SET \
         events = event_totals.events + excluded.events, \
         bytes = event_totals.bytes + excluded.bytes",
    )
    .bind(day)
    .bind(super::clean(kind))
    .bind(writer)
    .bind(events)
    .bind(bytes)
    .execute(tx.conn())
    .await
    .map_err(failed("count events"))?;
    Ok(())
}

/// Removes the oldest events of a kind that lie before a number, at most [`ROWS`]; how many, and
/// their bytes.
///
/// # Errors
/// [`StoreError`]
pub async fn events_remove(
    tx: &mut Tx,
    kind: &str,
    before: i64,
    writer: i64,
) -> Result<(i64, i64), StoreError> {
    let rows = sqlx::query(
        "SELECT number, size FROM events WHERE kind = $1 AND number < $2 ORDER BY number LIMIT $3",
    )
    .bind(super::clean(kind))
    .bind(before)
    .bind(ROWS)
    .fetch_all(tx.conn())
    .await
    .map_err(failed("look for old events"))?;
    let mut found = Vec::with_capacity(rows.len());
    for row in &rows {
        found.push((column::<i64>(row, "number")?, column::<i64>(row, "size")?));
    }
    for chunk in found.chunks(500) {
        remove(tx, "DELETE FROM alert_events WHERE event IN", chunk).await?;
        if tx.backend() == Backend::Sqlite {
            remove(tx, "DELETE FROM events_text WHERE rowid IN", chunk).await?;
        }
        remove(tx, "DELETE FROM events WHERE number IN", chunk).await?;
    }
    let mut at = 0;
    while let Some((number, _)) = found.get(at) {
        let day = time_of(*number).div_euclid(DAY_MS);
        let same = found[at..].iter().take_while(|(n, _)| time_of(*n).div_euclid(DAY_MS) == day);
        let (count, bytes) = same.fold((0, 0), |(n, sum), (_, size)| (n + 1, sum + size));
        totals_add(tx, day, kind, writer, -count, -bytes).await?;
        at += usize::try_from(count).unwrap_or(usize::MAX);
    }
    let bytes = found.iter().map(|(_, size)| size).sum();
    Ok((i64::try_from(found.len()).unwrap_or(i64::MAX), bytes))
}

async fn remove(tx: &mut Tx, sql: &str, rows: &[(i64, i64)]) -> Result<(), StoreError> {
    let sql = format!("{sql} ({})", places(tx.backend(), 1, rows.len()));
    let mut query = sqlx::query(AssertSqlSafe(sql)).persistent(rows.len() == 500);
    for (number, _) in rows {
        query = query.bind(*number);
    }
    query.execute(tx.conn()).await.map_err(failed("remove old events"))?;
    Ok(())
}

/// Makes the partitions of these days (days since the epoch) where they are missing; what already
/// lies in `events_other` moves over. Nothing on SQLite.
///
/// # Errors
/// [`StoreError`]
pub async fn partitions_make(tx: &mut Tx, days: &[i64]) -> Result<(), StoreError> {
    if tx.backend() == Backend::Sqlite {
        return Ok(());
    }
    sqlx::query("SELECT pg_advisory_xact_lock($1)")
        .bind(LOCK)
        .execute(tx.conn())
        .await
        .map_err(failed("lock the partitions"))?;
    for day in days {
        let there = sqlx::query(
            "SELECT COUNT(*) AS n FROM pg_class WHERE relname = $1 \
             AND relnamespace = current_schema()::regnamespace",
        )
        .bind(format!("events_{day}"))
        .fetch_one(tx.conn())
        .await
        .map_err(failed("look for a partition"))?;
        if column::<i64>(&there, "n")? > 0 {
            continue;
        }
        let (from, until) = numbers(day * DAY_MS, (day + 1) * DAY_MS);
        // Numbers only.
        let sql = format!(
            "CREATE TABLE events_{day} (LIKE events INCLUDING ALL); \
             WITH moved AS (DELETE FROM events_other WHERE number >= {from} AND number < {until} \
             RETURNING *) INSERT INTO events_{day} SELECT * FROM moved; \
             ALTER TABLE events ATTACH PARTITION events_{day} \
             FOR VALUES FROM ({from}) TO ({until});"
        );
        sqlx::raw_sql(AssertSqlSafe(sql))
            .execute(tx.conn())
            .await
            .map_err(failed("make a partition"))?;
    }
    Ok(())
}

/// Drops partitions of days before this one that are empty; their number.
///
/// # Errors
/// [`StoreError`]
pub async fn partitions_drop(tx: &mut Tx, before_day: i64) -> Result<usize, StoreError> {
    if tx.backend() == Backend::Sqlite {
        return Ok(0);
    }
    let rows = sqlx::query(
        "SELECT CAST(c.relname AS TEXT) AS name FROM pg_inherits i \
         JOIN pg_class c ON c.oid = i.inhrelid WHERE i.inhparent = 'events'::regclass",
    )
    .fetch_all(tx.conn())
    .await
    .map_err(failed("list partitions"))?;
    let mut dropped = 0;
    for row in &rows {
        let name: String = column(row, "name")?;
        let Some(day) = name.strip_prefix("events_").and_then(|day| day.parse::<i64>().ok()) else {
            continue;
        };
        if day >= before_day {
            continue;
        }
        let used = sqlx::query(AssertSqlSafe(format!(
            "SELECT COUNT(*) AS n FROM (SELECT 1 FROM events_{day} LIMIT 1) one_row"
        )))
        .fetch_one(tx.conn())
        .await
        .map_err(failed("look into a partition"))?;
        if column::<i64>(&used, "n")? == 0 {
            sqlx::raw_sql(AssertSqlSafe(format!("DROP TABLE events_{day}")))
                .execute(tx.conn())
                .await
                .map_err(failed("drop a partition"))?;
            dropped += 1;
        }
    }
    Ok(dropped)
}

impl Store {
    /// What is kept of each kind.
    ///
    /// # Errors
    /// [`StoreError`]
    pub async fn kind_totals(&self) -> Result<Vec<KindTotal>, StoreError> {
        let rows = sqlx::query(
            "SELECT kind, CAST(SUM(events) AS BIGINT) AS events, \
             CAST(SUM(bytes) AS BIGINT) AS bytes FROM event_totals GROUP BY kind ORDER BY kind",
        )
        .fetch_all(&self.readers)
        .await
        .map_err(failed("add events up"))?;
        rows.iter()
            .map(|row| {
                Ok(KindTotal {
                    kind: column(row, "kind")?,
                    events: column(row, "events")?,
                    bytes: column(row, "bytes")?,
                })
            })
            .collect()
    }
}
