//! One connection of the server: read a line in bounded time, carry it out on a thread of its
//! own, answer in order.

use std::io::{self, Write};
use std::os::unix::net::UnixStream as BlockingStream;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use holdfast_common::control::{MAX_REQUEST, Reply, Request};
use rustix::event::{PollFd, PollFlags, Timespec};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::net::UnixStream;

use super::{Answerer, Operator};

/// Time for the whole request line.
const READ_LIMIT: Duration = Duration::from_secs(5);
/// A peer that reads nothing for this long is given up.
const WRITE_LIMIT: Duration = Duration::from_secs(30);
/// Bytes kept back to send several replies at once.
const BUFFER: usize = 32 << 10;

/// Serves one admitted connection to its end.
pub(super) async fn serve(
    mut stream: UnixStream,
    operator: Arc<dyn Operator>,
    stopping: Arc<AtomicBool>,
) {
    let request = match read_request(&mut stream).await {
        Ok(Some(request)) => request,
        Ok(None) => return,
        Err(message) => return refuse(&stream, message),
    };
    let Ok(stream) = stream.into_std() else { return };
    let ready = stream.set_nonblocking(false).and(stream.set_write_timeout(Some(WRITE_LIMIT)));
    if ready.is_err() {
        return;
    }
    let _ =
        tokio::task::spawn_blocking(move || carry_out(stream, &*operator, request, stopping)).await;
}

/// Answers with an error alone. It is the first thing sent, so the socket has room for it.
pub(super) fn refuse(stream: &UnixStream, message: String) {
    if let Ok(mut line) = serde_json::to_vec(&Reply::Error { message }) {
        line.push(b'\n');
        let _ = stream.try_write(&line);
    }
}

/// `None` when the peer went without a word.
async fn read_request(stream: &mut UnixStream) -> Result<Option<Request>, String> {
    let mut line = Vec::new();
    let mut reader = BufReader::new(stream).take(MAX_REQUEST as u64 + 1);
    let read = tokio::time::timeout(READ_LIMIT, reader.read_until(b'\n', &mut line)).await;
    match read {
        Err(_) => return Err(format!("no whole request within {} s", READ_LIMIT.as_secs())),
        Ok(Err(error)) => return Err(format!("cannot read the request: {error}")),
        Ok(Ok(_)) => {}
    }
    if line.is_empty() {
        return Ok(None);
    }
    if line.pop() != Some(b'\n') {
        return Err(if line.len() >= MAX_REQUEST {
            format!("the request is longer than {MAX_REQUEST} bytes")
        } else {
            "the request ends in the middle of a line".into()
        });
    }
    serde_json::from_slice(&line).map(Some).map_err(|error| format!("not a request: {error}"))
}

fn carry_out(
    stream: BlockingStream,
    operator: &dyn Operator,
    request: Request,
    stopping: Arc<AtomicBool>,
) {
    let mut answer = Line { stream, buffer: Vec::new(), data_left: 0, broken: false, stopping };
    let run = AssertUnwindSafe(|| operator.carry_out(request, &mut answer));
    let result = std::panic::catch_unwind(run)
        .unwrap_or_else(|_| Err("the agent failed inside; its log says where".into()));
    let last = match result {
        Ok(()) => Reply::Done,
        Err(message) => Reply::Error { message },
    };
    // In the middle of announced bytes no line can be sent: the peer sees the transfer end early.
    let _ = answer.reply(last).and_then(|()| answer.flush());
}

/// The peer, line by line.
struct Line {
    stream: BlockingStream,
    buffer: Vec<u8>,
    data_left: u64,
    broken: bool,
    stopping: Arc<AtomicBool>,
}

impl Line {
    fn send(&mut self, bytes: &[u8], hurry: bool) -> io::Result<()> {
        if self.broken {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        self.buffer.extend_from_slice(bytes);
        if hurry || self.buffer.len() >= BUFFER { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> io::Result<()> {
        let sent = self.stream.write_all(&self.buffer);
        self.buffer.clear();
        self.broken |= sent.is_err();
        sent
    }
}

impl Answerer for Line {
    fn reply(&mut self, reply: Reply) -> io::Result<()> {
        if self.data_left > 0 {
            return Err(io::Error::other("a reply inside announced data"));
        }
        let mut line = serde_json::to_vec(&reply)?;
        line.push(b'\n');
        self.send(&line, true)?;
        if let Reply::Data { length } = reply {
            self.data_left = length;
        }
        Ok(())
    }

    fn data(&mut self, bytes: &[u8]) -> io::Result<()> {
        let length = bytes.len() as u64;
        let Some(left) = self.data_left.checked_sub(length) else {
            return Err(io::Error::other("more data than announced"));
        };
        self.send(bytes, left == 0)?;
        self.data_left = left;
        Ok(())
    }

    fn gone(&self) -> bool {
        if self.broken || self.stopping.load(Ordering::Relaxed) {
            return true;
        }
        // A peer that only shut its writing side down still reads: that is no POLLHUP (unix(7)).
        let mut poll = [PollFd::new(&self.stream, PollFlags::empty())];
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        match rustix::event::poll(&mut poll, Some(&now)) {
            Ok(_) => poll[0].revents().intersects(PollFlags::HUP | PollFlags::ERR),
            Err(_) => false,
        }
    }
}
