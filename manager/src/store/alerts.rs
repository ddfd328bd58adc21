//! Alerts: one open alert a group, counted.

use sqlx::any::AnyRow;
use uuid::Uuid;

use super::deliveries::notification_queue;
use super::numbers::{first_number, free_number, number_of};
use super::{Store, StoreError, Tx, clean, column, failed, id_column, id_column_maybe, id_value};

/// What one or more detections of a group add up to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Raise {
    /// The host's number.
    pub host: i64,
    /// `malware`, `model`, `tampering`, `gap`, `isolation`, `health`,
    /// `notification` (alerts cannot be told), `policy` (a roll-out was stopped).
    pub kind: &'static str,
    /// Hash of host, model and cause.
    pub group_key: Vec<u8>,
    /// The model's id, the signature's name, the capability.
    pub model: String,
    /// What did it: an executable, a file's hash.
    pub cause: String,
    /// For people.
    pub title: String,
    /// `informational`, `low`, `medium`, `high`, `critical`.
    pub level: String,
    /// ATT&CK technique ids, with blanks between.
    pub attack: String,
    /// Simulations alone made it.
    pub simulated: bool,
    /// How many detections.
    pub count: i64,
    /// The first one's time by the host's clock.
    pub first_ms: i64,
    /// The last one's.
    pub last_ms: i64,
    /// The last one's event, as JSON.
    pub evidence: String,
}

/// An alert.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Alert {
    /// Its place; orders by the time it was made.
    pub number: i64,
    /// Its id.
    pub id: Uuid,
    /// The host.
    pub host: Uuid,
    /// Its name.
    pub host_name: String,
    /// As in [`Raise`].
    pub kind: String,
    /// As in [`Raise`].
    pub model: String,
    /// As in [`Raise`].
    pub cause: String,
    /// As in [`Raise`].
    pub title: String,
    /// As in [`Raise`].
    pub level: String,
    /// As in [`Raise`].
    pub attack: String,
    /// As in [`Raise`].
    pub simulated: bool,
    /// How many detections it stands for.
    pub count: i64,
    /// The first one's time.
    pub first_ms: i64,
    /// The last one's time.
    pub last_ms: i64,
    /// When it was made, by the manager's clock.
    pub created_ms: i64,
    /// When it last changed.
    pub updated_ms: i64,
    /// `new`, `in_progress`, `resolved`.
    pub state: String,
    /// `true_positive`, `false_positive`, `ignored`, `allowed`; while resolved.
    pub resolution: Option<String>,
    /// When it was resolved.
    pub resolved_ms: Option<i64>,
    /// Who looks after it.
    pub assignee: Option<String>,
    /// When what a health alert tells of was over.
    pub cleared_ms: Option<i64>,
    /// The resolved alert of the same group before it.
    pub previous: Option<Uuid>,
    /// The last event, as JSON.
    pub evidence: String,
}

/// An alert after [`alert_raise`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Raised {
    /// Its number.
    pub number: i64,
    /// Its id.
    pub id: Uuid,
}

/// Counts detections on the group's open alert, or opens one, and queues them to be told.
///
/// # Errors
/// [`StoreError`]
pub async fn alert_raise(tx: &mut Tx, raise: &Raise, now_ms: i64) -> Result<Raised, StoreError> {
    let id = Uuid::now_v7();
    // Of a large fleet many fall silent in one millisecond, and some of them ask for one place.
    let sql = format!(
        "INSERT INTO alerts (number, id, host, kind, group_key, model, cause, title, level, \
         attack, simulated, count, first_ms, last_ms, created_ms, updated_ms, state, evidence, \
         previous) \
         VALUES ({number}, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $15, 'new', \
         $16, (SELECT p.id FROM alerts p WHERE p.group_key = $5 AND p.state = 'resolved' \
         ORDER BY p.number DESC LIMIT 1)) \
         ON CONFLICT (group_key) WHERE state <> 'resolved' DO UPDATE SET \
         count = alerts.count + excluded.count, \
         simulated = CASE WHEN excluded.simulated < alerts.simulated THEN excluded.simulated \
         ELSE alerts.simulated END, \
         first_ms = CASE WHEN excluded.first_ms < alerts.first_ms THEN excluded.first_ms \
         ELSE alerts.first_ms END, \
         evidence = CASE WHEN excluded.last_ms >= alerts.last_ms THEN excluded.evidence \
         ELSE alerts.evidence END, \
         last_ms = CASE WHEN excluded.last_ms > alerts.last_ms THEN excluded.last_ms \
         ELSE alerts.last_ms END, \
         cleared_ms = NULL, updated_ms = excluded.updated_ms \
         RETURNING number, id",
        number = free_number("alerts"),
    );
    let row = sqlx::query(sqlx::AssertSqlSafe(sql))
        .bind(number_of(now_ms, raise.host, id))
        .bind(id_value(id))
        .bind(raise.host)
        .bind(raise.kind)
        .bind(raise.group_key.clone())
        .bind(clean(&raise.model))
        .bind(clean(&raise.cause))
        .bind(clean(&raise.title))
        .bind(clean(&raise.level))
        .bind(clean(&raise.attack))
        .bind(i64::from(raise.simulated))
        .bind(raise.count)
        .bind(raise.first_ms)
        .bind(raise.last_ms)
        .bind(now_ms)
        .bind(clean(&raise.evidence))
        .fetch_one(tx.conn())
        .await
        .map_err(failed("raise an alert"))?;
    let raised = Raised { number: column(&row, "number")?, id: id_column(&row, "id")? };
    notification_queue(tx, raise, raised, now_ms).await?;
    Ok(raised)
}

/// Links an event to an alert.
///
/// # Errors
/// [`StoreError`]
pub async fn alert_event_link(tx: &mut Tx, alert: i64, event: i64) -> Result<(), StoreError> {
    sqlx::query("INSERT INTO alert_events (alert, event) VALUES ($1, $2) ON CONFLICT DO NOTHING")
        .bind(alert)
        .bind(event)
        .execute(tx.conn())
        .await
        .map_err(failed("link an event to its alert"))?;
    Ok(())
}

/// What a health alert tells of is over. The open alerts that it held for.
///
/// # Errors
/// [`StoreError`]
pub async fn alert_clear(
    tx: &mut Tx,
    group_key: &[u8],
    now_ms: i64,
) -> Result<Option<Uuid>, StoreError> {
    let row = sqlx::query(
        "UPDATE alerts SET cleared_ms = $1, updated_ms = $1 \
         WHERE group_key = $2 AND state <> 'resolved' AND cleared_ms IS NULL RETURNING id",
    )
    .bind(now_ms)
    .bind(group_key.to_vec())
    .fetch_optional(tx.conn())
    .await
    .map_err(failed("clear a health alert"))?;
    row.map(|row| id_column(&row, "id")).transpose()
}

/// What people change on an alert.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AlertChange {
    /// The state from now on.
    pub state: String,
    /// With `resolved`.
    pub resolution: Option<String>,
    /// Who looks after it.
    pub assignee: Option<String>,
    /// When.
    pub now_ms: i64,
}

/// Changes an alert. False when its group has another open alert by now.
///
/// # Errors
/// [`StoreError`]
pub async fn alert_update(
    tx: &mut Tx,
    number: i64,
    change: &AlertChange,
) -> Result<bool, StoreError> {
    let resolved_ms = (change.state == "resolved").then_some(change.now_ms);
    let done = sqlx::query(
        "UPDATE alerts SET state = $1, resolution = $2, assignee = $3, updated_ms = $4, \
         resolved_ms = $5 WHERE number = $6 AND ($1 = 'resolved' OR NOT EXISTS (SELECT 1 \
         FROM alerts o WHERE o.group_key = alerts.group_key AND o.state <> 'resolved' \
         AND o.number <> alerts.number))",
    )
    .bind(change.state.clone())
    .bind(change.resolution.clone())
    .bind(change.assignee.as_deref().map(clean))
    .bind(change.now_ms)
    .bind(resolved_ms)
    .bind(number)
    .execute(tx.conn())
    .await
    .map_err(failed("change an alert"))?;
    Ok(done.rows_affected() == 1)
}

/// A note on an alert.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    /// When.
    pub time_ms: i64,
    /// Who.
    pub author: String,
    /// What.
    pub text: String,
}

/// Adds a note.
///
/// # Errors
/// [`StoreError`]
pub async fn alert_note(tx: &mut Tx, alert: i64, note: &Note) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO alert_notes (alert, number, time_ms, author, text) VALUES ($1, \
         (SELECT COALESCE(MAX(n.number), 0) + 1 FROM alert_notes n WHERE n.alert = $1), \
         $2, $3, $4)",
    )
    .bind(alert)
    .bind(note.time_ms)
    .bind(clean(&note.author))
    .bind(clean(&note.text))
    .execute(tx.conn())
    .await
    .map_err(failed("add a note"))?;
    Ok(())
}

/// Which alerts.
#[derive(Debug, Clone, Default)]
pub struct AlertFilter {
    /// Of this state; `open` for all that are not resolved; empty: of any.
    pub state: String,
    /// Of this level; empty: of any.
    pub level: String,
    /// With this in title, cause or host's name, whatever the case of ASCII letters; empty: any.
    pub text: String,
    /// Of this kind; empty: of any.
    pub kind: String,
    /// Of this model, signature or capability; empty: of any.
    pub model: String,
    /// On this host.
    pub host: Option<Uuid>,
    /// That last changed at or after this, milliseconds since the epoch, by the manager's clock:
    /// a host's could hide them.
    pub from_ms: i64,
    /// That last changed before this.
    pub until_ms: i64,
    /// Only those before this number.
    pub before: Option<i64>,
    /// At most this many.
    pub limit: u32,
}

/// What one detection model found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ModelCount {
    /// Its id.
    pub model: String,
    /// Alerts.
    pub alerts: i64,
    /// Alerts that are not resolved, whatever their time.
    pub open: i64,
    /// When it last fired, by that host's clock, milliseconds since the epoch.
    pub last_ms: Option<i64>,
}

/// Alerts of one level that were made in one part of a period.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AlertBar {
    /// Where the part begins, milliseconds since the epoch.
    pub from_ms: i64,
    /// The level.
    pub level: String,
    /// How many.
    pub alerts: i64,
}

/// A pattern for `LIKE … ESCAPE '!'`; empty for no text.
pub(super) fn contains(text: &str) -> String {
    if text.is_empty() {
        return String::new();
    }
    let mut pattern = "%".to_owned();
    for letter in clean(text).to_ascii_lowercase().chars() {
        if matches!(letter, '%' | '_' | '!') {
            pattern.push('!');
        }
        pattern.push(letter);
    }
    pattern.push('%');
    pattern
}

const SELECT: &str = "SELECT a.*, h.id AS host_id, h.name AS host_name FROM alerts a \
                      JOIN hosts h ON h.number = a.host ";

impl Store {
    /// Alerts, those made last first.
    ///
    /// # Errors
    /// [`StoreError`]
    pub async fn alert_list(&self, filter: &AlertFilter) -> Result<Vec<Alert>, StoreError> {
        let sql = format!(
            "{SELECT} WHERE a.number < $1 AND a.updated_ms >= $2 AND a.updated_ms < $3 \
             AND (CAST($4 AS TEXT) = '' OR a.state = $4 OR ($4 = 'open' AND a.state <> 'resolved')) \
             AND (CAST($5 AS TEXT) = '' OR a.kind = $5) \
             AND (CAST($6 AS BIGINT) = 0 OR h.id = $7) \
             AND (CAST($8 AS TEXT) = '' OR a.level = $8) \
             AND (CAST($9 AS TEXT) = '' OR LOWER(a.title) LIKE $9 ESCAPE '!' \
             OR LOWER(a.cause) LIKE $9 ESCAPE '!' OR LOWER(h.name) LIKE $9 ESCAPE '!') \
             AND (CAST($11 AS TEXT) = '' OR a.model = $11) \
             ORDER BY a.number DESC LIMIT $10"
        );
        let rows = sqlx::query(sqlx::AssertSqlSafe(sql))
            .bind(filter.before.unwrap_or(i64::MAX))
            .bind(filter.from_ms)
            .bind(filter.until_ms)
            .bind(filter.state.clone())
            .bind(filter.kind.clone())
            .bind(i64::from(filter.host.is_some()))
            .bind(id_value(filter.host.unwrap_or_default()))
            .bind(filter.level.clone())
            .bind(contains(&filter.text))
            .bind(i64::from(filter.limit))
            .bind(clean(&filter.model))
            .fetch_all(&self.readers)
            .await
            .map_err(failed("list alerts"))?;
        rows.iter().map(alert).collect()
    }

    /// An alert.
    ///
    /// # Errors
    /// [`StoreError`]
    pub async fn alert_get(&self, id: Uuid) -> Result<Option<Alert>, StoreError> {
        let row = sqlx::query(sqlx::AssertSqlSafe(format!("{SELECT} WHERE a.id = $1")))
            .bind(id_value(id))
            .fetch_optional(&self.readers)
            .await
            .map_err(failed("read an alert"))?;
        row.as_ref().map(alert).transpose()
    }

    /// An alert's notes, oldest first.
    ///
    /// # Errors
    /// [`StoreError`]
    pub async fn alert_note_list(&self, alert: i64) -> Result<Vec<Note>, StoreError> {
        let rows = sqlx::query(
            "SELECT time_ms, author, text FROM alert_notes WHERE alert = $1 ORDER BY number",
        )
        .bind(alert)
        .fetch_all(&self.readers)
        .await
        .map_err(failed("list notes"))?;
        rows.iter()
            .map(|row| {
                Ok(Note {
                    time_ms: column(row, "time_ms")?,
                    author: column(row, "author")?,
                    text: column(row, "text")?,
                })
            })
            .collect()
    }

    /// How many alerts are not resolved, by level.
    ///
    /// # Errors
    /// [`StoreError`]
    pub async fn alert_open_levels(&self) -> Result<Vec<(String, i64)>, StoreError> {
        let rows = sqlx::query(
            "SELECT level, COUNT(*) AS open FROM alerts WHERE state IN ('new', 'in_progress') \
             GROUP BY level",
        )
        .fetch_all(&self.readers)
        .await
        .map_err(failed("count alerts"))?;
        rows.iter().map(|row| Ok((column(row, "level")?, column(row, "open")?))).collect()
    }

    /// What detection models found, of alerts that last changed in the period.
    ///
    /// # Errors
    /// [`StoreError`]
    pub async fn model_counts(
        &self,
        from_ms: i64,
        until_ms: i64,
    ) -> Result<Vec<ModelCount>, StoreError> {
        let rows = sqlx::query(
            "SELECT model, \
             COUNT(CASE WHEN updated_ms >= $1 AND updated_ms < $2 THEN 1 END) AS alerts, \
             COUNT(CASE WHEN state <> 'resolved' THEN 1 END) AS open, MAX(last_ms) AS last_ms \
             FROM alerts WHERE kind = 'model' GROUP BY model",
        )
        .bind(from_ms)
        .bind(until_ms)
        .fetch_all(&self.readers)
        .await
        .map_err(failed("count alerts"))?;
        rows.iter()
            .map(|row| {
                Ok(ModelCount {
                    model: column(row, "model")?,
                    alerts: column(row, "alerts")?,
                    open: column(row, "open")?,
                    last_ms: Some(column(row, "last_ms")?),
                })
            })
            .collect()
    }

    /// Alerts that were made in a period, by level and part of it, oldest first.
    ///
    /// # Errors
    /// [`StoreError`]
    pub async fn alert_bars(
        &self,
        from_ms: i64,
        until_ms: i64,
        bar_ms: i64,
    ) -> Result<Vec<AlertBar>, StoreError> {
        // An alert's number begins with the time when it was made.
        let rows = sqlx::query(
            "SELECT created_ms / $1 AS bar, level, COUNT(*) AS alerts FROM alerts \
             WHERE number >= $2 AND created_ms >= $3 AND created_ms < $4 \
             GROUP BY created_ms / $1, level ORDER BY created_ms / $1, level",
        )
        .bind(bar_ms)
        .bind(first_number(from_ms))
        .bind(from_ms)
        .bind(until_ms)
        .fetch_all(&self.readers)
        .await
        .map_err(failed("count alerts over time"))?;
        rows.iter()
            .map(|row| {
                Ok(AlertBar {
                    from_ms: column::<i64>(row, "bar")?.saturating_mul(bar_ms),
                    level: column(row, "level")?,
                    alerts: column(row, "alerts")?,
                })
            })
            .collect()
    }

    /// How many alerts are not resolved.
    ///
    /// # Errors
    /// [`StoreError`]
    pub async fn alert_open_count(&self) -> Result<i64, StoreError> {
        let row = sqlx::query(
            "SELECT COUNT(*) AS open FROM alerts WHERE state IN ('new', 'in_progress')",
        )
        .fetch_one(&self.readers)
        .await
        .map_err(failed("count alerts"))?;
        column(&row, "open")
    }
}

fn alert(row: &AnyRow) -> Result<Alert, StoreError> {
    Ok(Alert {
        number: column(row, "number")?,
        id: id_column(row, "id")?,
        host: id_column(row, "host_id")?,
        host_name: column(row, "host_name")?,
        kind: column(row, "kind")?,
        model: column(row, "model")?,
        cause: column(row, "cause")?,
        title: column(row, "title")?,
        level: column(row, "level")?,
        attack: column(row, "attack")?,
        simulated: column::<i64>(row, "simulated")? != 0,
        count: column(row, "count")?,
        first_ms: column(row, "first_ms")?,
        last_ms: column(row, "last_ms")?,
        created_ms: column(row, "created_ms")?,
        updated_ms: column(row, "updated_ms")?,
        state: column(row, "state")?,
        resolution: column(row, "resolution")?,
        resolved_ms: column(row, "resolved_ms")?,
        assignee: column(row, "assignee")?,
        cleared_ms: column(row, "cleared_ms")?,
        previous: id_column_maybe(row, "previous")?,
        evidence: column(row, "evidence")?,
    })
}
