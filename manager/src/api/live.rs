//! What changes, as it changes: server-sent events.
//!
//! Each event names what changed, not how: `alert`, `task`, `host` or `policy` with its id; whoever sees it
//! asks for the thing. Who is too slow gets `missed` and asks for everything.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::response::sse::{Event, KeepAlive, Sse};
use futures_util::{Stream, StreamExt};
use serde_json::json;
use tokio_stream::wrappers::BroadcastStream;
use tokio_stream::wrappers::errors::BroadcastStreamRecvError;

use super::Api;
use super::access::Caller;
use super::problem::Problem;
use crate::app::Change;

/// A stream ends after this long; browsers come back by themselves, and show who they are again.
const LONGEST: Duration = Duration::from_secs(900);

/// Changes of alerts, tasks, hosts, policies and denials, as server-sent events.
#[utoipa::path(get, path = "/api/v1/live", tag = "live",
    responses((status = 200, content_type = "text/event-stream"), (status = 401, body = Problem)))]
pub(super) async fn live(
    State(api): State<Arc<Api>>,
    Caller(_): Caller,
) -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    let changes = BroadcastStream::new(api.app.changes()).map(|change| Ok(show(change)));
    let mut ending = api.app.ending();
    let until = async move {
        tokio::select! {
            () = tokio::time::sleep(LONGEST) => {}
            _ = ending.wait_for(|ending| *ending) => {}
        }
    };
    let hello = futures_util::stream::once(async {
        Ok::<_, Infallible>(Event::default().comment("changes follow"))
    });
    Sse::new(hello.chain(changes).take_until(Box::pin(until)))
        .keep_alive(KeepAlive::new().interval(Duration::from_secs(15)))
}

fn show(change: Result<Change, BroadcastStreamRecvError>) -> Event {
    let (name, data) = match change {
        Ok(Change::Alert(id)) => ("alert", json!({ "id": id })),
        Ok(Change::Host(id) | Change::Wanted { host: id, .. }) => ("host", json!({ "id": id })),
        Ok(Change::Denials(id)) => ("denial", json!({ "id": id })),
        Ok(Change::Policy(id)) => ("policy", json!({ "id": id })),
        Ok(Change::Task { host, task }) => ("task", json!({ "id": task, "host": host })),
        Err(BroadcastStreamRecvError::Lagged(count)) => ("missed", json!({ "count": count })),
    };
    Event::default().event(name).data(data.to_string())
}
