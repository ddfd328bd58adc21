//! The fleet in numbers.

use super::{App, AppError, now_ms};
use crate::store::alerts::AlertBar;
use crate::store::hosts::HostCounts;

/// Parts of a period at most.
const PARTS: i64 = 96;
/// A part is a multiple of one of these, milliseconds.
const STEPS: [i64; 9] = [
    60_000, 300_000, 900_000, 1_800_000, 3_600_000, 10_800_000, 21_600_000, 43_200_000, 86_400_000,
];

/// What an operator looks at first.
#[derive(Debug, Clone)]
pub struct Overview {
    /// The manager's clock, milliseconds since the epoch.
    pub now_ms: i64,
    /// How hosts stand.
    pub hosts: HostCounts,
    /// Alerts that are not resolved, by level.
    pub open: Vec<(String, i64)>,
    /// Response tasks that are not at their end.
    pub tasks: i64,
    /// Milliseconds of a part of the period.
    pub bar_ms: i64,
    /// Alerts by the part of the period in which they were made.
    pub bars: Vec<AlertBar>,
}

impl App {
    /// The fleet in numbers, and alerts over a period.
    ///
    /// # Errors
    /// [`AppError`]
    pub async fn overview(&self, (from_ms, until_ms): (i64, i64)) -> Result<Overview, AppError> {
        let now_ms = now_ms();
        let bar_ms = part(until_ms.min(now_ms).saturating_sub(from_ms));
        Ok(Overview {
            now_ms,
            hosts: self.host_counts().await?,
            open: self.store().alert_open_levels().await?,
            tasks: self.task_open_count().await?,
            bar_ms,
            bars: self.store().alert_bars(from_ms, until_ms, bar_ms).await?,
        })
    }
}

/// How long the parts of a period are.
fn part(period_ms: i64) -> i64 {
    let least = period_ms.max(1) / PARTS;
    let step = STEPS.iter().find(|step| **step >= least);
    // Beyond the last step whole days.
    step.copied().unwrap_or_else(|| (least / STEPS[8] + 1).saturating_mul(STEPS[8]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_period_has_more_parts_than_are_told() {
        for period in [0, 1, 60_000, 86_400_000, 30 * 86_400_000, 40_000 * 86_400_000, i64::MAX] {
            assert!(period / part(period) <= 120, "{period}");
        }
        assert_eq!(part(86_400_000), 900_000);
    }
}
