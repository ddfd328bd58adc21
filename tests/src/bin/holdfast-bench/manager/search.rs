//! `search_p95_ms`: one command line among ten million events.
//!
//! The events are put into SQLite by the store's own code, a week of them, spread over a hundred
//! hosts; then the manager is started on that database and asked by its API.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use holdfast_common::event::Event;
use holdfast_manager::store::events::{NewEvent, events_insert};
use holdfast_manager::store::hosts::{NewHost, host_insert};
use holdfast_manager::store::index::Indexed;
use holdfast_manager::store::{Place, Store};
use tokio::sync::mpsc;
use uuid::Uuid;

use super::content::{Telemetry, serial_word};
use super::now_ms;
use super::serve::{Setting, folder};
use crate::figures::{Figures, median, percentile};

/// Events.
const EVENTS: u64 = 10_000_000;
/// Hosts.
const HOSTS: u64 = 100;
/// Over how long, milliseconds.
const PERIOD_MS: i64 = 7 * 86_400_000;
/// Events of one transaction, as the manager's writer has them under load.
const TOGETHER: u64 = 12_000;
/// Searches timed of each kind.
const SEARCHES: u64 = 100;

/// Adds the figures.
///
/// # Errors
/// When something is not found.
pub async fn measure(figures: &mut Figures) -> Result<()> {
    let count = std::env::var("HOLDFAST_BENCH_EVENTS").ok().and_then(|text| text.parse().ok());
    let count: u64 = count.unwrap_or(EVENTS);
    let folder = folder()?;
    let data = folder.path().join("data");
    std::fs::create_dir(&data)?;
    let (from_ms, begin) = (now_ms() - PERIOD_MS, Instant::now());
    fill(&data.join("manager.db"), count, from_ms).await?;
    let took = begin.elapsed().as_secs_f64();
    let bytes = std::fs::metadata(data.join("manager.db"))?.len() as f64;
    figures.add("fill_events_per_s", count as f64 / took, "filled, a second", None);
    figures.add("fill_bytes_per_event", bytes / count as f64, "database for each event", None);
    eprintln!("{count} events after {took:.0} s, {:.1} GB", bytes / 1e9);

    let served = Setting { folder: Some(folder), ..Setting::default() }.start().await?;
    let mut times = Vec::new();
    let period = format!("from_ms={from_ms}");
    for search in 0..SEARCHES {
        let serial = search * (count / SEARCHES) / 5 * 5;
        let word = serial_word(serial);
        let path = format!(
            "/api/v1/events?{period}&query=cmdline%3A%22-quality%2082%20{word}%20out.jpeg%22"
        );
        let begin = Instant::now();
        let page = served.rest().get(&path).await?;
        times.push(begin.elapsed().as_secs_f64() * 1000.0);
        let found = page["items"].as_array().context("a list")?.len();
        ensure!(found == 1, "{word}: found {found}");
    }
    let what = "one command line in 10 million events, p95 of 100, ms";
    figures.add("search_p95_ms", percentile(&times, 0.95), what, Some("<= 1000"));
    figures.add("search_p50_ms", median(&times), "the same, half of them", None);
    let mut common = Vec::new();
    for search in 0..SEARCHES / 5 {
        let query =
            format!("host%3Ahost{}%20kind%3Aexec%20cmdline%3A%22convert%20-resize%22", search);
        let begin = Instant::now();
        let page = served.rest().get(&format!("/api/v1/events?{period}&query={query}")).await?;
        common.push(begin.elapsed().as_secs_f64() * 1000.0);
        ensure!(page["items"].as_array().is_some_and(|items| items.len() == 50), "{query}");
    }
    let what = "first page of what a host does 60 % of the time, p95 of 20, ms";
    figures.add("search_common_p95_ms", percentile(&common, 0.95), what, None);
    Ok(())
}

/// One thread writes what another makes.
async fn fill(file: &std::path::Path, count: u64, from_ms: i64) -> Result<()> {
    let store = Store::open(Place::File(file.to_owned())).await?;
    let mut tx = store.begin().await?;
    let ids: Vec<Uuid> = (0..HOSTS).map(|_| Uuid::now_v7()).collect();
    let mut hosts = Vec::new();
    for (index, id) in ids.iter().enumerate() {
        let host = NewHost {
            id: *id,
            name: format!("host{index}"),
            machine_id: String::new(),
            facts: "{}".to_owned(),
            group: "bench".to_owned(),
            now_ms: from_ms,
        };
        hosts.push((host_insert(&mut tx, &host).await?, *id));
    }
    tx.commit().await?;
    let (send, mut made) = mpsc::channel::<Vec<NewEvent>>(2);
    let maker = tokio::task::spawn_blocking(move || make(count, from_ms, &hosts, &send));
    let (mut done, mut told) = (0, Instant::now());
    while let Some(events) = made.recv().await {
        let mut tx = store.begin().await?;
        let placed = events_insert(&mut tx, &events).await?;
        ensure!(placed.iter().all(|place| place.new), "an event was there already");
        tx.commit().await?;
        done += events.len();
        if told.elapsed() > Duration::from_secs(30) {
            eprintln!("{done} events");
            told = Instant::now();
        }
    }
    maker.await??;
    store.close().await;
    Ok(())
}

fn make(
    count: u64,
    from_ms: i64,
    hosts: &[(i64, Uuid)],
    send: &mpsc::Sender<Vec<NewEvent>>,
) -> Result<()> {
    let telemetry: Vec<_> = (0..HOSTS).map(|n| Telemetry::new(&format!("host{n}"))).collect();
    for first in (0..count).step_by(TOGETHER as usize) {
        let mut events = Vec::with_capacity(TOGETHER as usize);
        for serial in first..(first + TOGETHER).min(count) {
            // Not in step with the kinds, of which there are five.
            let at = usize::try_from(serial / 7 % HOSTS)?;
            let (host, host_id) = hosts[at];
            let id = Uuid::from_u64_pair(0x0197_a2c4_0000_7000, 1 << 63 | serial);
            let time_ms = from_ms + (PERIOD_MS as f64 * (serial as f64 / count as f64)) as i64;
            let body = telemetry[at].event(serial, id, time_ms);
            let event: Event = serde_json::from_str(&body)?;
            let kind = event.body.kind();
            let indexed = Indexed::envelope(id, kind, host_id, &format!("host{at}"));
            events.push(NewEvent {
                host,
                id,
                time_ms,
                kind: kind.to_owned(),
                received_ms: time_ms,
                body,
                indexed: indexed.with_event(&event),
            });
        }
        send.blocking_send(events).context("the writer ended")?;
    }
    Ok(())
}
