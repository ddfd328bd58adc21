//! `close_range(2)` (Linux 5.9), which no wrapper of ours offers. Nothing else.

use std::io;

/// Closes every descriptor from `first` up, whoever left it open.
///
/// # Errors
/// What the kernel said, `ENOSYS` before Linux 5.9.
pub fn close_from(first: u32) -> io::Result<()> {
    // SAFETY: the call takes three integers and touches no memory. The caller is a process that
    // has just begun and holds no descriptor above its standard ones in any Rust value.
    let result = unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, 0) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
