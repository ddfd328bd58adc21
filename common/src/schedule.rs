//! When a schedule is due: the words, and the arithmetic. Pure: the time and the zone are given.
//!
//! Cron expressions are croner's, in wall-clock time: a fixed time that the change to summer time
//! leaves out comes right after the gap, one that the change back repeats comes once. `every N days`
//! counts days from 1 January 1970 and `every N weeks` from Monday 5 January 1970, so that neither a
//! month's end nor a restart moves them, with the same rule at the changes; hours and minutes are
//! real ones, counted from the epoch.

use std::str::FromStr;

use croner::Cron;
use croner::parser::{CronParser, Seconds};
use jiff::civil::{Date, Time, date};
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan};

use crate::scans::{ScanOrder, ScanSchedule, check_order};

/// Longest jitter: a run must not run into the next day's.
const MOST_JITTER: u32 = 12 * 3600;
/// Longest name of a schedule, characters.
const LONGEST_NAME: usize = 64;
/// The fields of a cron expression.
const FIELDS: [&str; 5] = ["minute", "hour", "day of month", "month", "day of week"];

/// Why a schedule is not taken.
#[derive(Debug, thiserror::Error)]
pub enum ScheduleError {
    /// The expression is none.
    #[error("{text:?} is no schedule: {why}")]
    When {
        /// What was written.
        text: String,
        /// What is wrong, and where.
        why: String,
    },
    /// No such zone on this host.
    #[error("time zone {0:?} is not known here: local, UTC, or a name such as Europe/Berlin")]
    Zone(String),
    /// Something else of it.
    #[error("schedule {name:?}: {why}")]
    Wrong {
        /// Its name.
        name: String,
        /// What is wrong.
        why: String,
    },
}

/// When it is due.
#[derive(Debug, Clone)]
pub enum When {
    /// Wall-clock time.
    Cron(Box<Cron>),
    /// Days counted from an anchor, at a time of day.
    Days {
        /// So many.
        every: i64,
        /// Counted from here.
        anchor: Date,
        /// When.
        at: Time,
    },
    /// Milliseconds from the epoch.
    Real(i64),
}

impl FromStr for When {
    type Err = ScheduleError;

    fn from_str(text: &str) -> Result<Self, ScheduleError> {
        let wrong = |why: String| ScheduleError::When { text: text.to_owned(), why };
        let text = text.trim();
        let when = match text.strip_prefix("every ") {
            Some(rest) => every(rest).map_err(wrong)?,
            None => Self::Cron(Box::new(cron(text).map_err(wrong)?)),
        };
        // The epoch does as well as any time: years are not part of it.
        if when.next_after(0, &TimeZone::UTC).is_none() {
            return Err(wrong("it never comes".to_owned()));
        }
        Ok(when)
    }
}

impl When {
    /// The first time after this one, milliseconds since the epoch; `None` when there is none.
    #[must_use]
    pub fn next_after(&self, after_ms: i64, zone: &TimeZone) -> Option<i64> {
        let after = Timestamp::from_millisecond(after_ms).ok()?.to_zoned(zone.clone());
        match self {
            Self::Cron(cron) => {
                let next = cron.find_next_occurrence(&after, false).ok()?;
                Some(next.timestamp().as_millisecond()).filter(|next| *next > after_ms)
            }
            Self::Days { every, anchor, at } => {
                let days = i64::from(anchor.until(after.date()).ok()?.get_days());
                let count = days.div_euclid(*every);
                // A gap may move a time to the next day: the second is enough, the fourth is sure.
                (count..count + 4).find_map(|count| {
                    let day = anchor.checked_add((count * every).days()).ok()?;
                    let due = day.to_datetime(*at).to_zoned(zone.clone()).ok()?;
                    Some(due.timestamp().as_millisecond()).filter(|due_ms| *due_ms > after_ms)
                })
            }
            Self::Real(period) => after_ms.div_euclid(*period).checked_add(1)?.checked_mul(*period),
        }
    }
}

fn cron(text: &str) -> Result<Cron, String> {
    let parser = CronParser::builder().seconds(Seconds::Disallowed).build();
    let fields: Vec<&str> = text.split_whitespace().collect();
    if !text.starts_with('@') && fields.len() != FIELDS.len() {
        return Err(format!(
            "{} fields where a cron expression has 5 ({}); or every N days at HH:MM",
            fields.len(),
            FIELDS.join(", ")
        ));
    }
    parser.parse(text).map_err(|error| {
        // Which field it is: each alone, the others free.
        let bad = fields.iter().enumerate().find(|(place, field)| {
            let alone = |at| if at == *place { **field } else { "*" };
            let alone: Vec<&str> = (0..FIELDS.len()).map(alone).collect();
            parser.parse(&alone.join(" ")).is_err()
        });
        match bad {
            Some((place, field)) => {
                let name = FIELDS.get(place).copied().unwrap_or_default();
                format!("field {} ({name}), {field:?}: {error}", place + 1)
            }
            None => error.to_string(),
        }
    })
}

/// `3 days at 01:00`, `day at 02:30`, `2 weeks at 03:00`, `6 hours`, `30 minutes`.
fn every(text: &str) -> Result<When, String> {
    let usage = || "every N days|weeks at HH:MM, or every N hours|minutes".to_owned();
    let words: Vec<&str> = text.split_whitespace().collect();
    let (count, unit, rest) = match words.as_slice() {
        [unit, rest @ ..] if unit.starts_with(|c: char| c.is_ascii_alphabetic()) => {
            (1, *unit, rest)
        }
        [count, unit, rest @ ..] => (count.parse::<i64>().map_err(|_| usage())?, *unit, rest),
        _ => return Err(usage()),
    };
    let at = match rest {
        [] => None,
        ["at", time] => Some(
            time_of_day(time)
                .ok_or_else(|| format!("{time:?} is no time of day: HH:MM, 00:00 to 23:59"))?,
        ),
        _ => return Err(usage()),
    };
    let limit = |most: i64| match count {
        count if (1..=most).contains(&count) => Ok(count),
        count => Err(format!("{count} {unit}: 1 to {most}")),
    };
    let daily = |every, anchor| {
        let at = at.ok_or_else(|| format!("every {text}: at what time? at HH:MM"))?;
        Ok(When::Days { every, anchor, at })
    };
    let real = |period: i64| match at {
        Some(_) => Err(format!("{unit} have no time of day")),
        None => Ok(When::Real(period)),
    };
    match unit {
        "day" | "days" => daily(limit(366)?, date(1970, 1, 1)),
        "week" | "weeks" => daily(limit(52)? * 7, date(1970, 1, 5)),
        "hour" | "hours" => real(limit(24 * 31)? * 3_600_000),
        "minute" | "minutes" => real(limit(24 * 60)? * 60_000),
        _ => Err(usage()),
    }
}

fn time_of_day(text: &str) -> Option<Time> {
    let (hour, minute) = text.split_once(':')?;
    let number = |text: &str| {
        let digits = (1..=2).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
        digits.then(|| text.parse::<i8>().ok()).flatten()
    };
    Time::new(number(hour)?, number(minute)?, 0, 0).ok()
}

/// The zone of a schedule. The host's own is asked for each time: it may be changed.
///
/// # Errors
/// [`ScheduleError::Zone`]
pub fn zone(name: &str) -> Result<TimeZone, ScheduleError> {
    match name {
        "local" => Ok(TimeZone::system()),
        "UTC" => Ok(TimeZone::UTC),
        name => TimeZone::get(name).map_err(|_| ScheduleError::Zone(name.to_owned())),
    }
}

/// Whether this says when.
///
/// # Errors
/// [`ScheduleError::When`] with the field that is wrong.
pub fn check_when(text: &str) -> Result<(), ScheduleError> {
    text.parse::<When>().map(drop)
}

/// Whether this host knows the zone.
///
/// # Errors
/// [`ScheduleError::Zone`]
pub fn check_timezone(name: &str) -> Result<(), ScheduleError> {
    zone(name).map(drop)
}

/// `90s`, `30m`, `2h` in seconds, 12 hours at most.
#[must_use]
pub fn parse_jitter(text: &str) -> Option<u32> {
    let (number, unit) = text.split_at(text.len().checked_sub(1)?);
    let unit = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        _ => return None,
    };
    number.parse::<u32>().ok()?.checked_mul(unit).filter(|seconds| *seconds <= MOST_JITTER)
}

/// Whether all of it can be meant.
///
/// # Errors
/// [`ScheduleError`]
pub fn check_schedule(schedule: &ScanSchedule) -> Result<(), ScheduleError> {
    let name = &schedule.name;
    let wrong = |why: String| Err(ScheduleError::Wrong { name: name.clone(), why });
    let length = name.chars().count();
    if !(1..=LONGEST_NAME).contains(&length) || name.chars().any(char::is_control) {
        return wrong(format!("a name has 1 to {LONGEST_NAME} characters, none for control"));
    }
    check_when(&schedule.when)?;
    check_timezone(&schedule.timezone)?;
    if schedule.jitter_s > MOST_JITTER {
        return wrong("the jitter is 12 hours at most".to_owned());
    }
    let order = ScanOrder {
        scope: schedule.scope,
        paths: schedule.paths.clone(),
        started_by: String::new(),
        cpu_share: schedule.cpu_share,
    };
    check_order(&order).or_else(wrong)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Berlin, written out: no host's tables are needed.
    fn berlin() -> TimeZone {
        TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").expect("zone")
    }

    fn ms(text: &str) -> i64 {
        text.parse::<Timestamp>().expect(text).as_millisecond()
    }

    fn all(when: &str, from: &str, until: &str, zone: &TimeZone) -> Vec<String> {
        let when: When = when.parse().expect(when);
        let (mut at, until) = (ms(from), ms(until));
        let mut found = Vec::new();
        while let Some(next) = when.next_after(at, zone).filter(|next| *next <= until) {
            assert!(next > at, "{next} after {at}");
            found.push(Timestamp::from_millisecond(next).expect("time").to_string());
            at = next;
        }
        found
    }

    #[test]
    fn the_change_to_summer_time_loses_no_run() {
        // 29 March 2026: 02:00 to 03:00 is not there.
        let (from, until) = ("2026-03-28T12:00:00Z", "2026-03-30T12:00:00Z");
        for when in ["30 2 * * *", "every day at 02:30"] {
            let runs = all(when, from, until, &berlin());
            assert_eq!(runs.len(), 2, "{when}: {runs:?}");
            assert!(runs[0].starts_with("2026-03-29T01:"), "{when}: {runs:?}");
            assert_eq!(runs[1], "2026-03-30T00:30:00Z", "{when}");
        }
    }

    #[test]
    fn the_change_back_doubles_no_run() {
        // 25 October 2026: 02:00 to 03:00 comes twice.
        let (from, until) = ("2026-10-24T12:00:00Z", "2026-10-26T12:00:00Z");
        for when in ["30 2 * * *", "every day at 02:30"] {
            let runs = all(when, from, until, &berlin());
            assert_eq!(runs, ["2026-10-25T00:30:00Z", "2026-10-26T01:30:00Z"], "{when}");
        }
    }

    #[test]
    fn days_are_counted_through_the_ends_of_months() {
        let runs = all(
            "every 3 days at 01:00",
            "2026-01-25T00:00:00Z",
            "2026-02-08T00:00:00Z",
            &TimeZone::UTC,
        );
        let days: Vec<&str> = runs.iter().map(|run| &run[5..10]).collect();
        assert_eq!(days.len(), 5, "{days:?}");
        for pair in runs.windows(2) {
            assert_eq!(ms(&pair[1]) - ms(&pair[0]), 3 * 86_400_000);
        }
        let weeks = all(
            "every week at 03:00",
            "2026-11-01T00:00:00Z",
            "2026-11-30T00:00:00Z",
            &TimeZone::UTC,
        );
        assert_eq!(weeks.first().map(String::as_str), Some("2026-11-02T03:00:00Z"), "a Monday");
    }

    #[test]
    fn what_is_wrong_is_named_with_its_place() {
        for (text, named) in [
            ("61 1 * * *", "field 1 (minute)"),
            ("0 1 * 13 *", "field 4 (month)"),
            ("0 1 * *", "4 fields"),
            ("0 0 30 2 *", "never"),
            ("every 3 days", "at what time"),
            ("every 3 days at 25:00", "25:00"),
            ("every 0 hours", "1 to"),
            ("every 3 hours at 01:00", "no time of day"),
            ("every blue moon", "every N"),
            ("", "fields"),
        ] {
            let error = check_when(text).expect_err(text).to_string();
            assert!(error.contains(named), "{text}: {error}");
        }
        assert!(check_timezone("Mars/Olympus").is_err());
        assert_eq!(parse_jitter("30m"), Some(1800));
        for bad in ["", "m", "13h", "5", "-5m", "4294967295h"] {
            assert_eq!(parse_jitter(bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn each_time_comes_after_the_last_and_at_its_hour(
            every in 1_i64..40, hour in 0_i8..24, minute in 0_i8..60, from in 0_i64..4_000_000_000,
        ) {
            let when: When = format!("every {every} days at {hour:02}:{minute:02}").parse().expect("words");
            let cron: When = format!("{minute} {hour} * * *").parse().expect("cron");
            let zone = berlin();
            for when in [&when, &cron] {
                let mut at = from * 1000;
                for _ in 0..4 {
                    let next = when.next_after(at, &zone).expect("comes again");
                    prop_assert!(next > at);
                    // Nothing lies between: one before it leads to it as well.
                    prop_assert_eq!(when.next_after(next - 1, &zone), Some(next));
                    let wall = Timestamp::from_millisecond(next).expect("time").to_zoned(zone.clone());
                    // Right, or moved by the gap of an hour.
                    let right = wall.hour() == hour && wall.minute() == minute;
                    prop_assert!(right || hour == 2 && wall.hour() == 3);
                    at = next;
                }
            }
        }

        #[test]
        fn arbitrary_words_are_refused_or_come_again(text in "[ -~]{0,40}") {
            if let Ok(when) = text.parse::<When>() {
                prop_assert!(when.next_after(0, &berlin()).is_some_and(|next| next > 0));
            }
        }
    }
}
