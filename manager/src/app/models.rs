//! The detection models that are shipped with agents, and what they found.
//!
//! INVARIANT: what is shown of a model is read from the very texts that agents load. How it stands on
//! a host is what that host last said; rules that hosts have besides are not known here.

use std::collections::{BTreeMap, HashMap};
use std::sync::LazyLock;

use holdfast_common::link::ModelReach;
use holdfast_common::models::{SHIPPED, SIMULATIONS, Simulation};
use rsigma_parser::{LogSource, SigmaCollection};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::{Admitted, App, AppError, StoreError, now_ms};
use crate::store::alerts::ModelCount;
use crate::store::models::{ModelSet, models_forget, models_note};

/// A detection model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Model {
    /// Its id, as alerts name it.
    pub id: Uuid,
    /// Its title.
    pub title: String,
    /// What it looks for.
    pub description: String,
    /// `informational` to `critical`.
    pub level: String,
    /// ATT&CK techniques, e.g. `T1003.008`.
    pub attack: Vec<String>,
    /// ATT&CK tactics, e.g. `credential-access`.
    pub tactics: Vec<String>,
    /// What it looks at, e.g. `process_creation`.
    pub sources: Vec<String>,
    /// What to do when it fires.
    pub advice: String,
    /// What makes it fire and is harmless.
    pub false_positives: Vec<String>,
    /// Where to read more.
    pub references: Vec<String>,
    /// The rule, and those that feed it.
    pub text: &'static str,
    /// What proves it.
    pub simulation: Option<Simulation>,
}

/// A model, and what it found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelState {
    /// The model.
    pub model: &'static Model,
    /// Its alerts.
    pub found: ModelCount,
    /// How it stands on the hosts.
    pub reach: Reach,
}

/// How many hosts a model can fire on, by what they last said.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reach {
    /// It is on and can fire.
    pub fires: i64,
    /// It is switched off.
    pub off: i64,
    /// It is on, but a fact is missing.
    pub blind: i64,
    /// Why it cannot fire, the most frequent first, at most [`REASONS`] of them.
    pub reasons: Vec<(String, i64)>,
}

/// Reasons of one model that are told apart.
const REASONS: usize = 20;
/// Models that a host may tell of, and characters of a reason: beyond, it is cut.
const MOST_MODELS: usize = 1_000;
const LONGEST_REASON: usize = 300;
/// What no host says any more is kept for so long: a stream may just be saying it.
const FORGOTTEN_MS: i64 = 86_400_000;

static MODELS: LazyLock<Vec<Model>> =
    LazyLock::new(|| SHIPPED.iter().filter_map(|text| read(text)).collect());

impl App {
    /// All models, with their alerts that last changed in the period.
    ///
    /// # Errors
    /// [`AppError`]
    pub async fn model_list(&self, period: (i64, i64)) -> Result<Vec<ModelState>, AppError> {
        let counts = self.store().model_counts(period.0, period.1).await?;
        let mut reaches = reaches(&self.store().model_sets().await?);
        let state = |model: &'static Model| {
            let id = model.id.to_string();
            let found = counts.iter().find(|count| count.model == id).cloned();
            let reach = reaches.remove(&model.id).unwrap_or_default();
            ModelState { model, found: found.unwrap_or_default(), reach }
        };
        Ok(MODELS.iter().map(state).collect())
    }

    /// Keeps what a host says of its models; nothing is written when it said the same before.
    pub(super) async fn models_reported(
        &self,
        admitted: Admitted,
        mut models: Vec<ModelReach>,
    ) -> Result<(), StoreError> {
        models.truncate(MOST_MODELS);
        for model in &mut models {
            if let Some(why_not) = &mut model.why_not {
                *why_not = why_not.chars().take(LONGEST_REASON).collect();
            }
        }
        models.sort_unstable();
        models.dedup_by_key(|model| model.id);
        let failed = |error| StoreError::corrupt("keep what a host says of its models", error);
        let body = serde_json::to_string(&models).map_err(failed)?;
        let hash = Sha256::digest(&body).to_vec();
        let session = admitted.session;
        if self.store().models_noted(session).await?.as_ref() == Some(&hash) {
            return Ok(());
        }
        let mut tx = self.store().begin().await?;
        models_note(&mut tx, session, &hash, &body, now_ms()).await?;
        tx.commit().await
    }

    /// Forgets what no host says any more.
    pub(super) async fn models_round(&self, now_ms: i64) -> Result<(), StoreError> {
        let mut tx = self.store().begin().await?;
        models_forget(&mut tx, now_ms.saturating_sub(FORGOTTEN_MS)).await?;
        tx.commit().await
    }

    /// A model.
    ///
    /// # Errors
    /// [`AppError`]
    pub async fn model_get(&self, id: Uuid, period: (i64, i64)) -> Result<ModelState, AppError> {
        let all = self.model_list(period).await?;
        all.into_iter().find(|one| one.model.id == id).ok_or(AppError::NotFound("detection model"))
    }
}

/// How each model stands, of what hosts said. Pure.
fn reaches(sets: &[ModelSet]) -> HashMap<Uuid, Reach> {
    let mut found: HashMap<Uuid, (Reach, BTreeMap<String, i64>)> = HashMap::new();
    for set in sets {
        // It was written by `models_reported`.
        let models: Vec<ModelReach> = serde_json::from_str(&set.body).unwrap_or_default();
        for model in models {
            let (reach, reasons) = found.entry(model.id).or_default();
            match model.why_not {
                _ if !model.enabled => reach.off += set.hosts,
                None => reach.fires += set.hosts,
                Some(why_not) => {
                    reach.blind += set.hosts;
                    *reasons.entry(why_not).or_default() += set.hosts;
                }
            }
        }
    }
    let finish = |(id, (mut reach, reasons)): (Uuid, (Reach, BTreeMap<String, i64>))| {
        reach.reasons = reasons.into_iter().collect();
        reach.reasons.sort_by_key(|(_, hosts)| std::cmp::Reverse(*hosts));
        reach.reasons.truncate(REASONS);
        (id, reach)
    };
    found.into_iter().map(finish).collect()
}

/// What a file's first document says. Pure.
fn read(text: &'static str) -> Option<Model> {
    let read = rsigma_parser::parse_sigma_yaml(text).ok()?;
    let sources = sources(&read);
    // A file is one rule, or a correlation before the rules that feed it.
    let (id, title, description, level, tags, own, false_positives, references) =
        match (read.correlations.into_iter().next(), read.rules.into_iter().next()) {
            (Some(one), _) => (
                one.id,
                one.title,
                one.description,
                one.level,
                one.tags,
                one.custom_attributes,
                one.falsepositives,
                one.references,
            ),
            (None, Some(one)) => (
                one.id,
                one.title,
                one.description,
                one.level,
                one.tags,
                one.custom_attributes,
                one.falsepositives,
                one.references,
            ),
            (None, None) => return None,
        };
    let tags: Vec<_> = tags.iter().filter_map(|tag| tag.strip_prefix("attack.")).collect();
    let advice = own.get("holdfast").and_then(|own| own.get("advice")?.as_str());
    Some(Model {
        id: Uuid::try_parse(&id?).ok()?,
        simulation: SIMULATIONS.into_iter().find(|one| one.model == title),
        title,
        description: description.unwrap_or_default().trim().to_owned(),
        level: level.map_or_else(|| "medium".to_owned(), |level| level.as_str().to_owned()),
        attack: tags.iter().filter(|tag| technique(tag)).map(|tag| tag.to_uppercase()).collect(),
        tactics: tags.iter().filter(|tag| !technique(tag)).map(|&tag| tag.to_owned()).collect(),
        sources,
        advice: advice.unwrap_or_default().trim().to_owned(),
        false_positives,
        references,
        text,
    })
}

/// Whether a tag names a technique, as `t1003.008`; others name tactics.
fn technique(tag: &str) -> bool {
    tag.strip_prefix('t').is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
}

/// What its rules look at, each once.
fn sources(read: &SigmaCollection) -> Vec<String> {
    let word = |source: &LogSource| source.category.clone().or_else(|| source.service.clone());
    let mut words: Vec<_> = read.rules.iter().filter_map(|rule| word(&rule.logsource)).collect();
    words.sort_unstable();
    words.dedup();
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shipped_text_is_a_model_with_all_that_is_shown() {
        assert_eq!(MODELS.len(), SHIPPED.len());
        for model in MODELS.iter() {
            assert!(!model.description.is_empty() && !model.sources.is_empty(), "{model:?}");
            assert!(!model.tactics.is_empty(), "{model:?}");
            // The agent's own proof is its own simulation.
            if model.title != "Holdfast Self-Proof" {
                let simulation = model.simulation.expect("a simulation");
                assert!(model.attack.iter().any(|id| id == simulation.attack), "{model:?}");
                assert!(!model.advice.is_empty(), "{model:?}");
            }
        }
        let mut ids: Vec<_> = MODELS.iter().map(|model| model.id).collect();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), SHIPPED.len());
        let sniffing = MODELS.iter().find(|model| model.title == "Network Sniffing");
        let sniffing = sniffing.expect("sniffing");
        assert_eq!(sniffing.tactics, ["credential-access", "discovery"]);
        assert_eq!(
            (sniffing.attack.as_slice(), &*sniffing.level),
            (&["T1040".to_owned()][..], "medium")
        );
        assert_eq!(sniffing.sources, ["packet_socket"]);
    }
}
