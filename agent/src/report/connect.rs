//! The way to the manager: TCP (through an HTTP proxy where one is named), TLS, HTTP/2.
//!
//! INVARIANT: a name that does not resolve, as on a host that is cut off, is reached by the
//! addresses where it was last reached; nothing here waits without a limit.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hyper_util::client::legacy::connect::proxy::Tunnel;
use hyper_util::rt::TokioIo;
use rustls::client::danger::ServerCertVerifier;
use tokio::net::TcpStream;
use tonic::codegen::http::Uri;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity as Tls};

use super::identity::Identity;
use super::proxy::Proxy;

/// The whole way: name, TCP, proxy, TLS.
const CONNECT: Duration = Duration::from_secs(20);
/// A name server's answer; after it the known addresses are tried.
const RESOLVE: Duration = Duration::from_secs(3);
/// One address.
const ADDRESS: Duration = Duration::from_secs(5);
/// A peer that answers no ping so long is gone.
const KEEP_ALIVE: Duration = Duration::from_secs(10);
/// Most addresses that are remembered.
const MOST: usize = 16;
/// Of a URL that names none.
const PORT: u16 = 8442;

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(super) enum ConnectError {
    /// The manager's URL is none.
    #[error("{0:?} is no manager: https://host[:port] is meant")]
    Url(String),
    /// Something of the identity is not what TLS takes.
    #[error("the certificate or key of this host cannot be used")]
    Identity(#[source] tonic::transport::Error),
    /// Nobody is reached.
    #[error("cannot connect to {0}")]
    Connect(String, #[source] tonic::transport::Error),
}

/// Where the manager, or the proxy before it, was last reached.
#[derive(Debug, Default)]
pub(super) struct Addresses(Mutex<Vec<SocketAddr>>);

impl Addresses {
    pub(super) fn get(&self) -> Vec<SocketAddr> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The newest ones in place of the others.
    pub(super) fn set(&self, mut found: Vec<SocketAddr>) {
        found.sort();
        found.dedup();
        found.truncate(MOST);
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = found;
    }
}

/// Where to call.
#[derive(Debug, Clone)]
pub(super) struct Way {
    /// `https://host:port`.
    pub(super) url: String,
    host: String,
    port: u16,
    proxy: Option<Proxy>,
    addresses: Arc<Addresses>,
}

impl Way {
    pub(super) fn new(
        manager: &str,
        proxy: Option<Proxy>,
        addresses: Arc<Addresses>,
    ) -> Result<Self, ConnectError> {
        let wrong = || ConnectError::Url(manager.chars().take(200).collect());
        let uri: Uri = manager.parse().map_err(|_| wrong())?;
        let plain = uri.scheme_str() == Some("https")
            && matches!(uri.path(), "/" | "")
            && uri.query().is_none()
            && !manager.contains('@');
        let host = uri.host().filter(|host| plain && !host.is_empty()).ok_or_else(wrong)?;
        let port = uri.port_u16().unwrap_or(PORT);
        let url = format!("https://{host}:{port}");
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        Ok(Self { url, host, port, proxy, addresses })
    }

    /// `host:port` that TCP goes to: what must stay reachable when the host is cut off.
    pub(super) fn first_hop(&self) -> String {
        match &self.proxy {
            Some(proxy) => proxy.endpoint().to_owned(),
            None if self.host.parse::<IpAddr>().is_ok_and(|ip| ip.is_ipv6()) => {
                format!("[{}]:{}", self.host, self.port)
            }
            None => format!("{}:{}", self.host, self.port),
        }
    }

    /// As the host of this identity.
    pub(super) async fn connect(&self, identity: &Identity) -> Result<Channel, ConnectError> {
        let tls = ClientTlsConfig::new()
            .ca_certificate(Certificate::from_pem(&identity.authorities))
            .identity(Tls::from_pem(&identity.chain, &identity.key))
            .domain_name(&self.host);
        let endpoint = self.endpoint()?.tls_config(tls).map_err(ConnectError::Identity)?;
        self.dial(&endpoint).await
    }

    /// As nobody yet; the verifier decides whom to trust.
    pub(super) async fn connect_unknown(
        &self,
        verifier: Arc<dyn ServerCertVerifier>,
    ) -> Result<Channel, ConnectError> {
        let tls = ClientTlsConfig::new().domain_name(&self.host);
        let endpoint = self
            .endpoint()?
            .tls_config_with_verifier(tls, verifier)
            .map_err(ConnectError::Identity)?;
        self.dial(&endpoint).await
    }

    fn endpoint(&self) -> Result<Endpoint, ConnectError> {
        let endpoint = Endpoint::from_shared(self.url.clone())
            .map_err(|_| ConnectError::Url(self.url.clone()))?;
        Ok(endpoint
            .connect_timeout(CONNECT)
            .http2_keep_alive_interval(KEEP_ALIVE)
            .keep_alive_timeout(KEEP_ALIVE)
            .keep_alive_while_idle(true))
    }

    async fn dial(&self, endpoint: &Endpoint) -> Result<Channel, ConnectError> {
        let addresses = Arc::clone(&self.addresses);
        let tcp = tower::service_fn(move |uri: Uri| {
            let addresses = Arc::clone(&addresses);
            async move { dial(&uri, &addresses).await.map(TokioIo::new) }
        });
        let connected = match &self.proxy {
            None => endpoint.connect_with_connector(tcp).await,
            Some(proxy) => {
                let mut tunnel = Tunnel::new(proxy.uri().clone(), tcp);
                if let Some(authorization) = proxy.authorization() {
                    tunnel = tunnel.with_auth(authorization.clone());
                }
                endpoint.connect_with_connector(tunnel).await
            }
        };
        connected.map_err(|source| ConnectError::Connect(self.url.clone(), source))
    }
}

/// TCP to the first address that answers.
async fn dial(uri: &Uri, known: &Addresses) -> io::Result<TcpStream> {
    let host = uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
    let port = uri.port_u16().unwrap_or(PORT);
    let looked_up = tokio::time::timeout(RESOLVE, tokio::net::lookup_host((host, port))).await;
    let (found, unresolved): (Vec<SocketAddr>, _) = match looked_up {
        Ok(Ok(found)) => (found.collect(), None),
        Ok(Err(error)) => (Vec::new(), Some(error)),
        Err(_) => (Vec::new(), Some(io::ErrorKind::TimedOut.into())),
    };
    let fresh = !found.is_empty();
    let candidates = if fresh { found } else { known.get() };
    let mut failure = unresolved.unwrap_or_else(|| io::ErrorKind::NotFound.into());
    for address in candidates.iter().take(MOST) {
        match tokio::time::timeout(ADDRESS, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => {
                stream.set_nodelay(true)?;
                if fresh {
                    known.set(candidates);
                }
                return Ok(stream);
            }
            Ok(Err(error)) => failure = error,
            Err(_) => failure = io::ErrorKind::TimedOut.into(),
        }
    }
    Err(failure)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manager_is_an_https_url_with_nothing_behind_it() {
        let way = |url| Way::new(url, None, Arc::default());
        let name = way("https://manager.example").expect("name");
        assert_eq!((name.url.as_str(), name.port), ("https://manager.example:8442", 8442));
        let six = way("https://[fd00::1]:9/").expect("address");
        assert_eq!((six.host.as_str(), six.first_hop().as_str()), ("fd00::1", "[fd00::1]:9"));
        let proxy = Proxy::parse("http://proxy:3128").ok();
        let far = Way::new("https://manager.example", proxy, Arc::default()).expect("way");
        assert_eq!(far.first_hop(), "proxy:3128");
        for wrong in ["manager", "http://manager", "https://m/path", "https://a:b@m", "https://"] {
            assert!(matches!(way(wrong), Err(ConnectError::Url(_))), "{wrong}");
        }
    }
}
