//! Hosts: enrollment, admission of an agent's stream, its end.

use holdfast_common::link::HostFacts;
use uuid::Uuid;

use super::{App, StoreError};

/// Why a host was not enrolled.
#[derive(Debug, thiserror::Error)]
pub enum EnrollError {
    /// No such token, or it is used up, expired or revoked: which of them is not told.
    #[error("the enrollment token is not valid")]
    Token,
    /// The facts are too long or not text.
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
    /// The certificate or its host was revoked.
    #[error("this certificate is revoked")]
    Revoked,
    /// The generation was seen before: a copy of the host's disk, or the host itself after its
    /// copy.
    #[error("this certificate is used twice")]
    Cloned,
    /// The facts are too long or not text.
    #[error("the host's facts cannot be taken: {0}")]
    Facts(&'static str),
    /// It may try again.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl App {
    /// Takes one use of an enrollment token and makes a host of it.
    ///
    /// # Errors
    /// [`EnrollError`]; then no use was taken.
    pub async fn host_enroll(&self, token: &str, facts: &HostFacts) -> Result<Uuid, EnrollError> {
        let _ = (token, facts);
        Err(EnrollError::Token)
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
        let _ = (host, serial, not_after_ms);
        Err(StoreError::Closed)
    }

    /// Lets an agent's stream in, or not. Each stream has a higher generation than any before it:
    /// the agent counts one up on its disk before each Hello.
    ///
    /// A session of the same host that is open elsewhere ends: its `host_left` changes nothing any
    /// more.
    ///
    /// # Errors
    /// [`AdmitError`]; all but `Store` are shown on the host.
    pub async fn host_admit(
        &self,
        serial: &str,
        facts: &HostFacts,
        generation: u64,
    ) -> Result<Admitted, AdmitError> {
        let _ = (serial, facts, generation);
        Err(AdmitError::Unknown)
    }

    /// The host of a certificate that stands, for its renewal. Changes nothing.
    ///
    /// # Errors
    /// As [`App::host_admit`], but for `Cloned` and `Facts`.
    pub async fn certificate_host(&self, serial: &str) -> Result<Uuid, AdmitError> {
        let _ = serial;
        Err(AdmitError::Unknown)
    }

    /// A stream ended.
    pub async fn host_left(&self, admitted: Admitted) {
        let _ = admitted;
    }
}
