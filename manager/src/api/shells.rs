//! Remote shells: opening them, their terminal, their recordings.
//!
//! The terminal is a WebSocket. Binary frames are bytes of the terminal, in both directions. Text
//! frames are JSON: to the manager `{"resize":[columns,rows]}`; from it `{"writes":true}` or `false`
//! (whether what is typed here counts), `{"people":[{"name":"anna","writes":true}]}` (who looks,
//! whenever that differs), `{"size":[columns,rows]}` (the same) and `{"closed":"why"}`, the last one.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::Body as HttpBody;
use axum::extract::State;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt, stream};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::io::AsyncReadExt;
use utoipa::ToSchema;
use uuid::Uuid;

use super::Api;
use super::access::{Caller, still_shell};
use super::extract::{Body, Id, Page, PageParams, Params, PeriodParams};
use super::problem::Problem;
use super::tasks::{TaskParams, TaskView};
use crate::app::{NewShell, Pen, Person, Shown, Viewer};

/// Bytes of a message from a browser.
const MESSAGE: usize = 64 << 10;
/// A browser that takes nothing for so long is gone.
const UNREAD: Duration = Duration::from_secs(60);
/// Between two looks at whether who looks still may, and two pings.
const LOOK: Duration = Duration::from_secs(10);

/// A remote shell: its response task and its recording.
#[derive(Serialize, ToSchema)]
pub(super) struct ShellView {
    #[serde(flatten)]
    task: TaskView,
    /// Bytes of the recording, as far as it is; nothing when it is gone.
    recording_bytes: Option<u64>,
}

/// A shell that is wanted.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ShellBody {
    host: Uuid,
    /// Why, for the audit log and the host.
    reason: String,
    /// The fixed commands alone; a host may allow nothing else.
    restricted: bool,
    /// Of the terminal, 1 to 1000; 80 without it.
    columns: Option<u16>,
    /// The same; 24 without it.
    rows: Option<u16>,
    /// The alert that it belongs to.
    alert: Option<Uuid>,
}

/// Shells that were opened in the period, newest first.
#[utoipa::path(get, path = "/api/v1/shells", tag = "shells",
    params(TaskParams, PeriodParams, PageParams),
    responses((status = 200, body = Page<ShellView>), (status = 400, body = Problem)))]
pub(super) async fn shell_list(
    State(api): State<Arc<Api>>,
    Params(params): Params<TaskParams>,
    Params(period): Params<PeriodParams>,
    Params(page): Params<PageParams>,
) -> Result<Json<Page<ShellView>>, Problem> {
    let (filter, limit) = params.filter(&period, &page)?;
    let shells = api.app.shell_list(filter).await?;
    Ok(Json(Page::of(
        shells,
        limit,
        |(task, _)| task.number,
        |(task, recording_bytes)| ShellView { task: TaskView::of(task), recording_bytes },
    )))
}

/// Open a shell on a host that is connected. It is open once its task is delivered.
#[utoipa::path(post, path = "/api/v1/shells", tag = "shells", request_body = ShellBody,
    responses((status = 201, body = TaskView), (status = 400, body = Problem),
              (status = 404, body = Problem), (status = 409, body = Problem)))]
pub(super) async fn shell_open(
    State(api): State<Arc<Api>>,
    Caller(who): Caller,
    Body(body): Body<ShellBody>,
) -> Result<impl IntoResponse, Problem> {
    let size = (body.columns.unwrap_or(80), body.rows.unwrap_or(24));
    let ShellBody { host, reason, restricted, alert, .. } = body;
    let new = NewShell { host, reason, restricted, size, alert };
    let task = api.app.shell_open(new, &who).await?;
    Ok((StatusCode::CREATED, Json(TaskView::of(task))))
}

/// The recording, an asciicast (version 2), as far as it is.
#[utoipa::path(get, path = "/api/v1/shells/{id}/recording", tag = "shells",
    params(("id" = Uuid, Path)),
    responses((status = 200, content_type = "application/x-asciicast"),
              (status = 404, body = Problem)))]
pub(super) async fn shell_recording(
    State(api): State<Arc<Api>>,
    Caller(who): Caller,
    Id(id): Id<Uuid>,
) -> Result<impl IntoResponse, Problem> {
    let (file, size) = api.app.shell_recording(id, &who.actor).await?;
    // One that goes on may be longer by now.
    let file = tokio::fs::File::from_std(file).take(size);
    let parts = stream::try_unfold(file, |mut file| async move {
        let mut part = vec![0; 64 << 10];
        let length = file.read(&mut part).await?;
        part.truncate(length);
        Ok::<_, std::io::Error>((length > 0).then_some((part, file)))
    });
    let headers = [
        (header::CONTENT_TYPE, "application/x-asciicast".to_owned()),
        (header::CONTENT_LENGTH, size.to_string()),
        (header::CONTENT_DISPOSITION, format!("attachment; filename=\"{id}.cast\"")),
    ];
    Ok((headers, HttpBody::from_stream(parts)))
}

/// The terminal, as a WebSocket. Who opened the shell types; others who may open shells look.
#[utoipa::path(get, path = "/api/v1/shells/{id}/terminal", tag = "shells",
    params(("id" = Uuid, Path)),
    responses((status = 101), (status = 400, body = Problem), (status = 404, body = Problem),
              (status = 409, body = Problem)))]
pub(super) async fn shell_terminal(
    State(api): State<Arc<Api>>,
    Caller(who): Caller,
    Id(id): Id<Uuid>,
    headers: HeaderMap,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Result<Response, Problem> {
    // First of all, so that a wrong request joins nothing.
    let upgrade = upgrade.map_err(|error| Problem::bad(error.body_text()))?;
    let viewer = api.app.shell_join(id, &who).await?;
    let upgrade = upgrade.max_message_size(MESSAGE).max_frame_size(MESSAGE);
    let upgrade = upgrade.write_buffer_size(0).max_write_buffer_size(4 * MESSAGE);
    Ok(upgrade.on_upgrade(move |socket| async move {
        let (sink, stream) = socket.split();
        let pen = viewer.pen();
        let mut ending = api.app.ending();
        tokio::select! {
            () = show(viewer, sink) => {}
            () = take(pen, stream) => {}
            () = stands(&api, &headers) => {}
            _ = ending.wait_for(|ending| *ending) => {}
        }
    }))
}

/// Sends what is shown, until it is over or nobody takes it.
async fn show(mut viewer: Viewer, mut sink: SplitSink<WebSocket, Message>) {
    let mut pings = tokio::time::interval(LOOK);
    loop {
        let (message, last) = tokio::select! {
            shown = viewer.next() => match shown {
                Shown::Output(bytes) => (Message::Binary(bytes.into()), false),
                Shown::Writes(writes) => (text(&json!({ "writes": writes })), false),
                Shown::Size(columns, rows) => (text(&json!({ "size": [columns, rows] })), false),
                Shown::People(people) => {
                    let show = |one: &Person| json!({ "name": one.name, "writes": one.writes });
                    let people: Vec<Value> = people.iter().map(show).collect();
                    (text(&json!({ "people": people })), false)
                }
                Shown::Closed(why) => (text(&json!({ "closed": why })), true),
            },
            _ = pings.tick() => (Message::Ping(Vec::new().into()), false),
        };
        let sent = tokio::time::timeout(UNREAD, sink.send(message)).await;
        if last || !matches!(sent, Ok(Ok(()))) {
            let _ = tokio::time::timeout(UNREAD, sink.close()).await;
            return;
        }
    }
}

fn text(value: &Value) -> Message {
    Message::Text(value.to_string().into())
}

/// Takes what is typed. What is not this one's to type is dropped; it was told so.
async fn take(pen: Pen, mut stream: SplitStream<WebSocket>) {
    while let Some(Ok(message)) = stream.next().await {
        match message {
            Message::Binary(bytes) => {
                pen.write(&bytes).await;
            }
            Message::Text(text) => {
                let Ok(text) = serde_json::from_str::<Value>(&text) else { return };
                let Ok([columns, rows]) =
                    serde_json::from_value::<[u16; 2]>(text["resize"].clone())
                else {
                    return;
                };
                pen.resize(columns, rows);
            }
            Message::Close(_) => return,
            Message::Ping(_) | Message::Pong(_) => {}
        }
    }
}

/// Returns when who looks may not any more.
async fn stands(api: &Api, headers: &HeaderMap) {
    loop {
        tokio::time::sleep(LOOK).await;
        if !still_shell(api, headers).await {
            return;
        }
    }
}
