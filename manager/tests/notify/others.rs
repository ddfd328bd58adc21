//! By webhook and syslog.

use std::collections::BTreeSet;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use holdfast_manager::app::TestAnswer;
use holdfast_manager::notify::syslog::{SyslogFormat, SyslogTransport};
use holdfast_manager::notify::webhook::WebhookFormat;
use holdfast_manager::notify::{ChannelConfig, SyslogConfig, WebhookConfig};
use serde_json::Value;
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, UdpSocket};

use crate::world::{Server, World, channel, host, malware, port, run, store, until};

const KEY: &str = "a key of more than 16 bytes";

fn hook(world: &World, url: String, format: WebhookFormat) -> ChannelConfig {
    let authority = Some(world.certificate.clone());
    ChannelConfig::Webhook(WebhookConfig { url, format, authority })
}

async fn test(world: &World, name: &str, config: ChannelConfig, key: Option<&str>) -> TestAnswer {
    let new = channel(name, config, key, 0);
    let made = world.app.notification_create(new, "test").await.expect("channel");
    world.app.notification_test(made.channel.id, "test").await.expect("test")
}

#[test]
fn a_webhook_is_signed_and_tells_every_alert() {
    run(|world| async move {
        let port = port();
        let folder = world.folder.path().join("hooks");
        let server = Server::start("https_server.py", port, &world.pem, &folder);
        for (name, format) in [("own", WebhookFormat::Holdfast), ("ocsf", WebhookFormat::Ocsf)] {
            let config = hook(&world, format!("https://127.0.0.1:{port}/{name}?x=1"), format);
            let new = channel(name, config, Some(KEY), 0);
            world.app.notification_create(new, "test").await.expect("channel");
        }
        let host = host(&world.app, "web1").await;
        store(&world.app, host, &[malware("/srv/a", 1), malware("/srv/b", 2)]).await;
        until("both", async || server.got().len() >= 2).await;
        for request in server.got() {
            let headers = &request["headers"];
            let body = request["body"].as_str().expect("body");
            let id = headers["webhook-id"].as_str().expect("id");
            let time = headers["webhook-timestamp"].as_str().expect("time");
            let mut mac = Hmac::<sha2::Sha256>::new_from_slice(KEY.as_bytes()).expect("key");
            mac.update(format!("{id}.{time}.{body}").as_bytes());
            let signed = format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()));
            assert_eq!(headers["webhook-signature"], signed);
            let body: Value = serde_json::from_str(body).expect("json");
            if request["path"] == "/own?x=1" {
                assert_eq!(body["detections"], 2);
                let alerts = body["alerts"].as_array().expect("alerts");
                let paths = alerts.iter().map(|alert| alert["evidence"]["path"].as_str());
                let paths: BTreeSet<&str> = paths.map(|path| path.expect("path")).collect();
                assert_eq!(paths, BTreeSet::from(["/srv/a", "/srv/b"]));
            } else {
                assert_eq!(body[0]["class_uid"], 2004);
                assert_eq!(body[0]["type_uid"], 200_401);
                assert_eq!(body[0]["disposition_id"], 3);
                assert_eq!(body[0]["evidences"][0]["file"]["hashes"][2]["algorithm_id"], 3);
            }
        }
    });
}

#[test]
fn redirects_endless_answers_and_forbidden_addresses_lead_nowhere() {
    run(|world| async move {
        let port = port();
        let folder = world.folder.path().join("hooks");
        let server = Server::start("https_server.py", port, &world.pem, &folder);
        let url = |path: &str| format!("https://127.0.0.1:{port}/{path}");
        let own = WebhookFormat::Holdfast;
        let moved = test(&world, "a", hook(&world, url("redirect"), own), Some(KEY)).await;
        assert!(!moved.taken && moved.answer.contains("302"), "{moved:?}");
        let endless = test(&world, "b", hook(&world, url("endless"), own), Some(KEY)).await;
        assert!(endless.taken && endless.answer.len() < 1000, "{endless:?}");
        assert!(endless.took_ms < 10_000, "{endless:?}");
        let error = test(&world, "c", hook(&world, url("error"), own), Some(KEY)).await;
        assert!(!error.taken && error.answer.contains("out of order"), "{error:?}");
        for (name, address) in [("d", "169.254.169.254"), ("e", "[::ffff:169.254.169.254]")] {
            let config = hook(&world, format!("https://{address}/latest/meta-data"), own);
            let refused = test(&world, name, config, Some(KEY)).await;
            assert!(!refused.taken && refused.answer.contains("refused"), "{refused:?}");
        }
        assert!(server.got().iter().all(|request| request["path"] != "/moved"));
    });
}

fn syslog(port: u16, transport: SyslogTransport, format: SyslogFormat) -> SyslogConfig {
    let server = "127.0.0.1".to_owned();
    SyslogConfig { server, port, transport, format, authority: None }
}

/// The lines of an octet-counted stream.
fn frames(mut bytes: &[u8]) -> Vec<String> {
    let mut lines = Vec::new();
    while !bytes.is_empty() {
        let blank = bytes.iter().position(|byte| *byte == b' ').expect("a length");
        let length = std::str::from_utf8(&bytes[..blank]).expect("digits").parse::<usize>();
        let (line, rest) = bytes[blank + 1..].split_at(length.expect("a number"));
        lines.push(String::from_utf8(line.to_vec()).expect("text"));
        bytes = rest;
    }
    lines
}

#[test]
fn cef_by_tcp_has_one_line_for_each_alert_whatever_its_names_are() {
    run(|world| async move {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let port = listener.local_addr().expect("address").port();
        let config = syslog(port, SyslogTransport::Tcp, SyslogFormat::Cef);
        let new = channel("cef", ChannelConfig::Syslog(config), None, 0);
        world.app.notification_create(new, "test").await.expect("channel");
        let host = host(&world.app, "web1 act=allowed|x\n<134>1 - forged").await;
        let path = "/srv/a=b|c\\d\nCEF:0|forged act=allowed";
        store(&world.app, host, &[malware(path, 1), malware("/srv/plain", 2)]).await;
        let mut bytes = Vec::new();
        let (mut stream, _) = listener.accept().await.expect("accept");
        stream.read_to_end(&mut bytes).await.expect("read");
        drop(stream);
        let lines = frames(&bytes);
        assert_eq!(lines.len(), 2);
        for line in &lines {
            assert!(line.starts_with("<131>1 20") && !line.contains('\n'), "{line}");
            assert!(line.contains(" - CEF:0|Holdfast|Holdfast|"), "{line}");
            let extension = line.split_once("|8|").expect("extension").1;
            assert!(extension.contains(" act=quarantined "), "{line}");
            assert!(!extension.contains(" act=allowed"), "{line}");
        }
        let forged = r"filePath=/srv/a\=b|c\\d\nCEF:0|forged act\=allowed ";
        assert!(lines.iter().any(|line| line.contains(forged)), "{lines:?}");
        until("taken", async || {
            world.app.notification_list().await.expect("list")[0].channel.detections == 2
        })
        .await;
    });
}

#[test]
fn ecs_by_udp_and_by_tls() {
    run(|world| async move {
        let socket = UdpSocket::bind("127.0.0.1:0").await.expect("bind");
        let udp = socket.local_addr().expect("address").port();
        let config = syslog(udp, SyslogTransport::Udp, SyslogFormat::Ecs);
        let new = channel("udp", ChannelConfig::Syslog(config), None, 0);
        world.app.notification_create(new, "test").await.expect("channel");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let mut config = syslog(0, SyslogTransport::Tls, SyslogFormat::Ecs);
        config.port = listener.local_addr().expect("address").port();
        config.authority = Some(world.certificate.clone());
        let new = channel("tls", ChannelConfig::Syslog(config), None, 0);
        world.app.notification_create(new, "test").await.expect("channel");
        let host = host(&world.app, "web1").await;
        store(&world.app, host, &[malware("/srv/a", 1)]).await;
        let mut datagram = vec![0; 65_536];
        let length = socket.recv(&mut datagram).await.expect("datagram");
        let (stream, _) = listener.accept().await.expect("accept");
        let mut stream = acceptor(&world).accept(stream).await.expect("TLS");
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).await.expect("read");
        let framed = frames(&bytes);
        let datagram = String::from_utf8(datagram[..length].to_vec()).expect("text");
        for line in [&datagram, &framed[0]] {
            let json = line.split_once(" holdfast - alert - ").expect("header").1;
            let value: Value = serde_json::from_str(json).expect("JSON");
            assert_eq!(value["host"]["name"], "web1");
            assert_eq!(value["file"]["hash"]["md5"], format!("{:032x}", 1));
            assert_eq!(value["process"]["pid"], 4242);
            assert_eq!(value["event"]["action"], "quarantined");
        }
    });
}

fn acceptor(world: &World) -> tokio_rustls::TlsAcceptor {
    use rustls::pki_types::pem::PemObject;
    use rustls::pki_types::{CertificateDer, PrivateKeyDer};
    let certificate = CertificateDer::from_pem_file(&world.pem).expect("certificate");
    let key = PrivateKeyDer::from_pem_file(&world.pem).expect("key");
    let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .expect("config");
    tokio_rustls::TlsAcceptor::from(std::sync::Arc::new(config))
}

#[test]
fn a_port_where_nobody_listens_is_a_failure_by_udp_too() {
    run(|world| async move {
        for (name, transport) in [("u", SyslogTransport::Udp), ("t", SyslogTransport::Tcp)] {
            let config = syslog(port(), transport, SyslogFormat::Cef);
            let answer = test(&world, name, ChannelConfig::Syslog(config), None).await;
            assert!(!answer.taken, "{answer:?}");
        }
    });
}
