//! The agent: `holdfastd`, its scan workers and the CLI.
//!
//! Follow an `open()` by reading, in this order: [`sys::fanotify`] (the kernel's event),
//! [`on_access`] (hold, scan, decide, answer), [`scan`] (the worker pool), [`worker`] (the caged
//! process), [`respond`] (quarantine and report), [`journal`] (the line that stays).
//! [`daemon`] is the one place that knows all parts.

pub mod cli;
pub mod config;
pub mod control;
pub mod daemon;
pub mod detect;
mod durable;
pub mod guard;
pub mod isolate;
pub mod journal;
pub mod on_access;
pub mod policy;
pub mod prove;
pub mod quarantine;
pub mod report;
pub mod respond;
pub mod scan;
pub mod sensor;
pub mod shell;
pub mod sweep;
pub mod sys;
pub mod worker;

/// Milliseconds since the epoch, by the wall clock.
pub(crate) fn now_ms() -> i64 {
    jiff::Timestamp::now().as_millisecond()
}

/// [`error_chain`] of what the kernel's verifier said, cut: its log may have a megabyte, and the
/// end of it tells why.
pub(crate) fn verifier_chain(error: &dyn std::error::Error) -> String {
    const MOST: usize = 2000;
    let text = error_chain(error);
    let start = text.len().saturating_sub(MOST);
    let start = (start..text.len()).find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    text[start..].replace('\n', " | ")
}

/// An error and all its causes in one line, for the one place that logs or shows it.
#[must_use]
pub fn error_chain(error: &dyn std::error::Error) -> String {
    let mut line = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        line.push_str(": ");
        line.push_str(&error.to_string());
        cause = error.source();
    }
    line
}
