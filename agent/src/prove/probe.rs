//! The prover's child: does what must be seen, and says what came of it.
//!
//! `holdfastd probe SECRET [--capture] [--namespace FILE] FILE…` opens each file and prints one
//! line for each: 0, or the errno. With `--namespace` that file is opened last, in a mount
//! namespace of its own. With `--capture` it then holds a packet socket without a protocol, which
//! receives nothing, until standard input ends. Changes nothing on the host.

use std::ffi::OsString;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use rustix::fs::{Mode, OFlags};
use rustix::net::{AddressFamily, SocketFlags, SocketType};

/// First argument of such a process.
pub const WORD: &str = "probe";
const CAPTURE: &str = "--capture";
const NAMESPACE: &str = "--namespace";

/// What the child is to do.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Orders {
    /// Of this round.
    pub secret: String,
    /// Open a packet socket.
    pub capture: bool,
    /// Open this in a fresh mount namespace.
    pub namespace: Option<PathBuf>,
    /// Open these.
    pub files: Vec<PathBuf>,
}

impl Orders {
    pub(super) fn arguments(&self) -> Vec<OsString> {
        let mut line: Vec<OsString> = vec![WORD.into(), self.secret.clone().into()];
        if self.capture {
            line.push(CAPTURE.into());
        }
        if let Some(file) = &self.namespace {
            line.push(NAMESPACE.into());
            line.push(file.into());
        }
        line.extend(self.files.iter().map(OsString::from));
        line
    }

    fn parse(mut line: impl Iterator<Item = OsString>) -> Option<Self> {
        let secret = line.next()?.into_string().ok()?;
        let mut orders = Self { secret, ..Self::default() };
        while let Some(word) = line.next() {
            match word.to_str() {
                Some(CAPTURE) => orders.capture = true,
                Some(NAMESPACE) => orders.namespace = Some(line.next()?.into()),
                _ => orders.files.push(word.into()),
            }
        }
        Some(orders)
    }
}

/// Carries the orders out. `line` is the command line behind [`WORD`].
#[must_use]
pub fn main(line: impl Iterator<Item = OsString>) -> ExitCode {
    let Some(orders) = Orders::parse(line) else { return ExitCode::from(64) };
    for file in &orders.files {
        say(open(file));
    }
    if let Some(file) = &orders.namespace {
        match nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS) {
            Ok(()) => say(open(file)),
            Err(errno) => say(-(errno as i32)),
        }
    }
    let socket = orders.capture.then(|| {
        let flags = SocketFlags::CLOEXEC;
        rustix::net::socket_with(AddressFamily::PACKET, SocketType::RAW, flags, None)
    });
    if let Some(made) = &socket {
        say(made.as_ref().err().map_or(0, |error| error.raw_os_error()));
        // Until the prover has seen it, or is gone.
        let _ = std::io::stdin().read(&mut [0]);
    }
    ExitCode::SUCCESS
}

fn open(file: &Path) -> i32 {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    rustix::fs::open(file, flags, Mode::empty()).err().map_or(0, |error| error.raw_os_error())
}

fn say(errno: i32) {
    let mut out = std::io::stdout().lock();
    // Nobody listens: the prover is gone, and so will this process be.
    let _ = writeln!(out, "{errno}").and_then(|()| out.flush());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_survive_the_command_line() {
        let orders = Orders {
            secret: "s".to_owned(),
            capture: true,
            namespace: Some("/a/ns".into()),
            files: vec!["/a/1".into(), "/b/2".into()],
        };
        let mut line = orders.arguments().into_iter();
        assert_eq!(line.next().as_deref(), Some(WORD.as_ref()));
        assert_eq!(Orders::parse(line), Some(orders));
    }
}
