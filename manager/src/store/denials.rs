//! What is denied on many hosts at once, and how far each of them has it in force.
//!
//! Invariants: changes of the list are numbered, and whoever makes one holds the row that counts
//! them, so that who has heard of a number has heard of all before it. Numbers are times at least:
//! a database that was set back gives none again.

use sqlx::any::AnyRow;
use uuid::Uuid;

use super::{Store, StoreError, Tx, clean, column, failed, id_column, id_value};

/// A denial.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Denial {
    /// The change that brought it; orders by time.
    pub number: i64,
    /// Its id.
    pub id: Uuid,
    /// `hash` or `path`.
    pub kind: String,
    /// Which.
    pub value: String,
    /// Whose hosts; nothing for all.
    pub group: Option<String>,
    /// Who.
    pub filed_by: String,
    /// Why.
    pub reason: String,
    /// When.
    pub filed_ms: i64,
    /// When it is taken back by itself.
    pub until_ms: Option<i64>,
    /// The change that took it back.
    pub removed: Option<i64>,
    /// Who.
    pub removed_by: String,
    /// Why.
    pub removed_why: String,
    /// When.
    pub removed_ms: Option<i64>,
}

impl Denial {
    /// The change that hosts must have in force.
    #[must_use]
    pub fn change(&self) -> i64 {
        self.removed.unwrap_or(self.number)
    }
}

/// How many hosts a denial is for, and how they stand.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Reach {
    /// Hosts that it is for.
    pub hosts: i64,
    /// Those that have it in force; of one that was taken back, those that have that.
    pub applied: i64,
    /// Those that say they cannot.
    pub refused: i64,
}

/// How a host stands to a denial.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DenialHost {
    /// The host's number.
    pub number: i64,
    /// Its id.
    pub id: Uuid,
    /// Its name.
    pub name: String,
    /// It has a stream.
    pub connected: bool,
    /// The last change that is in force there.
    pub through: i64,
    /// A JSON list of what is not.
    pub refused: String,
}

/// Numbers the next change; the list is held until the transaction's end.
///
/// # Errors
/// [`StoreError`]
pub async fn change_next(tx: &mut Tx, now_ms: i64) -> Result<i64, StoreError> {
    let operation = "number a change of the denials";
    sqlx::query(
        "UPDATE denial_changes SET last = CASE WHEN last >= $1 THEN last + 1 ELSE $1 END \
         WHERE one = 1",
    )
    .bind(now_ms)
    .execute(tx.conn())
    .await
    .map_err(failed(operation))?;
    let row = sqlx::query("SELECT last FROM denial_changes WHERE one = 1")
        .fetch_one(tx.conn())
        .await
        .map_err(failed(operation))?;
    column(&row, "last")
}

/// Adds one; those that were taken back before a time are forgotten.
///
/// # Errors
/// [`StoreError`]
pub async fn denial_insert(tx: &mut Tx, new: &Denial, forget_ms: i64) -> Result<(), StoreError> {
    sqlx::query("DELETE FROM denials WHERE removed_ms < $1")
        .bind(forget_ms)
        .execute(tx.conn())
        .await
        .map_err(failed("forget old denials"))?;
    sqlx::query(
        "INSERT INTO denials (number, id, kind, value, group_name, filed_by, reason, filed_ms, \
         until_ms, removed, removed_by, removed_why, removed_ms) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, NULL, '', '', NULL)",
    )
    .bind(new.number)
    .bind(id_value(new.id))
    .bind(clean(&new.kind))
    .bind(clean(&new.value))
    .bind(new.group.as_deref().map(clean))
    .bind(clean(&new.filed_by))
    .bind(clean(&new.reason))
    .bind(new.filed_ms)
    .bind(new.until_ms)
    .execute(tx.conn())
    .await
    .map_err(failed("add a denial"))?;
    Ok(())
}

/// Takes one back. False when it is not there, or was taken back before.
///
/// # Errors
/// [`StoreError`]
pub async fn denial_remove(
    tx: &mut Tx,
    id: Uuid,
    change: i64,
    (who, why): (&str, &str),
    now_ms: i64,
) -> Result<bool, StoreError> {
    let done = sqlx::query(
        "UPDATE denials SET removed = $1, removed_by = $2, removed_why = $3, removed_ms = $4 \
         WHERE id = $5 AND removed IS NULL",
    )
    .bind(change)
    .bind(clean(who))
    .bind(clean(why))
    .bind(now_ms)
    .bind(id_value(id))
    .execute(tx.conn())
    .await
    .map_err(failed("take a denial back"))?;
    Ok(done.rows_affected() == 1)
}

/// Those that stand, as this transaction sees them.
///
/// # Errors
/// [`StoreError`]
pub async fn denials_standing(tx: &mut Tx) -> Result<Vec<Denial>, StoreError> {
    let rows = sqlx::query("SELECT * FROM denials WHERE removed IS NULL ORDER BY number")
        .fetch_all(tx.conn())
        .await
        .map_err(failed("list denials"))?;
    rows.iter().map(denial).collect()
}

/// Takes back what has ended by a time: its ids. Nothing is numbered where nothing has.
///
/// # Errors
/// [`StoreError`]
pub async fn denials_end(tx: &mut Tx, now_ms: i64) -> Result<Vec<Uuid>, StoreError> {
    const DUE: &str =
        "SELECT * FROM denials WHERE removed IS NULL AND until_ms <= $1 ORDER BY number";
    let operation = "take back denials that have ended";
    let due = sqlx::query(DUE).bind(now_ms).fetch_all(tx.conn()).await;
    if due.map_err(failed(operation))?.is_empty() {
        return Ok(Vec::new());
    }
    let change = change_next(tx, now_ms).await?;
    // Again: another manager may have taken them back before the list was held.
    let due = sqlx::query(DUE).bind(now_ms).fetch_all(tx.conn()).await;
    let due: Vec<Denial> =
        due.map_err(failed(operation))?.iter().map(denial).collect::<Result<_, _>>()?;
    let mut ended = Vec::new();
    for one in due {
        let why = ("", "its time has come");
        if denial_remove(tx, one.id, change, why, now_ms).await? {
            ended.push(one.id);
        }
    }
    Ok(ended)
}

/// What a host says.
///
/// # Errors
/// [`StoreError`]
pub async fn denials_reported(
    tx: &mut Tx,
    host: i64,
    through: i64,
    refused: &str,
) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO denial_hosts (host, through, refused) VALUES ($1, $2, $3) \
         ON CONFLICT (host) DO UPDATE SET through = $2, refused = $3",
    )
    .bind(host)
    .bind(through)
    .bind(clean(refused))
    .execute(tx.conn())
    .await
    .map_err(failed("keep what a host denies"))?;
    Ok(())
}

/// Whose hosts a denial is for; those that are revoked have nobody to ask.
const MEANT: &str = "h.revoked_ms IS NULL AND (CAST($1 AS TEXT) = '' OR h.group_name = $1)";

impl Store {
    /// The last change of the list, and that which a host has in force, as it says; nothing where
    /// it has not said so far.
    ///
    /// # Errors
    /// [`StoreError`]
    pub async fn denial_changes(&self, host: i64) -> Result<(i64, Option<i64>), StoreError> {
        let row = sqlx::query(
            "SELECT c.last AS last, d.through AS through FROM denial_changes c \
             LEFT JOIN denial_hosts d ON d.host = $1 WHERE c.one = 1",
        )
        .bind(host)
        .fetch_one(&self.readers)
        .await
        .map_err(failed("look for changes of the denials"))?;
        Ok((column(&row, "last")?, column(&row, "through")?))
    }

    /// What stands for a host.
    ///
    /// # Errors
    /// [`StoreError`]
    pub async fn denials_for(&self, host: i64) -> Result<Vec<Denial>, StoreError> {
        let rows = sqlx::query(
            "SELECT d.* FROM denials d JOIN hosts h ON h.number = $1 WHERE d.removed IS NULL \
             AND (d.group_name IS NULL OR d.group_name = h.group_name) ORDER BY d.number",
        )
        .bind(host)
        .fetch_all(&self.readers)
        .await
        .map_err(failed("list a host's denials"))?;
        rows.iter().map(denial).collect()
    }

    /// Denials before one of them, newest first; those that were taken back, or those that stand.
    ///
    /// # Errors
    /// [`StoreError`]
    pub async fn denial_list(
        &self,
        removed: bool,
        before: Option<i64>,
        limit: u32,
    ) -> Result<Vec<Denial>, StoreError> {
        let rows = sqlx::query(
            "SELECT * FROM denials WHERE number < $1 \
             AND CASE WHEN removed IS NULL THEN 0 ELSE 1 END = CAST($2 AS BIGINT) \
             ORDER BY number DESC LIMIT $3",
        )
        .bind(before.unwrap_or(i64::MAX))
        .bind(i64::from(removed))
        .bind(i64::from(limit))
        .fetch_all(&self.readers)
        .await
        .map_err(failed("list denials"))?;
        rows.iter().map(denial).collect()
    }

    /// A denial.
    ///
    /// # Errors
    /// [`StoreError`]
    pub async fn denial_get(&self, id: Uuid) -> Result<Option<Denial>, StoreError> {
        let row = sqlx::query("SELECT * FROM denials WHERE id = $1")
            .bind(id_value(id))
            .fetch_optional(&self.readers)
            .await
            .map_err(failed("read a denial"))?;
        row.as_ref().map(denial).transpose()
    }

    /// How the hosts stand that a denial is for.
    ///
    /// # Errors
    /// [`StoreError`]
    pub async fn denial_reach(&self, one: &Denial) -> Result<Reach, StoreError> {
        let refuses = "COALESCE(d.refused, '') LIKE $3";
        let has = "COALESCE(d.through, 0) >= $2";
        let sql = format!(
            "SELECT COUNT(*) AS hosts, \
             COALESCE(SUM(CASE WHEN {has} AND NOT {refuses} THEN 1 ELSE 0 END), 0) AS applied, \
             COALESCE(SUM(CASE WHEN {has} AND {refuses} THEN 1 ELSE 0 END), 0) AS refused \
             FROM hosts h LEFT JOIN denial_hosts d ON d.host = h.number WHERE {MEANT}"
        );
        let row = sqlx::query(sqlx::AssertSqlSafe(sql))
            .bind(clean(one.group.as_deref().unwrap_or_default()))
            .bind(one.change())
            .bind(format!("%{}%", one.id))
            .fetch_one(&self.readers)
            .await
            .map_err(failed("count a denial's hosts"))?;
        Ok(Reach {
            hosts: column(&row, "hosts")?,
            applied: column(&row, "applied")?,
            refused: column(&row, "refused")?,
        })
    }

    /// The hosts that a denial is for, after one of them.
    ///
    /// # Errors
    /// [`StoreError`]
    pub async fn denial_hosts(
        &self,
        one: &Denial,
        after: i64,
        limit: u32,
    ) -> Result<Vec<DenialHost>, StoreError> {
        let sql = format!(
            "SELECT h.number AS number, h.id AS id, h.name AS name, h.session AS session, \
             COALESCE(d.through, 0) AS through, COALESCE(d.refused, '[]') AS refused \
             FROM hosts h LEFT JOIN denial_hosts d ON d.host = h.number \
             WHERE {MEANT} AND h.number > $2 ORDER BY h.number LIMIT $3"
        );
        let rows = sqlx::query(sqlx::AssertSqlSafe(sql))
            .bind(clean(one.group.as_deref().unwrap_or_default()))
            .bind(after)
            .bind(i64::from(limit))
            .fetch_all(&self.readers)
            .await
            .map_err(failed("list a denial's hosts"))?;
        let host = |row: &AnyRow| {
            Ok(DenialHost {
                number: column(row, "number")?,
                id: id_column(row, "id")?,
                name: column(row, "name")?,
                connected: super::id_column_maybe(row, "session")?.is_some(),
                through: column(row, "through")?,
                refused: column(row, "refused")?,
            })
        };
        rows.iter().map(host).collect()
    }
}

fn denial(row: &AnyRow) -> Result<Denial, StoreError> {
    Ok(Denial {
        number: column(row, "number")?,
        id: id_column(row, "id")?,
        kind: column(row, "kind")?,
        value: column(row, "value")?,
        group: column(row, "group_name")?,
        filed_by: column(row, "filed_by")?,
        reason: column(row, "reason")?,
        filed_ms: column(row, "filed_ms")?,
        until_ms: column(row, "until_ms")?,
        removed: column(row, "removed")?,
        removed_by: column(row, "removed_by")?,
        removed_why: column(row, "removed_why")?,
        removed_ms: column(row, "removed_ms")?,
    })
}
