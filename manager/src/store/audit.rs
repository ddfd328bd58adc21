//! The audit log: append-only, each row's hash covers its content and the hash before it.

use sha2::{Digest, Sha256};
use sqlx::any::AnyRow;

use super::alerts::contains;
use super::{Backend, Store, StoreError, Tx, clean, column, failed};

/// Key of the lock that appends one after another on PostgreSQL.
const LOCK: i64 = 0x0061_7564_6974;

/// What somebody did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewAudit {
    /// When, milliseconds since the epoch.
    pub time_ms: i64,
    /// Who: a user's name, `token:NAME`, `host:NAME`, `local` for the command line.
    pub actor: String,
    /// What, e.g. `task.file`.
    pub action: String,
    /// On what.
    pub target: String,
    /// More, as JSON.
    pub detail: String,
}

/// A row of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditRow {
    /// 1, 2, 3, …
    pub number: i64,
    /// What happened.
    pub entry: NewAudit,
    /// Hash of the row before; 32 zeros for the first.
    pub previous: Vec<u8>,
    /// This row's hash.
    pub hash: Vec<u8>,
}

/// The end of the chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditHead {
    /// Number of the last row, 0 when there is none.
    pub number: i64,
    /// Its hash.
    pub hash: Vec<u8>,
}

/// SHA-256 over the hash before and each field with its length.
#[must_use]
pub fn audit_hash(number: i64, entry: &NewAudit, previous: &[u8]) -> Vec<u8> {
    let mut hash = Sha256::new();
    let mut part = |bytes: &[u8]| {
        hash.update((bytes.len() as u64).to_be_bytes());
        hash.update(bytes);
    };
    part(previous);
    part(&number.to_be_bytes());
    part(&entry.time_ms.to_be_bytes());
    for text in [&entry.actor, &entry.action, &entry.target, &entry.detail] {
        part(text.as_bytes());
    }
    hash.finalize().to_vec()
}

/// Appends a row.
///
/// # Errors
/// [`StoreError`]
pub async fn audit_append(tx: &mut Tx, entry: NewAudit) -> Result<AuditHead, StoreError> {
    if tx.backend() == Backend::Postgres {
        sqlx::query("SELECT pg_advisory_xact_lock($1)")
            .bind(LOCK)
            .execute(tx.conn())
            .await
            .map_err(failed("lock the audit log"))?;
    }
    let entry = NewAudit {
        time_ms: entry.time_ms,
        actor: clean(&entry.actor),
        action: clean(&entry.action),
        target: clean(&entry.target),
        detail: clean(&entry.detail),
    };
    let last = sqlx::query("SELECT number, hash FROM audit ORDER BY number DESC LIMIT 1")
        .fetch_optional(tx.conn())
        .await
        .map_err(failed("read the audit log's end"))?;
    let (last, previous) = match &last {
        Some(row) => (column::<i64>(row, "number")?, column(row, "hash")?),
        None => (0, vec![0; 32]),
    };
    let number = last + 1;
    let hash = audit_hash(number, &entry, &previous);
    sqlx::query(
        "INSERT INTO audit (number, time_ms, actor, action, target, detail, previous, hash) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
    )
    .bind(number)
    .bind(entry.time_ms)
    .bind(entry.actor)
    .bind(entry.action)
    .bind(entry.target)
    .bind(entry.detail)
    .bind(previous)
    .bind(hash.clone())
    .execute(tx.conn())
    .await
    .map_err(failed("append to the audit log"))?;
    Ok(AuditHead { number, hash })
}

impl Store {
    /// Rows with a number above `after`, oldest first.
    ///
    /// # Errors
    /// [`StoreError`]
    pub async fn audit_after(&self, after: i64, limit: u32) -> Result<Vec<AuditRow>, StoreError> {
        let rows = sqlx::query("SELECT * FROM audit WHERE number > $1 ORDER BY number LIMIT $2")
            .bind(after)
            .bind(i64::from(limit))
            .fetch_all(&self.readers)
            .await
            .map_err(failed("read the audit log"))?;
        rows.iter().map(audit_row).collect()
    }

    /// Rows with a number below `before`, a time in the period and a text in actor, action or
    /// target (empty: any), newest first.
    ///
    /// # Errors
    /// [`StoreError`]
    pub async fn audit_before(
        &self,
        before: i64,
        from_ms: i64,
        until_ms: i64,
        limit: u32,
        text: &str,
    ) -> Result<Vec<AuditRow>, StoreError> {
        let rows = sqlx::query(
            "SELECT * FROM audit WHERE number < $1 AND time_ms >= $2 AND time_ms < $3 \
             AND (CAST($5 AS TEXT) = '' OR LOWER(actor) LIKE $5 ESCAPE '!' \
             OR LOWER(action) LIKE $5 ESCAPE '!' OR LOWER(target) LIKE $5 ESCAPE '!') \
             ORDER BY number DESC LIMIT $4",
        )
        .bind(before)
        .bind(from_ms)
        .bind(until_ms)
        .bind(i64::from(limit))
        .bind(contains(text))
        .fetch_all(&self.readers)
        .await
        .map_err(failed("read the audit log"))?;
        rows.iter().map(audit_row).collect()
    }
}

fn audit_row(row: &AnyRow) -> Result<AuditRow, StoreError> {
    Ok(AuditRow {
        number: column(row, "number")?,
        entry: NewAudit {
            time_ms: column(row, "time_ms")?,
            actor: column(row, "actor")?,
            action: column(row, "action")?,
            target: column(row, "target")?,
            detail: column(row, "detail")?,
        },
        previous: column(row, "previous")?,
        hash: column(row, "hash")?,
    })
}
