//! The file system of our own that a demonstration protects: a sparse ext4 image, loop-mounted.
//!
//! Invariant: it is unmounted when the [`Lab`] is dropped, and whatever an earlier run left (a
//! mount, an agent) is cleared before a new one begins. Nothing outside `target/run` is touched.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use nix::mount::{MntFlags, umount2};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::shell::{self, Unfit};

/// What a run starts: program, config, and where its pid is kept for the next run.
pub(super) struct Part {
    pub(super) program: &'static str,
    pub(super) config: &'static str,
    pub(super) pid: &'static str,
}

/// The agent.
pub(super) const AGENT: Part =
    Part { program: "holdfastd", config: "holdfast.toml", pid: "holdfastd.pid" };
/// The manager.
pub(super) const MANAGER: Part =
    Part { program: "holdfast-manager", config: "manager.toml", pid: "holdfast-manager.pid" };
/// The manager's data, made anew by each run.
pub(super) const DATA: &str = "manager";

/// Bytes of the image; sparse.
const SIZE: u64 = 1 << 30;

/// The folder, and what is mounted in it.
pub(super) struct Lab {
    /// Held as long as the run lasts; the kernel lets it go whatever ends us.
    _lock: Flock<File>,
    image: PathBuf,
    protected: PathBuf,
}

impl Lab {
    /// Clear what an earlier run left. Refuses while another run lasts.
    pub(super) fn prepare(folder: &Path) -> anyhow::Result<Self> {
        let lock = File::create(folder.join("lock")).context("create the lock")?;
        let Ok(lock) = Flock::lock(lock, FlockArg::LockExclusiveNonblock) else {
            return Err(Unfit(format!("another run lasts in {}", folder.display())).into());
        };
        end_earlier(folder, &AGENT)?;
        end_earlier(folder, &MANAGER)?;
        match fs::remove_dir_all(folder.join(DATA)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(error).context("remove an earlier manager's data");
            }
            _ => {}
        }
        let lab = Self {
            _lock: lock,
            image: folder.join("protected.img"),
            protected: folder.join("protected"),
        };
        lab.unmount()?;
        Ok(lab)
    }

    /// An empty file system, mounted.
    pub(super) fn mount(&self) -> anyhow::Result<&Path> {
        fs::create_dir_all(&self.protected)?;
        File::create(&self.image)?.set_len(SIZE)?;
        shell::quiet(
            Command::new(shell::require("mkfs.ext4")?).args(["-q", "-F"]).arg(&self.image),
        )?;
        // `loop` frees the loop device with the mount.
        let mut mount = Command::new("mount");
        shell::quiet(
            mount.args(["-o", "loop,nosuid,nodev"]).arg(&self.image).arg(&self.protected),
        )?;
        Ok(&self.protected)
    }

    /// Every mount on the folder: a killed run may have left several.
    fn unmount(&self) -> anyhow::Result<()> {
        loop {
            match umount2(&self.protected, MntFlags::empty()) {
                Ok(()) => {}
                // Somebody's shell stands in it; the name is free at once, the rest follows.
                Err(Errno::EBUSY) => umount2(&self.protected, MntFlags::MNT_DETACH)?,
                Err(Errno::EINVAL | Errno::ENOENT) => return Ok(()),
                Err(errno) => bail!("unmount {}: {errno}", self.protected.display()),
            }
        }
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if let Err(error) = self.unmount() {
            eprintln!("{error:#}; the next run tries again");
            return;
        }
        // What stays are the agent's state and two configs.
        let _ = fs::remove_file(&self.image);
        let _ = fs::remove_dir(&self.protected);
        if let Some(folder) = self.image.parent() {
            for part in [&AGENT, &MANAGER] {
                let _ = fs::remove_file(folder.join(part.pid));
            }
            let _ = fs::remove_dir_all(folder.join(DATA));
        }
    }
}

/// Stop a part of a run that was killed. A pid that is another program by now is left alone.
fn end_earlier(folder: &Path, part: &Part) -> anyhow::Result<()> {
    let Ok(text) = fs::read_to_string(folder.join(part.pid)) else { return Ok(()) };
    let Ok(number) = text.trim().parse::<i32>() else { return Ok(()) };
    let config = folder.join(part.config);
    let ours = || {
        fs::read(format!("/proc/{number}/cmdline")).is_ok_and(|line| {
            line.split(|&byte| byte == 0).any(|word| word == config.as_os_str().as_encoded_bytes())
        })
    };
    for (sign, patience) in [(Signal::SIGTERM, 10), (Signal::SIGKILL, 10)] {
        if !ours() {
            return Ok(());
        }
        eprintln!("ending {} of an earlier run, pid {number} ({sign})", part.program);
        // It may end between the look and the call.
        let _ = kill(Pid::from_raw(number), sign);
        let end = Instant::now() + Duration::from_secs(patience);
        while ours() && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(50));
        }
    }
    if ours() {
        return Err(anyhow::anyhow!("pid {number} does not end")).context("clear an earlier run");
    }
    Ok(())
}
