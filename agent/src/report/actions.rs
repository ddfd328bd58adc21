//! What each action of a response task does on this host, and how it is seen to hold.
//!
//! The doing is the code behind the CLI's requests ([`Host::carry_out`]) wherever there is one.
//! INVARIANT: `Executed` is told when it was done, and an action counts as verified only by what
//! is observed afterwards, never by the absence of an error.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use holdfast_common::control::{IsolationState, Reply, Request, ScanProgress, ScanSteer};
use holdfast_common::denial::DenialKind;
use holdfast_common::event::EventBody;
use holdfast_common::process::{ProcessKey, printable, unprintable};
use holdfast_common::scans::{ScanOrder, ScanRecord, ScanState};
use holdfast_common::task::Action;
use holdfast_common::wire::hex;
use serde_json::json;
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::Host;
use super::spool::{Spool, SpoolFile, pack_encrypted, pack_texts};
use super::store::Spooled;
use crate::control::Answerer;
use crate::detect::simulate;
use crate::journal::{Filter, Journal, Next};
use crate::sensor::proc::ProcDir;
use crate::shell::{Opening, Shells};

/// Between two looks at a scan, and between two words to the manager about it.
const SCAN_LOOK: Duration = Duration::from_millis(200);
const SCAN_TOLD: Duration = Duration::from_secs(5);
/// Processes of a listing.
const MOST_PROCESSES: usize = 5000;
/// Bytes of a listing: it is one message.
const LARGEST_RESULT: usize = 2 << 20;
/// Events of the diagnostics.
const DIAGNOSTIC_EVENTS: u64 = 1000;
/// A simulation, and its detection after it.
const SIMULATION: Duration = Duration::from_secs(120);
const DETECTION: Duration = Duration::from_secs(20);
/// A killed process that still ends.
const KILLED: Duration = Duration::from_secs(5);

/// What actions need.
pub(super) struct Context {
    pub(super) host: Arc<dyn Host>,
    pub(super) shells: Arc<Shells>,
    pub(super) journal: Journal,
    pub(super) spool: Spool,
}

/// Whose order it is.
pub(super) struct Ordered {
    pub(super) id: Uuid,
    pub(super) by: String,
    pub(super) reason: String,
}

impl Ordered {
    /// For the journal.
    fn why(&self) -> String {
        format!("task {} of {}: {}", self.id, self.by, self.reason)
    }
}

/// How an action speaks with its task.
pub(super) struct Acts<'a> {
    /// Nobody wants it any more.
    pub(super) cancelled: &'a Arc<AtomicBool>,
    /// It is done, not yet seen to hold.
    pub(super) executed: &'a dyn Fn(&str),
    /// How far it is.
    pub(super) progress: &'a dyn Fn(&str),
}

/// How it ended.
#[derive(Debug)]
pub(super) enum Outcome {
    /// Seen to hold.
    Verified {
        /// What was seen.
        observed: String,
        /// The action's own result.
        result: serde_json::Value,
    },
    /// Done as far as this host goes: the file is to be delivered.
    Spooled(Spooled),
    /// Not done, or not seen to hold.
    Failed(String),
    /// Taken back in the middle.
    Cancelled(String),
    /// The agent stops in the middle of what only reads: the next start does it again.
    LeftOff,
}

type Done = Result<Outcome, String>;

fn verified(observed: impl Into<String>) -> Done {
    verified_with(observed, serde_json::Value::Null)
}

fn verified_with(observed: impl Into<String>, result: serde_json::Value) -> Done {
    Ok(Outcome::Verified { observed: observed.into(), result })
}

/// Whether doing it twice changes no more than doing it once.
pub(super) const fn only_reads(action: &Action) -> bool {
    match action {
        Action::Scan { .. }
        | Action::Download { .. }
        | Action::Collect { .. }
        | Action::ProcessList
        | Action::Diagnostics => true,
        Action::Isolate { .. }
        | Action::Release
        | Action::Restore { .. }
        | Action::Delete { .. }
        | Action::Kill { .. }
        | Action::DenyHash { .. }
        | Action::DenyPath { .. }
        | Action::Undeny { .. }
        | Action::Shell { .. }
        | Action::Simulate { .. } => false,
    }
}

/// Does it and looks whether it holds.
pub(super) fn carry_out(
    context: &Context,
    order: &Ordered,
    action: &Action,
    acts: &Acts<'_>,
) -> Outcome {
    let done = match action {
        Action::Isolate { duration_s } => context.isolate(order, *duration_s, acts),
        Action::Release => context.release(order, acts),
        Action::Scan { scope, paths, cpu_share } => {
            let scan = ScanOrder {
                scope: *scope,
                paths: paths.clone(),
                started_by: order.why(),
                cpu_share: *cpu_share,
            };
            context.scan(scan, acts)
        }
        Action::Restore { item, allow, duration_s } => {
            context.restore(*item, *allow, *duration_s, acts)
        }
        Action::Delete { item } => context.delete(*item, acts),
        Action::Download { item, password } => context.download(order, *item, password, acts),
        Action::Collect { path: Some(path), password, limit } => {
            context.collect(order, path, password, *limit)
        }
        Action::Collect { path: None, .. } => Err("no path is given".to_owned()),
        Action::Kill { process } => context.kill(*process, acts),
        Action::DenyHash { sha256, duration_s } => {
            context.deny(order, (DenialKind::Hash, sha256), *duration_s, acts)
        }
        Action::DenyPath { path, duration_s } => {
            context.deny(order, (DenialKind::Path, path), *duration_s, acts)
        }
        Action::Undeny { kind, value } => context.undeny(*kind, value, acts),
        Action::Simulate { simulation } => context.simulate(simulation, acts),
        Action::Shell { restricted, columns, rows } => {
            context.shell(order, *restricted, (*columns, *rows), acts)
        }
        Action::ProcessList => context.process_list(acts),
        Action::Diagnostics => context.diagnostics(order),
    };
    done.unwrap_or_else(Outcome::Failed)
}

/// Looks whether an action holds that was begun by an agent that has ended since.
pub(super) fn observe(context: &Context, action: &Action, executed: &dyn Fn(&str)) -> Outcome {
    let interrupted = "the agent ended while it was done";
    let holds = match action {
        Action::Isolate { .. } => context.isolation(Request::IsolationStatus).and_then(isolated),
        Action::Release => context.isolation(Request::IsolationStatus).and_then(released),
        Action::Delete { item } => context.is_gone(*item),
        Action::Kill { process } => has_ended(*process),
        Action::DenyHash { sha256, .. } => context.denied(DenialKind::Hash, sha256),
        Action::DenyPath { path, .. } => context.denied(DenialKind::Path, path),
        Action::Undeny { kind, value } => context.not_denied(*kind, value),
        // The terminal went with the agent, and what ran on it was told so by the kernel.
        Action::Shell { .. } => Err("its terminal is gone".to_owned()),
        Action::Restore { .. }
        | Action::Simulate { .. }
        | Action::Scan { .. }
        | Action::Download { .. }
        | Action::Collect { .. }
        | Action::ProcessList
        | Action::Diagnostics => Err("and what it did cannot be told afterwards".to_owned()),
    };
    match holds {
        Ok(observed) => {
            executed(&format!("{interrupted}; it was done"));
            let result = serde_json::Value::Null;
            Outcome::Verified { observed: format!("after a restart: {observed}"), result }
        }
        Err(why) => Outcome::Failed(format!("{interrupted}: {why}")),
    }
}

impl Context {
    fn ask(&self, request: Request, collected: &mut Collected<'_>) -> Result<(), String> {
        self.host.carry_out(request, collected)
    }

    fn isolation(&self, request: Request) -> Result<IsolationState, String> {
        let mut collected = Collected::default();
        self.ask(request, &mut collected)?;
        collected.isolation.map(|state| *state).ok_or_else(|| "there is no answer".to_owned())
    }

    fn isolate(&self, order: &Ordered, duration_s: Option<u64>, acts: &Acts<'_>) -> Done {
        self.isolation(Request::Isolate { reason: order.why(), duration_s })?;
        (acts.executed)("the host is cut off");
        let state = self.isolation(Request::IsolationStatus)?;
        let result = json!({ "isolation": state });
        verified_with(isolated(state)?, result)
    }

    fn release(&self, order: &Ordered, acts: &Acts<'_>) -> Done {
        self.isolation(Request::Release { reason: order.why() })?;
        (acts.executed)("the host is let go");
        verified(released(self.isolation(Request::IsolationStatus)?)?)
    }

    /// In the background like a schedule's, followed by its record: it may be paused on the host.
    fn scan(&self, order: ScanOrder, acts: &Acts<'_>) -> Done {
        let mut collected = Collected::default();
        self.ask(Request::ScanStart { order, follow: false }, &mut collected)?;
        let mut record = collected.record.take().ok_or("there is no answer")?;
        let id = record.scan_id;
        let (mut cancelling, mut told) = (false, Instant::now());
        while !record.state.is_end() {
            if acts.cancelled.load(Ordering::Relaxed) && !cancelling {
                cancelling = true;
                let cancel = Request::ScanSteer { id, steer: ScanSteer::Cancel };
                // It may have ended in between, which the next look shows.
                let _ = self.ask(cancel, &mut Collected::default());
            }
            std::thread::sleep(SCAN_LOOK);
            let mut collected = Collected::default();
            self.ask(Request::ScanShow { id }, &mut collected)?;
            record = collected.record.take().ok_or("there is no answer")?;
            if told.elapsed() >= SCAN_TOLD && !record.state.is_end() {
                told = Instant::now();
                (acts.progress)(&so_far(&record));
            }
        }
        let numbers = in_numbers(&record.progress);
        match record.state {
            ScanState::Done => {
                (acts.executed)(&numbers);
                verified_with(numbers, scan_result(&record))
            }
            ScanState::Cancelled => Ok(Outcome::Cancelled(format!("in the middle: {numbers}"))),
            ScanState::Interrupted => Ok(Outcome::LeftOff),
            ScanState::Waiting | ScanState::Running | ScanState::Paused | ScanState::Skipped => {
                let note = record.note.unwrap_or_default();
                Err(format!("the scan was {}: {note}; {numbers}", record.state.name()))
            }
        }
    }

    fn restore(&self, item: Uuid, allow: bool, duration_s: Option<u64>, acts: &Acts<'_>) -> Done {
        let mut collected = Collected::default();
        self.ask(Request::QuarantineShow { id: item }, &mut collected)?;
        let sealed = collected.item.take().ok_or("the item is not known")?;
        let request = Request::QuarantineRestore { id: item, allow, duration_s, to: None };
        self.ask(request, &mut collected)?;
        let path = collected.restored.ok_or("there is no answer")?;
        (acts.executed)(&format!("put back to {path}"));
        let real = PathBuf::from(std::ffi::OsString::from_vec(unprintable(&path)));
        let sha256 = open_regular(&real)
            .and_then(|(file, facts)| hash(&mut file.take(facts.len())))
            .map_err(|error| format!("{path} cannot be read after it was put back: {error}"))?;
        if sha256 != sealed.hashes.sha256 {
            return Err(format!("{path} has another content: {sha256}"));
        }
        let allowed = match duration_s {
            Some(duration_s) => format!("; its content is allowed for {duration_s} s"),
            None if allow => "; its content is allowed for good".to_owned(),
            None => String::new(),
        };
        verified(format!("{path} is there with SHA-256 {sha256}{allowed}"))
    }

    fn delete(&self, item: Uuid, acts: &Acts<'_>) -> Done {
        self.ask(Request::QuarantineDelete { id: item }, &mut Collected::default())?;
        (acts.executed)("the item is destroyed");
        verified(self.is_gone(item)?)
    }

    fn is_gone(&self, item: Uuid) -> Result<String, String> {
        let mut collected = Collected::default();
        self.ask(Request::QuarantineList, &mut collected)?;
        if collected.items.contains(&item) {
            return Err("the item is still in quarantine".to_owned());
        }
        Ok("the item is no more in quarantine".to_owned())
    }

    fn download(&self, order: &Ordered, item: Uuid, password: &str, acts: &Acts<'_>) -> Done {
        let mut out = self.spool.create(order.id).map_err(|error| error.to_string())?;
        let cancelled = Some(acts.cancelled);
        let data = Some(&mut out);
        let mut collected = Collected { cancelled, data, ..Collected::default() };
        let request = Request::QuarantineExport { id: item, password: password.to_owned() };
        self.ask(request, &mut collected)?;
        spooled(out, format!("item {item}"))
    }

    fn collect(&self, order: &Ordered, path: &Path, password: &str, limit: u64) -> Done {
        if !path.is_absolute() {
            return Err("the path is not absolute".to_owned());
        }
        if password.is_empty() {
            return Err("a password is needed".to_owned());
        }
        let shown = printable(path.as_os_str().as_bytes());
        let failed = |error: io::Error| format!("{shown}: {error}");
        let (file, facts) = open_regular(path).map_err(failed)?;
        if facts.len() > limit {
            return Err(format!("{shown} has {} bytes, more than {limit}", facts.len()));
        }
        let mut out = self.spool.create(order.id).map_err(|error| error.to_string())?;
        let name = crate::quarantine::entry_name(path.as_os_str().as_bytes());
        let (length, sha256) =
            pack_encrypted(&mut out, &name, password, file, limit).map_err(failed)?;
        spooled(out, format!("{shown}, {length} bytes, SHA-256 {sha256}"))
    }

    fn kill(&self, process: ProcessKey, acts: &Acts<'_>) -> Done {
        if process.start_ns == 0 {
            return Err("the start time of the process is not given".to_owned());
        }
        let done = self.host.kill(process)?;
        (acts.executed)(&done);
        let end = Instant::now() + KILLED;
        loop {
            match has_ended(process) {
                Ok(observed) => return verified(format!("{done}; {observed}")),
                Err(why) if Instant::now() >= end => return Err(format!("{done}; {why}")),
                Err(_) => std::thread::sleep(Duration::from_millis(20)),
            }
        }
    }

    fn deny(
        &self,
        order: &Ordered,
        (kind, value): (DenialKind, &str),
        duration_s: Option<u64>,
        acts: &Acts<'_>,
    ) -> Done {
        let done = self.host.deny(kind, value, &order.why(), duration_s)?;
        (acts.executed)(&done);
        verified(self.denied(kind, value)?)
    }

    fn denied(&self, kind: DenialKind, value: &str) -> Result<String, String> {
        if self.host.is_denied(kind, value) {
            Ok("it stands in the rules that are in use".to_owned())
        } else {
            Err("it does not stand in the rules that are in use".to_owned())
        }
    }

    fn undeny(&self, kind: DenialKind, value: &str, acts: &Acts<'_>) -> Done {
        let done = self.host.undeny(kind, value)?;
        (acts.executed)(&done);
        verified(self.not_denied(kind, value)?)
    }

    fn not_denied(&self, kind: DenialKind, value: &str) -> Result<String, String> {
        match self.denied(kind, value) {
            Ok(_) => Err("it still stands in the rules that are in use".to_owned()),
            Err(_) => Ok("it stands in no rule that is in use".to_owned()),
        }
    }

    /// Its detection is looked for in the journal, as a person would.
    fn simulate(&self, name: &str, acts: &Acts<'_>) -> Done {
        let known = simulate::list().iter().find(|one| one.name == name);
        let simulation = known.ok_or_else(|| format!("there is no simulation {name:?}"))?;
        let follower = self.journal.follow();
        let since_ms = crate::now_ms();
        let said = run_simulation(simulation.name, acts.cancelled)?;
        if acts.cancelled.load(Ordering::Relaxed) {
            return Ok(Outcome::Cancelled("in the middle; what was done is undone".to_owned()));
        }
        (acts.executed)(&said);
        let end = Instant::now() + DETECTION;
        while Instant::now() < end {
            let Next::Event(event) = follower.next(Duration::from_millis(200)) else { continue };
            if let EventBody::Model(detection) = &event.body
                && detection.title == simulation.model
                && event.time_ms >= since_ms
            {
                let result = json!({ "event": event.id, "after_ms": event.time_ms - since_ms });
                return verified_with(format!("{} has fired", simulation.model), result);
            }
        }
        Err(format!("{said}, but {} has not fired", simulation.model))
    }

    fn shell(&self, order: &Ordered, restricted: bool, size: (u16, u16), acts: &Acts<'_>) -> Done {
        let opening = Opening {
            task: order.id,
            by: order.by.clone(),
            reason: order.reason.clone(),
            restricted,
            size,
        };
        let closed = self.shells.run(opening, acts.cancelled, acts.progress)?;
        (acts.executed)(&closed.how);
        let result = json!({ "open_s": closed.open_s, "exit": closed.exit });
        match closed.left {
            0 => verified_with(format!("{}; nothing of it runs any more", closed.how), result),
            left => Err(format!("{}; {left} of its processes did not end", closed.how)),
        }
    }

    fn process_list(&self, acts: &Acts<'_>) -> Done {
        let mut all = self.host.processes(MOST_PROCESSES);
        (acts.executed)("listed");
        let mut most = all.len();
        loop {
            all.truncate(most);
            let result = json!({ "processes": all, "complete": most < MOST_PROCESSES });
            if result.to_string().len() <= LARGEST_RESULT || most == 0 {
                return verified_with(format!("{most} processes"), result);
            }
            most /= 2;
        }
    }

    fn diagnostics(&self, order: &Ordered) -> Done {
        let mut entries: Vec<(&str, Vec<u8>)> = Vec::new();
        entries.push(("status.json", pretty(&self.host.status())));
        entries.push(("capabilities.json", pretty(&self.host.capabilities())));
        let mut collected = Collected::default();
        self.ask(Request::Doctor, &mut collected)?;
        entries.push(("doctor.json", pretty(&collected.doctor)));
        let state = self.isolation(Request::IsolationStatus)?;
        entries.push(("isolation.json", pretty(&state)));
        entries.push(("host.json", pretty(&super::host_facts())));
        let filter = Filter { limit: DIAGNOSTIC_EVENTS, ..Filter::default() };
        let mut events = Vec::new();
        self.journal
            .each(&filter, &mut |event| {
                serde_json::to_writer(&mut events, &event).is_ok() && {
                    events.push(b'\n');
                    true
                }
            })
            .map_err(|error| crate::error_chain(&error))?;
        entries.push(("events.jsonl", events));
        let mut out = self.spool.create(order.id).map_err(|error| error.to_string())?;
        pack_texts(&mut out, &entries).map_err(|error| error.to_string())?;
        spooled(out, "diagnostics".to_owned())
    }
}

fn in_numbers(scan: &ScanProgress) -> String {
    format!(
        "{} files and {} bytes scanned, {} malicious, {} failed, {} skipped",
        scan.files, scan.bytes, scan.found, scan.failed, scan.skipped
    )
}

/// One line of a scan that has not ended.
fn so_far(record: &ScanRecord) -> String {
    let guess = record.estimate.as_ref().map(|guess| {
        let left = guess.left_s.map(|left| format!(", about {left} s left")).unwrap_or_default();
        format!(", {} percent{left}", guess.percent)
    });
    let state = record.state.name();
    format!("{state}{}: {}", guess.unwrap_or_default(), in_numbers(&record.progress))
}

/// What the manager shows of a scan; the record itself comes as an event.
fn scan_result(record: &ScanRecord) -> serde_json::Value {
    let failed: Vec<_> = record
        .left_out
        .iter()
        .filter(|one| one.reason.is_failure())
        .flat_map(|one| {
            let reason = one.reason.name();
            one.examples.iter().map(move |path| json!({ "path": path, "reason": reason }))
        })
        .collect();
    json!({
        "scan_id": record.scan_id, "scan": record.progress, "found": record.finds,
        "failed": failed, "left_out": record.left_out, "running_ms": record.running_ms,
    })
}

fn pretty<T: serde::Serialize>(value: &T) -> Vec<u8> {
    serde_json::to_vec_pretty(value).unwrap_or_default()
}

fn spooled(out: SpoolFile, observed: String) -> Done {
    let finished = out.finish(observed);
    finished.map(Outcome::Spooled).map_err(|error| format!("the spool cannot be written: {error}"))
}

fn isolated(state: IsolationState) -> Result<String, String> {
    if !state.isolated {
        return Err("the host is not cut off".to_owned());
    }
    if !state.proven {
        return Err("the host is cut off, but no endpoint was seen to answer".to_owned());
    }
    let standing = state.layers.iter().filter(|layer| layer.standing);
    let standing: Vec<&str> = standing.map(|layer| layer.name.as_str()).collect();
    let allowed = state.allowed.join(", ");
    Ok(format!("cut off by {}; {allowed} answers", standing.join(", ")))
}

fn released(state: IsolationState) -> Result<String, String> {
    if state.isolated {
        Err("the host is still cut off".to_owned())
    } else {
        Ok("no layer stands".to_owned())
    }
}

fn has_ended(process: ProcessKey) -> Result<String, String> {
    // One that waits for its parent to take note has no memory and runs nothing.
    let folder = ProcDir::open_key(process);
    let stat = std::fs::read(format!("/proc/{}/stat", process.pid)).unwrap_or_default();
    let close = stat.iter().rposition(|byte| *byte == b')');
    let state = close.and_then(|close| stat.get(close + 2));
    if folder.is_none() || matches!(state, None | Some(b'Z' | b'X')) {
        Ok("the process has ended".to_owned())
    } else {
        Err("the process still runs".to_owned())
    }
}

/// A regular file, not followed if it is a link itself, and never waited for.
fn open_regular(path: &Path) -> io::Result<(File, std::fs::Metadata)> {
    let flags = nix::libc::O_NOFOLLOW | nix::libc::O_NONBLOCK | nix::libc::O_CLOEXEC;
    let file = File::options().read(true).custom_flags(flags).open(path)?;
    let facts = file.metadata()?;
    if !facts.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    // /proc and the like say 0 and give much; they are of size 0 and have no blocks.
    if facts.len() == 0 && facts.blocks() == 0 {
        let mut byte = [0];
        if file.read_at(&mut byte, 0)? > 0 {
            return Err(io::Error::other("it is made by the kernel as it is read"));
        }
    }
    Ok((file, facts))
}

fn hash(content: &mut impl Read) -> io::Result<String> {
    let (mut digest, mut chunk) = (Sha256::new(), vec![0; 256 << 10]);
    loop {
        let read = content.read(&mut chunk)?;
        if read == 0 {
            return Ok(hex(&digest.finalize()));
        }
        digest.update(&chunk[..read]);
    }
}

/// By the CLI beside this program: a simulation is its process's own act.
fn run_simulation(name: &str, cancelled: &AtomicBool) -> Result<String, String> {
    let cli = std::env::current_exe()
        .map(|own| own.with_file_name("holdfast"))
        .map_err(|error| error.to_string())?;
    let mut child = Command::new(cli)
        .args(["simulate", "run", name])
        .env_clear()
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|error| format!("holdfast cannot be started: {error}"))?;
    let end = Instant::now() + SIMULATION;
    let mut ended_by_us = false;
    loop {
        match child.try_wait().map_err(|error| error.to_string())? {
            Some(status) if status.success() => return Ok(format!("{name} was run")),
            Some(_) if ended_by_us && cancelled.load(Ordering::Relaxed) => {
                return Ok(format!("{name} was interrupted"));
            }
            Some(status) => return Err(format!("{name} did not run to its end: {status}")),
            None => {}
        }
        let late = Instant::now() >= end;
        if (late || cancelled.load(Ordering::Relaxed)) && !ended_by_us {
            // It undoes what it did.
            if let Some(pid) =
                rustix::process::Pid::from_raw(i32::try_from(child.id()).unwrap_or(0))
            {
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
            }
            ended_by_us = true;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Takes the replies to one request, bounded.
#[derive(Default)]
struct Collected<'a> {
    cancelled: Option<&'a Arc<AtomicBool>>,
    data: Option<&'a mut SpoolFile>,
    isolation: Option<Box<IsolationState>>,
    record: Option<Box<ScanRecord>>,
    item: Option<Box<holdfast_common::container::Metadata>>,
    items: Vec<Uuid>,
    restored: Option<String>,
    doctor: Vec<holdfast_common::control::DoctorLine>,
}

impl Answerer for Collected<'_> {
    fn reply(&mut self, reply: Reply) -> io::Result<()> {
        match reply {
            Reply::Isolation(state) => self.isolation = Some(state),
            Reply::Scan(record) => self.record = Some(record),
            Reply::QuarantineItem(item) => {
                self.items.push(item.id);
                self.item = Some(item);
            }
            Reply::Restored { path, .. } => self.restored = Some(path),
            Reply::DoctorLine(line) => self.doctor.push(line),
            Reply::ScanProgress(_)
            | Reply::ScanDone(_)
            | Reply::ScanFound(_)
            | Reply::ScanFailed { .. }
            | Reply::Schedule(_)
            | Reply::Status(_)
            | Reply::Policy(_)
            | Reply::Event(_)
            | Reply::Data { .. }
            | Reply::Model(_)
            | Reply::Suppression(_)
            | Reply::Denial(_)
            | Reply::Enrolled { .. }
            | Reply::Done
            | Reply::Error { .. } => {}
        }
        Ok(())
    }

    fn data(&mut self, bytes: &[u8]) -> io::Result<()> {
        use io::Write;
        match &mut self.data {
            Some(out) => out.write_all(bytes),
            None => Ok(()),
        }
    }

    fn gone(&self) -> bool {
        self.cancelled.is_some_and(|cancelled| cancelled.load(Ordering::Relaxed))
    }
}
