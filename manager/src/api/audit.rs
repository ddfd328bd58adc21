//! The audit log.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};

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

/// Which rows.
#[derive(Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(default)]
pub(super) struct AuditParams {
    /// What actor, action or target holds, whatever the case.
    text: String,
}

/// What was done in the period, newest first.
#[utoipa::path(get, path = "/api/v1/audit", tag = "audit",
    params(AuditParams, PeriodParams, PageParams),
    responses((status = 200, body = Page<AuditView>), (status = 400, body = Problem)))]
pub(super) async fn audit_list(
    State(api): State<Arc<Api>>,
    Params(params): Params<AuditParams>,
    Params(period): Params<PeriodParams>,
    Params(page): Params<PageParams>,
) -> Result<Json<Page<AuditView>>, Problem> {
    let limit = page.limit()?;
    let period = period.period()?;
    let rows = api.app.audit_list(page.cursor()?, period, limit + 1, &params.text).await?;
    Ok(Json(Page::of(rows, limit, |row| row.number, AuditView::of)))
}
