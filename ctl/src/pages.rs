//! Lists: cursors followed to a limit, periods, and things that are asked for by name.

use holdfast_common::text::{self, parse_since};
use serde_json::Value;
use uuid::Uuid;

use crate::arguments::{Limit, Period};
use crate::out::Column;
use crate::{CtlError, Session};

/// Most things on a page.
const PAGE: u64 = 500;
/// Beyond this a span in milliseconds is no number any more.
const LONGEST_S: u64 = i64::MAX.unsigned_abs() / 2000;

/// A query of an address, as it grows.
pub(crate) type Query = Vec<(&'static str, String)>;

/// Now, milliseconds since the epoch.
pub(crate) fn now_ms() -> i64 {
    jiff::Timestamp::now().as_millisecond()
}

/// A period as the manager takes it; nothing where the manager's own default is meant.
pub(crate) fn period(period: &Period) -> Result<Query, CtlError> {
    let mut query = Query::new();
    for (name, flag, text) in
        [("from_ms", "--since", &period.since), ("until_ms", "--until", &period.until)]
    {
        if let Some(text) = text {
            let time = parse_since(text, now_ms());
            let time = time.map_err(|error| CtlError::Usage(format!("{flag}: {error}")))?;
            query.push((name, time.to_string()));
        }
    }
    Ok(query)
}

/// A span such as 45s, 30m, 2h, 3d; whole seconds.
pub(crate) fn span_s(flag: &str, text: &str) -> Result<u64, CtlError> {
    let wrong = || CtlError::Usage(format!("{flag}: {text:?} is no span such as 30m, 2h or 3d"));
    text::span_s(text.trim()).filter(|seconds| *seconds < LONGEST_S).ok_or_else(wrong)
}

/// Walks the pages of a list until the limit, or until `each` has enough.
pub(crate) async fn walk(
    session: &Session,
    path: &str,
    query: &Query,
    limit: Limit,
    mut each: impl FnMut(Value) -> Result<bool, CtlError>,
) -> Result<bool, CtlError> {
    let mut left = if limit.limit == 0 { u64::MAX } else { limit.limit };
    let mut cursor: Option<String> = None;
    loop {
        let mut query = query.clone();
        query.push(("limit", left.min(PAGE).to_string()));
        if let Some(cursor) = &cursor {
            query.push(("cursor", cursor.clone()));
        }
        let mut page = session.client.get(path, &query).await?;
        let next = page["next"].as_str().map(str::to_owned);
        let Value::Array(items) = page["items"].take() else {
            return Err(CtlError::Failed("the answer is no list; do the versions match?".into()));
        };
        for item in items {
            left = left.saturating_sub(1);
            if !each(item)? {
                return Ok(false);
            }
        }
        match next {
            None => return Ok(false),
            Some(_) if left == 0 => return Ok(true),
            // A manager that gives the same cursor again would keep us for ever.
            Some(next) if Some(&next) == cursor.as_ref() => {
                return Err(CtlError::Failed("the manager repeats a page".to_owned()));
            }
            Some(next) => cursor = Some(next),
        }
    }
}

/// A list as a table, or a line of JSON each as they come.
pub(crate) async fn show(
    session: &Session,
    path: &str,
    query: &Query,
    limit: Limit,
    columns: &[Column],
) -> Result<u8, CtlError> {
    let mut items = Vec::new();
    let more = walk(session, path, query, limit, |item| {
        if session.out.json {
            session.out.json(&item)?;
        } else {
            items.push(item);
        }
        Ok(true)
    });
    let more = more.await?;
    if !session.out.json {
        session.out.list(columns, &items)?;
    }
    if more {
        session.out.note(&format!("only the first {}; --limit 0 shows all", limit.limit));
    }
    Ok(0)
}

/// An id as it may stand in a path.
pub(crate) fn id(what: &str, text: &str) -> Result<Uuid, CtlError> {
    text.parse().map_err(|_| CtlError::Usage(format!("{what}: {text:?} is no id")))
}

/// The id of a host that is given by id or name.
pub(crate) async fn host(session: &Session, given: &str) -> Result<Uuid, CtlError> {
    if let Ok(id) = given.parse() {
        return Ok(id);
    }
    let mut found = Vec::new();
    let (all, query) = (Limit { limit: 0 }, Query::new());
    let walked = walk(session, "/api/v1/hosts", &query, all, |host| {
        if host["name"] == given && host["revoked_ms"].is_null() {
            found.extend(host["id"].as_str().map(str::to_owned));
        }
        Ok(true)
    });
    walked.await?;
    match found.as_slice() {
        [one] => id("host", one),
        [] => Err(CtlError::Failed(format!("no host has the name {given:?}"))),
        several => {
            let several = several.join(", ");
            Err(CtlError::Failed(format!("several hosts have the name {given:?}: {several}")))
        }
    }
}

/// The same, where one is given.
pub(crate) async fn host_maybe(
    session: &Session,
    given: Option<String>,
) -> Result<Option<String>, CtlError> {
    match given {
        Some(given) => Ok(Some(host(session, &given).await?.to_string())),
        None => Ok(None),
    }
}

/// The id of one of a whole list, given by id or name.
pub(crate) async fn named(
    session: &Session,
    path: &str,
    what: &str,
    given: &str,
) -> Result<Uuid, CtlError> {
    if let Ok(id) = given.parse() {
        return Ok(id);
    }
    let list = session.client.get(path, &[]).await?;
    let mut list = list.as_array().into_iter().flatten();
    let found = list.find(|one| one["name"] == given).and_then(|one| one["id"].as_str());
    match found {
        Some(found) => id(what, found),
        None => Err(CtlError::Failed(format!("no {what} has the name {given:?}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_seconds_and_nothing_else() {
        for (text, seconds) in [("45s", 45), ("30m", 1800), ("2h", 7200), ("3d", 259_200)] {
            assert_eq!(span_s("--for", text).expect(text), seconds);
        }
        for bad in ["", "h", "2", "2x", "-2h", "1.5h", "2026-11-22T08:00:00Z", "99999999999999999w"]
        {
            assert!(span_s("--for", bad).is_err(), "{bad}");
        }
    }
}
