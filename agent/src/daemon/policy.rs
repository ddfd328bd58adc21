//! Puts a policy in force: every part in its turn, and all of them back when one does not take it.
//!
//! INVARIANT: nothing is let go before what is wanted stands, and no proof runs while it changes, so
//! that none is judged by rules that it was not made under. It is on disk before the first part has
//! it: a kill in between leaves a host that runs it at the next start.

use std::sync::Arc;

use holdfast_common::event::{EventBody, PolicyEvent};

use super::Agent;
use crate::config::{Config, Mode};
use crate::policy::{Next, Offer};
use crate::sweep::SweepRules;

/// How scans go by this config.
pub(super) fn sweep_rules(config: &Config) -> SweepRules {
    let quarantine = config.on_access.mode == Mode::Block;
    SweepRules { config: config.scan.clone(), quarantine }
}

/// Takes what the manager gave, or refuses it.
pub(super) fn take(agent: &Arc<Agent>, offer: Offer) {
    agent.policies.offer(offer);
    agent.policies.take_turn(|offer| {
        let done = consider(agent, &offer);
        let Err(why) = done else { return };
        if agent.policies.refuse(&offer, &why) {
            tracing::error!(policy = offer.name, version = offer.version, why, "policy refused");
            tell(agent, "refused", &offer, Some(why), Vec::new());
        }
    });
}

fn consider(agent: &Agent, offer: &Offer) -> Result<(), String> {
    let Some(next) = agent.policies.weigh(offer)? else { return Ok(()) };
    agent.models.check(&next.config().models).map_err(|error| format!("models: {error}"))?;
    let before = agent.policies.current();
    agent.policies.keep(&next)?;
    if let Err(why) = undisturbed(agent, || put_in_force(agent, next.config())) {
        put_back(agent, before);
        return Err(why);
    }
    let running = agent.policies.settle(next);
    let action = if running.is_some() { "applied" } else { "removed" };
    let warnings = running.map(|running| running.warnings).unwrap_or_default();
    tracing::info!(policy = offer.name, version = offer.version, "policy {action}");
    tell(agent, action, offer, None, warnings);
    Ok(())
}

/// Between two proofs; the next one shows how it stands.
fn undisturbed<T>(agent: &Agent, change: impl FnOnce() -> T) -> T {
    match agent.prover.get() {
        Some(prover) => prover.undisturbed(change),
        None => change(),
    }
}

fn put_in_force(agent: &Agent, config: &Config) -> Result<(), String> {
    agent.models.rule(&config.models).map_err(|error| crate::error_chain(&error))?;
    agent.exclusions.replace(&config.on_access.exclude);
    agent.on_access.apply(config).map_err(|error| crate::error_chain(&error))?;
    agent.vault.set_limit(config.quarantine.max_size.0);
    agent.shells.replace(&config.shell);
    agent.isolation.replace(config.isolation.allow.clone(), config.isolation.dhcp.clone());
    agent.sweeps.apply(sweep_rules(config)).map_err(|error| crate::error_chain(&error))
}

/// The one before, on disk and in force.
fn put_back(agent: &Agent, before: Next) {
    let kept = agent.policies.keep(&before);
    let done = undisturbed(agent, || put_in_force(agent, before.config()));
    for why in [kept, done].into_iter().filter_map(Result::err) {
        tracing::error!(why, "the policy before is not wholly back");
        agent.policies.fault(&format!("not wholly back: {why}"));
    }
}

fn tell(agent: &Agent, action: &str, offer: &Offer, error: Option<String>, warnings: Vec<String>) {
    let cut = |text: &str| text.chars().take(200).collect::<String>();
    agent.journal.record(EventBody::Policy(PolicyEvent {
        action: action.to_owned(),
        name: cut(&offer.name),
        version: offer.version,
        error,
        warnings,
    }));
}
