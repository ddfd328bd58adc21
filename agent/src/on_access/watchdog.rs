//! For the day when a loop is stuck in the kernel: its overdue opens are answered from here, and
//! another loop takes the lead.
//!
//! A loop makes no call that should block, but file systems are code too: closing the last
//! descriptor of a huge unlinked file, for one, pays for its truncation.

use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use holdfast_common::verdict::FailureReason;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::on_access::Shared;
use crate::on_access::hold::lock;
use crate::on_access::inbox::{Inbox, Message};
use crate::on_access::waiting::Waiting;

/// One loop, as seen from outside.
pub(super) struct Watched {
    pub(super) waiting: Arc<Mutex<Waiting>>,
    pub(super) pulse: Arc<AtomicU64>,
    pub(super) inbox: Arc<Inbox>,
}

pub(super) struct Watchdog {
    shared: Arc<Shared>,
    loops: Vec<Watched>,
    stop: OwnedFd,
    /// The sum of all pulses when events were last seen waiting unread.
    unread_at: Option<u64>,
}

impl Watchdog {
    /// The last of `loops` stands by.
    pub(super) fn new(shared: Arc<Shared>, loops: Vec<Watched>, stop: OwnedFd) -> Self {
        Self { shared, loops, stop, unread_at: None }
    }

    /// Looks once a tick until `stop` becomes readable.
    pub(super) fn run(mut self) {
        loop {
            let tick = Timespec::try_from(self.shared.rules().tick()).ok();
            let mut fds = [PollFd::new(&self.stop, PollFlags::IN)];
            if poll(&mut fds, tick.as_ref()).is_ok_and(|ready| ready > 0) {
                return;
            }
            self.answer_overdue();
            if self.nobody_reads() {
                tracing::error!("the loops that read opens are stuck; another one takes the lead");
                if let Some(stands_by) = self.loops.last() {
                    stands_by.inbox.send(Message::Lead);
                }
            }
        }
    }

    fn answer_overdue(&self) {
        let rules = self.shared.rules();
        for Watched { waiting, .. } in &self.loops {
            let now = Instant::now();
            while let Some((_, waiter)) = { lock(waiting).remove_overdue(now, rules.hard_deadline) }
            {
                self.shared.answer_overdue(&rules, waiter, FailureReason::Deadline);
            }
        }
    }

    /// True when events wait and no loop has turned for a whole tick.
    fn nobody_reads(&mut self) -> bool {
        let unread = rustix::io::ioctl_fionread(&*self.shared.group).is_ok_and(|bytes| bytes > 0);
        let pulses = self.loops.iter().map(|watched| watched.pulse.load(Relaxed)).sum();
        let before = std::mem::replace(&mut self.unread_at, unread.then_some(pulses));
        unread && before == Some(pulses)
    }
}
