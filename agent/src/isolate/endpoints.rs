//! What stays reachable: names resolved before anything is cut, and the DHCP servers that this
//! host's leases name.
//!
//! INVARIANT: nothing here is needed once the host is cut off; no name is ever resolved then, and
//! no name server is ever let through.

use std::collections::BTreeSet;
use std::io::{Read, Seek, SeekFrom};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use holdfast_common::cut::{MOST_DHCP, MOST_ENDPOINTS};
use serde::{Deserialize, Serialize};

use crate::config::split_endpoint;

/// All names must be resolved within this.
const RESOLVE: Duration = Duration::from_secs(3);
/// Folders that DHCP clients keep their leases in: systemd-networkd, NetworkManager, ISC dhclient.
const LEASES: [&str; 5] = [
    "/run/systemd/netif/leases",
    "/var/lib/NetworkManager",
    "/var/lib/dhcp",
    "/var/lib/dhclient",
    "/run/dhclient",
];
/// Of each lease file the end is read; of each folder so many files.
const LEASE_BYTES: u64 = 64 << 10;
const LEASE_FILES: usize = 64;

/// An endpoint of the config and where it was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Place {
    /// As in the config.
    pub(super) name: String,
    /// All its addresses.
    pub(super) addresses: Vec<SocketAddr>,
}

impl Place {
    /// For people: the name, and its addresses where they differ from it.
    pub(super) fn text(&self) -> String {
        let addresses: Vec<String> = self.addresses.iter().map(ToString::to_string).collect();
        match addresses.as_slice() {
            [one] if *one == self.name => one.clone(),
            all => format!("{} ({})", self.name, all.join(", ")),
        }
    }
}

/// The addresses of all endpoints.
///
/// # Errors
/// The name that was not resolved, and why.
pub(super) fn resolve(names: &[String]) -> Result<Vec<Place>, String> {
    let end = Instant::now() + RESOLVE;
    let mut places = Vec::new();
    for name in names {
        let left = end.saturating_duration_since(Instant::now());
        let mut addresses =
            one(name, left).map_err(|why| format!("{name} cannot be resolved: {why}"))?;
        addresses.sort();
        addresses.dedup();
        places.push(Place { name: name.clone(), addresses });
    }
    let count: usize = places.iter().map(|place| place.addresses.len()).sum();
    if count > MOST_ENDPOINTS as usize {
        return Err(format!("the endpoints have {count} addresses, at most {MOST_ENDPOINTS} fit"));
    }
    Ok(places)
}

fn one(name: &str, left: Duration) -> Result<Vec<SocketAddr>, String> {
    let (host, port) = split_endpoint(name).ok_or("is no endpoint")?;
    if let Ok(address) = host.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(address.to_canonical(), port)]);
    }
    // The resolver has no time limit of its own: it is left to itself when it takes too long.
    let (answer, resolved) = channel();
    let host = host.to_owned();
    std::thread::Builder::new()
        .name("resolve".to_owned())
        .spawn(move || {
            let found = (host.as_str(), port).to_socket_addrs();
            // Nobody waits any more.
            let _ = answer.send(found.map(|all| all.collect::<Vec<_>>()));
        })
        .map_err(|error| error.to_string())?;
    match resolved.recv_timeout(left) {
        Ok(Ok(found)) if found.is_empty() => Err("it has no address".to_owned()),
        Ok(Ok(found)) => {
            Ok(found.iter().map(|at| SocketAddr::new(at.ip().to_canonical(), at.port())).collect())
        }
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("no answer within {} s", RESOLVE.as_secs())),
    }
}

/// The DHCP servers that this host has its leases from.
pub(super) fn known_dhcp_servers() -> Vec<IpAddr> {
    dhcp_servers_in(&LEASES.map(PathBuf::from))
}

fn dhcp_servers_in(folders: &[PathBuf]) -> Vec<IpAddr> {
    let mut servers = BTreeSet::new();
    for folder in folders {
        let Ok(entries) = std::fs::read_dir(folder) else { continue };
        for entry in entries.flatten().take(LEASE_FILES) {
            if entry.file_type().is_ok_and(|kind| kind.is_file()) {
                servers.extend(servers_of(&end_of(&entry.path()).unwrap_or_default()));
            }
        }
    }
    // Two places are for where clients ask.
    servers.into_iter().take(MOST_DHCP as usize - 2).collect()
}

fn end_of(path: &Path) -> std::io::Result<String> {
    let mut file = std::fs::File::open(path)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(LEASE_BYTES)))?;
    let mut bytes = Vec::new();
    file.take(LEASE_BYTES).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// `SERVER_ADDRESS=…` of systemd, `option dhcp-server-identifier …;` of dhclient.
fn servers_of(lease: &str) -> impl Iterator<Item = IpAddr> {
    lease.lines().filter_map(|line| {
        let line = line.trim();
        let value = line
            .strip_prefix("SERVER_ADDRESS=")
            .or_else(|| line.strip_prefix("option dhcp-server-identifier "))?;
        let address: Ipv4Addr = value.trim_end_matches(';').trim().parse().ok()?;
        let usable = !address.is_unspecified() && !address.is_broadcast();
        usable.then_some(IpAddr::V4(address))
    })
}

/// The servers, and the addresses that clients ask them at.
pub(super) fn with_broadcast(servers: &[IpAddr]) -> Vec<IpAddr> {
    let mut all = servers.to_vec();
    if servers.iter().any(IpAddr::is_ipv4) {
        all.push(IpAddr::V4(Ipv4Addr::BROADCAST));
    }
    if servers.iter().any(IpAddr::is_ipv6) {
        all.push(IpAddr::V6(Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 1, 2)));
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_taken_as_they_are_and_names_are_resolved() {
        let names = ["192.0.2.1:443", "[2001:db8::1]:443", "localhost:80"].map(String::from);
        let places = resolve(&names).expect("resolved");
        assert_eq!(places[0].addresses, ["192.0.2.1:443".parse().expect("address")]);
        assert_eq!(places[1].text(), "[2001:db8::1]:443");
        assert!(places[2].addresses.iter().all(|at| at.ip().is_loopback()), "{places:?}");
        let error = resolve(&["no-such-host.invalid:1".to_owned()]).expect_err("no such host");
        assert!(error.contains("no-such-host.invalid:1 cannot be resolved"), "{error}");
    }

    #[test]
    fn dhcp_servers_are_read_from_leases_of_each_client() {
        let folder = tempfile::tempdir().expect("folder");
        let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text);
        write("2", "# systemd\nADDRESS=192.0.2.9\nSERVER_ADDRESS=192.0.2.1\n").expect("write");
        write(
            "dhclient.leases",
            "lease {\n  option dhcp-server-identifier 198.51.100.7;\n}\nlease {\n  option dhcp-server-identifier nonsense;\n}\n",
        )
        .expect("write");
        write("broken", "SERVER_ADDRESS=\0\u{7f}\nSERVER_ADDRESS=0.0.0.0\n").expect("write");
        let servers = dhcp_servers_in(&[folder.path().to_owned(), "/nowhere".into()]);
        let expected: Vec<IpAddr> =
            ["192.0.2.1", "198.51.100.7"].map(|ip| ip.parse().expect("ip")).to_vec();
        assert_eq!(servers, expected);
        assert_eq!(with_broadcast(&servers).len(), 3);
        assert!(with_broadcast(&[]).is_empty());
    }
}
