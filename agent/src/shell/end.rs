//! The end of a session: everything that is in it is told to hang up, then killed.
//!
//! INVARIANT: a signal goes through a pidfd that was opened before the process was seen to be in the
//! session, so that it meets nobody else under the same pid; and the session's leader is not reaped
//! before the others are gone, so that its number is nobody else's meanwhile. What began a session
//! of its own (`setsid`) was meant to outlive the terminal, and does.

use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::sensor::table::pids;

/// Between hanging up and killing.
const HANG_UP: Duration = Duration::from_millis(500);
/// After it, what is left is told.
const PATIENCE: Duration = Duration::from_secs(3);

/// Ends all processes of a session; how many are left.
pub(super) fn end(session: u32) -> usize {
    let end = Instant::now() + PATIENCE;
    let hang_up = Instant::now() + HANG_UP;
    for member in members(session) {
        // A stopped one hears nothing.
        let _ = pidfd_send_signal(&member, Signal::HUP);
        let _ = pidfd_send_signal(&member, Signal::CONT);
    }
    loop {
        let living = members(session);
        if living.is_empty() || Instant::now() >= end {
            return living.len();
        }
        if Instant::now() >= hang_up {
            for member in &living {
                let _ = pidfd_send_signal(member, Signal::KILL);
            }
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Processes of the session that still run.
fn members(session: u32) -> Vec<OwnedFd> {
    let member = |pid: u32| {
        let number = Pid::from_raw(i32::try_from(pid).ok()?)?;
        // Most processes are none of ours: no descriptor for those.
        is_in(pid, session).then_some(())?;
        let process = pidfd_open(number, PidfdFlags::empty()).ok()?;
        is_in(pid, session).then_some(process)
    };
    pids().into_iter().filter_map(member).collect()
}

/// Whether a process runs in this session. One that waits to be reaped does not run.
fn is_in(pid: u32, session: u32) -> bool {
    let stat = std::fs::read(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The name in brackets may hold anything, brackets too.
    let Some(close) = stat.iter().rposition(|byte| *byte == b')') else { return false };
    let rest = String::from_utf8_lossy(&stat[close + 1..]).into_owned();
    let mut fields = rest.split_whitespace();
    let runs = fields.next().is_some_and(|state| !matches!(state, "Z" | "X"));
    runs && fields.nth(2).and_then(|field| field.parse().ok()) == Some(session)
}
