//! `agents`, `kib_per_agent`: a fleet on one manager.
//!
//! Ten thousand simulated agents enroll, connect and send a heartbeat each five seconds. Then it
//! is counted whether all of them stay connected and green and whether each heartbeat is kept,
//! while tasks are filed by the HTTP interface for hosts all over the fleet.

use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::json;

use super::fleet::{Shared, Target};
use super::serve::{Served, Setting};
use crate::figures::{Figures, percentile};

/// Agents.
const AGENTS: usize = 10_000;
/// What a heartbeat's pause is, seconds.
const HEARTBEAT_S: f64 = 5.0;
/// How long the fleet rests before its memory is read, and how long it is watched after.
const SETTLE: Duration = Duration::from_secs(20);
const WATCH: Duration = Duration::from_secs(40);
/// Tasks filed while it is watched.
const TASKS: usize = 400;
/// For the last of them to come.
const PATIENCE: Duration = Duration::from_secs(30);

/// Adds the figures.
///
/// # Errors
/// When an agent is refused, or the manager ends.
pub async fn measure(figures: &mut Figures) -> Result<()> {
    let count = std::env::var("HOLDFAST_BENCH_AGENTS").ok().and_then(|text| text.parse().ok());
    let count: usize = count.unwrap_or(AGENTS);
    let served = Setting::default().start().await?;
    let target = Target::new(&served)?;
    let begin = Instant::now();
    let token = served.token(count).await?;
    let agents = target.enroll(count, &token).await?;
    let took = begin.elapsed().as_secs_f64();
    let number = count as f64;
    figures.add("enrolls_per_s", number / took, "hosts enrolled a second", None);
    let hosts: Vec<String> = agents.iter().map(|agent| agent.host.clone()).collect();
    eprintln!("{count} hosts are enrolled after {took:.0} s");

    let before = served.resident_kib()?;
    let shared = Shared::new();
    let begin = Instant::now();
    let living = target.connect(agents, &shared).await?;
    let took = begin.elapsed().as_secs_f64();
    figures.add("connects_per_s", number / took, "agents that connect a second", None);
    eprintln!("{count} agents are connected after {took:.0} s");
    tokio::time::sleep(SETTLE).await;
    let growth = served.resident_kib()? - before;

    let (from, beats) = (Instant::now(), served.rest().metric("heartbeats").await?);
    let processor = served.processor_s()?;
    let delivered = deliver(&served, &hosts, &shared).await?;
    let seconds = from.elapsed().as_secs_f64();
    let kept =
        (served.rest().metric("heartbeats").await? - beats) / (number * seconds / HEARTBEAT_S);
    let processor = (served.processor_s()? - processor) / seconds * 100.0;
    let connected = served.rest().metric("hosts_connected").await?;
    let red = served.rest().metric("hosts_red").await?;
    let ended = shared.ended.load(Ordering::Relaxed);
    ensure!(ended == 0, "{ended} streams were ended");
    drop(living);

    let goal = Some(">= 10000");
    figures.add("agents", connected, "agents connected, on the processors of the clients", goal);
    figures.add("agents_red", red, "of them red", Some("0"));
    let what = "heartbeats kept of those due while watched";
    figures.add("agents_heartbeats", kept, what, Some(">= 0.99"));
    let what = "task filed by API to the agent that has it, p99, s";
    figures.add("task_p99_s", percentile(&delivered, 0.99), what, Some("<= 2"));
    figures.add("task_p50_s", percentile(&delivered, 0.5), "the same, half of them", None);
    let what = "manager's processor time with this fleet, % of one core";
    figures.add("agents_cpu_percent", processor, what, None);
    let what = "manager's resident memory for each connected agent, KiB";
    figures.add("kib_per_agent", growth / number, what, Some("<= 30"));
    Ok(())
}

/// Files tasks for hosts all over the fleet; how long each took to come, seconds.
async fn deliver(served: &Served, hosts: &[String], shared: &Shared) -> Result<Vec<f64>> {
    let mut filed = Vec::new();
    let mut ticks = tokio::time::interval(WATCH / TASKS as u32);
    for index in 0..TASKS {
        ticks.tick().await;
        let host = &hosts[index * 7919 % hosts.len()];
        let order = json!({ "host": host, "action": { "action": "process_list" },
                            "reason": "bench" });
        let begin = Instant::now();
        let task = served.rest().post("/api/v1/tasks", &order).await?;
        filed.push((begin, task["id"].as_str().context("an id")?.to_owned()));
    }
    let end = Instant::now() + PATIENCE;
    let arrived = || shared.arrived.lock().unwrap_or_else(PoisonError::into_inner);
    while arrived().len() < filed.len() {
        ensure!(Instant::now() < end, "{} of {TASKS} tasks came", arrived().len());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let arrived = arrived();
    filed
        .into_iter()
        .map(|(begin, id)| {
            let at = arrived.get(&id).with_context(|| format!("task {id} never came"))?;
            Ok(at.saturating_duration_since(begin).as_secs_f64())
        })
        .collect()
}
