//! What is known of a file by its descriptor alone: identity, metadata, extended attributes,
//! hashes. Resolves no path and changes nothing.

use std::os::fd::BorrowedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use holdfast_common::container::{Metadata, to_hex};
use holdfast_common::event::FileFacts;
use holdfast_common::process::printable;
use holdfast_common::verdict::Hashes;
use md5::Md5;
use rustix::fs::{FileType, Stat, fgetxattr, flistxattr, fstat};
use rustix::io::Errno;
use sha1::Sha1;
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::Sealing;
use super::error::VaultError;
use crate::sys::inode::generation;

/// Names and values of extended attributes that are kept, in bytes. Labels, ACLs and capabilities
/// are a few hundred; without a limit a hostile file could carry gigabytes (xfs).
const XATTRS_KEPT: usize = 1 << 20;
/// Largest value, and largest list of names, that the kernel hands out (XATTR_SIZE_MAX).
const XATTR_MAX: usize = 64 * 1024;

/// Names an inode as long as somebody holds it open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Inode {
    pub(super) device: u64,
    pub(super) number: u64,
}

impl From<&Stat> for Inode {
    fn from(stat: &Stat) -> Self {
        Self { device: stat.st_dev, number: stat.st_ino }
    }
}

/// `fstat` of a regular file.
pub(super) fn stat(file: BorrowedFd<'_>) -> Result<Stat, VaultError> {
    let stat =
        fstat(file).map_err(|source| VaultError::Original { operation: "look at", source })?;
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => Ok(stat),
        _ => Err(VaultError::NotRegular),
    }
}

/// True when nothing was written and nothing else of the inode changed between the two.
pub(super) fn unchanged(before: &Stat, after: &Stat) -> bool {
    before.st_size == after.st_size
        && mtime(before) == mtime(after)
        && ctime(before) == ctime(after)
}

/// Everything but the hashes and the final size.
pub(super) fn draft(
    file: BorrowedFd<'_>,
    stat: &Stat,
    id: Uuid,
    path: &Path,
    sealing: &Sealing,
) -> Metadata {
    let (xattrs, xattrs_left_out) = xattrs(file);
    Metadata {
        id,
        sealed_ms: crate::now_ms(),
        path_hex: to_hex(path.as_os_str().as_bytes()),
        path: printable(path.as_os_str().as_bytes()),
        file: file_facts(stat),
        atime: (stat.st_atime, nanoseconds(stat.st_atime_nsec)),
        mtime: mtime(stat),
        ctime: ctime(stat),
        generation: generation(file),
        inode_flags: rustix::fs::ioctl_getflags(file).map_or(0, |flags| flags.bits()),
        xattrs,
        xattrs_left_out,
        links: stat.st_nlink,
        changed_while_sealed: false,
        hashes: Hasher::default().finish(),
        signature: sealing.signature.clone(),
        scan_type: sealing.scan_type,
        process: sealing.process.clone(),
        damaged: None,
    }
}

fn file_facts(stat: &Stat) -> FileFacts {
    FileFacts {
        size: stat.st_size.unsigned_abs(),
        device: device(stat.st_dev),
        inode: stat.st_ino,
        uid: stat.st_uid,
        gid: stat.st_gid,
        mode: stat.st_mode & 0o7777,
        modified_ms: milliseconds(mtime(stat)),
        changed_ms: milliseconds(ctime(stat)),
    }
}

/// `major:minor`, as in [`FileFacts::device`].
pub(super) fn device(device: u64) -> String {
    format!("{}:{}", rustix::fs::major(device), rustix::fs::minor(device))
}

pub(super) fn mtime(stat: &Stat) -> (i64, u32) {
    (stat.st_mtime, nanoseconds(stat.st_mtime_nsec))
}

pub(super) fn ctime(stat: &Stat) -> (i64, u32) {
    (stat.st_ctime, nanoseconds(stat.st_ctime_nsec))
}

fn nanoseconds(raw: u64) -> u32 {
    u32::try_from(raw).unwrap_or(0)
}

fn milliseconds((seconds, nanoseconds): (i64, u32)) -> i64 {
    seconds.saturating_mul(1000).saturating_add(i64::from(nanoseconds / 1_000_000))
}

/// Names and values in hex, and how many could not be kept. What the kernel acts on (labels,
/// ACLs, capabilities) comes before what users store.
fn xattrs(file: BorrowedFd<'_>) -> (Vec<(String, String)>, u64) {
    let mut list = Vec::with_capacity(XATTR_MAX);
    let left_out = match flistxattr(file, rustix::buffer::spare_capacity(&mut list)) {
        Ok(_) | Err(Errno::NOTSUP | Errno::NOSYS) => 0,
        Err(_) => 1,
    };
    // What an overlay notes on its layers belongs to the overlay, not to the file.
    let ours = |name: &&[u8]| !name.is_empty() && !name.starts_with(b"trusted.overlay.");
    let mut names: Vec<&[u8]> = list.split(|&b| b == 0).filter(ours).collect();
    names.sort_by_key(|name| name.starts_with(b"user."));
    let (mut kept, mut total, mut left_out) = (Vec::new(), 0, left_out);
    let mut value = Vec::with_capacity(XATTR_MAX);
    for name in names {
        value.clear();
        let read = fgetxattr(file, name, rustix::buffer::spare_capacity(&mut value));
        let size = name.len() + value.len();
        if read.is_err() || total + size > XATTRS_KEPT {
            left_out += 1;
            continue;
        }
        total += size;
        kept.push((to_hex(name), to_hex(&value)));
    }
    (kept, left_out)
}

/// The three hashes of one content.
#[derive(Default)]
pub(super) struct Hasher {
    sha256: Sha256,
    sha1: Sha1,
    md5: Md5,
}

impl Hasher {
    pub(super) fn update(&mut self, bytes: &[u8]) {
        self.sha256.update(bytes);
        self.sha1.update(bytes);
        self.md5.update(bytes);
    }

    pub(super) fn finish(self) -> Hashes {
        Hashes {
            sha256: to_hex(&self.sha256.finalize()),
            sha1: to_hex(&self.sha1.finalize()),
            md5: to_hex(&self.md5.finalize()),
        }
    }
}

/// Calls `take` with the content from its start, whatever the descriptor's position, and returns
/// its length.
pub(super) fn read_content(
    file: BorrowedFd<'_>,
    mut take: impl FnMut(&[u8]) -> Result<(), VaultError>,
) -> Result<u64, VaultError> {
    let mut buffer = vec![0; 256 * 1024];
    let mut offset = 0;
    loop {
        match rustix::io::pread(file, buffer.as_mut_slice(), offset) {
            Ok(0) => return Ok(offset),
            Ok(read) => {
                take(&buffer[..read])?;
                offset += read as u64;
            }
            Err(Errno::INTR) => {}
            Err(source) => return Err(VaultError::Original { operation: "read", source }),
        }
    }
}
