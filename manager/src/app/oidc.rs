//! Signing in by another party's word (OpenID Connect): which user that is, and what role follows.
//!
//! Invariants: an identity is issuer and subject, never a name: somebody who is called like a user
//! of the manager's own is not that user. The role is that of the last sign-in; whoever has none any
//! more is out, tokens too. The provider asks for second factors; the manager's own is for its own
//! passwords. What a browser keeps meanwhile is sealed, for this purpose alone, and ends.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::json;
use uuid::Uuid;

use super::users::plain_name;
use super::{App, AppError, Role, SignIn, audit, now_ms, secret};
use crate::oidc::{Attempt, Identity, OidcError, Provider};
use crate::store::Tx;
use crate::store::identities::{identity_insert, identity_user};
use crate::store::users::{self as store, User};

/// Time to sign in at the provider, milliseconds.
const ATTEMPT_MS: i64 = 10 * 60_000;
/// What the vault seals an attempt for.
const PURPOSE: Uuid = Uuid::from_u128(0x6f69_6463_2061_7474_656d_7074_0000_0001);
/// Bytes of what a browser brings.
const BROUGHT: usize = 4096;
/// Characters of a subject (OpenID Connect Core 1.0, section 2).
const SUBJECT: usize = 255;

/// Which values of a claim make which role, the highest first. `*` is everybody.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoleRule(pub Vec<(Role, Vec<String>)>);

impl RoleRule {
    /// The highest role of these values.
    #[must_use]
    pub fn role(&self, groups: &[String]) -> Option<Role> {
        let named = |value: &String| value == "*" || groups.contains(value);
        self.0.iter().find(|(_, values)| values.iter().any(named)).map(|(role, _)| *role)
    }
}

/// Why somebody did not get in by another party's word.
#[derive(Debug, thiserror::Error)]
pub enum OidcRefusal {
    /// There is no such provider.
    #[error("no such provider")]
    NoProvider,
    /// What the browser brought is not of a sign-in that it began within ten minutes.
    #[error("this sign-in did not begin here, or took too long")]
    NoAttempt,
    /// The provider refused.
    #[error("the provider refused: {0}")]
    Refused(String),
    /// The provider could not be asked, or what it said does not hold.
    #[error("ask the provider")]
    Provider(#[from] OidcError),
    /// None of the person's groups gives a role.
    #[error("no role follows from the provider's groups")]
    NoRole,
    /// The name cannot be a user's.
    #[error("the provider's name for this person cannot be a user's name")]
    Name,
    /// A user of that name is there, and is somebody else.
    #[error("there is another user of that name")]
    Taken,
    /// An admin shut the user out.
    #[error("the user is disabled")]
    Disabled,
    /// The last admin would be none.
    #[error("this is the last admin")]
    LastAdmin,
    /// The manager could not do it.
    #[error(transparent)]
    App(#[from] AppError),
}

impl OidcRefusal {
    /// One word of a fixed list, for the page that the browser gets to.
    #[must_use]
    pub const fn word(&self) -> &'static str {
        match self {
            Self::NoProvider => "no_provider",
            Self::NoAttempt => "no_attempt",
            Self::Refused(_) => "refused",
            Self::Provider(_) => "provider",
            Self::NoRole => "no_role",
            Self::Name => "name",
            Self::Taken => "taken",
            Self::Disabled => "disabled",
            Self::LastAdmin => "last_admin",
            Self::App(_) => "failed",
        }
    }
}

impl App {
    /// Names of the providers that people may sign in by.
    #[must_use]
    pub fn oidc_providers(&self) -> Vec<&str> {
        self.0.settings.providers.iter().map(|(provider, _)| provider.name.as_str()).collect()
    }

    fn provider(&self, name: &str) -> Result<&(Provider, RoleRule), OidcRefusal> {
        let mut all = self.0.settings.providers.iter();
        all.find(|(provider, _)| provider.name == name).ok_or(OidcRefusal::NoProvider)
    }

    /// Begins: where to send the browser, and what it is to keep.
    ///
    /// # Errors
    /// [`OidcRefusal`]
    pub async fn oidc_begin(&self, name: &str) -> Result<(String, String), OidcRefusal> {
        let (provider, _) = self.provider(name)?;
        let (url, attempt) = provider.begin(now_ms() + ATTEMPT_MS).await?;
        let text = serde_json::to_string(&attempt).unwrap_or_default();
        let sealed = self.0.vault.seal(PURPOSE, &text).map_err(AppError::from)?;
        Ok((url, URL_SAFE_NO_PAD.encode(sealed)))
    }

    /// Signs in who came back, with what the browser kept. What the provider says when it refuses
    /// comes in place of the code.
    ///
    /// # Errors
    /// [`OidcRefusal`], which is in the audit log when a provider vouched for somebody.
    pub async fn oidc_finish(
        &self,
        name: &str,
        kept: &str,
        state: &str,
        code: Result<String, String>,
        from: &str,
    ) -> Result<SignIn, OidcRefusal> {
        let (provider, rule) = self.provider(name)?;
        let attempt = self.attempt(kept).ok_or(OidcRefusal::NoAttempt)?;
        let stands = attempt.provider == name && attempt.until_ms > now_ms();
        if !stands || !same(attempt.state.as_bytes(), state.as_bytes()) {
            return Err(OidcRefusal::NoAttempt);
        }
        let code =
            code.map_err(|said| OidcRefusal::Refused(crate::notify::text::plain(&said, 200)))?;
        let identity = provider.finish(attempt, code).await?;
        let signed_in = self.identity_sign_in(provider, rule, &identity, from).await;
        if let Err(refusal) = &signed_in {
            self.counters().sign_in_failures.add(1);
            self.refusal_note(provider, &identity, refusal, from).await?;
        }
        signed_in
    }

    fn attempt(&self, kept: &str) -> Option<Attempt> {
        let sealed = URL_SAFE_NO_PAD.decode(kept.get(..kept.len().min(BROUGHT))?).ok()?;
        let text = self.0.vault.unseal(PURPOSE, &sealed).ok()?;
        serde_json::from_str(&text).ok()
    }

    async fn identity_sign_in(
        &self,
        provider: &Provider,
        rule: &RoleRule,
        identity: &Identity,
        from: &str,
    ) -> Result<SignIn, OidcRefusal> {
        let subject = &identity.subject;
        if subject.is_empty() || subject.len() > SUBJECT || !subject.is_ascii() {
            return Err(OidcRefusal::Name);
        }
        let role = rule.role(&identity.groups);
        // Nobody has it: the user has no password until an admin gives one.
        let password = self.password_hash(&secret::password()?).await?;
        let now_ms = now_ms();
        let mut tx = self.store().begin().await.map_err(AppError::from)?;
        let known = identity_user(&mut tx, &provider.issuer, subject).await;
        let user = match (known.map_err(AppError::from)?, role) {
            (Some(user), _) if user.disabled => return Err(OidcRefusal::Disabled),
            (Some(user), Some(role)) => self.role_renew(&mut tx, user, role, now_ms).await?,
            (Some(user), None) => {
                self.shut_out(tx, &user).await?;
                return Err(OidcRefusal::NoRole);
            }
            (None, Some(role)) => {
                self.identity_create(&mut tx, provider, identity, role, password, now_ms).await?
            }
            (None, None) => return Err(OidcRefusal::NoRole),
        };
        let by = format!("OpenID Connect: {}", provider.name);
        Ok(self.session_begin(tx, user, &by, from, now_ms).await?)
    }

    /// The role that the groups give now. A lower one ends what was begun with the higher.
    async fn role_renew(
        &self,
        tx: &mut Tx,
        user: User,
        role: Role,
        now_ms: i64,
    ) -> Result<User, OidcRefusal> {
        if user.role == role.name() {
            return Ok(user);
        }
        let renewed = async {
            store::users_lock(tx).await?;
            store::user_access(tx, user.id, Some(role.name()), None, now_ms).await?;
            store::credentials_delete(tx, user.id, "session", None).await?;
            let detail = json!({ "role": role.name(), "before": user.role });
            audit::append(tx, &user.name, "user.role", &user.name, &detail).await?;
            store::admin_count(tx).await
        };
        if renewed.await.map_err(AppError::from)? == 0 {
            return Err(OidcRefusal::LastAdmin);
        }
        Ok(User { role: role.name().to_owned(), ..user })
    }

    /// Ends sign-ins and tokens of somebody who has no role any more.
    async fn shut_out(&self, mut tx: Tx, user: &User) -> Result<(), AppError> {
        store::credentials_delete(&mut tx, user.id, "session", None).await?;
        store::credentials_delete(&mut tx, user.id, "token", None).await?;
        self.commit(tx, &[]).await?;
        Ok(())
    }

    async fn identity_create(
        &self,
        tx: &mut Tx,
        provider: &Provider,
        identity: &Identity,
        role: Role,
        password: String,
        now_ms: i64,
    ) -> Result<User, OidcRefusal> {
        if !plain_name(&identity.name) {
            return Err(OidcRefusal::Name);
        }
        let user = User {
            id: Uuid::now_v7(),
            name: identity.name.clone(),
            role: role.name().to_owned(),
            password,
            must_change: false,
            failures: 0,
            locked_until_ms: 0,
            disabled: false,
            created_ms: now_ms,
            changed_ms: now_ms,
            totp: None,
            totp_ms: None,
            totp_pending: None,
            totp_pending_ms: None,
            may_shell: false,
        };
        let created = async {
            if !store::user_insert(tx, &user).await? {
                return Ok(false);
            }
            let (issuer, subject) = (&provider.issuer, &identity.subject);
            let detail = json!({
                "role": user.role, "provider": provider.name, "subject": subject,
            });
            audit::append(tx, &user.name, "user.create", &user.name, &detail).await?;
            identity_insert(tx, issuer, subject, user.id, now_ms).await
        };
        match created.await.map_err(AppError::Store)? {
            true => Ok(user),
            false => Err(OidcRefusal::Taken),
        }
    }

    async fn refusal_note(
        &self,
        provider: &Provider,
        identity: &Identity,
        refusal: &OidcRefusal,
        from: &str,
    ) -> Result<(), AppError> {
        let actor = format!("OpenID Connect: {}", provider.name);
        let name = crate::notify::text::plain(&identity.name, 64);
        let subject = crate::notify::text::plain(&identity.subject, SUBJECT);
        let detail = json!({ "from": from, "subject": subject, "why": refusal.word() });
        let mut tx = self.store().begin().await?;
        let head = audit::append(&mut tx, &actor, "session.refuse", &name, &detail).await?;
        self.commit(tx, &[]).await?;
        self.audit_remember(&head);
        Ok(())
    }
}

/// Compares what somebody may guess at, in a time that does not tell how much of it was right.
fn same(one: &[u8], other: &[u8]) -> bool {
    one.len() == other.len() && one.iter().zip(other).fold(0, |sum, (a, b)| sum | (a ^ b)) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_highest_role_counts_and_a_star_is_everybody() {
        let text = |values: &[&str]| values.iter().map(|one| (*one).to_owned()).collect();
        let rule = RoleRule(vec![
            (Role::Admin, text(&["sec-admins"])),
            (Role::Operator, text(&["soc"])),
            (Role::Viewer, text(&["*"])),
        ]);
        assert_eq!(rule.role(&text(&["soc", "sec-admins"])), Some(Role::Admin));
        assert_eq!(rule.role(&text(&["soc"])), Some(Role::Operator));
        assert_eq!(rule.role(&[]), Some(Role::Viewer));
        let strict = RoleRule(vec![(Role::Admin, text(&["*x"])), (Role::Viewer, Vec::new())]);
        assert_eq!(strict.role(&text(&["*", "x"])), None);
    }
}
