//! All models in use, numbered: first the rules, then the correlations. What each one is called,
//! how grave it is, what follows it, and whether it can fire here.
//!
//! Fixed after it was built. A rule that only feeds a correlation fires nothing itself.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use holdfast_common::control::ModelState;
use rsigma_parser::Level;
use serde_json::Value;
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::correlate::{Correlations, Feed};
use super::engine::Engine;
use super::reach;
use super::rules::{Collected, FolderError, Refused};
use crate::config::{Response, Responses};

const ADVICE_MAX: usize = 4096;

/// The models.
pub struct Book {
    /// Evaluates the rules.
    pub engine: Engine,
    /// Evaluates the correlations.
    pub correlations: Correlations,
    /// Rules, then correlations.
    pub models: Vec<Model>,
    /// What each model feeds.
    pub feeds: Vec<Vec<Feed>>,
    /// What was left out.
    pub refused: Vec<Refused>,
}

/// One model.
#[derive(Debug, Clone)]
pub struct Model {
    /// Sigma's id, or one made of the origin and title where it has none.
    pub id: Uuid,
    /// Title.
    pub title: String,
    /// Level.
    pub level: String,
    /// ATT&CK techniques.
    pub attack: Vec<String>,
    /// What to look at and do.
    pub advice: String,
    /// `shipped`, or the file.
    pub origin: String,
    /// What follows.
    pub response: Vec<Response>,
    /// False for rules that only feed correlations.
    pub alone: bool,
    /// Which fact is missing for it to fire here.
    pub why_not: Option<String>,
}

/// What Sigma's header says, of a rule or a correlation.
struct Header<'a> {
    id: Option<&'a str>,
    title: &'a str,
    level: Option<Level>,
    tags: &'a [String],
    falsepositives: &'a [String],
    attributes: &'a HashMap<String, Value>,
    origin: &'a str,
}

impl Book {
    /// The shipped models, and those of a folder.
    ///
    /// # Errors
    /// Why the folder as a whole cannot be used.
    pub fn read(folder: Option<&Path>) -> Result<Self, FolderError> {
        let mut collected = Collected::default();
        collected.add_shipped();
        if let Some(folder) = folder {
            collected.add_folder(folder)?;
        }
        Ok(Self::new(collected))
    }

    /// From rules that were read.
    #[must_use]
    pub fn new(mut collected: Collected) -> Self {
        drop_doubles(&mut collected);
        let Collected { rules, correlations, mut refused } = collected;
        let mut book = Correlations::default();
        let known = known_names(&rules, &correlations);
        let mut kept = Vec::new();
        for named in correlations {
            let unknown = named.rule.rule_refs.iter().find(|own| !known.contains(*own));
            let reason = match unknown {
                Some(unknown) => Err(format!("there is no rule {unknown:?}")),
                None => book.add(named.rule.clone()).map(drop),
            };
            match reason {
                Ok(()) => kept.push(named),
                Err(reason) => {
                    let reason = format!("{}: {reason}", named.rule.title);
                    refused.push(Refused { origin: named.origin, reason });
                }
            }
        }
        let mut models: Vec<_> = rules
            .iter()
            .map(|named| {
                let rule = &named.rule;
                let header = Header {
                    id: rule.id.as_deref(),
                    title: &rule.title,
                    level: rule.level,
                    tags: &rule.tags,
                    falsepositives: &rule.falsepositives,
                    attributes: &rule.custom_attributes,
                    origin: &named.origin,
                };
                header.model(reach::missing(rule))
            })
            .collect();
        let mut feeds: Vec<_> = rules
            .iter()
            .map(|named| book.fed_by(named.rule.id.as_deref(), named.name.as_deref()))
            .collect();
        for named in &kept {
            let rule = &named.rule;
            let header = Header {
                id: rule.id.as_deref(),
                title: &rule.title,
                level: rule.level,
                tags: &rule.tags,
                falsepositives: &rule.falsepositives,
                attributes: &rule.custom_attributes,
                origin: &named.origin,
            };
            models.push(header.model(None));
            feeds.push(book.fed_by(rule.id.as_deref(), named.name.as_deref()));
        }
        for (model, feeds) in models.iter_mut().zip(&feeds) {
            let generate = |feed: &Feed| book.get(feed.correlation).generate;
            model.alone = feeds.is_empty() || feeds.iter().any(generate);
        }
        let first = rules.len();
        reach_of_correlations(&mut models, &feeds, first, &book);
        let compiled = rules.into_iter().map(|named| named.rule).collect();
        let engine = match Engine::new(compiled) {
            Ok(engine) => engine,
            Err(reason) => {
                refused.push(Refused { origin: "all rules".to_owned(), reason });
                Engine::empty()
            }
        };
        Self { engine, correlations: book, models, feeds, refused }
    }

    /// Number of a correlation's model.
    #[must_use]
    pub fn model_of(&self, correlation: usize) -> usize {
        self.engine.rules().len() + correlation
    }

    /// By id or exact title.
    #[must_use]
    pub fn find(&self, wanted: &str) -> Option<usize> {
        let id = Uuid::try_parse(wanted).ok();
        self.models.iter().position(|model| model.title == wanted || Some(model.id) == id)
    }
}

/// The first one of an id stays.
fn drop_doubles(collected: &mut Collected) {
    let mut seen: HashMap<String, String> = HashMap::new();
    let mut doubles = Vec::new();
    let mut first = |id: Option<&String>, origin: &str| {
        let Some(id) = id else { return true };
        match seen.get(id) {
            None => {
                seen.insert(id.clone(), origin.to_owned());
                true
            }
            Some(other) => {
                let reason = format!("its id {id} is that of a rule in {other}");
                doubles.push(Refused { origin: origin.to_owned(), reason });
                false
            }
        }
    };
    collected.rules.retain(|named| first(named.rule.id.as_ref(), &named.origin));
    collected.correlations.retain(|named| first(named.rule.id.as_ref(), &named.origin));
    collected.refused.extend(doubles);
}

fn known_names(
    rules: &[super::rules::Named<rsigma_eval::CompiledRule>],
    correlations: &[super::rules::Named<rsigma_eval::CompiledCorrelation>],
) -> HashSet<String> {
    let mut known = HashSet::new();
    for named in rules {
        known.extend(named.rule.id.iter().chain(&named.name).cloned());
    }
    for named in correlations {
        known.extend(named.rule.id.iter().chain(&named.name).cloned());
    }
    known
}

/// A correlation can fire when enough of its rules can; all of them for the temporal ones.
fn reach_of_correlations(
    models: &mut [Model],
    feeds: &[Vec<Feed>],
    first: usize,
    correlations: &Correlations,
) {
    for number in 0..correlations.len() {
        let correlation = correlations.get(number);
        let mut missing = Vec::new();
        let mut possible = 0;
        for (model, feeds) in models.iter().zip(feeds) {
            if !feeds.iter().any(|feed| feed.correlation == number) {
                continue;
            }
            match &model.why_not {
                None => possible += 1,
                Some(why) => missing.push(format!("{}: {why}", model.title)),
            }
        }
        let all = matches!(
            correlation.correlation_type,
            rsigma_parser::CorrelationType::Temporal
                | rsigma_parser::CorrelationType::TemporalOrdered
        ) && correlation.extended_expr.is_none();
        if possible == 0 || (all && !missing.is_empty()) {
            models[first + number].why_not = Some(missing.join("; "));
        }
    }
}

impl Header<'_> {
    fn model(&self, why_not: Option<String>) -> Model {
        let own = self.attributes.get("holdfast");
        let response = own
            .and_then(|own| own.get("response"))
            .and_then(|wanted| serde_json::from_value::<Responses>(wanted.clone()).ok())
            .map_or_else(|| vec![Response::Alert], |responses| responses.0);
        Model {
            id: self.id.and_then(|id| Uuid::try_parse(id).ok()).unwrap_or_else(|| self.made_id()),
            title: self.title.to_owned(),
            level: self
                .level
                .map_or_else(|| "medium".to_owned(), |level| level.as_str().to_owned()),
            attack: self.tags.iter().filter_map(|tag| technique(tag)).collect(),
            advice: self.advice(own),
            origin: self.origin.to_owned(),
            response,
            alone: true,
            why_not,
        }
    }

    fn advice(&self, own: Option<&Value>) -> String {
        let written = own.and_then(|own| own.get("advice")).and_then(Value::as_str);
        let mut advice = match written {
            Some(advice) => advice.trim().to_owned(),
            None => "Look at what the process did, who started it, and from where.".to_owned(),
        };
        if !self.falsepositives.is_empty() {
            advice.push_str(" Known to be harmless: ");
            advice.push_str(&self.falsepositives.join("; "));
            advice.push('.');
        }
        let mut end = ADVICE_MAX.min(advice.len());
        while !advice.is_char_boundary(end) {
            end -= 1;
        }
        advice.truncate(end);
        advice
    }

    fn made_id(&self) -> Uuid {
        let digest = Sha256::digest(format!("{}\n{}", self.origin, self.title));
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&digest[..16]);
        uuid::Builder::from_custom_bytes(bytes).into_uuid()
    }
}

/// `attack.t1003.008` → `T1003.008`; tactics and groups are no techniques.
fn technique(tag: &str) -> Option<String> {
    let name = tag.strip_prefix("attack.")?.to_ascii_uppercase();
    let digits = name.strip_prefix('T')?;
    digits.starts_with(|c: char| c.is_ascii_digit()).then_some(name)
}

impl Model {
    /// As `holdfast models list` shows it; what changes is filled in by the caller.
    #[must_use]
    pub fn state(&self) -> ModelState {
        ModelState {
            id: self.id,
            title: self.title.clone(),
            enabled: true,
            level: self.level.clone(),
            attack: self.attack.clone(),
            can_fire: self.why_not.is_none(),
            why_not: self.why_not.clone(),
            last_fired_ms: None,
            fired: 0,
            origin: self.origin.clone(),
            response: in_words(&self.response),
            advice: self.advice.clone(),
            suppressed: 0,
        }
    }
}

/// Responses in words.
#[must_use]
pub fn in_words(responses: &[Response]) -> String {
    responses.iter().map(|one| one.name()).collect::<Vec<_>>().join(", ")
}

/// Something more than a report follows.
#[must_use]
pub fn acts(responses: &[Response]) -> bool {
    responses.iter().any(|one| !matches!(one, Response::None | Response::Alert))
}
