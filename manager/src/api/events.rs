//! Events: search, and one by its number.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::Api;
use super::extract::{Id, Page, PageParams, Params, PeriodParams, cursor};
use super::problem::Problem;
use crate::app::{AppError, EventPage};
use crate::query;
use crate::store::search::StoredEvent;

/// An event.
#[derive(Serialize, ToSchema)]
pub(super) struct EventView {
    /// Its place, for GET /api/v1/events/{number}.
    number: String,
    /// Its id.
    id: Uuid,
    /// The host that sent it.
    host_id: Uuid,
    /// That host's name now.
    host: String,
    kind: String,
    /// When it happened, by the host's clock.
    time_ms: i64,
    /// When it came, by the manager's.
    received_ms: i64,
    /// The event as the host sent it.
    #[schema(value_type = Object)]
    event: Value,
}

impl EventView {
    fn of(event: StoredEvent) -> Self {
        Self {
            number: event.number.to_string(),
            id: event.id,
            host_id: event.host,
            host: event.host_name,
            kind: event.kind,
            time_ms: event.time_ms,
            received_ms: event.received_ms,
            event: serde_json::from_str(&event.body).unwrap_or(Value::Null),
        }
    }
}

pub(super) fn show(page: EventPage) -> Page<EventView> {
    Page {
        items: page.events.into_iter().map(EventView::of).collect(),
        next: page.next.map(cursor),
    }
}

/// What to look for.
#[derive(Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(default)]
pub(super) struct EventParams {
    /// E.g. `host:web1 kind:exec cmdline:"tcpdump -c"`.
    query: String,
}

/// Events that match a query, newest first.
#[utoipa::path(get, path = "/api/v1/events", tag = "events",
    params(EventParams, PeriodParams, PageParams),
    responses((status = 200, body = Page<EventView>), (status = 400, body = Problem)))]
pub(super) async fn event_list(
    State(api): State<Arc<Api>>,
    Params(params): Params<EventParams>,
    Params(period): Params<PeriodParams>,
    Params(page): Params<PageParams>,
) -> Result<Json<Page<EventView>>, Problem> {
    let query = query::parse(&params.query)?;
    let (limit, before) = (page.limit()?, page.cursor()?);
    let found = api.app.event_search(query, period.period()?, before, limit).await?;
    Ok(Json(show(found)))
}

/// One event.
#[utoipa::path(get, path = "/api/v1/events/{number}", tag = "events",
    params(("number" = String, Path)),
    responses((status = 200, body = EventView), (status = 404, body = Problem)))]
pub(super) async fn event_get(
    State(api): State<Arc<Api>>,
    Id(number): Id<String>,
) -> Result<Json<EventView>, Problem> {
    let Ok(number) = number.parse() else { return Err(AppError::NotFound("event").into()) };
    Ok(Json(EventView::of(api.app.event_get(number).await?)))
}
