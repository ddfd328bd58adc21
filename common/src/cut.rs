//! What the isolation programs and the agent share in maps, `repr(C)` and `no_std`.
//!
//! Invariant: no implicit padding, since map keys are compared byte by byte. Both sides are built
//! from this one file; the object's stamp covers it. Addresses are 16 bytes, IPv4 ones mapped
//! (`::ffff:a.b.c.d`); ports are as on the wire.

/// Most addresses with a port that stay reachable.
pub const MOST_ENDPOINTS: u32 = 64;
/// Most DHCP servers, with the two addresses that clients ask them at.
pub const MOST_DHCP: u32 = 32;

/// A place on the network that stays reachable by TCP.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Endpoint {
    /// Its address.
    pub address: [u8; 16],
    /// Its port, big-endian.
    pub port: [u8; 2],
    /// 0
    pub reserved: [u8; 2],
}

/// What the programs need beside the addresses. One element.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Policy {
    /// Id of the cgroup that is cut off, for the socket program; 0 for the whole host.
    pub cgroup: u64,
    /// How deep that cgroup lies below the root.
    pub cgroup_level: u32,
    /// Not 0: new packet sockets are denied too, not only `AF_XDP`.
    pub deny_packet_sockets: u32,
}

/// Packets and bytes of one [`Hook`] and one [`Reason`], per CPU.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Count {
    /// Packets; sockets where they are what was denied.
    pub packets: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// Where a packet was judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Hook {
    /// A socket sends.
    SocketOut = 0,
    /// A socket receives.
    SocketIn = 1,
    /// An interface sends.
    LinkOut = 2,
    /// An interface receives.
    LinkIn = 3,
    /// A socket is made.
    SocketCreate = 4,
}

/// Number of [`Hook`]s.
pub const HOOKS: usize = 5;

/// Why a packet was let through or dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Reason {
    /// Let through: to or from an allowed endpoint.
    Management = 0,
    /// Let through: the loopback.
    Loopback = 1,
    /// Let through: ARP and neighbour discovery, LACP.
    Neighbour = 2,
    /// Let through: DHCP with a known server.
    Dhcp = 3,
    /// Let through: an ICMP error that keeps a management connection alive (path MTU).
    PathMtu = 4,
    /// Dropped: IPv4.
    Ipv4 = 5,
    /// Dropped: IPv6.
    Ipv6 = 6,
    /// Dropped: a fragment.
    Fragment = 7,
    /// Dropped: neither, or not what it says.
    Other = 8,
}

/// Number of [`Reason`]s.
pub const REASONS: usize = 9;

impl Reason {
    /// Whether a packet with this reason goes on.
    #[must_use]
    pub const fn lets_through(self) -> bool {
        match self {
            Self::Management | Self::Loopback | Self::Neighbour | Self::Dhcp | Self::PathMtu => {
                true
            }
            Self::Ipv4 | Self::Ipv6 | Self::Fragment | Self::Other => false,
        }
    }
}

/// The element of the counters for a hook and a reason.
#[must_use]
pub const fn counter(hook: Hook, reason: Reason) -> u32 {
    hook as u32 * REASONS as u32 + reason as u32
}
