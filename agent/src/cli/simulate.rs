//! `holdfast simulate`: lists and runs the harmless simulations; they are this process's own
//! acts, so the agent sees them as it would see anybody's.

use super::arguments::Simulate;
use super::text::safe;
use super::{CliError, Session};
use crate::detect::simulate;

pub(super) fn simulate(session: &mut Session, command: Simulate) -> Result<u8, CliError> {
    match command {
        Simulate::List => list(session),
        Simulate::Run { name } => run(session, &name),
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

fn run(session: &mut Session, name: &str) -> Result<u8, CliError> {
    if !simulate::list().iter().any(|one| one.name == name) {
        let known: Vec<_> = simulate::list().iter().map(|one| one.name).collect();
        let known = known.join(", ");
        return Err(CliError::Usage(format!("there is no simulation {name:?}, only {known}")));
    }
    let done = simulate::run(name).map_err(|error| CliError::Failed(format!("{name}: {error}")))?;
    if session.out.json {
        session.out.json(&serde_json::json!({ "name": name, "done": done }))?;
    } else {
        session.out.line(&safe(&done))?;
    }
    Ok(0)
}
