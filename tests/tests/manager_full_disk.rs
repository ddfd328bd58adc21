//! A manager whose disk is full: it says so, keeps what it acknowledged, and goes on when there is
//! room again. On a small file system of the test's own.

use std::collections::{BTreeMap, HashSet};
use std::fs;

use bytes::Bytes;
use holdfast_common::link::HostFacts;
use holdfast_manager::app::{App, Keep, NewToken, Retention, Settings};
use holdfast_manager::query::Expr;
use holdfast_manager::reach::address::Allowed;
use holdfast_manager::store::Place;
use holdfast_tests::require_root;
use holdfast_tests::scratch::Scratch;
use serde_json::json;
use uuid::Uuid;

/// The file system, and what is taken away in the end.
const DISK: u64 = 24 << 20;
const BALLAST: usize = 6 << 20;
/// Events of one call, and calls that would fill the disk many times over.
const TOGETHER: usize = 200;
const CALLS: usize = 1000;

#[test]
fn a_full_disk_refuses_events_and_loses_none_that_was_acknowledged() {
    require_root();
    let runtime = tokio::runtime::Runtime::new().expect("runtime");
    runtime.block_on(fill_and_go_on());
}

async fn fill_and_go_on() {
    let scratch = Scratch::tmpfs(DISK).expect("a file system");
    let data_dir = scratch.join("data");
    let keep = Keep { days: 30, bytes: 0 };
    let settings = Settings {
        place: Place::File(data_dir.join("manager.db")),
        data_dir,
        retention: Retention { default: keep, kinds: BTreeMap::new(), file_days: 30 },
        max_files: 1 << 20,
        notify: Allowed::default(),
        providers: Vec::new(),
    };
    let app = App::start(settings).await.expect("start");
    let new = NewToken { group: "test".to_owned(), note: String::new(), uses: 1, valid_s: 60 };
    let (_, token) = app.token_create(new, "test").await.expect("token");
    let facts = HostFacts { host: "web1".to_owned(), ..HostFacts::default() };
    let host = app.host_enroll(&token, &facts).await.expect("host");
    fs::write(scratch.join("ballast"), vec![1; BALLAST]).expect("ballast");

    let mut acknowledged = HashSet::new();
    let refused = loop {
        assert!(acknowledged.len() < TOGETHER * CALLS, "the disk was never full");
        let (ids, events) = batch();
        match app.events_store(host, events.clone()).await {
            Ok(()) => acknowledged.extend(ids),
            Err(error) => break (ids, events, error.to_string()),
        }
    };
    let (ids, events, said) = refused;
    assert!(said.contains("full"), "{said}");
    assert!(acknowledged.len() >= TOGETHER, "something found its place");
    assert_eq!(stored(&app).await, acknowledged, "what was acknowledged, and nothing else");
    app.events_store(host, events.clone()).await.expect_err("still full");
    // Reading goes on, and the host's next try is taken when there is room.
    fs::remove_file(scratch.join("ballast")).expect("remove");
    app.events_store(host, events).await.expect("room again");
    acknowledged.extend(ids);
    assert_eq!(stored(&app).await, acknowledged);
    app.stop().await;
}

/// Events that no host sends twice.
fn batch() -> (Vec<Uuid>, Vec<Bytes>) {
    let ids: Vec<Uuid> = (0..TOGETHER).map(|_| Uuid::now_v7()).collect();
    let time_ms = holdfast_manager::app::now_ms();
    let event = |id: &Uuid| {
        let event = json!({ "id": id, "time_ms": time_ms, "host": "web1", "kind": "loss",
                            "queue": "x".repeat(400), "count": 1 });
        Bytes::from(event.to_string())
    };
    let events = ids.iter().map(event).collect();
    (ids, events)
}

async fn stored(app: &App) -> HashSet<Uuid> {
    let (mut found, mut before) = (HashSet::new(), None);
    loop {
        let everything = Expr::And(Vec::new());
        let page = app.event_search(everything, (0, i64::MAX), before, 500).await.expect("read");
        for event in &page.events {
            assert!(found.insert(event.id), "{} twice", event.id);
        }
        before = page.next;
        if before.is_none() {
            return found;
        }
    }
}
