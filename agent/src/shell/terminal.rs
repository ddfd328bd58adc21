//! One terminal: the PTY, the leader on it, and the pump between it and the [`Flow`].
//!
//! INVARIANT: the pump reads no more than the flow has room for, and at a bounded pace; it ends when
//! the leader ends, when it is told to, and never because somebody still holds the terminal open.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};
use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, openpt, unlockpt};
use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};
use rustix::time::Timespec;

use super::flow::Flow;
use super::{Opening, end, leader};

/// Between two looks at what nobody wakes the pump for.
const LOOK: Duration = Duration::from_millis(50);
/// Bytes that a terminal shows in a second, at most: what is beyond waits in the program.
const PACE: usize = 1 << 20;
/// After the leader's end, what is still on its way is read for so long.
const REST: Duration = Duration::from_millis(200);

/// A terminal with its leader.
pub(super) struct Terminal {
    master: OwnedFd,
    leader: Child,
    name: String,
}

/// What the pump works with.
pub(super) struct Watch<'a> {
    pub(super) flow: &'a Flow,
    /// There is something to send.
    pub(super) tell: &'a dyn Fn(),
    /// Why it is to end now; told when somebody typed last.
    pub(super) why_close: &'a dyn Fn(Instant) -> Option<&'static str>,
}

/// How it ended.
pub(super) struct Ended {
    pub(super) how: String,
    pub(super) exit: Option<i32>,
    pub(super) left: usize,
}

impl Terminal {
    pub(super) fn start(opening: &Opening) -> io::Result<Self> {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let master = openpt(flags)?;
        unlockpt(&master)?;
        // Not by its name, which another mount of devpts may give to another terminal.
        let slave = ioctl_tiocgptpeer(&master, flags)?;
        let name = rustix::pty::ptsname(&master, Vec::new())?.to_string_lossy().into_owned();
        set_size(&master, opening.size)?;
        rustix::io::ioctl_fionbio(&master, true)?;
        let mode = if opening.restricted { leader::RESTRICTED } else { leader::FULL };
        let leader = Command::new("/proc/self/exe")
            .arg0("holdfastd")
            .arg(leader::WORD)
            .arg(mode)
            .env_clear()
            .env(leader::VARIABLE, opening.task.to_string())
            .current_dir("/")
            .stdin(Stdio::from(slave.try_clone()?))
            .stdout(Stdio::from(slave.try_clone()?))
            .stderr(Stdio::from(slave))
            .spawn()?;
        Ok(Self { master, leader, name })
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Works until it ends.
    pub(super) fn pump(mut self, watch: &Watch<'_>) -> Ended {
        let mut typed = Instant::now();
        let mut pace = Pace::default();
        let mut buffer = vec![0; 16 << 10];
        let why = loop {
            if let Some(why) = (watch.why_close)(typed) {
                break Some(why);
            }
            let wish = watch.flow.wish();
            if wish.close {
                break Some("it was closed from the manager");
            }
            if let Some(size) = wish.size {
                // The terminal stays as it was.
                let _ = set_size(&self.master, size);
            }
            if self.has_ended() {
                break None;
            }
            self.look_hidden(watch);
            let room = watch.flow.room().min(pace.allowed());
            let waiting = watch.flow.typing();
            let ready = wait(&self.master, watch.flow, room > 0, !waiting.is_empty());
            if ready.contains(PollFlags::OUT) {
                match rustix::io::write(&self.master, &waiting) {
                    Ok(written) if written > 0 => {
                        watch.flow.typed(written);
                        typed = Instant::now();
                        (watch.tell)();
                    }
                    Ok(_) | Err(_) => {}
                }
            }
            if ready.intersects(PollFlags::IN | PollFlags::HUP) && room > 0 {
                let part = room.min(buffer.len());
                match rustix::io::read(&self.master, &mut buffer[..part]) {
                    Ok(read) if read > 0 => {
                        self.look_hidden(watch);
                        pace.count(read);
                        watch.flow.show(&buffer[..read]);
                        (watch.tell)();
                    }
                    // Nobody has it open now; the leader is looked at.
                    Ok(_) | Err(_) if ready.contains(PollFlags::HUP) => std::thread::sleep(LOOK),
                    Ok(_) | Err(_) => {}
                }
            }
        };
        self.close(watch, why, &mut buffer)
    }

    /// What it still shows, then the end of its session.
    fn close(mut self, watch: &Watch<'_>, why: Option<&str>, buffer: &mut [u8]) -> Ended {
        let rest = Instant::now() + REST;
        while why.is_none() && Instant::now() < rest {
            let room = watch.flow.room().min(buffer.len());
            match rustix::io::read(&self.master, &mut buffer[..room]) {
                Ok(read) if read > 0 => {
                    watch.flow.show(&buffer[..read]);
                    (watch.tell)();
                }
                Err(rustix::io::Errno::AGAIN) => std::thread::sleep(Duration::from_millis(5)),
                Ok(_) if room == 0 => std::thread::sleep(Duration::from_millis(5)),
                Ok(_) | Err(_) => break,
            }
        }
        let session = self.leader.id();
        let left = end::end(session);
        // It may be among those that are left: then nobody waits for it.
        let status = self.leader.try_wait().ok().flatten();
        let how = match (why, status) {
            (Some(why), _) => why.to_owned(),
            (None, Some(status)) => format!("it ended by itself: {status}"),
            (None, None) => "it ended by itself".to_owned(),
        };
        let exit = status.filter(|_| why.is_none()).and_then(|status| status.code());
        Ended { how, exit, left }
    }

    /// Without reaping it: its number stays its own until its session is gone.
    fn has_ended(&mut self) -> bool {
        let Some(pid) = i32::try_from(self.leader.id()).ok().and_then(Pid::from_raw) else {
            return true;
        };
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        !matches!(waitid(WaitId::Pid(pid), options), Ok(None))
    }

    /// A line that is asked for and not shown: echo off, the kernel's line editing on. Programs that
    /// edit by themselves (shells, editors) switch both off.
    fn look_hidden(&self, watch: &Watch<'_>) {
        let Ok(modes) = tcgetattr(&self.master) else { return };
        let modes = modes.local_modes;
        let hidden = modes.contains(LocalModes::ICANON) && !modes.contains(LocalModes::ECHO);
        if watch.flow.set_hidden(hidden) {
            (watch.tell)();
        }
    }
}

fn set_size(master: &OwnedFd, (columns, rows): (u16, u16)) -> io::Result<()> {
    let size = Winsize { ws_col: columns, ws_row: rows, ws_xpixel: 0, ws_ypixel: 0 };
    Ok(tcsetwinsize(master, size)?)
}

/// Until the terminal can be read or written, as wanted, somebody wakes us, or for a while.
fn wait(master: &OwnedFd, flow: &Flow, read: bool, write: bool) -> PollFlags {
    let mut wanted = PollFlags::empty();
    wanted.set(PollFlags::IN, read);
    wanted.set(PollFlags::OUT, write);
    let mut polled = vec![PollFd::from_borrowed_fd(flow.waker(), PollFlags::IN)];
    if read || write {
        polled.push(PollFd::from_borrowed_fd(master.as_fd(), wanted));
    }
    let look = Timespec { tv_sec: 0, tv_nsec: i64::from(LOOK.subsec_nanos()) };
    // Interrupted is as good as the time being over.
    let _ = poll(&mut polled, Some(&look));
    if !polled[0].revents().is_empty() {
        flow.woken();
    }
    polled.get(1).map_or(PollFlags::empty(), PollFd::revents)
}

/// A bucket of bytes that fills by the clock.
struct Pace {
    left: usize,
    since: Instant,
}

impl Default for Pace {
    fn default() -> Self {
        Self { left: PACE, since: Instant::now() }
    }
}

impl Pace {
    fn allowed(&mut self) -> usize {
        let passed = self.since.elapsed();
        if passed >= LOOK {
            let more = usize::try_from(passed.as_millis()).unwrap_or(usize::MAX);
            self.left = self.left.saturating_add(more.saturating_mul(PACE / 1000)).min(PACE);
            self.since = Instant::now();
        }
        self.left
    }

    fn count(&mut self, bytes: usize) {
        self.left = self.left.saturating_sub(bytes);
    }
}
