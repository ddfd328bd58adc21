//! Where the manager may be sent to, and the connection there.
//!
//! INVARIANT: the address that was judged is the address that is connected to; a name is resolved
//! once. Link-local addresses (the clouds' metadata services among them), multicast and the like
//! are refused, loopback too, unless the manager's config file allows them. Private networks are
//! not refused: mail relays and log collectors live there.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use tokio::net::TcpStream;

use super::SendError;

/// To look a name up, and for each address of it.
const CONNECT: Duration = Duration::from_secs(5);
/// Addresses of a name that are tried.
const TRIED: usize = 4;

/// What the config file allows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Allowed {
    /// Loopback addresses.
    pub loopback: bool,
    /// Addresses that would be refused otherwise.
    pub addresses: Vec<IpAddr>,
}

impl Allowed {
    /// Why an address is refused, if it is.
    #[must_use]
    pub fn refusal(&self, address: IpAddr) -> Option<&'static str> {
        let address = inner(address);
        if self.addresses.contains(&address) {
            return None;
        }
        if address.is_loopback() {
            return (!self.loopback).then_some("a loopback address");
        }
        if address.is_unspecified() || address.is_multicast() {
            return Some("not the address of one machine");
        }
        match address {
            IpAddr::V4(v4) => refused_v4(v4),
            IpAddr::V6(v6) => refused_v6(v6),
        }
    }
}

/// The IPv4 address that an IPv6 address stands for, if it does (mapped, NAT64, 6to4).
fn inner(address: IpAddr) -> IpAddr {
    let IpAddr::V6(v6) = address.to_canonical() else { return address.to_canonical() };
    let parts = v6.segments();
    let v4 = |high: u16, low: u16| {
        let [a, b] = high.to_be_bytes();
        let [c, d] = low.to_be_bytes();
        IpAddr::V4(Ipv4Addr::new(a, b, c, d))
    };
    match parts {
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] => v4(high, low),
        [0x2002, high, low, ..] => v4(high, low),
        // The deprecated compatible form, but not `::` and `::1`.
        [0, 0, 0, 0, 0, 0, high, low] if high != 0 => v4(high, low),
        _ => IpAddr::V6(v6),
    }
}

fn refused_v4(address: Ipv4Addr) -> Option<&'static str> {
    let [first, ..] = address.octets();
    if address.is_link_local() {
        Some("link-local; cloud metadata services are there")
    } else if address == Ipv4Addr::new(100, 100, 100, 200) {
        Some("a cloud metadata service")
    } else if first == 0 || first >= 240 {
        Some("not the address of one machine")
    } else {
        None
    }
}

fn refused_v6(address: Ipv6Addr) -> Option<&'static str> {
    if address.is_unicast_link_local() {
        Some("link-local")
    } else if address == Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254) {
        Some("a cloud metadata service")
    } else {
        None
    }
}

/// The addresses of a host, all of which may be connected to. One that may not refuses the name.
///
/// # Errors
/// [`SendError`]
pub async fn resolve(
    host: &str,
    port: u16,
    allowed: &Allowed,
) -> Result<Vec<SocketAddr>, SendError> {
    let bare = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
    let found = tokio::time::timeout(CONNECT, tokio::net::lookup_host((bare, port))).await;
    let found: Vec<SocketAddr> = found
        .map_err(|_| SendError::later(format!("{host}: the name service does not answer")))?
        .map_err(|error| SendError::later(format!("{host}: {error}")))?
        .take(64)
        .collect();
    for address in &found {
        if let Some(why) = allowed.refusal(address.ip()) {
            let ip = address.ip();
            return Err(SendError::never(format!("{host}: {ip} is refused: {why}")));
        }
    }
    if found.is_empty() {
        return Err(SendError::later(format!("{host}: the name has no address")));
    }
    Ok(found)
}

/// A connection to a host.
///
/// # Errors
/// [`SendError`]
pub async fn connect(host: &str, port: u16, allowed: &Allowed) -> Result<TcpStream, SendError> {
    let mut last = SendError::later(format!("{host}: the name has no address"));
    for address in resolve(host, port, allowed).await?.into_iter().take(TRIED) {
        match tokio::time::timeout(CONNECT, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => last = SendError::later(format!("connect to {address}: {error}")),
            Err(_) => last = SendError::later(format!("connect to {address}: no answer")),
        }
    }
    Err(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: &str) -> bool {
        Allowed::default().refusal(text.parse().expect("address")).is_some()
    }

    #[test]
    fn metadata_services_loopback_and_link_local_are_refused_in_every_spelling() {
        for text in [
            "169.254.169.254",
            "::ffff:169.254.169.254",
            "64:ff9b::a9fe:a9fe",
            "2002:a9fe:a9fe::1",
            "::169.254.169.254",
            "fd00:ec2::254",
            "100.100.100.200",
            "fe80::1",
            "127.0.0.1",
            "127.8.8.8",
            "::1",
            "::ffff:127.0.0.1",
            "0.0.0.0",
            "::",
            "0.1.2.3",
            "255.255.255.255",
            "224.0.0.1",
            "ff02::1",
        ] {
            assert!(refused(text), "{text}");
        }
        for text in ["192.0.2.1", "10.0.0.1", "2001:db8::1", "fd12::1", "100.64.0.1"] {
            assert!(!refused(text), "{text}");
        }
    }

    #[test]
    fn the_config_allows_by_address() {
        let metadata: IpAddr = "169.254.169.254".parse().expect("address");
        let allowed = Allowed { loopback: true, addresses: vec![metadata] };
        assert_eq!(allowed.refusal(metadata), None);
        assert_eq!(allowed.refusal("::1".parse().expect("address")), None);
        assert!(allowed.refusal("169.254.1.1".parse().expect("address")).is_some());
    }
}
