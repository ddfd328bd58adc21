//! What goes when: events by kind, in days and bytes; delivered files; partitions ahead of time.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{App, StoreError, now_ms};
use crate::store::numbers::numbers;
use crate::store::quarantine::items_forget;
use crate::store::retention::{DAY_MS, events_remove, partitions_drop, partitions_make};

/// Between two rounds.
const ROUND: Duration = Duration::from_secs(600);
/// Days ahead and behind that have a partition of their own.
const AHEAD: i64 = 2;
const BEHIND: i64 = 7;

/// What is kept of a kind of events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keep {
    /// Not longer than this many days.
    pub days: u32,
    /// Not more than this many bytes of events; the oldest go first. 0: no limit.
    pub bytes: u64,
}

/// What is kept how long.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retention {
    /// Kinds that `kinds` does not name.
    pub default: Keep,
    /// By kind.
    pub kinds: BTreeMap<String, Keep>,
    /// Delivered files, days.
    pub file_days: u32,
}

pub(super) async fn run(app: App) {
    let mut ending = app.ending();
    loop {
        tokio::select! {
            _ = ending.wait_for(|ending| *ending) => return,
            () = tokio::time::sleep(ROUND) => {}
        }
        if let Err(error) = app.partitions_ahead().await {
            tracing::error!(%error, "cannot make partitions");
        }
        if let Err(error) = app.retention_round(now_ms()).await {
            tracing::error!(%error, "cannot remove old events");
        }
    }
}

impl App {
    pub(super) async fn partitions_ahead(&self) -> Result<(), StoreError> {
        let today = now_ms().div_euclid(DAY_MS);
        let days: Vec<i64> = (today - BEHIND..=today + AHEAD).collect();
        let mut tx = self.store().begin().await?;
        partitions_make(&mut tx, &days).await?;
        tx.commit().await
    }

    /// Removes what is not kept any more at this time; how many events.
    ///
    /// # Errors
    /// [`StoreError`]; what was removed before it stays removed.
    pub async fn retention_round(&self, now_ms: i64) -> Result<i64, StoreError> {
        let retention = &self.0.settings.retention;
        let mut removed = 0;
        let mut longest = retention.default.days;
        for total in self.store().kind_totals().await? {
            let keep = retention.kinds.get(&total.kind).copied().unwrap_or(retention.default);
            longest = longest.max(keep.days);
            let cutoff = now_ms.saturating_sub(i64::from(keep.days) * DAY_MS);
            let (before, _) = numbers(cutoff, cutoff);
            let mut bytes = total.bytes;
            loop {
                let (count, freed) = self.events_remove(&total.kind, before).await?;
                removed += count;
                bytes -= freed;
                if count == 0 {
                    break;
                }
            }
            let most = i64::try_from(keep.bytes).unwrap_or(i64::MAX);
            while most > 0 && bytes > most {
                let (count, freed) = self.events_remove(&total.kind, i64::MAX).await?;
                removed += count;
                bytes -= freed;
                if count == 0 {
                    break;
                }
            }
        }
        let malware = retention.kinds.get("malware").copied().unwrap_or(retention.default);
        let mut tx = self.store().begin().await?;
        let age_ms = i64::from(malware.days) * DAY_MS;
        items_forget(&mut tx, now_ms.saturating_sub(age_ms)).await?;
        tx.commit().await?;
        self.models_round(now_ms).await?;
        let oldest = now_ms.div_euclid(DAY_MS) - i64::from(longest) - 1;
        let mut tx = self.store().begin().await?;
        partitions_drop(&mut tx, oldest.min(now_ms.div_euclid(DAY_MS) - BEHIND)).await?;
        tx.commit().await?;
        let files = self.clone();
        let age = Duration::from_secs(u64::from(retention.file_days) * 86_400);
        let expired = tokio::task::spawn_blocking(move || {
            files.files_expire(age)?;
            files.recordings_expire(age)
        })
        .await;
        if let Ok(Err(error)) = expired {
            tracing::error!(%error, "cannot remove old files");
        }
        Ok(removed)
    }

    /// In steps, so that what agents send gets in between.
    async fn events_remove(&self, kind: &str, before: i64) -> Result<(i64, i64), StoreError> {
        let mut tx = self.store().begin().await?;
        let removed = events_remove(&mut tx, kind, before, self.0.instance).await?;
        tx.commit().await?;
        Ok(removed)
    }
}
