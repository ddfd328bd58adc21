//! What waits to be told: the queue of each channel, and the messages made of it.
//!
//! Invariants: a detection is counted in the queue of each channel in the transaction that counts
//! it on its alert, and leaves the queue in the transaction that notes that its message was taken.

use sqlx::any::AnyRow;
use uuid::Uuid;

use super::alerts::{Raise, Raised};
use super::notifications::{Channel, level_number};
use super::{Backend, Store, StoreError, Tx, clean, column, failed, id_column, id_value};

/// Alerts of one host and model, told together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// The host's number.
    pub host: i64,
    /// The alerts' kind.
    pub kind: String,
    /// The alerts' model.
    pub model: String,
}

/// A message that is to be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    /// Its id; the same at each attempt.
    pub id: Uuid,
    /// Failed attempts.
    pub attempts: i64,
    /// When it was made.
    pub created_ms: i64,
}

/// One alert of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    /// The alert's number.
    pub number: i64,
    /// Its id.
    pub alert: Uuid,
    /// The host's number.
    pub host: i64,
    /// The host's name.
    pub host_name: String,
    /// The host's facts, as JSON.
    pub facts: String,
    /// As in [`Raise`].
    pub kind: String,
    /// As in [`Raise`].
    pub model: String,
    /// As in [`Raise`].
    pub title: String,
    /// As in [`Raise`].
    pub level: String,
    /// As in [`Raise`].
    pub attack: String,
    /// As in [`Raise`].
    pub simulated: bool,
    /// Detections since the last message.
    pub count: i64,
    /// The first one's time.
    pub first_ms: i64,
    /// The last one's time.
    pub last_ms: i64,
}

/// How an attempt failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// When.
    pub now_ms: i64,
    /// The other side said never.
    pub refused: bool,
    /// In words.
    pub error: String,
    /// This message again not before.
    pub delivery_next_ms: i64,
    /// Any message of the channel not before.
    pub channel_next_ms: i64,
}

/// Counts detections of an alert for every channel that wants them.
pub(super) async fn notification_queue(
    tx: &mut Tx,
    raise: &Raise,
    raised: Raised,
    now_ms: i64,
) -> Result<(), StoreError> {
    // A channel that is being removed in this moment is waited for, and is not there then.
    let lock = match tx.backend() {
        Backend::Sqlite => "",
        Backend::Postgres => " FOR KEY SHARE",
    };
    let sql = format!(
        "INSERT INTO notification_queue (channel, alert, host, kind, model, count, first_ms, \
         last_ms, due_ms) \
         SELECT n.id, CAST($1 AS BIGINT), CAST($2 AS BIGINT), CAST($3 AS TEXT), \
         CAST($4 AS TEXT), CAST($5 AS BIGINT), CAST($6 AS BIGINT), CAST($7 AS BIGINT), \
         CAST($8 AS BIGINT) + n.window_ms FROM notifications n \
         WHERE n.enabled = 1 AND n.min_level <= CAST($9 AS BIGINT) \
         ORDER BY n.id{lock} \
         ON CONFLICT (channel, alert) WHERE delivery IS NULL DO UPDATE SET \
         count = notification_queue.count + excluded.count, \
         first_ms = CASE WHEN excluded.first_ms < notification_queue.first_ms \
         THEN excluded.first_ms ELSE notification_queue.first_ms END, \
         last_ms = CASE WHEN excluded.last_ms > notification_queue.last_ms \
         THEN excluded.last_ms ELSE notification_queue.last_ms END"
    );
    sqlx::query(sqlx::AssertSqlSafe(sql))
        .bind(raised.number)
        .bind(raise.host)
        .bind(raise.kind)
        .bind(clean(&raise.model))
        .bind(raise.count)
        .bind(raise.first_ms)
        .bind(raise.last_ms)
        .bind(now_ms)
        .bind(level_number(&raise.level))
        .execute(tx.conn())
        .await
        .map_err(failed("queue a notification"))?;
    Ok(())
}

/// The oldest message that is due.
///
/// # Errors
/// [`StoreError`]
pub async fn delivery_due(
    tx: &mut Tx,
    channel: Uuid,
    now_ms: i64,
) -> Result<Option<Delivery>, StoreError> {
    let row = sqlx::query(
        "SELECT id, attempts, created_ms FROM notification_deliveries \
         WHERE channel = $1 AND next_ms <= $2 ORDER BY next_ms, id LIMIT 1",
    )
    .bind(id_value(channel))
    .bind(now_ms)
    .fetch_optional(tx.conn())
    .await
    .map_err(failed("look for messages"))?;
    let Some(row) = row else { return Ok(None) };
    Ok(Some(Delivery {
        id: id_column(&row, "id")?,
        attempts: column(&row, "attempts")?,
        created_ms: column(&row, "created_ms")?,
    }))
}

/// Groups whose window is over, the oldest first.
///
/// # Errors
/// [`StoreError`]
pub async fn groups_due(
    tx: &mut Tx,
    channel: Uuid,
    now_ms: i64,
    limit: i64,
) -> Result<Vec<Group>, StoreError> {
    let rows = sqlx::query(
        "SELECT host, kind, model, MIN(due_ms) AS due FROM notification_queue \
         WHERE channel = $1 AND delivery IS NULL AND due_ms <= $2 \
         GROUP BY host, kind, model ORDER BY due LIMIT $3",
    )
    .bind(id_value(channel))
    .bind(now_ms)
    .bind(limit)
    .fetch_all(tx.conn())
    .await
    .map_err(failed("look for notifications"))?;
    rows.iter()
        .map(|row| {
            Ok(Group {
                host: column(row, "host")?,
                kind: column(row, "kind")?,
                model: column(row, "model")?,
            })
        })
        .collect()
}

/// Puts what waits of a group, or of all, into a new message; at most so many alerts. How many.
/// What is being counted on in this moment stays for the next message.
///
/// # Errors
/// [`StoreError`]
pub async fn delivery_make(
    tx: &mut Tx,
    channel: Uuid,
    group: Option<&Group>,
    most: i64,
    now_ms: i64,
) -> Result<(Delivery, u64), StoreError> {
    let delivery = Delivery { id: Uuid::now_v7(), attempts: 0, created_ms: now_ms };
    let skip = match tx.backend() {
        Backend::Sqlite => "",
        Backend::Postgres => " FOR UPDATE SKIP LOCKED",
    };
    let sql = format!(
        "UPDATE notification_queue SET delivery = $1 WHERE channel = $2 AND delivery IS NULL \
         AND alert IN (SELECT q.alert FROM notification_queue q WHERE q.channel = $2 \
         AND q.delivery IS NULL AND (CAST($3 AS BIGINT) = 1 \
         OR (q.host = $4 AND q.kind = $5 AND q.model = $6)) ORDER BY q.due_ms LIMIT $7{skip})"
    );
    let operation = "make a message";
    let done = sqlx::query(sqlx::AssertSqlSafe(sql))
        .bind(id_value(delivery.id))
        .bind(id_value(channel))
        .bind(i64::from(group.is_none()))
        .bind(group.map_or(0, |group| group.host))
        .bind(group.map_or_else(String::new, |group| group.kind.clone()))
        .bind(group.map_or_else(String::new, |group| group.model.clone()))
        .bind(most)
        .execute(tx.conn())
        .await
        .map_err(failed(operation))?;
    if done.rows_affected() > 0 {
        sqlx::query(
            "INSERT INTO notification_deliveries (id, channel, created_ms, attempts, next_ms, \
             refused, error) VALUES ($1, $2, $3, 0, 0, 0, '')",
        )
        .bind(id_value(delivery.id))
        .bind(id_value(channel))
        .bind(now_ms)
        .execute(tx.conn())
        .await
        .map_err(failed(operation))?;
    }
    Ok((delivery, done.rows_affected()))
}

/// A message was taken. Whether another message of this channel still fails for the `alarm`th
/// time or more.
///
/// # Errors
/// [`StoreError`]
pub async fn delivery_done(
    tx: &mut Tx,
    channel: &Channel,
    delivery: Uuid,
    now_ms: i64,
    alarm: i64,
) -> Result<bool, StoreError> {
    let operation = "note that a message was taken";
    sqlx::query(
        "UPDATE notifications SET messages = messages + 1, detections = detections + \
         (SELECT CAST(COALESCE(SUM(q.count), 0) AS BIGINT) FROM notification_queue q \
         WHERE q.delivery = $1), failures = 0, next_ms = 0, error = '', sent_ms = $2 \
         WHERE id = $3",
    )
    .bind(id_value(delivery))
    .bind(now_ms)
    .bind(id_value(channel.id))
    .execute(tx.conn())
    .await
    .map_err(failed(operation))?;
    for sql in [
        "DELETE FROM notification_queue WHERE delivery = $1",
        "DELETE FROM notification_deliveries WHERE id = $1",
    ] {
        let query = sqlx::query(sql).bind(id_value(delivery));
        query.execute(tx.conn()).await.map_err(failed(operation))?;
    }
    if channel.failures > 0 {
        deliveries_hasten(tx, channel.id, false).await?;
    }
    let row = sqlx::query(
        "SELECT COUNT(*) AS stuck FROM notification_deliveries WHERE channel = $1 \
         AND attempts >= $2",
    )
    .bind(id_value(channel.id))
    .bind(alarm)
    .fetch_one(tx.conn())
    .await
    .map_err(failed(operation))?;
    Ok(column::<i64>(&row, "stuck")? > 0)
}

/// The other side is back: what it did not take is due now; what it refused only when asked for.
pub(super) async fn deliveries_hasten(
    tx: &mut Tx,
    channel: Uuid,
    refused: bool,
) -> Result<(), StoreError> {
    sqlx::query(
        "UPDATE notification_deliveries SET next_ms = 0 WHERE channel = $1 AND refused <= $2",
    )
    .bind(id_value(channel))
    .bind(i64::from(refused))
    .execute(tx.conn())
    .await
    .map_err(failed("hasten messages"))?;
    Ok(())
}

/// A message was not taken. False when the channel is gone.
///
/// # Errors
/// [`StoreError`]
pub async fn delivery_failed(
    tx: &mut Tx,
    channel: Uuid,
    delivery: Uuid,
    failure: &Failure,
) -> Result<bool, StoreError> {
    let operation = "note that a message was not taken";
    sqlx::query(
        "UPDATE notification_deliveries SET attempts = attempts + 1, next_ms = $1, refused = $2, \
         error = $3 WHERE id = $4",
    )
    .bind(failure.delivery_next_ms)
    .bind(i64::from(failure.refused))
    .bind(clean(&failure.error))
    .bind(id_value(delivery))
    .execute(tx.conn())
    .await
    .map_err(failed(operation))?;
    let done = sqlx::query(
        "UPDATE notifications SET failures = failures + 1, error = $1, error_ms = $2, \
         next_ms = $3 WHERE id = $4",
    )
    .bind(clean(&failure.error))
    .bind(failure.now_ms)
    .bind(failure.channel_next_ms)
    .bind(id_value(channel))
    .execute(tx.conn())
    .await
    .map_err(failed(operation))?;
    Ok(done.rows_affected() == 1)
}

impl Store {
    /// Channels for which something is to be done now.
    ///
    /// # Errors
    /// [`StoreError`]
    pub async fn channels_due(&self, now_ms: i64) -> Result<Vec<Uuid>, StoreError> {
        let rows = sqlx::query(
            "SELECT n.id FROM notifications n WHERE n.enabled = 1 AND n.next_ms <= $1 AND ( \
             EXISTS (SELECT 1 FROM notification_deliveries d WHERE d.channel = n.id \
             AND d.next_ms <= $1) OR EXISTS (SELECT 1 FROM notification_queue q \
             WHERE q.channel = n.id AND q.delivery IS NULL AND q.due_ms <= $1))",
        )
        .bind(now_ms)
        .fetch_all(&self.readers)
        .await
        .map_err(failed("look for notifications"))?;
        rows.iter().map(|row| id_column(row, "id")).collect()
    }

    /// The alerts of a message, the oldest first.
    ///
    /// # Errors
    /// [`StoreError`]
    pub async fn delivery_alerts(&self, delivery: Uuid) -> Result<Vec<Told>, StoreError> {
        let rows = sqlx::query(
            "SELECT q.alert, q.count, q.first_ms, q.last_ms, q.host, a.id, a.kind, a.model, \
             a.title, a.level, a.attack, a.simulated, h.name, h.facts \
             FROM notification_queue q JOIN alerts a ON a.number = q.alert \
             JOIN hosts h ON h.number = q.host WHERE q.delivery = $1 ORDER BY q.due_ms, q.alert",
        )
        .bind(id_value(delivery))
        .fetch_all(&self.readers)
        .await
        .map_err(failed("read a message"))?;
        rows.iter().map(told).collect()
    }

    /// The last event of an alert, as JSON.
    ///
    /// # Errors
    /// [`StoreError`]
    pub async fn alert_evidence(&self, number: i64) -> Result<String, StoreError> {
        let row = sqlx::query("SELECT evidence FROM alerts WHERE number = $1")
            .bind(number)
            .fetch_one(&self.readers)
            .await
            .map_err(failed("read an alert"))?;
        column(&row, "evidence")
    }
}

fn told(row: &AnyRow) -> Result<Told, StoreError> {
    Ok(Told {
        number: column(row, "alert")?,
        alert: id_column(row, "id")?,
        host: column(row, "host")?,
        host_name: column(row, "name")?,
        facts: column(row, "facts")?,
        kind: column(row, "kind")?,
        model: column(row, "model")?,
        title: column(row, "title")?,
        level: column(row, "level")?,
        attack: column(row, "attack")?,
        simulated: column::<i64>(row, "simulated")? != 0,
        count: column(row, "count")?,
        first_ms: column(row, "first_ms")?,
        last_ms: column(row, "last_ms")?,
    })
}
