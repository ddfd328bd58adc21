//! Sign-ins and API tokens: whose secret it is.
//!
//! Invariants: a session of a user whose password must be changed can do nothing else. A token can
//! do no more than its user, now. Whoever has a second factor signs in with a code of it only.

use serde_json::json;
use uuid::Uuid;

use super::totp::Factor;
use super::users::{MAX_PASSWORD, password_check};
use super::{App, AppError, Principal, Role, Scope, audit, now_ms, secret};
use crate::store::Tx;
use crate::store::audit::AuditHead;
use crate::store::second_factors::user_hold;
use crate::store::users::{self as store, Credential, User};

const SESSION: &str = "hfs_";
const TOKEN: &str = "hft_";
/// A sign-in ends after this long without use, and after this long at all, milliseconds.
const IDLE_MS: i64 = 8 * 3_600_000;
const LONGEST_MS: i64 = 7 * 86_400_000;
/// Uses are noted this often.
const NOTED_MS: i64 = 60_000;
/// Wrong passwords and codes before a user is locked; then for a minute, doubled each time, 15 at most.
const FAILURES: i64 = 5;
const LOCK_MS: i64 = 60_000;
const LONGEST_LOCK_MS: i64 = 15 * 60_000;

/// A sign-in that worked.
#[derive(Debug, Clone)]
pub struct SignIn {
    /// For the cookie, or as a bearer.
    pub secret: String,
    /// Who.
    pub principal: Principal,
}

/// A sign-in that did not.
#[derive(Debug, thiserror::Error)]
pub enum SignInError {
    /// Which of name, password and code is wrong, or whether the user is disabled, is not told.
    #[error("the name, the password or the code is wrong")]
    Wrong,
    /// The password is right; a code is needed too.
    #[error("a code of the second factor is needed")]
    SecondFactor,
    /// Too many wrong passwords or codes.
    #[error("too many wrong passwords or codes; try again in {0} s")]
    Locked(i64),
    /// The database did not do it.
    #[error(transparent)]
    App(#[from] AppError),
}

impl SignInError {
    pub(super) const fn locked(user: &User, now_ms: i64) -> Self {
        Self::Locked((user.locked_until_ms - now_ms) / 1000 + 1)
    }
}

/// A user whose password was just given, as it is now; who changes it waits.
pub(super) struct Held {
    pub(super) tx: Tx,
    pub(super) user: User,
}

impl App {
    /// Signs in where there is no second factor.
    ///
    /// # Errors
    /// [`SignInError`]
    pub async fn sign_in(
        &self,
        name: &str,
        password: &str,
        from: &str,
    ) -> Result<SignIn, SignInError> {
        self.sign_in_with_code(name, password, None, from).await
    }

    /// Signs in, with a code of the second factor.
    ///
    /// # Errors
    /// [`SignInError`]
    pub async fn sign_in_with_code(
        &self,
        name: &str,
        password: &str,
        code: Option<&str>,
        from: &str,
    ) -> Result<SignIn, SignInError> {
        let store_error = |error| SignInError::App(AppError::Store(error));
        let user = match name.len() <= 64 && password.len() <= MAX_PASSWORD {
            true => self.store().user_find(name).await.map_err(store_error)?,
            false => None,
        };
        let now_ms = now_ms();
        if let Some(user) = user.as_ref().filter(|user| user.locked_until_ms > now_ms) {
            self.counters().sign_in_failures.add(1);
            return Err(SignInError::locked(user, now_ms));
        }
        let hash = user.as_ref().filter(|user| !user.disabled).map(|user| user.password.as_str());
        let right = self.password_verify(password, hash).await?;
        match user {
            Some(user) if right => {
                let held = self.user_held(&user, now_ms).await?;
                let taken = self.factor_take(held, code, from, now_ms).await;
                if matches!(taken, Err(SignInError::Wrong | SignInError::Locked(_))) {
                    self.counters().sign_in_failures.add(1);
                }
                let (tx, user, factor) = taken?;
                Ok(self.session_begin(tx, user, factor.name(), from, now_ms).await?)
            }
            user => {
                self.counters().sign_in_failures.add(1);
                if let Some(user) = user {
                    self.failure_count(&user, from, now_ms).await?;
                }
                Err(SignInError::Wrong)
            }
        }
    }

    /// Holds a user whose password was right when it was read. What others did meanwhile counts:
    /// many tries at once have no more of them than one after another.
    pub(super) async fn user_held(&self, read: &User, now_ms: i64) -> Result<Held, SignInError> {
        let mut tx = self.store().begin().await.map_err(AppError::from)?;
        let user = user_hold(&mut tx, read.id).await.map_err(AppError::from)?;
        match user {
            Some(user) if user.locked_until_ms > now_ms => Err(SignInError::locked(&user, now_ms)),
            Some(user) if !user.disabled && user.password == read.password => Ok(Held { tx, user }),
            _ => Err(SignInError::Wrong),
        }
    }

    /// Takes the second factor of a user who has one. A wrong code is counted.
    pub(super) async fn factor_take(
        &self,
        held: Held,
        code: Option<&str>,
        from: &str,
        now_ms: i64,
    ) -> Result<(Tx, User, Factor), SignInError> {
        let Held { mut tx, user } = held;
        let Some(sealed) = &user.totp else { return Ok((tx, user, Factor::Password)) };
        let code = code.ok_or(SignInError::SecondFactor)?;
        match self.code_take(&mut tx, &user, sealed, code, now_ms).await? {
            Some(factor) => Ok((tx, user, factor)),
            None => {
                self.code_refuse(tx, &user, from, now_ms).await?;
                Err(SignInError::Wrong)
            }
        }
    }

    /// Counts a wrong code.
    pub(super) async fn code_refuse(
        &self,
        mut tx: Tx,
        user: &User,
        from: &str,
        now_ms: i64,
    ) -> Result<(), AppError> {
        let head = failure_note(&mut tx, user, "code", from, now_ms).await?;
        self.commit(tx, &[]).await?;
        self.audit_remember(&head);
        Ok(())
    }

    /// Counts a wrong password.
    pub(super) async fn failure_count(
        &self,
        user: &User,
        from: &str,
        now_ms: i64,
    ) -> Result<(), AppError> {
        let mut tx = self.store().begin().await?;
        let head = failure_note(&mut tx, user, "password", from, now_ms).await?;
        self.commit(tx, &[]).await?;
        self.audit_remember(&head);
        Ok(())
    }

    /// Begins a session of somebody who proved who it is, `by` what is told in the audit log.
    pub(super) async fn session_begin(
        &self,
        mut tx: Tx,
        user: User,
        by: &str,
        from: &str,
        now_ms: i64,
    ) -> Result<SignIn, AppError> {
        let (credential, secret, hash) =
            credential(SESSION, user.id, "", "", now_ms, now_ms + IDLE_MS)?;
        store::user_signed_in(&mut tx, user.id).await?;
        store::credential_insert(&mut tx, &credential, hash).await?;
        let detail = json!({ "from": from, "by": by });
        let head = audit::append(&mut tx, &user.name, "session.begin", &user.name, &detail).await?;
        self.commit(tx, &[]).await?;
        self.audit_remember(&head);
        let principal = principal(&credential, &user)?;
        Ok(SignIn { secret, principal })
    }

    /// Who has this secret; nobody when it does not stand.
    ///
    /// # Errors
    /// [`AppError`]
    pub async fn principal(&self, secret: &str) -> Result<Option<Principal>, AppError> {
        let hash = secret::hash(SESSION, secret).or_else(|| secret::hash(TOKEN, secret));
        let Some(hash) = hash else { return Ok(None) };
        let Some((credential, user)) = self.store().credential_find(hash).await? else {
            return Ok(None);
        };
        let now_ms = now_ms();
        if user.disabled || credential.expires_ms <= now_ms {
            return Ok(None);
        }
        if now_ms - credential.used_ms > NOTED_MS {
            let expires_ms = if credential.kind == "session" {
                (now_ms + IDLE_MS).min(credential.created_ms + LONGEST_MS)
            } else {
                credential.expires_ms
            };
            let mut tx = self.store().begin().await?;
            store::credential_used(&mut tx, credential.id, now_ms, expires_ms).await?;
            tx.commit().await?;
        }
        principal(&credential, &user).map(Some)
    }

    /// Signs out.
    ///
    /// # Errors
    /// [`AppError`]
    pub async fn sign_out(&self, who: &Principal) -> Result<(), AppError> {
        let mut tx = self.store().begin().await?;
        store::credential_delete(&mut tx, who.user, who.credential).await?;
        tx.commit().await?;
        Ok(())
    }

    /// Changes one's own password; ends all other sign-ins.
    ///
    /// # Errors
    /// [`SignInError`], when the old one is wrong; [`AppError::Invalid`] for a bad new one.
    pub async fn password_change(
        &self,
        who: &Principal,
        old: &str,
        new: &str,
    ) -> Result<(), SignInError> {
        let store_error = |error| SignInError::App(AppError::Store(error));
        let user = self.store().user_get(who.user).await.map_err(store_error)?;
        let user = user.ok_or(SignInError::Wrong)?;
        let now_ms = now_ms();
        if user.locked_until_ms > now_ms {
            return Err(SignInError::locked(&user, now_ms));
        }
        if old.len() > MAX_PASSWORD || !self.password_verify(old, Some(&user.password)).await? {
            self.failure_count(&user, "password change", now_ms).await?;
            return Err(SignInError::Wrong);
        }
        password_check(&user.name, new)?;
        if old == new {
            let message = "the new password is the old one".to_owned();
            return Err(AppError::Invalid(message).into());
        }
        let password = self.password_hash(new).await?;
        let written = async {
            let mut tx = self.store().begin().await?;
            store::user_password(&mut tx, user.id, &password, false, now_ms).await?;
            let keep = Some(who.credential);
            store::credentials_delete(&mut tx, user.id, "session", keep).await?;
            let (action, name) = ("user.password", &user.name);
            let head = audit::append(&mut tx, &who.actor, action, name, &json!({})).await?;
            self.commit(tx, &[]).await?;
            self.audit_remember(&head);
            Ok(())
        };
        written.await.map_err(store_error)
    }

    /// Makes an API token of one's own. The secret is shown this once.
    ///
    /// # Errors
    /// [`AppError`]
    pub async fn api_token_create(
        &self,
        who: &Principal,
        name: &str,
        scopes: &[Scope],
        valid_s: u64,
    ) -> Result<(Credential, String), AppError> {
        if name.is_empty() || name.len() > 100 || scopes.is_empty() {
            let message = "name: 1 to 100 bytes; scopes: at least one".to_owned();
            return Err(AppError::Invalid(message));
        }
        if valid_s == 0 || valid_s > 2 * 366 * 86_400 {
            return Err(AppError::Invalid("valid_s: a second to two years".to_owned()));
        }
        let now_ms = now_ms();
        let names: Vec<_> = scopes.iter().map(|scope| scope.name()).collect();
        let expires_ms = now_ms + i64::try_from(valid_s * 1000).unwrap_or(i64::MAX / 2);
        let (credential, secret, hash) =
            credential(TOKEN, who.user, name, &names.join(" "), now_ms, expires_ms)?;
        let mut tx = self.store().begin().await?;
        store::credential_insert(&mut tx, &credential, hash).await?;
        let detail = json!({ "name": name, "scopes": names, "expires_ms": expires_ms });
        let target = credential.id.to_string();
        let head = audit::append(&mut tx, &who.actor, "api_token.create", &target, &detail).await?;
        self.commit(tx, &[]).await?;
        self.audit_remember(&head);
        Ok((credential, secret))
    }

    /// One's own API tokens.
    ///
    /// # Errors
    /// [`AppError`]
    pub async fn api_token_list(&self, who: &Principal) -> Result<Vec<Credential>, AppError> {
        Ok(self.store().credential_list(who.user).await?)
    }

    /// Ends an API token of one's own.
    ///
    /// # Errors
    /// [`AppError`]
    pub async fn api_token_delete(&self, who: &Principal, id: Uuid) -> Result<(), AppError> {
        let mut tx = self.store().begin().await?;
        if !store::credential_delete(&mut tx, who.user, id).await? {
            return Err(AppError::NotFound("API token"));
        }
        let target = id.to_string();
        let head =
            audit::append(&mut tx, &who.actor, "api_token.delete", &target, &json!({})).await?;
        self.commit(tx, &[]).await?;
        self.audit_remember(&head);
        Ok(())
    }
}

/// One more wrong password or code; the user is locked after some.
async fn failure_note(
    tx: &mut Tx,
    user: &User,
    what: &str,
    from: &str,
    now_ms: i64,
) -> Result<AuditHead, AppError> {
    let failures = store::user_failure(tx, user.id).await?;
    if failures >= FAILURES {
        let doubled = u32::try_from((failures - FAILURES).min(10)).unwrap_or(10);
        let lock = (LOCK_MS << doubled).min(LONGEST_LOCK_MS);
        store::user_lock(tx, user.id, now_ms.saturating_add(lock)).await?;
    }
    let detail = json!({ "from": from, "wrong": what, "failures": failures });
    Ok(audit::append(tx, &user.name, "session.refuse", &user.name, &detail).await?)
}

fn credential(
    prefix: &str,
    account: Uuid,
    name: &str,
    scopes: &str,
    now_ms: i64,
    expires_ms: i64,
) -> Result<(Credential, String, Vec<u8>), AppError> {
    let secret = secret::new(prefix)?;
    let hash = secret::hash(prefix, &secret).unwrap_or_default();
    let credential = Credential {
        id: Uuid::now_v7(),
        kind: if prefix == SESSION { "session" } else { "token" }.to_owned(),
        account,
        name: name.to_owned(),
        scopes: scopes.to_owned(),
        created_ms: now_ms,
        used_ms: now_ms,
        expires_ms,
    };
    Ok((credential, secret, hash))
}

fn principal(credential: &Credential, user: &User) -> Result<Principal, AppError> {
    let corrupt = |what: &str| {
        AppError::Store(super::StoreError::corrupt("read a user", format!("a role {what}")))
    };
    let token = credential.kind == "token";
    let scopes = token.then(|| {
        let named = |scope: &Scope| credential.scopes.split(' ').any(|name| name == scope.name());
        Scope::ALL.into_iter().filter(named).collect()
    });
    Ok(Principal {
        user: user.id,
        name: user.name.clone(),
        actor: if token {
            format!("{} (token {})", user.name, credential.name)
        } else {
            user.name.clone()
        },
        role: Role::of_name(&user.role).ok_or_else(|| corrupt(&user.role))?,
        may_shell: user.may_shell,
        scopes,
        credential: credential.id,
        must_change: user.must_change,
    })
}
