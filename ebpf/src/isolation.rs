//! Isolation: drops every packet of the host but those that its policy names.
//!
//! An object of its own, so that it is loaded, attached and pinned apart from the sensor. Attached
//! means cut off: there is no switch. The same judgement stands at four places: where a socket of
//! the cgroup sends or receives, and where an interface sends or receives. It reads the bytes that
//! go to the wire, never what the sender says of them (`skb->protocol` is the sender's word for a
//! packet socket). Whatever cannot be read is dropped.
#![no_std]
#![no_main]

mod end;

use aya_ebpf::bindings::__sk_buff;
use aya_ebpf::helpers::generated::{bpf_get_current_ancestor_cgroup_id, bpf_skb_load_bytes};
use aya_ebpf::macros::{cgroup_skb, classifier, lsm, map};
use aya_ebpf::maps::{Array, HashMap, PerCpuArray};
use aya_ebpf::programs::{LsmContext, SkBuffContext, TcContext};
use holdfast_common::cut::{
    Count, Endpoint, HOOKS, Hook, MOST_DHCP, MOST_ENDPOINTS, Policy, REASONS, Reason, counter,
};

#[map]
static ENDPOINTS: HashMap<Endpoint, u32> = HashMap::with_max_entries(MOST_ENDPOINTS, 0);

/// The endpoints' addresses, whatever the port: their neighbour discovery is let through.
#[map]
static HOSTS: HashMap<[u8; 16], u32> = HashMap::with_max_entries(MOST_ENDPOINTS, 0);

/// DHCP servers, and where clients ask them: 255.255.255.255, ff02::1:2.
#[map]
static DHCP: HashMap<[u8; 16], u32> = HashMap::with_max_entries(MOST_DHCP, 0);

#[map]
static POLICY: Array<Policy> = Array::with_max_entries(1, 0);

#[map]
static COUNTS: PerCpuArray<Count> = PerCpuArray::with_max_entries((HOOKS * REASONS) as u32, 0);

/// `LOOPBACK_IFINDEX`: the same in every network namespace.
const LOOPBACK: u32 = 1;
/// `-EPERM`
const DENIED: i32 = -1;
const TC_ACT_SHOT: i32 = 2;
/// The next program or filter decides.
const TC_ACT_UNSPEC: i32 = -1;

const ETHERNET_HEADER: u32 = 14;
const VLAN_TAG: u32 = 4;
const IPV4: u16 = 0x0800;
const ARP: u16 = 0x0806;
const IPV6: u16 = 0x86dd;
const VLAN: u16 = 0x8100;
const VLAN_OUTER: u16 = 0x88a8;
const SLOW_PROTOCOLS: u16 = 0x8809;
/// Where LACP goes; no bridge forwards it.
const SLOW_ADDRESS: [u8; 6] = [0x01, 0x80, 0xc2, 0, 0, 2];
/// An Ethernet frame's least payload: an ARP packet has 28 bytes and is filled up to this.
const MOST_ARP: u32 = 46;
/// A link aggregation frame without its Ethernet header is 110 bytes long.
const MOST_SLOW: u32 = 114;
/// Longest neighbour discovery packet that is sent.
const MOST_NEIGHBOUR: u32 = 128;

const ICMP: u8 = 1;
const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMPV6: u8 = 58;
const FRAGMENT_HEADER: u8 = 44;
const SYN: u8 = 2;
const ACK: u8 = 16;

const AF_PACKET: i32 = 17;
const AF_XDP: i32 = 44;

#[derive(Clone, Copy, PartialEq)]
enum Way {
    Out,
    In,
}

/// A packet; offsets count from what the hook calls its data.
#[derive(Clone, Copy)]
struct Packet {
    skb: *mut __sk_buff,
    way: Way,
}

impl Packet {
    #[inline(always)]
    fn read<T: Copy + Default>(self, offset: u32) -> Option<T> {
        let mut value = T::default();
        // SAFETY: `value` has the size that is given; the helper checks the offset.
        let failed = unsafe {
            bpf_skb_load_bytes(
                self.skb.cast(),
                offset,
                core::ptr::from_mut(&mut value).cast(),
                size_of::<T>() as u32,
            )
        };
        if failed == 0 { Some(value) } else { None }
    }

    #[inline(always)]
    fn length(self) -> u32 {
        // SAFETY: the context of a running program is there.
        unsafe { (*self.skb).len }
    }

    #[inline(always)]
    fn interface(self) -> u32 {
        // SAFETY: as above.
        unsafe { (*self.skb).ifindex }
    }
}

/// A socket of the cgroup sends. 0 drops.
#[cgroup_skb(egress)]
pub fn cut_socket_out(context: SkBuffContext) -> i32 {
    at_socket(Packet { skb: context.skb.skb, way: Way::Out }, Hook::SocketOut)
}

/// A socket of the cgroup receives.
#[cgroup_skb(ingress)]
pub fn cut_socket_in(context: SkBuffContext) -> i32 {
    at_socket(Packet { skb: context.skb.skb, way: Way::In }, Hook::SocketIn)
}

/// An interface with Ethernet frames sends.
#[classifier]
pub fn cut_frame_out(context: TcContext) -> i32 {
    at_link(Packet { skb: context.skb.skb, way: Way::Out }, Hook::LinkOut, true)
}

/// An interface with Ethernet frames receives.
#[classifier]
pub fn cut_frame_in(context: TcContext) -> i32 {
    at_link(Packet { skb: context.skb.skb, way: Way::In }, Hook::LinkIn, true)
}

/// An interface without a link layer (tun, WireGuard, tunnels) sends.
#[classifier]
pub fn cut_plain_out(context: TcContext) -> i32 {
    at_link(Packet { skb: context.skb.skb, way: Way::Out }, Hook::LinkOut, false)
}

/// An interface without a link layer receives.
#[classifier]
pub fn cut_plain_in(context: TcContext) -> i32 {
    at_link(Packet { skb: context.skb.skb, way: Way::In }, Hook::LinkIn, false)
}

/// `LSM_HOOK(int, 0, socket_create, int family, int type, int protocol, int kern)`
///
/// No `AF_XDP`, which goes below everything above; no `AF_PACKET` where the policy says so.
#[lsm(hook = "socket_create")]
pub fn cut_socket_create(context: LsmContext) -> i32 {
    let (family, kernel): (i32, i32) = (context.arg(0), context.arg(3));
    let earlier: i32 = context.arg(4);
    if earlier != 0 || kernel != 0 {
        return earlier;
    }
    let Some(policy) = POLICY.get(0) else { return 0 };
    let wanted = family == AF_XDP || (family == AF_PACKET && policy.deny_packet_sockets != 0);
    if !wanted {
        return 0;
    }
    if policy.cgroup != 0 {
        // SAFETY: takes a number; 0 when the task's cgroup does not lie that deep.
        let own = unsafe { bpf_get_current_ancestor_cgroup_id(policy.cgroup_level as i32) };
        if own != policy.cgroup {
            return 0;
        }
    }
    count(Hook::SocketCreate, Reason::Other, 0);
    DENIED
}

#[inline(always)]
fn at_socket(packet: Packet, hook: Hook) -> i32 {
    let reason = if packet.interface() == LOOPBACK { Reason::Loopback } else { bare(packet) };
    count(hook, reason, packet.length());
    reason.lets_through() as i32
}

#[inline(always)]
fn at_link(packet: Packet, hook: Hook, framed: bool) -> i32 {
    let reason = if framed { frame(packet) } else { bare(packet) };
    count(hook, reason, packet.length());
    if reason.lets_through() { TC_ACT_UNSPEC } else { TC_ACT_SHOT }
}

#[inline(always)]
fn count(hook: Hook, reason: Reason, bytes: u32) {
    if let Some(count) = COUNTS.get_ptr_mut(counter(hook, reason)) {
        // SAFETY: this CPU's own element of a per-CPU array.
        let count = unsafe { &mut *count };
        count.packets += 1;
        count.bytes += u64::from(bytes);
    }
}

/// An Ethernet frame, with up to two VLAN tags in it.
#[inline(always)]
fn frame(packet: Packet) -> Reason {
    let Some(mut kind) = packet.read::<[u8; 2]>(12).map(u16::from_be_bytes) else {
        return Reason::Other;
    };
    let mut offset = ETHERNET_HEADER;
    if kind == VLAN || kind == VLAN_OUTER {
        let Some(inner) = packet.read::<[u8; 2]>(offset + 2) else { return Reason::Other };
        kind = u16::from_be_bytes(inner);
        offset += VLAN_TAG;
    }
    if kind == VLAN {
        let Some(inner) = packet.read::<[u8; 2]>(offset + 2) else { return Reason::Other };
        kind = u16::from_be_bytes(inner);
        offset += VLAN_TAG;
    }
    let length = packet.length().wrapping_sub(offset);
    match kind {
        IPV4 => ipv4(packet, offset),
        IPV6 => ipv6(packet, offset),
        ARP if length <= MOST_ARP => Reason::Neighbour,
        SLOW_PROTOCOLS if length <= MOST_SLOW => match packet.read::<[u8; 6]>(0) {
            Some(SLOW_ADDRESS) => Reason::Neighbour,
            _ => Reason::Other,
        },
        _ => Reason::Other,
    }
}

/// A packet that begins with its IP header.
#[inline(always)]
fn bare(packet: Packet) -> Reason {
    match packet.read::<u8>(0).map(|first| first >> 4) {
        Some(4) => ipv4(packet, 0),
        Some(6) => ipv6(packet, 0),
        _ => Reason::Other,
    }
}

#[inline(always)]
fn ipv4(packet: Packet, at: u32) -> Reason {
    let Some(header) = packet.read::<[u8; 20]>(at) else { return Reason::Other };
    let words = u32::from(header[0] & 15);
    if header[0] >> 4 != 4 || words < 5 {
        return Reason::Other;
    }
    if u16::from_be_bytes([header[6], header[7]]) & 0x3fff != 0 {
        return Reason::Fragment;
    }
    let other = match packet.way {
        Way::Out => [header[16], header[17], header[18], header[19]],
        Way::In => [header[12], header[13], header[14], header[15]],
    };
    let inside = at + words * 4;
    match header[9] {
        TCP => tcp(packet, inside, mapped(other), Reason::Ipv4),
        UDP => udp(packet, inside, mapped(other), [[0, 68], [0, 67]], Reason::Ipv4),
        ICMP if packet.way == Way::In => {
            // Fragmentation needed (3, 4): the packet that it is about follows.
            match packet.read::<[u8; 2]>(inside) {
                Some([3, 4]) => {}
                _ => return Reason::Ipv4,
            }
            let quoted = inside + 8;
            let Some(inner) = packet.read::<[u8; 20]>(quoted) else { return Reason::Ipv4 };
            let to = [inner[16], inner[17], inner[18], inner[19]];
            if inner[0] != 0x45 || inner[9] != TCP {
                return Reason::Ipv4;
            }
            quoted_tcp(packet, quoted + 20, mapped(to), Reason::Ipv4)
        }
        _ => Reason::Ipv4,
    }
}

#[inline(always)]
fn ipv6(packet: Packet, at: u32) -> Reason {
    let Some(header) = packet.read::<[u8; 8]>(at) else { return Reason::Other };
    if header[0] >> 4 != 6 {
        return Reason::Other;
    }
    let place = match packet.way {
        Way::Out => at + 24,
        Way::In => at + 8,
    };
    let Some(other) = packet.read::<[u8; 16]>(place) else { return Reason::Other };
    let inside = at + 40;
    match header[6] {
        TCP => tcp(packet, inside, other, Reason::Ipv6),
        // 546 and 547
        UDP => udp(packet, inside, other, [[2, 34], [2, 35]], Reason::Ipv6),
        ICMPV6 => icmpv6(packet, at, header[7], other),
        FRAGMENT_HEADER => Reason::Fragment,
        _ => Reason::Ipv6,
    }
}

/// Connections to an endpoint; none from it.
#[inline(always)]
fn tcp(packet: Packet, at: u32, address: [u8; 16], dropped: Reason) -> Reason {
    let Some(header) = packet.read::<[u8; 14]>(at) else { return dropped };
    let port = match packet.way {
        Way::Out => [header[2], header[3]],
        Way::In => [header[0], header[1]],
    };
    if packet.way == Way::In && header[13] & (SYN | ACK) == SYN {
        return dropped;
    }
    if is_endpoint(address, port) { Reason::Management } else { dropped }
}

/// The TCP header in an ICMP error, of which 8 bytes are sure to be there.
#[inline(always)]
fn quoted_tcp(packet: Packet, at: u32, address: [u8; 16], dropped: Reason) -> Reason {
    match packet.read::<[u8; 4]>(at) {
        Some(ports) if is_endpoint(address, [ports[2], ports[3]]) => Reason::PathMtu,
        _ => dropped,
    }
}

/// DHCP between the client's and the server's port.
#[inline(always)]
fn udp(packet: Packet, at: u32, address: [u8; 16], dhcp: [[u8; 2]; 2], dropped: Reason) -> Reason {
    let Some([s0, s1, d0, d1]) = packet.read::<[u8; 4]>(at) else { return dropped };
    let [client, server] = dhcp;
    let fits = match packet.way {
        Way::Out => [s0, s1] == client && [d0, d1] == server,
        Way::In => [s0, s1] == server && [d0, d1] == client,
    };
    if fits && DHCP.get_ptr(address).is_some() { Reason::Dhcp } else { dropped }
}

/// Neighbour discovery on the link, and the path MTU. A hop limit of 255 shows that a packet came
/// from this link; that one goes no further is shown by its destination alone.
#[inline(always)]
fn icmpv6(packet: Packet, at: u32, hop_limit: u8, other: [u8; 16]) -> Reason {
    let Some(kind) = packet.read::<u8>(at + 40) else { return Reason::Ipv6 };
    match (packet.way, kind) {
        (Way::Out, 133 | 135 | 136) => {
            let near = (other[0] == 0xff && other[1] == 2)
                || (other[0] == 0xfe && other[1] & 0xc0 == 0x80);
            let short = packet.length().wrapping_sub(at) <= MOST_NEIGHBOUR;
            if hop_limit == 255 && short && (near || HOSTS.get_ptr(other).is_some()) {
                Reason::Neighbour
            } else {
                Reason::Ipv6
            }
        }
        (Way::In, 134..=136) if hop_limit == 255 => Reason::Neighbour,
        (Way::In, 2) => {
            let quoted = at + 48;
            let Some(next) = packet.read::<u8>(quoted + 6) else { return Reason::Ipv6 };
            let Some(to) = packet.read::<[u8; 16]>(quoted + 24) else { return Reason::Ipv6 };
            if next != TCP {
                return Reason::Ipv6;
            }
            quoted_tcp(packet, quoted + 40, to, Reason::Ipv6)
        }
        _ => Reason::Ipv6,
    }
}

#[inline(always)]
fn is_endpoint(address: [u8; 16], port: [u8; 2]) -> bool {
    ENDPOINTS.get_ptr(Endpoint { address, port, reserved: [0; 2] }).is_some()
}

#[inline(always)]
const fn mapped([a, b, c, d]: [u8; 4]) -> [u8; 16] {
    [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, a, b, c, d]
}
