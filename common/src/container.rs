//! The quarantine container: format only, over any reader and writer.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::event::FileFacts;
use crate::process::ProcessInfo;
use crate::verdict::{Hashes, ScanType, Signature};

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
    /// `statx` before sealing.
    pub file: FileFacts,
    /// Access and modification time, seconds and nanoseconds.
    pub atime: (i64, u32),
    /// Modification time.
    pub mtime: (i64, u32),
    /// Extended attributes (ACLs, capabilities, SELinux label among them), name and value in hex.
    pub xattrs: Vec<(String, String)>,
    /// Number of hard links that the inode had.
    pub links: u64,
    /// Hashes of the content.
    #[serde(flatten)]
    pub hashes: Hashes,
    /// What matched.
    pub signature: Signature,
    /// What brought it to the scan core.
    pub scan_type: ScanType,
    /// Who opened, ran or wrote it.
    pub process: Option<ProcessInfo>,
}
