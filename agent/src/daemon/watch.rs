//! The agent's quiet hours: signs of life, systemd's watchdog, signals.

use std::sync::Arc;
use std::time::Duration;

use holdfast_common::event::{BundleEvent, EventBody};

use crate::daemon::state::StateDir;
use crate::daemon::{Agent, Signals};

/// Between two signs of life on disk; also how exact the length of a gap is.
const PULSE: Duration = Duration::from_secs(1);

/// Returns when a signal says so.
pub(super) async fn until_told_to_stop(agent: &Arc<Agent>, state: &StateDir, mut signals: Signals) {
    let mut pulse = tokio::time::interval(PULSE);
    loop {
        tokio::select! {
            _ = signals.terminate.recv() => return,
            _ = signals.interrupt.recv() => return,
            _ = signals.reload.recv() => {
                let agent = Arc::clone(agent);
                // Loading rules takes long; the pulse must not stop for it.
                drop(tokio::task::spawn_blocking(move || reload_bundle(&agent)));
            }
            _ = pulse.tick() => {
                state.alive();
                // Without systemd there is nobody to notify.
                let _ = sd_notify::notify(&[sd_notify::NotifyState::Watchdog]);
            }
        }
    }
}

/// Loads the rule bundle again, whole or not at all, and reports either.
pub(super) fn reload_bundle(agent: &Agent) -> Result<(), String> {
    let loaded = agent.factory.reload();
    let error = loaded.as_ref().err().map(|error| crate::error_chain(error));
    if error.is_none() {
        agent.on_access.renew();
    }
    report_bundle(agent);
    error.map_or(Ok(()), Err)
}

/// Says which rules are in use, and why newer ones are not.
pub(super) fn report_bundle(agent: &Agent) {
    let bundle = agent.factory.bundle();
    match &bundle.refused {
        None => tracing::info!(digest = bundle.digest, "rule bundle loaded"),
        Some(error) => tracing::error!(error, "rule bundle refused; the last good one stays"),
    }
    agent.journal.record(EventBody::Bundle(BundleEvent {
        path: bundle.path,
        digest: bundle.digest,
        hashes: bundle.hashes,
        yara_rules: bundle.yara_rules,
        error: bundle.refused,
    }));
}
