//! The audit log.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use super::Api;
use super::extract::{Page, PageParams, Params, PeriodParams};
use super::problem::Problem;
use crate::store::audit::AuditRow;

/// What somebody did.
#[derive(Serialize, ToSchema)]
pub(super) struct AuditView {
    number: i64,
    time_ms: i64,
    actor: String,
    action: String,
    target: String,
    #[schema(value_type = Object)]
    detail: Value,
}

impl AuditView {
    fn of(row: AuditRow) -> Self {
        Self {
            number: row.number,
            time_ms: row.entry.time_ms,
            actor: row.entry.actor,
            action: row.entry.action,
            target: row.entry.target,
            detail: serde_json::from_str(&row.entry.detail).unwrap_or(Value::Null),
        }
    }
}

/// What was done in the period, newest first.
#[utoipa::path(get, path = "/api/v1/audit", tag = "audit", params(PeriodParams, PageParams),
    responses((status = 200, body = Page<AuditView>), (status = 400, body = Problem)))]
pub(super) async fn audit_list(
    State(api): State<Arc<Api>>,
    Params(period): Params<PeriodParams>,
    Params(page): Params<PageParams>,
) -> Result<Json<Page<AuditView>>, Problem> {
    let limit = page.limit()?;
    let rows = api.app.audit_list(page.cursor()?, period.period()?, limit + 1).await?;
    Ok(Json(Page::of(rows, limit, |row| row.number, AuditView::of)))
}
