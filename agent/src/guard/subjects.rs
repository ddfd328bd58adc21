//! What is protected: the agent's files and folders, and its eBPF objects.
//!
//! Knows paths and numbers only; the programs learn from [`Subjects`] through the teacher. Files
//! that appear later (a socket, a folder of pins) or are replaced (an upgrade) are found by their
//! next turn.

use std::collections::BTreeMap;
use std::fs;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use aya::programs::links::PinnedLink;
use holdfast_common::guard::{CLASS_BITS, Class, MOST_OBJECTS, object};

use crate::config::Config;

/// Where systemd looks for units (systemd.unit(5)).
const UNIT_FOLDERS: [&str; 4] = [
    "/etc/systemd/system",
    "/run/systemd/system",
    "/usr/lib/systemd/system",
    "/lib/systemd/system",
];

/// One path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Subject {
    pub(super) path: PathBuf,
    pub(super) class: Class,
    /// Device and inode that were shown to the programs.
    pub(super) shown: Option<(u64, u64)>,
}

/// All of them; the place in the list is the label.
#[derive(Debug, Clone, Default)]
pub(super) struct Subjects(pub(super) Vec<Subject>);

impl Subjects {
    /// Of an agent with this config, at this path.
    pub(super) fn of(config: &Config, config_path: &Path, own: &Path) -> Self {
        let mut classes: BTreeMap<PathBuf, Class> = BTreeMap::new();
        let beside = |name: &str| own.with_file_name(name);
        let mut files = vec![own.to_owned(), beside("holdfast-scan"), beside("holdfast")];
        files.push(config_path.to_owned());
        files.push(config.socket.clone());
        files.extend(units(config.self_proof.unit.as_deref()));
        // Not the rules: whoever brings new ones must be able to write them.
        let folders = [config.state_dir.clone(), config.isolation.pins.clone()];
        for path in files {
            classes.insert(real(&path), Class::File);
        }
        for path in folders {
            classes.insert(real(&path), Class::Folder);
        }
        let above: Vec<PathBuf> = classes
            .keys()
            .flat_map(|path| path.ancestors().skip(1))
            .filter(|folder| folder.parent().is_some())
            .map(Path::to_owned)
            .collect();
        for path in above {
            classes.entry(path).or_insert(Class::Above);
        }
        Self(
            classes.into_iter().map(|(path, class)| Subject { path, class, shown: None }).collect(),
        )
    }

    /// For people: which file a mark stands for, seen from below.
    pub(super) fn name(&self, mark: u32, depth: u32, last: &str) -> String {
        let label = (mark >> CLASS_BITS) as usize;
        let Some(subject) = self.0.get(label) else { return last.to_owned() };
        let path = subject.path.display();
        match depth {
            0 => path.to_string(),
            1 => format!("{path}/{last}"),
            _ => format!("{path}/…/{last}"),
        }
    }
}

/// What a file is now; `None` when it is not there.
pub(super) fn identity(path: &Path) -> Option<(u64, u64)> {
    fs::metadata(path).ok().map(|facts| (facts.dev(), facts.ino()))
}

/// Without symbolic links, as far as the path is there.
fn real(path: &Path) -> PathBuf {
    if let Ok(real) = path.canonicalize() {
        return real;
    }
    match (path.parent(), path.file_name()) {
        (Some(parent), Some(name)) => real(parent).join(name),
        _ => path.to_owned(),
    }
}

/// The unit's own files: of the configured unit, or of the one that this process runs in.
fn units(configured: Option<&str>) -> Vec<PathBuf> {
    let cgroup = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let Some(unit) = configured.map(str::to_owned).or_else(|| unit_of(&cgroup)) else {
        return Vec::new();
    };
    UNIT_FOLDERS.iter().map(|folder| Path::new(folder).join(&unit)).filter(|p| p.exists()).collect()
}

/// The service whose cgroup this is.
fn unit_of(cgroup: &str) -> Option<String> {
    let path = cgroup.lines().find_map(|line| line.strip_prefix("0::"))?;
    let last = path.rsplit('/').next()?;
    last.ends_with(".service").then(|| last.to_owned())
}

/// Every map and link that this process holds, or has pinned: kind and id. No more than the
/// programs have room for.
pub(super) fn objects(pins: &Path) -> Vec<[u32; 2]> {
    // Open while the list is read: a pinned link has no other descriptor.
    let held: Vec<_> = fs::read_dir(pins)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| PinnedLink::from_pin(entry.path()).ok())
        .collect();
    let mut objects = Vec::new();
    for entry in fs::read_dir("/proc/self/fd").into_iter().flatten().flatten() {
        let kind = fs::read_link(entry.path()).unwrap_or_default();
        // Others' facts may be long: those of a fanotify group are all its marks.
        if !kind.to_string_lossy().contains("bpf") {
            continue;
        }
        let facts = Path::new("/proc/self/fdinfo").join(entry.file_name());
        objects.extend(fs::read_to_string(facts).ok().as_deref().and_then(object_of));
    }
    drop(held);
    objects.sort_unstable();
    objects.dedup();
    objects.truncate(MOST_OBJECTS as usize);
    objects
}

/// `map_id` or `link_id` of a descriptor's facts (proc_pid_fdinfo(5)).
fn object_of(facts: &str) -> Option<[u32; 2]> {
    facts.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        let kind = match name {
            "map_id" => object::MAP,
            "link_id" => object::LINK,
            _ => return None,
        };
        Some([kind, value.trim().parse().ok()?])
    })
}

/// Opens a path so that the programs see it; whether the open succeeds does not matter (a socket
/// and a pin refuse it, after the programs have looked).
pub(super) fn show(path: &Path) {
    use rustix::fs::{Mode, OFlags};
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOCTTY;
    let opened: rustix::io::Result<OwnedFd> = rustix::fs::open(path, flags, Mode::empty());
    if let Ok(file) = opened {
        tracing::trace!(path = %path.display(), descriptor = file.as_raw_fd(), "shown");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_are_read_from_the_facts_of_their_descriptors() {
        let link = "pos:\t0\nlink_type:\ttracing\nlink_id:\t7\nprog_id:\t9\n";
        assert_eq!(object_of(link), Some([object::LINK, 7]));
        let map = "pos:\t0\nmap_type:\t1\nkey_size:\t4\nmap_id:\t12\nfrozen:\t0\n";
        assert_eq!(object_of(map), Some([object::MAP, 12]));
        assert_eq!(object_of("pos:\t0\nprog_id:\t9\n"), None);
        assert_eq!(object_of("map_id:\tx\n"), None);
    }

    #[test]
    fn the_unit_is_the_last_part_of_the_cgroup() {
        assert_eq!(
            unit_of("0::/system.slice/holdfastd.service\n").as_deref(),
            Some("holdfastd.service")
        );
        assert_eq!(unit_of("0::/user.slice/session-1.scope\n"), None);
        assert_eq!(unit_of("1:name=systemd:/x.service\n"), None);
    }

    #[test]
    fn everything_above_a_protected_path_is_kept_from_being_moved_away() {
        let text = "state_dir = \"/var/lib/none-such\"\nsocket = \"/run/none-such/socket\"\n\
            [on_access]\nprotect = [\"/srv\"]\nmode = \"block\"\n";
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("config.toml");
        fs::write(&path, text).expect("write");
        let config = Config::load(&path).expect("config");
        let subjects = Subjects::of(&config, &path, Path::new("/none-such/bin/holdfastd"));
        let class =
            |path: &str| subjects.0.iter().find(|s| s.path == Path::new(path)).map(|s| s.class);
        assert_eq!(class("/none-such/bin/holdfast-scan"), Some(Class::File));
        assert_eq!(class("/none-such/bin"), Some(Class::Above));
        assert_eq!(class("/var/lib/none-such"), Some(Class::Folder));
        assert_eq!(class("/"), None, "the root cannot be moved");
        let label = subjects.0.iter().position(|s| s.path == Path::new("/var/lib/none-such"));
        let mark = (label.expect("there") as u32) << CLASS_BITS | Class::Folder as u32;
        assert_eq!(subjects.name(mark, 1, "journal"), "/var/lib/none-such/journal");
        assert_eq!(subjects.name(mark, 3, "x"), "/var/lib/none-such/…/x");
    }
}
