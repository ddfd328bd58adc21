//! Tells alerts: makes messages of what is queued and sends them, each until it was taken.
//!
//! At least once: a message leaves the queue after the other side took it; a manager that dies in
//! between sends it again, with the same id. One message of a channel at a time, and of several
//! managers the one with the channel's lease. While a channel fails, what comes in is counted on
//! what waits already, so an outage ends in few messages, not in many.

use std::collections::HashSet;
use std::time::Duration;

use serde_json::json;
use tokio::task::JoinSet;
use uuid::Uuid;

use super::change::Change;
use super::detection::group_key;
use super::notifications::config_read;
use super::{App, AppError, now_ms};
use crate::notify::notice::{Evidence, Notice};
use crate::notify::{self, ATTEMPT, ChannelConfig, Message, SendError, back_off};
use crate::store::Tx;
use crate::store::alerts::{Raise, alert_clear, alert_raise};
use crate::store::deliveries::{self, Delivery, Failure, Told};
use crate::store::notifications::{self, Channel};

/// Between two looks at what is due.
const LOOK: Duration = Duration::from_millis(500);
/// How long a manager has a channel: longer than an attempt.
const LEASE_MS: i64 = 40_000;
/// Longest pause of a channel, and of one message.
const CHANNEL_PAUSE: Duration = Duration::from_secs(300);
const MESSAGE_PAUSE: Duration = Duration::from_secs(3600);
/// Alerts of one message.
const MOST_ALERTS: i64 = 500;
/// Groups that are told apart; when more are due at once, they share a message.
const MOST_GROUPS: usize = 5;
/// Bytes of evidence in one message.
const EVIDENCE: usize = 1 << 20;
/// Failures in a row, of a channel or a message, that are an alert.
pub(super) const ALARM: i64 = 5;
const KIND: &str = "notification";

const _: () = assert!(LEASE_MS as u128 >= 2 * ATTEMPT.as_millis());

/// Tells until the manager ends.
pub(super) async fn run(app: App) {
    let mut ending = app.ending();
    let mut tick = tokio::time::interval(LOOK);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut busy: HashSet<Uuid> = HashSet::new();
    let mut running: JoinSet<Uuid> = JoinSet::new();
    loop {
        tokio::select! {
            _ = ending.wait_for(|ending| *ending) => break,
            Some(done) = running.join_next() => {
                match done {
                    Ok(channel) => { busy.remove(&channel); }
                    Err(error) => {
                        tracing::error!(%error, "telling alerts failed; that is a bug");
                        if running.is_empty() {
                            busy.clear();
                        }
                    }
                }
                continue;
            }
            _ = tick.tick() => {}
        }
        match app.store().channels_due(now_ms()).await {
            Ok(due) => {
                for channel in due {
                    if busy.insert(channel) {
                        let app = app.clone();
                        running.spawn(async move {
                            if let Err(error) = app.channel_tell(channel).await {
                                let chain: &(dyn std::error::Error + 'static) = &error;
                                tracing::error!(error = chain, %channel, "cannot tell alerts");
                            }
                            channel
                        });
                    }
                }
            }
            Err(error) => tracing::error!(%error, "cannot look for notifications"),
        }
    }
    // What is on its way gets a moment; what is cut off is sent again by the next manager.
    let rest = async { while running.join_next().await.is_some() {} };
    let _ = tokio::time::timeout(Duration::from_secs(5), rest).await;
}

impl App {
    /// Sends what is due for a channel, one message after another, until nothing is or one fails.
    async fn channel_tell(&self, id: Uuid) -> Result<(), AppError> {
        let ending = self.ending();
        while !*ending.borrow() {
            let now_ms = now_ms();
            let mut tx = self.store().begin().await?;
            let until_ms = now_ms + LEASE_MS;
            let leased =
                notifications::channel_lease(&mut tx, id, self.0.instance, now_ms, until_ms)
                    .await?;
            let Some(channel) = leased else { return Ok(()) };
            let next = next_delivery(&mut tx, id, now_ms).await?;
            tx.commit().await?;
            let Some(delivery) = next else { return Ok(()) };
            if !self.delivery_try(&channel, &delivery).await? {
                return Ok(());
            }
        }
        Ok(())
    }

    /// One attempt; whether it was taken.
    async fn delivery_try(&self, channel: &Channel, delivery: &Delivery) -> Result<bool, AppError> {
        let told = self.store().delivery_alerts(delivery.id).await?;
        let sent = match told.first() {
            // Its alerts are gone: nothing to tell.
            None => Ok(String::new()),
            Some(_) => self.delivery_send(channel, delivery, &told).await,
        };
        match sent {
            Ok(_) => self.delivery_taken(channel, delivery).await.map(|()| true),
            Err(error) => {
                self.delivery_not_taken(channel, delivery, &told, &error).await.map(|()| false)
            }
        }
    }

    async fn delivery_send(
        &self,
        channel: &Channel,
        delivery: &Delivery,
        told: &[Told],
    ) -> Result<String, SendError> {
        let config = config_read(channel).map_err(local)?;
        let secret = self.channel_secret(channel).map_err(local)?;
        let message = self.message(&config, delivery, told).await.map_err(local)?;
        notify::send(&config, secret.as_ref(), &self.0.settings.notify, &message).await
    }

    async fn message(
        &self,
        config: &ChannelConfig,
        delivery: &Delivery,
        told: &[Told],
    ) -> Result<Message, AppError> {
        let mut notices = Vec::with_capacity(told.len());
        let mut room = EVIDENCE;
        for (at, told) in told.iter().enumerate() {
            let mut evidence = Evidence::LeftOut;
            if at < config.details() && room > 0 {
                let json = self.store().alert_evidence(told.number).await?;
                room = room.saturating_sub(json.len());
                evidence = Evidence::of_json(&json);
            }
            notices.push(notice(told, evidence));
        }
        Ok(Message { id: delivery.id, created_ms: delivery.created_ms, test: false, notices })
    }

    async fn delivery_taken(&self, channel: &Channel, delivery: &Delivery) -> Result<(), AppError> {
        let now_ms = now_ms();
        let mut tx = self.store().begin().await?;
        let stuck = deliveries::delivery_done(&mut tx, channel, delivery.id, now_ms, ALARM).await?;
        let mut changes = Vec::new();
        if let Some(alarm) = channel.alarm.as_ref().filter(|_| !stuck) {
            changes.extend(alert_clear(&mut tx, alarm, now_ms).await?.map(Change::Alert));
            notifications::alarm_set(&mut tx, channel.id, None).await?;
        }
        Ok(self.commit(tx, &changes).await?)
    }

    async fn delivery_not_taken(
        &self,
        channel: &Channel,
        delivery: &Delivery,
        told: &[Told],
        error: &SendError,
    ) -> Result<(), AppError> {
        let now_ms = now_ms();
        tracing::warn!(channel = channel.name, error = error.message, "a message was not taken");
        let failures = channel.failures.saturating_add(1);
        let attempts = delivery.attempts.saturating_add(1);
        let failure = Failure {
            now_ms,
            refused: error.refused,
            error: error.message.clone(),
            delivery_next_ms: now_ms + back_off(attempts, MESSAGE_PAUSE),
            channel_next_ms: now_ms + back_off(failures, CHANNEL_PAUSE),
        };
        let mut tx = self.store().begin().await?;
        if !deliveries::delivery_failed(&mut tx, channel.id, delivery.id, &failure).await? {
            // Removed meanwhile, with all that waited for it.
            return Ok(());
        }
        let mut changes = Vec::new();
        let alarming = failures >= ALARM || attempts >= ALARM;
        if let (Some(first), None, true) = (told.first(), &channel.alarm, alarming) {
            let raise = alarm(channel, first, &failure, failures.max(attempts));
            let raised = alert_raise(&mut tx, &raise, now_ms).await?;
            notifications::alarm_set(&mut tx, channel.id, Some(raise.group_key)).await?;
            changes.push(Change::Alert(raised.id));
        }
        Ok(self.commit(tx, &changes).await?)
    }
}

/// What went wrong here, before anything was sent.
fn local(error: AppError) -> SendError {
    let mut message = error.to_string();
    let mut source = std::error::Error::source(&error);
    while let Some(error) = source {
        message = format!("{message}: {error}");
        source = error.source();
    }
    SendError::later(message)
}

/// The oldest message that is due, or a new one of what waits.
async fn next_delivery(
    tx: &mut Tx,
    channel: Uuid,
    now_ms: i64,
) -> Result<Option<Delivery>, AppError> {
    if let Some(delivery) = deliveries::delivery_due(tx, channel, now_ms).await? {
        return Ok(Some(delivery));
    }
    let limit = i64::try_from(MOST_GROUPS).unwrap_or(i64::MAX) + 1;
    let groups = deliveries::groups_due(tx, channel, now_ms, limit).await?;
    let Some(first) = groups.first() else { return Ok(None) };
    let group = (groups.len() <= MOST_GROUPS).then_some(first);
    let (delivery, alerts) =
        deliveries::delivery_make(tx, channel, group, MOST_ALERTS, now_ms).await?;
    Ok((alerts > 0).then_some(delivery))
}

fn notice(told: &Told, evidence: Evidence) -> Notice {
    let facts: serde_json::Value = serde_json::from_str(&told.facts).unwrap_or_default();
    let addresses = facts["addresses"].as_array().map(Vec::as_slice).unwrap_or_default();
    let addresses = addresses.iter().filter_map(|address| address.as_str()).take(16);
    Notice {
        alert: told.alert,
        host: told.host_name.clone(),
        addresses: addresses.map(|text| super::cut(text, 64).to_owned()).collect(),
        kind: told.kind.clone(),
        model: told.model.clone(),
        title: told.title.clone(),
        level: told.level.clone(),
        attack: told.attack.split_whitespace().map(str::to_owned).collect(),
        simulated: told.simulated,
        count: told.count,
        first_ms: told.first_ms,
        last_ms: told.last_ms,
        evidence,
    }
}

/// The alert that a channel fails. Every alert is a host's: it is that of the first host whose
/// alert could not be told.
fn alarm(channel: &Channel, first: &Told, failure: &Failure, failures: i64) -> Raise {
    let title = format!(
        "alerts of {} are not told by {}: {failures} failures, the last: {}",
        first.host_name, channel.name, failure.error
    );
    let id = channel.id.to_string();
    Raise {
        host: first.host,
        kind: KIND,
        group_key: group_key(first.host, KIND, &id, ""),
        model: id,
        cause: channel.name.clone(),
        title: super::cut(&title, 500).to_owned(),
        level: "high".to_owned(),
        attack: String::new(),
        simulated: false,
        count: 1,
        first_ms: failure.now_ms,
        last_ms: failure.now_ms,
        evidence: json!({ "channel": channel.name, "error": failure.error, "failures": failures })
            .to_string(),
    }
}
