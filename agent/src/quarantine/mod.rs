//! The quarantine: malicious files, encrypted, in a root-only folder, and the way back.
//!
//! Read in this order: `seal` (file → container → original removed), `locate`, `overlay` and
//! `remove` (that inode and no other), `recover` (after a crash), `restore`, `export`; `folder` and
//! `space` keep order in the folder, the format itself is `holdfast_common::container`.
//!
//! Invariant: no crash, full disk or kill loses a file, and none is removed before its container
//! is on disk. Decides nothing: what is malicious and what is reported is the caller's.

mod error;
mod export;
mod facts;
mod folder;
mod key;
mod locate;
mod overlay;
mod recover;
mod remove;
mod restore;
mod seal;
mod space;

use std::fs::File;
use std::io::{Read, Seek, Write};
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use holdfast_common::container::{Metadata, Opened, to_hex};
use holdfast_common::control::QuarantineState;
use holdfast_common::event::FileFacts;
use holdfast_common::process::ProcessInfo;
use holdfast_common::verdict::{Engine, Hashes, ScanType, Signature};
use sha2::{Digest, Sha256};
use uuid::Uuid;

pub use self::error::{UnsealError, VaultError};
pub(crate) use self::export::entry_name;
pub use self::key::HostKey;

use self::folder::{Folder, Stage};
use self::seal::Turns;
use self::space::Space;

/// The host's quarantine. One agent at a time works with it, but a second one may be started for
/// an upgrade before the first one ends. Methods may be called from any thread; they block on
/// disk, and none of them starts a process.
pub struct Vault {
    folder: Folder,
    key: HostKey,
    space: Space,
    turns: Turns,
    /// Restore and delete of items, one after the other.
    orders: Mutex<()>,
}

/// What is to be sealed, beside the open file itself.
#[derive(Debug, Clone)]
pub struct Sealing {
    /// The path as the kernel named it; ` (deleted)` behind it is understood.
    pub path: PathBuf,
    /// What matched.
    pub signature: Signature,
    /// What brought it to the scan core.
    pub scan_type: ScanType,
    /// Who opened, ran or wrote it.
    pub process: Option<ProcessInfo>,
    /// SHA-256 of the content that was judged, if known: other content is not taken.
    pub sha256: Option<String>,
}

/// What sealing did.
#[must_use]
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sealed {
    /// The item. With [`Removal::StillThere`] there is none of this id.
    pub id: Uuid,
    /// Hashes of the sealed bytes.
    pub hashes: Hashes,
    /// What became of the original.
    pub removal: Removal,
    /// What an operator must know beside it: that another file had to get a new name.
    pub note: Option<String>,
}

/// What became of the original.
#[must_use]
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Removal {
    /// Its entry is gone. Other hard links stay; [`Metadata::links`] counts them.
    Removed,
    /// The inode has no name left at all: somebody else removed it first. The item is kept.
    Vanished,
    /// It is still in its place, whole, for this reason (or under a name that only another
    /// namespace can reach); it must go on being denied. No item is kept: every denied open would
    /// add one more.
    StillThere(String),
}

impl Vault {
    /// Opens the quarantine of a state folder: makes `quarantine/` (0700) and `host.key` (0600)
    /// where they are missing, and settles what a crash left. `max_size` is the limit for all
    /// containers together, in bytes.
    ///
    /// # Errors
    /// [`VaultError::Newer`], [`VaultError::BadKey`], [`VaultError::KeyMissing`], or
    /// [`VaultError::Own`] for a folder that cannot be used or that others may write to.
    pub fn open(state_dir: &Path, max_size: u64) -> Result<Self, VaultError> {
        let folder = Folder::open(state_dir)?;
        let key = open_key(state_dir, &folder)?;
        recover::recover(&folder, &key)?;
        let mut state = QuarantineState::default();
        for entry in folder.entries()? {
            state.items += 1;
            state.bytes = state.bytes.saturating_add(entry.bytes);
        }
        let space = Space::new(max_size, state);
        Ok(Self { folder, key, space, turns: Turns::default(), orders: Mutex::new(()) })
    }

    /// Seals an open regular file (readable, at any position) and removes that inode's entry at
    /// its path. The container is on disk before the original is touched.
    ///
    /// # Errors
    /// The original is untouched and nothing is left behind, but for [`VaultError::Stranded`].
    pub fn seal(&self, file: BorrowedFd<'_>, sealing: &Sealing) -> Result<Sealed, VaultError> {
        self.seal_file(file, sealing)
    }

    /// All items, newest first, without their extended attributes (a hostile file can have a
    /// megabyte of them; [`Vault::show`] has them). One that cannot be read stands there with
    /// [`Metadata::damaged`].
    ///
    /// # Errors
    /// Only when the folder itself cannot be read.
    pub fn list(&self) -> Result<Vec<Metadata>, VaultError> {
        let mut items = Vec::new();
        for entry in self.folder.entries()? {
            match (entry.stage, self.show(entry.id)) {
                // Being written, or gone since the folder was read.
                (Stage::Part, _) | (_, Err(VaultError::NoItem { .. })) => {}
                (_, Ok(metadata)) => items.push(Metadata { xattrs: Vec::new(), ..metadata }),
                (_, Err(error)) => items.push(damaged(entry.id, &error)),
            }
        }
        items.sort_by_key(|item| std::cmp::Reverse((item.sealed_ms, item.id)));
        items.dedup_by_key(|item| item.id);
        Ok(items)
    }

    /// Items that were sealed at or after a time (milliseconds since the epoch), as in
    /// [`Vault::list`] but in no order. An item's id holds its time: no other one is opened.
    ///
    /// # Errors
    /// Only when the folder itself cannot be read.
    pub fn sealed_since(&self, since_ms: i64) -> Result<Vec<Metadata>, VaultError> {
        let sealed_ms = |id: Uuid| {
            let (seconds, nanoseconds) = id.get_timestamp().map_or((0, 0), |time| time.to_unix());
            i64::try_from(seconds).unwrap_or(i64::MAX).saturating_mul(1000)
                + i64::from(nanoseconds / 1_000_000)
        };
        let mut items = Vec::new();
        for entry in self.folder.entries()? {
            if entry.stage != Stage::Part && sealed_ms(entry.id) >= since_ms {
                items.push(self.show(entry.id).unwrap_or_else(|error| damaged(entry.id, &error)));
            }
        }
        Ok(items)
    }

    /// One item.
    ///
    /// # Errors
    /// [`VaultError::NoItem`], or [`VaultError::Open`] when it is damaged.
    pub fn show(&self, id: Uuid) -> Result<Metadata, VaultError> {
        let (container, _) = self.folder.container(id)?;
        self.metadata(id, &container)
    }

    /// Puts an item back where it was, or at the absolute path `to`, and removes it from
    /// quarantine when the file is on disk. Returns where it is.
    ///
    /// # Errors
    /// [`VaultError::Exists`], [`VaultError::NoFolder`] and others; the item stays.
    pub fn restore(&self, id: Uuid, to: Option<&Path>) -> Result<PathBuf, VaultError> {
        let _order = self.orders.lock().unwrap_or_else(PoisonError::into_inner);
        let (container, metadata) = self.whole(id)?;
        let metadata = metadata?;
        let bytes = length(&container);
        let path =
            restore::Target::resolve(&metadata, to)?.fill(container, &self.key, &metadata)?;
        self.folder.remove(id, Stage::Whole)?;
        self.space.release(bytes);
        Ok(path)
    }

    /// Destroys an item, a damaged one too (which then comes back with [`Metadata::damaged`]).
    ///
    /// # Errors
    /// [`VaultError::NoItem`], [`VaultError::Busy`] or a failure of the disk.
    pub fn delete(&self, id: Uuid) -> Result<Metadata, VaultError> {
        let _order = self.orders.lock().unwrap_or_else(PoisonError::into_inner);
        let (container, metadata) = self.whole(id)?;
        let metadata = metadata.unwrap_or_else(|error| damaged(id, &error));
        self.folder.remove(id, Stage::Whole)?;
        self.space.release(length(&container));
        Ok(metadata)
    }

    /// Writes an item as an AES-256 encrypted zip. On an error `out` is not to be used.
    ///
    /// # Errors
    /// [`VaultError::NoPassword`], [`VaultError::Open`], [`VaultError::Export`].
    pub fn export(
        &self,
        id: Uuid,
        password: &str,
        out: impl Write + Seek,
    ) -> Result<Metadata, VaultError> {
        let (container, _) = self.folder.container(id)?;
        let metadata = self.metadata(id, &container)?;
        let (container, _) = self.folder.container(id)?;
        export::export(container, &self.key, &metadata, password, out)?;
        Ok(metadata)
    }

    /// Another limit in bytes for all items together. What is there stays, also beyond it.
    pub fn set_limit(&self, max_size: u64) {
        self.space.set_limit(max_size);
    }

    /// Items and bytes, those being written among them. Touches no disk.
    pub fn usage(&self) -> QuarantineState {
        self.space.state()
    }

    /// The container of an item that nobody works on, and its metadata if that can be read.
    fn whole(&self, id: Uuid) -> Result<(File, Result<Metadata, VaultError>), VaultError> {
        let (container, stage) = self.folder.container(id)?;
        if stage != Stage::Whole {
            return Err(VaultError::Busy { id });
        }
        let metadata = self.metadata(id, &container);
        let (container, _) = self.folder.container(id)?;
        Ok((container, metadata))
    }

    fn metadata(&self, id: Uuid, container: &File) -> Result<Metadata, VaultError> {
        let opened = Opened::open(container, &self.key.0)
            .map_err(|error| VaultError::Open { id, source: error.into() })?;
        if opened.metadata.id == id {
            Ok(opened.metadata)
        } else {
            Err(VaultError::Open { id, source: UnsealError::Mismatch })
        }
    }
}

/// Opens a raw container anywhere, without an agent, and writes the plain content to `out`. What
/// was written before an error is not to be used.
///
/// # Errors
/// [`UnsealError`]: not a container, newer, wrong key, damaged anywhere.
pub fn unseal(
    container: impl Read,
    key: &HostKey,
    out: impl Write,
) -> Result<Metadata, UnsealError> {
    let opened = Opened::open(container, &key.0)?;
    let metadata = opened.metadata.clone();
    let mut hashed = Hashed { out, sha256: Sha256::new() };
    let size = opened.content(&mut hashed)?;
    let sha256 = to_hex(&hashed.sha256.finalize());
    if size == metadata.file.size && sha256 == metadata.hashes.sha256 {
        Ok(metadata)
    } else {
        Err(UnsealError::Mismatch)
    }
}

/// Hashes what it passes on.
struct Hashed<W> {
    out: W,
    sha256: Sha256,
}

impl<W: Write> Write for Hashed<W> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let written = self.out.write(bytes)?;
        self.sha256.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.out.flush()
    }
}

fn open_key(state_dir: &Path, folder: &Folder) -> Result<HostKey, VaultError> {
    let path = state_dir.join("host.key");
    match std::fs::symlink_metadata(&path) {
        Ok(_) => {
            let key = HostKey::load(&path)?;
            // A kill while the key was made may have left its draft.
            let _ = std::fs::remove_file(key::draft_of(&path));
            Ok(key)
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            if !folder.entries()?.is_empty() {
                return Err(VaultError::KeyMissing { path });
            }
            let state_dir = File::open(state_dir)
                .map_err(|source| VaultError::own("open", state_dir, source))?;
            HostKey::create(&path, &state_dir)
        }
        Err(error) => Err(VaultError::own("look at", path, error)),
    }
}

fn length(container: &File) -> u64 {
    container.metadata().map_or(0, |found| found.len())
}

/// Stands in a listing for an item that cannot be read. Its id tells when it was sealed.
fn damaged(id: Uuid, error: &VaultError) -> Metadata {
    let (seconds, nanoseconds) = id.get_timestamp().map_or((0, 0), |timestamp| timestamp.to_unix());
    let sealed_ms = seconds.saturating_mul(1000).saturating_add(u64::from(nanoseconds / 1_000_000));
    let why = match error {
        VaultError::Open { source, .. } => source.to_string(),
        other => other.to_string(),
    };
    Metadata {
        id,
        sealed_ms: i64::try_from(sealed_ms).unwrap_or(0),
        path_hex: String::new(),
        path: String::new(),
        file: FileFacts::default(),
        atime: (0, 0),
        mtime: (0, 0),
        ctime: (0, 0),
        generation: None,
        inode_flags: 0,
        xattrs: Vec::new(),
        xattrs_left_out: 0,
        links: 0,
        changed_while_sealed: false,
        hashes: Hashes::default(),
        signature: Signature { name: String::new(), engine: Engine::Hash },
        scan_type: ScanType::OnDemand,
        process: None,
        damaged: Some(why),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_vault_is_for_any_thread() {
        fn shared<T: Send + Sync>() {}
        shared::<Vault>();
    }
}
