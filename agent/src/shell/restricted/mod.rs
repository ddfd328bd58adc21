//! The restricted shell: fixed commands for whoever looks into a host, and nothing else.
//!
//! ```text
//!  line ─▶ words.rs (quotes, no expansion of any kind) ─▶ one match over the commands
//!            files.rs: ls cd pwd cat stat find hash      processes.rs: ps kill env users
//!            tools.rs: journal ss ip (the host's programs, with arguments from a list of ours)
//! ```
//!
//! INVARIANT: no shell is started, and no word of the user's names a program or, with a dash, an
//! option that is not in our lists. Everything that is printed is escaped and bounded. Nothing is
//! written to the host; `kill` is all that it changes. Ctrl-C ends the command that runs, not this.

mod files;
mod out;
mod processes;
mod tools;
mod words;

use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::AsFd;
use std::process::ExitCode;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use self::out::Out;

/// Bytes of a line.
const LONGEST: usize = 4096;
/// Words of a line.
const MOST_WORDS: usize = 64;

/// What a command could not do, for people.
type Done = Result<(), String>;

const HELP: &str = "\
ls [-l] [-a] [PATH]          cd PATH                     pwd
cat FILE                     the first MiB of a regular file
stat PATH                    what the file system says of it; links are not followed
find [PATH] [-name GLOB] [-type f|d|l] [-maxdepth N]
hash FILE...                 SHA-256 and MD5
ps [TEXT]                    processes; those whose line has TEXT
kill [-SIGNAL] PID           HUP INT KILL TERM STOP CONT; TERM without one
env [PID]                    the environment of a process, or of this shell
mounts                       users
ss [-tuxwlnapeimos46H]       sockets
ip [-4|-6|-s|-d|-br] addr|link|route|neigh|rule
journal [LINES] [UNIT]       the end of the system's journal, 100 lines without a number
help                         exit
'...' and \"...\" keep a word together, \\ the next sign; \\xNN is a byte. Nothing is expanded.
Files are brought by response tasks (collect), scans and the rest likewise.";

/// The commands, from standard input, until it ends.
#[must_use]
pub fn main() -> ExitCode {
    let Ok(interrupt) = Interrupt::take() else { return ExitCode::FAILURE };
    let mut input = Input::default();
    let mut out = Out::new(&interrupt);
    // The first line says where one is.
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    out.line(&format!("{host}: restricted shell of Holdfast; what is typed is recorded. help"));
    loop {
        out.begin();
        out.prompt("holdfast> ");
        match input.line(&interrupt) {
            Line::Whole(line) => {
                if !carry_out(&line, &mut out) {
                    return ExitCode::SUCCESS;
                }
            }
            Line::TooLong => {
                out.line(&format!("a line has at most {LONGEST} bytes"));
            }
            Line::Interrupted => {
                out.line("");
            }
            Line::End => return ExitCode::SUCCESS,
        }
    }
}

/// One line; false when it ends the shell.
fn carry_out(line: &[u8], out: &mut Out<'_>) -> bool {
    let words = match words::split(line) {
        Ok(words) if words.len() > MOST_WORDS => {
            out.line(&format!("a line has at most {MOST_WORDS} words"));
            return true;
        }
        Ok(words) => words,
        Err(why) => {
            out.line(why);
            return true;
        }
    };
    let Some((command, rest)) = words.split_first() else { return true };
    let done = match command.as_slice() {
        b"ls" => files::ls(rest, out),
        b"cd" => files::cd(rest),
        b"pwd" => files::pwd(rest, out),
        b"cat" => files::cat(rest, out),
        b"stat" => files::stat(rest, out),
        b"find" => files::find(rest, out),
        b"hash" => files::hash(rest, out),
        b"ps" => processes::ps(rest, out),
        b"kill" => processes::kill(rest, out),
        b"env" => processes::env(rest, out),
        b"users" => processes::users(rest, out),
        b"mounts" => processes::mounts(rest, out),
        b"ss" => tools::ss(rest, out),
        b"ip" => tools::ip(rest, out),
        b"journal" => tools::journal(rest, out),
        b"help" => {
            out.text(HELP);
            Ok(())
        }
        b"exit" => return false,
        other => Err(format!("there is no command {}; help", out::shown(other))),
    };
    out.finish();
    if let Err(why) = done {
        out.begin();
        out.line(&why);
    }
    true
}

/// One word, exactly.
fn one<'a>(words: &'a [Vec<u8>], usage: &str) -> Result<&'a [u8], String> {
    match words {
        [word] => Ok(word),
        _ => Err(format!("usage: {usage}")),
    }
}

fn none(words: &[Vec<u8>], usage: &str) -> Done {
    if words.is_empty() { Ok(()) } else { Err(format!("usage: {usage}")) }
}

/// Ctrl-C, taken as something to look at.
pub(super) struct Interrupt(SignalFd);

impl Interrupt {
    fn take() -> nix::Result<Self> {
        let mut own = SigSet::empty();
        own.add(Signal::SIGINT);
        let mut mask = own;
        // Keys that would end or stop the shell itself.
        mask.add(Signal::SIGQUIT);
        mask.add(Signal::SIGTSTP);
        mask.thread_block()?;
        Ok(Self(SignalFd::with_flags(&own, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?))
    }

    /// Somebody pressed it since the last look.
    pub(super) fn came(&self) -> bool {
        let mut came = false;
        while let Ok(Some(_)) = self.0.read_signal() {
            came = true;
        }
        came
    }
}

#[derive(Default)]
struct Input {
    /// What was read and belongs to the next lines.
    rest: Vec<u8>,
    /// The line is too long, and its end has not come yet.
    overflow: bool,
}

enum Line {
    Whole(Vec<u8>),
    TooLong,
    Interrupted,
    End,
}

impl Input {
    fn line(&mut self, interrupt: &Interrupt) -> Line {
        loop {
            if let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.rest.drain(..=end).collect();
                if std::mem::take(&mut self.overflow) || end > LONGEST {
                    return Line::TooLong;
                }
                return Line::Whole(line[..end].to_vec());
            }
            if self.rest.len() > LONGEST {
                self.rest.clear();
                self.overflow = true;
            }
            let stdin = std::io::stdin();
            let mut polled = [
                PollFd::new(stdin.as_fd(), PollFlags::POLLIN),
                PollFd::new(interrupt.0.as_fd(), PollFlags::POLLIN),
            ];
            match poll(&mut polled, PollTimeout::NONE) {
                Ok(_) | Err(nix::errno::Errno::EINTR) => {}
                Err(_) => return Line::End,
            }
            if interrupt.came() {
                self.rest.clear();
                self.overflow = false;
                return Line::Interrupted;
            }
            if polled[0].revents().is_none_or(|ready| ready.is_empty()) {
                continue;
            }
            let mut part = [0; 1024];
            match rustix::io::read(&stdin, &mut part) {
                Ok(0) => return Line::End,
                Ok(read) => self.rest.extend_from_slice(&part[..read]),
                Err(rustix::io::Errno::INTR | rustix::io::Errno::AGAIN) => {}
                Err(_) => return Line::End,
            }
        }
    }
}

/// The lines of something readable, as far as they go, until Ctrl-C.
fn copy_lines(from: impl Read, out: &mut Out<'_>) {
    let mut from = BufReader::new(from);
    let mut line = Vec::new();
    loop {
        line.clear();
        // One line without end is cut into several.
        match (&mut from).take(8192).read_until(b'\n', &mut line) {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
        if line.ends_with(b"\n") {
            line.pop();
        }
        if !out.bytes(&line) {
            return;
        }
    }
}

/// Writes to the terminal; where it is gone, the next read ends the shell.
fn put(bytes: &[u8]) {
    let mut stdout = std::io::stdout().lock();
    let _ = stdout.write_all(bytes).and_then(|()| stdout.flush());
}
