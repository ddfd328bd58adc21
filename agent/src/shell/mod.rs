//! Remote shells: terminals of this host that the manager's people use.
//!
//! ```text
//!  task ─▶ run (a thread each) ─▶ terminal.rs: a PTY, the leader on it, and the pump
//!                                    ▲ │
//!              flow.rs: what is on its way, bounded ─▶ the link's session (next, input)
//!  leader.rs: a session of its own ─┬─ root's login shell
//!                                   └─ restricted/: the fixed commands, no shell at all
//! ```
//!
//! INVARIANT: the local config decides what may be opened, whatever the manager asks for; a policy
//! narrows that, also of shells that are open. Nothing
//! here makes the link wait: what does not fit a window stays in the kernel, and the program on the
//! terminal waits. When a shell ends, everything in its session is killed before that is told. It
//! records nothing: the manager does.

mod end;
mod flow;
mod leader;
pub mod restricted;
mod terminal;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use holdfast_common::control::ShellState;
use holdfast_common::event::{EventBody, ShellEvent};
use holdfast_common::link::wire::{ShellInput, ShellOutput};
use tokio::sync::Notify;
use uuid::Uuid;

pub use self::leader::{WORD as LEADER, main as leader_main};

use self::flow::Flow;
use self::terminal::{Terminal, Watch};
use crate::config::{self, Config, ShellMode};
use crate::journal::Journal;
use crate::now_ms;

/// Shells at once; one more is refused.
pub const MOST: usize = 4;
/// A shell whose manager was not heard of for so long is closed.
const UNLINKED: Duration = Duration::from_secs(60);
/// What a shell showed last is kept for the manager for so long after its end.
const LAST_WORDS: Duration = Duration::from_secs(5);
/// How long the agent's own end waits for shells.
const STOP: Duration = Duration::from_secs(5);

/// What is asked for.
#[derive(Debug, Clone)]
pub struct Opening {
    /// The response task.
    pub task: Uuid,
    /// Who filed it.
    pub by: String,
    /// Why.
    pub reason: String,
    /// The fixed commands alone.
    pub restricted: bool,
    /// Columns and rows of the terminal.
    pub size: (u16, u16),
}

/// How a shell ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Closed {
    /// For people.
    pub how: String,
    /// How long it was open, seconds.
    pub open_s: u64,
    /// The exit status of its first process, where that ended by itself.
    pub exit: Option<i32>,
    /// Processes of its session that could not be killed.
    pub left: usize,
}

/// All shells of this host.
#[derive(Debug)]
pub struct Shells {
    /// What the host's own config allows.
    local: ShellMode,
    /// What is in force: that, or less by a policy.
    rules: Mutex<config::Shell>,
    journal: Journal,
    open: Mutex<Vec<Arc<Open>>>,
    /// Terminals are started one by one, without the list: a start may be held (on access), and
    /// the link looks at the list.
    starting: Mutex<()>,
    /// One has gone from the list.
    gone: Condvar,
    /// There is something to send.
    told: Notify,
    link: Mutex<Link>,
    stopping: AtomicBool,
}

/// Whether a manager listens.
#[derive(Debug)]
struct Link {
    up: bool,
    since: Instant,
}

/// One that is open.
#[derive(Debug)]
struct Open {
    opening: Opening,
    since_ms: i64,
    flow: Flow,
}

/// A session of the link that carries shells; dropped with it.
#[derive(Debug)]
pub struct Linked<'a>(&'a Shells);

impl Shells {
    /// None open. `rules` is what a policy has made of the host's own config.
    #[must_use]
    pub fn new(local: &Config, rules: &config::Shell, journal: Journal) -> Self {
        Self {
            local: local.shell.mode,
            rules: Mutex::new(rules.clone()),
            journal,
            open: Mutex::default(),
            starting: Mutex::default(),
            gone: Condvar::new(),
            told: Notify::new(),
            link: Mutex::new(Link { up: false, since: Instant::now() }),
            stopping: AtomicBool::new(false),
        }
    }

    /// Others from now on; what is open and not allowed any more ends.
    pub fn replace(&self, rules: &config::Shell) {
        rules.clone_into(&mut self.rules());
        self.list().iter().for_each(|one| one.flow.wake());
    }

    /// Those that are open, for status.
    #[must_use]
    pub fn open(&self) -> Vec<ShellState> {
        let state = |one: &Arc<Open>| ShellState {
            task: one.opening.task,
            by: one.opening.by.clone(),
            reason: one.opening.reason.clone(),
            restricted: one.opening.restricted,
            since_ms: one.since_ms,
        };
        self.list().iter().map(state).collect()
    }

    /// Opens one and stays until it has ended. `opened` is told once it stands.
    ///
    /// # Errors
    /// Why it was not opened.
    pub fn run(
        &self,
        opening: Opening,
        cancelled: &Arc<AtomicBool>,
        opened: &dyn Fn(&str),
    ) -> Result<Closed, String> {
        let begun = self.begin(&opening);
        let (open, terminal) = begun.inspect_err(|why| {
            self.tell(&opening, "refused", why, 0);
        })?;
        let mode = if opening.restricted { "a restricted shell" } else { "a shell" };
        self.tell(&opening, "opened", &opening.reason, 0);
        let (idle, longest) = {
            let rules = self.rules();
            (rules.idle.as_secs(), rules.longest.as_secs())
        };
        opened(&format!(
            "{mode} is open on {}; it ends when nobody types for {idle} s, and after {longest} s",
            terminal.name()
        ));
        tracing::warn!(task = %opening.task, by = opening.by, "{mode} is open");
        self.told.notify_one();
        let since = Instant::now();
        let watch = Watch {
            flow: &open.flow,
            tell: &|| self.told.notify_one(),
            why_close: &|typed: Instant| {
                self.why_close(opening.restricted, cancelled, since, typed)
            },
        };
        let ended = terminal.pump(&watch);
        let open_s = since.elapsed().as_secs();
        open.flow.close(&ended.how);
        self.told.notify_one();
        self.tell(&opening, "closed", &ended.how, open_s);
        tracing::warn!(task = %opening.task, how = ended.how, "{mode} is closed");
        // The end of a task may come to the manager before what the terminal showed last.
        let patience = Instant::now() + LAST_WORDS;
        while !open.flow.is_told() && self.is_linked() && Instant::now() < patience {
            std::thread::sleep(Duration::from_millis(10));
        }
        self.list().retain(|one| !Arc::ptr_eq(one, &open));
        self.gone.notify_all();
        Ok(Closed { how: ended.how, open_s, exit: ended.exit, left: ended.left })
    }

    /// Takes a place and starts the terminal.
    fn begin(&self, opening: &Opening) -> Result<(Arc<Open>, Terminal), String> {
        if let Some(why) = forbidden(self.local, opening.restricted) {
            return Err(format!("this host's config allows {why}"));
        }
        if let Some(why) = forbidden(self.rules().mode, opening.restricted) {
            return Err(format!("the policy that runs on this host allows {why}"));
        }
        let _one = self.starting.lock().unwrap_or_else(PoisonError::into_inner);
        if self.stopping.load(Ordering::Relaxed) {
            return Err("the agent is ending".to_owned());
        }
        if self.list().len() >= MOST {
            return Err(format!("{MOST} shells are open on this host already"));
        }
        let started = Flow::new().and_then(|flow| Ok((flow, Terminal::start(opening)?)));
        let (flow, terminal) =
            started.map_err(|error| format!("a terminal cannot be made: {error}"))?;
        let open = Arc::new(Open { opening: opening.clone(), since_ms: now_ms(), flow });
        self.list().push(Arc::clone(&open));
        Ok((open, terminal))
    }

    fn why_close(
        &self,
        restricted: bool,
        cancelled: &AtomicBool,
        since: Instant,
        typed: Instant,
    ) -> Option<&'static str> {
        let config::Shell { mode, idle, longest } = self.rules().clone();
        let link = self.link();
        if cancelled.load(Ordering::Relaxed) {
            Some("its task was cancelled")
        } else if self.stopping.load(Ordering::Relaxed) {
            Some("the agent is ending")
        } else if !link.up && link.since.elapsed() >= UNLINKED {
            Some("the manager was not heard of for a minute")
        } else if forbidden(mode, restricted).is_some() {
            Some("the policy that runs on this host does not allow it any more")
        } else if typed.elapsed() >= idle {
            Some("nobody typed for as long as this host allows")
        } else if since.elapsed() >= longest {
            Some("it was open for as long as this host allows")
        } else {
            None
        }
    }

    /// A session of the link begins: what the manager has not taken is sent again.
    pub fn linked(&self) -> Linked<'_> {
        *self.link() = Link { up: true, since: Instant::now() };
        self.list().iter().for_each(|one| one.flow.again());
        self.told.notify_one();
        Linked(self)
    }

    /// What is to be sent next; every shell in its turn.
    pub fn next(&self) -> Option<ShellOutput> {
        let mut list = self.list();
        let at = list.iter().position(|one| one.flow.has_news())?;
        let next = list[at].flow.next(&list[at].opening.task.to_string());
        list[at..].rotate_left(1);
        next
    }

    /// Returns when there may be something to send.
    pub async fn told(&self) {
        self.told.notified().await;
    }

    /// What the manager sends to a shell. Of one that has ended it is nobody's.
    pub fn input(&self, input: &ShellInput) {
        let task = Uuid::try_parse(&input.task).ok();
        let known = self.list().iter().find(|one| Some(one.opening.task) == task).cloned();
        if let Some(open) = known {
            open.flow.take(input);
            self.told.notify_one();
        }
    }

    /// Closes all of them, and opens none any more.
    pub fn stop(&self) {
        self.stopping.store(true, Ordering::Relaxed);
        let end = Instant::now() + STOP;
        let mut list = self.list();
        list.iter().for_each(|one| one.flow.wake());
        while !list.is_empty() && Instant::now() < end {
            let left = end.saturating_duration_since(Instant::now());
            list = self.gone.wait_timeout(list, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        if !list.is_empty() {
            tracing::error!(open = list.len(), "shells did not end in time");
        }
    }

    fn is_linked(&self) -> bool {
        self.link().up
    }

    fn tell(&self, opening: &Opening, action: &str, reason: &str, open_s: u64) {
        self.journal.record(EventBody::Shell(ShellEvent {
            task: opening.task,
            action: action.to_owned(),
            by: opening.by.clone(),
            reason: reason.to_owned(),
            restricted: opening.restricted,
            open_s,
        }));
    }

    fn rules(&self) -> MutexGuard<'_, config::Shell> {
        self.rules.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn list(&self) -> MutexGuard<'_, Vec<Arc<Open>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn link(&self) -> MutexGuard<'_, Link> {
        self.link.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a mode allows, where it is less than what is asked for.
const fn forbidden(mode: ShellMode, restricted: bool) -> Option<&'static str> {
    match (mode, restricted) {
        (ShellMode::Off, _) => Some("no shells"),
        (ShellMode::Restricted, false) => Some("restricted shells only"),
        (ShellMode::Restricted, true) | (ShellMode::Full, _) => None,
    }
}

impl Drop for Linked<'_> {
    fn drop(&mut self) {
        *self.0.link() = Link { up: false, since: Instant::now() };
    }
}
