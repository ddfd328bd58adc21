//! Finds the few rules that may match an event, by one pass over each field that rules look at.
//!
//! INVARIANT: a rule that is not named cannot match (see [`witness`](super::witness)); a rule
//! that is named is evaluated whole. Texts are searched in lower case, as the rules' own
//! comparison has them; a rule that minds the case is named too often and then does not match.
//!
//! What is the same in all events of a log source is decided when the rules are read, and how a
//! field is taken from an event.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

use rsigma_eval::CompiledRule;
use rsigma_eval::event::EventValue;

use super::audit;
use super::texts::{Place, Texts};
use super::view::{Fact, Source, View};
use super::witness::{self, CLAUSES_MAX, Clause, Sign};

/// The rules of one log source.
///
/// A mark is the number of a bit: one for each rule, and that for each clause. A rule is named
/// when its bits of all clauses are set.
pub(super) struct Prefilter {
    /// Marks of clauses that need nothing, sixty-four to a word.
    begin: Vec<u64>,
    fields: Vec<FieldIndex>,
}

/// One field, and what is looked for in it, keywords included. Texts are in lower case.
struct FieldIndex {
    fact: Fact,
    present: Vec<u32>,
    numbers: Vec<(f64, u32)>,
    texts: Option<Texts>,
}

const LONG_S: char = '\u{17f}';

/// What is looked for in one field.
#[derive(Default)]
struct Wanted {
    present: Vec<u32>,
    numbers: Vec<(f64, u32)>,
    texts: HashSet<(String, Place, u32)>,
}

/// Words of marks that need no allocation: for 320 rules.
const WORDS: usize = 5 * CLAUSES_MAX;

impl Prefilter {
    /// Rules are known by their place in the list.
    pub(super) fn new(source: Source, rules: &[&CompiledRule]) -> Result<Self, String> {
        let words = rules.len().div_ceil(64);
        let mut begin = vec![0; words * CLAUSES_MAX];
        let mut fields: HashMap<String, Wanted> = HashMap::new();
        for (number, rule) in rules.iter().enumerate() {
            let mut clauses = witness::of_rule(rule);
            let possible = |clause: &Clause| clause.iter().any(|one| can_be(source, one));
            if !clauses.iter().all(possible) {
                continue;
            }
            clauses.retain(|clause| !clause.iter().any(|one| is_always(source, one)));
            for at in 0..CLAUSES_MAX {
                let mark = at * words * 64 + number;
                let Some(clause) = clauses.get(at) else {
                    set(&mut begin, mark);
                    continue;
                };
                let mark = u32::try_from(mark).map_err(|error| error.to_string())?;
                for one in clause.iter().filter(|one| can_be(source, one)) {
                    for name in fields_of(source, one) {
                        fields.entry(name.to_owned()).or_default().add(&one.sign, mark);
                    }
                }
            }
        }
        let mut indexes = Vec::new();
        for (name, wanted) in fields {
            if let Some(fact) = Fact::of(source, &name) {
                indexes.push(FieldIndex::new(fact, wanted));
            }
        }
        Ok(Self { begin, fields: indexes })
    }

    /// Calls `named` with each rule that may match.
    pub(super) fn candidates(&self, view: &View<'_>, named: &mut dyn FnMut(usize)) {
        let (mut few, mut many) = ([0; WORDS], Vec::new());
        let marks = if self.begin.len() <= WORDS {
            &mut few[..self.begin.len()]
        } else {
            many.resize(self.begin.len(), 0);
            many.as_mut_slice()
        };
        marks.copy_from_slice(&self.begin);
        for field in &self.fields {
            if let Some(value) = view.fact(field.fact) {
                field.look_at(&value, marks);
            }
        }
        let words = marks.len() / CLAUSES_MAX;
        for word in 0..words {
            let clauses = marks[word..].iter().step_by(words);
            let mut bits = clauses.fold(u64::MAX, |all, clause| all & clause);
            while bits != 0 {
                named(word * 64 + bits.trailing_zeros() as usize);
                bits &= bits - 1;
            }
        }
    }
}

fn set(marks: &mut [u64], mark: usize) {
    marks[mark / 64] |= 1 << (mark % 64);
}

/// Where a witness is looked for.
fn fields_of(source: Source, witness: &witness::Witness) -> Vec<&str> {
    let keywords = source.keyword_fields();
    match &witness.field {
        Some(field) => vec![field.as_str()],
        None => keywords.0.iter().chain(keywords.1).copied().collect(),
    }
}

/// False when no event of this source can have it.
fn can_be(source: Source, witness: &witness::Witness) -> bool {
    let known = fields_of(source, witness).iter().any(|name| Fact::of(source, name).is_some());
    known && of_record_type(source, witness) != Some(false)
}

fn is_always(source: Source, witness: &witness::Witness) -> bool {
    of_record_type(source, witness) == Some(true)
}

/// Whether the record's type is the one that is asked for, where that is asked.
fn of_record_type(source: Source, witness: &witness::Witness) -> Option<bool> {
    let own = audit::record_type(source)?;
    let Sign::Text(text, Place::Whole) = &witness.sign else { return None };
    (witness.field.as_deref() == Some("type")).then(|| own.eq_ignore_ascii_case(text))
}

impl Wanted {
    fn add(&mut self, sign: &Sign, mark: u32) {
        match sign {
            Sign::Present => self.present.push(mark),
            Sign::Number(number) => self.numbers.push((*number, mark)),
            Sign::Text(text, place) => {
                self.texts.insert((text.to_ascii_lowercase(), *place, mark));
            }
        }
    }
}

impl FieldIndex {
    fn new(fact: Fact, wanted: Wanted) -> Self {
        let Wanted { present, numbers, texts } = wanted;
        let texts = (!texts.is_empty()).then(|| Texts::new(texts));
        Self { fact, present, numbers, texts }
    }

    fn look_at(&self, value: &EventValue<'_>, marks: &mut [u64]) {
        for mark in &self.present {
            set(marks, *mark as usize);
        }
        self.look_in(value, marks);
    }

    fn look_in(&self, value: &EventValue<'_>, marks: &mut [u64]) {
        if let EventValue::Array(all) = value {
            for one in all {
                self.look_in(one, marks);
            }
            return;
        }
        if !self.numbers.is_empty()
            && let Some(number) = value.as_f64()
        {
            // As rsigma compares them.
            let equal = |(wanted, _): &&(f64, u32)| (number - wanted).abs() < f64::EPSILON;
            self.numbers.iter().filter(equal).for_each(|(_, mark)| set(marks, *mark as usize));
        }
        if let Some(texts) = &self.texts
            && let Some(text) = value.as_str()
        {
            search(texts, &text, marks);
        }
    }
}

/// As the rules compare: in lower case, of all letters where there are others than ASCII's.
fn search(texts: &Texts, text: &str, marks: &mut [u64]) {
    let found = &mut |mark: u32| set(marks, mark as usize);
    if !text.is_ascii() {
        let lower = text.to_lowercase();
        // The one other letter that a regular expression takes for ASCII's: it is lower
        // case already.
        if lower.contains(LONG_S) {
            texts.search(&lower.replace(LONG_S, "s"), found);
        }
        texts.search(&lower, found);
    }
    texts.search(&ascii_lower(text), found);
}

/// Upper case is rare: most texts are borrowed. No early end, so that whole words are compared.
fn ascii_lower(text: &str) -> Cow<'_, str> {
    if text.bytes().fold(false, |upper, byte| upper | byte.is_ascii_uppercase()) {
        Cow::Owned(text.to_ascii_lowercase())
    } else {
        Cow::Borrowed(text)
    }
}
