//! Whom other parties vouch for: issuer and subject, and the user that it is.

use uuid::Uuid;

use super::users::{User, user};
use super::{Backend, StoreError, Tx, clean, failed, id_value};

/// The user of an identity, as it is now; others who change it wait until the transaction ends.
///
/// # Errors
/// [`StoreError`]
pub async fn identity_user(
    tx: &mut Tx,
    issuer: &str,
    subject: &str,
) -> Result<Option<User>, StoreError> {
    // SQLite has one writer, which this transaction is already.
    let sql = match tx.backend() {
        Backend::Sqlite => {
            "SELECT users.* FROM users JOIN identities ON identities.account = users.id \
             WHERE identities.issuer = $1 AND identities.subject = $2"
        }
        Backend::Postgres => {
            "SELECT users.* FROM users JOIN identities ON identities.account = users.id \
             WHERE identities.issuer = $1 AND identities.subject = $2 FOR UPDATE OF users"
        }
    };
    let row = sqlx::query(sql)
        .bind(clean(issuer))
        .bind(clean(subject))
        .fetch_optional(tx.conn())
        .await
        .map_err(failed("find an identity"))?;
    row.as_ref().map(user).transpose()
}

/// Keeps an identity; false when it is there already.
///
/// # Errors
/// [`StoreError`]
pub async fn identity_insert(
    tx: &mut Tx,
    issuer: &str,
    subject: &str,
    account: Uuid,
    now_ms: i64,
) -> Result<bool, StoreError> {
    let done = sqlx::query(
        "INSERT INTO identities (issuer, subject, account, created_ms) VALUES ($1, $2, $3, $4) \
         ON CONFLICT (issuer, subject) DO NOTHING",
    )
    .bind(clean(issuer))
    .bind(clean(subject))
    .bind(id_value(account))
    .bind(now_ms)
    .execute(tx.conn())
    .await
    .map_err(failed("keep an identity"))?;
    Ok(done.rows_affected() == 1)
}
