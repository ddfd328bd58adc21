//! One worker process: a [`Link`] to it, and its end.
//!
//! INVARIANT: a `Worker` that is dropped is killed, whatever state it is in, and its process is
//! reaped; neither makes the caller wait.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::Child;
use std::time::{Duration, Instant};

use holdfast_common::wire::Answer;
use rustix::process::{Signal, pidfd_send_signal};

use super::keeper::{Keeper, Started};
use super::link::{Link, ScanFailed, Scanned, WorkerDied};

/// A caged worker with rules loaded. Used by one thread at a time.
#[derive(Debug)]
pub struct Worker {
    pub(super) link: Link,
    pub(super) generation: u64,
    pid: u32,
    pidfd: OwnedFd,
    /// `None` only while it is dropped.
    child: Option<Child>,
    keeper: Keeper,
}

impl Worker {
    pub(super) fn new(link: Link, started: Started, keeper: Keeper, generation: u64) -> Self {
        let Started { child, pidfd } = started;
        Self { link, generation, pid: child.id(), pidfd, child: Some(child), keeper }
    }

    /// Of the bundle that it was started with.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// In the agent's pid namespace. Its own while this value lives, since nobody else reaps it.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Readable when an answer is there, hung up when the worker is gone.
    #[must_use]
    pub fn socket(&self) -> BorrowedFd<'_> {
        self.link.socket()
    }

    /// See [`Link::order`].
    ///
    /// # Errors
    /// [`WorkerDied`]
    pub fn order(
        &self,
        ticket: u64,
        want_hashes: bool,
        file: BorrowedFd<'_>,
    ) -> Result<(), WorkerDied> {
        self.link.order(ticket, want_hashes, file)
    }

    /// See [`Link::poll_answer`].
    ///
    /// # Errors
    /// [`WorkerDied`]
    pub fn poll_answer(&self) -> Result<Option<Answer>, WorkerDied> {
        self.link.poll_answer()
    }

    /// See [`Link::scan`].
    ///
    /// # Errors
    /// [`ScanFailed`]
    pub fn scan(
        &self,
        want_hashes: bool,
        file: BorrowedFd<'_>,
        limit: Duration,
    ) -> Result<Scanned, ScanFailed> {
        self.link.scan(want_hashes, file, limit)
    }

    /// See [`Link::begin`].
    ///
    /// # Errors
    /// [`WorkerDied`]
    pub fn begin(&self, want_hashes: bool, file: BorrowedFd<'_>) -> Result<(), WorkerDied> {
        self.link.begin(want_hashes, file)
    }

    /// See [`Link::finish`].
    ///
    /// # Errors
    /// [`ScanFailed`]
    pub fn finish(&self, end: Instant) -> Result<Option<Scanned>, ScanFailed> {
        self.link.finish(end)
    }

    /// Stops the process until [`Worker::resume`]; it keeps what it works on.
    pub fn suspend(&self) {
        // Fails only when it is dead, which its socket tells.
        let _ = pidfd_send_signal(&self.pidfd, Signal::STOP);
    }

    /// Lets it go on.
    pub fn resume(&self) {
        // As above.
        let _ = pidfd_send_signal(&self.pidfd, Signal::CONT);
    }
}

impl AsFd for Worker {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket()
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // Fails only when it is dead already.
        let _ = pidfd_send_signal(&self.pidfd, Signal::KILL);
        if let Some(child) = self.child.take() {
            self.keeper.bury(child);
        }
    }
}
