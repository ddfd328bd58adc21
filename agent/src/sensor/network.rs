//! Records of sockets become events, and the poll's thread finds those that no program saw.

use std::sync::atomic::Ordering;
use std::time::Duration;

use holdfast_common::event::{EventBody, PacketSocketEvent};
use holdfast_common::process::ProcessInfo;

use super::decode::network::{Record, Socket};
use super::poll;
use super::proc::ProcDir;
use super::shared::Shared;

/// How often `/proc/net/packet` is read.
const POLL_EVERY: Duration = Duration::from_secs(5);
/// Between two rounds of the poll, however often it is called.
const PAUSE: Duration = Duration::from_millis(50);

impl Shared {
    /// True when it was told; else it was put together with others.
    pub(super) fn network(&self, record: Record) -> bool {
        match record {
            Record::Socket(socket) => self.socket(socket),
            // The reader has attached the program and called the poll.
            Record::Capability(_) => {}
        }
        true
    }

    /// The poll thread.
    pub(super) fn poll(&self) {
        loop {
            if !self.follows {
                self.table.sync_with_proc();
            }
            let first = self.take_nudged();
            for found in poll::round(&self.seen, &first) {
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
            self.wait_for_nudge(POLL_EVERY);
            if self.stopping() {
                return;
            }
        }
    }

    fn socket(&self, socket: Socket) {
        self.seen.note(socket.inode, socket.protocol);
        let process = self.process_of(&socket.who);
        self.socket_event(process, |event| {
            event.action = socket.action.to_owned();
            event.family = socket.family;
            event.socket_type = socket.socket_type;
            event.protocol = socket.protocol;
            event.interface = socket.interface;
        });
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
        };
        fill(&mut event);
        self.emit(EventBody::PacketSocket(Box::new(event)));
    }
}
