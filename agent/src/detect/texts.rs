//! Which of many texts a field holds, begins with, ends with or is: what the prefilter asks.
//!
//! Everything here is bytes in lower case. The numbers that come out are the caller's own; one
//! may come out more than once, and in any order.
//!
//! Programs' names, which most rules ask for, are looked up by what stands behind their last
//! slash. Texts that may stand anywhere are found by a part of them, three bytes that are rare
//! among all of them: a table of bits that fits the nearest cache says of nearly every place in a
//! field that nothing begins there. An automaton over all texts takes one step a byte too, but
//! waits for memory in each.

use std::collections::{BTreeMap, HashMap};

use foldhash::fast::FixedState;

/// Where in a field a text stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Place {
    Anywhere,
    Whole,
    Start,
    End,
}

/// All texts of one field.
#[derive(Default)]
pub(super) struct Texts {
    /// By the whole field.
    whole: ByText<u32>,
    /// By what stands behind the last slash, for texts with a slash that end a field.
    tails: ByText<(Box<[u8]>, u32)>,
    starts: Vec<Edge>,
    /// Without a slash.
    ends: Vec<Edge>,
    /// Anywhere, too short to have a part.
    short: Vec<(String, Vec<u32>)>,
    parts: Parts,
}

impl Texts {
    pub(super) fn new(texts: impl IntoIterator<Item = (String, Place, u32)>) -> Self {
        let mut index = Self::default();
        let mut anywhere: BTreeMap<String, Vec<u32>> = BTreeMap::new();
        for (text, place, number) in texts {
            if place == Place::Anywhere && !text.is_empty() {
                anywhere.entry(text).or_default().push(number);
                continue;
            }
            let text = text.into_bytes();
            match place {
                Place::Whole => index.whole.add(text, number),
                // The empty text is everywhere.
                Place::Start | Place::Anywhere => {
                    index.starts.push(Edge::of_start(&text, number));
                }
                Place::End => match tail(&text) {
                    Some(tail) if !tail.is_empty() => {
                        index.tails.add(tail.to_vec(), (text.into(), number));
                    }
                    _ => index.ends.push(Edge::of_end(&text, number)),
                },
            }
        }
        let (short, long) = anywhere.into_iter().partition(|(text, _)| text.len() < PART);
        index.short = short;
        index.parts = Parts::new(long);
        index
    }

    /// Calls `found` with the number of each text that is where it must be.
    pub(super) fn search(&self, text: &str, found: &mut impl FnMut(u32)) {
        let field = text.as_bytes();
        self.whole.get(field).iter().for_each(|number| found(*number));
        if !self.tails.is_empty()
            && let Some(tail) = tail(field)
        {
            let known = self.tails.get(tail).iter().filter(|(end, _)| field.ends_with(end));
            known.for_each(|(_, number)| found(*number));
        }
        if !self.starts.is_empty() {
            let word = first_word(field);
            let fit =
                self.starts.iter().filter(|one| one.may_be(word) && field.starts_with(&one.text));
            fit.for_each(|one| found(one.number));
        }
        if !self.ends.is_empty() {
            let word = last_word(field);
            let fit = self.ends.iter().filter(|one| one.may_be(word) && field.ends_with(&one.text));
            fit.for_each(|one| found(one.number));
        }
        for (short, numbers) in &self.short {
            if text.contains(short.as_str()) {
                numbers.iter().for_each(|number| found(*number));
            }
        }
        self.parts.search(field, found);
    }
}

fn tail(text: &[u8]) -> Option<&[u8]> {
    text.iter().rposition(|byte| *byte == b'/').map(|slash| &text[slash + 1..])
}

/// A text at the start or the end of a field, with a word to tell most fields by.
struct Edge {
    text: Box<[u8]>,
    number: u32,
    word: u64,
    mask: u64,
}

impl Edge {
    fn of_start(text: &[u8], number: u32) -> Self {
        Self { text: text.into(), number, word: first_word(text), mask: low_bytes(text.len()) }
    }

    fn of_end(text: &[u8], number: u32) -> Self {
        let mask = low_bytes(text.len()).swap_bytes();
        Self { text: text.into(), number, word: last_word(text), mask }
    }

    fn may_be(&self, word: u64) -> bool {
        word & self.mask == self.word
    }
}

/// The first eight bytes; zeros behind a shorter text.
fn first_word(text: &[u8]) -> u64 {
    text.first_chunk().map_or_else(
        || {
            let mut word = [0; 8];
            word[..text.len()].copy_from_slice(text);
            u64::from_le_bytes(word)
        },
        |word| u64::from_le_bytes(*word),
    )
}

/// The last eight bytes; zeros before a shorter text.
fn last_word(text: &[u8]) -> u64 {
    text.last_chunk().map_or_else(
        || {
            let mut word = [0; 8];
            word[8 - text.len()..].copy_from_slice(text);
            u64::from_le_bytes(word)
        },
        |word| u64::from_le_bytes(*word),
    )
}

fn low_bytes(number: usize) -> u64 {
    if number >= 8 { u64::MAX } else { (1 << (number * 8)) - 1 }
}

/// Nothing but the rules' texts is ever put in, so that nobody can choose keys that collide.
struct ByText<T> {
    table: HashMap<Box<[u8]>, Vec<T>, FixedState>,
    /// A bit for each length that a key has, the last one for all longer ones.
    lengths: u64,
}

impl<T> Default for ByText<T> {
    fn default() -> Self {
        Self { table: HashMap::default(), lengths: 0 }
    }
}

impl<T> ByText<T> {
    fn add(&mut self, key: Vec<u8>, one: T) {
        self.lengths |= Self::length(&key);
        self.table.entry(key.into()).or_default().push(one);
    }

    fn is_empty(&self) -> bool {
        self.lengths == 0
    }

    fn get(&self, key: &[u8]) -> &[T] {
        if self.lengths & Self::length(key) == 0 {
            return &[];
        }
        self.table.get(key).map_or(&[], Vec::as_slice)
    }

    fn length(key: &[u8]) -> u64 {
        1 << key.len().min(63)
    }
}

/// Bytes of a part.
const PART: usize = 3;
/// Places in the table of bits: at least so many (4 KiB), and [`SPARSE`] for each text.
const FEWEST: usize = 1 << 15;
const SPARSE: usize = 128;
const MOST: usize = 1 << 24;

/// Texts that may stand anywhere, by a part of each.
#[derive(Default)]
struct Parts {
    bits: Vec<u64>,
    /// How far a part's product is shifted to be a place among the bits.
    shift: u32,
    /// By part: where in its text it stands, and which text.
    heads: HashMap<u32, Vec<(usize, usize)>, FixedState>,
    texts: Vec<(String, Vec<u32>)>,
}

impl Parts {
    fn new(texts: Vec<(String, Vec<u32>)>) -> Self {
        if texts.is_empty() {
            return Self::default();
        }
        let mut often: HashMap<u32, usize, FixedState> = HashMap::default();
        for (text, _) in &texts {
            for window in text.as_bytes().windows(PART) {
                *often.entry(part(window)).or_default() += 1;
            }
        }
        let places = (texts.len() * SPARSE).next_power_of_two().clamp(FEWEST, MOST);
        let mut index = Self {
            bits: vec![0; places / 64],
            shift: 32 - places.trailing_zeros(),
            heads: HashMap::default(),
            texts,
        };
        for (number, (text, _)) in index.texts.iter().enumerate() {
            // The rarest; among equals the one with most bytes that are not letters, since
            // fields are made of words.
            let letters = |window: &[u8]| window.iter().filter(|b| b.is_ascii_lowercase()).count();
            let rarest = text
                .as_bytes()
                .windows(PART)
                .enumerate()
                .min_by_key(|(_, window)| (often[&part(window)], letters(window)));
            if let Some((at, window)) = rarest {
                let part = part(window);
                let place = place(part, index.shift);
                index.bits[place / 64] |= 1 << (place % 64);
                index.heads.entry(part).or_default().push((at, number));
            }
        }
        index
    }

    fn search(&self, field: &[u8], found: &mut impl FnMut(u32)) {
        if self.bits.is_empty() {
            return;
        }
        for (at, window) in field.windows(PART).enumerate() {
            let part = part(window);
            let place = place(part, self.shift);
            if self.bits[place / 64] >> (place % 64) & 1 != 0 {
                self.look_around(field, at, part, found);
            }
        }
    }

    fn look_around(&self, field: &[u8], at: usize, part: u32, found: &mut impl FnMut(u32)) {
        let Some(heads) = self.heads.get(&part) else { return };
        for (before, number) in heads {
            let (text, numbers) = &self.texts[*number];
            let begin = at.checked_sub(*before);
            if begin.is_some_and(|begin| field[begin..].starts_with(text.as_bytes())) {
                numbers.iter().for_each(|number| found(*number));
            }
        }
    }
}

fn part(window: &[u8]) -> u32 {
    u32::from(window[0]) | u32::from(window[1]) << 8 | u32::from(window[2]) << 16
}

/// By multiplication with a number without pattern (2^32 divided by the golden ratio).
fn place(part: u32, shift: u32) -> usize {
    (part.wrapping_mul(0x9e37_79b9) >> shift) as usize
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// As anybody would look.
    fn plainly(texts: &[(String, Place)], field: &str) -> Vec<u32> {
        let there = |(text, place): &(String, Place)| match place {
            Place::Anywhere => field.contains(text.as_str()),
            Place::Whole => field == text,
            Place::Start => field.starts_with(text.as_str()),
            Place::End => field.ends_with(text.as_str()),
        };
        (0u32..).zip(texts).filter(|(_, one)| there(one)).map(|(number, _)| number).collect()
    }

    fn quickly(texts: &[(String, Place)], field: &str) -> Vec<u32> {
        let numbered =
            (0u32..).zip(texts).map(|(number, (text, place))| (text.clone(), *place, number));
        let mut all = Vec::new();
        Texts::new(numbered).search(field, &mut |number| all.push(number));
        all.sort_unstable();
        all.dedup();
        all
    }

    proptest! {
        /// Few letters, so that texts are parts of each other and of the field.
        #[test]
        fn every_text_is_found_where_it_is_and_nowhere_else(
            texts in proptest::collection::vec(
                ("[ab/é]{0,12}", prop_oneof![
                    Just(Place::Anywhere), Just(Place::Whole), Just(Place::Start), Just(Place::End),
                ]),
                0..40,
            ),
            field in "[ab/é]{0,40}",
        ) {
            prop_assert_eq!(quickly(&texts, &field), plainly(&texts, &field));
        }
    }

    #[test]
    fn long_texts_and_short_fields_are_told_apart() {
        let texts = [
            ("/usr/bin/tcpdump".to_owned(), Place::Start),
            ("/usr/bin/tcpdump -i".to_owned(), Place::Anywhere),
            ("dump".to_owned(), Place::End),
            ("/tcpdump".to_owned(), Place::End),
            ("/".to_owned(), Place::End),
            ("\0".to_owned(), Place::Start),
        ];
        for field in
            ["", "/", "d", "dump", "/tcpdump", "/usr/bin/tcpdump", "x/usr/bin/tcpdump -i\0/"]
        {
            assert_eq!(quickly(&texts, field), plainly(&texts, field), "{field:?}");
        }
    }
}
