//! Records of `ebpf/src/traffic.rs`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use holdfast_common::abi::{DNS_MAX, Kind};

use super::{Malformed, Who, array, take, u16_of, u32_of};

const AF_INET6: u16 = 10;

/// What the traffic programs report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Record<'a> {
    /// A socket was used.
    Connection(Connection),
    /// A DNS message.
    Dns(Dns<'a>),
}

/// A socket was used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Connection {
    /// The row of the counters.
    pub kind: Kind,
    /// `connect`, `accept`, `bind`, `listen`, `send`; empty for DNS.
    pub action: &'static str,
    /// Who; pid 0 when unknown.
    pub who: Who,
    /// This host's address.
    pub local: IpAddr,
    /// The other side's.
    pub remote: IpAddr,
    /// This host's port.
    pub local_port: u16,
    /// The other side's.
    pub remote_port: u16,
    /// 6, 17 …
    pub protocol: u16,
    /// Number of the network namespace, 0 when unknown.
    pub namespace: u32,
}

/// A DNS message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dns<'a> {
    /// Between whom.
    pub connection: Connection,
    /// It came.
    pub incoming: bool,
    /// There is more of it than `message`.
    pub cut: bool,
    /// Bytes that somebody else chose.
    pub message: &'a [u8],
}

pub(super) fn of(
    kind: Kind,
    action: &'static str,
    who: Who,
    mut bytes: &[u8],
) -> Result<Record<'static>, Malformed> {
    Ok(Record::Connection(connection(kind, action, who, &mut bytes)?))
}

fn connection(
    kind: Kind,
    action: &'static str,
    who: Who,
    bytes: &mut &[u8],
) -> Result<Connection, Malformed> {
    let (local, remote) = (array(bytes)?, array(bytes)?);
    let (local_port, remote_port) = (u16_of(bytes)?, u16_of(bytes)?);
    let family = u16_of(bytes)?;
    let protocol = u16_of(bytes)?;
    let namespace = u32_of(bytes)?;
    u32_of(bytes)?;
    Ok(Connection {
        kind,
        action,
        who,
        local: address(family, local),
        remote: address(family, remote),
        local_port,
        remote_port,
        protocol,
        namespace,
    })
}

pub(super) fn dns(who: Who, mut bytes: &[u8]) -> Result<Dns<'_>, Malformed> {
    let connection = connection(Kind::Dns, "", who, &mut bytes)?;
    let total = u32_of(&mut bytes)? as usize;
    let length = usize::from(u16_of(&mut bytes)?);
    let incoming = u16_of(&mut bytes)? != 0;
    let message = take(&mut bytes, DNS_MAX + 1)?.get(..length).ok_or(Malformed)?;
    Ok(Dns { connection, incoming, cut: total > length, message })
}

/// Addresses of IPv4 in IPv6's clothes are IPv4's.
fn address(family: u16, bytes: [u8; 16]) -> IpAddr {
    if family == AF_INET6 {
        return Ipv6Addr::from(bytes).to_canonical();
    }
    let [a, b, c, d, ..] = bytes;
    Ipv4Addr::new(a, b, c, d).into()
}
