//! Response tasks.

use std::sync::Arc;

use axum::Json;
use axum::body::Body as HttpBody;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::IntoResponse;
use futures_util::stream;
use holdfast_common::task::Action;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::io::AsyncReadExt;
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::Api;
use super::access::Caller;
use super::extract::{Body, Id, Page, PageParams, Params, PeriodParams};
use super::problem::Problem;
use crate::app::{NewOrder, redacted};
use crate::store::tasks::{Task, TaskFilter, stage_name};

/// A response task.
#[derive(Serialize, ToSchema)]
pub(super) struct TaskView {
    id: Uuid,
    host_id: Uuid,
    host: String,
    /// The action, without passwords.
    #[schema(value_type = Object)]
    action: Value,
    /// queued, delivered, executed, verified, failed, expired or cancelled.
    stage: &'static str,
    filed_by: String,
    reason: String,
    alert: Option<Uuid>,
    filed_ms: i64,
    expires_ms: i64,
    /// When it was first sent to the host.
    sent_ms: Option<i64>,
    delivered_ms: Option<i64>,
    executed_ms: Option<i64>,
    /// When it came to its end.
    ended_ms: Option<i64>,
    cancel_ms: Option<i64>,
    cancel_by: Option<String>,
    /// What was observed, or why it failed.
    observed: String,
    /// The action's own result, as the host tells it.
    result: Value,
    /// Bytes of its file, once that is here.
    file_size: Option<i64>,
    file_sha256: Option<String>,
}

impl TaskView {
    pub(super) fn of(task: Task) -> Self {
        Self {
            id: task.id,
            host_id: task.host,
            host: task.host_name,
            action: redacted(&task.action),
            stage: stage_name(task.stage),
            filed_by: task.filed_by,
            reason: task.reason,
            alert: task.alert,
            filed_ms: task.filed_ms,
            expires_ms: task.expires_ms,
            sent_ms: task.sent_ms,
            delivered_ms: task.delivered_ms,
            executed_ms: task.executed_ms,
            ended_ms: task.ended_ms,
            cancel_ms: task.cancel_ms,
            cancel_by: task.cancel_by,
            observed: task.observed,
            result: serde_json::from_str(&task.result).unwrap_or(Value::Null),
            file_size: task.file_size,
            file_sha256: task.file_sha256,
        }
    }
}

/// Which tasks.
#[derive(Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(default)]
pub(super) struct TaskParams {
    /// queued, delivered, executed, verified, failed, expired or cancelled; open for all that are
    /// not at their end.
    stage: String,
    host: Option<Uuid>,
    alert: Option<Uuid>,
}

impl TaskParams {
    /// The filter of a page, for one row more than the page has room for, and its room.
    pub(super) fn filter(
        self,
        period: &PeriodParams,
        page: &PageParams,
    ) -> Result<(TaskFilter, u32), Problem> {
        let limit = page.limit()?;
        let (from_ms, until_ms) = period.period()?;
        let filter = TaskFilter {
            stage: self.stage,
            host: self.host,
            alert: self.alert,
            from_ms,
            until_ms,
            before: page.cursor()?,
            limit: limit + 1,
            ..Default::default()
        };
        Ok((filter, limit))
    }
}

/// What is to be done.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct TaskBody {
    host: Uuid,
    /// E.g. `{"action": "isolate", "duration_s": null}`.
    #[schema(value_type = Object)]
    action: Value,
    /// Why, for the audit log and the host.
    reason: String,
    /// The alert that it belongs to.
    alert: Option<Uuid>,
    /// How long it may wait for the host; a day without it, at most 30.
    wait_s: Option<u64>,
}

/// Why.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct CancelBody {
    reason: String,
}

/// Tasks filed in the period, newest first.
#[utoipa::path(get, path = "/api/v1/tasks", tag = "tasks",
    params(TaskParams, PeriodParams, PageParams),
    responses((status = 200, body = Page<TaskView>), (status = 400, body = Problem)))]
pub(super) async fn task_list(
    State(api): State<Arc<Api>>,
    Params(params): Params<TaskParams>,
    Params(period): Params<PeriodParams>,
    Params(page): Params<PageParams>,
) -> Result<Json<Page<TaskView>>, Problem> {
    let (filter, limit) = params.filter(&period, &page)?;
    let tasks = api.app.task_list(&filter).await?;
    Ok(Json(Page::of(tasks, limit, |task| task.number, TaskView::of)))
}

/// File a task. With the header `Idempotency-Key` the same request again files nothing and gets
/// the same task, with status 200.
#[utoipa::path(post, path = "/api/v1/tasks", tag = "tasks", request_body = TaskBody,
    params(("Idempotency-Key" = Option<String>, Header)),
    responses((status = 201, body = TaskView), (status = 200, body = TaskView),
              (status = 400, body = Problem), (status = 404, body = Problem),
              (status = 409, body = Problem)))]
pub(super) async fn task_file(
    State(api): State<Arc<Api>>,
    Caller(who): Caller,
    headers: HeaderMap,
    Body(body): Body<TaskBody>,
) -> Result<impl IntoResponse, Problem> {
    let action: Action = serde_json::from_value(body.action)
        .map_err(|error| Problem::bad(format!("action: {error}")))?;
    let key = match headers.get("idempotency-key").map(|value| value.to_str()) {
        None => None,
        Some(Ok(key)) => Some(key.to_owned()),
        Some(Err(_)) => return Err(Problem::bad("Idempotency-Key: plain text")),
    };
    let order = NewOrder {
        host: body.host,
        action,
        reason: body.reason,
        alert: body.alert,
        wait_s: body.wait_s,
        key,
    };
    let filed = api.app.task_file(order, &who.actor).await?;
    let status = if filed.new { StatusCode::CREATED } else { StatusCode::OK };
    Ok((status, Json(TaskView::of(filed.task))))
}

/// A task.
#[utoipa::path(get, path = "/api/v1/tasks/{id}", tag = "tasks", params(("id" = Uuid, Path)),
    responses((status = 200, body = TaskView), (status = 404, body = Problem)))]
pub(super) async fn task_get(
    State(api): State<Arc<Api>>,
    Id(id): Id<Uuid>,
) -> Result<Json<TaskView>, Problem> {
    Ok(Json(TaskView::of(api.app.task_get(id).await?)))
}

/// Take a task back. When the host may have it already, the host's word decides.
#[utoipa::path(post, path = "/api/v1/tasks/{id}/cancel", tag = "tasks",
    params(("id" = Uuid, Path)), request_body = CancelBody,
    responses((status = 200, body = TaskView), (status = 404, body = Problem),
              (status = 409, body = Problem)))]
pub(super) async fn task_cancel(
    State(api): State<Arc<Api>>,
    Caller(who): Caller,
    Id(id): Id<Uuid>,
    Body(body): Body<CancelBody>,
) -> Result<Json<TaskView>, Problem> {
    Ok(Json(TaskView::of(api.app.task_cancel(id, &who.actor, &body.reason).await?)))
}

/// The file that a task delivered, an AES zip.
#[utoipa::path(get, path = "/api/v1/tasks/{id}/file", tag = "tasks",
    params(("id" = Uuid, Path)),
    responses((status = 200, content_type = "application/zip"), (status = 404, body = Problem)))]
pub(super) async fn task_download(
    State(api): State<Arc<Api>>,
    Caller(who): Caller,
    Id(id): Id<Uuid>,
) -> Result<impl IntoResponse, Problem> {
    let (file, size) = api.app.task_file_open(id, &who.actor).await?;
    let parts = stream::try_unfold(tokio::fs::File::from_std(file), |mut file| async move {
        let mut part = vec![0; 64 << 10];
        let length = file.read(&mut part).await?;
        part.truncate(length);
        Ok::<_, std::io::Error>((length > 0).then_some((part, file)))
    });
    let headers = [
        (header::CONTENT_TYPE, "application/zip".to_owned()),
        (header::CONTENT_LENGTH, size.to_string()),
        (header::CONTENT_DISPOSITION, format!("attachment; filename=\"{id}.zip\"")),
    ];
    Ok((headers, HttpBody::from_stream(parts)))
}
