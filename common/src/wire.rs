//! The messages between the agent and one scan worker, one `SOCK_SEQPACKET` datagram each.
//!
//! Fixed little-endian layouts, written by hand so that the held path allocates nothing.
//! The worker is not trusted: a reply that does not decode counts as a crash of that worker.

use bytes::{Buf, BufMut};

use crate::verdict::{Engine, Signature};

/// Largest datagram in either direction, in bytes.
pub const MAX_MESSAGE: usize = 512;

/// Longest text in a refusal, in bytes.
pub const MAX_TEXT: usize = 400;

/// Agent to worker. Each carries exactly one descriptor (`SCM_RIGHTS`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Load the rule bundle in the sealed memfd that comes with it. Always the first order, once.
    Load,
    /// Scan the file whose descriptor comes with it.
    Scan {
        /// Echoed in the reply.
        ticket: u64,
        /// Send all three hashes even when the file is clean.
        want_hashes: bool,
    },
}

/// Worker to agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// The bundle is loaded.
    Loaded {
        /// Number of hashes.
        hashes: u64,
        /// Number of YARA rules.
        yara_rules: u64,
        /// Layers of the cage that this kernel lacks, as bits (`worker::cage::MISSING_*`).
        missing: u8,
    },
    /// The bundle is refused as a whole; the text names file and line.
    Refused(String),
    /// A scan ended.
    Scanned {
        /// From the order.
        ticket: u64,
        /// Bytes read.
        read: u64,
        /// What was found.
        finding: Finding,
        /// Present when malicious or asked for.
        hashes: Option<RawHashes>,
    },
}

/// What a scan found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finding {
    /// No rule matched.
    Clean,
    /// This rule matched.
    Malicious(Signature),
    /// Reading failed with this errno.
    Unreadable(i32),
}

/// Binary hashes of the whole content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RawHashes {
    /// SHA-256
    pub sha256: [u8; 32],
    /// SHA-1
    pub sha1: [u8; 20],
    /// MD5
    pub md5: [u8; 16],
}

impl RawHashes {
    /// Lower-case hex.
    #[must_use]
    pub fn to_hex(&self) -> crate::verdict::Hashes {
        crate::verdict::Hashes {
            sha256: hex(&self.sha256),
            sha1: hex(&self.sha1),
            md5: hex(&self.md5),
        }
    }
}

/// Lower-case hex digits.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// A message that is not one of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("malformed message between agent and scan worker")]
pub struct Malformed;

const LOAD: u8 = 1;
const SCAN: u8 = 2;
const LOADED: u8 = 3;
const REFUSED: u8 = 4;
const SCANNED: u8 = 5;

const CLEAN: u8 = 0;
const MALICIOUS: u8 = 1;
const UNREADABLE: u8 = 2;

impl Order {
    /// Appends the message.
    pub fn encode(self, to: &mut impl BufMut) {
        match self {
            Self::Load => to.put_u8(LOAD),
            Self::Scan { ticket, want_hashes } => {
                to.put_u8(SCAN);
                to.put_u64_le(ticket);
                to.put_u8(u8::from(want_hashes));
            }
        }
    }

    /// Reads one whole message.
    ///
    /// # Errors
    /// [`Malformed`] on an unknown tag, a wrong length or a value out of range.
    pub fn decode(mut from: &[u8]) -> Result<Self, Malformed> {
        let order = match from.try_get_u8().map_err(|_| Malformed)? {
            LOAD => Self::Load,
            SCAN => Self::Scan {
                ticket: from.try_get_u64_le().map_err(|_| Malformed)?,
                want_hashes: match from.try_get_u8().map_err(|_| Malformed)? {
                    0 => false,
                    1 => true,
                    _ => return Err(Malformed),
                },
            },
            _ => return Err(Malformed),
        };
        if from.is_empty() { Ok(order) } else { Err(Malformed) }
    }
}

impl Answer {
    /// Appends the message; texts are cut to their limits at a character boundary.
    pub fn encode(&self, to: &mut impl BufMut) {
        match self {
            Self::Loaded { hashes, yara_rules, missing } => {
                to.put_u8(LOADED);
                to.put_u64_le(*hashes);
                to.put_u64_le(*yara_rules);
                to.put_u8(*missing);
            }
            Self::Refused(text) => {
                to.put_u8(REFUSED);
                put_text(to, text, MAX_TEXT);
            }
            Self::Scanned { ticket, read, finding, hashes } => {
                to.put_u8(SCANNED);
                to.put_u64_le(*ticket);
                to.put_u64_le(*read);
                match finding {
                    Finding::Clean => to.put_u8(CLEAN),
                    Finding::Malicious(signature) => {
                        to.put_u8(MALICIOUS);
                        to.put_u8(match signature.engine {
                            Engine::Eicar => 0,
                            Engine::Hash => 1,
                            Engine::Yara => 2,
                            Engine::SelfProof => 3,
                            // No worker concludes that; nobody takes it from one.
                            Engine::DeniedPath => u8::MAX,
                        });
                        put_text(to, &signature.name, Signature::MAX_NAME);
                    }
                    Finding::Unreadable(errno) => {
                        to.put_u8(UNREADABLE);
                        to.put_i32_le(*errno);
                    }
                }
                match hashes {
                    None => to.put_u8(0),
                    Some(hashes) => {
                        to.put_u8(1);
                        to.put_slice(&hashes.sha256);
                        to.put_slice(&hashes.sha1);
                        to.put_slice(&hashes.md5);
                    }
                }
            }
        }
    }

    /// Reads one whole message.
    ///
    /// # Errors
    /// [`Malformed`] on an unknown tag, a wrong length, text that is not UTF-8 or too long.
    pub fn decode(mut from: &[u8]) -> Result<Self, Malformed> {
        let answer = match from.try_get_u8().map_err(|_| Malformed)? {
            LOADED => Self::Loaded {
                hashes: from.try_get_u64_le().map_err(|_| Malformed)?,
                yara_rules: from.try_get_u64_le().map_err(|_| Malformed)?,
                missing: from.try_get_u8().map_err(|_| Malformed)?,
            },
            REFUSED => Self::Refused(get_text(&mut from, MAX_TEXT)?),
            SCANNED => Self::Scanned {
                ticket: from.try_get_u64_le().map_err(|_| Malformed)?,
                read: from.try_get_u64_le().map_err(|_| Malformed)?,
                finding: get_finding(&mut from)?,
                hashes: get_hashes(&mut from)?,
            },
            _ => return Err(Malformed),
        };
        if from.is_empty() { Ok(answer) } else { Err(Malformed) }
    }
}

fn get_finding(from: &mut &[u8]) -> Result<Finding, Malformed> {
    match from.try_get_u8().map_err(|_| Malformed)? {
        CLEAN => Ok(Finding::Clean),
        MALICIOUS => {
            let engine = match from.try_get_u8().map_err(|_| Malformed)? {
                0 => Engine::Eicar,
                1 => Engine::Hash,
                2 => Engine::Yara,
                3 => Engine::SelfProof,
                _ => return Err(Malformed),
            };
            let name = get_text(from, Signature::MAX_NAME)?;
            Ok(Finding::Malicious(Signature { name, engine }))
        }
        UNREADABLE => Ok(Finding::Unreadable(from.try_get_i32_le().map_err(|_| Malformed)?)),
        _ => Err(Malformed),
    }
}

fn get_hashes(from: &mut &[u8]) -> Result<Option<RawHashes>, Malformed> {
    match from.try_get_u8().map_err(|_| Malformed)? {
        0 => Ok(None),
        1 => {
            let mut hashes = RawHashes { sha256: [0; 32], sha1: [0; 20], md5: [0; 16] };
            from.try_copy_to_slice(&mut hashes.sha256).map_err(|_| Malformed)?;
            from.try_copy_to_slice(&mut hashes.sha1).map_err(|_| Malformed)?;
            from.try_copy_to_slice(&mut hashes.md5).map_err(|_| Malformed)?;
            Ok(Some(hashes))
        }
        _ => Err(Malformed),
    }
}

fn put_text(to: &mut impl BufMut, text: &str, limit: usize) {
    let mut end = text.len().min(limit);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    let text = &text.as_bytes()[..end];
    // Both limits fit 16 bits.
    to.put_u16_le(u16::try_from(text.len()).unwrap_or(0));
    to.put_slice(text);
}

fn get_text(from: &mut &[u8], limit: usize) -> Result<String, Malformed> {
    let length = usize::from(from.try_get_u16_le().map_err(|_| Malformed)?);
    if length > limit || length > from.len() {
        return Err(Malformed);
    }
    let (text, rest) = from.split_at(length);
    *from = rest;
    String::from_utf8(text.to_vec()).map_err(|_| Malformed)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn round_trip(answer: &Answer) {
        let mut bytes = Vec::new();
        answer.encode(&mut bytes);
        assert!(bytes.len() <= MAX_MESSAGE);
        assert_eq!(Answer::decode(&bytes).as_ref(), Ok(answer));
        for cut in 0..bytes.len() {
            assert_eq!(Answer::decode(&bytes[..cut]), Err(Malformed), "cut at {cut}");
        }
        bytes.push(0);
        assert_eq!(Answer::decode(&bytes), Err(Malformed), "one byte too many");
    }

    #[test]
    fn every_answer_survives_the_wire_and_no_shortened_one_does() {
        let hashes = RawHashes { sha256: [1; 32], sha1: [2; 20], md5: [3; 16] };
        round_trip(&Answer::Loaded { hashes: 7, yara_rules: 9, missing: 1 });
        round_trip(&Answer::Refused("rules/a.yar: line 3: syntax error".to_owned()));
        round_trip(&Answer::Scanned { ticket: 1, read: 68, finding: Finding::Clean, hashes: None });
        round_trip(&Answer::Scanned {
            ticket: u64::MAX,
            read: 0,
            finding: Finding::Malicious(Signature { name: "x".repeat(200), engine: Engine::Yara }),
            hashes: Some(hashes),
        });
        round_trip(&Answer::Scanned {
            ticket: 5,
            read: 1,
            finding: Finding::Unreadable(5),
            hashes: Some(hashes),
        });
    }

    #[test]
    fn a_long_text_is_cut_at_a_character() {
        let mut bytes = Vec::new();
        Answer::Refused("\u{e9}".repeat(300)).encode(&mut bytes);
        assert_eq!(Answer::decode(&bytes), Ok(Answer::Refused("\u{e9}".repeat(200))));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            let _ = Answer::decode(&bytes);
            let _ = Order::decode(&bytes);
        }
    }
}
