//! The quarantine container: format only, over any reader and writer.
//!
//! ```text
//! magic 8 | version u16 | id 16 | wrap nonce 12 | wrapped file key 48 | metadata length u32   (header, 90 bytes)
//! metadata   AES-256-GCM of JSON, filled up with spaces to a length fixed beforehand
//! content    AES-256-GCM chunks of 64 KiB, the last one shorter or equal, each with its tag
//! ```
//!
//! Integers are little-endian. The file key is used for this container alone and is wrapped by
//! the host's key, bound to magic, version and id. Metadata and every chunk are bound to the whole
//! header. A chunk's nonce carries its number and whether it is the last (the STREAM construction
//! of Hoang, Reyhanitabar, Rogaway and Vizár), so a lost, moved, added or cut chunk is refused.
//! Metadata is written last, since it holds the hashes of what was really sealed.
//!
//! Invariant: nothing is handed out that was not authenticated; no length of the container makes
//! the reader allocate more than [`MAX_METADATA`]. Opens no file and draws no random number.

use std::io::{self, Read, Seek, SeekFrom, Write};

use aes_gcm::aead::AeadInOut;
use aes_gcm::{Aes256Gcm, KeyInit, Nonce, Tag};
use serde::{Deserialize, Serialize};
use uuid::Uuid;
use zeroize::Zeroizing;

use crate::event::FileFacts;
use crate::process::ProcessInfo;
use crate::verdict::{Hashes, ScanType, Signature};

/// First bytes of every container.
pub const MAGIC: [u8; 8] = *b"HFVAULT\x1a";
/// The version that this code writes, and the newest that it reads.
pub const VERSION: u16 = 1;
/// Plain bytes in one chunk.
pub const CHUNK: usize = 64 * 1024;
/// Longest metadata section, in bytes.
pub const MAX_METADATA: usize = 8 << 20;
/// Bytes of a container's header.
pub const HEADER: usize = 90;

const TAG: usize = 16;
/// The wrapped key is bound to everything before it but its nonce: magic, version, id.
const IDENTITY: usize = 26;
/// Room for numbers of the metadata that grow between draft and end.
const METADATA_SLACK: usize = 256;

/// Everything that is known of a quarantined file: enough to put it back as it was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Metadata {
    /// The item's id, also the container's file name.
    pub id: Uuid,
    /// When it was sealed, milliseconds since the epoch.
    pub sealed_ms: i64,
    /// The path's bytes, as a lower-case hex string: a path need not be UTF-8.
    pub path_hex: String,
    /// The same path for people.
    pub path: String,
    /// `statx` before sealing; `size` is the number of bytes that were sealed.
    pub file: FileFacts,
    /// Access time, seconds and nanoseconds.
    pub atime: (i64, u32),
    /// Modification time.
    pub mtime: (i64, u32),
    /// Status change time.
    #[serde(default)]
    pub ctime: (i64, u32),
    /// Inode generation, where the file system has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generation: Option<u32>,
    /// Inode flags (`FS_IOC_GETFLAGS`: immutable, append-only…), 0 where there are none.
    #[serde(default)]
    pub inode_flags: u32,
    /// Extended attributes (ACLs, capabilities, SELinux label among them), name and value in hex.
    pub xattrs: Vec<(String, String)>,
    /// Extended attributes that were too many to keep.
    #[serde(default)]
    pub xattrs_left_out: u64,
    /// Number of hard links that the inode had.
    pub links: u64,
    /// True when somebody wrote the file while it was sealed; the hashes are those of the sealed bytes.
    #[serde(default)]
    pub changed_while_sealed: bool,
    /// Hashes of the content.
    #[serde(flatten)]
    pub hashes: Hashes,
    /// What matched.
    pub signature: Signature,
    /// What brought it to the scan core.
    pub scan_type: ScanType,
    /// Who opened, ran or wrote it.
    pub process: Option<ProcessInfo>,
    /// Why the container cannot be read; then only `id` and `sealed_ms` mean anything. In
    /// listings only, never inside a container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub damaged: Option<String>,
}

impl Metadata {
    /// The path as the kernel named it; `None` when the hex digits are none.
    #[must_use]
    pub fn path_bytes(&self) -> Option<Vec<u8>> {
        from_hex(&self.path_hex)
    }
}

/// An AES-256 key, wiped from memory when dropped.
pub struct Key(Zeroizing<[u8; 32]>);

impl Key {
    /// Takes 32 random bytes.
    #[must_use]
    pub fn new(bytes: Zeroizing<[u8; 32]>) -> Self {
        Self(bytes)
    }

    /// The key itself, for its own file.
    #[must_use]
    pub fn expose(&self) -> &[u8; 32] {
        &self.0
    }

    fn cipher(&self) -> Aes256Gcm {
        Aes256Gcm::new((&*self.0).into())
    }
}

/// What must be random in a new container.
pub struct Secrets {
    /// The file's own key.
    pub file_key: Key,
    /// Nonce for wrapping it.
    pub wrap_nonce: [u8; 12],
}

/// Why a container was not written.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    /// The metadata is larger than [`MAX_METADATA`].
    #[error("metadata is larger than {MAX_METADATA} bytes")]
    MetadataTooLarge,
    /// More than 2^32 chunks (256 TiB).
    #[error("content is too long for one container")]
    TooLong,
    /// Encryption or encoding failed.
    #[error("cannot encode the container")]
    Encode,
    /// Writing failed.
    #[error("cannot write the container")]
    Io(#[from] io::Error),
}

/// Why a container was not opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// It does not begin like a container.
    #[error("not a quarantine container")]
    NotAContainer,
    /// Written by a newer agent.
    #[error("the container has format version {found}, this program reads up to {VERSION}")]
    Newer {
        /// Its version.
        found: u16,
    },
    /// The wrapped key does not open.
    #[error("wrong host key, or the header is damaged")]
    WrongKey,
    /// The metadata does not authenticate or is not what it should be.
    #[error("the metadata is damaged")]
    Metadata,
    /// A chunk does not authenticate: flipped, cut, moved, added.
    #[error("the content is damaged at chunk {chunk}")]
    Content {
        /// Counted from 0.
        chunk: u64,
    },
    /// The container ends too early.
    #[error("the container is cut short")]
    Truncated,
    /// Reading failed.
    #[error("cannot read the container")]
    Read(#[source] io::Error),
    /// The plain bytes could not be handed on.
    #[error("cannot write the unsealed content")]
    Write(#[source] io::Error),
}

/// Writes one container. [`Sealer::finish`] makes it whole; dropped before, it is no container,
/// since its header is still missing.
pub struct Sealer<W> {
    out: W,
    header: [u8; HEADER],
    cipher: Aes256Gcm,
    metadata_room: usize,
    buffer: Zeroizing<Vec<u8>>,
    chunk: u32,
}

impl<W: Write + Seek> Sealer<W> {
    /// Begins at `out`'s start. `draft` is the metadata with hashes and size not yet known; the
    /// hashes must already have their final length.
    ///
    /// # Errors
    /// Too large a draft, or a write error.
    pub fn new(
        out: W,
        host_key: &Key,
        secrets: &Secrets,
        draft: &Metadata,
    ) -> Result<Self, SealError> {
        let json = serde_json::to_vec(draft).map_err(|_| SealError::Encode)?;
        let metadata_room = json.len() + METADATA_SLACK;
        if metadata_room + TAG > MAX_METADATA {
            return Err(SealError::MetadataTooLarge);
        }
        let header = header(host_key, secrets, draft.id, metadata_room + TAG)?;
        let cipher = secrets.file_key.cipher();
        let buffer = Zeroizing::new(Vec::with_capacity(CHUNK));
        let mut sealer = Self { out, header, cipher, metadata_room, buffer, chunk: 0 };
        let begin = sealer.content_start();
        sealer.out.seek(SeekFrom::Start(begin))?;
        Ok(sealer)
    }

    /// Where the content begins in the container.
    #[must_use]
    pub const fn content_start(&self) -> u64 {
        (HEADER + self.metadata_room + TAG) as u64
    }

    /// Adds content.
    ///
    /// # Errors
    /// A write error; the container is then to be thrown away.
    pub fn write(&mut self, mut bytes: &[u8]) -> Result<(), SealError> {
        while !bytes.is_empty() {
            if self.buffer.len() == CHUNK {
                self.flush_chunk(false)?;
            }
            let (now, later) = bytes.split_at(bytes.len().min(CHUNK - self.buffer.len()));
            self.buffer.extend_from_slice(now);
            bytes = later;
        }
        Ok(())
    }

    /// Ends the content and writes header and metadata. `metadata.id` must be the draft's.
    ///
    /// # Errors
    /// Metadata that outgrew its draft, or a write error.
    pub fn finish(mut self, metadata: &Metadata) -> Result<W, SealError> {
        self.flush_chunk(true)?;
        let mut json = serde_json::to_vec(metadata).map_err(|_| SealError::Encode)?;
        if json.len() > self.metadata_room {
            return Err(SealError::MetadataTooLarge);
        }
        json.resize(self.metadata_room, b' ');
        let tag = self
            .cipher
            .encrypt_inout_detached(&METADATA_NONCE, &self.header, json.as_mut_slice().into())
            .map_err(|_| SealError::Encode)?;
        self.out.seek(SeekFrom::Start(0))?;
        self.out.write_all(&self.header)?;
        self.out.write_all(&json)?;
        self.out.write_all(&tag)?;
        self.out.flush()?;
        Ok(self.out)
    }

    fn flush_chunk(&mut self, last: bool) -> Result<(), SealError> {
        let nonce = chunk_nonce(self.chunk, last);
        let tag = self
            .cipher
            .encrypt_inout_detached(&nonce, &self.header, self.buffer.as_mut_slice().into())
            .map_err(|_| SealError::Encode)?;
        self.out.write_all(&self.buffer)?;
        self.out.write_all(&tag)?;
        self.buffer.clear();
        if !last {
            self.chunk = self.chunk.checked_add(1).ok_or(SealError::TooLong)?;
        }
        Ok(())
    }
}

/// A container whose header and metadata were authenticated.
pub struct Opened<R> {
    /// What it holds.
    pub metadata: Metadata,
    input: R,
    header: [u8; HEADER],
    cipher: Aes256Gcm,
}

impl<R: Read> Opened<R> {
    /// Reads header and metadata.
    ///
    /// # Errors
    /// [`OpenError`]: not a container, newer, wrong key, damaged.
    pub fn open(mut input: R, host_key: &Key) -> Result<Self, OpenError> {
        let mut header = [0; HEADER];
        let read = fill(&mut input, &mut header)?;
        if read < MAGIC.len() || header[..MAGIC.len()] != MAGIC {
            return Err(OpenError::NotAContainer);
        }
        let found = u16::from_le_bytes([header[8], header[9]]);
        if read >= 10 && found > VERSION {
            return Err(OpenError::Newer { found });
        }
        if read < HEADER {
            return Err(OpenError::Truncated);
        }
        let cipher = unwrap_key(&header, host_key)?.cipher();
        let metadata = read_metadata(&mut input, &header, &cipher)?;
        Ok(Self { metadata, input, header, cipher })
    }

    /// Writes the plain content to `out` and returns its length. Every chunk is authenticated
    /// before it is written, but only `Ok` says that all of them came.
    ///
    /// # Errors
    /// [`OpenError::Content`] when anything is wrong with the rest of the container.
    pub fn content(mut self, mut out: impl Write) -> Result<u64, OpenError> {
        let mut buffer = Zeroizing::new(vec![0; CHUNK + TAG + 1]);
        let (mut carried, mut total) = (0, 0);
        for chunk in 0..=u32::MAX {
            // One byte more than a chunk tells whether another one follows.
            let filled = carried + fill(&mut self.input, &mut buffer[carried..])?;
            let last = filled <= CHUNK + TAG;
            let damaged = OpenError::Content { chunk: u64::from(chunk) };
            let Some(length) = filled.min(CHUNK + TAG).checked_sub(TAG) else {
                return Err(damaged);
            };
            let next = buffer[CHUNK + TAG];
            let (plain, rest) = buffer.split_at_mut(length);
            let mut tag = Tag::default();
            tag.copy_from_slice(&rest[..TAG]);
            let nonce = chunk_nonce(chunk, last);
            if self
                .cipher
                .decrypt_inout_detached(&nonce, &self.header, (&mut *plain).into(), &tag)
                .is_err()
            {
                return Err(damaged);
            }
            out.write_all(plain).map_err(OpenError::Write)?;
            total += length as u64;
            if last {
                out.flush().map_err(OpenError::Write)?;
                return Ok(total);
            }
            buffer[0] = next;
            carried = 1;
        }
        Err(OpenError::Content { chunk: 1 << 32 })
    }
}

/// Bytes that this much content takes in a container.
#[must_use]
pub const fn sealed_length(content: u64) -> u64 {
    let chunks = content.div_ceil(CHUNK as u64);
    content.saturating_add(TAG as u64 * if chunks == 0 { 1 } else { chunks })
}

/// Lower-case hex digits of bytes.
#[must_use]
pub fn to_hex(bytes: &[u8]) -> String {
    let digit = |nibble: u8| char::from(b"0123456789abcdef"[usize::from(nibble)]);
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

/// Bytes of lower-case hex digits; `None` for anything else.
#[must_use]
pub fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digit = |c: u8| match c {
        b'0'..=b'9' => Some(c - b'0'),
        b'a'..=b'f' => Some(c - b'a' + 10),
        _ => None,
    };
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    if !rest.is_empty() {
        return None;
    }
    pairs.iter().map(|[high, low]| Some(digit(*high)? << 4 | digit(*low)?)).collect()
}

/// Used once with each file key; no chunk nonce begins with 1.
const METADATA_NONCE: Nonce<aes_gcm::aead::consts::U12> =
    aes_gcm::aead::array::Array([1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);

fn chunk_nonce(chunk: u32, last: bool) -> Nonce<aes_gcm::aead::consts::U12> {
    let mut nonce = [2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, u8::from(last)];
    nonce[7..11].copy_from_slice(&chunk.to_be_bytes());
    nonce.into()
}

fn header(
    host_key: &Key,
    secrets: &Secrets,
    id: Uuid,
    metadata_length: usize,
) -> Result<[u8; HEADER], SealError> {
    let mut header = [0; HEADER];
    header[..8].copy_from_slice(&MAGIC);
    header[8..10].copy_from_slice(&VERSION.to_le_bytes());
    header[10..IDENTITY].copy_from_slice(id.as_bytes());
    header[26..38].copy_from_slice(&secrets.wrap_nonce);
    let mut wrapped = Zeroizing::new(*secrets.file_key.expose());
    let tag = host_key
        .cipher()
        .encrypt_inout_detached(
            &secrets.wrap_nonce.into(),
            &header[..IDENTITY],
            wrapped.as_mut_slice().into(),
        )
        .map_err(|_| SealError::Encode)?;
    header[38..70].copy_from_slice(wrapped.as_slice());
    header[70..86].copy_from_slice(&tag);
    let length = u32::try_from(metadata_length).map_err(|_| SealError::MetadataTooLarge)?;
    header[86..].copy_from_slice(&length.to_le_bytes());
    Ok(header)
}

fn unwrap_key(header: &[u8; HEADER], host_key: &Key) -> Result<Key, OpenError> {
    let mut key = Zeroizing::new([0; 32]);
    key.copy_from_slice(&header[38..70]);
    let mut nonce = Nonce::default();
    nonce.copy_from_slice(&header[26..38]);
    let mut tag = Tag::default();
    tag.copy_from_slice(&header[70..86]);
    host_key
        .cipher()
        .decrypt_inout_detached(&nonce, &header[..IDENTITY], key.as_mut_slice().into(), &tag)
        .map_err(|_| OpenError::WrongKey)?;
    Ok(Key(key))
}

fn read_metadata(
    input: &mut impl Read,
    header: &[u8; HEADER],
    cipher: &Aes256Gcm,
) -> Result<Metadata, OpenError> {
    let length = u32::from_le_bytes([header[86], header[87], header[88], header[89]]) as usize;
    if !(TAG..=MAX_METADATA).contains(&length) {
        return Err(OpenError::Metadata);
    }
    let mut sealed = Vec::new();
    input.by_ref().take(length as u64).read_to_end(&mut sealed).map_err(OpenError::Read)?;
    if sealed.len() < length {
        return Err(OpenError::Truncated);
    }
    let (json, found_tag) = sealed.split_at_mut(length - TAG);
    let mut tag = Tag::default();
    tag.copy_from_slice(found_tag);
    cipher
        .decrypt_inout_detached(&METADATA_NONCE, header, (&mut *json).into(), &tag)
        .map_err(|_| OpenError::Metadata)?;
    let metadata: Metadata = serde_json::from_slice(json).map_err(|_| OpenError::Metadata)?;
    if metadata.id.as_bytes() != &header[10..IDENTITY] {
        return Err(OpenError::Metadata);
    }
    Ok(metadata)
}

/// Reads until `buffer` is full or the input ends.
fn fill(input: &mut impl Read, buffer: &mut [u8]) -> Result<usize, OpenError> {
    let mut filled = 0;
    while filled < buffer.len() {
        match input.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(OpenError::Read(error)),
        }
    }
    Ok(filled)
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use proptest::prelude::*;

    use super::*;
    use crate::verdict::Engine;

    fn key(byte: u8) -> Key {
        Key::new(Zeroizing::new([byte; 32]))
    }

    fn metadata(id: u128) -> Metadata {
        Metadata {
            id: Uuid::from_u128(id),
            sealed_ms: 1,
            path_hex: to_hex(b"/srv/\xff\n"),
            path: "/srv/\\xff\\x0a".to_owned(),
            file: FileFacts::default(),
            atime: (1, 2),
            mtime: (-3, 4),
            ctime: (5, 6),
            generation: Some(7),
            inode_flags: 0,
            xattrs: vec![("757365722e61".to_owned(), String::new())],
            xattrs_left_out: 0,
            links: 1,
            changed_while_sealed: false,
            hashes: Hashes { sha256: "0".repeat(64), sha1: "0".repeat(40), md5: "0".repeat(32) },
            signature: Signature { name: "x".to_owned(), engine: Engine::Eicar },
            scan_type: ScanType::OnOpen,
            process: None,
            damaged: None,
        }
    }

    fn seal(id: u128, file_key: u8, content: &[u8]) -> Vec<u8> {
        let draft = metadata(id);
        let secrets = Secrets { file_key: key(file_key), wrap_nonce: [file_key; 12] };
        let mut sealer =
            Sealer::new(Cursor::new(Vec::new()), &key(9), &secrets, &draft).expect("sealer");
        for piece in content.chunks(50_000) {
            sealer.write(piece).expect("write");
        }
        let mut end = draft;
        end.file.size = content.len() as u64;
        sealer.finish(&end).expect("finish").into_inner()
    }

    fn open(container: &[u8]) -> Result<(Metadata, Vec<u8>), OpenError> {
        let opened = Opened::open(container, &key(9))?;
        let found = opened.metadata.clone();
        let mut content = Vec::new();
        opened.content(&mut content)?;
        Ok((found, content))
    }

    fn content_start(container: &[u8]) -> usize {
        let length = u32::from_le_bytes(container[86..90].try_into().expect("4 bytes"));
        HEADER + length as usize
    }

    #[test]
    fn content_comes_back_at_every_length_around_a_chunk() {
        for length in [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK, 2 * CHUNK + 7] {
            let content: Vec<u8> = (0..length).map(|n| (n % 251) as u8).collect();
            let container = seal(1, 2, &content);
            let end = content_start(&container) as u64 + sealed_length(length as u64);
            assert_eq!(container.len() as u64, end, "{length}");
            let (found, plain) = open(&container).expect("opens");
            assert_eq!(plain, content, "{length}");
            assert_eq!(found.file.size, length as u64);
            assert_eq!(found.path_bytes().as_deref(), Some(&b"/srv/\xff\n"[..]));
        }
    }

    #[test]
    fn every_flipped_bit_is_refused() {
        let container = seal(1, 2, b"malicious");
        for position in 0..container.len() {
            for bit in 0..8 {
                let mut flipped = container.clone();
                flipped[position] ^= 1 << bit;
                assert!(open(&flipped).is_err(), "byte {position} bit {bit}");
            }
        }
    }

    #[test]
    fn every_cut_and_every_extension_is_refused() {
        let container = seal(1, 2, b"malicious");
        for length in 0..container.len() {
            assert!(open(&container[..length]).is_err(), "{length}");
        }
        for more in [1, TAG, 1000] {
            let mut longer = container.clone();
            longer.resize(container.len() + more, 0);
            assert!(open(&longer).is_err(), "{more}");
        }
    }

    #[test]
    fn a_cut_between_chunks_is_refused() {
        let container = seal(1, 2, &vec![7; 3 * CHUNK]);
        let start = content_start(&container);
        for chunks in 0..3 {
            let cut = &container[..start + chunks * (CHUNK + TAG)];
            assert!(matches!(open(cut), Err(OpenError::Content { .. })), "{chunks}");
        }
        let mut twice = container.clone();
        twice.extend_from_slice(&container[container.len() - CHUNK - TAG..]);
        assert!(open(&twice).is_err());
    }

    #[test]
    fn reordered_chunks_are_refused() {
        let container = seal(1, 2, &vec![7; 3 * CHUNK]);
        let start = content_start(&container);
        let mut swapped = container.clone();
        let (first, second) = swapped[start..].split_at_mut(CHUNK + TAG);
        first.swap_with_slice(&mut second[..CHUNK + TAG]);
        assert!(matches!(open(&swapped), Err(OpenError::Content { chunk: 0 })));
    }

    #[test]
    fn parts_of_another_container_are_refused() {
        let (one, other) = (seal(1, 2, b"malicious"), seal(2, 3, b"innocuous"));
        assert_eq!(one.len(), other.len());
        let start = content_start(&one);
        for (from, to) in [(0, HEADER), (10, 26), (26, 86), (HEADER, start), (start, one.len())] {
            let mut mixed = one.clone();
            mixed[from..to].copy_from_slice(&other[from..to]);
            assert!(open(&mixed).is_err(), "{from}..{to}");
        }
    }

    #[test]
    fn a_newer_version_and_a_wrong_key_say_so() {
        let mut container = seal(1, 2, b"malicious");
        assert!(matches!(Opened::open(&container[..], &key(8)), Err(OpenError::WrongKey)));
        container[8] = 2;
        assert!(matches!(open(&container), Err(OpenError::Newer { found: 2 })));
        assert!(matches!(open(&container[..12]), Err(OpenError::Newer { found: 2 })));
        assert!(matches!(open(b"PK\x03\x04 something else"), Err(OpenError::NotAContainer)));
    }

    #[test]
    fn a_hostile_metadata_length_is_refused_before_anything_is_read() {
        let mut container = seal(1, 2, b"malicious");
        for length in [0, 15, MAX_METADATA as u32 + 1, u32::MAX] {
            container[86..90].copy_from_slice(&length.to_le_bytes());
            assert!(matches!(open(&container), Err(OpenError::Metadata)), "{length}");
        }
        container[86..90].copy_from_slice(&(MAX_METADATA as u32).to_le_bytes());
        assert!(matches!(open(&container), Err(OpenError::Truncated)));
    }

    #[test]
    fn metadata_that_does_not_fit_is_an_error() {
        let mut draft = metadata(1);
        draft.path = "x".repeat(MAX_METADATA);
        let secrets = Secrets { file_key: key(1), wrap_nonce: [1; 12] };
        let refused = Sealer::new(Cursor::new(Vec::new()), &key(9), &secrets, &draft);
        assert!(matches!(refused.err(), Some(SealError::MetadataTooLarge)));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn any_content_comes_back(content in proptest::collection::vec(any::<u8>(), 0..200_000)) {
            let (_, plain) = open(&seal(1, 2, &content)).expect("opens");
            prop_assert_eq!(plain, content);
        }

        #[test]
        fn arbitrary_bytes_never_open(mut bytes in proptest::collection::vec(any::<u8>(), 0..400), begin: bool) {
            if begin && bytes.len() >= 10 {
                bytes[..8].copy_from_slice(&MAGIC);
                bytes[8..10].copy_from_slice(&VERSION.to_le_bytes());
            }
            prop_assert!(open(&bytes).is_err());
        }

        #[test]
        fn hex_goes_there_and_back(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            prop_assert_eq!(from_hex(&to_hex(&bytes)), Some(bytes));
        }
    }
}
