//! Hosts and their certificates.

use std::collections::BTreeSet;

use sqlx::any::AnyRow;
use uuid::Uuid;

use super::alerts::contains;
use super::{
    Backend, Store, StoreError, Tx, clean, column, failed, id_column, id_column_maybe, id_value,
    places,
};

/// Key of the lock that numbers hosts one after another on PostgreSQL.
const LOCK: i64 = 0x686f_7374;

/// A host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    /// Its place in the database.
    pub number: i64,
    /// Its id.
    pub id: Uuid,
    /// Its name, as it says.
    pub name: String,
    /// `link::HostFacts` as JSON.
    pub facts: String,
    /// The group that its token put it into.
    pub group: String,
    /// When it was enrolled.
    pub enrolled_ms: i64,
    /// When it was revoked.
    pub revoked_ms: Option<i64>,
    /// The highest generation that was seen.
    pub generation: i64,
    /// When a copy of it last showed.
    pub cloned_ms: Option<i64>,
    /// Its stream, while it has one.
    pub session: Option<Uuid>,
    /// Its last sign of life, by the manager's clock.
    pub seen_ms: i64,
    /// Its last heartbeat as JSON.
    pub heartbeat: Option<String>,
    /// When that came, by the manager's clock.
    pub heartbeat_ms: Option<i64>,
    /// `new`, `green` or `red`.
    pub health: String,
    /// Why, a JSON list of reasons.
    pub reasons: String,
    /// Since when it stands so.
    pub health_ms: i64,
    /// What it sent and was no event.
    pub events_refused: i64,
}

/// A certificate and its host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificate {
    /// The host.
    pub host: Host,
    /// When it ends.
    pub not_after_ms: i64,
    /// When it was taken back.
    pub revoked_ms: Option<i64>,
}

const COLUMNS: &str = "h.number AS number, h.id AS id, h.name AS name, h.facts AS facts, \
    h.group_name AS group_name, h.enrolled_ms AS enrolled_ms, h.revoked_ms AS revoked_ms, \
    h.generation AS generation, h.cloned_ms AS cloned_ms, h.session AS session, \
    h.seen_ms AS seen_ms, h.heartbeat AS heartbeat, h.heartbeat_ms AS heartbeat_ms, \
    h.health AS health, h.reasons AS reasons, h.health_ms AS health_ms, \
    h.events_refused AS events_refused";

/// A statement of this file's constants.
fn sql(rest: &str) -> sqlx::AssertSqlSafe<String> {
    sqlx::AssertSqlSafe(format!("SELECT {COLUMNS} {rest}"))
}

/// A host as it is enrolled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewHost {
    /// Its id.
    pub id: Uuid,
    /// Its name.
    pub name: String,
    /// Its machine id.
    pub machine_id: String,
    /// Its facts as JSON.
    pub facts: String,
    /// Its group.
    pub group: String,
    /// When.
    pub now_ms: i64,
}

/// Keeps a new host; its number.
///
/// # Errors
/// [`StoreError`]
pub async fn host_insert(tx: &mut Tx, host: &NewHost) -> Result<i64, StoreError> {
    if tx.backend() == Backend::Postgres {
        sqlx::query("SELECT pg_advisory_xact_lock($1)")
            .bind(LOCK)
            .execute(tx.conn())
            .await
            .map_err(failed("lock the hosts"))?;
    }
    let row = sqlx::query(
        "INSERT INTO hosts (number, id, name, machine_id, facts, group_name, enrolled_ms, \
         generation, seen_ms, health, reasons, health_ms, events_refused) \
         VALUES ((SELECT COALESCE(MAX(number), 0) + 1 FROM hosts), $1, $2, $3, $4, $5, $6, 0, $6, \
         'new', '[]', $6, 0) RETURNING number",
    )
    .bind(id_value(host.id))
    .bind(clean(&host.name))
    .bind(clean(&host.machine_id))
    .bind(clean(&host.facts))
    .bind(clean(&host.group))
    .bind(host.now_ms)
    .fetch_one(tx.conn())
    .await
    .map_err(failed("keep a host"))?;
    column(&row, "number")
}

/// Keeps a certificate; false when there is no such host.
///
/// # Errors
/// [`StoreError`]
pub async fn certificate_insert(
    tx: &mut Tx,
    host: Uuid,
    serial: &str,
    issued_ms: i64,
    not_after_ms: i64,
) -> Result<bool, StoreError> {
    let done = sqlx::query(
        "INSERT INTO certificates (serial, host, issued_ms, not_after_ms) \
         SELECT CAST($1 AS TEXT), number, CAST($2 AS BIGINT), CAST($3 AS BIGINT) \
         FROM hosts WHERE id = $4",
    )
    .bind(clean(serial))
    .bind(issued_ms)
    .bind(not_after_ms)
    .bind(id_value(host))
    .execute(tx.conn())
    .await
    .map_err(failed("keep a certificate"))?;
    Ok(done.rows_affected() == 1)
}

/// A certificate by its serial; on PostgreSQL its host is locked until the end.
///
/// # Errors
/// [`StoreError`]
pub async fn certificate_get(tx: &mut Tx, serial: &str) -> Result<Option<Certificate>, StoreError> {
    let lock = if tx.backend() == Backend::Postgres { "FOR UPDATE OF h" } else { "" };
    let row = sqlx::query(sql(&format!("{CERTIFICATE} {lock}")))
        .bind(clean(serial))
        .fetch_optional(tx.conn())
        .await
        .map_err(failed("read a certificate"))?;
    row.as_ref().map(certificate).transpose()
}

const CERTIFICATE: &str = ", c.not_after_ms AS not_after_ms, c.revoked_ms AS certificate_revoked_ms \
     FROM certificates c JOIN hosts h ON h.number = c.host WHERE c.serial = $1";

fn certificate(row: &AnyRow) -> Result<Certificate, StoreError> {
    Ok(Certificate {
        host: host(row)?,
        not_after_ms: column(row, "not_after_ms")?,
        revoked_ms: column(row, "certificate_revoked_ms")?,
    })
}

/// A stream of this host begins.
///
/// # Errors
/// [`StoreError`]
pub async fn host_session(
    tx: &mut Tx,
    number: i64,
    session: Uuid,
    generation: i64,
    name: &str,
    facts: &str,
    now_ms: i64,
) -> Result<(), StoreError> {
    sqlx::query(
        "UPDATE hosts SET session = $1, generation = $2, name = $3, facts = $4, seen_ms = $5, \
         manager = $6 WHERE number = $7",
    )
    .bind(id_value(session))
    .bind(generation)
    .bind(clean(name))
    .bind(clean(facts))
    .bind(now_ms)
    .bind(rustix::system::uname().nodename().to_string_lossy().into_owned())
    .bind(number)
    .execute(tx.conn())
    .await
    .map_err(failed("begin a host's stream"))?;
    Ok(())
}

/// The machine of the manager that had a host's last stream.
///
/// # Errors
/// [`StoreError`]
pub async fn host_manager(store: &Store, host: Uuid) -> Result<Option<String>, StoreError> {
    let row = sqlx::query("SELECT manager FROM hosts WHERE id = $1")
        .bind(id_value(host))
        .fetch_optional(&store.readers)
        .await
        .map_err(failed("look for a host's manager"))?;
    row.as_ref().map_or(Ok(None), |row| column(row, "manager"))
}

/// A stream ended; nothing when the host has another by now.
///
/// # Errors
/// [`StoreError`]
pub async fn host_session_end(tx: &mut Tx, session: Uuid) -> Result<(), StoreError> {
    sqlx::query("UPDATE hosts SET session = NULL WHERE session = $1")
        .bind(id_value(session))
        .execute(tx.conn())
        .await
        .map_err(failed("end a host's stream"))?;
    Ok(())
}

/// A copy of this host showed.
///
/// # Errors
/// [`StoreError`]
pub async fn host_cloned(tx: &mut Tx, number: i64, now_ms: i64) -> Result<(), StoreError> {
    sqlx::query("UPDATE hosts SET cloned_ms = $1 WHERE number = $2")
        .bind(now_ms)
        .bind(number)
        .execute(tx.conn())
        .await
        .map_err(failed("mark a copied host"))?;
    Ok(())
}

/// Takes back a host and all its certificates; false when there is none that stands.
///
/// # Errors
/// [`StoreError`]
pub async fn host_revoke(tx: &mut Tx, id: Uuid, now_ms: i64) -> Result<bool, StoreError> {
    let done = sqlx::query("UPDATE hosts SET revoked_ms = $1 WHERE id = $2 AND revoked_ms IS NULL")
        .bind(now_ms)
        .bind(id_value(id))
        .execute(tx.conn())
        .await
        .map_err(failed("revoke a host"))?;
    sqlx::query(
        "UPDATE certificates SET revoked_ms = $1 WHERE revoked_ms IS NULL \
         AND host = (SELECT number FROM hosts WHERE id = $2)",
    )
    .bind(now_ms)
    .bind(id_value(id))
    .execute(tx.conn())
    .await
    .map_err(failed("revoke certificates"))?;
    Ok(done.rows_affected() == 1)
}

/// How a host stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewHealth {
    /// `green` or `red`.
    pub health: &'static str,
    /// A JSON list.
    pub reasons: String,
    /// When it was judged.
    pub now_ms: i64,
}

/// Keeps a heartbeat; the host as it was before, or nothing when the stream is not the host's any
/// more.
///
/// # Errors
/// [`StoreError`]
pub async fn heartbeat_update(
    tx: &mut Tx,
    session: Uuid,
    heartbeat: &str,
    now_ms: i64,
) -> Result<Option<Host>, StoreError> {
    let lock = if tx.backend() == Backend::Postgres { "FOR UPDATE OF h" } else { "" };
    let statement =
        sql(&format!("FROM hosts h WHERE h.session = $1 AND h.revoked_ms IS NULL {lock}"));
    let row = sqlx::query(statement)
        .bind(id_value(session))
        .fetch_optional(tx.conn())
        .await
        .map_err(failed("read a host"))?;
    let Some(row) = row else { return Ok(None) };
    let before = host(&row)?;
    sqlx::query(
        "UPDATE hosts SET heartbeat = $1, heartbeat_ms = $2, seen_ms = $2 WHERE number = $3",
    )
    .bind(clean(heartbeat))
    .bind(now_ms)
    .bind(before.number)
    .execute(tx.conn())
    .await
    .map_err(failed("keep a heartbeat"))?;
    Ok(Some(before))
}

/// Sessions of one statement of [`hosts_seen`].
const SESSIONS: usize = 64;

/// Notes that the hosts of these streams live; the sessions whose host it is still, and that are
/// not told to be silent.
///
/// # Errors
/// [`StoreError`]
pub async fn hosts_seen(
    tx: &mut Tx,
    sessions: &BTreeSet<Uuid>,
    now_ms: i64,
) -> Result<Vec<Uuid>, StoreError> {
    let mut seen = Vec::with_capacity(sessions.len());
    let all: Vec<Uuid> = sessions.iter().copied().collect();
    let lock = if tx.backend() == Backend::Postgres { "ORDER BY number FOR UPDATE" } else { "" };
    let sql = format!(
        "UPDATE hosts SET seen_ms = {} WHERE number IN (SELECT number FROM hosts \
         WHERE session IN ({}) AND revoked_ms IS NULL \
         AND reasons NOT LIKE '%\"name\":\"silent\"%' {lock}) RETURNING session",
        places(tx.backend(), 1, 1),
        places(tx.backend(), 2, SESSIONS)
    );
    for chunk in all.chunks(SESSIONS) {
        let mut query = sqlx::query(sqlx::AssertSqlSafe(sql.clone())).bind(now_ms);
        // One statement for all: filled up with the last one.
        for place in 0..SESSIONS {
            query = query.bind(id_value(chunk[place.min(chunk.len() - 1)]));
        }
        let rows = query.fetch_all(tx.conn()).await.map_err(failed("note signs of life"))?;
        for row in &rows {
            seen.push(id_column(row, "session")?);
        }
    }
    Ok(seen)
}

/// Writes a host's health where it differs.
///
/// # Errors
/// [`StoreError`]
pub async fn health_update(
    tx: &mut Tx,
    before: &Host,
    health: &NewHealth,
) -> Result<(), StoreError> {
    if before.health == health.health && before.reasons == health.reasons {
        return Ok(());
    }
    let since = if before.health == health.health { before.health_ms } else { health.now_ms };
    sqlx::query("UPDATE hosts SET health = $1, reasons = $2, health_ms = $3 WHERE number = $4")
        .bind(health.health)
        .bind(clean(&health.reasons))
        .bind(since)
        .bind(before.number)
        .execute(tx.conn())
        .await
        .map_err(failed("keep a host's health"))?;
    Ok(())
}

/// Hosts that were not seen since then and are not told to be silent yet. On PostgreSQL another
/// manager that looks at the same time gets none of them.
///
/// # Errors
/// [`StoreError`]
pub async fn hosts_silent(tx: &mut Tx, before_ms: i64) -> Result<Vec<Host>, StoreError> {
    let lock = if tx.backend() == Backend::Postgres { "FOR UPDATE OF h SKIP LOCKED" } else { "" };
    let rows = sqlx::query(sql(&format!(
        "FROM hosts h WHERE h.seen_ms < $1 AND h.revoked_ms IS NULL \
         AND NOT (h.health = 'red' AND h.reasons LIKE '%\"name\":\"silent\"%') \
         ORDER BY h.number LIMIT 500 {lock}"
    )))
    .bind(before_ms)
    .fetch_all(tx.conn())
    .await
    .map_err(failed("look for silent hosts"))?;
    rows.iter().map(host).collect()
}

/// Counts what was no event.
///
/// # Errors
/// [`StoreError`]
pub async fn events_refused_add(tx: &mut Tx, number: i64, count: i64) -> Result<(), StoreError> {
    sqlx::query("UPDATE hosts SET events_refused = events_refused + $1 WHERE number = $2")
        .bind(count)
        .bind(number)
        .execute(tx.conn())
        .await
        .map_err(failed("count refused events"))?;
    Ok(())
}

/// How many hosts there are of each health, and how many have a stream.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct HostCounts {
    /// Enrolled, never heard of.
    pub new: i64,
    /// Fine.
    pub green: i64,
    /// Not fine.
    pub red: i64,
    /// With a stream.
    pub connected: i64,
}

impl Store {
    /// A certificate by its serial; nothing is locked.
    ///
    /// # Errors
    /// [`StoreError`]
    pub async fn certificate_find(&self, serial: &str) -> Result<Option<Certificate>, StoreError> {
        let row = sqlx::query(sql(CERTIFICATE))
            .bind(clean(serial))
            .fetch_optional(&self.readers)
            .await
            .map_err(failed("read a certificate"))?;
        row.as_ref().map(certificate).transpose()
    }

    /// A host.
    ///
    /// # Errors
    /// [`StoreError`]
    pub async fn host_get(&self, id: Uuid) -> Result<Option<Host>, StoreError> {
        let row = sqlx::query(sql("FROM hosts h WHERE h.id = $1"))
            .bind(id_value(id))
            .fetch_optional(&self.readers)
            .await
            .map_err(failed("read a host"))?;
        row.as_ref().map(host).transpose()
    }

    /// Hosts by number, above `after`; those of one health, or of any.
    ///
    /// # Errors
    /// [`StoreError`]
    pub async fn host_list(
        &self,
        after: i64,
        health: Option<&str>,
        text: &str,
        limit: u32,
    ) -> Result<Vec<Host>, StoreError> {
        let rows = sqlx::query(sql(
            "FROM hosts h WHERE h.number > $1 AND (CAST($2 AS TEXT) = '' OR h.health = $2) \
             AND (CAST($3 AS TEXT) = '' OR LOWER(h.name) LIKE $3 ESCAPE '!' \
             OR LOWER(h.group_name) LIKE $3 ESCAPE '!') \
             ORDER BY h.number LIMIT $4",
        ))
        .bind(after)
        .bind(health.unwrap_or_default().to_owned())
        .bind(contains(text))
        .bind(i64::from(limit))
        .fetch_all(&self.readers)
        .await
        .map_err(failed("list hosts"))?;
        rows.iter().map(host).collect()
    }

    /// How they stand.
    ///
    /// # Errors
    /// [`StoreError`]
    pub async fn host_counts(&self) -> Result<HostCounts, StoreError> {
        let rows = sqlx::query(
            "SELECT health, COUNT(*) AS number, COUNT(session) AS connected FROM hosts \
             WHERE revoked_ms IS NULL GROUP BY health",
        )
        .fetch_all(&self.readers)
        .await
        .map_err(failed("count hosts"))?;
        let mut counts = HostCounts::default();
        for row in &rows {
            let number: i64 = column(row, "number")?;
            counts.connected += column::<i64>(row, "connected")?;
            match column::<String>(row, "health")?.as_str() {
                "green" => counts.green = number,
                "red" => counts.red = number,
                _ => counts.new = number,
            }
        }
        Ok(counts)
    }
}

fn host(row: &AnyRow) -> Result<Host, StoreError> {
    Ok(Host {
        number: column(row, "number")?,
        id: id_column(row, "id")?,
        name: column(row, "name")?,
        facts: column(row, "facts")?,
        group: column(row, "group_name")?,
        enrolled_ms: column(row, "enrolled_ms")?,
        revoked_ms: column(row, "revoked_ms")?,
        generation: column(row, "generation")?,
        cloned_ms: column(row, "cloned_ms")?,
        session: id_column_maybe(row, "session")?,
        seen_ms: column(row, "seen_ms")?,
        heartbeat: column(row, "heartbeat")?,
        heartbeat_ms: column(row, "heartbeat_ms")?,
        health: column(row, "health")?,
        reasons: column(row, "reasons")?,
        health_ms: column(row, "health_ms")?,
        events_refused: column(row, "events_refused")?,
    })
}
