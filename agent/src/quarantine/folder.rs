//! The quarantine folder: which containers there are, and in which stage.
//!
//! ```text
//! ID.part      being written; thrown away after a crash
//! ID.pending   whole and on disk, the original is being removed; settled after a crash (recover.rs)
//! ID.hfq       whole, the original is gone from its place
//! version      the folder's format
//! ```
//!
//! Invariant: a stage changes by one rename that is on disk before the next step. Who works on a
//! `.part` or `.pending` holds its flock, so that the sweep of another agent (an upgrade starts
//! the new one first) leaves it alone. Knows nothing of what is in a container.

use std::fs::{DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FlockOperation, Mode, OFlags, flock, fstatvfs, openat, unlinkat};
use rustix::io::Errno;
use uuid::Uuid;

use super::error::VaultError;

/// Format of the folder.
const VERSION: u32 = 1;

/// How far an item has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    Part,
    Pending,
    Whole,
}

impl Stage {
    const ALL: [Self; 3] = [Self::Part, Self::Pending, Self::Whole];

    const fn extension(self) -> &'static str {
        match self {
            Self::Part => "part",
            Self::Pending => "pending",
            Self::Whole => "hfq",
        }
    }
}

/// One container as the folder shows it.
pub(super) struct Entry {
    pub(super) id: Uuid,
    pub(super) stage: Stage,
    pub(super) bytes: u64,
}

/// The open folder.
pub(super) struct Folder {
    dir: File,
    path: PathBuf,
}

impl Folder {
    /// Opens or makes `state_dir/quarantine`. Looks at the version before it changes anything.
    pub(super) fn open(state_dir: &Path) -> Result<Self, VaultError> {
        let path = state_dir.join("quarantine");
        check_version(&path)?;
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(state_dir)
            .map_err(|source| VaultError::own("create", state_dir, source))?;
        let opened = File::open(state_dir);
        trust(&opened.map_err(|source| VaultError::own("open", state_dir, source))?, state_dir)?;
        match DirBuilder::new().mode(0o700).create(&path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(VaultError::own("create", path, error));
            }
            _ => {}
        }
        let dir = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_DIRECTORY | libc::O_NOFOLLOW)
            .open(&path)
            .map_err(|source| VaultError::own("open", &path, source))?;
        trust(&dir, &path)?;
        dir.set_permissions(Permissions::from_mode(0o700))
            .map_err(|source| VaultError::own("protect", &path, source))?;
        let folder = Self { dir, path };
        folder.write_version()?;
        Ok(folder)
    }

    /// Path of a container, for messages.
    pub(super) fn path_of(&self, id: Uuid, stage: Stage) -> PathBuf {
        self.path.join(file_name(id, stage))
    }

    /// Makes an empty, locked `.part`.
    pub(super) fn begin(&self, id: Uuid) -> Result<File, VaultError> {
        let failed = |errno: Errno| VaultError::own("create", self.path_of(id, Stage::Part), errno);
        // Between making and locking it a sweep may take it: once more then.
        for _ in 0..8 {
            let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
            let name = file_name(id, Stage::Part);
            let part = openat(&self.dir, name, flags, Mode::RUSR | Mode::WUSR).map_err(failed)?;
            let part = File::from(part);
            if flock(&part, FlockOperation::NonBlockingLockExclusive).is_ok()
                && part.metadata().is_ok_and(|found| found.nlink() == 1)
            {
                return Ok(part);
            }
        }
        Err(failed(Errno::AGAIN))
    }

    /// Moves an item on; on disk when this returns.
    pub(super) fn advance(&self, id: Uuid, from: Stage, to: Stage) -> Result<(), VaultError> {
        rustix::fs::renameat(&self.dir, file_name(id, from), &self.dir, file_name(id, to))
            .map_err(io::Error::from)
            .and_then(|()| self.dir.sync_all())
            .map_err(|source| VaultError::own("rename", self.path_of(id, from), source))
    }

    /// Removes a container; on disk when this returns.
    pub(super) fn remove(&self, id: Uuid, stage: Stage) -> Result<(), VaultError> {
        unlinkat(&self.dir, file_name(id, stage), AtFlags::empty())
            .map_err(io::Error::from)
            .and_then(|()| self.dir.sync_all())
            .map_err(|source| VaultError::own("remove", self.path_of(id, stage), source))
    }

    /// Opens a whole container.
    pub(super) fn container(&self, id: Uuid) -> Result<(File, Stage), VaultError> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        // Backwards and twice: an item may move on from pending to whole meanwhile.
        for stage in [Stage::Whole, Stage::Pending, Stage::Whole] {
            match openat(&self.dir, file_name(id, stage), flags, Mode::empty()) {
                Ok(file) => return Ok((File::from(file), stage)),
                Err(Errno::NOENT) => {}
                Err(errno) => {
                    return Err(VaultError::own("open", self.path_of(id, stage), errno));
                }
            }
        }
        Err(VaultError::NoItem { id })
    }

    /// The container of an unfinished item with its lock; `None` when somebody works on it.
    pub(super) fn abandoned(&self, id: Uuid, stage: Stage) -> Option<File> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = openat(&self.dir, file_name(id, stage), flags, Mode::empty()).ok()?;
        flock(&file, FlockOperation::NonBlockingLockExclusive).ok()?;
        Some(File::from(file))
    }

    /// All containers. Other files in the folder are none of ours and are left alone.
    pub(super) fn entries(&self) -> Result<Vec<Entry>, VaultError> {
        let failed = |source: io::Error| VaultError::own("list", &self.path, source);
        let mut entries = Vec::new();
        for found in rustix::fs::Dir::read_from(&self.dir).map_err(|errno| failed(errno.into()))? {
            let found = found.map_err(|errno| failed(errno.into()))?;
            let Some((id, stage)) = found.file_name().to_str().ok().and_then(parse_name) else {
                continue;
            };
            let name = file_name(id, stage);
            match rustix::fs::statat(&self.dir, name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => {
                    entries.push(Entry { id, stage, bytes: stat.st_size.unsigned_abs() });
                }
                Err(Errno::NOENT) => {}
                Err(errno) => return Err(failed(errno.into())),
            }
        }
        Ok(entries)
    }

    /// Bytes that are free on the disk below.
    pub(super) fn free(&self) -> Result<u64, VaultError> {
        let state =
            fstatvfs(&self.dir).map_err(|errno| VaultError::own("look at", &self.path, errno))?;
        Ok(state.f_bavail.saturating_mul(state.f_frsize))
    }

    fn write_version(&self) -> Result<(), VaultError> {
        let path = self.path.join("version");
        if path.exists() {
            return Ok(());
        }
        let draft = self.path.join("version.new");
        let write = || {
            let mut file = File::create(&draft)?;
            writeln!(file, "{VERSION}")?;
            file.sync_all()?;
            std::fs::rename(&draft, &path)?;
            self.dir.sync_all()
        };
        write().map_err(|source| VaultError::own("write", path.clone(), source))
    }
}

fn check_version(folder: &Path) -> Result<(), VaultError> {
    let path = folder.join("version");
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(VaultError::own("read", path, error)),
    };
    match text.trim().parse::<u32>() {
        Ok(found) if (1..=VERSION).contains(&found) => Ok(()),
        _ => {
            let found = text.trim().chars().take(20).collect();
            Err(VaultError::Newer { path, found, known: VERSION })
        }
    }
}

/// A folder that somebody else may write into cannot hold the quarantine or the host key.
fn trust(dir: &File, path: &Path) -> Result<(), VaultError> {
    let found = dir.metadata().map_err(|source| VaultError::own("look at", path, source))?;
    if found.uid() == rustix::process::geteuid().as_raw() && found.mode() & 0o022 == 0 {
        return Ok(());
    }
    let source = io::Error::new(io::ErrorKind::PermissionDenied, "others may write to it");
    Err(VaultError::own("trust", path, source))
}

fn file_name(id: Uuid, stage: Stage) -> String {
    format!("{id}.{}", stage.extension())
}

fn parse_name(name: &str) -> Option<(Uuid, Stage)> {
    let (id, extension) = name.split_once('.')?;
    let stage = Stage::ALL.into_iter().find(|stage| stage.extension() == extension)?;
    let id = Uuid::try_parse(id).ok()?;
    // Only the one spelling that we write ourselves.
    (file_name(id, stage) == name).then_some((id, stage))
}
