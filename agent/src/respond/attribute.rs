//! Who opened a malicious file? Looked up while the opener is still held; then its loop is told.
//!
//! Reading a process's command line touches its memory, which a hostile process can make block
//! (userfaultfd, FUSE); so that read happens in a thread that may be given up after [`PATIENCE`].

use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use holdfast_common::process::ProcessInfo;

use crate::respond::act::Judged;
use crate::respond::{BootTime, Found, Needs};
use crate::sensor::ProcessTable;

/// How long a look-up may take before the opener goes without it.
const PATIENCE: Duration = Duration::from_millis(100);

/// Observer threads that may hang at once; then the process table alone has to do.
const MOST_OBSERVERS: usize = 8;

/// Ancestors named in an event.
pub(super) const MOST_PARENTS: usize = 8;

pub(super) struct Attribution {
    table: Arc<ProcessTable>,
    judged: mpsc::SyncSender<Judged>,
    observer: Option<Observer>,
    /// Observer threads that live, those given up among them.
    observers: Arc<AtomicUsize>,
}

/// A thread that reads /proc and may hang.
struct Observer {
    ask: mpsc::Sender<u32>,
    told: mpsc::Receiver<Option<ProcessInfo>>,
}

impl Attribution {
    pub(super) fn new(needs: &Needs, judged: mpsc::SyncSender<Judged>) -> std::io::Result<Self> {
        let observers = Arc::default();
        Ok(Self {
            table: Arc::clone(&needs.table),
            judged,
            observer: Some(Observer::start(&observers)?),
            observers,
        })
    }

    pub(super) fn run(mut self, found: &mpsc::Receiver<Found>) {
        while let Ok(found) = found.recv() {
            self.attribute(found);
        }
    }

    fn attribute(&mut self, found: Found) {
        let process = self.look_up(found.pid, found.seen);
        let parents = process.as_ref().map(|process| self.parents(process)).unwrap_or_default();
        let path = path_of(&found.file);
        if let Some(told) = found.answer_to {
            told.0();
        }
        let judged = Judged {
            file: found.file,
            path,
            facts: found.facts,
            signature: found.signature,
            hashes: found.hashes,
            scan_type: found.scan_type,
            decision: found.decision,
            quarantine: found.quarantine,
            process,
            parents,
            late: None,
        };
        // Full: sealing is slower than finding. Wait: nobody is held by this one any more, and
        // what comes behind is given back to its finder when this queue, too, is full.
        if self.judged.send(judged).is_err() {
            tracing::error!("the responder has ended before its time");
        }
    }

    /// From the process table; where that is behind (the sensor is slow, or off), from /proc.
    fn parents(&mut self, process: &ProcessInfo) -> Vec<ProcessInfo> {
        let mut chain: Vec<ProcessInfo> = Vec::new();
        let mut last = process.clone();
        while chain.len() < MOST_PARENTS {
            let mut known = self.table.ancestors(&last, MOST_PARENTS - chain.len());
            if known.is_empty() {
                let Some(parent) = last.parent else { break };
                let seen = BootTime(parent.start_ns);
                let found = self.look_up(parent.pid, seen).filter(|found| found.key == parent);
                let Some(found) = found else { break };
                known.push(found);
            }
            last.clone_from(&known[known.len() - 1]);
            chain.append(&mut known);
        }
        chain
    }

    fn look_up(&mut self, pid: u32, seen: BootTime) -> Option<ProcessInfo> {
        if self.observer.is_none() && self.observers.load(Ordering::Relaxed) < MOST_OBSERVERS {
            self.observer = Observer::start(&self.observers).ok();
        }
        let observed = match &self.observer {
            Some(observer) => match observer.observe(pid) {
                Ok(observed) => observed,
                Err(()) => {
                    self.observer = None;
                    None
                }
            },
            None => None,
        };
        // A process that began after the event has only inherited the number.
        observed
            .into_iter()
            .chain(self.table.lookup(pid))
            .find(|process| process.key.start_ns <= seen.0)
    }
}

impl Observer {
    fn start(living: &Arc<AtomicUsize>) -> std::io::Result<Self> {
        let (ask, asked) = mpsc::channel::<u32>();
        let (tell, told) = mpsc::channel();
        let living = Arc::clone(living);
        living.fetch_add(1, Ordering::Relaxed);
        super::thread("observe", move || {
            while let Ok(pid) = asked.recv() {
                if tell.send(crate::sensor::observe(pid)).is_err() {
                    break;
                }
            }
            living.fetch_sub(1, Ordering::Relaxed);
        })?;
        Ok(Self { ask, told })
    }

    fn observe(&self, pid: u32) -> Result<Option<ProcessInfo>, ()> {
        self.ask.send(pid).map_err(drop)?;
        self.told.recv_timeout(PATIENCE).map_err(drop)
    }
}

/// The path by which the kernel knows an open file.
pub(crate) fn path_of(file: &impl std::os::fd::AsRawFd) -> PathBuf {
    std::fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd())).unwrap_or_default()
}
