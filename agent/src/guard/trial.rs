//! The proof that the kernel denies: a child of the agent's own tries what must be refused.
//!
//! `holdfastd guard-trial PID FILE` sends SIGURG to the process and opens the file for writing,
//! and prints the errno of each: 0 when it was let through. It is neither the agent nor who
//! started it, hence as little exempt as any other process of root.
//! INVARIANT: what is let through changes nothing. SIGURG is ignored unless somebody asks for it,
//! which the agent does not; the file is neither made, nor cut, nor written.

use std::ffi::OsString;
use std::io::Read;
use std::os::fd::AsFd;
use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process};

/// First argument of such a process.
pub const WORD: &str = "guard-trial";
/// For its start and its two calls; an emulated machine takes seconds.
const PATIENCE: Duration = Duration::from_secs(20);
/// Both numbers and the line's end.
const LONGEST: usize = 32;

/// Tries it. `line` is the command line behind [`WORD`].
#[must_use]
pub fn main(mut line: impl Iterator<Item = OsString>) -> ExitCode {
    let pid = line.next().and_then(|word| word.to_str()?.parse().ok()).and_then(Pid::from_raw);
    let (Some(pid), Some(file)) = (pid, line.next()) else { return ExitCode::from(64) };
    let errno = |done: Result<(), Errno>| done.err().map_or(0, Errno::raw_os_error);
    let signalled = errno(kill_process(pid, Signal::URG));
    let flags = OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let opened = errno(rustix::fs::open(Path::new(&file), flags, Mode::empty()).map(drop));
    println!("{signalled} {opened}");
    ExitCode::SUCCESS
}

/// The child. Its number is nobody else's until this is dropped.
pub(super) struct Trial {
    child: Child,
}

/// What the child met: the errno of each call, 0 when it was let through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Answers {
    pub(super) signal: i32,
    pub(super) write: i32,
}

impl Trial {
    /// Starts the child, of this program, against this process and `file`.
    pub(super) fn start(file: &Path) -> std::io::Result<Self> {
        let child = Command::new("/proc/self/exe")
            .args([WORD, &std::process::id().to_string()])
            .arg(file)
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        Ok(Self { child })
    }

    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits for what it says.
    ///
    /// # Errors
    /// Why there is no answer.
    pub(super) fn answers(&mut self) -> Result<Answers, String> {
        let out = self.child.stdout.as_mut().ok_or("it has no output")?;
        let end = Instant::now() + PATIENCE;
        let mut text = Vec::new();
        while !text.ends_with(b"\n") && text.len() < LONGEST {
            let left = end.saturating_duration_since(Instant::now());
            let left =
                Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() };
            match poll(&mut [PollFd::from_borrowed_fd(out.as_fd(), PollFlags::IN)], Some(&left)) {
                Ok(0) => return Err(format!("it said nothing within {PATIENCE:?}")),
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(error.to_string()),
            }
            let mut part = [0; LONGEST];
            match out.read(&mut part).map_err(|error| error.to_string())? {
                0 => break,
                count => text.extend_from_slice(&part[..count]),
            }
        }
        parse(&text).ok_or_else(|| format!("it said {:?}", String::from_utf8_lossy(&text)))
    }
}

impl Drop for Trial {
    fn drop(&mut self) {
        // It has ended already, or hangs: neither call can be waited for here.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn parse(text: &[u8]) -> Option<Answers> {
    let text = std::str::from_utf8(text).ok()?.strip_suffix('\n')?;
    let (signal, write) = text.split_once(' ')?;
    Some(Answers { signal: signal.parse().ok()?, write: write.parse().ok()? })
}

/// What is wrong with a trial; nothing when both calls were denied and told. `told` says for each
/// whether its record came.
pub(super) fn fault(answers: Answers, told: Told) -> Option<String> {
    let denied = Errno::PERM.raw_os_error();
    let one = |what: &str, errno: i32, told: bool| match (errno, told) {
        (0, _) => Some(format!("{what} was let through")),
        (errno, _) if errno != denied => {
            Some(format!("{what} met {}", Errno::from_raw_os_error(errno)))
        }
        (_, false) => Some(format!("{what} was denied and not told")),
        (_, true) => None,
    };
    let faults = [
        one("a signal to the agent", answers.signal, told.signal),
        one("opening a file of the agent for writing", answers.write, told.write),
    ];
    let faults: Vec<String> = faults.into_iter().flatten().collect();
    (!faults.is_empty()).then(|| faults.join("; "))
}

/// Which records of the trial's own denials came.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Told {
    pub(super) signal: bool,
    pub(super) write: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOTH: Told = Told { signal: true, write: true };

    #[test]
    fn only_two_told_denials_prove_anything() {
        assert_eq!(fault(Answers { signal: 1, write: 1 }, BOTH), None);
        let says = |signal, write, told| fault(Answers { signal, write }, told).expect("a fault");
        assert!(says(0, 1, BOTH).contains("a signal to the agent was let through"));
        assert!(says(1, 0, BOTH).contains("for writing was let through"));
        assert!(says(3, 1, BOTH).contains("a signal to the agent met"), "no such process");
        let both = says(1, 1, Told::default());
        assert!(both.contains("signal to the agent was denied and not told; opening"), "{both}");
    }

    #[test]
    fn an_answer_that_is_cut_is_none() {
        assert_eq!(parse(b"1 13\n"), Some(Answers { signal: 1, write: 13 }));
        for text in [&b""[..], b"1 1", b"1\n", b"1 1 1\n", b"x 1\n"] {
            assert_eq!(parse(text), None);
        }
    }
}
