//! Records of sockets become events, and the poll's thread finds those that no program saw.

use std::os::fd::AsFd;
use std::sync::atomic::Ordering;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use holdfast_common::event::{EventBody, PacketSocketEvent};
use holdfast_common::process::ProcessInfo;

use super::decode::Who;
use super::decode::network::{Record, Socket};
use super::links::{Links, Promiscuous};
use super::poll;
use super::proc::ProcDir;
use super::shared::Shared;

/// How often `/proc/net/packet` is read.
const POLL_EVERY: Duration = Duration::from_secs(5);
/// Between two rounds of the poll, however often it is called.
const PAUSE: Duration = Duration::from_millis(50);
/// Between what somebody did and what the kernel told of it by another way.
const LATELY: Duration = Duration::from_secs(1);
/// Uses of capabilities that are remembered.
const MOST_CAPABLE: usize = 64;

impl Shared {
    /// True when it was told; else it was put together with others.
    pub(super) fn network(&self, record: Record) -> bool {
        match record {
            Record::Socket(socket) => self.socket(socket),
            // The reader has attached the program and called the poll.
            Record::Capability(who, _) => self.used_capability(who),
        }
        true
    }

    /// The poll thread.
    pub(super) fn poll(&self) {
        self.find_listeners();
        let mut links = Links::follow()
            .inspect_err(|error| tracing::warn!(%error, "links are not followed"))
            .ok();
        loop {
            if !self.follows {
                self.table.sync_with_proc();
            }
            let first = self.take_nudged();
            let (found, namespaces) = poll::round(&self.seen, &first);
            for found in found {
                self.found.fetch_add(1, Ordering::Relaxed);
                let Some(process) = self.table.lookup(found.pid).or_else(|| {
                    let folder = ProcDir::open(found.pid)?;
                    Some(folder.facts())
                }) else {
                    continue;
                };
                self.socket_event(process, |event| {
                    event.action = "found".to_owned();
                    event.family = found.family;
                    event.socket_type = found.socket_type;
                    event.protocol = found.listed.protocol;
                    event.interface = found.listed.interface;
                });
            }
            self.wait(&[], PAUSE);
            let mut changed = Vec::new();
            if let Some(links) = &mut links {
                changed = links.learn(&namespaces);
                changed.extend(links.read());
            }
            if !changed.is_empty() {
                self.promiscuous_links(&changed);
            }
            self.wait_for_nudge(links.as_ref().map(AsFd::as_fd), POLL_EVERY);
            if self.stopping() {
                return;
            }
        }
    }

    fn socket(&self, socket: Socket) {
        self.seen.note(socket.inode, socket.protocol);
        if socket.action == "promiscuous" {
            let mut told = lock(&self.promiscuous);
            told.retain(|_, at| at.elapsed() < LATELY);
            // Of a process that has ended: the host's, most likely.
            let namespace = poll::namespace_of(socket.who.key.pid).unwrap_or(self.namespace);
            let interface = Promiscuous { namespace, interface: socket.interface };
            told.insert(interface, Instant::now());
        }
        let process = self.process_of(&socket.who);
        self.socket_event(process, |event| {
            event.action = socket.action.to_owned();
            event.family = socket.family;
            event.socket_type = socket.socket_type;
            event.protocol = socket.protocol;
            event.interface = socket.interface;
        });
    }

    fn used_capability(&self, who: Who) {
        let mut capable = lock(&self.capable);
        if capable.len() == MOST_CAPABLE {
            capable.pop_front();
        }
        capable.push_back((Instant::now(), who));
    }

    /// Tells of interfaces that have become promiscuous by a way that no program told.
    fn promiscuous_links(&self, interfaces: &[Promiscuous]) {
        // The records of who did it may still be on their way.
        self.wait(&[], PAUSE * 2);
        for interface in interfaces {
            let told = lock(&self.promiscuous).get(interface).copied();
            if told.is_some_and(|at| at.elapsed() < LATELY) {
                continue;
            }
            self.found.fetch_add(1, Ordering::Relaxed);
            let by = self.capable_in(interface.namespace);
            let process = by.map(|who| self.process_of(&who)).unwrap_or_default();
            self.socket_event(process, |event| {
                event.action = "promiscuous".to_owned();
                event.interface = interface.interface;
                event.network_namespace = interface.namespace;
            });
        }
    }

    /// Who used a capability in a network namespace a moment before; else who has ended since, of
    /// whom nobody knows where it was.
    fn capable_in(&self, namespace: u64) -> Option<Who> {
        let lately: Vec<Who> = lock(&self.capable)
            .iter()
            .rev()
            .filter(|(at, _)| at.elapsed() < LATELY)
            .map(|(_, who)| *who)
            .collect();
        let place = |who: &Who| poll::namespace_of(who.key.pid);
        let there = lately.iter().find(|who| place(who) == Some(namespace));
        there.or_else(|| lately.iter().find(|who| place(who).is_none())).copied()
    }

    fn socket_event(&self, process: ProcessInfo, fill: impl FnOnce(&mut PacketSocketEvent)) {
        let parents = self.parents(&process);
        let mut event = PacketSocketEvent {
            process,
            parents,
            action: String::new(),
            family: String::new(),
            socket_type: String::new(),
            protocol: 0,
            interface: 0,
            network_namespace: 0,
        };
        fill(&mut event);
        self.emit(EventBody::PacketSocket(Box::new(event)));
    }
}

fn lock<T>(what: &Mutex<T>) -> MutexGuard<'_, T> {
    what.lock().unwrap_or_else(PoisonError::into_inner)
}
