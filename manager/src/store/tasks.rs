//! Response tasks.

use holdfast_common::task::Stage;
use sqlx::any::AnyRow;
use uuid::Uuid;

use super::numbers::{free_number, number_of};
use super::{
    Backend, Store, StoreError, Tx, clean, column, failed, id_column, id_column_maybe, id_value,
};

/// A task as it is filed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewTask {
    /// Its id.
    pub id: Uuid,
    /// The action's name.
    pub name: &'static str,
    /// The action as JSON.
    pub action: String,
    /// Who files it.
    pub filed_by: String,
    /// Why.
    pub reason: String,
    /// The alert that it belongs to.
    pub alert: Option<Uuid>,
    /// The caller's key, so that a repeated call files nothing.
    pub idempotency: Option<String>,
    /// Hash of what was asked with that key.
    pub request_hash: Vec<u8>,
    /// When.
    pub filed_ms: i64,
    /// Not to be begun after this.
    pub expires_ms: i64,
}

/// A task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Task {
    /// Its place; orders by the time it was filed.
    pub number: i64,
    /// Its id.
    pub id: Uuid,
    /// The host.
    pub host: Uuid,
    /// Its name.
    pub host_name: String,
    /// The action's name.
    pub name: String,
    /// The action as JSON.
    pub action: String,
    /// How far it is.
    pub stage: Stage,
    /// Who filed it.
    pub filed_by: String,
    /// Why.
    pub reason: String,
    /// The alert that it belongs to.
    pub alert: Option<Uuid>,
    /// Hash of what was asked.
    pub request_hash: Vec<u8>,
    /// When it was filed.
    pub filed_ms: i64,
    /// Not to be begun after this.
    pub expires_ms: i64,
    /// When it was first given to a stream.
    pub sent_ms: Option<i64>,
    /// When the agent had it on its disk.
    pub delivered_ms: Option<i64>,
    /// When it was done.
    pub executed_ms: Option<i64>,
    /// When it came to its end.
    pub ended_ms: Option<i64>,
    /// When somebody took it back.
    pub cancel_ms: Option<i64>,
    /// Who.
    pub cancel_by: Option<String>,
    /// What was observed.
    pub observed: String,
    /// The action's result as JSON.
    pub result: String,
    /// Bytes of the file that it delivered.
    pub file_size: Option<i64>,
    /// That file's SHA-256.
    pub file_sha256: Option<String>,
}

const SELECT: &str = "SELECT t.*, h.id AS host_id, h.name AS host_name FROM tasks t \
                      JOIN hosts h ON h.number = t.host ";

/// The name of a stage in the database.
#[must_use]
pub const fn stage_name(stage: Stage) -> &'static str {
    match stage {
        Stage::Queued => "queued",
        Stage::Delivered => "delivered",
        Stage::Executed => "executed",
        Stage::Verified => "verified",
        Stage::Failed => "failed",
        Stage::Expired => "expired",
        Stage::Cancelled => "cancelled",
    }
}

/// The stage of a name.
#[must_use]
pub fn stage_of(name: &str) -> Option<Stage> {
    [
        Stage::Queued,
        Stage::Delivered,
        Stage::Executed,
        Stage::Verified,
        Stage::Failed,
        Stage::Expired,
        Stage::Cancelled,
    ]
    .into_iter()
    .find(|stage| stage_name(*stage) == name)
}

/// Files a task. False when the caller's key was used before; nothing was filed then. The host
/// must be there and not revoked, else it is false too.
///
/// # Errors
/// [`StoreError`]
pub async fn task_insert(tx: &mut Tx, host: i64, task: &NewTask) -> Result<bool, StoreError> {
    let sql = format!(
        "INSERT INTO tasks (number, id, host, name, action, stage, filed_by, reason, alert, \
         idempotency, request_hash, filed_ms, expires_ms, observed, result) \
         VALUES ({number}, $2, $3, $4, $5, 'queued', $6, $7, $8, $9, $10, $11, $12, '', 'null') \
         ON CONFLICT (filed_by, idempotency) DO NOTHING",
        number = free_number("tasks"),
    );
    let done = sqlx::query(sqlx::AssertSqlSafe(sql))
        .bind(number_of(task.filed_ms, host, task.id))
        .bind(id_value(task.id))
        .bind(host)
        .bind(task.name)
        .bind(clean(&task.action))
        .bind(clean(&task.filed_by))
        .bind(clean(&task.reason))
        .bind(task.alert.map(id_value))
        .bind(task.idempotency.as_deref().map(clean))
        .bind(task.request_hash.clone())
        .bind(task.filed_ms)
        .bind(task.expires_ms)
        .execute(tx.conn())
        .await
        .map_err(failed("file a task"))?;
    Ok(done.rows_affected() == 1)
}

/// A task, locked until the end on PostgreSQL.
///
/// # Errors
/// [`StoreError`]
pub async fn task_lock(tx: &mut Tx, id: Uuid) -> Result<Option<Task>, StoreError> {
    let lock = if tx.backend() == Backend::Postgres { "FOR UPDATE OF t" } else { "" };
    let row = sqlx::query(sqlx::AssertSqlSafe(format!("{SELECT} WHERE t.id = $1 {lock}")))
        .bind(id_value(id))
        .fetch_optional(tx.conn())
        .await
        .map_err(failed("read a task"))?;
    row.as_ref().map(task).transpose()
}

/// Writes what a task has become: everything that changes after it was filed.
///
/// # Errors
/// [`StoreError`]
pub async fn task_update(tx: &mut Tx, task: &Task) -> Result<(), StoreError> {
    sqlx::query(
        "UPDATE tasks SET stage = $1, sent_ms = $2, delivered_ms = $3, executed_ms = $4, \
         ended_ms = $5, cancel_ms = $6, cancel_by = $7, observed = $8, result = $9, \
         file_size = $10, file_sha256 = $11, action = $12 WHERE number = $13",
    )
    .bind(stage_name(task.stage))
    .bind(task.sent_ms)
    .bind(task.delivered_ms)
    .bind(task.executed_ms)
    .bind(task.ended_ms)
    .bind(task.cancel_ms)
    .bind(task.cancel_by.as_deref().map(clean))
    .bind(clean(&task.observed))
    .bind(clean(&task.result))
    .bind(task.file_size)
    .bind(task.file_sha256.clone())
    .bind(clean(&task.action))
    .bind(task.number)
    .execute(tx.conn())
    .await
    .map_err(failed("change a task"))?;
    Ok(())
}

/// Tasks that nobody took in time, locked on PostgreSQL.
///
/// # Errors
/// [`StoreError`]
pub async fn tasks_overdue(tx: &mut Tx, now_ms: i64) -> Result<Vec<Task>, StoreError> {
    let lock = if tx.backend() == Backend::Postgres { "FOR UPDATE OF t SKIP LOCKED" } else { "" };
    let rows = sqlx::query(sqlx::AssertSqlSafe(format!(
        "{SELECT} WHERE t.ended_ms IS NULL AND t.stage = 'queued' AND t.expires_ms <= $1 \
         ORDER BY t.number LIMIT 500 {lock}"
    )))
    .bind(now_ms)
    .fetch_all(tx.conn())
    .await
    .map_err(failed("look for overdue tasks"))?;
    rows.iter().map(task).collect()
}

/// Which tasks.
#[derive(Debug, Clone, Default)]
pub struct TaskFilter {
    /// Of this stage; `open` for all that are not at their end; empty: of any.
    pub stage: String,
    /// With this action; empty: with any.
    pub name: String,
    /// On this host.
    pub host: Option<Uuid>,
    /// Of this alert.
    pub alert: Option<Uuid>,
    /// Filed at or after this, milliseconds since the epoch.
    pub from_ms: i64,
    /// Filed before this.
    pub until_ms: i64,
    /// Only those before this number.
    pub before: Option<i64>,
    /// At most this many.
    pub limit: u32,
}

impl Store {
    /// What a host's agent must be told of: tasks that it does not have, and cancels.
    ///
    /// # Errors
    /// [`StoreError`]
    pub async fn tasks_waiting(&self, host: Uuid) -> Result<Vec<Task>, StoreError> {
        let rows = sqlx::query(sqlx::AssertSqlSafe(format!(
            "{SELECT} WHERE h.id = $1 AND t.ended_ms IS NULL \
             AND (t.stage = 'queued' OR t.cancel_ms IS NOT NULL) ORDER BY t.number LIMIT 256"
        )))
        .bind(id_value(host))
        .fetch_all(&self.readers)
        .await
        .map_err(failed("look for a host's tasks"))?;
        rows.iter().map(task).collect()
    }

    /// A task.
    ///
    /// # Errors
    /// [`StoreError`]
    pub async fn task_get(&self, id: Uuid) -> Result<Option<Task>, StoreError> {
        let row = sqlx::query(sqlx::AssertSqlSafe(format!("{SELECT} WHERE t.id = $1")))
            .bind(id_value(id))
            .fetch_optional(&self.readers)
            .await
            .map_err(failed("read a task"))?;
        row.as_ref().map(task).transpose()
    }

    /// The task that was filed with this key.
    ///
    /// # Errors
    /// [`StoreError`]
    pub async fn task_by_key(&self, who: &str, key: &str) -> Result<Option<Task>, StoreError> {
        let row = sqlx::query(sqlx::AssertSqlSafe(format!(
            "{SELECT} WHERE t.filed_by = $1 AND t.idempotency = $2"
        )))
        .bind(clean(who))
        .bind(clean(key))
        .fetch_optional(&self.readers)
        .await
        .map_err(failed("read a task"))?;
        row.as_ref().map(task).transpose()
    }

    /// Tasks, those filed last first.
    ///
    /// # Errors
    /// [`StoreError`]
    pub async fn task_list(&self, filter: &TaskFilter) -> Result<Vec<Task>, StoreError> {
        let sql = format!(
            "{SELECT} WHERE t.number < $1 AND t.filed_ms >= $2 AND t.filed_ms < $3 \
             AND (CAST($4 AS TEXT) = '' OR t.stage = $4 OR ($4 = 'open' AND t.ended_ms IS NULL)) \
             AND (CAST($5 AS BIGINT) = 0 OR h.id = $6) \
             AND (CAST($7 AS BIGINT) = 0 OR t.alert = $8) \
             AND (CAST($9 AS TEXT) = '' OR t.name = $9) ORDER BY t.number DESC LIMIT $10"
        );
        let rows = sqlx::query(sqlx::AssertSqlSafe(sql))
            .bind(filter.before.unwrap_or(i64::MAX))
            .bind(filter.from_ms)
            .bind(filter.until_ms)
            .bind(filter.stage.clone())
            .bind(i64::from(filter.host.is_some()))
            .bind(id_value(filter.host.unwrap_or_default()))
            .bind(i64::from(filter.alert.is_some()))
            .bind(id_value(filter.alert.unwrap_or_default()))
            .bind(filter.name.clone())
            .bind(i64::from(filter.limit))
            .fetch_all(&self.readers)
            .await
            .map_err(failed("list tasks"))?;
        rows.iter().map(task).collect()
    }

    /// How many tasks are not at their end.
    ///
    /// # Errors
    /// [`StoreError`]
    pub async fn task_open_count(&self) -> Result<i64, StoreError> {
        let row = sqlx::query("SELECT COUNT(*) AS open FROM tasks WHERE ended_ms IS NULL")
            .fetch_one(&self.readers)
            .await
            .map_err(failed("count tasks"))?;
        column(&row, "open")
    }
}

fn task(row: &AnyRow) -> Result<Task, StoreError> {
    let stage: String = column(row, "stage")?;
    Ok(Task {
        number: column(row, "number")?,
        id: id_column(row, "id")?,
        host: id_column(row, "host_id")?,
        host_name: column(row, "host_name")?,
        name: column(row, "name")?,
        action: column(row, "action")?,
        stage: stage_of(&stage).ok_or_else(|| StoreError::corrupt("read a task", &stage))?,
        filed_by: column(row, "filed_by")?,
        reason: column(row, "reason")?,
        alert: id_column_maybe(row, "alert")?,
        request_hash: column::<Option<Vec<u8>>>(row, "request_hash")?.unwrap_or_default(),
        filed_ms: column(row, "filed_ms")?,
        expires_ms: column(row, "expires_ms")?,
        sent_ms: column(row, "sent_ms")?,
        delivered_ms: column(row, "delivered_ms")?,
        executed_ms: column(row, "executed_ms")?,
        ended_ms: column(row, "ended_ms")?,
        cancel_ms: column(row, "cancel_ms")?,
        cancel_by: column(row, "cancel_by")?,
        observed: column(row, "observed")?,
        result: column(row, "result")?,
        file_size: column(row, "file_size")?,
        file_sha256: column(row, "file_sha256")?,
    })
}
