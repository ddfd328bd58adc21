//! Enrollment tokens: who may become a host.

use serde_json::json;
use uuid::Uuid;

use super::{App, AppError, audit, now_ms, secret};
use crate::store::tokens::{self as store, EnrollmentToken};

/// What an enrollment token begins with.
pub(super) const PREFIX: &str = "hfe_";
/// Longest validity.
const LONGEST_S: u64 = 366 * 86_400;

/// A token that is wanted.
#[derive(Debug, Clone)]
pub struct NewToken {
    /// Group of its hosts.
    pub group: String,
    /// For people.
    pub note: String,
    /// How many hosts.
    pub uses: u32,
    /// How long, seconds.
    pub valid_s: u64,
}

/// Where hosts enroll, and by what they know this manager.
#[derive(Debug, Clone)]
pub struct Entrance {
    /// `https://NAME:PORT`, one for each name of the manager.
    pub urls: Vec<String>,
    /// Of its authority.
    pub fingerprint: String,
}

impl App {
    /// Tells where hosts enroll. The first word counts.
    pub fn entrance_tell(&self, entrance: Entrance) {
        let _ = self.0.entrance.set(entrance);
    }

    /// Where hosts enroll; nothing while nobody listens for them.
    #[must_use]
    pub fn entrance(&self) -> Option<&Entrance> {
        self.0.entrance.get()
    }

    /// Makes an enrollment token. The secret is shown this once.
    ///
    /// # Errors
    /// [`AppError`]
    pub async fn token_create(
        &self,
        new: NewToken,
        actor: &str,
    ) -> Result<(EnrollmentToken, String), AppError> {
        if new.group.is_empty() || new.group.len() > 100 || new.note.len() > 500 {
            return Err(AppError::Invalid("group: 1 to 100 bytes; note: at most 500".to_owned()));
        }
        if new.uses == 0 || new.uses > 100_000 {
            return Err(AppError::Invalid("uses: 1 to 100000".to_owned()));
        }
        if new.valid_s == 0 || new.valid_s > LONGEST_S {
            return Err(AppError::Invalid("valid_s: a second to a year".to_owned()));
        }
        let secret = secret::new(PREFIX)?;
        let hash = secret::hash(PREFIX, &secret).unwrap_or_default();
        let now_ms = now_ms();
        let valid_ms = i64::try_from(new.valid_s * 1000).unwrap_or(i64::MAX);
        let token = EnrollmentToken {
            id: Uuid::now_v7(),
            group: new.group,
            note: new.note,
            uses: i64::from(new.uses),
            uses_left: i64::from(new.uses),
            created_ms: now_ms,
            created_by: actor.to_owned(),
            expires_ms: now_ms.saturating_add(valid_ms),
            revoked_ms: None,
        };
        let mut tx = self.store().begin().await?;
        store::token_insert(&mut tx, &token, hash).await?;
        let detail = json!({
            "group": token.group, "uses": token.uses, "expires_ms": token.expires_ms,
        });
        let target = token.id.to_string();
        let head = audit::append(&mut tx, actor, "token.create", &target, &detail).await?;
        self.commit(tx, &[]).await?;
        self.audit_remember(&head);
        Ok((token, secret))
    }

    /// All enrollment tokens, newest first.
    ///
    /// # Errors
    /// [`AppError`]
    pub async fn token_list(&self) -> Result<Vec<EnrollmentToken>, AppError> {
        Ok(self.store().token_list().await?)
    }

    /// Takes an enrollment token back.
    ///
    /// # Errors
    /// [`AppError`]
    pub async fn token_revoke(&self, id: Uuid, actor: &str) -> Result<(), AppError> {
        let mut tx = self.store().begin().await?;
        if !store::token_revoke(&mut tx, id, now_ms()).await? {
            return Err(AppError::NotFound("enrollment token that stands"));
        }
        let target = id.to_string();
        let head = audit::append(&mut tx, actor, "token.revoke", &target, &json!({})).await?;
        self.commit(tx, &[]).await?;
        self.audit_remember(&head);
        Ok(())
    }
}
