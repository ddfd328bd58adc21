//! Hash lists: text in, sorted arrays for binary search out; and the digests to look up.
//!
//! One hash a line in hex, then optionally a name; `#` begins a comment line. The order of
//! `sha256sum` output (`hash  name`) is therefore read as it is. A line that is anything else
//! refuses the list. Reads no file.

use holdfast_common::process::printable;
use holdfast_common::wire::RawHashes;
use md5::Md5;
use sha1::Sha1;
use sha2::{Digest, Sha256};

/// Hashes of one kind, sorted, each with the index of its name.
#[derive(Debug, Default)]
pub struct HashList<const N: usize> {
    entries: Vec<([u8; N], u32)>,
}

/// Names of hashes; many hashes share one.
#[derive(Debug, Default)]
pub struct Names {
    names: Vec<Box<str>>,
}

/// A line that is not a hash.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{file}:{line}: {reason}")]
pub struct BadLine {
    file: String,
    line: usize,
    reason: &'static str,
}

impl Names {
    /// The name at an index that [`HashList::find`] gave.
    #[must_use]
    pub fn get(&self, index: u32) -> &str {
        usize::try_from(index).ok().and_then(|index| self.names.get(index)).map_or("", |name| name)
    }

    fn add(&mut self, name: &str) -> Option<u32> {
        // Families stand together in published lists: the last name is the likely one.
        if self.names.last().is_none_or(|last| **last != *name) {
            self.names.push(name.into());
        }
        u32::try_from(self.names.len() - 1).ok()
    }
}

impl<const N: usize> HashList<N> {
    /// Adds the lines of a list. A hash without a name is called after the list.
    ///
    /// # Errors
    /// [`BadLine`] with file and line.
    pub fn add(&mut self, file: &str, content: &[u8], names: &mut Names) -> Result<(), BadLine> {
        let bad = |line, reason| BadLine { file: file.to_owned(), line, reason };
        for (number, line) in (1..).zip(content.split(|byte| *byte == b'\n')) {
            let line = std::str::from_utf8(line).map_err(|_| bad(number, "not UTF-8"))?.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let (digits, name) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
            let hash = parse_hex(digits).ok_or_else(|| bad(number, wrong_length::<N>()))?;
            let name = match name.trim() {
                "" => printable(file.as_bytes()),
                name => printable(name.as_bytes()),
            };
            let name = names.add(&name).ok_or_else(|| bad(number, "too many names"))?;
            self.entries.push((hash, name));
        }
        Ok(())
    }

    /// Makes [`find`](Self::find) work; once, after the last list.
    pub fn seal(&mut self) {
        // Stable: of equal hashes the first name stays.
        self.entries.sort_by_key(|entry| entry.0);
        self.entries.dedup_by_key(|entry| entry.0);
        self.entries.shrink_to_fit();
    }

    /// The index of the hash's name.
    #[must_use]
    pub fn find(&self, hash: &[u8; N]) -> Option<u32> {
        let place = self.entries.binary_search_by_key(&hash, |entry| &entry.0).ok()?;
        Some(self.entries[place].1)
    }

    /// Number of hashes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// True without any.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

const fn wrong_length<const N: usize>() -> &'static str {
    match N {
        32 => "not a SHA-256 in hex (64 digits)",
        20 => "not a SHA-1 in hex (40 digits)",
        _ => "not an MD5 in hex (32 digits)",
    }
}

fn parse_hex<const N: usize>(digits: &str) -> Option<[u8; N]> {
    let digits = digits.as_bytes();
    if digits.len() != 2 * N {
        return None;
    }
    let mut hash = [0; N];
    for (byte, pair) in hash.iter_mut().zip(digits.chunks_exact(2)) {
        let high = char::from(pair[0]).to_digit(16)?;
        let low = char::from(pair[1]).to_digit(16)?;
        *byte = u8::try_from(high << 4 | low).ok()?;
    }
    Some(hash)
}

/// Which hashes are computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kinds {
    /// SHA-256
    pub sha256: bool,
    /// SHA-1
    pub sha1: bool,
    /// MD5
    pub md5: bool,
}

impl Kinds {
    /// All three.
    pub const ALL: Self = Self { sha256: true, sha1: true, md5: true };

    /// True when at least one is wanted.
    #[must_use]
    pub const fn any(self) -> bool {
        self.sha256 || self.sha1 || self.md5
    }
}

/// Hashes while content runs through. On the stack.
#[derive(Debug)]
pub struct Digests {
    sha256: Option<Sha256>,
    sha1: Option<Sha1>,
    md5: Option<Md5>,
}

/// The hashes that were wanted.
#[derive(Debug)]
pub struct Digested {
    /// SHA-256
    pub sha256: Option<[u8; 32]>,
    /// SHA-1
    pub sha1: Option<[u8; 20]>,
    /// MD5
    pub md5: Option<[u8; 16]>,
}

impl Digests {
    /// Begins.
    #[must_use]
    pub fn new(kinds: Kinds) -> Self {
        Self {
            sha256: kinds.sha256.then(Sha256::new),
            sha1: kinds.sha1.then(Sha1::new),
            md5: kinds.md5.then(Md5::new),
        }
    }

    /// The next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        if let Some(sha256) = &mut self.sha256 {
            sha256.update(bytes);
        }
        if let Some(sha1) = &mut self.sha1 {
            sha1.update(bytes);
        }
        if let Some(md5) = &mut self.md5 {
            md5.update(bytes);
        }
    }

    /// Ends.
    #[must_use]
    pub fn finish(self) -> Digested {
        Digested {
            sha256: self.sha256.map(|digest| digest.finalize().into()),
            sha1: self.sha1.map(|digest| digest.finalize().into()),
            md5: self.md5.map(|digest| digest.finalize().into()),
        }
    }
}

impl Digested {
    /// All three, when all three were wanted.
    #[must_use]
    pub fn all(&self) -> Option<RawHashes> {
        Some(RawHashes { sha256: self.sha256?, sha1: self.sha1?, md5: self.md5? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(content: &str) -> Result<(HashList<16>, Names), BadLine> {
        let (mut list, mut names) = (HashList::default(), Names::default());
        list.add("a.md5", content.as_bytes(), &mut names)?;
        list.seal();
        Ok((list, names))
    }

    #[test]
    fn hashes_are_found_with_their_names() {
        let (list, names) = list(
            "# families\r\n\n00000000000000000000000000000002  Two of them\r\n\
             000000000000000000000000000000Aa\n00000000000000000000000000000002 other\n",
        )
        .expect("good list");
        let hash = |last| [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last];
        assert_eq!(list.len(), 2);
        assert_eq!(list.find(&hash(2)).map(|index| names.get(index)), Some("Two of them"));
        assert_eq!(list.find(&hash(0xaa)).map(|index| names.get(index)), Some("a.md5"));
        assert_eq!(list.find(&hash(3)), None);
    }

    #[test]
    fn a_line_that_is_no_hash_is_named() {
        for (content, line) in [
            ("00", 1),
            ("# x\n\n0000000000000000000000000000000g", 3),
            ("\n000000000000000000000000000000000000000000000000000000000000000000", 2),
            ("name 00000000000000000000000000000002", 1),
            ("\u{ff10}0000000000000000000000000000000", 1),
        ] {
            let error = list(content).expect_err(content).to_string();
            assert_eq!(error, format!("a.md5:{line}: not an MD5 in hex (32 digits)"));
        }
        let mut names = Names::default();
        let error = HashList::<32>::default().add("b.sha256", b"\n\xff", &mut names);
        assert_eq!(error.expect_err("not text").to_string(), "b.sha256:2: not UTF-8");
    }

    #[test]
    fn a_name_cannot_carry_control_characters() {
        let (list, names) = list("00000000000000000000000000000002 a\x1b[2Jb").expect("list");
        assert_eq!(names.get(list.entries[0].1), r"a\x1b[2Jb");
    }

    #[test]
    fn digests_are_those_of_the_published_test_vectors() {
        let mut digests = Digests::new(Kinds::ALL);
        digests.update(b"a");
        digests.update(b"bc");
        let hashes = digests.finish().all().expect("all three").to_hex();
        assert_eq!(hashes.md5, "900150983cd24fb0d6963f7d28e17f72");
        assert_eq!(hashes.sha1, "a9993e364706816aba3e25717850c26c9cd0d89d");
        assert!(hashes.sha256.starts_with("ba7816bf8f01cfea414140de5dae2223b00361a3"));
    }
}
