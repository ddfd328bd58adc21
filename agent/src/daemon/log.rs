//! The agent's own log: to journald under systemd, else to standard error.
//!
//! INVARIANT: nobody waits for a reader of standard error. Lines go through a bounded queue to a
//! thread of their own; what does not fit is counted and told when there is room again.

use std::io::{IsTerminal, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// Lines that may wait to be written.
const LINES: usize = 1024;

/// Starts the log. `HOLDFAST_LOG` chooses what is in it (`info` by default).
///
/// # Errors
/// When its thread cannot be started.
pub fn start() -> std::io::Result<()> {
    let filter = tracing_subscriber::EnvFilter::try_from_env("HOLDFAST_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    let registry = tracing_subscriber::registry().with(filter);
    if let Some(journald) =
        std::env::var_os("JOURNAL_STREAM").and_then(|_| tracing_journald::layer().ok())
    {
        registry.with(journald).init();
        return Ok(());
    }
    let (lines, written) = sync_channel(LINES);
    let lost = Arc::new(AtomicU64::new(0));
    let told = Arc::clone(&lost);
    std::thread::Builder::new().name("log".to_owned()).spawn(move || write(&written, &told))?;
    let plain = tracing_subscriber::fmt::layer()
        .with_target(false)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(move || Line {
            text: Vec::with_capacity(256),
            lines: lines.clone(),
            lost: Arc::clone(&lost),
        });
    registry.with(plain).init();
    Ok(())
}

fn write(lines: &Receiver<Vec<u8>>, lost: &AtomicU64) {
    while let Ok(line) = lines.recv() {
        put(&line);
        let lost = lost.swap(0, Relaxed);
        if lost > 0 {
            put(format!("holdfastd: {lost} log lines were lost: nobody read them\n").as_bytes());
        }
    }
}

/// Without the standard library's lock: whoever else writes there must not wait for this thread.
fn put(mut line: &[u8]) {
    // Without a reader there is nobody to tell.
    while let Ok(written) = rustix::io::write(std::io::stderr(), line) {
        line = &line[written..];
        if line.is_empty() {
            return;
        }
    }
}

/// One line, sent when it is complete.
struct Line {
    text: Vec<u8>,
    lines: SyncSender<Vec<u8>>,
    lost: Arc<AtomicU64>,
}

impl Write for Line {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.text.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        if self.lines.try_send(std::mem::take(&mut self.text)).is_err() {
            self.lost.fetch_add(1, Relaxed);
        }
    }
}
