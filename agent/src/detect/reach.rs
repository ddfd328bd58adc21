//! Whether a rule can fire with what this agent's sensor tells, and which fact is missing if not.
//!
//! Each condition is tried with everything that an event could hold: a field that no event of
//! the log source has, a record type, a system call or a file that is not watched makes a
//! selection impossible. Negations never do. A rule that passes can fire as far as its text
//! shows; that the sensor is attached is the sensor's own report.

use std::collections::HashMap;

use rsigma_eval::event::{EventValue, JsonEvent};
use rsigma_eval::{CompiledDetection, CompiledDetectionItem, CompiledMatcher, CompiledRule};
use rsigma_parser::{ConditionExpr, Quantifier};
use serde_json::Value;

use super::audit;
use super::view::Source;
use super::watched;

/// Rules of SigmaHQ for `product: linux` alone whose text is a line of some program's log, which
/// no command line holds. All others of that kind look for command lines.
const LOG_TEXT: [(&str, &str); 4] = [
    ("18b042f0-2ecd-4b6e-9f8d-aa7a7e7de781", "what crashing programs and the kernel log"),
    ("0ac15ec3-d24f-4246-aa2a-3077bb1cf90e", "what useradd writes to the authentication log"),
    ("f64b6e9a-5d9d-48a5-8289-e1dd2b3876e1", "what daemons and the kernel write to syslog"),
    ("0fadd880-6af3-4610-b1e5-008dc3a11b8a", "what the kernel logs of an eBPF helper"),
];

/// Facts that are missing, in words; `Ok` when the rule can fire.
type Reach = Result<(), Vec<String>>;

/// Tells why a rule cannot fire, or nothing.
pub(super) fn missing(rule: &CompiledRule) -> Option<String> {
    let sources = Source::of(&rule.logsource);
    if sources.is_empty() {
        return Some(no_source(rule));
    }
    let log = LOG_TEXT.iter().find(|(id, _)| rule.id.as_deref() == Some(id));
    if let Some((_, text)) = log {
        return Some(format!("it searches logs for {text}; this agent reads no logs"));
    }
    let (mut facts, mut other_types) = (Vec::new(), Vec::new());
    for source in sources {
        for condition in &rule.conditions {
            let Err(missing) = of_condition(source, condition, &rule.detections) else {
                return None;
            };
            // One of auditd's records that the rule is not about says nothing of what is missing.
            let other = missing.iter().find(|fact| fact.starts_with(OTHER_TYPE));
            match other {
                Some(other) => other_types.push(other.clone()),
                None => facts.extend(missing),
            }
        }
    }
    if facts.is_empty() {
        facts = other_types;
    }
    facts.sort();
    facts.dedup();
    Some(format!("it needs {}", facts.join("; ")))
}

const OTHER_TYPE: &str = "auditd's record";

fn no_source(rule: &CompiledRule) -> String {
    let source = &rule.logsource;
    match (&source.product, &source.category, &source.service) {
        (Some(product), _, _) if !product.eq_ignore_ascii_case("linux") => {
            format!("it is for {product}")
        }
        (_, Some(category), _) => format!("no event of this agent has the category {category}"),
        (_, None, Some(service)) => {
            format!("it searches the log of {service}; this agent reads no logs")
        }
        (_, None, None) => "it names no log source".to_owned(),
    }
}

fn of_condition(
    source: Source,
    condition: &ConditionExpr,
    detections: &HashMap<String, CompiledDetection>,
) -> Reach {
    match condition {
        ConditionExpr::Identifier(name) => match detections.get(name) {
            Some(detection) => of_detection(source, detection),
            None => Err(vec![format!("the selection {name}")]),
        },
        ConditionExpr::And(all) => {
            every(all.iter().map(|one| of_condition(source, one, detections)))
        }
        ConditionExpr::Or(all) => {
            at_least(1, all.iter().map(|one| of_condition(source, one, detections)))
        }
        ConditionExpr::Not(_) => Ok(()),
        ConditionExpr::Selector { quantifier, pattern } => {
            let chosen = detections
                .iter()
                .filter(|(name, _)| pattern.matches_detection_name(name))
                .map(|(_, detection)| of_detection(source, detection));
            match quantifier {
                Quantifier::All => every(chosen),
                Quantifier::Any => at_least(1, chosen),
                Quantifier::Count(count) => at_least(*count, chosen),
            }
        }
    }
}

fn of_detection(source: Source, detection: &CompiledDetection) -> Reach {
    match detection {
        CompiledDetection::AllOf(items) => every(items.iter().map(|item| of_item(source, item))),
        CompiledDetection::And(all) => every(all.iter().map(|one| of_detection(source, one))),
        CompiledDetection::AnyOf(all) => {
            at_least(1, all.iter().map(|one| of_detection(source, one)))
        }
        CompiledDetection::Keywords(_) => keywords(source),
        CompiledDetection::ArrayMatch { field, .. } => has(source, field),
        CompiledDetection::Conditional { named, condition } => {
            of_condition(source, condition, named)
        }
    }
}

/// Keywords are looked for where the text of a command line is.
fn keywords(source: Source) -> Reach {
    match source {
        Source::AuditSyscall | Source::AuditPath => {
            Err(vec![format!("{OTHER_TYPE} with that text")])
        }
        _ => Ok(()),
    }
}

fn of_item(source: Source, item: &CompiledDetectionItem) -> Reach {
    let Some(field) = &item.field else { return keywords(source) };
    if item.exists == Some(false) || matches!(item.matcher, CompiledMatcher::Null) {
        return Ok(());
    }
    has(source, field)?;
    let (known, what): (&[&str], _) = match (source, field.as_str()) {
        (Source::AuditExecve, "type") => (&audit::TYPES[..1], OTHER_TYPE),
        (Source::AuditSyscall, "type") => (&audit::TYPES[1..2], OTHER_TYPE),
        (Source::AuditPath, "type") => (&audit::TYPES[2..], OTHER_TYPE),
        (_, "SYSCALL") => (&audit::CALLS, "that system call"),
        (_, "nametype") => (&audit::NAME_TYPES, "that kind of name"),
        (_, "key") => (&audit::KEYS, "an audit rule with that key"),
        (_, "TargetFilename" | "name") => return of_path(source, &item.matcher),
        _ => return Ok(()),
    };
    if known.iter().any(|value| matches_text(&item.matcher, value)) {
        return Ok(());
    }
    Err(vec![format!("{what} ({})", wanted(&item.matcher))])
}

fn has(source: Source, field: &str) -> Reach {
    if source.has_field(field) {
        return Ok(());
    }
    Err(vec![format!("the field {field} in {}", source.name())])
}

/// Events on files come for those on the sensor's list alone; names of programs that run, too.
fn of_path(source: Source, matcher: &CompiledMatcher) -> Reach {
    if path_possible(source, matcher) {
        return Ok(());
    }
    Err(vec![format!("events on files that are not watched ({})", wanted(matcher))])
}

fn path_possible(source: Source, matcher: &CompiledMatcher) -> bool {
    // What is executed may have any path: PATH records come for that as well. A rule that names
    // a file that is no program still needs its file event.
    let text = |pattern: watched::Pattern<'_>| watched::possible(source, pattern);
    match matcher {
        CompiledMatcher::Exact { value, .. } => text(watched::Pattern::Whole(value)),
        CompiledMatcher::StartsWith { value, .. } => text(watched::Pattern::Start(value)),
        CompiledMatcher::EndsWith { value, .. } => text(watched::Pattern::End(value)),
        CompiledMatcher::Contains { value, .. } => text(watched::Pattern::Part(value)),
        CompiledMatcher::AhoCorasickSet { needles, .. } => {
            needles.iter().any(|needle| text(watched::Pattern::Part(needle)))
        }
        CompiledMatcher::Regex(regex) => watched::some(&|path| regex.is_match(path)),
        CompiledMatcher::RegexSetMatch { set, .. } => watched::some(&|path| set.is_match(path)),
        CompiledMatcher::AnyOf(all) => all.iter().any(|one| path_possible(source, one)),
        CompiledMatcher::AllOf(all) => all.iter().all(|one| path_possible(source, one)),
        CompiledMatcher::CaseInsensitiveGroup { children, mode } => match mode {
            rsigma_eval::matcher::GroupMode::Any => {
                children.iter().any(|one| path_possible(source, one))
            }
            rsigma_eval::matcher::GroupMode::All => {
                children.iter().all(|one| path_possible(source, one))
            }
        },
        _ => true,
    }
}

fn matches_text(matcher: &CompiledMatcher, value: &str) -> bool {
    let nothing = Value::Object(serde_json::Map::new());
    matcher.matches(&EventValue::Str(value.into()), &JsonEvent::borrow(&nothing))
}

fn wanted(matcher: &CompiledMatcher) -> String {
    let pattern = matcher.describe().pattern.unwrap_or_default();
    match pattern.char_indices().nth(60) {
        Some((end, _)) => format!("{}…", &pattern[..end]),
        None => pattern,
    }
}

fn every(all: impl Iterator<Item = Reach>) -> Reach {
    let missing: Vec<_> = all.filter_map(Result::err).flatten().collect();
    if missing.is_empty() { Ok(()) } else { Err(missing) }
}

fn at_least(count: u64, all: impl Iterator<Item = Reach>) -> Reach {
    let mut missing = Vec::new();
    let mut possible = 0;
    for one in all {
        match one {
            Ok(()) => possible += 1,
            Err(facts) => missing.extend(facts),
        }
    }
    if possible >= count { Ok(()) } else { Err(missing) }
}
