//! The one thread that starts workers and buries them.
//!
//! Why a thread of its own: the kernel's parent-death signal follows the *thread* that forked
//! (prctl(2)), so workers started from a short-lived thread would die with it; and children for
//! a new pid namespace are born from a thread that has asked for one. It lives as long as
//! anything that was started by it.
//! INVARIANT: it never waits for a process to die. A worker stuck in the kernel (a read from a
//! dead network file system) stays on the list and is asked for again; nobody is held up.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, channel, sync_channel};
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, unshare};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use rustix::thread::{ThreadNameSpaceType, move_into_thread_name_spaces};

/// How often dying workers are asked for.
const ASK_AGAIN: Duration = Duration::from_millis(20);

/// How long the last thing the keeper does may take.
const FAREWELL: Duration = Duration::from_millis(500);

/// What to start.
#[derive(Debug)]
pub(super) struct Start {
    pub(super) program: PathBuf,
    pub(super) args: [String; 4],
    /// Becomes the worker's descriptor 0.
    pub(super) socket: OwnedFd,
}

/// A child that runs.
#[derive(Debug)]
pub(super) struct Started {
    pub(super) child: Child,
    pub(super) pidfd: OwnedFd,
}

enum Errand {
    Start(Start, SyncSender<io::Result<Started>>),
    Bury(Child),
}

/// A handle on the thread; clones share it.
#[derive(Debug, Clone)]
pub(super) struct Keeper {
    errands: Sender<Errand>,
}

impl Keeper {
    /// Starts the thread.
    pub(super) fn new() -> io::Result<Self> {
        let (errands, orders) = channel();
        std::thread::Builder::new().name("scan-keeper".to_owned()).spawn(move || keep(&orders))?;
        Ok(Self { errands })
    }

    /// Starts a process; waits no longer than `limit` for it.
    pub(super) fn start(&self, start: Start, limit: Duration) -> io::Result<Started> {
        let (reply, started) = sync_channel(1);
        let gone = || io::Error::other("the keeper thread is gone");
        self.errands.send(Errand::Start(start, reply)).map_err(|_| gone())?;
        match started.recv_timeout(limit) {
            Ok(started) => started,
            Err(RecvTimeoutError::Timeout) => Err(io::ErrorKind::TimedOut.into()),
            Err(RecvTimeoutError::Disconnected) => Err(gone()),
        }
    }

    /// Takes a process that was killed; it is reaped as soon as it is dead.
    pub(super) fn bury(&self, child: Child) {
        // Without the thread the agent ends, and init reaps.
        let _ = self.errands.send(Errand::Bury(child));
    }
}

fn keep(orders: &Receiver<Errand>) {
    let mut dying: Vec<Child> = Vec::new();
    loop {
        let errand = if dying.is_empty() {
            orders.recv().map_err(RecvTimeoutError::from)
        } else {
            orders.recv_timeout(ASK_AGAIN)
        };
        match errand {
            Ok(Errand::Start(start, reply)) => {
                // Nobody waits any more: the process must not stay.
                if let Err(refused) = reply.send(spawn(start))
                    && let Ok(Started { child, pidfd }) = refused.0
                {
                    let _ = pidfd_send_signal(pidfd, Signal::KILL);
                    dying.push(child);
                }
            }
            Ok(Errand::Bury(child)) => dying.push(child),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => break,
        }
        bury_the_dead(&mut dying);
    }
    let end = Instant::now() + FAREWELL;
    while !dying.is_empty() && Instant::now() < end {
        std::thread::sleep(ASK_AGAIN);
        bury_the_dead(&mut dying);
    }
}

fn bury_the_dead(dying: &mut Vec<Child>) {
    dying.retain_mut(|child| matches!(child.try_wait(), Ok(None)));
}

/// The child is the first process of a new pid namespace, gets an empty environment, the socket
/// as descriptor 0 and `/dev/null` as 1 and 2.
fn spawn(start: Start) -> io::Result<Started> {
    let null = File::options().read(true).write(true).open("/dev/null")?;
    let own = pidfd_open(rustix::process::getpid(), PidfdFlags::empty())?;
    let mut command = Command::new(start.program);
    command
        .args(start.args)
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::from(start.socket))
        .stdout(null.try_clone()?)
        .stderr(null);
    unshare(CloneFlags::CLONE_NEWPID)?;
    let child = command.spawn();
    // Back to our own, or the next unshare is refused.
    let back = move_into_thread_name_spaces(own.as_fd(), ThreadNameSpaceType::PROCESS_ID);
    let mut child = child?;
    let pidfd = back.and_then(|()| {
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
        pidfd_open(pid.ok_or(rustix::io::Errno::SRCH)?, PidfdFlags::empty())
    });
    match pidfd {
        Ok(pidfd) => Ok(Started { child, pidfd }),
        Err(error) => {
            // Out of descriptors: the child was just made, so neither call waits.
            let _ = child.kill();
            let _ = child.wait();
            Err(error.into())
        }
    }
}
