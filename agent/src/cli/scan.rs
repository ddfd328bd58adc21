//! `holdfast scan`: the agent scans, this shows how far it is and what it found.

use std::io::{self, IsTerminal};
use std::path::PathBuf;
use std::time::Duration;

use holdfast_common::control::{Reply, Request, ScanProgress};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressFinish};

use super::out::Tone;
use super::text::{safe, size};
use super::{CliError, Session, unexpected};

/// Exit code when something was found.
const FOUND: u8 = 1;
/// Exit code when files could not be scanned (and nothing was found), or the scan failed.
pub(super) const ERROR: u8 = 2;

pub(super) fn scan(session: &mut Session, paths: &[PathBuf]) -> Result<u8, CliError> {
    let request = Request::Scan { paths: absolute(paths)? };
    let mut client = session.ask(&request)?;
    let progress = if io::stderr().is_terminal() {
        let bar = ProgressBar::new_spinner().with_finish(ProgressFinish::AndClear);
        bar.enable_steady_tick(Duration::from_millis(100));
        bar
    } else {
        ProgressBar::with_draw_target(None, ProgressDrawTarget::hidden())
    };
    let mut end = None;
    while let Some(reply) = client.next_reply()? {
        match &reply {
            Reply::ScanProgress(so_far) => progress.set_message(summary(so_far)),
            Reply::ScanDone(total) => end = Some(*total),
            Reply::ScanFound(_) | Reply::ScanFailed { .. } => {}
            _ => return Err(unexpected(&reply)),
        }
        progress.suspend(|| print(session, &reply))?;
    }
    progress.finish_and_clear();
    let Some(total) = end else {
        return Err(CliError::Failed("the scan ended without its numbers".into()));
    };
    if !session.out.json {
        session.out.line(&summary(&total))?;
    }
    Ok(exit_code(&total))
}

fn exit_code(total: &ScanProgress) -> u8 {
    match (total.found, total.failed) {
        (0, 0) => 0,
        (0, _) => ERROR,
        (_, _) => FOUND,
    }
}

fn absolute(paths: &[PathBuf]) -> Result<Vec<PathBuf>, CliError> {
    paths
        .iter()
        .map(|path| {
            std::path::absolute(path)
                .map_err(|error| CliError::Usage(format!("{}: {error}", path.display())))
        })
        .collect()
}

fn print(session: &mut Session, reply: &Reply) -> Result<(), CliError> {
    let out = &mut session.out;
    if out.json {
        if !matches!(reply, Reply::ScanProgress(_)) {
            out.json(reply)?;
        }
        return Ok(());
    }
    match reply {
        Reply::ScanFound(detection) => {
            let found = out.paint(Tone::Bad, "FOUND ");
            let (path, name) = (safe(&detection.path), safe(&detection.signature.name));
            out.line(&format!(
                "{found} {path}  {name}  {}  sha256 {}",
                super::events::disposition(detection.disposition),
                safe(&detection.hashes.sha256)
            ))?;
        }
        Reply::ScanFailed { path, reason } => {
            out.line(&format!("FAILED {}: {}", safe(path), safe(reason)))?;
        }
        _ => {}
    }
    Ok(())
}

fn summary(numbers: &ScanProgress) -> String {
    format!(
        "{} files, {}: {} found, {} failed, {} skipped",
        numbers.files,
        size(numbers.bytes),
        numbers.found,
        numbers.failed,
        numbers.skipped
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_an_error_only_when_nothing_was_found() {
        let code = |found, failed| exit_code(&ScanProgress { found, failed, ..Default::default() });
        assert_eq!([code(0, 0), code(2, 0), code(2, 3), code(0, 3)], [0, 1, 1, 2]);
    }
}
