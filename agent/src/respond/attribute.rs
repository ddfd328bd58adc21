//! Who opened a malicious file? Looked up while the opener is still held, then it is answered.
//!
//! INVARIANT: a held open leaves here answered, soon. Reading a process's command line touches
//! its memory, which a hostile process can make block (userfaultfd, FUSE); so that read happens
//! in a thread that may be given up, and the answer does not wait for it longer than [`PATIENCE`].

use std::path::PathBuf;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use holdfast_common::process::ProcessInfo;
use holdfast_common::verdict::Decision;

use crate::on_access::Counters;
use crate::respond::act::Judged;
use crate::respond::{Found, Held, Needs};
use crate::sensor::ProcessTable;

/// How long a look-up may take before the answer goes out without it.
const PATIENCE: Duration = Duration::from_millis(100);

/// Observer threads that may hang at once; then the process table alone has to do.
const MOST_STUCK: usize = 8;

/// Ancestors named in an event.
pub(super) const MOST_PARENTS: usize = 8;

pub(super) struct Attribution {
    table: Arc<ProcessTable>,
    counters: Arc<Counters>,
    deadline: Duration,
    judged: mpsc::SyncSender<Judged>,
    observer: Option<Observer>,
    stuck: usize,
}

/// A thread that reads /proc and may hang.
struct Observer {
    ask: mpsc::Sender<u32>,
    told: mpsc::Receiver<Option<ProcessInfo>>,
}

impl Attribution {
    pub(super) fn new(needs: &Needs, judged: mpsc::SyncSender<Judged>) -> std::io::Result<Self> {
        Ok(Self {
            table: Arc::clone(&needs.table),
            counters: Arc::clone(&needs.counters),
            deadline: needs.deadline,
            judged,
            observer: Some(Observer::start()?),
            stuck: 0,
        })
    }

    pub(super) fn run(mut self, found: &mpsc::Receiver<Found>) {
        while let Ok(found) = found.recv() {
            self.attribute(found);
        }
    }

    fn attribute(&mut self, found: Found) {
        let process = self.look_up(found.pid);
        let parents = process
            .as_ref()
            .map(|process| self.table.ancestors(process, MOST_PARENTS))
            .unwrap_or_default();
        let file = match found.held {
            Held::Answered(file) => file,
            Held::Waiting(pending) => {
                let decision = found.decision.unwrap_or(Decision::Deny);
                let file = pending.answer(decision);
                let held = found.since.map_or(Duration::ZERO, |since| since.elapsed());
                self.counters.count_answer(decision, held, self.deadline);
                file
            }
        };
        let path = path_of(&file);
        let judged = Judged {
            file,
            path,
            facts: found.facts,
            signature: found.signature,
            hashes: found.hashes,
            scan_type: found.scan_type,
            decision: found.decision,
            quarantine: found.quarantine,
            process,
            parents,
        };
        // Full: sealing is slower than finding. Wait, as nobody is held by this one any more;
        // those behind it are given back to their loops when this queue, too, is full.
        if self.judged.send(judged).is_err() {
            tracing::error!("the responder has ended before its time");
        }
    }

    fn look_up(&mut self, pid: u32) -> Option<ProcessInfo> {
        if self.observer.is_none() && self.stuck < MOST_STUCK {
            self.observer = Observer::start().ok();
        }
        let observed = match &self.observer {
            Some(observer) => match observer.observe(pid, PATIENCE) {
                Ok(observed) => observed,
                Err(()) => {
                    self.observer = None;
                    self.stuck += 1;
                    None
                }
            },
            None => None,
        };
        observed.or_else(|| self.table.lookup(pid))
    }
}

impl Observer {
    fn start() -> std::io::Result<Self> {
        let (ask, asked) = mpsc::channel::<u32>();
        let (tell, told) = mpsc::channel();
        super::thread("observe", move || {
            while let Ok(pid) = asked.recv() {
                if tell.send(crate::sensor::observe(pid)).is_err() {
                    return;
                }
            }
        })?;
        Ok(Self { ask, told })
    }

    fn observe(&self, pid: u32, patience: Duration) -> Result<Option<ProcessInfo>, ()> {
        let until = Instant::now() + patience;
        self.ask.send(pid).map_err(drop)?;
        self.told.recv_timeout(until.saturating_duration_since(Instant::now())).map_err(drop)
    }
}

/// The path by which the kernel knows an open file.
pub(super) fn path_of(file: &impl std::os::fd::AsRawFd) -> PathBuf {
    std::fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd())).unwrap_or_default()
}
