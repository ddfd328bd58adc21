//! What a host says of the policy that rules it.
//!
//! Bounded by the agent: texts to [`LONGEST`] bytes, lists to [`MOST`].

use serde::{Deserialize, Serialize};

/// Bytes of a text.
pub const LONGEST: usize = 500;
/// Rows of a list.
pub const MOST: usize = 100;

/// How a host stands to policies.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PolicyState {
    /// Its config takes them.
    pub accepts: bool,
    /// The one that runs: every part of the agent goes by it.
    pub running: Option<PolicyRun>,
    /// The newest one that was refused, until another one runs.
    pub refused: Option<PolicyRefusal>,
    /// What of the one that runs, or of the one on disk, is not in force.
    pub problem: Option<String>,
}

/// A policy that runs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PolicyRun {
    /// The policy's id, as the manager gave it.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Which version.
    pub version: u64,
    /// Since when, milliseconds since the epoch.
    pub since_ms: i64,
    /// Keys of it that the host's own config keeps as they are.
    pub kept: Vec<String>,
    /// What of it weakens the host much.
    pub warnings: Vec<String>,
}

/// A policy that was refused, whole.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PolicyRefusal {
    /// The policy's id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Which version.
    pub version: u64,
    /// Why.
    pub why: String,
    /// When, milliseconds since the epoch.
    pub time_ms: i64,
}

/// A setting in force, and who set it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PolicySetting {
    /// As in config and policy, e.g. `on_access.mode`.
    pub key: String,
    /// For people.
    pub value: String,
    /// The policy did; else the host's config, or nobody.
    pub by_policy: bool,
}

/// All of it, for the command line.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PolicyReport {
    /// How it stands.
    pub state: PolicyState,
    /// What can be ruled, as it is in force.
    pub settings: Vec<PolicySetting>,
    /// The document that runs.
    pub document: Option<String>,
}
