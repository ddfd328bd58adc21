//! `holdfast scans`: the history, what runs, and what comes again.

use holdfast_common::control::{Reply, Request, ScanSteer};
use holdfast_common::scans::{LateFind, ScanRecord, ScanState, ScheduleState};
use uuid::Uuid;

use super::arguments::{Scans, ScansCommand, Schedules};
use super::out::Tone;
use super::scan::summary;
use super::text::{duration, local_time, safe};
use super::{CliError, Session, unexpected};

pub(super) fn scans(session: &mut Session, asked: Scans) -> Result<u8, CliError> {
    let command = asked.command.unwrap_or(ScansCommand::List { limit: 20 });
    let steer = |session: &mut Session, id: &str, steer| {
        let id = resolve(session, id)?;
        print_all(session, &Request::ScanSteer { id, steer })
    };
    match command {
        ScansCommand::List { limit } => list(session, limit),
        ScansCommand::Show { id } => {
            let id = resolve(session, &id)?;
            show(session, id)
        }
        ScansCommand::Pause { id } => steer(session, &id, ScanSteer::Pause),
        ScansCommand::Resume { id } => steer(session, &id, ScanSteer::Resume),
        ScansCommand::Cancel { id } => steer(session, &id, ScanSteer::Cancel),
        ScansCommand::Schedules(Schedules::List) => {
            print_schedules(session, &Request::ScheduleList)
        }
        ScansCommand::Schedules(Schedules::Delete { name }) => {
            session.all(&Request::ScheduleRemove { name })?;
            Ok(0)
        }
    }
}

fn records(session: &Session, request: &Request) -> Result<Vec<ScanRecord>, CliError> {
    let record = |reply| match reply {
        Reply::Scan(record) => Ok(*record),
        reply => Err(unexpected(&reply)),
    };
    session.all(request)?.into_iter().map(record).collect()
}

/// An id, or the beginning of one that fits one scan alone.
fn resolve(session: &Session, text: &str) -> Result<Uuid, CliError> {
    if let Ok(id) = Uuid::try_parse(text) {
        return Ok(id);
    }
    let prefix = text.to_ascii_lowercase();
    if prefix.is_empty() || !prefix.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-') {
        return Err(CliError::Usage(format!("{text:?} is no scan's id")));
    }
    let ids = records(session, &Request::ScanList { limit: 0 })?.into_iter().map(|one| one.scan_id);
    let fitting: Vec<_> = ids.filter(|id| id.to_string().starts_with(&prefix)).collect();
    match fitting.as_slice() {
        [id] => Ok(*id),
        [] => Err(CliError::Failed(format!("no scan's id begins with {text}"))),
        [first, second, ..] => Err(CliError::Failed(format!(
            "{text} fits {} scans, {first} and {second} among them",
            fitting.len()
        ))),
    }
}

fn list(session: &mut Session, limit: u64) -> Result<u8, CliError> {
    let all = records(session, &Request::ScanList { limit })?;
    if session.out.json {
        for record in &all {
            session.out.json(record)?;
        }
        return Ok(0);
    }
    let rows: Vec<_> = all
        .iter()
        .map(|record| {
            let numbers = &record.progress;
            vec![
                record.scan_id.to_string(),
                local_time(record.began_ms.unwrap_or(record.asked_ms)),
                what(record),
                state(record),
                numbers.files.to_string(),
                numbers.found.to_string(),
                numbers.failed.to_string(),
                duration(record.running_ms / 1000),
                record.started_by.clone(),
            ]
        })
        .collect();
    let header = ["ID", "BEGAN", "WHAT", "STATE", "FILES", "FOUND", "FAILED", "RAN", "STARTED BY"];
    session.out.table(&header, &rows)?;
    Ok(0)
}

/// Prints the records that answer a request, one line each.
pub(super) fn print_all(session: &mut Session, request: &Request) -> Result<u8, CliError> {
    for record in records(session, request)? {
        if session.out.json {
            session.out.json(&record)?;
        } else {
            let line = format!("{} {}: {}", record.scan_id, what(&record), state(&record));
            session.out.line(&safe(&line))?;
        }
    }
    Ok(0)
}

fn show(session: &mut Session, id: Uuid) -> Result<u8, CliError> {
    for record in records(session, &Request::ScanShow { id })? {
        if session.out.json {
            session.out.json(&record)?;
            continue;
        }
        for (name, value) in facts(&record) {
            session.out.line(&format!("{name:12}  {}", safe(&value)))?;
        }
        for one in &record.left_out {
            let tone = if one.reason.is_failure() { Tone::Bad } else { Tone::Good };
            let word = if one.reason.is_failure() { "failed" } else { "left out" };
            let reason = one.reason.name().replace('_', " ");
            let text = session.out.paint(tone, &format!("{word}: {reason}, {}", one.count));
            session.out.line(&text)?;
            for example in &one.examples {
                session.out.line(&format!("    {}", safe(example)))?;
            }
        }
        for find in &record.finds {
            let found = session.out.paint(Tone::Bad, "FOUND ");
            let (path, rule) = (safe(&find.path), safe(&find.signature));
            let fate = super::events::disposition(find.disposition);
            session.out.line(&format!("{found} {path}  {rule}  {fate}"))?;
            if let Some(late) = &find.late {
                session.out.line(&format!("       {}", safe(&lain(late))))?;
            }
        }
        let untold = record.progress.found.saturating_sub(record.finds.len() as u64);
        if untold > 0 {
            session.out.line(&format!("and {untold} more: holdfast events --kind malware"))?;
        }
    }
    Ok(0)
}

fn facts(record: &ScanRecord) -> Vec<(&'static str, String)> {
    let mut facts = vec![
        ("scan", record.scan_id.to_string()),
        ("what", what(record)),
        ("state", state(record)),
        ("started by", record.started_by.clone()),
        ("asked", local_time(record.asked_ms)),
    ];
    facts.extend(record.began_ms.map(|time| ("began", local_time(time))));
    facts.extend(record.ended_ms.map(|time| ("ended", local_time(time))));
    facts.push(("ran", duration(record.running_ms / 1000)));
    facts.push(("CPU share", format!("{} percent of one core", record.cpu_share)));
    facts.push(("numbers", summary(&record.progress)));
    facts.extend(record.places.iter().map(|place| ("place", place.clone())));
    facts.extend(Some(("at", record.at.clone())).filter(|(_, at)| !at.is_empty()));
    facts.push(("bundle", record.bundle.clone()));
    facts
}

/// `full`, `quick`, or the first path.
fn what(record: &ScanRecord) -> String {
    use holdfast_common::scans::ScanScope;
    match (record.scope, record.places.as_slice()) {
        (ScanScope::Paths, [one]) => one.clone(),
        (ScanScope::Paths, [one, rest @ ..]) => format!("{one} and {} more", rest.len()),
        (ScanScope::Quick | ScanScope::Full | ScanScope::Paths, _) => record.scope.name().into(),
    }
}

fn state(record: &ScanRecord) -> String {
    let word = record.state.name();
    match (&record.estimate, &record.note) {
        (Some(guess), _) if !record.state.is_end() => {
            let left = guess.left_s.map(|left| format!(", about {} left", duration(left)));
            let (percent, basis) = (guess.percent, &guess.basis);
            format!("{word}, {percent}%{} (by {basis})", left.unwrap_or_default())
        }
        (_, Some(note)) => format!("{word}: {note}"),
        (Some(_) | None, None) => word.to_owned(),
    }
}

/// How long a file had lain there, and what that rests on.
pub(super) fn lain(late: &LateFind) -> String {
    let mut text = format!(
        "lay there unchanged for {} (since {}, by {}; who has root can forge it)",
        duration(late.lain_s),
        local_time(late.since_ms),
        late.by.name()
    );
    if let Some(rule) = &late.rule {
        let newer =
            if rule.newer_than_file { "newer than the file" } else { "older than the file" };
        let (name, bundle) = (&rule.name, rule.bundle.get(..12).unwrap_or_default());
        let since = local_time(rule.since_ms);
        text.push_str(&format!("; the rule {name} came with bundle {bundle} of {since}, {newer}"));
    }
    text
}

/// A scan's event in one line.
pub(super) fn told(record: &ScanRecord) -> String {
    let (what, state, by) = (what(record), state(record), &record.started_by);
    match record.state {
        ScanState::Waiting | ScanState::Running | ScanState::Paused => {
            format!("{what} {state}, started by {by}")
        }
        ScanState::Done | ScanState::Cancelled | ScanState::Interrupted | ScanState::Skipped => {
            format!("{what} {state}: {}, started by {by}", summary(&record.progress))
        }
    }
}

/// Prints the schedules that answer a request.
pub(super) fn print_schedules(session: &mut Session, request: &Request) -> Result<u8, CliError> {
    let mut rows = Vec::new();
    for reply in session.all(request)? {
        let Reply::Schedule(schedule) = reply else { return Err(unexpected(&reply)) };
        if session.out.json {
            session.out.json(&schedule)?;
        } else {
            rows.push(row(&schedule));
        }
    }
    if !session.out.json {
        let header = ["NAME", "WHAT", "WHEN", "NEXT", "LAST", "FROM"];
        session.out.table(&header, &rows)?;
    }
    Ok(0)
}

fn row(state: &ScheduleState) -> Vec<String> {
    let schedule = &state.schedule;
    let what = if schedule.paths.is_empty() {
        schedule.scope.name().to_owned()
    } else {
        schedule.paths.join(" ")
    };
    let zone = Some(&schedule.timezone).filter(|zone| *zone != "local");
    let zone = zone.map(|zone| format!(" {zone}")).unwrap_or_default();
    let jitter = Some(schedule.jitter_s).filter(|jitter| *jitter > 0);
    let jitter = jitter.map(|jitter| format!(" + up to {}", duration(jitter.into())));
    let catch_up = if schedule.catch_up { ", catches up" } else { "" };
    let last = match (state.last_ms, &state.last) {
        (Some(time), Some(last)) => format!("{}: {last}", local_time(time)),
        (Some(time), None) => local_time(time),
        (None, Some(last)) => last.clone(),
        (None, None) => "never".to_owned(),
    };
    vec![
        schedule.name.clone(),
        what,
        format!("{}{zone}{}{catch_up}", schedule.when, jitter.unwrap_or_default()),
        state.next_ms.map_or_else(|| "never again".to_owned(), local_time),
        last,
        state.origin.clone(),
    ]
}
