//! What follows when a model fired: the process tree is looked at, the policy's responses are
//! carried out, and the detection is written with what was done.
//!
//! One thread and a bounded queue: nobody who observes waits for a response. When the queue is
//! full the detection is written at once, says so, and is counted. A simulation is reported and
//! nothing else. The program's content is read before the process is killed.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};

use holdfast_common::event::{EventBody, LossEvent, ModelDetection};
use holdfast_common::process::{ProcessInfo, printable};
use holdfast_common::wire::hex;
use sha2::{Digest, Sha256};

use super::denied::Denied;
use super::tree;
use crate::config::Response;
use crate::journal::Journal;
use crate::sensor::ProcessTable;
use crate::sensor::proc::ProcDir;

/// Detections that may wait.
const QUEUE: usize = 256;
/// Descendants that a detection names.
const TREE_MAX: usize = 32;
/// Bytes of their description.
const TREE_BYTES: usize = 8192;
/// Larger programs are not denied by their content.
const PROGRAM_MAX: u64 = 1 << 30;
/// Where the system keeps what everybody runs.
const SYSTEM: [&str; 7] = ["/usr/", "/bin/", "/sbin/", "/lib/", "/lib64/", "/snap/", "/nix/"];

/// Does it and says in words what it did, or why not.
pub type Act<T> = Box<dyn Fn(T) -> Result<String, String> + Send>;

/// What responses need from the rest of the agent.
pub struct Needs {
    /// Where detections stay.
    pub journal: Journal,
    /// Who is whose child.
    pub table: Arc<ProcessTable>,
    /// Denies content from now on.
    pub deny: Act<Denied>,
    /// Cuts the host off, for this reason; `None` where that cannot be done.
    pub isolate: Option<Act<String>>,
}

/// Takes detections; never waits for a response. Clones share one queue.
#[derive(Clone)]
pub struct ModelResponder {
    queue: SyncSender<Task>,
    journal: Journal,
    lost: Arc<AtomicU64>,
}

struct Task {
    detection: ModelDetection,
    responses: Vec<Response>,
}

impl ModelResponder {
    /// Starts the thread; it ends when the last handle is dropped.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(needs: Needs) -> std::io::Result<Self> {
        let (queue, tasks) = sync_channel(QUEUE);
        let lost = Arc::new(AtomicU64::new(0));
        let journal = needs.journal.clone();
        let worker = Worker { needs, lost: Arc::clone(&lost) };
        super::thread("models", move || worker.run(&tasks))?;
        Ok(Self { queue, journal, lost })
    }

    /// Hands a detection over.
    pub fn respond(&self, detection: ModelDetection, responses: &[Response]) {
        let task = Task { detection, responses: responses.to_vec() };
        match self.queue.try_send(task) {
            Ok(()) => {}
            Err(TrySendError::Full(task) | TrySendError::Disconnected(task)) => {
                self.lost.fetch_add(1, Ordering::Relaxed);
                let mut detection = task.detection;
                detection.responded = "nothing: too many responses were waiting".to_owned();
                self.journal.record(EventBody::Model(Box::new(detection)));
            }
        }
    }
}

struct Worker {
    needs: Needs,
    lost: Arc<AtomicU64>,
}

impl Worker {
    fn run(&self, tasks: &Receiver<Task>) {
        while let Ok(task) = tasks.recv() {
            self.carry_out(task);
            let count = self.lost.swap(0, Ordering::Relaxed);
            if count > 0 {
                let queue = "responses of models".to_owned();
                self.needs.journal.record(EventBody::Loss(LossEvent { queue, count }));
            }
        }
    }

    fn carry_out(&self, task: Task) {
        let Task { mut detection, responses } = task;
        self.describe_tree(&mut detection);
        detection.responded = if detection.simulated {
            "nothing: this was a simulation".to_owned()
        } else {
            self.respond(&detection, &responses)
        };
        tracing::warn!(
            model = detection.title,
            pid = detection.process.key.pid,
            command_line = detection.process.command_line(),
            responded = detection.responded,
            "detection model fired"
        );
        self.needs.journal.record(EventBody::Model(Box::new(detection)));
    }

    /// Who the process started, as far as they still run.
    fn describe_tree(&self, detection: &mut ModelDetection) {
        let children = tree::descendants(detection.process.key, &self.needs.table, TREE_MAX);
        let mut text = String::new();
        for child in &children {
            let line = format!("{} {}: {}", child.key.pid, child.exe, child.command_line());
            if text.len() + line.len() > TREE_BYTES {
                text.push_str("; …");
                break;
            }
            if !text.is_empty() {
                text.push_str("; ");
            }
            text.push_str(&line);
        }
        if !text.is_empty() {
            detection.evidence.insert("descendants".to_owned(), text);
        }
    }

    fn respond(&self, detection: &ModelDetection, responses: &[Response]) -> String {
        let program = responses.contains(&Response::Deny).then(|| Program::of(&detection.process));
        let mut done = Vec::new();
        // Cutting off comes first: what is killed may have told others already.
        for kind in [Response::Isolate, Response::Kill, Response::Deny] {
            if !responses.contains(&kind) {
                continue;
            }
            done.push(match kind {
                Response::Isolate => self.isolate(detection),
                Response::Kill => self.kill(detection),
                Response::Deny => self.deny(detection, program.as_ref()),
                Response::None | Response::Alert => continue,
            });
        }
        done.join("; ")
    }

    fn kill(&self, detection: &ModelDetection) -> String {
        let key = detection.process.key;
        if key.start_ns == 0 {
            return "not killed: the start time of the process is not known".to_owned();
        }
        let ended = tree::kill(key, &self.needs.table, std::process::id());
        match (ended.killed, ended.left.len()) {
            (0, 0) => "nobody to kill: the process and all that it started had ended".to_owned(),
            (killed, 0) => format!("killed {killed} processes"),
            (killed, left) => format!("killed {killed} processes; {left} did not end"),
        }
    }

    fn deny(&self, detection: &ModelDetection, program: Option<&Program>) -> String {
        let denied = program.map_or_else(
            || Err("its program was not looked at".to_owned()),
            |program| {
                let sha256 = program.sha256()?;
                (self.needs.deny)(Denied {
                    sha256,
                    path: printable(program.path.as_os_str().as_encoded_bytes()),
                    model: detection.title.clone(),
                    since_ms: crate::now_ms(),
                    until_ms: None,
                    ordered: false,
                })
            },
        );
        match denied {
            Ok(done) => done,
            Err(why) => format!("not denied: {why}"),
        }
    }

    fn isolate(&self, detection: &ModelDetection) -> String {
        let Some(isolate) = &self.needs.isolate else {
            return "not isolated: isolation is not available".to_owned();
        };
        match isolate(format!("model {}", detection.title)) {
            Ok(done) => done,
            Err(why) => format!("not isolated: {why}"),
        }
    }
}

/// The content that a process runs: its script where it has one, else its executable.
struct Program {
    path: PathBuf,
    known: Option<String>,
    file: std::io::Result<File>,
}

impl Program {
    /// Opened now, since the process may be gone soon.
    fn of(process: &ProcessInfo) -> Self {
        let own = Path::new("/proc").join(process.key.pid.to_string());
        match &process.script {
            Some(script) => {
                let path = Path::new(&process.cwd).join(script);
                // As the process sees it: it may have another root.
                let inside = path.strip_prefix("/").unwrap_or(&path);
                let file = File::open(own.join("root").join(inside)).or_else(|_| File::open(&path));
                Self { path, known: None, file: checked(process, file) }
            }
            None => {
                let file = File::open(own.join("exe"));
                let path = PathBuf::from(&process.exe);
                Self { path, known: process.sha256.clone(), file: checked(process, file) }
            }
        }
    }

    /// # Errors
    /// Why it is not to be denied, in words.
    fn sha256(&self) -> Result<String, String> {
        if self.is_systems() {
            return Err(format!(
                "{} belongs to the system, and denying it would harm more",
                printable(self.path.as_os_str().as_encoded_bytes())
            ));
        }
        if let Some(known) = &self.known {
            return Ok(known.clone());
        }
        let file = self.file.as_ref().map_err(|error| format!("its program is gone: {error}"))?;
        let facts = file.metadata().map_err(|error| error.to_string())?;
        if !facts.is_file() || facts.len() > PROGRAM_MAX {
            return Err("its program is no regular file, or too large".to_owned());
        }
        let (mut digest, mut chunk) = (Sha256::new(), vec![0; 64 << 10]);
        let mut reader = file.take(PROGRAM_MAX);
        loop {
            let read = reader.read(&mut chunk).map_err(|error| error.to_string())?;
            if read == 0 {
                return Ok(hex(&digest.finalize()));
            }
            digest.update(&chunk[..read]);
        }
    }

    /// Root's own, where the system keeps its programs: an interpreter, most likely.
    fn is_systems(&self) -> bool {
        let there = SYSTEM.iter().any(|folder| self.path.starts_with(folder));
        there
            && self.path.symlink_metadata().is_ok_and(|facts| {
                facts.uid() == 0 && (facts.is_symlink() || facts.mode() & 0o022 == 0)
            })
    }
}

/// The file counts only if the process was still the one that the detection is about.
fn checked(process: &ProcessInfo, file: std::io::Result<File>) -> std::io::Result<File> {
    let file = file?;
    match ProcDir::open_key(process.key) {
        Some(_) => Ok(file),
        None => Err(std::io::ErrorKind::NotFound.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command};
    use std::sync::Mutex;

    use uuid::Uuid;

    use super::*;
    use crate::journal::Filter;

    struct Owned(Child);

    impl Drop for Owned {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }

    struct Stage {
        folder: tempfile::TempDir,
        journal: Journal,
        responder: ModelResponder,
        denied: Arc<Mutex<Vec<Denied>>>,
    }

    fn stage() -> Stage {
        let folder = tempfile::tempdir().expect("folder");
        let limits = crate::config::Journal::default();
        let journal = Journal::open(folder.path(), "host".to_owned(), &limits).expect("journal");
        let denied: Arc<Mutex<Vec<Denied>>> = Arc::default();
        let list = Arc::clone(&denied);
        let responder = ModelResponder::start(Needs {
            journal: journal.clone(),
            table: Arc::new(ProcessTable::from_proc()),
            deny: Box::new(move |new| {
                list.lock().expect("not poisoned").push(new);
                Ok("denied".to_owned())
            }),
            isolate: None,
        })
        .expect("responder");
        Stage { folder, journal, responder, denied }
    }

    fn detection(pid: u32, simulated: bool) -> ModelDetection {
        let process = crate::sensor::proc::observe(pid).expect("process");
        ModelDetection {
            model_id: Uuid::nil(),
            title: "A Model".to_owned(),
            level: "high".to_owned(),
            attack: Vec::new(),
            process,
            parents: Vec::new(),
            evidence: Default::default(),
            events: Vec::new(),
            advice: String::new(),
            response: String::new(),
            responded: String::new(),
            simulated,
        }
    }

    fn recorded(stage: &Stage) -> ModelDetection {
        let follower = stage.journal.follow();
        let filter = Filter { kind: Some("model".to_owned()), ..Filter::default() };
        loop {
            if let Some(event) = stage.journal.query(&filter).expect("query").pop()
                && let EventBody::Model(detection) = event.body
            {
                return *detection;
            }
            let _ = follower.next(std::time::Duration::from_millis(100));
        }
    }

    #[test]
    fn a_simulation_is_reported_and_left_alone() {
        let stage = stage();
        let mut child = Owned(Command::new("sleep").arg("104").spawn().expect("child"));
        let all = [Response::Kill, Response::Deny, Response::Isolate];
        stage.responder.respond(detection(child.0.id(), true), &all);
        assert_eq!(recorded(&stage).responded, "nothing: this was a simulation");
        assert!(child.0.try_wait().expect("wait").is_none());
        assert!(stage.denied.lock().expect("not poisoned").is_empty());
    }

    #[test]
    fn a_program_of_its_own_is_denied_by_its_content_and_one_of_the_system_is_not() {
        let stage = stage();
        let copy = stage.folder.path().join("copy");
        // Not in this process, whose other threads start children (ETXTBSY).
        assert!(Command::new("cp").arg("/bin/sleep").arg(&copy).status().expect("cp").success());
        let child = Owned(Command::new(&copy).arg("105").spawn().expect("child"));
        let found = detection(child.0.id(), false);
        stage.responder.respond(found, &[Response::Deny, Response::Isolate]);
        let responded = recorded(&stage).responded;
        assert_eq!(responded, "not isolated: isolation is not available; denied");
        let denied = stage.denied.lock().expect("not poisoned").pop().expect("denied");
        let content = std::fs::read("/bin/sleep").expect("read");
        assert_eq!(denied.sha256, hex(&Sha256::digest(content)));
        let system = Owned(Command::new("/bin/sleep").arg("106").spawn().expect("child"));
        let program = Program::of(&detection(system.0.id(), false).process);
        assert!(program.sha256().expect_err("refused").contains("belongs to the system"));
    }

    #[test]
    fn a_full_queue_is_told_and_counted() {
        let mut stage = stage();
        let (queue, tasks) = sync_channel(0);
        stage.responder.queue = queue;
        stage.responder.respond(detection(std::process::id(), false), &[Response::Kill]);
        assert_eq!(recorded(&stage).responded, "nothing: too many responses were waiting");
        assert_eq!(stage.responder.lost.load(Ordering::Relaxed), 1);
        drop(tasks);
    }
}
