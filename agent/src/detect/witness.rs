//! What must be in an event for a rule to match it: clauses, each a list of signs.
//!
//! INVARIANT: an event that a rule matches has, of each of the rule's clauses, one sign at least.
//! Where that cannot be told (only negations, absent fields), a rule has no clause and is always
//! looked at. Derived from the compiled rule, so that modifiers are already resolved.

use std::collections::HashMap;

use regex_syntax::hir::literal::{ExtractKind, Extractor};
use regex_syntax::hir::{Hir, HirKind};
use rsigma_eval::{CompiledDetection, CompiledDetectionItem, CompiledMatcher, CompiledRule};
use rsigma_parser::{ConditionExpr, Quantifier};

use super::texts::Place;

/// One sign that a rule may match.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Witness {
    /// `None` for a keyword: any text of the event.
    pub(super) field: Option<String>,
    pub(super) sign: Sign,
}

/// What the field holds.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Sign {
    Text(String, Place),
    Number(f64),
    /// Anything.
    Present,
}

/// One of these is in every matching event.
pub(super) type Clause = Vec<Witness>;

/// All of them hold.
type Clauses = Vec<Clause>;

/// More alternatives than this say little about an event.
const MOST_ALTERNATIVES: usize = 512;
/// And beyond the first clause, this many are not worth their search.
const MOST_FURTHER: usize = 96;
/// Clauses of one rule.
pub(super) const CLAUSES_MAX: usize = 3;

/// Of one rule, the rarest first, [`CLAUSES_MAX`] at most; empty when it has none.
pub(super) fn of_rule(rule: &CompiledRule) -> Vec<Clause> {
    let conditions = rule.conditions.iter();
    let mut all = any(conditions.map(|condition| of_condition(condition, &rule.detections)));
    sort(&mut all);
    let mut kept: Vec<Clause> = Vec::new();
    for clause in all {
        if kept.len() < CLAUSES_MAX && (kept.is_empty() || adds(&clause, &kept)) {
            kept.push(clause);
        }
    }
    kept
}

/// True when an event that has the others may well be without this one.
fn adds(clause: &Clause, others: &[Clause]) -> bool {
    clause.len() <= MOST_FURTHER
        && clause.iter().all(|witness| witness.sign != Sign::Present)
        && !others.contains(clause)
}

fn of_condition(
    condition: &ConditionExpr,
    detections: &HashMap<String, CompiledDetection>,
) -> Clauses {
    match condition {
        ConditionExpr::Identifier(name) => detections.get(name).map_or_else(Vec::new, of_detection),
        ConditionExpr::And(all) => every(all.iter().map(|one| of_condition(one, detections))),
        ConditionExpr::Or(all) => any(all.iter().map(|one| of_condition(one, detections))),
        ConditionExpr::Not(_) => Vec::new(),
        ConditionExpr::Selector { quantifier, pattern } => {
            let chosen = detections
                .iter()
                .filter(|(name, _)| pattern.matches_detection_name(name))
                .map(|(_, detection)| of_detection(detection));
            match quantifier {
                Quantifier::All => every(chosen),
                Quantifier::Count(0) => Vec::new(),
                Quantifier::Any | Quantifier::Count(_) => any(chosen),
            }
        }
    }
}

fn of_detection(detection: &CompiledDetection) -> Clauses {
    match detection {
        CompiledDetection::AllOf(items) => every(items.iter().map(of_item)),
        CompiledDetection::AnyOf(all) => any(all.iter().map(of_detection)),
        CompiledDetection::And(all) => every(all.iter().map(of_detection)),
        CompiledDetection::Keywords(matcher) => of_matcher(None, matcher),
        CompiledDetection::ArrayMatch { .. } | CompiledDetection::Conditional { .. } => Vec::new(),
    }
}

fn of_item(item: &CompiledDetectionItem) -> Clauses {
    let field = item.field.as_deref();
    match item.exists {
        Some(true) => present(field),
        Some(false) => Vec::new(),
        None => of_matcher(field, &item.matcher),
    }
}

/// Without the field nothing matches but its absence.
fn present(field: Option<&str>) -> Clauses {
    let witness = |field: &str| Witness { field: Some(field.to_owned()), sign: Sign::Present };
    field.map(|field| vec![vec![witness(field)]]).unwrap_or_default()
}

fn of_matcher(field: Option<&str>, matcher: &CompiledMatcher) -> Clauses {
    let one = |text: &str, place| {
        if text.is_empty() {
            return present(field);
        }
        let field = field.map(str::to_owned);
        vec![vec![Witness { field, sign: Sign::Text(text.to_owned(), place) }]]
    };
    match matcher {
        CompiledMatcher::Exact { value, .. } => one(value, Place::Whole),
        CompiledMatcher::Contains { value, .. } => one(value, Place::Anywhere),
        CompiledMatcher::StartsWith { value, .. } => one(value, Place::Start),
        CompiledMatcher::EndsWith { value, .. } => one(value, Place::End),
        CompiledMatcher::AhoCorasickSet { needles, .. } => {
            any(needles.iter().map(|needle| one(needle, Place::Anywhere)))
        }
        CompiledMatcher::Regex(regex) => of_regex(regex.as_str(), field, &one),
        CompiledMatcher::RegexSetMatch { set, .. } => {
            // Whether any or all must match: one of them does.
            any(set.patterns().iter().map(|pattern| of_regex(pattern, field, &one)))
        }
        CompiledMatcher::AnyOf(all) => any(all.iter().map(|one| of_matcher(field, one))),
        CompiledMatcher::AllOf(all) => every(all.iter().map(|one| of_matcher(field, one))),
        CompiledMatcher::CaseInsensitiveGroup { children, mode } => {
            let children = children.iter().map(|one| of_matcher(field, one));
            match mode {
                rsigma_eval::matcher::GroupMode::Any => any(children),
                rsigma_eval::matcher::GroupMode::All => every(children),
            }
        }
        // Of keywords only texts are looked at.
        CompiledMatcher::NumericEq(number) if field.is_some() => {
            vec![vec![Witness { field: field.map(str::to_owned), sign: Sign::Number(*number) }]]
        }
        CompiledMatcher::NumericEq(_)
        | CompiledMatcher::Cidr(_)
        | CompiledMatcher::NumericGt(_)
        | CompiledMatcher::NumericGte(_)
        | CompiledMatcher::NumericLt(_)
        | CompiledMatcher::NumericLte(_)
        | CompiledMatcher::FieldRef { .. }
        | CompiledMatcher::BoolEq(_)
        | CompiledMatcher::Expand { .. }
        | CompiledMatcher::TimestampPart { .. }
        | CompiledMatcher::Not(_) => present(field),
        CompiledMatcher::Exists(_) | CompiledMatcher::Null => Vec::new(),
    }
}

/// Literals that every match of the pattern holds. Case is left to the search, which ignores it
/// for ASCII; other letters may change length with their case, so they are no witness.
fn of_regex(pattern: &str, field: Option<&str>, one: &dyn Fn(&str, Place) -> Clauses) -> Clauses {
    let Some(texts) = texts_of_regex(pattern) else { return present(field) };
    let clauses =
        texts.iter().map(|texts| any(texts.iter().map(|text| one(text, Place::Anywhere))));
    every(clauses.chain([present(field)]))
}

fn texts_of_regex(pattern: &str) -> Option<Vec<Vec<String>>> {
    // Inline flags come first; the case flag would turn letters into classes.
    let flags_end = if pattern.starts_with("(?") { pattern.find(')')? + 1 } else { 0 };
    let (flags, rest) = pattern.split_at(flags_end);
    let known = flags.trim_start_matches("(?").trim_end_matches(')');
    if !known.chars().all(|flag| "ims".contains(flag)) {
        return None;
    }
    let hir = regex_syntax::parse(rest).ok()?;
    let useful = |texts: &Vec<String>| texts.iter().all(|text| !text.is_empty() && text.is_ascii());
    Some([literals(&hir), prefixes(&hir)].into_iter().flatten().filter(useful).collect())
}

/// What a match may begin with, short classes spelt out.
fn prefixes(hir: &Hir) -> Option<Vec<String>> {
    let begins = Extractor::new().kind(ExtractKind::Prefix).limit_total(64).extract(hir);
    let all = begins.literals()?.iter();
    all.map(|literal| String::from_utf8(literal.as_bytes().to_vec()).ok()).collect()
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

/// One of them holds: of each alternative's clauses one, together, from the rarest on.
fn any(all: impl Iterator<Item = Clauses>) -> Clauses {
    let mut alternatives: Vec<Clauses> = all.collect();
    alternatives.iter_mut().for_each(sort);
    if alternatives.iter().any(Vec::is_empty) {
        return Vec::new();
    }
    let ranks = alternatives.iter().map(Vec::len).max().unwrap_or(0).min(CLAUSES_MAX);
    let together = |rank: usize| {
        let of_rank = |clauses: &Clauses| clauses[rank.min(clauses.len() - 1)].clone();
        let mut clause: Clause = Vec::new();
        for witness in alternatives.iter().flat_map(of_rank) {
            if clause.len() > MOST_ALTERNATIVES {
                break;
            }
            if !clause.contains(&witness) {
                clause.push(witness);
            }
        }
        clause
    };
    (0..ranks).map(together).filter(|clause| clause.len() <= MOST_ALTERNATIVES).collect()
}

/// All of them hold.
fn every(all: impl Iterator<Item = Clauses>) -> Clauses {
    all.flatten().collect()
}

/// Rarest first.
fn sort(clauses: &mut Clauses) {
    clauses.sort_by_key(|clause| std::cmp::Reverse(rarity(clause)));
}

/// Longer texts are rarer; a whole field is rarer than its end; fewer alternatives are rarer.
fn rarity(clause: &Clause) -> (usize, usize) {
    let of = |witness: &Witness| {
        let (text, place) = match &witness.sign {
            Sign::Text(text, Place::Whole) => (text, 6),
            Sign::Text(text, Place::End | Place::Start) => (text, 3),
            Sign::Text(text, Place::Anywhere) => (text, 0),
            Sign::Number(_) => return 4,
            Sign::Present => return 0,
        };
        // Half the programs of a host are shells, and every rule speaks of Linux's folders.
        let common = ["execve", "syscall", "path", "true", "/bin/sh", "/sh", "/bash", "root"];
        if common.contains(&text.as_str()) { 1 } else { text.len().min(24) + place }
    };
    (clause.iter().map(of).min().unwrap_or(0), usize::MAX - clause.len())
}
