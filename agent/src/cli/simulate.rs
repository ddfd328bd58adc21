//! `holdfast simulate`: lists and runs the harmless simulations; they are this process's own
//! acts and its children's, so the agent sees them as it would see anybody's.

use std::path::Path;

use super::arguments::Simulate;
use super::text::safe;
use super::{CliError, Session};
use crate::detect::simulate::{self, Simulation};

pub(super) fn simulate(session: &mut Session, command: Simulate) -> Result<u8, CliError> {
    match command {
        Simulate::List => list(session),
        Simulate::Run { name, all: _, dry_run, folder } => {
            run(session, name.as_deref(), dry_run, &folder)
        }
    }
}

fn list(session: &mut Session) -> Result<u8, CliError> {
    if session.out.json {
        for one in simulate::list() {
            session.out.json(&serde_json::json!({
                "name": one.name, "model": one.model, "attack": one.attack, "what": one.what,
            }))?;
        }
        return Ok(0);
    }
    let rows: Vec<_> = simulate::list()
        .iter()
        .map(|one| [one.name, one.model, one.attack, one.what].map(String::from).to_vec())
        .collect();
    session.out.table(&["NAME", "MODEL", "ATT&CK", "WHAT IT DOES"], &rows)?;
    Ok(0)
}

/// Without a name, all.
fn run(
    session: &mut Session,
    name: Option<&str>,
    dry_run: bool,
    folder: &Path,
) -> Result<u8, CliError> {
    let chosen: Vec<&Simulation> =
        simulate::list().iter().filter(|one| name.is_none_or(|name| one.name == name)).collect();
    if let (Some(name), true) = (name, chosen.is_empty()) {
        let known: Vec<_> = simulate::list().iter().map(|one| one.name).collect();
        let known = known.join(", ");
        return Err(CliError::Usage(format!("there is no simulation {name:?}, only {known}")));
    }
    let mut failures = 0;
    for one in &chosen {
        if dry_run {
            say(session, one, "would", one.what)?;
            continue;
        }
        match simulate::run(one.name, folder) {
            Ok(done) => say(session, one, "done", &done)?,
            Err(error) if chosen.len() == 1 => {
                let why = crate::error_chain(&error);
                return Err(CliError::Failed(format!("{}: {why}", one.name)));
            }
            Err(error @ simulate::SimulateError::Interrupted) => {
                return Err(CliError::Failed(format!("{}: {error}", one.name)));
            }
            Err(error) => {
                failures += 1;
                say(session, one, "failed", &crate::error_chain(&error))?;
            }
        }
    }
    Ok(u8::from(failures > 0))
}

fn say(session: &mut Session, one: &Simulation, how: &str, what: &str) -> Result<(), CliError> {
    if session.out.json {
        session.out.json(&serde_json::json!({ "name": one.name, how: what }))?;
    } else {
        session.out.line(&format!("{}: {how}: {}", one.name, safe(what)))?;
    }
    Ok(())
}
