//! Whom the manager's certificate must come from: an authority in a file, one that is known by its
//! fingerprint and that the manager shows itself, or those of the system.
//!
//! INVARIANT: the certificate names the host that was asked for, whoever signed it.

use std::path::Path;
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use sha2::{Digest, Sha256};

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
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| CtlError::Failed(error.to_string()))?;
    let config = match (&place.ca, &place.ca_fingerprint) {
        (Some(file), _) => builder.with_root_certificates(roots(file)?).with_no_client_auth(),
        (None, Some(text)) => {
            let fingerprint = fingerprint(text)?;
            let verifier = Arc::new(Pinned { fingerprint, provider });
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

/// 32 bytes of hex, as openssl and the manager print it.
fn fingerprint(text: &str) -> Result<[u8; 32], CtlError> {
    let digits: String = text.chars().filter(|c| !matches!(c, ':' | ' ')).collect();
    let wrong = || CtlError::Usage("--ca-fingerprint: a SHA-256 in hex (64 digits)".to_owned());
    if digits.len() != 64 || !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return Err(wrong());
    }
    let mut bytes = [0; 32];
    for (byte, at) in bytes.iter_mut().zip((0..64).step_by(2)) {
        *byte = u8::from_str_radix(&digits[at..at + 2], 16).map_err(|_| wrong())?;
    }
    Ok(bytes)
}

/// Trusts one authority, known by its fingerprint, and whom it certifies.
#[derive(Debug)]
struct Pinned {
    fingerprint: [u8; 32],
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let print = |der: &CertificateDer<'_>| -> [u8; 32] { Sha256::digest(der.as_ref()).into() };
        let Some(authority) = intermediates.iter().find(|der| print(der) == self.fingerprint)
        else {
            let shown: Vec<String> = intermediates.iter().map(|der| hex(&print(der))).collect();
            let shown = if shown.is_empty() { "none".to_owned() } else { shown.join(", ") };
            let wanted = hex(&self.fingerprint);
            let why = format!("its authority has the fingerprint {shown}, not {wanted}");
            return Err(rustls::Error::General(why));
        };
        let mut roots = RootCertStore::empty();
        roots.add(authority.clone().into_owned())?;
        let provider = Arc::clone(&self.provider);
        WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider)
            .build()
            .map_err(|error| rustls::Error::General(error.to_string()))?
            .verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// Lower-case hex.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fingerprint_is_64_hex_digits() {
        assert_eq!(fingerprint(&"Ab:".repeat(32)).expect("fine"), [0xab; 32]);
        for bad in ["", "ab", &"zz".repeat(32), &"ab".repeat(33), &"é".repeat(32)] {
            assert!(fingerprint(bad).is_err(), "{bad}");
        }
    }
}
