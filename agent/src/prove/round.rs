//! One round: plant, let the child open and start and capture, collect, clean up.

use std::collections::HashSet;
use std::ffi::OsString;
use std::io::{BufRead, BufReader};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use holdfast_common::control::FileSystemState;
use holdfast_common::event::{EventBody, ProofEvent};
use holdfast_common::process::unprintable;
use holdfast_common::verdict::Disposition;
use rustix::io::Errno;
use uuid::Uuid;

use super::lines::{Found, GONE};
use super::marker::Planted;
use super::probe::Orders;
use super::witness::{Fate, Sightings};
use super::{Inner, MODEL, checks, lock};
use crate::now_ms;

/// File systems proven in one round; further ones are told as not proven.
const MOST_FILE_SYSTEMS: usize = 64;
/// Beyond the deadline of the opens: starting the child, sealing, journal.
const PATIENCE: Duration = Duration::from_secs(8);
/// The sensor polls for sockets every 5 s where it cannot be told.
const SENSOR_PATIENCE: Duration = Duration::from_secs(7);
/// A round that failed is tried again before it counts: a worker may just have been replaced.
const TRIES: usize = 2;

const NAMESPACE: &str = "on access: fresh mount namespace";
const ON_ACCESS: &str = "on access: ";

/// How much of the protection a round makes act.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Depth {
    /// Every file system, a fresh mount namespace, sealing, a packet socket, the journal.
    Whole,
    /// One file system in turn; nothing is sealed.
    Quick,
}

/// A round under way.
pub(super) struct Round<'a> {
    inner: &'a Inner,
    depth: Depth,
    secret: String,
    found: Vec<Found>,
}

/// A file system's marker, and what became of it.
struct Trial {
    capability: String,
    planted: Planted,
    errno: Option<i32>,
    fate: Option<Fate>,
}

impl<'a> Round<'a> {
    pub(super) fn new(inner: &'a Inner, depth: Depth) -> Self {
        Self { inner, depth, secret: Uuid::now_v7().simple().to_string(), found: Vec::new() }
    }

    /// The lines of the round.
    pub(super) fn run(mut self) -> Vec<Found> {
        self.inner.witness.begin(&self.secret);
        let mut trials = self.plant();
        let mut seen = Sightings::default();
        for attempt in 1..=TRIES {
            seen = self.attempt(&mut trials);
            if attempt == TRIES || (trials.iter().all(|trial| self.held(trial)) && self.saw(seen)) {
                break;
            }
        }
        for trial in &trials {
            self.judge(trial);
        }
        self.judge_scan_core(&trials);
        self.judge_sensor(seen);
        if self.depth == Depth::Whole {
            self.judge_quarantine(&trials);
            self.judge_journal();
        }
        self.clean(trials);
        self.found.extend(looked_at(self.inner));
        self.found
    }

    /// Markers in every file system of this round; those where none can be told as such.
    fn plant(&mut self) -> Vec<Trial> {
        let mut systems: Vec<FileSystemState> = self
            .inner
            .protection
            .file_systems()
            .into_iter()
            .filter(|system| system.protected)
            .collect();
        self.forget_gone(&systems);
        let mut devices = HashSet::new();
        systems.retain(|system| {
            let device = rustix::fs::stat(folder_of(system)).map(|stat| stat.st_dev);
            device.is_err() || device.is_ok_and(|device| devices.insert(device))
        });
        if self.depth == Depth::Quick && !systems.is_empty() {
            let mut turn = lock(&self.inner.turn);
            systems = vec![systems.swap_remove(*turn % systems.len())];
            *turn = turn.wrapping_add(1);
        }
        let mut trials = Vec::new();
        for (index, system) in systems.iter().enumerate() {
            let capability = format!("{ON_ACCESS}{}", system.mount);
            if index >= MOST_FILE_SYSTEMS {
                let evidence = format!("more than {MOST_FILE_SYSTEMS} file systems");
                self.tell(&capability, Err(evidence), Some("protect fewer, or ask us"));
                continue;
            }
            self.plant_one(capability, &folder_of(system), &mut trials);
        }
        if self.depth == Depth::Whole
            && let Some(folder) = trials.first().and_then(|trial| trial.planted.path.parent())
        {
            let folder = folder.to_owned();
            self.plant_one(NAMESPACE.to_owned(), &folder, &mut trials);
        }
        trials
    }

    fn plant_one(&mut self, capability: String, folder: &Path, trials: &mut Vec<Trial>) {
        let seal = self.depth == Depth::Whole;
        match Planted::plant(folder, |id| self.inner.witness.plant(id, seal)) {
            Ok(planted) => trials.push(Trial { capability, planted, errno: None, fate: None }),
            Err(error @ (Errno::ROFS | Errno::NOSPC | Errno::DQUOT)) => {
                let marked = self.mark_stands(folder);
                let evidence = format!("no marker can be written there ({error})");
                let proof = if marked {
                    Ok(format!("marked; {evidence}"))
                } else {
                    Err(format!("{evidence}, and its mark is not to be seen"))
                };
                self.tell(&capability, proof, None);
            }
            Err(error) => {
                let evidence = format!("no marker can be written there: {error}");
                self.tell(&capability, Err(evidence), Some("look at the mount and its owner"));
            }
        }
    }

    /// Lets the child do everything once, and collects what was seen of it.
    fn attempt(&self, trials: &mut [Trial]) -> Sightings {
        let open: Vec<usize> =
            (0..trials.len()).filter(|index| !self.held(&trials[*index])).collect();
        let (namespace, plain): (Vec<usize>, Vec<usize>) =
            open.into_iter().partition(|index| trials[*index].capability == NAMESPACE);
        let capture = self.depth == Depth::Whole && self.inner.protection.sensor().is_some();
        let orders = Orders {
            secret: self.secret.clone(),
            capture,
            namespace: namespace.first().map(|index| trials[*index].planted.path.clone()),
            files: plain.iter().map(|index| trials[*index].planted.path.clone()).collect(),
        };
        let mut probe = match Probe::start(&self.inner.program, &orders) {
            Ok(probe) => probe,
            Err(error) => {
                tracing::error!(%error, "the prover's own process does not start");
                return Sightings::default();
            }
        };
        let patience = self.inner.protection.deadline() + PATIENCE;
        for index in plain.iter().chain(&namespace) {
            trials[*index].errno = probe.answer(patience);
        }
        if capture {
            // Its socket: seen or not is the witness's to say.
            let _ = probe.answer(patience);
        }
        let wanted = self.wanted(capture);
        let seen = self.inner.witness.wait_for_sightings(wanted, SENSOR_PATIENCE);
        probe.end();
        let files: Vec<_> = trials.iter().map(|trial| trial.planted.id.clone()).collect();
        self.inner.witness.wait_for_fates(&files, patience);
        for trial in trials.iter_mut() {
            trial.fate = self.inner.witness.fate(&trial.planted.id);
        }
        seen
    }

    fn wanted(&self, capture: bool) -> Sightings {
        let sensor = self.inner.protection.sensor().is_some();
        let model = sensor && self.inner.protection.model_is_on();
        Sightings { exec: sensor, capture, model }
    }

    fn saw(&self, seen: Sightings) -> bool {
        let wanted = self.wanted(self.depth == Depth::Whole);
        let sensor = self.inner.protection.sensor().is_some();
        !sensor
            || ((seen.exec || !wanted.exec)
                && (seen.capture || !wanted.capture)
                && (seen.model || !wanted.model))
    }

    /// The open was held and judged.
    fn held(&self, trial: &Trial) -> bool {
        let answered = match (trial.errno, self.inner.protection.blocks()) {
            (Some(errno), true) => errno == Errno::PERM.raw_os_error(),
            (Some(errno), false) => errno == 0,
            (None, _) => false,
        };
        answered && trial.fate.is_some()
    }

    fn judge(&mut self, trial: &Trial) {
        let signature = trial.fate.as_ref().map_or("", |fate| &fate.signature.name);
        let answer = match trial.errno {
            None => "did not return in time".to_owned(),
            Some(0) => "was let through".to_owned(),
            Some(errno) => format!("failed: {}", Errno::from_raw_os_error(errno.abs())),
        };
        let reported = if trial.fate.is_some() { "reported" } else { "not reported" };
        let folder = trial.planted.path.parent().unwrap_or(Path::new("/"));
        let proof = if self.held(trial) {
            let word = if self.inner.protection.blocks() { "denied" } else { "detected" };
            Ok(format!("a marker's open was {word} and reported as {signature}"))
        } else if self.mark_stands(folder) {
            Err(format!("a marker's open {answer}, {reported}, although the mark stands"))
        } else {
            Err(format!("the mark is gone; a marker's open {answer}, {reported}"))
        };
        self.tell(&trial.capability, proof, Some("restart the agent; see the log for the cause"));
    }

    /// Held, but without a verdict in time: that is not the mark's fault.
    fn judge_scan_core(&mut self, trials: &[Trial]) {
        let Some(first) = trials.first() else { return };
        let proof = match trials.iter().find(|trial| self.held(trial)) {
            Some(Trial { fate: Some(fate), .. }) => {
                Ok(format!("a marker was found by {:?}", fate.signature.engine).to_lowercase())
            }
            _ if !self.mark_stands(first.planted.path.parent().unwrap_or(Path::new("/"))) => return,
            _ if trials.iter().any(|trial| trial.fate.is_some()) => {
                Err("a marker was found malicious only after its open had been answered".to_owned())
            }
            _ => Err("opens are held, but no marker was found malicious".to_owned()),
        };
        let advice = "look whether holdfast-scan runs and the rules are whole";
        self.tell("scan core", proof, Some(advice));
    }

    fn judge_sensor(&mut self, seen: Sightings) {
        let Some(blind) = self.inner.protection.sensor() else { return };
        let word = |seen: bool, yes: &str, no: &str| {
            if seen { Ok(yes.to_owned()) } else { Err(no.to_owned()) }
        };
        let advice = Some("holdfast doctor says which program is missing; restart the agent");
        let exec = word(seen.exec, "the start of a process was seen", "a process started unseen");
        self.tell("sensor: exec", exec, advice);
        if self.depth == Depth::Whole {
            let capture =
                word(seen.capture, "a packet socket was seen", "a packet socket was opened unseen");
            self.tell("sensor: capture", capture, advice);
        }
        let programs =
            if blind.is_empty() { Ok("all attached".to_owned()) } else { Err(blind.join("; ")) };
        self.tell("sensor: programs", programs, advice);
        let model = if !self.inner.protection.model_is_on() {
            Err(format!("the model {MODEL} is off"))
        } else if seen.exec {
            word(seen.model, "its own model fired", "its own model did not fire")
        } else {
            Err("nothing was seen that it could fire on".to_owned())
        };
        self.tell("detection models", model, Some("holdfast models enable 'Holdfast Self-Proof'"));
    }

    fn judge_quarantine(&mut self, trials: &[Trial]) {
        if !self.inner.protection.blocks() {
            return;
        }
        let fates: Vec<&Fate> = trials.iter().filter_map(|trial| trial.fate.as_ref()).collect();
        let failed = fates.iter().find(|fate| fate.disposition != Disposition::Quarantined);
        let proof = match failed {
            _ if fates.is_empty() => Err("no marker came to be sealed".to_owned()),
            Some(fate) => Err(fate
                .reason
                .clone()
                .unwrap_or_else(|| format!("a marker was {:?}", fate.disposition).to_lowercase())),
            None => Ok(format!("{} sealed and destroyed again", fates.len())),
        };
        self.tell("quarantine", proof, Some("make room below the state folder"));
    }

    fn judge_journal(&mut self) {
        let event = ProofEvent {
            capability: "journal".to_owned(),
            ok: true,
            evidence: "written to be read back".to_owned(),
        };
        let id = self.inner.protection.record(EventBody::Proof(event));
        let proof = match self.inner.protection.is_journalled(id) {
            Ok(true) => Ok("an event was written and read back".to_owned()),
            Ok(false) => Err("an event that was written is not there".to_owned()),
            Err(error) => Err(error),
        };
        self.tell("journal", proof, Some("look at the disk below the state folder"));
    }

    fn clean(&self, trials: Vec<Trial>) {
        for trial in trials {
            trial.planted.remove();
            // It may have come to its fate only now.
            let fate = self.inner.witness.fate(&trial.planted.id);
            if let Some(item) = fate.and_then(|fate| fate.item)
                && let Err(error) = self.inner.protection.destroy_item(item)
            {
                tracing::warn!(error, "a marker stays in quarantine");
            }
            // Last: until then its item is not listed.
            self.inner.witness.forget(&trial.planted.id);
        }
    }

    /// Lines of file systems that are no longer there.
    fn forget_gone(&mut self, systems: &[FileSystemState]) {
        let now: HashSet<String> =
            systems.iter().map(|system| format!("{ON_ACCESS}{}", system.mount)).collect();
        for name in lock(&self.inner.lines).names(ON_ACCESS) {
            if name != NAMESPACE && !now.contains(&name) {
                self.found.push(Found {
                    capability: name,
                    ok: true,
                    evidence: GONE.to_owned(),
                    advice: None,
                    time_ms: now_ms(),
                });
            }
        }
    }

    /// Where that cannot be told, the rest of the evidence has to do.
    fn mark_stands(&self, folder: &Path) -> bool {
        self.inner.protection.is_marked(folder).unwrap_or(true)
    }

    fn tell(&mut self, capability: &str, proof: Result<String, String>, advice: Option<&str>) {
        self.found.push(line(capability, proof, advice));
    }
}

/// What is looked at in every round, and between rounds.
pub(super) fn looked_at(inner: &Inner) -> Vec<Found> {
    let (bundle, wanted) = inner.protection.bundle();
    let rules = bundle.hashes + bundle.yara_rules;
    let proof = match (&bundle.refused, wanted) {
        (Some(refused), _) => Err(format!("the newest bundle was refused: {refused}")),
        (None, true) if rules == 0 => Err(format!("{} holds no rule", bundle.path)),
        (None, true) => Ok(format!("{} hashes, {} YARA rules", bundle.hashes, bundle.yara_rules)),
        (None, false) => Ok("built-in rules alone; no bundle is configured".to_owned()),
    };
    let mut found =
        vec![line("rules", proof, Some("put a bundle there and run holdfast bundle reload"))];
    if inner.protection.blocks() {
        let (most, used) = inner.protection.quarantine();
        let proof = checks::quarantine_room(&inner.state_dir, used.bytes, most);
        found.push(line("quarantine: room", proof, Some("delete items, or make room on the disk")));
    }
    if let Some(unit) = &inner.config.unit {
        let advice = format!("systemctl enable {unit}");
        found.push(line("start at boot", checks::enabled_at_boot(unit), Some(&advice)));
    }
    found
}

/// The mount point of a file system.
pub(super) fn folder_of(system: &FileSystemState) -> PathBuf {
    OsString::from_vec(unprintable(&system.mount)).into()
}

fn line(capability: &str, proof: Result<String, String>, advice: Option<&str>) -> Found {
    let (ok, evidence) = match proof {
        Ok(evidence) => (true, evidence),
        Err(evidence) => (false, evidence),
    };
    let advice = advice.filter(|_| !ok).map(str::to_owned);
    Found { capability: capability.to_owned(), ok, evidence, advice, time_ms: now_ms() }
}

/// The child, and the lines that it prints.
struct Probe {
    child: Child,
    lines: mpsc::Receiver<i32>,
}

impl Probe {
    fn start(program: &Path, orders: &Orders) -> std::io::Result<Self> {
        let mut child = Command::new(program)
            .args(orders.arguments())
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        let (say, lines) = mpsc::channel();
        if let Some(out) = child.stdout.take() {
            let read = move || {
                for line in BufReader::new(out).lines().map_while(Result::ok) {
                    let Ok(errno) = line.trim().parse() else { break };
                    if say.send(errno).is_err() {
                        break;
                    }
                }
            };
            std::thread::Builder::new().name("prove-probe".to_owned()).spawn(read)?;
        }
        Ok(Self { child, lines })
    }

    /// The next line; `None` when it does not come.
    fn answer(&self, patience: Duration) -> Option<i32> {
        self.lines.recv_timeout(patience).ok()
    }

    /// Its standard input ends, and so should it.
    fn end(&mut self) {
        drop(self.child.stdin.take());
        // Its lines end when it does.
        let end = Instant::now() + Duration::from_secs(2);
        while let Ok(_late) = self.lines.recv_timeout(end.saturating_duration_since(Instant::now()))
        {
        }
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        self.end();
        // It has ended already, or hangs in an open that nobody answers: a held task can be killed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
