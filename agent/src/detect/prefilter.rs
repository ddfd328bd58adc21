//! Finds the few rules that may match an event, by one pass over each field that rules look at.
//!
//! INVARIANT: a rule that is not named cannot match (see [`witness`](super::witness)); a rule
//! that is named is evaluated whole. The search ignores case for ASCII; a field with other
//! letters is also searched in lower case, as the rules' own comparison does.

use std::borrow::Cow;
use std::collections::HashMap;

use aho_corasick::automaton::Automaton;
use aho_corasick::dfa::DFA;
use aho_corasick::{AhoCorasick, AhoCorasickKind, Anchored, PatternID};
use rsigma_eval::CompiledRule;
use rsigma_eval::event::EventValue;

use super::view::{Source, View};
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

/// One field, and what is looked for in it, keywords included.
struct FieldIndex {
    name: String,
    search: Search,
    /// For each text: where it must stand, and for which rules.
    meanings: Vec<Vec<(Place, u32)>>,
}

enum Search {
    /// A table of all transitions: one step a byte.
    Table(Box<DFA>),
    /// Where that would be too large.
    Other(AhoCorasick),
}

/// Texts of one field, with their meanings.
type Texts = HashMap<String, Vec<(Place, u32)>>;

/// Bytes of one table; a field's texts are rarely a hundredth of it.
const TABLE_MAX: usize = 64 << 20;

impl Prefilter {
    /// Rules are known by their place in the list.
    pub(super) fn new(source: Source, rules: &[&CompiledRule]) -> Result<Self, String> {
        let mut always = Set(vec![0; rules.len().div_ceil(64)]);
        let mut fields: HashMap<String, Texts> = HashMap::new();
        for (number, rule) in rules.iter().enumerate() {
            let id = u32::try_from(number).map_err(|error| error.to_string())?;
            let Some(witnesses) = witness::of_rule(rule) else {
                always.add(number);
                continue;
            };
            for one in witnesses {
                let text = one.text.to_ascii_lowercase();
                let keywords = source.keyword_fields();
                let names: Vec<&str> = match &one.field {
                    Some(field) => vec![field.as_str()],
                    None => keywords.0.iter().chain(keywords.1).copied().collect(),
                };
                for name in names {
                    let texts = fields.entry(name.to_owned()).or_default();
                    let meanings = texts.entry(text.clone()).or_default();
                    if !meanings.contains(&(one.place, id)) {
                        meanings.push((one.place, id));
                    }
                }
            }
        }
        let fields = fields.into_iter().map(|(name, texts)| FieldIndex::new(name, texts));
        Ok(Self { always, fields: fields.collect::<Result<_, _>>()? })
    }

    /// Rules that may match.
    pub(super) fn candidates(&self, view: &View<'_>) -> Set {
        let mut found = self.always.clone();
        for field in &self.fields {
            if let Some(value) = view.field(&field.name) {
                field.search_value(&value, &mut found);
            }
        }
        found
    }
}

impl FieldIndex {
    fn new(name: String, texts: Texts) -> Result<Self, String> {
        let (patterns, meanings): (Vec<_>, Vec<_>) = texts.into_iter().unzip();
        let table = DFA::builder().ascii_case_insensitive(true).build(&patterns);
        let search = match table {
            Ok(table) if table.memory_usage() <= TABLE_MAX => Search::Table(Box::new(table)),
            Ok(_) | Err(_) => Search::Other(
                AhoCorasick::builder()
                    .ascii_case_insensitive(true)
                    .kind(Some(AhoCorasickKind::NoncontiguousNFA))
                    .build(&patterns)
                    .map_err(|error| error.to_string())?,
            ),
        };
        Ok(Self { name, search, meanings })
    }

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
        match &self.search {
            Search::Table(table) => self.walk(table, text, found),
            Search::Other(other) => {
                for hit in other.find_overlapping_iter(text) {
                    self.note(hit.pattern(), hit.start(), hit.end() == text.len(), found);
                }
            }
        }
    }

    /// Every match there is, overlapping ones too: a state knows all texts that end in it.
    fn walk(&self, table: &DFA, text: &str, found: &mut Set) {
        let Ok(mut state) = table.start_state(Anchored::No) else { return };
        for (at, byte) in text.bytes().enumerate() {
            state = table.next_state(Anchored::No, state, byte);
            if table.is_special(state) && table.is_match(state) {
                let end = at + 1;
                for index in 0..table.match_len(state) {
                    let pattern = table.match_pattern(state, index);
                    let start = end - table.pattern_len(pattern);
                    self.note(pattern, start, end == text.len(), found);
                }
            }
        }
    }

    fn note(&self, pattern: PatternID, start: usize, at_end: bool, found: &mut Set) {
        for (place, rule) in &self.meanings[pattern.as_usize()] {
            let stands = match place {
                Place::Anywhere => true,
                Place::Whole => start == 0 && at_end,
                Place::Start => start == 0,
                Place::End => at_end,
            };
            if stands {
                found.add(*rule as usize);
            }
        }
    }
}
