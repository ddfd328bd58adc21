//! `holdfast status`, `doctor`, `models` and `bundle`: what the agent says of itself.

use holdfast_common::control::{ManagerState, ProofState, Reply, Request, StatusReport};

use super::out::Tone;
use super::text::{duration, local_time, safe, size};
use super::{CliError, Session, unexpected};

/// Prints the status. Exits 0 when healthy, 1 when not.
pub(super) fn status(session: &mut Session) -> Result<u8, CliError> {
    let mut code = 1;
    for reply in session.all(&Request::Status)? {
        let Reply::Status(report) = reply else { return Err(unexpected(&reply)) };
        code = u8::from(!report.problems.is_empty());
        if session.out.json {
            session.out.json(&report)?;
        } else {
            print_status(session, &report)?;
        }
    }
    Ok(code)
}

fn print_status(session: &mut Session, report: &StatusReport) -> Result<(), CliError> {
    let out = &mut session.out;
    if report.problems.is_empty() {
        let healthy = out.paint(Tone::Good, "healthy");
        out.line(&healthy)?;
    }
    for problem in &report.problems {
        let problem = out.paint(Tone::Bad, &format!("PROBLEM  {}", safe(problem)));
        out.line(&problem)?;
    }
    out.line(&last_proven(&report.proof))?;
    out.line("")?;
    let facts = facts(report);
    let width = facts.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    for (name, value) in &facts {
        out.line(&format!("{name:width$}  {}", safe(value)))?;
    }
    out.line("")?;
    let rows: Vec<_> = report
        .file_systems
        .iter()
        .map(|system| {
            let protected = if system.protected { "yes" } else { "NO" };
            let reason = system.reason.clone().unwrap_or_default();
            vec![system.mount.clone(), system.fs_type.clone(), protected.into(), reason]
        })
        .collect();
    out.table(&["MOUNT", "TYPE", "PROTECTED", "REASON"], &rows)?;
    out.line("")?;
    let rows: Vec<_> = report
        .sensor
        .iter()
        .map(|sensor| {
            let active = if sensor.active { "yes" } else { "NO" };
            let numbers = [sensor.generated, sensor.delivered, sensor.aggregated, sensor.lost];
            let mut row = vec![sensor.name.clone(), sensor.mechanism.clone(), active.into()];
            row.extend(numbers.map(|number| number.to_string()));
            row.push(sensor.note.clone().unwrap_or_default());
            row
        })
        .collect();
    let header = ["SENSOR", "BY", "ACTIVE", "GENERATED", "DELIVERED", "AGGREGATED", "LOST", "NOTE"];
    Ok(out.table(&header, &rows)?)
}

/// The health of the host in a line.
fn last_proven(proof: &ProofState) -> String {
    if !proof.enabled {
        return "never proven: self-proof is switched off".to_owned();
    }
    let Some(at) = proof.last_proven_ms else { return "not proven yet".to_owned() };
    let ago = |at: i64| {
        let now = crate::now_ms();
        duration(now.saturating_sub(at).max(0).unsigned_abs() / 1000)
    };
    let red: Vec<String> = proof
        .lines
        .iter()
        .filter(|line| !line.ok)
        .map(|line| format!("{} since {}", safe(&line.capability), local_time(line.since_ms)))
        .collect();
    if red.is_empty() {
        format!("last proven {} ago ({} lines)", ago(at), proof.lines.len())
    } else {
        format!("NOT proven: {}; all was proven {} ago", red.join(", "), ago(at))
    }
}

/// Name and value of each line; values are made safe by the caller.
fn facts(report: &StatusReport) -> Vec<(&'static str, String)> {
    let held = &report.on_access;
    let failures = held
        .failures
        .iter()
        .filter(|(_, count)| *count > 0)
        .map(|(reason, count)| format!("{} {count}", reason.name()))
        .collect::<Vec<_>>();
    let bundle = &report.bundle;
    let bundle_name = if bundle.path.is_empty() { "built-in rules" } else { &bundle.path };
    let digest = bundle.digest.get(..12).unwrap_or(&bundle.digest);
    let mut facts = vec![
        (
            "agent",
            format!(
                "{} on {}, pid {}, up {}, mode {}, {} scan workers",
                report.version,
                report.host,
                report.pid,
                duration(report.uptime_s),
                report.mode,
                report.workers
            ),
        ),
        (
            "mount namespaces",
            format!(
                "{} beside our own, {} not seen into, {} coverage events not told",
                held.namespaces, held.namespaces_unseen, held.coverage_untold
            ),
        ),
        (
            "opens held",
            format!(
                "{}: {} allowed, {} denied ({} own, {} cached, {} excluded)",
                held.held, held.allowed, held.denied, held.own, held.cached, held.excluded
            ),
        ),
        (
            "longest held",
            format!(
                "{:.1} ms, {} past the deadline",
                held.longest_held_us as f64 / 1000.0,
                held.past_deadline
            ),
        ),
        (
            "after write",
            format!(
                "{} scanned, {} left to the next open",
                held.closed_scanned, held.closed_skipped
            ),
        ),
        ("no verdict", if failures.is_empty() { "none".into() } else { failures.join(", ") }),
        (
            "rescans",
            format!(
                "{} waiting, {} done, {} dropped",
                held.rescans_waiting, held.rescans_done, held.rescans_dropped
            ),
        ),
        (
            "bundle",
            format!(
                "{bundle_name} {digest}, {} hashes, {} YARA rules, loaded {}",
                bundle.hashes,
                bundle.yara_rules,
                local_time(bundle.loaded_ms)
            ),
        ),
    ];
    if let Some(refused) = &bundle.refused {
        facts.push(("bundle refused", refused.clone()));
    }
    facts.push((
        "quarantine",
        format!("{} files, {}", report.quarantine.items, size(report.quarantine.bytes)),
    ));
    if report.isolated {
        facts.push(("network", "ISOLATED (holdfast isolation status)".to_owned()));
    }
    facts.push(("manager", manager(&report.manager)));
    for shell in &report.shells {
        let mode = if shell.restricted { "restricted, " } else { "" };
        let since = local_time(shell.since_ms);
        let (by, reason, task) = (&shell.by, &shell.reason, shell.task);
        facts.push((
            "REMOTE SHELL",
            format!("{mode}open since {since}, by {by}: {reason} (task {task})"),
        ));
    }
    facts.push(("policy", super::policy::in_a_line(&report.policy)));
    facts.push((
        "journal",
        format!("{} events, {} dropped", report.journal_events, report.journal_dropped),
    ));
    facts
}

/// The link to the manager in a line.
fn manager(state: &ManagerState) -> String {
    if !state.enrolled {
        return "none (holdfast enroll)".to_owned();
    }
    let how = if state.connected { "connected" } else { "NOT connected" };
    let outbox = &state.outbox;
    format!(
        "{} as {}, {how} since {}; {} events wait, {} were given up",
        state.manager,
        state.host,
        local_time(state.since_ms),
        outbox.events,
        outbox.dropped
    )
}

/// Prints what the agent checked. Exits 1 when something is not fine.
pub(super) fn doctor(session: &mut Session) -> Result<u8, CliError> {
    let mut client = session.ask(&Request::Doctor)?;
    let mut code = 0;
    while let Some(reply) = client.next_reply()? {
        let Reply::DoctorLine(line) = reply else { return Err(unexpected(&reply)) };
        code |= u8::from(!line.ok);
        let out = &mut session.out;
        if out.json {
            out.json(&line)?;
            continue;
        }
        let mark =
            if line.ok { out.paint(Tone::Good, "ok  ") } else { out.paint(Tone::Bad, "FAIL") };
        out.line(&format!("{mark}  {}: {}", safe(&line.check), safe(&line.evidence)))?;
        if let Some(advice) = &line.advice {
            out.line(&format!("      -> {}", safe(advice)))?;
        }
    }
    Ok(code)
}

/// Loads the rule bundle again.
pub(super) fn reload(session: &mut Session) -> Result<u8, CliError> {
    session.all(&Request::BundleReload)?;
    if session.out.json {
        session.out.json(&serde_json::json!({ "reloaded": true }))?;
    } else {
        session.out.line("The bundle was loaded.")?;
    }
    Ok(0)
}
