//! What lies in the hosts' quarantines.
//!
//! Invariant: events come in any order and more than once; the same ones lead to the same row.

use sqlx::any::AnyRow;
use uuid::Uuid;

use super::numbers::{free_number, number_of};
use super::{Store, StoreError, Tx, clean, column, failed, id_column, id_value};

/// What an event tells of an item.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ItemNews {
    /// The host's number.
    pub host: i64,
    /// The item.
    pub item: Uuid,
    /// Where the file was, or is again.
    pub path: String,
    /// SHA-256 of its content.
    pub sha256: String,
    /// When it happened, by the host's clock.
    pub time_ms: i64,
    /// What it was.
    pub what: ItemChange,
}

/// What happened to an item.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ItemChange {
    /// It was sealed.
    Sealed {
        /// Bytes.
        size: i64,
        /// MD5 of its content.
        md5: String,
        /// What matched.
        signature: String,
    },
    /// `restored`, `restored_and_allowed` or `deleted`.
    Left(&'static str),
}

/// An item.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuarantineItem {
    /// Its place; orders by the time it was first told of.
    pub number: i64,
    /// The host.
    pub host: Uuid,
    /// Its name.
    pub host_name: String,
    /// Its id there.
    pub item: Uuid,
    /// Where the file was, or is again.
    pub path: String,
    /// Bytes; 0 as long as the detection has not come.
    pub size: i64,
    /// SHA-256 of its content.
    pub sha256: String,
    /// MD5 of its content.
    pub md5: String,
    /// What matched.
    pub signature: String,
    /// The detection's event.
    pub event: Option<i64>,
    /// When it was sealed, by the host's clock.
    pub sealed_ms: i64,
    /// `held`, `restored`, `restored_and_allowed` or `deleted`.
    pub state: String,
    /// Since when.
    pub state_ms: i64,
}

/// Which items.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ItemFilter {
    /// Of this host.
    pub host: Option<Uuid>,
    /// In this state.
    pub state: Option<String>,
    /// With this content.
    pub sha256: Option<String>,
    /// Below this number.
    pub before: Option<i64>,
    /// At most so many.
    pub limit: u32,
}

/// Keeps what an event at `number` tells of an item.
///
/// # Errors
/// [`StoreError`]
pub async fn item_note(
    tx: &mut Tx,
    news: &ItemNews,
    number: i64,
    now_ms: i64,
) -> Result<(), StoreError> {
    let (state, size, md5, signature, event) = match &news.what {
        ItemChange::Sealed { size, md5, signature } => {
            ("held", *size, md5.as_str(), signature.as_str(), Some(number))
        }
        ItemChange::Left(state) => (*state, 0, "", "", None),
    };
    // The first detection says what was sealed; the last of what was done with it is its state, and
    // being sealed, which comes before all of that, never is the later news.
    let update = if event.is_some() {
        "path = CASE WHEN quarantine_items.state = 'held' THEN excluded.path \
         ELSE quarantine_items.path END, \
         size = excluded.size, md5 = excluded.md5, signature = excluded.signature, \
         event = excluded.event, sealed_ms = excluded.sealed_ms \
         WHERE quarantine_items.event IS NULL"
    } else {
        "path = excluded.path, state = excluded.state, state_ms = excluded.state_ms \
         WHERE quarantine_items.state = 'held' OR quarantine_items.state_ms < excluded.state_ms"
    };
    let sql = format!(
        "INSERT INTO quarantine_items (number, host, item, path, size, sha256, md5, signature, \
         event, sealed_ms, state, state_ms) \
         VALUES ({number}, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $10) \
         ON CONFLICT (host, item) DO UPDATE SET {update}",
        number = free_number("quarantine_items"),
    );
    sqlx::query(sqlx::AssertSqlSafe(sql))
        .bind(number_of(now_ms, news.host, news.item))
        .bind(news.host)
        .bind(id_value(news.item))
        .bind(clean(&news.path))
        .bind(size)
        .bind(clean(&news.sha256))
        .bind(clean(md5))
        .bind(clean(signature))
        .bind(event)
        .bind(news.time_ms)
        .bind(state)
        .execute(tx.conn())
        .await
        .map_err(failed("note a quarantine item"))?;
    Ok(())
}

/// Forgets items that left quarantine before a time; how many.
///
/// # Errors
/// [`StoreError`]
pub async fn items_forget(tx: &mut Tx, before_ms: i64) -> Result<u64, StoreError> {
    let done = sqlx::query("DELETE FROM quarantine_items WHERE state <> 'held' AND state_ms < $1")
        .bind(before_ms)
        .execute(tx.conn())
        .await
        .map_err(failed("forget quarantine items"))?;
    Ok(done.rows_affected())
}

const SELECT: &str = "SELECT q.number, q.item, q.path, q.size, q.sha256, q.md5, q.signature, \
                      q.event, q.sealed_ms, q.state, q.state_ms, h.id AS host_id, \
                      h.name AS host_name \
                      FROM quarantine_items q JOIN hosts h ON h.number = q.host";

impl Store {
    /// Items, newest first.
    ///
    /// # Errors
    /// [`StoreError`]
    pub async fn item_list(&self, filter: &ItemFilter) -> Result<Vec<QuarantineItem>, StoreError> {
        let mut sql = format!("{SELECT} WHERE q.number < $1");
        let mut next = 2;
        for (column, is_asked) in [
            ("h.id", filter.host.is_some()),
            ("q.state", filter.state.is_some()),
            ("q.sha256", filter.sha256.is_some()),
        ] {
            if is_asked {
                sql.push_str(&format!(" AND {column} = ${next}"));
                next += 1;
            }
        }
        sql.push_str(&format!(" ORDER BY q.number DESC LIMIT ${next}"));
        let mut query = sqlx::query(sqlx::AssertSqlSafe(sql));
        query = query.bind(filter.before.unwrap_or(i64::MAX));
        if let Some(host) = filter.host {
            query = query.bind(id_value(host));
        }
        for text in [&filter.state, &filter.sha256].into_iter().flatten() {
            query = query.bind(clean(text));
        }
        let rows = query
            .bind(i64::from(filter.limit))
            .fetch_all(&self.readers)
            .await
            .map_err(failed("list quarantine items"))?;
        rows.iter().map(item).collect()
    }

    /// One item.
    ///
    /// # Errors
    /// [`StoreError`]
    pub async fn item_get(
        &self,
        host: Uuid,
        id: Uuid,
    ) -> Result<Option<QuarantineItem>, StoreError> {
        let sql = format!("{SELECT} WHERE h.id = $1 AND q.item = $2");
        let row = sqlx::query(sqlx::AssertSqlSafe(sql))
            .bind(id_value(host))
            .bind(id_value(id))
            .fetch_optional(&self.readers)
            .await
            .map_err(failed("find a quarantine item"))?;
        row.as_ref().map(item).transpose()
    }
}

fn item(row: &AnyRow) -> Result<QuarantineItem, StoreError> {
    Ok(QuarantineItem {
        number: column(row, "number")?,
        host: id_column(row, "host_id")?,
        host_name: column(row, "host_name")?,
        item: id_column(row, "item")?,
        path: column(row, "path")?,
        size: column(row, "size")?,
        sha256: column(row, "sha256")?,
        md5: column(row, "md5")?,
        signature: column(row, "signature")?,
        event: column(row, "event")?,
        sealed_ms: column(row, "sealed_ms")?,
        state: column(row, "state")?,
        state_ms: column(row, "state_ms")?,
    })
}
