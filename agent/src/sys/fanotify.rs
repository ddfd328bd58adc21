//! fanotify permission groups (fanotify(7), `fanotify_init(2)`, `fanotify_mark(2)`).
//!
//! Invariant: every descriptor that the kernel hands over is owned the moment it is parsed, and a
//! permission event cannot be forgotten: [`Pending`] sends its fallback when it is dropped.
//! A response names only a descriptor number, so one process alone may read a group.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::sync::Arc;

use holdfast_common::verdict::Decision;

/// Bytes of one read: about a hundred events, so that several readers share a burst.
const READ_SIZE: usize = 4096;

/// `struct fanotify_event_metadata` is 24 bytes in version 3.
const METADATA_LENGTH: usize = 24;

/// What every file system mark asks for.
const WATCHED: u64 = libc::FAN_OPEN_PERM | libc::FAN_OPEN_EXEC_PERM | libc::FAN_CLOSE_WRITE;

/// What an ignore mark leaves out. Close-after-write is still seen.
const IGNORED: u64 = libc::FAN_OPEN_PERM | libc::FAN_OPEN_EXEC_PERM;

/// One permission group.
#[derive(Debug)]
pub struct Group {
    fd: OwnedFd,
    reports_pidfd: bool,
}

/// A buffer for [`Group::read`], reused so that reading allocates nothing.
#[derive(Debug)]
#[repr(C, align(8))]
pub struct ReadBuffer([u8; READ_SIZE]);

/// One event.
#[derive(Debug)]
pub enum Event {
    /// Somebody waits for our answer.
    Permission(Pending),
    /// Somebody who could write has closed the file.
    Closed(Closed),
    /// The kernel dropped events (`FAN_Q_OVERFLOW`): opens went by unseen.
    Overflow,
}

/// A file that a writer has closed.
#[derive(Debug)]
pub struct Closed {
    /// The file, open for reading.
    pub file: OwnedFd,
    /// Thread group that closed it.
    pub pid: u32,
}

/// A held open or exec. Dropped unanswered, it sends its fallback.
#[must_use = "somebody waits for the answer"]
#[derive(Debug)]
pub struct Pending {
    // Both are `Some` until answered.
    group: Option<Arc<Group>>,
    file: Option<OwnedFd>,
    pidfd: Option<OwnedFd>,
    pid: u32,
    exec: bool,
    fallback: Decision,
}

impl Group {
    /// Opens a group: `FAN_CLASS_CONTENT`, unlimited queue and marks, descriptors opened
    /// `O_NONBLOCK` so that a file lease of somebody else cannot stall us (its opener gets EPERM),
    /// pidfds where the kernel has them (5.15).
    ///
    /// # Errors
    /// `EPERM` without CAP_SYS_ADMIN, `ENOSYS` without fanotify.
    pub fn new() -> io::Result<Self> {
        let flags = libc::FAN_CLASS_CONTENT
            | libc::FAN_CLOEXEC
            | libc::FAN_NONBLOCK
            | libc::FAN_UNLIMITED_QUEUE
            | libc::FAN_UNLIMITED_MARKS;
        match Self::init(flags | libc::FAN_REPORT_PIDFD) {
            Ok(fd) => Ok(Self { fd, reports_pidfd: true }),
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
                Ok(Self { fd: Self::init(flags)?, reports_pidfd: false })
            }
            Err(error) => Err(error),
        }
    }

    fn init(flags: u32) -> io::Result<OwnedFd> {
        let event_flags = libc::O_RDONLY
            | libc::O_LARGEFILE
            | libc::O_CLOEXEC
            | libc::O_NONBLOCK
            | libc::O_NOATIME;
        // SAFETY: no pointers are passed.
        let fd = unsafe { libc::fanotify_init(flags, event_flags.cast_unsigned()) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel just gave us this descriptor and nobody else knows it.
        Ok(unsafe { OwnedFd::from_raw_fd(fd) })
    }

    /// Whether the file system that holds `inside` carries this group's mark.
    ///
    /// Takes away a bit that is never set (`FAN_ACCESS`), which changes nothing and fails with
    /// `ENOENT` where there is no mark (`fanotify_remove_mark`, fs/notify/fanotify).
    ///
    /// # Errors
    /// As fanotify_mark(2).
    pub fn is_protected(&self, inside: BorrowedFd<'_>) -> io::Result<bool> {
        let flags = libc::FAN_MARK_REMOVE | libc::FAN_MARK_FILESYSTEM;
        match self.mark_by_link(flags, libc::FAN_ACCESS, inside) {
            Ok(()) => Ok(true),
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// True when events carry a pidfd.
    #[must_use]
    pub const fn reports_pidfd(&self) -> bool {
        self.reports_pidfd
    }

    /// Watches the whole file system that holds `inside`, in every mount namespace (4.20).
    ///
    /// # Errors
    /// As `fanotify_mark(2)`.
    pub fn protect(&self, inside: BorrowedFd<'_>) -> io::Result<()> {
        self.mark_by_link(libc::FAN_MARK_ADD | libc::FAN_MARK_FILESYSTEM, WATCHED, inside)
    }

    /// Takes back [`Group::protect`].
    ///
    /// # Errors
    /// `ENOENT` when there was no mark (any more).
    pub fn unprotect(&self, inside: BorrowedFd<'_>) -> io::Result<()> {
        self.mark_by_link(libc::FAN_MARK_REMOVE | libc::FAN_MARK_FILESYSTEM, WATCHED, inside)
    }

    /// Watches nothing any more: no later open is held.
    ///
    /// # Errors
    /// As `fanotify_mark(2)`.
    pub fn release_all(&self) -> io::Result<()> {
        self.mark(libc::FAN_MARK_FLUSH | libc::FAN_MARK_FILESYSTEM, 0, libc::AT_FDCWD)
    }

    /// [`Group::notice`] for a file that is open as `O_PATH`.
    ///
    /// # Errors
    /// `ENOENT` when there was no mark (any more).
    pub fn notice_path_descriptor(&self, file: BorrowedFd<'_>) -> io::Result<()> {
        self.mark_by_link(libc::FAN_MARK_REMOVE | libc::FAN_MARK_IGNORED_MASK, IGNORED, file)
    }

    /// Marks what a descriptor's magic link leads to: an `O_PATH` descriptor itself is not taken.
    fn mark_by_link(&self, flags: u32, mask: u64, fd: BorrowedFd<'_>) -> io::Result<()> {
        let link = format!("/proc/self/fd/{}\0", fd.as_raw_fd());
        // SAFETY: `link` ends in a null byte and outlives the call.
        let status = unsafe {
            libc::fanotify_mark(
                self.fd.as_raw_fd(),
                flags,
                mask,
                libc::AT_FDCWD,
                link.as_ptr().cast(),
            )
        };
        if status == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    /// Lets later opens of this inode pass inside the kernel until it is modified or evicted
    /// (`FAN_MARK_EVICTABLE`, 5.19). The kernel silently adds nothing while somebody has the
    /// file open for writing.
    ///
    /// # Errors
    /// `EINVAL` on kernels without evictable marks.
    pub fn ignore(&self, file: BorrowedFd<'_>) -> io::Result<()> {
        let flags = libc::FAN_MARK_ADD | libc::FAN_MARK_IGNORED_MASK | libc::FAN_MARK_EVICTABLE;
        self.mark(flags, IGNORED, file.as_raw_fd())
    }

    /// Takes back [`Group::ignore`].
    ///
    /// # Errors
    /// `ENOENT` when there was no mark (any more).
    pub fn notice(&self, file: BorrowedFd<'_>) -> io::Result<()> {
        let flags = libc::FAN_MARK_REMOVE | libc::FAN_MARK_IGNORED_MASK;
        self.mark(flags, IGNORED, file.as_raw_fd())
    }

    /// Takes back every [`Group::ignore`] at once; file systems stay protected.
    ///
    /// # Errors
    /// As `fanotify_mark(2)`.
    pub fn notice_all(&self) -> io::Result<()> {
        self.mark(libc::FAN_MARK_FLUSH, 0, libc::AT_FDCWD)
    }

    fn mark(&self, flags: u32, mask: u64, fd: RawFd) -> io::Result<()> {
        // SAFETY: a null path means the object that `fd` refers to; no memory is passed.
        let status =
            unsafe { libc::fanotify_mark(self.fd.as_raw_fd(), flags, mask, fd, std::ptr::null()) };
        if status == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    /// Reads a burst of events and hands each to `take`. Returns their number, 0 when none wait.
    /// A permission event whose taker panics or drops it is answered with `fallback`.
    ///
    /// # Errors
    /// `EMFILE` when no descriptor is free (the kernel has then denied that open).
    pub fn read(
        self: &Arc<Self>,
        buffer: &mut ReadBuffer,
        fallback: Decision,
        mut take: impl FnMut(Event),
    ) -> io::Result<usize> {
        let length = match rustix::io::read(&self.fd, &mut buffer.0[..]) {
            Ok(length) => length,
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => return Ok(0),
            Err(error) => return Err(error.into()),
        };
        let mut rest = &buffer.0[..length];
        let mut count = 0;
        while let Some((event, next)) = self.parse(rest, fallback) {
            if let Some(event) = event {
                take(event);
                count += 1;
            }
            rest = next;
        }
        Ok(count)
    }

    /// Takes the first event off `bytes`: the event (`None` for one without a file) and the rest.
    fn parse<'b>(
        self: &Arc<Self>,
        bytes: &'b [u8],
        fallback: Decision,
    ) -> Option<(Option<Event>, &'b [u8])> {
        let length = usize::try_from(u32_at(bytes, 0)?).ok()?;
        if length < METADATA_LENGTH || length > bytes.len() {
            return None;
        }
        let (record, rest) = bytes.split_at(length);
        let mask = u64::from(u32_at(record, 8)?) | (u64::from(u32_at(record, 12)?) << 32);
        let fd = u32_at(record, 16)?.cast_signed();
        let pid = u32_at(record, 20)?;
        if mask & libc::FAN_Q_OVERFLOW != 0 {
            return Some((Some(Event::Overflow), rest));
        }
        let pidfd = pidfd_of(record);
        let Some(file) = adopt(fd) else { return Some((None, rest)) };
        let permission = mask & (libc::FAN_OPEN_PERM | libc::FAN_OPEN_EXEC_PERM) != 0;
        let event = if permission {
            Event::Permission(Pending {
                group: Some(Arc::clone(self)),
                file: Some(file),
                pidfd,
                pid,
                exec: mask & libc::FAN_OPEN_EXEC_PERM != 0,
                fallback,
            })
        } else {
            Event::Closed(Closed { file, pid })
        };
        Some((Some(event), rest))
    }

    fn respond(&self, fd: RawFd, decision: Decision) {
        let response: u32 = match decision {
            Decision::Allow => libc::FAN_ALLOW,
            Decision::Deny => libc::FAN_DENY,
        };
        let mut message = [0; 8];
        message[..4].copy_from_slice(&fd.to_ne_bytes());
        message[4..].copy_from_slice(&response.to_ne_bytes());
        // The only errors are ENOENT (the opener was killed meanwhile) and EINTR before any work.
        while rustix::io::write(&self.fd, &message) == Err(rustix::io::Errno::INTR) {}
    }
}

impl AsFd for Group {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Default for ReadBuffer {
    fn default() -> Self {
        Self([0; READ_SIZE])
    }
}

impl Pending {
    /// The file that somebody wants to open, open for reading.
    ///
    /// # Panics
    /// Never: the file is there until the answer consumes `self`.
    #[must_use]
    pub fn file(&self) -> BorrowedFd<'_> {
        match &self.file {
            Some(file) => file.as_fd(),
            None => unreachable!("a pending event holds its file until it is answered"),
        }
    }

    /// Thread group that waits, in the initial pid namespace.
    #[must_use]
    pub const fn pid(&self) -> u32 {
        self.pid
    }

    /// A descriptor of that process, which cannot come to mean another one.
    #[must_use]
    pub fn pidfd(&self) -> Option<BorrowedFd<'_>> {
        self.pidfd.as_ref().map(AsFd::as_fd)
    }

    /// True for an exec, false for an open.
    #[must_use]
    pub const fn is_exec(&self) -> bool {
        self.exec
    }

    /// One that no group waits for, for tests of what lies above.
    #[cfg(test)]
    pub(crate) const fn unconnected(file: OwnedFd) -> Self {
        let (group, pidfd) = (None, None);
        Self { group, file: Some(file), pidfd, pid: 0, exec: false, fallback: Decision::Allow }
    }

    /// Answers the kernel and gives back the still-open file, so that what follows acts on that
    /// inode and not on a path.
    pub fn answer(mut self, decision: Decision) -> OwnedFd {
        let (Some(group), Some(file)) = (self.group.take(), self.file.take()) else {
            unreachable!("a pending event is answered once, by value")
        };
        group.respond(file.as_raw_fd(), decision);
        file
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        if let (Some(group), Some(file)) = (self.group.take(), self.file.take()) {
            group.respond(file.as_raw_fd(), self.fallback);
        }
    }
}

/// The pidfd record behind the metadata (`struct fanotify_event_info_pidfd`), if there is one.
fn pidfd_of(record: &[u8]) -> Option<OwnedFd> {
    let mut info = record.get(METADATA_LENGTH..)?;
    let mut found = None;
    while let Some(length) = info.get(2..4) {
        let length = usize::from(u16::from_ne_bytes([length[0], length[1]]));
        if length < 4 || length > info.len() {
            break;
        }
        if info[0] == libc::FAN_EVENT_INFO_TYPE_PIDFD && length >= 8 {
            // Each record's descriptor is adopted, so that a second one could not leak.
            found = u32_at(info, 4).and_then(|fd| adopt(fd.cast_signed()));
        }
        info = &info[length..];
    }
    found
}

fn adopt(fd: RawFd) -> Option<OwnedFd> {
    // Negative values are FAN_NOFD, FAN_NOPIDFD and FAN_EPIDFD.
    // SAFETY: called once for each descriptor that the kernel put into an event we just read.
    (fd >= 0).then(|| unsafe { OwnedFd::from_raw_fd(fd) })
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    let four = bytes.get(at..at + 4)?;
    Some(u32::from_ne_bytes([four[0], four[1], four[2], four[3]]))
}
