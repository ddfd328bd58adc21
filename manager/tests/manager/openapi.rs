//! The served OpenAPI document held against what the interface does, operation by operation, with
//! valid and hostile values: no server error, no status that is not named, problems as problems,
//! answers as their schemas say.
//!
//! The values are the same in every run; what fails names its request.

use axum::body::Body;
use axum::http::{Request, Response};
use holdfast_manager::api::router;
use holdfast_manager::app::{App, Role};
use serde_json::{Value, json};
use tower::ServiceExt;

use crate::world::{On, World, exec, model, run};

/// Requests of each operation.
const CASES: usize = 80;

/// Texts that have broken something somewhere.
const TEXTS: [&str; 22] = [
    "",
    " ",
    "0",
    "-1",
    "9223372036854775807",
    "9223372036854775808",
    "1e400",
    "NaN",
    "null",
    "true",
    "\0",
    "a\u{1b}[2J\u{202e}",
    "../../etc/passwd",
    "%00%ff",
    "' OR 1=1 --",
    "{\"a\":1}",
    "c0",
    "c-1",
    "c9223372036854775807",
    "kind:exec OR -(host:a \"b",
    "admin",
    "\u{10ffff}\u{fffd}é",
];

/// The same numbers in every run.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % bound as u64).expect("small")
    }

    fn text(&mut self) -> String {
        match self.below(TEXTS.len() + 2) {
            0 => "x".repeat(3000),
            1 => "-(".repeat(500),
            n => TEXTS[n - 2].to_owned(),
        }
    }

    fn one<'a>(&mut self, of: &'a [String]) -> &'a str {
        &of[self.below(of.len())]
    }

    /// Any JSON at all.
    fn json(&mut self) -> Value {
        match self.below(12) {
            0 => Value::Null,
            1 => json!(true),
            2 => json!(-1),
            3 => json!(0),
            4 => json!(i64::MAX),
            5 => json!(u64::MAX),
            6 => json!(1e308),
            7 => json!([]),
            8 => json!({}),
            9 => (0..100).fold(json!(1), |inner, _| json!([inner])),
            _ => json!(self.text()),
        }
    }
}

/// What a fuzzed manager holds, so that some of what is asked for is there.
struct Stage {
    app: App,
    token: String,
    document: Value,
    /// Of a host, an alert, a task, a user, and one of nothing.
    ids: Vec<String>,
    /// Of events.
    numbers: Vec<String>,
}

impl Stage {
    async fn new(world: &World) -> Self {
        let app = world.app.clone();
        let host = world.connected("web1").await.host;
        world.store(host, &[exec(&["tcpdump", "-c"]), model("Sniffing", "tcpdump")]).await;
        let mut ids = vec![host.to_string(), uuid::Uuid::from_u128(7).to_string()];
        for name in ["fuzz-target", "fuzz-admin"] {
            let made = app.user_create(name, Role::Admin, "first password", "test").await;
            // Never the one who asks: it could take its own rights away.
            if name == "fuzz-target" {
                ids.push(made.expect("user").id.to_string());
            }
        }
        let signed_in = app.sign_in("fuzz-admin", "first password", "test").await.expect("sign in");
        let changed =
            app.password_change(&signed_in.principal, "first password", "second password");
        changed.await.expect("change");
        let token = signed_in.secret;
        let mut stage = Self { app, token, document: Value::Null, ids, numbers: Vec::new() };
        stage.document = stage.get("/api/v1/openapi.json").await;
        let body = json!({ "host": host, "action": { "action": "release" }, "reason": "x" });
        let request = stage.request("POST", "/api/v1/tasks", "application/json", body.to_string());
        let task = content(router(stage.app.clone()).oneshot(request).await.expect("answer")).await;
        stage.ids.push(task["id"].as_str().expect("task").to_owned());
        let alerts = stage.get("/api/v1/alerts").await;
        stage.ids.push(alerts["items"][0]["id"].as_str().expect("alert").to_owned());
        let events = stage.get("/api/v1/events").await;
        stage.numbers.push(events["items"][0]["number"].as_str().expect("event").to_owned());
        stage
    }

    fn request(&self, method: &str, path: &str, kind: &str, body: String) -> Request<Body> {
        let request = Request::builder().method(method).uri(path);
        let request = request.header("authorization", format!("Bearer {}", self.token));
        let request = if body.is_empty() { request } else { request.header("content-type", kind) };
        request.body(Body::from(body)).expect("request")
    }

    async fn get(&self, path: &str) -> Value {
        let request = self.request("GET", path, "", String::new());
        content(router(self.app.clone()).oneshot(request).await.expect("answer")).await
    }

    fn resolve<'a>(&'a self, schema: &'a Value) -> &'a Value {
        match schema["$ref"].as_str() {
            Some(to) => {
                self.document.pointer(&to[1..]).unwrap_or_else(|| panic!("{to} is nowhere"))
            }
            None => schema,
        }
    }

    /// A value that a schema might allow.
    fn value(&self, schema: &Value, dice: &mut Dice) -> Value {
        let schema = self.resolve(schema);
        if dice.below(6) == 0 {
            return dice.json();
        }
        let kind = schema["type"].as_str().or(schema["type"][0].as_str()).unwrap_or_default();
        match kind {
            "object" if schema["properties"].is_object() => {
                let mut map = serde_json::Map::new();
                for (name, schema) in schema["properties"].as_object().expect("checked") {
                    if dice.below(6) > 0 {
                        map.insert(name.clone(), self.value(schema, dice));
                    }
                }
                if dice.below(10) == 0 {
                    map.insert(dice.text(), dice.json());
                }
                Value::Object(map)
            }
            "object" => [
                json!({ "action": "release" }),
                json!({ "action": "isolate", "duration_s": dice.json() }),
                json!({ "action": "collect", "path": dice.text(), "password": "infected", "limit": 9 }),
                json!({ "action": dice.text() }),
            ][dice.below(4)]
            .clone(),
            "array" => {
                let length = dice.below(4);
                (0..length).map(|_| self.value(&schema["items"], dice)).collect()
            }
            "integer" | "number" => json!([0, 1, 60, 3600, i64::MAX][dice.below(5)]),
            "boolean" => json!(dice.below(2) == 0),
            _ if schema["format"] == "uuid" => json!(dice.one(&self.ids)),
            _ => {
                let known = ["viewer", "operator", "resolved", "ignored", "read", "a fine password"];
                let picked = dice.below(known.len() + 2);
                known.get(picked).map_or_else(|| json!(dice.text()), |known| json!(known))
            }
        }
    }

    /// One request of an operation.
    fn case(&self, path: &str, operation: &Value, dice: &mut Dice) -> (String, String, String) {
        let (mut path, mut query) = (path.to_owned(), String::new());
        for parameter in operation["parameters"].as_array().into_iter().flatten() {
            let name = parameter["name"].as_str().expect("a name");
            let text = match (name, dice.below(3)) {
                ("id" | "host" | "alert", 1 | 2) => dice.one(&self.ids).to_owned(),
                ("number", 1 | 2) => dice.one(&self.numbers).to_owned(),
                ("limit", 1) => "500".to_owned(),
                ("query", 1) => "host:web1 cmdline:\"tcpdump -c\"".to_owned(),
                _ => dice.text(),
            };
            match parameter["in"].as_str() {
                Some("path") => path = path.replace(&format!("{{{name}}}"), &encoded(&text)),
                Some("query") if dice.below(2) == 0 => {
                    query.push(if query.is_empty() { '?' } else { '&' });
                    query.push_str(&format!("{name}={}", encoded(&text)));
                }
                _ => {}
            }
        }
        let schema = &operation["requestBody"]["content"]["application/json"]["schema"];
        if schema.is_null() {
            return (path + &query, String::new(), String::new());
        }
        let body = match dice.below(20) {
            0 => "{".to_owned(),
            1 => dice.json().to_string(),
            2 => format!("\"{}\"", "x".repeat(1_100_000)),
            _ => self.value(schema, dice).to_string(),
        };
        let kind = if dice.below(20) == 0 { "text/plain" } else { "application/json" };
        (path + &query, kind.to_owned(), body)
    }

    /// Why a value is not what its schema says.
    fn fault(&self, schema: &Value, value: &Value, at: &str) -> Option<String> {
        let schema = self.resolve(schema);
        for (name, all) in [("oneOf", false), ("anyOf", false), ("allOf", true)] {
            if let Some(list) = schema[name].as_array() {
                let faults: Vec<_> =
                    list.iter().map(|schema| self.fault(schema, value, at)).collect();
                let fits = |fault: &Option<String>| fault.is_none();
                let fine = if all { faults.iter().all(fits) } else { faults.iter().any(fits) };
                if !fine {
                    return Some(format!("{at}: {name}: {faults:?}"));
                }
            }
        }
        let kinds = match &schema["type"] {
            Value::Array(list) => list.clone(),
            Value::Null => Vec::new(),
            one => vec![one.clone()],
        };
        if !kinds.is_empty() && !kinds.iter().any(|kind| is(value, kind.as_str())) {
            return Some(format!("{at}: {value:.80} is none of {kinds:?}"));
        }
        if let Some(known) = schema["enum"].as_array().filter(|known| !known.contains(value)) {
            return Some(format!("{at}: {value} is none of {known:?}"));
        }
        if let Some(map) = value.as_object() {
            let mut needed = schema["required"].as_array().into_iter().flatten();
            if let Some(missing) =
                needed.find(|name| !map.contains_key(name.as_str().expect("text")))
            {
                return Some(format!("{at}: no {missing}"));
            }
            let properties = schema["properties"].as_object().into_iter().flatten();
            for (name, schema) in properties {
                let value = map.get(name);
                let fault =
                    value.and_then(|value| self.fault(schema, value, &format!("{at}.{name}")));
                if fault.is_some() {
                    return fault;
                }
            }
        }
        let items = value.as_array().filter(|_| schema["items"].is_object());
        let mut items = items.into_iter().flatten();
        items.find_map(|item| self.fault(&schema["items"], item, &format!("{at}[]")))
    }

    /// Holds one answer against the document.
    async fn check(&self, operation: &Value, shown: &str, response: Response<Body>) {
        let status = response.status();
        let code = status.as_u16().to_string();
        assert!(!status.is_server_error(), "{shown}: {status}");
        let named = &operation["responses"][&code];
        assert!(named.is_object(), "{shown}: {status} is not in the document");
        let kind = response.headers().get("content-type").map(|kind| kind.to_str().expect("text"));
        let kind = kind.unwrap_or_default().to_owned();
        if kind.starts_with("text/event-stream") {
            return;
        }
        let bytes = axum::body::to_bytes(response.into_body(), 16 << 20).await.expect("body");
        if status.is_client_error() {
            assert_eq!(kind, "application/problem+json", "{shown}: {status}");
            let problem: Value = serde_json::from_slice(&bytes).expect("a problem");
            assert_eq!(problem["status"], status.as_u16(), "{shown}");
            assert!(problem["detail"].as_str().is_some_and(|text| !text.is_empty()), "{shown}");
        }
        let plain = kind.split(';').next().unwrap_or_default();
        let typed = named["content"].as_object().is_none_or(|all| all.contains_key(plain));
        assert!(typed || bytes.is_empty(), "{shown}: {status}: {kind} is not in the document");
        for (kind, content) in named["content"].as_object().into_iter().flatten() {
            if kind.ends_with("json") {
                let value: Value = serde_json::from_slice(&bytes).expect(shown);
                let fault = self.fault(&content["schema"], &value, "answer");
                assert!(fault.is_none(), "{shown}: {status}: {}", fault.unwrap_or_default());
            }
        }
        let empty = named["content"].as_object().is_none_or(|content| content.is_empty());
        let unnamed = shown.contains("openapi.json");
        assert!(!empty || bytes.is_empty() || unnamed, "{shown}: {status} has a body");
    }
}

fn is(value: &Value, kind: Option<&str>) -> bool {
    match kind {
        Some("object") => value.is_object(),
        Some("array") => value.is_array(),
        Some("string") => value.is_string(),
        Some("boolean") => value.is_boolean(),
        Some("integer") => value.is_i64() || value.is_u64(),
        Some("number") => value.is_number(),
        Some("null") => value.is_null(),
        _ => false,
    }
}

async fn content(response: Response<Body>) -> Value {
    let bytes = axum::body::to_bytes(response.into_body(), 16 << 20).await.expect("body");
    serde_json::from_slice(&bytes).unwrap_or(Value::Null)
}

fn encoded(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    let one =
        |byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") };
    text.bytes().map(one).collect()
}

#[test]
fn no_value_makes_an_operation_answer_what_the_document_does_not_say() {
    run(On::Sqlite, |world| async move {
        let stage = Stage::new(&world).await;
        let paths = stage.document["paths"].as_object().expect("paths");
        let mut dice = Dice(0x5eed_0f00_d15c_0b01);
        let (mut asked, mut done) = (0, 0);
        for (path, item) in paths {
            for method in ["get", "post", "patch", "delete"] {
                let operation = &item[method];
                // It would end the sign-in that everything here is asked with.
                if operation.is_null() || (method, path.as_str()) == ("delete", "/api/v1/session") {
                    continue;
                }
                // Of its own, so that no limit of frequency is met.
                let router = router(stage.app.clone());
                for _ in 0..CASES {
                    let (uri, kind, body) = stage.case(path, operation, &mut dice);
                    let shown = format!("{method} {uri} {kind} {body:.300}");
                    let request = stage.request(&method.to_uppercase(), &uri, &kind, body);
                    let response = router.clone().oneshot(request).await.expect("answer");
                    done += usize::from(response.status().is_success());
                    asked += 1;
                    stage.check(operation, &shown, response).await;
                }
            }
        }
        eprintln!("{asked} requests, {done} of them carried out");
        assert!(asked > 30 * CASES && done > asked / 10, "{asked} requests, {done} carried out");
    });
}

#[test]
fn the_consoles_types_are_made_from_this_document() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/console/src/api/openapi.json");
    let kept: Value =
        serde_json::from_str(&std::fs::read_to_string(path).expect(path)).expect("json");
    let served = serde_json::to_value(holdfast_manager::api::document()).expect("json");
    assert!(kept == served, "holdfast-manager openapi > {path}; cargo xtask console");
}
