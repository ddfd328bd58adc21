//! What time alone changes, and hosts' health: silent hosts, overdue tasks, old sign-ins.
//!
//! Each look is idempotent, and several managers may look at once: on PostgreSQL rows that another
//! one looks at are skipped.

use std::collections::BTreeSet;

use holdfast_common::task::Stage;

use super::change::Change;
use super::detection::group_key;
use super::health::Reason;
use super::{Admitted, App, RECONCILE, SILENCE, StoreError, now_ms};
use crate::store::Tx;
use crate::store::alerts::{Raise, Raised, alert_clear, alert_raise};
use crate::store::hosts::{self, Host, NewHealth};
use crate::store::tasks::{task_update, tasks_overdue};
use crate::store::users::credentials_expire;

const KIND: &str = "health";

/// Looks again and again until the manager ends.
pub(super) async fn run(app: App) {
    let mut ending = app.ending();
    let mut tick = tokio::time::interval(RECONCILE);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = ending.wait_for(|ending| *ending) => return,
            _ = tick.tick() => {}
        }
        let now_ms = now_ms();
        if let Err(error) = app.silent_look(now_ms).await {
            tracing::error!(%error, "cannot look for silent hosts");
        }
        if let Err(error) = app.overdue_look(now_ms).await {
            tracing::error!(%error, "cannot look for overdue tasks");
        }
        if let Err(error) = app.denials_look(now_ms).await {
            tracing::error!(%error, "cannot take back denials that have ended");
        }
        if let Err(error) = app.shells_look().await {
            tracing::error!(%error, "cannot look for shells that have ended");
        }
        if let Err(error) = app.sign_ins_forget(now_ms).await {
            tracing::error!(%error, "cannot forget old sign-ins");
        }
    }
}

impl App {
    /// Makes hosts red that were silent for [`SILENCE`] at this time.
    ///
    /// # Errors
    /// [`StoreError`]
    pub async fn silent_look(&self, now_ms: i64) -> Result<(), StoreError> {
        let silence = i64::try_from(SILENCE.as_millis()).unwrap_or(i64::MAX);
        loop {
            let mut tx = self.store().begin().await?;
            let silent = hosts::hosts_silent(&mut tx, now_ms.saturating_sub(silence)).await?;
            if silent.is_empty() {
                return Ok(());
            }
            let mut changes = Vec::new();
            for host in &silent {
                let seconds = now_ms.saturating_sub(host.seen_ms) / 1000;
                // What was wrong when it was last heard of is not over.
                let mut reasons = reasons_of(host)?;
                reasons.push(Reason::new("silent", format!("no heartbeat for {seconds} s")));
                changes.extend(health_change(&mut tx, host, &reasons, now_ms).await?);
            }
            self.commit(tx, &changes).await?;
        }
    }

    async fn overdue_look(&self, now_ms: i64) -> Result<(), StoreError> {
        loop {
            let mut tx = self.store().begin().await?;
            let overdue = tasks_overdue(&mut tx, now_ms).await?;
            if overdue.is_empty() {
                return Ok(());
            }
            let mut changes = Vec::new();
            for mut task in overdue {
                task.stage = Stage::Expired;
                task.ended_ms = Some(now_ms);
                "the agent did not take it in time".clone_into(&mut task.observed);
                super::tasks::password_forget(&mut task);
                task_update(&mut tx, &task).await?;
                changes.push(Change::Task { host: task.host, task: task.id });
            }
            self.commit(tx, &changes).await?;
        }
    }

    async fn sign_ins_forget(&self, now_ms: i64) -> Result<(), StoreError> {
        let mut tx = self.store().begin().await?;
        credentials_expire(&mut tx, now_ms).await?;
        tx.commit().await
    }
}

/// Keeps a heartbeat; what changed by it, or nothing when the stream is not the host's any more.
pub(super) async fn heartbeat(
    tx: &mut Tx,
    admitted: &Admitted,
    json: &str,
    reasons: &[Reason],
    now_ms: i64,
) -> Result<Option<Vec<Change>>, StoreError> {
    let before = hosts::heartbeat_update(tx, admitted.session, json, now_ms).await?;
    let Some(before) = before else { return Ok(None) };
    health_change(tx, &before, reasons, now_ms).await.map(Some)
}

/// Writes a host's health; reasons that are new raise alerts, those that are gone clear theirs.
async fn health_change(
    tx: &mut Tx,
    before: &Host,
    reasons: &[Reason],
    now_ms: i64,
) -> Result<Vec<Change>, StoreError> {
    let json = serde_json::to_string(reasons)
        .map_err(|error| StoreError::corrupt("keep a host's health", error))?;
    let health = NewHealth {
        health: if reasons.is_empty() { "green" } else { "red" },
        reasons: json,
        now_ms,
    };
    hosts::health_update(tx, before, &health).await?;
    let old = reasons_of(before)?;
    let old_names: BTreeSet<&str> = old.iter().map(|reason| reason.name.as_str()).collect();
    let new_names: BTreeSet<&str> = reasons.iter().map(|reason| reason.name.as_str()).collect();
    let mut changes = Vec::new();
    for name in new_names.difference(&old_names) {
        if let Some(reason) = reasons.iter().find(|reason| reason.name == **name) {
            let alert = health_raise(tx, before.number, &before.name, reason, now_ms).await?;
            changes.push(Change::Alert(alert.id));
        }
    }
    for name in old_names.difference(&new_names) {
        let key = group_key(before.number, KIND, name, "");
        changes.extend(alert_clear(tx, &key, now_ms).await?.map(Change::Alert));
    }
    if before.health != health.health || !changes.is_empty() {
        changes.push(Change::Host(before.id));
    }
    Ok(changes)
}

fn reasons_of(host: &Host) -> Result<Vec<Reason>, StoreError> {
    serde_json::from_str(&host.reasons)
        .map_err(|error| StoreError::corrupt("read a host's health", error))
}

/// An alert about a host itself.
pub(super) async fn health_raise(
    tx: &mut Tx,
    host: i64,
    name: &str,
    reason: &Reason,
    now_ms: i64,
) -> Result<Raised, StoreError> {
    let evidence = serde_json::to_string(reason)
        .map_err(|error| StoreError::corrupt("raise a health alert", error))?;
    let raise = Raise {
        host,
        kind: KIND,
        group_key: group_key(host, KIND, &reason.name, ""),
        model: reason.name.clone(),
        cause: String::new(),
        title: format!("{name}: {}: {}", reason.name, reason.evidence),
        level: "high".to_owned(),
        attack: String::new(),
        simulated: false,
        count: 1,
        first_ms: now_ms,
        last_ms: now_ms,
        evidence,
    };
    alert_raise(tx, &raise, now_ms).await
}
