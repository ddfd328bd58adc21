//! Carries out what comes in on the control socket. Each request is one arm; the work is done by
//! the part that owns it.

use std::path::Path;
use std::sync::Arc;

use holdfast_common::container::Metadata;
use holdfast_common::control::{DoctorLine, IsolationState, Reply, Request, StatusReport};
use holdfast_common::event::{Event, EventBody, QuarantineAction};
use holdfast_common::scans::{ScanOrder, ScanRecord};
use holdfast_common::task::until;
use uuid::Uuid;

use crate::control::{Answerer, Operator};
use crate::daemon::denials::{self, Deny};
use crate::daemon::{Agent, watch};
use crate::guard::Guard;
use crate::journal::{Filter, Next};
use crate::prove::Prover;
use crate::report::{self, Invitation, Link};
use crate::sweep::SweepError;

/// The operator's desk.
pub(super) struct Desk {
    agent: Arc<Agent>,
}

type Outcome = Result<(), String>;

/// Between two looks at whether a follower is still there.
const PATIENCE: std::time::Duration = std::time::Duration::from_millis(500);

impl Desk {
    pub(super) const fn new(agent: Arc<Agent>) -> Self {
        Self { agent }
    }
}

impl Operator for Desk {
    fn carry_out(&self, request: Request, answer: &mut dyn Answerer) -> Outcome {
        let agent = &*self.agent;
        match request {
            Request::Status => send(answer, Reply::Status(Box::new(status(agent)))),
            Request::Doctor => {
                let lines = doctor(agent).into_iter().chain(prove(agent));
                lines.map(Reply::DoctorLine).try_for_each(|line| send(answer, line))
            }
            Request::Scan { paths } => {
                let started_by = "root on this host".to_owned();
                let order = ScanOrder { paths, started_by, ..ScanOrder::default() };
                agent.sweeps.attend(&order, false, answer).map_err(|e| crate::error_chain(&e))
            }
            Request::ScanStart { order, follow: true } => {
                agent.sweeps.attend(&order, true, answer).map_err(|e| crate::error_chain(&e))
            }
            Request::ScanStart { order, follow: false } => {
                let record = agent.sweeps.put_in_line(order);
                scan(record, answer)
            }
            Request::ScanList { limit } => {
                let all = agent.sweeps.list(limit).map_err(|error| crate::error_chain(&error))?;
                all.into_iter().try_for_each(|one| send(answer, Reply::Scan(Box::new(one))))
            }
            Request::ScanShow { id } => scan(agent.sweeps.show(id), answer),
            Request::ScanSteer { id, steer } => scan(agent.sweeps.steer(id, steer), answer),
            Request::ScheduleList => agent
                .sweeps
                .schedules()
                .into_iter()
                .try_for_each(|one| send(answer, Reply::Schedule(Box::new(one)))),
            Request::ScheduleAdd { schedule } => {
                let added = agent.sweeps.schedule_add(schedule);
                let added = added.map_err(|error| crate::error_chain(&error))?;
                send(answer, Reply::Schedule(Box::new(added)))
            }
            Request::ScheduleRemove { name } => {
                agent.sweeps.schedule_remove(&name).map_err(|error| crate::error_chain(&error))
            }
            Request::Events { since_ms, kind, limit, follow } => {
                let filter = Filter { since_ms, kind, limit, ..Filter::default() };
                events(agent, &filter, follow, answer)
            }
            Request::QuarantineList => list(agent, answer),
            Request::QuarantineShow { id } => {
                let item = agent.vault.show(id).map_err(|error| crate::error_chain(&error))?;
                send(answer, Reply::QuarantineItem(Box::new(item)))
            }
            Request::QuarantineRestore { id, allow, duration_s, to } => {
                if duration_s.is_some() && !allow {
                    return Err("duration_s: only with allow".to_owned());
                }
                let allow = allow.then_some(duration_s);
                restore(agent, id, allow, to.as_deref(), answer)
            }
            Request::QuarantineDelete { id } => {
                let item = agent.vault.delete(id).map_err(|error| crate::error_chain(&error))?;
                record(agent, &item, "deleted", &item.path);
                Ok(())
            }
            Request::QuarantineExport { id, password } => export(agent, id, &password, answer),
            Request::ModelList => agent
                .models
                .list()
                .into_iter()
                .try_for_each(|model| send(answer, Reply::Model(model))),
            Request::ModelSwitch { model, enabled } => {
                let state = agent
                    .models
                    .switch(&model, enabled)
                    .map_err(|error| crate::error_chain(&error))?;
                send(answer, Reply::Model(state))
            }
            Request::ModelSuppress { model, field, value, until_ms, reason } => {
                let new = agent
                    .models
                    .suppress(&model, (&field, &value), until_ms, &reason)
                    .map_err(|error| crate::error_chain(&error))?;
                send(answer, Reply::Suppression(new))
            }
            Request::SuppressionList => agent
                .models
                .suppressions()
                .into_iter()
                .try_for_each(|one| send(answer, Reply::Suppression(one))),
            Request::SuppressionRemove { id } => {
                agent.models.end_suppression(id).map_err(|error| crate::error_chain(&error))
            }
            Request::BundleReload => watch::reload_bundle(agent),
            Request::Policy => send(answer, Reply::Policy(Box::new(agent.policies.report()))),
            Request::DenialList => denials::list(agent)
                .into_iter()
                .try_for_each(|one| send(answer, Reply::Denial(one))),
            Request::Deny { kind, value, reason, duration_s } => {
                let order = Deny { kind, value: &value, why: &reason, duration_s };
                denials::deny(agent, &order).map(drop)
            }
            Request::Undeny { kind, value } => denials::undeny(agent, kind, &value).map(drop),
            Request::Isolate { reason, duration_s } => {
                let limit = duration_s.map(std::time::Duration::from_secs);
                let state = agent.isolation.isolate(&reason, limit);
                isolation(state.map_err(|error| crate::error_chain(&error))?, answer)
            }
            Request::Release { reason } => {
                let state = agent.isolation.release(&reason);
                isolation(state.map_err(|error| crate::error_chain(&error))?, answer)
            }
            Request::IsolationStatus => isolation(agent.isolation.status(), answer),
            Request::Enroll { manager, token, fingerprint, proxy } => {
                let invitation = Invitation { manager, token, fingerprint, proxy };
                let host = report::enroll(&agent.config.state_dir, &invitation)
                    .map_err(|error| crate::error_chain(&error))?;
                send(answer, Reply::Enrolled { host })
            }
        }
    }
}

fn send(answer: &mut dyn Answerer, reply: Reply) -> Outcome {
    answer.reply(reply).map_err(|error| error.to_string())
}

fn scan(record: Result<ScanRecord, SweepError>, answer: &mut dyn Answerer) -> Outcome {
    let record = record.map_err(|error| crate::error_chain(&error))?;
    send(answer, Reply::Scan(Box::new(record)))
}

fn isolation(state: IsolationState, answer: &mut dyn Answerer) -> Outcome {
    send(answer, Reply::Isolation(Box::new(state)))
}

pub(super) fn status(agent: &Agent) -> StatusReport {
    let journal = agent.journal.counts();
    StatusReport {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        host: agent.host.clone(),
        pid: std::process::id(),
        uptime_s: agent.ready.elapsed().as_secs(),
        mode: agent.policies.config().on_access.mode.name().to_owned(),
        problems: problems(agent),
        file_systems: agent.on_access.file_systems(),
        on_access: agent.on_access.counters(),
        workers: agent.on_access.workers(),
        bundle: agent.factory.bundle(),
        quarantine: agent.vault.usage(),
        proof: agent.prover.get().map(Prover::state).unwrap_or_default(),
        sensor: agent.sensor.as_ref().map(crate::sensor::Sensor::states).unwrap_or_default(),
        journal_events: journal.events,
        journal_dropped: journal.dropped,
        isolated: agent.isolation.status().isolated,
        manager: agent.link.get().map(Link::state).unwrap_or_default(),
        shells: agent.shells.open(),
        policy: agent.policies.status(),
        denials: agent.denials.state(agent.factory.bundle().refused.is_some()),
    }
}

/// What is red, by name.
fn problems(agent: &Agent) -> Vec<String> {
    let mut problems = Vec::new();
    let file_systems = agent.on_access.file_systems();
    if !file_systems.iter().any(|file_system| file_system.protected) {
        problems.push("no file system is protected".to_owned());
    }
    for file_system in file_systems.iter().filter(|file_system| !file_system.protected) {
        problems.push(format!(
            "{} ({}) is not protected: {}",
            file_system.mount,
            file_system.fs_type,
            file_system.reason.as_deref().unwrap_or("unknown reason")
        ));
    }
    let unseen = agent.on_access.counters().namespaces_unseen;
    if unseen != 0 {
        problems.push(format!("{unseen} mount namespaces, or file systems in them, are not seen"));
    }
    if let Some(problem) = agent.journal.problem() {
        problems.push(format!("the journal cannot be written: {problem}"));
    }
    problems.extend(agent.denials.problems());
    if agent.on_access.workers_failing() {
        problems.push("scan workers do not start".to_owned());
    }
    if let Some(refused) = agent.factory.bundle().refused {
        problems.push(format!("the newest rule bundle was refused: {refused}"));
    }
    let refused = agent.models.refused();
    if let Some(first) = refused.first() {
        let (count, origin, reason) = (refused.len(), &first.origin, &first.reason);
        problems.push(format!("{count} detection rules were left out, first {origin}: {reason}"));
    }
    for state in agent.sensor.iter().flat_map(crate::sensor::Sensor::states) {
        if !state.active {
            problems.push(format!(
                "the sensor does not see {}: {}",
                state.name,
                state.note.as_deref().unwrap_or("unknown reason")
            ));
        }
    }
    problems.extend(agent.prover.get().map(Prover::problems).unwrap_or_default());
    problems.extend(agent.isolation.problems());
    problems.extend(agent.sweeps.problems());
    problems.extend(agent.guard.get().map(Guard::problems).unwrap_or_default());
    problems.extend(agent.policies.problems());
    problems.extend(agent.link.get().map(Link::problems).unwrap_or_default());
    problems
}

pub(super) fn doctor(agent: &Agent) -> Vec<DoctorLine> {
    let mut lines: Vec<DoctorLine> = agent
        .on_access
        .file_systems()
        .into_iter()
        .map(|file_system| DoctorLine {
            check: format!("on access: {}", file_system.mount),
            ok: file_system.protected,
            evidence: file_system
                .reason
                .unwrap_or_else(|| format!("{} marked, opens are held", file_system.fs_type)),
            advice: (!file_system.protected).then(|| {
                "scan it on demand (holdfast scan), or protect what lies below".to_owned()
            }),
        })
        .collect();
    let counters = agent.on_access.counters();
    lines.push(DoctorLine {
        check: "on access: deadline".to_owned(),
        ok: counters.past_deadline == 0,
        evidence: format!(
            "{} opens held, longest {} us, {} past the deadline",
            counters.held, counters.longest_held_us, counters.past_deadline
        ),
        advice: (counters.past_deadline != 0)
            .then(|| "the host is short of processor time: raise deadline_ms".to_owned()),
    });
    let failing = agent.on_access.workers_failing();
    lines.push(DoctorLine {
        check: "scan workers".to_owned(),
        ok: !failing,
        evidence: format!("{} alive", agent.on_access.workers()),
        advice: failing.then(|| "see the log for why holdfast-scan does not start".to_owned()),
    });
    match &agent.sensor {
        Some(sensor) => lines.extend(sensor.doctor()),
        None => lines.push(DoctorLine {
            check: "sensor".to_owned(),
            ok: false,
            evidence: "switched off in the config".to_owned(),
            advice: Some("set enabled = true under [sensor]".to_owned()),
        }),
    }
    lines.extend(agent.isolation.doctor());
    lines.extend(agent.guard.get().map(Guard::doctor).unwrap_or_default());
    lines
}

/// Proves everything now.
fn prove(agent: &Agent) -> Vec<DoctorLine> {
    let Some(prover) = agent.prover.get() else { return Vec::new() };
    let proof = prover.prove();
    let lines = proof.lines.into_iter().map(|line| DoctorLine {
        check: format!("proof: {}", line.capability),
        ok: line.ok,
        evidence: line.evidence,
        advice: line.advice,
    });
    lines.collect()
}

fn events(agent: &Agent, filter: &Filter, follow: bool, answer: &mut dyn Answerer) -> Outcome {
    let mut sent = Ok(());
    let mut visit = |event| {
        sent = send(answer, Reply::Event(Box::new(event)));
        sent.is_ok()
    };
    let follower = if follow {
        Some(agent.journal.tail(filter, &mut visit).map_err(|error| crate::error_chain(&error))?)
    } else {
        agent.journal.each(filter, &mut visit).map_err(|error| crate::error_chain(&error))?;
        None
    };
    sent?;
    let Some(follower) = follower else { return Ok(()) };
    while !answer.gone() {
        match follower.next(PATIENCE) {
            Next::Event(event) => send(answer, Reply::Event(Box::new(Event::clone(&event))))?,
            Next::Nothing => {}
            Next::Closed => break,
        }
    }
    Ok(())
}

fn list(agent: &Agent, answer: &mut dyn Answerer) -> Outcome {
    let mut items = agent.vault.list().map_err(|error| crate::error_chain(&error))?;
    // The prover's markers come and go.
    items.retain(|item| agent.witness.is_marker(&item.hashes.sha256).is_none());
    items.into_iter().try_for_each(|item| send(answer, Reply::QuarantineItem(Box::new(item))))
}

/// `allow`: allow its content, for so many seconds or for good.
fn restore(
    agent: &Agent,
    id: Uuid,
    allow: Option<Option<u64>>,
    to: Option<&Path>,
    answer: &mut dyn Answerer,
) -> Outcome {
    let item = agent.vault.show(id).map_err(|error| crate::error_chain(&error))?;
    let until_ms = until(crate::now_ms(), allow.flatten());
    let until_ms = until_ms.map_err(|why| format!("duration_s: {why}"))?;
    if allow.is_some() {
        // Before the file is back: somebody may open it at once.
        agent
            .allowed
            .add(&item.hashes.sha256, &item.path, until_ms)
            .map_err(|error| crate::error_chain(&error))?;
        agent.exclusions.add_content(item.hashes.sha256.clone(), until_ms);
    }
    let path = agent.vault.restore(id, to).map_err(|error| crate::error_chain(&error))?;
    let path = {
        use std::os::unix::ffi::OsStrExt;
        holdfast_common::process::printable(path.as_os_str().as_bytes())
    };
    let allowed = allow.is_some();
    record(agent, &item, if allowed { "restored_and_allowed" } else { "restored" }, &path);
    send(answer, Reply::Restored { path, allowed, until_ms })
}

fn export(agent: &Agent, id: Uuid, password: &str, answer: &mut dyn Answerer) -> Outcome {
    use std::io::{Read, Seek};
    // Not in memory: an item may be gigabytes. Without a name nobody else can open it.
    let mut zip = tempfile_in(&agent.config.state_dir).map_err(|error| error.to_string())?;
    let item =
        agent.vault.export(id, password, &mut zip).map_err(|error| crate::error_chain(&error))?;
    let length = zip.stream_position().map_err(|error| error.to_string())?;
    zip.rewind().map_err(|error| error.to_string())?;
    send(answer, Reply::Data { length })?;
    let mut chunk = vec![0; 64 << 10];
    loop {
        let read = zip.read(&mut chunk).map_err(|error| error.to_string())?;
        if read == 0 {
            break;
        }
        answer.data(&chunk[..read]).map_err(|error| error.to_string())?;
    }
    record(agent, &item, "exported", &item.path);
    Ok(())
}

/// A file without a name (`O_TMPFILE`, open(2)).
fn tempfile_in(folder: &Path) -> std::io::Result<std::fs::File> {
    use rustix::fs::{Mode, OFlags};
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    Ok(rustix::fs::open(folder, flags, Mode::RUSR | Mode::WUSR)?.into())
}

fn record(agent: &Agent, item: &Metadata, action: &str, path: &str) {
    agent.journal.record(EventBody::Quarantine(QuarantineAction {
        item: item.id,
        action: action.to_owned(),
        path: path.to_owned(),
        sha256: item.hashes.sha256.clone(),
    }));
}
