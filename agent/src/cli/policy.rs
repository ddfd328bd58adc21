//! `holdfast policy`: which policy of the manager's runs here, and what it sets.

use holdfast_common::control::{Reply, Request};
use holdfast_common::ruled::PolicyState;

use super::out::Tone;
use super::text::{local_time, safe};
use super::{CliError, Session, unexpected};

/// Prints it. Exits 1 when one was refused or is not wholly in force.
pub(super) fn policy(session: &mut Session, document: bool) -> Result<u8, CliError> {
    let mut code = 1;
    for reply in session.all(&Request::Policy)? {
        let Reply::Policy(report) = reply else { return Err(unexpected(&reply)) };
        let state = &report.state;
        code = u8::from(state.refused.is_some() || state.problem.is_some());
        let out = &mut session.out;
        if out.json {
            out.json(&report)?;
            continue;
        }
        if document {
            let text = report.document.as_deref().unwrap_or_default();
            // Line by line: nothing in it is an order to the terminal.
            text.lines().try_for_each(|line| out.line(&safe(line)))?;
            continue;
        }
        out.line(&safe(&in_a_line(state)))?;
        if let Some(refused) = &state.refused {
            let text = format!(
                "REFUSED  {} version {}, {}: {}",
                refused.name,
                refused.version,
                local_time(refused.time_ms),
                refused.why
            );
            let text = out.paint(Tone::Bad, &safe(&text));
            out.line(&text)?;
        }
        if let Some(problem) = &state.problem {
            let text = out.paint(Tone::Bad, &safe(&format!("PROBLEM  {problem}")));
            out.line(&text)?;
        }
        let running = state.running.iter();
        for warning in running.clone().flat_map(|running| &running.warnings) {
            let text = out.paint(Tone::Bad, &safe(&format!("WARNING  {warning}")));
            out.line(&text)?;
        }
        for key in running.flat_map(|running| &running.kept) {
            out.line(&safe(&format!("kept by this host's config: {key}")))?;
        }
        out.line("")?;
        let rows: Vec<_> = report
            .settings
            .iter()
            .map(|row| {
                let from = if row.by_policy { "policy" } else { "this host" };
                vec![row.key.clone(), row.value.clone(), from.to_owned()]
            })
            .collect();
        out.table(&["SETTING", "VALUE", "FROM"], &rows)?;
    }
    Ok(code)
}

/// What runs.
pub(super) fn in_a_line(state: &PolicyState) -> String {
    match &state.running {
        _ if !state.accepts => "none: this host's config accepts none".to_owned(),
        None => "none; this host's own config".to_owned(),
        Some(running) => {
            let warned = match running.warnings.len() {
                0 => String::new(),
                count => format!("; {count} WARNINGS (holdfast policy)"),
            };
            let since = local_time(running.since_ms);
            format!("{} version {} since {since}{warned}", running.name, running.version)
        }
    }
}
