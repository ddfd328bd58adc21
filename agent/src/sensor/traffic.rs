//! Records of connections and DNS become events; equal ones within a second become one.
//!
//! Who began to listen before the programs were there is looked up in /proc once, by the poll's
//! thread ([`Shared::find_listeners`]).

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Instant;

use holdfast_common::abi::Kind;
use holdfast_common::event::NetworkEvent;
use holdfast_common::process::ProcessKey;

use super::decode::traffic::{Connection, Dns, Record};
use super::decode::{Who, dns};
use super::gather::Alike;
use super::poll;
use super::proc::ProcDir;
use super::shared::Shared;
use super::storms::Held;

/// Who listens, by namespace and port.
pub(super) type Listeners = HashMap<(u32, u16), ProcessKey>;

impl Shared {
    /// True when it was told; else it was put together with others.
    pub(super) fn traffic(&self, record: Record<'_>) -> bool {
        match record {
            Record::Connection(connection) => self.connection(connection),
            Record::Dns(message) => self.dns(&message),
        }
    }

    /// Looks up who listened before the sensor came.
    pub(super) fn find_listeners(&self) {
        let listeners = poll::listeners().into_iter().filter_map(|(place, pid)| {
            let known = self.table.lookup(pid).map(|info| info.key);
            Some((place, known.or_else(|| Some(ProcDir::open(pid)?.key))?))
        });
        // Set once, by the one caller.
        let _ = self.listeners.set(listeners.collect());
    }

    fn connection(&self, mut connection: Connection) -> bool {
        if connection.kind == Kind::Accept {
            self.name_listener(&mut connection);
        }
        let (kind, action, who) = (connection.kind, connection.action, connection.who);
        let mut event = event(action, &connection);
        if matches!(kind, Kind::Connect | Kind::Send) {
            // Not chosen yet.
            event.local_address.clear();
        } else if matches!(kind, Kind::Bind | Kind::Listen) {
            event.remote_address.clear();
        }
        // A client has another port each time.
        let port = if kind == Kind::Accept { 0 } else { event.remote_port };
        let key = self.storms.hash_of((
            (who.key, action, event.protocol.as_str()),
            (event.local_address.as_str(), event.local_port),
            (event.remote_address.as_str(), port),
        ));
        self.offer(kind, key, who, event)
    }

    fn name_listener(&self, connection: &mut Connection) {
        if connection.who.key.pid != 0 {
            return;
        }
        let place = (connection.namespace, connection.local_port);
        let known = self.listeners.get().and_then(|listeners| listeners.get(&place));
        if let Some(info) = known.and_then(|key| self.table.get(*key)) {
            connection.who.key = info.key;
            (connection.who.uid, connection.who.euid) = (info.uid, info.euid);
            let length = info.comm.len().min(connection.who.comm.len() - 1);
            connection.who.comm[..length].copy_from_slice(&info.comm.as_bytes()[..length]);
        }
    }

    fn dns(&self, message: &Dns<'_>) -> bool {
        let action = if message.incoming { "dns_answer" } else { "dns_question" };
        let mut event = event(action, &message.connection);
        match dns::parse(message.message, message.cut) {
            Some(parsed) => {
                event.dns_name = parsed.name;
                event.dns_type = parsed.kind;
                event.dns_answers = parsed.answers;
            }
            // Something else that uses DNS' port.
            None => event.dns_type = "malformed".to_owned(),
        }
        let who = message.connection.who;
        let key = self.storms.hash_of((
            (who.key, action, event.remote_address.as_str()),
            (event.dns_name.as_str(), event.dns_type.as_str(), &event.dns_answers),
        ));
        self.offer(Kind::Dns, key, who, event)
    }

    fn offer(&self, kind: Kind, key: u64, who: Who, event: NetworkEvent) -> bool {
        let coarse = self.storms.hash_of((who.comm, event.action.as_str()));
        let alike = Alike { kind, key, coarse, variant: None };
        let held = Held::Network(who, Box::new(event));
        let told = self.storms.gather().offer(alike, Instant::now(), held);
        told.map(|held| self.tell(held, 1)).is_some()
    }
}

/// All but the process.
fn event(action: &str, connection: &Connection) -> NetworkEvent {
    NetworkEvent {
        process: Default::default(),
        parents: Vec::new(),
        action: action.to_owned(),
        protocol: match connection.protocol {
            6 => "tcp".to_owned(),
            17 => "udp".to_owned(),
            other => other.to_string(),
        },
        local_address: text(connection.local),
        local_port: connection.local_port,
        remote_address: text(connection.remote),
        remote_port: connection.remote_port,
        dns_name: String::new(),
        dns_type: String::new(),
        dns_answers: Vec::new(),
        count: 1,
    }
}

fn text(address: IpAddr) -> String {
    address.to_string()
}
