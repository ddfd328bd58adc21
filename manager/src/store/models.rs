//! What hosts say of their detection models, each distinct answer once.

use uuid::Uuid;

use super::{Store, StoreError, Tx, clean, column, failed, id_value};

/// One answer, and how many hosts gave it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelSet {
    /// JSON, as it was noted.
    pub body: String,
    /// Hosts that are not revoked.
    pub hosts: i64,
}

/// Notes what the host of this stream says. Nothing when the stream is not the host's any more.
///
/// # Errors
/// [`StoreError`]
pub async fn models_note(
    tx: &mut Tx,
    session: Uuid,
    hash: &[u8],
    body: &str,
    now_ms: i64,
) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO model_sets (hash, body, seen_ms) VALUES ($1, $2, $3) \
         ON CONFLICT (hash) DO UPDATE SET seen_ms = excluded.seen_ms",
    )
    .bind(hash.to_vec())
    .bind(clean(body))
    .bind(now_ms)
    .execute(tx.conn())
    .await
    .map_err(failed("keep what a host says of its models"))?;
    sqlx::query("UPDATE hosts SET models = $1 WHERE session = $2 AND revoked_ms IS NULL")
        .bind(hash.to_vec())
        .bind(id_value(session))
        .execute(tx.conn())
        .await
        .map_err(failed("keep what a host says of its models"))?;
    Ok(())
}

/// Removes answers that no host gives and that were last noted before then.
///
/// # Errors
/// [`StoreError`]
pub async fn models_forget(tx: &mut Tx, before_ms: i64) -> Result<u64, StoreError> {
    let done = sqlx::query(
        "DELETE FROM model_sets WHERE seen_ms < $1 AND NOT EXISTS \
         (SELECT 1 FROM hosts h WHERE h.models = model_sets.hash)",
    )
    .bind(before_ms)
    .execute(tx.conn())
    .await
    .map_err(failed("forget what no host says of its models"))?;
    Ok(done.rows_affected())
}

impl Store {
    /// The hash of what the host of this stream said last.
    ///
    /// # Errors
    /// [`StoreError`]
    pub async fn models_noted(&self, session: Uuid) -> Result<Option<Vec<u8>>, StoreError> {
        let row = sqlx::query("SELECT models FROM hosts WHERE session = $1")
            .bind(id_value(session))
            .fetch_optional(&self.readers)
            .await
            .map_err(failed("read what a host says of its models"))?;
        row.map_or(Ok(None), |row| column(&row, "models"))
    }

    /// All answers.
    ///
    /// # Errors
    /// [`StoreError`]
    pub async fn model_sets(&self) -> Result<Vec<ModelSet>, StoreError> {
        let rows = sqlx::query(
            "SELECT m.body AS body, c.hosts AS hosts FROM model_sets m JOIN \
             (SELECT models, COUNT(*) AS hosts FROM hosts \
             WHERE models IS NOT NULL AND revoked_ms IS NULL GROUP BY models) c \
             ON c.models = m.hash",
        )
        .fetch_all(&self.readers)
        .await
        .map_err(failed("count what hosts say of their models"))?;
        rows.iter()
            .map(|row| Ok(ModelSet { body: column(row, "body")?, hosts: column(row, "hosts")? }))
            .collect()
    }
}
