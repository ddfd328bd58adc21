//! Users: who they are and what they may do.

use serde_json::json;
use uuid::Uuid;

use super::{App, AppError, audit, now_ms, secret};
use crate::store::users::{self as store, User};

/// Bytes of a password.
pub const MIN_PASSWORD: usize = 12;
pub(super) const MAX_PASSWORD: usize = 200;

/// What a user may do; each may do what those before it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Look.
    Viewer,
    /// Work on alerts, file tasks.
    Operator,
    /// Users, tokens, hosts, the audit log.
    Admin,
}

impl Role {
    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Operator => "operator",
            Self::Admin => "admin",
        }
    }

    /// The role of a name.
    #[must_use]
    pub fn of_name(name: &str) -> Option<Self> {
        [Self::Viewer, Self::Operator, Self::Admin].into_iter().find(|role| role.name() == name)
    }
}

/// What an API token is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// Look at everything that its user may see.
    Read,
    /// Work on alerts, file tasks.
    Respond,
    /// What admins do.
    Administer,
    /// `/metrics` alone.
    Metrics,
    /// Remote shells, where its user may open them.
    Shell,
}

impl Scope {
    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::Read, Self::Respond, Self::Administer, Self::Metrics, Self::Shell];

    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Respond => "respond",
            Self::Administer => "administer",
            Self::Metrics => "metrics",
            Self::Shell => "shell",
        }
    }
}

/// Who asks.
#[derive(Debug, Clone)]
pub struct Principal {
    /// The user.
    pub user: Uuid,
    /// The user's name.
    pub name: String,
    /// As in the audit log: the name, and the token's.
    pub actor: String,
    /// What the user may do.
    pub role: Role,
    /// The user may open remote shells.
    pub may_shell: bool,
    /// What the token is for; nothing for a sign-in, which is for all.
    pub scopes: Option<Vec<Scope>>,
    /// The sign-in or token.
    pub credential: Uuid,
    /// Only a new password is taken.
    pub must_change: bool,
}

/// What an admin changes on a user; what is not named stays.
#[derive(Debug, Clone, Default)]
pub struct UserEdit {
    /// Its role.
    pub role: Option<Role>,
    /// Whether it can sign in.
    pub disabled: Option<bool>,
    /// Whether it may open remote shells.
    pub may_shell: Option<bool>,
    /// A new password, which the user must change.
    pub password: Option<String>,
}

/// The first admin and its one-time password.
#[derive(Debug, Clone)]
pub struct FirstAdmin {
    /// Its name.
    pub name: String,
    /// To be shown once.
    pub password: String,
}

impl App {
    /// Makes an admin when there is no user at all.
    ///
    /// # Errors
    /// [`AppError`]
    pub async fn first_admin(&self) -> Result<Option<FirstAdmin>, AppError> {
        if !self.store().user_list().await?.is_empty() {
            return Ok(None);
        }
        let password = secret::password()?;
        let name = "admin".to_owned();
        match self.user_create(&name, Role::Admin, &password, "local").await {
            Ok(_) => Ok(Some(FirstAdmin { name, password })),
            // Another manager was faster.
            Err(AppError::Conflict(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Whether the first admin is the only user, and has the password that it was made with.
    ///
    /// # Errors
    /// [`AppError`]
    pub async fn first_admin_waits(&self) -> Result<bool, AppError> {
        let users = self.store().user_list().await?;
        let [first] = users.as_slice() else { return Ok(false) };
        Ok(first.must_change && first.changed_ms == first.created_ms)
    }

    /// Makes a user, who must change the password.
    ///
    /// # Errors
    /// [`AppError`]; `Conflict` when the name is taken.
    pub async fn user_create(
        &self,
        name: &str,
        role: Role,
        password: &str,
        actor: &str,
    ) -> Result<User, AppError> {
        if !plain_name(name) {
            let message = "name: 1 to 64 letters, digits and . _ - @".to_owned();
            return Err(AppError::Invalid(message));
        }
        password_check(name, password)?;
        let now_ms = now_ms();
        let user = User {
            id: Uuid::now_v7(),
            name: name.to_owned(),
            role: role.name().to_owned(),
            password: self.password_hash(password).await?,
            must_change: true,
            failures: 0,
            locked_until_ms: 0,
            disabled: false,
            may_shell: false,
            created_ms: now_ms,
            changed_ms: now_ms,
            totp: None,
            totp_ms: None,
            totp_pending: None,
            totp_pending_ms: None,
        };
        let mut tx = self.store().begin().await?;
        if !store::user_insert(&mut tx, &user).await? {
            return Err(AppError::Conflict(format!("there is a user {name} already")));
        }
        let detail = json!({ "role": user.role });
        let head = audit::append(&mut tx, actor, "user.create", name, &detail).await?;
        self.commit(tx, &[]).await?;
        self.audit_remember(&head);
        Ok(user)
    }

    /// All users by name.
    ///
    /// # Errors
    /// [`AppError`]
    pub async fn user_list(&self) -> Result<Vec<User>, AppError> {
        Ok(self.store().user_list().await?)
    }

    /// Changes a user. Disabling, a new role and a new password end its sign-ins.
    ///
    /// # Errors
    /// [`AppError`]; `Conflict` for the last admin.
    pub async fn user_edit(&self, id: Uuid, edit: UserEdit, actor: &str) -> Result<User, AppError> {
        let user = self.store().user_get(id).await?.ok_or(AppError::NotFound("user"))?;
        let password = match &edit.password {
            None => None,
            Some(password) => {
                password_check(&user.name, password)?;
                Some(self.password_hash(password).await?)
            }
        };
        let now_ms = now_ms();
        let mut tx = self.store().begin().await?;
        store::users_lock(&mut tx).await?;
        let role = edit.role.map(Role::name);
        store::user_access(&mut tx, id, role, edit.disabled, now_ms).await?;
        if let Some(may_shell) = edit.may_shell {
            store::user_shell(&mut tx, id, may_shell).await?;
        }
        if let Some(password) = password {
            store::user_password(&mut tx, id, &password, true, now_ms).await?;
        }
        if store::admin_count(&mut tx).await? == 0 {
            return Err(AppError::Conflict("this is the last admin".to_owned()));
        }
        store::credentials_delete(&mut tx, id, "session", None).await?;
        if edit.disabled == Some(true) {
            store::credentials_delete(&mut tx, id, "token", None).await?;
        }
        let detail = json!({
            "role": edit.role.map(Role::name), "disabled": edit.disabled,
            "may_shell": edit.may_shell, "password": edit.password.is_some(),
        });
        let head = audit::append(&mut tx, actor, "user.edit", &user.name, &detail).await?;
        self.commit(tx, &[]).await?;
        self.audit_remember(&head);
        self.store().user_get(id).await?.ok_or(AppError::NotFound("user"))
    }

    /// A new one-time password for a user that lost its own, for whoever may run the manager's
    /// command line.
    ///
    /// # Errors
    /// [`AppError`]
    pub async fn user_reset(&self, name: &str) -> Result<String, AppError> {
        let user = self.store().user_find(name).await?.ok_or(AppError::NotFound("user"))?;
        let password = secret::password()?;
        let edit = UserEdit {
            password: Some(password.clone()),
            disabled: Some(false),
            ..UserEdit::default()
        };
        self.user_edit(user.id, edit, "local").await?;
        Ok(password)
    }
}

/// Whether this may be a user's name.
pub(super) fn plain_name(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || "._-@".contains(c);
    !name.is_empty() && name.len() <= 64 && name.chars().all(plain)
}

/// Whether a password may be one.
pub(super) fn password_check(name: &str, password: &str) -> Result<(), AppError> {
    if password.len() < MIN_PASSWORD || password.len() > MAX_PASSWORD {
        let message = format!("password: {MIN_PASSWORD} to {MAX_PASSWORD} bytes");
        return Err(AppError::Invalid(message));
    }
    if password.to_lowercase().contains(&name.to_lowercase()) {
        return Err(AppError::Invalid("password: without the user's name".to_owned()));
    }
    let mut signs: Vec<char> = password.chars().collect();
    signs.sort_unstable();
    signs.dedup();
    if signs.len() < 5 {
        return Err(AppError::Invalid("password: at least five different signs".to_owned()));
    }
    Ok(())
}
