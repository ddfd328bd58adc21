//! What a process did, what it started and what started it, put together from stored events.
//!
//! Events are found by pid and by parent's pid in the index, and taken only where the whole process
//! key fits. INVARIANT: the nodes are one tree, each process once, whatever a host claims of its
//! processes' parents; and searches, events and nodes are bounded: what does not fit is left out and
//! the answer says so.

use std::collections::HashMap;

use holdfast_common::event::{Activity, Event, EventBody};
use holdfast_common::process::{ProcessInfo, ProcessKey};
use uuid::Uuid;

use super::{App, AppError, cut};
use crate::query::Expr;
use crate::store::index::FactField;
use crate::store::search::{Search, StoredEvent};

/// Generations below the process.
const GENERATIONS: usize = 12;
/// Processes in all.
const NODES: usize = 300;
/// Events that are looked at in all, and for one search.
const EVENTS: u32 = 4000;
const EVENTS_A_SEARCH: u32 = 1000;
/// Parents that one search names.
const PARENTS: usize = 50;
/// Ancestors that one event names.
const ANCESTORS: usize = 64;
/// Events that a process names.
const SHOWN: usize = 40;
/// Bytes of a text, and of all arguments of a process.
const TEXT: usize = 1024;
const ARGUMENTS: usize = 4096;

/// Where a process stands to the one that was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kin {
    /// Above it.
    Ancestor,
    /// Itself.
    Own,
    /// Below it.
    Descendant,
}

/// What an event is to a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Deed {
    /// It began to run a program.
    Start,
    /// It touched a file that matters.
    File,
    /// It used the network.
    Connection,
    /// It did something else that is watched.
    Activity,
    /// Something was detected of it.
    Detection,
}

/// An event of a process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// The event's number.
    pub number: i64,
    /// When.
    pub time_ms: i64,
    /// What it is.
    pub deed: Deed,
    /// What was done.
    pub action: String,
    /// To what.
    pub what: String,
    /// How many equal ones it stands for.
    pub count: u64,
}

/// How many events of each sort, those that one event stands for included.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Files that were touched.
    pub files: u64,
    /// Uses of the network.
    pub connections: u64,
    /// Other acts.
    pub activities: u64,
    /// Detections.
    pub detections: u64,
}

/// A process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Which.
    pub key: ProcessKey,
    /// The node above it.
    pub parent: Option<ProcessKey>,
    /// Where it stands.
    pub kin: Kin,
    /// What is known of it, long texts cut.
    pub process: ProcessInfo,
    /// Its first event's time in the period; nothing where others alone name it.
    pub first_ms: Option<i64>,
    /// Its last event's.
    pub last_ms: Option<i64>,
    /// When it ended.
    pub ended_ms: Option<i64>,
    /// Its events by sort.
    pub counts: Counts,
    /// Its newest events, newest first.
    pub items: Vec<Item>,
    /// Whether there are more of them.
    pub more: bool,
    rank: Rank,
}

/// How good what is known of a process is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    /// A child names it as its parent, no more.
    Key,
    /// Another process's event names it.
    Named,
    /// It is in an event of its own.
    Seen,
    /// It is in the event of its start.
    Started,
}

/// A process and its kin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Profile {
    /// From the first ancestor down; a node stands behind the one above it.
    pub nodes: Vec<Node>,
    /// Whether something did not fit.
    pub truncated: bool,
}

impl App {
    /// What a process of a host did in a period, with its ancestors and descendants.
    ///
    /// # Errors
    /// [`AppError`]; `NotFound` when no event of the period names the process.
    pub async fn process_profile(
        &self,
        host: Uuid,
        key: ProcessKey,
        period: (i64, i64),
    ) -> Result<Profile, AppError> {
        if self.host_ref(host).await?.is_none() {
            return Err(AppError::NotFound("host"));
        }
        let mut tree = Tree::new(key);
        let mut left = EVENTS;
        let mut searched = Searched { app: self, host, period, left: &mut left, cut: false };
        for event in searched.events(&[(FactField::Pid, key)]).await? {
            tree.add_own(&event);
        }
        let mut generation = vec![key];
        for _ in 0..GENERATIONS {
            let mut next = Vec::new();
            for parents in generation.chunks(PARENTS) {
                let terms: Vec<_> = parents.iter().map(|key| (FactField::Parent, *key)).collect();
                for event in searched.events(&terms).await? {
                    tree.add_below(&event, parents, &mut next);
                }
            }
            generation = next;
            if generation.is_empty() {
                break;
            }
        }
        // Whether there is more below the last generation was not looked for.
        let truncated = searched.cut || tree.full || !generation.is_empty();
        let nodes = tree.finish().ok_or(AppError::NotFound("process in this period"))?;
        Ok(Profile { nodes, truncated })
    }
}

/// The searches of one profile, with what is left of their bounds.
struct Searched<'a> {
    app: &'a App,
    host: Uuid,
    period: (i64, i64),
    left: &'a mut u32,
    cut: bool,
}

impl Searched<'_> {
    /// Events of the host with one of these pids, newest first.
    async fn events(&mut self, terms: &[(FactField, ProcessKey)]) -> Result<Vec<Told>, AppError> {
        let fact = |field, value: String| Expr::Fact { field, value };
        let pids = terms.iter().map(|(field, key)| fact(*field, key.pid.to_string()));
        let host = fact(FactField::Host, self.host.to_string());
        let limit = EVENTS_A_SEARCH.min(*self.left);
        let search = Search {
            query: Expr::And(vec![host, Expr::Or(pids.collect())]),
            from_ms: self.period.0,
            until_ms: self.period.1,
            before: None,
            limit: limit + 1,
        };
        let mut found = self.app.store().event_search(&search).await?;
        let most = usize::try_from(limit).unwrap_or(usize::MAX);
        self.cut |= found.len() > most;
        found.truncate(most);
        *self.left -= u32::try_from(found.len()).unwrap_or(*self.left).min(*self.left);
        // A host's name could be another's id.
        found.retain(|event| event.host == self.host);
        Ok(found.into_iter().filter_map(Told::read).collect())
    }
}

/// An event that names a process.
struct Told {
    number: i64,
    time_ms: i64,
    body: EventBody,
}

impl Told {
    fn read(stored: StoredEvent) -> Option<Self> {
        let event: Event = serde_json::from_str(&stored.body).ok()?;
        actor(&event.body)?;
        Some(Self { number: stored.number, time_ms: stored.time_ms, body: event.body })
    }

    /// Who did it and its ancestors, nearest first.
    fn line(&self) -> impl Iterator<Item = &ProcessInfo> {
        actor(&self.body)
            .into_iter()
            .flat_map(|(process, parents)| [process].into_iter().chain(parents))
    }
}

/// Who did it, and its ancestors, nearest first.
fn actor(body: &EventBody) -> Option<(&ProcessInfo, &[ProcessInfo])> {
    match body {
        EventBody::Malware(one) => Some((one.process.as_ref()?, &one.parents)),
        EventBody::Tampering(one) => Some((one.process.as_ref()?, &one.parents)),
        EventBody::Model(one) => Some((&one.process, &one.parents)),
        EventBody::Exec(one) => Some((&one.process, &one.parents)),
        EventBody::PacketSocket(one) => Some((&one.process, &one.parents)),
        EventBody::Activity(one) => Some((&one.process, &one.parents)),
        EventBody::Network(one) => Some((&one.process, &one.parents)),
        EventBody::File(one) => Some((&one.process, &one.parents)),
        EventBody::Failure(_)
        | EventBody::Quarantine(_)
        | EventBody::Scan(_)
        | EventBody::Shell(_)
        | EventBody::Policy(_)
        | EventBody::Proof(_)
        | EventBody::Isolation(_)
        | EventBody::AgentStarted(_)
        | EventBody::AgentStopped
        | EventBody::ProtectionGap(_)
        | EventBody::Bundle(_)
        | EventBody::Coverage(_)
        | EventBody::Loss(_) => None,
    }
}

/// The tree while it grows.
struct Tree {
    key: ProcessKey,
    nodes: Vec<Node>,
    places: HashMap<ProcessKey, usize>,
    /// Nearest first.
    above: Vec<ProcessInfo>,
    full: bool,
}

impl Tree {
    fn new(key: ProcessKey) -> Self {
        Self { key, nodes: Vec::new(), places: HashMap::new(), above: Vec::new(), full: false }
    }

    /// Takes an event in that may be the process's own.
    fn add_own(&mut self, event: &Told) {
        if event.line().next().is_some_and(|process| process.key == self.key) {
            self.look_up(event);
            self.note(event);
        }
    }

    /// Takes an event in whose process may be the child of one of these; new ones go to `next`.
    fn add_below(&mut self, event: &Told, parents: &[ProcessKey], next: &mut Vec<ProcessKey>) {
        let Some(process) = event.line().next() else { return };
        let Some(parent) = process.parent.filter(|parent| parents.contains(parent)) else { return };
        self.look_up(event);
        match self.places.get(&process.key) {
            // Not by another parent than the one that it was found by: it has one place.
            Some(place) if self.nodes[*place].parent == Some(parent) => self.note(event),
            Some(_) => {}
            None if process.key == self.key => {}
            None if self.nodes.len() >= NODES => self.full = true,
            None => {
                self.place(process.key, Some(parent), Kin::Descendant, process, Rank::Seen);
                self.note(event);
                next.push(process.key);
            }
        }
    }

    /// What an event says of the process and of who is above it.
    fn look_up(&mut self, event: &Told) {
        let key = self.key;
        let mut line = event.line().skip_while(|process| process.key != key);
        let Some(own) = line.next() else {
            if event.line().next().is_some_and(|process| process.parent == Some(self.key)) {
                self.place_own(&ProcessInfo { key: self.key, ..ProcessInfo::default() }, Rank::Key);
            }
            return;
        };
        self.place_own(own, Rank::Named);
        let above: Vec<_> = line.take(ANCESTORS).cloned().collect();
        if above.len() > self.above.len() {
            self.above = above;
        }
    }

    fn place_own(&mut self, process: &ProcessInfo, rank: Rank) {
        match self.places.get(&self.key) {
            None => self.place(self.key, None, Kin::Own, process, rank),
            Some(place) if self.nodes[*place].rank < rank => {
                self.nodes[*place].process = shortened(process);
                self.nodes[*place].rank = rank;
            }
            Some(_) => {}
        }
    }

    fn place(
        &mut self,
        key: ProcessKey,
        parent: Option<ProcessKey>,
        kin: Kin,
        process: &ProcessInfo,
        rank: Rank,
    ) {
        self.places.insert(key, self.nodes.len());
        self.nodes.push(Node {
            key,
            parent,
            kin,
            process: shortened(process),
            first_ms: None,
            last_ms: None,
            ended_ms: None,
            counts: Counts::default(),
            items: Vec::new(),
            more: false,
            rank,
        });
    }

    /// Counts an event at its process, which has a place.
    fn note(&mut self, event: &Told) {
        let Some(process) = event.line().next() else { return };
        let Some(place) = self.places.get(&process.key) else { return };
        let node = &mut self.nodes[*place];
        let rank =
            if matches!(event.body, EventBody::Exec(_)) { Rank::Started } else { Rank::Seen };
        if rank > node.rank {
            node.process = shortened(process);
            node.rank = rank;
        }
        let time = event.time_ms;
        node.first_ms = Some(node.first_ms.map_or(time, |first| first.min(time)));
        node.last_ms = Some(node.last_ms.map_or(time, |last| last.max(time)));
        if let EventBody::Activity(done) = &event.body
            && matches!(done.activity, Activity::Exit { .. })
        {
            node.ended_ms = Some(time);
        }
        let Some(item) = item(event) else { return };
        let counted = match item.deed {
            Deed::Start => None,
            Deed::File => Some(&mut node.counts.files),
            Deed::Connection => Some(&mut node.counts.connections),
            Deed::Activity => Some(&mut node.counts.activities),
            Deed::Detection => Some(&mut node.counts.detections),
        };
        if let Some(counted) = counted {
            *counted = counted.saturating_add(item.count);
        }
        if node.items.len() < SHOWN {
            node.items.push(item);
        } else {
            node.more = true;
        }
    }

    /// All nodes with those above at the front; nothing when nobody named the process.
    fn finish(mut self) -> Option<Vec<Node>> {
        let own = *self.places.get(&self.key)?;
        let mut chain = Vec::new();
        for process in std::mem::take(&mut self.above) {
            // What a host says of them may go in circles.
            if self.places.contains_key(&process.key) {
                break;
            }
            self.place(process.key, None, Kin::Ancestor, &process, Rank::Named);
            chain.push(process.key);
        }
        let mut below = own;
        for key in &chain {
            self.nodes[below].parent = Some(*key);
            below = self.places[key];
        }
        let ancestors = self.nodes.split_off(self.nodes.len() - chain.len());
        let mut nodes: Vec<_> = ancestors.into_iter().rev().collect();
        let own = self.nodes.remove(own);
        nodes.push(own);
        nodes.append(&mut self.nodes);
        Some(nodes)
    }
}

/// What an event says that was done; nothing for what the tree itself shows.
fn item(event: &Told) -> Option<Item> {
    let (deed, action, what, count) = match &event.body {
        EventBody::Exec(one) => {
            (Deed::Start, "exec".to_owned(), one.process.command_line(), one.count)
        }
        EventBody::File(one) => (Deed::File, one.action.clone(), one.path.clone(), one.count),
        EventBody::Network(one) => {
            let what = if !one.dns_name.is_empty() {
                format!("{} {}", one.dns_name, one.dns_type)
            } else if one.remote_address.is_empty() {
                format!("{} {}", one.protocol, peer(&one.local_address, one.local_port))
            } else {
                format!("{} {}", one.protocol, peer(&one.remote_address, one.remote_port))
            };
            (Deed::Connection, one.action.clone(), what, one.count)
        }
        EventBody::PacketSocket(one) => {
            let what = format!("{} {} {}", one.family, one.socket_type, one.protocol);
            (Deed::Connection, one.action.clone(), what, 1)
        }
        EventBody::Activity(one) => (
            Deed::Activity,
            one.activity.name().to_owned(),
            activity_target(&one.activity)?,
            one.count,
        ),
        EventBody::Malware(one) => {
            (Deed::Detection, one.signature.name.clone(), one.path.clone(), 1)
        }
        EventBody::Model(one) => (Deed::Detection, one.title.clone(), one.attack.join(" "), 1),
        EventBody::Tampering(one) => {
            (Deed::Detection, one.action.clone(), one.target.clone(), one.count)
        }
        EventBody::Failure(_)
        | EventBody::Quarantine(_)
        | EventBody::Scan(_)
        | EventBody::Shell(_)
        | EventBody::Policy(_)
        | EventBody::Proof(_)
        | EventBody::Isolation(_)
        | EventBody::AgentStarted(_)
        | EventBody::AgentStopped
        | EventBody::ProtectionGap(_)
        | EventBody::Bundle(_)
        | EventBody::Coverage(_)
        | EventBody::Loss(_) => return None,
    };
    let short = |text: String| cut(&text, TEXT).to_owned();
    let (number, time_ms) = (event.number, event.time_ms);
    Some(Item { number, time_ms, deed, action: short(action), what: short(what), count })
}

fn peer(address: &str, port: u16) -> String {
    if address.contains(':') { format!("[{address}]:{port}") } else { format!("{address}:{port}") }
}

/// What something was done to; nothing for beginning and end, which the tree itself shows.
fn activity_target(activity: &Activity) -> Option<String> {
    match activity {
        Activity::Fork { .. } | Activity::Exit { .. } => None,
        Activity::Ptrace { target, .. }
        | Activity::MemoryWrite { target }
        | Activity::Signal { target, .. } => Some(target.exe.clone()),
        Activity::ModuleLoad { name, .. }
        | Activity::BpfLoad { name, .. }
        | Activity::Memfd { name } => Some(name.clone()),
        Activity::Mount { target, .. } => Some(target.clone()),
        Activity::Credentials { old_euid, new_euid, .. } => {
            Some(format!("{old_euid} → {new_euid}"))
        }
        Activity::Namespaces { namespaces, .. } => Some(namespaces.join(" ")),
    }
}

/// What is known of a process, of a bounded size.
fn shortened(process: &ProcessInfo) -> ProcessInfo {
    let short = |text: &String| cut(text, TEXT).to_owned();
    let mut args = Vec::new();
    let mut room = ARGUMENTS;
    for argument in &process.args {
        if room == 0 {
            break;
        }
        let kept = cut(argument, room);
        // An empty one takes room too: there could be any number of them.
        room = room.saturating_sub(kept.len() + 1);
        args.push(kept.to_owned());
    }
    let bytes = |args: &[String]| args.iter().map(String::len).sum::<usize>();
    let lost = args.len() < process.args.len() || bytes(&args) < bytes(&process.args);
    ProcessInfo {
        key: process.key,
        parent: process.parent,
        exe: short(&process.exe),
        comm: short(&process.comm),
        args,
        args_truncated: process.args_truncated || lost,
        uid: process.uid,
        euid: process.euid,
        login_uid: process.login_uid,
        user: short(&process.user),
        cwd: short(&process.cwd),
        container: process.container.as_ref().map(short),
        tty: short(&process.tty),
        script: process.script.as_ref().map(short),
        sha256: process.sha256.as_ref().map(short),
        ..ProcessInfo::default()
    }
}
