//! Which file systems to protect, read from `/proc/self/mountinfo` (proc_pid_mountinfo(5)).
//!
//! Pure: text in, a plan out. What is not protected is in the plan too, with the reason, since a
//! hole must be visible. Mount points are bytes that an attacker may choose.

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use crate::config::Protect;
use crate::on_access::layers::Layers;

/// One line of mountinfo.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// Mount id, as `statx` tells it for anything on the mount (5.8).
    pub id: u64,
    /// Id of the mount that it lies on.
    pub parent: u64,
    /// Device of its super block, major and minor; the same in every namespace.
    pub device: (u32, u32),
    /// Folder of its file system that it shows.
    pub root: PathBuf,
    /// Where, as the task sees it whose table this is.
    pub point: PathBuf,
    /// Shows other owners than its files have (`idmapped`, 5.12).
    pub idmapped: bool,
    /// File system type.
    pub fs_type: String,
    /// Options of the super block, among them overlayfs' `upperdir` and `lowerdir`.
    pub super_options: Vec<u8>,
}

/// What to do with one mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Plan {
    /// Mark its file system.
    Protect(Mount),
    /// Leave it, and say why.
    Refuse(Mount, &'static str),
    /// An overlay: the events come from the file systems below it. Mark those of its layers.
    ProtectBelow(Mount, Layers),
}

/// A folder of a file system: what lies there is protected, whatever it is called in which
/// namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    device: (u32, u32),
    folder: PathBuf,
}

/// A permission mark on these can hang the agent or cannot see all writers.
const REMOTE: &[&str] = &[
    "fuse",
    "fuseblk",
    "nfs",
    "nfs4",
    "cifs",
    "smb3",
    "9p",
    "virtiofs",
    "ceph",
    "afs",
    "autofs",
    "glusterfs",
    "lustre",
    "gfs2",
    "ocfs2",
];

/// Kernel interfaces: no files that could be malicious.
const PSEUDO: &[&str] = &[
    "proc",
    "sysfs",
    "cgroup",
    "cgroup2",
    "devpts",
    "devtmpfs",
    "securityfs",
    "debugfs",
    "tracefs",
    "configfs",
    "bpf",
    "pstore",
    "efivarfs",
    "mqueue",
    "hugetlbfs",
    "binfmt_misc",
    "selinuxfs",
    "rpc_pipefs",
    "nsfs",
    "fusectl",
    "binder",
];

impl Mount {
    /// Served by somebody who may never answer.
    #[must_use]
    pub fn is_remote(&self) -> bool {
        is(REMOTE, &self.fs_type) || self.fs_type.starts_with("fuse.")
    }

    /// A path on it as a folder of its file system.
    fn inside(&self, path: &Path) -> Option<PathBuf> {
        Some(self.root.join(path.strip_prefix(&self.point).ok()?))
    }

    /// A kernel interface.
    #[must_use]
    pub fn is_pseudo(&self) -> bool {
        is(PSEUDO, &self.fs_type)
    }
}

/// Parses the whole file; lines that are not as documented are left out.
#[must_use]
pub fn parse(mountinfo: &[u8]) -> Vec<Mount> {
    mountinfo.split(|byte| *byte == b'\n').filter_map(parse_line).collect()
}

fn parse_line(line: &[u8]) -> Option<Mount> {
    // 36 35 98:0 /root /point rw,noatime master:1 - ext4 /dev/root rw,errors=continue
    let mut fields = line.split(|byte| *byte == b' ');
    let id = number(fields.next()?)?;
    let parent = number(fields.next()?)?;
    let (major, minor) = std::str::from_utf8(fields.next()?).ok()?.split_once(':')?;
    let device = (major.parse().ok()?, minor.parse().ok()?);
    let root = path(unescape(fields.next()?));
    let point = path(unescape(fields.next()?));
    let idmapped = fields.next()?.split(|byte| *byte == b',').any(|option| option == b"idmapped");
    let mut fields = fields.skip_while(|field| *field != b"-").skip(1);
    let fs_type = String::from_utf8(fields.next()?.to_vec()).ok()?;
    let super_options = fields.nth(1).unwrap_or_default().to_vec();
    Some(Mount { id, parent, device, root, point, idmapped, fs_type, super_options })
}

fn number(field: &[u8]) -> Option<u64> {
    std::str::from_utf8(field).ok()?.parse().ok()
}

/// Undoes the kernel's `\040` for space, tab, newline and backslash.
pub(super) fn unescape(field: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((first, tail)) = rest.split_first() {
        let octal = tail.get(..3).filter(|digits| digits.iter().all(|d| (b'0'..=b'7').contains(d)));
        match (first, octal) {
            (b'\\', Some(digits)) => {
                let value = digits.iter().fold(0_u32, |sum, d| sum * 8 + u32::from(d - b'0'));
                bytes.push(u8::try_from(value & 0xff).unwrap_or_default());
                rest = &tail[3..];
            }
            _ => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    bytes
}

pub(super) fn path(bytes: Vec<u8>) -> PathBuf {
    PathBuf::from(OsString::from_vec(bytes))
}

/// What to do with each mount. `events_below_overlay` is true from kernel 6.5 on: opens on an
/// overlay raise events on the real files, and marking both deadlocks their one reader (6.18).
#[must_use]
pub fn plan(mounts: &[Mount], protect: &Protect, events_below_overlay: bool) -> Vec<Plan> {
    let wanted: Vec<&Mount> = match protect {
        Protect::All => mounts.iter().filter(|mount| !mount.is_pseudo()).collect(),
        Protect::Paths(paths) => wanted_by_paths(mounts, paths),
    };
    wanted.into_iter().map(|mount| plan_one(mount, events_below_overlay)).collect()
}

/// For each path the mount that holds it, and all mounts below it.
fn wanted_by_paths<'m>(mounts: &'m [Mount], paths: &[PathBuf]) -> Vec<&'m Mount> {
    let mut wanted: BTreeMap<u64, &Mount> = BTreeMap::new();
    for path in paths {
        let below = mounts.iter().filter(|mount| mount.point.starts_with(path));
        wanted.extend(below.chain(holder(mounts, path)).map(|mount| (mount.id, mount)));
    }
    wanted.into_values().collect()
}

/// The mount that holds a path. A later line covers an earlier one with the same point.
#[must_use]
pub fn holder<'m>(mounts: &'m [Mount], path: &Path) -> Option<&'m Mount> {
    mounts
        .iter()
        .filter(|mount| path.starts_with(&mount.point))
        // Of equals the last.
        .max_by_key(|mount| depth(&mount.point))
}

/// Where the protected paths lie, and what is mounted below them, in terms that hold in every
/// mount namespace.
#[must_use]
pub fn places(mounts: &[Mount], paths: &[PathBuf]) -> Vec<Place> {
    let held = paths.iter().filter_map(|path| {
        let mount = holder(mounts, path)?;
        Some(Place { device: mount.device, folder: mount.inside(path)? })
    });
    let below = mounts
        .iter()
        .filter(|mount| paths.iter().any(|path| mount.point.starts_with(path)))
        .map(|mount| Place { device: mount.device, folder: mount.root.clone() });
    held.chain(below).collect()
}

/// The mounts of another namespace that are to be protected: all but kernel interfaces, or those
/// that lie, directly or on one another, on one of `places`.
#[must_use]
pub fn wanted_elsewhere<'m>(mounts: &'m [Mount], places: Option<&[Place]>) -> Vec<&'m Mount> {
    let Some(places) = places else {
        return mounts.iter().filter(|mount| !mount.is_pseudo()).collect();
    };
    let by_id: HashMap<u64, &Mount> = mounts.iter().map(|mount| (mount.id, mount)).collect();
    let lies_on = |mount: &Mount| {
        let parent = by_id.get(&mount.parent)?;
        let folder = parent.inside(&mount.point)?;
        let place =
            |place: &Place| place.device == parent.device && folder.starts_with(&place.folder);
        places.iter().any(place).then_some(())
    };
    let mut known: HashMap<u64, bool> = HashMap::new();
    for mount in mounts {
        // Up to the first that is known, or lies on a place, or lies on nothing.
        let mut chain = Vec::new();
        let mut at = Some(mount);
        let wanted = loop {
            // Longer than the table: a circle.
            let Some(here) = at.filter(|_| chain.len() <= mounts.len()) else { break false };
            if let Some(wanted) = known.get(&here.id) {
                break *wanted;
            }
            chain.push(here.id);
            if lies_on(here).is_some() {
                break true;
            }
            at = by_id.get(&here.parent).copied();
        };
        known.extend(chain.into_iter().map(|id| (id, wanted)));
    }
    let wanted = |mount: &&Mount| !mount.is_pseudo() && known.get(&mount.id) == Some(&true);
    mounts.iter().filter(wanted).collect()
}

fn depth(path: &Path) -> usize {
    path.components().count()
}

/// What to do with one mount.
#[must_use]
pub fn plan_one(mount: &Mount, events_below_overlay: bool) -> Plan {
    let mount = mount.clone();
    if mount.is_remote() {
        return Plan::Refuse(mount, "a server that does not answer could hang every open");
    }
    if mount.is_pseudo() {
        return Plan::Refuse(mount, "a kernel interface, not a place for files");
    }
    if mount.fs_type == "overlay" && events_below_overlay {
        let layers = Layers::of(&mount.super_options);
        return Plan::ProtectBelow(mount, layers);
    }
    Plan::Protect(mount)
}

/// True for a type whose files are the host's own: nobody has to answer for it, and it is no
/// kernel interface.
#[must_use]
pub fn is_local(fs_type: &str) -> bool {
    !is(REMOTE, fs_type) && !fs_type.starts_with("fuse.") && !is(PSEUDO, fs_type)
}

fn is(list: &[&str], fs_type: &str) -> bool {
    list.contains(&fs_type)
}

#[cfg(test)]
mod tests {
    use super::*;

    const INFO: &[u8] = b"22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw\n\
        23 22 0:5 / /proc rw - proc proc rw\n\
        30 22 0:40 / /srv rw - xfs /dev/vdb rw\n\
        31 30 0:41 / /srv/with\\040space rw - tmpfs tmpfs rw,size=1k\n\
        32 30 0:42 / /srv/remote rw - fuse.sshfs host:/ rw\n\
        33 22 0:43 / /srvother rw - ext4 /dev/vdc rw\n\
        34 30 0:44 / /srv/ov rw - overlay overlay rw,lowerdir=/l1:/l\\0542,upperdir=/u,workdir=/w\n\
        garbage\n\n35 x\n";

    fn names(plans: &[Plan]) -> Vec<String> {
        plans
            .iter()
            .map(|plan| match plan {
                Plan::Protect(mount) => format!("+{}", mount.point.display()),
                Plan::Refuse(mount, _) => format!("-{}", mount.point.display()),
                Plan::ProtectBelow(mount, layers) => {
                    let layers: Vec<_> = layers.all().collect();
                    format!("{}>{layers:?}", mount.point.display())
                }
            })
            .collect()
    }

    #[test]
    fn a_path_is_protected_by_the_mount_that_holds_it_and_those_below() {
        let mounts = parse(INFO);
        assert_eq!(mounts.len(), 7);
        let srv = Protect::Paths(vec![PathBuf::from("/srv")]);
        assert_eq!(
            names(&plan(&mounts, &srv, false)),
            ["+/srv", "+/srv/with space", "-/srv/remote", "+/srv/ov"]
        );
        let inside = Protect::Paths(vec![PathBuf::from("/srv/folder/deep")]);
        assert_eq!(names(&plan(&mounts, &inside, false)), ["+/srv"]);
        let root = Protect::Paths(vec![PathBuf::from("/home")]);
        assert_eq!(names(&plan(&mounts, &root, false)), ["+/"]);
    }

    #[test]
    fn everything_local_leaves_out_kernel_interfaces_and_names_what_is_refused() {
        let all = plan(&parse(INFO), &Protect::All, true);
        assert_eq!(
            names(&all),
            [
                "+/",
                "+/srv",
                "+/srv/with space",
                "-/srv/remote",
                "+/srvother",
                "/srv/ov>[\"/u\", \"/l1\", \"/l,2\"]"
            ]
        );
    }

    #[test]
    fn the_later_of_two_mounts_on_one_point_is_the_one_that_holds_a_path() {
        let info = b"1 0 8:1 / / rw - ext4 a rw\n2 1 8:2 / /m rw - ext4 b rw\n3 1 8:3 / /m rw - xfs c rw\n";
        let mounts = parse(info);
        let plans = plan(&mounts, &Protect::Paths(vec![PathBuf::from("/m/f")]), false);
        assert!(matches!(&plans[..], [Plan::Protect(mount)] if mount.id == 3));
    }

    #[test]
    fn elsewhere_a_mount_is_known_by_what_it_lies_on_whatever_it_is_called() {
        let own = parse(INFO);
        let paths = [PathBuf::from("/srv/folder")];
        let places = places(&own, &paths);
        let theirs = parse(
            b"90 1 0:60 / / rw - overlay overlay rw\n\
              91 90 0:40 /folder /data rw - xfs /dev/vdb rw\n\
              92 91 0:61 / /data/tmp rw - tmpfs tmpfs rw\n\
              93 92 0:62 / /data/tmp/deep rw - tmpfs tmpfs rw\n\
              94 90 0:63 / /srv/folder rw - tmpfs tmpfs rw\n\
              95 90 0:40 /other /other rw - xfs /dev/vdb rw\n\
              96 95 0:64 / /other/tmp rw - tmpfs tmpfs rw\n\
              97 92 0:65 / /data/tmp/proc rw - proc proc rw\n",
        );
        let ids = |mounts: Vec<&Mount>| mounts.iter().map(|mount| mount.id).collect::<Vec<_>>();
        assert_eq!(ids(wanted_elsewhere(&theirs, Some(&places))), [92, 93]);
        assert_eq!(ids(wanted_elsewhere(&theirs, None)), [90, 91, 92, 93, 94, 95, 96]);
        assert!(wanted_elsewhere(&theirs, Some(&[])).is_empty());
    }

    #[test]
    fn a_table_whose_mounts_lie_on_each_other_in_a_circle_ends() {
        let circle = parse(b"1 2 0:1 / /a rw - tmpfs t rw\n2 1 0:2 / /a rw - tmpfs t rw\n");
        let places = [Place { device: (0, 9), folder: PathBuf::from("/") }];
        assert!(wanted_elsewhere(&circle, Some(&places)).is_empty());
    }
}
