//! Keeps the marks in step with the mounts, in a thread of its own.
//!
//! The kernel tells when the mount table changes (`poll` on mountinfo, proc_pid_mountinfo(5)).
//! INVARIANT: nothing here runs while an open is decided, and no mount is opened that a remote
//! server or another process serves.

use std::collections::{BTreeMap, HashSet};
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use holdfast_common::control::FileSystemState;
use holdfast_common::event::{CoverageEvent, EventBody};
use holdfast_common::process::printable;
use rustix::event::{PollFd, PollFlags};
use rustix::fs::{AtFlags, Mode, OFlags, StatxFlags};

use crate::config::Protect;
use crate::on_access::layers::{Layers, UNKNOWN_BASE};
use crate::on_access::marks::{Marks, Root, read_mountinfo};
use crate::on_access::mounts::{Mount, Plan, parse, plan};
use crate::on_access::view::device_of;
use crate::sys::fanotify::Group;

/// The table is looked at this often even when the kernel says nothing.
const LOOK_AGAIN: Duration = Duration::from_secs(10);

const HIDDEN: &str = "hidden below another mount";

/// What is protected now.
pub struct Coverage {
    group: Arc<Group>,
    protect: Mutex<Arc<Protect>>,
    marks: Arc<Marks>,
    events_below_overlay: bool,
    states: Mutex<BTreeMap<u64, FileSystemState>>,
    handled: Mutex<HashSet<(u32, u32)>>,
    /// File systems that were marked by the last look, each with a folder on it.
    marked: Mutex<Marked>,
    /// One look at a time.
    turn: Mutex<()>,
    report: Box<dyn Fn(EventBody) + Send + Sync>,
}

impl std::fmt::Debug for Coverage {
    fn fmt(&self, to: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        to.debug_struct("Coverage").field("protect", &self.protect).finish_non_exhaustive()
    }
}

impl Coverage {
    /// Nothing is marked yet: see [`Coverage::refresh`].
    pub fn new(
        group: Arc<Group>,
        marks: Arc<Marks>,
        protect: Arc<Protect>,
        report: Box<dyn Fn(EventBody) + Send + Sync>,
    ) -> Self {
        Self {
            group,
            marks,
            protect: Mutex::new(protect),
            events_below_overlay: kernel_at_least(6, 5),
            states: Mutex::default(),
            handled: Mutex::default(),
            marked: Mutex::default(),
            turn: Mutex::default(),
            report,
        }
    }

    /// Every mount that should be protected, and why one is not.
    #[must_use]
    pub fn states(&self) -> Vec<FileSystemState> {
        self.states.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    /// Devices of the file systems that are looked after here, protected or refused for what they
    /// are: other mount namespaces need not be asked for them.
    pub(super) fn handled(&self) -> HashSet<(u32, u32)> {
        self.handled.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// From kernel 6.5 on.
    pub(super) const fn events_below_overlay(&self) -> bool {
        self.events_below_overlay
    }

    /// Tells the journal.
    pub(super) fn report(&self, body: EventBody) {
        (self.report)(body);
    }

    /// Follows the mount table until `stop` becomes readable.
    pub fn follow(&self, stop: &OwnedFd) -> std::io::Result<()> {
        let mountinfo = File::open("/proc/self/mountinfo")?;
        let timeout = rustix::event::Timespec::try_from(LOOK_AGAIN).ok();
        loop {
            let mut fds = [
                PollFd::new(&mountinfo, PollFlags::PRI | PollFlags::ERR),
                PollFd::new(stop, PollFlags::IN),
            ];
            match rustix::event::poll(&mut fds, timeout.as_ref()) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            if fds[1].revents().contains(PollFlags::IN) {
                return Ok(());
            }
            self.refresh()?;
        }
    }

    /// Reads the table once and marks what is new.
    ///
    /// # Errors
    /// When mountinfo cannot be read.
    pub fn refresh(&self) -> std::io::Result<()> {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        self.look()
    }

    /// Whether this is not what is protected now.
    pub(super) fn is_other(&self, protect: &Protect) -> bool {
        *self.protect() != *protect
    }

    fn protect(&self) -> Arc<Protect> {
        Arc::clone(&self.protect.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Protects this from now on, and tells what was marked and is not wanted any more: it stays
    /// marked until [`Coverage::let_go`].
    ///
    /// # Errors
    /// When mountinfo cannot be read; then what was wanted before still is.
    pub(super) fn set_protect(&self, protect: Arc<Protect>) -> std::io::Result<Narrowed> {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let before = self.marked.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let old = std::mem::replace(
            &mut *self.protect.lock().unwrap_or_else(PoisonError::into_inner),
            protect,
        );
        if let Err(error) = self.look() {
            *self.protect.lock().unwrap_or_else(PoisonError::into_inner) = old;
            return Err(error);
        }
        let now = self.marked.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(Narrowed(before.into_iter().filter(|(device, _)| !now.contains_key(device)).collect()))
    }

    /// Takes marks off that nobody wants any more; those of `elsewhere` stay. What cannot be
    /// reached any more stays marked, which costs time and no protection.
    pub(super) fn let_go(&self, narrowed: Narrowed, elsewhere: &HashSet<(u32, u32)>) {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let wanted = self.marked.lock().unwrap_or_else(PoisonError::into_inner).clone();
        for (device, path) in narrowed.0 {
            if wanted.contains_key(&device) || elsewhere.contains(&device) {
                continue;
            }
            let Ok(folder) = open(&path) else { continue };
            // Subvolumes of one file system share its mark.
            let kind = rustix::fs::fstatfs(&folder).map(|facts| facts.f_type);
            let shared = kind.is_ok_and(|kind| kind == BTRFS);
            if !shared && device_of(folder.as_fd()) == Some(device) {
                // ENOENT: its mark went with its super block.
                let _ = self.group.unprotect(folder.as_fd());
            }
        }
    }

    fn look(&self) -> std::io::Result<()> {
        let mounts = parse(&read_mountinfo()?);
        let protect = self.protect();
        let plans = plan(&mounts, &protect, self.events_below_overlay);
        let mut roots = Vec::new();
        let mut marked = BTreeMap::new();
        let mut states = self.states.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut seen = BTreeMap::new();
        let mut handled = HashSet::new();
        for plan in plans {
            let mount = plan.mount();
            // Each time anew: an id may by now be that of another mount, and marking what is
            // marked changes nothing.
            let before = states.remove(&mount.id);
            let mut state = self.carry_out(&plan, &mut roots, &mut marked);
            if state.reason.as_deref() == Some(HIDDEN)
                && let Some(known) = before.as_ref().filter(|known| known.protected)
            {
                // Marked while it could be reached; covering it has not changed that.
                state = known.clone();
            }
            if before.as_ref() != Some(&state) {
                self.tell(&state);
            }
            if state.protected || !matches!(plan, Plan::Protect(_)) {
                handled.insert(mount.device);
            }
            seen.insert(mount.id, state);
        }
        self.marks.update(&mounts, roots);
        // What is left has been unmounted (its mark went with its super block), or is not named.
        for (id, mut gone) in states {
            if gone.protected {
                gone.protected = false;
                let there = mounts.iter().any(|mount| mount.id == id);
                let why = if there { "not named by protect any more" } else { "unmounted" };
                gone.reason = Some(why.to_owned());
                self.tell(&gone);
            }
        }
        *self.states.lock().unwrap_or_else(PoisonError::into_inner) = seen;
        *self.handled.lock().unwrap_or_else(PoisonError::into_inner) = handled;
        *self.marked.lock().unwrap_or_else(PoisonError::into_inner) = marked;
        Ok(())
    }

    /// See [`OnAccess::is_marked`](super::OnAccess::is_marked).
    pub fn is_marked(&self, folder: &Path) -> Option<bool> {
        let folder = open(folder).ok()?;
        let marked = self.group.is_protected(folder.as_fd()).ok()?;
        let kind = rustix::fs::fstatfs(&folder).ok()?.f_type;
        (marked || kind != OVERLAY).then_some(marked)
    }

    fn tell(&self, state: &FileSystemState) {
        (self.report)(EventBody::Coverage(CoverageEvent {
            mount: state.mount.clone(),
            fs_type: state.fs_type.clone(),
            protected: state.protected,
            reason: state.reason.clone(),
        }));
    }

    fn carry_out(
        &self,
        plan: &Plan,
        roots: &mut Vec<Root>,
        marked: &mut Marked,
    ) -> FileSystemState {
        let refusal = match plan {
            Plan::Refuse(_, reason) => Some((*reason).to_owned()),
            Plan::Protect(mount) => self.protect_mount(mount, roots, marked).err(),
            Plan::ProtectBelow(mount, layers) => {
                self.protect_layers(mount, layers, roots, marked).err()
            }
        };
        let mount = plan.mount();
        FileSystemState {
            mount: printable_path(&mount.point),
            fs_type: mount.fs_type.clone(),
            protected: refusal.is_none(),
            reason: refusal,
        }
    }

    fn protect_mount(
        &self,
        mount: &Mount,
        roots: &mut Vec<Root>,
        marked: &mut Marked,
    ) -> Result<(), String> {
        let point = open_mount(mount)?;
        if !mount.idmapped {
            roots.extend(Root::of(point.as_fd(), &mount.point).ok());
        }
        self.mark(point.as_fd(), &mount.point, marked)
    }

    fn protect_layers(
        &self,
        mount: &Mount,
        layers: &Layers,
        roots: &mut Vec<Root>,
        marked: &mut Marked,
    ) -> Result<(), String> {
        let base = if layers.any_relative() {
            let shown = open_mount(mount)?;
            let base = layers.base(&mount.point, shown.as_fd(), &mount.root, &open_folder, true);
            Some(base.ok_or(UNKNOWN_BASE)?)
        } else {
            None
        };
        // Every layer, also behind one that cannot be reached.
        let failed: Vec<String> = layers
            .all()
            .filter_map(|layer| {
                let path = match &base {
                    // Engines name layers by short links, which a later look would not follow.
                    Some(base) => base.join(layer).canonicalize().map_err(|e| e.to_string()),
                    None => Ok(layer.to_owned()),
                };
                path.and_then(|path| self.protect_layer(&path, roots, marked)).err()
            })
            .collect();
        if failed.is_empty() { Ok(()) } else { Err(failed.join("; ")) }
    }

    fn protect_layer(
        &self,
        layer: &Path,
        roots: &mut Vec<Root>,
        marked: &mut Marked,
    ) -> Result<(), String> {
        let folder =
            open(layer).map_err(|error| format!("layer {}: {error}", printable_path(layer)))?;
        let kind = rustix::fs::fstatfs(&folder).map_err(|error| error.to_string())?.f_type;
        if UNSAFE_LAYERS.contains(&kind) {
            return Err(format!(
                "layer {} lies on a file system that cannot be marked",
                printable_path(layer)
            ));
        }
        roots.extend(Root::of(folder.as_fd(), layer).ok());
        self.mark(folder.as_fd(), layer, marked)
    }

    fn mark(&self, folder: BorrowedFd<'_>, path: &Path, marked: &mut Marked) -> Result<(), String> {
        self.group.protect(folder).map_err(|error| error.to_string())?;
        marked.extend(device_of(folder).map(|device| (device, path.to_owned())));
        Ok(())
    }
}

/// A folder on each file system that carries our mark, by its device.
type Marked = BTreeMap<(u32, u32), PathBuf>;

/// What was marked and is not wanted any more.
#[must_use]
pub(super) struct Narrowed(Marked);

/// `BTRFS_SUPER_MAGIC` (linux/magic.h).
const BTRFS: i64 = 0x9123_683e;

const OVERLAY: i64 = 0x794c_7630;

/// `statfs(2)` types of a layer that must not be marked: overlay itself, FUSE, NFS, CIFS, SMB2.
const UNSAFE_LAYERS: [i64; 5] = [OVERLAY, 0x6573_5546, 0x6969, 0xff53_4d42, 0xfe53_4d42];

impl Plan {
    fn mount(&self) -> &Mount {
        match self {
            Self::Protect(mount) | Self::Refuse(mount, _) | Self::ProtectBelow(mount, _) => mount,
        }
    }
}

/// The mount point, if it is this mount that can be seen there.
fn open_mount(mount: &Mount) -> Result<OwnedFd, String> {
    let point = open(&mount.point)?;
    // Another mount on top hides this one; through a path it cannot be marked.
    let statx = rustix::fs::statx(&point, c"", AtFlags::EMPTY_PATH, StatxFlags::MNT_ID)
        .map_err(|error| error.to_string())?;
    if statx.stx_mask & StatxFlags::MNT_ID.bits() != 0 && statx.stx_mnt_id != mount.id {
        return Err(HIDDEN.to_owned());
    }
    Ok(point)
}

fn open_folder(path: &Path) -> Result<OwnedFd, String> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty()).map_err(|error| error.to_string())
}

/// `O_PATH`: raises no event and starts no device.
fn open(path: &Path) -> Result<OwnedFd, String> {
    rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
        .map_err(|error| error.to_string())
}

pub(super) fn printable_path(path: &Path) -> String {
    use std::os::unix::ffi::OsStrExt;
    printable(path.as_os_str().as_bytes())
}

pub(super) fn kernel_at_least(major: u32, minor: u32) -> bool {
    let release = rustix::system::uname();
    let release = release.release().to_string_lossy();
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse::<u32>);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(have_major)), Some(Ok(have_minor))) => (have_major, have_minor) >= (major, minor),
        _ => true,
    }
}

/// Each protected path must exist at start: a typo must not protect the wrong file system.
///
/// # Errors
/// Names the first path that is not there.
pub fn check_paths(protect: &Protect) -> Result<(), String> {
    let Protect::Paths(paths) = protect else { return Ok(()) };
    for path in paths {
        open(path).map_err(|error| format!("protect: {}: {error}", printable_path(path)))?;
    }
    Ok(())
}

/// The same paths without symlinks, as mountinfo knows them.
#[must_use]
pub fn resolve(protect: &Protect) -> Protect {
    match protect {
        Protect::All => Protect::All,
        Protect::Paths(paths) => Protect::Paths(
            paths
                .iter()
                .map(|path| path.canonicalize().unwrap_or_else(|_| PathBuf::from(path)))
                .collect(),
        ),
    }
}
