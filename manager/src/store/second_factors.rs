//! The second factor of users.
//!
//! Invariants: a step and a recovery code are taken once, whichever manager asks; what is written
//! here is sealed or hashed already.

use uuid::Uuid;

use super::users::{User, user};
use super::{Backend, Store, StoreError, Tx, column, failed, id_value};

/// A user as it is now; others who change it wait until the transaction ends.
///
/// # Errors
/// [`StoreError`]
pub async fn user_hold(tx: &mut Tx, id: Uuid) -> Result<Option<User>, StoreError> {
    // SQLite has one writer, which this transaction is already.
    let sql = match tx.backend() {
        Backend::Sqlite => "SELECT * FROM users WHERE id = $1",
        Backend::Postgres => "SELECT * FROM users WHERE id = $1 FOR UPDATE",
    };
    let row = sqlx::query(sql)
        .bind(id_value(id))
        .fetch_optional(tx.conn())
        .await
        .map_err(failed("hold a user"))?;
    row.as_ref().map(user).transpose()
}

/// Keeps an offered secret; one that was offered before is forgotten.
///
/// # Errors
/// [`StoreError`]
pub async fn totp_offer(
    tx: &mut Tx,
    id: Uuid,
    sealed: Vec<u8>,
    now_ms: i64,
) -> Result<(), StoreError> {
    sqlx::query("UPDATE users SET totp_pending = $1, totp_pending_ms = $2 WHERE id = $3")
        .bind(sealed)
        .bind(now_ms)
        .bind(id_value(id))
        .execute(tx.conn())
        .await
        .map_err(failed("offer a second factor"))?;
    Ok(())
}

/// The offered secret becomes the second factor; the code of this step is used up.
///
/// # Errors
/// [`StoreError`]
pub async fn totp_confirm(tx: &mut Tx, id: Uuid, step: i64, now_ms: i64) -> Result<(), StoreError> {
    sqlx::query(
        "UPDATE users SET totp = totp_pending, totp_ms = $1, totp_step = $2, changed_ms = $1, \
         totp_pending = NULL, totp_pending_ms = NULL WHERE id = $3",
    )
    .bind(now_ms)
    .bind(step)
    .bind(id_value(id))
    .execute(tx.conn())
    .await
    .map_err(failed("confirm a second factor"))?;
    Ok(())
}

/// Takes the code of a step; false when that one or a later one was taken already.
///
/// # Errors
/// [`StoreError`]
pub async fn totp_step_take(tx: &mut Tx, id: Uuid, step: i64) -> Result<bool, StoreError> {
    let done = sqlx::query("UPDATE users SET totp_step = $1 WHERE id = $2 AND totp_step < $1")
        .bind(step)
        .bind(id_value(id))
        .execute(tx.conn())
        .await
        .map_err(failed("take a code"))?;
    Ok(done.rows_affected() == 1)
}

/// Removes a user's second factor, what was offered, and its recovery codes.
///
/// # Errors
/// [`StoreError`]
pub async fn totp_remove(tx: &mut Tx, id: Uuid, now_ms: i64) -> Result<(), StoreError> {
    // The step stays: were the same secret to come back, no old code would do.
    sqlx::query(
        "UPDATE users SET totp = NULL, totp_ms = NULL, totp_pending = NULL, \
         totp_pending_ms = NULL, changed_ms = $1 WHERE id = $2",
    )
    .bind(now_ms)
    .bind(id_value(id))
    .execute(tx.conn())
    .await
    .map_err(failed("remove a second factor"))?;
    recovery_codes_replace(tx, id, &[]).await
}

/// Keeps the hashes of new recovery codes; those before are worth nothing any more.
///
/// # Errors
/// [`StoreError`]
pub async fn recovery_codes_replace(
    tx: &mut Tx,
    id: Uuid,
    hashes: &[Vec<u8>],
) -> Result<(), StoreError> {
    let operation = "keep recovery codes";
    sqlx::query("DELETE FROM recovery_codes WHERE account = $1")
        .bind(id_value(id))
        .execute(tx.conn())
        .await
        .map_err(failed(operation))?;
    for hash in hashes {
        sqlx::query("INSERT INTO recovery_codes (account, hash) VALUES ($1, $2)")
            .bind(id_value(id))
            .bind(hash.clone())
            .execute(tx.conn())
            .await
            .map_err(failed(operation))?;
    }
    Ok(())
}

/// Takes a recovery code; false when there is none of this hash.
///
/// # Errors
/// [`StoreError`]
pub async fn recovery_code_take(tx: &mut Tx, id: Uuid, hash: Vec<u8>) -> Result<bool, StoreError> {
    let done = sqlx::query("DELETE FROM recovery_codes WHERE account = $1 AND hash = $2")
        .bind(id_value(id))
        .bind(hash)
        .execute(tx.conn())
        .await
        .map_err(failed("take a recovery code"))?;
    Ok(done.rows_affected() == 1)
}

impl Store {
    /// How many recovery codes a user has left.
    ///
    /// # Errors
    /// [`StoreError`]
    pub async fn recovery_codes_left(&self, id: Uuid) -> Result<i64, StoreError> {
        let row = sqlx::query("SELECT COUNT(*) AS n FROM recovery_codes WHERE account = $1")
            .bind(id_value(id))
            .fetch_one(&self.readers)
            .await
            .map_err(failed("count recovery codes"))?;
        column(&row, "n")
    }
}
