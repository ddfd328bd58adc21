//! io_uring by its system calls, for acts that must not go through ordinary ones.
//!
//! One request at a time, waited for. Nothing here is for speed.
#![allow(unsafe_code, reason = "the rings are memory that the kernel shares")]

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicU32, Ordering};

/// `struct io_uring_params`: 10 words, the offsets of both rings (10 words each).
type Params = [u32; 30];

/// Bytes of `struct io_uring_sqe`.
const ENTRY: usize = 64;

const OFFSET_SUBMISSIONS: u64 = 0;
const OFFSET_COMPLETIONS: u64 = 0x0800_0000;
const OFFSET_ENTRIES: u64 = 0x1000_0000;
const GET_EVENTS: u32 = 1;

/// Operations (`enum io_uring_op`).
pub mod op {
    pub const CONNECT: u8 = 16;
    pub const OPENAT: u8 = 18;
    pub const READ: u8 = 22;
    pub const WRITE: u8 = 23;
    pub const SEND: u8 = 26;
    pub const SENDMSG: u8 = 9;
    pub const RENAMEAT: u8 = 35;
    pub const UNLINKAT: u8 = 36;
    pub const SOCKET: u8 = 45;
    pub const BIND: u8 = 56;
    pub const LISTEN: u8 = 57;
}

/// A request: the fields of `struct io_uring_sqe` that are used.
#[derive(Debug, Clone, Copy, Default)]
pub struct Request {
    pub op: u8,
    pub fd: i32,
    /// `off`, `addr2`
    pub offset: u64,
    pub address: u64,
    pub length: u32,
    /// `open_flags`, `rename_flags`, …
    pub flags: u32,
}

/// One ring.
#[derive(Debug)]
pub struct Ring {
    fd: OwnedFd,
    params: Params,
    submissions: Area,
    completions: Area,
    entries: Area,
}

#[derive(Debug)]
struct Area {
    start: *mut u8,
    length: usize,
}

impl Ring {
    /// A ring for one request at a time.
    ///
    /// # Errors
    /// `ENOSYS` or `EPERM` where the kernel has no io_uring or it is switched off.
    pub fn new() -> io::Result<Self> {
        let mut params: Params = [0; 30];
        // SAFETY: `params` has the size of the structure and outlives the call.
        let fd = unsafe { libc::syscall(libc::SYS_io_uring_setup, 2, params.as_mut_ptr()) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel just gave us this descriptor and nobody else knows it.
        let fd = unsafe { OwnedFd::from_raw_fd(i32::try_from(fd).unwrap_or(-1)) };
        // sq_off.array and cq_off.cqes, behind which the entries lie.
        let submissions = Area::map(&fd, OFFSET_SUBMISSIONS, params[16] as usize + 4 * 64)?;
        let completions = Area::map(&fd, OFFSET_COMPLETIONS, params[25] as usize + 16 * 64)?;
        let entries = Area::map(&fd, OFFSET_ENTRIES, ENTRY * params[0] as usize)?;
        Ok(Self { fd, params, submissions, completions, entries })
    }

    /// Does one thing and returns what it gave.
    ///
    /// # Errors
    /// As the operation; `EINVAL` where the kernel does not have it.
    pub fn run(&mut self, request: Request) -> io::Result<i32> {
        let mut entry = [0_u8; ENTRY];
        entry[0] = request.op;
        entry[4..8].copy_from_slice(&request.fd.to_ne_bytes());
        entry[8..16].copy_from_slice(&request.offset.to_ne_bytes());
        entry[16..24].copy_from_slice(&request.address.to_ne_bytes());
        entry[24..28].copy_from_slice(&request.length.to_ne_bytes());
        entry[28..32].copy_from_slice(&request.flags.to_ne_bytes());
        // SAFETY: the area has room for at least one entry, and the kernel reads it in enter().
        unsafe { self.entries.start.copy_from(entry.as_ptr(), ENTRY) };
        let tail = self.submissions.word(self.params[11]);
        let mask = self.submissions.word(self.params[12]).load(Ordering::Relaxed);
        let at = tail.load(Ordering::Relaxed);
        self.submissions.word(self.params[16] + 4 * (at & mask)).store(0, Ordering::Relaxed);
        tail.store(at.wrapping_add(1), Ordering::Release);
        let fd = self.fd.as_raw_fd();
        // SAFETY: no pointers but a null signal mask are passed.
        let done = unsafe {
            libc::syscall(libc::SYS_io_uring_enter, fd, 1, 1, GET_EVENTS, std::ptr::null::<u8>(), 0)
        };
        if done < 0 {
            return Err(io::Error::last_os_error());
        }
        let head = self.completions.word(self.params[20]);
        let mask = self.completions.word(self.params[22]).load(Ordering::Relaxed);
        let at = head.load(Ordering::Acquire);
        // `struct io_uring_cqe`: 8 bytes of user data, the result, flags.
        let result = self.completions.word(self.params[25] + 16 * (at & mask) + 8);
        let result = result.load(Ordering::Acquire).cast_signed();
        head.store(at.wrapping_add(1), Ordering::Release);
        if result < 0 { Err(io::Error::from_raw_os_error(-result)) } else { Ok(result) }
    }
}

impl Area {
    fn map(fd: &OwnedFd, offset: u64, length: usize) -> io::Result<Self> {
        // SAFETY: a fresh shared mapping of the ring's own memory.
        let start = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                length,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED | libc::MAP_POPULATE,
                fd.as_raw_fd(),
                offset.cast_signed(),
            )
        };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        Ok(Self { start: start.cast(), length })
    }

    fn word(&self, at: u32) -> &AtomicU32 {
        let at = at as usize;
        assert!(at + 4 <= self.length && at.is_multiple_of(4));
        // SAFETY: inside the mapping, as was just looked at.
        let word = unsafe { self.start.add(at) };
        // SAFETY: aligned; the kernel writes it as a word.
        unsafe { AtomicU32::from_ptr(word.cast()) }
    }
}

impl Drop for Area {
    fn drop(&mut self) {
        // SAFETY: nothing refers to the mapping any more.
        unsafe { libc::munmap(self.start.cast(), self.length) };
    }
}
