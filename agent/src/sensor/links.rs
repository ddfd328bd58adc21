//! Interfaces that become promiscuous, by whichever way: the kernel tells every change of every
//! link of the host's network namespace (rtnetlink(7)), with how many want it so
//! (`IFLA_PROMISCUITY`).
//!
//! It does not tell who: the last process that used CAP_NET_ADMIN or CAP_NET_RAW a moment before
//! is named where the kernel tells that (6.14 and later), else nobody. Other network namespaces
//! are not followed; packet sockets in them are seen by the other means.

use std::collections::HashMap;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, send,
    socket,
};

const RTMGRP_LINK: u32 = 1;
const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
const RTM_GETLINK: u16 = 18;
/// `NLM_F_REQUEST | NLM_F_DUMP`
const DUMP: u16 = 0x301;
const IFLA_PROMISCUITY: u16 = 30;
/// `struct nlmsghdr`
const HEADER: usize = 16;
/// `struct ifinfomsg`
const LINK: usize = 16;
/// Links that are remembered.
const MOST_LINKS: usize = 4096;

/// The links of the host.
pub(super) struct Links {
    socket: OwnedFd,
    promiscuity: HashMap<u32, u32>,
}

impl Links {
    /// Begins to follow. What is promiscuous already is told by the first [`Links::read`].
    pub(super) fn follow() -> std::io::Result<Self> {
        let socket = socket(
            AddressFamily::Netlink,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK,
            SockProtocol::NetlinkRoute,
        )?;
        bind(socket.as_raw_fd(), &NetlinkAddr::new(0, RTMGRP_LINK))?;
        let links = Self { socket, promiscuity: HashMap::new() };
        links.ask()?;
        Ok(links)
    }

    fn ask(&self) -> std::io::Result<()> {
        let mut request = [0_u8; HEADER + LINK];
        request[..4].copy_from_slice(&((HEADER + LINK) as u32).to_ne_bytes());
        request[4..6].copy_from_slice(&RTM_GETLINK.to_ne_bytes());
        request[6..8].copy_from_slice(&DUMP.to_ne_bytes());
        send(self.socket.as_raw_fd(), &request, MsgFlags::empty())?;
        Ok(())
    }

    /// Indexes of the interfaces that have become promiscuous, or more so.
    pub(super) fn read(&mut self) -> Vec<u32> {
        let mut more = Vec::new();
        let mut buffer = vec![0; 64 << 10];
        loop {
            match recv(self.socket.as_raw_fd(), &mut buffer, MsgFlags::MSG_DONTWAIT) {
                Ok(length) => self.take(&buffer[..length.min(buffer.len())], &mut more),
                Err(nix::errno::Errno::ENOBUFS) => {
                    // Some were dropped: ask for all. It fails only where the kernel has gone.
                    let _ = self.ask();
                }
                Err(_) => return more,
            }
        }
    }

    fn take(&mut self, mut messages: &[u8], more: &mut Vec<u32>) {
        while let Some(header) = messages.first_chunk::<HEADER>() {
            let length = word(header, 0).unwrap_or_default() as usize;
            if length < HEADER || length > messages.len() {
                return;
            }
            let kind = u16::from_ne_bytes([header[4], header[5]]);
            let body = &messages[HEADER..length];
            if let Some(index) = word(body, 4) {
                match kind {
                    RTM_NEWLINK => self.changed(index, body, more),
                    RTM_DELLINK => drop(self.promiscuity.remove(&index)),
                    _ => {}
                }
            }
            messages = messages.get(aligned(length)..).unwrap_or_default();
        }
    }

    fn changed(&mut self, index: u32, body: &[u8], more: &mut Vec<u32>) {
        let Some(now) = body.get(LINK..).and_then(promiscuity) else { return };
        let before = self.promiscuity.get(&index).copied().unwrap_or(0);
        if now > before && !more.contains(&index) {
            more.push(index);
        }
        if self.promiscuity.len() < MOST_LINKS || self.promiscuity.contains_key(&index) {
            self.promiscuity.insert(index, now);
        }
    }
}

impl AsFd for Links {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// The attribute, among all others of a link.
fn promiscuity(mut attributes: &[u8]) -> Option<u32> {
    while let Some([a, b, c, d]) = attributes.first_chunk::<4>().copied() {
        let length = usize::from(u16::from_ne_bytes([a, b]));
        let body = attributes.get(4..length)?;
        if u16::from_ne_bytes([c, d]) == IFLA_PROMISCUITY {
            return word(body, 0);
        }
        attributes = attributes.get(aligned(length)..)?;
    }
    None
}

const fn aligned(length: usize) -> usize {
    (length + 3) & !3
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn links() -> Links {
        Links::follow().expect("netlink")
    }

    fn message(kind: u16, index: u32, promiscuity: u32) -> Vec<u8> {
        let attribute = |kind: u16, value: u32| {
            [&8_u16.to_ne_bytes()[..], &kind.to_ne_bytes(), &value.to_ne_bytes()].concat()
        };
        let body = [
            [0, 0, 0, 0].to_vec(),
            index.to_ne_bytes().to_vec(),
            vec![0; 8],
            attribute(4, 1500),
            attribute(IFLA_PROMISCUITY, promiscuity),
        ]
        .concat();
        let length = u32::try_from(HEADER + body.len()).expect("length");
        [&length.to_ne_bytes()[..], &kind.to_ne_bytes(), &[0; 10], &body].concat()
    }

    #[test]
    fn more_is_told_and_less_is_not() {
        let mut links = links();
        let mut more = Vec::new();
        let mut take = |bytes: &[u8]| {
            links.take(bytes, &mut more);
            std::mem::take(&mut more)
        };
        let two = [message(RTM_NEWLINK, 7, 0), message(RTM_NEWLINK, 8, 1)].concat();
        assert_eq!(take(&two), [8]);
        assert!(take(&message(RTM_NEWLINK, 8, 1)).is_empty());
        assert_eq!(take(&message(RTM_NEWLINK, 8, 2)), [8]);
        assert!(take(&message(RTM_NEWLINK, 8, 0)).is_empty());
        assert!(take(&message(RTM_DELLINK, 7, 1)).is_empty());
        assert_eq!(take(&message(RTM_NEWLINK, 7, 1)), [7]);
    }

    proptest! {
        #[test]
        fn arbitrary_messages_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = promiscuity(&bytes);
            links().take(&bytes, &mut Vec::new());
        }
    }
}
