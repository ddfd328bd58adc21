//! Who did it, from the pid of an event.
//!
//! A pid alone may be another process by now. The kernel's pidfd tells: what /proc says of a pid
//! is about the doer when that process lives after it was asked. Where it was gone before, the
//! table of ended processes is asked for the newest process with that pid that had begun by then.
//! Nothing here blocks: arguments come from the table alone.

use std::collections::HashMap;
use std::os::fd::AsFd;

use holdfast_common::process::{ProcessInfo, ProcessKey};

use crate::respond::BootTime;
use crate::sensor::ProcessTable;
use crate::sensor::proc::ProcDir;
use crate::sys::notice::{Notice, lives};

/// A doer, as it was seen.
#[derive(Debug, Clone)]
pub(super) struct Who {
    pid: u32,
    /// When the event was read.
    seen: u64,
    /// What /proc said while it lived.
    live: Option<Box<ProcessInfo>>,
}

/// Doers of one batch of events: each is looked up once.
#[derive(Default)]
pub(super) struct Batch(HashMap<u32, Who>);

impl Batch {
    pub(super) fn who(&mut self, notice: &Notice) -> Who {
        if let Some(known) = self.0.get(&notice.pid) {
            return known.clone();
        }
        let live = notice.process.as_ref().and_then(|process| {
            let facts = ProcDir::open(notice.pid)?.facts();
            lives(process.as_fd()).then(|| Box::new(facts))
        });
        let who = Who { pid: notice.pid, seen: BootTime::now().0, live };
        self.0.insert(notice.pid, who.clone());
        who
    }
}

impl Who {
    /// Nobody who could be named.
    pub(super) fn nobody() -> Self {
        Self { pid: 0, seen: 0, live: None }
    }

    /// The process, with what the table has come to know meanwhile.
    pub(super) fn resolve(self, table: &ProcessTable) -> ProcessInfo {
        let Some(live) = self.live else {
            let known = table.lookup(self.pid).filter(|known| known.key.start_ns <= self.seen);
            let key = ProcessKey { pid: self.pid, start_ns: 0 };
            return known.unwrap_or(ProcessInfo { key, ..ProcessInfo::default() });
        };
        let Some(known) = table.get(live.key) else { return *live };
        if known.exe == live.exe {
            let ProcessInfo { uid, euid, user, cwd, comm, .. } = *live;
            return ProcessInfo { uid, euid, user, cwd, comm, ..known };
        }
        // It has run something else since, or the table is behind: what it was counts.
        ProcessInfo { parent: known.parent, ..*live }
    }
}
