//! Where simulations happen: files, folders and children that are taken away again, whatever
//! comes between.
//!
//! INVARIANT: everything made here is registered before it can be seen, and removed when the
//! [`Stage`] is dropped. SIGINT, SIGTERM and SIGHUP wait until then; what a SIGKILL left behind
//! is swept by the next run, known by its name and the pid in it.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use super::SimulateError;

/// All that simulations make is called so, followed by the pid of the CLI.
const PREFIX: &str = "holdfast-simulation-";
/// Folders in which something of ours may lie.
const FOLDERS: [&str; 7] = [
    "/var/tmp",
    "/etc/cron.d",
    "/etc/systemd/system",
    "/etc/profile.d",
    "/etc/ld.so.conf.d",
    "/var/log",
    "/root/.ssh",
];
/// One child may take so long.
const CHILD_LIMIT: Duration = Duration::from_secs(20);
/// What is in files that somebody else reads: a comment wherever they are read.
pub(super) const COMMENT: &str = "# Written by `holdfast simulate run`; harmless, and removed.\n";

/// One run.
pub struct Stage {
    signals: SignalFd,
    /// Where the folder is made.
    below: PathBuf,
    folder: Option<PathBuf>,
    files: Vec<PathBuf>,
    folders: Vec<PathBuf>,
    interrupted: bool,
}

impl Stage {
    /// Takes away what an earlier run left, and holds signals back.
    ///
    /// # Errors
    /// When signals cannot be held back.
    pub fn new(below: &Path) -> Result<Self, SimulateError> {
        let mut held: SigSet = SigSet::empty();
        for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
            held.add(signal);
        }
        let failed = |error: nix::Error| SimulateError::Failed("hold signals back", error.into());
        held.thread_block().map_err(failed)?;
        let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
        let signals = SignalFd::with_flags(&held, flags).map_err(failed)?;
        sweep();
        Ok(Self {
            signals,
            below: below.to_owned(),
            folder: None,
            files: Vec::new(),
            folders: Vec::new(),
            interrupted: false,
        })
    }

    /// True when somebody wants it to end.
    #[must_use]
    pub const fn interrupted(&self) -> bool {
        self.interrupted
    }

    /// Waits, but not beyond a signal.
    pub fn pause(&mut self, time: Duration) {
        let end = Instant::now() + time;
        while !self.interrupted {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            let milliseconds = u16::try_from(left.as_millis().clamp(1, 60_000)).unwrap_or(60_000);
            let mut ready =
                [PollFd::new(std::os::fd::AsFd::as_fd(&self.signals), PollFlags::POLLIN)];
            let woken = poll(&mut ready, PollTimeout::from(milliseconds));
            self.interrupted = woken.is_ok_and(|count| count > 0);
        }
    }

    /// A folder of this run, with a name of its own.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn folder(&mut self) -> Result<PathBuf, SimulateError> {
        if let Some(folder) = &self.folder {
            return Ok(folder.clone());
        }
        let folder = self.below.join(self.name(""));
        DirBuilder::new()
            .mode(0o755)
            .create(&folder)
            .map_err(|error| SimulateError::Failed("make a folder", error))?;
        self.folder = Some(folder.clone());
        Ok(folder)
    }

    /// `holdfast-simulation-PID` and an ending.
    #[must_use]
    pub fn name(&self, ending: &str) -> String {
        format!("{PREFIX}{}{ending}", std::process::id())
    }

    /// A new file, never an existing one. A missing folder is made for it, and removed as well.
    ///
    /// # Errors
    /// When it is there, or cannot be made.
    pub fn file(&mut self, path: &Path, content: &str) -> Result<(), SimulateError> {
        if let Some(folder) = path.parent().filter(|folder| !folder.exists()) {
            self.folders.push(folder.to_owned());
            DirBuilder::new()
                .mode(0o700)
                .create(folder)
                .map_err(|error| SimulateError::Failed("make a folder", error))?;
        }
        let failed = |error| SimulateError::Failed("make a file", error);
        let mut options = OpenOptions::new();
        let mut file =
            options.write(true).create_new(true).mode(0o600).open(path).map_err(failed)?;
        self.files.push(path.to_owned());
        file.write_all(content.as_bytes()).map_err(failed)
    }

    /// A program that does nothing, under somebody else's name, in the folder of this run.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn stand_in(&mut self, name: &str) -> Result<PathBuf, SimulateError> {
        self.copy_of("true", name)
    }

    /// A copy of a program of the system, under another name.
    ///
    /// # Errors
    /// When there is none, or it cannot be copied.
    pub fn copy_of(&mut self, program: &str, name: &str) -> Result<PathBuf, SimulateError> {
        let there = ["/usr/bin", "/bin"].map(|folder| Path::new(folder).join(program));
        let source = there.iter().find(|path| path.is_file());
        let source = source.ok_or_else(|| SimulateError::Missing(program.to_owned()))?;
        let copy = self.folder()?.join(name);
        let failed = |error| SimulateError::Failed("copy a program", error);
        // By another process: whatever this one starts meanwhile would inherit the descriptor that
        // writes the copy, and the copy could not be run (ETXTBSY).
        self.run(Command::new("cp").arg(source).arg(&copy))?;
        fs::set_permissions(&copy, PermissionsExt::from_mode(0o755)).map_err(failed)?;
        Ok(copy)
    }

    /// Runs a child to its end; whatever it says, and whether it succeeds, is of no interest.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn run(&mut self, command: &mut Command) -> Result<(), SimulateError> {
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let program = command.get_program().to_string_lossy().into_owned();
        let mut child = command.spawn().map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => SimulateError::Missing(program),
            _ => SimulateError::Failed("start a program", error),
        })?;
        let end = Instant::now() + CHILD_LIMIT;
        while !matches!(child.try_wait(), Ok(Some(_)) | Err(_)) {
            if self.interrupted || Instant::now() >= end {
                let _ = child.kill();
                let _ = child.wait();
                break;
            }
            self.pause(Duration::from_millis(10));
        }
        Ok(())
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        for file in &self.files {
            // A simulation that deletes may have done it already.
            let _ = fs::remove_file(file);
        }
        for folder in &self.folders {
            // Not when somebody has put something else there.
            let _ = fs::remove_dir(folder);
        }
        if let Some(folder) = &self.folder {
            let _ = fs::remove_dir_all(folder);
        }
    }
}

/// Takes away what runs that were killed left behind.
pub(super) fn sweep() {
    for folder in FOLDERS {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let path = entry.path();
            let Some(rest) = name.strip_prefix(PREFIX) else { continue };
            let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
            if digits.is_empty() || Path::new("/proc").join(&digits).exists() {
                continue;
            }
            let is_folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
            if !is_folder {
                let _ = fs::remove_file(&path);
                continue;
            }
            // A child of the killed one may still write there, for a moment.
            for _ in 0..100 {
                if fs::remove_dir_all(&path).is_ok() {
                    break;
                }
                std::thread::sleep(Duration::from_millis(10));
            }
        }
    }
    // The one file whose name is given: ours if nothing but our comment is in it.
    let keys = Path::new(super::acts::KEYS);
    let ours = File::open(keys)
        .and_then(|file| std::io::read_to_string(std::io::Read::take(file, 4096)))
        .is_ok_and(|content| content == COMMENT);
    if ours {
        let _ = fs::remove_file(keys);
    }
}
