//! A manager that is known by its authority's fingerprint, for the agent that enrolls and for the
//! command line: the TLS verifier, and the fingerprint as people write it.
//!
//! INVARIANT: the authority must be shown, and the certificate must be of its making for the name
//! that was asked for.

use std::sync::{Arc, Mutex, PoisonError};

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{DigitallySignedStruct, RootCertStore, SignatureScheme};
use sha2::{Digest, Sha256};

use crate::wire::hex;

/// 32 bytes of hex, as openssl and the manager print it; nothing when it is none.
#[must_use]
pub fn fingerprint(text: &str) -> Option<[u8; 32]> {
    let digits: String = text.chars().filter(|c| !matches!(c, ':' | ' ' | '\n')).collect();
    if digits.len() != 64 || !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return None;
    }
    let mut bytes = [0; 32];
    for (byte, at) in bytes.iter_mut().zip((0..64).step_by(2)) {
        *byte = u8::from_str_radix(&digits[at..at + 2], 16).ok()?;
    }
    Some(bytes)
}

/// Trusts one authority, known by its fingerprint, and whom it certifies.
#[derive(Debug)]
pub struct Pinned {
    fingerprint: [u8; 32],
    provider: Arc<CryptoProvider>,
    found: Mutex<Option<Vec<u8>>>,
    refused: Mutex<Option<String>>,
}

impl Pinned {
    /// Trusts the authority of this fingerprint.
    #[must_use]
    pub fn new(fingerprint: [u8; 32]) -> Self {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        Self { fingerprint, provider, found: Mutex::default(), refused: Mutex::default() }
    }

    /// The authority that was shown and is the right one, DER.
    #[must_use]
    pub fn found(&self) -> Option<Vec<u8>> {
        self.found.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Why the last one was refused.
    #[must_use]
    pub fn refused(&self) -> Option<String> {
        self.refused.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn refuse(&self, why: String) -> rustls::Error {
        *self.refused.lock().unwrap_or_else(PoisonError::into_inner) = Some(why.clone());
        rustls::Error::General(why)
    }
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
            let shown = intermediates.iter().map(|der| hex(&print(der))).collect::<Vec<_>>();
            let shown = if shown.is_empty() { "none".to_owned() } else { shown.join(", ") };
            return Err(self.refuse(format!(
                "its authority has the fingerprint {shown}, not {}",
                hex(&self.fingerprint)
            )));
        };
        let mut roots = RootCertStore::empty();
        roots.add(authority.clone().into_owned())?;
        let provider = Arc::clone(&self.provider);
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider)
            .build()
            .map_err(|error| rustls::Error::General(error.to_string()))?;
        let verified = verifier
            .verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
            .map_err(|error| self.refuse(format!("its certificate: {error}")))?;
        *self.found.lock().unwrap_or_else(PoisonError::into_inner) = Some(authority.to_vec());
        Ok(verified)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fingerprint_is_64_digits_however_they_are_grouped() {
        for text in ["ab".repeat(32), vec!["AB"; 32].join(":"), format!("{}\n", "aB ".repeat(32))] {
            assert_eq!(fingerprint(&text), Some([0xab; 32]), "{text}");
        }
        for wrong in ["", "ab", &"zz".repeat(32), &"é".repeat(32), &"ab".repeat(33)] {
            assert_eq!(fingerprint(wrong), None, "{wrong}");
        }
    }
}
