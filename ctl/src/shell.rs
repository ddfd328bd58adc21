//! `holdfast-ctl shell` and `shells`: a host's terminal on this one, and recordings.
//!
//! INVARIANT: what a host's terminal shows goes to ours as it is: that is what a terminal is for, and
//! the one place where [`crate::out`] is gone past. Ours is put back whatever happens. Ctrl-] leaves.

use std::io::{self, IsTerminal, Read, Write};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use futures_util::{SinkExt, StreamExt};
use reqwest::{Method, Upgraded};
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};
use serde_json::{Value, json};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::Role;
use uuid::Uuid;

use crate::arguments::{Shell, Shells};
use crate::out::Column;
use crate::pages;
use crate::tasks::file::Target;
use crate::{CtlError, Session};

const PATH: &str = "/api/v1/shells";
const COLUMNS: &[Column] = &[
    ("FILED", "/filed_ms"),
    ("STAGE", "/stage"),
    ("HOST", "/host"),
    ("RESTRICTED", "/action/restricted"),
    ("BY", "/filed_by"),
    ("REASON", "/reason"),
    ("OBSERVED", "/observed"),
    ("RECORDED", "/recording_bytes"),
    ("ID", "/id"),
];
/// Ctrl-]
const LEAVE: u8 = 0x1d;
/// Ctrl-D: the end of what is typed, where that is no terminal.
const END: u8 = 0x04;
/// A shell's task ends at once after its terminal.
const ENDING: Duration = Duration::from_secs(30);

/// How one leaves a terminal.
enum Parting {
    /// The shell has ended.
    Closed(String),
    /// The connection has.
    Broken,
    /// By Ctrl-].
    Key,
}

pub(crate) async fn shells(session: &mut Session, command: Shells) -> Result<u8, CtlError> {
    match command {
        Shells::List { host, period, limit } => {
            let mut query = pages::period(&period)?;
            let host = pages::host_maybe(session, host).await?;
            query.extend(host.map(|host| ("host", host)));
            pages::show(session, PATH, &query, limit, COLUMNS).await
        }
        Shells::Recording { id, output, force } => {
            let id = pages::id("shell", &id)?;
            let output = output.unwrap_or_else(|| PathBuf::from(format!("{id}.cast")));
            let target = Target::new(&output, force)?;
            let path = format!("{PATH}/{id}/recording");
            let response = session.client.open(Method::GET, &path, None).await?;
            target.fill(session, response, None).await?;
            Ok(0)
        }
        Shells::Join { id } => {
            let id = pages::id("shell", &id)?;
            match terminal(session, id).await? {
                Parting::Closed(why) => session.out.note(&format!("the shell is closed: {why}")),
                Parting::Broken => {
                    return Err(CtlError::Failed("the connection broke".to_owned()));
                }
                Parting::Key => session.out.note("the shell stays open"),
            }
            Ok(0)
        }
    }
}

/// Opens a shell and stays until it is closed; its exit status is this command's.
pub(crate) async fn shell(session: &mut Session, wanted: Shell) -> Result<u8, CtlError> {
    let host = pages::host(session, &wanted.host).await?;
    let (columns, rows) = size().unwrap_or((80, 24));
    let body = json!({
        "host": host, "reason": wanted.reason, "restricted": wanted.restricted,
        "columns": columns, "rows": rows,
    });
    let task = session.client.call(Method::POST, PATH, Some(&body)).await?;
    let id = pages::id("shell", task["id"].as_str().unwrap_or_default())?;
    session.out.note(&format!("shell {id}; it is recorded; Ctrl-] closes it"));
    match terminal(session, id).await? {
        Parting::Closed(why) => session.out.note(&format!("the shell is closed: {why}")),
        Parting::Broken => {
            let how = format!("the connection broke; holdfast-ctl shells join {id}");
            return Err(CtlError::Failed(how));
        }
        Parting::Key => {
            let body = json!({ "reason": "left by who opened it" });
            let path = format!("/api/v1/tasks/{id}/cancel");
            session.client.call(Method::POST, &path, Some(&body)).await?;
        }
    }
    let end = Instant::now() + ENDING;
    loop {
        let task = session.client.get(&format!("/api/v1/tasks/{id}"), &[]).await?;
        if !task["ended_ms"].is_null() {
            let exit = task["result"]["exit"].as_u64().and_then(|exit| u8::try_from(exit).ok());
            return match (task["stage"] == "verified", exit) {
                (true, exit) => Ok(exit.unwrap_or(0)),
                (false, _) => {
                    let observed = task["observed"].as_str().unwrap_or_default();
                    Err(CtlError::Failed(observed.to_owned()))
                }
            };
        }
        if Instant::now() >= end {
            return Ok(crate::UNDER_WAY);
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// This terminal as the host's, until the end.
async fn terminal(session: &Session, id: Uuid) -> Result<Parting, CtlError> {
    let stream = session.client.upgrade(&format!("{PATH}/{id}/terminal")).await?;
    let mut socket = WebSocketStream::from_raw_socket(stream, Role::Client, None).await;
    let failed = |error: io::Error| CtlError::Failed(error.to_string());
    let mut resized = signal(SignalKind::window_change()).map_err(failed)?;
    let raw = Raw::begin()?;
    let mut typed = typed(raw.is_some());
    send_size(&mut socket).await;
    loop {
        tokio::select! {
            message = socket.next() => match message {
                Some(Ok(Message::Binary(bytes))) => {
                    let mut stdout = io::stdout().lock();
                    stdout.write_all(&bytes).and_then(|()| stdout.flush())?;
                }
                Some(Ok(Message::Text(text))) => {
                    let text: Value = serde_json::from_str(&text).unwrap_or_default();
                    if let Some(why) = text["closed"].as_str() {
                        return Ok(Parting::Closed(why.to_owned()));
                    }
                }
                Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => {}
                Some(Ok(Message::Close(_)) | Err(_)) | None => return Ok(Parting::Broken),
            },
            bytes = typed.recv() => {
                let Some(bytes) = bytes else { return Ok(Parting::Key) };
                if socket.send(Message::Binary(bytes.into())).await.is_err() {
                    return Ok(Parting::Broken);
                }
            }
            _ = resized.recv() => send_size(&mut socket).await,
        }
    }
}

async fn send_size(socket: &mut WebSocketStream<Upgraded>) {
    if let Some((columns, rows)) = size() {
        let text = json!({ "resize": [columns, rows] }).to_string();
        // Where the connection is broken, the next look tells.
        let _ = socket.send(Message::Text(text.into())).await;
    }
}

fn size() -> Option<(u16, u16)> {
    let size = tcgetwinsize(io::stdout()).ok()?;
    (size.ws_col > 0 && size.ws_row > 0).then_some((size.ws_col, size.ws_row))
}

/// What is typed; it ends by Ctrl-]. On a thread of its own that ends with the program.
fn typed(terminal: bool) -> mpsc::Receiver<Vec<u8>> {
    let (tell, typed) = mpsc::channel(8);
    std::thread::spawn(move || {
        let mut part = [0; 4096];
        loop {
            let read = io::stdin().read(&mut part).unwrap_or(0);
            let bytes = &part[..read];
            let leave = bytes.iter().position(|byte| terminal && *byte == LEAVE);
            let bytes = if read == 0 { vec![END] } else { bytes[..leave.unwrap_or(read)].to_vec() };
            let sent = bytes.is_empty() || tell.blocking_send(bytes).is_ok();
            if leave.is_some() || !sent {
                return;
            }
            if read == 0 {
                // What comes back is still shown.
                loop {
                    std::thread::park();
                }
            }
        }
    });
    typed
}

/// A terminal that passes each key on; as it was when this is dropped.
struct Raw(Termios);

impl Raw {
    /// Nothing where standard input is no terminal.
    fn begin() -> Result<Option<Self>, CtlError> {
        let stdin = io::stdin();
        if !stdin.is_terminal() {
            return Ok(None);
        }
        let failed = |error: rustix::io::Errno| CtlError::Failed(error.to_string());
        let before = tcgetattr(&stdin).map_err(failed)?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(&stdin, OptionalActions::Now, &raw).map_err(failed)?;
        Ok(Some(Self(before)))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        // The terminal is gone, then.
        let _ = tcsetattr(io::stdin(), OptionalActions::Flush, &self.0);
    }
}
