//! What the end-to-end tests share: scratch file systems, a running agent, guests' scenarios.
//!
//! No product code, and nothing that touches the machine's own file systems.

pub mod agent;
pub mod browser;
pub mod compat;
pub mod deeds;
pub mod fill;
pub mod lab;
pub mod manager;
pub mod observe;
pub mod postgres;
pub mod program32;
pub mod rest;
pub mod scenarios;
pub mod scratch;
pub mod terminal;
pub mod uring;

use std::path::Path;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

/// Wait until a condition gives something, looking every few milliseconds; `None` after the deadline.
pub fn until<T>(deadline: Duration, mut condition: impl FnMut() -> Option<T>) -> Option<T> {
    let end = Instant::now() + deadline;
    loop {
        if let Some(value) = condition() {
            return Some(value);
        }
        if Instant::now() >= end {
            return None;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A process of a test; killed and waited for at the end.
#[derive(Debug)]
pub struct Owned(pub Child);

impl Drop for Owned {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Copies a program so that it can be started at once. `cp` does it: a descriptor for writing in
/// this process would be inherited by whatever another thread starts meanwhile, and `execve` says
/// `ETXTBSY` as long as that child has it.
///
/// # Panics
/// When it cannot be copied.
#[track_caller]
pub fn copy_program(from: impl AsRef<Path>, to: impl AsRef<Path>) {
    let status = Command::new("cp").arg(from.as_ref()).arg(to.as_ref()).status().expect("cp");
    assert!(status.success(), "cp {} {}", from.as_ref().display(), to.as_ref().display());
}

/// Say that a test was skipped, and why, in the form that `cargo xtask test` counts. Call it from
/// the test's own thread, after asserting that the reason holds, and return.
///
/// In CI only the reasons in xtask's `ALLOWED_SKIPS` count as a skip; all others fail.
pub fn skip(test: &str, reason: &str) {
    println!("SKIP {test}: {reason}");
}

/// Whether the tests run as root. Those that mark, mount or load cannot run otherwise.
///
/// # Panics
/// When they do not, saying so.
pub fn require_root() {
    assert!(
        nix::unistd::geteuid().is_root(),
        "this test mounts file systems and needs root: run cargo xtask test, which uses sudo"
    );
}

/// The EICAR test file, put together here so that no file of ours holds it in one piece.
#[must_use]
pub fn eicar() -> Vec<u8> {
    [r"X5O!P%@AP[4\PZX54(P^)7CC)7}$", "EICAR-STANDARD-", "ANTIVIRUS-TEST-FILE!$H+H*"]
        .concat()
        .into_bytes()
}
