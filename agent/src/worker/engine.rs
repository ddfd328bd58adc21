//! One scan: read the descriptor's content into a buffer of our own, judge it.
//!
//! Order: EICAR, the self-proof marker, hash lists, YARA; the first match ends the scan. Content is read with `pread`
//! and never mapped, since a file that shrinks under a mapping kills its reader (`SIGBUS`).
//! INVARIANT: no scan holds more than [`Engine::yara_limit`] bytes of content and one chunk;
//! content beyond that is hashed in passing, and YARA sees the first part alone.
//! A clean file allocates nothing once the buffer fits it. Talks to nobody.

use std::os::fd::BorrowedFd;
use std::time::Duration;

use holdfast_common::verdict::{Engine as Part, Signature};
use holdfast_common::wire::{Answer, Finding, RawHashes};
use rustix::fs::FileType;
use rustix::io::Errno;

use super::hashes::{Digested, Digests, HashList, Kinds, Names};
use super::image::{self, RuleKind};
use super::{eicar, marker, yara};

/// Bytes read at a time where content streams by, and the buffer that is kept between scans.
const CHUNK: usize = 256 << 10;

/// Rules among a bundle's YARA rules that are not the bundle's: the self-proof marker's.
const OWN_RULES: u64 = 1;

/// A file may grow by this many bytes while it is read; beyond it is unreadable (`EFBIG`), so
/// that a writer who never stops cannot keep a worker for ever.
const GROWTH: u64 = 64 << 20;

/// Everything that content is compared with. EICAR is built in.
#[derive(Default)]
pub struct Rules {
    sha256: HashList<32>,
    sha1: HashList<20>,
    md5: HashList<16>,
    names: Names,
    yara: Option<yara::Rules>,
}

/// Rules, and the buffers that every scan uses again.
pub struct Engine {
    rules: Rules,
    yara_limit: usize,
    head: Vec<u8>,
    chunk: Vec<u8>,
}

/// One file while it is scanned. Its first bytes lie in [`Engine::head`].
struct Content<'a> {
    file: BorrowedFd<'a>,
    /// Bytes in the head.
    length: usize,
    /// The content ends there.
    whole: bool,
    /// Bytes after which a growing file is given up.
    budget: u64,
    /// Bytes read so far.
    read: u64,
}

impl Rules {
    /// Reads a bundle image; whole or not at all.
    ///
    /// # Errors
    /// A text that names file and line.
    pub fn load(bundle: &[u8], limit: Duration) -> Result<Self, String> {
        let files = image::read(bundle).ok_or("the bundle image is damaged")?;
        let mut rules = Self::default();
        let mut builder: Option<yara::Builder> = None;
        for file in files {
            let (name, content, names) = (file.name, file.content, &mut rules.names);
            match RuleKind::of(name) {
                Some(RuleKind::Sha256) => rules.sha256.add(name, content, names).map_err(text)?,
                Some(RuleKind::Sha1) => rules.sha1.add(name, content, names).map_err(text)?,
                Some(RuleKind::Md5) => rules.md5.add(name, content, names).map_err(text)?,
                Some(RuleKind::Yara) => builder.get_or_insert_default().add(name, content)?,
                None => return Err(format!("{name}: not a rule file")),
            }
        }
        rules.sha256.seal();
        rules.sha1.seal();
        rules.md5.seal();
        if let Some(builder) = &mut builder {
            builder.add(marker::RULE_FILE, marker::RULE.as_bytes())?;
        }
        // Files without a rule must not cost every scan a whole read.
        rules.yara = builder.map(|yara| yara.finish(limit)).filter(|yara| yara.count() > OWN_RULES);
        Ok(rules)
    }

    /// What the agent is told.
    #[must_use]
    pub fn counts(&self) -> (u64, u64) {
        let hashes = self.sha256.len() + self.sha1.len() + self.md5.len();
        (hashes as u64, self.yara.as_ref().map_or(0, |yara| yara.count() - OWN_RULES))
    }

    fn kinds(&self) -> Kinds {
        Kinds {
            sha256: !self.sha256.is_empty(),
            sha1: !self.sha1.is_empty(),
            md5: !self.md5.is_empty(),
        }
    }

    fn find(&self, digested: &Digested) -> Option<&str> {
        let name = digested
            .sha256
            .and_then(|hash| self.sha256.find(&hash))
            .or_else(|| digested.sha1.and_then(|hash| self.sha1.find(&hash)))
            .or_else(|| digested.md5.and_then(|hash| self.md5.find(&hash)))?;
        Some(self.names.get(name))
    }
}

fn text(error: super::hashes::BadLine) -> String {
    error.to_string()
}

impl Engine {
    /// An engine whose YARA rules see the first `yara_limit` bytes of a file.
    #[must_use]
    pub fn new(rules: Rules, yara_limit: usize) -> Self {
        Self { rules, yara_limit: yara_limit.max(CHUNK), head: vec![0; CHUNK], chunk: Vec::new() }
    }

    /// Scans the content behind a descriptor. Its file offset stays.
    pub fn scan(&mut self, ticket: u64, want_hashes: bool, file: BorrowedFd<'_>) -> Answer {
        let (read, finding, hashes) = match self.judge(file, want_hashes) {
            Ok(judged) => judged,
            Err(errno) => (0, Finding::Unreadable(errno.raw_os_error()), None),
        };
        if self.head.len() > 4 * CHUNK {
            // The buffer of a large file goes back to the system.
            self.head.truncate(CHUNK);
            self.head.shrink_to_fit();
        }
        Answer::Scanned { ticket, read, finding, hashes }
    }

    fn judge(
        &mut self,
        file: BorrowedFd<'_>,
        want_hashes: bool,
    ) -> Result<(u64, Finding, Option<RawHashes>), Errno> {
        let kinds = if want_hashes { Kinds::ALL } else { self.rules.kinds() };
        let mut content = self.read_head(file, kinds)?;
        let mut hashes = None;
        let built_in = self.built_in(&content);
        let signature = if built_in.is_some() {
            built_in
        } else {
            let listed = if kinds.any() {
                let digested = self.digest(&mut content, kinds)?;
                hashes = digested.all();
                self.rules.find(&digested).map(str::to_owned)
            } else {
                None
            };
            match listed {
                Some(name) => Some(Signature { name, engine: Part::Hash }),
                None => self.match_yara(&content)?,
            }
        };
        let Some(signature) = signature else {
            return Ok((content.read, Finding::Clean, hashes.filter(|_| want_hashes)));
        };
        // A match carries its hashes, unless reading the rest of a large file fails only now:
        // it counts all the same.
        if hashes.is_none() {
            hashes = self.digest(&mut content, Kinds::ALL).ok().and_then(|digested| digested.all());
        }
        Ok((content.read, Finding::Malicious(signature), hashes))
    }

    /// What is known without a bundle.
    fn built_in(&self, content: &Content<'_>) -> Option<Signature> {
        let bytes = &self.head[..content.length];
        let (name, engine) = match content.whole {
            true if eicar::is_test_file(bytes) => (eicar::NAME, Part::Eicar),
            true if self.rules.yara.is_none() && marker::is_marker(bytes) => {
                (marker::NAME, Part::SelfProof)
            }
            _ => return None,
        };
        Some(Signature { name: name.to_owned(), engine })
    }

    fn match_yara(&self, content: &Content<'_>) -> Result<Option<Signature>, Errno> {
        let Some(rules) = &self.rules.yara else { return Ok(None) };
        let name = rules
            .first_match(&self.head[..content.length])
            .map_err(|yara::TimedOut| Errno::TIMEDOUT)?;
        Ok(name.map(|name| Signature { name: name.to_owned(), engine: Part::Yara }))
    }

    /// Reads as much of the beginning as the rules look at.
    fn read_head<'a>(&mut self, file: BorrowedFd<'a>, kinds: Kinds) -> Result<Content<'a>, Errno> {
        let stat = rustix::fs::fstat(file)?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => {}
            FileType::Directory => return Err(Errno::ISDIR),
            // Reading a device or a pipe waits, never ends, or takes bytes from somebody.
            _ => return Err(Errno::INVAL),
        }
        let size = u64::try_from(stat.st_size).map_err(|_| Errno::INVAL)?;
        let most = if self.rules.yara.is_some() {
            self.yara_limit
        } else if kinds.any() {
            CHUNK
        } else {
            eicar::MAX_LEN + 1
        };
        let mut length = 0;
        let whole = loop {
            if length == most {
                break false;
            }
            if length == self.head.len() {
                self.grow_head(size, length, most)?;
            }
            let end = self.head.len().min(most);
            let got = pread(file, &mut self.head[length..end], length as u64)?;
            length += got;
            // Less than was asked for, and nothing left that the size promised: the end. Files
            // that state no size (procfs) and file systems that deliver in parts are read on.
            if got == 0 || (length < end && size > 0 && length as u64 >= size) {
                break true;
            }
        };
        let budget = size.saturating_add(GROWTH);
        Ok(Content { file, length, whole, budget, read: length as u64 })
    }

    /// Room for the whole file when its size is true, twice the room when it is not.
    fn grow_head(&mut self, size: u64, length: usize, most: usize) -> Result<(), Errno> {
        let expected = usize::try_from(size).unwrap_or(most).saturating_add(1);
        let room = if expected > length { expected } else { length.saturating_mul(2) }.min(most);
        self.head.try_reserve_exact(room - length).map_err(|_| Errno::NOMEM)?;
        self.head.resize(room, 0);
        Ok(())
    }

    /// Hashes of the whole content: the head as it was read, the rest in passing.
    fn digest(&mut self, content: &mut Content<'_>, kinds: Kinds) -> Result<Digested, Errno> {
        let mut digests = Digests::new(kinds);
        digests.update(&self.head[..content.length]);
        let mut offset = content.length as u64;
        if !content.whole {
            self.chunk.resize(CHUNK, 0);
            loop {
                let got = pread(content.file, &mut self.chunk, offset)?;
                if got == 0 {
                    break;
                }
                digests.update(&self.chunk[..got]);
                offset += got as u64;
                if offset > content.budget {
                    return Err(Errno::FBIG);
                }
            }
        }
        content.read = offset;
        Ok(digests.finish())
    }
}

fn pread(file: BorrowedFd<'_>, buffer: &mut [u8], offset: u64) -> Result<usize, Errno> {
    loop {
        match rustix::io::pread(file, &mut *buffer, offset) {
            Err(Errno::INTR) => {}
            other => return other,
        }
    }
}
