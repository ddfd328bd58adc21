//! The caged process `holdfast-scan`: one order in, one answer out, until its socket closes.
//!
//! Order of things: close what was inherited, [`cage`], and only then the first byte that
//! somebody else wrote (the bundle is parsed inside the cage too). One thread. It opens nothing,
//! writes to nothing but its socket, and remembers nothing of one scan in the next. Any
//! malformed order, and any panic, ends the process; the agent starts another.

pub mod cage;
pub mod eicar;
pub mod engine;
pub mod hashes;
pub mod image;
pub mod marker;
pub mod seccomp;
pub mod yara;

use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use holdfast_common::wire::{Answer, MAX_MESSAGE, Order};
use rustix::io::{Errno, IoSliceMut};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendFlags, recvmsg, send};

use engine::{Engine, Rules};

/// What the agent grants a worker; handed over as the arguments of the program, in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Address space, bytes.
    pub memory: u64,
    /// Longest that YARA may take for one file, seconds.
    pub seconds: u64,
    /// User id to become; not 0.
    pub uid: u32,
    /// Group id to become; not 0.
    pub gid: u32,
}

impl Limits {
    /// As arguments of the program.
    #[must_use]
    pub fn to_args(self) -> [String; 4] {
        [
            self.memory.to_string(),
            self.seconds.to_string(),
            self.uid.to_string(),
            self.gid.to_string(),
        ]
    }

    /// From the arguments of the program; `None` unless they are exactly what `to_args` gives.
    #[must_use]
    pub fn from_args(mut args: impl Iterator<Item = String>) -> Option<Self> {
        let limits = Self {
            memory: args.next()?.parse().ok()?,
            seconds: args.next()?.parse().ok()?,
            uid: args.next()?.parse().ok().filter(|uid| *uid != 0)?,
            gid: args.next()?.parse().ok().filter(|gid| *gid != 0)?,
        };
        args.next().is_none().then_some(limits)
    }

    /// Bytes of one file that YARA sees: a quarter of the memory, at most 256 MiB.
    #[must_use]
    pub fn yara_limit(self) -> usize {
        usize::try_from((self.memory / 4).min(256 << 20)).unwrap_or(256 << 20)
    }
}

/// How long a worker looks for the next order before it sleeps. Waking a processor that has gone
/// idle costs more than a whole scan (70 µs against 15 µs, measured in a virtual machine), and
/// orders come in bursts. Whoever else wants the processor gets it at each look (`sched_yield`).
const AWAKE: Duration = Duration::from_micros(60);

/// The other end is gone, or speaks another language.
struct Ended;

/// The whole life of a worker. Returns when the agent closes the socket.
pub fn run(args: impl Iterator<Item = String>) -> ExitCode {
    let Some(limits) = Limits::from_args(args) else {
        eprintln!("holdfast-scan is started by holdfastd; there is nothing to run by hand");
        return ExitCode::from(64);
    };
    let stdin = std::io::stdin();
    let socket = stdin.as_fd();
    let missing = match cage::enter(&limits, socket) {
        Ok(missing) => missing,
        Err(error) => {
            let _ = answer(socket, &Answer::Refused(format!("{}{error}", cage::REFUSAL)));
            return ExitCode::FAILURE;
        }
    };
    let Ok(mut engine) = load(socket, &limits, missing) else { return ExitCode::FAILURE };
    loop {
        match receive(socket, AWAKE) {
            Ok(Some((Order::Scan { ticket, want_hashes }, file))) => {
                let scanned = engine.scan(ticket, want_hashes, file.as_fd());
                // Closed first: an open that waits for our answer finds nobody else at its file.
                drop(file);
                if answer(socket, &scanned).is_err() {
                    return ExitCode::FAILURE;
                }
            }
            Ok(None) => return ExitCode::SUCCESS,
            Ok(Some((Order::Load, _))) | Err(Ended) => return ExitCode::FAILURE,
        }
    }
}

fn load(socket: BorrowedFd<'_>, limits: &Limits, missing: u8) -> Result<Engine, Ended> {
    let Some((Order::Load, bundle)) = receive(socket, Duration::ZERO)? else { return Err(Ended) };
    let rules = read_all(bundle.as_fd())
        .map_err(|errno| format!("cannot read the bundle: {errno}"))
        .and_then(|image| Rules::load(&image, Duration::from_secs(limits.seconds)));
    drop(bundle);
    match rules {
        Ok(rules) => {
            let (hashes, yara_rules) = rules.counts();
            let engine = Engine::new(rules, limits.yara_limit());
            answer(socket, &Answer::Loaded { hashes, yara_rules, missing })?;
            Ok(engine)
        }
        Err(reason) => {
            answer(socket, &Answer::Refused(reason))?;
            Err(Ended)
        }
    }
}

fn read_all(file: BorrowedFd<'_>) -> Result<Vec<u8>, Errno> {
    let size = usize::try_from(rustix::fs::fstat(file)?.st_size).map_err(|_| Errno::FBIG)?;
    let mut content = Vec::new();
    content.try_reserve_exact(size).map_err(|_| Errno::NOMEM)?;
    content.resize(size, 0);
    let mut filled = 0;
    while filled < size {
        match rustix::io::pread(file, &mut content[filled..], filled as u64)? {
            0 => return Err(Errno::IO),
            got => filled += got,
        }
    }
    Ok(content)
}

/// The next order and its descriptor; `None` when the agent closed the socket. Sleeps for it only
/// after having looked for so long.
fn receive(socket: BorrowedFd<'_>, awake: Duration) -> Result<Option<(Order, OwnedFd)>, Ended> {
    let mut bytes = [0; MAX_MESSAGE];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let until = Instant::now() + awake;
    let mut flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
    let length = loop {
        let mut parts = [IoSliceMut::new(&mut bytes)];
        match recvmsg(socket, &mut parts, &mut control, flags) {
            Ok(received) => break received.bytes,
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) if Instant::now() < until => rustix::thread::sched_yield(),
            Err(Errno::AGAIN) => flags = RecvFlags::CMSG_CLOEXEC,
            Err(_) => return Err(Ended),
        }
    };
    if length == 0 {
        return Ok(None);
    }
    let mut descriptor = None;
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(descriptors) = message {
            descriptor = descriptors.last().or(descriptor);
        }
    }
    let order = Order::decode(&bytes[..length]).map_err(|_| Ended)?;
    Ok(Some((order, descriptor.ok_or(Ended)?)))
}

fn answer(socket: BorrowedFd<'_>, answer: &Answer) -> Result<(), Ended> {
    let mut bytes = [0; MAX_MESSAGE];
    let mut rest = &mut bytes[..];
    answer.encode(&mut rest);
    let length = MAX_MESSAGE - rest.len();
    loop {
        match send(socket, &bytes[..length], SendFlags::NOSIGNAL) {
            Ok(_) => return Ok(()),
            Err(Errno::INTR) => {}
            Err(_) => return Err(Ended),
        }
    }
}
