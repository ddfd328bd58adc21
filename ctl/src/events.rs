//! `holdfast-ctl events` and `search`: one line an event.

use std::collections::HashMap;
use std::time::Duration;

use holdfast_common::text::local_time;
use serde_json::Value;

use crate::arguments::{EventList, Events, Limit};
use crate::pages::{self, Query, now_ms};
use crate::{CtlError, Session};

const PATH: &str = "/api/v1/events";
/// How old an event may be when it comes, by the host's clock, to be shown while following.
const WINDOW_MS: i64 = 600_000;
/// Between two questions.
const PAUSE: Duration = Duration::from_secs(1);
/// Longest text of an event on a line, characters.
const LONGEST: usize = 300;

pub(crate) async fn events(session: &mut Session, command: Events) -> Result<u8, CtlError> {
    match command {
        Events::List(wanted) => list(session, wanted).await,
        Events::Show { number } => {
            if number.is_empty() || !number.bytes().all(|byte| byte.is_ascii_digit()) {
                return Err(CtlError::Usage(format!("{number:?} is no event's number")));
            }
            let shown = session.client.get(&format!("{PATH}/{number}"), &[]).await?;
            session.out.facts(&shown)?;
            Ok(0)
        }
    }
}

pub(crate) async fn list(session: &mut Session, wanted: EventList) -> Result<u8, CtlError> {
    let mut query = pages::period(&wanted.period)?;
    query.extend(wanted.query.map(|text| ("query", text)));
    if wanted.follow {
        return follow(session, query).await;
    }
    show(session, PATH, &query, wanted.limit).await
}

/// A list of events, each as it comes.
pub(crate) async fn show(
    session: &Session,
    path: &str,
    query: &Query,
    limit: Limit,
) -> Result<u8, CtlError> {
    let more = pages::walk(session, path, query, limit, |event| {
        print(session, &event)?;
        Ok(true)
    });
    if more.await? {
        session.out.note(&format!("only the newest {}; --limit 0 shows all", limit.limit));
    }
    Ok(0)
}

/// Asks again and again for what is new: the live view does not tell of single events.
async fn follow(session: &Session, mut query: Query) -> Result<u8, CtlError> {
    let since = query.iter().any(|(name, _)| *name == "from_ms");
    let mut silent = !since;
    let mut shown: HashMap<String, i64> = HashMap::new();
    loop {
        let from_ms = now_ms() - WINDOW_MS;
        if silent || !shown.is_empty() || !since {
            query.retain(|(name, _)| *name != "from_ms");
            query.push(("from_ms", from_ms.to_string()));
        }
        let mut news = Vec::new();
        let walked = pages::walk(session, PATH, &query, Limit { limit: 0 }, |event| {
            let id = event["id"].as_str().unwrap_or_default().to_owned();
            let time_ms = event["time_ms"].as_i64().unwrap_or_default();
            if shown.insert(id, time_ms).is_none() && !silent {
                news.push(event);
            }
            Ok(true)
        });
        walked.await?;
        news.reverse();
        news.iter().try_for_each(|event| print(session, event))?;
        if silent {
            session.out.note("following; Ctrl-C ends it");
        }
        silent = false;
        shown.retain(|_, time_ms| *time_ms >= from_ms);
        tokio::time::sleep(PAUSE).await;
    }
}

fn print(session: &Session, event: &Value) -> Result<(), CtlError> {
    if session.out.json { session.out.json(event) } else { session.out.line(&line(event)) }
}

/// One event for people.
fn line(event: &Value) -> String {
    let text = |at: &str| event.pointer(at).and_then(Value::as_str).unwrap_or("-");
    let time = local_time(event["time_ms"].as_i64().unwrap_or_default());
    let what = what(&event["event"]);
    let cut = what.chars().count() > LONGEST;
    let what: String = what.chars().take(LONGEST).collect();
    let more = if cut { " …" } else { "" };
    format!("{time}  {}  {:<14}  {what}{more}", text("/host"), text("/kind"))
}

/// What tells most, whatever kind it is.
fn what(body: &Value) -> String {
    let text = |at: &str| body.pointer(at).and_then(Value::as_str).filter(|text| !text.is_empty());
    let mut parts: Vec<String> = Vec::new();
    for at in ["/action", "/title", "/signature/name", "/capability", "/path", "/target"] {
        parts.extend(text(at).map(str::to_owned));
    }
    for at in ["/disposition", "/dns_name", "/remote_address", "/evidence", "/reason"] {
        parts.extend(text(at).map(str::to_owned));
    }
    let words = body.pointer("/process/args").and_then(Value::as_array);
    let words: Vec<&str> = words.into_iter().flatten().filter_map(Value::as_str).collect();
    let command = if words.is_empty() {
        text("/process/exe").unwrap_or("").to_owned()
    } else {
        words.join(" ")
    };
    if !command.is_empty() {
        let user = text("/process/user").unwrap_or("-");
        let pid = body.pointer("/process/key/pid").and_then(Value::as_u64).unwrap_or_default();
        parts.push(format!("{command} by {user} pid {pid}"));
    }
    if let Some(count) = body["count"].as_u64().filter(|count| *count > 1) {
        parts.push(format!("({count} times)"));
    }
    parts.join(" ")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_event_is_one_line_of_what_tells_most() {
        let event = json!({
            "time_ms": 0, "host": "web1", "kind": "exec",
            "event": { "process": { "args": ["tcpdump", "-c", "5"], "user": "root",
                "key": { "pid": 7 } }, "count": 2 },
        });
        let line = line(&event);
        assert!(
            line.ends_with("web1  exec            tcpdump -c 5 by root pid 7 (2 times)"),
            "{line}"
        );
        assert!(super::line(&Value::Null).contains('-'));
        let long = json!({ "event": { "path": "x".repeat(10_000) } });
        assert!(super::line(&long).chars().count() < 400);
    }
}
