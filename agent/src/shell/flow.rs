//! What is on its way between a terminal and the manager, in both directions, bounded.
//!
//! INVARIANT: no more than [`SHELL_WINDOW`] bytes of output are kept, until the manager has taken
//! them; what a terminal shows beyond that stays in the kernel. Input beyond its window is given up
//! and counted as taken: a manager that keeps to the window loses none.

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Mutex, MutexGuard, PoisonError};

use holdfast_common::link::wire::{ShellInput, ShellOutput};
use holdfast_common::link::{SHELL_PART, SHELL_WINDOW};
use rustix::event::{EventfdFlags, eventfd};

/// Bytes that a direction holds.
const WINDOW: usize = 64 << 10;

/// One shell's two directions.
#[derive(Debug)]
pub(super) struct Flow {
    state: Mutex<State>,
    /// Readable when the pump has something to look at.
    wake: OwnedFd,
}

#[derive(Debug, Default)]
struct State {
    /// What was shown and is not taken yet; it begins at `acked`.
    shown: VecDeque<u8>,
    acked: u64,
    sent: u64,
    /// What was typed and is not with the terminal yet.
    typed: VecDeque<u8>,
    /// Where the next input begins.
    received: u64,
    taken: u64,
    hidden: bool,
    size: Option<(u16, u16)>,
    close: bool,
    closed: Option<String>,
    /// Something else than output is to be told.
    news: bool,
    told_closed: bool,
}

/// What the manager wants of a terminal.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Wish {
    /// Columns and rows.
    pub(super) size: Option<(u16, u16)>,
    pub(super) close: bool,
}

impl Flow {
    pub(super) fn new() -> std::io::Result<Self> {
        const _: () = assert!(WINDOW as u64 == SHELL_WINDOW && SHELL_PART <= WINDOW);
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        // The manager learns that it is open.
        let state = State { news: true, ..State::default() };
        Ok(Self { state: Mutex::new(state), wake })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// For `poll`.
    pub(super) fn waker(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }

    pub(super) fn wake(&self) {
        // A full counter wakes just as well.
        let _ = rustix::io::write(&self.wake, &1_u64.to_ne_bytes());
    }

    pub(super) fn woken(&self) {
        let _ = rustix::io::read(&self.wake, &mut [0_u8; 8]);
    }

    // The terminal's side.

    /// How many bytes it may show now.
    pub(super) fn room(&self) -> usize {
        WINDOW.saturating_sub(self.state().shown.len())
    }

    pub(super) fn show(&self, bytes: &[u8]) {
        self.state().shown.extend(bytes);
    }

    /// Whether it asks for a line and does not show it.
    pub(super) fn set_hidden(&self, hidden: bool) -> bool {
        let mut state = self.state();
        let differs = state.hidden != hidden;
        state.hidden = hidden;
        state.news |= differs;
        differs
    }

    /// The next bytes for it; [`Flow::typed`] when it has them.
    pub(super) fn typing(&self) -> Vec<u8> {
        self.state().typed.iter().take(SHELL_PART).copied().collect()
    }

    pub(super) fn typed(&self, count: usize) {
        let mut state = self.state();
        state.typed.drain(..count);
        state.taken += count as u64;
        state.news = true;
    }

    pub(super) fn wish(&self) -> Wish {
        let mut state = self.state();
        Wish { size: state.size.take(), close: state.close }
    }

    pub(super) fn close(&self, how: &str) {
        self.state().closed = Some(how.to_owned());
    }

    /// Everything was sent.
    pub(super) fn is_told(&self) -> bool {
        self.state().told_closed
    }

    // The link's side.

    /// A new stream: what was not taken goes again.
    pub(super) fn again(&self) {
        let mut state = self.state();
        state.sent = state.acked;
        state.news = true;
        state.told_closed = false;
    }

    pub(super) fn has_news(&self) -> bool {
        let state = self.state();
        let end = state.acked + state.shown.len() as u64;
        state.sent < end || state.news || (state.closed.is_some() && !state.told_closed)
    }

    pub(super) fn next(&self, task: &str) -> Option<ShellOutput> {
        let mut state = self.state();
        let begin = usize::try_from(state.sent.saturating_sub(state.acked)).unwrap_or(usize::MAX);
        let data: Vec<u8> = state.shown.iter().skip(begin).take(SHELL_PART).copied().collect();
        let offset = state.sent;
        state.sent += data.len() as u64;
        state.news = false;
        let all = state.sent == state.acked + state.shown.len() as u64;
        let why = state.closed.clone().filter(|_| all);
        state.told_closed |= why.is_some();
        Some(ShellOutput {
            task: task.to_owned(),
            data: data.into(),
            closed: why.is_some(),
            offset,
            taken: state.taken,
            hidden: state.hidden,
            why: why.unwrap_or_default(),
        })
    }

    /// What the manager sends.
    pub(super) fn take(&self, input: &ShellInput) {
        let mut state = self.state();
        let acked = input.taken.clamp(state.acked, state.sent);
        let gone = usize::try_from(acked - state.acked).unwrap_or(0);
        state.shown.drain(..gone);
        state.acked = acked;
        if !input.data.is_empty() {
            // What was lost with a stream is as good as taken.
            let lost = input.offset.saturating_sub(state.received);
            state.taken = state.taken.saturating_add(lost);
            let room = WINDOW - state.typed.len();
            let fits = &input.data[..input.data.len().min(room)];
            state.typed.extend(fits);
            state.taken = state.taken.saturating_add((input.data.len() - fits.len()) as u64);
            state.received = input.offset.saturating_add(input.data.len() as u64);
            state.news = true;
        }
        let number = |number: u32| u16::try_from(number).ok().filter(|number| *number > 0);
        if let (Some(columns), Some(rows)) = (number(input.columns), number(input.rows)) {
            state.size = Some((columns, rows));
        }
        state.close |= input.close;
        drop(state);
        self.wake();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn input(data: &[u8], offset: u64, taken: u64) -> ShellInput {
        ShellInput { data: data.to_vec().into(), offset, taken, ..ShellInput::default() }
    }

    #[test]
    fn what_was_not_taken_goes_again_and_what_was_taken_makes_room() {
        let flow = Flow::new().expect("flow");
        assert!(flow.has_news(), "it is open");
        assert_eq!(flow.next("t").expect("hello").data.len(), 0);
        assert!(!flow.has_news());
        flow.show(&vec![b'a'; SHELL_PART + 5]);
        assert_eq!(flow.next("t").expect("part").data.len(), SHELL_PART);
        let rest = flow.next("t").expect("rest");
        assert_eq!((rest.offset, rest.data.len()), (SHELL_PART as u64, 5));
        flow.take(&input(b"", 0, SHELL_PART as u64));
        assert_eq!(flow.room(), WINDOW - 5);
        flow.again();
        let again = flow.next("t").expect("again");
        assert_eq!((again.offset, again.data.len()), (SHELL_PART as u64, 5));
        // A manager that claims more than was sent is not believed.
        flow.take(&input(b"", 0, u64::MAX));
        assert_eq!(flow.room(), WINDOW);
        flow.close("over");
        let last = flow.next("t").expect("last");
        assert!(last.closed && last.why == "over" && flow.is_told());
    }

    #[test]
    fn a_flood_of_input_is_given_up_beyond_the_window() {
        let flow = Flow::new().expect("flow");
        flow.take(&input(&vec![b'x'; WINDOW], 0, 0));
        flow.take(&input(b"yz", WINDOW as u64, 0));
        assert_eq!(flow.state().typed.len(), WINDOW);
        assert_eq!(flow.next("t").expect("told").taken, 2);
        flow.typed(flow.typing().len());
        assert_eq!(flow.next("t").expect("told").taken, 2 + SHELL_PART as u64);
        // What was lost on the way counts as taken.
        flow.take(&input(b"a", WINDOW as u64 + 12, 0));
        assert_eq!(flow.next("t").expect("told").taken, 12 + SHELL_PART as u64);
    }

    #[test]
    fn sizes_that_are_none_change_nothing() {
        let flow = Flow::new().expect("flow");
        for (columns, rows) in [(0, 5), (5, 0), (70_000, 5)] {
            flow.take(&ShellInput { columns, rows, ..ShellInput::default() });
            assert_eq!(flow.wish(), Wish::default());
        }
        flow.take(&ShellInput { columns: 80, rows: 24, close: true, ..ShellInput::default() });
        assert_eq!(flow.wish(), Wish { size: Some((80, 24)), close: true });
    }
}
