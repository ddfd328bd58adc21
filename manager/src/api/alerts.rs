//! Alerts.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::Api;
use super::access::Caller;
use super::events::{self, EventView};
use super::extract::{Body, Id, Page, PageParams, Params, PeriodParams};
use super::problem::Problem;
use super::tasks::TaskView;
use crate::app::{AlertDetail, AlertEdit};
use crate::store::alerts::{Alert, AlertFilter};

/// An alert: one host, one model, one cause, counted.
#[derive(Serialize, ToSchema)]
pub(super) struct AlertView {
    id: Uuid,
    host_id: Uuid,
    host: String,
    /// malware, model, tampering, gap, isolation, health or notification.
    kind: String,
    /// The model's id, the signature, the capability.
    model: String,
    /// The executable, or the content's SHA-256.
    cause: String,
    title: String,
    /// informational, low, medium, high or critical.
    level: String,
    /// ATT&CK techniques.
    attack: Vec<String>,
    /// Simulations alone made it.
    simulated: bool,
    /// How many detections it stands for.
    count: i64,
    /// The first and the last detection, by the host's clock.
    first_ms: i64,
    last_ms: i64,
    created_ms: i64,
    updated_ms: i64,
    /// new, in_progress or resolved.
    state: String,
    /// true_positive, false_positive, ignored or allowed.
    resolution: Option<String>,
    resolved_ms: Option<i64>,
    assignee: Option<String>,
    /// When what a health alert tells of was over.
    cleared_ms: Option<i64>,
    /// The resolved alert of the same host, model and cause before it.
    previous: Option<Uuid>,
    /// The last detection's event.
    #[schema(value_type = Object)]
    evidence: Value,
}

impl AlertView {
    fn of(alert: Alert) -> Self {
        Self {
            id: alert.id,
            host_id: alert.host,
            host: alert.host_name,
            kind: alert.kind,
            model: alert.model,
            cause: alert.cause,
            title: alert.title,
            level: alert.level,
            attack: alert.attack.split_whitespace().map(str::to_owned).collect(),
            simulated: alert.simulated,
            count: alert.count,
            first_ms: alert.first_ms,
            last_ms: alert.last_ms,
            created_ms: alert.created_ms,
            updated_ms: alert.updated_ms,
            state: alert.state,
            resolution: alert.resolution,
            resolved_ms: alert.resolved_ms,
            assignee: alert.assignee,
            cleared_ms: alert.cleared_ms,
            previous: alert.previous,
            evidence: serde_json::from_str(&alert.evidence).unwrap_or(Value::Null),
        }
    }
}

/// A note on an alert.
#[derive(Serialize, ToSchema)]
pub(super) struct NoteView {
    time_ms: i64,
    author: String,
    text: String,
}

/// An alert with its notes and tasks.
#[derive(Serialize, ToSchema)]
pub(super) struct AlertDetailView {
    alert: AlertView,
    /// Oldest first.
    notes: Vec<NoteView>,
    /// Newest first, at most 100.
    tasks: Vec<TaskView>,
}

impl AlertDetailView {
    fn of(detail: AlertDetail) -> Self {
        let notes = detail.notes.into_iter().map(|note| NoteView {
            time_ms: note.time_ms,
            author: note.author,
            text: note.text,
        });
        Self {
            alert: AlertView::of(detail.alert),
            notes: notes.collect(),
            tasks: detail.tasks.into_iter().map(TaskView::of).collect(),
        }
    }
}

/// Which alerts.
#[derive(Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(default)]
pub(super) struct AlertParams {
    /// new, in_progress or resolved; open for the first two.
    state: String,
    /// malware, model, tampering, gap, isolation, health or notification.
    kind: String,
    /// informational, low, medium, high or critical.
    level: String,
    /// What title, cause or host's name holds.
    text: String,
    /// A model's id, a signature's name, a capability.
    model: String,
    host: Option<Uuid>,
}

/// What changes on an alert; what is left out stays.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct AlertBody {
    /// new, in_progress or resolved.
    state: Option<String>,
    /// true_positive, false_positive, ignored or allowed; with resolved only.
    resolution: Option<String>,
    /// Empty for nobody.
    assignee: Option<String>,
}

/// A note.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NoteBody {
    text: String,
}

/// Alerts that last changed in the period, those made last first.
#[utoipa::path(get, path = "/api/v1/alerts", tag = "alerts",
    params(AlertParams, PeriodParams, PageParams),
    responses((status = 200, body = Page<AlertView>), (status = 400, body = Problem)))]
pub(super) async fn alert_list(
    State(api): State<Arc<Api>>,
    Params(params): Params<AlertParams>,
    Params(period): Params<PeriodParams>,
    Params(page): Params<PageParams>,
) -> Result<Json<Page<AlertView>>, Problem> {
    let limit = page.limit()?;
    let (from_ms, until_ms) = period.period()?;
    let filter = AlertFilter {
        state: params.state,
        kind: params.kind,
        level: params.level,
        text: params.text,
        model: params.model,
        host: params.host,
        from_ms,
        until_ms,
        before: page.cursor()?,
        limit: limit + 1,
    };
    let alerts = api.app.alert_list(&filter).await?;
    Ok(Json(Page::of(alerts, limit, |alert| alert.number, AlertView::of)))
}

/// An alert.
#[utoipa::path(get, path = "/api/v1/alerts/{id}", tag = "alerts", params(("id" = Uuid, Path)),
    responses((status = 200, body = AlertDetailView), (status = 404, body = Problem)))]
pub(super) async fn alert_get(
    State(api): State<Arc<Api>>,
    Id(id): Id<Uuid>,
) -> Result<Json<AlertDetailView>, Problem> {
    Ok(Json(AlertDetailView::of(api.app.alert_get(id).await?)))
}

/// Change an alert's state, resolution or assignee.
#[utoipa::path(patch, path = "/api/v1/alerts/{id}", tag = "alerts",
    params(("id" = Uuid, Path)), request_body = AlertBody,
    responses((status = 200, body = AlertDetailView), (status = 400, body = Problem),
              (status = 404, body = Problem), (status = 409, body = Problem)))]
pub(super) async fn alert_edit(
    State(api): State<Arc<Api>>,
    Caller(who): Caller,
    Id(id): Id<Uuid>,
    Body(body): Body<AlertBody>,
) -> Result<Json<AlertDetailView>, Problem> {
    let edit =
        AlertEdit { state: body.state, resolution: body.resolution, assignee: body.assignee };
    Ok(Json(AlertDetailView::of(api.app.alert_edit(id, &edit, &who.actor).await?)))
}

/// The events of an alert, newest first.
#[utoipa::path(get, path = "/api/v1/alerts/{id}/events", tag = "alerts",
    params(("id" = Uuid, Path), PageParams),
    responses((status = 200, body = Page<EventView>), (status = 404, body = Problem)))]
pub(super) async fn alert_events(
    State(api): State<Arc<Api>>,
    Id(id): Id<Uuid>,
    Params(page): Params<PageParams>,
) -> Result<Json<Page<EventView>>, Problem> {
    let found = api.app.alert_events(id, page.cursor()?, page.limit()?).await?;
    Ok(Json(events::show(found)))
}

/// Add a note.
#[utoipa::path(post, path = "/api/v1/alerts/{id}/notes", tag = "alerts",
    params(("id" = Uuid, Path)), request_body = NoteBody,
    responses((status = 204), (status = 400, body = Problem), (status = 404, body = Problem)))]
pub(super) async fn alert_note(
    State(api): State<Arc<Api>>,
    Caller(who): Caller,
    Id(id): Id<Uuid>,
    Body(body): Body<NoteBody>,
) -> Result<StatusCode, Problem> {
    api.app.alert_note(id, &body.text, &who.actor).await?;
    Ok(StatusCode::NO_CONTENT)
}
