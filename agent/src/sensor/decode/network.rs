//! Records of `ebpf/src/network.rs`.

use holdfast_common::abi::action;

use super::{Malformed, Who, u32_of, u64_of};

/// What the network programs report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Record {
    /// A socket.
    Socket(Socket),
    /// A process uses this capability.
    Capability(Who, u32),
}

/// A packet or raw socket was made or set up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Socket {
    /// The process.
    pub who: Who,
    /// Inode number of the socket, 0 when unknown.
    pub inode: u64,
    /// `socket`, `bind`, `promiscuous`, `ring`.
    pub action: &'static str,
    /// `AF_PACKET`…
    pub family: String,
    /// `SOCK_RAW`…
    pub socket_type: String,
    /// Host order.
    pub protocol: u32,
    /// Interface index.
    pub interface: u32,
}

/// Name of an address family that the sensor reports.
pub fn family_name(family: u32) -> String {
    match family {
        2 => "AF_INET".to_owned(),
        10 => "AF_INET6".to_owned(),
        16 => "AF_NETLINK".to_owned(),
        17 => "AF_PACKET".to_owned(),
        44 => "AF_XDP".to_owned(),
        other => format!("AF_{other}"),
    }
}

/// Name of a socket type.
pub fn type_name(socket_type: u32) -> String {
    match socket_type {
        2 => "SOCK_DGRAM".to_owned(),
        3 => "SOCK_RAW".to_owned(),
        10 => "SOCK_PACKET".to_owned(),
        other => format!("SOCK_{other}"),
    }
}

pub(super) fn capability(who: Who, mut bytes: &[u8]) -> Result<Record, Malformed> {
    Ok(Record::Capability(who, u32_of(&mut bytes)?))
}

pub(super) fn socket(who: Who, mut bytes: &[u8]) -> Result<Record, Malformed> {
    let inode = u64_of(&mut bytes)?;
    let action = match u32_of(&mut bytes)? {
        action::SOCKET => "socket",
        action::BIND => "bind",
        action::PROMISCUOUS => "promiscuous",
        action::RING => "ring",
        _ => return Err(Malformed),
    };
    Ok(Record::Socket(Socket {
        who,
        inode,
        action,
        family: family_name(u32_of(&mut bytes)?),
        socket_type: type_name(u32_of(&mut bytes)?),
        protocol: u32_of(&mut bytes)?,
        interface: u32_of(&mut bytes)?,
    }))
}
