//! One shell that is open, as this manager sees it: between its host's stream and whoever looks.
//!
//! INVARIANT: what is not recorded is neither shown nor typed: a recording that cannot be written
//! closes the shell. No more than a window is on its way in either direction; whoever types and does
//! not read holds the terminal up, whoever only watches and is too slow misses some.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use holdfast_common::link::wire::{ShellInput, ShellOutput};
use holdfast_common::link::{SHELL_PART, SHELL_WINDOW};
use tokio::sync::{Notify, watch};
use uuid::Uuid;

use super::recording::Recording;

/// Bytes of what was shown last, for who comes later.
pub(super) const REPLAY: usize = 256 << 10;
/// Bytes on their way in a direction.
const WINDOW: usize = 64 << 10;
const _: () = assert!(WINDOW as u64 == SHELL_WINDOW && WINDOW < REPLAY);
/// People who look at one shell at once.
pub(super) const MOST_VIEWERS: usize = 16;

/// An open shell.
#[derive(Debug)]
pub(super) struct Live {
    pub(super) task: Uuid,
    pub(super) host: Uuid,
    state: Mutex<State>,
    /// Grows with each change.
    changed: watch::Sender<u64>,
    /// Wakes the host's stream.
    stream: Arc<Notify>,
}

#[derive(Debug)]
struct State {
    recording: Recording,
    /// What was shown last; it ends at `total`.
    replay: VecDeque<u8>,
    total: u64,
    /// How far whoever types has read.
    read: u64,
    /// What the host was told to be taken.
    told: u64,
    hidden: bool,
    /// The host has told of it in this stream: what was sent before would be nobody's.
    joined: bool,
    /// Who types.
    pen: Option<u64>,
    /// Everybody who looks, by number, with his name.
    viewers: Vec<(u64, String)>,
    numbers: u64,
    /// What was typed and is not sent; it begins at `sent`.
    typed: VecDeque<u8>,
    sent: u64,
    taken: u64,
    /// What the host is to be told.
    size: Option<(u16, u16)>,
    /// Columns and rows as they are.
    screen: (u16, u16),
    close: Option<bool>,
    closed: Option<String>,
}

/// What a viewer gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Shown {
    /// Bytes for the terminal.
    Output(Vec<u8>),
    /// Whether this viewer types, from now on.
    Writes(bool),
    /// Everybody who looks, this viewer too, and who of them types.
    People(Vec<Person>),
    /// Columns and rows of the terminal, from now on.
    Size(u16, u16),
    /// How it ended; nothing follows.
    Closed(String),
}

/// One of those who look, as the others see him.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Person {
    /// As in the audit log.
    pub name: String,
    /// What he types counts.
    pub writes: bool,
}

/// Somebody who looks, and perhaps types.
#[derive(Debug)]
pub struct Viewer {
    live: Arc<Live>,
    number: u64,
    at: u64,
    /// What was last said of who types.
    writes: Option<bool>,
    /// What was last said of who looks.
    people: Vec<Person>,
    /// What was last said of the size.
    screen: (u16, u16),
    changed: watch::Receiver<u64>,
}

/// What a viewer types with, while it may.
#[derive(Debug, Clone)]
pub struct Pen {
    live: Arc<Live>,
    number: u64,
}

impl State {
    fn people(&self) -> Vec<Person> {
        let person = |(number, name): &(u64, String)| Person {
            name: name.clone(),
            writes: self.pen == Some(*number),
        };
        self.viewers.iter().map(person).collect()
    }
}

impl Live {
    pub(super) fn new(
        (task, host): (Uuid, Uuid),
        recording: Recording,
        (replay, total): (Vec<u8>, u64),
        screen: (u16, u16),
        stream: Arc<Notify>,
    ) -> Self {
        let state = State {
            recording,
            replay: replay.into(),
            total,
            read: total,
            // So that the host is told once how far this manager is.
            told: total.saturating_sub(1),
            hidden: false,
            joined: false,
            pen: None,
            viewers: Vec::new(),
            numbers: 0,
            typed: VecDeque::new(),
            sent: 0,
            taken: 0,
            size: None,
            screen,
            close: None,
            closed: None,
        };
        Self { task, host, state: Mutex::new(state), changed: watch::channel(0).0, stream }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self) {
        self.changed.send_modify(|count| *count = count.wrapping_add(1));
        self.stream.notify_one();
    }

    /// What the host sends. Blocks: it is recorded first.
    pub(super) fn output(&self, output: &ShellOutput) {
        let mut state = self.state();
        state.hidden = output.hidden;
        state.joined = true;
        state.taken = output.taken.clamp(state.taken, state.sent);
        let known = state.total.saturating_sub(output.offset);
        let new = output.data.get(usize::try_from(known).unwrap_or(usize::MAX)..);
        if let Some(new) = new.filter(|new| !new.is_empty()) {
            let lost = output.offset.saturating_sub(state.total);
            let recorded = match lost {
                0 => Ok(()),
                lost => state.recording.mark(&format!("{lost} bytes are missing here")),
            };
            match recorded.and_then(|()| state.recording.output(new)) {
                Ok(()) => {
                    state.replay.extend(new);
                    let over = state.replay.len().saturating_sub(REPLAY);
                    state.replay.drain(..over);
                    state.total += lost + new.len() as u64;
                }
                Err(error) => {
                    self.failed(&mut state, &error);
                    // It is lost; the host is to go on to the end.
                    state.replay.clear();
                    state.total += lost + new.len() as u64;
                }
            }
            if state.pen.is_none() {
                state.read = state.total;
            }
        }
        if output.closed {
            state.closed.get_or_insert_with(|| output.why.chars().take(1000).collect());
        }
        drop(state);
        self.tell();
    }

    /// It is over, whatever the host has shown.
    pub(super) fn end(&self, how: &str) {
        self.state().closed.get_or_insert_with(|| how.to_owned());
        self.tell();
    }

    fn failed(&self, state: &mut State, error: &io::Error) {
        if state.close.is_none() {
            tracing::error!(task = %self.task, %error, "a shell is closed: it cannot be recorded");
            state.close = Some(false);
        }
    }

    /// A new stream of the host: what was on its way is lost, and where it stands is told again.
    pub(super) fn rejoin(&self) {
        let mut state = self.state();
        state.taken = state.sent;
        state.joined = false;
        state.told = state.told.saturating_sub(1);
        state.close = state.close.map(|_| false);
        drop(state);
        self.tell();
    }

    /// The next message for the host.
    pub(super) fn next(&self) -> Option<ShellInput> {
        let mut state = self.state();
        if !state.joined {
            return None;
        }
        let taken = if state.pen.is_some() { state.read } else { state.total };
        let window = SHELL_WINDOW.saturating_sub(state.sent.saturating_sub(state.taken));
        let part = SHELL_PART.min(usize::try_from(window).unwrap_or(0)).min(state.typed.len());
        let close = state.close == Some(false);
        if part == 0 && taken <= state.told && state.size.is_none() && !close {
            return None;
        }
        let data: Vec<u8> = state.typed.drain(..part).collect();
        let offset = state.sent;
        state.sent += part as u64;
        state.told = taken;
        if close {
            state.close = Some(true);
        }
        let (columns, rows) = state.size.take().unwrap_or_default();
        Some(ShellInput {
            task: self.task.to_string(),
            data: data.into(),
            columns: columns.into(),
            rows: rows.into(),
            close,
            offset,
            taken,
        })
    }

    /// One more viewer; of those who may type the last one does.
    pub(super) fn join(self: &Arc<Self>, name: &str, types: bool) -> Result<Viewer, &'static str> {
        let mut state = self.state();
        if state.viewers.len() >= MOST_VIEWERS {
            return Err("too many look at this shell already");
        }
        state.numbers += 1;
        let number = state.numbers;
        state.viewers.push((number, name.to_owned()));
        // What comes until this is shown must still find room behind it.
        let replayed = state.replay.len().min(REPLAY - WINDOW);
        let at = state.total - replayed as u64;
        if types {
            state.pen = Some(number);
        }
        drop(state);
        let viewer = Viewer {
            live: Arc::clone(self),
            number,
            at,
            writes: None,
            people: Vec::new(),
            screen: (0, 0),
            changed: self.changed.subscribe(),
        };
        self.tell();
        Ok(viewer)
    }
}

impl Viewer {
    /// Returns what is new. Safe to drop and call again.
    pub async fn next(&mut self) -> Shown {
        loop {
            self.changed.mark_unchanged();
            if let Some(shown) = self.look() {
                return shown;
            }
            if self.changed.changed().await.is_err() {
                return Shown::Closed("the manager is ending".to_owned());
            }
        }
    }

    fn look(&mut self) -> Option<Shown> {
        let mut state = self.live.state();
        let writes = state.pen == Some(self.number);
        if self.writes != Some(writes) {
            self.writes = Some(writes);
            return Some(Shown::Writes(writes));
        }
        let people = state.people();
        if self.people != people {
            self.people.clone_from(&people);
            return Some(Shown::People(people));
        }
        if self.screen != state.screen {
            self.screen = state.screen;
            return Some(Shown::Size(self.screen.0, self.screen.1));
        }
        // What it has got by now was shown.
        if writes && self.at > state.read {
            state.read = self.at;
            self.live.stream.notify_one();
        }
        let begin = state.total - state.replay.len() as u64;
        self.at = self.at.max(begin);
        if self.at < state.total {
            let from = usize::try_from(self.at - begin).unwrap_or(usize::MAX);
            let part: Vec<u8> = state.replay.iter().skip(from).take(SHELL_PART).copied().collect();
            self.at += part.len() as u64;
            return Some(Shown::Output(part));
        }
        state.closed.clone().map(Shown::Closed)
    }

    /// What types for this viewer, beside what it reads.
    #[must_use]
    pub fn pen(&self) -> Pen {
        Pen { live: Arc::clone(&self.live), number: self.number }
    }
}

impl Pen {
    /// Types, once there is room. False when it is not this one's to type.
    pub async fn write(&self, bytes: &[u8]) -> bool {
        let mut changed = self.live.changed.subscribe();
        for part in bytes.chunks(SHELL_PART) {
            loop {
                changed.mark_unchanged();
                match self.try_write(part).await {
                    Some(true) => break,
                    Some(false) => return false,
                    None => {}
                }
                if changed.changed().await.is_err() {
                    return false;
                }
            }
        }
        true
    }

    /// Nothing while there is no room.
    async fn try_write(&self, part: &[u8]) -> Option<bool> {
        let (live, number, part) = (Arc::clone(&self.live), self.number, part.to_vec());
        // The disk may be slow.
        let written = tokio::task::spawn_blocking(move || {
            let mut state = live.state();
            if state.pen != Some(number) || state.closed.is_some() || state.close.is_some() {
                return Some(false);
            }
            let waiting = state.typed.len() as u64 + (state.sent - state.taken);
            if waiting + part.len() as u64 > SHELL_WINDOW {
                return None;
            }
            let hidden = state.hidden;
            if let Err(error) = state.recording.input(&part, hidden) {
                live.failed(&mut state, &error);
                drop(state);
                live.tell();
                return Some(false);
            }
            state.typed.extend(part);
            drop(state);
            live.tell();
            Some(true)
        });
        written.await.unwrap_or(Some(false))
    }

    /// The terminal has another size. False when it is not this one's to say.
    pub fn resize(&self, columns: u16, rows: u16) -> bool {
        if columns == 0 || rows == 0 {
            return false;
        }
        let mut state = self.live.state();
        if state.pen != Some(self.number) {
            return false;
        }
        if let Err(error) = state.recording.size((columns, rows)) {
            self.live.failed(&mut state, &error);
        }
        state.size = Some((columns, rows));
        state.screen = (columns, rows);
        drop(state);
        self.live.tell();
        true
    }
}

impl Drop for Viewer {
    fn drop(&mut self) {
        let mut state = self.live.state();
        state.viewers.retain(|(number, _)| *number != self.number);
        if state.pen == Some(self.number) {
            state.pen = None;
            // Nobody holds the terminal up any more.
            state.read = state.total;
        }
        drop(state);
        self.live.tell();
    }
}
