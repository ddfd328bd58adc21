//! `holdfast status`, `doctor`, `models` and `bundle`: what the agent says of itself.

use holdfast_common::control::{ModelState, ProofState, Reply, Request, StatusReport};

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
        let now = jiff::Timestamp::now().as_millisecond();
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
    facts.push((
        "journal",
        format!("{} events, {} dropped", report.journal_events, report.journal_dropped),
    ));
    facts
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

/// Prints all models.
pub(super) fn models(session: &mut Session) -> Result<u8, CliError> {
    let models = ask_models(session)?;
    if session.out.json {
        for model in &models {
            session.out.json(model)?;
        }
        return Ok(0);
    }
    let rows: Vec<_> = models
        .iter()
        .map(|model| {
            let fires = if model.can_fire {
                "yes".into()
            } else {
                format!("NO: {}", model.why_not.as_deref().unwrap_or("no reason given"))
            };
            vec![
                model.title.clone(),
                if model.enabled { "on" } else { "OFF" }.into(),
                model.level.clone(),
                model.attack.join(" "),
                fires,
                model.fired.to_string(),
                model.last_fired_ms.map(local_time).unwrap_or_default(),
                model.id.to_string(),
            ]
        })
        .collect();
    let header = ["MODEL", "STATE", "LEVEL", "ATT&CK", "CAN FIRE", "FIRED", "LAST", "ID"];
    session.out.table(&header, &rows)?;
    Ok(0)
}

fn ask_models(session: &Session) -> Result<Vec<ModelState>, CliError> {
    let model = |reply| match reply {
        Reply::Model(model) => Ok(model),
        reply => Err(unexpected(&reply)),
    };
    session.all(&Request::ModelList)?.into_iter().map(model).collect()
}

/// Switches one model.
pub(super) fn switch_model(
    session: &mut Session,
    wanted: &str,
    enabled: bool,
) -> Result<u8, CliError> {
    let models = ask_models(session)?;
    let model = find_model(&models, wanted)?.id.to_string();
    for reply in session.all(&Request::ModelSwitch { model, enabled })? {
        let Reply::Model(model) = reply else { return Err(unexpected(&reply)) };
        if session.out.json {
            session.out.json(&model)?;
        } else {
            let state = if model.enabled { "on" } else { "off" };
            session.out.line(&format!("{}: {state}", safe(&model.title)))?;
        }
    }
    Ok(0)
}

/// By id, title, or a beginning of the id that fits one model alone.
fn find_model<'a>(models: &'a [ModelState], wanted: &str) -> Result<&'a ModelState, CliError> {
    let exact = models.iter().find(|model| {
        model.title.eq_ignore_ascii_case(wanted)
            || model.id.to_string().eq_ignore_ascii_case(wanted)
    });
    if let Some(model) = exact {
        return Ok(model);
    }
    let prefix = wanted.to_ascii_lowercase();
    let mut fitting = models
        .iter()
        .filter(|model| !prefix.is_empty() && model.id.to_string().starts_with(&prefix));
    match (fitting.next(), fitting.next()) {
        (Some(model), None) => Ok(model),
        (None, _) => Err(CliError::Failed(format!("there is no model {wanted:?}"))),
        (Some(_), Some(_)) => {
            Err(CliError::Failed(format!("{wanted:?} fits several models; give more of the id")))
        }
    }
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
