//! Where the kernel may let later opens pass by itself.
//!
//! INVARIANT: an ignore mark stands only on a file that root alone can write, as the file itself
//! says and not as a mount shows it, and it goes when that changes: a second group tells of every
//! change of owner, mode or ACL of a marked file. That comes a moment late, which is early enough:
//! whoever opened the file for writing in that moment is seen as its writer at the next open.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use rustix::event::{PollFd, PollFlags};
use rustix::fs::{Mode, OFlags};

use crate::on_access::mounts::Mount;
use crate::sys::attributes::{AttributeEvent, AttributeGroup};
use crate::sys::fanotify::Group;
use crate::sys::identity::Facts;
use crate::sys::inode::{FileHandle, handle_of, open_handle};

/// `TMPFS_MAGIC` (linux/magic.h).
const TMPFS: i64 = 0x0102_1994;

/// The ignore marks of a group.
#[derive(Debug)]
pub(super) struct Marks {
    group: Arc<Group>,
    // Without it no mark is set at all.
    attributes: Option<AttributeGroup>,
    /// From kernel 6.5 on, pages of files on disk cannot be pinned for long.
    no_long_pins_on_disk: bool,
    table: RwLock<Table>,
}

#[derive(Debug, Default)]
struct Table {
    plain: HashSet<u64>,
    idmapped: HashSet<u64>,
    roots: HashMap<(u32, u32), Root>,
}

/// A folder on a protected file system, on a mount that shows true owners.
#[derive(Debug, Clone)]
pub(super) struct Root {
    device: (u32, u32),
    path: PathBuf,
    fsid: [u8; 8],
    tmpfs: bool,
}

impl Root {
    /// Of an open folder.
    pub(super) fn of(folder: BorrowedFd<'_>, path: &Path) -> std::io::Result<Self> {
        let statfs = rustix::fs::fstatfs(folder)?;
        // Two 32-bit numbers, which the call puts together low one first (statvfs(3)).
        let both = rustix::fs::fstatvfs(folder)?.f_fsid;
        let mut fsid = [0; 8];
        fsid[..4].copy_from_slice(&((both & 0xffff_ffff) as u32).to_ne_bytes());
        fsid[4..].copy_from_slice(&((both >> 32) as u32).to_ne_bytes());
        let device = Facts::of(folder)?.identity.device;
        Ok(Self { device, path: path.to_owned(), fsid, tmpfs: statfs.f_type == TMPFS })
    }

    /// Opened for a moment only: a descriptor that stays would keep the file system from being
    /// unmounted.
    fn open(&self) -> Option<OwnedFd> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let folder = rustix::fs::open(&self.path, flags, Mode::empty()).ok()?;
        let same = Facts::of(folder.as_fd()).ok()?.identity.device == self.device;
        same.then_some(folder)
    }
}

impl Marks {
    pub(super) fn new(group: Arc<Group>, no_long_pins_on_disk: bool) -> Self {
        let attributes = AttributeGroup::new()
            .inspect_err(|error| {
                tracing::warn!(%error, "changes of owner are not told: every open is looked at");
            })
            .ok();
        Self { group, attributes, no_long_pins_on_disk, table: RwLock::default() }
    }

    /// The mounts of the host, and a folder on each protected file system, as they are now.
    pub(super) fn update(&self, mounts: &[Mount], roots: Vec<Root>) {
        let ids = |idmapped| {
            mounts.iter().filter(move |mount| mount.idmapped == idmapped).map(|mount| mount.id)
        };
        let roots = roots.into_iter().map(|root| (root.device, root)).collect();
        let table = Table { plain: ids(false).collect(), idmapped: ids(true).collect(), roots };
        *self.table.write().unwrap_or_else(PoisonError::into_inner) = table;
    }

    /// Lets later opens pass inside the kernel where that is right. Whether the file is still what
    /// it was must be asked again after.
    pub(super) fn ignore(&self, file: BorrowedFd<'_>, facts: &Facts) -> bool {
        let Some(attributes) = &self.attributes else { return false };
        // The watch stands before the owner is looked at for good.
        facts.only_root_writes()
            && attributes.watch(file).is_ok()
            && self.really_only_root_writes(file, facts)
            && self.group.ignore(file).is_ok()
    }

    /// Takes a mark back.
    pub(super) fn notice(&self, file: BorrowedFd<'_>) {
        // ENOENT: the change itself has dropped the mark.
        let _ = self.group.notice(file);
    }

    /// False where content can change with no writer to be seen: pages that somebody has pinned
    /// (io_uring's registered buffers) are written to after the file and its mapping are closed.
    pub(super) fn keeps_verdicts(&self, facts: &Facts) -> bool {
        let table = self.table.read().unwrap_or_else(PoisonError::into_inner);
        let tmpfs = table.roots.get(&facts.identity.device).is_none_or(|root| root.tmpfs);
        facts.only_root_writes() || (self.no_long_pins_on_disk && !tmpfs)
    }

    fn really_only_root_writes(&self, file: BorrowedFd<'_>, facts: &Facts) -> bool {
        let root = {
            let table = self.table.read().unwrap_or_else(PoisonError::into_inner);
            if table.plain.contains(&facts.mount) {
                return true;
            }
            if table.idmapped.contains(&facts.mount) {
                return false;
            }
            // A mount of another namespace, or of an overlay's layer: ask through one of ours.
            table.roots.get(&facts.identity.device).cloned()
        };
        let seen: Option<Facts> = root.and_then(|root| {
            let mut handle = handle_of(file).ok()?;
            let own = open_handle(root.open()?.as_fd(), &mut handle).ok()?;
            Facts::of(own.as_fd()).ok()
        });
        seen.is_some_and(|seen| {
            let table = self.table.read().unwrap_or_else(PoisonError::into_inner);
            seen.identity.inode == facts.identity.inode
                && table.plain.contains(&seen.mount)
                && seen.only_root_writes()
        })
    }

    /// Takes marks back whose files others can write now, until `stop` becomes readable.
    pub(super) fn follow(&self, stop: &OwnedFd) -> std::io::Result<()> {
        let Some(attributes) = &self.attributes else { return Ok(()) };
        loop {
            let mut fds =
                [PollFd::new(attributes, PollFlags::IN), PollFd::new(stop, PollFlags::IN)];
            match rustix::event::poll(&mut fds, None) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            if fds[1].revents().contains(PollFlags::IN) {
                return Ok(());
            }
            let mut all_known = true;
            attributes.read(|event| {
                all_known &= match event {
                    AttributeEvent::Changed { fsid, handle } => self.look_again(fsid, handle),
                    AttributeEvent::Unknown => false,
                };
            })?;
            if !all_known {
                self.group.notice_all()?;
            }
        }
    }

    /// False when it cannot be known which file changed.
    fn look_again(&self, fsid: [u8; 8], mut handle: FileHandle) -> bool {
        let root = {
            let table = self.table.read().unwrap_or_else(PoisonError::into_inner);
            table.roots.values().find(|root| root.fsid == fsid).cloned()
        };
        let Some(folder) = root.and_then(|root| root.open()) else { return false };
        let file = match open_handle(folder.as_fd(), &mut handle) {
            Ok(file) => file,
            // It is gone, and its mark with it.
            Err(rustix::io::Errno::STALE) => return true,
            Err(_) => return false,
        };
        let safe = Facts::of(file.as_fd()).is_ok_and(|facts| facts.only_root_writes());
        if !safe {
            self.notice_handle(&file);
        }
        true
    }

    fn notice_handle(&self, file: &OwnedFd) {
        if self
            .group
            .notice_path_descriptor(file.as_fd())
            .is_err_and(|error| error.raw_os_error() != Some(nix::libc::ENOENT))
        {
            // Better every file is looked at again than this one is not.
            let _ = self.group.notice_all();
        }
    }
}

/// The mount table's own words, for callers that have them at hand.
pub(super) fn read_mountinfo() -> std::io::Result<Vec<u8>> {
    use std::io::Read;
    let mut text = Vec::new();
    File::open("/proc/self/mountinfo")?.read_to_end(&mut text)?;
    Ok(text)
}
