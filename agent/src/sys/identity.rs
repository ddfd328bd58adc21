//! Questions about an open inode: has it changed, can it be written, does anybody write it now.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::fs::{AtFlags, StatxFlags};

/// What names one state of one file's content. Equal identities with no writer in between mean
/// equal content, except for stores through a shared mapping: see [`has_writer`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Identity {
    /// Device, major and minor.
    pub device: (u32, u32),
    /// Inode number.
    pub inode: u64,
    /// Bytes.
    pub size: u64,
    /// Status change time: seconds and nanoseconds. No call sets it but the clock.
    pub changed: (i64, u32),
    /// Birth time where the file system has one: tells a reused inode number.
    pub born: (i64, u32),
}

/// `statx(2)` of an open file, as far as the held path needs it.
#[derive(Debug, Clone, Copy)]
pub struct Facts {
    /// See [`Identity`].
    pub identity: Identity,
    /// A regular file: nothing else is scanned.
    pub regular: bool,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Permission bits.
    pub mode: u16,
    /// Number of names.
    pub links: u32,
    /// Modification time.
    pub modified: (i64, u32),
    /// Id of the mount through which the file was opened (5.8), 0 when unknown. Owner and group
    /// are as that mount shows them: an id-mapped one shows others than the file has.
    pub mount: u64,
}

impl Facts {
    /// Asks the kernel. Never blocks on a local file system.
    ///
    /// # Errors
    /// As `statx(2)`.
    pub fn of(file: BorrowedFd<'_>) -> io::Result<Self> {
        let wanted = StatxFlags::BASIC_STATS | StatxFlags::BTIME | StatxFlags::MNT_ID;
        let statx = rustix::fs::statx(file, c"", AtFlags::EMPTY_PATH, wanted)?;
        let born = if statx.stx_mask & StatxFlags::BTIME.bits() == 0 {
            (0, 0)
        } else {
            (statx.stx_btime.tv_sec, statx.stx_btime.tv_nsec)
        };
        Ok(Self {
            identity: Identity {
                device: (statx.stx_dev_major, statx.stx_dev_minor),
                inode: statx.stx_ino,
                size: statx.stx_size,
                changed: (statx.stx_ctime.tv_sec, statx.stx_ctime.tv_nsec),
                born,
            },
            regular: u32::from(statx.stx_mode) & libc::S_IFMT == libc::S_IFREG,
            uid: statx.stx_uid,
            gid: statx.stx_gid,
            mode: statx.stx_mode & 0o7777,
            links: statx.stx_nlink,
            modified: (statx.stx_mtime.tv_sec, statx.stx_mtime.tv_nsec),
            mount: if statx.stx_mask & StatxFlags::MNT_ID.bits() == 0 {
                0
            } else {
                statx.stx_mnt_id
            },
        })
    }

    /// True when root alone can open the file for writing. A POSIX ACL cannot grant more than the
    /// group bits, which are its mask then (acl(5)).
    #[must_use]
    pub const fn only_root_writes(&self) -> bool {
        self.uid == 0 && self.mode & 0o022 == 0
    }
}

/// True when somebody has the file open for writing, a pending opener among them, or maps it
/// shared and writable; also when that cannot be known.
///
/// A read lease is refused exactly then (`fcntl(2)`, F_SETLEASE; `check_conflicting_open` in
/// fs/locks.c). It is given back at once; the signal of a lease that breaks in between is ignored
/// by the agent (SIGIO).
#[must_use]
pub fn has_writer(file: BorrowedFd<'_>) -> bool {
    // SAFETY: F_SETLEASE takes an integer.
    let taken = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETLEASE, libc::F_RDLCK) };
    if taken != 0 {
        return true;
    }
    // SAFETY: as above.
    unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETLEASE, libc::F_UNLCK) };
    false
}

#[cfg(test)]
mod tests {
    use std::fs::{File, OpenOptions};
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn a_writer_is_seen_as_long_as_it_holds_the_file_or_a_mapping() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let path = folder.path().join("file");
        std::fs::write(&path, "content").expect("write");
        let reader = File::open(&path).expect("open");
        assert!(!has_writer(reader.as_fd()));
        let writer =
            OpenOptions::new().read(true).write(true).open(&path).expect("open for writing");
        assert!(has_writer(reader.as_fd()));
        // SAFETY: a fresh mapping of a file that the test owns.
        let mapping = unsafe {
            rustix::mm::mmap(
                std::ptr::null_mut(),
                7,
                rustix::mm::ProtFlags::READ | rustix::mm::ProtFlags::WRITE,
                rustix::mm::MapFlags::SHARED,
                &writer,
                0,
            )
        }
        .expect("map");
        drop(writer);
        assert!(has_writer(reader.as_fd()));
        // SAFETY: nothing refers to the mapping.
        unsafe { rustix::mm::munmap(mapping, 7) }.expect("unmap");
        assert!(!has_writer(reader.as_fd()));
    }

    #[test]
    fn only_files_of_root_that_nobody_else_may_write_count_as_such() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let path = folder.path().join("file");
        std::fs::write(&path, "content").expect("write");
        let file = File::open(&path).expect("open");
        for (uid, mode, expected) in
            [(0, 0o644, true), (0, 0o664, false), (0, 0o646, false), (1000, 0o600, false)]
        {
            std::os::unix::fs::fchown(&file, Some(uid), None).expect("chown");
            rustix::fs::fchmod(&file, mode.into()).expect("chmod");
            let facts = Facts::of(file.as_fd()).expect("statx");
            assert_eq!(facts.only_root_writes(), expected, "{uid} {mode:o}");
        }
    }
}
