//! File systems that only other mount namespaces see: containers, private mounts of units, a tmpfs
//! in somebody's user namespace. Found by looking, in a thread of its own, and marked.
//!
//! ```text
//!  census of namespaces → a view of each → mounts that are wanted and not seen by our own
//!    → reached as the view allows → its file system marked  (again each time: marks are idempotent)
//! ```
//!
//! INVARIANT: nothing here runs while an open is decided; a pass ends after [`PASS`] and goes on
//! the next time; whoever makes namespaces and mounts without end costs bounded time, memory and
//! events, and what was not looked at is counted. Files there get no ignore marks (see
//! [`super::marks`]), which is the safe side.

use std::collections::{BTreeMap, HashSet};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use holdfast_common::control::FileSystemState;
use holdfast_common::event::{CoverageEvent, EventBody};
use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd};
use rustix::fs::{Mode, OFlags};

use crate::config::Protect;
use crate::on_access::Counters;
use crate::on_access::coverage::{Coverage, printable_path};
use crate::on_access::layers::{Layers, UNKNOWN_BASE};
use crate::on_access::marks::read_mountinfo;
use crate::on_access::mounts::{Mount, Plan, parse, places, plan_one, wanted_elsewhere};
use crate::on_access::namespaces::{Census, mount_namespace, user_namespace};
use crate::on_access::view::{NoView, View, device_of};
use crate::sys::fanotify::Group;

/// Between two passes at least.
const PAUSE: Duration = Duration::from_millis(500);

/// Between two passes at most, and where nothing has called for one.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// A pause is so many times as long as what the pass before it took of a processor.
const REST: u32 = 25;

/// The census, and then the looking, take so long at most.
const PASS: Duration = Duration::from_secs(1);

/// File systems that are remembered: each is a line of `holdfast status`.
const MOST_KNOWN: usize = 4096;

/// Of these, such as are not protected.
const MOST_REFUSED: usize = 64;

/// Coverage events a minute; the journal has room for other things too.
const EVENTS_A_MINUTE: u32 = 60;

type Device = (u32, u32);

/// What is protected in other namespaces.
pub(super) struct Elsewhere {
    group: Arc<Group>,
    protect: Mutex<Arc<Protect>>,
    coverage: Arc<Coverage>,
    counters: Arc<Counters>,
    own: u64,
    own_users: u64,
    states: Mutex<BTreeMap<Device, FileSystemState>>,
    progress: Mutex<Progress>,
    /// Somebody mounts, or makes or enters a namespace (eventfd(2)).
    call: OwnedFd,
    /// Such calls can be waited for.
    is_called: AtomicBool,
}

/// What one pass leaves to the next.
#[derive(Debug)]
struct Progress {
    census: Census,
    /// Where it was cut: namespace, and which of its mounts.
    cut_at: Option<(u64, usize)>,
    budget: Budget,
}

/// One pass.
struct Pass {
    /// None where the agent's own root is no mount point.
    own: Option<View>,
    handled: HashSet<Device>,
    seen: BTreeMap<Device, FileSystemState>,
    refused: usize,
    unseen: u64,
}

/// Events that may be told in this minute.
#[derive(Debug)]
struct Budget {
    since: Instant,
    told: u32,
}

impl Budget {
    fn allows(&mut self, now: Instant) -> bool {
        if now.duration_since(self.since) >= Duration::from_secs(60) {
            *self = Self { since: now, told: 0 };
        }
        self.told = self.told.saturating_add(1);
        self.told <= EVENTS_A_MINUTE
    }
}

impl Elsewhere {
    /// Nothing is marked yet: see [`Elsewhere::look`].
    ///
    /// # Errors
    /// Without `/proc`.
    pub(super) fn new(
        group: Arc<Group>,
        protect: Arc<Protect>,
        coverage: Arc<Coverage>,
        counters: Arc<Counters>,
    ) -> std::io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let task = rustix::fs::open(c"/proc/self", flags, Mode::empty())?;
        Ok(Self {
            group,
            protect: Mutex::new(protect),
            coverage,
            counters,
            own: mount_namespace(&task, Path::new("ns/mnt"))?,
            own_users: user_namespace(&task)?,
            states: Mutex::default(),
            progress: Mutex::new(Progress {
                census: Census::default(),
                cut_at: None,
                budget: Budget { since: Instant::now(), told: 0 },
            }),
            call: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?,
            is_called: AtomicBool::new(false),
        })
    }

    /// From now on [`Elsewhere::call`] tells of every mount and namespace, or not any more.
    pub(super) fn expect_calls(&self, expected: bool) {
        self.is_called.store(expected, Relaxed);
    }

    /// Asks for a pass soon. Never waits.
    pub(super) fn call(&self) {
        // Full after 2^64 - 2 calls that nobody has read: it is readable all the same.
        let _ = rustix::io::write(&self.call, &1_u64.to_ne_bytes());
    }

    /// From the next look on this is protected.
    pub(super) fn set_protect(&self, protect: Arc<Protect>) {
        *self.protect.lock().unwrap_or_else(PoisonError::into_inner) = protect;
    }

    /// Devices of the file systems that are protected for what other namespaces see.
    pub(super) fn protected(&self) -> HashSet<Device> {
        let states = self.states.lock().unwrap_or_else(PoisonError::into_inner);
        states.iter().filter(|(_, state)| state.protected).map(|(device, _)| *device).collect()
    }

    /// File systems of other namespaces that should be protected, and why one is not.
    pub(super) fn states(&self) -> Vec<FileSystemState> {
        self.states.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    /// Looks again and again until `stop` becomes readable.
    pub(super) fn follow(&self, stop: &OwnedFd) -> std::io::Result<()> {
        let mut pause = PAUSE;
        // A call comes when a mount begins: the pass after the next sees it in any case.
        let mut again = false;
        loop {
            if wait(&[stop], pause)?.is_some() {
                return Ok(());
            }
            if self.is_called.load(Relaxed) && !again {
                let rest = LONGEST_PAUSE.saturating_sub(pause);
                if wait(&[stop, &self.call], rest)? == Some(0) {
                    return Ok(());
                }
            }
            // Nothing is read where nobody has called.
            again = rustix::io::read(&self.call, &mut [0; 8]).is_ok();
            let begun = worked();
            self.look();
            pause = (worked().saturating_sub(begun) * REST).clamp(PAUSE, LONGEST_PAUSE);
        }
    }

    /// Looks once and marks what is new.
    pub(super) fn look(&self) {
        if let Err(error) = self.pass() {
            tracing::warn!(%error, "other mount namespaces could not be looked at; tried again");
        }
    }

    fn pass(&self) -> std::io::Result<()> {
        let mut progress = self.progress.lock().unwrap_or_else(PoisonError::into_inner);
        let found = progress.census.take(self.own, Instant::now() + PASS)?;
        let own = View::of(Path::new("/proc/self"), self.own, self.own_users).ok();
        let protect = Arc::clone(&self.protect.lock().unwrap_or_else(PoisonError::into_inner));
        let places = match &*protect {
            Protect::All => None,
            Protect::Paths(paths) => Some(places(&parse(&read_mountinfo()?), paths)),
        };
        let handled = self.coverage.handled();
        let mut pass = Pass { own, handled, seen: BTreeMap::new(), refused: 0, unseen: 0 };
        // From where the last pass was cut; all others after.
        let begin = progress.cut_at.take().unwrap_or_default();
        let (later, sooner): (Vec<_>, Vec<_>) =
            found.tasks.iter().partition(|(id, _)| **id < begin.0);
        let end = Instant::now() + PASS;
        for (turn, (namespace, tasks)) in sooner.into_iter().chain(later).enumerate() {
            if turn > 0 && progress.cut_at.is_none() && Instant::now() >= end {
                progress.cut_at = Some((*namespace, 0));
            }
            if progress.cut_at.is_some() {
                pass.unseen += 1;
                continue;
            }
            let first = if *namespace == begin.0 { begin.1 } else { 0 };
            match self.view(*namespace, tasks) {
                Ok(view) => {
                    let wanted = wanted_elsewhere(&view.mounts, places.as_deref());
                    let cut = self.look_into(&mut pass, (*namespace, &view), &wanted, (first, end));
                    progress.cut_at = cut.map(|index| (*namespace, index));
                }
                Err(NoView::Gone) => {}
                Err(NoView::Closed) => pass.unseen += 1,
            }
        }
        self.counters.namespaces.store(found.tasks.len() as u64, Relaxed);
        self.counters.namespaces_unseen.store(pass.unseen, Relaxed);
        let complete = found.complete && progress.cut_at.is_none();
        self.settle(pass, complete, &mut progress.budget);
        Ok(())
    }

    /// Through the first task that sees its namespace from a root of its own.
    fn view(&self, namespace: u64, tasks: &[PathBuf]) -> Result<View, NoView> {
        let mut worst = NoView::Gone;
        for task in tasks {
            match View::of(task, namespace, self.own_users) {
                Ok(view) => return Ok(view),
                Err(NoView::Gone) => {}
                Err(NoView::Closed) => worst = NoView::Closed,
            }
        }
        Err(worst)
    }

    /// Every wanted mount of a namespace, from `first` on and around. Returns where time was up:
    /// one mount at least is looked at, so that each has its turn.
    fn look_into(
        &self,
        pass: &mut Pass,
        (namespace, view): (u64, &View),
        wanted: &[&Mount],
        (first, end): (usize, Instant),
    ) -> Option<usize> {
        for turn in 0..wanted.len() {
            let index = (first + turn) % wanted.len();
            if turn > 0 && Instant::now() >= end {
                pass.unseen += 1;
                return Some(index);
            }
            self.look_at(pass, namespace, view, wanted[index]);
        }
        None
    }

    fn look_at(&self, pass: &mut Pass, namespace: u64, view: &View, mount: &Mount) {
        let known = pass.seen.get(&mount.device).map(|state| state.protected);
        // What our own namespace sees is looked after there; a refusal may fare better elsewhere.
        if pass.handled.contains(&mount.device) || known == Some(true) {
            return;
        }
        let refusal = self.protect(pass, view, mount).err();
        let protected = refusal.is_none();
        if known.is_none() && pass.seen.len() >= MOST_KNOWN {
            pass.unseen += u64::from(!protected);
            return;
        }
        if known.is_none() && !protected {
            if pass.refused >= MOST_REFUSED {
                pass.unseen += 1;
                return;
            }
            pass.refused += 1;
        }
        if known.is_some() && !protected {
            return;
        }
        pass.refused -= usize::from(known == Some(false));
        let point = printable_path(&mount.point);
        let state = FileSystemState {
            mount: format!("{point} (mount namespace {namespace})"),
            fs_type: mount.fs_type.clone(),
            protected,
            reason: refusal,
        };
        pass.seen.insert(mount.device, state);
    }

    fn protect(&self, pass: &Pass, view: &View, mount: &Mount) -> Result<(), String> {
        match plan_one(mount, self.coverage.events_below_overlay()) {
            Plan::Refuse(_, reason) => Err(reason.to_owned()),
            Plan::Protect(mount) if mount.fs_type == "overlay" && view.of_users => {
                Err("an overlay of a user's, which could lie on what hangs every open".to_owned())
            }
            Plan::Protect(mount) => {
                let point = view.reach(&mount)?;
                // A subvolume of btrfs has a device number of its own.
                if mount.fs_type != "btrfs" && device_of(point.as_fd()) != Some(mount.device) {
                    return Err("another file system than its namespace told".to_owned());
                }
                self.group.protect(point.as_fd()).map_err(|error| error.to_string())
            }
            Plan::ProtectBelow(mount, layers) => {
                let shown = view.reach(&mount)?;
                let folders = std::iter::once(view)
                    .chain(&pass.own)
                    .find_map(|view| layers_in(view, &mount, shown.as_fd(), &layers))
                    .ok_or(UNKNOWN_BASE)?;
                for folder in folders {
                    self.group.protect(folder.as_fd()).map_err(|error| error.to_string())?;
                }
                Ok(())
            }
        }
    }

    /// Tells what has changed, and keeps the states. After a pass that was cut, what it has not
    /// seen stays as it was.
    fn settle(&self, pass: Pass, complete: bool, budget: &mut Budget) {
        let Pass { mut seen, handled, .. } = pass;
        let mut states = self.states.lock().unwrap_or_else(PoisonError::into_inner);
        let mut tell = |state: &FileSystemState| {
            if budget.allows(Instant::now()) {
                self.coverage.report(EventBody::Coverage(CoverageEvent {
                    mount: state.mount.clone(),
                    fs_type: state.fs_type.clone(),
                    protected: state.protected,
                    reason: state.reason.clone(),
                }));
            } else {
                self.counters.coverage_untold.fetch_add(1, Relaxed);
            }
        };
        let before = std::mem::take(&mut *states);
        for (device, state) in &mut seen {
            match before.get(device) {
                // The same file system through another namespace is no news.
                Some(known)
                    if known.protected == state.protected && known.reason == state.reason =>
                {
                    *state = known.clone();
                }
                Some(_) | None => tell(state),
            }
        }
        for (device, mut gone) in before {
            if seen.contains_key(&device) {
                continue;
            }
            if !complete && seen.len() < MOST_KNOWN {
                seen.insert(device, gone);
            } else if gone.protected && !handled.contains(&device) {
                gone.protected = false;
                gone.reason = Some("no mount namespace sees it any more".to_owned());
                tell(&gone);
            }
        }
        *states = seen;
    }
}

/// Which of these became readable first; `None` when none did in time, or a signal came.
fn wait(these: &[&OwnedFd], time: Duration) -> std::io::Result<Option<usize>> {
    let timeout = rustix::event::Timespec::try_from(time).ok();
    let mut fds: Vec<_> = these.iter().map(|fd| PollFd::new(*fd, PollFlags::IN)).collect();
    match rustix::event::poll(&mut fds, timeout.as_ref()) {
        Ok(_) => Ok(fds.iter().position(|fd| fd.revents().contains(PollFlags::IN))),
        Err(rustix::io::Errno::INTR) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Processor time of this thread: waiting for a busy host is no reason to rest longer.
fn worked() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::try_from(time).unwrap_or_default()
}

/// Every layer of an overlay, open, once the overlay has shown that they are its own: whoever owns
/// a namespace chooses the names in it.
fn layers_in(
    view: &View,
    mount: &Mount,
    shown: std::os::fd::BorrowedFd<'_>,
    layers: &Layers,
) -> Option<Vec<OwnedFd>> {
    let open = |path: &Path| view.folder(path);
    let base = if layers.any_relative() {
        layers.base(&mount.point, shown, &mount.root, &open, false)?
    } else {
        PathBuf::from("/")
    };
    let here = |layer: &Path| view.folder(&base.join(layer));
    if !layers.top_is_shown(shown, &mount.root, &here, false) {
        return None;
    }
    layers.all().map(|layer| here(layer).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_of_one_minute_are_bounded_and_the_next_minute_has_its_own() {
        let begin = Instant::now();
        let mut budget = Budget { since: begin, told: 0 };
        let allowed = (0..1000).filter(|_| budget.allows(begin)).count();
        assert_eq!(allowed, EVENTS_A_MINUTE as usize);
        assert!(budget.allows(begin + Duration::from_secs(61)));
    }
}
