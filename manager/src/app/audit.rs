//! The audit log: who did what, and whether it is whole.
//!
//! The last hash is also kept in a file of the data folder, so that rows cut off at the end show.

use std::path::Path;
use std::sync::PoisonError;

use serde_json::Value;

use super::secret::hex;
use super::{App, AppError, now_ms};
use crate::store::audit::{AuditHead, AuditRow, NewAudit, audit_append, audit_hash};
use crate::store::{Store, StoreError, Tx};

/// Name of the file with the last row's number and hash.
const HEAD: &str = "audit.head";

/// What a check of the log found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditVerdict {
    /// Rows that were looked at.
    pub rows: i64,
    /// The last one's hash in hex.
    pub head: String,
    /// What is wrong, the first of it.
    pub fault: Option<AuditFault>,
}

/// What is wrong with the log.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AuditFault {
    /// A number is missing.
    #[error("row {0} is missing")]
    Missing(i64),
    /// A row's content is not what its hash says.
    #[error("row {0} was changed")]
    Changed(i64),
    /// A row does not continue the one before.
    #[error("row {0} does not continue the one before it")]
    Broken(i64),
    /// The data folder knows of a row that is not there, or is another.
    #[error("row {0}, the last one written here, is not in the log as it was written")]
    Cut(i64),
}

pub(super) async fn append(
    tx: &mut Tx,
    actor: &str,
    action: &str,
    target: &str,
    detail: &Value,
) -> Result<AuditHead, StoreError> {
    let entry = NewAudit {
        time_ms: now_ms(),
        actor: actor.to_owned(),
        action: action.to_owned(),
        target: target.to_owned(),
        detail: detail.to_string(),
    };
    audit_append(tx, entry).await
}

impl App {
    /// Remembers the last row outside the database. Call it after the commit.
    pub(super) fn audit_remember(&self, head: &AuditHead) {
        let mut last = self.0.audit_head.lock().unwrap_or_else(PoisonError::into_inner);
        if head.number <= *last {
            return;
        }
        let text = format!("{} {}\n", head.number, hex(&head.hash));
        match super::files::replace(&self.0.settings.data_dir.join(HEAD), text.as_bytes()) {
            Ok(()) => *last = head.number,
            Err(error) => tracing::error!(%error, "cannot keep the audit log's last hash"),
        }
    }

    /// A page of the log, newest first.
    ///
    /// # Errors
    /// [`AppError`]
    pub async fn audit_list(
        &self,
        before: Option<i64>,
        period: (i64, i64),
        limit: u32,
        text: &str,
    ) -> Result<Vec<AuditRow>, AppError> {
        let before = before.unwrap_or(i64::MAX);
        Ok(self.store().audit_before(before, period.0, period.1, limit, text).await?)
    }
}

/// Checks the whole log.
///
/// # Errors
/// [`StoreError`], when it could not be read.
pub async fn audit_verify(store: &Store, data_dir: &Path) -> Result<AuditVerdict, StoreError> {
    let remembered = std::fs::read_to_string(data_dir.join(HEAD)).ok();
    let remembered = remembered.as_deref().and_then(|text| {
        let (number, hash) = text.trim().split_once(' ')?;
        Some((number.parse::<i64>().ok()?, hash.to_owned()))
    });
    let mut seen = remembered.is_none();
    let (mut number, mut previous) = (0, vec![0; 32]);
    let verdict = |rows, hash: &[u8], fault| AuditVerdict { rows, head: hex(hash), fault };
    loop {
        let rows = store.audit_after(number, 1000).await?;
        if rows.is_empty() {
            break;
        }
        for row in rows {
            let fault = if row.number != number + 1 {
                Some(AuditFault::Missing(number + 1))
            } else if row.hash != audit_hash(row.number, &row.entry, &row.previous) {
                Some(AuditFault::Changed(row.number))
            } else if row.previous != previous {
                Some(AuditFault::Broken(row.number))
            } else {
                None
            };
            if fault.is_some() {
                return Ok(verdict(number, &previous, fault));
            }
            number = row.number;
            previous = row.hash;
            if let Some((last, hash)) = &remembered {
                seen |= *last == number && *hash == hex(&previous);
            }
        }
    }
    let last = remembered.map_or(0, |(last, _)| last);
    let fault = (!seen).then_some(AuditFault::Cut(last));
    Ok(verdict(number, &previous, fault))
}
