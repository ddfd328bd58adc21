//! The agent as its manager's link sees it: requests go to the operator's desk, health is what
//! status, doctor and the last self-proof say.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};

use holdfast_common::control::{BundleState, Request, StatusReport};
use holdfast_common::denial::{DenialKind, FleetDenials};
use holdfast_common::link::{Capability, CapabilityState, ModelReach};
use holdfast_common::process::{ProcessInfo, ProcessKey};

use super::operator::{self, Desk};
use super::{Agent, denials, policy};
use crate::control::{Answerer, Operator};
use crate::policy::Offer;
use crate::report::{Host, Link, Needs};
use crate::sensor::proc::ProcDir;
use crate::sensor::table::pids;

/// Longest evidence, characters.
const LONGEST: usize = 500;

/// Without it the agent protects all the same.
pub(super) fn start(agent: &Arc<Agent>) {
    let linked = Linked { agent: Arc::downgrade(agent) };
    let started = Link::start(Needs {
        config: agent.config.manager.clone(),
        state_dir: agent.config.state_dir.clone(),
        journal: agent.journal.clone(),
        host: Arc::new(linked),
        shells: Arc::clone(&agent.shells),
    });
    match started {
        // It is started once.
        Ok(link) => drop(agent.link.set(link)),
        Err(error) => tracing::error!(%error, "the link to the manager does not start"),
    }
}

/// Weak, since the agent owns the link.
struct Linked {
    agent: Weak<Agent>,
}

/// Why nothing is done any more.
const ENDING: &str = "the agent is ending";

impl Linked {
    fn agent(&self) -> Result<Arc<Agent>, String> {
        self.agent.upgrade().ok_or_else(|| ENDING.to_owned())
    }
}

impl Host for Linked {
    fn carry_out(&self, request: Request, answer: &mut dyn Answerer) -> Result<(), String> {
        Desk::new(self.agent()?).carry_out(request, answer)
    }

    fn status(&self) -> Option<StatusReport> {
        Some(operator::status(&*self.agent().ok()?))
    }

    fn capabilities(&self) -> Vec<Capability> {
        self.agent().map(|agent| capabilities(&agent)).unwrap_or_default()
    }

    fn models(&self) -> Vec<ModelReach> {
        self.agent().map(|agent| agent.models.reach()).unwrap_or_default()
    }

    fn kill(&self, process: ProcessKey) -> Result<String, String> {
        let agent = self.agent()?;
        let ended = crate::respond::kill(process, &agent.table, std::process::id());
        match (ended.killed, ended.left.len()) {
            (0, 0) => Ok("nobody to kill: it had ended, or is one of the agent's own".to_owned()),
            (killed, 0) => Ok(format!("killed {killed} processes")),
            (killed, left) => Err(format!("killed {killed} processes; {left} did not end")),
        }
    }

    fn deny(
        &self,
        kind: DenialKind,
        value: &str,
        why: &str,
        duration_s: Option<u64>,
    ) -> Result<String, String> {
        let why: String = why.chars().take(LONGEST).collect();
        let agent = self.agent()?;
        denials::deny(&agent, &denials::Deny { kind, value, why: &why, duration_s })
    }

    fn undeny(&self, kind: DenialKind, value: &str) -> Result<String, String> {
        let agent = self.agent()?;
        denials::undeny(&agent, kind, value)
    }

    fn is_denied(&self, kind: DenialKind, value: &str) -> bool {
        self.agent().is_ok_and(|agent| denials::is_denied(&agent, kind, value))
    }

    fn denials(&self, list: FleetDenials) {
        if let Ok(agent) = self.agent() {
            denials::take(&agent, list);
        }
    }

    fn processes(&self, most: usize) -> Vec<ProcessInfo> {
        let Ok(agent) = self.agent() else { return Vec::new() };
        let known = |pid| {
            // The table knows arguments that a program has overwritten since.
            agent.table.lookup(pid).or_else(|| Some(ProcDir::open(pid)?.facts()))
        };
        pids().into_iter().filter_map(known).take(most).collect()
    }

    fn policy(&self, offer: Offer) {
        if let Ok(agent) = self.agent() {
            policy::take(&agent, offer);
        }
    }

    fn keep_reachable(&self, endpoints: Vec<String>) {
        if let Ok(agent) = self.agent() {
            agent.isolation.keep_reachable(endpoints);
        }
    }
}

/// Each capability once; where two looked at the same, red wins.
fn capabilities(agent: &Agent) -> Vec<Capability> {
    let now = crate::now_ms();
    let mut found = Found::default();
    for line in operator::doctor(agent) {
        found.add(line.check, line.ok, line.evidence, now);
    }
    let status = operator::status(agent);
    for line in status.proof.lines {
        found.add(line.capability, line.ok, line.evidence, line.time_ms);
    }
    for state in status.sensor {
        let evidence = format!(
            "{}: {} records arrived, {} lost{}",
            state.mechanism,
            state.delivered,
            state.lost,
            state.note.map(|note| format!("; {note}")).unwrap_or_default()
        );
        found.add(format!("sensor: {}", state.name), state.active, evidence, now);
    }
    if agent.sensor.is_none() {
        found.off("sensor", "switched off in the config", now);
    }
    match (&status.proof.enabled, status.proof.last_proven_ms) {
        (false, _) => found.off("self-proof", "switched off in the config", now),
        (true, Some(at)) => {
            // Two whole rounds without all green.
            let late = i64::try_from(status.proof.interval_s).unwrap_or(i64::MAX / 3000) * 2000;
            let ok = now.saturating_sub(at) <= late.max(60_000);
            found.add("self-proof".to_owned(), ok, "all lines were green".to_owned(), at);
        }
        (true, None) => {
            // The first round takes its time.
            let ok = status.uptime_s < 60;
            found.add("self-proof".to_owned(), ok, "never all green so far".to_owned(), now);
        }
    }
    found.bundle(&status.bundle, now);
    let (limit, used) = (agent.policies.config().quarantine.max_size.0, status.quarantine);
    let evidence = format!("{} items, {} of {limit} bytes", used.items, used.bytes);
    // Where a file could be too large for what is left.
    let ok = limit.saturating_sub(used.bytes) >= (64 << 20).min(limit / 10);
    found.add("quarantine: space".to_owned(), ok, evidence, now);
    let evidence = match agent.journal.problem() {
        Some(problem) => (false, problem),
        None => {
            (true, format!("{} events, {} dropped", status.journal_events, status.journal_dropped))
        }
    };
    found.add("journal: writing".to_owned(), evidence.0, evidence.1, now);
    // Whatever is red by another name is red here.
    let evidence = match status.problems.as_slice() {
        [] => "no problem is known".to_owned(),
        problems => problems.join("; "),
    };
    found.add("agent".to_owned(), status.problems.is_empty(), evidence, now);
    found.0.into_values().collect()
}

#[derive(Default)]
struct Found(BTreeMap<String, Capability>);

impl Found {
    fn add(&mut self, name: String, ok: bool, evidence: String, time_ms: i64) {
        let state = if ok { CapabilityState::Ok } else { CapabilityState::Red };
        let evidence = evidence.chars().take(LONGEST).collect();
        let new = Capability { name: name.clone(), state, evidence, time_ms };
        match self.0.get(&name) {
            Some(old) if old.state == CapabilityState::Red && ok => {}
            Some(_) | None => drop(self.0.insert(name, new)),
        }
    }

    /// The rules that judge now: seen now, however long ago they were loaded.
    fn bundle(&mut self, bundle: &BundleState, now: i64) {
        let age_h = now.saturating_sub(bundle.loaded_ms).max(0) / 3_600_000;
        let evidence = match &bundle.refused {
            Some(refused) => format!("the newest bundle was refused: {refused}"),
            None => format!(
                "{} hashes, {} YARA rules, loaded {age_h} h ago, digest {:.12}",
                bundle.hashes, bundle.yara_rules, bundle.digest
            ),
        };
        self.add("rule bundle".to_owned(), bundle.refused.is_none(), evidence, now);
    }

    fn off(&mut self, name: &str, evidence: &str, time_ms: i64) {
        let (state, evidence) = (CapabilityState::Off, evidence.to_owned());
        let capability = Capability { name: name.to_owned(), state, evidence, time_ms };
        self.0.insert(name.to_owned(), capability);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bundle_that_was_loaded_long_ago_is_no_old_evidence() {
        let now = 1_700_000_000_000;
        let mut bundle = BundleState {
            path: "/b".to_owned(),
            digest: "0123456789abcdef".to_owned(),
            loaded_ms: now - 30 * 3_600_000,
            hashes: 5,
            yara_rules: 0,
            refused: None,
        };
        let mut found = Found::default();
        found.bundle(&bundle, now);
        let capability = &found.0["rule bundle"];
        assert_eq!((capability.state, capability.time_ms), (CapabilityState::Ok, now));
        assert!(capability.evidence.contains("loaded 30 h ago"), "{}", capability.evidence);
        bundle.refused = Some("b.yar:1".to_owned());
        found.bundle(&bundle, now);
        assert_eq!(found.0["rule bundle"].state, CapabilityState::Red);
    }
}
