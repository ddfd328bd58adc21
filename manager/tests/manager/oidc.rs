//! Signing in by another party's word: a real OpenID Connect provider, whose pages a small browser
//! walks through.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;

use axum::body::Body;
use axum::http::{Request, Response, StatusCode, header};
use holdfast_manager::api::router;
use holdfast_manager::app::{App, Role, RoleRule, Scope, Settings, UserEdit};
use holdfast_manager::oidc::Provider;
use holdfast_manager::reach::address::Allowed;
use holdfast_manager::reach::http::Target;
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use serde_json::{Value, json};
use tower::ServiceExt;

use crate::world::{World, on_both};

const BEGIN: &str = "/api/v1/session/oidc/corp";
const CALLBACK: &str = "https://manager.test/api/v1/session/oidc/corp/callback";
const SECRET: &str = "a secret of the tests alone";

/// The provider's process.
struct Corp {
    process: Child,
    address: String,
}

impl Drop for Corp {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The provider and what it needs, in a folder of the build's.
fn installed() -> &'static PathBuf {
    static INSTALLED: OnceLock<PathBuf> = OnceLock::new();
    INSTALLED.get_or_init(|| {
        let sources = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/manager/oidc_provider");
        let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("oidc-provider");
        let read = |folder: &PathBuf| std::fs::read(folder.join("package-lock.json")).ok();
        let fresh = folder.join("node_modules/.package-lock.json").exists()
            && read(&folder) == read(&sources);
        std::fs::create_dir_all(&folder).expect("folder");
        if !fresh {
            for name in ["package.json", "package-lock.json"] {
                std::fs::copy(sources.join(name), folder.join(name)).expect("copy");
            }
            let done = Command::new("npm")
                .args(["ci", "--ignore-scripts", "--no-audit", "--no-fund"])
                .current_dir(&folder)
                .output()
                .expect("npm (cargo xtask setup installs it)");
            assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        }
        std::fs::copy(sources.join("provider.mjs"), folder.join("provider.mjs")).expect("copy");
        folder
    })
}

impl Corp {
    fn start() -> Self {
        let mut process = Command::new("node")
            .args(["provider.mjs", "holdfast", SECRET, CALLBACK])
            .current_dir(installed())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("node");
        let mut address = String::new();
        let stdout = process.stdout.take().expect("a pipe");
        let mut stdout = BufReader::new(stdout);
        stdout.read_line(&mut address).expect("its address");
        // It says more, and would end if nobody listened.
        std::thread::spawn(move || std::io::copy(&mut stdout, &mut std::io::sink()));
        Self { process, address: address.trim().to_owned() }
    }

    fn provider(&self, name: &str) -> Provider {
        Provider {
            name: name.to_owned(),
            issuer: self.address.clone(),
            client_id: "holdfast".to_owned(),
            client_secret: SECRET.to_owned().into(),
            callback: CALLBACK.to_owned(),
            scopes: ["profile", "groups"].map(str::to_owned).to_vec(),
            name_claim: "preferred_username".to_owned(),
            role_claim: "groups".to_owned(),
            authority: None,
            allowed: Allowed { loopback: true, addresses: Vec::new() },
        }
    }

    async fn set(&self, who: &str, claims: Value) {
        let url = format!("{}/people/{who}", self.address);
        let answer = call("PUT", &url, &BTreeMap::new(), claims.to_string()).await;
        assert_eq!(answer.status(), StatusCode::OK);
    }
}

fn rule() -> RoleRule {
    let text = |values: &[&str]| values.iter().map(|one| (*one).to_owned()).collect();
    RoleRule(vec![(Role::Admin, text(&["sec-admins"])), (Role::Viewer, text(&["soc"]))])
}

/// A manager beside the test's own, on the same database, that takes the provider's word.
async fn manager(world: &World, providers: Vec<Provider>) -> App {
    let providers = providers.into_iter().map(|provider| (provider, rule())).collect();
    let settings = Settings { providers, ..world.settings.clone() };
    App::start(settings).await.expect("start")
}

type Cookies = BTreeMap<String, String>;

async fn call(method: &str, url: &str, cookies: &Cookies, form: String) -> Response<Vec<u8>> {
    let kept: Vec<String> = cookies.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let request = Request::builder()
        .method(method)
        .header(header::COOKIE, kept.join("; "))
        .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
        .body(Full::new(Bytes::from(form)))
        .expect("request");
    let allowed = Allowed { loopback: true, addresses: Vec::new() };
    let target = Target::of(url).expect("address");
    target.call(request, None, &allowed, 1 << 20).await.expect("answer")
}

fn take_cookies<T>(answer: &Response<T>, cookies: &mut Cookies) {
    for set in answer.headers().get_all(header::SET_COOKIE) {
        let pair = set.to_str().expect("text").split(';').next().expect("pair");
        let (name, value) = pair.split_once('=').expect("pair");
        cookies.insert(name.to_owned(), value.to_owned());
    }
}

fn location<T>(answer: &Response<T>) -> String {
    assert_eq!(answer.status(), StatusCode::SEE_OTHER);
    answer.headers()[header::LOCATION].to_str().expect("text").to_owned()
}

/// A browser: cookies of the manager's, and of the provider's.
#[derive(Default, Clone)]
struct Browser {
    manager: Cookies,
    provider: Cookies,
}

impl Browser {
    /// A page of the manager's.
    async fn get(&mut self, app: &App, path: &str) -> Response<Body> {
        let kept: Vec<_> =
            self.manager.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let request = Request::get(path)
            .header(header::HOST, "manager.test")
            .header(header::COOKIE, kept.join("; "))
            .body(Body::empty())
            .expect("request");
        let answer = router(app.clone()).oneshot(request).await.expect("answer");
        take_cookies(&answer, &mut self.manager);
        answer
    }

    /// From the manager through the provider's pages; where that leads back to.
    async fn walk(&mut self, app: &App, corp: &Corp, who: &str) -> String {
        let begun = self.get(app, BEGIN).await;
        let mut place = location(&begun);
        assert!(place.starts_with(&corp.address), "{place}");
        for _ in 0..10 {
            if let Some(path) = place.strip_prefix("https://manager.test") {
                return path.to_owned();
            }
            let url = if place.starts_with('/') {
                format!("{}{place}", corp.address)
            } else {
                place.clone()
            };
            let page = call("GET", &url, &self.provider, String::new()).await;
            take_cookies(&page, &mut self.provider);
            let answer = if page.status() == StatusCode::OK {
                let text = String::from_utf8_lossy(page.body()).into_owned();
                let asks = if text.contains("value=\"login\"") { "login" } else { "consent" };
                let form = format!("prompt={asks}&login={who}&password=any");
                call("POST", &url, &self.provider, form).await
            } else {
                page
            };
            take_cookies(&answer, &mut self.provider);
            place = location(&answer);
        }
        panic!("the provider leads in circles: {place}");
    }

    /// Signs in; where the manager leads to in the end.
    async fn sign_in(&mut self, app: &App, corp: &Corp, who: &str) -> String {
        let back = self.walk(app, corp, who).await;
        location(&self.get(app, &back).await)
    }

    async fn session(&mut self, app: &App) -> Option<Value> {
        let answer = self.get(app, "/api/v1/session").await;
        let is_in = answer.status() == StatusCode::OK;
        let body = answer.into_body().collect().await.expect("body").to_bytes();
        is_in.then(|| serde_json::from_slice(&body).expect("JSON"))
    }
}

async fn in_audit(app: &App, part: &str) -> bool {
    let rows = app.audit_list(None, (0, i64::MAX), 200, "").await.expect("audit");
    format!("{rows:?}").contains(part)
}

on_both! {
    async fn groups_give_a_role_that_follows_them_and_ends_with_them(world: World) {
        let corp = Corp::start();
        let app = manager(&world, vec![corp.provider("corp")]).await;
        world.app.user_create("root", Role::Admin, "first password", "test").await.expect("user");
        corp.set("ann", json!({ "groups": ["staff", "sec-admins"] })).await;
        let mut ann = Browser::default();
        assert_eq!(ann.sign_in(&app, &corp, "ann").await, "/");
        let session = ann.session(&app).await.expect("signed in");
        assert_eq!((&session["name"], &session["role"]), (&json!("ann"), &json!("admin")));
        assert_eq!(session["must_change_password"], false);
        assert!(in_audit(&app, "OpenID Connect: corp").await);
        // Another browser, the same person: one user.
        let mut other = Browser::default();
        assert_eq!(other.sign_in(&app, &corp, "ann").await, "/");
        let users = app.user_list().await.expect("users");
        assert_eq!(users.iter().filter(|user| user.name == "ann").count(), 1);
        // A lower role ends what was begun with the higher.
        corp.set("ann", json!({ "groups": ["soc"] })).await;
        assert_eq!(Browser::default().sign_in(&app, &corp, "ann").await, "/");
        assert!(ann.session(&app).await.is_none() && other.session(&app).await.is_none());
        let mut third = Browser::default();
        assert_eq!(third.sign_in(&app, &corp, "ann").await, "/");
        assert_eq!(third.session(&app).await.expect("in")["role"], "viewer");
        // Tokens too end with the last role.
        let who = third.manager["__Host-holdfast"].clone();
        let who = app.principal(&who).await.expect("look up").expect("ann");
        let (_, token) = app.api_token_create(&who, "x", &[Scope::Read], 60).await.expect("token");
        corp.set("ann", json!({ "groups": ["staff"] })).await;
        let refused = Browser::default().sign_in(&app, &corp, "ann").await;
        assert_eq!(refused, "/sign-in?refused=no_role");
        assert!(third.session(&app).await.is_none());
        assert!(app.principal(&token).await.expect("look up").is_none());
        assert!(in_audit(&app, "no_role").await);
        // No password opens the user, however it was made.
        assert!(app.sign_in("ann", "", "test").await.is_err());
        app.stop().await;
    }

    async fn a_name_makes_nobody_a_user_of_the_managers_own(world: World) {
        let corp = Corp::start();
        let app = manager(&world, vec![corp.provider("corp")]).await;
        world.app.user_create("root", Role::Admin, "first password", "test").await.expect("user");
        for (claims, word) in [
            (json!({ "preferred_username": "root", "groups": ["soc"] }), "taken"),
            (json!({ "preferred_username": "a b<script>", "groups": ["soc"] }), "name"),
            (json!({ "preferred_username": "", "groups": ["soc"] }), "name"),
            (json!({ "preferred_username": "eve", "groups": [] }), "no_role"),
            (json!({ "preferred_username": "eve", "groups": "SOC" }), "no_role"),
        ] {
            corp.set("eve", claims).await;
            let refused = Browser::default().sign_in(&app, &corp, "eve").await;
            assert_eq!(refused, format!("/sign-in?refused={word}"));
        }
        assert_eq!(app.user_list().await.expect("users").len(), 1);
        // Somebody whom an admin shut out stays out, whatever the groups say.
        corp.set("eve", json!({ "preferred_username": "eve", "groups": "soc" })).await;
        let mut eve = Browser::default();
        assert_eq!(eve.sign_in(&app, &corp, "eve").await, "/");
        let users = app.user_list().await.expect("users");
        let user = users.iter().find(|user| user.name == "eve").expect("eve");
        let edit = UserEdit { disabled: Some(true), ..UserEdit::default() };
        app.user_edit(user.id, edit, "test").await.expect("disable");
        assert_eq!(eve.sign_in(&app, &corp, "eve").await, "/sign-in?refused=disabled");
        app.stop().await;
    }

    async fn a_sign_in_ends_in_the_browser_that_began_it_and_once(world: World) {
        let corp = Corp::start();
        let elsewhere = Provider { issuer: corp.address.replace("127.0.0.1", "localhost"),
            ..corp.provider("elsewhere") };
        let app = manager(&world, vec![corp.provider("corp"), elsewhere]).await;
        for who in ["ann", "eve"] {
            corp.set(who, json!({ "groups": ["soc"] })).await;
        }
        const NONE: &str = "/sign-in?refused=no_attempt";
        let (mut ann, mut eve) = (Browser::default(), Browser::default());
        let eves = eve.walk(&app, &corp, "eve").await;
        // Eve's code in Ann's browser: without a cookie, with that of Ann's own attempt, and with
        // Ann's state in place of Eve's.
        assert_eq!(location(&ann.get(&app, &eves).await), NONE);
        let anns = ann.walk(&app, &corp, "ann").await;
        assert_eq!(location(&ann.clone().get(&app, &eves).await), NONE);
        let value = |path: &str, key: &str| {
            let query = path.split_once('?').expect("query").1.to_owned();
            let found = query.split('&').find_map(|pair| pair.strip_prefix(&format!("{key}=")));
            found.expect("value").to_owned()
        };
        let mixed = format!("{BEGIN}/callback?code={}&state={}", value(&eves, "code"),
            value(&anns, "state"));
        assert_eq!(location(&ann.clone().get(&app, &mixed).await), "/sign-in?refused=provider");
        // A cookie that was changed, and one of another provider's attempt.
        let mut changed = ann.clone();
        let kept = changed.manager.get_mut("__Host-holdfast-oidc").expect("cookie");
        kept.replace_range(20..21, if kept.as_bytes()[20] == b'A' { "B" } else { "A" });
        assert_eq!(location(&changed.get(&app, &anns).await), NONE);
        let other = anns.replace("/corp/", "/elsewhere/");
        assert_eq!(location(&ann.clone().get(&app, &other).await), NONE);
        // The right one, and the same address again with the cookie that it had.
        let before = ann.clone();
        assert_eq!(location(&ann.get(&app, &anns).await), "/");
        assert!(ann.session(&app).await.is_some());
        assert_eq!(location(&before.clone().get(&app, &anns).await), "/sign-in?refused=provider");
        // A refusal of the provider's is one word, whatever it says.
        let said = format!("{BEGIN}/callback?error=%3Cscript%3E&state={}", value(&anns, "state"));
        assert_eq!(location(&before.clone().get(&app, &said).await), "/sign-in?refused=refused");
        let nobody = Browser::default().get(&app, "/api/v1/session/oidc/nobody").await;
        assert_eq!(location(&nobody), "/sign-in?refused=no_provider");
        // Its own description says that it is another issuer.
        let lies = Browser::default().get(&app, "/api/v1/session/oidc/elsewhere").await;
        assert_eq!(location(&lies), "/sign-in?refused=provider");
        let list = Browser::default().get(&app, "/api/v1/session/providers").await;
        let body = list.into_body().collect().await.expect("body").to_bytes();
        assert_eq!(&body[..], br#"[{"name":"corp"},{"name":"elsewhere"}]"#);
        app.stop().await;
    }
}
