//! Standard output: tables that fit the terminal, colours only where they are wanted, and a
//! closed pipe that is no error.

use std::io::{self, IsTerminal, Write};

use serde::Serialize;

use super::text;

/// Where a command prints.
pub(super) struct Out {
    to: Box<dyn Write>,
    /// Print JSON.
    pub(super) json: bool,
    colour: bool,
    width: Option<u16>,
}

/// What a piece of text means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tone {
    Good,
    Bad,
}

impl Out {
    pub(super) fn stdout(json: bool) -> Self {
        let stdout = io::stdout();
        let terminal = stdout.is_terminal();
        let unwanted = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
            || std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        let width = rustix::termios::tcgetwinsize(&stdout).ok().map(|size| size.ws_col);
        Self {
            to: Box::new(stdout.lock()),
            json,
            colour: terminal && !unwanted,
            width: width.filter(|width| terminal && *width > 0),
        }
    }

    /// Prints one line for people; it must be made of [`text::safe`] parts.
    pub(super) fn line(&mut self, line: &str) -> io::Result<()> {
        writeln!(self.to, "{line}")
    }

    /// Prints one JSON line.
    pub(super) fn json(&mut self, value: &impl Serialize) -> io::Result<()> {
        let line = text::json_line(value)?;
        writeln!(self.to, "{line}")?;
        self.to.flush()
    }

    /// Prints rows under a header; each cell is made safe here.
    pub(super) fn table(&mut self, header: &[&str], rows: &[Vec<String>]) -> io::Result<()> {
        let table = text::table(header, rows, self.width);
        self.line(&table)
    }

    /// Colours a text that was made safe.
    pub(super) fn paint(&self, tone: Tone, text: &str) -> String {
        if !self.colour {
            return text.to_owned();
        }
        let code = match tone {
            Tone::Good => 32,
            Tone::Bad => 31,
        };
        format!("\x1b[{code}m{text}\x1b[0m")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_are_only_where_they_are_wanted() {
        let mut out = Out { to: Box::new(io::sink()), json: false, colour: false, width: None };
        assert_eq!(out.paint(Tone::Bad, "red"), "red");
        out.colour = true;
        assert_eq!(out.paint(Tone::Bad, "red"), "\x1b[31mred\x1b[0m");
    }
}
