//! What the restricted shell prints: lines, escaped, so many for a command and no more.

use holdfast_common::process::printable;

use super::{Interrupt, put};

/// Lines and bytes of one command.
const MOST_LINES: usize = 20_000;
const MOST_BYTES: usize = 4 << 20;

/// The terminal, for one command after the other.
pub(super) struct Out<'a> {
    interrupt: &'a Interrupt,
    lines: usize,
    bytes: usize,
    cut: Option<&'static str>,
}

impl<'a> Out<'a> {
    pub(super) const fn new(interrupt: &'a Interrupt) -> Self {
        Self { interrupt, lines: 0, bytes: 0, cut: None }
    }

    /// A new command.
    pub(super) fn begin(&mut self) {
        *self = Self::new(self.interrupt);
    }

    /// Says why there is no more.
    pub(super) fn finish(&mut self) {
        if let Some(why) = self.cut {
            put(format!("({why})\n").as_bytes());
        }
    }

    pub(super) fn prompt(&self, text: &str) {
        put(text.as_bytes());
    }

    /// False when the command is to end: there was too much, or somebody pressed Ctrl-C.
    pub(super) fn goes_on(&mut self) -> bool {
        if self.cut.is_none() && self.interrupt.came() {
            self.cut = Some("interrupted");
        }
        self.cut.is_none()
    }

    /// Our own text, several lines.
    pub(super) fn text(&mut self, text: &str) {
        for line in text.lines() {
            self.line(line);
        }
    }

    /// One line; whatever is no plain text in it is escaped.
    pub(super) fn line(&mut self, line: &str) -> bool {
        self.bytes(line.as_bytes())
    }

    /// The same of bytes.
    pub(super) fn bytes(&mut self, line: &[u8]) -> bool {
        if !self.goes_on() {
            return false;
        }
        let line = shown(line);
        if self.lines >= MOST_LINES || self.bytes + line.len() > MOST_BYTES {
            self.cut = Some("there is more; a command prints no more than this");
            return false;
        }
        self.lines += 1;
        self.bytes += line.len() + 1;
        put(format!("{line}\n").as_bytes());
        true
    }
}

/// Bytes as text that changes nothing on a terminal; tabs are blanks.
pub(super) fn shown(bytes: &[u8]) -> String {
    let parts = bytes.split(|byte| *byte == b'\t');
    parts.map(printable).collect::<Vec<_>>().join("        ")
}
