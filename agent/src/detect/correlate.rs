//! Sigma's correlations: how often, how many different, or which together within a time.
//!
//! A sliding window for each correlation and group: a hit counts for the time span that follows
//! it. What fired begins anew. Evaluated here and not by rsigma, whose `temporal` fires when one
//! of the rules matched (0.23), and whose time counts in seconds.
//!
//! Bounded: [`GROUPS_MAX`] groups, [`HITS_MAX`] hits in each. Beyond the first the group that was
//! quiet for longest is forgotten, beyond the second the oldest hit; both are counted. A rule
//! that asks for more than fits is refused when it is read.

use std::collections::{HashMap, HashSet, VecDeque};
use std::time::{Duration, Instant};

use rsigma_eval::correlation::CompiledCorrelation;
use rsigma_eval::event::EventValue;
use rsigma_parser::{ConditionExpr, ConditionOperator, CorrelationType, WindowMode};
use uuid::Uuid;

use super::view::{View, as_text};

/// Groups that are remembered, of all correlations together.
pub const GROUPS_MAX: usize = 8192;
/// Hits of one group.
pub const HITS_MAX: usize = 1024;
/// Longest time span.
const SPAN_MAX: Duration = Duration::from_secs(7 * 86_400);
/// Bytes of a group's or a value's text.
const TEXT_MAX: usize = 1024;

/// Correlations, and who feeds them.
#[derive(Default)]
pub struct Correlations {
    all: Vec<CompiledCorrelation>,
}

/// Something that a correlation counts: a rule that matched, or a correlation that fired.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Feed {
    /// The correlation.
    pub correlation: usize,
    /// Which of its rules.
    pub rule: usize,
}

/// Hits of all groups.
#[derive(Default)]
pub struct Windows {
    groups: HashMap<(usize, Vec<String>), VecDeque<Hit>>,
    /// Groups and hits that were forgotten for want of room.
    pub forgotten: u64,
}

struct Hit {
    at: Instant,
    rule: usize,
    value: Option<String>,
    event: Uuid,
}

/// A correlation fired.
#[derive(Debug, Clone, PartialEq)]
pub struct Fired {
    /// Which.
    pub correlation: usize,
    /// What was counted, or computed.
    pub value: f64,
    /// The events, oldest first.
    pub events: Vec<Uuid>,
    /// Names and values of the group.
    pub group: Vec<(String, String)>,
}

impl Correlations {
    /// Takes one in.
    ///
    /// # Errors
    /// Why it cannot be evaluated here.
    pub fn add(&mut self, correlation: CompiledCorrelation) -> Result<usize, String> {
        check(&correlation)?;
        self.all.push(correlation);
        Ok(self.all.len() - 1)
    }

    /// One of them.
    #[must_use]
    pub fn get(&self, number: usize) -> &CompiledCorrelation {
        &self.all[number]
    }

    /// How many.
    #[must_use]
    pub fn len(&self) -> usize {
        self.all.len()
    }

    /// None at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// What a rule with this id and name feeds.
    #[must_use]
    pub fn fed_by(&self, id: Option<&str>, name: Option<&str>) -> Vec<Feed> {
        let is = |reference: &str| id == Some(reference) || name == Some(reference);
        let mut feeds = Vec::new();
        for (correlation, one) in self.all.iter().enumerate() {
            for (rule, _) in one.rule_refs.iter().enumerate().filter(|(_, own)| is(own)) {
                feeds.push(Feed { correlation, rule });
            }
        }
        feeds
    }

    /// Counts a hit.
    pub fn count(
        &self,
        windows: &mut Windows,
        feed: Feed,
        view: &View<'_>,
        event: Uuid,
        now: Instant,
    ) -> Option<Fired> {
        let correlation = &self.all[feed.correlation];
        let reference = correlation.rule_refs[feed.rule].as_str();
        let mut group = Vec::new();
        for field in &correlation.group_by {
            // Without the field it belongs to no group.
            group.push(cut(view.text(field.resolve(&[reference]))?));
        }
        let hit = Hit { at: now, rule: feed.rule, value: value(correlation, view)?, event };
        let span = Duration::from_secs(correlation.timespan_secs);
        let hits = windows.open((feed.correlation, group.clone()), now, span, hit);
        let value = satisfied(correlation, hits)?;
        let events = relevant(correlation, hits);
        let names = correlation.group_by.iter().map(|field| field.name().to_owned());
        let fired = Fired {
            correlation: feed.correlation,
            value,
            events,
            group: names.zip(group.iter().cloned()).collect(),
        };
        windows.groups.remove(&(feed.correlation, group));
        Some(fired)
    }
}

fn check(correlation: &CompiledCorrelation) -> Result<(), String> {
    if correlation.window_mode != WindowMode::Sliding {
        return Err("only sliding windows are evaluated here".to_owned());
    }
    if correlation.rule_refs.is_empty() {
        return Err("it names no rules".to_owned());
    }
    if correlation.timespan_secs == 0 || correlation.timespan_secs > SPAN_MAX.as_secs() {
        return Err(format!("its time span is not within 1 s and {} s", SPAN_MAX.as_secs()));
    }
    let counts = matches!(
        correlation.correlation_type,
        CorrelationType::EventCount | CorrelationType::ValueCount
    );
    let most = correlation.condition.predicates.iter().map(|(_, count)| *count).fold(0.0, f64::max);
    if counts && most > HITS_MAX as f64 {
        return Err(format!("it counts to more than {HITS_MAX}"));
    }
    let needs_field = !matches!(
        correlation.correlation_type,
        CorrelationType::EventCount | CorrelationType::Temporal | CorrelationType::TemporalOrdered
    );
    if needs_field && correlation.condition.field.is_none() {
        return Err("its condition names no field".to_owned());
    }
    Ok(())
}

/// What the condition counts or computes with: `Some(None)` where it needs no value, `None` when
/// the event has none.
#[expect(clippy::option_option, reason = "no value needed and no value there differ")]
fn value(correlation: &CompiledCorrelation, view: &View<'_>) -> Option<Option<String>> {
    let Some(fields) = &correlation.condition.field else { return Some(None) };
    let mut values = Vec::new();
    for field in fields {
        let value = view.field(field)?;
        if matches!(value, EventValue::Null) {
            return None;
        }
        values.push(as_text(&value)?);
    }
    Some(Some(cut(values.join("\u{1f}"))))
}

fn cut(mut text: String) -> String {
    let mut end = TEXT_MAX.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.truncate(end);
    text
}

impl Windows {
    /// Adds a hit to its group, without those that are too old.
    fn open(
        &mut self,
        group: (usize, Vec<String>),
        now: Instant,
        span: Duration,
        hit: Hit,
    ) -> &VecDeque<Hit> {
        if self.groups.len() >= GROUPS_MAX && !self.groups.contains_key(&group) {
            self.make_room();
        }
        let hits = self.groups.entry(group).or_default();
        while hits.front().is_some_and(|old| now.duration_since(old.at) >= span) {
            hits.pop_front();
        }
        if hits.len() >= HITS_MAX {
            hits.pop_front();
            self.forgotten += 1;
        }
        hits.push_back(hit);
        hits
    }

    /// Forgets the half that was quiet for longest.
    fn make_room(&mut self) {
        let newest = |hits: &VecDeque<Hit>| hits.back().map(|hit| hit.at);
        let mut times: Vec<_> = self.groups.values().map(newest).collect();
        let middle = times.len() / 2;
        let border = *times.select_nth_unstable(middle).1;
        let before = self.groups.len();
        self.groups.retain(|_, hits| newest(hits) > border);
        self.forgotten += (before - self.groups.len()) as u64;
    }
}

/// The counted or computed value when the condition holds.
fn satisfied(correlation: &CompiledCorrelation, hits: &VecDeque<Hit>) -> Option<f64> {
    let condition = &correlation.condition;
    let numbers = || -> Vec<f64> {
        let values = hits.iter().filter_map(|hit| hit.value.as_deref()?.parse::<f64>().ok());
        let mut numbers: Vec<_> = values.filter(|number| number.is_finite()).collect();
        numbers.sort_by(f64::total_cmp);
        numbers
    };
    let value = match correlation.correlation_type {
        CorrelationType::EventCount => hits.len() as f64,
        CorrelationType::ValueCount => {
            let different: HashSet<_> = hits.iter().map(|hit| hit.value.as_deref()).collect();
            different.len() as f64
        }
        CorrelationType::Temporal => return together(correlation, hits),
        CorrelationType::TemporalOrdered => {
            let all = correlation.rule_refs.len();
            return in_order(all, hits).then_some(all as f64);
        }
        CorrelationType::ValueSum => numbers().iter().sum(),
        CorrelationType::ValueAvg => {
            let numbers = numbers();
            if numbers.is_empty() {
                return None;
            }
            numbers.iter().sum::<f64>() / numbers.len() as f64
        }
        CorrelationType::ValuePercentile => {
            percentile(&numbers(), condition.percentile.unwrap_or(50) as f64)?
        }
        CorrelationType::ValueMedian => percentile(&numbers(), 50.0)?,
    };
    condition.check(value).then_some(value)
}

/// All rules within the span, or as many as the condition asks for, or as its expression says.
fn together(correlation: &CompiledCorrelation, hits: &VecDeque<Hit>) -> Option<f64> {
    let seen: HashSet<usize> = hits.iter().map(|hit| hit.rule).collect();
    let count = seen.len() as f64;
    let holds = match &correlation.extended_expr {
        Some(expression) => holds(expression, &correlation.rule_refs, &seen),
        // What the parser writes for a rule without a condition: all of them.
        None if correlation.condition.predicates == [(ConditionOperator::Gte, 1.0)] => {
            seen.len() == correlation.rule_refs.len()
        }
        None => correlation.condition.check(count),
    };
    holds.then_some(count)
}

fn holds(expression: &ConditionExpr, rules: &[String], seen: &HashSet<usize>) -> bool {
    match expression {
        ConditionExpr::Identifier(name) => {
            rules.iter().enumerate().any(|(number, rule)| rule == name && seen.contains(&number))
        }
        ConditionExpr::And(all) => all.iter().all(|one| holds(one, rules, seen)),
        ConditionExpr::Or(all) => all.iter().any(|one| holds(one, rules, seen)),
        ConditionExpr::Not(one) => !holds(one, rules, seen),
        ConditionExpr::Selector { .. } => false,
    }
}

/// Hits come in order of time: each rule after the one before it.
fn in_order(rules: usize, hits: &VecDeque<Hit>) -> bool {
    let mut next = 0;
    for hit in hits {
        if hit.rule == next {
            next += 1;
        }
    }
    next == rules
}

/// With linear interpolation between neighbours; `sorted` is.
fn percentile(sorted: &[f64], rank: f64) -> Option<f64> {
    let last = sorted.len().checked_sub(1)?;
    let place = rank.clamp(0.0, 100.0) / 100.0 * last as f64;
    let (below, above) = (place.floor() as usize, place.ceil() as usize);
    let part = place - place.floor();
    Some(sorted[below] + (sorted[above] - sorted[below]) * part)
}

/// The events that made it: all, or the newest of each rule or value.
fn relevant(correlation: &CompiledCorrelation, hits: &VecDeque<Hit>) -> Vec<Uuid> {
    let mut events: Vec<Uuid> = match correlation.correlation_type {
        CorrelationType::Temporal | CorrelationType::TemporalOrdered => {
            let mut seen = HashSet::new();
            hits.iter().rev().filter(|hit| seen.insert(hit.rule)).map(|hit| hit.event).collect()
        }
        CorrelationType::ValueCount => {
            let mut seen = HashSet::new();
            let newest = hits.iter().rev();
            newest.filter(|hit| seen.insert(hit.value.as_deref())).map(|hit| hit.event).collect()
        }
        CorrelationType::EventCount
        | CorrelationType::ValueSum
        | CorrelationType::ValueAvg
        | CorrelationType::ValuePercentile
        | CorrelationType::ValueMedian => hits.iter().rev().map(|hit| hit.event).collect(),
    };
    events.reverse();
    events.dedup();
    events
}
