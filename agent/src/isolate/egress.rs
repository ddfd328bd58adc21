//! The lowest layer on the way out: an nftables table of our own with one chain on the egress hook
//! of each interface (Linux 5.16 and later).
//!
//! It sees what goes past the queues and their programs: packet sockets with
//! `PACKET_QDISC_BYPASS`, with a transmit ring or without. It allows what the eBPF programs allow
//! on the way out, by the bytes of the frame alone. Spoken over netlink, so that no program `nft`
//! is needed and each change is one transaction. Only the table of this name is ever read or
//! changed. In it, each interface's chain goes to the common chain of its kind, which ends in
//! "count and drop".

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, SocketAddr};

use super::links::Interface;
use super::netlink::{self, APPEND, Attributes, CREATE, DUMP, Messages, NETFILTER};

/// The multicast group that tells of changed rules (`NFNLGRP_NFTABLES`).
pub(super) const RULES_GROUP: u32 = 1 << 6;

const TABLE: &str = "holdfast_isolation";
const NETDEV: u8 = 5;
const SUBSYSTEM: u16 = 10 << 8;
const BATCH_BEGIN: u16 = 16;
const BATCH_END: u16 = 17;
const NEW_TABLE: u16 = SUBSYSTEM;
const DEL_TABLE: u16 = SUBSYSTEM | 2;
const NEW_CHAIN: u16 = SUBSYSTEM | 3;
const GET_CHAIN: u16 = SUBSYSTEM | 4;
const DEL_CHAIN: u16 = SUBSYSTEM | 5;
const NEW_RULE: u16 = SUBSYSTEM | 6;
const GET_RULE: u16 = SUBSYSTEM | 7;
const HEADER: usize = 4;
const EGRESS: u32 = 1;
/// Before everybody else's chains.
const PRIORITY: i32 = -500;
const DROP: u32 = 0;
const ACCEPT: u32 = 1;
/// `NFT_GOTO`
const GOTO: u32 = -4_i32 as u32;
const REGISTER: u32 = 1;
const LINK_LAYER: u32 = 0;
const NETWORK_LAYER: u32 = 1;
const META_LENGTH: u32 = 0;
const EQUAL: u32 = 0;
const AT_MOST: u32 = 3;
const AT_LEAST: u32 = 5;

const FRAMED: &str = "framed";
const PLAIN: &str = "plain";

/// What may leave.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Allowed {
    /// By TCP.
    pub(super) endpoints: Vec<SocketAddr>,
    /// DHCP servers, and the addresses that clients ask them at.
    pub(super) dhcp: Vec<IpAddr>,
}

/// Puts the table in force for these interfaces, in one transaction; a table that stands is
/// replaced without a gap.
///
/// # Errors
/// The kernel's refusal; nothing was changed then. `EOPNOTSUPP` where it has no egress hook.
pub(super) fn apply(interfaces: &[Interface], allowed: &Allowed) -> io::Result<()> {
    let mut batch = Batch::new();
    // Made first, so that taking it away cannot fail.
    batch.table(NEW_TABLE);
    batch.table(DEL_TABLE);
    batch.table(NEW_TABLE);
    for (chain, frames) in [(FRAMED, true), (PLAIN, false)] {
        batch.chain(chain, None);
        policy(&mut batch, chain, frames, allowed);
    }
    for interface in interfaces {
        batch.interface(interface);
    }
    batch.commit()
}

/// Adds the chains of interfaces that are new.
///
/// # Errors
/// The kernel's refusal; nothing was changed then.
pub(super) fn add(interfaces: &[&Interface]) -> io::Result<()> {
    let mut batch = Batch::new();
    for interface in interfaces {
        batch.interface(interface);
    }
    batch.commit()
}

/// Takes away the chains of interfaces that are gone. Kernels before 6.16 do so themselves.
///
/// # Errors
/// The kernel's refusal; nothing was changed then.
pub(super) fn forget(chains: &[String]) -> io::Result<()> {
    let mut batch = Batch::new();
    for chain in chains {
        let name = |all: &mut Attributes<'_>| {
            all.text(1, TABLE);
            all.text(3, chain);
        };
        batch.messages.add(DEL_CHAIN, 0, &header(NETDEV, 0), name);
    }
    batch.commit()
}

/// Takes the table away; true when there was one.
///
/// # Errors
/// The kernel's refusal.
pub(super) fn remove() -> io::Result<bool> {
    let mut batch = Batch::new();
    batch.table(DEL_TABLE);
    match batch.commit() {
        Ok(()) => Ok(true),
        // No table, no nftables.
        Err(error)
            if matches!(
                error.raw_os_error(),
                Some(libc::ENOENT | libc::EINVAL | libc::EPROTONOSUPPORT | libc::EOPNOTSUPP)
            ) =>
        {
            Ok(false)
        }
        Err(error) => Err(error),
    }
}

/// The table as it stands.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Standing {
    /// Names of all chains.
    pub(super) chains: BTreeSet<String>,
    /// Handles of all rules: one that was replaced has another.
    pub(super) rules: BTreeSet<u64>,
    /// Packets and bytes that were dropped.
    pub(super) dropped: (u64, u64),
}

/// What stands in the table.
///
/// # Errors
/// The kernel's refusal.
pub(super) fn standing() -> io::Result<Standing> {
    let mut standing = Standing::default();
    let of_table = |body: &[u8]| {
        netlink::attribute(body, HEADER, 1).is_some_and(|table| netlink::as_text(table) == TABLE)
    };
    let mut request = Messages::default();
    request.add(GET_CHAIN, DUMP, &header(NETDEV, 0), |_| {});
    for body in netlink::dump(NETFILTER, &request)?.iter().filter(|body| of_table(body)) {
        standing.chains.extend(netlink::attribute(body, HEADER, 3).map(netlink::as_text));
    }
    let mut request = Messages::default();
    request.add(GET_RULE, DUMP, &header(NETDEV, 0), |all| all.text(1, TABLE));
    for body in netlink::dump(NETFILTER, &request)?.iter().filter(|body| of_table(body)) {
        let handle = netlink::attribute(body, HEADER, 3).and_then(<[u8]>::first_chunk);
        standing.rules.extend(handle.map(|handle| u64::from_be_bytes(*handle)));
        let (packets, bytes) = counted(body).unwrap_or_default();
        standing.dropped.0 += packets;
        standing.dropped.1 += bytes;
    }
    Ok(standing)
}

/// Name of an interface's chain.
pub(super) fn chain_of(index: u32) -> String {
    format!("out_{index}")
}

/// The number of the interface that a chain is of.
pub(super) fn index_of(chain: &str) -> Option<u32> {
    chain.strip_prefix("out_")?.parse().ok()
}

/// Packets and bytes of a rule's counter.
fn counted(rule: &[u8]) -> Option<(u64, u64)> {
    let expressions = netlink::attribute(rule, HEADER, 4)?;
    let counter = netlink::attributes(expressions, 0).find_map(|(_, expression)| {
        let name = netlink::as_text(netlink::attribute(expression, 0, 1)?);
        (name == "counter").then(|| netlink::attribute(expression, 0, 2)).flatten()
    })?;
    let number = |kind| {
        let value: &[u8; 8] = netlink::attribute(counter, 0, kind)?.first_chunk()?;
        Some(u64::from_be_bytes(*value))
    };
    Some((number(2)?, number(1)?))
}

fn header(family: u8, resource: u16) -> [u8; 4] {
    let [high, low] = resource.to_be_bytes();
    [family, 0, high, low]
}

/// Changes that come into force together or not at all.
struct Batch {
    messages: Messages,
}

impl Batch {
    fn new() -> Self {
        let mut messages = Messages::default();
        messages.add(BATCH_BEGIN, 0, &header(0, SUBSYSTEM >> 8), |_| {});
        Self { messages }
    }

    fn table(&mut self, kind: u16) {
        let flags = if kind == NEW_TABLE { CREATE } else { 0 };
        self.messages.add(kind, flags, &header(NETDEV, 0), |all| all.text(1, TABLE));
    }

    fn chain(&mut self, name: &str, device: Option<&str>) {
        self.messages.add(NEW_CHAIN, CREATE, &header(NETDEV, 0), |all| {
            all.text(1, TABLE);
            all.text(3, name);
            let Some(device) = device else { return };
            all.nest(4, |hook| {
                hook.number(1, EGRESS);
                hook.bytes(2, &PRIORITY.to_be_bytes());
                hook.text(3, device);
            });
            // Also when somebody empties the chain.
            all.number(5, DROP);
            all.text(7, "filter");
        });
    }

    fn interface(&mut self, interface: &Interface) {
        let chain = chain_of(interface.index);
        self.chain(&chain, Some(&interface.name));
        let to = if interface.framed { FRAMED } else { PLAIN };
        self.rule(&chain, |rule| rule.verdict(GOTO, Some(to)));
    }

    fn rule(&mut self, chain: &str, fill: impl FnOnce(&mut Rule<'_, '_>)) {
        self.messages.add(NEW_RULE, CREATE | APPEND, &header(NETDEV, 0), |all| {
            all.text(1, TABLE);
            all.text(2, chain);
            all.nest(4, |expressions| fill(&mut Rule(expressions)));
        });
    }

    /// The batch's end is not acknowledged by older kernels: the last change is waited for.
    fn commit(mut self) -> io::Result<()> {
        if self.messages.count() == 1 {
            return Ok(());
        }
        self.messages.acknowledge_last();
        let mut end = Messages::default();
        end.add(BATCH_END, 0, &header(0, SUBSYSTEM >> 8), |_| {});
        netlink::transact_batch(NETFILTER, &self.messages, &end)
    }
}

/// The expressions of one rule, in order.
struct Rule<'a, 'b>(&'a mut Attributes<'b>);

impl Rule<'_, '_> {
    fn expression(&mut self, name: &str, fill: impl FnOnce(&mut Attributes<'_>)) {
        self.0.nest(1, |expression| {
            expression.text(1, name);
            expression.nest(2, fill);
        });
    }

    fn load(&mut self, base: u32, offset: u32, length: usize) {
        self.expression("payload", |all| {
            all.number(1, REGISTER);
            all.number(2, base);
            all.number(3, offset);
            all.number(4, length as u32);
        });
    }

    fn compare(&mut self, how: u32, value: &[u8]) {
        self.expression("cmp", |all| {
            all.number(1, REGISTER);
            all.number(2, how);
            all.nest(3, |data| data.bytes(1, value));
        });
    }

    fn mask(&mut self, mask: &[u8]) {
        self.expression("bitwise", |all| {
            all.number(1, REGISTER);
            all.number(2, REGISTER);
            all.number(3, mask.len() as u32);
            all.nest(4, |data| data.bytes(1, mask));
            all.nest(5, |data| data.bytes(1, &vec![0; mask.len()]));
        });
    }

    fn equal(&mut self, base: u32, offset: u32, value: &[u8]) {
        self.load(base, offset, value.len());
        self.compare(EQUAL, value);
    }

    /// The whole packet, its link layer included.
    fn length_at_most(&mut self, length: u32) {
        self.expression("meta", |all| {
            all.number(1, REGISTER);
            all.number(2, META_LENGTH);
        });
        self.expression("byteorder", |all| {
            all.number(1, REGISTER);
            all.number(2, REGISTER);
            all.number(3, 1);
            all.number(4, 4);
            all.number(5, 4);
        });
        self.compare(AT_MOST, &length.to_be_bytes());
    }

    fn count(&mut self) {
        self.expression("counter", |_| {});
    }

    fn verdict(&mut self, code: u32, chain: Option<&str>) {
        self.expression("immediate", |all| {
            all.number(1, 0);
            all.nest(2, |data| {
                data.nest(2, |verdict| {
                    verdict.number(1, code);
                    if let Some(chain) = chain {
                        verdict.text(2, chain);
                    }
                });
            });
        });
    }
}

/// The rules that all interfaces of a kind share; the last one drops.
fn policy(batch: &mut Batch, chain: &str, frames: bool, allowed: &Allowed) {
    // A frame's type may follow a VLAN tag that the kernel keeps beside the packet; nftables
    // shows it where it will be on the wire.
    let shapes: &[Shape] = if frames { &FRAMES } else { &[PACKET] };
    for shape in shapes {
        if frames {
            link_rules(batch, chain, shape);
        }
        for endpoint in &allowed.endpoints {
            endpoint_rule(batch, chain, shape, *endpoint);
        }
        for server in &allowed.dhcp {
            dhcp_rule(batch, chain, shape, *server);
        }
        neighbour_rules(batch, chain, shape, &allowed.endpoints);
    }
    batch.rule(chain, |rule| {
        rule.count();
        rule.verdict(DROP, None);
    });
}

/// Where the IP header begins, and what must stand before it.
struct Shape {
    base: u32,
    network: u32,
    tagged: bool,
    framed: bool,
}

const FRAMES: [Shape; 2] = [
    Shape { base: LINK_LAYER, network: 14, tagged: false, framed: true },
    Shape { base: LINK_LAYER, network: 18, tagged: true, framed: true },
];
const PACKET: Shape = Shape { base: NETWORK_LAYER, network: 0, tagged: false, framed: false };

impl Shape {
    fn of_type(&self, rule: &mut Rule<'_, '_>, kind: u16) {
        if self.tagged {
            rule.equal(LINK_LAYER, 12, &[0x81, 0x00]);
        }
        if self.framed {
            rule.equal(LINK_LAYER, self.network - 2, &kind.to_be_bytes());
        }
    }

    fn equal(&self, rule: &mut Rule<'_, '_>, offset: u32, value: &[u8]) {
        rule.equal(self.base, self.network + offset, value);
    }

    /// IPv4 without options and in one piece, of this protocol.
    fn ipv4(&self, rule: &mut Rule<'_, '_>, protocol: u8) {
        self.of_type(rule, 0x0800);
        self.equal(rule, 0, &[0x45]);
        rule.load(self.base, self.network + 6, 2);
        rule.mask(&[0x3f, 0xff]);
        rule.compare(EQUAL, &[0, 0]);
        self.equal(rule, 9, &[protocol]);
    }

    /// IPv6 of this next header.
    fn ipv6(&self, rule: &mut Rule<'_, '_>, next: u8) {
        self.of_type(rule, 0x86dd);
        rule.load(self.base, self.network, 1);
        rule.mask(&[0xf0]);
        rule.compare(EQUAL, &[0x60]);
        self.equal(rule, 6, &[next]);
    }
}

/// ARP that carries nothing else; link aggregation to its own address.
fn link_rules(batch: &mut Batch, chain: &str, shape: &Shape) {
    batch.rule(chain, |rule| {
        shape.of_type(rule, 0x0806);
        rule.length_at_most(64);
        rule.verdict(ACCEPT, None);
    });
    batch.rule(chain, |rule| {
        rule.equal(LINK_LAYER, 0, &[0x01, 0x80, 0xc2, 0, 0, 2]);
        shape.of_type(rule, 0x8809);
        rule.length_at_most(132);
        rule.verdict(ACCEPT, None);
    });
}

fn endpoint_rule(batch: &mut Batch, chain: &str, shape: &Shape, endpoint: SocketAddr) {
    let port = endpoint.port().to_be_bytes();
    batch.rule(chain, |rule| {
        match endpoint.ip() {
            IpAddr::V4(address) => {
                shape.ipv4(rule, 6);
                shape.equal(rule, 16, &address.octets());
                shape.equal(rule, 22, &port);
            }
            IpAddr::V6(address) => {
                shape.ipv6(rule, 6);
                shape.equal(rule, 24, &address.octets());
                shape.equal(rule, 42, &port);
            }
        }
        rule.verdict(ACCEPT, None);
    });
}

fn dhcp_rule(batch: &mut Batch, chain: &str, shape: &Shape, server: IpAddr) {
    batch.rule(chain, |rule| {
        match server {
            IpAddr::V4(address) => {
                shape.ipv4(rule, 17);
                shape.equal(rule, 16, &address.octets());
                shape.equal(rule, 20, &[0, 68, 0, 67]);
            }
            IpAddr::V6(address) => {
                shape.ipv6(rule, 17);
                shape.equal(rule, 24, &address.octets());
                shape.equal(rule, 40, &[2, 34, 2, 35]);
            }
        }
        rule.verdict(ACCEPT, None);
    });
}

/// Neighbour discovery to the link, and to the endpoints as neighbours.
fn neighbour_rules(batch: &mut Batch, chain: &str, shape: &Shape, endpoints: &[SocketAddr]) {
    let mut near: Vec<(Vec<u8>, Option<[u8; 2]>)> =
        vec![(vec![0xff, 0x02], None), (vec![0xfe, 0x80], Some([0xff, 0xc0]))];
    for endpoint in endpoints {
        if let IpAddr::V6(address) = endpoint.ip() {
            near.push((address.octets().to_vec(), None));
        }
    }
    for (destination, mask) in near {
        batch.rule(chain, |rule| {
            shape.ipv6(rule, 58);
            shape.equal(rule, 7, &[255]);
            rule.load(shape.base, shape.network + 40, 1);
            rule.compare(AT_LEAST, &[133]);
            rule.compare(AT_MOST, &[136]);
            rule.load(shape.base, shape.network + 24, destination.len());
            if let Some(mask) = mask {
                rule.mask(&mask);
            }
            rule.compare(EQUAL, &destination);
            rule.length_at_most(shape.network + 128);
            rule.verdict(ACCEPT, None);
        });
    }
}
