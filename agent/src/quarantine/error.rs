//! The one error of the quarantine's boundary. Every variant says what was tried and on what;
//! none carries bytes of a quarantined file.

use std::io;
use std::path::PathBuf;

use holdfast_common::container::{OpenError, SealError};
use rustix::io::Errno;
use uuid::Uuid;

/// Why the quarantine did not do what was asked. Unless a variant says otherwise, nothing was
/// changed: the file is where it was, the item is where it was.
#[derive(Debug, thiserror::Error)]
pub enum VaultError {
    /// A system call on the quarantine's own folder, key or container failed.
    #[error("cannot {operation} {path}")]
    Own {
        /// What was tried.
        operation: &'static str,
        /// On what.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The quarantine folder was written by a newer agent.
    #[error("{path}: the quarantine has version {found}, this agent knows up to {known}")]
    Newer {
        /// The file that says so.
        path: PathBuf,
        /// Its version.
        found: String,
        /// The newest that is known.
        known: u32,
    },
    /// The host key's file is not one.
    #[error("{path}: not a holdfast host key (or one of a newer version)")]
    BadKey {
        /// The file.
        path: PathBuf,
    },
    /// There are items but no host key: a new key would make them unreadable for good.
    #[error("{path}: the host key is missing, but there are quarantined items; put the key back")]
    KeyMissing {
        /// Where the key should be.
        path: PathBuf,
    },
    /// Only regular files are quarantined.
    #[error("not a regular file")]
    NotRegular,
    /// The quarantine's own limit (`quarantine.max_size`).
    #[error("quarantine is full: {needed} bytes more would exceed its limit of {limit}")]
    Full {
        /// Bytes of the container.
        needed: u64,
        /// Bytes for all of them.
        limit: u64,
    },
    /// The disk below the quarantine.
    #[error("no space left for the quarantine: {needed} bytes needed, {free} free")]
    NoSpace {
        /// Bytes of the container.
        needed: u64,
        /// Bytes that are free.
        free: u64,
    },
    /// The file to be sealed could not be read.
    #[error("cannot {operation} the file to be quarantined")]
    Original {
        /// What was tried.
        operation: &'static str,
        /// Why.
        #[source]
        source: Errno,
    },
    /// The container could not be made.
    #[error("cannot seal the file")]
    Seal(#[source] SealError),
    /// The original was moved aside and could be neither removed nor put back. It lies at `path`,
    /// the container stays too; the next start of the agent tries again.
    #[error("the original of item {id} is stranded at {path}")]
    Stranded {
        /// The item.
        id: Uuid,
        /// Where the original is.
        path: PathBuf,
        /// Why it could not be removed.
        #[source]
        source: Errno,
    },
    /// No such item.
    #[error("no quarantined item {id}")]
    NoItem {
        /// The item.
        id: Uuid,
    },
    /// The item's original is still being removed (or is stranded until the next start).
    #[error("item {id} is not settled yet")]
    Busy {
        /// The item.
        id: Uuid,
    },
    /// The container cannot be opened.
    #[error("cannot open the container of item {id}")]
    Open {
        /// The item.
        id: Uuid,
        /// Why.
        #[source]
        source: UnsealError,
    },
    /// There is a file where the item should go.
    #[error("{path} exists; restoring never overwrites")]
    Exists {
        /// Where.
        path: PathBuf,
    },
    /// The folder where the item should go is gone, is no folder, or has a symbolic link in it.
    #[error("cannot restore into {path}: not an existing folder free of symbolic links")]
    NoFolder {
        /// The folder.
        path: PathBuf,
        /// Why.
        #[source]
        source: Errno,
    },
    /// The place is no absolute path with a file name.
    #[error("cannot restore to {path}: an absolute path of a file is needed")]
    BadTarget {
        /// What was given.
        path: PathBuf,
    },
    /// The file could not be made as it was.
    #[error("cannot restore {path}: {operation} failed")]
    Restore {
        /// Where it should go.
        path: PathBuf,
        /// What was tried.
        operation: String,
        /// Why.
        #[source]
        source: Errno,
    },
    /// An export needs a password.
    #[error("the password of an export must not be empty")]
    NoPassword,
    /// The zip could not be written.
    #[error("cannot write the export of item {id}")]
    Export {
        /// The item.
        id: Uuid,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// Why a container was not unsealed. What was written to the output before is not to be used.
#[derive(Debug, thiserror::Error)]
pub enum UnsealError {
    /// The format refused it.
    #[error(transparent)]
    Container(#[from] OpenError),
    /// The content is not what the metadata says, though both are authentic.
    #[error("the content does not have the size and hash that the metadata gives")]
    Mismatch,
}

impl VaultError {
    pub(super) fn own(
        operation: &'static str,
        path: impl Into<PathBuf>,
        source: impl Into<io::Error>,
    ) -> Self {
        Self::Own { operation, path: path.into(), source: source.into() }
    }
}
