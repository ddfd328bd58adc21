//! Which rules an event matches: candidates by [`prefilter`](super::prefilter), then each one by
//! rsigma's own evaluation.
//!
//! Holds no state and knows nothing of models, levels or time.

use rsigma_eval::compiler::eval_condition;
use rsigma_eval::{CompiledRule, EvaluationResult, evaluate_rule};

use super::prefilter::Prefilter;
use super::view::{SOURCES, Source, View};

/// Compiled rules, by log source.
pub struct Engine {
    rules: Vec<CompiledRule>,
    /// In the order of [`SOURCES`].
    tables: Vec<Option<Table>>,
}

struct Table {
    prefilter: Prefilter,
    /// Place in [`Engine::rules`] of each rule of this source.
    rules: Vec<usize>,
}

impl Engine {
    /// Rules whose log source no event has stay in the list and are never looked at.
    ///
    /// # Errors
    /// When there are more rules than numbers for them.
    pub fn new(rules: Vec<CompiledRule>) -> Result<Self, String> {
        let sources: Vec<_> = rules.iter().map(|rule| Source::of(&rule.logsource)).collect();
        let mut tables = Vec::new();
        for source in SOURCES {
            let own: Vec<_> =
                (0..rules.len()).filter(|number| sources[*number].contains(&source)).collect();
            if own.is_empty() {
                tables.push(None);
                continue;
            }
            let compiled: Vec<_> = own.iter().map(|number| &rules[*number]).collect();
            tables.push(Some(Table { prefilter: Prefilter::new(source, &compiled)?, rules: own }));
        }
        Ok(Self { rules, tables })
    }

    /// Without rules.
    #[must_use]
    pub fn empty() -> Self {
        Self { rules: Vec::new(), tables: Vec::new() }
    }

    /// The rules.
    #[must_use]
    pub fn rules(&self) -> &[CompiledRule] {
        &self.rules
    }

    /// Calls `found` with each rule that matches.
    pub fn matches(&self, view: &View<'_>, found: &mut dyn FnMut(usize)) {
        let Some(Some(table)) = self.tables.get(view.source as usize) else { return };
        let mut selections = Vec::new();
        table.prefilter.candidates(view, &mut |candidate| {
            let number = table.rules[candidate];
            let rule = &self.rules[number];
            let mut holds =
                |condition| eval_condition(condition, &rule.detections, view, &mut selections);
            if rule.conditions.iter().any(&mut holds) {
                found(number);
            }
            selections.clear();
        });
    }

    /// What of a matching rule matched.
    #[must_use]
    pub fn details(&self, rule: usize, view: &View<'_>) -> Option<EvaluationResult> {
        evaluate_rule(&self.rules[rule], view)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_are_numbered_in_their_order() {
        for (number, source) in SOURCES.into_iter().enumerate() {
            assert_eq!(source as usize, number, "{source:?}");
        }
    }
}
