//! Connections, listeners, datagrams to new peers, and DNS by UDP.
//!
//! Hooks of the root cgroup, which every way to a socket passes (64 and 32 bits, io_uring, all
//! network namespaces), and the tracepoint of TCP's states. All of them only look: each answers 1,
//! which lets everything be as it would be. A DNS message is copied, not parsed.

use aya_ebpf::EbpfContext;
use aya_ebpf::helpers::generated::{bpf_get_socket_cookie, bpf_skb_load_bytes};
use aya_ebpf::macros::{cgroup_skb, cgroup_sock, cgroup_sock_addr, raw_tracepoint};
use aya_ebpf::programs::{RawTracePointContext, SkBuffContext, SockAddrContext, SockContext};
use holdfast_common::abi::{ConnectionRecord, DNS_MAX, Field, Head, Kind};

use crate::kernel::{Address, current, field, head};
use crate::maps::{LISTENERS, OWNERS, PEERS, Peer, Place, dns_scratch, send_traffic};

const AF_INET: u16 = 2;
const AF_INET6: u16 = 10;
const TCP: u16 = 6;
const UDP: u16 = 17;
const DNS: u16 = 53;
const TCP_ESTABLISHED: u32 = 1;
const TCP_SYN_RECV: u32 = 3;
const TCP_CLOSE: u32 = 7;
const TCP_LISTEN: u32 = 10;
/// `sizeof(struct dns_header)`, RFC 1035.
const DNS_HEADER: u32 = 12;
const ALLOW: i32 = 1;

#[cgroup_sock_addr(connect4)]
pub fn traffic_connect4(context: SockAddrContext) -> i32 {
    spoken_to(&context, Kind::Connect, AF_INET)
}

#[cgroup_sock_addr(connect6)]
pub fn traffic_connect6(context: SockAddrContext) -> i32 {
    spoken_to(&context, Kind::Connect, AF_INET6)
}

/// Only for sockets that are not connected.
#[cgroup_sock_addr(sendmsg4)]
pub fn traffic_sendmsg4(context: SockAddrContext) -> i32 {
    spoken_to(&context, Kind::Send, AF_INET)
}

#[cgroup_sock_addr(sendmsg6)]
pub fn traffic_sendmsg6(context: SockAddrContext) -> i32 {
    spoken_to(&context, Kind::Send, AF_INET6)
}

#[cgroup_sock(post_bind4)]
pub fn traffic_bind4(context: SockContext) -> i32 {
    bound(&context, AF_INET)
}

#[cgroup_sock(post_bind6)]
pub fn traffic_bind6(context: SockContext) -> i32 {
    bound(&context, AF_INET6)
}

#[cgroup_skb(egress)]
pub fn traffic_packet_out(context: SkBuffContext) -> i32 {
    packet(&context, false);
    ALLOW
}

#[cgroup_skb(ingress)]
pub fn traffic_packet_in(context: SkBuffContext) -> i32 {
    packet(&context, true);
    ALLOW
}

/// A word of a program's context; volatile, so that the compiler does not join it with others.
macro_rules! word {
    ($($field:tt)+) => {
        // SAFETY: the kernel's own context; the verifier checks the access.
        unsafe { core::ptr::read_volatile(&raw const $($field)+) }
    };
}

#[inline(always)]
fn bytes_of(words: [u32; 4]) -> [u8; 16] {
    let [a, b, c, d] = words.map(u32::to_ne_bytes);
    [a[0], a[1], a[2], a[3], b[0], b[1], b[2], b[3], c[0], c[1], c[2], c[3], d[0], d[1], d[2], d[3]]
}

/// Somebody names a peer.
#[inline(always)]
fn spoken_to(context: &SockAddrContext, kind: Kind, family: u16) -> i32 {
    let address = context.sock_addr;
    let remote = if family == AF_INET {
        [word!((*address).user_ip4), 0, 0, 0]
    } else {
        [
            word!((*address).user_ip6[0]),
            word!((*address).user_ip6[1]),
            word!((*address).user_ip6[2]),
            word!((*address).user_ip6[3]),
        ]
    };
    let record = ConnectionRecord {
        head: head(kind, current()),
        remote: bytes_of(remote),
        remote_port: u16::from_be(word!((*address).user_port) as u16),
        family,
        protocol: word!((*address).protocol) as u16,
        ..ConnectionRecord::default()
    };
    if record.protocol != TCP {
        // SAFETY: the context is of a kind that has a socket.
        let cookie = unsafe { bpf_get_socket_cookie(context.as_ptr()) };
        // Full: the least recently used goes.
        let _ = OWNERS.insert(cookie, record.head, 0);
        // Nothing can be sent to port 0; resolvers connect so to sort addresses.
        if record.remote_port == 0 || is_known(&record) {
            return ALLOW;
        }
    }
    send_traffic(kind, &record);
    ALLOW
}

/// Whether this process has named this peer before; remembers it.
#[inline(always)]
fn is_known(record: &ConnectionRecord) -> bool {
    let peer = Peer {
        start_ns: record.head.start_ns,
        pid: record.head.pid,
        port: record.remote_port,
        family: record.family,
        address: record.remote,
    };
    // SAFETY: only whether it is there is asked.
    if unsafe { PEERS.get(peer) }.is_some() {
        return true;
    }
    let _ = PEERS.insert(peer, 0, 0);
    false
}

/// A socket got an address of its own.
#[inline(always)]
fn bound(context: &SockContext, family: u16) -> i32 {
    let socket = context.sock;
    let local = if family == AF_INET {
        [word!((*socket).src_ip4), 0, 0, 0]
    } else {
        [
            word!((*socket).src_ip6[0]),
            word!((*socket).src_ip6[1]),
            word!((*socket).src_ip6[2]),
            word!((*socket).src_ip6[3]),
        ]
    };
    let record = ConnectionRecord {
        head: head(Kind::Bind, current()),
        local: bytes_of(local),
        local_port: word!((*socket).src_port) as u16,
        family,
        protocol: word!((*socket).protocol) as u16,
        ..ConnectionRecord::default()
    };
    send_traffic(Kind::Bind, &record);
    ALLOW
}

/// `TP_PROTO(const struct sock *sk, const int oldstate, const int newstate)`
#[raw_tracepoint(tracepoint = "inet_sock_set_state")]
pub fn traffic_state(context: RawTracePointContext) -> i32 {
    let sock: Address = context.arg(0);
    let old = context.arg::<u64>(1) as u32;
    let new = context.arg::<u64>(2) as u32;
    if new == TCP_LISTEN {
        let head = head(Kind::Listen, current());
        let record = of_sock(sock, head);
        let _ = LISTENERS.insert(place(&record, record.local), head, 0);
        send_traffic(Kind::Listen, &record);
    } else if old == TCP_LISTEN && new == TCP_CLOSE {
        // A new connection comes by as a copy of its listener that leaves this state, too.
        let record = of_sock(sock, Head::default());
        let _ = LISTENERS.remove(place(&record, record.local));
    } else if old == TCP_SYN_RECV && new == TCP_ESTABLISHED {
        // In an interrupt: whoever runs has nothing to do with it. Who listens has.
        let mut record = of_sock(sock, Head::default());
        // SAFETY: copied at once; the kernel frees it not before the program ends.
        if let Some(listener) = unsafe { LISTENERS.get(place(&record, record.local)) } {
            record.head = *listener;
        } else if let Some(listener) = unsafe { LISTENERS.get(place(&record, [0; 16])) } {
            record.head = *listener;
        }
        record.head.kind = Kind::Accept as u32;
        send_traffic(Kind::Accept, &record);
    }
    0
}

#[inline(always)]
fn place(record: &ConnectionRecord, address: [u8; 16]) -> Place {
    Place { namespace: record.namespace, port: record.local_port, family: record.family, address }
}

/// What the kernel knows of a socket.
#[inline(always)]
fn of_sock(sock: Address, head: Head) -> ConnectionRecord {
    let family: u16 = field(sock, Field::SockFamily);
    let (local, remote) = if family == AF_INET6 {
        (field(sock, Field::SockAddress6), field(sock, Field::SockPeer6))
    } else {
        (
            bytes_of([field(sock, Field::SockAddress), 0, 0, 0]),
            bytes_of([field(sock, Field::SockPeer), 0, 0, 0]),
        )
    };
    let net: Address = field(sock, Field::SockNet);
    ConnectionRecord {
        head,
        local,
        remote,
        local_port: field(sock, Field::SockPort),
        remote_port: u16::from_be(field(sock, Field::SockPeerPort)),
        family,
        protocol: TCP,
        namespace: field(net, Field::NetNumber),
        reserved: 0,
    }
}

/// Copies what may be DNS: UDP to port 53 that leaves, from port 53 that comes. Without extension
/// headers of IPv6, and only the first fragment.
#[inline(always)]
fn packet(context: &SkBuffContext, incoming: bool) {
    const FRAGMENT: u16 = 0x1fff;
    let Ok(start) = context.load::<[u8; 20]>(0) else { return };
    let (family, header) = match start[0] >> 4 {
        4 if start[9] == UDP as u8 && u16::from_be_bytes([start[6], start[7]]) & FRAGMENT == 0 => {
            (AF_INET, u32::from(start[0] & 15) * 4)
        }
        6 if start[6] == UDP as u8 => (AF_INET6, 40),
        _ => return,
    };
    let Ok(ports) = context.load::<[u16; 4]>(header as usize) else { return };
    let (from, to) = (u16::from_be(ports[0]), u16::from_be(ports[1]));
    if (if incoming { from } else { to }) != DNS {
        return;
    }
    let Some(record) = dns_scratch(incoming) else { return };
    let (source, target) = addresses(context, family, &start);
    // SAFETY: the context is of a kind that has a socket.
    let cookie = unsafe { bpf_get_socket_cookie(context.as_ptr()) };
    // SAFETY: copied at once; the kernel frees it not before the program ends.
    let mut head = match unsafe { OWNERS.get(cookie) } {
        Some(owner) => *owner,
        // Who sends is still running, mostly; who receives is not.
        None if !incoming => head(Kind::Dns, current()),
        None => Head::default(),
    };
    head.kind = Kind::Dns as u32;
    let (local, remote) = if incoming { (target, source) } else { (source, target) };
    let (local_port, remote_port) = if incoming { (to, from) } else { (from, to) };
    record.connection = ConnectionRecord {
        head,
        local,
        remote,
        local_port,
        remote_port,
        family,
        protocol: UDP,
        namespace: 0,
        reserved: 0,
    };
    copy(context, record, header + 8, incoming);
}

#[inline(always)]
fn copy(
    context: &SkBuffContext,
    record: &mut holdfast_common::abi::DnsRecord,
    at: u32,
    incoming: bool,
) {
    let total = context.len().wrapping_sub(at);
    let most = if total > DNS_MAX as u32 { DNS_MAX as u32 } else { total };
    // Opaque, so that the bound that the verifier needs is not optimised away.
    let length = core::hint::black_box(most) & DNS_MAX as u32;
    if length < DNS_HEADER {
        return;
    }
    // SAFETY: at most `DNS_MAX` bytes, which `message` has.
    let failed = unsafe {
        bpf_skb_load_bytes(context.as_ptr().cast(), at, record.message.as_mut_ptr().cast(), length)
    };
    if failed == 0 {
        record.total = total;
        record.length = length as u16;
        record.incoming = u16::from(incoming);
        send_traffic(Kind::Dns, record);
    }
}

/// Source and target of a packet.
#[inline(always)]
fn addresses(context: &SkBuffContext, family: u16, start: &[u8; 20]) -> ([u8; 16], [u8; 16]) {
    if family == AF_INET6 {
        let source = context.load::<[u8; 16]>(8).unwrap_or_default();
        return (source, context.load::<[u8; 16]>(24).unwrap_or_default());
    }
    let word =
        |at: usize| u32::from_ne_bytes([start[at], start[at + 1], start[at + 2], start[at + 3]]);
    (bytes_of([word(12), 0, 0, 0]), bytes_of([word(16), 0, 0, 0]))
}
