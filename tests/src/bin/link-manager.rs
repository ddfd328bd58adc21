//! A manager in a process of its own, for tests of the link: the manager's app and link as they
//! are, told what to do by JSON lines on standard input, answering by JSON lines.
//!
//! `link-manager FOLDER ADDRESS LIFE_S HEARTBEAT_S NAME…`; its first line tells where it listens.
//! It ends when standard input does, or by a kill.

use std::io::{BufRead, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{Context, Result};
use holdfast_common::task::Action;
use holdfast_manager::app::{App, Keep, NewOrder, NewToken, Retention, Settings};
use holdfast_manager::link::{Config, Counters, Link};
use holdfast_manager::query::Expr;
use holdfast_manager::store::Place;
use serde_json::{Value, json};
use uuid::Uuid;

const WHO: &str = "test";

fn main() -> Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [folder, address, life, heartbeat, names @ ..] = words.as_slice() else {
        anyhow::bail!("link-manager FOLDER ADDRESS LIFE_S HEARTBEAT_S NAME…")
    };
    let address: SocketAddr = address.parse()?;
    let folder = PathBuf::from(folder);
    let mut config = Config::new(address, names.to_vec(), folder.clone());
    config.certificate_life = Duration::from_secs(life.parse()?);
    config.heartbeat = Duration::from_secs(heartbeat.parse()?);
    tokio::runtime::Runtime::new()?.block_on(serve(config, folder))
}

async fn serve(config: Config, folder: PathBuf) -> Result<()> {
    let settings = Settings {
        place: Place::File(folder.join("manager.db")),
        data_dir: folder,
        retention: Retention {
            default: Keep { days: 30, bytes: 0 },
            kinds: Default::default(),
            file_days: 30,
        },
        max_files: 1 << 30,
        notify: Default::default(),
    };
    let app = App::start(settings).await?;
    let link = Link::bind(config, app.clone()).await?;
    let counters = link.counters();
    let first = json!({
        "address": link.address(), "fingerprint": link.authority().fingerprint(),
    });
    say(&first)?;
    let served = tokio::spawn(link.run(std::future::pending()));
    let (heard, mut lines) = tokio::sync::mpsc::channel(1);
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines().map_while(Result::ok) {
            if heard.blocking_send(line).is_err() {
                return;
            }
        }
    });
    while let Some(line) = lines.recv().await {
        let asked: Value = serde_json::from_str(&line)?;
        let answer = match answer(&app, &counters, &asked).await {
            Ok(answer) => answer,
            Err(error) => json!({ "error": format!("{error:#}") }),
        };
        say(&answer)?;
    }
    served.abort();
    app.stop().await;
    Ok(())
}

fn say(what: &Value) -> Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{what}")?;
    Ok(out.flush()?)
}

async fn answer(app: &App, counters: &Counters, asked: &Value) -> Result<Value> {
    let id = |name: &str| -> Result<Uuid> { Ok(asked[name].as_str().context("no id")?.parse()?) };
    Ok(match asked["do"].as_str().unwrap_or_default() {
        "token" => {
            let number = |name: &str, usual| asked[name].as_u64().unwrap_or(usual);
            let new = NewToken {
                group: "tests".to_owned(),
                note: String::new(),
                uses: u32::try_from(number("uses", 1))?,
                valid_s: number("valid_s", 600),
            };
            json!({ "token": app.token_create(new, WHO).await?.1 })
        }
        "file" => {
            let action: Action = serde_json::from_value(asked["action"].clone())?;
            let order = NewOrder {
                host: id("host")?,
                action,
                reason: "a test".to_owned(),
                alert: None,
                wait_s: asked["wait_s"].as_u64(),
                key: None,
            };
            json!({ "id": app.task_file(order, WHO).await?.task.id })
        }
        "task" => {
            let task = app.task_get(id("id")?).await?;
            json!({
                "stage": task.stage, "observed": task.observed,
                "result": serde_json::from_str::<Value>(&task.result).unwrap_or_default(),
                "size": task.file_size, "sha256": task.file_sha256,
                "delivered_ms": task.delivered_ms, "executed_ms": task.executed_ms,
                "ended_ms": task.ended_ms, "filed_ms": task.filed_ms,
            })
        }
        "cancel" => json!({ "stage": app.task_cancel(id("id")?, WHO, "a test").await?.stage }),
        "revoke" => {
            app.host_revoke(id("host")?, WHO, "a test").await?;
            json!({})
        }
        "host" => {
            let host = app.host_get(id("host")?).await?;
            let heartbeat = host.heartbeat.as_deref().map(serde_json::from_str::<Value>);
            json!({
                "name": host.name, "connected": host.session.is_some(),
                "generation": host.generation, "cloned_ms": host.cloned_ms,
                "health": host.health, "events_refused": host.events_refused,
                "heartbeat": heartbeat.transpose()?,
            })
        }
        "events" => events(app, asked["kind"].as_str()).await?,
        "counters" => {
            let read = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
            json!({
                "agents": read(&counters.agents), "accepted": read(&counters.accepted),
                "failed": read(&counters.failed), "turned_away": read(&counters.turned_away),
                "refused": read(&counters.refused), "ended": read(&counters.ended),
                "stored": app.counters().events_stored.get(),
            })
        }
        other => anyhow::bail!("what is {other:?}?"),
    })
}

/// Id, kind and time of reception of all events of a kind, or of all.
async fn events(app: &App, kind: Option<&str>) -> Result<Value> {
    let (mut found, mut before) = (Vec::new(), None);
    loop {
        let page = app.event_search(Expr::And(Vec::new()), (0, i64::MAX), before, 500).await?;
        for event in page.events {
            if kind.is_none_or(|kind| kind == event.kind) {
                found.push(json!({
                    "id": event.id, "kind": event.kind, "time_ms": event.time_ms,
                    "received_ms": event.received_ms,
                }));
            }
        }
        before = page.next;
        if before.is_none() {
            return Ok(json!({ "events": found }));
        }
    }
}
