//! Enrollment and renewal: how this host gets its certificate.
//!
//! INVARIANT: the token is sent only to a manager whose certificate is signed by an authority with
//! the given fingerprint (SHA-256 of its DER), and names the host that was called. The private key
//! is made here.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use bytes::Bytes;
use holdfast_common::link::MAX_MESSAGE;
use holdfast_common::link::wire::link_client::LinkClient;
use holdfast_common::link::wire::{Certificate, EnrollRequest, RenewRequest};
use holdfast_common::pin::{Pinned, fingerprint};
use tonic::transport::Channel;

use super::connect::{ConnectError, Way};
use super::facts::host_facts;
use super::identity::{self, Identity, IdentityError};
use super::proxy::Proxy;
use super::store::{Store, StoreError};

/// The manager's answer.
const ANSWER: Duration = Duration::from_secs(20);
/// Longest token, bytes.
const LONGEST_TOKEN: usize = 512;

/// What an operator gives to enroll a host.
#[derive(Clone)]
pub struct Invitation {
    /// `https://host:port`.
    pub manager: String,
    /// Buys the certificate.
    pub token: String,
    /// SHA-256 of the authority's certificate (DER), hex; colons and spaces do not count.
    pub fingerprint: String,
    /// `http://[user:password@]host:port`.
    pub proxy: Option<String>,
}

/// Why a host was not enrolled; nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum EnrollError {
    /// Something given cannot be meant.
    #[error("{0}")]
    Invitation(String),
    /// The manager is another one. Nothing was sent.
    #[error("this is not the manager that is meant: {0}; nothing was sent to it")]
    Fingerprint(String),
    /// It cannot be reached.
    #[error("{0}")]
    Unreachable(String),
    /// It says no.
    #[error("the manager refuses: {0}")]
    Refused(String),
    /// The key could not be made.
    #[error("cannot make a key")]
    Key(#[source] rcgen::Error),
    /// What was got could not be kept.
    #[error("cannot keep the certificate: {0}")]
    Keep(String),
}

impl From<ConnectError> for EnrollError {
    fn from(error: ConnectError) -> Self {
        Self::Unreachable(crate::error_chain(&error))
    }
}

impl From<IdentityError> for EnrollError {
    fn from(error: IdentityError) -> Self {
        Self::Keep(crate::error_chain(&error))
    }
}

impl From<StoreError> for EnrollError {
    fn from(error: StoreError) -> Self {
        Self::Keep(crate::error_chain(&error))
    }
}

/// Enrolls this host and keeps its identity in the state folder. Returns the id that it got.
/// Blocks; an agent that runs takes the new identity within seconds.
///
/// # Errors
/// [`EnrollError`]; an older identity stays.
pub fn enroll(state_dir: &Path, invitation: &Invitation) -> Result<String, EnrollError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| EnrollError::Unreachable(error.to_string()))?;
    runtime.block_on(enroll_now(state_dir, invitation))
}

async fn enroll_now(state_dir: &Path, invitation: &Invitation) -> Result<String, EnrollError> {
    let fingerprint = fingerprint(&invitation.fingerprint).ok_or_else(|| {
        let wrong = "the fingerprint must be a SHA-256 in hex (64 digits)";
        EnrollError::Invitation(wrong.to_owned())
    })?;
    let token = invitation.token.trim();
    if token.is_empty() || token.len() > LONGEST_TOKEN {
        return Err(EnrollError::Invitation("that is no token".to_owned()));
    }
    let proxy = invitation.proxy.as_deref().map(Proxy::parse).transpose();
    let proxy = proxy.map_err(EnrollError::Invitation)?;
    let way = Way::new(&invitation.manager, proxy.clone(), Arc::default())?;
    let pinned = Arc::new(Pinned::new(fingerprint));
    let channel = match way.connect_unknown(Arc::clone(&pinned) as _).await {
        Ok(channel) => channel,
        Err(error) => {
            return Err(match pinned.refused() {
                Some(why) => EnrollError::Fingerprint(why),
                None => error.into(),
            });
        }
    };
    let (key, csr) = key_and_request()?;
    let facts = serde_json::to_vec(&host_facts())
        .map_err(|error| EnrollError::Invitation(error.to_string()))?;
    let request = EnrollRequest { token: token.to_owned(), csr, facts: facts.into() };
    let answer = tokio::time::timeout(ANSWER, client(channel).enroll(request)).await;
    let certificate = answered(answer)?;
    let identity = Identity {
        manager: way.url.clone(),
        proxy,
        host: certificate.host.clone(),
        chain: certificate.chain,
        key,
        authorities: trusted(certificate.authorities, &pinned),
        begins_ms: certificate.begins_ms,
        ends_ms: certificate.ends_ms,
    };
    // The count first: without it the identity cannot be used.
    identity::begin_generations(state_dir)?;
    Store::open(state_dir)?.begin_anew()?;
    identity::store(state_dir, &identity)?;
    Ok(identity.host)
}

/// The next certificate, with a new key.
pub(super) async fn renew(channel: Channel, old: &Identity) -> Result<Identity, EnrollError> {
    let (key, csr) = key_and_request()?;
    let answer = tokio::time::timeout(ANSWER, client(channel).renew(RenewRequest { csr })).await;
    let certificate = answered(answer)?;
    if certificate.host != old.host {
        return Err(EnrollError::Refused("it renews another host's certificate".to_owned()));
    }
    let authorities = Some(certificate.authorities).filter(|pem| !pem.trim().is_empty());
    Ok(Identity {
        chain: certificate.chain,
        key,
        authorities: authorities.unwrap_or_else(|| old.authorities.clone()),
        begins_ms: certificate.begins_ms,
        ends_ms: certificate.ends_ms,
        ..old.clone()
    })
}

/// A client whose messages are bounded in both directions.
pub(super) fn client(channel: Channel) -> LinkClient<Channel> {
    LinkClient::new(channel)
        .max_decoding_message_size(MAX_MESSAGE)
        .max_encoding_message_size(MAX_MESSAGE)
}

type Answer = Result<tonic::Response<Certificate>, tonic::Status>;

fn answered(
    answer: Result<Answer, tokio::time::error::Elapsed>,
) -> Result<Certificate, EnrollError> {
    match answer {
        Ok(Ok(certificate)) => Ok(certificate.into_inner()),
        Ok(Err(status)) => Err(match status.code() {
            tonic::Code::Unavailable => EnrollError::Unreachable(status.message().to_owned()),
            _ => EnrollError::Refused(status.message().to_owned()),
        }),
        Err(_) => Err(EnrollError::Unreachable("the manager does not answer".to_owned())),
    }
}

/// PEM of a new private key, DER of a request to certify it.
fn key_and_request() -> Result<(String, Bytes), EnrollError> {
    let key = rcgen::KeyPair::generate().map_err(EnrollError::Key)?;
    let request = rcgen::CertificateParams::default();
    let request = request.serialize_request(&key).map_err(EnrollError::Key)?;
    Ok((key.serialize_pem(), Bytes::copy_from_slice(request.der())))
}

/// The manager's word, else the authority that was pinned.
fn trusted(authorities: String, pinned: &Pinned) -> String {
    if authorities.contains("BEGIN CERTIFICATE") {
        return authorities;
    }
    let der = pinned.found().unwrap_or_default();
    let coded = base64::engine::general_purpose::STANDARD.encode(der);
    format!("-----BEGIN CERTIFICATE-----\n{coded}\n-----END CERTIFICATE-----\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_invitation_is_checked_before_anybody_is_called() {
        let folder = tempfile::tempdir().expect("folder");
        let good = Invitation {
            manager: "https://127.0.0.1:1".to_owned(),
            token: "t".to_owned(),
            fingerprint: "ab".repeat(32),
            proxy: None,
        };
        let refused =
            |invitation: Invitation| enroll(folder.path(), &invitation).expect_err("refused");
        let wrong = [
            Invitation { token: " ".to_owned(), ..good.clone() },
            Invitation { fingerprint: "ab".to_owned(), ..good.clone() },
            Invitation { proxy: Some("socks://x".to_owned()), ..good.clone() },
        ];
        for invitation in wrong {
            assert!(matches!(refused(invitation), EnrollError::Invitation(_)));
        }
        let nobody = refused(good);
        assert!(matches!(&nobody, EnrollError::Unreachable(why) if why.contains("127.0.0.1:1")));
        assert_eq!(std::fs::read_dir(folder.path()).expect("list").count(), 0, "nothing is kept");
    }
}
