//! Events: what agents send, and what people look for.

use std::time::Instant;

use bytes::Bytes;
use holdfast_common::event::{Event, EventBody};
use holdfast_common::link::Heartbeat;
use serde::Deserialize;
use uuid::Uuid;

use super::health::Reason;
use super::writer::{Detected, Write};
use super::{Admitted, App, AppError, StoreError, detection, health, now_ms, quarantine};
use crate::query::Expr;
use crate::store::events::NewEvent;
use crate::store::index::Indexed;
use crate::store::retention::KindTotal;
use crate::store::search::{Search, StoredEvent};

/// Bytes of one event.
const LARGEST: usize = 256 << 10;
/// Bytes of a heartbeat's JSON.
const HEARTBEAT: usize = 256 << 10;

/// One page of events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventPage {
    /// Newest first.
    pub events: Vec<StoredEvent>,
    /// Where the next page begins; nothing when this is the last.
    pub next: Option<i64>,
}

/// What an event must have, even when the rest of it is a newer agent's.
#[derive(Deserialize)]
struct Envelope {
    id: Uuid,
    time_ms: i64,
    kind: String,
    host: Option<String>,
}

impl App {
    /// Stores events (JSON of `event::Event` each). When it returns they are on disk, each once,
    /// and detections among them are alerts. What is no event is counted on the host and dropped.
    ///
    /// # Errors
    /// [`StoreError`]; do not acknowledge, send again.
    pub async fn events_store(&self, host: Uuid, events: Vec<Bytes>) -> Result<(), StoreError> {
        let Some(host) = self.host_ref(host).await? else {
            return Err(StoreError::corrupt("store events", "no such host"));
        };
        let now_ms = now_ms();
        let mut detected = Vec::with_capacity(events.len());
        let mut refused = 0;
        for bytes in &events {
            match event_read(bytes, host.number, host.id, &host.name, now_ms) {
                Some(read) => detected.push(read),
                None => refused += 1,
            }
        }
        self.write(Write::Events { host: host.number, detected, refused }).await
    }

    /// Stores a sign of life and judges it. One of a stream that is not the host's any more is
    /// counted and dropped.
    ///
    /// # Errors
    /// [`StoreError`]
    pub async fn heartbeat_store(
        &self,
        admitted: Admitted,
        mut heartbeat: Heartbeat,
    ) -> Result<(), StoreError> {
        let reasons = health::judge(&heartbeat, now_ms());
        let session = admitted.session;
        if let Some(models) = heartbeat.models.take() {
            Box::pin(self.models_reported(admitted, models)).await?;
        }
        let said = (&heartbeat.status.policy, &heartbeat.status.denials);
        if self.0.beats.is_other(session, said) {
            self.policy_reported(admitted, said.0).await?;
            self.denials_reported(admitted, said.1).await?;
            self.0.beats.kept(session, said);
        }
        if !self.0.beats.is_due(session, &reasons, Instant::now()) {
            let seen = self.write(Write::Seen { session }).await;
            seen.inspect_err(|_| self.0.beats.forget(session))?;
            // Else it found nothing to note itself at: the host stands as silent, or has another
            // stream.
            if !self.0.beats.is_due(session, &reasons, Instant::now()) {
                return Ok(());
            }
        }
        let written = self.heartbeat_write(admitted, &heartbeat, reasons).await;
        written.inspect_err(|_| self.0.beats.forget(session))
    }

    async fn heartbeat_write(
        &self,
        admitted: Admitted,
        heartbeat: &Heartbeat,
        reasons: Vec<Reason>,
    ) -> Result<(), StoreError> {
        let failed = |error| StoreError::corrupt("keep a heartbeat", error);
        // As large as in `heartbeat_unpack`, for its reason; and not grown to it by copies.
        let mut json = Vec::with_capacity(20 << 10);
        serde_json::to_writer(&mut json, heartbeat).map_err(failed)?;
        let json = String::from_utf8(json)
            .map_err(|error| StoreError::corrupt("keep a heartbeat", error))?;
        if json.len() > HEARTBEAT {
            return Err(StoreError::corrupt("keep a heartbeat", "more than 256 KiB"));
        }
        self.write(Write::Heartbeat { admitted, json, reasons }).await
    }

    /// A page of events.
    ///
    /// # Errors
    /// [`AppError`]
    pub async fn event_search(
        &self,
        query: Expr,
        period: (i64, i64),
        before: Option<i64>,
        limit: u32,
    ) -> Result<EventPage, AppError> {
        let search =
            Search { query, from_ms: period.0, until_ms: period.1, before, limit: limit + 1 };
        Ok(page(self.store().event_search(&search).await?, limit))
    }

    /// One event.
    ///
    /// # Errors
    /// [`AppError`]
    pub async fn event_get(&self, number: i64) -> Result<StoredEvent, AppError> {
        self.store().event_get(number).await?.ok_or(AppError::NotFound("event"))
    }

    /// What is kept of each kind.
    ///
    /// # Errors
    /// [`AppError`]
    pub async fn event_totals(&self) -> Result<Vec<KindTotal>, AppError> {
        Ok(self.store().kind_totals().await?)
    }
}

/// One more than the page was asked for tells that there is another.
pub(super) fn page(mut events: Vec<StoredEvent>, limit: u32) -> EventPage {
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let more = events.len() > limit;
    events.truncate(limit);
    let next = events.last().filter(|_| more).map(|event| event.number);
    EventPage { events, next }
}

/// The whole event, when it is understood. What comes in masses is read without the detour over
/// `EventBody`, whose tag stands among its fields: serde keeps a copy of all of it until it has
/// found the tag. Kinds whose own fields are told apart in the same way have nothing to gain.
fn event_parse(envelope: &Envelope, body: &str) -> Option<Event> {
    let parsed = match envelope.kind.as_str() {
        "exec" => EventBody::Exec(serde_json::from_str(body).ok()?),
        "network" => EventBody::Network(serde_json::from_str(body).ok()?),
        "file" => EventBody::File(serde_json::from_str(body).ok()?),
        _ => return serde_json::from_str(body).ok(),
    };
    let host = envelope.host.clone()?;
    Some(Event { id: envelope.id, time_ms: envelope.time_ms, host, body: parsed })
}

fn event_read(
    bytes: &[u8],
    host: i64,
    host_id: Uuid,
    host_name: &str,
    received_ms: i64,
) -> Option<Detected> {
    let body = std::str::from_utf8(bytes).ok().filter(|body| body.len() <= LARGEST)?;
    let envelope: Envelope = serde_json::from_str(body).ok()?;
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    if envelope.kind.is_empty() || envelope.kind.len() > 40 || !envelope.kind.chars().all(plain) {
        return None;
    }
    let mut indexed = Indexed::envelope(envelope.id, &envelope.kind, host_id, host_name);
    // A newer agent's kind is kept and found by its envelope.
    let event = event_parse(&envelope, body);
    let (mut raise, mut item) = (None, None);
    if let Some(event) = &event {
        indexed = indexed.with_event(event);
        raise = detection::raise(event, host, body);
        item = quarantine::item_news(event, host);
    }
    let event = NewEvent {
        host,
        id: envelope.id,
        time_ms: envelope.time_ms,
        kind: envelope.kind,
        received_ms,
        body: body.to_owned(),
        indexed,
    };
    Some(Detected { event, raise, item })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn what_is_read_directly_is_what_the_tagged_body_says() {
        let process = json!({
            "key": { "pid": 7, "start_ns": 9 }, "parent": null, "exe": "/bin/ls", "comm": "ls",
            "args": ["ls"], "args_truncated": false, "uid": 0, "euid": 0, "login_uid": null,
            "user": "root", "cwd": "/", "container": null
        });
        let network = json!({ "action": "connect", "protocol": "tcp", "local_address": "::1",
                              "local_port": 1, "remote_address": "::2", "remote_port": 2 });
        let file = json!({ "action": "write", "path": "/etc/passwd", "class": "cron" });
        for (kind, more) in [("exec", json!({})), ("network", network), ("file", file)] {
            let mut event = json!({ "id": Uuid::now_v7(), "time_ms": 5, "host": "h", "kind": kind,
                                    "process": process, "parents": [process], "newer": [1] });
            let more = more.as_object().cloned().unwrap_or_default();
            event.as_object_mut().expect("an object").extend(more);
            let read = |event: &Value| {
                let text = event.to_string();
                let envelope: Envelope = serde_json::from_str(&text).expect("envelope");
                let slow: Option<Event> = serde_json::from_str(&text).ok();
                assert_eq!(event_parse(&envelope, &text), slow, "{text}");
                slow
            };
            assert!(read(&event).is_some(), "{event}");
            event["process"] = json!("hostile");
            assert!(read(&event).is_none(), "{event}");
        }
    }
}
