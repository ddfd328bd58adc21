//! What this host says of itself to its manager.

use std::path::Path;

use holdfast_common::link::HostFacts;

/// Longest value of one fact, bytes.
const LONGEST: usize = 256;
/// Most addresses.
const MOST_ADDRESSES: usize = 64;

/// Looks now.
#[must_use]
pub fn host_facts() -> HostFacts {
    let kernel = rustix::system::uname();
    let text = |name: &std::ffi::CStr| cut(&name.to_string_lossy());
    HostFacts {
        host: text(kernel.nodename()),
        machine_id: cut(read("/etc/machine-id").trim()),
        kernel: text(kernel.release()),
        system: cut(&pretty_name(&read("/etc/os-release"))),
        architecture: text(kernel.machine()),
        addresses: addresses(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
    }
}

fn read(path: &str) -> String {
    let bytes = crate::sensor::proc::read_file(Path::new(path), 64 << 10).unwrap_or_default();
    String::from_utf8_lossy(&bytes).into_owned()
}

fn cut(text: &str) -> String {
    text.chars().take(LONGEST).collect()
}

/// os-release(5)
fn pretty_name(text: &str) -> String {
    let line = text.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="));
    line.unwrap_or_default().trim_matches(['"', '\'']).to_owned()
}

/// Without loopback and link-local ones (getifaddrs(3)).
fn addresses() -> Vec<String> {
    let mut found: Vec<String> = nix::ifaddrs::getifaddrs()
        .into_iter()
        .flatten()
        .filter_map(|interface| {
            let address = interface.address?;
            if let Some(four) = address.as_sockaddr_in() {
                let ip = four.ip();
                return (!ip.is_loopback() && !ip.is_link_local()).then(|| ip.to_string());
            }
            let ip = address.as_sockaddr_in6()?.ip();
            (!ip.is_loopback() && !ip.is_unicast_link_local()).then(|| ip.to_string())
        })
        .collect();
    found.sort();
    found.dedup();
    found.truncate(MOST_ADDRESSES);
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_knows_its_name_and_system() {
        let facts = host_facts();
        assert!(!facts.host.is_empty() && !facts.kernel.is_empty());
        assert!(facts.addresses.iter().all(|address| address != "127.0.0.1"), "{facts:?}");
        assert_eq!(pretty_name("NAME=x\nPRETTY_NAME=\"Debian 13\"\n"), "Debian 13");
    }
}
