//! The fallback for packet and raw sockets: `/proc/net/packet`, `raw` and `raw6` in every network
//! namespace.
//!
//! Finds what no program saw: sockets that were open before the agent, that were made through
//! io_uring, that were passed between processes, or on a kernel that refuses the programs.
//! A socket that lives for less than one round is missed. Each inode is reported once.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use super::decode::network::{family_name, type_name};
use super::proc::read_file;

const LISTING_MAX: u64 = 4 << 20;
/// Inodes remembered from the programs' records between two rounds.
const SEEN_MAX: usize = 65_536;
const AF_INET: u32 = 2;
const AF_INET6: u32 = 10;
const AF_PACKET: u32 = 17;
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
}

impl Seen {
    /// A program reported this socket with this protocol.
    pub(super) fn note(&self, inode: u64, protocol: u32) {
        let mut inodes = self.inodes.lock().unwrap_or_else(PoisonError::into_inner);
        if inode != 0 && inodes.len() < SEEN_MAX {
            inodes.insert((inode, protocol));
        }
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

/// One round over all network namespaces. Does not block on any process.
pub(super) fn round(seen: &Seen, first: &[u32]) -> Vec<Found> {
    let mut pids = first.to_vec();
    pids.extend(super::table::pids());
    let mut listed = Vec::new();
    for pid in one_of_each_namespace(&pids) {
        let listing = |name: &str| {
            let path = format!("/proc/{pid}/net/{name}");
            read_file(Path::new(&path), LISTING_MAX).unwrap_or_default()
        };
        listed.extend(parse(&listing("packet")));
        listed.extend(parse_raw(&listing("raw"), AF_INET));
        listed.extend(parse_raw(&listing("raw6"), AF_INET6));
    }
    let fresh = seen.update(&listed);
    if fresh.is_empty() {
        return Vec::new();
    }
    attribute(fresh, &pids)
}

/// The lowest pid of each network namespace that any process is in.
fn one_of_each_namespace(pids: &[u32]) -> Vec<u32> {
    let mut namespaces: HashMap<PathBuf, u32> = HashMap::new();
    for pid in pids {
        if let Ok(namespace) = std::fs::read_link(format!("/proc/{pid}/ns/net")) {
            namespaces.entry(namespace).or_insert(*pid);
        }
    }
    namespaces.into_values().collect()
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

/// The number in `socket:[12345]`.
fn inode_of(target: &Path) -> Option<u64> {
    target.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
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
    fn only_socket_links_have_a_socket_inode() {
        assert_eq!(inode_of(Path::new("socket:[77]")), Some(77));
        assert_eq!(inode_of(Path::new("pipe:[77]")), None);
        assert_eq!(inode_of(Path::new("socket:[x]")), None);
    }
}
