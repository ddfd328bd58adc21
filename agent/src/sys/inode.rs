//! Two questions about an inode that no safe wrapper asks: its generation, and where it is
//! reachable through another mount. Neither changes anything.

use std::ffi::{c_int, c_long};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use rustix::io::Errno;
use rustix::ioctl::{Opcode, Updater, ioctl, opcode};

/// Largest handle of any file system (`MAX_HANDLE_SZ`, linux/fs.h).
const MAX_HANDLE: usize = libc::MAX_HANDLE_SZ as usize;

/// The inode's generation number (`FS_IOC_GETVERSION`), which tells a reused inode number from
/// the old one; `None` where the file system has none (tmpfs among others).
#[must_use]
pub fn generation(file: BorrowedFd<'_>) -> Option<u32> {
    const GET_VERSION: Opcode = opcode::read::<c_long>(b'v', 1);
    // The number is defined with `long`, ext4, xfs and btrfs write an `int`: the first counts.
    let mut answer = [0_u32; 2];
    // SAFETY: the kernel writes 4 or 8 bytes to the address, which are both inside `answer`.
    let request = unsafe { Updater::<GET_VERSION, [u32; 2]>::new(&mut answer) };
    // SAFETY: `request` is the only user of `answer`, which outlives the call; any bits are valid.
    unsafe { ioctl(file, request) }.ok()?;
    Some(answer[0])
}

/// `struct file_handle` with room for the largest handle. Opaque, made by the kernel only.
#[repr(C)]
pub struct FileHandle {
    bytes: u32,
    kind: c_int,
    data: [u8; MAX_HANDLE],
}

impl FileHandle {
    /// From the bytes of a `struct file_handle` that the kernel has put into an event.
    #[must_use]
    pub fn from_event(bytes: &[u8]) -> Option<Self> {
        let (size, rest) = bytes.split_first_chunk::<4>()?;
        let (kind, rest) = rest.split_first_chunk::<4>()?;
        let bytes = u32::from_ne_bytes(*size);
        let content = rest.get(..usize::try_from(bytes).ok()?)?;
        let mut data = [0; MAX_HANDLE];
        data.get_mut(..content.len())?.copy_from_slice(content);
        Some(Self { bytes, kind: c_int::from_ne_bytes(*kind), data })
    }
}

/// The handle of an open file, by which its file system finds it again (name_to_handle_at(2)).
///
/// # Errors
/// `EOPNOTSUPP` where the file system has no handles.
pub fn handle_of(file: BorrowedFd<'_>) -> Result<FileHandle, Errno> {
    let mut handle = FileHandle { bytes: MAX_HANDLE as u32, kind: 0, data: [0; MAX_HANDLE] };
    let mut mount_id: c_int = 0;
    // SAFETY: the path is an empty C string, `handle` is laid out as the kernel's struct with
    // `bytes` bytes of room behind it, and both outlive the call.
    let answer = unsafe {
        libc::name_to_handle_at(
            file.as_raw_fd(),
            c"".as_ptr(),
            (&raw mut handle).cast(),
            &raw mut mount_id,
            libc::AT_EMPTY_PATH,
        )
    };
    if answer == 0 { Ok(handle) } else { Err(last_error()) }
}

/// Opens a handle as `O_PATH`, seen through the mount that `mount` (any directory on it, not
/// `O_PATH`) belongs to. Needs CAP_DAC_READ_SEARCH.
///
/// # Errors
/// `ESTALE` when the inode is gone; others as in open_by_handle_at(2).
pub fn open_handle(mount: BorrowedFd<'_>, handle: &mut FileHandle) -> Result<OwnedFd, Errno> {
    let flags = libc::O_PATH | libc::O_CLOEXEC | libc::O_NOFOLLOW;
    let pointer = (handle as *mut FileHandle).cast();
    // SAFETY: `handle` came from the kernel by `handle_of` and outlives the call.
    let fd = unsafe { libc::open_by_handle_at(mount.as_raw_fd(), pointer, flags) };
    if fd < 0 {
        return Err(last_error());
    }
    // SAFETY: the kernel just made this descriptor for us; nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn last_error() -> Errno {
    Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::INVAL)
}
