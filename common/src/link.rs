//! What agent and manager tell each other over the link, beside events and tasks.
//!
//! The messages themselves are made from `proto/link.proto`; here is what they carry as JSON.

use serde::{Deserialize, Serialize};

use crate::control::StatusReport;

/// Messages and services of `proto/link.proto`.
#[cfg(feature = "link")]
#[allow(
    missing_docs,
    clippy::all,
    clippy::allow_attributes_without_reason,
    reason = "generated from the commented .proto file"
)]
pub mod wire {
    tonic::include_proto!("holdfast.link.v1");
}

/// Events in one message, at most.
pub const MOST_EVENTS: usize = 512;
/// Bytes of one message, at most, in either direction.
pub const MAX_MESSAGE: usize = 4 << 20;
/// Bytes of a file in one message.
pub const CHUNK: usize = 256 << 10;

/// What a host says of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostFacts {
    /// Its name.
    pub host: String,
    /// `/etc/machine-id`.
    pub machine_id: String,
    /// Kernel release.
    pub kernel: String,
    /// `PRETTY_NAME` of `/etc/os-release`.
    pub system: String,
    /// Machine, e.g. `x86_64`.
    pub architecture: String,
    /// Its addresses, without loopback.
    pub addresses: Vec<String>,
    /// The agent's version.
    pub version: String,
}

/// How one capability stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CapabilityState {
    /// It was seen to work.
    Ok,
    /// It does not work, or was not seen to.
    Red,
    /// Switched off by config or policy.
    Off,
}

/// One capability of a host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Capability {
    /// Its name, e.g. `on access: /srv`.
    pub name: String,
    /// How it stands.
    pub state: CapabilityState,
    /// What was seen.
    pub evidence: String,
    /// When it was seen, milliseconds since the epoch.
    pub time_ms: i64,
}

/// A sign of life, and of sight.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Heartbeat {
    /// When it was made, milliseconds since the epoch.
    pub time_ms: i64,
    /// Each capability.
    pub capabilities: Vec<Capability>,
    /// The numbers.
    pub status: StatusReport,
    /// What waits to be sent.
    pub outbox: OutboxState,
}

/// The events that the manager does not have yet.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutboxState {
    /// How many wait.
    pub events: u64,
    /// Their bytes.
    pub bytes: u64,
    /// The oldest one's age, seconds.
    pub oldest_s: u64,
    /// How many were given up for want of room or for age, since the agent was enrolled.
    pub dropped: u64,
}
