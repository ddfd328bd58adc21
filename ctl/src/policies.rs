//! `holdfast-ctl policies`: documents, their versions, and how they are rolled out.

use std::io::Read;
use std::path::Path;

use reqwest::Method;
use serde_json::{Map, Value, json};

use crate::arguments::{Course, Policies};
use crate::out::Column;
use crate::pages::{self, Query, span_s};
use crate::{CtlError, Session};

const PATH: &str = "/api/v1/policies";
/// Bytes of a document, as the manager takes it.
const MAX_DOCUMENT: u64 = 64 << 10;
const COLUMNS: &[Column] = &[
    ("NAME", "/name"),
    ("GROUPS", "/groups"),
    ("VERSION", "/newest/version"),
    ("ROLL-OUT", "/newest/state"),
    ("WHY", "/newest/why"),
    ("LAST GOOD", "/stable"),
    ("ID", "/id"),
];
const VERSION_COLUMNS: &[Column] = &[
    ("VERSION", "/version"),
    ("PUT", "/created_ms"),
    ("BY", "/author"),
    ("REASON", "/reason"),
    ("ROLL-OUT", "/state"),
    ("WHY", "/why"),
];
const HOST_COLUMNS: &[Column] = &[
    ("HOST", "/name"),
    ("CONNECTED", "/connected"),
    ("RED SINCE", "/red_ms"),
    ("WANTED", "/policy/wanted"),
    ("RUNS", "/policy/running"),
    ("REFUSED", "/policy/refused"),
    ("WHY", "/policy/why"),
    ("ID", "/id"),
];

pub(crate) async fn policies(session: &mut Session, command: Policies) -> Result<u8, CtlError> {
    match command {
        Policies::List => {
            let list = session.client.get(PATH, &[]).await?;
            session.out.list(COLUMNS, list.as_array().map_or(&[][..], Vec::as_slice))?;
            Ok(0)
        }
        Policies::Create { name, course } => {
            let mut body = course_body(&course)?;
            body.insert("name".to_owned(), name.into());
            let made = session.client.call(Method::POST, PATH, Some(&Value::Object(body))).await?;
            session.out.list(COLUMNS, &[made])?;
            Ok(0)
        }
        Policies::Edit { policy, name, course } => {
            let mut body = course_body(&course)?;
            body.extend(name.map(|name| ("name".to_owned(), name.into())));
            if body.is_empty() {
                let why = "nothing to change: --name, --stages, --soak or --roll-back";
                return Err(CtlError::Usage(why.to_owned()));
            }
            let path = at(session, &policy, "").await?;
            let body = Value::Object(body);
            let edited = session.client.call(Method::PATCH, &path, Some(&body)).await?;
            session.out.list(COLUMNS, &[edited])?;
            Ok(0)
        }
        Policies::Delete { policy, reassign, reason } => {
            let mut query = vec![("reason", reason)];
            if let Some(other) = reassign {
                let id = pages::named(session, PATH, "policy", &other).await?;
                query.push(("reassign", id.to_string()));
            }
            let path = at(session, &policy, "").await?;
            session.client.delete(&path, &query).await?;
            session.out.note("deleted");
            Ok(0)
        }
        Policies::Assign { policy, groups, reason } => {
            let path = at(session, &policy, "/groups").await?;
            let body = json!({ "groups": groups, "reason": reason });
            let assigned = session.client.call(Method::PUT, &path, Some(&body)).await?;
            session.out.list(COLUMNS, &[assigned])?;
            Ok(0)
        }
        Policies::Versions { policy, limit } => {
            let path = at(session, &policy, "/versions").await?;
            pages::show(session, &path, &Query::new(), limit, VERSION_COLUMNS).await
        }
        Policies::Show { policy, version } => show(session, &policy, version).await,
        Policies::Check { file } => check(session, &document(&file)?).await,
        Policies::Put { policy, file, reason, at_once } => {
            let body =
                json!({ "document": document(&file)?, "reason": reason, "at_once": at_once });
            put(session, &policy, &body).await
        }
        Policies::RollBack { policy, version, reason, at_once } => {
            let body = json!({ "copy_of": version, "reason": reason, "at_once": at_once });
            put(session, &policy, &body).await
        }
        Policies::Diff { policy, from, to } => {
            let path = at(session, &policy, "/diff").await?;
            let number = |name, version: Option<u64>| version.map(|v| (name, v.to_string()));
            let query: Query = number("from", from).into_iter().chain(number("to", to)).collect();
            let answer = session.client.get(&path, &query).await?;
            if session.out.json {
                session.out.json(&answer)?;
            } else {
                lines(session, answer["diff"].as_str().unwrap_or_default())?;
            }
            Ok(0)
        }
        Policies::Rollout { policy } => {
            let path = at(session, &policy, "/rollout").await?;
            let state = session.client.get(&path, &[]).await?;
            rollout(session, state)
        }
        Policies::Pause { policy, reason } => steer(session, &policy, "pause", &reason).await,
        Policies::Resume { policy, reason } => steer(session, &policy, "resume", &reason).await,
        Policies::Stop { policy, reason } => steer(session, &policy, "stop", &reason).await,
    }
}

/// The address of what belongs to a policy that is given by id or name.
async fn at(session: &Session, policy: &str, what: &str) -> Result<String, CtlError> {
    let id = pages::named(session, PATH, "policy", policy).await?;
    Ok(format!("{PATH}/{id}{what}"))
}

fn course_body(course: &Course) -> Result<Map<String, Value>, CtlError> {
    let mut body = Map::new();
    if !course.stages.is_empty() {
        body.insert("stages".to_owned(), json!(course.stages));
    }
    if let Some(soak) = &course.soak {
        let seconds = if soak == "0" { 0 } else { span_s("--soak", soak)? };
        body.insert("soak_s".to_owned(), seconds.into());
    }
    if let Some(roll_back) = course.roll_back {
        body.insert("roll_back".to_owned(), roll_back.into());
    }
    Ok(body)
}

/// What putting a document would say.
async fn check(session: &Session, document: &str) -> Result<u8, CtlError> {
    let (path, body) = (format!("{PATH}/check"), json!({ "document": document }));
    let said = session.client.call(Method::POST, &path, Some(&body)).await?;
    if session.out.json {
        session.out.json(&said)?;
    } else {
        let warnings = said["warnings"].as_array().into_iter().flatten().filter_map(Value::as_str);
        for warning in warnings {
            session.out.line(&format!("warning: {warning}"))?;
        }
    }
    said["error"].as_str().map_or(Ok(0), |why| Err(CtlError::Data(why.to_owned())))
}

/// A version's document, or the policy with its newest one.
async fn show(session: &Session, policy: &str, version: Option<u64>) -> Result<u8, CtlError> {
    let Some(version) = version else {
        let path = at(session, policy, "").await?;
        let shown = session.client.get(&path, &[]).await?;
        session.out.facts(&shown)?;
        return Ok(0);
    };
    let path = at(session, policy, &format!("/versions/{version}")).await?;
    let shown = session.client.get(&path, &[]).await?;
    if session.out.json {
        session.out.json(&shown)?;
    } else {
        lines(session, shown["document"].as_str().unwrap_or_default())?;
    }
    Ok(0)
}

async fn put(session: &Session, policy: &str, body: &Value) -> Result<u8, CtlError> {
    let path = at(session, policy, "/versions").await?;
    let put = session.client.call(Method::POST, &path, Some(body)).await?;
    for warning in put["warnings"].as_array().into_iter().flatten() {
        session.out.note(&format!("WARNING: {}", warning.as_str().unwrap_or_default()));
    }
    session.out.list(VERSION_COLUMNS, &[put])?;
    Ok(0)
}

async fn steer(
    session: &Session,
    policy: &str,
    action: &str,
    reason: &str,
) -> Result<u8, CtlError> {
    let path = at(session, policy, "/rollout").await?;
    let body = json!({ "action": action, "reason": reason });
    let state = session.client.call(Method::POST, &path, Some(&body)).await?;
    rollout(session, state)
}

fn rollout(session: &Session, mut state: Value) -> Result<u8, CtlError> {
    if session.out.json {
        session.out.json(&state)?;
        return Ok(0);
    }
    let members = state["members"].take();
    session.out.facts(&state)?;
    session.out.list(HOST_COLUMNS, members.as_array().map_or(&[][..], Vec::as_slice))?;
    Ok(0)
}

fn lines(session: &Session, text: &str) -> Result<(), CtlError> {
    text.lines().try_for_each(|line| session.out.line(line))
}

/// A document from a file, or from standard input.
fn document(file: &Path) -> Result<String, CtlError> {
    let failed = |error: std::io::Error| CtlError::Data(format!("{}: {error}", file.display()));
    let mut text = Vec::new();
    if file == Path::new("-") {
        std::io::stdin().take(MAX_DOCUMENT + 1).read_to_end(&mut text).map_err(failed)?;
    } else {
        let file = std::fs::File::open(file).map_err(failed)?;
        file.take(MAX_DOCUMENT + 1).read_to_end(&mut text).map_err(failed)?;
    }
    if text.len() as u64 > MAX_DOCUMENT {
        let why = format!("{}: a policy has at most {MAX_DOCUMENT} bytes", file.display());
        return Err(CtlError::Data(why));
    }
    String::from_utf8(text).map_err(|_| CtlError::Data(format!("{}: not UTF-8", file.display())))
}
