//! The interfaces of this network namespace, and the traffic control of kernels before 6.6.
//!
//! From 6.6 on programs hang on an interface by links of their own (tcx). Before, they are filters
//! below a `clsact` queue that the interface may or may not have: one that was made here is taken
//! away again, but only when nobody else put a filter on it. Nobody else's filters are touched.

use std::io;

use super::netlink::{self, ACK, CREATE, DUMP, EXCLUSIVE, Messages, ROUTE};

/// The multicast group that tells of interfaces (`RTMGRP_LINK`).
pub(super) const LINK_GROUP: u32 = 1;

const GET_LINK: u16 = 18;
const NEW_QDISC: u16 = 36;
const DEL_QDISC: u16 = 37;
const GET_FILTER: u16 = 46;
const LINK_HEADER: usize = 16;
const TC_HEADER: usize = 20;
const IFLA_IFNAME: u16 = 3;
const TCA_KIND: u16 = 1;
const TCA_OPTIONS: u16 = 2;
const TCA_BPF_NAME: u16 = 7;
const TCA_BPF_ID: u16 = 11;
const CLSACT: u32 = 0xffff_fff1;
const CLSACT_HANDLE: u32 = 0xffff_0000;
/// Parents of the filters on the way in and out.
const PARENTS: [u32; 2] = [0xffff_fff2, 0xffff_fff3];
const IFF_LOOPBACK: u32 = 8;
/// `ARPHRD_ETHER`
const ETHERNET: u16 = 1;

/// An interface other than the loopback.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Interface {
    /// Its number.
    pub(super) index: u32,
    /// Its name now.
    pub(super) name: String,
    /// True when its packets begin with an Ethernet header, false when with an IP header.
    pub(super) framed: bool,
}

/// A filter that is an eBPF program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Filter {
    /// As its author called it.
    pub(super) name: String,
    /// Number of the program, 0 for a filter of another kind.
    pub(super) program: u32,
}

/// All interfaces but the loopback.
///
/// # Errors
/// The kernel's refusal.
pub(super) fn list() -> io::Result<Vec<Interface>> {
    let mut request = Messages::default();
    request.add(GET_LINK, DUMP, &[0; LINK_HEADER], |_| {});
    Ok(netlink::dump(ROUTE, &request)?.iter().filter_map(|body| interface(body)).collect())
}

fn interface(body: &[u8]) -> Option<Interface> {
    let header: &[u8; LINK_HEADER] = body.first_chunk()?;
    let word = |at: usize| header[at..at + 4].first_chunk().map(|word| u32::from_ne_bytes(*word));
    if word(8)? & IFF_LOOPBACK != 0 {
        return None;
    }
    Some(Interface {
        index: word(4)?,
        name: netlink::as_text(netlink::attribute(body, LINK_HEADER, IFLA_IFNAME)?),
        framed: u16::from_ne_bytes([header[2], header[3]]) == ETHERNET,
    })
}

fn tc_header(index: u32, handle: u32, parent: u32) -> [u8; TC_HEADER] {
    let mut header = [0; TC_HEADER];
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    header[8..12].copy_from_slice(&handle.to_ne_bytes());
    header[12..16].copy_from_slice(&parent.to_ne_bytes());
    header
}

/// Gives an interface a `clsact` queue; false when it has one (or an `ingress` queue, which
/// excludes it) already.
///
/// # Errors
/// The kernel's refusal.
pub(super) fn add_clsact(index: u32) -> io::Result<bool> {
    let mut request = Messages::default();
    let header = tc_header(index, CLSACT_HANDLE, CLSACT);
    request.add(NEW_QDISC, ACK | CREATE | EXCLUSIVE, &header, |all| all.text(TCA_KIND, "clsact"));
    match netlink::transact(ROUTE, &request) {
        Ok(()) => Ok(true),
        Err(error) if error.raw_os_error() == Some(libc::EEXIST) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Takes the `clsact` queue away when no filter is left on it.
///
/// # Errors
/// The kernel's refusal.
pub(super) fn remove_empty_clsact(index: u32) -> io::Result<()> {
    if filters(index, 0)?.is_empty() && filters(index, 1)?.is_empty() {
        let mut request = Messages::default();
        request.add(DEL_QDISC, ACK, &tc_header(index, CLSACT_HANDLE, CLSACT), |_| {});
        netlink::transact(ROUTE, &request)?;
    }
    Ok(())
}

/// All filters of an interface; `way` is 0 for in, 1 for out. Nothing when it has no queue.
///
/// # Errors
/// The kernel's refusal.
pub(super) fn filters(index: u32, way: usize) -> io::Result<Vec<Filter>> {
    let mut request = Messages::default();
    request.add(GET_FILTER, DUMP, &tc_header(index, 0, PARENTS[way]), |_| {});
    let bodies = netlink::dump(ROUTE, &request)?;
    // A filter's head comes without options; only what has a handle is a filter.
    let own = |body: &&Vec<u8>| body.get(8..12).is_some_and(|handle| handle != [0; 4]);
    Ok(bodies.iter().filter(own).map(|body| filter(body)).collect())
}

fn filter(body: &[u8]) -> Filter {
    let options = netlink::attribute(body, TC_HEADER, TCA_OPTIONS).unwrap_or_default();
    let program = netlink::attribute(options, 0, TCA_BPF_ID).and_then(<[u8]>::first_chunk);
    Filter {
        name: netlink::attribute(options, 0, TCA_BPF_NAME)
            .map(netlink::as_text)
            .unwrap_or_default(),
        program: program.map_or(0, |id| u32::from_ne_bytes(*id)),
    }
}
