//! `holdfast-ctl quarantine`. What is done with an item is a response task.

use crate::arguments::Quarantine;
use crate::out::Column;
use crate::pages::{self, Query};
use crate::{CtlError, Session};

const PATH: &str = "/api/v1/quarantine";
const COLUMNS: &[Column] = &[
    ("SEALED", "/sealed_ms"),
    ("HOST", "/host"),
    ("STATE", "/state"),
    ("SIGNATURE", "/signature"),
    ("SIZE", "/size"),
    ("PATH", "/path"),
    ("ITEM", "/item"),
];

pub(crate) async fn quarantine(session: &mut Session, command: Quarantine) -> Result<u8, CtlError> {
    match command {
        Quarantine::List { host, state, sha256, limit } => {
            let host = pages::host_maybe(session, host).await?;
            let query: Query = [("host", host), ("state", state), ("sha256", sha256)]
                .into_iter()
                .filter_map(|(name, value)| Some((name, value?)))
                .collect();
            pages::show(session, PATH, &query, limit, COLUMNS).await
        }
        Quarantine::Show { host, item } => {
            let host = pages::host(session, &host).await?;
            let shown = session.client.get(&format!("{PATH}/{host}/{item}"), &[]).await?;
            session.out.facts(&shown)?;
            Ok(0)
        }
    }
}
