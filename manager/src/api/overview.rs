//! What needs a person: counts over the whole fleet, and alerts over time.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;

use super::Api;
use super::extract::{Params, PeriodParams};
use super::problem::Problem;
use crate::app::Overview;

/// How many hosts stand how.
#[derive(Serialize, ToSchema)]
pub(super) struct HostCountsView {
    green: i64,
    red: i64,
    /// Never heard of.
    new: i64,
    /// With a stream.
    connected: i64,
}

/// Alerts that were made in one part of the period.
#[derive(Serialize, ToSchema)]
pub(super) struct AlertBarView {
    /// Where the part begins, milliseconds since the epoch.
    from_ms: i64,
    /// informational, low, medium, high or critical.
    level: String,
    alerts: i64,
}

/// The fleet in numbers.
#[derive(Serialize, ToSchema)]
pub(super) struct OverviewView {
    /// The manager's clock, milliseconds since the epoch.
    now_ms: i64,
    hosts: HostCountsView,
    /// Alerts that are not resolved, by level.
    open: BTreeMap<String, i64>,
    /// Response tasks that are not at their end.
    tasks: i64,
    /// How long a part of the period is.
    bar_ms: i64,
    /// Parts in which alerts were made, oldest first, one for each level.
    bars: Vec<AlertBarView>,
}

impl OverviewView {
    fn of(overview: Overview) -> Self {
        let hosts = overview.hosts;
        let bars = overview.bars.into_iter().map(|bar| AlertBarView {
            from_ms: bar.from_ms,
            level: bar.level,
            alerts: bar.alerts,
        });
        Self {
            now_ms: overview.now_ms,
            hosts: HostCountsView {
                green: hosts.green,
                red: hosts.red,
                new: hosts.new,
                connected: hosts.connected,
            },
            open: overview.open.into_iter().collect(),
            tasks: overview.tasks,
            bar_ms: overview.bar_ms,
            bars: bars.collect(),
        }
    }
}

/// The fleet in numbers, with the alerts that were made in the period in at most 120 parts.
#[utoipa::path(get, path = "/api/v1/overview", tag = "overview", params(PeriodParams),
    responses((status = 200, body = OverviewView), (status = 400, body = Problem)))]
pub(super) async fn overview(
    State(api): State<Arc<Api>>,
    Params(period): Params<PeriodParams>,
) -> Result<Json<OverviewView>, Problem> {
    Ok(Json(OverviewView::of(api.app.overview(period.period()?).await?)))
}
