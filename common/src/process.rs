//! Facts about a process, as they go into events.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// What names a process for ever: a pid is reused, a pid with its start time is not.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
)]
pub struct ProcessKey {
    /// Thread-group id in the initial pid namespace.
    pub pid: u32,
    /// Start time in nanoseconds since boot (`task->start_boottime`), cut to the clock tick that
    /// `/proc/PID/stat` field 22 shows (10 ms), so that both sources agree. 0 when unknown.
    pub start_ns: u64,
}

/// One process. Strings are attacker-controlled; bytes that are not UTF-8 appear as `\xNN`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessInfo {
    /// pid and start time.
    pub key: ProcessKey,
    /// Its parent when it was seen; `None` for pid 1 and kernel threads.
    pub parent: Option<ProcessKey>,
    /// Path of the executable as the kernel names it (`/proc/PID/exe`), empty when unknown.
    pub exe: String,
    /// `comm`, at most 15 bytes.
    pub comm: String,
    /// The argument vector.
    pub args: Vec<String>,
    /// True when the vector was longer than the limit and is cut.
    pub args_truncated: bool,
    /// Real user id.
    pub uid: u32,
    /// Effective user id.
    pub euid: u32,
    /// Login user id (`/proc/PID/loginuid`), `None` when unset.
    pub login_uid: Option<u32>,
    /// Name of `uid` in the host's passwd, the number when it has none.
    pub user: String,
    /// Working directory, empty when unknown.
    pub cwd: String,
    /// Container id taken from the cgroup path, if any.
    pub container: Option<String>,
    /// Path of its control group (v2, else the systemd or first v1 hierarchy), empty when unknown.
    #[serde(default)]
    pub cgroup: String,
    /// Session id in the initial pid namespace, 0 when unknown.
    #[serde(default)]
    pub session: u32,
    /// Controlling terminal as in `/dev`, e.g. `pts/3`; empty for none.
    #[serde(default)]
    pub tty: String,
    /// The script that `exe` interprets (`#!`), `None` for a program.
    #[serde(default)]
    pub script: Option<String>,
    /// SHA-256 of the executable, from the descriptor that its exec was held by; `None` when the
    /// file system is not protected or the hash is not known yet.
    #[serde(default)]
    pub sha256: Option<String>,
    /// Environment variables that change what a program loads or does, see
    /// [`WATCHED_ENVIRONMENT`], as they were at exec.
    #[serde(default)]
    pub environment: BTreeMap<String, String>,
}

/// Environment variables that exec events carry.
pub const WATCHED_ENVIRONMENT: [&str; 10] = [
    "LD_PRELOAD",
    "LD_LIBRARY_PATH",
    "LD_AUDIT",
    "LD_DEBUG",
    "HISTFILE",
    "HISTSIZE",
    "PROMPT_COMMAND",
    "BASH_ENV",
    "PYTHONPATH",
    "SSH_CONNECTION",
];

impl ProcessInfo {
    /// The arguments as one line for people: quoted only where a shell would need it.
    #[must_use]
    pub fn command_line(&self) -> String {
        let mut line = String::new();
        for argument in &self.args {
            if !line.is_empty() {
                line.push(' ');
            }
            let plain = !argument.is_empty()
                && argument.chars().all(|c| c.is_alphanumeric() || "-_./:=,@%+".contains(c));
            if plain {
                line.push_str(argument);
            } else {
                line.push('\'');
                line.push_str(&argument.replace('\'', r"'\''"));
                line.push('\'');
            }
        }
        line
    }
}

/// Turns bytes that an attacker chose into text: UTF-8 stays, everything else and every control
/// character becomes `\xNN`, so that no event can move a terminal's cursor or break a line.
#[must_use]
pub fn printable(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            if c.is_control() || c == '\\' || is_direction_override(c) {
                let mut buffer = [0; 4];
                for byte in c.encode_utf8(&mut buffer).bytes() {
                    push_hex(&mut text, byte);
                }
            } else {
                text.push(c);
            }
        }
        for byte in chunk.invalid() {
            push_hex(&mut text, *byte);
        }
    }
    text
}

/// The bytes that [`printable`] was given. Text that it did not make comes back as it is.
#[must_use]
pub fn unprintable(text: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, behind)) = rest.split_first() {
        let escaped = match behind {
            [b'x', high, low, ..] if *first == b'\\' => hex_pair(*high, *low),
            _ => None,
        };
        bytes.push(escaped.unwrap_or(*first));
        rest = if escaped.is_some() { &behind[3..] } else { behind };
    }
    bytes
}

fn hex_pair(high: u8, low: u8) -> Option<u8> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    Some(digit(high)? << 4 | digit(low)?)
}

/// Characters that reorder the text around them (Unicode bidirectional controls).
fn is_direction_override(c: char) -> bool {
    matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

fn push_hex(text: &mut String, byte: u8) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    text.push_str("\\x");
    text.push(char::from(DIGITS[usize::from(byte >> 4)]));
    text.push(char::from(DIGITS[usize::from(byte & 15)]));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_bytes_become_printable_text() {
        assert_eq!(printable(b"plain \xc3\xa9.txt"), "plain \u{e9}.txt");
        assert_eq!(printable(b"a\nb\x1b[2J\xff"), r"a\x0ab\x1b[2J\xff");
        assert_eq!(printable("x\u{202e}y".as_bytes()), r"x\xe2\x80\xaey");
        assert_eq!(printable(br"a\x41"), r"a\x5cx41");
        for bytes in [&b"plain \xc3\xa9"[..], b"a\nb\x1b\xff\\x41\\", br"\x", b""] {
            assert_eq!(unprintable(&printable(bytes)), bytes);
        }
    }

    #[test]
    fn command_line_quotes_what_a_shell_would_split() {
        let info = ProcessInfo {
            args: ["sh", "-c", "echo it's", ""].map(String::from).to_vec(),
            ..ProcessInfo::default()
        };
        assert_eq!(info.command_line(), r"sh -c 'echo it'\''s' ''");
    }
}
