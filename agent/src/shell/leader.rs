//! The first process on a terminal: `holdfastd shell-leader full|restricted`, with the terminal as
//! its three standard descriptors.
//!
//! It begins a session, takes the terminal, undoes what the agent set for itself, and becomes root's
//! login shell, or stays and is the restricted one. A process of its own, so that nothing has to be
//! done between `fork` and `exec` of a program with threads.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::stat::{Mode, umask};

/// First argument of such a process.
pub const WORD: &str = "shell-leader";
pub(super) const FULL: &str = "full";
pub(super) const RESTRICTED: &str = "restricted";
/// The variable that carries the task's id.
pub(super) const VARIABLE: &str = "HOLDFAST_SHELL";
/// What systemd gives programs, and what most expect.
const OPEN_FILES: u64 = 1024;
const SHELL: &str = "/bin/sh";

/// Does not come back where all goes well with a full one. `line` is what stands behind [`WORD`].
#[must_use]
pub fn main(mut line: impl Iterator<Item = OsString>) -> ExitCode {
    let restricted = match line.next().as_deref().and_then(std::ffi::OsStr::to_str) {
        Some(FULL) => false,
        Some(RESTRICTED) => true,
        Some(_) | None => return ExitCode::from(64),
    };
    let taken =
        rustix::process::setsid().and_then(|_| rustix::process::ioctl_tiocsctty(std::io::stdin()));
    if let Err(error) = taken {
        eprintln!("holdfast: this is no terminal of its own: {error}");
        return ExitCode::FAILURE;
    }
    crate::sys::memory::heed_signals();
    umask(Mode::from_bits_truncate(0o022));
    if let Ok((_, hard)) = getrlimit(Resource::RLIMIT_NOFILE) {
        let _ = setrlimit(Resource::RLIMIT_NOFILE, OPEN_FILES.min(hard), hard);
    }
    // The agent's own are closed by exec; this is for what anybody left open.
    let _ = crate::sys::close_range::close_from(3);
    if restricted { super::restricted::main() } else { become_shell() }
}

fn become_shell() -> ExitCode {
    let root = nix::unistd::User::from_uid(nix::unistd::Uid::from_raw(0)).ok().flatten();
    let home = root.as_ref().map_or_else(|| PathBuf::from("/"), |root| root.dir.clone());
    let shell = root.map_or_else(|| PathBuf::from(SHELL), |root| root.shell);
    let shell = if shell.is_file() { shell } else { PathBuf::from(SHELL) };
    let name = shell.file_name().unwrap_or_default().to_os_string();
    let mut login = OsString::from("-");
    login.push(name);
    let task = std::env::var_os(VARIABLE).unwrap_or_default();
    let folder = if home.is_dir() { home.as_path() } else { Path::new("/") };
    let mut command = Command::new(&shell);
    command
        .arg0(login)
        .env_clear()
        .env("HOME", folder)
        .env("USER", "root")
        .env("LOGNAME", "root")
        .env("SHELL", &shell)
        .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
        .env("TERM", "xterm-256color")
        .env("LANG", "C.UTF-8")
        .env(VARIABLE, task)
        .current_dir(folder);
    let error = command.exec();
    eprintln!("holdfast: {} cannot be started: {error}", shell.display());
    ExitCode::FAILURE
}
