//! Where the sensor's events go: the prover takes its own, the rest is journalled and goes through
//! the models.

use std::path::Path;
use std::sync::Arc;

use holdfast_common::event::{EventBody, FileEvent, ModelDetection};
use holdfast_common::process::{ProcessInfo, ProcessKey, printable};
use uuid::Uuid;

use crate::detect::Models;
use crate::journal::Journal;
use crate::prove::Witness;
use crate::on_access;
use crate::sensor::{self, ProcessTable};

/// Called by the sensor's threads for each event; never waits for the sensor.
pub(super) fn sink(
    journal: &Journal,
    models: &Arc<Models>,
    witness: &Arc<Witness>,
) -> sensor::Sink {
    let (journal, models, witness) = (journal.clone(), Arc::clone(models), Arc::clone(witness));
    Box::new(move |body| {
        if witness.takes(&body) {
            // Its start is what its model is to fire for; the rest must fire nothing.
            if matches!(body, EventBody::Exec(_)) {
                models
                    .evaluate(Uuid::now_v7(), &body)
                    .iter()
                    .for_each(|detection| witness.fired(detection));
            }
            return;
        }
        let id = Uuid::now_v7();
        let detections = models.evaluate(id, &body);
        journal.record_as(id, body);
        for detection in detections {
            report_model(&journal, detection);
        }
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

fn report_model(journal: &Journal, detection: ModelDetection) {
    tracing::warn!(
        model = detection.title,
        pid = detection.process.key.pid,
        command_line = detection.process.command_line(),
        "detection model fired"
    );
    journal.record(EventBody::Model(Box::new(detection)));
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
