//! Listening: HTTPS by a given certificate, whoever is slow, and the end.

use std::time::Duration;

use holdfast_manager::api::router;
use holdfast_manager::api::serve::{Identity, Place, ServeError, bind, run};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use std::sync::Arc;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::world::{self, On};

#[test]
fn https_answers_by_the_given_certificate_and_to_nobody_without_tls() {
    world::run(On::Sqlite, |world| async move {
        let folder = TempDir::new().expect("folder");
        let made = rcgen::generate_simple_self_signed(vec!["manager.test".to_owned()]);
        let made = made.expect("certificate");
        let certificate = folder.path().join("certificate.pem");
        let key = folder.path().join("key.pem");
        std::fs::write(&certificate, made.cert.pem()).expect("write");
        std::fs::write(&key, made.signing_key.serialize_pem()).expect("write");
        let identity = Identity::Files { certificate, key };
        let address = "127.0.0.1:0".parse().expect("address");
        let place = Place::Tls { address, identity };
        let bound = bind(&place).await.expect("bind");
        let address = bound.address().expect("address");
        let (end, ending) = tokio::sync::watch::channel(false);
        let serving = tokio::spawn(run(bound, router(world.app.clone()), ending));

        let mut roots = RootCertStore::empty();
        roots.add(made.cert.der().clone()).expect("root");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(roots)
            .with_no_client_auth();
        let connector = TlsConnector::from(Arc::new(config));
        let name = ServerName::try_from("manager.test").expect("name");
        let stream = TcpStream::connect(address).await.expect("connect");
        let mut stream = connector.connect(name, stream).await.expect("handshake");
        let request = b"GET /healthz HTTP/1.1\r\nhost: manager.test\r\nconnection: close\r\n\r\n";
        stream.write_all(request).await.expect("send");
        let mut answer = String::new();
        let _ = stream.read_to_string(&mut answer).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");

        let mut plain = TcpStream::connect(address).await.expect("connect");
        plain.write_all(request).await.expect("send");
        let mut answer = Vec::new();
        let _ = plain.read_to_end(&mut answer).await;
        assert!(!String::from_utf8_lossy(&answer).contains("200"));

        // One that never says anything does not hold up the end.
        let _silent = TcpStream::connect(address).await.expect("connect");
        end.send_replace(true);
        let ended = tokio::time::timeout(Duration::from_secs(15), serving).await;
        ended.expect("never ended").expect("serve");
        assert!(TcpStream::connect(address).await.is_err());
    });
}

#[test]
fn a_certificate_that_cannot_be_used_is_named() {
    world::run(On::Sqlite, |_world| async move {
        let (certificate, key) = ("/nowhere.pem".into(), "/nowhere.key".into());
        let identity = Identity::Files { certificate, key };
        let address = "127.0.0.1:0".parse().expect("address");
        let refused = bind(&Place::Tls { address, identity }).await.err().expect("refused");
        assert!(matches!(refused, ServeError::Identity { .. }));
        assert!(refused.to_string().contains("/nowhere.pem"), "{refused}");
    });
}
