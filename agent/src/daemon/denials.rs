//! Puts in force what is denied by order, and keeps denied paths as they are now.
//!
//! ```text
//!  the manager's list ─┐
//!  task, `holdfast deny` ─┴▶ orders (on disk) ─┬─ hashes ─▶ deny list ─▶ rule bundle
//!                                              └─ paths ──▶ places ─▶ the loops' rules
//!  every few seconds: what lies at denied paths, and what has ended, is looked at again
//! ```
//!
//! INVARIANT: an order is on disk before it is in force. What the agent has seen lie at a denied path
//! stays denied while the order stands and the agent runs, wherever it is moved; never what this
//! host runs on. Nothing here keeps protection from beginning: what cannot be put in force is red.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use globset::GlobSetBuilder;
use holdfast_common::control::DenialLine;
use holdfast_common::denial::{
    Denial, DenialKind, DenialRefusal, DenialState, FleetDenials, MOST_WHYS, check, glob, is_exact,
};
use holdfast_common::task::until;

use super::{Agent, sink};
use crate::on_access::places::{Inode, Places, descriptors};
use crate::respond::{Denied, DenyList, DenyListError, Order, Orders, file_at};

/// Between two looks at what lies at denied paths, and at what has ended.
const LOOK: Duration = Duration::from_secs(5);
/// Inodes that are kept; beyond it what lies at a denied path is denied by its name alone.
const MOST_INODES: usize = 4096;
const UNPROTECTED: &str = "its file system is not protected on this host";

/// All denials of this host.
#[derive(Debug)]
pub(crate) struct Denials {
    orders: Orders,
    /// One change at a time.
    held: Mutex<Held>,
    /// One change of the denied content at a time.
    hashing: Mutex<()>,
    /// Paths whose file system is not protected.
    unprotected: Mutex<HashSet<String>>,
    /// What came from the manager and was not looked at yet: the last one counts.
    offered: Mutex<Option<FleetDenials>>,
    /// One list is put in force at a time.
    turn: Mutex<()>,
    /// Why the manager's last list is not in force.
    fault: Mutex<Option<String>>,
    /// Why paths are not in force, or are not looked at any more.
    stuck: Mutex<Option<String>>,
}

/// Denied paths as they are in force.
#[derive(Debug, Default)]
struct Held {
    /// What lies or lay at them, with the path that denies it.
    lain: HashMap<Inode, String>,
    /// What the loops have.
    wanted: Wanted,
}

/// What the loops are to have.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
struct Wanted {
    names: HashSet<Vec<u8>>,
    patterns: Vec<String>,
    inodes: HashSet<Inode>,
    spared: HashSet<Inode>,
}

impl Wanted {
    fn places(&self) -> Result<Places, String> {
        if self.names.is_empty() && self.patterns.is_empty() {
            return Ok(Places::default());
        }
        let mut globs = GlobSetBuilder::new();
        for pattern in &self.patterns {
            globs.add(glob(pattern)?);
        }
        Ok(Places {
            names: self.names.clone(),
            globs: globs.build().map_err(|error| error.to_string())?,
            inodes: self.inodes.clone(),
            spared: self.spared.clone(),
            descriptors: Some(descriptors().map_err(|error| error.to_string())?),
        })
    }
}

impl Denials {
    /// Reads what is on disk.
    ///
    /// # Errors
    /// As [`Orders::open`].
    pub(super) fn open(state_dir: &Path) -> Result<Self, DenyListError> {
        Ok(Self {
            orders: Orders::open(state_dir)?,
            held: Mutex::default(),
            hashing: Mutex::default(),
            unprotected: Mutex::default(),
            offered: Mutex::default(),
            turn: Mutex::default(),
            fault: Mutex::default(),
            stuck: Mutex::default(),
        })
    }

    /// Content that the manager denies.
    pub(super) fn hashes(&self) -> Vec<Denied> {
        self.orders.hashes()
    }

    /// Paths to begin with, by their names. What lies there is looked at later: a file system that
    /// does not answer keeps no host from being protected.
    pub(super) fn begin(&self) -> Places {
        let mut held = lock(&self.held);
        let wanted = self.wanted(&mut held.lain, |_| None);
        match wanted.places() {
            Ok(places) => {
                held.wanted = wanted;
                places
            }
            Err(why) => {
                tracing::error!(why, "denied paths are not in force");
                *lock(&self.stuck) = Some(why);
                Places::default()
            }
        }
    }

    fn wanted(
        &self,
        lain: &mut HashMap<Inode, String>,
        look: impl Fn(&Path) -> Option<Inode>,
    ) -> Wanted {
        let orders: Vec<Order> = self.paths().collect();
        let mut wanted = Wanted::default();
        if orders.is_empty() {
            lain.clear();
            return wanted;
        }
        // Without a birth time a number may be another file's by now: not kept once it is gone.
        lain.retain(|inode, path| {
            inode.2 != (0, 0) && orders.iter().any(|one| one.denial.value == *path)
        });
        for Order { denial, real, .. } in &orders {
            let value = &denial.value;
            let both = [Some(value), real.as_ref()].into_iter().flatten();
            if !is_exact(value) {
                wanted.patterns.extend(both.cloned());
                continue;
            }
            wanted.names.extend(both.map(|name| name.clone().into_bytes()));
            let room = lain.len() < MOST_INODES;
            if let Some(inode) = look(Path::new(real.as_ref().unwrap_or(value)))
                && room
            {
                lain.insert(inode, value.clone());
            }
        }
        wanted.spared = self.orders.essentials().spared;
        lain.retain(|inode, _| !wanted.spared.contains(inode));
        wanted.inodes = lain.keys().copied().collect();
        wanted
    }

    fn paths(&self) -> impl Iterator<Item = Order> {
        let paths = |one: &Order| one.denial.kind == DenialKind::Path && one.refused.is_none();
        self.orders.list().into_iter().filter(paths)
    }

    /// Why an order is not in force.
    fn refused(&self, order: &Order) -> Option<String> {
        let unprotected = || {
            let found = lock(&self.unprotected).contains(&order.denial.value);
            found.then(|| UNPROTECTED.to_owned())
        };
        order.refused.clone().or_else(unprotected)
    }

    /// What is red, by name.
    pub(super) fn problems(&self) -> Vec<String> {
        let fault = lock(&self.fault).clone();
        let fault = fault.map(|why| format!("the manager's denials are not in force: {why}"));
        let stuck = lock(&self.stuck).clone();
        let stuck = stuck.map(|why| format!("denied paths are not in force as ordered: {why}"));
        [fault, stuck, self.orders.problem()].into_iter().flatten().collect()
    }

    /// For the heartbeat; `old_rules`: newer ones than those in use were refused.
    pub(super) fn state(&self, old_rules: bool) -> DenialState {
        let orders = self.orders.list();
        let of = |kind| {
            let fits = |one: &&Order| one.denial.kind == kind && one.refused.is_none();
            orders.iter().filter(fits).count() as u64
        };
        let refused = orders
            .iter()
            .filter_map(|one| Some(DenialRefusal { id: one.denial.id?, why: self.refused(one)? }));
        let brief = |(at, one): (usize, DenialRefusal)| {
            let why = if at < MOST_WHYS { one.why } else { String::new() };
            DenialRefusal { why, ..one }
        };
        // One that is not in force is asked for again.
        let hashes = of(DenialKind::Hash);
        let faulty =
            (old_rules && hashes > 0) || lock(&self.fault).is_some() || lock(&self.stuck).is_some();
        let through = if faulty { 0 } else { self.orders.through() };
        DenialState {
            through,
            paths: of(DenialKind::Path),
            hashes,
            refused: refused.enumerate().map(brief).collect(),
        }
    }
}

/// Begins to look at what lies at denied paths, as long as the agent lives.
pub(super) fn start(agent: &Arc<Agent>) -> std::io::Result<()> {
    let agent = Arc::downgrade(agent);
    let body = move || keep(&agent);
    std::thread::Builder::new().name("denials".to_owned()).spawn(body).map(drop)
}

fn keep(agent: &Weak<Agent>) {
    loop {
        let Some(agent) = agent.upgrade() else { return };
        let done = renew_hashes(&agent, false).and(look(&agent));
        let mut stuck = lock(&agent.denials.stuck);
        if let Err(why) = &done
            && stuck.is_none()
        {
            tracing::error!(why, "denials are not in force as ordered");
        }
        *stuck = done.err();
        drop(stuck);
        let pause = until_next_end(&agent).min(LOOK);
        drop(agent);
        std::thread::sleep(pause);
    }
}

/// How long it is until the next order ends.
fn until_next_end(agent: &Agent) -> Duration {
    let now_ms = crate::now_ms();
    let ends = list(agent).into_iter().filter_map(|one| one.denial.until_ms).min();
    // A moment more, so that it has ended then.
    let left = ends.map(|end| end.saturating_sub(now_ms).saturating_add(1));
    left.map_or(Duration::MAX, |left| Duration::from_millis(u64::try_from(left).unwrap_or(0)))
}

/// Puts the paths in force as they are now, if that differs from what is in force.
fn look(agent: &Agent) -> Result<(), String> {
    let denials = &agent.denials;
    let mut held = lock(&denials.held);
    let wanted = denials.wanted(&mut held.lain, file_at);
    let unprotected = |order: &Order| {
        let path = order.real.as_ref().unwrap_or(&order.denial.value);
        agent.on_access.is_marked(&folder_of(path)) == Some(false)
    };
    let missing = denials.paths().filter(unprotected).map(|order| order.denial.value);
    *lock(&denials.unprotected) = missing.collect();
    if wanted == held.wanted {
        return Ok(());
    }
    let places = Arc::new(wanted.places()?);
    agent.on_access.deny_paths(places).map_err(|error| crate::error_chain(&error))?;
    held.wanted = wanted;
    Ok(())
}

/// The nearest folder that is there of what a path is in.
fn folder_of(path: &str) -> PathBuf {
    let plain = path.find(['*', '?', '[', '{', '\\']).unwrap_or(path.len());
    let place = Path::new(&path[..plain]);
    let there = place.ancestors().find(|place| place.is_dir());
    there.unwrap_or(Path::new("/")).to_owned()
}

/// Denied content becomes a rule where it is none so far, and what has ended is none any more.
fn renew_hashes(agent: &Agent, again: bool) -> Result<(), String> {
    // Whoever comes second waits until what the first one found is in force.
    let _one = lock(&agent.denials.hashing);
    agent.denied.set_fleet(agent.denials.hashes());
    let lines = agent.denied.lines();
    // What was refused is tried again when somebody orders something, and not all the time.
    let failed = again && !lines.is_empty() && agent.factory.bundle().refused.is_some();
    if !agent.factory.set_denied(lines) && !failed {
        return Ok(());
    }
    agent.factory.reload().map_err(|error| crate::error_chain(&error))?;
    agent.on_access.renew();
    Ok(())
}

/// Orders have changed: all of them in force when this returns.
fn put_in_force(agent: &Agent) -> Result<(), String> {
    // Rules that are refused keep no path from being denied.
    let hashes = renew_hashes(agent, true);
    look(agent)?;
    *lock(&agent.denials.stuck) = None;
    hashes
}

/// The manager's list. One that came while another was put in force is next, or gone where a newer
/// one came.
pub(super) fn take(agent: &Agent, list: FleetDenials) {
    *lock(&agent.denials.offered) = Some(list);
    let _turn = lock(&agent.denials.turn);
    let offered = lock(&agent.denials.offered).take();
    let Some(list) = offered else { return };
    let through = list.through;
    let done = agent.denials.orders.take(list).and_then(|()| put_in_force(agent));
    match &done {
        Ok(()) => tracing::warn!(through, "the manager's denials are in force"),
        Err(why) => tracing::error!(through, why, "the manager's denials are not in force"),
    }
    *lock(&agent.denials.fault) = done.err();
}

/// An order for this host alone.
#[derive(Debug)]
pub(super) struct Deny<'a> {
    /// Content or path.
    pub(super) kind: DenialKind,
    /// Which.
    pub(super) value: &'a str,
    /// Who, and why.
    pub(super) why: &'a str,
    /// Until it ends by itself, seconds.
    pub(super) duration_s: Option<u64>,
}

/// Denies content or a path on this host.
pub(super) fn deny(agent: &Agent, order: &Deny<'_>) -> Result<String, String> {
    let Deny { kind, why, duration_s, .. } = *order;
    let value = check(kind, order.value)?;
    let since_ms = crate::now_ms();
    let until_ms = until(since_ms, duration_s).map_err(|why| format!("duration_s: {why}"))?;
    let done = match kind {
        DenialKind::Hash => {
            agent.denials.orders.essentials().refuse_content(&value)?;
            let deny = sink::deny(&agent.denied, &agent.factory, &agent.on_access);
            deny(Denied {
                sha256: value.clone(),
                path: "any file".to_owned(),
                model: why.to_owned(),
                since_ms,
                until_ms,
                ordered: true,
            })?
        }
        DenialKind::Path => {
            let (id, value, why) = (None, value.clone(), why.to_owned());
            let denial = Denial { id, kind, value, why, since_ms, until_ms };
            deny_path(agent, denial)?
        }
    };
    tracing::warn!(kind = kind.name(), value, why, "denied");
    Ok(done)
}

fn deny_path(agent: &Agent, denial: Denial) -> Result<String, String> {
    let value = denial.value.clone();
    let new = agent.denials.orders.add(denial)?;
    let mut done = look(agent);
    if done.is_ok() && lock(&agent.denials.unprotected).contains(&value) {
        done = Err(UNPROTECTED.to_owned());
    }
    if let Err(why) = done {
        // What is said not to be denied does not become so later.
        if new {
            agent.denials.orders.remove(&value)?;
            look(agent)?;
        }
        return Err(why);
    }
    Ok(if new { "what lies there is denied" } else { "it was denied already" }.to_owned())
}

/// Denies it no more, where this host alone denied it.
pub(super) fn undeny(agent: &Agent, kind: DenialKind, value: &str) -> Result<String, String> {
    let value = if kind == DenialKind::Hash { check(kind, value)? } else { value.to_owned() };
    let removed = match kind {
        DenialKind::Hash => {
            let removed =
                agent.denied.remove(&value).map_err(|error| crate::error_chain(&error))?;
            renew_hashes(agent, removed)?;
            removed
        }
        DenialKind::Path => {
            let removed = agent.denials.orders.remove(&value)?;
            look(agent)?;
            removed
        }
    };
    if is_denied(agent, kind, &value) {
        return Err("the manager denies it on many hosts: it is to be taken back there".to_owned());
    }
    tracing::warn!(kind = kind.name(), value, removed, "denied no more");
    Ok(if removed { "it is denied no more" } else { "it was not denied" }.to_owned())
}

/// Whether it is denied by what is in force.
pub(super) fn is_denied(agent: &Agent, kind: DenialKind, value: &str) -> bool {
    match kind {
        DenialKind::Hash => {
            let value = value.to_ascii_lowercase();
            agent.factory.bundle().refused.is_none()
                && agent.denied.lines().lines().any(|line| line.starts_with(&value))
        }
        DenialKind::Path => {
            lock(&agent.denials.stuck).is_none()
                && agent.denials.paths().any(|one| one.denial.value == value)
        }
    }
}

/// Everything that is denied by order here.
pub(super) fn list(agent: &Agent) -> Vec<DenialLine> {
    let denials = &agent.denials;
    let line = |order: Order| DenialLine { refused: denials.refused(&order), denial: order.denial };
    let own = agent.denied.list().into_iter().map(|one| DenialLine {
        denial: Denial {
            id: None,
            kind: DenialKind::Hash,
            value: one.sha256,
            why: one.model,
            since_ms: one.since_ms,
            until_ms: one.until_ms,
        },
        refused: None,
    });
    denials.orders.list().into_iter().map(line).chain(own).collect()
}

/// What the deny list begins with.
pub(super) fn begin(denials: &Denials, denied: &DenyList) {
    denied.set_fleet(denials.hashes());
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
