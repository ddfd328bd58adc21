//! `holdfast-ctl alerts`.

use reqwest::Method;
use serde_json::{Map, Value, json};

use crate::arguments::Alerts;
use crate::live::{self, Follow};
use crate::out::Column;
use crate::pages;
use crate::{CtlError, Session, events};

const PATH: &str = "/api/v1/alerts";
const COLUMNS: &[Column] = &[
    ("LAST", "/last_ms"),
    ("LEVEL", "/level"),
    ("STATE", "/state"),
    ("COUNT", "/count"),
    ("HOST", "/host"),
    ("TITLE", "/title"),
    ("CAUSE", "/cause"),
    ("ID", "/id"),
];

pub(crate) async fn alerts(session: &mut Session, command: Alerts) -> Result<u8, CtlError> {
    match command {
        Alerts::List { state, kind, host, period, limit, follow } => {
            let wanted = [
                ("state", "state", state),
                ("kind", "kind", kind),
                ("host", "host_id", pages::host_maybe(session, host).await?),
            ];
            let fits = |one: &Value| live::fits(&wanted, one);
            let view = Follow {
                name: "alert",
                path: PATH,
                at: "/alert",
                query: Vec::new(),
                period: true,
                since_ms: None,
                fits: &fits,
                columns: COLUMNS,
            };
            let (period, limit) = (pages::period(&period)?, (!follow).then_some(limit));
            live::list_or_follow(session, view, &wanted, period, limit).await
        }
        Alerts::Show { id } => {
            let id = pages::id("alert", &id)?;
            let shown = session.client.get(&format!("{PATH}/{id}"), &[]).await?;
            session.out.facts(&shown)?;
            Ok(0)
        }
        Alerts::Events { id, limit } => {
            let path = format!("{PATH}/{}/events", pages::id("alert", &id)?);
            events::show(session, &path, &Vec::new(), limit).await
        }
        Alerts::Edit { id, state, resolution, assignee } => {
            let path = format!("{PATH}/{}", pages::id("alert", &id)?);
            let mut body = Map::new();
            for (name, value) in
                [("state", state), ("resolution", resolution), ("assignee", assignee)]
            {
                body.extend(value.map(|value| (name.to_owned(), Value::from(value))));
            }
            if body.is_empty() {
                let why = "nothing to change: --state, --resolution or --assignee";
                return Err(CtlError::Usage(why.to_owned()));
            }
            let edited =
                session.client.call(Method::PATCH, &path, Some(&Value::Object(body))).await?;
            session.out.row(COLUMNS, &edited["alert"])?;
            Ok(0)
        }
        Alerts::Note { id, text } => {
            let id = pages::id("alert", &id)?;
            let (path, body) = (format!("{PATH}/{id}/notes"), json!({ "text": text }));
            session.client.call(Method::POST, &path, Some(&body)).await?;
            session.done("noted", &json!({ "noted": id }))
        }
    }
}
