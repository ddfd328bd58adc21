//! Whom the manager's certificate must come from: an authority in a file, one that is known by its
//! fingerprint and that the manager shows itself, or those of the system.
//!
//! INVARIANT: the certificate names the host that was asked for, whoever signed it.

use std::path::Path;
use std::sync::Arc;

use holdfast_common::pin::{Pinned, fingerprint};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};

use crate::CtlError;
use crate::arguments::Place;

/// Where systems keep the authorities that they trust: Debian, Fedora.
const SYSTEM: [&str; 2] =
    ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt"];

/// TLS that trusts nobody, where none is spoken.
pub(crate) fn nobody() -> Result<ClientConfig, CtlError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| CtlError::Failed(error.to_string()))?;
    Ok(builder.with_root_certificates(RootCertStore::empty()).with_no_client_auth())
}

/// TLS as these arguments want it.
pub(crate) fn config(place: &Place) -> Result<ClientConfig, CtlError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| CtlError::Failed(error.to_string()))?;
    let config = match (&place.ca, &place.ca_fingerprint) {
        (Some(file), _) => builder.with_root_certificates(roots(file)?).with_no_client_auth(),
        (None, Some(text)) => {
            let wrong = "--ca-fingerprint: a SHA-256 in hex (64 digits)";
            let fingerprint = fingerprint(text).ok_or(CtlError::Usage(wrong.to_owned()))?;
            let verifier = Arc::new(Pinned::new(fingerprint));
            builder.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth()
        }
        (None, None) => {
            let named = std::env::var_os("SSL_CERT_FILE").map(std::path::PathBuf::from);
            let known = SYSTEM.iter().map(std::path::PathBuf::from);
            // Without any nobody is trusted, and the error says so.
            let file = named.into_iter().chain(known).find(|file| file.is_file());
            let roots = file.map_or_else(|| Ok(RootCertStore::empty()), |file| roots(&file))?;
            builder.with_root_certificates(roots).with_no_client_auth()
        }
    };
    Ok(config)
}

fn roots(file: &Path) -> Result<RootCertStore, CtlError> {
    let wrong = |why: &dyn std::fmt::Display| CtlError::Data(format!("{}: {why}", file.display()));
    let certificates = CertificateDer::pem_file_iter(file)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| wrong(&error))?;
    let mut roots = RootCertStore::empty();
    let (taken, _) = roots.add_parsable_certificates(certificates);
    if taken == 0 { Err(wrong(&"no certificate in it")) } else { Ok(roots) }
}
