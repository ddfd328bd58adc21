//! What lies in the hosts' quarantines, as their events tell it.
//!
//! Invariant: what is listed is what hosts told. An order to restore or delete changes nothing here
//! until the host has told of it.

use holdfast_common::event::{Event, EventBody};
use holdfast_common::verdict::{Disposition, Engine};
use uuid::Uuid;

use super::{App, AppError, cut};
use crate::store::quarantine::{ItemChange, ItemFilter, ItemNews, QuarantineItem};

/// States of an item.
pub const ITEM_STATES: [&str; 4] = ["held", "restored", "restored_and_allowed", "deleted"];
/// Bytes of a path and of a name.
const PATH: usize = 4096;
const NAME: usize = 500;

/// What an event tells of a quarantine item, if anything.
pub(super) fn item_news(event: &Event, host: i64) -> Option<ItemNews> {
    let (item, path, sha256, what) = if let EventBody::Malware(found) = &event.body {
        let is_sealed =
            matches!(found.disposition, Disposition::Quarantined | Disposition::Vanished);
        if !is_sealed || found.signature.engine == Engine::SelfProof {
            return None;
        }
        let what = ItemChange::Sealed {
            size: i64::try_from(found.file.size).unwrap_or(i64::MAX),
            md5: cut(&found.hashes.md5, NAME).to_owned(),
            signature: cut(&found.signature.name, NAME).to_owned(),
        };
        (found.quarantine_id?, &found.path, &found.hashes.sha256, what)
    } else if let EventBody::Quarantine(done) = &event.body {
        let state = ITEM_STATES[1..].iter().find(|state| **state == done.action)?;
        (done.item, &done.path, &done.sha256, ItemChange::Left(state))
    } else {
        return None;
    };
    Some(ItemNews {
        host,
        item,
        path: cut(path, PATH).to_owned(),
        sha256: cut(sha256, NAME).to_owned(),
        time_ms: event.time_ms,
        what,
    })
}

impl App {
    /// Items of all hosts, newest first.
    ///
    /// # Errors
    /// [`AppError`]; `Invalid` for a state that there is not.
    pub async fn item_list(&self, filter: &ItemFilter) -> Result<Vec<QuarantineItem>, AppError> {
        if filter.state.as_deref().is_some_and(|state| !ITEM_STATES.contains(&state)) {
            return Err(AppError::Invalid(format!("state: one of {}", ITEM_STATES.join(", "))));
        }
        Ok(self.store().item_list(filter).await?)
    }

    /// One item of a host.
    ///
    /// # Errors
    /// [`AppError`]
    pub async fn item_get(&self, host: Uuid, item: Uuid) -> Result<QuarantineItem, AppError> {
        self.store().item_get(host, item).await?.ok_or(AppError::NotFound("quarantine item"))
    }
}
