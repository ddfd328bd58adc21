//! What the parts of the agent saw of the prover's markers.
//!
//! The responder asks about each malicious file, the sensor's sink about each event: what belongs
//! to a marker is told here, and nowhere else, so that no marker appears among detections.
//!
//! INVARIANT: only what the prover itself made counts as its own: a file by its random content, a
//! process by being the agent's own child, running the agent's own program, with this round's
//! secret. Marker content that somebody else wrote is reported like any other detection.

use std::collections::{HashMap, VecDeque};
use std::path::Path;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use holdfast_common::event::{EventBody, ModelDetection};
use holdfast_common::process::{ProcessInfo, ProcessKey, printable};
use holdfast_common::verdict::{Disposition, Signature};
use uuid::Uuid;

/// Processes of the prover that are remembered, for what the sensor tells late.
const PROBES_KEPT: usize = 32;

/// SHA-256 of a marker's content, in hex: inodes look different through an overlay.
pub type FileId = String;

/// A planted file, and what became of it.
#[derive(Debug, Clone, Default)]
pub struct Marker {
    /// Goes to quarantine like a real find; otherwise the detection alone is proven.
    pub seal: bool,
    /// The responder got it.
    pub fate: Option<Fate>,
}

/// What the responder did with a marker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fate {
    /// What matched.
    pub signature: Signature,
    /// What finally happened.
    pub disposition: Disposition,
    /// The quarantine item.
    pub item: Option<Uuid>,
    /// Why the disposition is not better.
    pub reason: Option<String>,
}

/// What the sensor and the models told of this round's process.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sightings {
    /// Its start.
    pub exec: bool,
    /// Its packet socket.
    pub capture: bool,
    /// The model of its own.
    pub model: bool,
}

/// Shared by the prover, the responder and the sensor's sink.
#[derive(Debug)]
pub struct Witness {
    program: String,
    seen: Mutex<Seen>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Seen {
    markers: HashMap<FileId, Marker>,
    secret: Option<String>,
    probes: VecDeque<ProcessKey>,
    sightings: Sightings,
    closed: bool,
}

impl Witness {
    /// `program` is the agent's own executable.
    #[must_use]
    pub fn new(program: &Path) -> Self {
        use std::os::unix::ffi::OsStrExt;
        let program = printable(program.as_os_str().as_bytes());
        Self { program, seen: Mutex::default(), changed: Condvar::new() }
    }

    /// Whether this malicious file is a marker, and whether it is to be sealed.
    #[must_use]
    pub fn is_marker(&self, file: &str) -> Option<bool> {
        self.seen().markers.get(file).map(|marker| marker.seal)
    }

    /// The responder is done with a marker. The first word counts.
    pub fn tell_fate(&self, file: &str, fate: Fate) {
        if let Some(marker) = self.seen().markers.get_mut(file)
            && marker.fate.is_none()
        {
            marker.fate = Some(fate);
        }
        self.changed.notify_all();
    }

    /// True when the event is about the prover's own process: it is told to nobody else.
    pub fn takes(&self, body: &EventBody) -> bool {
        let mut seen = self.seen();
        let taken = match body {
            EventBody::Exec(exec) if self.is_probe(&exec.process, &seen) => {
                seen.sightings.exec = true;
                seen.probes.push_back(exec.process.key);
                if seen.probes.len() > PROBES_KEPT {
                    seen.probes.pop_front();
                }
                true
            }
            EventBody::PacketSocket(socket) if seen.probes.contains(&socket.process.key) => {
                seen.sightings.capture = true;
                true
            }
            EventBody::Activity(event) => seen.probes.contains(&event.process.key),
            EventBody::Network(event) => seen.probes.contains(&event.process.key),
            EventBody::File(event) => seen.probes.contains(&event.process.key),
            EventBody::Exec(_)
            | EventBody::PacketSocket(_)
            | EventBody::Malware(_)
            | EventBody::Model(_)
            | EventBody::Failure(_)
            | EventBody::Quarantine(_)
            | EventBody::Scan(_)
            | EventBody::Proof(_)
            | EventBody::Isolation(_)
            | EventBody::Shell(_)
            | EventBody::Tampering(_)
            | EventBody::AgentStarted(_)
            | EventBody::AgentStopped
            | EventBody::ProtectionGap(_)
            | EventBody::Bundle(_)
            | EventBody::Policy(_)
            | EventBody::Coverage(_)
            | EventBody::Loss(_) => false,
        };
        drop(seen);
        if taken {
            self.changed.notify_all();
        }
        taken
    }

    /// A model fired for an event that [`Witness::takes`] took.
    pub fn fired(&self, detection: &ModelDetection) {
        if detection.title == super::MODEL {
            self.seen().sightings.model = true;
            self.changed.notify_all();
        }
    }

    /// Nobody waits any more.
    pub(super) fn close(&self) {
        self.seen().closed = true;
        self.changed.notify_all();
    }

    /// A new round begins: `secret` is on its process's command line.
    pub(super) fn begin(&self, secret: &str) {
        let mut seen = self.seen();
        seen.secret = Some(secret.to_owned());
        seen.sightings = Sightings::default();
    }

    /// The file is a marker from now on.
    pub(super) fn plant(&self, file: FileId, seal: bool) {
        self.seen().markers.insert(file, Marker { seal, fate: None });
    }

    /// What became of a marker so far.
    pub(super) fn fate(&self, file: &str) -> Option<Fate> {
        self.seen().markers.get(file)?.fate.clone()
    }

    /// The content is no marker any more.
    pub(super) fn forget(&self, file: &str) {
        self.seen().markers.remove(file);
    }

    /// Waits until every one of these markers has its fate, or the time is over.
    pub(super) fn wait_for_fates(&self, files: &[FileId], patience: Duration) {
        self.wait(patience, |seen| {
            files.iter().all(|file| seen.markers.get(file).is_none_or(|m| m.fate.is_some()))
        });
    }

    /// Waits until the wanted sightings are there, or the time is over; what was seen.
    pub(super) fn wait_for_sightings(&self, wanted: Sightings, patience: Duration) -> Sightings {
        self.wait(patience, |seen| {
            let Sightings { exec, capture, model } = seen.sightings;
            (exec || !wanted.exec) && (capture || !wanted.capture) && (model || !wanted.model)
        });
        self.seen().sightings
    }

    fn wait(&self, patience: Duration, enough: impl Fn(&Seen) -> bool) {
        let end = Instant::now() + patience;
        let mut seen = self.seen();
        while !enough(&seen) && !seen.closed {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            seen = self.changed.wait_timeout(seen, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn is_probe(&self, process: &ProcessInfo, seen: &Seen) -> bool {
        let ours = process.parent.is_some_and(|parent| parent.pid == std::process::id());
        ours && process.exe == self.program
            && seen.secret.as_ref().is_some_and(|secret| process.args.get(2) == Some(secret))
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use holdfast_common::event::ExecEvent;

    use super::*;

    fn exec(parent: u32, exe: &str, secret: &str) -> EventBody {
        let process = ProcessInfo {
            key: ProcessKey { pid: 77, start_ns: 1 },
            parent: Some(ProcessKey { pid: parent, start_ns: 1 }),
            exe: exe.to_owned(),
            args: ["holdfastd", "probe", secret].map(str::to_owned).to_vec(),
            ..ProcessInfo::default()
        };
        EventBody::Exec(Box::new(ExecEvent { process, parents: Vec::new(), count: 1 }))
    }

    #[test]
    fn only_the_agents_own_child_with_the_secret_is_excused() {
        let witness = Witness::new(Path::new("/usr/sbin/holdfastd"));
        let own = std::process::id();
        assert!(!witness.takes(&exec(own, "/usr/sbin/holdfastd", "s")), "no round has begun");
        witness.begin("s");
        assert!(!witness.takes(&exec(own + 1, "/usr/sbin/holdfastd", "s")), "another parent");
        assert!(!witness.takes(&exec(own, "/tmp/holdfastd", "s")), "another program");
        assert!(!witness.takes(&exec(own, "/usr/sbin/holdfastd", "t")), "another secret");
        assert!(witness.takes(&exec(own, "/usr/sbin/holdfastd", "s")));
        let seen = witness
            .wait_for_sightings(Sightings { exec: true, ..Sightings::default() }, Duration::ZERO);
        assert_eq!(seen, Sightings { exec: true, ..Sightings::default() });
    }

    #[test]
    fn a_file_is_a_marker_from_planting_to_forgetting() {
        let witness = Witness::new(Path::new("/x"));
        assert_eq!(witness.is_marker("hash"), None);
        witness.plant("hash".to_owned(), true);
        assert_eq!(witness.is_marker("hash"), Some(true));
        witness.wait_for_fates(&["hash".to_owned()], Duration::ZERO);
        assert_eq!(witness.fate("hash"), None, "nobody told its fate");
        witness.forget("hash");
        assert_eq!(witness.is_marker("hash"), None);
    }
}
