//! Where alerts are told: channels.
//!
//! Invariant: a manager delivers for a channel only while it holds the channel's lease. Secrets
//! are sealed before they come here. What waits is `deliveries`'.

use sqlx::any::AnyRow;
use uuid::Uuid;

use super::deliveries::deliveries_hasten;
use super::{Backend, Store, StoreError, Tx, clean, column, failed, id_column, id_value};

/// A channel: one place where alerts are told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Channel {
    /// Its id.
    pub id: Uuid,
    /// For people; unique.
    pub name: String,
    /// What kind, and where to, as JSON. Without secrets.
    pub config: String,
    /// The sealed secret.
    pub secret: Option<Vec<u8>>,
    /// Whether detections are queued for it, and told.
    pub enabled: bool,
    /// Lowest level, see [`level_number`].
    pub min_level: i64,
    /// How long alerts of one host and model are gathered, milliseconds.
    pub window_ms: i64,
    /// When it was made.
    pub created_ms: i64,
    /// When it was last changed by people.
    pub changed_ms: i64,
    /// Not before this.
    pub next_ms: i64,
    /// Failed deliveries in a row.
    pub failures: i64,
    /// What went wrong last; empty when nothing did.
    pub error: String,
    /// When it went wrong.
    pub error_ms: Option<i64>,
    /// When a message was last taken.
    pub sent_ms: Option<i64>,
    /// Messages that were taken.
    pub messages: i64,
    /// Detections that they told of.
    pub detections: i64,
    /// Group key of the alert that says that it fails.
    pub alarm: Option<Vec<u8>>,
}

/// What waits for a channel.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Waiting {
    /// Alerts.
    pub alerts: i64,
    /// Detections.
    pub detections: i64,
}

/// Levels in their order; what is unknown counts as `high`.
#[must_use]
pub fn level_number(level: &str) -> i64 {
    match level {
        "informational" => 0,
        "low" => 1,
        "medium" => 2,
        "critical" => 4,
        _ => 3,
    }
}

/// Adds a channel. False when the name is taken.
///
/// # Errors
/// [`StoreError`]
pub async fn channel_insert(tx: &mut Tx, channel: &Channel) -> Result<bool, StoreError> {
    let done = sqlx::query(
        "INSERT INTO notifications (id, name, config, secret, enabled, min_level, window_ms, \
         created_ms, changed_ms, next_ms, failures, error, messages, detections, lease, lease_ms) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $8, 0, 0, '', 0, 0, 0, 0) \
         ON CONFLICT DO NOTHING",
    )
    .bind(id_value(channel.id))
    .bind(clean(&channel.name))
    .bind(clean(&channel.config))
    .bind(channel.secret.clone())
    .bind(i64::from(channel.enabled))
    .bind(channel.min_level)
    .bind(channel.window_ms)
    .bind(channel.created_ms)
    .execute(tx.conn())
    .await
    .map_err(failed("add a notification channel"))?;
    Ok(done.rows_affected() == 1)
}

/// Changes what people can change. What waits is tried at once. False when there is no such
/// channel or another has the name.
///
/// # Errors
/// [`StoreError`]
pub async fn channel_update(tx: &mut Tx, channel: &Channel) -> Result<bool, StoreError> {
    let done = sqlx::query(
        "UPDATE notifications SET name = $1, config = $2, secret = $3, enabled = $4, \
         min_level = $5, window_ms = $6, changed_ms = $7, next_ms = 0 WHERE id = $8 \
         AND NOT EXISTS (SELECT 1 FROM notifications o WHERE o.name = $1 AND o.id <> $8)",
    )
    .bind(clean(&channel.name))
    .bind(clean(&channel.config))
    .bind(channel.secret.clone())
    .bind(i64::from(channel.enabled))
    .bind(channel.min_level)
    .bind(channel.window_ms)
    .bind(channel.changed_ms)
    .bind(id_value(channel.id))
    .execute(tx.conn())
    .await
    .map_err(failed("change a notification channel"))?;
    if done.rows_affected() == 1 {
        deliveries_hasten(tx, channel.id, true).await?;
    }
    Ok(done.rows_affected() == 1)
}

/// Removes a channel and what waits for it: that.
///
/// # Errors
/// [`StoreError`]
pub async fn channel_delete(tx: &mut Tx, id: Uuid) -> Result<Waiting, StoreError> {
    let operation = "remove a notification channel";
    if tx.backend() == Backend::Postgres {
        // Who counts detections for it in this moment is done first.
        sqlx::query("SELECT id FROM notifications WHERE id = $1 FOR UPDATE")
            .bind(id_value(id))
            .fetch_optional(tx.conn())
            .await
            .map_err(failed(operation))?;
    }
    let row = sqlx::query(
        "SELECT COUNT(*) AS alerts, CAST(COALESCE(SUM(count), 0) AS BIGINT) AS detections \
         FROM notification_queue WHERE channel = $1",
    )
    .bind(id_value(id))
    .fetch_one(tx.conn())
    .await
    .map_err(failed(operation))?;
    for sql in [
        "DELETE FROM notification_queue WHERE channel = $1",
        "DELETE FROM notification_deliveries WHERE channel = $1",
        "DELETE FROM notifications WHERE id = $1",
    ] {
        sqlx::query(sql).bind(id_value(id)).execute(tx.conn()).await.map_err(failed(operation))?;
    }
    waiting(&row)
}

fn waiting(row: &AnyRow) -> Result<Waiting, StoreError> {
    Ok(Waiting { alerts: column(row, "alerts")?, detections: column(row, "detections")? })
}

/// Takes or keeps a channel for this manager until a time, and reads it. Nothing when another
/// manager has it, or it is to rest. On SQLite there is one manager only: an old lease is its own.
///
/// # Errors
/// [`StoreError`]
pub async fn channel_lease(
    tx: &mut Tx,
    id: Uuid,
    instance: i64,
    now_ms: i64,
    until_ms: i64,
) -> Result<Option<Channel>, StoreError> {
    let alone = i64::from(tx.backend() == Backend::Sqlite);
    let row = sqlx::query(
        "UPDATE notifications SET lease = $1, lease_ms = $2 WHERE id = $3 AND enabled = 1 \
         AND next_ms <= $4 AND (lease = $1 OR lease_ms < $4 OR CAST($5 AS BIGINT) = 1) \
         RETURNING *",
    )
    .bind(instance)
    .bind(until_ms)
    .bind(id_value(id))
    .bind(now_ms)
    .bind(alone)
    .fetch_optional(tx.conn())
    .await
    .map_err(failed("lease a notification channel"))?;
    row.as_ref().map(channel).transpose()
}

/// Remembers which alert says that a channel fails.
///
/// # Errors
/// [`StoreError`]
pub async fn alarm_set(
    tx: &mut Tx,
    channel: Uuid,
    alarm: Option<Vec<u8>>,
) -> Result<(), StoreError> {
    sqlx::query("UPDATE notifications SET alarm = $1 WHERE id = $2")
        .bind(alarm)
        .bind(id_value(channel))
        .execute(tx.conn())
        .await
        .map_err(failed("remember an alert"))?;
    Ok(())
}

impl Store {
    /// All channels, by name.
    ///
    /// # Errors
    /// [`StoreError`]
    pub async fn channel_list(&self) -> Result<Vec<Channel>, StoreError> {
        let rows = sqlx::query("SELECT * FROM notifications ORDER BY name")
            .fetch_all(&self.readers)
            .await
            .map_err(failed("list notification channels"))?;
        rows.iter().map(channel).collect()
    }

    /// A channel.
    ///
    /// # Errors
    /// [`StoreError`]
    pub async fn channel_get(&self, id: Uuid) -> Result<Option<Channel>, StoreError> {
        let row = sqlx::query("SELECT * FROM notifications WHERE id = $1")
            .bind(id_value(id))
            .fetch_optional(&self.readers)
            .await
            .map_err(failed("read a notification channel"))?;
        row.as_ref().map(channel).transpose()
    }

    /// What waits for a channel.
    ///
    /// # Errors
    /// [`StoreError`]
    pub async fn channel_waiting(&self, id: Uuid) -> Result<Waiting, StoreError> {
        let row = sqlx::query(
            "SELECT COUNT(*) AS alerts, CAST(COALESCE(SUM(count), 0) AS BIGINT) AS detections \
             FROM notification_queue WHERE channel = $1",
        )
        .bind(id_value(id))
        .fetch_one(&self.readers)
        .await
        .map_err(failed("count what waits"))?;
        waiting(&row)
    }
}

fn channel(row: &AnyRow) -> Result<Channel, StoreError> {
    Ok(Channel {
        id: id_column(row, "id")?,
        name: column(row, "name")?,
        config: column(row, "config")?,
        secret: column(row, "secret")?,
        enabled: column::<i64>(row, "enabled")? != 0,
        min_level: column(row, "min_level")?,
        window_ms: column(row, "window_ms")?,
        created_ms: column(row, "created_ms")?,
        changed_ms: column(row, "changed_ms")?,
        next_ms: column(row, "next_ms")?,
        failures: column(row, "failures")?,
        error: column(row, "error")?,
        error_ms: column(row, "error_ms")?,
        sent_ms: column(row, "sent_ms")?,
        messages: column(row, "messages")?,
        detections: column(row, "detections")?,
        alarm: column(row, "alarm")?,
    })
}
