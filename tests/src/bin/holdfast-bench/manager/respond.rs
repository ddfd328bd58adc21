//! `alert_p95_ms`, `isolate_p95_ms`, `collect_10mb_ms`: a real agent and a real manager.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use holdfast_tests::agent::Setup;
use holdfast_tests::eicar;
use holdfast_tests::lab::Lab;
use holdfast_tests::scratch::Scratch;
use serde_json::{Value, json};

use super::now_ms;
use super::rest::Rest;
use super::serve::Setting;
use crate::figures::{Figures, median, percentile};

/// Detections timed.
const DETECTIONS: usize = 200;
/// Isolations timed.
const ISOLATIONS: usize = 20;
/// Files collected.
const FILES: usize = 5;
/// Bytes of each.
const FILE: usize = 10 << 20;
const PATIENCE: Duration = Duration::from_secs(30);

/// From the open that is denied to the answer of the API that has its alert.
///
/// # Errors
/// When an alert does not come.
pub async fn alert(figures: &mut Figures) -> Result<()> {
    let scratch = Scratch::ext4()?;
    let agent = Setup::protect([scratch.path()]).start()?;
    let served = Setting::default().start().await?;
    let host = served.enroll(&agent).await?;
    let heard = served.rest().get(&format!("/api/v1/hosts/{host}")).await?;
    eprintln!("a real heartbeat has {} bytes", heard["heartbeat"].to_string().len());
    let mut times = Vec::new();
    for round in 0..DETECTIONS {
        // Content of its own is an alert of its own: the standard lets white space follow.
        let mut content = eicar();
        content.extend((0..8).map(|bit| if round >> bit & 1 == 0 { b' ' } else { b'\t' }));
        let name = format!("eicar{round}.com");
        fs::write(scratch.join(&name), &content)?;
        let begin = Instant::now();
        let opened = fs::File::open(scratch.join(&name));
        ensure!(opened.is_err(), "{name} was not denied");
        let shows = |list: &Value| {
            let titles = list["items"].as_array().into_iter().flatten();
            titles.filter_map(|alert| alert["title"].as_str()).any(|title| title.ends_with(&name))
        };
        served.rest().wait("/api/v1/alerts?limit=3", PATIENCE, shows).await?;
        times.push(begin.elapsed().as_secs_f64() * 1000.0);
    }
    let what = "open of EICAR to its alert in the API's answer, p95 of 200, ms";
    figures.add("alert_p95_ms", percentile(&times, 0.95), what, Some("<= 500"));
    figures.add("alert_p50_ms", median(&times), "the same, half of them", None);
    Ok(())
}

/// From the order by API to the answer that says verified; in a lab's network.
///
/// # Errors
/// When a task does not come to its end.
pub async fn isolate(figures: &mut Figures) -> Result<()> {
    let lab = Lab::new()?;
    let scratch = Scratch::tmpfs(16 << 20)?;
    let setup = Setup::protect([scratch.path()]).tables("[sensor]\nenabled = false");
    let agent = setup.on_host_of(&lab, "").start()?;
    let served = Setting { lab: Some(&lab), ..Setting::default() }.start().await?;
    let host = served.enroll(&agent).await?;
    let mut times = Vec::new();
    for _ in 0..ISOLATIONS {
        let begin = Instant::now();
        let isolate = json!({ "action": "isolate", "duration_s": null });
        task(served.rest(), &host, &isolate).await.with_context(|| agent.log())?;
        times.push(begin.elapsed().as_secs_f64() * 1000.0);
        task(served.rest(), &host, &json!({ "action": "release" })).await?;
    }
    let what = "isolate by API to verified, p95 of 20, ms";
    figures.add("isolate_p95_ms", percentile(&times, 0.95), what, Some("<= 1000"));
    figures.add("isolate_p50_ms", median(&times), "the same, half of them", None);
    Ok(())
}

/// From the order by API to the last byte of the zip; the content cannot be compressed.
///
/// # Errors
/// When a file does not come.
pub async fn collect(figures: &mut Figures) -> Result<()> {
    let scratch = Scratch::tmpfs(64 << 20)?;
    let agent = Setup::protect([scratch.path()]).start()?;
    let served = Setting::default().start().await?;
    let host = served.enroll(&agent).await?;
    let outside = tempfile::tempdir()?;
    let (mut ready, mut here) = (Vec::new(), Vec::new());
    for round in 0..FILES {
        let path = outside.path().join(format!("file{round}"));
        let mut state = 0x9e37_79b9_7f4a_7c15_u64 ^ round as u64;
        let noise: Vec<u8> = std::iter::repeat_with(|| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()
        })
        .take(FILE / 8)
        .flatten()
        .collect();
        fs::write(&path, &noise)?;
        // `path_bytes`: as the manager's callers write a path.
        let order = json!({ "action": "collect", "path": path, "password": "infected",
                            "limit": 2 * FILE });
        let begin = Instant::now();
        let done = task(served.rest(), &host, &order).await.with_context(|| agent.log())?;
        ready.push(begin.elapsed().as_secs_f64() * 1000.0);
        let id = done["id"].as_str().context("an id")?;
        let zip = served.rest().bytes(&format!("/api/v1/tasks/{id}/file")).await?;
        ensure!(zip.len() >= FILE, "{} bytes came", zip.len());
        here.push(begin.elapsed().as_secs_f64() * 1000.0);
    }
    let what = "collect 10 MiB by API to downloadable, median of 5, ms";
    figures.add("collect_10mb_ms", median(&ready), what, Some("<= 2000"));
    figures.add("collect_10mb_here_ms", median(&here), "the same, to downloaded", None);
    Ok(())
}

/// Files a task and waits for its good end.
async fn task(rest: &Rest, host: &str, action: &Value) -> Result<Value> {
    let order = json!({ "host": host, "action": action, "reason": "bench" });
    let filed = rest.post("/api/v1/tasks", &order).await?;
    let path = format!("/api/v1/tasks/{}", filed["id"].as_str().context("an id")?);
    let ended = rest.wait(&path, PATIENCE, |task| !task["ended_ms"].is_null()).await?;
    ensure!(ended["stage"] == "verified", "at {}: {ended}", now_ms());
    Ok(ended)
}
