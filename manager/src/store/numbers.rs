//! Numbers that order things by time.
//!
//! A number is a time in milliseconds and 19 bits of a hash of owner and id: what comes later has
//! the larger one, and many managers give them out without asking each other. A number that another
//! thing has goes to the next that is free.

use sha2::{Digest, Sha256};
use uuid::Uuid;

/// Bits of a number below the time.
const LOW: u32 = 19;
/// The last time that has a number (in the year 2248); the next number never overflows.
const LAST_MS: i64 = (1 << 43) - 1;

/// The lowest number of a time, and the lowest of another, or above all.
#[must_use]
pub fn numbers(from_ms: i64, until_ms: i64) -> (i64, i64) {
    let until = if until_ms > LAST_MS { i64::MAX } else { until_ms.max(0) << LOW };
    (first_number(from_ms), until)
}

/// The time in a number.
#[must_use]
pub const fn time_of(number: i64) -> i64 {
    number >> LOW
}

/// The lowest number of a thing of this time or later.
#[must_use]
pub fn first_number(time_ms: i64) -> i64 {
    time_ms.clamp(0, LAST_MS) << LOW
}

/// The number where a thing of this time and these bytes is looked for first.
#[must_use]
pub fn number_of(time_ms: i64, owner: i64, id: Uuid) -> i64 {
    let mut hash = Sha256::new();
    hash.update(owner.to_be_bytes());
    hash.update(id.as_bytes());
    let hash = hash.finalize();
    let low = u32::from_be_bytes([hash[0], hash[1], hash[2], hash[3]]) >> (32 - LOW);
    first_number(time_ms) | i64::from(low)
}

/// SQL: `$1`, or when a row of the table has it, the next number that none has.
pub(crate) fn free_number(table: &'static str) -> String {
    format!(
        "CASE WHEN NOT EXISTS (SELECT 1 FROM {table} o WHERE o.number = $1) THEN $1 \
         ELSE (SELECT o.number + 1 FROM {table} o WHERE o.number >= $1 AND NOT EXISTS \
         (SELECT 1 FROM {table} n WHERE n.number = o.number + 1) ORDER BY o.number LIMIT 1) END"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_order_by_time_and_give_it_back() {
        let id = Uuid::now_v7();
        let early = number_of(1_000, 1, id);
        assert!(early < number_of(1_001, 1, id) && time_of(early) == 1_000);
        assert_eq!(early, number_of(1_000, 1, id));
        assert_eq!(time_of(number_of(-5, 1, id)), 0);
        assert_eq!(time_of(number_of(i64::MAX, 1, id)), LAST_MS);
        let (from, until) = numbers(1_000, 1_001);
        assert!(from <= early && early < until);
    }
}
