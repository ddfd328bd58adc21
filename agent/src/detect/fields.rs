//! Events under the field names that Sigma rules for Linux use.
//!
//! The names of processes are those of Sigma's `process_creation` taxonomy; those of sockets
//! (`packet_socket`) are our own: `Action`, `SocketFamily`, `SocketType`, `Protocol`, `Interface`.

use holdfast_common::event::EventBody;
use holdfast_common::process::ProcessInfo;
use serde_json::{Map, Value};

/// An event as the rules see it.
#[derive(Debug, Clone)]
pub struct Observation<'a> {
    /// Sigma's `logsource.category`.
    pub category: &'static str,
    /// Who did it.
    pub process: &'a ProcessInfo,
    /// Its ancestors, nearest first.
    pub parents: &'a [ProcessInfo],
    body: &'a EventBody,
}

/// Categories that events of this agent have.
pub const CATEGORIES: [&str; 2] = ["process_creation", "packet_socket"];

impl<'a> Observation<'a> {
    /// `None` for events that no rule looks at.
    pub fn of(body: &'a EventBody) -> Option<Self> {
        let (category, process, parents) = match body {
            EventBody::Exec(exec) => (CATEGORIES[0], &exec.process, exec.parents.as_slice()),
            EventBody::PacketSocket(socket) => {
                (CATEGORIES[1], &socket.process, socket.parents.as_slice())
            }
            EventBody::Activity(_)
            | EventBody::Network(_)
            | EventBody::File(_)
            | EventBody::Proof(_)
            | EventBody::Isolation(_)
            | EventBody::Tampering(_)
            | EventBody::Malware(_)
            | EventBody::Model(_)
            | EventBody::Failure(_)
            | EventBody::Quarantine(_)
            | EventBody::AgentStarted(_)
            | EventBody::AgentStopped
            | EventBody::ProtectionGap(_)
            | EventBody::Bundle(_)
            | EventBody::Coverage(_)
            | EventBody::Loss(_) => return None,
        };
        Some(Self { category, process, parents, body })
    }

    /// The fields, as a flat JSON object.
    pub fn fields(&self) -> Value {
        let mut fields = Map::new();
        let mut put = |name: &str, value: Value| fields.insert(name.to_owned(), value);
        put("Image", self.process.exe.clone().into());
        put("CommandLine", self.process.command_line().into());
        put("User", self.process.user.clone().into());
        put("ProcessId", self.process.key.pid.into());
        put("CurrentDirectory", self.process.cwd.clone().into());
        if let Some(login) = self.process.login_uid {
            put("LogonId", login.into());
        }
        if let Some(parent) = self.parents.first() {
            put("ParentImage", parent.exe.clone().into());
            put("ParentCommandLine", parent.command_line().into());
            put("ParentProcessId", parent.key.pid.into());
            put("ParentUser", parent.user.clone().into());
        }
        if let EventBody::PacketSocket(socket) = self.body {
            put("Action", socket.action.clone().into());
            put("SocketFamily", socket.family.clone().into());
            put("SocketType", socket.socket_type.clone().into());
            put("Protocol", socket.protocol.into());
            put("Interface", socket.interface.into());
        }
        Value::Object(fields)
    }
}
