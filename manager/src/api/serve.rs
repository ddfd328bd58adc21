//! Listening: HTTPS, or plain HTTP on loopback or a Unix socket when the config says so.
//!
//! Every connection has a bound on the time for its handshake and for each request's head; their
//! number is bounded. On the end, requests that run get ten seconds.

use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::extract::ConnectInfo;
use axum::{Extension, Router};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use hyper_util::service::TowerToHyperService;
use rustls::ServerConfig;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::ResolvesServerCert;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio_rustls::TlsAcceptor;

use super::Peer;
use crate::Boxed;

/// Connections at once.
const CONNECTIONS: usize = 2048;
/// Time for a TLS handshake, and for the head of a request.
const HEAD: Duration = Duration::from_secs(10);
/// Time that running requests get at the end.
const END: Duration = Duration::from_secs(10);
/// Requests at once on one HTTP/2 connection.
const STREAMS: u32 = 128;

/// Where to listen.
#[derive(Debug, Clone)]
pub enum Place {
    /// HTTPS.
    Tls {
        /// Address and port.
        address: SocketAddr,
        /// What it shows.
        identity: Identity,
    },
    /// HTTP without encryption, on loopback.
    Plain(SocketAddr),
    /// HTTP on a Unix socket that its owner alone may use.
    Socket(PathBuf),
}

/// Certificate and key.
#[derive(Debug, Clone)]
pub enum Identity {
    /// PEM files.
    Files {
        /// The chain, own certificate first.
        certificate: PathBuf,
        /// Its key.
        key: PathBuf,
    },
    /// Made, and made anew in time, by somebody else.
    Made(Arc<dyn ResolvesServerCert>),
}

/// Why it does not listen.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The certificate or key cannot be used.
    #[error("cannot use {path}: {message}")]
    Identity {
        /// The file.
        path: PathBuf,
        /// Why.
        message: String,
    },
    /// The address cannot be had.
    #[error("cannot listen on {place}")]
    Listen {
        /// Where.
        place: String,
        /// Why.
        #[source]
        source: io::Error,
    },
}

enum Listener {
    Tcp(TcpListener, Option<TlsAcceptor>),
    Unix(UnixListener, PathBuf),
}

/// A place that is listened on.
pub struct Bound {
    listener: Listener,
    address: Option<SocketAddr>,
}

impl Bound {
    /// The address, with the port that was given for port 0; nothing for a Unix socket.
    #[must_use]
    pub const fn address(&self) -> Option<SocketAddr> {
        self.address
    }
}

/// Begins to listen.
///
/// # Errors
/// [`ServeError`]
pub async fn bind(place: &Place) -> Result<Bound, ServeError> {
    match place {
        Place::Tls { address, identity } => tcp(*address, Some(acceptor(identity)?)).await,
        Place::Plain(address) => tcp(*address, None).await,
        Place::Socket(path) => {
            let listen = |source| ServeError::Listen { place: path.display().to_string(), source };
            // What an ended manager left. Another one that runs shows by its answer.
            if std::os::unix::net::UnixStream::connect(path).is_ok() {
                return Err(listen(io::Error::from(io::ErrorKind::AddrInUse)));
            }
            match std::fs::remove_file(path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(listen(error)),
                _ => {}
            }
            let listener = UnixListener::bind(path).map_err(listen)?;
            let mode = std::fs::Permissions::from_mode(0o600);
            std::fs::set_permissions(path, mode).map_err(listen)?;
            Ok(Bound { listener: Listener::Unix(listener, path.clone()), address: None })
        }
    }
}

async fn tcp(address: SocketAddr, tls: Option<TlsAcceptor>) -> Result<Bound, ServeError> {
    let listen = |source| ServeError::Listen { place: address.to_string(), source };
    let listener = TcpListener::bind(address).await.map_err(listen)?;
    let address = listener.local_addr().map_err(listen)?;
    Ok(Bound { listener: Listener::Tcp(listener, tls), address: Some(address) })
}

fn acceptor(identity: &Identity) -> Result<TlsAcceptor, ServeError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let (path, resolver) = match identity {
        Identity::Made(resolver) => (PathBuf::new(), Arc::clone(resolver)),
        Identity::Files { certificate, key } => {
            (certificate.clone(), certified(certificate, key, &provider)?)
        }
    };
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| ServeError::Identity { path, message: error.to_string() })?
        .with_no_client_auth()
        .with_cert_resolver(resolver);
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// Reads a chain and its key, and checks that they belong together.
fn certified(
    certificate: &Path,
    key: &Path,
    provider: &CryptoProvider,
) -> Result<Arc<dyn ResolvesServerCert>, ServeError> {
    let error =
        |path: &Path, message: String| ServeError::Identity { path: path.to_owned(), message };
    let chain = CertificateDer::pem_file_iter(certificate)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|e| error(certificate, e.to_string()))?;
    let private = PrivateKeyDer::from_pem_file(key).map_err(|e| error(key, e.to_string()))?;
    let certified = CertifiedKey::from_der(chain, private, provider)
        .map_err(|e| error(certificate, e.to_string()))?;
    Ok(Arc::new(SingleCertAndKey::from(certified)))
}

/// Serves until the signal becomes true.
pub fn run(bound: Bound, router: Router, ending: watch::Receiver<bool>) -> Boxed<()> {
    Box::pin(accept_all(bound, router, ending))
}

async fn accept_all(bound: Bound, router: Router, mut ending: watch::Receiver<bool>) {
    let graceful = GracefulShutdown::new();
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(permit) = Arc::clone(&places).acquire_owned().await else { break };
        let ended = async {
            let _ = ending.wait_for(|ending| *ending).await;
        };
        tokio::select! {
            () = ended => break,
            accepted = accept(&bound.listener, &router, &graceful, permit) => {
                if let Err(error) = accepted {
                    // Out of descriptors, or the peer was gone already: others go on.
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        }
    }
    if let Listener::Unix(_, path) = &bound.listener {
        let _ = std::fs::remove_file(path);
    }
    drop(bound);
    if tokio::time::timeout(END, graceful.shutdown()).await.is_err() {
        tracing::warn!("requests that still run are cut off");
    }
}

async fn accept(
    listener: &Listener,
    router: &Router,
    graceful: &GracefulShutdown,
    permit: OwnedSemaphorePermit,
) -> io::Result<()> {
    match listener {
        Listener::Unix(listener, _) => {
            let (stream, _) = listener.accept().await?;
            let router = router.clone().layer(Extension(ConnectInfo(Peer(None))));
            tokio::spawn(serve(stream, router, graceful.watcher(), permit));
        }
        Listener::Tcp(listener, tls) => {
            let (stream, peer) = listener.accept().await?;
            stream.set_nodelay(true)?;
            let router = router.clone().layer(Extension(ConnectInfo(Peer(Some(peer)))));
            let watcher = graceful.watcher();
            match tls.clone() {
                None => {
                    tokio::spawn(serve(stream, router, watcher, permit));
                }
                Some(tls) => {
                    tokio::spawn(async move {
                        match tokio::time::timeout(HEAD, tls.accept(stream)).await {
                            Ok(Ok(stream)) => serve(stream, router, watcher, permit).await,
                            Ok(Err(error)) => tracing::debug!(%error, %peer, "no TLS"),
                            Err(_) => tracing::debug!(%peer, "a TLS handshake took too long"),
                        }
                    });
                }
            }
        }
    }
    Ok(())
}

async fn serve<S>(stream: S, router: Router, watcher: Watcher, permit: OwnedSemaphorePermit)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEAD);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS)
        .keep_alive_interval(Duration::from_secs(30))
        .keep_alive_timeout(HEAD);
    let service = TowerToHyperService::new(router);
    let connection =
        builder.serve_connection_with_upgrades(TokioIo::new(stream), service).into_owned();
    if let Err(error) = watcher.watch(connection).await {
        tracing::debug!(%error, "a connection ended");
    }
    drop(permit);
}
