//! The link to the agents: gRPC over mutual TLS on one port, and the authority behind it.
//!
//! ```text
//!  listen.rs (accept, handshake, places) ─▶ service.rs ─┬─ Enroll, Renew ─▶ authority.rs
//!                                                       └─ Connect ─▶ stream.rs ⇄ app
//! ```
//!
//! INVARIANT: nothing an agent says is trusted further than to be that host's words; it is bounded
//! here and judged by the app. The link knows nothing of the store, the API knows nothing of it.

pub mod authority;
mod listen;
mod roster;
mod service;
mod stream;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use holdfast_common::link::MAX_MESSAGE;
use holdfast_common::link::wire::link_server::LinkServer;
use rustls::RootCertStore;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

pub use self::authority::{Authority, AuthorityError, ServerCertificate};
pub use crate::app::LinkCounters as Counters;

use self::listen::Port;
use self::roster::Roster;
use self::service::Service;
use crate::Boxed;
use crate::app::App;

/// Flow control: bytes that an agent may send before they are read, and over one connection.
const STREAM_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 2 << 20;
/// Requests of one connection at once.
const STREAMS: u32 = 4;
/// Bytes of a request's headers.
const HEADERS: u32 = 16 << 10;
/// A peer that answers no ping for so long is gone.
const PING: Duration = Duration::from_secs(20);
/// Connections behind their handshake that wait to be served.
const SHAKEN: usize = 64;

/// How the link is served.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where agents call.
    pub listen: SocketAddr,
    /// Names and addresses under which they do, for the server's certificate.
    pub names: Vec<String>,
    /// The folder of the authority's key.
    pub data: PathBuf,
    /// Of a host's certificate; the agent renews it at two thirds.
    pub certificate_life: Duration,
    /// Between two heartbeats of an agent, whole seconds.
    pub heartbeat: Duration,
    /// Agents at once; those beyond are turned away and try again.
    pub most_agents: usize,
}

impl Config {
    /// With the usual limits: certificates of 90 days, a heartbeat each 5 s, 20,000 agents.
    #[must_use]
    pub const fn new(listen: SocketAddr, names: Vec<String>, data: PathBuf) -> Self {
        Self {
            listen,
            names,
            data,
            certificate_life: Duration::from_secs(90 * 86_400),
            heartbeat: Duration::from_secs(5),
            most_agents: 20_000,
        }
    }
}

/// Why the link is not served.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// The authority.
    #[error("the certificate authority")]
    Authority(#[from] AuthorityError),
    /// The port.
    #[error("cannot listen at {address}")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// TLS cannot be set up with what there is.
    #[error("TLS cannot be set up: {0}")]
    Tls(String),
    /// Serving ended by itself.
    #[error("the link has ended")]
    Serve(#[source] tonic::transport::Error),
}

/// The link, listening.
pub struct Link {
    port: Port,
    service: Service,
    address: SocketAddr,
}

impl Link {
    /// Opens the authority and the port.
    ///
    /// # Errors
    /// [`LinkError`]
    pub async fn bind(config: Config, app: App) -> Result<Self, LinkError> {
        let authority = Arc::new(Authority::open(&config.data)?);
        let tls = Arc::new(tls(&authority, config.names)?);
        let failed = |source| LinkError::Listen { address: config.listen, source };
        let listener = TcpListener::bind(config.listen).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let counters = Arc::clone(&app.counters().link);
        let port = Port {
            listener,
            tls,
            counters: Arc::clone(&counters),
            most_agents: config.most_agents,
        };
        let service = Service {
            app,
            authority,
            counters,
            roster: Arc::new(Roster::default()),
            life: config.certificate_life,
            heartbeat: config.heartbeat,
        };
        Ok(Self { port, service, address })
    }

    /// Where it listens.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// The authority, for its fingerprint.
    #[must_use]
    pub fn authority(&self) -> Arc<Authority> {
        Arc::clone(&self.service.authority)
    }

    /// What happens at the port.
    #[must_use]
    pub fn counters(&self) -> Arc<Counters> {
        Arc::clone(&self.service.counters)
    }

    /// Serves until `shutdown` is ready, and then until the streams have ended.
    ///
    /// # Errors
    /// [`LinkError::Serve`]
    pub fn run(self, shutdown: Boxed<()>) -> Boxed<Result<(), LinkError>> {
        Box::pin(self.serve(shutdown))
    }

    async fn serve(self, shutdown: Boxed<()>) -> Result<(), LinkError> {
        let (connections, incoming) = mpsc::channel(SHAKEN);
        let service = LinkServer::new(self.service)
            .max_decoding_message_size(MAX_MESSAGE)
            .max_encoding_message_size(MAX_MESSAGE);
        let server = tonic::transport::Server::builder()
            .max_concurrent_streams(STREAMS)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .http2_max_header_list_size(HEADERS)
            .http2_keepalive_interval(Some(PING))
            .http2_keepalive_timeout(Some(PING))
            .serve_with_incoming(service, ReceiverStream::new(incoming));
        tokio::select! {
            served = server => served.map_err(LinkError::Serve),
            () = self.port.run(connections) => Ok(()),
            // Agents reconnect elsewhere, or here when the manager is back; nothing is lost.
            () = shutdown => Ok(()),
        }
    }
}

/// A client's certificate is not demanded, since one who has none comes to get it; whoever shows
/// one shows one of ours.
fn tls(authority: &Arc<Authority>, names: Vec<String>) -> Result<rustls::ServerConfig, LinkError> {
    let failed = |error: &dyn std::fmt::Display| LinkError::Tls(error.to_string());
    let mut roots = RootCertStore::empty();
    roots.add(authority.der().clone()).map_err(|error| failed(&error))?;
    let provider = Arc::clone(authority.provider());
    let clients = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
        .allow_unauthenticated()
        .build()
        .map_err(|error| failed(&error))?;
    let certificate = ServerCertificate::new(Arc::clone(authority), names)?;
    let mut tls = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| failed(&error))?
        .with_client_cert_verifier(clients)
        .with_cert_resolver(Arc::new(certificate));
    tls.alpn_protocols = vec![b"h2".to_vec()];
    // Streams last: a ticket for each would only be kept in memory.
    tls.session_storage = Arc::new(NoServerSessionStorage {});
    tls.send_tls13_tickets = 0;
    Ok(tls)
}
