//! What `/metrics` shows: numbers of the database, and what was counted since the start.

use std::sync::atomic::Ordering;

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;

use super::problem::Problem;
use crate::app::{App, AppError, Counters, LinkCounters};

/// The registry is made at each look: all numbers stand elsewhere.
pub(super) struct Metrics {
    prefix: &'static str,
}

impl Metrics {
    pub(super) const fn new() -> Self {
        Self { prefix: "holdfast" }
    }

    pub(super) async fn text(&self, app: &App) -> Result<String, Problem> {
        let hosts = app.host_counts().await?;
        let alerts = app.alert_open_count().await?;
        let tasks = app.task_open_count().await?;
        let totals = app.event_totals().await?;
        let bytes: i64 = totals.iter().map(|total| total.bytes).sum();
        let events: i64 = totals.iter().map(|total| total.events).sum();
        let mut registry = Registry::with_prefix(self.prefix);
        for (name, help, value) in [
            ("hosts_green", "Hosts that are fine", hosts.green),
            ("hosts_red", "Hosts that are not fine", hosts.red),
            ("hosts_new", "Hosts that were never heard of", hosts.new),
            ("hosts_connected", "Hosts with a stream", hosts.connected),
            ("alerts_open", "Alerts that are not resolved", alerts),
            ("tasks_open", "Response tasks that are not at their end", tasks),
            ("events_kept", "Events that are kept", events),
            ("events_kept_bytes", "Their bytes", bytes),
        ] {
            registry.register(name, help, ConstGauge::new(value));
        }
        let link = &app.counters().link;
        let agents = i64::try_from(link.agents.load(Ordering::Relaxed)).unwrap_or(i64::MAX);
        registry.register(
            "link_agents",
            "Agents' streams at this manager",
            ConstGauge::new(agents),
        );
        for (name, help, value) in counted(app.counters()).into_iter().chain(at_port(link)) {
            registry.register(name, help, ConstCounter::new(value));
        }
        let mut text = String::new();
        encode(&mut text, &registry).map_err(|error| {
            Problem::from(AppError::File {
                operation: "write metrics",
                source: std::io::Error::other(error),
            })
        })?;
        Ok(text)
    }
}

fn counted(counters: &Counters) -> [(&'static str, &'static str, u64); 11] {
    [
        ("events_stored", "Events kept", counters.events_stored.get()),
        ("events_doubled", "Events that were there already", counters.events_doubled.get()),
        ("events_refused", "What agents sent and was no event", counters.events_refused.get()),
        ("heartbeats", "Heartbeats kept", counters.heartbeats.get()),
        ("stale_messages", "Messages of streams that ended", counters.stale_messages.get()),
        ("detections", "Detections counted on alerts", counters.detections.get()),
        ("streams_admitted", "Streams let in", counters.admitted.get()),
        ("streams_refused", "Streams refused", counters.refused.get()),
        ("progress_refused", "Progress of tasks not taken", counters.progress_refused.get()),
        ("sign_in_failures", "Sign-ins that failed", counters.sign_in_failures.get()),
        ("batches_split", "Batches written one by one", counters.batches_split.get()),
    ]
}

fn at_port(link: &LinkCounters) -> [(&'static str, &'static str, u64); 5] {
    [
        ("link_accepted", "Connections accepted", &link.accepted),
        ("link_failed", "Handshakes that failed or took too long", &link.failed),
        ("link_turned_away", "Connections that found no place", &link.turned_away),
        ("link_refused", "Streams and requests refused", &link.refused),
        ("link_ended", "Streams ended for what they sent, or for silence", &link.ended),
    ]
    .map(|(name, help, counter)| (name, help, counter.load(Ordering::Relaxed)))
}
