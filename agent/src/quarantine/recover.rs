//! Settles what a crash left behind, when the quarantine is opened.
//!
//! ```text
//! ID.part                      → thrown away: the original was not touched yet
//! ID.pending, original aside   → unlinked (or put back, when it is another file) → ID.hfq
//! ID.pending, original in place and unchanged → container thrown away
//! ID.pending, anything else    → ID.hfq
//! ```
//!
//! Invariant: a container goes only when the very file that it holds is seen in its place,
//! untouched since. In doubt both stay: a second copy is harmless, a lost one is not.

use std::ffi::{OsStr, OsString};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use holdfast_common::container::{Metadata, Opened};
use rustix::fs::{AtFlags, Stat, statat};
use rustix::io::Errno;
use uuid::Uuid;

use super::error::VaultError;
use super::facts::{ctime, device, mtime};
use super::folder::{Folder, Stage};
use super::key::HostKey;
use super::locate::{open_folder, split};
use super::remove::Aside;

/// Settles every unfinished item that nobody works on.
pub(super) fn recover(folder: &Folder, key: &HostKey) -> Result<(), VaultError> {
    for entry in folder.entries()? {
        if entry.stage == Stage::Whole {
            continue;
        }
        let Some(container) = folder.abandoned(entry.id, entry.stage) else {
            continue;
        };
        if entry.stage == Stage::Part {
            folder.remove(entry.id, Stage::Part)?;
            continue;
        }
        let in_place = Opened::open(container, &key.0)
            .is_ok_and(|opened| settle(entry.id, &opened.metadata).unwrap_or(false));
        if in_place {
            folder.remove(entry.id, Stage::Pending)?;
        } else {
            folder.advance(entry.id, Stage::Pending, Stage::Whole)?;
        }
    }
    Ok(())
}

/// True when the original is in its place as it was sealed. `None` when that cannot be said.
fn settle(id: Uuid, metadata: &Metadata) -> Option<bool> {
    let path = PathBuf::from(OsString::from_vec(metadata.path_bytes()?));
    let (parent, name) = split(&path)?;
    let parent = open_folder(parent).ok()?;
    if let Ok(aside) = Aside::find(parent.as_fd(), id) {
        finish_removal(id, metadata, &parent, name, aside);
    }
    let stat = statat(&parent, name, AtFlags::SYMLINK_NOFOLLOW).ok()?;
    // A status change time cannot be set back: the same inode with the same one was not touched.
    let same = is_original(&stat, metadata)
        && device(stat.st_dev) == metadata.file.device
        && ctime(&stat) == metadata.ctime;
    Some(same)
}

fn finish_removal(id: Uuid, metadata: &Metadata, parent: &impl AsFd, name: &OsStr, aside: Aside) {
    let settled = match aside.moved() {
        Ok(stat) if is_original(&stat, metadata) => aside.unlink().map(|()| None),
        Ok(_) => aside.put_back(parent.as_fd(), name, id),
        Err(Errno::NOENT) => Ok(None),
        Err(errno) => Err(errno),
    };
    match settled {
        Ok(None) => {}
        Ok(Some(kept)) => tracing::warn!(
            item = %id, folder = metadata.path, name = kept,
            "a file that had taken the place of a quarantined one got a new name",
        ),
        Err(errno) => tracing::warn!(
            item = %id, path = metadata.path, error = %errno,
            "what a crash left beside a quarantined file cannot be cleared up",
        ),
    }
    if let Err(errno) = aside.close(parent.as_fd()) {
        tracing::warn!(item = %id, error = %errno, "cannot clear up beside a quarantined file");
    }
}

fn is_original(stat: &Stat, metadata: &Metadata) -> bool {
    stat.st_ino == metadata.file.inode
        && stat.st_size.unsigned_abs() == metadata.file.size
        && mtime(stat) == metadata.mtime
}
