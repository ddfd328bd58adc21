//! By mail: every field, hostile names, bursts, outages, a killed manager.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use holdfast_manager::notify::ChannelConfig;
use holdfast_manager::notify::email::MailTls;
use holdfast_manager::store::alerts::AlertFilter;
use serde_json::Value;

use crate::world::{Server, World, app, burst, got, host, mail, malware, port, run, store, until};

/// Names the folder to the child of the test with the killed manager.
const CHILD: &str = "HOLDFAST_TEST_NOTIFY_FOLDER";

/// Detections that mails tell of, each mail once, by its message id.
fn told(mails: &[Value]) -> i64 {
    let mut by_id = BTreeMap::new();
    for mail in mails {
        let text = mail["text"].as_str().expect("text");
        let count: i64 = text.split(' ').next().and_then(|n| n.parse().ok()).expect("count");
        by_id.insert(header(mail, "Message-ID"), count);
    }
    by_id.values().sum()
}

fn header(mail: &Value, name: &str) -> String {
    let headers = mail["headers"].as_array().expect("headers");
    let found = headers.iter().find(|pair| pair[0].as_str().expect("name") == name);
    found.unwrap_or_else(|| panic!("no {name}"))[1].as_str().expect("value").to_owned()
}

fn server(world: &World, port: u16) -> Server {
    Server::start("smtp_server.py", port, &world.pem, &world.folder.path().join("mails"))
}

#[test]
fn a_mail_has_every_field_and_hostile_names_stay_text() {
    run(|world| async move {
        let port = port();
        let server = server(&world, port);
        world.mail(port, 0).await;
        let hostile = "web1\r\nBcc: evil@example.org\r\n\r\n\u{202e}<script>alert(1)</script>";
        let host = host(&world.app, hostile).await;
        let path = "/srv/\u{202e}gpj.<img src=x onerror=alert(1)>\n\"&'\r\nSubject: x";
        store(&world.app, host, &[malware(path, 7)]).await;
        until("mail", async || !server.got().is_empty()).await;
        let mail = server.got().remove(0);
        assert_eq!(mail["to"], serde_json::json!(["ops@example.org", "second@example.org"]));
        let names: BTreeSet<String> = mail["headers"]
            .as_array()
            .expect("headers")
            .iter()
            .map(|pair| pair[0].as_str().expect("name").to_lowercase())
            .collect();
        assert!(!names.contains("bcc") && !names.contains("x"), "{names:?}");
        assert_eq!(header(&mail, "Auto-Submitted"), "auto-generated");
        let subject = header(&mail, "Subject");
        assert!(subject.starts_with("[Holdfast] high on web1"), "{subject}");
        let (text, html) = (mail["text"].as_str().expect("t"), mail["html"].as_str().expect("h"));
        for part in [&subject, text, html] {
            assert!(!part.contains('\u{202e}'), "{part}");
            assert!(!part.contains("\nBcc") && !part.contains("\nSubject"), "{part}");
        }
        assert!(!html.contains("<script") && !html.contains("<img"), "{html}");
        assert!(html.contains("&lt;img src=x onerror=alert(1)&gt;"), "{html}");
        for line in [
            "Addresses: 192.0.2.1, 2001:db8::1",
            "MD5: 00000000000000000000000000000007",
            "SHA-256: 0000000000000000000000000000000000000000000000000000000000000007",
            "Scan type: real-time (written)",
            "Process id: 4242",
            "Command line: wget 'http://192.0.2.9/<b>x'",
            "User: alice (uid 1000",
            "Creator: /usr/bin/wget by user alice",
            "2023-11-14T22:13:20.123Z (status)",
            "Family: Mirai",
            "Advice: The file is in quarantine.",
            "Path: /srv/\\u{202e}gpj.",
            "Host: web1\\u{d}",
            "Time: 20",
        ] {
            assert!(text.contains(line), "{line} is not in {text}");
        }
    });
}

#[test]
fn five_hundred_alerts_are_few_mails_whose_counts_add_up() {
    run(|world| async move {
        let port = port();
        let server = server(&world, port);
        let channel = world.mail(port, 1).await;
        let host = host(&world.app, "web1").await;
        for part in burst(500).chunks(50) {
            store(&world.app, host, part).await;
        }
        until("all told", async || told(&server.got()) >= 500).await;
        let mails = server.got();
        assert_eq!(told(&mails), 500);
        assert!(mails.len() <= 5, "{} mails", mails.len());
        let lines: usize = mails
            .iter()
            .map(|mail| mail["text"].as_str().expect("text").matches("/srv/file").count())
            .sum();
        assert!(lines >= 500, "every alert is named: {lines}");
        let id = channel.channel.id;
        until("noted", async || {
            let state = world.app.notification_get(id).await.expect("channel");
            state.waiting.detections == 0 && state.channel.detections == 500
        })
        .await;
    });
}

#[test]
fn what_a_server_missed_comes_when_it_is_back_and_the_outage_is_an_alert() {
    run(|world| async move {
        let port = port();
        let channel = world.mail(port, 0).await;
        let id = channel.channel.id;
        let host = host(&world.app, "web1").await;
        store(&world.app, host, &burst(20)).await;
        let alarm = || async {
            let filter = AlertFilter {
                kind: "notification".to_owned(),
                until_ms: i64::MAX,
                limit: 10,
                ..AlertFilter::default()
            };
            world.app.alert_list(&filter).await.expect("alerts")
        };
        until("an alert", async || !alarm().await.is_empty()).await;
        store(&world.app, host, &burst(30)).await;
        assert_eq!(alarm().await.len(), 1);
        assert!(alarm().await[0].title.contains("web1"), "{:?}", alarm().await);
        let state = world.app.notification_get(id).await.expect("channel");
        assert!(state.channel.failures >= 5 && !state.channel.error.is_empty());
        let server = server(&world, port);
        // What an operator does; without it the next attempt comes within seconds.
        let mut edit = mail(port, 0, &world.certificate);
        edit.secret = None;
        world.app.notification_edit(id, edit, "test").await.expect("edit");
        // The outage's own alert is told too.
        until("all told", async || told(&server.got()) >= 51).await;
        assert_eq!(told(&server.got()), 51);
        assert!(server.got().len() <= 6, "{} mails", server.got().len());
        until("cleared", async || alarm().await[0].cleared_ms.is_some()).await;
        assert_eq!(alarm().await[0].count, 1);
    });
}

#[test]
fn a_wrong_password_is_shown_and_not_repeated() {
    run(|world| async move {
        let port = port();
        let _server = server(&world, port);
        let mut new = mail(port, 0, &world.certificate);
        new.secret = Some("wrong battery".to_owned().into());
        let channel = world.app.notification_create(new, "test").await.expect("channel");
        let id = channel.channel.id;
        let answer = world.app.notification_test(id, "test").await.expect("test");
        assert!(!answer.taken && answer.answer.contains("535"), "{answer:?}");
        let mut edit = mail(port, 0, &world.certificate);
        world.app.notification_edit(id, edit.clone(), "test").await.expect("edit");
        let answer = world.app.notification_test(id, "test").await.expect("test");
        assert!(answer.taken && answer.answer.contains("taken as 1"), "{answer:?}");
        // Led elsewhere without the password: refused.
        edit = mail(port + 1, 0, &world.certificate);
        edit.secret = None;
        assert!(world.app.notification_edit(id, edit, "test").await.is_err());
        let shown = format!("{:?}", world.app.notification_list().await.expect("list"));
        let audit = world.app.audit_list(None, (0, i64::MAX), 100, "").await.expect("audit");
        assert!(!shown.contains("battery") && !shown.contains("correct horse"), "{shown}");
        assert!(!format!("{audit:?}").contains("correct horse"));
        // Closing a file of the database here would drop SQLite's locks on it.
        world.app.stop().await;
        assert!(world.folder.path().join("data/manager.db").exists());
        for name in ["manager.db", "manager.db-wal"] {
            let read = std::fs::read(world.folder.path().join("data").join(name));
            let Ok(bytes) = read else { continue };
            assert!(!bytes.windows(13).any(|window| window == b"correct horse"), "{name}");
        }
    });
}

#[test]
fn a_server_without_the_right_certificate_gets_nothing() {
    run(|world| async move {
        let port = port();
        let server = server(&world, port);
        let other = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]);
        let new = mail(port, 0, &other.expect("certificate").cert.pem());
        let channel = world.app.notification_create(new, "test").await.expect("channel");
        let answer = world.app.notification_test(channel.channel.id, "test").await.expect("test");
        assert!(!answer.taken && server.got().is_empty(), "{answer:?}");
    });
}

#[test]
fn mail_goes_by_tls_from_the_first_byte() {
    run(|world| async move {
        let port = port();
        std::fs::create_dir_all(world.folder.path().join("mails")).expect("folder");
        std::fs::write(world.folder.path().join("mails/tls"), "").expect("mode");
        let server = server(&world, port);
        let mut new = mail(port, 0, &world.certificate);
        let ChannelConfig::Email(config) = &mut new.config else { panic!("a mail channel") };
        config.tls = MailTls::Tls;
        let channel = world.app.notification_create(new, "test").await.expect("channel");
        let answer = world.app.notification_test(channel.channel.id, "test").await.expect("test");
        assert!(answer.taken && server.got().len() == 1, "{answer:?}");
        assert!(header(&server.got()[0], "Subject").starts_with("[Holdfast] TEST"));
    });
}

#[test]
fn a_server_that_offers_no_encryption_gets_neither_password_nor_mail() {
    run(|world| async move {
        let port = port();
        std::fs::create_dir_all(world.folder.path().join("mails")).expect("folder");
        std::fs::write(world.folder.path().join("mails/plain"), "").expect("mode");
        let server = server(&world, port);
        let channel = world.mail(port, 0).await;
        let answer = world.app.notification_test(channel.channel.id, "test").await.expect("test");
        assert!(!answer.taken && server.got().is_empty(), "{answer:?}");
        let mut new = mail(port, 0, &world.certificate);
        let ChannelConfig::Email(config) = &mut new.config else { panic!("a mail channel") };
        config.tls = MailTls::None;
        new.name = "plain".to_owned();
        assert!(world.app.notification_create(new, "test").await.is_err(), "a password in clear");
    });
}

/// Not a test of its own: the manager that `a_killed_manager_tells_all` kills.
#[test]
fn child_that_is_killed() {
    let Ok(folder) = std::env::var(CHILD) else { return };
    let runtime = tokio::runtime::Runtime::new().expect("runtime");
    runtime.block_on(async {
        let app = app(Path::new(&folder)).await;
        let host = host(&app, "web1").await;
        store(&app, host, &burst(40)).await;
        println!("stored");
        std::future::pending::<()>().await;
    });
}

#[test]
fn a_killed_manager_tells_all() {
    run(|world| async move {
        let port = port();
        let folder = world.folder.path().to_owned();
        let mails = folder.join("mails");
        let server = server(&world, port);
        std::fs::write(mails.join("slow"), "").expect("slow");
        world.mail(port, 0).await;
        world.app.stop().await;
        let mut child = Command::new(std::env::current_exe().expect("own path"))
            .args(["mail::child_that_is_killed", "--exact", "--nocapture"])
            .env(CHILD, &folder)
            .stdout(Stdio::piped())
            .spawn()
            .expect("child");
        let out = BufReader::new(child.stdout.take().expect("stdout"));
        assert!(out.lines().map_while(Result::ok).any(|line| line.contains("stored")));
        // The mail is at the server, its answer is not at the manager.
        until("begun", async || mails.join("begun").exists()).await;
        child.kill().expect("kill -9");
        child.wait().expect("wait");
        std::fs::remove_file(mails.join("slow")).expect("fast");
        let next = app(&folder).await;
        until("all told", async || {
            let list = next.notification_list().await.expect("list");
            list[0].channel.detections >= 40
        })
        .await;
        let list = next.notification_list().await.expect("list");
        assert_eq!((list[0].channel.detections, list[0].waiting.detections), (40, 0));
        assert_eq!(told(&got(&mails)), 40, "each message counted once, by its id");
        assert!(server.got().len() >= 2, "the message that was not answered came again");
        next.stop().await;
    });
}
