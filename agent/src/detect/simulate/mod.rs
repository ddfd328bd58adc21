//! Simulations: each really does what one model looks for, harmlessly, and undoes it.
//!
//! They run in the CLI's process and its children, as the user who calls it, mostly root. Nothing
//! outlives the call, not even when it is interrupted: see [`stage`].

mod acts;
mod stage;

use std::path::Path;

use holdfast_common::models::SIMULATIONS;
pub use holdfast_common::models::Simulation;

use self::stage::Stage;

/// Why a simulation did not run.
#[derive(Debug, thiserror::Error)]
pub enum SimulateError {
    /// No simulation has this name.
    #[error("no simulation {0:?}")]
    Unknown(String),
    /// The packet socket was refused.
    #[error("cannot open a packet socket (it needs root or CAP_NET_RAW)")]
    Socket(#[source] nix::Error),
    /// It needs something that this host does not have.
    #[error("this host has no {0}")]
    Missing(String),
    /// Something was refused; what was done so far is undone.
    #[error("cannot {0}")]
    Failed(&'static str, #[source] std::io::Error),
    /// Somebody ended it; what was done is undone.
    #[error("interrupted; what was done is undone")]
    Interrupted,
}

/// What a simulation does.
type Act = fn(&mut Stage) -> Result<String, SimulateError>;

#[rustfmt::skip]
const ACTS: [(&str, Act); 23] = [
    ("network-sniffing", acts::network_sniffing),
    ("credential-files", acts::credential_files),
    ("proc-filesystem", acts::proc_filesystem),
    ("reverse-shell", acts::reverse_shell),
    ("web-shell", acts::web_shell),
    ("cron", acts::cron),
    ("systemd-service", acts::systemd_service),
    ("ssh-authorized-keys", acts::ssh_authorized_keys),
    ("shell-profile", acts::shell_profile),
    ("linker-hijacking", acts::linker_hijacking),
    ("kernel-module", acts::kernel_module),
    ("rootkit", acts::rootkit),
    ("memfd-execution", acts::memfd_execution),
    ("process-injection", acts::process_injection),
    ("setuid", acts::setuid),
    ("clear-logs", acts::clear_logs),
    ("clear-history", acts::clear_history),
    ("disable-tools", acts::disable_tools),
    ("crypto-mining", acts::crypto_mining),
    ("discovery", acts::discovery),
    ("exfiltration", acts::exfiltration),
    ("container-escape", acts::container_escape),
    ("ransomware", acts::ransomware),
];

/// All simulations.
pub fn list() -> &'static [Simulation] {
    &SIMULATIONS
}

/// Runs one, and says what it did.
///
/// # Errors
/// [`SimulateError`] when there is no such simulation, or this user may not do it.
pub fn run(name: &str, folder: &Path) -> Result<String, SimulateError> {
    let known = ACTS.iter().find(|(known, _)| *known == name);
    let (_, act) = known.ok_or_else(|| SimulateError::Unknown(name.to_owned()))?;
    let mut stage = Stage::new(folder)?;
    let done = act(&mut stage)?;
    if stage.interrupted() { Err(SimulateError::Interrupted) } else { Ok(done) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detect::book::Book;

    #[test]
    fn every_shipped_model_has_one_simulation_and_each_names_a_model() {
        assert!(matches!(run("no such", Path::new("/var/tmp")), Err(SimulateError::Unknown(_))));
        let acts: Vec<_> = ACTS.iter().map(|(name, _)| *name).collect();
        let names: Vec<_> = list().iter().map(|one| one.name).collect();
        assert_eq!(acts, names);
        let book = Book::read(None).expect("shipped models");
        assert_eq!(book.refused, []);
        // The agent is its own simulation of that one: see `prove`.
        let models = book.models.iter().filter(|model| model.alone);
        let mut models: Vec<_> = models
            .map(|one| one.title.as_str())
            .filter(|title| *title != crate::prove::MODEL)
            .collect();
        let mut simulated: Vec<_> = list().iter().map(|one| one.model).collect();
        models.sort_unstable();
        simulated.sort_unstable();
        assert_eq!(simulated, models);
        for simulation in list() {
            let number = book.find(simulation.model).expect("model");
            let model = &book.models[number];
            assert!(model.attack.iter().any(|id| id == simulation.attack), "{simulation:?}");
            assert!(!model.advice.is_empty() && model.why_not.is_none(), "{model:?}");
        }
    }
}
