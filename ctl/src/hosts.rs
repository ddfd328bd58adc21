//! `holdfast-ctl hosts`.

use reqwest::Method;
use serde_json::{Value, json};

use crate::arguments::Hosts;
use crate::live::{self, Follow};
use crate::out::Column;
use crate::pages::{self, Query};
use crate::{CtlError, Session};

const PATH: &str = "/api/v1/hosts";
const COLUMNS: &[Column] = &[
    ("NAME", "/name"),
    ("GROUP", "/group"),
    ("HEALTH", "/health"),
    ("CONNECTED", "/connected"),
    ("SEEN", "/seen_ms"),
    ("POLICY", "/policy/name"),
    ("RUNS", "/policy/running"),
    ("WHY", "/reasons"),
    ("ID", "/id"),
];

pub(crate) async fn hosts(session: &mut Session, command: Hosts) -> Result<u8, CtlError> {
    match command {
        Hosts::List { health, limit, follow } => {
            let query: Query = health.iter().map(|health| ("health", health.clone())).collect();
            if !follow {
                return pages::show(session, PATH, &query, limit, COLUMNS).await;
            }
            let fits =
                |host: &Value| health.as_ref().is_none_or(|health| host["health"] == **health);
            let follow = Follow {
                name: "host",
                path: PATH,
                at: "",
                query,
                period: false,
                since_ms: None,
                fits: &fits,
                columns: COLUMNS,
            };
            live::follow(session, &follow).await
        }
        Hosts::Show { host } => {
            let id = pages::host(session, &host).await?;
            let shown = session.client.get(&format!("{PATH}/{id}"), &[]).await?;
            session.out.facts(&shown)?;
            Ok(0)
        }
        Hosts::Revoke { host, reason } => {
            let id = pages::host(session, &host).await?;
            let path = format!("{PATH}/{id}/revoke");
            let body = json!({ "reason": reason });
            session.client.call(Method::POST, &path, Some(&body)).await?;
            session.done(&format!("{host} is revoked"), &json!({ "revoked": id }))
        }
    }
}

impl Session {
    /// Says that something was done.
    pub(crate) fn done(&self, text: &str, json: &Value) -> Result<u8, CtlError> {
        if self.out.json {
            self.out.json(json)?;
        } else {
            self.out.line(text)?;
        }
        Ok(0)
    }
}
