//! DNS messages (RFC 1035), as far as events tell them.
//!
//! The bytes are an attacker's. Strict and small: every length is checked, a name has at most 255
//! bytes, a pointer leads only backwards, the number of records is bounded, nothing is allocated
//! beyond what is told. It is the one place where the agent itself interprets such bytes, since a
//! message of 511 bytes and four record types do not need a cage. A message that was cut is told
//! as far as it goes.

use std::net::{Ipv4Addr, Ipv6Addr};

use holdfast_common::process::printable;

/// Answers that are told.
pub const MOST_ANSWERS: usize = 16;
/// Records that are looked at.
const MOST_RECORDS: usize = 64;
/// Bytes of a name in a message.
const NAME_MAX: usize = 255;
const HEADER: usize = 12;

/// What a message says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Message {
    /// The name that is asked for, without the last dot; `.` for the root.
    pub name: String,
    /// `A`, `AAAA`…, or the number of the type.
    pub kind: String,
    /// Addresses and names that are answered.
    pub answers: Vec<String>,
}

/// Reads a message. `cut` when there is more of it than these bytes.
///
/// `None` for what is no DNS message with one question.
#[must_use]
pub fn parse(bytes: &[u8], cut: bool) -> Option<Message> {
    let word = |at: usize| Some(u16::from_be_bytes(*bytes.get(at..)?.first_chunk()?));
    let (questions, answers) = (word(4)?, word(6)?);
    if questions != 1 {
        return None;
    }
    let (name, at) = name(bytes, HEADER)?;
    let kind = word(at)?;
    word(at + 2)?;
    let mut message = Message { name, kind: type_name(kind), answers: Vec::new() };
    let mut at = at + 4;
    for _ in 0..usize::from(answers).min(MOST_RECORDS) {
        match answer(bytes, at) {
            Some((told, next)) => {
                if message.answers.len() < MOST_ANSWERS {
                    message.answers.extend(told);
                }
                at = next;
            }
            // The rest is not here: what was read before it stands.
            None if cut => break,
            None => return None,
        }
    }
    Some(message)
}

/// One resource record: what it says, if it is told, and where the next one begins.
fn answer(bytes: &[u8], at: usize) -> Option<(Option<String>, usize)> {
    const NS: u16 = 2;
    const CNAME: u16 = 5;
    const PTR: u16 = 12;
    let (_, at) = name(bytes, at)?;
    let fixed = bytes.get(at..)?.first_chunk::<10>()?;
    let kind = u16::from_be_bytes([fixed[0], fixed[1]]);
    let length = usize::from(u16::from_be_bytes([fixed[8], fixed[9]]));
    let start = at + 10;
    let data = bytes.get(start..start.checked_add(length)?)?;
    let told = match (kind, data.len()) {
        (1, 4) => data.first_chunk::<4>().map(|data| Ipv4Addr::from(*data).to_string()),
        (28, 16) => data.first_chunk::<16>().map(|data| Ipv6Addr::from(*data).to_string()),
        (NS | CNAME | PTR, _) => Some(name(bytes, start)?.0),
        (16, _) => Some(format!("TXT of {length} bytes")),
        _ => None,
    };
    Some((told, start + length))
}

/// A name and where what follows it begins. Labels are joined by dots; a dot within one, and all
/// that is not printable, is escaped.
fn name(bytes: &[u8], start: usize) -> Option<(String, usize)> {
    let mut text = String::new();
    let (mut at, mut after, mut read) = (start, None, 0);
    loop {
        let length = usize::from(*bytes.get(at)?);
        match length {
            0 => break,
            1..=63 => {
                let label = bytes.get(at + 1..at + 1 + length)?;
                read += length + 1;
                if read > NAME_MAX {
                    return None;
                }
                if !text.is_empty() {
                    text.push('.');
                }
                text.push_str(&printable(label).replace('.', r"\x2e"));
                at += 1 + length;
            }
            0xc0.. => {
                let low = usize::from(*bytes.get(at + 1)?);
                let to = (length & 0x3f) << 8 | low;
                after = after.or(Some(at + 2));
                // Only backwards: so it ends.
                if to >= at || to < HEADER {
                    return None;
                }
                read += 1;
                if read > NAME_MAX {
                    return None;
                }
                at = to;
            }
            _ => return None,
        }
    }
    if text.is_empty() {
        text.push('.');
    }
    Some((text, after.unwrap_or(at + 1)))
}

/// Name of a record type; the number of one that has none here.
fn type_name(kind: u16) -> String {
    let name = match kind {
        1 => "A",
        2 => "NS",
        5 => "CNAME",
        6 => "SOA",
        10 => "NULL",
        12 => "PTR",
        15 => "MX",
        16 => "TXT",
        28 => "AAAA",
        33 => "SRV",
        64 => "SVCB",
        65 => "HTTPS",
        252 => "AXFR",
        255 => "ANY",
        other => return other.to_string(),
    };
    name.to_owned()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn header(questions: u16, answers: u16) -> Vec<u8> {
        let words = [0x1234, 0x0100, questions, answers, 0, 0];
        words.iter().flat_map(|word| word.to_be_bytes()).collect()
    }

    fn question(name: &[u8], kind: u16) -> Vec<u8> {
        [name, &kind.to_be_bytes(), &1_u16.to_be_bytes()].concat()
    }

    fn record(name: &[u8], kind: u16, data: &[u8]) -> Vec<u8> {
        let length = u16::try_from(data.len()).expect("length").to_be_bytes();
        [name, &kind.to_be_bytes(), &[0, 1, 0, 0, 0, 60], &length, data].concat()
    }

    const WWW: &[u8] = b"\x03www\x07example\x03org\0";

    #[test]
    fn a_question_has_a_name_and_a_type() {
        let bytes = [header(1, 0), question(WWW, 28)].concat();
        let message = parse(&bytes, false).expect("message");
        assert_eq!((message.name.as_str(), message.kind.as_str()), ("www.example.org", "AAAA"));
        let root = [header(1, 0), question(b"\0", 2)].concat();
        assert_eq!(parse(&root, false).expect("root").name, ".");
    }

    #[test]
    fn answers_are_addresses_and_names_through_pointers() {
        let bytes = [
            header(1, 4),
            question(WWW, 1),
            record(b"\xc0\x0c", 5, b"\x04edge\xc0\x10"),
            record(b"\xc0\x0c", 1, &[192, 0, 2, 7]),
            record(b"\xc0\x0c", 28, &[0; 16]),
            record(b"\xc0\x0c", 16, b"\x04text"),
        ]
        .concat();
        let message = parse(&bytes, false).expect("message");
        assert_eq!(message.answers, ["edge.example.org", "192.0.2.7", "::", "TXT of 5 bytes"]);
        let cut = parse(&bytes[..bytes.len() - 25], true).expect("cut");
        assert_eq!(cut.answers, ["edge.example.org", "192.0.2.7"]);
        assert_eq!(parse(&bytes[..bytes.len() - 25], false), None);
    }

    #[test]
    fn names_that_go_round_run_on_or_hide_something_are_refused_or_escaped() {
        let message = |name: &[u8]| parse(&[header(1, 0), question(name, 1)].concat(), false);
        assert_eq!(message(b"\xc0\x0c"), None, "a pointer to itself");
        assert_eq!(message(b"\x01a\xc0\x20"), None, "a pointer forwards");
        assert_eq!(message(b"\x40aaaa"), None, "a label of no kind");
        assert_eq!(message(&[&[63; 64][..]; 5].concat()), None, "longer than a name may be");
        let hidden = message(b"\x05a.b\n\xff\x03com\0").expect("message");
        assert_eq!(hidden.name, r"a\x2eb\x0a\xff.com");
        assert_eq!(parse(&[header(0, 0), question(WWW, 1)].concat(), false), None);
        assert_eq!(parse(b"GET / HTTP/1.1\r\nHost: tunnel\r\n", false), None);
    }

    proptest! {
        #[test]
        fn arbitrary_messages_never_panic_and_stay_small(
            bytes in proptest::collection::vec(any::<u8>(), 0..600), cut: bool,
        ) {
            if let Some(message) = parse(&bytes, cut) {
                prop_assert!(message.name.len() <= 4 * NAME_MAX);
                prop_assert!(message.answers.len() <= MOST_ANSWERS);
            }
        }

        #[test]
        fn every_cut_and_every_flipped_byte_is_survived(at in 0usize..80, byte: u8) {
            let mut bytes = [
                header(1, 2),
                question(WWW, 1),
                record(b"\xc0\x0c", 5, b"\x04edge\xc0\x10"),
                record(b"\xc0\x0c", 1, &[192, 0, 2, 7]),
            ].concat();
            let at = at % bytes.len();
            let _ = parse(&bytes[..at], true);
            bytes[at] = byte;
            let _ = parse(&bytes, false);
        }
    }
}
