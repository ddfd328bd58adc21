//! Finds the few rules that may match an event, by one pass over each field that rules look at.
//!
//! INVARIANT: a rule that is not named cannot match (see [`witness`](super::witness)); a rule
//! that is named is evaluated whole. The search ignores case for ASCII; a field with other
//! letters is also searched in lower case, as the rules' own comparison does.

use std::borrow::Cow;
use std::collections::HashMap;

use aho_corasick::{AhoCorasick, AhoCorasickKind};
use rsigma_eval::CompiledRule;
use rsigma_eval::event::{Event, EventValue};

use super::view::View;
use super::witness::{self, Place};

/// A set of small numbers.
#[derive(Debug, Clone, Default)]
pub(super) struct Set(Vec<u64>);

impl Set {
    fn add(&mut self, number: usize) {
        self.0[number / 64] |= 1 << (number % 64);
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = usize> {
        self.0.iter().enumerate().flat_map(|(word, bits)| {
            let mut bits = *bits;
            std::iter::from_fn(move || {
                let bit = bits.trailing_zeros() as usize;
                (bits != 0).then(|| {
                    bits &= bits - 1;
                    word * 64 + bit
                })
            })
        })
    }
}

/// The rules of one log source.
pub(super) struct Prefilter {
    /// Rules without a witness.
    always: Set,
    fields: Vec<FieldIndex>,
}

struct FieldIndex {
    /// `None` for keywords.
    name: Option<String>,
    search: AhoCorasick,
    /// For each text: where it must stand, and for which rules.
    meanings: Vec<Vec<(Place, u32)>>,
}

impl Prefilter {
    /// Rules are known by their place in the list.
    pub(super) fn new(rules: &[&CompiledRule]) -> Result<Self, String> {
        let mut always = Set(vec![0; rules.len().div_ceil(64)]);
        let mut texts: HashMap<Option<String>, HashMap<String, Vec<(Place, u32)>>> = HashMap::new();
        for (number, rule) in rules.iter().enumerate() {
            let id = u32::try_from(number).map_err(|error| error.to_string())?;
            match witness::of_rule(rule) {
                None => always.add(number),
                Some(witnesses) => {
                    for one in witnesses {
                        let text = one.text.to_ascii_lowercase();
                        let meanings = texts.entry(one.field).or_default().entry(text);
                        let meanings = meanings.or_default();
                        if !meanings.contains(&(one.place, id)) {
                            meanings.push((one.place, id));
                        }
                    }
                }
            }
        }
        let mut fields = Vec::new();
        for (name, texts) in texts {
            let (patterns, meanings): (Vec<_>, Vec<_>) = texts.into_iter().unzip();
            let search = AhoCorasick::builder()
                .ascii_case_insensitive(true)
                .kind(Some(AhoCorasickKind::DFA))
                .build(&patterns)
                .or_else(|_| {
                    // Too many texts for a table of all transitions.
                    AhoCorasick::builder().ascii_case_insensitive(true).build(&patterns)
                })
                .map_err(|error| error.to_string())?;
            fields.push(FieldIndex { name, search, meanings });
        }
        Ok(Self { always, fields })
    }

    /// Rules that may match.
    pub(super) fn candidates(&self, view: &View<'_>) -> Set {
        let mut found = self.always.clone();
        for field in &self.fields {
            match &field.name {
                None => view.visit_string_values(&mut |text| field.search_in(text, &mut found)),
                Some(name) => {
                    if let Some(value) = view.field(name) {
                        field.search_value(&value, &mut found);
                    }
                }
            }
        }
        found
    }
}

impl FieldIndex {
    fn search_value(&self, value: &EventValue<'_>, found: &mut Set) {
        if let EventValue::Array(all) = value {
            for one in all {
                self.search_value(one, found);
            }
        } else if let Some(text) = value.as_str() {
            self.search_in(&text, found);
        }
    }

    fn search_in(&self, text: &str, found: &mut Set) {
        self.search_once(text, found);
        if !text.is_ascii() {
            let lower: Cow<'_, str> = Cow::Owned(text.to_lowercase());
            self.search_once(&lower, found);
        }
    }

    fn search_once(&self, text: &str, found: &mut Set) {
        for hit in self.search.find_overlapping_iter(text) {
            let (start, end) = (hit.start() == 0, hit.end() == text.len());
            for (place, rule) in &self.meanings[hit.pattern().as_usize()] {
                let stands = match place {
                    Place::Anywhere => true,
                    Place::Whole => start && end,
                    Place::Start => start,
                    Place::End => end,
                };
                if stands {
                    found.add(*rule as usize);
                }
            }
        }
    }
}
