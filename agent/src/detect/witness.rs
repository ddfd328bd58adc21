//! What must be in an event for a rule to match it: texts of which at least one is there.
//!
//! INVARIANT: a rule that matches an event has one of its witnesses in it. Where that cannot be
//! told (only negations, numbers, absent fields), a rule has no witness and is always looked at.
//! Derived from the compiled rule, so that modifiers are already resolved.

use std::collections::HashMap;

use regex_syntax::hir::{Hir, HirKind};
use rsigma_eval::{CompiledDetection, CompiledDetectionItem, CompiledMatcher, CompiledRule};
use rsigma_parser::{ConditionExpr, Quantifier};

/// Where in a field the text stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Place {
    Anywhere,
    Whole,
    Start,
    End,
}

/// One text.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Witness {
    /// `None` for a keyword: any text of the event.
    pub(super) field: Option<String>,
    pub(super) text: String,
    pub(super) place: Place,
}

/// One of these is in every matching event.
type Witnesses = Vec<Witness>;

/// More alternatives than this say little about an event.
const MOST_ALTERNATIVES: usize = 512;

/// Of one rule; `None` when it has none.
pub(super) fn of_rule(rule: &CompiledRule) -> Option<Witnesses> {
    let conditions = rule.conditions.iter();
    any(conditions.map(|condition| of_condition(condition, &rule.detections)))
}

fn of_condition(
    condition: &ConditionExpr,
    detections: &HashMap<String, CompiledDetection>,
) -> Option<Witnesses> {
    match condition {
        ConditionExpr::Identifier(name) => of_detection(detections.get(name)?),
        ConditionExpr::And(all) => best(all.iter().map(|one| of_condition(one, detections))),
        ConditionExpr::Or(all) => any(all.iter().map(|one| of_condition(one, detections))),
        ConditionExpr::Not(_) => None,
        ConditionExpr::Selector { quantifier, pattern } => {
            let chosen = detections
                .iter()
                .filter(|(name, _)| pattern.matches_detection_name(name))
                .map(|(_, detection)| of_detection(detection));
            match quantifier {
                Quantifier::All => best(chosen),
                Quantifier::Count(0) => None,
                Quantifier::Any | Quantifier::Count(_) => any(chosen),
            }
        }
    }
}

fn of_detection(detection: &CompiledDetection) -> Option<Witnesses> {
    match detection {
        CompiledDetection::AllOf(items) => best(items.iter().map(of_item)),
        CompiledDetection::AnyOf(all) => any(all.iter().map(of_detection)),
        CompiledDetection::And(all) => best(all.iter().map(of_detection)),
        CompiledDetection::Keywords(matcher) => of_matcher(None, matcher),
        CompiledDetection::ArrayMatch { .. } | CompiledDetection::Conditional { .. } => None,
    }
}

fn of_item(item: &CompiledDetectionItem) -> Option<Witnesses> {
    if item.exists.is_some() {
        return None;
    }
    of_matcher(item.field.as_deref(), &item.matcher)
}

fn of_matcher(field: Option<&str>, matcher: &CompiledMatcher) -> Option<Witnesses> {
    let one = |text: &str, place| {
        let field = field.map(str::to_owned);
        (!text.is_empty()).then(|| vec![Witness { field, text: text.to_owned(), place }])
    };
    match matcher {
        CompiledMatcher::Exact { value, .. } => one(value, Place::Whole),
        CompiledMatcher::Contains { value, .. } => one(value, Place::Anywhere),
        CompiledMatcher::StartsWith { value, .. } => one(value, Place::Start),
        CompiledMatcher::EndsWith { value, .. } => one(value, Place::End),
        CompiledMatcher::AhoCorasickSet { needles, .. } => {
            any(needles.iter().map(|needle| one(needle, Place::Anywhere)))
        }
        CompiledMatcher::Regex(regex) => of_regex(regex.as_str(), &one),
        CompiledMatcher::RegexSetMatch { set, .. } => {
            // Whether any or all must match: one of them does.
            any(set.patterns().iter().map(|pattern| of_regex(pattern, &one)))
        }
        CompiledMatcher::AnyOf(all) => any(all.iter().map(|one| of_matcher(field, one))),
        CompiledMatcher::AllOf(all) => best(all.iter().map(|one| of_matcher(field, one))),
        CompiledMatcher::CaseInsensitiveGroup { children, mode } => {
            let children = children.iter().map(|one| of_matcher(field, one));
            match mode {
                rsigma_eval::matcher::GroupMode::Any => any(children),
                rsigma_eval::matcher::GroupMode::All => best(children),
            }
        }
        CompiledMatcher::Cidr(_)
        | CompiledMatcher::NumericEq(_)
        | CompiledMatcher::NumericGt(_)
        | CompiledMatcher::NumericGte(_)
        | CompiledMatcher::NumericLt(_)
        | CompiledMatcher::NumericLte(_)
        | CompiledMatcher::Exists(_)
        | CompiledMatcher::FieldRef { .. }
        | CompiledMatcher::Null
        | CompiledMatcher::BoolEq(_)
        | CompiledMatcher::Expand { .. }
        | CompiledMatcher::TimestampPart { .. }
        | CompiledMatcher::Not(_) => None,
    }
}

/// A literal that every match of the pattern holds. Case is left to the search, which ignores it
/// for ASCII; other letters may change length with their case, so they are no witness.
fn of_regex(pattern: &str, one: &dyn Fn(&str, Place) -> Option<Witnesses>) -> Option<Witnesses> {
    // Inline flags come first; the case flag would turn letters into classes.
    let flags_end = if pattern.starts_with("(?") { pattern.find(')')? + 1 } else { 0 };
    let (flags, rest) = pattern.split_at(flags_end);
    let known = flags.trim_start_matches("(?").trim_end_matches(')');
    if !known.chars().all(|flag| "ims".contains(flag)) {
        return None;
    }
    let hir = regex_syntax::parse(rest).ok()?;
    let texts = literals(&hir)?;
    if texts.iter().any(|text| !text.is_ascii()) {
        return None;
    }
    any(texts.iter().map(|text| one(text, Place::Anywhere)))
}

fn literals(hir: &Hir) -> Option<Vec<String>> {
    match hir.kind() {
        HirKind::Literal(literal) => Some(vec![String::from_utf8(literal.0.to_vec()).ok()?]),
        HirKind::Capture(capture) => literals(&capture.sub),
        HirKind::Repetition(repetition) if repetition.min > 0 => literals(&repetition.sub),
        HirKind::Concat(all) => all.iter().filter_map(literals).max_by_key(|texts| {
            let shortest = texts.iter().map(String::len).min().unwrap_or(0);
            (shortest, usize::MAX - texts.len())
        }),
        HirKind::Alternation(all) => {
            let mut texts = Vec::new();
            for one in all {
                texts.extend(literals(one)?);
            }
            Some(texts)
        }
        HirKind::Empty | HirKind::Class(_) | HirKind::Look(_) | HirKind::Repetition(_) => None,
    }
}

/// All alternatives together; none when one of them has none.
fn any(all: impl Iterator<Item = Option<Witnesses>>) -> Option<Witnesses> {
    let mut together = Vec::new();
    for one in all {
        together.extend(one?);
        if together.len() > MOST_ALTERNATIVES {
            return None;
        }
    }
    Some(together)
}

/// The one that the fewest events have.
fn best(all: impl Iterator<Item = Option<Witnesses>>) -> Option<Witnesses> {
    all.flatten().max_by_key(rarity)
}

/// Longer texts are rarer; a whole field is rarer than its end; fewer alternatives are rarer.
fn rarity(witnesses: &Witnesses) -> (usize, usize) {
    let of = |witness: &Witness| {
        let place = match witness.place {
            Place::Whole => 6,
            Place::End | Place::Start => 3,
            Place::Anywhere => 0,
        };
        // Half the programs of a host are shells, and every rule speaks of Linux's folders.
        let common = ["execve", "syscall", "path", "true", "/bin/sh", "/sh", "/bash", "root"];
        if common.contains(&witness.text.as_str()) { 0 } else { witness.text.len().min(24) + place }
    };
    (witnesses.iter().map(of).min().unwrap_or(0), usize::MAX - witnesses.len())
}
