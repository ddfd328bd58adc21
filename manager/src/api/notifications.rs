//! Channels: where alerts are told. And alerts as OCSF findings.
//!
//! INVARIANT: no secret is in an answer.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::IntoResponse;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;
use uuid::Uuid;

use super::Api;
use super::access::Caller;
use super::extract::{Body, Id, Page, PageParams, Params, PeriodParams};
use super::problem::Problem;
use crate::app::{ChannelState, NewChannel};
use crate::notify::{ChannelConfig, ocsf};
use crate::store::alerts::AlertFilter;

/// A channel, and how it stands.
#[derive(Serialize, ToSchema)]
pub(super) struct ChannelView {
    id: Uuid,
    name: String,
    config: ChannelConfig,
    /// Whether it has a password or key. It is never shown.
    has_secret: bool,
    enabled: bool,
    /// Alerts of this level and above.
    min_level: &'static str,
    /// How long alerts of one host and model are gathered, seconds.
    window_s: i64,
    created_ms: i64,
    changed_ms: i64,
    /// Alerts that wait to be told.
    waiting_alerts: i64,
    /// Detections that they stand for.
    waiting_detections: i64,
    /// Messages that were taken.
    messages: i64,
    /// Detections that they told of.
    detections: i64,
    /// When one was last taken.
    sent_ms: Option<i64>,
    /// Failed attempts in a row.
    failures: i64,
    /// What went wrong last; empty when the last message was taken.
    error: String,
    error_ms: Option<i64>,
    /// Whether an alert says that it fails.
    alarm: bool,
}

impl ChannelView {
    fn of(state: ChannelState) -> Self {
        let channel = state.channel;
        let levels = ["informational", "low", "medium", "high", "critical"];
        let level = usize::try_from(channel.min_level).unwrap_or(0);
        Self {
            id: channel.id,
            name: channel.name,
            config: state.config,
            has_secret: channel.secret.is_some(),
            enabled: channel.enabled,
            min_level: levels.get(level).copied().unwrap_or("critical"),
            window_s: channel.window_ms / 1000,
            created_ms: channel.created_ms,
            changed_ms: channel.changed_ms,
            waiting_alerts: state.waiting.alerts,
            waiting_detections: state.waiting.detections,
            messages: channel.messages,
            detections: channel.detections,
            sent_ms: channel.sent_ms,
            failures: channel.failures,
            error: channel.error,
            error_ms: channel.error_ms,
            alarm: channel.alarm.is_some(),
        }
    }
}

/// A channel that is wanted.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ChannelBody {
    /// For people; unique.
    name: String,
    config: ChannelConfig,
    /// The password of the mail server, or the key of the webhook. Left out: the one that is there
    /// stays; empty: there is none any more.
    #[serde(default)]
    secret: Option<String>,
    #[serde(default = "yes")]
    enabled: bool,
    /// informational, low, medium, high or critical; medium without it.
    #[serde(default = "medium")]
    min_level: String,
    /// How long alerts of one host and model are gathered, seconds; 30 without it.
    #[serde(default = "window")]
    window_s: u32,
}

const fn yes() -> bool {
    true
}

fn medium() -> String {
    "medium".to_owned()
}

const fn window() -> u32 {
    30
}

impl ChannelBody {
    fn wanted(self) -> NewChannel {
        NewChannel {
            name: self.name,
            config: self.config,
            secret: self.secret.map(Into::into),
            enabled: self.enabled,
            min_level: self.min_level,
            window_s: self.window_s,
        }
    }
}

/// What the other side said to a test.
#[derive(Serialize, ToSchema)]
pub(super) struct TestView {
    /// Whether it took the message.
    taken: bool,
    /// Its words, or what went wrong.
    answer: String,
    /// How long it took, milliseconds.
    took_ms: u64,
}

/// All channels, by name.
#[utoipa::path(get, path = "/api/v1/notifications", tag = "notifications",
    responses((status = 200, body = Vec<ChannelView>)))]
pub(super) async fn notification_list(
    State(api): State<Arc<Api>>,
) -> Result<Json<Vec<ChannelView>>, Problem> {
    let list = api.app.notification_list().await?;
    Ok(Json(list.into_iter().map(ChannelView::of).collect()))
}

/// Make a channel.
#[utoipa::path(post, path = "/api/v1/notifications", tag = "notifications",
    request_body = ChannelBody,
    responses((status = 201, body = ChannelView), (status = 400, body = Problem),
        (status = 409, body = Problem)))]
pub(super) async fn notification_create(
    State(api): State<Arc<Api>>,
    Caller(who): Caller,
    Body(body): Body<ChannelBody>,
) -> Result<impl IntoResponse, Problem> {
    let state = api.app.notification_create(body.wanted(), &who.actor).await?;
    Ok((StatusCode::CREATED, Json(ChannelView::of(state))))
}

/// A channel.
#[utoipa::path(get, path = "/api/v1/notifications/{id}", tag = "notifications",
    params(("id" = Uuid, Path)),
    responses((status = 200, body = ChannelView), (status = 404, body = Problem)))]
pub(super) async fn notification_get(
    State(api): State<Arc<Api>>,
    Id(id): Id<Uuid>,
) -> Result<Json<ChannelView>, Problem> {
    Ok(Json(ChannelView::of(api.app.notification_get(id).await?)))
}

/// Change a channel: all of it but the secret, which stays when it is left out, unless the channel
/// leads elsewhere.
#[utoipa::path(put, path = "/api/v1/notifications/{id}", tag = "notifications",
    params(("id" = Uuid, Path)), request_body = ChannelBody,
    responses((status = 200, body = ChannelView), (status = 400, body = Problem),
        (status = 404, body = Problem), (status = 409, body = Problem)))]
pub(super) async fn notification_edit(
    State(api): State<Arc<Api>>,
    Caller(who): Caller,
    Id(id): Id<Uuid>,
    Body(body): Body<ChannelBody>,
) -> Result<Json<ChannelView>, Problem> {
    let state = api.app.notification_edit(id, body.wanted(), &who.actor).await?;
    Ok(Json(ChannelView::of(state)))
}

/// Remove a channel. What waited for it is not told; the audit log says how much that was.
#[utoipa::path(delete, path = "/api/v1/notifications/{id}", tag = "notifications",
    params(("id" = Uuid, Path)),
    responses((status = 204), (status = 404, body = Problem)))]
pub(super) async fn notification_delete(
    State(api): State<Arc<Api>>,
    Caller(who): Caller,
    Id(id): Id<Uuid>,
) -> Result<StatusCode, Problem> {
    api.app.notification_delete(id, &who.actor).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Send a test message now. The answer is the other side's own.
#[utoipa::path(post, path = "/api/v1/notifications/{id}/test", tag = "notifications",
    params(("id" = Uuid, Path)),
    responses((status = 200, body = TestView), (status = 404, body = Problem)))]
pub(super) async fn notification_test(
    State(api): State<Arc<Api>>,
    Caller(who): Caller,
    Id(id): Id<Uuid>,
) -> Result<Json<TestView>, Problem> {
    let answer = api.app.notification_test(id, &who.actor).await?;
    let (taken, took_ms) = (answer.taken, answer.took_ms);
    Ok(Json(TestView { taken, answer: answer.answer, took_ms }))
}

/// Alerts as OCSF Detection Findings (class 2004), those made last first.
#[utoipa::path(get, path = "/api/v1/findings", tag = "alerts",
    params(PeriodParams, PageParams),
    responses((status = 200, body = Page<Value>), (status = 400, body = Problem)))]
pub(super) async fn finding_list(
    State(api): State<Arc<Api>>,
    Params(period): Params<PeriodParams>,
    Params(page): Params<PageParams>,
) -> Result<Json<Page<Value>>, Problem> {
    let (from_ms, until_ms) = period.period()?;
    let limit = page.limit()?;
    let before = page.cursor()?;
    let filter = AlertFilter { from_ms, until_ms, before, limit: limit + 1, ..Default::default() };
    let alerts = api.app.alert_list(&filter).await?;
    Ok(Json(Page::of(alerts, limit, |alert| alert.number, |alert| ocsf::of_alert(&alert))))
}
