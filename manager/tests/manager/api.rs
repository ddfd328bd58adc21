//! The HTTP interface: who may call what, problems, pages, keys, live views.

use std::collections::BTreeSet;

use axum::Router;
use axum::body::Body;
use axum::http::{Request, Response, StatusCode};
use futures_util::StreamExt;
use holdfast_common::task::{Progress, Stage};
use holdfast_manager::api::access::{ENDPOINTS, Need};
use holdfast_manager::api::{document, router};
use holdfast_manager::app::{App, Role, Scope};
use serde_json::{Value, json};
use tower::ServiceExt;
use uuid::Uuid;

use crate::world::{On, exec, model, run};

const PASSWORD: &str = "correct horse battery";

struct Caller {
    router: Router,
    token: Option<String>,
}

impl Caller {
    async fn send(&self, method: &str, path: &str, body: Option<Value>) -> Response<Body> {
        self.send_with(method, path, body, &[]).await
    }

    async fn send_with(
        &self,
        method: &str,
        path: &str,
        body: Option<Value>,
        headers: &[(&str, &str)],
    ) -> Response<Body> {
        let mut request = Request::builder().method(method).uri(path);
        if let Some(token) = &self.token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let body = match body {
            None => Body::empty(),
            Some(body) => {
                request = request.header("content-type", "application/json");
                Body::from(body.to_string())
            }
        };
        let request = request.body(body).expect("request");
        self.router.clone().oneshot(request).await.expect("answer")
    }

    async fn get(&self, path: &str) -> Value {
        let response = self.send("GET", path, None).await;
        assert_eq!(response.status(), StatusCode::OK, "{path}");
        content(response).await
    }
}

async fn content(response: Response<Body>) -> Value {
    let bytes = axum::body::to_bytes(response.into_body(), 16 << 20).await.expect("body");
    serde_json::from_slice(&bytes).unwrap_or(Value::Null)
}

/// A signed-in user whose password is its own.
async fn user(app: &App, role: Role) -> Caller {
    let name = format!("the-{}", role.name());
    app.user_create(&name, role, "first password", "test").await.expect("user");
    let signed_in = app.sign_in(&name, "first password", "test").await.expect("sign in");
    app.password_change(&signed_in.principal, "first password", PASSWORD).await.expect("change");
    Caller { router: router(app.clone()), token: Some(signed_in.secret) }
}

/// For each endpoint a path and a body that it takes, or that it refuses only after the gate.
fn example(method: &str, path: &str) -> Option<(String, Option<Value>)> {
    let id = Uuid::from_u128(7).to_string();
    let body = match (method, path) {
        ("POST", "/api/v1/session") => Some(json!({"name": "x", "password": "y"})),
        ("POST", "/api/v1/session/password") => Some(json!({"old": "x", "new": "y"})),
        ("POST", "/api/v1/session/totp") => Some(json!({"password": "x"})),
        ("POST", "/api/v1/session/totp/confirm") => Some(json!({"code": "123456"})),
        ("POST", "/api/v1/session/totp/remove" | "/api/v1/session/totp/recovery-codes") => {
            Some(json!({"password": "x", "code": "123456"}))
        }
        ("POST", "/api/v1/hosts/{id}/revoke") => Some(json!({"reason": "x"})),
        ("PATCH", "/api/v1/alerts/{id}") => Some(json!({"state": "new"})),
        ("POST", "/api/v1/alerts/{id}/notes") => Some(json!({"text": "x"})),
        ("POST", "/api/v1/tasks") => {
            Some(json!({"host": id, "action": {"action": "release"}, "reason": "x"}))
        }
        // Taken as JSON, refused as a path.
        ("POST", "/api/v1/denials") => Some(json!({"kind": "path", "value": "", "reason": "x"})),
        ("POST", "/api/v1/shells") => Some(json!({"host": id, "reason": "x", "restricted": true})),
        ("POST", "/api/v1/tasks/{id}/cancel") => Some(json!({"reason": "x"})),
        ("POST", "/api/v1/enrollment-tokens") => Some(json!({"group": "x"})),
        ("POST", "/api/v1/users") => Some(json!({"name": "n", "role": "viewer", "password": "p"})),
        ("PATCH", "/api/v1/users/{id}") => Some(json!({})),
        ("POST", "/api/v1/api-tokens") => {
            Some(json!({"name": "n", "scopes": ["read"], "valid_s": 60}))
        }
        // Taken as JSON, refused as a channel: nothing is made, nothing is sent.
        ("POST", "/api/v1/notifications") | ("PUT", "/api/v1/notifications/{id}") => {
            Some(json!({"name": "", "config": {"kind": "syslog", "server": "x", "port": 1}}))
        }
        ("POST", "/api/v1/notifications/{id}/test") => None,
        // Taken as JSON, refused as a policy.
        ("POST", "/api/v1/policies") => Some(json!({"name": ""})),
        ("POST", "/api/v1/policies/check") => Some(json!({"document": ""})),
        ("PATCH", "/api/v1/policies/{id}") => Some(json!({"soak_s": 1})),
        ("PUT", "/api/v1/policies/{id}/groups") => Some(json!({"groups": [], "reason": "x"})),
        ("POST", "/api/v1/policies/{id}/versions") => Some(json!({"document": "", "reason": "x"})),
        ("POST", "/api/v1/policies/{id}/rollout") => {
            Some(json!({"action": "pause", "reason": "x"}))
        }
        ("GET" | "DELETE", _) => None,
        _ => return None,
    };
    Some((path.replace("{id}", &id).replace("{number}", "7").replace("{version}", "1"), body))
}

#[test]
fn every_endpoint_is_in_the_table_and_the_table_has_nothing_else() {
    let document = serde_json::to_value(document()).expect("document");
    assert!(document["openapi"].as_str().expect("version").starts_with("3.1"));
    let mut described = BTreeSet::new();
    for (path, item) in document["paths"].as_object().expect("paths") {
        for method in item.as_object().expect("item").keys() {
            if ["get", "put", "post", "delete", "patch"].contains(&method.as_str()) {
                described.insert((method.to_uppercase(), path.clone()));
            }
        }
    }
    let table: BTreeSet<_> =
        ENDPOINTS.iter().map(|row| (row.method.to_owned(), row.path.to_owned())).collect();
    assert_eq!(described, table);
    assert_eq!(table.len(), ENDPOINTS.len(), "a row stands twice");
}

#[test]
fn every_endpoint_lets_in_whom_it_names_and_nobody_else() {
    run(On::Sqlite, |world| async move {
        let app = &world.app;
        let nobody = Caller { router: router(app.clone()), token: None };
        let forged = Caller { token: Some("hfs_00".to_owned()), ..caller_of(&nobody) };
        let people = [
            (Role::Viewer, user(app, Role::Viewer).await),
            (Role::Operator, user(app, Role::Operator).await),
            (Role::Admin, user(app, Role::Admin).await),
        ];
        for row in ENDPOINTS {
            let (path, body) = example(row.method, row.path)
                .unwrap_or_else(|| panic!("no authorization test: {} {}", row.method, row.path));
            // Ending one's own sign-in would end the test.
            if (row.method, row.path) == ("DELETE", "/api/v1/session") {
                let response = nobody.send(row.method, &path, None).await;
                assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
                continue;
            }
            let open = row.need == Need::Nothing;
            for stranger in [&nobody, &forged] {
                let status = stranger.send(row.method, &path, body.clone()).await.status();
                let refused = status == StatusCode::UNAUTHORIZED;
                let wrong_sign_in = row.path == "/api/v1/session" && row.method == "POST";
                assert!(refused != open || wrong_sign_in, "{} {path}: {status}", row.method);
            }
            for (role, caller) in &people {
                let response = caller.send(row.method, &path, body.clone()).await;
                let status = response.status();
                let may = match row.need {
                    Need::Nothing | Need::SignIn | Need::Person => true,
                    Need::Role(needed, _) => *role >= needed,
                    // Nobody by his role alone.
                    Need::Shell => false,
                };
                let refused = status == StatusCode::FORBIDDEN;
                assert_eq!(refused, !may, "{role:?} {} {path}: {status}", row.method);
                assert!(!status.is_server_error(), "{role:?} {} {path}: {status}", row.method);
            }
        }
    });
}

fn caller_of(other: &Caller) -> Caller {
    Caller { router: other.router.clone(), token: other.token.clone() }
}

#[test]
fn a_token_does_what_its_scopes_say() {
    run(On::Sqlite, |world| async move {
        let app = &world.app;
        let admin = user(app, Role::Admin).await;
        let make = async |scopes: &[Scope]| {
            let names: Vec<_> = scopes.iter().map(|scope| scope.name()).collect();
            let body = json!({"name": "t", "scopes": names, "valid_s": 60});
            let made = admin.send("POST", "/api/v1/api-tokens", Some(body)).await;
            assert_eq!(made.status(), StatusCode::CREATED);
            let token = content(made).await["token"].as_str().expect("token").to_owned();
            Caller { router: admin.router.clone(), token: Some(token) }
        };
        let (read, metrics) = (make(&[Scope::Read]).await, make(&[Scope::Metrics]).await);
        let status = async |caller: &Caller, method: &str, path: &str| {
            let body = (method == "POST").then(|| json!({"group": "x"}));
            caller.send(method, path, body).await.status()
        };
        assert_eq!(status(&read, "GET", "/api/v1/hosts").await, StatusCode::OK);
        assert_eq!(status(&read, "GET", "/api/v1/users").await, StatusCode::FORBIDDEN);
        assert_eq!(status(&read, "POST", "/api/v1/enrollment-tokens").await, 403);
        assert_eq!(status(&read, "GET", "/api/v1/api-tokens").await, StatusCode::FORBIDDEN);
        assert_eq!(status(&read, "GET", "/metrics").await, StatusCode::FORBIDDEN);
        assert_eq!(status(&metrics, "GET", "/metrics").await, StatusCode::OK);
        assert_eq!(status(&metrics, "GET", "/api/v1/hosts").await, StatusCode::FORBIDDEN);
    });
}

#[test]
fn a_password_that_must_be_changed_opens_nothing_but_its_change() {
    run(On::Sqlite, |world| async move {
        let app = &world.app;
        let first = app.first_admin().await.expect("first").expect("admin");
        let nobody = Caller { router: router(app.clone()), token: None };
        assert_eq!(nobody.get("/api/v1/session/beginning").await, json!({ "waiting": true }));
        let body = json!({"name": first.name, "password": first.password});
        let response = nobody.send("POST", "/api/v1/session", Some(body)).await;
        assert_eq!(response.status(), StatusCode::CREATED);
        let cookie = response.headers()["set-cookie"].to_str().expect("cookie").to_owned();
        for part in ["__Host-", "Secure", "HttpOnly", "SameSite=Strict", "Path=/"] {
            assert!(cookie.contains(part), "{cookie}");
        }
        let session = content(response).await;
        assert_eq!(session["must_change_password"], true);
        let token = session["token"].as_str().expect("token").to_owned();
        let caller = Caller { token: Some(token.clone()), ..nobody };
        let refused = caller.send("GET", "/api/v1/hosts", None).await;
        assert_eq!(refused.status(), StatusCode::FORBIDDEN);
        let body = json!({"old": first.password, "new": PASSWORD});
        let changed = caller.send("POST", "/api/v1/session/password", Some(body)).await;
        assert_eq!(changed.status(), StatusCode::NO_CONTENT);
        caller.get("/api/v1/hosts").await;
        assert_eq!(caller.get("/api/v1/session/beginning").await, json!({ "waiting": false }));
        // By cookie, and from another site.
        let cookie = format!("a=b; __Host-holdfast={token}");
        let browser = Caller { router: caller.router.clone(), token: None };
        let looked = browser.send_with("GET", "/api/v1/hosts", None, &[("cookie", &cookie)]).await;
        assert_eq!(looked.status(), StatusCode::OK);
        let evil = [("cookie", cookie.as_str()), ("origin", "https://evil.example")];
        let body = Some(json!({"group": "x"}));
        let forged = browser.send_with("POST", "/api/v1/enrollment-tokens", body, &evil).await;
        assert_eq!(forged.status(), StatusCode::FORBIDDEN);
    });
}

#[test]
fn errors_are_problems_that_name_the_place() {
    run(On::Sqlite, |world| async move {
        let caller = user(&world.app, Role::Admin).await;
        let id = Uuid::from_u128(7);
        for (method, path, body, status, part) in [
            ("GET", "/api/v1/events?query=hots:x", None, 400, "no field is called"),
            ("GET", "/api/v1/events?limit=0", None, 400, "limit"),
            ("GET", "/api/v1/events?limit=x", None, 400, "limit"),
            ("GET", "/api/v1/events?cursor=;", None, 400, "cursor"),
            ("GET", "/api/v1/events?from_ms=5&until_ms=4", None, 400, "from_ms"),
            ("GET", "/api/v1/hosts?health=blue", None, 400, "health"),
            ("GET", "/api/v1/hosts/x", None, 400, "UUID"),
            ("GET", &format!("/api/v1/hosts/{id}"), None, 404, "no such host"),
            ("GET", "/api/v1/nothing", None, 404, "no such address"),
            ("PUT", "/api/v1/hosts", None, 405, "method"),
            ("POST", "/api/v1/users", Some(json!({"nme": "x"})), 422, "nme"),
            (
                "POST",
                "/api/v1/tasks",
                Some(json!({"host": id, "action": {"action": "explode"},
                "reason": "x"})),
                400,
                "explode",
            ),
            (
                "POST",
                "/api/v1/tasks",
                Some(json!({"host": id, "action": {"action": "release"},
                "reason": ""})),
                400,
                "reason",
            ),
            ("POST", "/api/v1/users", Some(json!("x".repeat(2 << 20))), 413, ""),
        ] {
            let response = caller.send(method, path, body).await;
            assert_eq!(response.status().as_u16(), status, "{method} {path}");
            let kind = response.headers()["content-type"].to_str().expect("type").to_owned();
            assert_eq!(kind, "application/problem+json", "{method} {path}");
            let problem = content(response).await;
            assert_eq!(problem["status"], status);
            let detail = problem["detail"].as_str().expect("detail");
            assert!(detail.contains(part), "{method} {path}: {detail}");
        }
        let wrong = caller.send("GET", "/api/v1/events?query=user:a%20hots:x", None).await;
        assert_eq!(content(wrong).await["position"], 7);
    });
}

#[test]
fn from_detection_to_task_to_its_proof_by_http() {
    run(On::Sqlite, |world| async move {
        let caller = user(&world.app, Role::Operator).await;
        let host = world.host("web1").await;
        let sniff = exec(&["tcpdump", "-c", "5"]);
        world.store(host, &[sniff, model("Network Sniffing", "tcpdump")]).await;
        let alerts = caller.get("/api/v1/alerts?state=new").await;
        let alert = alerts["items"][0]["id"].as_str().expect("alert").to_owned();
        let query = "/api/v1/events?query=host:web1%20kind:exec%20cmdline:%22tcpdump%20-c%22";
        let found = caller.get(query).await;
        let number = found["items"][0]["number"].as_str().expect("number");
        let one = caller.get(&format!("/api/v1/events/{number}")).await;
        assert_eq!(one["event"]["process"]["args"][2], "5");
        let body = json!({"host": host, "alert": alert, "reason": "it sniffs",
            "action": {"action": "collect", "path": "/usr/bin/tcpdump",
                "password": "infected", "limit": 1_000_000}});
        let key = [("idempotency-key", "one")];
        let filed = caller.send_with("POST", "/api/v1/tasks", Some(body.clone()), &key).await;
        assert_eq!(filed.status(), StatusCode::CREATED);
        let task = content(filed).await;
        assert_eq!(task["action"]["password"], "", "nobody is shown the password");
        let again = caller.send_with("POST", "/api/v1/tasks", Some(body), &key).await;
        assert_eq!(again.status(), StatusCode::OK);
        assert_eq!(content(again).await["id"], task["id"]);
        let id: Uuid = task["id"].as_str().expect("id").parse().expect("id");
        let content_bytes = bytes::Bytes::from_static(b"PK zip");
        let hash = <[u8; 32]>::from(<sha2::Sha256 as sha2::Digest>::digest(&content_bytes));
        world.app.task_chunk(host, id, 0, content_bytes, Some(hash)).await.expect("chunk");
        let observed = "delivered".to_owned();
        let done = Progress { stage: Stage::Verified, time_ms: 1, observed, result: Value::Null };
        world.app.task_progress(host, id, done).await.expect("progress");
        let detail = caller.get(&format!("/api/v1/alerts/{alert}")).await;
        assert_eq!(detail["tasks"][0]["stage"], "verified");
        let file = caller.send("GET", &format!("/api/v1/tasks/{id}/file"), None).await;
        assert_eq!(file.headers()["content-length"], "6");
        let bytes = axum::body::to_bytes(file.into_body(), 100).await.expect("file");
        assert_eq!(&bytes[..], b"PK zip");
    });
}

#[test]
fn a_live_view_hears_of_an_alert_and_ends_with_the_manager() {
    run(On::Sqlite, |world| async move {
        let caller = user(&world.app, Role::Viewer).await;
        let host = world.host("web1").await;
        let response = caller.send("GET", "/api/v1/live", None).await;
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        let mut parts = response.into_body().into_data_stream();
        let mut text = String::new();
        world.store(host, &[model("Network Sniffing", "tcpdump")]).await;
        while !text.contains("event: alert") {
            let wait = std::time::Duration::from_secs(10);
            let part = tokio::time::timeout(wait, parts.next()).await.expect("never heard");
            text.push_str(&String::from_utf8_lossy(&part.expect("open").expect("part")));
        }
        world.app.end();
        let rest = tokio::time::timeout(std::time::Duration::from_secs(10), async {
            while parts.next().await.is_some() {}
        });
        rest.await.expect("never ended");
    });
}

#[test]
fn metrics_and_probes_answer() {
    run(On::Sqlite, |world| async move {
        let caller = user(&world.app, Role::Viewer).await;
        let host = world.host("web1").await;
        world.store(host, &[exec(&["ls"])]).await;
        let response = caller.send("GET", "/metrics", None).await;
        let bytes = axum::body::to_bytes(response.into_body(), 1 << 20).await.expect("body");
        let text = String::from_utf8_lossy(&bytes).into_owned();
        for line in ["holdfast_hosts_new 1", "holdfast_events_stored_total 1"] {
            assert!(text.contains(line), "{text}");
        }
        assert_eq!(caller.send("GET", "/healthz", None).await.status(), StatusCode::OK);
        assert_eq!(caller.send("GET", "/readyz", None).await.status(), StatusCode::OK);
        world.app.stop().await;
        let ready = caller.send("GET", "/readyz", None).await.status();
        assert_eq!(ready, StatusCode::SERVICE_UNAVAILABLE);
    });
}
