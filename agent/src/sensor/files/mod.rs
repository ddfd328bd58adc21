//! Files that matter: who reads, writes, renames, removes or changes a file of the policy's list.
//!
//! No eBPF: a fanotify notification group with marks on the inodes of the list and their folders,
//! which sees every way to a file that the kernel knows (io_uring, other mount namespaces, bind
//! mounts, hard links) and holds nobody. Follow an event: `sys/notice.rs` (the kernel's record),
//! [`tree`] (which listed file is that; marks follow what appears and moves), [`who`], [`rest`]
//! (reads and writes told apart, equal ones counted), the sink.
//!
//! Not seen: writes through a mapping before the file is closed, descriptors that were open
//! before, reads of `O_PATH` descriptors, files of containers' own root file systems, and
//! `/proc/sys`, which has no handles.

pub mod list;
mod reach;
mod rest;
mod tree;
mod who;

use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use holdfast_common::control::SensorState;
use holdfast_common::event::{EventBody, FileEvent};
use holdfast_common::process::printable;
use rustix::event::{PollFd, PollFlags, Timespec};

use self::list::Files;
use self::rest::{Rest, Told};
use self::tree::Tree;
use self::who::{Batch, Who};
use super::shared::Shared;
use crate::sys::notice::{NoticeEvent, NoticeGroup};

/// How often logs' sizes and the list of users are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(10);
/// Between two walks, however often one is called for.
const WALK_PAUSE: Duration = Duration::from_millis(500);
const PASSWD: &str = "/etc/passwd";
const PASSWD_MAX: u64 = 8 << 20;
const SET_ID: u32 = 0o6000;

/// What is watched.
#[derive(Debug, Clone, Default)]
pub struct Policy {
    /// `[sensor.files]`
    pub files: Files,
    /// Patterns of the agent's own files.
    pub own: Vec<String>,
}

/// The account, which the owner reads.
#[derive(Default)]
pub(super) struct Account {
    active: AtomicBool,
    generated: AtomicU64,
    delivered: AtomicU64,
    aggregated: AtomicU64,
    lost: AtomicU64,
    /// Set once the first walk is over.
    walked: AtomicBool,
    note: Mutex<Option<String>>,
}

impl Account {
    /// As `holdfast status` and `doctor` show it.
    pub(super) fn state(&self) -> SensorState {
        SensorState {
            name: "files that matter".to_owned(),
            mechanism: "fanotify marks on the list's files and folders".to_owned(),
            active: self.active.load(Relaxed),
            note: self.note.lock().unwrap_or_else(PoisonError::into_inner).clone(),
            generated: self.generated.load(Relaxed),
            delivered: self.delivered.load(Relaxed),
            aggregated: self.aggregated.load(Relaxed),
            lost: self.lost.load(Relaxed),
        }
    }

    /// True when everything that was there at the start is marked.
    pub(super) fn walked(&self) -> bool {
        self.walked.load(Relaxed)
    }

    fn note(&self, note: Option<String>) {
        *self.note.lock().unwrap_or_else(PoisonError::into_inner) = note;
    }
}

/// The watching thread.
pub(super) struct Watcher {
    shared: Arc<Shared>,
    account: Arc<Account>,
    policy: Policy,
    tree: Tree,
    rest: Rest<Who>,
    passwd: Option<(SystemTime, u64)>,
    mounts: Option<std::fs::File>,
}

impl Watcher {
    /// `None` where the kernel has no such groups; the account says why.
    pub(super) fn new(shared: Arc<Shared>, account: Arc<Account>, policy: Policy) -> Option<Self> {
        let group = match NoticeGroup::new() {
            Ok(group) => group,
            Err(error) => {
                account
                    .note(Some(format!("fanotify refused (needs Linux 5.17 and root): {error}")));
                return None;
            }
        };
        account.active.store(true, Relaxed);
        let mounts = std::fs::File::open("/proc/self/mountinfo").ok();
        let tree = Tree::new(group, Vec::new());
        Some(Self { shared, account, policy, tree, rest: Rest::default(), passwd: None, mounts })
    }

    /// Until the sensor stops.
    pub(super) fn run(mut self) {
        self.follow_users();
        let mut looked = Instant::now();
        let mut walked = Instant::now().checked_sub(WALK_PAUSE);
        while !self.shared.stopping() {
            let now = Instant::now();
            if self.tree.again && walked.is_none_or(|at| now >= at + WALK_PAUSE) {
                self.walk();
                walked = Some(Instant::now());
            }
            self.read();
            if looked.elapsed() >= LOOK_EVERY {
                self.follow_users();
                self.look_at_sizes();
                looked = Instant::now();
            }
            self.tell();
            let mut next = looked + LOOK_EVERY;
            if let Some(due) = self.rest.next() {
                next = next.min(due);
            }
            if let (true, Some(walked)) = (self.tree.again, walked) {
                next = next.min(walked + WALK_PAUSE);
            }
            self.wait(next.saturating_duration_since(Instant::now()));
        }
    }

    /// Who can sign in, and so whose home matters.
    fn follow_users(&mut self) {
        use std::os::unix::fs::MetadataExt;
        let now = std::fs::metadata(PASSWD).ok();
        let now = now.and_then(|metadata| Some((metadata.modified().ok()?, metadata.ino())));
        if self.passwd.is_some() && now == self.passwd {
            return;
        }
        self.passwd = Some(now.unwrap_or((SystemTime::UNIX_EPOCH, 0)));
        let passwd = super::proc::read_file(Path::new(PASSWD), PASSWD_MAX).unwrap_or_default();
        let homes = list::homes(&passwd);
        self.tree.set_rules(list::rules(&self.policy.files, &homes, &self.policy.own));
    }

    fn walk(&mut self) {
        if let Some(former) = self.tree.walk() {
            // What happened until the new marks stood. What both groups saw is told twice.
            while self.read_from(&former) {}
        }
        self.account.walked.store(true, Relaxed);
        let (folders, files) = self.tree.marked();
        let mut note = format!("{folders} folders and {files} files marked");
        if self.tree.left_out > 0 {
            note.push_str(&format!(", {} beyond the limits left out", self.tree.left_out));
        }
        for (error, count) in &self.tree.refused {
            note.push_str(&format!(", {count} refused: {error}"));
        }
        self.account.note(Some(note));
    }

    fn read(&mut self) {
        // Not for ever: what rests has its time, too.
        for _ in 0..64 {
            let group = Arc::clone(&self.tree.group);
            if !self.read_from(&group) {
                return;
            }
        }
    }

    /// One buffer full of events; false when there were none.
    fn read_from(&mut self, group: &NoticeGroup) -> bool {
        let mut events = Vec::new();
        let more = group.read(|event| events.push(event)).unwrap_or_else(|error| {
            tracing::error!(%error, "file events cannot be read");
            false
        });
        let mut batch = Batch::default();
        let mut out = Vec::new();
        let now = Instant::now();
        for event in events {
            let notice = match event {
                NoticeEvent::Notice(notice) => notice,
                NoticeEvent::Overflow | NoticeEvent::Unknown => {
                    // How many were dropped nobody knows: one at least.
                    self.account.lost.fetch_add(1, Relaxed);
                    self.account.generated.fetch_add(1, Relaxed);
                    self.tree.again = true;
                    continue;
                }
            };
            let touches = self.tree.happened(&notice);
            // Our own never are events, but what they change is followed.
            if touches.is_empty() || notice.pid == std::process::id() {
                continue;
            }
            let who = batch.who(&notice);
            for touch in touches {
                self.rest.add(notice.pid, &who, touch, now, &mut out);
            }
        }
        self.emit(out);
        more
    }

    fn look_at_sizes(&mut self) {
        let mut out = Vec::new();
        for touch in self.tree.look_at_sizes() {
            self.rest.add(0, &Who::nobody(), touch, Instant::now(), &mut out);
        }
        self.emit(out);
    }

    fn tell(&mut self) {
        let mut out = Vec::new();
        self.rest.due(Instant::now(), &mut out);
        self.emit(out);
    }

    fn emit(&mut self, told: Vec<Told<Who>>) {
        self.account.delivered.fetch_add(told.len() as u64, Relaxed);
        let more: u64 = told.iter().map(|told| told.count - 1).sum();
        self.account.aggregated.fetch_add(more, Relaxed);
        let lost = self.account.lost.load(Relaxed);
        self.account.generated.store(self.rest.generated + lost, Relaxed);
        for told in told {
            let process = told.who.resolve(&self.shared.table);
            let parents = self.shared.parents(&process);
            self.shared.emit(EventBody::File(Box::new(FileEvent {
                process,
                parents,
                action: told.action.to_owned(),
                path: text(&told.path),
                from: told.from.as_deref().map(text),
                class: told.class.name().to_owned(),
                mode: told.mode,
                set_id: told.mode.is_some_and(|mode| mode & SET_ID != 0),
                count: told.count,
            })));
        }
    }

    /// Until something happens, the mount table changes, the sensor stops or the time is over.
    fn wait(&mut self, most: Duration) {
        let wake = self.shared.wake();
        let mut asked = vec![PollFd::new(&*self.tree.group, PollFlags::IN)];
        asked.extend(wake.map(|wake| PollFd::from_borrowed_fd(wake, PollFlags::IN)));
        let mounts = self.mounts.as_ref().map(AsFd::as_fd);
        // Always readable; PRI says that it has changed (proc_pid_mounts(5)).
        let at = asked.len();
        asked.extend(
            mounts.map(|mounts: BorrowedFd<'_>| PollFd::from_borrowed_fd(mounts, PollFlags::PRI)),
        );
        // A millisecond more, so that it has passed on waking.
        let most = most + Duration::from_millis(1);
        let most = Timespec { tv_sec: most.as_secs() as i64, tv_nsec: most.subsec_nanos().into() };
        // An interrupted wait is a short one.
        let _ = rustix::event::poll(&mut asked, Some(&most));
        let changed = asked.get(at).is_some_and(|mounts| !mounts.revents().is_empty());
        drop(asked);
        self.tree.again |= changed;
    }
}

fn text(path: impl AsRef<Path>) -> String {
    printable(path.as_ref().as_os_str().as_bytes())
}
