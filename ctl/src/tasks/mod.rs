//! `holdfast-ctl tasks`: filing, waiting, taking back, downloading.

pub(crate) mod file;
pub(crate) mod order;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::{Value, json};
use uuid::Uuid;

use self::file::Target;
use crate::arguments::{Filing, Tasks};
use crate::live::{self, Follow};
use crate::out::Column;
use crate::pages::{self, span_s};
use crate::{CtlError, Session, UNDER_WAY};

const PATH: &str = "/api/v1/tasks";
const COLUMNS: &[Column] = &[
    ("FILED", "/filed_ms"),
    ("STAGE", "/stage"),
    ("ACTION", "/action/action"),
    ("HOST", "/host"),
    ("BY", "/filed_by"),
    ("OBSERVED", "/observed"),
    ("ID", "/id"),
];

/// Pauses between two looks at a task: short at first.
const SHORTEST: Duration = Duration::from_millis(50);
const LONGEST: Duration = Duration::from_secs(1);

pub(crate) async fn tasks(session: &mut Session, command: Tasks) -> Result<u8, CtlError> {
    match command {
        Tasks::List { stage, host, alert, period, limit, follow } => {
            let wanted = [
                ("stage", "stage", stage),
                ("host", "host_id", pages::host_maybe(session, host).await?),
                ("alert", "alert", alert),
            ];
            let fits = |one: &Value| live::fits(&wanted, one);
            let view = Follow {
                name: "task",
                path: PATH,
                at: "",
                query: Vec::new(),
                period: true,
                since_ms: None,
                fits: &fits,
                columns: COLUMNS,
            };
            let (period, limit) = (pages::period(&period)?, (!follow).then_some(limit));
            live::list_or_follow(session, view, &wanted, period, limit).await
        }
        Tasks::Show { id } => {
            let task = get(session, pages::id("task", &id)?).await?;
            session.out.facts(&task)?;
            Ok(0)
        }
        Tasks::File(filing) => filed(session, *filing).await,
        Tasks::Wait { id, timeout } => {
            let id = pages::id("task", &id)?;
            let (task, code) = wait(session, id, timeout.as_deref()).await?;
            session.out.row(COLUMNS, &task)?;
            Ok(code)
        }
        Tasks::Cancel { id, reason } => {
            let path = format!("{PATH}/{}/cancel", pages::id("task", &id)?);
            let body = json!({ "reason": reason });
            let task = session.client.call(Method::POST, &path, Some(&body)).await?;
            session.out.row(COLUMNS, &task)?;
            Ok(0)
        }
        Tasks::Download { id, output, force } => {
            let id = pages::id("task", &id)?;
            let output = output.unwrap_or_else(|| PathBuf::from(format!("{id}.zip")));
            let target = Target::new(&output, force)?;
            let task = get(session, id).await?;
            download(session, &task, id, target).await?;
            Ok(0)
        }
    }
}

async fn get(session: &Session, id: Uuid) -> Result<Value, CtlError> {
    session.client.get(&format!("{PATH}/{id}"), &[]).await
}

async fn filed(session: &Session, filing: Filing) -> Result<u8, CtlError> {
    let Filing { host, reason, alert, expires, key, wait: waits, timeout, output, force, order } =
        filing;
    let action = order.action()?;
    let wait_s = expires.map(|text| span_s("--expires", &text)).transpose()?;
    // Nothing is filed whose end could not be kept.
    let target = output.map(|output| Target::new(&output, force)).transpose()?;
    let host = pages::host(session, &host).await?;
    let body = json!({
        "host": host, "action": action, "reason": reason, "alert": alert, "wait_s": wait_s,
    });
    let key = key.unwrap_or_else(|| Uuid::now_v7().to_string());
    let task = session.client.post_once(PATH, &body, &key).await?;
    if !waits && target.is_none() {
        session.out.row(COLUMNS, &task)?;
        return Ok(0);
    }
    let id = pages::id("task", task["id"].as_str().unwrap_or_default())?;
    let (task, code) = wait(session, id, timeout.as_deref()).await?;
    session.out.row(COLUMNS, &task)?;
    match target {
        Some(target) if code == 0 => download(session, &task, id, target).await?,
        _ => {}
    }
    Ok(code)
}

/// The task at its end and the exit code for it; as it is, when the time is over.
async fn wait(session: &Session, id: Uuid, timeout: Option<&str>) -> Result<(Value, u8), CtlError> {
    let timeout = timeout.map(|text| span_s("--timeout", text)).transpose()?;
    let began = Instant::now();
    let mut pause = SHORTEST;
    loop {
        let task = get(session, id).await?;
        if !task["ended_ms"].is_null() {
            let code = u8::from(task["stage"] != "verified");
            return Ok((task, code));
        }
        if timeout.is_some_and(|timeout| began.elapsed() >= Duration::from_secs(timeout)) {
            session.out.note("it is still under way");
            return Ok((task, UNDER_WAY));
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST);
    }
}

async fn download(
    session: &Session,
    task: &Value,
    id: Uuid,
    target: Target,
) -> Result<(), CtlError> {
    let sha256 = task["file_sha256"].as_str();
    let path = format!("{PATH}/{id}/file");
    let response = session.client.open(Method::GET, &path, None).await?;
    target.fill(session, response, sha256).await
}
