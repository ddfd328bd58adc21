//! The fallback for packet and raw sockets: `/proc/net/packet`, `raw` and `raw6` in every network
//! namespace.
//!
//! Finds what no program saw: sockets that were open before the agent, that were made through
//! io_uring, that were passed between processes, or on a kernel that refuses the programs.
//! A socket that lives for less than one round is missed. Each inode is reported once.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};

use super::decode::network::{family_name, type_name};
use super::namespaces::Namespace;
use super::proc::read_file;

const LISTING_MAX: u64 = 4 << 20;
/// Inodes remembered from the programs' records between two rounds.
const SEEN_MAX: usize = 65_536;
const AF_INET: u32 = 2;
const AF_INET6: u32 = 10;
const AF_NETLINK: u32 = 16;
const AF_PACKET: u32 = 17;
const AF_XDP: u32 = 44;
const NETLINK_NETFILTER: u32 = 12;
const SOCK_RAW: u32 = 3;

/// One line of a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Listed {
    /// `AF_PACKET`, `AF_INET` or `AF_INET6`, as a number.
    pub family: u32,
    /// Inode number of the socket.
    pub inode: u64,
    /// Socket type.
    pub socket_type: u32,
    /// EtherType in host order.
    pub protocol: u32,
    /// Interface index, 0 for all.
    pub interface: u32,
}

/// A socket that no program reported, and who holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Found {
    /// The process; the one with the lowest pid when several hold it.
    pub pid: u32,
    /// `AF_PACKET`
    pub family: String,
    /// `SOCK_RAW`…
    pub socket_type: String,
    /// The line.
    pub listed: Listed,
}

/// Inodes that were reported already.
#[derive(Default)]
pub(super) struct Seen {
    inodes: Mutex<HashSet<(u64, u32)>>,
    /// Of AF_XDP, which no listing has.
    xdp: Mutex<HashSet<u64>>,
}

impl Seen {
    /// A program reported this socket with this protocol.
    pub(super) fn note(&self, inode: u64, protocol: u32) {
        let mut inodes = self.inodes.lock().unwrap_or_else(PoisonError::into_inner);
        if inode != 0 && inodes.len() < SEEN_MAX {
            inodes.insert((inode, protocol));
        }
    }

    /// True for the first time.
    fn is_new_xdp(&self, inode: u64) -> bool {
        let known =
            self.inodes.lock().unwrap_or_else(PoisonError::into_inner).contains(&(inode, 0));
        let mut xdp = self.xdp.lock().unwrap_or_else(PoisonError::into_inner);
        if xdp.len() >= SEEN_MAX {
            xdp.clear();
        }
        xdp.insert(inode) && !known
    }

    /// Keeps those that are still listed, and returns the listed ones that are new.
    fn update(&self, listed: &[Listed]) -> Vec<Listed> {
        let mut inodes = self.inodes.lock().unwrap_or_else(PoisonError::into_inner);
        let now: HashSet<(u64, u32)> =
            listed.iter().map(|line| (line.inode, line.protocol)).collect();
        let fresh = listed.iter().filter(|line| !inodes.contains(&(line.inode, line.protocol)));
        let fresh = fresh.cloned().collect();
        *inodes = now;
        fresh
    }
}

/// One round over all network namespaces, which are returned too. Does not block on any process.
pub(super) fn round(seen: &Seen, first: &[u32]) -> (Vec<Found>, Vec<Namespace>) {
    let mut pids = first.to_vec();
    pids.extend(super::table::pids());
    let mut listed = Vec::new();
    let namespaces = one_of_each_namespace(&pids);
    for Namespace { pid, .. } in &namespaces {
        let listing = |name: &str| {
            let path = format!("/proc/{pid}/net/{name}");
            read_file(Path::new(&path), LISTING_MAX).unwrap_or_default()
        };
        listed.extend(parse(&listing("packet")));
        listed.extend(parse_raw(&listing("raw"), AF_INET));
        listed.extend(parse_raw(&listing("raw6"), AF_INET6));
        let loggers = listing("netfilter/nfnetlink_log");
        if !loggers.is_empty() {
            listed.extend(parse_nflog(&loggers, &listing("netlink")));
        }
    }
    let mut xdp = xdp_sockets(seen, first);
    let fresh = seen.update(&listed);
    if !fresh.is_empty() {
        xdp.extend(attribute(fresh, &pids));
    }
    (xdp, namespaces)
}

/// The first process of each network namespace that any is in.
fn one_of_each_namespace(pids: &[u32]) -> Vec<Namespace> {
    let mut namespaces: HashMap<u64, u32> = HashMap::new();
    for pid in pids {
        if let Some(inode) = namespace_of(*pid) {
            namespaces.entry(inode).or_insert(*pid);
        }
    }
    namespaces.into_iter().map(|(inode, pid)| Namespace { inode, pid }).collect()
}

/// The inode of a process's network namespace.
pub(super) fn namespace_of(pid: u32) -> Option<u64> {
    let link = std::fs::read_link(format!("/proc/{pid}/ns/net")).ok()?;
    number_in(&link, "net:[")
}

fn attribute(fresh: Vec<Listed>, pids: &[u32]) -> Vec<Found> {
    let mut open: HashMap<u64, Listed> = fresh.into_iter().map(|line| (line.inode, line)).collect();
    let mut found = Vec::new();
    for pid in pids {
        let Ok(descriptors) = std::fs::read_dir(format!("/proc/{pid}/fd")) else { continue };
        for descriptor in descriptors.flatten() {
            let Ok(target) = std::fs::read_link(descriptor.path()) else { continue };
            let Some(listed) = inode_of(&target).and_then(|inode| open.remove(&inode)) else {
                continue;
            };
            found.push(Found {
                pid: *pid,
                family: family_name(listed.family),
                socket_type: type_name(listed.socket_type),
                listed,
            });
            if open.is_empty() {
                return found;
            }
        }
    }
    found
}

/// AF_XDP sockets of processes that have just used CAP_NET_RAW. No listing has them; a copy of
/// each socket's descriptor (pidfd_getfd(2), Linux 5.6) tells its family.
fn xdp_sockets(seen: &Seen, pids: &[u32]) -> Vec<Found> {
    let mut found = Vec::new();
    for pid in pids {
        let Some(process) = i32::try_from(*pid).ok().and_then(Pid::from_raw) else { continue };
        let Ok(process) = pidfd_open(process, PidfdFlags::empty()) else { continue };
        let Ok(descriptors) = std::fs::read_dir(format!("/proc/{pid}/fd")) else { continue };
        for descriptor in descriptors.flatten() {
            let Ok(target) = std::fs::read_link(descriptor.path()) else { continue };
            let number = descriptor.file_name().to_str().and_then(|name| name.parse().ok());
            let (Some(inode), Some(number)) = (inode_of(&target), number) else { continue };
            let copy = pidfd_getfd(&process, number, PidfdGetfdFlags::empty());
            let family = copy.and_then(|copy| rustix::net::sockopt::socket_domain(&copy));
            let is_xdp = family.is_ok_and(|family| u32::from(family.as_raw()) == AF_XDP);
            if is_xdp && seen.is_new_xdp(inode) {
                let listed = Listed {
                    family: AF_XDP,
                    inode,
                    socket_type: SOCK_RAW,
                    protocol: 0,
                    interface: 0,
                };
                let (family, socket_type) = (family_name(AF_XDP), type_name(SOCK_RAW));
                found.push(Found { pid: *pid, family, socket_type, listed });
            }
        }
    }
    found
}

/// Who listens on which TCP port, in each network namespace: namespace, port, pid.
pub(super) fn listeners() -> Vec<((u32, u16), u32)> {
    let pids = super::table::pids();
    let mut places: HashMap<u64, (u32, u16)> = HashMap::new();
    let mut listed = Vec::new();
    for Namespace { inode, pid } in one_of_each_namespace(&pids) {
        let namespace = u32::try_from(inode).ok();
        for name in ["tcp", "tcp6"] {
            let path = format!("/proc/{pid}/net/{name}");
            let listing = read_file(Path::new(&path), LISTING_MAX).unwrap_or_default();
            for (inode, port) in parse_listening(&listing) {
                places.insert(inode, (namespace.unwrap_or(0), port));
                let (family, socket_type) = (AF_INET, 1);
                listed.push(Listed { family, inode, socket_type, protocol: 0, interface: 0 });
            }
        }
    }
    if listed.is_empty() {
        return Vec::new();
    }
    let found = attribute(listed, &pids).into_iter();
    found.filter_map(|found| Some((*places.get(&found.listed.inode)?, found.pid))).collect()
}

/// Inode and port of each line in state 0A (listening).
fn parse_listening(listing: &[u8]) -> Vec<(u64, u16)> {
    let text = String::from_utf8_lossy(listing);
    let line = |line: &str| {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        let (_, port) = fields.get(1)?.split_once(':')?;
        (*fields.get(3)? == "0A").then_some(())?;
        Some((fields.get(9)?.parse().ok()?, u16::from_str_radix(port, 16).ok()?))
    };
    text.lines().skip(1).filter_map(line).collect()
}

/// Netlink sockets that get the packets of an nflog group. Columns of the first: `group portid
/// qlen …`, without a heading; of the second: `sk Eth Pid Groups Rmem Wmem Dump Locks Drops Inode`.
fn parse_nflog(loggers: &[u8], netlink: &[u8]) -> Vec<Listed> {
    let sockets = String::from_utf8_lossy(netlink);
    let inode_of = |portid: u32| {
        sockets.lines().skip(1).find_map(|line| {
            let fields: Vec<&str> = line.split_ascii_whitespace().collect();
            let family: u32 = fields.get(1)?.parse().ok()?;
            let owner: u32 = fields.get(2)?.parse().ok()?;
            (family == NETLINK_NETFILTER && owner == portid).then_some(())?;
            fields.get(9)?.parse().ok()
        })
    };
    let text = String::from_utf8_lossy(loggers);
    let line = |line: &str| {
        let mut fields = line.split_ascii_whitespace();
        let (group, portid) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
        Some(Listed {
            family: AF_NETLINK,
            inode: inode_of(portid)?,
            socket_type: SOCK_RAW,
            protocol: NETLINK_NETFILTER,
            interface: group,
        })
    };
    text.lines().filter_map(line).collect()
}

/// The number in `socket:[12345]`.
fn inode_of(target: &Path) -> Option<u64> {
    number_in(target, "socket:[")
}

fn number_in(target: &Path, before: &str) -> Option<u64> {
    target.to_str()?.strip_prefix(before)?.strip_suffix(']')?.parse().ok()
}

/// Columns: `sk RefCnt Type Proto Iface R Rmem User Inode`.
fn parse(listing: &[u8]) -> Vec<Listed> {
    let text = String::from_utf8_lossy(listing);
    let line = |line: &str| {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        Some(Listed {
            family: AF_PACKET,
            socket_type: fields.get(2)?.parse().ok()?,
            protocol: u32::from_str_radix(fields.get(3)?, 16).ok()?,
            interface: fields.get(4)?.parse().ok()?,
            inode: fields.get(8)?.parse().ok()?,
        })
    };
    text.lines().skip(1).filter_map(line).collect()
}

/// Columns: `sl local rem st tx:rx tr:when retrnsmt uid timeout inode …`; the port of the local
/// address is the protocol.
fn parse_raw(listing: &[u8], family: u32) -> Vec<Listed> {
    let text = String::from_utf8_lossy(listing);
    let line = |line: &str| {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        let (_, protocol) = fields.get(1)?.split_once(':')?;
        Some(Listed {
            family,
            socket_type: SOCK_RAW,
            protocol: u32::from_str_radix(protocol, 16).ok()?,
            interface: 0,
            inode: fields.get(9)?.parse().ok()?,
        })
    };
    text.lines().skip(1).filter_map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LISTING: &[u8] = b"sk       RefCnt Type Proto  Iface R Rmem   User   Inode\n\
          0000000000000000 3      3    0003   2     1 0      0      42103\n\
          0000000000000000 3      2    0806   0     1 0      0      42104\n\
          broken\n";

    #[test]
    fn a_listing_is_read_line_by_line_and_broken_lines_are_left_out() {
        let lines = parse(LISTING);
        assert_eq!(lines.len(), 2);
        let first =
            Listed { family: AF_PACKET, inode: 42103, socket_type: 3, protocol: 3, interface: 2 };
        assert_eq!(lines[0], first);
        assert_eq!(lines[1].protocol, 0x806);
    }

    #[test]
    fn a_socket_is_new_once_for_each_protocol_and_forgotten_when_it_closes() {
        let seen = Seen::default();
        seen.note(42103, 3);
        let lines = parse(LISTING);
        assert_eq!(seen.update(&lines).len(), 1, "the program reported the other");
        assert!(seen.update(&lines).is_empty());
        assert!(seen.update(&[]).is_empty());
        assert_eq!(seen.update(&lines).len(), 2, "the numbers were reused");
    }

    #[test]
    fn raw_sockets_are_listed_with_their_protocol() {
        let listing =
            b"  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt\
            \x20  uid  timeout inode ref pointer drops\n\
            \x20  1: 00000000:0001 00000000:0000 07 00000000:00000000 00:00000000 00000000\
            \x20    0        0 9171 2 0000000000000000 0\nbroken\n";
        let lines = parse_raw(listing, AF_INET);
        let ping =
            Listed { family: AF_INET, socket_type: 3, protocol: 1, interface: 0, inode: 9171 };
        assert_eq!(lines, [ping]);
    }

    #[test]
    fn listeners_and_loggers_are_found_in_their_listings() {
        let tcp = b"  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt\
            \x20  uid  timeout inode\n\
            \x20  0: 0100007F:0016 00000000:0000 0A 00000000:00000000 00:00000000 00000000\
            \x20    0        0 777 1\n\
            \x20  1: 0100007F:0017 0100007F:9999 01 00000000:00000000 00:00000000 00000000\
            \x20    0        0 778 1\nbroken\n";
        assert_eq!(parse_listening(tcp), [(777, 22)]);
        let netlink = b"sk               Eth Pid        Groups   Rmem     Wmem     Dump  Locks    Drops    Inode\n\
            0000000000000000 0   4242       00000000 0        0        0     2        0        10\n\
            0000000000000000 12  4242       00000000 0        0        0     2        0        11\n";
        let found = parse_nflog(b"    5   4242     0 2 65535    100  1\n    6 9 0\nx\n", netlink);
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].family, found[0].inode, found[0].interface), (AF_NETLINK, 11, 5));
    }

    #[test]
    fn only_socket_links_have_a_socket_inode() {
        assert_eq!(inode_of(Path::new("socket:[77]")), Some(77));
        assert_eq!(inode_of(Path::new("pipe:[77]")), None);
        assert_eq!(inode_of(Path::new("socket:[x]")), None);
    }
}
