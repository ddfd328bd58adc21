//! Alerts: what people make of detections.

use serde_json::json;
use uuid::Uuid;

use super::change::Change;
use super::events::{EventPage, page};
use super::{App, AppError, audit, now_ms};
use crate::store::alerts::{self as store, Alert, AlertChange, AlertFilter, Note};
use crate::store::tasks::{Task, TaskFilter};

/// Bytes of a note.
const NOTE: usize = 10_000;

/// An alert with what belongs to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AlertDetail {
    /// The alert.
    pub alert: Alert,
    /// Its notes, oldest first.
    pub notes: Vec<Note>,
    /// Its response tasks, newest first, at most 100.
    pub tasks: Vec<Task>,
}

/// What people change; what is not named stays.
#[derive(Debug, Clone, Default)]
pub struct AlertEdit {
    /// `new`, `in_progress`, `resolved`.
    pub state: Option<String>,
    /// `true_positive`, `false_positive`, `ignored`, `allowed`; with `resolved` alone.
    pub resolution: Option<String>,
    /// Who looks after it; empty for nobody.
    pub assignee: Option<String>,
}

impl App {
    /// Alerts, those made last first.
    ///
    /// # Errors
    /// [`AppError`]
    pub async fn alert_list(&self, filter: &AlertFilter) -> Result<Vec<Alert>, AppError> {
        Ok(self.store().alert_list(filter).await?)
    }

    /// An alert with its notes and tasks.
    ///
    /// # Errors
    /// [`AppError`]
    pub async fn alert_get(&self, id: Uuid) -> Result<AlertDetail, AppError> {
        let alert = self.alert(id).await?;
        let notes = self.store().alert_note_list(alert.number).await?;
        let filter =
            TaskFilter { alert: Some(id), until_ms: i64::MAX, limit: 100, ..TaskFilter::default() };
        let tasks = self.store().task_list(&filter).await?;
        Ok(AlertDetail { alert, notes, tasks })
    }

    async fn alert(&self, id: Uuid) -> Result<Alert, AppError> {
        self.store().alert_get(id).await?.ok_or(AppError::NotFound("alert"))
    }

    /// A page of an alert's events, newest first.
    ///
    /// # Errors
    /// [`AppError`]
    pub async fn alert_events(
        &self,
        id: Uuid,
        before: Option<i64>,
        limit: u32,
    ) -> Result<EventPage, AppError> {
        let alert = self.alert(id).await?;
        let events = self.store().alert_event_list(alert.number, before, limit + 1).await?;
        Ok(page(events, limit))
    }

    /// How many alerts are not resolved.
    ///
    /// # Errors
    /// [`AppError`]
    pub async fn alert_open_count(&self) -> Result<i64, AppError> {
        Ok(self.store().alert_open_count().await?)
    }

    /// Changes an alert.
    ///
    /// # Errors
    /// [`AppError`]; `Conflict` when it was opened anew in the meantime.
    pub async fn alert_edit(
        &self,
        id: Uuid,
        edit: &AlertEdit,
        actor: &str,
    ) -> Result<AlertDetail, AppError> {
        let alert = self.alert(id).await?;
        let change = edit_apply(&alert, edit, now_ms())?;
        let mut tx = self.store().begin().await?;
        if !store::alert_update(&mut tx, alert.number, &change).await? {
            let message = "a newer alert of the same host, model and cause is open";
            return Err(AppError::Conflict(message.to_owned()));
        }
        let detail = json!({
            "state": change.state, "resolution": change.resolution, "assignee": change.assignee,
            "was": { "state": alert.state, "resolution": alert.resolution },
        });
        let head = audit::append(&mut tx, actor, "alert.edit", &id.to_string(), &detail).await?;
        self.commit(tx, &[Change::Alert(id)]).await?;
        self.audit_remember(&head);
        self.alert_get(id).await
    }

    /// Adds a note.
    ///
    /// # Errors
    /// [`AppError`]
    pub async fn alert_note(&self, id: Uuid, text: &str, actor: &str) -> Result<(), AppError> {
        if text.trim().is_empty() || text.len() > NOTE {
            return Err(AppError::Invalid(format!("text: 1 to {NOTE} bytes")));
        }
        let alert = self.alert(id).await?;
        let note = Note { time_ms: now_ms(), author: actor.to_owned(), text: text.to_owned() };
        let mut tx = self.store().begin().await?;
        store::alert_note(&mut tx, alert.number, &note).await?;
        let detail = json!({ "text": text });
        let head = audit::append(&mut tx, actor, "alert.note", &id.to_string(), &detail).await?;
        self.commit(tx, &[Change::Alert(id)]).await?;
        self.audit_remember(&head);
        Ok(())
    }
}

/// What an alert becomes. Pure.
fn edit_apply(alert: &Alert, edit: &AlertEdit, now_ms: i64) -> Result<AlertChange, AppError> {
    let invalid = |message: &str| Err(AppError::Invalid(message.to_owned()));
    let state = edit.state.clone().unwrap_or_else(|| alert.state.clone());
    if !["new", "in_progress", "resolved"].contains(&state.as_str()) {
        return invalid("state: new, in_progress or resolved");
    }
    let resolution = match (state.as_str(), &edit.resolution) {
        ("resolved", Some(resolution)) => Some(resolution.clone()),
        ("resolved", None) => alert.resolution.clone(),
        (_, Some(_)) => return invalid("resolution: with state resolved only"),
        (_, None) => None,
    };
    let known = ["true_positive", "false_positive", "ignored", "allowed"];
    if resolution.as_ref().is_some_and(|resolution| !known.contains(&resolution.as_str())) {
        return invalid("resolution: true_positive, false_positive, ignored or allowed");
    }
    if state == "resolved" && resolution.is_none() {
        return invalid("resolution: what it turned out to be");
    }
    let assignee = match &edit.assignee {
        None => alert.assignee.clone(),
        Some(name) if name.is_empty() => None,
        Some(name) if name.len() > 100 => return invalid("assignee: at most 100 bytes"),
        Some(name) => Some(name.clone()),
    };
    Ok(AlertChange { state, resolution, assignee, now_ms })
}
