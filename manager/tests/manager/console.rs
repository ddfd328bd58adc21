//! The page that the manager serves: its policy, what a browser may keep, and that it stands in the
//! way of no other address; and what the API has for it, on both databases.

use axum::body::Body;
use axum::http::{Request, Response, StatusCode};
use holdfast_manager::api::access::{Need, PAGES};
use holdfast_manager::api::router;
use holdfast_manager::app::{AlertEdit, now_ms};
use holdfast_manager::store::alerts::AlertFilter;
use tower::ServiceExt;

use crate::world::{On, World, malware, model, on_both, run};

async fn ask(world: &World, method: &str, path: &str, headers: &[(&str, &str)]) -> Response<Body> {
    let mut request = Request::builder().method(method).uri(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(Body::empty()).expect("request");
    router(world.app.clone()).oneshot(request).await.expect("answer")
}

async fn text(response: Response<Body>) -> String {
    let bytes = axum::body::to_bytes(response.into_body(), 16 << 20).await.expect("body");
    String::from_utf8(bytes.to_vec()).expect("text")
}

fn header<'a>(response: &'a Response<Body>, name: &str) -> &'a str {
    response.headers().get(name).map_or("", |value| value.to_str().expect("text"))
}

#[test]
fn the_page_is_served_at_every_address_of_its_own_and_no_other() {
    run(On::Sqlite, |world| async move {
        for path in ["/", "/alerts", "/hosts/7?health=red", "/index.html", "/apiary", "/a/../b"] {
            let response = ask(&world, "GET", path, &[]).await;
            assert_eq!(response.status(), StatusCode::OK, "{path}");
            assert!(text(response).await.contains("<div id=\"root\">"), "{path}");
        }
        for path in ["/api", "/api/", "/api/v1/nothing", "/metrics/x", "/assets/gone.js"] {
            let response = ask(&world, "GET", path, &[]).await;
            assert_eq!(response.status(), StatusCode::NOT_FOUND, "{path}");
            assert_eq!(header(&response, "content-type"), "application/problem+json", "{path}");
        }
        for path in ["/", "/alerts", "/api/v1/nothing"] {
            let status = ask(&world, "POST", path, &[]).await.status();
            assert!(status.is_client_error(), "{path}: {status}");
        }
        assert!(PAGES.iter().all(|row| row.method == "GET" && row.need == Need::Nothing));
    });
}

#[test]
fn no_answer_lets_a_script_run_that_is_not_a_file_of_the_console() {
    run(On::Sqlite, |world| async move {
        let mut seen = Vec::new();
        for _ in 0..2 {
            let response = ask(&world, "GET", "/", &[]).await;
            let policy = header(&response, "content-security-policy").to_owned();
            assert!(policy.starts_with("default-src 'none'; script-src 'self'; "), "{policy}");
            assert!(!policy.contains("unsafe") && policy.contains("frame-ancestors 'none'"));
            assert_eq!(header(&response, "cache-control"), "no-store");
            assert_eq!(header(&response, "x-content-type-options"), "nosniff");
            assert_eq!(header(&response, "referrer-policy"), "no-referrer");
            assert_eq!(header(&response, "cross-origin-opener-policy"), "same-origin");
            let (_, number) = policy.split_once("'nonce-").expect("a number");
            let number = number.split('\'').next().expect("a number").to_owned();
            assert!(text(response).await.contains(&number));
            seen.push(number);
        }
        assert!(seen[0].len() == 32 && seen[0] != seen[1], "{seen:?}");
    });
}

#[test]
fn a_browser_keeps_what_never_changes_and_takes_it_packed() {
    run(On::Sqlite, |world| async move {
        let page = text(ask(&world, "GET", "/", &[]).await).await;
        let (_, script) = page.split_once("src=\"").expect("a script");
        let script = script.split('"').next().expect("a script");
        let plain = ask(&world, "GET", script, &[]).await;
        assert_eq!(header(&plain, "content-type"), "text/javascript; charset=utf-8");
        assert_eq!(header(&plain, "cache-control"), "public, max-age=31536000, immutable");
        let etag = header(&plain, "etag").to_owned();
        let packed = ask(&world, "GET", script, &[("accept-encoding", "gzip, br")]).await;
        assert_eq!(header(&packed, "content-encoding"), "br");
        assert_eq!(header(&packed, "vary"), "accept-encoding");
        let length = axum::body::to_bytes(packed.into_body(), 16 << 20).await.expect("body").len();
        assert!(length < text(plain).await.len() / 2, "{length}");
        let known = ask(&world, "GET", script, &[("if-none-match", &etag)]).await;
        assert_eq!(known.status(), StatusCode::NOT_MODIFIED);
        assert!(text(known).await.is_empty());
    });
}

on_both! {
    async fn the_overview_counts_what_is_open_and_what_came_when(world: World) {
        let host = world.host("web1").await;
        world.store(host, &[model("Network Sniffing", "tcpdump")]).await;
        world.store(host, &[malware("/a", &"ab".repeat(32)), malware("/b", &"cd".repeat(32))]).await;
        let all = crate::alerts::alerts(&world.app).await;
        let edit = AlertEdit {
            state: Some("resolved".to_owned()),
            resolution: Some("ignored".to_owned()),
            assignee: None,
        };
        world.app.alert_edit(all[0].id, &edit, "ann").await.expect("resolved");
        let period = (now_ms() - 86_400_000, now_ms() + 1_000);
        let overview = world.app.overview(period).await.expect("overview");
        assert_eq!(overview.open, [("high".to_owned(), 2)]);
        assert_eq!(overview.bars.iter().map(|bar| bar.alerts).sum::<i64>(), 3);
        assert!(overview.bars.iter().all(|bar| bar.from_ms % overview.bar_ms == 0));
        assert_eq!(overview.hosts.new, 1);
        let before = world.app.overview((0, period.0)).await.expect("overview");
        assert!(before.bars.is_empty());
    }

    async fn alerts_and_hosts_are_found_by_what_their_names_hold(world: World) {
        let (web, db) = (world.host("web1").await, world.host("db_1").await);
        world.store(web, &[model("Network Sniffing", "tcpdump")]).await;
        world.store(db, &[malware("/srv/100%", &"ab".repeat(32))]).await;
        let found = async |level: &str, text: &str, state: &str| {
            let filter = AlertFilter {
                level: level.to_owned(),
                text: text.to_owned(),
                state: state.to_owned(),
                until_ms: i64::MAX,
                limit: 10,
                ..AlertFilter::default()
            };
            world.app.alert_list(&filter).await.expect("alerts").len()
        };
        assert_eq!(found("", "", "").await, 2);
        assert_eq!(found("", "SNIFF", "open").await, 1);
        assert_eq!(found("", "web", "").await, 1);
        assert_eq!(found("low", "", "").await, 0);
        // What means something in a pattern is a letter here.
        assert_eq!(found("", "100%", "").await, 1);
        assert_eq!(found("", "%", "").await, 1);
        assert_eq!(found("", "_", "").await, 1);
        assert_eq!(found("", "!", "").await, 0);
        let hosts = async |text: &str| {
            world.app.host_list(None, None, text, 10).await.expect("hosts").len()
        };
        assert_eq!((hosts("").await, hosts("DB_").await, hosts("b%1").await), (2, 1, 0));
    }
}
