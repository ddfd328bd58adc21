//! Hosts: enrollment, admission of an agent's stream, its end.

use std::sync::PoisonError;

use holdfast_common::link::HostFacts;
use serde_json::json;
use uuid::Uuid;

use super::change::Change;
use super::health::Reason;
use super::{App, AppError, StoreError, audit, now_ms, reconcile, secret, tokens};
use crate::store::hosts::{self as store, Host, HostCounts, NewHost};
use crate::store::tokens::token_take;

/// Bytes of one fact.
const FACT: usize = 500;
/// Addresses of a host.
const ADDRESSES: usize = 256;

/// Why a host was not enrolled.
#[derive(Debug, thiserror::Error)]
pub enum EnrollError {
    /// No such token, or it is used up, expired or revoked: which of them is not told.
    #[error("the enrollment token is not valid")]
    Token,
    /// The facts are too long.
    #[error("the host's facts cannot be taken: {0}")]
    Facts(&'static str),
    /// Nothing was changed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// An agent's stream that was let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Admitted {
    /// The host.
    pub host: Uuid,
    /// This stream, for [`App::host_left`] and the messages on it.
    pub session: Uuid,
}

/// Why an agent's stream was refused.
#[derive(Debug, thiserror::Error)]
pub enum AdmitError {
    /// No such certificate.
    #[error("this certificate was not issued by this manager")]
    Unknown,
    /// The certificate or its host was revoked, or it has ended.
    #[error("this certificate is revoked")]
    Revoked,
    /// The generation was seen before: a copy of the host's disk, or the host itself after its
    /// copy.
    #[error("this certificate is used twice")]
    Cloned,
    /// The facts are too long.
    #[error("the host's facts cannot be taken: {0}")]
    Facts(&'static str),
    /// It may try again.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What is remembered of a host between messages.
#[derive(Debug, Clone)]
pub(super) struct HostRef {
    pub(super) number: i64,
    pub(super) id: Uuid,
    pub(super) name: String,
}

impl App {
    /// Takes one use of an enrollment token and makes a host of it.
    ///
    /// # Errors
    /// [`EnrollError`]; then no use was taken.
    pub async fn host_enroll(&self, token: &str, facts: &HostFacts) -> Result<Uuid, EnrollError> {
        facts_check(facts).map_err(EnrollError::Facts)?;
        let hash = secret::hash(tokens::PREFIX, token).ok_or(EnrollError::Token)?;
        let now_ms = now_ms();
        let mut tx = self.store().begin().await?;
        let (token, group) = token_take(&mut tx, hash, now_ms).await?.ok_or(EnrollError::Token)?;
        let host = NewHost {
            id: Uuid::now_v7(),
            name: facts.host.clone(),
            machine_id: facts.machine_id.clone(),
            facts: facts_json(facts),
            group,
            now_ms,
        };
        store::host_insert(&mut tx, &host).await?;
        let actor = format!("host:{}", facts.host);
        let detail = json!({ "token": token, "group": host.group, "addresses": facts.addresses });
        let id = host.id.to_string();
        let head = audit::append(&mut tx, &actor, "host.enroll", &id, &detail).await?;
        self.commit(tx, &[Change::Host(host.id)]).await?;
        self.audit_remember(&head);
        Ok(host.id)
    }

    /// A certificate was signed for a host. Call it before the certificate leaves the manager:
    /// one that is not known here is not admitted. `serial` in lower-case hex without separators.
    ///
    /// # Errors
    /// [`StoreError`]; then do not hand the certificate out.
    pub async fn certificate_issued(
        &self,
        host: Uuid,
        serial: &str,
        not_after_ms: i64,
    ) -> Result<(), StoreError> {
        let mut tx = self.store().begin().await?;
        let kept = store::certificate_insert(&mut tx, host, serial, now_ms(), not_after_ms).await?;
        if !kept {
            return Err(StoreError::corrupt("keep a certificate", "no such host"));
        }
        let target = host.to_string();
        let detail = json!({ "serial": serial, "not_after_ms": not_after_ms });
        let head = audit::append(&mut tx, "manager", "certificate.issue", &target, &detail).await?;
        self.commit(tx, &[]).await?;
        self.audit_remember(&head);
        Ok(())
    }

    /// Lets an agent's stream in, or not. Each stream has a higher generation than any before it:
    /// the agent counts one up on its disk before each Hello.
    ///
    /// A session of the same host that is open elsewhere ends: its `host_left` changes nothing any
    /// more.
    ///
    /// # Errors
    /// [`AdmitError`]; `Cloned` is shown on the host and an alert.
    pub async fn host_admit(
        &self,
        serial: &str,
        facts: &HostFacts,
        generation: u64,
    ) -> Result<Admitted, AdmitError> {
        let admitted = self.admit(serial, facts, generation).await;
        let counters = self.counters();
        if admitted.is_ok() {
            counters.admitted.add(1)
        } else {
            counters.refused.add(1)
        }
        admitted
    }

    async fn admit(
        &self,
        serial: &str,
        facts: &HostFacts,
        generation: u64,
    ) -> Result<Admitted, AdmitError> {
        facts_check(facts).map_err(AdmitError::Facts)?;
        let now_ms = now_ms();
        let mut tx = self.store().begin().await?;
        let certificate =
            store::certificate_get(&mut tx, serial).await?.ok_or(AdmitError::Unknown)?;
        stands(&certificate, now_ms)?;
        let host = certificate.host;
        let generation = i64::try_from(generation).unwrap_or(i64::MAX);
        if generation <= host.generation {
            self.clone_tell(tx, &host, facts, generation, now_ms).await?;
            return Err(AdmitError::Cloned);
        }
        let session = Uuid::now_v7();
        let json = facts_json(facts);
        store::host_session(&mut tx, host.number, session, generation, &facts.host, &json, now_ms)
            .await?;
        self.commit(tx, &[Change::Host(host.id)]).await?;
        let known = HostRef { number: host.number, id: host.id, name: facts.host.clone() };
        self.0.names.write().unwrap_or_else(PoisonError::into_inner).insert(host.id, known);
        Ok(Admitted { host: host.id, session })
    }

    async fn clone_tell(
        &self,
        mut tx: crate::store::Tx,
        host: &Host,
        facts: &HostFacts,
        generation: i64,
        now_ms: i64,
    ) -> Result<(), StoreError> {
        store::host_cloned(&mut tx, host.number, now_ms).await?;
        let evidence = format!(
            "generation {generation} came from {} ({}), after generation {} of {}",
            facts.host,
            facts.addresses.join(", "),
            host.generation,
            host.name
        );
        let reason = Reason::new("cloned", evidence);
        let alert = reconcile::health_raise(&mut tx, host.number, &host.name, &reason, now_ms);
        let alert = alert.await?;
        self.commit(tx, &[Change::Alert(alert.id), Change::Host(host.id)]).await
    }

    /// The host of a certificate that stands, for its renewal. Changes nothing.
    ///
    /// # Errors
    /// As [`App::host_admit`], but for `Cloned` and `Facts`.
    pub async fn certificate_host(&self, serial: &str) -> Result<Uuid, AdmitError> {
        // Each stream asks now and then: by those who read, so that nobody who writes waits.
        let certificate = self.store().certificate_find(serial).await?;
        let certificate = certificate.ok_or(AdmitError::Unknown)?;
        stands(&certificate, now_ms())?;
        Ok(certificate.host.id)
    }

    /// A stream ended.
    pub async fn host_left(&self, admitted: Admitted) {
        self.0.beats.forget(admitted.session);
        let left = async {
            let mut tx = self.store().begin().await?;
            store::host_session_end(&mut tx, admitted.session).await?;
            self.commit(tx, &[Change::Host(admitted.host)]).await
        };
        if let Err(error) = left.await {
            tracing::warn!(%error, host = %admitted.host, "cannot note that a stream ended");
        }
    }

    /// Number and name of a host.
    pub(super) async fn host_ref(&self, id: Uuid) -> Result<Option<HostRef>, StoreError> {
        let known = self.0.names.read().unwrap_or_else(PoisonError::into_inner).get(&id).cloned();
        if known.is_some() {
            return Ok(known);
        }
        let Some(host) = self.store().host_get(id).await? else { return Ok(None) };
        let known = HostRef { number: host.number, id, name: host.name };
        self.0.names.write().unwrap_or_else(PoisonError::into_inner).insert(id, known.clone());
        Ok(Some(known))
    }

    /// A host.
    ///
    /// # Errors
    /// [`AppError`]
    pub async fn host_get(&self, id: Uuid) -> Result<Host, AppError> {
        self.store().host_get(id).await?.ok_or(AppError::NotFound("host"))
    }

    /// Hosts in the order of their enrollment, after one of them.
    ///
    /// # Errors
    /// [`AppError`]
    pub async fn host_list(
        &self,
        after: Option<i64>,
        health: Option<&str>,
        text: &str,
        limit: u32,
    ) -> Result<Vec<Host>, AppError> {
        Ok(self.store().host_list(after.unwrap_or(0), health, text, limit).await?)
    }

    /// How they stand.
    ///
    /// # Errors
    /// [`AppError`]
    pub async fn host_counts(&self) -> Result<HostCounts, AppError> {
        Ok(self.store().host_counts().await?)
    }

    /// Takes a host and its certificates back: no stream of it is let in any more.
    ///
    /// # Errors
    /// [`AppError`]
    pub async fn host_revoke(&self, id: Uuid, actor: &str, why: &str) -> Result<(), AppError> {
        let mut tx = self.store().begin().await?;
        if !store::host_revoke(&mut tx, id, now_ms()).await? {
            return Err(AppError::NotFound("host that is not revoked"));
        }
        let detail = json!({ "reason": why });
        let head = audit::append(&mut tx, actor, "host.revoke", &id.to_string(), &detail).await?;
        self.commit(tx, &[Change::Host(id)]).await?;
        self.audit_remember(&head);
        Ok(())
    }
}

fn stands(certificate: &store::Certificate, now_ms: i64) -> Result<(), AdmitError> {
    let revoked = certificate.revoked_ms.is_some() || certificate.host.revoked_ms.is_some();
    if revoked || certificate.not_after_ms <= now_ms { Err(AdmitError::Revoked) } else { Ok(()) }
}

fn facts_check(facts: &HostFacts) -> Result<(), &'static str> {
    let texts = [
        &facts.host,
        &facts.machine_id,
        &facts.kernel,
        &facts.system,
        &facts.architecture,
        &facts.version,
    ];
    let long = |text: &String| text.len() > FACT;
    if facts.host.is_empty() {
        return Err("the host has no name");
    }
    if facts.addresses.len() > ADDRESSES {
        return Err("too many addresses");
    }
    if texts.into_iter().any(long) || facts.addresses.iter().any(long) {
        return Err("a fact is too long");
    }
    Ok(())
}

fn facts_json(facts: &HostFacts) -> String {
    // Strings alone: it cannot fail.
    serde_json::to_string(facts).unwrap_or_else(|_| "{}".to_owned())
}
