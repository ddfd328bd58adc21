//! What agents send, written in batches: many streams share one transaction and its flush.
//!
//! Invariant: a reply is sent after the commit. When a batch fails, its parts are written one by
//! one, so that what one host sent harms no other. The queue is bounded: who finds it full waits,
//! and so does its stream. SQLite has one writer, PostgreSQL a few.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::sync::{Mutex, mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};
use uuid::Uuid;

use super::change::Change;
use super::health::Reason;
use super::{Admitted, App, StoreError, now_ms, reconcile};
use crate::store::alerts::{Raise, alert_event_link, alert_raise};
use crate::store::events::{NewEvent, events_insert};
use crate::store::hosts::{events_refused_add, hosts_seen};
use crate::store::quarantine::{ItemNews, item_note};
use crate::store::retention::{DAY_MS, totals_add};
use crate::store::{Backend, Tx};

/// Jobs that wait.
pub(super) const JOBS: usize = 1024;
/// Jobs of one transaction.
const MOST_JOBS: usize = 256;
/// Events of one transaction, about. On SQLite each ends with a part of the index of words, and
/// parts are put together again and again: a few large ones cost a fifth less. Two of its
/// statements for words.
const MOST_EVENTS: usize = 4096;
const MOST_EVENTS_SQLITE: usize = 12_000;
/// Bytes of them, about.
const MOST_BYTES: usize = 64 << 20;
/// Writers on PostgreSQL.
const WRITERS: usize = 4;
/// How long signs of life are collected when nothing else waits.
const LINGER: Duration = Duration::from_millis(20);
/// Attempts when databases stand in each other's way.
const ATTEMPTS: usize = 3;

/// An event, what it raises, and what it tells of a quarantine.
#[derive(Debug, Clone)]
pub(super) struct Detected {
    pub(super) event: NewEvent,
    pub(super) raise: Option<Raise>,
    pub(super) item: Option<ItemNews>,
}

/// What is to be written.
#[derive(Debug)]
pub(super) enum Write {
    Events {
        host: i64,
        detected: Vec<Detected>,
        refused: i64,
    },
    Heartbeat {
        admitted: Admitted,
        json: String,
        reasons: Vec<Reason>,
    },
    /// A heartbeat that says what the last whole one said.
    Seen {
        session: Uuid,
    },
}

impl Write {
    const fn is_urgent(&self) -> bool {
        matches!(self, Self::Events { .. })
    }

    fn events(&self) -> usize {
        match self {
            Self::Events { detected, .. } => detected.len(),
            Self::Heartbeat { .. } | Self::Seen { .. } => 1,
        }
    }

    fn bytes(&self) -> usize {
        match self {
            Self::Events { detected, .. } => detected.iter().map(|one| one.event.body.len()).sum(),
            Self::Heartbeat { json, .. } => json.len(),
            Self::Seen { .. } => 0,
        }
    }
}

/// A write and who waits for it.
#[derive(Debug)]
pub(super) struct Job {
    write: Write,
    reply: oneshot::Sender<Result<(), StoreError>>,
}

/// What a transaction did, counted once it lasts.
#[derive(Debug, Default)]
struct Done {
    stored: u64,
    doubled: u64,
    refused: u64,
    heartbeats: u64,
    stale: u64,
    detections: u64,
    changes: HashSet<Change>,
}

impl App {
    /// Writes, together with what others write now.
    pub(super) async fn write(&self, write: Write) -> Result<(), StoreError> {
        let (reply, answer) = oneshot::channel();
        self.0.jobs.send(Job { write, reply }).await.map_err(|_| StoreError::Closed)?;
        answer.await.map_err(|_| StoreError::Closed)?
    }
}

/// Starts the writers.
pub(super) fn spawn(app: &App, jobs: mpsc::Receiver<Job>, running: &mut JoinSet<()>) {
    let jobs = Arc::new(Mutex::new(jobs));
    let writers = match app.store().backend() {
        Backend::Sqlite => 1,
        Backend::Postgres => WRITERS,
    };
    for _ in 0..writers {
        running.spawn(run(app.clone(), Arc::clone(&jobs)));
    }
}

async fn run(app: App, jobs: Arc<Mutex<mpsc::Receiver<Job>>>) {
    let mut ending = app.ending();
    let most_events = match app.store().backend() {
        Backend::Sqlite => MOST_EVENTS_SQLITE,
        Backend::Postgres => MOST_EVENTS,
    };
    loop {
        let batch = {
            let mut jobs = jobs.lock().await;
            let first = tokio::select! {
                job = jobs.recv() => job,
                _ = ending.wait_for(|ending| *ending) => {
                    // Nobody gets in any more; what is in is written.
                    jobs.close();
                    jobs.try_recv().ok()
                }
            };
            let Some(first) = first else { return };
            collect(first, &mut jobs, most_events).await
        };
        batch_write(&app, batch).await;
    }
}

/// What is written together: all that waits. Signs of life alone are in no hurry; of a large fleet
/// many come in the time that one flush takes.
async fn collect(first: Job, jobs: &mut mpsc::Receiver<Job>, most_events: usize) -> Vec<Job> {
    let end = Instant::now() + LINGER;
    let (mut events, mut bytes) = (first.write.events(), first.write.bytes());
    let mut is_urgent = first.write.is_urgent();
    let mut batch = vec![first];
    while batch.len() < MOST_JOBS && events < most_events && bytes < MOST_BYTES {
        let job = match jobs.try_recv() {
            Ok(job) => job,
            Err(_) if is_urgent => break,
            Err(_) => match timeout_at(end, jobs.recv()).await {
                Ok(Some(job)) => job,
                Ok(None) | Err(_) => break,
            },
        };
        events += job.write.events();
        bytes += job.write.bytes();
        is_urgent |= job.write.is_urgent();
        batch.push(job);
    }
    batch
}

async fn batch_write(app: &App, batch: Vec<Job>) {
    let writes: Vec<&Write> = batch.iter().map(|job| &job.write).collect();
    let written = all_write(app, &writes).await;
    if written.is_ok() || batch.len() == 1 {
        for job in batch {
            // Who does not wait any more sends it again; it is there then.
            let _ = job.reply.send(written.clone());
        }
        return;
    }
    app.counters().batches_split.add(1);
    for job in batch {
        let written = all_write(app, &[&job.write]).await;
        let _ = job.reply.send(written);
    }
}

async fn all_write(app: &App, writes: &[&Write]) -> Result<(), StoreError> {
    let mut attempt = 1;
    loop {
        // A bug that one host's bytes wake must not end the writer for all.
        let written = AssertUnwindSafe(once_write(app, writes)).catch_unwind().await;
        let operation = "write what agents sent";
        let panicked = |_| Err(StoreError::Failed { operation, message: "it panicked".to_owned() });
        match written.unwrap_or_else(panicked) {
            Ok(done) => {
                count(app, &done);
                return Ok(());
            }
            Err(error @ StoreError::Closed) => return Err(error),
            Err(error) if attempt == ATTEMPTS => {
                tracing::warn!(%error, "cannot write what agents sent");
                return Err(error);
            }
            Err(_) => attempt += 1,
        }
    }
}

fn count(app: &App, done: &Done) {
    let counters = app.counters();
    counters.events_stored.add(done.stored);
    counters.events_doubled.add(done.doubled);
    counters.events_refused.add(done.refused);
    counters.heartbeats.add(done.heartbeats);
    counters.stale_messages.add(done.stale);
    counters.detections.add(done.detections);
}

async fn once_write(app: &App, writes: &[&Write]) -> Result<Done, StoreError> {
    let now_ms = now_ms();
    let mut done = Done::default();
    let mut tx = app.store().begin().await?;
    let mut events = Vec::new();
    let mut told = Vec::new();
    for write in writes {
        if let Write::Events { host, detected, refused } = write {
            for one in detected {
                events.push(&one.event);
                told.push((one.raise.as_ref(), one.item.as_ref()));
            }
            if *refused > 0 {
                events_refused_add(&mut tx, *host, *refused).await?;
                done.refused += refused.unsigned_abs();
            }
        }
    }
    events_write(app, &mut tx, &events, &told, now_ms, &mut done).await?;
    heartbeats_write(&mut tx, writes, now_ms, &mut done).await?;
    seen_write(app, &mut tx, writes, now_ms, &mut done).await?;
    let changes: Vec<Change> = done.changes.iter().copied().collect();
    app.commit(tx, &changes).await?;
    Ok(done)
}

async fn heartbeats_write(
    tx: &mut Tx,
    writes: &[&Write],
    now_ms: i64,
    done: &mut Done,
) -> Result<(), StoreError> {
    let mut beats: Vec<(Admitted, &str, &[Reason])> = Vec::new();
    for write in writes {
        if let Write::Heartbeat { admitted, json, reasons } = write {
            beats.push((*admitted, json, reasons));
        }
    }
    // In one order everywhere, as above.
    beats.sort_by_key(|(admitted, ..)| admitted.host);
    for (admitted, json, reasons) in beats {
        match reconcile::heartbeat(tx, &admitted, json, reasons, now_ms).await? {
            Some(changes) => {
                done.heartbeats += 1;
                done.changes.extend(changes);
            }
            None => done.stale += 1,
        }
    }
    Ok(())
}

async fn seen_write(
    app: &App,
    tx: &mut Tx,
    writes: &[&Write],
    now_ms: i64,
    done: &mut Done,
) -> Result<(), StoreError> {
    let mut sessions: BTreeSet<Uuid> = writes
        .iter()
        .filter_map(|write| match write {
            Write::Seen { session } => Some(*session),
            Write::Events { .. } | Write::Heartbeat { .. } => None,
        })
        .collect();
    for session in hosts_seen(tx, &sessions, now_ms).await? {
        sessions.remove(&session);
        done.heartbeats += 1;
    }
    // Not the host's stream any more, or it stands as silent: written whole instead.
    for session in sessions {
        app.0.beats.forget(session);
    }
    Ok(())
}

async fn events_write(
    app: &App,
    tx: &mut Tx,
    events: &[&NewEvent],
    told: &[(Option<&Raise>, Option<&ItemNews>)],
    now_ms: i64,
    done: &mut Done,
) -> Result<(), StoreError> {
    let placed = events_insert(tx, events).await?;
    // In one order everywhere, so that two managers never wait for each other.
    let mut totals: BTreeMap<(i64, &str), (i64, i64)> = BTreeMap::new();
    let mut groups: BTreeMap<&[u8], (Raise, Vec<i64>)> = BTreeMap::new();
    let mut items = Vec::new();
    for ((event, (raise, item)), place) in events.iter().zip(told).zip(&placed) {
        if !place.new {
            done.doubled += 1;
            continue;
        }
        done.stored += 1;
        let day = crate::store::numbers::time_of(place.number).div_euclid(DAY_MS);
        let total = totals.entry((day, &event.kind)).or_default();
        total.0 += 1;
        total.1 += i64::try_from(event.body.len()).unwrap_or(i64::MAX);
        items.extend(item.map(|news| (news, place.number)));
        let Some(raise) = raise else { continue };
        done.detections += 1;
        match groups.get_mut(raise.group_key.as_slice()) {
            Some((sum, numbers)) => {
                sum.count += 1;
                sum.simulated &= raise.simulated;
                sum.first_ms = sum.first_ms.min(raise.first_ms);
                if raise.last_ms >= sum.last_ms {
                    sum.last_ms = raise.last_ms;
                    sum.evidence.clone_from(&raise.evidence);
                }
                numbers.push(place.number);
            }
            None => {
                groups.insert(&raise.group_key, ((*raise).clone(), vec![place.number]));
            }
        }
    }
    for ((day, kind), (count, bytes)) in totals {
        totals_add(tx, day, kind, app.0.instance, count, bytes).await?;
    }
    items.sort_by_key(|(news, _)| (news.host, news.item));
    for (news, number) in items {
        item_note(tx, news, number, now_ms).await?;
    }
    for (raise, numbers) in groups.into_values() {
        let alert = alert_raise(tx, &raise, now_ms).await?;
        for number in numbers {
            alert_event_link(tx, alert.number, number).await?;
        }
        done.changes.insert(Change::Alert(alert.id));
    }
    Ok(())
}
