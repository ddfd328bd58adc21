//! Interfaces that become promiscuous, by whichever way: the kernel tells every change of every
//! link (rtnetlink(7)), with how many want it so (`IFLA_PROMISCUITY`), of the host's network
//! namespace and of every other that has an id in it. Each namespace that a process is in gets one
//! ([`super::namespaces`]) and is asked once for the links that it has.
//!
//! It does not tell who: the last process that used CAP_NET_ADMIN or CAP_NET_RAW in that namespace
//! a moment before is named where the kernel tells that (6.14 and later), else nobody.

use std::collections::HashMap;
use std::io::IoSliceMut;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::cmsg_space;
use nix::sys::socket::{
    AddressFamily, ControlMessageOwned, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType,
    bind, recvmsg, send, socket,
};

use super::namespaces::{HERE, Namespace, Namespaces, Place};
use crate::sys::netlink::{NSID_MESSAGE, SOL_NETLINK, listen_everywhere};

const RTMGRP_LINK: u32 = 1;
const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
const RTM_GETLINK: u16 = 18;
/// `NLM_F_REQUEST | NLM_F_DUMP`
const DUMP: u16 = 0x301;
const IFLA_PROMISCUITY: u16 = 30;
/// `IFLA_TARGET_NETNSID` (Linux 4.17): whose links are asked for.
const IFLA_TARGET_NETNSID: u16 = 46;
/// `struct nlmsghdr`
pub(super) const HEADER: usize = 16;
/// `struct ifinfomsg`
const LINK: usize = 16;
/// Links that are remembered, of all namespaces.
const MOST_LINKS: usize = 16_384;

/// An interface that has become promiscuous, or more so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Promiscuous {
    /// Inode of its network namespace, as `/proc/PID/ns/net` shows it.
    pub(super) namespace: u64,
    /// Its index there.
    pub(super) interface: u32,
}

/// The links of the host.
pub(super) struct Links {
    socket: OwnedFd,
    namespaces: Option<Namespaces>,
    promiscuity: HashMap<(Place, u32), u32>,
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
        let namespaces = listen_everywhere(socket.as_fd()).and_then(|()| Namespaces::new());
        let namespaces = namespaces
            .inspect_err(|error| tracing::warn!(%error, "links of other namespaces are not seen"))
            .ok();
        bind(socket.as_raw_fd(), &NetlinkAddr::new(0, RTMGRP_LINK))?;
        let links = Self { socket, namespaces, promiscuity: HashMap::new() };
        links.ask()?;
        Ok(links)
    }

    fn ask(&self) -> std::io::Result<()> {
        send(self.socket.as_raw_fd(), &request(HERE), MsgFlags::empty())?;
        Ok(())
    }

    /// Follows the links of these namespaces too, and forgets those of all others. Returns what is
    /// promiscuous in new ones already.
    pub(super) fn learn(&mut self, namespaces: &[Namespace]) -> Vec<Promiscuous> {
        let Some(known) = &mut self.namespaces else { return Vec::new() };
        let (new, gone) = known.learn(namespaces);
        self.promiscuity.retain(|(place, _), _| !gone.contains(place));
        self.ask_each(&new)
    }

    /// Asks namespaces for all their links.
    fn ask_each(&mut self, places: &[Place]) -> Vec<Promiscuous> {
        let mut more = Vec::new();
        for place in places {
            let Some(known) = &self.namespaces else { break };
            for messages in known.ask(&request(*place)) {
                self.take(*place, &messages, &mut more);
            }
        }
        self.name(&more)
    }

    /// The interfaces that have become promiscuous, or more so.
    pub(super) fn read(&mut self) -> Vec<Promiscuous> {
        let mut more = Vec::new();
        let mut dropped = false;
        let mut buffer = vec![0; 64 << 10];
        let mut control = cmsg_space!(i32);
        loop {
            let (length, place) = {
                let mut parts = [IoSliceMut::new(&mut buffer)];
                let flags = MsgFlags::MSG_DONTWAIT;
                let fd = self.socket.as_raw_fd();
                match recvmsg::<()>(fd, &mut parts, Some(&mut control), flags) {
                    Ok(message) => {
                        let place = message.cmsgs().ok().and_then(|mut all| all.find_map(place));
                        (message.bytes, place.unwrap_or(HERE))
                    }
                    Err(nix::errno::Errno::ENOBUFS) => {
                        dropped = true;
                        continue;
                    }
                    Err(_) => break,
                }
            };
            self.take(place, &buffer[..length.min(buffer.len())], &mut more);
        }
        let mut told = self.name(&more);
        if dropped {
            // Some were dropped: ask for all. It fails only where the kernel has gone.
            let _ = self.ask();
            let places = self.namespaces.as_ref().map(Namespaces::places).unwrap_or_default();
            told.extend(self.ask_each(&places));
        }
        told
    }

    fn name(&self, found: &[(Place, u32)]) -> Vec<Promiscuous> {
        let name = |(place, interface): &(Place, u32)| {
            let namespace = match &self.namespaces {
                Some(known) => known.inode(*place)?,
                None => 0,
            };
            Some(Promiscuous { namespace, interface: *interface })
        };
        found.iter().filter_map(name).collect()
    }

    fn take(&mut self, place: Place, mut messages: &[u8], more: &mut Vec<(Place, u32)>) {
        while let Some((kind, body, rest)) = message(messages) {
            if let Some(index) = word(body, 4) {
                match kind {
                    RTM_NEWLINK => self.changed((place, index), body, more),
                    RTM_DELLINK => drop(self.promiscuity.remove(&(place, index))),
                    _ => {}
                }
            }
            messages = rest;
        }
    }

    fn changed(&mut self, link: (Place, u32), body: &[u8], more: &mut Vec<(Place, u32)>) {
        let promiscuity = body.get(LINK..).and_then(|all| attribute(all, IFLA_PROMISCUITY));
        let Some(now) = promiscuity else { return };
        let before = self.promiscuity.get(&link).copied().unwrap_or(0);
        if now > before && !more.contains(&link) {
            more.push(link);
        }
        if self.promiscuity.len() < MOST_LINKS || self.promiscuity.contains_key(&link) {
            self.promiscuity.insert(link, now);
        }
    }
}

impl AsFd for Links {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// For all links of a namespace.
fn request(place: Place) -> Vec<u8> {
    let mut body = vec![0; LINK];
    if place != HERE {
        put(&mut body, IFLA_TARGET_NETNSID, &place.to_ne_bytes());
    }
    compose(RTM_GETLINK, DUMP, &body)
}

/// The namespace that a message comes from.
fn place(message: ControlMessageOwned) -> Option<Place> {
    let ControlMessageOwned::Unknown(message) = message else { return None };
    let header = message.cmsg_header;
    let names = header.cmsg_level == SOL_NETLINK && header.cmsg_type == NSID_MESSAGE;
    let bytes = message.data_bytes.first_chunk().filter(|_| names)?;
    Some(Place::from_ne_bytes(*bytes))
}

/// A message of rtnetlink: header and body.
pub(super) fn compose(kind: u16, flags: u16, body: &[u8]) -> Vec<u8> {
    let length = (HEADER + body.len()) as u32;
    [&length.to_ne_bytes()[..], &kind.to_ne_bytes(), &flags.to_ne_bytes(), &[0; 8], body].concat()
}

/// Adds an attribute of four bytes.
pub(super) fn put(body: &mut Vec<u8>, kind: u16, value: &[u8; 4]) {
    body.extend(8_u16.to_ne_bytes());
    body.extend(kind.to_ne_bytes());
    body.extend(value);
}

/// The first message: its kind, its body, and what follows it.
pub(super) fn message(messages: &[u8]) -> Option<(u16, &[u8], &[u8])> {
    let header = messages.first_chunk::<HEADER>()?;
    let length = word(header, 0)? as usize;
    if length < HEADER || length > messages.len() {
        return None;
    }
    let kind = u16::from_ne_bytes([header[4], header[5]]);
    let rest = messages.get(aligned(length)..).unwrap_or_default();
    Some((kind, &messages[HEADER..length], rest))
}

/// The first four bytes of an attribute, among all others.
pub(super) fn attribute(mut attributes: &[u8], wanted: u16) -> Option<u32> {
    while let Some([a, b, c, d]) = attributes.first_chunk::<4>().copied() {
        let length = usize::from(u16::from_ne_bytes([a, b]));
        let body = attributes.get(4..length)?;
        if u16::from_ne_bytes([c, d]) == wanted {
            return word(body, 0);
        }
        attributes = attributes.get(aligned(length)..)?;
    }
    None
}

const fn aligned(length: usize) -> usize {
    (length + 3) & !3
}

pub(super) fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn links() -> Links {
        Links::follow().expect("netlink")
    }

    fn told(kind: u16, index: u32, promiscuity: u32) -> Vec<u8> {
        let mut body = [[0; 4], index.to_ne_bytes(), [0; 4], [0; 4]].concat();
        put(&mut body, 4, &1500_u32.to_ne_bytes());
        put(&mut body, IFLA_PROMISCUITY, &promiscuity.to_ne_bytes());
        compose(kind, 0, &body)
    }

    #[test]
    fn more_is_told_and_less_is_not() {
        let mut links = links();
        let mut more = Vec::new();
        let mut take = |bytes: &[u8]| {
            links.take(HERE, bytes, &mut more);
            std::mem::take(&mut more).into_iter().map(|(_, index)| index).collect::<Vec<u32>>()
        };
        let two = [told(RTM_NEWLINK, 7, 0), told(RTM_NEWLINK, 8, 1)].concat();
        assert_eq!(take(&two), [8]);
        assert!(take(&told(RTM_NEWLINK, 8, 1)).is_empty());
        assert_eq!(take(&told(RTM_NEWLINK, 8, 2)), [8]);
        assert!(take(&told(RTM_NEWLINK, 8, 0)).is_empty());
        assert!(take(&told(RTM_DELLINK, 7, 1)).is_empty());
        assert_eq!(take(&told(RTM_NEWLINK, 7, 1)), [7]);
    }

    #[test]
    fn interfaces_of_one_index_in_two_namespaces_are_two() {
        let mut links = links();
        let mut more = Vec::new();
        links.take(HERE, &told(RTM_NEWLINK, 7, 1), &mut more);
        links.take(3, &told(RTM_NEWLINK, 7, 1), &mut more);
        assert_eq!(more, [(HERE, 7), (3, 7)]);
        links.take(3, &told(RTM_DELLINK, 7, 1), &mut more);
        more.clear();
        links.take(HERE, &told(RTM_NEWLINK, 7, 1), &mut more);
        assert!(more.is_empty());
    }

    proptest! {
        #[test]
        fn arbitrary_messages_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = attribute(&bytes, IFLA_PROMISCUITY);
            links().take(HERE, &bytes, &mut Vec::new());
        }
    }
}
