//! Takes a file into quarantine: container on disk first, then the original's entry.
//!
//! ```text
//! take turns per inode → where has it a name → write ID.part, fsync → ID.pending
//!     → remove that entry → gone: ID.hfq    still there: the container is thrown away
//! ```
//!
//! When the original cannot be removed, it stays where it was, whole; on-access protection goes on
//! denying it, and the container goes, or each denied open would add another copy until the
//! quarantine is full. Invariant: at every moment the file is whole in its place, or beside it in
//! a folder of root's, or whole in a container on disk.

use std::collections::{HashSet, VecDeque};
use std::fs::File;
use std::os::fd::BorrowedFd;
use std::path::Path;
use std::sync::{Condvar, Mutex, PoisonError};

use holdfast_common::container::{Metadata, SealError, Sealer, sealed_length};
use rustix::fs::Stat;
use uuid::Uuid;

use super::error::VaultError;
use super::facts::{Hasher, Inode, draft, read_content, stat, unchanged};
use super::folder::Stage;
use super::key::secrets;
use super::locate::{Place, locate, without_deleted};
use super::remove::{Entry, Outcome, remove};
use super::space::Reservation;
use super::{Removal, Sealed, Sealing, Vault};

/// How often a file that gets new names or new content all the time is followed. The last time
/// it goes whatever was written to it since.
const PURSUITS: usize = 4;
/// Inodes that are remembered after they were sealed.
const REMEMBERED: usize = 256;
/// Room for header and metadata in a first estimate of a container's size.
const OVERHEAD: u64 = 16 * 1024;

const OUT_OF_REACH: &str = "it still has a name, but none that can be reached from here";

const OTHER_CONTENT: &str = "its content is no longer what was judged; it is judged anew";

/// True when what was sealed is not what was judged.
fn is_other(sealing: &Sealing, sealed: &Metadata) -> bool {
    sealing.sha256.as_ref().is_some_and(|judged| *judged != sealed.hashes.sha256)
}

/// What became of a container.
enum Written {
    /// Whole and on disk.
    Pending(Pending),
    /// Its content is not what was judged: it was thrown away before anybody could list it.
    Other(Metadata),
}

/// A container on disk whose original is not dealt with yet; locked as long as it lives.
struct Pending {
    metadata: Metadata,
    bytes: u64,
    _lock: File,
}

impl Vault {
    pub(super) fn seal_file(
        &self,
        file: BorrowedFd<'_>,
        sealing: &Sealing,
    ) -> Result<Sealed, VaultError> {
        let inode = Inode::from(&stat(file)?);
        let _turn = self.turns.enter(inode);
        let mut place = locate(file, inode, &sealing.path);
        if place.is_none()
            && let Some(sealed) = self.without_a_name(file, inode)?
        {
            return Ok(sealed);
        }
        let mut pending = match self.write_container(file, sealing, place.as_ref())? {
            Written::Pending(pending) => pending,
            Written::Other(other) => {
                let removal = Removal::StillThere(OTHER_CONTENT.to_owned());
                return Ok(Sealed { id: other.id, hashes: other.hashes, removal, note: None });
            }
        };
        let mut note = None;
        for pursuit in 1..=PURSUITS {
            let Some(found) = place.take() else { break };
            let facts = &pending.metadata;
            let as_sealed = (pursuit < PURSUITS).then_some((facts.file.size, facts.mtime));
            match remove(&Entry { file, inode, as_sealed, place: &found, id: facts.id }) {
                Outcome::Removed => return self.settle(inode, pending, Removal::Removed, note),
                Outcome::StillThere(why) => return self.give_up(pending, why, note),
                Outcome::Stranded(path, source) => {
                    return Err(VaultError::Stranded { id: pending.metadata.id, path, source });
                }
                Outcome::Vanished(kept) => {
                    note = kept.map(|path| displaced(&path)).or(note);
                    place = locate(file, inode, &found.path);
                }
                Outcome::Changed => place = Some(found),
            }
            if place.is_some() && pursuit < PURSUITS {
                // Its new name or content gets a container; the old one goes when that is whole.
                let renewed = match self.write_container(file, sealing, place.as_ref()) {
                    Ok(Written::Pending(renewed)) => renewed,
                    Ok(Written::Other(_)) => {
                        return self.give_up(pending, OTHER_CONTENT.to_owned(), note);
                    }
                    Err(error) => {
                        let why = format!("it changed, and sealing it again failed: {error}");
                        return self.give_up(pending, why, note);
                    }
                };
                self.discard(std::mem::replace(&mut pending, renewed))?;
            }
        }
        if stat(file)?.st_nlink > 0 {
            return self.give_up(pending, OUT_OF_REACH.to_owned(), note);
        }
        self.settle(inode, pending, Removal::Vanished, note)
    }

    /// No name of the inode could be found. If it has one all the same, there is nothing that
    /// could be removed. If it has none and this very content was sealed from it before (many
    /// openers are denied at once), that item stands for it. Else it must be sealed: it is about
    /// to be lost.
    fn without_a_name(
        &self,
        file: BorrowedFd<'_>,
        inode: Inode,
    ) -> Result<Option<Sealed>, VaultError> {
        let named = stat(file)?.st_nlink > 0;
        let before = self.turns.recall(inode);
        if !named && before.is_none() {
            return Ok(None);
        }
        let mut hasher = Hasher::default();
        read_content(file, |bytes| {
            hasher.update(bytes);
            Ok(())
        })?;
        let hashes = hasher.finish();
        if named {
            let removal = Removal::StillThere(OUT_OF_REACH.to_owned());
            return Ok(Some(Sealed { id: Uuid::now_v7(), hashes, removal, note: None }));
        }
        let same = |item: &Sealed| item.hashes == hashes && self.folder.container(item.id).is_ok();
        Ok(before.filter(same))
    }

    fn settle(
        &self,
        inode: Inode,
        pending: Pending,
        removal: Removal,
        note: Option<String>,
    ) -> Result<Sealed, VaultError> {
        let id = pending.metadata.id;
        self.folder.advance(id, Stage::Pending, Stage::Whole)?;
        let sealed = Sealed { id, hashes: pending.metadata.hashes, removal, note };
        self.turns.remember(inode, sealed.clone());
        Ok(sealed)
    }

    fn give_up(
        &self,
        pending: Pending,
        why: String,
        note: Option<String>,
    ) -> Result<Sealed, VaultError> {
        let (id, hashes) = (pending.metadata.id, pending.metadata.hashes.clone());
        self.discard(pending)?;
        Ok(Sealed { id, hashes, removal: Removal::StillThere(why), note })
    }

    fn discard(&self, pending: Pending) -> Result<(), VaultError> {
        self.folder.remove(pending.metadata.id, Stage::Pending)?;
        self.space.release(pending.bytes);
        Ok(())
    }

    /// Makes `ID.pending` of what was judged, or nothing at all.
    fn write_container(
        &self,
        file: BorrowedFd<'_>,
        sealing: &Sealing,
        place: Option<&Place>,
    ) -> Result<Written, VaultError> {
        let before = stat(file)?;
        let needed = before.st_size.unsigned_abs().saturating_add(OVERHEAD);
        let mut room = self.space.reserve(needed)?;
        let free = self.folder.free()?;
        if needed > free {
            return Err(VaultError::NoSpace { needed, free });
        }
        let path = place.map_or_else(|| without_deleted(&sealing.path), |at| at.path.clone());
        let id = Uuid::now_v7();
        let part = self.folder.begin(id)?;
        let written = self
            .fill(file, &part, &mut room, |stat| draft(file, stat, id, &path, sealing))
            .and_then(|metadata| {
                if is_other(sealing, &metadata) {
                    self.folder.remove(id, Stage::Part)?;
                    return Ok(Written::Other(metadata));
                }
                part.sync_all().map_err(|error| self.write_failed(needed, error.into()))?;
                self.folder.advance(id, Stage::Part, Stage::Pending)?;
                let bytes = part.metadata().map_or(needed, |found| found.len());
                room.keep(bytes);
                Ok(Written::Pending(Pending { metadata, bytes, _lock: part }))
            });
        if written.is_err() {
            // One of them is there; the sweep takes what cannot be removed now.
            let _ = self.folder.remove(id, Stage::Part);
            let _ = self.folder.remove(id, Stage::Pending);
        }
        written
    }

    /// Writes the container; once more when the file changes meanwhile. After that the second
    /// copy stands, marked.
    fn fill(
        &self,
        file: BorrowedFd<'_>,
        part: &File,
        room: &mut Reservation<'_>,
        draft: impl Fn(&Stat) -> Metadata,
    ) -> Result<Metadata, VaultError> {
        let failed = |needed| move |error| self.write_failed(needed, error);
        let mut again = true;
        loop {
            part.set_len(0).map_err(|error| self.write_failed(0, error.into()))?;
            let before = stat(file)?;
            let mut metadata = draft(&before);
            let secrets = secrets()
                .map_err(|source| VaultError::Original { operation: "draw a key for", source })?;
            let mut sealer =
                Sealer::new(part, &self.key.0, &secrets, &metadata).map_err(failed(OVERHEAD))?;
            let begin = sealer.content_start();
            let mut hasher = Hasher::default();
            let mut total = 0;
            metadata.file.size = read_content(file, |bytes| {
                total += bytes.len() as u64;
                room.grow_to(begin + sealed_length(total))?;
                hasher.update(bytes);
                sealer.write(bytes).map_err(failed(total))
            })?;
            metadata.hashes = hasher.finish();
            metadata.changed_while_sealed = !unchanged(&before, &stat(file)?);
            if metadata.changed_while_sealed && std::mem::take(&mut again) {
                continue;
            }
            sealer.finish(&metadata).map_err(failed(total))?;
            return Ok(metadata);
        }
    }

    fn write_failed(&self, needed: u64, error: SealError) -> VaultError {
        match &error {
            SealError::Io(source)
                if matches!(
                    source.kind(),
                    std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded
                ) =>
            {
                VaultError::NoSpace { needed, free: self.folder.free().unwrap_or(0) }
            }
            _ => VaultError::Seal(error),
        }
    }
}

fn displaced(path: &Path) -> String {
    use std::os::unix::ffi::OsStrExt;
    let path = holdfast_common::process::printable(path.as_os_str().as_bytes());
    format!("another file had taken its name and lost it again to a third one; it is now {path}")
}

/// Who seals which inode now, and what was sealed last.
#[derive(Default)]
pub(super) struct Turns {
    busy: Mutex<HashSet<Inode>>,
    free: Condvar,
    sealed: Mutex<VecDeque<(Inode, Sealed)>>,
}

impl Turns {
    /// Waits until nobody else seals this inode.
    fn enter(&self, inode: Inode) -> Turn<'_> {
        let mut busy = self.busy.lock().unwrap_or_else(PoisonError::into_inner);
        while !busy.insert(inode) {
            busy = self.free.wait(busy).unwrap_or_else(PoisonError::into_inner);
        }
        Turn { turns: self, inode }
    }

    fn remember(&self, inode: Inode, item: Sealed) {
        let mut sealed = self.sealed.lock().unwrap_or_else(PoisonError::into_inner);
        if sealed.len() == REMEMBERED {
            sealed.pop_front();
        }
        sealed.push_back((inode, item));
    }

    fn recall(&self, inode: Inode) -> Option<Sealed> {
        let sealed = self.sealed.lock().unwrap_or_else(PoisonError::into_inner);
        sealed.iter().rev().find(|(found, _)| *found == inode).map(|(_, item)| item.clone())
    }
}

struct Turn<'a> {
    turns: &'a Turns,
    inode: Inode,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut busy = self.turns.busy.lock().unwrap_or_else(PoisonError::into_inner);
        busy.remove(&self.inode);
        self.turns.free.notify_all();
    }
}
