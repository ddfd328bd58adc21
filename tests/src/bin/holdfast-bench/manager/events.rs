//! `events_per_s_sqlite`, `events_per_s_postgres`: events a second, from agents' streams to the
//! disk.
//!
//! As many agents as the manager has to spare for send telemetry as fast as it is acknowledged:
//! messages of 512 events, four of them on the way, like a real agent that catches up. The clock
//! stops at the last acknowledgement, which comes after the flush. Then it is counted in the
//! database itself: each event once, each in the index; a part is sent again and changes nothing.

use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use holdfast_common::link::MOST_EVENTS;
use holdfast_common::link::wire::{Events, FromManager, from_agent, from_manager};
use tonic::Streaming;
use uuid::Uuid;

use super::content::Telemetry;
use super::count::{Count, Database};
use super::fleet::{Stream, Target, message};
use super::now_ms;
use super::serve::{Served, Setting};
use crate::figures::{Figures, median};
use holdfast_tests::postgres::Cluster;

/// Agents that send.
const AGENTS: usize = 16;
/// Messages of each in one round; about 20 s of work.
const MESSAGES: u64 = 50;
/// Messages of one agent that are not acknowledged.
const WINDOW: u64 = 4;
/// Messages that each sends again in the end.
const AGAIN: u64 = 2;

/// On SQLite.
///
/// # Errors
/// When something is lost, doubled, or not acknowledged.
pub async fn sqlite(rounds: usize, figures: &mut Figures) -> Result<()> {
    let served = Setting::default().start().await?;
    let url = format!("sqlite://{}?mode=ro", served.database().display());
    let (rate, processor) = ingest(&served, &url, rounds).await?;
    add(figures, "events_per_s_sqlite", rate, processor);
    Ok(())
}

/// On PostgreSQL, with its defaults.
///
/// # Errors
/// As [`sqlite`].
pub async fn postgres(rounds: usize, figures: &mut Figures) -> Result<()> {
    let cluster = Cluster::start()?;
    let url = cluster.database("bench")?;
    let served = Setting { database: Some(url.clone()), ..Setting::default() }.start().await?;
    let (rate, processor) = ingest(&served, &url, rounds).await?;
    add(figures, "events_per_s_postgres", rate, processor);
    Ok(())
}

fn add(figures: &mut Figures, name: &str, rate: f64, processor: f64) {
    let what = "events a second on disk, each once, each found";
    figures.add(name, rate, what, Some(">= 20000"));
    let what = "manager's processor time for each of them, us";
    figures.add(&format!("{name}_us"), processor, what, None);
}

/// Events a second, and the manager's processor time for one, microseconds: medians of the rounds.
async fn ingest(served: &Served, url: &str, rounds: usize) -> Result<(f64, f64)> {
    let target = Target::new(served)?;
    let token = served.token(AGENTS).await?;
    let agents = target.enroll(AGENTS, &token).await?;
    let (mut rates, mut costs) = (Vec::new(), Vec::new());
    let mut streams = Vec::new();
    for agent in &agents {
        streams.push(Sender::new(target.open(agent, 1).await?, streams.len()));
    }
    let each = MESSAGES * MOST_EVENTS as u64 * AGENTS as u64;
    for round in 0..rounds as u64 {
        let (begin, processor) = (Instant::now(), served.processor_s()?);
        streams = all(streams, round * MESSAGES..(round + 1) * MESSAGES).await?;
        let seconds = begin.elapsed().as_secs_f64();
        rates.push(each as f64 / seconds);
        costs.push((served.processor_s()? - processor) / each as f64 * 1e6);
        eprintln!("{each} events in {seconds:.1} s");
    }
    all(streams, 0..AGAIN).await?;
    let stored = i64::try_from(each * rounds as u64)?;
    let there = Database::open(url).await?.count(url.starts_with("sqlite")).await?;
    let whole = Count { events: stored, ids: stored, indexed: stored };
    ensure!(there == whole, "sent {stored}, there are {there:?}");
    let doubled = served.rest().metric("events_doubled").await?;
    ensure!(doubled == (AGAIN * MOST_EVENTS as u64) as f64 * AGENTS as f64, "{doubled} known");
    Ok((median(&rates), median(&costs)))
}

/// Each stream sends these messages at once; returns when all are acknowledged.
async fn all(streams: Vec<Sender>, messages: std::ops::Range<u64>) -> Result<Vec<Sender>> {
    let sending: Vec<_> = streams
        .into_iter()
        .map(|mut stream| {
            let messages = messages.clone();
            tokio::spawn(async move { stream.send(messages).await.map(|()| stream) })
        })
        .collect();
    let mut streams = Vec::new();
    for one in sending {
        streams.push(one.await??);
    }
    Ok(streams)
}

/// An agent's stream and what it has told.
struct Sender {
    stream: Stream,
    telemetry: Arc<Telemetry>,
    agent: u64,
    began_ms: i64,
    last: u64,
}

impl Sender {
    fn new(stream: Stream, agent: usize) -> Self {
        let telemetry = Arc::new(Telemetry::new(&format!("host{agent}")));
        stream.live();
        Self { stream, telemetry, agent: agent as u64, began_ms: now_ms(), last: 0 }
    }

    async fn send(&mut self, messages: std::ops::Range<u64>) -> Result<()> {
        let mut acknowledged = self.last;
        for number in messages {
            while self.last - acknowledged >= WINDOW {
                acknowledged = stored(&mut self.stream.incoming).await?;
            }
            let events = (0..MOST_EVENTS as u64)
                .map(|index| self.event(number * MOST_EVENTS as u64 + index).into())
                .collect();
            self.last += 1;
            let events = Events { last: self.last, events };
            self.stream.out.send(message(from_agent::Message::Events(events))).await?;
        }
        while acknowledged < self.last {
            acknowledged = stored(&mut self.stream.incoming).await?;
        }
        Ok(())
    }

    /// The same number is the same event.
    fn event(&self, number: u64) -> String {
        let serial = self.agent << 32 | number;
        let id = Uuid::from_u64_pair(0x0197_a2c4_0000_7000 | self.agent, 1 << 63 | number);
        let time_ms = self.began_ms + i64::try_from(number / 4).unwrap_or_default();
        self.telemetry.event(serial, id, time_ms)
    }
}

async fn stored(incoming: &mut Streaming<FromManager>) -> Result<u64> {
    loop {
        match incoming.message().await?.context("the stream has ended")?.message {
            Some(from_manager::Message::Stored(stored)) => return Ok(stored.last),
            Some(from_manager::Message::Welcome(_)) => {}
            other => bail!("unexpected: {other:?}"),
        }
    }
}
