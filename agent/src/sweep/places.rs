//! Where a scan looks: what quick and full come to on this host, and how each place is opened.
//!
//! A path that somebody with the right to ask has named may lead through links; below a user's home
//! nothing does, since its owner lays the links there. Nothing is scanned here.

use std::collections::HashSet;
use std::ffi::OsString;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use holdfast_common::scans::{LeftOutReason, ScanOrder, ScanScope};
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use crate::config;
use crate::on_access::mounts::{self, Mount};
use crate::sys::identity::Facts;

/// The places of a quick scan, beside the programs that run.
pub const QUICK: &[&str] = &[
    "/tmp",
    "/var/tmp",
    "/dev/shm",
    "~/Downloads",
    "~/Desktop",
    "/etc/crontab",
    "/etc/cron.d",
    "/etc/cron.hourly",
    "/etc/cron.daily",
    "/etc/cron.weekly",
    "/etc/cron.monthly",
    "/var/spool/cron",
    "/etc/systemd/system",
    "/etc/systemd/user",
    "/run/systemd/system",
    "/usr/local/lib/systemd",
    "/etc/init.d",
    "/etc/rc.local",
    "/etc/profile.d",
    "/etc/xdg/autostart",
    "/etc/ld.so.preload",
    "/etc/update-motd.d",
    "/usr/local/bin",
    "/usr/local/sbin",
    "~/.config/autostart",
    "~/.config/systemd/user",
    "~/.local/bin",
    "~/.profile",
    "~/.bashrc",
    "~/.bash_profile",
    "~/.zshrc",
    "~/.ssh/rc",
];

/// Homes that are looked at.
const MOST_HOMES: usize = 10_000;

/// One place.
#[derive(Debug)]
pub(super) enum Place {
    /// The executables of all processes.
    Programs,
    /// A path that was named.
    Named {
        path: PathBuf,
        /// It need not be there.
        optional: bool,
    },
    /// A path below somebody's home, relative to it.
    InHome { home: PathBuf, below: PathBuf },
    /// A file system, and nothing that is mounted in it.
    Mounted(Mount),
}

/// A place that is not gone into.
pub(super) type Refused = (PathBuf, LeftOutReason, Option<Errno>);

/// What a scan came to.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) places: Vec<Place>,
    pub(super) refused: Vec<Refused>,
}

/// What an order comes to now.
pub(super) fn plan(order: &ScanOrder, config: &config::Scan) -> Plan {
    match order.scope {
        ScanScope::Quick => {
            let homes = homes(&std::fs::read("/etc/passwd").unwrap_or_default());
            let mut places = vec![Place::Programs];
            for path in &config.quick {
                match path.strip_prefix("~") {
                    Ok(below) => {
                        places.extend(homes.iter().map(|home| Place::InHome {
                            home: home.clone(),
                            below: below.to_owned(),
                        }))
                    }
                    Err(_) => places.push(Place::Named { path: path.clone(), optional: true }),
                }
            }
            Plan { places, refused: Vec::new() }
        }
        ScanScope::Full => {
            let table = std::fs::read("/proc/self/mountinfo").unwrap_or_default();
            file_systems(mounts::parse(&table), &config.full)
        }
        ScanScope::Paths => {
            let named = |path: &PathBuf| Place::Named { path: path.clone(), optional: false };
            Plan { places: order.paths.iter().map(named).collect(), refused: Vec::new() }
        }
    }
}

impl Place {
    /// For people.
    pub(super) fn shown(&self) -> String {
        match self {
            Self::Programs => "programs that run".to_owned(),
            Self::Named { path, .. } => super::live::shown(path),
            Self::InHome { home, below } => super::live::shown(&home.join(below)),
            Self::Mounted(mount) => super::live::shown(&mount.point),
        }
    }

    /// Whether the walk goes into file systems that are mounted below.
    pub(super) const fn crosses_mounts(&self) -> bool {
        !matches!(self, Self::Mounted(_))
    }

    /// The real path and a descriptor that reads nothing. `Ok(None)` where there is nothing.
    pub(super) fn open(&self) -> Result<Option<(PathBuf, OwnedFd)>, Refused> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match self {
            Self::Programs => Ok(None),
            Self::Named { path, optional } => {
                let opened = path.canonicalize().and_then(|real| {
                    let handle = rustix::fs::open(&real, flags, Mode::empty())?;
                    Ok((real, handle))
                });
                match opened {
                    Ok(opened) => Ok(Some(opened)),
                    Err(error) if *optional && error.kind() == std::io::ErrorKind::NotFound => {
                        Ok(None)
                    }
                    Err(error) => {
                        let errno = error.raw_os_error().map(Errno::from_raw_os_error);
                        let why = match errno {
                            Some(Errno::NOENT) => LeftOutReason::NotFound,
                            _ => LeftOutReason::Unreadable,
                        };
                        Err((path.clone(), why, errno))
                    }
                }
            }
            Self::InHome { home, below } => {
                let Ok(real) = home.canonicalize() else { return Ok(None) };
                let path = real.join(below);
                let opened = rustix::fs::openat2(
                    CWD,
                    &real,
                    flags | OFlags::DIRECTORY,
                    Mode::empty(),
                    ResolveFlags::NO_SYMLINKS,
                )
                .and_then(|home| {
                    let resolve = ResolveFlags::NO_SYMLINKS
                        | ResolveFlags::NO_MAGICLINKS
                        | ResolveFlags::BENEATH;
                    rustix::fs::openat2(&home, below, flags, Mode::empty(), resolve)
                });
                match opened {
                    Ok(handle) => Ok(Some((path, handle))),
                    Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
                    Err(Errno::LOOP) => Err((path, LeftOutReason::Symlink, None)),
                    Err(error) => Err((path, LeftOutReason::Unreadable, Some(error))),
                }
            }
            Self::Mounted(mount) => {
                let handle =
                    rustix::fs::open(&mount.point, flags, Mode::empty()).map_err(|error| {
                        (mount.point.clone(), LeftOutReason::Unreadable, Some(error))
                    })?;
                match Facts::of(handle.as_fd()) {
                    // Another lies over it.
                    Ok(facts) if facts.mount != 0 && facts.mount != mount.id => {
                        Err((mount.point.clone(), LeftOutReason::OtherMount, None))
                    }
                    Ok(_) | Err(_) => Ok(Some((mount.point.clone(), handle))),
                }
            }
        }
    }
}

/// Each local file system once: where it is mounted whole if it is, else each part of it.
fn file_systems(table: Vec<Mount>, below: &[PathBuf]) -> Plan {
    let mut plan = Plan { places: Vec::new(), refused: Vec::new() };
    let mut chosen: Vec<Mount> = Vec::new();
    let mut whole: HashSet<(u32, u32)> = HashSet::new();
    let mut wanted: Vec<Mount> = table
        .into_iter()
        .filter(|mount| below.iter().any(|path| mount.point.starts_with(path)))
        .filter(|mount| !mount.is_pseudo())
        .collect();
    // Those that show more of their file system first; the order of mounting otherwise.
    wanted.sort_by_key(|mount| mount.root.components().count());
    for mount in wanted {
        if mount.is_remote() {
            plan.refused.push((mount.point, LeftOutReason::RemoteFileSystem, None));
        } else if mount.fs_type == "overlay" && layers_are_here(&mount) {
            plan.refused.push((mount.point, LeftOutReason::OtherMount, None));
        } else {
            let shown = whole.contains(&mount.device)
                || chosen
                    .iter()
                    .any(|one| one.device == mount.device && mount.root.starts_with(&one.root));
            if shown {
                plan.refused.push((mount.point, LeftOutReason::OtherMount, None));
                continue;
            }
            if mount.root == Path::new("/") {
                whole.insert(mount.device);
            }
            chosen.push(mount);
        }
    }
    chosen.sort_by(|one, other| one.point.cmp(&other.point));
    plan.places = chosen.into_iter().map(Place::Mounted).collect();
    plan
}

/// An overlay's files lie in folders of other file systems, which are scanned themselves. The root
/// of a container is not among them: its layers are the host's.
fn layers_are_here(mount: &Mount) -> bool {
    if mount.point == Path::new("/") {
        return false;
    }
    let mut layers = mount
        .super_options
        .split(|byte| *byte == b',')
        .filter_map(|option| {
            let strip = |name: &[u8]| option.strip_prefix(name);
            strip(b"lowerdir=").or_else(|| strip(b"upperdir=")).or_else(|| strip(b"lowerdir+="))
        })
        .flat_map(|list| list.split(|byte| *byte == b':'))
        .filter(|layer| !layer.is_empty())
        .peekable();
    layers.peek().is_some()
        && layers.all(|layer| {
            let path = Path::new(std::ffi::OsStr::from_bytes(layer));
            path.is_absolute() && path.is_dir()
        })
}

/// Homes of root and of people, from the file itself: name services may wait for a network.
fn homes(passwd: &[u8]) -> Vec<PathBuf> {
    /// The first user id of people (login.defs(5)).
    const PEOPLE: u32 = 1000;
    let mut homes: Vec<PathBuf> = passwd
        .split(|byte| *byte == b'\n')
        .filter_map(|line| {
            let mut fields = line.split(|byte| *byte == b':');
            let uid: u32 = std::str::from_utf8(fields.nth(2)?).ok()?.parse().ok()?;
            let home = PathBuf::from(OsString::from_vec(fields.nth(2)?.to_vec()));
            let named = home.is_absolute() && home != Path::new("/");
            ((uid == 0 || uid >= PEOPLE) && named).then_some(home)
        })
        .take(MOST_HOMES)
        .collect();
    homes.sort();
    homes.dedup();
    homes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn homes_are_roots_and_peoples() {
        let passwd = b"root:x:0:0::/root:/bin/sh\ndaemon:x:1:1::/usr/sbin:/bin/false\n\
            nobody:x:65534:65534::/nonexistent:/bin/false\na:x:1000:1::/home/a:/bin/sh\n\
            b:x:1001:1::/home/a:/bin/sh\nbroken:x\nc:x:1002:1::/:/bin/sh\n\xff:x:1003:1::rel:/x\n";
        let expected = ["/home/a", "/nonexistent", "/root"].map(PathBuf::from);
        assert_eq!(homes(passwd), expected);
    }

    #[test]
    fn a_full_scan_has_each_local_file_system_once() {
        let table = mounts::parse(
            b"1 0 8:1 / / rw - ext4 /dev/a rw\n\
              2 1 0:5 / /proc rw - proc proc rw\n\
              3 1 8:1 /var/data /srv rw - ext4 /dev/a rw\n\
              4 1 8:2 / /home rw - xfs /dev/b rw\n\
              5 1 8:2 / /mnt/again rw - xfs /dev/b rw\n\
              6 1 0:9 / /net rw - nfs4 server rw\n\
              7 1 0:30 /@a /a rw - btrfs /dev/c rw\n\
              8 1 0:30 /@b /b rw - btrfs /dev/c rw\n\
              9 1 0:40 / /merged rw - overlay overlay rw,lowerdir=/etc,upperdir=/tmp,workdir=/tmp\n\
              10 1 0:41 / /torn rw - overlay overlay rw,lowerdir=/no/such/layer\n",
        );
        let plan = file_systems(table.clone(), &[PathBuf::from("/")]);
        let points = |plan: &Plan| plan.places.iter().map(Place::shown).collect::<Vec<_>>();
        assert_eq!(points(&plan), ["/", "/a", "/b", "/home", "/torn"]);
        let left = |why| plan.refused.iter().filter(|one| one.1 == why).count();
        assert_eq!(left(LeftOutReason::OtherMount), 3, "{:?}", plan.refused);
        assert_eq!(left(LeftOutReason::RemoteFileSystem), 1);
        assert_eq!(points(&file_systems(table, &[PathBuf::from("/mnt")])), ["/mnt/again"]);
    }

    #[test]
    fn a_link_in_a_home_is_not_followed() {
        let home = tempfile::tempdir().expect("home");
        std::os::unix::fs::symlink("/etc", home.path().join("Downloads")).expect("link");
        let place = Place::InHome { home: home.path().to_owned(), below: "Downloads".into() };
        // A link itself may be opened; it is the walk that leaves it.
        match place.open() {
            Ok(Some((_, handle))) => {
                let kind = rustix::fs::fstat(handle).expect("stat").st_mode;
                assert_eq!(
                    rustix::fs::FileType::from_raw_mode(kind),
                    rustix::fs::FileType::Symlink
                );
            }
            other => assert!(matches!(other, Err((_, LeftOutReason::Symlink, _))), "{other:?}"),
        }
        let below = Place::InHome { home: home.path().to_owned(), below: "Downloads/x".into() };
        assert!(matches!(below.open(), Err((_, LeftOutReason::Symlink, _))));
        let none = Place::InHome { home: home.path().to_owned(), below: "nothing".into() };
        assert!(matches!(none.open(), Ok(None)));
    }
}
