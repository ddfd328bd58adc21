//! The file that says that this host is cut off, so that a restart and a reboot keep it so.
//!
//! INVARIANT: it is there whole or not at all. It is written when the cut stands, and goes after
//! the cut is gone: what is interrupted in between stays cut off, but for the first moment, when
//! only the pins know of it.

use std::fs::{self, File};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::egress::Allowed;
use super::endpoints::{self, Place};

/// The file in the state folder.
const NAME: &str = "isolation.json";

/// What was cut, why and for how long.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Record {
    /// Milliseconds since the epoch.
    pub(super) since_ms: i64,
    /// When it ends by itself.
    pub(super) until_ms: Option<i64>,
    /// Why, and who asked.
    pub(super) reason: String,
    /// An endpoint answered under the rules.
    pub(super) proven: bool,
    /// What stays reachable.
    pub(super) places: Vec<Place>,
    /// DHCP servers that stay reachable.
    pub(super) dhcp: Vec<IpAddr>,
    /// Interfaces that got a queue from us (before Linux 6.6), by number and name.
    pub(super) queues: Vec<(u32, String)>,
}

impl Record {
    /// Every address and port that stays reachable.
    pub(super) fn endpoints(&self) -> Vec<SocketAddr> {
        self.places.iter().flat_map(|place| place.addresses.iter().copied()).collect()
    }

    /// The same for the programs and rules.
    pub(super) fn allowed(&self) -> Allowed {
        Allowed { endpoints: self.endpoints(), dhcp: endpoints::with_broadcast(&self.dhcp) }
    }

    /// Whether its time is over.
    pub(super) fn expired(&self, now_ms: i64) -> bool {
        self.until_ms.is_some_and(|until| until <= now_ms)
    }

    /// Reads it; `None` when the host is not cut off.
    ///
    /// # Errors
    /// It is there and cannot be read.
    pub(super) fn load(state_dir: &Path) -> io::Result<Option<Self>> {
        match fs::read(path(state_dir)) {
            Ok(bytes) => Ok(Some(serde_json::from_slice(&bytes)?)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Writes it, flushed to the disk.
    ///
    /// # Errors
    /// The old one, if any, is still there.
    pub(super) fn store(&self, state_dir: &Path) -> io::Result<()> {
        crate::durable::replace(&path(state_dir), &[&serde_json::to_vec(self)?])
    }

    /// Takes it away, flushed to the disk.
    ///
    /// # Errors
    /// It may still be there.
    pub(super) fn remove(state_dir: &Path) -> io::Result<()> {
        match fs::remove_file(path(state_dir)) {
            Ok(()) => File::open(state_dir)?.sync_all(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    }
}

fn path(state_dir: &Path) -> PathBuf {
    state_dir.join(NAME)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_survives_and_expires() {
        let folder = tempfile::tempdir().expect("folder");
        assert_eq!(Record::load(folder.path()).expect("none"), None);
        let record = Record {
            since_ms: 5,
            until_ms: Some(10),
            places: vec![Place {
                name: "m:1".into(),
                addresses: vec!["192.0.2.1:1".parse().expect("address")],
            }],
            queues: vec![(2, "eth0".into())],
            ..Record::default()
        };
        record.store(folder.path()).expect("stored");
        assert_eq!(Record::load(folder.path()).expect("there"), Some(record.clone()));
        assert!(!record.expired(9) && record.expired(10));
        assert!(!Record::default().expired(i64::MAX));
        Record::remove(folder.path()).expect("removed");
        Record::remove(folder.path()).expect("twice");
        assert_eq!(Record::load(folder.path()).expect("none"), None);
    }

    #[test]
    fn a_broken_one_is_an_error_and_not_a_release() {
        let folder = tempfile::tempdir().expect("folder");
        fs::write(path(folder.path()), b"{").expect("write");
        assert!(Record::load(folder.path()).is_err());
    }
}
