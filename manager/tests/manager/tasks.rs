//! Response tasks: what was observed, once, by the right host; the files that they deliver.

use std::collections::HashMap;
use std::io::Read;
use std::time::Duration;

use bytes::Bytes;
use holdfast_common::scans::ScanScope;
use holdfast_common::task::{Action, Progress, Stage};
use holdfast_manager::app::{App, AppError, ChunkAnswer, NewOrder};
use holdfast_manager::store::Store;
use holdfast_manager::store::numbers::number_of;
use holdfast_manager::store::tasks::{NewTask, task_insert};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::world::{On, World, on_both};

fn order(host: Uuid, action: Action) -> NewOrder {
    NewOrder { host, action, reason: "why".to_owned(), alert: None, wait_s: None, key: None }
}

fn collect() -> Action {
    Action::Collect {
        path: Some("/etc/passwd".into()),
        password: "secret password".to_owned(),
        limit: 1 << 20,
    }
}

fn progress(stage: Stage) -> Progress {
    Progress { stage, time_ms: 1, observed: "seen".to_owned(), result: serde_json::json!({"a": 1}) }
}

async fn stage(app: &App, task: Uuid) -> Stage {
    app.task_get(task).await.expect("task").stage
}

/// Two ids that ask for one place among a host's things of a millisecond.
fn ids_of_one_place(host: i64, time_ms: i64) -> [Uuid; 2] {
    let mut seen = HashMap::new();
    loop {
        let id = Uuid::now_v7();
        if let Some(other) = seen.insert(number_of(time_ms, host, id), id) {
            return [other, id];
        }
    }
}

on_both! {
    async fn tasks_that_ask_for_one_place_are_both_filed(world: World) {
        let host = world.host("web1").await;
        let store = Store::open(world.settings.place.clone()).await.expect("store");
        let host = store.host_get(host).await.expect("read").expect("host").number;
        let filed_ms = 1_700_000_000_000;
        for id in ids_of_one_place(host, filed_ms) {
            let task = NewTask {
                id,
                name: "processes",
                action: "{}".to_owned(),
                filed_by: "ann".to_owned(),
                reason: "why".to_owned(),
                alert: None,
                idempotency: None,
                request_hash: Vec::new(),
                filed_ms,
                expires_ms: filed_ms + 1,
            };
            let mut tx = store.begin().await.expect("begin");
            assert!(task_insert(&mut tx, host, &task).await.expect("file"));
            tx.commit().await.expect("commit");
        }
        store.close().await;
    }

    async fn a_task_goes_from_queued_to_verified_and_only_its_host_tells(world: World) {
        let (host, other) = (world.host("web1").await, world.host("web2").await);
        let app = &world.app;
        let order = order(host, Action::Isolate { duration_s: None });
        let task = app.task_file(order, "ann").await.expect("file").task;
        assert_eq!((task.stage, task.filed_by.as_str()), (Stage::Queued, "ann"));
        assert!(app.tasks_waiting(other).await.expect("waiting").is_empty());
        let waiting = app.tasks_waiting(host).await.expect("waiting");
        assert_eq!(waiting[0].action, Action::Isolate { duration_s: None });
        assert_eq!(app.tasks_waiting(host).await.expect("again").len(), 1);
        app.task_progress(other, task.id, progress(Stage::Verified)).await.expect("dropped");
        assert_eq!(stage(app, task.id).await, Stage::Queued);
        for next in [Stage::Delivered, Stage::Executed, Stage::Verified] {
            app.task_progress(host, task.id, progress(next)).await.expect("progress");
            assert_eq!(stage(app, task.id).await, next);
            assert!(app.tasks_waiting(host).await.expect("waiting").is_empty());
        }
        app.task_progress(host, task.id, progress(Stage::Failed)).await.expect("dropped");
        let done = app.task_get(task.id).await.expect("task");
        assert_eq!((done.stage, done.observed.as_str()), (Stage::Verified, "seen"));
        assert!(done.delivered_ms.is_some() && done.executed_ms.is_some());
        assert_eq!(app.counters().progress_refused.get(), 2);
        app.task_progress(host, Uuid::now_v7(), progress(Stage::Failed)).await.expect("unknown");
    }

    async fn the_same_key_files_one_task_however_often_and_at_once(world: World) {
        let host = world.host("web1").await;
        let keyed = |action| NewOrder { key: Some("k1".to_owned()), ..order(host, action) };
        let mut calls = Vec::new();
        for _ in 0..10 {
            let (app, order) = (world.app.clone(), keyed(Action::Release));
            calls.push(tokio::spawn(async move { app.task_file(order, "ann").await }));
        }
        let (mut ids, mut new) = (Vec::new(), 0);
        for call in calls {
            let filed = call.await.expect("call").expect("file");
            ids.push(filed.task.id);
            new += usize::from(filed.new);
        }
        ids.dedup();
        assert_eq!((ids.len(), new), (1, 1));
        let other = world.app.task_file(keyed(Action::ProcessList), "ann").await;
        assert!(matches!(other, Err(AppError::Conflict(_))));
        let bob = world.app.task_file(keyed(Action::ProcessList), "bob").await.expect("bob's");
        assert!(bob.new, "a key is its user's own");
    }

    async fn a_cancel_ends_what_no_agent_has_and_asks_for_what_one_may_have(world: World) {
        let host = world.host("web1").await;
        let app = &world.app;
        let task = app.task_file(order(host, collect()), "ann").await.expect("file").task;
        let cancelled = app.task_cancel(task.id, "bob", "wrong host").await.expect("cancel");
        assert_eq!(cancelled.stage, Stage::Cancelled);
        assert!(!cancelled.action.contains("secret"));
        assert!(app.tasks_waiting(host).await.expect("waiting").is_empty());
        assert!(matches!(app.task_cancel(task.id, "b", "x").await, Err(AppError::Conflict(_))));

        let task = app.task_file(order(host, collect()), "ann").await.expect("file").task;
        assert!(!app.tasks_waiting(host).await.expect("sent")[0].cancelled);
        let asked = app.task_cancel(task.id, "bob", "wrong host").await.expect("cancel");
        assert_eq!(asked.stage, Stage::Queued, "the agent may have it");
        assert!(app.tasks_waiting(host).await.expect("waiting")[0].cancelled);
        app.task_progress(host, task.id, progress(Stage::Verified)).await.expect("too late");
        assert_eq!(stage(app, task.id).await, Stage::Verified, "what was observed counts");
        assert!(app.tasks_waiting(host).await.expect("waiting").is_empty());
    }

    async fn a_task_that_nobody_takes_expires(world: World) {
        let host = world.host("web1").await;
        let app = &world.app;
        let mut changes = app.changes();
        let order = NewOrder { wait_s: Some(1), ..order(host, collect()) };
        let task = app.task_file(order, "ann").await.expect("file").task;
        let expired = async {
            while stage(app, task.id).await != Stage::Expired {
                changes.recv().await.expect("a change");
            }
        };
        tokio::time::timeout(Duration::from_secs(20), expired).await.expect("never expired");
        assert!(!app.task_get(task.id).await.expect("task").action.contains("secret"));
        assert!(app.tasks_waiting(host).await.expect("waiting").is_empty());
    }

    async fn orders_that_make_no_sense_are_refused(world: World) {
        let host = world.host("web1").await;
        let bad = [
            Action::Scan { scope: ScanScope::Paths, paths: vec![], cpu_share: None },
            Action::Scan {
                scope: ScanScope::Paths,
                paths: vec!["relative".into()],
                cpu_share: None,
            },
            Action::Scan { scope: ScanScope::Full, paths: vec!["/srv".into()], cpu_share: None },
            Action::Scan { scope: ScanScope::Quick, paths: vec![], cpu_share: Some(0) },
            Action::Collect { path: None, password: "12345".to_owned(), limit: 1 },
            Action::Collect { path: Some("/x".into()), password: "1".to_owned(), limit: 1 },
            Action::Collect { path: Some("/x".into()), password: "12345".to_owned(), limit: 0 },
            Action::DenyHash { sha256: "zz".to_owned(), duration_s: None },
            Action::Restore { item: Uuid::nil(), allow: false, duration_s: Some(60) },
            Action::Restore { item: Uuid::nil(), allow: true, duration_s: Some(0) },
            Action::Restore { item: Uuid::nil(), allow: true, duration_s: Some(u64::MAX) },
            Action::Kill { process: holdfast_common::process::ProcessKey::default() },
            Action::Simulate { simulation: String::new() },
        ];
        for action in bad {
            let refused = world.app.task_file(order(host, action.clone()), "ann").await;
            assert!(matches!(refused, Err(AppError::Invalid(_))), "{action:?}");
        }
        let silent = NewOrder { reason: " ".to_owned(), ..order(host, Action::Release) };
        assert!(matches!(world.app.task_file(silent, "ann").await, Err(AppError::Invalid(_))));
        let nowhere = world.app.task_file(order(Uuid::now_v7(), Action::Release), "ann").await;
        assert!(matches!(nowhere, Err(AppError::NotFound(_))));
    }

    async fn a_file_arrives_in_parts_survives_a_break_and_is_hashed(world: World) {
        let (host, other) = (world.host("web1").await, world.host("web2").await);
        let app = &world.app;
        let task = app.task_file(order(host, collect()), "ann").await.expect("file").task.id;
        let content: Vec<u8> = (0..600_000_u32).map(|n| n.to_le_bytes()[1]).collect();
        let hash: [u8; 32] = Sha256::digest(&content).into();
        let send = async |host, offset: usize, data: &[u8], hash| {
            let (offset, data) = (offset as u64, Bytes::copy_from_slice(data));
            app.task_chunk(host, task, offset, data, hash).await.expect("chunk")
        };
        assert!(matches!(send(other, 0, b"evil", None).await, ChunkAnswer::Refused(_)));
        assert_eq!(send(host, 0, b"", None).await, ChunkAnswer::Next(0));
        assert_eq!(send(host, 0, &content[..250_000], None).await, ChunkAnswer::Next(250_000));
        // The answer was lost: the same part again, then what was asked for.
        assert_eq!(send(host, 0, &content[..250_000], None).await, ChunkAnswer::Next(250_000));
        assert_eq!(send(host, 0, b"", None).await, ChunkAnswer::Next(250_000));
        assert!(app.task_file_open(task, "ann").await.is_err(), "not before it is whole");
        let rest = send(host, 250_000, &content[250_000..], Some(hash)).await;
        assert_eq!(rest, ChunkAnswer::Complete(600_000));
        assert_eq!(send(host, 0, b"", None).await, ChunkAnswer::Complete(600_000));
        let (mut file, size) = app.task_file_open(task, "ann").await.expect("file");
        let mut read = Vec::new();
        file.read_to_end(&mut read).expect("read");
        assert!(size == 600_000 && read == content);
    }

    async fn a_file_with_another_hash_or_beyond_its_limit_is_refused(world: World) {
        let host = world.host("web1").await;
        let app = &world.app;
        let task = app.task_file(order(host, collect()), "ann").await.expect("file").task.id;
        let answer =
            app.task_chunk(host, task, 0, Bytes::from_static(b"abc"), Some([7; 32])).await;
        assert!(matches!(answer.expect("chunk"), ChunkAnswer::Refused(why) if why.contains("hash")));
        let part = Bytes::from(vec![0; 900 << 10]);
        let first = app.task_chunk(host, task, 0, part.clone(), None).await.expect("chunk");
        assert_eq!(first, ChunkAnswer::Next(900 << 10));
        let over = app.task_chunk(host, task, 900 << 10, part, None).await.expect("chunk");
        assert!(matches!(over, ChunkAnswer::Refused(why) if why.contains("larger")));
        let release = app.task_file(order(host, Action::Release), "ann").await.expect("file");
        let none = app.task_chunk(host, release.task.id, 0, Bytes::new(), None).await;
        assert!(matches!(none.expect("chunk"), ChunkAnswer::Refused(_)));
    }
}

/// Waits for a signal, with a deadline.
async fn woken(signal: &mut holdfast_manager::app::TaskSignal) -> bool {
    tokio::time::timeout(Duration::from_secs(10), signal.changed()).await.expect("never woken")
}

on_both! {
    async fn a_task_wakes_the_stream_of_its_host(world: World) {
        let host = world.host("web1").await;
        let mut signal = world.app.task_signal(host);
        assert!(woken(&mut signal).await, "who begins to look is woken once");
        world.app.task_file(order(host, Action::Release), "ann").await.expect("file");
        assert!(woken(&mut signal).await);
        assert_eq!(world.app.tasks_waiting(host).await.expect("waiting").len(), 1);
    }
}

#[test]
fn a_task_that_is_filed_at_one_manager_wakes_an_agent_at_another() {
    crate::world::run(On::Postgres, |world| async move {
        let host = world.host("web1").await;
        let other = App::start(world.settings.clone()).await.expect("second manager");
        let mut signal = other.task_signal(host);
        assert!(woken(&mut signal).await);
        let mut heard = other.changes();
        let first = world.app.task_file(order(host, Action::Release), "ann").await.expect("file");
        while other.tasks_waiting(host).await.expect("waiting").is_empty() {
            assert!(woken(&mut signal).await);
        }
        // The other one may have begun to listen only after the first.
        let mut filed = vec![first.task.id];
        let change = loop {
            assert!(filed.len() < 20, "never heard");
            match tokio::time::timeout(Duration::from_secs(1), heard.recv()).await {
                Ok(change) => break change.expect("a change"),
                Err(_) => {
                    let task = world.app.task_file(order(host, Action::Release), "ann").await;
                    filed.push(task.expect("file").task.id);
                }
            }
        };
        let told = |task| holdfast_manager::app::Change::Task { host, task };
        assert!(filed.into_iter().any(|task| change == told(task)), "{change:?}");
        other.stop().await;
    });
}
