//! Messages to one permission loop from the other threads of the agent.

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError, mpsc};

use rustix::event::EventfdFlags;

use crate::on_access::rules::Rules;
use crate::on_access::waiting::Ticket;
use crate::scan::Worker;

/// What a loop can be told.
pub(super) enum Message {
    /// The worker that was ordered for a seat.
    Worker {
        /// Which seat.
        seat: usize,
        /// The worker.
        worker: Worker,
    },
    /// The opener of a malicious file has been looked up: it may have its answer.
    LookedUp(Ticket),
    /// The rules changed: use no older worker again. Answered when that holds.
    NewBundle(mpsc::Sender<()>),
    /// Decide by these from now on. Answered when that holds.
    NewRules(Arc<Rules>, mpsc::Sender<()>),
    /// Read events from now on: the loops that did are stuck.
    Lead,
    /// Let everybody go and return.
    Stop,
}

/// A mailbox with a bell. Bounded by its writers: one worker a seat, one message a held open, one
/// reload, one change of rules, one stop.
#[derive(Debug)]
pub(super) struct Inbox {
    bell: OwnedFd,
    messages: Mutex<VecDeque<Message>>,
}

impl std::fmt::Debug for Message {
    fn fmt(&self, to: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        to.write_str(match self {
            Self::Worker { .. } => "Worker",
            Self::LookedUp(_) => "LookedUp",
            Self::NewBundle(_) => "NewBundle",
            Self::NewRules(..) => "NewRules",
            Self::Lead => "Lead",
            Self::Stop => "Stop",
        })
    }
}

impl Inbox {
    pub(super) fn new() -> std::io::Result<Self> {
        let bell = rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Self { bell, messages: Mutex::default() })
    }

    pub(super) fn send(&self, message: Message) {
        self.messages.lock().unwrap_or_else(PoisonError::into_inner).push_back(message);
        // Fails only when the counter is full: the bell rings already.
        let _ = rustix::io::write(&self.bell, &1_u64.to_ne_bytes());
    }

    pub(super) fn take(&self) -> VecDeque<Message> {
        let mut counter = [0; 8];
        // EAGAIN: somebody else's ring was for nothing.
        let _ = rustix::io::read(&self.bell, &mut counter);
        std::mem::take(&mut *self.messages.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn as_fd(&self) -> BorrowedFd<'_> {
        self.bell.as_fd()
    }
}
