//! The second factor: codes by time (TOTP, RFC 6238: SHA-1, 6 digits, 30 s) and recovery codes.
//!
//! Invariants: a code is taken once, whichever manager is asked, and codes before it never again;
//! wrong codes count with wrong passwords and lock the user, also when many come at once; the
//! secret and the recovery codes are shown once and kept sealed or hashed. An API token needs no
//! code: it was made by somebody who gave one.

use serde_json::json;
use sha2::{Digest, Sha256};
use totp_rs::{Builder, Totp};
use uuid::Uuid;
use zeroize::Zeroizing;

use super::sign_in::{Held, SignInError};
use super::users::MAX_PASSWORD;
use super::{App, AppError, Principal, audit, now_ms, secret};
use crate::store::Tx;
use crate::store::second_factors as store;
use crate::store::users::{User, credentials_delete, user_signed_in};

/// Bytes of a secret, as RFC 4226 recommends.
const SECRET: usize = 20;
/// Recovery codes that are made at once.
const RECOVERY_CODES: usize = 10;
/// Signs of a recovery code: 80 random bits.
const RECOVERY_SIGNS: usize = 16;
/// How long an offered secret can be confirmed, milliseconds.
const OFFER_MS: i64 = 15 * 60_000;

/// A secret for an authenticator app, shown this once.
#[derive(Debug, Clone)]
pub struct TotpOffer {
    /// In base32, to be typed.
    pub secret: String,
    /// `otpauth://totp/…`, to be shown as a QR code.
    pub uri: String,
}

/// How one's second factor stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TotpState {
    /// Since when sign-ins need a code, milliseconds since the epoch; nothing: they need none.
    pub since_ms: Option<i64>,
    /// Recovery codes that are left.
    pub recovery_codes: i64,
}

/// What opened: for the audit log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Factor {
    Password,
    Totp,
    RecoveryCode,
}

impl Factor {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Password => "password",
            Self::Totp => "password and code",
            Self::RecoveryCode => "password and recovery code",
        }
    }
}

impl App {
    /// How one's second factor stands.
    ///
    /// # Errors
    /// [`AppError`]
    pub async fn totp_state(&self, who: &Principal) -> Result<TotpState, AppError> {
        let user = self.store().user_get(who.user).await?.ok_or(AppError::NotFound("user"))?;
        let recovery_codes = self.store().recovery_codes_left(who.user).await?;
        Ok(TotpState { since_ms: user.totp_ms, recovery_codes })
    }

    /// Offers a secret. Nothing changes until a code confirms it.
    ///
    /// # Errors
    /// [`SignInError`] when the password is wrong; `Conflict` when there is a second factor already.
    pub async fn totp_begin(
        &self,
        who: &Principal,
        password: &str,
    ) -> Result<TotpOffer, SignInError> {
        let mut bytes = Zeroizing::new([0; SECRET]);
        secret::random(&mut *bytes)?;
        let totp = totp(&*bytes, &who.name)?;
        let offer = TotpOffer {
            secret: totp.secret().to_base32(),
            uri: totp.to_url().map_err(|error| broken(&error.to_string()))?,
        };
        let sealed = self.0.vault.seal(who.user, &offer.secret).map_err(AppError::from)?;
        let now_ms = now_ms();
        let held = self.user_verified(who, password, "second factor", now_ms).await?;
        let Held { mut tx, user } = held;
        if user.totp.is_some() {
            let message = "there is a second factor already; remove it first".to_owned();
            return Err(AppError::Conflict(message).into());
        }
        store::totp_offer(&mut tx, user.id, sealed, now_ms).await.map_err(AppError::from)?;
        self.totp_note(tx, &who.actor, "user.totp_offer", &user.name).await?;
        Ok(offer)
    }

    /// Confirms the offered secret by a code of it: from now on sign-ins need one. Other sign-ins
    /// end. The recovery codes are shown this once.
    ///
    /// # Errors
    /// [`SignInError`] for a wrong code; `Conflict` when nothing is offered.
    pub async fn totp_confirm(
        &self,
        who: &Principal,
        code: &str,
    ) -> Result<Vec<String>, SignInError> {
        let now_ms = now_ms();
        let mut tx = self.store().begin().await.map_err(AppError::from)?;
        let user = store::user_hold(&mut tx, who.user).await.map_err(AppError::from)?;
        let user = user.ok_or(SignInError::Wrong)?;
        if user.locked_until_ms > now_ms {
            return Err(SignInError::locked(&user, now_ms));
        }
        let fresh = user.totp_pending_ms.is_some_and(|since| now_ms - since <= OFFER_MS);
        let Some(sealed) = user.totp_pending.as_ref().filter(|_| fresh && user.totp.is_none())
        else {
            return Err(AppError::Conflict("no second factor is offered".to_owned()).into());
        };
        let Some(step) = self.step(&user, sealed, code.trim(), now_ms)? else {
            self.code_refuse(tx, &user, "second factor", now_ms).await?;
            return Err(SignInError::Wrong);
        };
        Ok(self.totp_confirmed(tx, who, &user, step, now_ms).await?)
    }

    async fn totp_confirmed(
        &self,
        mut tx: Tx,
        who: &Principal,
        user: &User,
        step: i64,
        now_ms: i64,
    ) -> Result<Vec<String>, AppError> {
        store::totp_confirm(&mut tx, user.id, step, now_ms).await?;
        user_signed_in(&mut tx, user.id).await?;
        let codes = recovery_codes(&mut tx, user.id).await?;
        credentials_delete(&mut tx, user.id, "session", Some(who.credential)).await?;
        self.totp_note(tx, &who.actor, "user.totp_confirm", &user.name).await?;
        Ok(codes)
    }

    /// Removes one's own second factor.
    ///
    /// # Errors
    /// [`SignInError`] when password or code is wrong; `Conflict` when there is none.
    pub async fn totp_remove(
        &self,
        who: &Principal,
        password: &str,
        code: &str,
    ) -> Result<(), SignInError> {
        let (mut tx, user) = self.user_proven(who, password, code).await?;
        let removed = store::totp_remove(&mut tx, user.id, now_ms()).await;
        removed.map_err(AppError::from)?;
        Ok(self.totp_note(tx, &who.actor, "user.totp_remove", &user.name).await?)
    }

    /// New recovery codes; those before are worth nothing any more.
    ///
    /// # Errors
    /// [`SignInError`] when password or code is wrong; `Conflict` when there is no second factor.
    pub async fn recovery_codes_renew(
        &self,
        who: &Principal,
        password: &str,
        code: &str,
    ) -> Result<Vec<String>, SignInError> {
        let (mut tx, user) = self.user_proven(who, password, code).await?;
        let codes = recovery_codes(&mut tx, user.id).await?;
        self.totp_note(tx, &who.actor, "user.recovery_codes", &user.name).await?;
        Ok(codes)
    }

    /// Removes somebody else's second factor, whose sign-ins end.
    ///
    /// # Errors
    /// [`AppError`]; `Conflict` for one's own, which needs a code, and when there is none.
    pub async fn totp_reset(&self, id: Uuid, who: &Principal) -> Result<(), AppError> {
        if id == who.user {
            let message = "one's own is removed with password and code, under session/totp";
            return Err(AppError::Conflict(message.to_owned()));
        }
        self.totp_clear(id, &who.actor).await
    }

    /// Removes a user's second factor, for whoever may run the manager's command line.
    ///
    /// # Errors
    /// [`AppError`]; `Conflict` when there is none.
    pub async fn totp_reset_local(&self, name: &str) -> Result<(), AppError> {
        let user = self.store().user_find(name).await?.ok_or(AppError::NotFound("user"))?;
        self.totp_clear(user.id, "local").await
    }

    async fn totp_clear(&self, id: Uuid, actor: &str) -> Result<(), AppError> {
        let mut tx = self.store().begin().await?;
        let user = store::user_hold(&mut tx, id).await?.ok_or(AppError::NotFound("user"))?;
        if user.totp.is_none() {
            return Err(AppError::Conflict("this user has no second factor".to_owned()));
        }
        store::totp_remove(&mut tx, id, now_ms()).await?;
        credentials_delete(&mut tx, id, "session", None).await?;
        self.totp_note(tx, actor, "user.totp_reset", &user.name).await
    }

    /// Password and code, or nothing.
    async fn user_proven(
        &self,
        who: &Principal,
        password: &str,
        code: &str,
    ) -> Result<(Tx, User), SignInError> {
        let now_ms = now_ms();
        let held = self.user_verified(who, password, "second factor", now_ms).await?;
        if held.user.totp.is_none() {
            return Err(AppError::Conflict("there is no second factor".to_owned()).into());
        }
        let (tx, user, _) = self.factor_take(held, Some(code), "second factor", now_ms).await?;
        Ok((tx, user))
    }

    /// A user whose password was just given, held. A wrong one is counted.
    async fn user_verified(
        &self,
        who: &Principal,
        password: &str,
        from: &str,
        now_ms: i64,
    ) -> Result<Held, SignInError> {
        let user = self.store().user_get(who.user).await.map_err(AppError::from)?;
        let user = user.ok_or(SignInError::Wrong)?;
        if user.locked_until_ms > now_ms {
            return Err(SignInError::locked(&user, now_ms));
        }
        let right = password.len() <= MAX_PASSWORD
            && self.password_verify(password, Some(&user.password)).await?;
        if !right {
            self.failure_count(&user, from, now_ms).await?;
            return Err(SignInError::Wrong);
        }
        self.user_held(&user, now_ms).await
    }

    /// Whether a code opens for a user that is held; the code is used up then.
    pub(super) async fn code_take(
        &self,
        tx: &mut Tx,
        user: &User,
        sealed: &[u8],
        code: &str,
        now_ms: i64,
    ) -> Result<Option<Factor>, AppError> {
        let code: String = code.chars().filter(|c| !" -".contains(*c)).take(64).collect();
        if code.len() == RECOVERY_SIGNS {
            let hash = recovery_hash(user.id, &code.to_ascii_lowercase());
            let taken = store::recovery_code_take(tx, user.id, hash).await?;
            return Ok(taken.then_some(Factor::RecoveryCode));
        }
        match self.step(user, sealed, &code, now_ms)? {
            Some(step) if store::totp_step_take(tx, user.id, step).await? => Ok(Some(Factor::Totp)),
            _ => Ok(None),
        }
    }

    /// The step of a code: the one now, the one before or the one after.
    fn step(
        &self,
        user: &User,
        sealed: &[u8],
        code: &str,
        now_ms: i64,
    ) -> Result<Option<i64>, AppError> {
        if code.len() != 6 || !code.bytes().all(|byte| byte.is_ascii_digit()) {
            return Ok(None);
        }
        let secret = self.0.vault.unseal(user.id, sealed)?;
        let secret = totp_rs::Secret::try_from_base32(&*secret);
        let secret = secret.map_err(|error| broken(&error.to_string()))?;
        let time_s = u64::try_from(now_ms / 1000).unwrap_or(0);
        let step = totp(&secret, &user.name)?.check(code, time_s);
        Ok(step.and_then(|step| i64::try_from(step).ok()))
    }

    async fn totp_note(
        &self,
        mut tx: Tx,
        actor: &str,
        action: &str,
        name: &str,
    ) -> Result<(), AppError> {
        let head = audit::append(&mut tx, actor, action, name, &json!({})).await?;
        self.commit(tx, &[]).await?;
        self.audit_remember(&head);
        Ok(())
    }
}

fn totp(secret: &[u8], name: &str) -> Result<Totp, AppError> {
    let built = Builder::new()
        .with_secret(secret)
        .with_issuer(Some("Holdfast"))
        .with_account_name(name)
        .build();
    built.map_err(|error| broken(&error.to_string()))
}

fn broken(error: &str) -> AppError {
    AppError::Store(super::StoreError::corrupt("use a second factor", error.to_owned()))
}

async fn recovery_codes(tx: &mut Tx, account: Uuid) -> Result<Vec<String>, AppError> {
    let mut codes = Vec::with_capacity(RECOVERY_CODES);
    let mut hashes = Vec::with_capacity(RECOVERY_CODES);
    for _ in 0..RECOVERY_CODES {
        let code = secret::signs(RECOVERY_SIGNS)?;
        hashes.push(recovery_hash(account, &code));
        let parts: Vec<String> =
            code.as_bytes().chunks(4).map(|part| String::from_utf8_lossy(part).into()).collect();
        codes.push(parts.join("-"));
    }
    store::recovery_codes_replace(tx, account, &hashes).await?;
    Ok(codes)
}

/// 80 random bits need no slow hash.
fn recovery_hash(account: Uuid, code: &str) -> Vec<u8> {
    let mut hash = Sha256::new();
    hash.update(b"holdfast recovery code\0");
    hash.update(account.as_bytes());
    hash.update(code.as_bytes());
    hash.finalize().to_vec()
}
