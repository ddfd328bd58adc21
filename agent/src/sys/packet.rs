//! Packet sockets that send (packet(7)): the isolation proves with one that its lowest layer
//! stops what goes past the queues.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// `PACKET_QDISC_BYPASS`
const QDISC_BYPASS: libc::c_int = 20;

/// A socket that sends whole frames over one interface and receives nothing.
#[derive(Debug)]
pub struct Sender {
    socket: OwnedFd,
}

impl Sender {
    /// For the interface of this number. With `past_queues` its frames go to the driver without
    /// queues and their programs (Linux 3.14).
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn open(interface: u32, past_queues: bool) -> io::Result<Self> {
        // SAFETY: takes numbers alone.
        let raw = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
        if raw < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: just made, and nobody else's.
        let socket = unsafe { OwnedFd::from_raw_fd(raw) };
        // SAFETY: all zeros are a valid address.
        let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        address.sll_family = libc::AF_PACKET as libc::sa_family_t;
        address.sll_ifindex = i32::try_from(interface).map_err(io::Error::other)?;
        // SAFETY: the address has the size that is given.
        done(unsafe {
            libc::bind(
                socket.as_raw_fd(),
                std::ptr::from_ref(&address).cast(),
                size_of::<libc::sockaddr_ll>() as libc::socklen_t,
            )
        })?;
        let value = libc::c_int::from(past_queues);
        // SAFETY: the value has the size that is given.
        done(unsafe {
            libc::setsockopt(
                socket.as_raw_fd(),
                libc::SOL_PACKET,
                QDISC_BYPASS,
                std::ptr::from_ref(&value).cast(),
                size_of::<libc::c_int>() as libc::socklen_t,
            )
        })?;
        Ok(Self { socket })
    }

    /// Sends a frame, its link layer header first.
    ///
    /// # Errors
    /// The kernel's refusal; `ENOBUFS` when the frame was dropped on its way.
    pub fn send(&self, frame: &[u8]) -> io::Result<()> {
        rustix::net::send(&self.socket, frame, rustix::net::SendFlags::DONTWAIT)?;
        Ok(())
    }
}

fn done(result: libc::c_int) -> io::Result<()> {
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
