//! The link's requests: enrollment, renewal, and the beginning of an agent's stream.
//!
//! INVARIANT: a token or a certificate is asked for before anything that a peer says is acted on.
//! Why a token or certificate does not stand is told in general words alone.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use holdfast_common::link::HostFacts;
use holdfast_common::link::wire::{
    Certificate, EnrollRequest, FromAgent, FromManager, RenewRequest, from_agent, link_server,
};
use tokio_stream::Stream;
use tonic::{Request, Response, Status, Streaming};
use uuid::Uuid;

use super::authority::{Authority, AuthorityError};
use super::listen::Peer;
use super::roster::Roster;
use super::stream;
use crate::app::{AdmitError, App, EnrollError, LinkCounters as Counters};

/// Longest facts of a host, bytes of JSON.
const MOST_FACTS: usize = 64 << 10;
/// Longest token, bytes.
const MOST_TOKEN: usize = 512;
/// The first message of a stream.
const HELLO: Duration = Duration::from_secs(20);

/// What all connections share.
#[derive(Clone)]
pub(super) struct Service {
    pub(super) app: App,
    pub(super) authority: Arc<Authority>,
    pub(super) counters: Arc<Counters>,
    pub(super) roster: Arc<Roster>,
    /// Of a host's certificate.
    pub(super) life: Duration,
    pub(super) heartbeat: Duration,
}

#[tonic::async_trait]
impl link_server::Link for Service {
    async fn enroll(
        &self,
        request: Request<EnrollRequest>,
    ) -> Result<Response<Certificate>, Status> {
        let address = peer(&request)?.address;
        let EnrollRequest { token, csr, facts } = request.into_inner();
        if token.len() > MOST_TOKEN {
            return Err(self.refuse("the enrollment token is not valid"));
        }
        // First, so that no use of a token is taken for nothing.
        self.authority.check(&csr).map_err(|error| authority(&error))?;
        let facts = read_facts(&facts)?;
        let host = match self.app.host_enroll(&token, &facts).await {
            Ok(host) => host,
            Err(error @ EnrollError::Token) => return Err(self.refuse(&error.to_string())),
            Err(error @ EnrollError::Facts(_)) => {
                return Err(Status::invalid_argument(error.to_string()));
            }
            Err(EnrollError::Store(error)) => return Err(Status::unavailable(error.to_string())),
        };
        tracing::info!(%host, %address, "a host is enrolled");
        self.certify(host, &csr).await
    }

    async fn renew(&self, request: Request<RenewRequest>) -> Result<Response<Certificate>, Status> {
        let serial = self.serial(&request)?;
        let host = self.app.certificate_host(&serial).await.map_err(|error| self.admit(error))?;
        tracing::info!(%host, "a certificate is renewed");
        self.certify(host, &request.into_inner().csr).await
    }

    type ConnectStream = Pin<Box<dyn Stream<Item = Result<FromManager, Status>> + Send>>;

    async fn connect(
        &self,
        request: Request<Streaming<FromAgent>>,
    ) -> Result<Response<Self::ConnectStream>, Status> {
        let serial = self.serial(&request)?;
        let address = peer(&request)?.address;
        let mut incoming = request.into_inner();
        let first = tokio::time::timeout(HELLO, incoming.message())
            .await
            .map_err(|_| Status::deadline_exceeded("there was no Hello"))??;
        let Some(from_agent::Message::Hello(hello)) = first.and_then(|first| first.message) else {
            return Err(Status::invalid_argument("a stream begins with Hello"));
        };
        let facts = read_facts(&hello.facts)?;
        let admitted = self.app.host_admit(&serial, &facts, hello.generation).await;
        let admitted = admitted.map_err(|error| self.admit(error))?;
        tracing::info!(host = %admitted.host, %address, "an agent is connected");
        let outgoing = stream::start(self.clone(), admitted, serial, incoming);
        Ok(Response::new(Box::pin(outgoing)))
    }
}

impl Service {
    fn refuse(&self, why: &str) -> Status {
        self.counters.refused.fetch_add(1, Ordering::Relaxed);
        Status::permission_denied(why)
    }

    pub(super) fn admit(&self, error: AdmitError) -> Status {
        match error {
            AdmitError::Unknown | AdmitError::Revoked | AdmitError::Cloned => {
                self.refuse(&error.to_string())
            }
            AdmitError::Facts(_) => Status::invalid_argument(error.to_string()),
            AdmitError::Store(error) => Status::unavailable(error.to_string()),
        }
    }

    /// The serial of the certificate that the peer has shown.
    fn serial<T>(&self, request: &Request<T>) -> Result<Arc<str>, Status> {
        let serial = peer(request)?.serial.clone();
        serial.ok_or_else(|| {
            self.counters.refused.fetch_add(1, Ordering::Relaxed);
            Status::unauthenticated("this needs a host's certificate")
        })
    }

    async fn certify(&self, host: Uuid, csr: &[u8]) -> Result<Response<Certificate>, Status> {
        let issued =
            self.authority.issue(csr, host, self.life).map_err(|error| authority(&error))?;
        self.app
            .certificate_issued(host, &issued.serial, issued.ends_ms)
            .await
            .map_err(|error| Status::unavailable(error.to_string()))?;
        Ok(Response::new(Certificate {
            chain: issued.chain,
            authorities: self.authority.pem().to_owned(),
            host: host.to_string(),
            begins_ms: issued.begins_ms,
            ends_ms: issued.ends_ms,
        }))
    }
}

fn peer<T>(request: &Request<T>) -> Result<&Peer, Status> {
    request.extensions().get().ok_or_else(|| Status::internal("the peer is not known"))
}

fn authority(error: &AuthorityError) -> Status {
    match error {
        AuthorityError::Request => Status::invalid_argument(error.to_string()),
        AuthorityError::Io { .. }
        | AuthorityError::Exposed(_)
        | AuthorityError::KeyMissing(_)
        | AuthorityError::Damaged { .. }
        | AuthorityError::Make(_)
        | AuthorityError::Random => {
            tracing::error!(%error, "no certificate is made");
            Status::internal("no certificate can be made")
        }
    }
}

fn read_facts(json: &[u8]) -> Result<HostFacts, Status> {
    if json.len() > MOST_FACTS {
        return Err(Status::invalid_argument("the host's facts are too long"));
    }
    serde_json::from_slice(json)
        .map_err(|_| Status::invalid_argument("the host's facts are not understood"))
}
