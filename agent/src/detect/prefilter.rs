//! Finds the few rules that may match an event, by one pass over each field that rules look at.
//!
//! INVARIANT: a rule that is not named cannot match (see [`witness`](super::witness)); a rule
//! that is named is evaluated whole. Fields are searched in lower case, as the rules' own
//! comparison has them; a rule that minds the case is named too often and then does not match.
//!
//! Names of programs, which most rules ask for, are looked up by what stands behind their last
//! slash; only what may stand anywhere is searched byte by byte.

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

/// One field, and what is looked for in it, keywords included. Texts are in lower case.
#[derive(Default)]
struct FieldIndex {
    name: String,
    /// By the whole field.
    whole: HashMap<String, Vec<u32>>,
    /// By what stands behind the last slash, for texts with a slash that end a field.
    tails: HashMap<String, Vec<(String, u32)>>,
    /// Texts that a field begins with.
    starts: Vec<(String, u32)>,
    /// All others.
    search: Option<Search>,
    /// Of the search's texts: whether it must end the field, and for which rules.
    meanings: Vec<Vec<(bool, u32)>>,
}

enum Search {
    /// A table of all transitions: one step a byte.
    Table(Box<DFA>),
    /// Where that would be too large.
    Other(AhoCorasick),
}

/// Texts of one field, with their meanings.
type Texts = HashMap<String, Vec<(Place, u32)>>;

/// Bytes of one table; a field's texts are rarely a tenth of it.
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
        let mut index = Self { name, ..Self::default() };
        let mut patterns = Vec::new();
        for (text, meanings) in texts {
            let tail = text.rsplit_once('/').map(|(_, tail)| tail.to_owned());
            let tail = tail.filter(|tail| !tail.is_empty());
            let mut others = Vec::new();
            for (place, rule) in meanings {
                match (place, &tail) {
                    (Place::Whole, _) => index.whole.entry(text.clone()).or_default().push(rule),
                    (Place::Start, _) => index.starts.push((text.clone(), rule)),
                    (Place::End, Some(tail)) => {
                        index.tails.entry(tail.clone()).or_default().push((text.clone(), rule));
                    }
                    (Place::End, None) => others.push((true, rule)),
                    (Place::Anywhere, _) => others.push((false, rule)),
                }
            }
            if !others.is_empty() {
                patterns.push(text);
                index.meanings.push(others);
            }
        }
        if !patterns.is_empty() {
            index.search = Some(Search::new(&patterns)?);
        }
        Ok(index)
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

    /// As the rules compare: in lower case, of all letters where there are others than ASCII's.
    fn search_in(&self, text: &str, found: &mut Set) {
        if !text.is_ascii() {
            self.search_lower(&text.to_lowercase(), found);
        }
        if text.bytes().any(|byte| byte.is_ascii_uppercase()) {
            self.search_lower(&text.to_ascii_lowercase(), found);
        } else {
            self.search_lower(text, found);
        }
    }

    fn search_lower(&self, text: &str, found: &mut Set) {
        if !self.whole.is_empty()
            && let Some(rules) = self.whole.get(text)
        {
            rules.iter().for_each(|rule| found.add(*rule as usize));
        }
        if !self.tails.is_empty()
            && let Some((_, tail)) = text.rsplit_once('/')
            && let Some(known) = self.tails.get(tail)
        {
            let fit = known.iter().filter(|(end, _)| text.ends_with(end.as_str()));
            fit.for_each(|(_, rule)| found.add(*rule as usize));
        }
        for (start, rule) in &self.starts {
            if text.starts_with(start.as_str()) {
                found.add(*rule as usize);
            }
        }
        match &self.search {
            Some(Search::Table(table)) => self.walk(table, text, found),
            Some(Search::Other(other)) => {
                for hit in other.find_overlapping_iter(text) {
                    self.note(hit.pattern(), hit.end() == text.len(), found);
                }
            }
            None => {}
        }
    }

    /// Every match there is, overlapping ones too: a state knows all texts that end in it.
    fn walk(&self, table: &DFA, text: &str, found: &mut Set) {
        let Ok(mut state) = table.start_state(Anchored::No) else { return };
        for (at, byte) in text.bytes().enumerate() {
            state = table.next_state(Anchored::No, state, byte);
            if table.is_special(state) && table.is_match(state) {
                for index in 0..table.match_len(state) {
                    self.note(table.match_pattern(state, index), at + 1 == text.len(), found);
                }
            }
        }
    }

    fn note(&self, pattern: PatternID, at_end: bool, found: &mut Set) {
        for (must_end, rule) in &self.meanings[pattern.as_usize()] {
            if at_end || !must_end {
                found.add(*rule as usize);
            }
        }
    }
}

impl Search {
    fn new(patterns: &[String]) -> Result<Self, String> {
        match DFA::builder().build(patterns) {
            Ok(table) if table.memory_usage() <= TABLE_MAX => Ok(Self::Table(Box::new(table))),
            Ok(_) | Err(_) => AhoCorasick::builder()
                .kind(Some(AhoCorasickKind::NoncontiguousNFA))
                .build(patterns)
                .map(Self::Other)
                .map_err(|error| error.to_string()),
        }
    }
}
