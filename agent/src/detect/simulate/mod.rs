//! Simulations: each really does what one model looks for, harmlessly, and undoes it.
//!
//! Runs in the CLI's process, as the user who calls it. Reads no traffic and changes nothing that
//! outlives the call.

use std::time::Duration;

use nix::sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType, socket};

/// One simulation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Simulation {
    /// What `holdfast simulate run` takes.
    pub name: &'static str,
    /// Title of the model that it proves.
    pub model: &'static str,
    /// ATT&CK technique.
    pub attack: &'static str,
    /// What it does, in words.
    pub what: &'static str,
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
}

/// Longer than one round of the sensor's fallback, so that it too sees the socket.
const HELD: Duration = Duration::from_secs(6);

const SIMULATIONS: [Simulation; 1] = [Simulation {
    name: "network-sniffing",
    model: "Network Sniffing",
    attack: "T1040",
    what: "opens a packet socket for every protocol, reads nothing from it, and closes it after \
           six seconds",
}];

/// All simulations.
pub fn list() -> &'static [Simulation] {
    &SIMULATIONS
}

/// Runs one, and says what it did.
///
/// # Errors
/// [`SimulateError`] when there is no such simulation, or this user may not do it.
pub fn run(name: &str) -> Result<String, SimulateError> {
    match name {
        "network-sniffing" => network_sniffing(),
        other => Err(SimulateError::Unknown(other.to_owned())),
    }
}

fn network_sniffing() -> Result<String, SimulateError> {
    let all = SockProtocol::EthAll;
    let packet = socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC, all)
        .map_err(SimulateError::Socket)?;
    std::thread::sleep(HELD);
    drop(packet);
    Ok("opened socket(AF_PACKET, SOCK_RAW, ETH_P_ALL), read nothing, closed it".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_listed_simulation_can_be_run_and_no_other() {
        assert!(matches!(run("no such"), Err(SimulateError::Unknown(_))));
        for simulation in list() {
            assert!(!matches!(run(simulation.name), Err(SimulateError::Unknown(_))));
        }
    }
}
