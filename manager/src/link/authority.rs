//! The manager's certificate authority: its own key, the server's certificate, the hosts'.
//!
//! INVARIANT: the key lies in the data folder, readable by its owner alone, and is never replaced
//! by another one in silence. Of a host's request nothing but the public key is taken.

use std::fs::DirBuilder;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use holdfast_common::wire::hex;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, SerialNumber,
};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateSigningRequestDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use sha2::{Digest, Sha256};
use uuid::Uuid;

/// The authority's own life: longer than any host's.
const AUTHORITY_LIFE: Duration = Duration::from_secs(20 * 365 * 86_400);
/// The server's certificate; renewed at two thirds while the manager runs.
const SERVER_LIFE: Duration = Duration::from_secs(90 * 86_400);
/// Clocks of hosts differ.
const SKEW: Duration = Duration::from_secs(300);
/// Largest request of a host, bytes.
const MOST_REQUEST: usize = 4096;
/// Bytes of a serial number.
const SERIAL: usize = 16;

/// Why there is no authority, or no certificate.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// A file could not be read or written.
    #[error("cannot {action} {path}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Somebody else could have read the key.
    #[error("{0} is readable by others than its owner: its hosts cannot be trusted")]
    Exposed(PathBuf),
    /// Without the key no host can be enrolled, and with a new one none is trusted.
    #[error("{0} is there, but its key is not: put it back from the backup")]
    KeyMissing(PathBuf),
    /// What stands there is no key or certificate.
    #[error("{path} is damaged")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: rcgen::Error,
    },
    /// The certificate could not be made.
    #[error("cannot make a certificate")]
    Make(#[source] rcgen::Error),
    /// A host's request is none, or not signed by its key.
    #[error("the request for a certificate is not valid")]
    Request,
    /// No random numbers.
    #[error("there are no random numbers")]
    Random,
}

/// A host's certificate.
#[derive(Debug, Clone)]
pub struct Issued {
    /// PEM of it.
    pub chain: String,
    /// Lower-case hex.
    pub serial: String,
    /// Its life, milliseconds since the epoch.
    pub begins_ms: i64,
    /// Its end.
    pub ends_ms: i64,
}

/// The authority.
#[derive(Debug)]
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
    der: CertificateDer<'static>,
    provider: Arc<CryptoProvider>,
}

impl Authority {
    /// Reads `ca.key` and `ca.pem` of the data folder, or makes them the first time.
    ///
    /// # Errors
    /// [`AuthorityError`]; nothing is replaced.
    pub fn open(folder: &Path) -> Result<Self, AuthorityError> {
        let (key_path, path) = (folder.join("ca.key"), folder.join("ca.pem"));
        DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(|source| {
            AuthorityError::Io { action: "make", path: folder.to_owned(), source }
        })?;
        let key = match read_key(&key_path)? {
            Some(key) => key,
            None if path.exists() => return Err(AuthorityError::KeyMissing(path)),
            None => {
                let key = KeyPair::generate().map_err(AuthorityError::Make)?;
                write_new(&key_path, key.serialize_pem().as_bytes())?;
                key
            }
        };
        let pem = match std::fs::read_to_string(&path) {
            Ok(pem) => pem,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let params = authority_params()?;
                let pem = params.self_signed(&key).map_err(AuthorityError::Make)?.pem();
                write_new(&path, pem.as_bytes())?;
                pem
            }
            Err(source) => return Err(AuthorityError::Io { action: "read", path, source }),
        };
        let damaged = |source| AuthorityError::Damaged { path: path.clone(), source };
        let issuer = Issuer::from_ca_cert_pem(&pem, key).map_err(damaged)?;
        let der = CertificateDer::from_pem_slice(pem.as_bytes())
            .map_err(|_| damaged(rcgen::Error::CouldNotParseCertificate))?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        Ok(Self { issuer, pem, der, provider })
    }

    /// SHA-256 of its certificate (DER), lower-case hex: what hosts are enrolled with.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        hex(&Sha256::digest(&self.der))
    }

    /// Its certificate.
    #[must_use]
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// The same, DER.
    #[must_use]
    pub const fn der(&self) -> &CertificateDer<'static> {
        &self.der
    }

    pub(super) const fn provider(&self) -> &Arc<CryptoProvider> {
        &self.provider
    }

    /// Signs a host's request (PKCS #10, DER): the subject becomes the host's id, the purpose is
    /// to be a client, the life this long from now on.
    ///
    /// # Errors
    /// [`AuthorityError::Request`], [`AuthorityError::Make`]
    pub fn issue(
        &self,
        request: &[u8],
        host: Uuid,
        life: Duration,
    ) -> Result<Issued, AuthorityError> {
        let public_key = self.check(request)?;
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, host.to_string());
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        let serial = self.serial()?;
        params.serial_number = Some(SerialNumber::from_slice(&serial));
        let now = since_epoch();
        set_life(&mut params, now, life);
        let chain =
            params.signed_by(&public_key, &self.issuer).map_err(AuthorityError::Make)?.pem();
        let (begins_ms, ends_ms) = (milliseconds(now), milliseconds(now + life));
        Ok(Issued { chain, serial: hex(&serial), begins_ms, ends_ms })
    }

    /// Whether a request could be signed.
    ///
    /// # Errors
    /// [`AuthorityError::Request`]
    pub fn check(&self, request: &[u8]) -> Result<rcgen::PublicKey, AuthorityError> {
        if request.len() > MOST_REQUEST {
            return Err(AuthorityError::Request);
        }
        let request = CertificateSigningRequestDer::from(request);
        let request = CertificateSigningRequestParams::from_der(&request)
            .map_err(|_| AuthorityError::Request)?;
        let algorithm = request.public_key.algorithm();
        let known = [&rcgen::PKCS_ECDSA_P256_SHA256, &rcgen::PKCS_ED25519];
        if !known.contains(&algorithm) {
            return Err(AuthorityError::Request);
        }
        Ok(request.public_key)
    }

    /// A certificate for this server, under these names and addresses.
    fn server(&self, names: &[String]) -> Result<CertifiedKey, AuthorityError> {
        let key = KeyPair::generate().map_err(AuthorityError::Make)?;
        let mut params = CertificateParams::new(names).map_err(AuthorityError::Make)?;
        params.distinguished_name.push(DnType::CommonName, "Holdfast manager");
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        params.serial_number = Some(SerialNumber::from_slice(&self.serial()?));
        set_life(&mut params, since_epoch(), SERVER_LIFE);
        let certificate = params.signed_by(&key, &self.issuer).map_err(AuthorityError::Make)?;
        // The authority's own goes along, so that a host that knows its fingerprint can know it.
        let chain = vec![certificate.der().clone(), self.der.clone()];
        let key = PrivateKeyDer::try_from(key.serialize_der())
            .map_err(|_| AuthorityError::Make(rcgen::Error::CouldNotParseKeyPair))?;
        CertifiedKey::from_der(chain, key, &self.provider)
            .map_err(|_| AuthorityError::Make(rcgen::Error::CouldNotParseKeyPair))
    }

    /// Random, positive, of full length.
    fn serial(&self) -> Result<[u8; SERIAL], AuthorityError> {
        let mut serial = [0; SERIAL];
        self.provider.secure_random.fill(&mut serial).map_err(|_| AuthorityError::Random)?;
        serial[0] = serial[0] & 0x3f | 0x40;
        Ok(serial)
    }
}

/// The server's certificate, made anew while the manager runs; for any port of the manager.
#[derive(Debug)]
pub struct ServerCertificate {
    authority: Arc<Authority>,
    names: Vec<String>,
    current: Mutex<(Arc<CertifiedKey>, SystemTime)>,
}

impl ServerCertificate {
    /// Under these names and addresses.
    ///
    /// # Errors
    /// [`AuthorityError::Make`]
    pub fn new(authority: Arc<Authority>, names: Vec<String>) -> Result<Self, AuthorityError> {
        let first = Arc::new(authority.server(&names)?);
        Ok(Self { authority, names, current: Mutex::new((first, SystemTime::now())) })
    }
}

impl ResolvesServerCert for ServerCertificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        let age = current.1.elapsed().unwrap_or_default();
        if age > SERVER_LIFE / 3 * 2 {
            match self.authority.server(&self.names) {
                Ok(next) => *current = (Arc::new(next), SystemTime::now()),
                Err(error) => tracing::error!(%error, "the server's certificate is not renewed"),
            }
        }
        Some(Arc::clone(&current.0))
    }
}

fn authority_params() -> Result<CertificateParams, AuthorityError> {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "Holdfast manager's authority");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    set_life(&mut params, since_epoch(), AUTHORITY_LIFE);
    Ok(params)
}

fn set_life(params: &mut CertificateParams, now: Duration, life: Duration) {
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    params.not_before = epoch + now.saturating_sub(SKEW);
    params.not_after = epoch + (now + life);
}

fn since_epoch() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

fn milliseconds(since: Duration) -> i64 {
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

fn read_key(path: &Path) -> Result<Option<KeyPair>, AuthorityError> {
    let failed = |source| AuthorityError::Io { action: "read", path: path.to_owned(), source };
    match std::fs::metadata(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
        Ok(facts) if facts.permissions().mode() & 0o077 != 0 => {
            return Err(AuthorityError::Exposed(path.to_owned()));
        }
        Ok(_) => {}
    }
    let pem = std::fs::read_to_string(path).map_err(failed)?;
    KeyPair::from_pem(&pem)
        .map(Some)
        .map_err(|source| AuthorityError::Damaged { path: path.to_owned(), source })
}

/// Whole and on disk, or not there: a crash must leave no half of a key.
fn write_new(path: &Path, content: &[u8]) -> Result<(), AuthorityError> {
    let failed = |source| AuthorityError::Io { action: "write", path: path.to_owned(), source };
    let beside = path.with_extension("new");
    let write = || {
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(0o600);
        let mut file = options.open(&beside)?;
        file.write_all(content)?;
        file.sync_all()?;
        std::fs::rename(&beside, path)?;
        File::open(path.parent().unwrap_or(Path::new("/")))?.sync_all()
    };
    write().map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request() -> Vec<u8> {
        let key = KeyPair::generate().expect("key");
        CertificateParams::default().serialize_request(&key).expect("request").der().to_vec()
    }

    const DAY: Duration = Duration::from_secs(86_400);

    #[test]
    fn an_authority_stays_the_same_and_its_key_is_its_owners_alone() {
        let folder = tempfile::tempdir().expect("folder");
        let first = Authority::open(folder.path()).expect("made");
        let again = Authority::open(folder.path()).expect("read");
        assert_eq!(first.fingerprint(), again.fingerprint());
        assert_eq!(first.fingerprint().len(), 64);
        let key = folder.path().join("ca.key");
        let mode = |mode| std::fs::set_permissions(&key, PermissionsExt::from_mode(mode));
        assert_eq!(std::fs::metadata(&key).expect("facts").permissions().mode() & 0o777, 0o600);
        mode(0o640).expect("mode");
        assert!(matches!(Authority::open(folder.path()), Err(AuthorityError::Exposed(_))));
        std::fs::remove_file(&key).expect("remove");
        assert!(matches!(Authority::open(folder.path()), Err(AuthorityError::KeyMissing(_))));
        assert!(!key.exists(), "no other key is made in silence");
    }

    #[test]
    fn a_host_gets_its_id_as_the_subject_whatever_it_asks_for() {
        let folder = tempfile::tempdir().expect("folder");
        let authority = Authority::open(folder.path()).expect("authority");
        let key = KeyPair::generate().expect("key");
        let mut wish = CertificateParams::new(["manager.example".to_owned()]).expect("names");
        wish.distinguished_name.push(DnType::CommonName, "somebody else");
        wish.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let wish = wish.serialize_request(&key).expect("request");
        let host = Uuid::now_v7();
        let issued = authority.issue(wish.der(), host, DAY).expect("issued");
        let der = CertificateDer::from_pem_slice(issued.chain.as_bytes()).expect("pem");
        let (_, certificate) = x509_parser::parse_x509_certificate(&der).expect("certificate");
        assert_eq!(certificate.subject().to_string(), format!("CN={host}"));
        assert!(!certificate.is_ca());
        assert!(certificate.subject_alternative_name().expect("extension").is_none());
        let usage = certificate.extended_key_usage().expect("extension").expect("usage").value;
        assert!(usage.client_auth && !usage.server_auth);
        assert_eq!(hex(certificate.raw_serial()), issued.serial);
        assert_eq!(issued.ends_ms - issued.begins_ms, 86_400_000);
        let other = authority.issue(&request(), host, DAY).expect("issued");
        assert_ne!(other.serial, issued.serial);
    }

    #[test]
    fn requests_that_are_none_or_not_signed_by_their_key_are_refused() {
        let folder = tempfile::tempdir().expect("folder");
        let authority = Authority::open(folder.path()).expect("authority");
        let good = request();
        let refused = |request: &[u8]| {
            let issued = authority.issue(request, Uuid::now_v7(), DAY);
            assert!(matches!(issued, Err(AuthorityError::Request)), "{issued:?}");
        };
        refused(b"");
        refused(&vec![0x30; MOST_REQUEST + 1]);
        let mut harmless = 0;
        for at in 0..good.len() {
            let mut flipped = good.clone();
            flipped[at] ^= 1;
            // Inside of what is signed, or the signature itself; but for the count of unused bits
            // in a bit string, which readers ignore: then it is the same request.
            match authority.issue(&flipped, Uuid::now_v7(), DAY) {
                Err(AuthorityError::Request) => {}
                Ok(_) => harmless += 1,
                Err(error) => panic!("{error:?}"),
            }
        }
        assert!(harmless <= 2, "{harmless} changed requests were taken");
        for end in 0..good.len() {
            refused(&good[..end]);
        }
        let rsa_like = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).expect("key");
        let other = CertificateParams::default().serialize_request(&rsa_like).expect("request");
        refused(other.der());
        authority.issue(&good, Uuid::now_v7(), DAY).expect("the whole one");
    }
}
