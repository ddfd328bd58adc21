//! TLS towards receivers: the system's authorities, or the one that a channel names.

use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::SendError;

/// Certificates in PEM text. Empty where the text is none.
#[must_use]
pub fn certificates(pem: &str) -> Vec<CertificateDer<'static>> {
    CertificateDer::pem_slice_iter(pem.as_bytes()).collect::<Result<_, _>>().unwrap_or_default()
}

fn config(authority: Option<&str>) -> Result<ClientConfig, SendError> {
    let mut roots = RootCertStore::empty();
    match authority {
        // Only this one: a public authority cannot vouch for an inner name then.
        Some(pem) => roots.add_parsable_certificates(certificates(pem)),
        None => roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs),
    };
    if roots.is_empty() {
        return Err(SendError::later("there are no certificate authorities".to_owned()));
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| SendError::later(format!("TLS: {error}")))?;
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

/// Speaks TLS on a connection; the certificate must be the host's.
///
/// # Errors
/// [`SendError`]
pub async fn secure(
    stream: TcpStream,
    host: &str,
    authority: Option<&str>,
) -> Result<TlsStream<TcpStream>, SendError> {
    let bare = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
    let name = ServerName::try_from(bare.to_owned())
        .map_err(|_| SendError::never(format!("{host} is no name of a server")))?;
    // Reading the system's authorities is file work.
    let authority = authority.map(str::to_owned);
    let config = tokio::task::spawn_blocking(move || config(authority.as_deref()))
        .await
        .map_err(|error| SendError::later(format!("TLS: {error}")))??;
    let connector = TlsConnector::from(Arc::new(config));
    let secured = connector.connect(name, stream).await;
    secured.map_err(|error| SendError::later(format!("TLS with {host}: {error}")))
}
