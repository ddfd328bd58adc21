//! Where the sensor's events go: the prover takes its own, the rest is journalled and goes through
//! the models; what these find is responded to.

use std::path::Path;
use std::sync::{Arc, OnceLock};

use holdfast_common::event::{Activity, EventBody, FileEvent};
use holdfast_common::process::{ProcessInfo, ProcessKey, printable};
use uuid::Uuid;

use crate::detect::Models;
use crate::guard::Seen;
use crate::isolate::Isolation;
use crate::journal::Journal;
use crate::on_access::{self, OnAccess};
use crate::prove::Witness;
use crate::respond::{self, DenyList, ModelResponder};
use crate::scan::WorkerFactory;
use crate::sensor::{self, ProcessTable};

/// What every sink needs. Clones share it.
#[derive(Clone)]
pub(super) struct Sinks {
    journal: Journal,
    models: Arc<Models>,
    witness: Arc<Witness>,
    tampering: Arc<Seen>,
    /// Denying needs what is built after the first sink.
    responses: Arc<OnceLock<ModelResponder>>,
}

impl Sinks {
    pub(super) fn new(
        journal: &Journal,
        models: &Arc<Models>,
        witness: &Arc<Witness>,
        tampering: &Arc<Seen>,
    ) -> Self {
        Self {
            journal: journal.clone(),
            models: Arc::clone(models),
            witness: Arc::clone(witness),
            tampering: Arc::clone(tampering),
            responses: Arc::default(),
        }
    }

    /// From now on models have responses.
    pub(super) fn respond_with(&self, responses: ModelResponder) {
        // It is called once.
        drop(self.responses.set(responses));
    }

    /// Called by the sensor's threads for each event; never waits for the sensor.
    pub(super) fn sink(&self) -> sensor::Sink {
        let sinks = self.clone();
        Box::new(move |body| sinks.take(body))
    }

    fn take(&self, body: EventBody) {
        let id = Uuid::now_v7();
        if self.witness.takes(&body) {
            // Its start is what its model is to fire for; the rest must fire nothing.
            if matches!(body, EventBody::Exec(_)) {
                let fired = self.models.evaluate(id, &body);
                fired.iter().for_each(|detection| self.witness.fired(detection));
            }
            return;
        }
        let detections = self.models.evaluate(id, &body);
        if let Some(seen) = self.tampering.tampering_of(&body) {
            self.journal.record(EventBody::Tampering(Box::new(seen)));
        }
        self.journal.record_as(id, body);
        for detection in detections {
            match self.responses.get() {
                Some(responses) => {
                    let wanted = self.models.responses(&detection);
                    responses.respond(detection, &wanted);
                }
                None => drop(self.journal.record(EventBody::Model(Box::new(detection)))),
            }
        }
    }
}

/// Tells on-access protection of mounts that its own namespace may not see.
pub(super) fn telling_of_mounts(on_access: &Arc<OnAccess>, sink: sensor::Sink) -> sensor::Sink {
    let on_access = Arc::clone(on_access);
    let is_mnt = |namespaces: &[String]| namespaces.iter().any(|name| name == "mnt");
    Box::new(move |body| {
        if let EventBody::Activity(event) = &body {
            match &event.activity {
                Activity::Mount { .. } => on_access.mounted(),
                Activity::Fork { namespaces, .. } if is_mnt(namespaces) => on_access.mounted(),
                // Without names where the kernel did not tell them.
                Activity::Namespaces { namespaces, .. }
                    if namespaces.is_empty() || is_mnt(namespaces) =>
                {
                    on_access.mounted();
                }
                Activity::Fork { .. }
                | Activity::Namespaces { .. }
                | Activity::Exit { .. }
                | Activity::Credentials { .. }
                | Activity::Ptrace { .. }
                | Activity::MemoryWrite { .. }
                | Activity::Signal { .. }
                | Activity::ModuleLoad { .. }
                | Activity::BpfLoad { .. }
                | Activity::Memfd { .. } => {}
            }
        }
        sink(body);
    })
}

/// Content that a response denies becomes a rule, and all older verdicts are dropped.
pub(super) fn deny(
    list: &Arc<DenyList>,
    factory: &Arc<WorkerFactory>,
    on_access: &Arc<OnAccess>,
) -> respond::Act<respond::Denied> {
    let (list, factory) = (Arc::clone(list), Arc::clone(factory));
    let on_access = Arc::clone(on_access);
    Box::new(move |new| {
        let what = format!("denied {} ({})", new.path, new.sha256);
        if list.add(new).map_err(|error| crate::error_chain(&error))? {
            factory.set_denied(list.lines());
            factory.reload().map_err(|error| crate::error_chain(&error))?;
            on_access.renew();
        }
        Ok(what)
    })
}

/// Cuts the host off for a reason.
pub(super) fn isolate(isolation: &Arc<Isolation>) -> respond::Act<String> {
    let isolation = Arc::clone(isolation);
    Box::new(move |reason| {
        let state = isolation.isolate(&reason, None).map_err(|error| crate::error_chain(&error))?;
        let left =
            if state.allowed.is_empty() { "nothing".into() } else { state.allowed.join(", ") };
        Ok(format!("isolated; {left} stays reachable"))
    })
}

/// Who rewrites many files, as an event.
pub(super) fn mass_rewrites(table: &Arc<ProcessTable>, sink: sensor::Sink) -> on_access::MassSink {
    const PARENTS: usize = 16;
    let table = Arc::clone(table);
    Box::new(move |mass, path| {
        let key = ProcessKey { pid: mass.pid, start_ns: 0 };
        let unknown = || ProcessInfo { key, ..ProcessInfo::default() };
        let process = table.lookup(mass.pid).unwrap_or_else(unknown);
        sink(EventBody::File(Box::new(FileEvent {
            parents: table.ancestors(&process, PARENTS),
            process,
            action: "mass_rewrite".to_owned(),
            path: printable(path.as_os_str().as_encoded_bytes()),
            from: None,
            class: "watched".to_owned(),
            mode: None,
            set_id: false,
            count: mass.count,
        })));
    })
}

/// Patterns of the agent's own files: programs and state.
pub(super) fn own_files(state: &Path) -> Vec<String> {
    let escaped = |path: &Path| path.to_str().map(globset::escape);
    let mut own: Vec<String> = Vec::new();
    if let Some(state) = escaped(state) {
        own.extend(["/*", "/quarantine/*"].map(|below| format!("{state}{below}")));
    }
    let exe = std::env::current_exe().ok();
    if let Some(folder) = exe.as_deref().and_then(Path::parent).and_then(escaped) {
        own.extend(
            ["holdfastd", "holdfast", "holdfast-scan"].map(|name| format!("{folder}/{name}")),
        );
    }
    own
}
