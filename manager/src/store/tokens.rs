//! Enrollment tokens, by their hash.

use sqlx::any::AnyRow;
use uuid::Uuid;

use super::{Store, StoreError, Tx, clean, column, failed, id_column, id_value};

/// An enrollment token, without what only its bearer knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EnrollmentToken {
    /// Which.
    pub id: Uuid,
    /// Group of the hosts that it enrolls.
    pub group: String,
    /// For people.
    pub note: String,
    /// Hosts that it may enroll in all.
    pub uses: i64,
    /// Hosts that it may still enroll.
    pub uses_left: i64,
    /// When it was made.
    pub created_ms: i64,
    /// By whom.
    pub created_by: String,
    /// Not valid from then on.
    pub expires_ms: i64,
    /// When it was taken back.
    pub revoked_ms: Option<i64>,
}

/// Keeps a token.
///
/// # Errors
/// [`StoreError`]
pub async fn token_insert(
    tx: &mut Tx,
    token: &EnrollmentToken,
    hash: Vec<u8>,
) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO enrollment_tokens (id, hash, group_name, note, uses_left, uses, created_ms, \
         created_by, expires_ms) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
    )
    .bind(id_value(token.id))
    .bind(hash)
    .bind(clean(&token.group))
    .bind(clean(&token.note))
    .bind(token.uses_left)
    .bind(token.uses)
    .bind(token.created_ms)
    .bind(clean(&token.created_by))
    .bind(token.expires_ms)
    .execute(tx.conn())
    .await
    .map_err(failed("keep an enrollment token"))?;
    Ok(())
}

/// Takes one use of the token with this hash; its id and group when it was valid.
///
/// # Errors
/// [`StoreError`]
pub async fn token_take(
    tx: &mut Tx,
    hash: Vec<u8>,
    now_ms: i64,
) -> Result<Option<(Uuid, String)>, StoreError> {
    let row = sqlx::query(
        "UPDATE enrollment_tokens SET uses_left = uses_left - 1 \
         WHERE hash = $1 AND uses_left > 0 AND expires_ms > $2 AND revoked_ms IS NULL \
         RETURNING id, group_name",
    )
    .bind(hash)
    .bind(now_ms)
    .fetch_optional(tx.conn())
    .await
    .map_err(failed("take an enrollment token"))?;
    row.map(|row| Ok((id_column(&row, "id")?, column(&row, "group_name")?))).transpose()
}

/// Takes a token back; false when there is none that stands.
///
/// # Errors
/// [`StoreError`]
pub async fn token_revoke(tx: &mut Tx, id: Uuid, now_ms: i64) -> Result<bool, StoreError> {
    let done = sqlx::query(
        "UPDATE enrollment_tokens SET revoked_ms = $1 WHERE id = $2 AND revoked_ms IS NULL",
    )
    .bind(now_ms)
    .bind(id_value(id))
    .execute(tx.conn())
    .await
    .map_err(failed("revoke an enrollment token"))?;
    Ok(done.rows_affected() == 1)
}

impl Store {
    /// All tokens, newest first.
    ///
    /// # Errors
    /// [`StoreError`]
    pub async fn token_list(&self) -> Result<Vec<EnrollmentToken>, StoreError> {
        let rows = sqlx::query("SELECT * FROM enrollment_tokens ORDER BY created_ms DESC, id DESC")
            .fetch_all(&self.readers)
            .await
            .map_err(failed("list enrollment tokens"))?;
        rows.iter().map(token).collect()
    }
}

fn token(row: &AnyRow) -> Result<EnrollmentToken, StoreError> {
    Ok(EnrollmentToken {
        id: id_column(row, "id")?,
        group: column(row, "group_name")?,
        note: column(row, "note")?,
        uses: column(row, "uses")?,
        uses_left: column(row, "uses_left")?,
        created_ms: column(row, "created_ms")?,
        created_by: column(row, "created_by")?,
        expires_ms: column(row, "expires_ms")?,
        revoked_ms: column(row, "revoked_ms")?,
    })
}
