//! Ids of network namespaces, so that the kernel tells of their links too.
//!
//! An id is given by the kernel on request and lasts as long as the namespace (`ip netns list-id`
//! shows it); it keeps no namespace alive, as a socket in it would. What has one already, each
//! peer of a veth(4) for instance, keeps it.

use std::collections::HashMap;
use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;

use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, send,
    setsockopt, socket, sockopt,
};
use nix::sys::time::TimeVal;

use super::links::{HEADER, attribute, compose, message, put, word};

/// The id of a network namespace in the agent's own.
pub(super) type Place = i32;
/// The agent's own.
pub(super) const HERE: Place = -1;

/// `NLMSG_ERROR`, which is an acknowledgement too.
const ERROR: u16 = 2;
/// `NLMSG_DONE`
const DONE: u16 = 3;
const RTM_NEWNSID: u16 = 88;
const RTM_GETNSID: u16 = 90;
const NETNSA_NSID: u16 = 1;
const NETNSA_FD: u16 = 3;
/// `NLM_F_REQUEST | NLM_F_ACK`
const ACKNOWLEDGED: u16 = 5;
/// `NLM_F_REQUEST`
const PLAIN: u16 = 1;
/// `struct rtgenmsg`, filled up.
const GENERAL: usize = 4;
/// Namespaces that are followed.
const MOST: usize = 1024;
/// The kernel answers at once, or never.
const PATIENCE_S: i64 = 1;
/// Parts of one answer.
const MOST_PARTS: usize = 4096;

/// A network namespace that a process is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Namespace {
    /// As in `net:[4026531840]`.
    pub(super) inode: u64,
    /// A process in it.
    pub(super) pid: u32,
}

/// The inode of the calling thread's namespace: a process may have threads in several.
pub(super) fn own() -> std::io::Result<u64> {
    Ok(std::fs::metadata("/proc/thread-self/ns/net")?.ino())
}

/// The namespaces that have an id.
pub(super) struct Namespaces {
    /// For questions and their answers alone.
    socket: OwnedFd,
    own: u64,
    known: HashMap<u64, Place>,
    full: bool,
}

impl Namespaces {
    pub(super) fn new() -> std::io::Result<Self> {
        let socket = socket(
            AddressFamily::Netlink,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC,
            SockProtocol::NetlinkRoute,
        )?;
        setsockopt(&socket, sockopt::ReceiveTimeout, &TimeVal::new(PATIENCE_S, 0))?;
        bind(socket.as_raw_fd(), &NetlinkAddr::new(0, 0))?;
        Ok(Self { socket, own: own()?, known: HashMap::new(), full: false })
    }

    /// Gives an id to each that has none. Returns the new ones, and those that are gone.
    pub(super) fn learn(&mut self, all: &[Namespace]) -> (Vec<Place>, Vec<Place>) {
        let mut gone = Vec::new();
        self.known.retain(|inode, place| {
            let stays = all.iter().any(|one| one.inode == *inode);
            if !stays {
                gone.push(*place);
            }
            stays
        });
        let mut new = Vec::new();
        for one in all {
            if one.inode == self.own || self.known.contains_key(&one.inode) {
                continue;
            }
            if self.known.len() >= MOST {
                if !std::mem::replace(&mut self.full, true) {
                    tracing::warn!(most = MOST, "links of further namespaces are not followed");
                }
                break;
            }
            // Without an id its process has ended, or is in another by now.
            if let Some(place) = self.identify(one) {
                self.known.insert(one.inode, place);
                new.push(place);
            }
        }
        (new, gone)
    }

    /// All but the agent's own.
    pub(super) fn places(&self) -> Vec<Place> {
        self.known.values().copied().collect()
    }

    /// The inode of a namespace by its id.
    pub(super) fn inode(&self, place: Place) -> Option<u64> {
        if place == HERE {
            return Some(self.own);
        }
        self.known.iter().find(|(_, known)| **known == place).map(|(inode, _)| *inode)
    }

    fn identify(&self, one: &Namespace) -> Option<Place> {
        let file = File::open(format!("/proc/{}/ns/net", one.pid)).ok()?;
        if file.metadata().ok()?.ino() != one.inode {
            return None;
        }
        let mut body = vec![0; GENERAL];
        put(&mut body, NETNSA_FD, &file.as_raw_fd().to_ne_bytes());
        let question = compose(RTM_GETNSID, PLAIN, &body);
        put(&mut body, NETNSA_NSID, &HERE.to_ne_bytes());
        // It fails when there is one already.
        self.ask(&compose(RTM_NEWNSID, ACKNOWLEDGED, &body));
        let answers = self.ask(&question);
        let (kind, body, _) = message(answers.first()?)?;
        let place = attribute(body.get(GENERAL..)?, NETNSA_NSID).filter(|_| kind == RTM_NEWNSID)?;
        Some(place.cast_signed()).filter(|place| *place >= 0)
    }

    /// Sends a request; the datagrams of its answer.
    pub(super) fn ask(&self, request: &[u8]) -> Vec<Vec<u8>> {
        const MULTI: u16 = 2;
        let mut answers = Vec::new();
        if send(self.socket.as_raw_fd(), request, MsgFlags::empty()).is_err() {
            return answers;
        }
        let mut buffer = vec![0; 64 << 10];
        while answers.len() < MOST_PARTS {
            let Ok(length) = recv(self.socket.as_raw_fd(), &mut buffer, MsgFlags::empty()) else {
                break;
            };
            let part = buffer[..length.min(buffer.len())].to_vec();
            let last = is_last(&part) || flags(&part) & MULTI == 0;
            answers.push(part);
            if last {
                break;
            }
        }
        answers
    }
}

/// Whether a datagram ends an answer of several.
fn is_last(mut messages: &[u8]) -> bool {
    while let Some((kind, _, rest)) = message(messages) {
        if kind == DONE || kind == ERROR {
            return true;
        }
        messages = rest;
    }
    false
}

fn flags(part: &[u8]) -> u16 {
    part.get(..HEADER).and_then(|header| word(header, 4)).map_or(0, |both| (both >> 16) as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ones_own_namespace_is_here_and_others_have_one_id_each() {
        let mut namespaces = Namespaces::new().expect("netlink");
        let own = Namespace { inode: namespaces.own, pid: std::process::id() };
        assert_eq!(namespaces.learn(&[own]), (vec![], vec![]));
        assert_eq!(namespaces.inode(HERE), Some(own.inode));
        let gone = Namespace { inode: 1, pid: std::process::id() };
        assert_eq!(namespaces.learn(&[own, gone]), (vec![], vec![]), "not that inode's process");
    }
}
