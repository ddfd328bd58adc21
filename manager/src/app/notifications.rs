//! Channels: the places where alerts are told.
//!
//! INVARIANT: a secret goes in and never comes out: not in an answer, not in the audit log, not in
//! a log line; and when a channel is led elsewhere, the secret must be given again.

use std::time::Instant;

use serde_json::{Value, json};
use uuid::Uuid;

use super::change::Change;
use super::{App, AppError, audit, now_ms};
use crate::notify::notice::{Evidence, Notice};
use crate::notify::{self, ChannelConfig, Message, Secret};
use crate::store::alerts::alert_clear;
use crate::store::notifications::{self as store, Channel, Waiting, level_number};

/// Channels at most: each detection is counted for each.
const MOST: usize = 32;
/// Longest window, seconds.
const WINDOW_S: u32 = 86_400;
/// Bytes of a secret.
const SECRET: usize = 1024;

/// A channel that is wanted.
#[derive(Debug, Clone)]
pub struct NewChannel {
    /// For people; unique.
    pub name: String,
    /// Where to.
    pub config: ChannelConfig,
    /// The secret. Nothing: the one that is there stays; empty: there is none any more.
    pub secret: Option<Secret>,
    /// Whether it is used.
    pub enabled: bool,
    /// Lowest level.
    pub min_level: String,
    /// How long alerts of one host and model are gathered, seconds.
    pub window_s: u32,
}

/// A channel, and how it stands.
#[derive(Debug, Clone)]
pub struct ChannelState {
    /// The channel. Its secret is sealed.
    pub channel: Channel,
    /// Where to.
    pub config: ChannelConfig,
    /// What waits.
    pub waiting: Waiting,
}

/// What the other side said to a test.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TestAnswer {
    /// Whether it took the message.
    pub taken: bool,
    /// Its words, or what went wrong.
    pub answer: String,
    /// How long it took, milliseconds.
    pub took_ms: u64,
}

impl App {
    /// All channels, by name.
    ///
    /// # Errors
    /// [`AppError`]
    pub async fn notification_list(&self) -> Result<Vec<ChannelState>, AppError> {
        let mut list = Vec::new();
        for channel in self.store().channel_list().await? {
            list.push(self.channel_state(channel).await?);
        }
        Ok(list)
    }

    /// A channel.
    ///
    /// # Errors
    /// [`AppError`]
    pub async fn notification_get(&self, id: Uuid) -> Result<ChannelState, AppError> {
        let channel = self.store().channel_get(id).await?;
        self.channel_state(channel.ok_or(AppError::NotFound("notification channel"))?).await
    }

    async fn channel_state(&self, channel: Channel) -> Result<ChannelState, AppError> {
        let config = config_read(&channel)?;
        let waiting = self.store().channel_waiting(channel.id).await?;
        Ok(ChannelState { channel, config, waiting })
    }

    /// Makes a channel. Detections from now on are told there.
    ///
    /// # Errors
    /// [`AppError`]
    pub async fn notification_create(
        &self,
        new: NewChannel,
        actor: &str,
    ) -> Result<ChannelState, AppError> {
        if self.store().channel_list().await?.len() >= MOST {
            return Err(AppError::Conflict(format!("there are {MOST} channels already")));
        }
        let secret = new.secret.clone().filter(|secret| !secret.0.is_empty());
        let mut channel = self.channel_check(Uuid::now_v7(), &new, secret.as_ref())?;
        channel.created_ms = now_ms();
        let mut tx = self.store().begin().await?;
        if !store::channel_insert(&mut tx, &channel).await? {
            return Err(AppError::Conflict("this name is taken".to_owned()));
        }
        let (action, detail) = ("notification.create", detail(&new));
        let head = audit::append(&mut tx, actor, action, &channel.id.to_string(), &detail).await?;
        self.commit(tx, &[]).await?;
        self.audit_remember(&head);
        self.notification_get(channel.id).await
    }

    /// Changes a channel. What waits for it goes the new way.
    ///
    /// # Errors
    /// [`AppError`]; `Invalid` when the channel leads elsewhere and its secret was not given again.
    pub async fn notification_edit(
        &self,
        id: Uuid,
        new: NewChannel,
        actor: &str,
    ) -> Result<ChannelState, AppError> {
        let old = self.notification_get(id).await?;
        let secret = match &new.secret {
            Some(secret) => Some(secret.clone()).filter(|secret| !secret.0.is_empty()),
            None if old.channel.secret.is_none() => None,
            None if old.config.destination() == new.config.destination() => {
                self.channel_secret(&old.channel)?
            }
            None => {
                return Err(AppError::Invalid(
                    "secret: give it again, since the channel leads elsewhere".to_owned(),
                ));
            }
        };
        let mut channel = self.channel_check(id, &new, secret.as_ref())?;
        channel.changed_ms = now_ms();
        let mut tx = self.store().begin().await?;
        if !store::channel_update(&mut tx, &channel).await? {
            return Err(AppError::Conflict("this name is taken".to_owned()));
        }
        let detail = detail(&new);
        let (action, target) = ("notification.edit", id.to_string());
        let head = audit::append(&mut tx, actor, action, &target, &detail).await?;
        self.commit(tx, &[]).await?;
        self.audit_remember(&head);
        self.notification_get(id).await
    }

    /// Removes a channel; what waited for it, which is noted in the audit log.
    ///
    /// # Errors
    /// [`AppError`]
    pub async fn notification_delete(&self, id: Uuid, actor: &str) -> Result<Waiting, AppError> {
        let old = self.notification_get(id).await?;
        let mut tx = self.store().begin().await?;
        let waiting = store::channel_delete(&mut tx, id).await?;
        let mut changes = Vec::new();
        if let Some(alarm) = &old.channel.alarm {
            changes.extend(alert_clear(&mut tx, alarm, now_ms()).await?.map(Change::Alert));
        }
        let detail = json!({ "name": old.channel.name, "alerts_not_told": waiting.alerts,
            "detections_not_told": waiting.detections });
        let (action, target) = ("notification.delete", id.to_string());
        let head = audit::append(&mut tx, actor, action, &target, &detail).await?;
        self.commit(tx, &changes).await?;
        self.audit_remember(&head);
        Ok(waiting)
    }

    /// Sends a test message now, past the queue.
    ///
    /// # Errors
    /// [`AppError`]; that the other side did not take it is an answer, not an error.
    pub async fn notification_test(&self, id: Uuid, actor: &str) -> Result<TestAnswer, AppError> {
        let state = self.notification_get(id).await?;
        let secret = self.channel_secret(&state.channel)?;
        let mut tx = self.store().begin().await?;
        let (action, target) = ("notification.test", id.to_string());
        let head = audit::append(&mut tx, actor, action, &target, &json!({})).await?;
        self.commit(tx, &[]).await?;
        self.audit_remember(&head);
        let message = test_message(&state.channel.name, actor);
        let began = Instant::now();
        let allowed = &self.0.settings.notify;
        let sent = notify::send(&state.config, secret.as_ref(), allowed, &message).await;
        let took_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
        Ok(match sent {
            Ok(answer) => TestAnswer { taken: true, answer, took_ms },
            Err(error) => TestAnswer { taken: false, answer: error.message, took_ms },
        })
    }

    /// A channel's secret, opened.
    pub(super) fn channel_secret(&self, channel: &Channel) -> Result<Option<Secret>, AppError> {
        let Some(sealed) = &channel.secret else { return Ok(None) };
        Ok(Some(Secret(self.0.vault.unseal(channel.id, sealed)?)))
    }

    fn channel_check(
        &self,
        id: Uuid,
        new: &NewChannel,
        secret: Option<&Secret>,
    ) -> Result<Channel, AppError> {
        let invalid = |message: &str| Err(AppError::Invalid(message.to_owned()));
        if new.name.is_empty() || new.name.len() > 100 || new.name.chars().any(char::is_control) {
            return invalid("name: 1 to 100 bytes, one line");
        }
        if new.window_s > WINDOW_S {
            return invalid("window_s: at most a day");
        }
        let levels = ["informational", "low", "medium", "high", "critical"];
        if !levels.contains(&new.min_level.as_str()) {
            return invalid("min_level: informational, low, medium, high or critical");
        }
        let text = secret.map(|secret| secret.0.as_str());
        if text.is_some_and(|text| text.len() > SECRET || text.chars().any(char::is_control)) {
            return invalid("secret: at most 1024 bytes, one line");
        }
        new.config.check(text, &self.0.settings.notify).map_err(AppError::Invalid)?;
        let config = serde_json::to_string(&new.config)
            .map_err(|error| AppError::Invalid(format!("config: {error}")))?;
        let sealed = text.map(|text| self.0.vault.seal(id, text)).transpose()?;
        Ok(Channel {
            id,
            name: new.name.clone(),
            config,
            secret: sealed,
            enabled: new.enabled,
            min_level: level_number(&new.min_level),
            window_ms: i64::from(new.window_s) * 1000,
            created_ms: 0,
            changed_ms: 0,
            next_ms: 0,
            failures: 0,
            error: String::new(),
            error_ms: None,
            sent_ms: None,
            messages: 0,
            detections: 0,
            alarm: None,
        })
    }
}

pub(super) fn config_read(channel: &Channel) -> Result<ChannelConfig, AppError> {
    let read = serde_json::from_str(&channel.config);
    Ok(read.map_err(|error| super::StoreError::corrupt("read a notification channel", error))?)
}

fn detail(new: &NewChannel) -> Value {
    json!({
        "name": new.name, "config": new.config, "enabled": new.enabled,
        "min_level": new.min_level, "window_s": new.window_s,
        "secret": if new.secret.is_some() { "given" } else { "not given" },
    })
}

fn test_message(name: &str, actor: &str) -> Message {
    let now_ms = now_ms();
    let notice = Notice {
        alert: Uuid::nil(),
        host: rustix::system::uname().nodename().to_string_lossy().into_owned(),
        addresses: Vec::new(),
        kind: "test".to_owned(),
        model: "test".to_owned(),
        title: format!("Test of the channel {name}, asked for by {actor}"),
        level: "informational".to_owned(),
        attack: Vec::new(),
        simulated: false,
        count: 1,
        first_ms: now_ms,
        last_ms: now_ms,
        evidence: Evidence::Other(Value::Null),
    };
    Message { id: Uuid::now_v7(), created_ms: now_ms, test: true, notices: vec![notice] }
}
