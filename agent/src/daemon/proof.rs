//! The agent as the prover sees it.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use std::time::Duration;

use holdfast_common::control::{BundleState, FileSystemState, QuarantineState};
use holdfast_common::event::EventBody;
use holdfast_common::process::unprintable;
use uuid::Uuid;

use crate::config::Mode;
use crate::daemon::Agent;
use crate::journal::Filter;
use crate::prove::{MODEL, Protection};
use crate::worker::marker;

/// Weak, since the agent owns the prover.
pub(super) struct Watched(pub(super) Weak<Agent>);

impl Watched {
    fn agent<T: Default>(&self, look: impl FnOnce(&Arc<Agent>) -> T) -> T {
        self.0.upgrade().as_ref().map(look).unwrap_or_default()
    }
}

impl Protection for Watched {
    fn file_systems(&self) -> Vec<FileSystemState> {
        self.agent(|agent| agent.on_access.reachable_file_systems())
    }

    fn is_marked(&self, folder: &Path) -> Option<bool> {
        self.agent(|agent| agent.on_access.is_marked(folder))
    }

    fn blocks(&self) -> bool {
        self.agent(|agent| agent.policies.config().on_access.mode == Mode::Block)
    }

    fn deadline(&self) -> Duration {
        self.agent(|agent| agent.policies.config().on_access.deadline)
    }

    fn bundle(&self) -> (BundleState, bool) {
        self.agent(|agent| (agent.factory.bundle(), agent.config.scan.bundle.is_some()))
    }

    fn sensor(&self) -> Option<Vec<String>> {
        self.agent(|agent| {
            let states = agent.sensor.as_ref()?.states();
            let blind = states.into_iter().filter(|state| !state.active);
            Some(blind.map(|state| format!("not attached: {}", state.name)).collect())
        })
    }

    fn model_is_on(&self) -> bool {
        self.agent(|agent| {
            agent.models.list().iter().any(|model| model.title == MODEL && model.enabled)
        })
    }

    fn quarantine(&self) -> (u64, QuarantineState) {
        self.agent(|agent| (agent.policies.config().quarantine.max_size.0, agent.vault.usage()))
    }

    fn items_of_markers(&self) -> Vec<(Uuid, PathBuf)> {
        self.agent(|agent| {
            let items = agent.vault.list().unwrap_or_default().into_iter();
            items
                .filter(|item| item.signature.name == marker::NAME)
                .map(|item| {
                    use std::os::unix::ffi::OsStringExt;
                    let path = std::ffi::OsString::from_vec(unprintable(&item.path));
                    (item.id, path.into())
                })
                .collect()
        })
    }

    fn destroy_item(&self, id: Uuid) -> Result<(), String> {
        let Some(agent) = self.0.upgrade() else { return Ok(()) };
        agent.vault.delete(id).map(drop).map_err(|error| crate::error_chain(&error))
    }

    fn record(&self, event: EventBody) -> Uuid {
        self.agent(|agent| agent.journal.record(event))
    }

    fn is_journalled(&self, id: Uuid) -> Result<bool, String> {
        let Some(agent) = self.0.upgrade() else { return Ok(true) };
        let filter = Filter { id: Some(id), limit: 1, ..Filter::default() };
        let mut found = false;
        agent
            .journal
            .each(&filter, &mut |_| {
                found = true;
                true
            })
            .map_err(|error| crate::error_chain(&error))?;
        match agent.journal.problem() {
            Some(problem) => Err(problem),
            None => Ok(found),
        }
    }
}
