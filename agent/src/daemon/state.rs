//! The state folder: whose it is, of which version, and whether the last agent ended in order.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Layout of the folder that this agent writes.
const VERSION: u32 = 1;

/// The opened and locked folder.
#[derive(Debug)]
pub(super) struct StateDir {
    alive: File,
    died_at: Option<i64>,
    // Held as long as the agent lives: one agent a folder.
    _lock: nix::fcntl::Flock<File>,
}

/// Why the folder was not taken. Nothing in it was changed.
#[derive(Debug, thiserror::Error)]
pub(super) enum StateError {
    #[error("state folder {path}: {step}")]
    Io {
        path: PathBuf,
        step: &'static str,
        #[source]
        source: std::io::Error,
    },
    #[error("state folder {0} belongs to another agent that is running")]
    Locked(PathBuf),
    #[error("state folder {0} must be a folder of root that nobody else can write")]
    Open(PathBuf),
    #[error(
        "{path}: this state was written by a newer agent (version {found}, this one knows {VERSION}); nothing was changed"
    )]
    Newer { path: PathBuf, found: String },
}

impl StateDir {
    pub(super) fn open(path: &Path) -> Result<Self, StateError> {
        let io = |step| move |source| StateError::Io { path: path.to_owned(), step, source };
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)
            .map_err(io("cannot be created"))?;
        let metadata = std::fs::symlink_metadata(path).map_err(io("cannot be read"))?;
        if !metadata.is_dir() || metadata.uid() != 0 || metadata.mode() & 0o022 != 0 {
            return Err(StateError::Open(path.to_owned()));
        }
        check_version(path)?;
        let lock = private(path, "lock").map_err(io("cannot open lock"))?;
        let lock = nix::fcntl::Flock::lock(lock, nix::fcntl::FlockArg::LockExclusiveNonblock)
            .map_err(|_| StateError::Locked(path.to_owned()))?;
        let alive = private(path, "alive").map_err(io("cannot open alive"))?;
        let mut last = [0; 8];
        let died_at = match alive.read_at(&mut last, 0) {
            Ok(8) => Some(i64::from_le_bytes(last)).filter(|ms| *ms != 0),
            _ => None,
        };
        write_version(path).map_err(io("cannot write version"))?;
        Ok(Self { alive, died_at, _lock: lock })
    }

    /// Last sign of life of an agent that did not end in order, milliseconds since the epoch.
    pub(super) const fn died_at(&self) -> Option<i64> {
        self.died_at
    }

    /// A sign of life. It survives a kill, which is what it is for; no fsync.
    pub(super) fn alive(&self) {
        let now = crate::now_ms();
        if let Err(error) = self.alive.write_all_at(&now.to_le_bytes(), 0) {
            tracing::warn!(%error, "cannot leave a sign of life");
        }
    }

    /// The agent ends in order.
    pub(super) fn stopped(&self) -> std::io::Result<()> {
        self.alive.write_all_at(&0_i64.to_le_bytes(), 0)
    }
}

fn private(folder: &Path, name: &str) -> std::io::Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(nix::libc::O_NOFOLLOW | nix::libc::O_CLOEXEC)
        .open(folder.join(name))
}

fn check_version(folder: &Path) -> Result<(), StateError> {
    let path = folder.join("version");
    match std::fs::read_to_string(&path) {
        Ok(text) if text.trim().parse::<u32>().is_ok_and(|found| found <= VERSION) => Ok(()),
        Ok(text) => Err(StateError::Newer { path, found: text.trim().chars().take(20).collect() }),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(source) => Err(StateError::Io { path, step: "cannot be read", source }),
    }
}

fn write_version(folder: &Path) -> std::io::Result<()> {
    if folder.join("version").exists() {
        return Ok(());
    }
    let mut file = private(folder, "version")?;
    writeln!(file, "{VERSION}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_serves_one_agent_and_remembers_a_sudden_death() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let path = folder.path().join("state");
        let first = StateDir::open(&path).expect("first");
        assert_eq!(first.died_at(), None);
        assert!(matches!(StateDir::open(&path), Err(StateError::Locked(_))));
        first.alive();
        drop(first);
        let second = StateDir::open(&path).expect("second");
        assert!(second.died_at().is_some());
        second.stopped().expect("stopped");
        drop(second);
        assert_eq!(StateDir::open(&path).expect("third").died_at(), None);
    }

    #[test]
    fn a_newer_state_is_refused_by_name_and_left_alone() {
        let folder = tempfile::tempdir().expect("temporary folder");
        std::fs::set_permissions(
            folder.path(),
            std::os::unix::fs::PermissionsExt::from_mode(0o700),
        )
        .expect("mode");
        std::fs::write(folder.path().join("version"), "2\n").expect("write");
        let error = StateDir::open(folder.path()).expect_err("newer").to_string();
        assert!(error.contains("version") && error.contains("newer agent"), "{error}");
        assert_eq!(std::fs::read_dir(folder.path()).expect("list").count(), 1);
    }
}
