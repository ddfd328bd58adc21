//! The smallest possible fanotify listener: it allows at once. What Holdfast is compared with.

use std::os::fd::AsFd;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result};
use nix::sys::fanotify::{
    EventFFlags, Fanotify, FanotifyResponse, InitFlags, MarkFlags, MaskFlags, Response,
};

/// `FAN_MARK_EVICTABLE` (linux/fanotify.h, 5.19).
const EVICTABLE: u32 = 0x200;

/// Runs it, for ever.
pub fn run(path: &Path, ignore_marks: bool) -> Result<()> {
    let group = Fanotify::init(
        InitFlags::FAN_CLASS_CONTENT | InitFlags::FAN_CLOEXEC | InitFlags::FAN_UNLIMITED_QUEUE,
        EventFFlags::O_RDONLY | EventFFlags::O_CLOEXEC,
    )?;
    let opens = MaskFlags::FAN_OPEN_PERM | MaskFlags::FAN_OPEN_EXEC_PERM;
    let file_system = MarkFlags::FAN_MARK_ADD | MarkFlags::FAN_MARK_FILESYSTEM;
    group.mark(file_system, opens, rustix::fs::CWD, Some(path))?;
    println!("ready");
    let ignore = MarkFlags::FAN_MARK_ADD
        | MarkFlags::FAN_MARK_IGNORED_MASK
        | MarkFlags::from_bits_retain(EVICTABLE);
    loop {
        for event in group.read_events()? {
            let Some(file) = event.fd() else { continue };
            group.write_response(FanotifyResponse::new(file, Response::FAN_ALLOW))?;
            if ignore_marks {
                // Refused for a file that cannot have one: it is asked about again.
                let _ = group.mark::<_, Path>(ignore, opens, file.as_fd(), None);
            }
        }
    }
}

/// One that runs, and is killed when dropped.
pub struct Listener(Child);

impl Listener {
    /// Starts this program once more, as the listener.
    pub fn start(path: &Path, ignore_marks: bool) -> Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("listener").arg(path).stdout(Stdio::piped());
        if ignore_marks {
            command.arg("ignore-marks");
        }
        let mut child = command.spawn()?;
        let mut ready = String::new();
        let stdout = child.stdout.take().context("a pipe")?;
        std::io::BufRead::read_line(&mut std::io::BufReader::new(stdout), &mut ready)?;
        anyhow::ensure!(ready.trim() == "ready", "the listener did not start");
        Ok(Self(child))
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        // It has ended by itself only when something went wrong, which its output says.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
