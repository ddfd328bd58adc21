//! Users, their sign-ins and API tokens.

use sqlx::any::AnyRow;
use uuid::Uuid;

use super::{Backend, Store, StoreError, Tx, clean, column, failed, id_column, id_value};

/// A user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// Its id.
    pub id: Uuid,
    /// Its name.
    pub name: String,
    /// `viewer`, `operator`, `admin`.
    pub role: String,
    /// The password's argon2id hash.
    pub password: String,
    /// Nothing but a new password is taken from it.
    pub must_change: bool,
    /// Wrong passwords since the last right one.
    pub failures: i64,
    /// No password is taken until then.
    pub locked_until_ms: i64,
    /// Cannot sign in.
    pub disabled: bool,
    /// May open remote shells.
    pub may_shell: bool,
    /// When it was made.
    pub created_ms: i64,
    /// When it last changed.
    pub changed_ms: i64,
    /// The second factor's sealed secret; nothing: there is none.
    pub totp: Option<Vec<u8>>,
    /// Since when there is a second factor.
    pub totp_ms: Option<i64>,
    /// A sealed secret that was offered and not confirmed yet.
    pub totp_pending: Option<Vec<u8>>,
    /// When it was offered.
    pub totp_pending_ms: Option<i64>,
}

/// A sign-in or an API token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credential {
    /// Its id.
    pub id: Uuid,
    /// `session` or `token`.
    pub kind: String,
    /// Whose.
    pub account: Uuid,
    /// For people.
    pub name: String,
    /// Scopes with blanks between; a sign-in's are empty and mean all.
    pub scopes: String,
    /// When it was made.
    pub created_ms: i64,
    /// When it was last used, to the minute.
    pub used_ms: i64,
    /// Not valid from then on.
    pub expires_ms: i64,
}

/// Keeps a user; false when the name is taken.
///
/// # Errors
/// [`StoreError`]
pub async fn user_insert(tx: &mut Tx, user: &User) -> Result<bool, StoreError> {
    let done = sqlx::query(
        "INSERT INTO users (id, name, role, password, must_change, failures, locked_until_ms, \
         disabled, created_ms, changed_ms) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) \
         ON CONFLICT (name) DO NOTHING",
    )
    .bind(id_value(user.id))
    .bind(clean(&user.name))
    .bind(user.role.clone())
    .bind(user.password.clone())
    .bind(i64::from(user.must_change))
    .bind(user.failures)
    .bind(user.locked_until_ms)
    .bind(i64::from(user.disabled))
    .bind(user.created_ms)
    .bind(user.changed_ms)
    .execute(tx.conn())
    .await
    .map_err(failed("keep a user"))?;
    Ok(done.rows_affected() == 1)
}

/// A right password: what wrong ones left is forgotten.
///
/// # Errors
/// [`StoreError`]
pub async fn user_signed_in(tx: &mut Tx, id: Uuid) -> Result<(), StoreError> {
    sqlx::query("UPDATE users SET failures = 0, locked_until_ms = 0 WHERE id = $1")
        .bind(id_value(id))
        .execute(tx.conn())
        .await
        .map_err(failed("note a sign-in"))?;
    Ok(())
}

/// A new password; what wrong ones left is forgotten.
///
/// # Errors
/// [`StoreError`]
pub async fn user_password(
    tx: &mut Tx,
    id: Uuid,
    password: &str,
    must_change: bool,
    now_ms: i64,
) -> Result<(), StoreError> {
    sqlx::query(
        "UPDATE users SET password = $1, must_change = $2, changed_ms = $3, failures = 0, \
         locked_until_ms = 0 WHERE id = $4",
    )
    .bind(password.to_owned())
    .bind(i64::from(must_change))
    .bind(now_ms)
    .bind(id_value(id))
    .execute(tx.conn())
    .await
    .map_err(failed("change a password"))?;
    Ok(())
}

/// A new role, or whether a user can sign in; what is not named stays.
///
/// # Errors
/// [`StoreError`]
pub async fn user_access(
    tx: &mut Tx,
    id: Uuid,
    role: Option<&str>,
    disabled: Option<bool>,
    now_ms: i64,
) -> Result<(), StoreError> {
    sqlx::query(
        "UPDATE users SET role = COALESCE($1, role), disabled = COALESCE($2, disabled), \
         changed_ms = $3 WHERE id = $4",
    )
    .bind(role.map(str::to_owned))
    .bind(disabled.map(i64::from))
    .bind(now_ms)
    .bind(id_value(id))
    .execute(tx.conn())
    .await
    .map_err(failed("change a user"))?;
    Ok(())
}

/// Whether a user may open remote shells.
///
/// # Errors
/// [`StoreError`]
pub async fn user_shell(tx: &mut Tx, id: Uuid, may_shell: bool) -> Result<(), StoreError> {
    sqlx::query("UPDATE users SET may_shell = $1 WHERE id = $2")
        .bind(i64::from(may_shell))
        .bind(id_value(id))
        .execute(tx.conn())
        .await
        .map_err(failed("change a user"))?;
    Ok(())
}

/// One more wrong password; how many there are now. Safe against two at once.
///
/// # Errors
/// [`StoreError`]
pub async fn user_failure(tx: &mut Tx, id: Uuid) -> Result<i64, StoreError> {
    let row =
        sqlx::query("UPDATE users SET failures = failures + 1 WHERE id = $1 RETURNING failures")
            .bind(id_value(id))
            .fetch_one(tx.conn())
            .await
            .map_err(failed("count a wrong password"))?;
    column(&row, "failures")
}

/// Locks a user until then.
///
/// # Errors
/// [`StoreError`]
pub async fn user_lock(tx: &mut Tx, id: Uuid, until_ms: i64) -> Result<(), StoreError> {
    sqlx::query("UPDATE users SET locked_until_ms = $1 WHERE id = $2")
        .bind(until_ms)
        .bind(id_value(id))
        .execute(tx.conn())
        .await
        .map_err(failed("lock a user"))?;
    Ok(())
}

/// Changes of users wait for each other from here to the end of the transaction, so that two at
/// once do not take the last admin.
///
/// # Errors
/// [`StoreError`]
pub async fn users_lock(tx: &mut Tx) -> Result<(), StoreError> {
    if tx.backend() == Backend::Postgres {
        sqlx::query("LOCK TABLE users IN SHARE ROW EXCLUSIVE MODE")
            .execute(tx.conn())
            .await
            .map_err(failed("lock the users"))?;
    }
    Ok(())
}

/// How many admins can sign in.
///
/// # Errors
/// [`StoreError`]
pub async fn admin_count(tx: &mut Tx) -> Result<i64, StoreError> {
    let row = sqlx::query("SELECT COUNT(*) AS n FROM users WHERE role = 'admin' AND disabled = 0")
        .fetch_one(tx.conn())
        .await
        .map_err(failed("count admins"))?;
    column(&row, "n")
}

/// Keeps a sign-in or token.
///
/// # Errors
/// [`StoreError`]
pub async fn credential_insert(
    tx: &mut Tx,
    credential: &Credential,
    hash: Vec<u8>,
) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO credentials (id, hash, kind, account, name, scopes, created_ms, used_ms, \
         expires_ms) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
    )
    .bind(id_value(credential.id))
    .bind(hash)
    .bind(credential.kind.clone())
    .bind(id_value(credential.account))
    .bind(clean(&credential.name))
    .bind(clean(&credential.scopes))
    .bind(credential.created_ms)
    .bind(credential.used_ms)
    .bind(credential.expires_ms)
    .execute(tx.conn())
    .await
    .map_err(failed("keep a sign-in"))?;
    Ok(())
}

/// A sign-in or token was used, and is valid until then.
///
/// # Errors
/// [`StoreError`]
pub async fn credential_used(
    tx: &mut Tx,
    id: Uuid,
    used_ms: i64,
    expires_ms: i64,
) -> Result<(), StoreError> {
    sqlx::query("UPDATE credentials SET used_ms = $1, expires_ms = $2 WHERE id = $3")
        .bind(used_ms)
        .bind(expires_ms)
        .bind(id_value(id))
        .execute(tx.conn())
        .await
        .map_err(failed("use a sign-in"))?;
    Ok(())
}

/// Ends one; false when the account has no such one.
///
/// # Errors
/// [`StoreError`]
pub async fn credential_delete(tx: &mut Tx, account: Uuid, id: Uuid) -> Result<bool, StoreError> {
    let done = sqlx::query("DELETE FROM credentials WHERE id = $1 AND account = $2")
        .bind(id_value(id))
        .bind(id_value(account))
        .execute(tx.conn())
        .await
        .map_err(failed("end a sign-in"))?;
    Ok(done.rows_affected() == 1)
}

/// Ends all of an account but one.
///
/// # Errors
/// [`StoreError`]
pub async fn credentials_delete(
    tx: &mut Tx,
    account: Uuid,
    kind: &'static str,
    but: Option<Uuid>,
) -> Result<(), StoreError> {
    sqlx::query("DELETE FROM credentials WHERE account = $1 AND kind = $2 AND id <> $3")
        .bind(id_value(account))
        .bind(kind)
        .bind(id_value(but.unwrap_or_default()))
        .execute(tx.conn())
        .await
        .map_err(failed("end sign-ins"))?;
    Ok(())
}

/// Forgets those that ended.
///
/// # Errors
/// [`StoreError`]
pub async fn credentials_expire(tx: &mut Tx, now_ms: i64) -> Result<(), StoreError> {
    sqlx::query("DELETE FROM credentials WHERE expires_ms <= $1")
        .bind(now_ms)
        .execute(tx.conn())
        .await
        .map_err(failed("forget sign-ins"))?;
    Ok(())
}

impl Store {
    /// The sign-in or token with this hash, and its user.
    ///
    /// # Errors
    /// [`StoreError`]
    pub async fn credential_find(
        &self,
        hash: Vec<u8>,
    ) -> Result<Option<(Credential, User)>, StoreError> {
        let row = sqlx::query(
            "SELECT u.*, c.id AS credential_id, c.kind AS kind, c.name AS credential_name, \
             c.scopes AS scopes, c.created_ms AS credential_created_ms, c.used_ms AS used_ms, \
             c.expires_ms AS expires_ms \
             FROM credentials c JOIN users u ON u.id = c.account WHERE c.hash = $1",
        )
        .bind(hash)
        .fetch_optional(&self.readers)
        .await
        .map_err(failed("look a sign-in up"))?;
        let Some(row) = row else { return Ok(None) };
        let user = user(&row)?;
        let credential = Credential {
            id: id_column(&row, "credential_id")?,
            kind: column(&row, "kind")?,
            account: user.id,
            name: column(&row, "credential_name")?,
            scopes: column(&row, "scopes")?,
            created_ms: column(&row, "credential_created_ms")?,
            used_ms: column(&row, "used_ms")?,
            expires_ms: column(&row, "expires_ms")?,
        };
        Ok(Some((credential, user)))
    }

    /// API tokens of an account, newest first.
    ///
    /// # Errors
    /// [`StoreError`]
    pub async fn credential_list(&self, account: Uuid) -> Result<Vec<Credential>, StoreError> {
        let rows = sqlx::query(
            "SELECT * FROM credentials WHERE account = $1 AND kind = 'token' \
             ORDER BY created_ms DESC, id",
        )
        .bind(id_value(account))
        .fetch_all(&self.readers)
        .await
        .map_err(failed("list API tokens"))?;
        rows.iter()
            .map(|row| {
                Ok(Credential {
                    id: id_column(row, "id")?,
                    kind: column(row, "kind")?,
                    account,
                    name: column(row, "name")?,
                    scopes: column(row, "scopes")?,
                    created_ms: column(row, "created_ms")?,
                    used_ms: column(row, "used_ms")?,
                    expires_ms: column(row, "expires_ms")?,
                })
            })
            .collect()
    }

    /// A user by name.
    ///
    /// # Errors
    /// [`StoreError`]
    pub async fn user_find(&self, name: &str) -> Result<Option<User>, StoreError> {
        let row = sqlx::query("SELECT * FROM users WHERE name = $1")
            .bind(clean(name))
            .fetch_optional(&self.readers)
            .await
            .map_err(failed("look a user up"))?;
        row.as_ref().map(user).transpose()
    }

    /// A user by id.
    ///
    /// # Errors
    /// [`StoreError`]
    pub async fn user_get(&self, id: Uuid) -> Result<Option<User>, StoreError> {
        let row = sqlx::query("SELECT * FROM users WHERE id = $1")
            .bind(id_value(id))
            .fetch_optional(&self.readers)
            .await
            .map_err(failed("read a user"))?;
        row.as_ref().map(user).transpose()
    }

    /// All users by name.
    ///
    /// # Errors
    /// [`StoreError`]
    pub async fn user_list(&self) -> Result<Vec<User>, StoreError> {
        let rows = sqlx::query("SELECT * FROM users ORDER BY name")
            .fetch_all(&self.readers)
            .await
            .map_err(failed("list users"))?;
        rows.iter().map(user).collect()
    }
}

pub(super) fn user(row: &AnyRow) -> Result<User, StoreError> {
    Ok(User {
        id: id_column(row, "id")?,
        name: column(row, "name")?,
        role: column(row, "role")?,
        password: column(row, "password")?,
        must_change: column::<i64>(row, "must_change")? != 0,
        failures: column(row, "failures")?,
        locked_until_ms: column(row, "locked_until_ms")?,
        disabled: column::<i64>(row, "disabled")? != 0,
        may_shell: column::<i64>(row, "may_shell")? != 0,
        created_ms: column(row, "created_ms")?,
        changed_ms: column(row, "changed_ms")?,
        totp: column(row, "totp")?,
        totp_ms: column(row, "totp_ms")?,
        totp_pending: column(row, "totp_pending")?,
        totp_pending_ms: column(row, "totp_pending_ms")?,
    })
}
