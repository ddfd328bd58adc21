//! A fanotify group that tells when a file's owner, mode or ACL changes (`FAN_ATTRIB`).
//!
//! It holds nobody. Files are reported by handle (`FAN_REPORT_FID`, 5.1), since such events come
//! without a descriptor.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use crate::sys::inode::FileHandle;

/// `struct fanotify_event_metadata`
const METADATA_LENGTH: usize = 24;

/// `struct fanotify_event_info_header` and the file system id behind it.
const HANDLE_AT: usize = 12;

/// The group.
#[derive(Debug)]
pub struct AttributeGroup(OwnedFd);

/// One event.
pub enum AttributeEvent {
    /// Something about this file's attributes changed.
    Changed {
        /// `f_fsid` of its file system (statfs(2)).
        fsid: [u8; 8],
        /// The file.
        handle: FileHandle,
    },
    /// Events were lost, or one could not be understood.
    Unknown,
}

impl AttributeGroup {
    /// Opens a group that watches nothing yet.
    ///
    /// # Errors
    /// As `fanotify_init(2)`.
    pub fn new() -> io::Result<Self> {
        let flags = libc::FAN_CLASS_NOTIF
            | libc::FAN_CLOEXEC
            | libc::FAN_NONBLOCK
            | libc::FAN_UNLIMITED_QUEUE
            | libc::FAN_UNLIMITED_MARKS
            | libc::FAN_REPORT_FID;
        // SAFETY: no pointers are passed.
        let fd = unsafe { libc::fanotify_init(flags, libc::O_RDONLY.cast_unsigned()) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel just gave us this descriptor and nobody else knows it.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// Watches one inode until it is evicted from memory (`FAN_MARK_EVICTABLE`, 5.19).
    ///
    /// # Errors
    /// `EOPNOTSUPP`, `ENODEV` or `EXDEV` where the file system has no handles or ids.
    pub fn watch(&self, file: BorrowedFd<'_>) -> io::Result<()> {
        // SAFETY: a null path means the object that the descriptor refers to.
        let status = unsafe {
            libc::fanotify_mark(
                self.0.as_raw_fd(),
                libc::FAN_MARK_ADD | libc::FAN_MARK_EVICTABLE,
                libc::FAN_ATTRIB,
                file.as_raw_fd(),
                std::ptr::null(),
            )
        };
        if status == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    /// Hands each event that waits to `take`.
    ///
    /// # Errors
    /// As `read(2)`.
    pub fn read(&self, mut take: impl FnMut(AttributeEvent)) -> io::Result<()> {
        let mut buffer = [0; 16 << 10];
        loop {
            let length = match rustix::io::read(&self.0, &mut buffer[..]) {
                Ok(length) => length,
                Err(rustix::io::Errno::AGAIN) => return Ok(()),
                Err(rustix::io::Errno::INTR) => continue,
                Err(error) => return Err(error.into()),
            };
            let mut rest = &buffer[..length];
            while let Some(size) = rest.first_chunk::<4>() {
                let size = u32::from_ne_bytes(*size) as usize;
                if size < METADATA_LENGTH || size > rest.len() {
                    take(AttributeEvent::Unknown);
                    break;
                }
                let (record, next) = rest.split_at(size);
                take(parse(&record[METADATA_LENGTH..]).unwrap_or(AttributeEvent::Unknown));
                rest = next;
            }
        }
    }
}

/// The first information record, which is the file's (`struct fanotify_event_info_fid`).
fn parse(info: &[u8]) -> Option<AttributeEvent> {
    if *info.first()? != libc::FAN_EVENT_INFO_TYPE_FID {
        return None;
    }
    let fsid = *info.get(4..)?.first_chunk::<8>()?;
    let handle = FileHandle::from_event(info.get(HANDLE_AT..)?)?;
    Some(AttributeEvent::Changed { fsid, handle })
}

impl AsFd for AttributeGroup {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
