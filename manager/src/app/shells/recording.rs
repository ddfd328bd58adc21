//! A shell's recording: an asciicast (version 2), written as it comes.
//!
//! One JSON line for the terminal, then one for each event: `[seconds, "o" | "i" | "r" | "m", text]`.
//! What is no UTF-8 is shown as U+FFFD; a sign that is cut at the end of a part waits for its rest.
//! `ID.part` while the shell is open, `ID.cast` after it, in the folder `shells` of the data folder;
//! the names are the task's id, nothing in them comes from a host.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use uuid::Uuid;

use crate::app::now_ms;

pub(super) const FOLDER: &str = "shells";
/// Bytes of one recording; the shell is closed when it is full.
pub(super) const LARGEST: u64 = 128 << 20;

/// The file of a shell that is open.
pub(super) fn part(data_dir: &Path, task: Uuid) -> PathBuf {
    data_dir.join(FOLDER).join(format!("{task}.part"))
}

/// The file of one that has ended.
pub(super) fn done(data_dir: &Path, task: Uuid) -> PathBuf {
    data_dir.join(FOLDER).join(format!("{task}.cast"))
}

/// A recording that goes on.
#[derive(Debug)]
pub(super) struct Recording {
    file: File,
    size: u64,
    begun_ms: i64,
    /// The beginning of a sign whose rest has not come.
    rest: Vec<u8>,
}

impl Recording {
    /// A new one.
    pub(super) fn begin(path: &Path, title: &str, (columns, rows): (u16, u16)) -> io::Result<Self> {
        let file = OpenOptions::new().append(true).create_new(true).mode(0o600).open(path)?;
        let begun_ms = now_ms();
        let mut recording = Self { file, size: 0, begun_ms, rest: Vec::new() };
        // The field that later knows the milliseconds is our own: readers leave it alone.
        recording.line(&json!({
            "version": 2, "width": columns, "height": rows, "timestamp": begun_ms / 1000,
            "title": title, "holdfast": { "begun_ms": begun_ms },
        }))?;
        Ok(recording)
    }

    /// One that an earlier manager wrote, and what it showed last, at most so many bytes.
    pub(super) fn reopen(path: &Path, most: usize) -> io::Result<(Self, Vec<u8>)> {
        let mut file = OpenOptions::new().read(true).append(true).open(path)?;
        let mut size = file.metadata()?.len();
        let mut head = Vec::new();
        (&file).take(64 << 10).read_to_end(&mut head)?;
        let head: Value = head
            .split(|byte| *byte == b'\n')
            .next()
            .map_or(Value::Null, |line| serde_json::from_slice(line).unwrap_or(Value::Null));
        let begun_ms = head["holdfast"]["begun_ms"].as_i64().unwrap_or_else(now_ms);
        // Escapes are longer than what they stand for.
        let tail = u64::try_from(most).unwrap_or(u64::MAX).saturating_mul(2).max(64 << 10);
        file.seek(SeekFrom::Start(size.saturating_sub(tail)))?;
        let mut text = Vec::new();
        (&file).take(tail).read_to_end(&mut text)?;
        // A line that the manager's end has cut is ended.
        if text.last().is_some_and(|last| *last != b'\n') {
            file.write_all(b"\n")?;
            size += 1;
        }
        let mut shown: Vec<u8> = Vec::new();
        for line in text.split(|byte| *byte == b'\n') {
            let Ok((_, kind, text)) = serde_json::from_slice::<(f64, String, String)>(line) else {
                continue;
            };
            if kind == "o" {
                shown.extend(text.bytes());
            }
        }
        let over = shown.len().saturating_sub(most);
        shown.drain(..over);
        Ok((Self { file, size, begun_ms, rest: Vec::new() }, shown))
    }

    /// What the terminal showed.
    pub(super) fn output(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.rest.extend_from_slice(bytes);
        let bytes = std::mem::take(&mut self.rest);
        let mut text = String::with_capacity(bytes.len());
        for chunk in bytes.utf8_chunks() {
            text.push_str(chunk.valid());
            // Of the last one more may come: it is then shorter than any sign.
            let at_end = bytes.as_ptr_range().end == chunk.invalid().as_ptr_range().end;
            if at_end && chunk.invalid().len() < 4 && is_beginning(chunk.invalid()) {
                self.rest = chunk.invalid().to_vec();
            } else if !chunk.invalid().is_empty() {
                text.push(char::REPLACEMENT_CHARACTER);
            }
        }
        if text.is_empty() { Ok(()) } else { self.event("o", &text) }
    }

    /// What was typed; as stars where the terminal does not show it.
    pub(super) fn input(&mut self, bytes: &[u8], hidden: bool) -> io::Result<()> {
        let text = String::from_utf8_lossy(bytes);
        if hidden {
            let star = |sign: char| if sign.is_control() { sign } else { '*' };
            return self.event("i", &text.chars().map(star).collect::<String>());
        }
        self.event("i", &text)
    }

    pub(super) fn size(&mut self, (columns, rows): (u16, u16)) -> io::Result<()> {
        self.event("r", &format!("{columns}x{rows}"))
    }

    /// Something that is to be seen in the recording.
    pub(super) fn mark(&mut self, text: &str) -> io::Result<()> {
        self.event("m", text)
    }

    fn event(&mut self, kind: &str, text: &str) -> io::Result<()> {
        let passed = now_ms().saturating_sub(self.begun_ms).max(0);
        #[expect(clippy::cast_precision_loss, reason = "a shell is open for hours, not for ages")]
        let seconds = passed as f64 / 1000.0;
        self.line(&json!([seconds, kind, text]))
    }

    fn line(&mut self, line: &Value) -> io::Result<()> {
        let mut text = line.to_string();
        text.push('\n');
        if self.size + text.len() as u64 > LARGEST {
            return Err(io::Error::other("the recording is full"));
        }
        self.file.write_all(text.as_bytes())?;
        self.size += text.len() as u64;
        Ok(())
    }
}

/// Whether these bytes begin a sign of UTF-8 whose rest is missing.
fn is_beginning(bytes: &[u8]) -> bool {
    let needed = match bytes.first() {
        Some(0xc2..=0xdf) => 2,
        Some(0xe0..=0xef) => 3,
        Some(0xf0..=0xf4) => 4,
        Some(_) | None => return false,
    };
    bytes.len() < needed
}

/// Bytes of all recordings.
pub(super) fn folder_size(data_dir: &Path) -> io::Result<u64> {
    let mut sum = 0;
    for entry in fs::read_dir(data_dir.join(FOLDER))? {
        sum += entry?.metadata()?.len();
    }
    Ok(sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn events(path: &Path) -> Vec<(String, String)> {
        let text = fs::read_to_string(path).expect("read");
        let lines = text.lines().skip(1);
        let event = |line| serde_json::from_str::<(f64, String, String)>(line).expect(line);
        lines
            .map(|line| {
                let (_, kind, text) = event(line);
                (kind, text)
            })
            .collect()
    }

    #[test]
    fn what_is_cut_is_put_together_and_what_is_garbage_stays_one_line() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("x.part");
        let mut recording =
            Recording::begin(&path, "a\u{1b}]0;x\u{7}\nb", (80, 24)).expect("begin");
        let euro = "€".as_bytes();
        recording.output(&[b"a", &euro[..1]].concat()).expect("first");
        recording.output(&euro[1..]).expect("rest");
        recording.output(b"\xff\x1b[2J\n\xc3").expect("garbage");
        recording.output(b"b").expect("not its rest");
        recording.input(b"secret\r", true).expect("hidden");
        recording.size((100, 40)).expect("size");
        let shown = |text: &str| ("o".to_owned(), text.to_owned());
        assert_eq!(
            events(&path),
            [
                shown("a"),
                shown("€"),
                shown("\u{fffd}\u{1b}[2J\n"),
                shown("\u{fffd}b"),
                ("i".to_owned(), "******\r".to_owned()),
                ("r".to_owned(), "100x40".to_owned()),
            ]
        );
        let raw = fs::read(&path).expect("read");
        assert!(!raw.contains(&0x1b), "escapes are escaped");
        // An earlier manager died in the middle of a line.
        fs::OpenOptions::new()
            .append(true)
            .open(&path)
            .expect("open")
            .write_all(b"[1,")
            .expect("cut");
        let (mut again, shown) = Recording::reopen(&path, 5).expect("reopen");
        assert_eq!(shown, b"\n\xef\xbf\xbdb");
        again.mark("here").expect("mark");
        let last = fs::read_to_string(&path).expect("read");
        assert!(last.ends_with("\"m\",\"here\"]\n") && last.contains("[1,\n"), "{last}");
    }
}
