//! Netlink sockets that hear of other network namespaces (netlink(7)).

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// `NETLINK_LISTEN_ALL_NSID` (Linux 4.2)
const LISTEN_ALL_NSID: libc::c_int = 8;
/// Level of netlink's options, and of the control message that names a namespace.
pub const SOL_NETLINK: libc::c_int = 270;
/// Type of the control message that carries the id of the namespace that a message comes from.
pub const NSID_MESSAGE: libc::c_int = LISTEN_ALL_NSID;

/// Lets a socket hear of every network namespace that has an id in the socket's own.
///
/// # Errors
/// The kernel's refusal.
pub fn listen_everywhere(socket: BorrowedFd<'_>) -> io::Result<()> {
    let on: libc::c_int = 1;
    // SAFETY: the value has the size that is given.
    let done = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            SOL_NETLINK,
            LISTEN_ALL_NSID,
            std::ptr::from_ref(&on).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
