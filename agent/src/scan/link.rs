//! The messages between the agent and one worker, seen from the agent.
//!
//! INVARIANT: whatever the other end sends, nothing here panics, waits or believes it more than
//! it must: one order at a time, the answer must carry its ticket, everything else ends the
//! worker. Descriptors that a worker might send are never received. An order and a clean answer
//! cost one system call each and allocate nothing. Starts and kills no process.

use std::cell::Cell;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use holdfast_common::process::printable;
use holdfast_common::verdict::{Signature, Verdict};
use holdfast_common::wire::{Answer, Finding, MAX_MESSAGE, Order, RawHashes};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{Errno, IoSlice};
use rustix::net::{RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, recv, sendmsg};

/// The agent's end of one worker's socket.
#[derive(Debug)]
pub struct Link {
    socket: OwnedFd,
    awaited: Cell<Awaited>,
    next_ticket: Cell<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Awaited {
    Nothing,
    Loaded,
    Scanned(u64),
}

/// The worker can no longer be used; drop it and start another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WorkerDied {
    /// Its end of the socket is closed: it crashed, was killed, or ended itself.
    #[error("the scan worker is gone")]
    Gone,
    /// It sent what is no answer.
    #[error("the scan worker sent a malformed answer")]
    Malformed,
    /// It sent an answer that nobody asked for.
    #[error("the scan worker sent an answer that nobody asked for")]
    Unasked,
    /// It was given an order while it worked on another; a mistake of the caller.
    #[error("the scan worker was given two orders at once")]
    Busy,
    /// The socket failed otherwise, with this errno.
    #[error("the scan worker's socket failed (errno {0})")]
    Socket(i32),
}

/// Why [`scan`](Link::scan) has no verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ScanFailed {
    /// The worker is of no use any more.
    #[error(transparent)]
    Died(#[from] WorkerDied),
    /// The limit passed. The worker still works on it: drop it.
    #[error("the scan took too long")]
    TimedOut,
    /// Reading the file failed with this errno.
    #[error("the file could not be read (errno {0})")]
    Unreadable(i32),
}

/// What a blocking scan concluded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scanned {
    /// Bytes read.
    pub read: u64,
    /// The conclusion.
    pub verdict: Verdict,
    /// Present when asked for; also when malicious, unless reading failed half-way.
    pub hashes: Option<RawHashes>,
}

impl Link {
    /// Over one end of a `SOCK_SEQPACKET` pair.
    #[must_use]
    pub fn new(socket: OwnedFd) -> Self {
        // Own tickets have the top bit set, so that a mix-up with a caller's is seen.
        Self { socket, awaited: Cell::new(Awaited::Nothing), next_ticket: Cell::new(1 << 63) }
    }

    /// Readable when an answer is there, hung up when the worker is gone.
    #[must_use]
    pub fn socket(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Sends a scan order with the file. Never waits.
    ///
    /// # Errors
    /// [`WorkerDied`]
    pub fn order(
        &self,
        ticket: u64,
        want_hashes: bool,
        file: BorrowedFd<'_>,
    ) -> Result<(), WorkerDied> {
        self.send(Order::Scan { ticket, want_hashes }, file)?;
        self.awaited.set(Awaited::Scanned(ticket));
        Ok(())
    }

    /// Sends the rules; the first order.
    pub(super) fn load(&self, bundle: BorrowedFd<'_>) -> Result<(), WorkerDied> {
        self.send(Order::Load, bundle)?;
        self.awaited.set(Awaited::Loaded);
        Ok(())
    }

    fn send(&self, order: Order, descriptor: BorrowedFd<'_>) -> Result<(), WorkerDied> {
        if self.awaited.get() != Awaited::Nothing {
            return Err(WorkerDied::Busy);
        }
        let mut bytes = [0; 16];
        let mut rest = &mut bytes[..];
        order.encode(&mut rest);
        let length = 16 - rest.len();
        let descriptors = [descriptor];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        control.push(SendAncillaryMessage::ScmRights(&descriptors));
        let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        loop {
            match sendmsg(&self.socket, &[IoSlice::new(&bytes[..length])], &mut control, flags) {
                Ok(_) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(error) => return Err(died(error)),
            }
        }
    }

    /// The answer, when there is one. Never waits.
    ///
    /// # Errors
    /// [`WorkerDied`], also for an answer that is not the one awaited.
    pub fn poll_answer(&self) -> Result<Option<Answer>, WorkerDied> {
        // One byte more than the largest message, so that a longer one shows.
        let mut bytes = [0; MAX_MESSAGE + 1];
        let length = loop {
            match recv(&self.socket, &mut bytes, RecvFlags::DONTWAIT) {
                Ok((0, _)) => return Err(WorkerDied::Gone),
                Ok((length, _)) => break length,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Ok(None),
                Err(error) => return Err(died(error)),
            }
        };
        if length > MAX_MESSAGE {
            return Err(WorkerDied::Malformed);
        }
        let mut answer = Answer::decode(&bytes[..length]).map_err(|_| WorkerDied::Malformed)?;
        let expected = match (&mut answer, self.awaited.get()) {
            (Answer::Scanned { ticket, finding, .. }, Awaited::Scanned(awaited)) => {
                if let Finding::Malicious(signature) = finding {
                    tame(signature);
                }
                *ticket == awaited
            }
            (Answer::Loaded { .. }, Awaited::Loaded) => true,
            (Answer::Refused(reason), Awaited::Loaded) => {
                *reason = printable(reason.as_bytes());
                true
            }
            _ => false,
        };
        if !expected {
            return Err(WorkerDied::Unasked);
        }
        self.awaited.set(Awaited::Nothing);
        Ok(Some(answer))
    }

    /// Waits for the answer until `end`; `None` when it did not come.
    pub(super) fn wait_answer(&self, end: Instant) -> Result<Option<Answer>, WorkerDied> {
        loop {
            if let Some(answer) = self.poll_answer()? {
                return Ok(Some(answer));
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(None);
            }
            let left = Timespec::try_from(left).unwrap_or(Timespec { tv_sec: 3600, tv_nsec: 0 });
            let mut ends = [PollFd::new(&self.socket, PollFlags::IN)];
            match poll(&mut ends, Some(&left)) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(died(error)),
            }
        }
    }

    /// One order and its answer, for callers who can wait.
    ///
    /// # Errors
    /// [`ScanFailed`]; after `Died` and `TimedOut` the worker must be dropped.
    pub fn scan(
        &self,
        want_hashes: bool,
        file: BorrowedFd<'_>,
        limit: Duration,
    ) -> Result<Scanned, ScanFailed> {
        let end = Instant::now() + limit;
        self.begin(want_hashes, file)?;
        self.finish(end)?.ok_or(ScanFailed::TimedOut)
    }

    /// The first half of [`Link::scan`]: sends the order.
    ///
    /// # Errors
    /// [`WorkerDied`]
    pub fn begin(&self, want_hashes: bool, file: BorrowedFd<'_>) -> Result<(), WorkerDied> {
        let ticket = self.next_ticket.get();
        self.next_ticket.set(ticket.wrapping_add(1) | 1 << 63);
        self.order(ticket, want_hashes, file)
    }

    /// The second half: the answer, `None` when it has not come by then.
    ///
    /// # Errors
    /// [`ScanFailed`], never `TimedOut`; after `Died` the worker must be dropped.
    pub fn finish(&self, end: Instant) -> Result<Option<Scanned>, ScanFailed> {
        let Some(answer) = self.wait_answer(end)? else { return Ok(None) };
        match answer {
            Answer::Scanned { read, finding, hashes, .. } => match finding {
                Finding::Clean => Ok(Some(Scanned { read, verdict: Verdict::Clean, hashes })),
                Finding::Malicious(signature) => {
                    Ok(Some(Scanned { read, verdict: Verdict::Malicious(signature), hashes }))
                }
                Finding::Unreadable(errno) => Err(ScanFailed::Unreadable(errno)),
            },
            Answer::Loaded { .. } | Answer::Refused(_) => Err(WorkerDied::Unasked.into()),
        }
    }
}

fn died(error: Errno) -> WorkerDied {
    match error {
        Errno::PIPE | Errno::CONNRESET => WorkerDied::Gone,
        other => WorkerDied::Socket(other.raw_os_error()),
    }
}

/// A name that a worker sends goes into events: no control characters, no excess length.
fn tame(signature: &mut Signature) {
    let mut name = printable(signature.name.as_bytes());
    while name.len() > Signature::MAX_NAME {
        name.pop();
    }
    signature.name = name;
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use holdfast_common::verdict::Engine;
    use proptest::prelude::*;
    use rustix::net::{AddressFamily, SocketFlags, SocketType, send, socketpair};

    use super::*;

    const LIMIT: Duration = Duration::from_secs(10);

    fn pair() -> (Link, OwnedFd) {
        let (ours, theirs) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
                .expect("socket pair");
        (Link::new(ours), theirs)
    }

    fn ordered() -> (Link, OwnedFd) {
        let (link, theirs) = pair();
        let file = File::open("/dev/null").expect("file");
        link.order(7, false, file.as_fd()).expect("order");
        (link, theirs)
    }

    fn say(socket: &OwnedFd, answer: &Answer) {
        let mut bytes = Vec::new();
        answer.encode(&mut bytes);
        send(socket, &bytes, SendFlags::empty()).expect("send");
    }

    fn clean(ticket: u64) -> Answer {
        Answer::Scanned { ticket, read: 0, finding: Finding::Clean, hashes: None }
    }

    #[test]
    fn the_awaited_answer_is_taken_once() {
        let (link, theirs) = ordered();
        assert_eq!(link.poll_answer(), Ok(None));
        say(&theirs, &clean(7));
        assert_eq!(link.poll_answer(), Ok(Some(clean(7))));
        say(&theirs, &clean(7));
        assert_eq!(link.poll_answer(), Err(WorkerDied::Unasked));
    }

    #[test]
    fn answers_that_nobody_asked_for_end_the_worker() {
        for wrong in [
            clean(8),
            Answer::Loaded { hashes: 0, yara_rules: 0, missing: 0 },
            Answer::Refused("no".to_owned()),
        ] {
            let (link, theirs) = ordered();
            say(&theirs, &wrong);
            assert_eq!(link.poll_answer(), Err(WorkerDied::Unasked), "{wrong:?}");
        }
    }

    #[test]
    fn a_second_order_is_refused_while_one_is_open() {
        let (link, _theirs) = ordered();
        let file = File::open("/dev/null").expect("file");
        assert_eq!(link.order(8, false, file.as_fd()), Err(WorkerDied::Busy));
    }

    #[test]
    fn a_closed_end_is_seen_by_order_and_answer() {
        let (link, theirs) = ordered();
        drop(theirs);
        assert_eq!(link.poll_answer(), Err(WorkerDied::Gone));
        let (link, theirs) = pair();
        drop(theirs);
        let file = File::open("/dev/null").expect("file");
        assert_eq!(link.order(1, false, file.as_fd()), Err(WorkerDied::Gone));
        assert_eq!(link.scan(false, file.as_fd(), LIMIT), Err(ScanFailed::Died(WorkerDied::Gone)));
    }

    #[test]
    fn a_silent_worker_costs_the_limit_and_no_more() {
        let (link, _theirs) = pair();
        let file = File::open("/dev/null").expect("file");
        let scanned = link.scan(false, file.as_fd(), Duration::from_millis(30));
        assert_eq!(scanned, Err(ScanFailed::TimedOut));
    }

    #[test]
    fn a_name_from_the_worker_is_made_harmless() {
        let (link, theirs) = ordered();
        let name = format!("\x1b[2J{}", "\u{7f}".repeat(190));
        let finding = Finding::Malicious(Signature { name, engine: Engine::Yara });
        say(&theirs, &Answer::Scanned { ticket: 7, read: 0, finding, hashes: None });
        let Ok(Some(Answer::Scanned { finding: Finding::Malicious(signature), .. })) =
            link.poll_answer()
        else {
            panic!("no malicious answer");
        };
        assert!(signature.name.starts_with(r"\x1b[2J\x7f"));
        assert!(signature.name.len() <= Signature::MAX_NAME);
    }

    #[test]
    fn descriptors_from_a_worker_are_not_taken() {
        let (link, theirs) = ordered();
        let (read_end, write_end) =
            rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).expect("pipe");
        let mut bytes = Vec::new();
        clean(7).encode(&mut bytes);
        let descriptors = [write_end.as_fd()];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        assert!(control.push(SendAncillaryMessage::ScmRights(&descriptors)));
        sendmsg(&theirs, &[IoSlice::new(&bytes)], &mut control, SendFlags::empty()).expect("send");
        drop(write_end);
        assert_eq!(link.poll_answer(), Ok(Some(clean(7))));
        // Nobody holds the other end any more, so this ends instead of waiting.
        assert_eq!(rustix::io::read(&read_end, &mut [0; 1]), Ok(0));
    }

    proptest! {
        #[test]
        fn no_datagram_is_mistaken_for_an_answer(
            bytes in proptest::collection::vec(any::<u8>(), 1..700)
        ) {
            let (link, theirs) = ordered();
            send(&theirs, &bytes, SendFlags::empty()).expect("send");
            match link.poll_answer() {
                Ok(Some(Answer::Scanned { ticket, .. })) => prop_assert_eq!(ticket, 7),
                Err(WorkerDied::Malformed | WorkerDied::Unasked) => {}
                other => prop_assert!(false, "{:?}", other),
            }
        }
    }
}
