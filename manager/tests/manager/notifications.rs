//! The queue of notifications, on both databases; the receivers' own tests are in `notify`.

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use axum::body::Body;
use axum::http::Request;
use holdfast_manager::api::router;
use holdfast_manager::app::{App, NewChannel, Role};
use holdfast_manager::notify::syslog::{SyslogFormat, SyslogTransport};
use holdfast_manager::notify::{ChannelConfig, SyslogConfig};
use serde_json::{Value, json};
use tokio::io::AsyncReadExt;
use tokio::net::TcpListener;
use tower::ServiceExt;

use crate::world::{On, World, malware, model, on_both, until};

/// A syslog receiver; how many detections it was told of.
async fn receiver() -> (u16, Arc<AtomicI64>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
    let port = listener.local_addr().expect("address").port();
    let told = Arc::new(AtomicI64::new(0));
    let sum = Arc::clone(&told);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut text = String::new();
            stream.read_to_string(&mut text).await.expect("text");
            let counts = text.split(" cnt=").skip(1).map(|rest| {
                let count = rest.split(' ').next().expect("a count");
                count.parse::<i64>().expect("a number")
            });
            sum.fetch_add(counts.sum(), Ordering::SeqCst);
        }
    });
    (port, told)
}

fn channel(name: &str, port: u16, min_level: &str) -> NewChannel {
    NewChannel {
        name: name.to_owned(),
        config: ChannelConfig::Syslog(SyslogConfig {
            server: "127.0.0.1".to_owned(),
            port,
            transport: SyslogTransport::Tcp,
            format: SyslogFormat::Cef,
            authority: None,
        }),
        secret: None,
        enabled: true,
        min_level: min_level.to_owned(),
        window_s: 0,
    }
}

async fn noted(app: &App) -> i64 {
    let list = app.notification_list().await.expect("list");
    list.iter().map(|state| state.channel.detections).sum()
}

on_both! {
    async fn each_detection_is_told_once_to_each_channel_that_wants_it(world: World) {
        let (all_port, all) = receiver().await;
        let (few_port, few) = receiver().await;
        let app = &world.app;
        app.notification_create(channel("all", all_port, "low"), "test").await.expect("all");
        let few_channel = channel("few", few_port, "critical");
        app.notification_create(few_channel.clone(), "test").await.expect("few");
        assert!(app.notification_create(few_channel, "test").await.is_err(), "the name is taken");
        // On PostgreSQL another manager looks at the same queue.
        let other = match world.on() {
            On::Sqlite => None,
            On::Postgres => Some(App::start(world.settings.clone()).await.expect("other")),
        };
        let (one, two) = (world.host("web1").await, world.host("web2").await);
        for number in 0..10 {
            let sniff = || model("Network Sniffing", "tcpdump");
            world.store(one, &[sniff(), sniff(), malware("/x", &format!("{number:064x}"))]).await;
            world.store(two, &[sniff()]).await;
        }
        until("told", async || all.load(Ordering::SeqCst) >= 40).await;
        until("noted", async || noted(app).await == 40).await;
        assert_eq!(all.load(Ordering::SeqCst), 40);
        assert_eq!(few.load(Ordering::SeqCst), 0);
        if let Some(other) = other {
            other.stop().await;
        }
    }

    async fn a_secret_never_comes_out_by_the_interface(world: World) {
        let app = &world.app;
        app.user_create("root", Role::Admin, "first password", "test").await.expect("user");
        let signed_in = app.sign_in("root", "first password", "test").await.expect("sign in");
        let who = &signed_in.principal;
        app.password_change(who, "first password", "correct horse").await.expect("change");
        let said = RefCell::new(String::new());
        let send = async |method: &str, path: &str, body: Value| {
            let request = Request::builder()
                .method(method)
                .uri(path)
                .header("authorization", format!("Bearer {}", signed_in.secret))
                .header("content-type", "application/json")
                .body(Body::from(body.to_string()));
            let answer = router(app.clone()).oneshot(request.expect("request")).await;
            let answer = answer.expect("answer");
            let status = answer.status().as_u16();
            let bytes = axum::body::to_bytes(answer.into_body(), 1 << 20).await.expect("body");
            said.borrow_mut().push_str(&String::from_utf8_lossy(&bytes));
            (status, serde_json::from_slice::<Value>(&bytes).unwrap_or_default())
        };
        let body = |url: &str, secret: Option<&str>| {
            let mut body = json!({"name": "hook", "config": {"kind": "webhook", "url": url}});
            if let (Some(secret), Some(fields)) = (secret, body.as_object_mut()) {
                fields.insert("secret".to_owned(), json!(secret));
            }
            body
        };
        let list = "/api/v1/notifications";
        // Nobody listens on port 1.
        let (url, secret) = ("https://127.0.0.1:1/x", "hunter2 hunter2 hunter2");
        let (status, made) = send("POST", list, body(url, Some(secret))).await;
        assert_eq!((status, &made["has_secret"]), (201, &json!(true)));
        let one = format!("{list}/{}", made["id"].as_str().expect("id"));
        assert_eq!(send("POST", list, body(url, Some(secret))).await.0, 409, "the name is taken");
        assert_eq!(send("GET", list, Value::Null).await.0, 200);
        assert_eq!(send("GET", &one, Value::Null).await.0, 200);
        let (status, answer) = send("POST", &format!("{one}/test"), Value::Null).await;
        assert_eq!((status, &answer["taken"]), (200, &json!(false)));
        assert_eq!(send("PUT", &one, body(url, None)).await.0, 200, "the secret stays");
        let elsewhere = send("PUT", &one, body("https://127.0.0.1:2/x", None)).await;
        assert_eq!(elsewhere.0, 400, "who leads it elsewhere must know the secret");
        let bad = json!({"name": "hook", "secret": [secret], "config": {}});
        assert_eq!(send("PUT", &one, bad).await.0, 422);
        assert_eq!(send("GET", "/api/v1/audit", Value::Null).await.0, 200);
        assert_eq!(send("DELETE", &one, Value::Null).await.0, 204);
        let said = said.into_inner();
        assert!(said.contains("notification.create") && said.contains("127.0.0.1:1"), "{said}");
        assert!(!said.contains("hunter2"), "{said}");
    }

    async fn what_a_removed_channel_did_not_tell_stands_in_the_audit_log(world: World) {
        let app = &world.app;
        // Nobody listens there.
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let port = listener.local_addr().expect("address").port();
        drop(listener);
        let state = app.notification_create(channel("x", port, "low"), "test").await.expect("x");
        let host = world.host("web1").await;
        let sniff = || model("Network Sniffing", "tcpdump");
        world.store(host, &[sniff(), sniff(), sniff()]).await;
        let id = state.channel.id;
        until("failed", async || {
            app.notification_get(id).await.expect("x").channel.failures > 0
        })
        .await;
        let waiting = app.notification_delete(id, "test").await.expect("delete");
        assert_eq!((waiting.alerts, waiting.detections), (1, 3));
        let rows = app.audit_list(None, (0, i64::MAX), 10, "").await.expect("audit");
        let row = rows.iter().find(|row| row.entry.action == "notification.delete");
        assert!(row.expect("a row").entry.detail.contains("\"detections_not_told\":3"));
        assert!(app.notification_get(id).await.is_err());
    }
}
