//! Simulations: each really does what one model looks for, harmlessly, and undoes it.
//!
//! They run in the CLI's process and its children, as the user who calls it, mostly root. Nothing
//! outlives the call, not even when it is interrupted: see [`stage`].

mod acts;
mod stage;

use std::path::Path;

use self::stage::Stage;

/// One simulation.
#[derive(Debug, Clone, Copy)]
pub struct Simulation {
    /// What `holdfast simulate run` takes.
    pub name: &'static str,
    /// Title of the model that it proves.
    pub model: &'static str,
    /// ATT&CK technique.
    pub attack: &'static str,
    /// What it does, in words.
    pub what: &'static str,
    act: fn(&mut Stage) -> Result<String, SimulateError>,
}

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

const fn row(
    name: &'static str,
    model: &'static str,
    attack: &'static str,
    what: &'static str,
    act: fn(&mut Stage) -> Result<String, SimulateError>,
) -> Simulation {
    Simulation { name, model, attack, what, act }
}

#[rustfmt::skip]
const SIMULATIONS: [Simulation; 23] = [
    row("network-sniffing", "Network Sniffing", "T1040",
        "opens a packet socket for every protocol, reads nothing from it, and closes it after six \
         seconds", acts::network_sniffing),
    row("credential-files", "/etc/passwd and /etc/shadow", "T1003.008",
        "has head(1) read the first byte of /etc/shadow and throws it away",
        acts::credential_files),
    row("proc-filesystem", "Proc Filesystem", "T1003.007",
        "has head(1) read the first byte of this command's own environment in /proc",
        acts::proc_filesystem),
    row("reverse-shell", "Unix Shell", "T1059.004",
        "has bash connect to 127.0.0.2, where this command listens, and hang up",
        acts::reverse_shell),
    row("web-shell", "Web Shell", "T1505.003",
        "has a copy of sh under the name nginx run id and whoami", acts::web_shell),
    row("cron", "Cron", "T1053.003",
        "writes a comment to a new file in /etc/cron.d, removes it after a second", acts::cron),
    row("systemd-service", "Systemd Service", "T1543.002",
        "writes a comment to a new unit in /etc/systemd/system, removes it after a second; systemd \
         is not told", acts::systemd_service),
    row("ssh-authorized-keys", "SSH Authorized Keys", "T1098.004",
        "writes a comment to /root/.ssh/authorized_keys2 if there is no such file, removes it \
         after a second", acts::ssh_authorized_keys),
    row("shell-profile", "Unix Shell Configuration Modification", "T1546.004",
        "writes a comment to a new file in /etc/profile.d, removes it after a second",
        acts::shell_profile),
    row("linker-hijacking", "Dynamic Linker Hijacking", "T1574.006",
        "runs true(1) with LD_PRELOAD naming a file that is not there; writes a comment to a new \
         file in /etc/ld.so.conf.d, removes it after a second", acts::linker_hijacking),
    row("kernel-module", "Kernel Modules and Extensions", "T1547.006",
        "runs a copy of true under the name insmod with the name of a module that is not there",
        acts::kernel_module),
    row("rootkit", "Rootkit", "T1014",
        "loads an eBPF program that returns 0, attaches it to nothing, and lets it go",
        acts::rootkit),
    row("memfd-execution", "Reflective Code Loading", "T1620",
        "runs a copy of true from memory", acts::memfd_execution),
    row("process-injection", "Ptrace System Calls", "T1055.008",
        "writes eight bytes of a child's stack, as they are, and ends the child",
        acts::process_injection),
    row("setuid", "Setuid and Setgid", "T1548.001",
        "runs a copy of true with the set-user-id bit as nobody, removes it", acts::setuid),
    row("clear-logs", "Clear Linux or Mac System Logs", "T1070.002",
        "writes a new file in /var/log and has rm(1) delete it", acts::clear_logs),
    row("clear-history", "Clear Command History", "T1070.003",
        "runs a shell that unsets HISTFILE and ends", acts::clear_history),
    row("disable-tools", "Disable or Modify Tools", "T1562.001",
        "runs a copy of true under the name systemctl: stop holdfast-simulation.service",
        acts::disable_tools),
    row("crypto-mining", "Resource Hijacking", "T1496",
        "runs a copy of true with the options of a miner, and asks 127.0.0.1 for a name below \
         .invalid", acts::crypto_mining),
    row("discovery", "System Information Discovery", "T1082",
        "has a shell run a dozen programs that tell about the host", acts::discovery),
    row("exfiltration", "Exfiltration Over Alternative Protocol", "T1048",
        "runs a copy of true under the name curl, as if it sent /etc/hosts", acts::exfiltration),
    row("container-escape", "Escape to Host", "T1611",
        "runs a copy of true under the name nsenter, as if it entered pid 1",
        acts::container_escape),
    row("ransomware", "Data Encrypted for Impact", "T1486",
        "writes 200 files in a folder of its own, has one shell overwrite them, removes them",
        acts::ransomware),
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
    let known = SIMULATIONS.iter().find(|one| one.name == name);
    let simulation = known.ok_or_else(|| SimulateError::Unknown(name.to_owned()))?;
    let mut stage = Stage::new(folder)?;
    let done = (simulation.act)(&mut stage)?;
    if stage.interrupted() { Err(SimulateError::Interrupted) } else { Ok(done) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detect::book::Book;

    #[test]
    fn every_shipped_model_has_one_simulation_and_each_names_a_model() {
        assert!(matches!(run("no such", Path::new("/var/tmp")), Err(SimulateError::Unknown(_))));
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
