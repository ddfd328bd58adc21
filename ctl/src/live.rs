//! Following what changes: the manager's server-sent events say that something did, and it is asked
//! for then.
//!
//! INVARIANT: nothing is missed. After every connection, and whenever the manager says that it went
//! too fast, the list is read again from before the break, and what was not shown yet is shown.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use reqwest::{Method, StatusCode};
use serde_json::Value;

use crate::arguments::Limit;
use crate::out::Column;
use crate::pages::{self, Query, now_ms};
use crate::{CtlError, Session};

/// Longest line of a stream, bytes.
const LINE: usize = 64 << 10;
/// Things whose last state is remembered.
const KNOWN: usize = 100_000;
/// How far back the list is read after a break: clocks differ.
const BACK_MS: i64 = 300_000;
/// Pauses between two calls while nobody answers.
const PAUSES: [u64; 5] = [1, 2, 5, 10, 30];

/// What is followed.
pub(crate) struct Follow<'a> {
    /// Its name in the stream.
    pub(crate) name: &'static str,
    /// The list; one of it is below by its id.
    pub(crate) path: &'static str,
    /// Where in the answer to one the thing itself is (RFC 6901).
    pub(crate) at: &'static str,
    /// The list's query, without a period.
    pub(crate) query: Query,
    /// The list takes a period.
    pub(crate) period: bool,
    /// What was there already is shown from then on; without it only what changes from now on.
    pub(crate) since_ms: Option<i64>,
    /// What the query asks for, of one.
    pub(crate) fits: &'a dyn Fn(&Value) -> bool,
    /// How one is shown.
    pub(crate) columns: &'a [Column],
}

/// What is asked of a list: its name there, its name in one of it, the value.
pub(crate) type Wanted = (&'static str, &'static str, Option<String>);

/// Whether one is what is asked for.
pub(crate) fn fits(wanted: &[Wanted], one: &Value) -> bool {
    let same =
        |at: &str, value: &Option<String>| value.as_ref().is_none_or(|value| one[at] == **value);
    wanted.iter().all(|(_, at, value)| same(at, value))
}

/// A list of a period, or from its beginning on as it goes on.
pub(crate) async fn list_or_follow(
    session: &Session,
    mut follow: Follow<'_>,
    wanted: &[Wanted],
    period: Query,
    limit: Option<Limit>,
) -> Result<u8, CtlError> {
    let asked = wanted.iter().filter_map(|(name, _, value)| Some((*name, value.clone()?)));
    follow.query.extend(asked);
    if let Some(limit) = limit {
        follow.query.extend(period);
        return pages::show(session, follow.path, &follow.query, limit, follow.columns).await;
    }
    let since = period.iter().find(|(name, _)| *name == "from_ms");
    follow.since_ms = since.and_then(|(_, since)| since.parse().ok());
    self::follow(session, &follow).await
}

/// Follows until somebody ends it.
pub(crate) async fn follow(session: &Session, follow: &Follow<'_>) -> Result<u8, CtlError> {
    let mut known = Known::default();
    let mut from_ms = follow.since_ms.unwrap_or_else(now_ms);
    let mut silent = follow.since_ms.is_none();
    let mut failures = 0;
    loop {
        let began_ms = now_ms();
        match round(session, follow, &mut known, from_ms, silent).await {
            // The manager ends each stream in time.
            Ok(()) => failures = 0,
            Err(error) if known.first && passes(&error) => {
                session.out.note(&format!("the connection broke ({error}); trying again"));
                let pause = PAUSES[failures.min(PAUSES.len() - 1)];
                failures += 1;
                tokio::time::sleep(Duration::from_secs(pause)).await;
            }
            Err(error) => return Err(error),
        }
        silent = false;
        from_ms = began_ms - BACK_MS;
    }
}

/// Whether it may be over soon: nobody there, or one that ends, begins or has too much to do.
fn passes(error: &CtlError) -> bool {
    match error {
        CtlError::Unreachable { .. } => true,
        CtlError::Refused(problem) => {
            problem.status.is_server_error() || problem.status == StatusCode::TOO_MANY_REQUESTS
        }
        CtlError::Usage(_) | CtlError::Data(_) | CtlError::Failed(_) | CtlError::Output(_) => false,
    }
}

/// One stream to its end.
async fn round(
    session: &Session,
    follow: &Follow<'_>,
    known: &mut Known,
    from_ms: i64,
    silent: bool,
) -> Result<(), CtlError> {
    // The stream first: what changes while the list is read is told.
    let mut stream = session.client.open(Method::GET, "/api/v1/live", None).await?;
    catch_up(session, follow, known, from_ms, silent).await?;
    if !known.first {
        known.first = true;
        session.out.note("following; Ctrl-C ends it");
    }
    let mut parser = Parser::default();
    loop {
        let part = stream.chunk().await;
        let Some(part) = part.map_err(|error| session.client.unreachable(&error))? else {
            return Ok(());
        };
        for (name, data) in parser.take(&part)? {
            if name == "missed" {
                catch_up(session, follow, known, now_ms() - BACK_MS, false).await?;
            } else if name == follow.name {
                let told: Value = serde_json::from_str(&data).unwrap_or_default();
                let id = pages::id("live", told["id"].as_str().unwrap_or_default());
                // What is no id leads nowhere.
                let Ok(id) = id else { continue };
                let one = session.client.get(&format!("{}/{id}", follow.path), &[]).await?;
                let one = one.pointer(follow.at).unwrap_or(&Value::Null);
                if (follow.fits)(one) && known.is_news(one) {
                    session.out.row(follow.columns, one)?;
                }
            }
        }
    }
}

async fn catch_up(
    session: &Session,
    follow: &Follow<'_>,
    known: &mut Known,
    from_ms: i64,
    silent: bool,
) -> Result<(), CtlError> {
    let mut query = follow.query.clone();
    if follow.period {
        let from_ms = if silent { from_ms - BACK_MS } else { from_ms };
        query.push(("from_ms", from_ms.to_string()));
    }
    let mut news = Vec::new();
    let walked = pages::walk(session, follow.path, &query, Limit { limit: 0 }, |item| {
        if known.is_news(&item) && !silent {
            news.push(item);
        }
        Ok(true)
    });
    walked.await?;
    news.reverse();
    news.iter().try_for_each(|item| session.out.row(follow.columns, item))
}

/// What was seen, by id, as it was.
#[derive(Default)]
struct Known {
    seen: HashMap<String, u64>,
    /// A stream was open once.
    first: bool,
}

impl Known {
    fn is_news(&mut self, item: &Value) -> bool {
        let mut hash = DefaultHasher::new();
        // With one alone there is more than in the list: its heartbeat.
        let mut item = item.clone();
        let id = item["id"].as_str().unwrap_or_default().to_owned();
        if let Some(map) = item.as_object_mut() {
            for moving in ["heartbeat", "seen_ms"] {
                map.remove(moving);
            }
        }
        item.to_string().hash(&mut hash);
        let now = hash.finish();
        if self.seen.len() >= KNOWN {
            self.seen.clear();
        }
        self.seen.insert(id, now) != Some(now)
    }
}

/// Server-sent events, cut out of bytes as they come.
#[derive(Default)]
struct Parser {
    line: Vec<u8>,
    name: String,
    data: String,
}

impl Parser {
    fn take(&mut self, bytes: &[u8]) -> Result<Vec<(String, String)>, CtlError> {
        let mut events = Vec::new();
        for byte in bytes {
            if *byte != b'\n' {
                if self.line.len() + self.data.len() >= LINE {
                    return Err(CtlError::Failed("the live view sends too long a line".into()));
                }
                self.line.push(*byte);
                continue;
            }
            let line = std::mem::take(&mut self.line);
            let line = String::from_utf8_lossy(line.strip_suffix(b"\r").unwrap_or(&line));
            match line.split_once(':') {
                _ if line.is_empty() => {
                    let (name, data) =
                        (std::mem::take(&mut self.name), std::mem::take(&mut self.data));
                    if !name.is_empty() {
                        events.push((name, data));
                    }
                }
                Some(("event", value)) => self.name = value.trim().to_owned(),
                Some(("data", value)) => self.data.push_str(value.trim()),
                // Comments, and fields of no use here.
                _ => {}
            }
        }
        Ok(events)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn events_are_cut_out_wherever_the_bytes_are_cut() {
        let text = b": hello\n\nevent: alert\ndata: {\"id\":\"x\"}\n\nevent:task\r\ndata:1\r\n\r\n";
        let wanted = [("alert", "{\"id\":\"x\"}"), ("task", "1")];
        for size in 1..=text.len() {
            let mut parser = Parser::default();
            let parts = text.chunks(size).map(|part| parser.take(part).expect("fine"));
            let found: Vec<(String, String)> = parts.flatten().collect();
            let found: Vec<_> = found.iter().map(|(a, b)| (a.as_str(), b.as_str())).collect();
            assert_eq!(found, wanted, "in parts of {size}");
        }
    }

    #[test]
    fn a_stream_without_an_end_of_line_does_not_fill_the_memory() {
        let mut parser = Parser::default();
        let part = [b'x'; 4096];
        assert!((0..100).any(|_| parser.take(&part).is_err()));
        let mut parser = Parser::default();
        assert!((0..10_000).any(|_| parser.take(b"data: 0123456789\n").is_err()));
    }

    #[test]
    fn the_same_thing_is_news_once() {
        let mut known = Known::default();
        assert!(known.is_news(&json!({ "id": "a", "state": "new", "seen_ms": 1 })));
        assert!(!known.is_news(&json!({ "id": "a", "state": "new", "seen_ms": 2 })));
        assert!(known.is_news(&json!({ "id": "a", "state": "resolved" })));
        assert!(known.is_news(&json!({ "id": "b", "state": "resolved" })));
    }
}
