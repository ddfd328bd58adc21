//! `holdfast scan`: the agent scans, this shows how far it is and what it found.

use std::io::{self, IsTerminal};
use std::path::PathBuf;
use std::time::Duration;

use holdfast_common::control::{Reply, Request, ScanProgress};
use holdfast_common::scans::{ScanOrder, ScanSchedule, ScanScope};
use holdfast_common::schedule::{check_schedule, parse_jitter};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressFinish};

use super::arguments::Scan;
use super::out::Tone;
use super::text::{safe, size};
use super::{CliError, Session, unexpected};

/// Exit code when something was found.
const FOUND: u8 = 1;
/// Exit code when files could not be scanned (and nothing was found), or the scan failed.
pub(super) const ERROR: u8 = 2;

pub(super) fn scan(session: &mut Session, asked: &Scan) -> Result<u8, CliError> {
    let paths = absolute(&asked.paths)?;
    let scope = match (asked.quick, asked.full) {
        (true, _) => ScanScope::Quick,
        (false, true) => ScanScope::Full,
        (false, false) => ScanScope::Paths,
    };
    if let Some(when) = &asked.schedule {
        return schedule(session, asked, scope, paths, when);
    }
    let cpu_share = asked.cpu_share;
    let request = if scope == ScanScope::Paths && !asked.background && cpu_share.is_none() {
        Request::Scan { paths }
    } else {
        let order = ScanOrder { scope, paths, started_by: who_asks(), cpu_share };
        Request::ScanStart { order, follow: !asked.background }
    };
    if asked.background {
        return super::scans::print_all(session, &request);
    }
    attend(session, &request)
}

/// Adds a schedule.
fn schedule(
    session: &mut Session,
    asked: &Scan,
    scope: ScanScope,
    paths: Vec<PathBuf>,
    when: &str,
) -> Result<u8, CliError> {
    let jitter = asked.jitter.as_deref().map(|text| {
        parse_jitter(text).ok_or_else(|| {
            CliError::Usage(format!("{text:?} is no jitter: 90s, 30m or 2h, 12h at most"))
        })
    });
    let schedule = ScanSchedule {
        name: asked.name.clone().unwrap_or_else(|| scope.name().to_owned()),
        scope,
        paths,
        when: when.to_owned(),
        jitter_s: jitter.transpose()?.unwrap_or(0),
        catch_up: asked.catch_up,
        cpu_share: asked.cpu_share,
        timezone: asked.timezone.clone(),
    };
    check_schedule(&schedule).map_err(|error| CliError::Usage(error.to_string()))?;
    super::scans::print_schedules(session, &Request::ScheduleAdd { schedule })
}

/// For the history: root, and who became root by sudo. Nobody else is let in.
fn who_asks() -> String {
    match std::env::var("SUDO_USER") {
        Ok(user) if !user.is_empty() => format!("{user} (sudo) on this host"),
        Ok(_) | Err(_) => "root on this host".to_owned(),
    }
}

/// Waits for a scan, showing how it goes.
fn attend(session: &mut Session, request: &Request) -> Result<u8, CliError> {
    let mut client = session.ask(request)?;
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
            Reply::ScanFound(_) | Reply::ScanFailed { .. } | Reply::Scan(_) => {}
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
            if let Some(late) = &detection.late {
                out.line(&format!("       {}", safe(&super::scans::lain(late))))?;
            }
        }
        Reply::ScanFailed { path, reason } => {
            out.line(&format!("FAILED {}: {}", safe(path), safe(reason)))?;
        }
        _ => {}
    }
    Ok(())
}

pub(super) fn summary(numbers: &ScanProgress) -> String {
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
