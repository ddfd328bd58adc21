//! `holdfast-ctl denials`: what is denied on all hosts at once, or on those of a group.

use reqwest::Method;
use serde_json::json;

use crate::arguments::Denials;
use crate::out::Column;
use crate::pages::{self, Query};
use crate::{CtlError, Session};

const PATH: &str = "/api/v1/denials";
const COLUMNS: &[Column] = &[
    ("SINCE", "/since_ms"),
    ("UNTIL", "/until_ms"),
    ("KIND", "/kind"),
    ("VALUE", "/value"),
    ("GROUP", "/group"),
    ("BY", "/by"),
    ("REASON", "/reason"),
    ("HOSTS", "/hosts"),
    ("APPLIED", "/applied"),
    ("REFUSED", "/refused"),
    ("REMOVED", "/removed_ms"),
    ("ID", "/id"),
];
const HOST_COLUMNS: &[Column] = &[
    ("HOST", "/name"),
    ("CONNECTED", "/connected"),
    ("STATE", "/state"),
    ("WHY", "/why"),
    ("ID", "/id"),
];

pub(crate) async fn denials(session: &mut Session, command: Denials) -> Result<u8, CtlError> {
    match command {
        Denials::List { removed, limit } => {
            let query: Query = vec![("removed", removed.to_string())];
            pages::show(session, PATH, &query, limit, COLUMNS).await
        }
        Denials::Add { kind, value, group, reason, limit } => {
            let duration_s = limit.map(|limit| pages::span_s("--for", &limit)).transpose()?;
            let body = json!({ "kind": kind, "value": value, "group": group, "reason": reason,
                "duration_s": duration_s });
            let added = session.client.call(Method::POST, PATH, Some(&body)).await?;
            session.out.list(COLUMNS, &[added])?;
            Ok(0)
        }
        Denials::Remove { denial, reason } => {
            let id = pages::id("denial", &denial)?;
            let removed =
                session.client.delete(&format!("{PATH}/{id}"), &[("reason", reason)]).await?;
            session.out.list(COLUMNS, &[removed])?;
            Ok(0)
        }
        Denials::Hosts { denial, limit } => {
            let id = pages::id("denial", &denial)?;
            let path = format!("{PATH}/{id}/hosts");
            pages::show(session, &path, &Query::new(), limit, HOST_COLUMNS).await
        }
    }
}
