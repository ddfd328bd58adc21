//! Events as Sigma rules see them: which log sources one event speaks for, and its fields there.
//!
//! Names are those of Sigma's taxonomy where it has one (`process_creation`,
//! `network_connection`, `dns_query`, `file_event` and its sisters), and those of auditd's records
//! (`EXECVE`, `SYSCALL`, `PATH`) for rules with `service: auditd`. Log sources of our own:
//! `packet_socket`, `network_listen`, `file_activity`, `process_activity`.
//!
//! Fields are borrowed from the event or made when a rule asks for them; a field without a fact
//! is absent. [`Fact`] is a field whose name was looked up once, for those who ask for it often. `CommandLine` is the arguments with one space between them, as Sigma's rules expect
//! it; nothing is quoted. Decides nothing.

use std::borrow::Cow;
use std::cell::OnceCell;

use holdfast_common::event::{Activity, EventBody, NetworkEvent};
use holdfast_common::process::{ProcessInfo, ProcessKey};
use rsigma_eval::event::{Event as SigmaEvent, EventValue};
use rsigma_parser::LogSource;
use serde_json::{Map, Value};

use super::audit;
use super::names::Names;

/// What a rule's `logsource` may name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Source {
    /// `process_creation`; also where rules for `product: linux` alone look.
    ProcessCreation,
    /// `network_connection`
    NetworkConnection,
    /// `network_listen`, our own: bind and listen.
    NetworkListen,
    /// `dns_query`
    DnsQuery,
    /// `file_event`: created, written or renamed to.
    FileEvent,
    /// `file_delete`
    FileDelete,
    /// `file_change`: attributes.
    FileChange,
    /// `file_access`: read.
    FileAccess,
    /// `file_activity`, our own: all of the four.
    FileActivity,
    /// `packet_socket`, our own.
    PacketSocket,
    /// `process_activity`, our own: what a process did to itself, another one or the kernel.
    ProcessActivity,
    /// auditd's record of the arguments.
    AuditExecve,
    /// auditd's record of a system call.
    AuditSyscall,
    /// auditd's record of a file name.
    AuditPath,
}

/// All of them, in the order of their numbers.
pub const SOURCES: [Source; 14] = [
    Source::ProcessCreation,
    Source::NetworkConnection,
    Source::NetworkListen,
    Source::DnsQuery,
    Source::FileEvent,
    Source::FileDelete,
    Source::FileChange,
    Source::FileAccess,
    Source::FileActivity,
    Source::PacketSocket,
    Source::ProcessActivity,
    Source::AuditExecve,
    Source::AuditSyscall,
    Source::AuditPath,
];

/// Fields of the process, in every source but auditd's.
const PROCESS_FIELDS: [&str; 31] = [
    "Image",
    "CommandLine",
    "User",
    "UserId",
    "EffectiveUserId",
    "LogonId",
    "ProcessId",
    "ProcessKey",
    "ProcessName",
    "CurrentDirectory",
    "ContainerId",
    "CGroup",
    "TTY",
    "SessionId",
    "Script",
    "Hashes",
    "sha256",
    "ParentImage",
    "ParentCommandLine",
    "ParentProcessId",
    "ParentProcessKey",
    "ParentProcessName",
    "ParentUser",
    "AncestorImage",
    "LD_PRELOAD",
    "LD_LIBRARY_PATH",
    "LD_AUDIT",
    "HISTFILE",
    "BASH_ENV",
    "PROMPT_COMMAND",
    "Count",
];
/// Variables of the environment, among the former.
const ENVIRONMENT_FIELDS: [&str; 6] =
    ["LD_PRELOAD", "LD_LIBRARY_PATH", "LD_AUDIT", "HISTFILE", "BASH_ENV", "PROMPT_COMMAND"];
/// Command lines hold what those rules look for; a parent's was an event of its own.
const KEYWORD_FIELDS: [&str; 1] = ["CommandLine"];
const NETWORK_FIELDS: [&str; 9] = [
    "Action",
    "Protocol",
    "SourceIp",
    "SourcePort",
    "DestinationIp",
    "DestinationPort",
    "DestinationHostname",
    "DestinationIsIpv6",
    "Initiated",
];
const DNS_FIELDS: [&str; 4] = ["QueryName", "QueryResults", "record_type", "query"];
const FILE_FIELDS: [&str; 6] =
    ["Action", "TargetFilename", "SourceFilename", "FileClass", "Mode", "SetId"];
const PACKET_FIELDS: [&str; 5] = ["Action", "SocketFamily", "SocketType", "Protocol", "Interface"];
const ACTIVITY_FIELDS: [&str; 18] = [
    "Activity",
    "TargetImage",
    "TargetCommandLine",
    "TargetProcessId",
    "TargetUser",
    "Request",
    "Call",
    "Signal",
    "Name",
    "Tainted",
    "ProgramType",
    "MountTarget",
    "MountSource",
    "MountType",
    "Namespaces",
    "OldUserId",
    "NewUserId",
    "NewEffectiveUserId",
];

impl Source {
    /// Sigma's category, `auditd` for the three records of that service.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::ProcessCreation => "process_creation",
            Self::NetworkConnection => "network_connection",
            Self::NetworkListen => "network_listen",
            Self::DnsQuery => "dns_query",
            Self::FileEvent => "file_event",
            Self::FileDelete => "file_delete",
            Self::FileChange => "file_change",
            Self::FileAccess => "file_access",
            Self::FileActivity => "file_activity",
            Self::PacketSocket => "packet_socket",
            Self::ProcessActivity => "process_activity",
            Self::AuditExecve | Self::AuditSyscall | Self::AuditPath => "auditd",
        }
    }

    /// Where a rule with this log source looks; nowhere when the agent has no such events.
    #[must_use]
    pub fn of(wanted: &LogSource) -> Vec<Self> {
        let linux = |product: &str| product.eq_ignore_ascii_case("linux");
        if wanted.product.as_deref().is_some_and(|product| !linux(product)) {
            return Vec::new();
        }
        match (wanted.category.as_deref(), wanted.service.as_deref()) {
            (Some(category), _) => {
                SOURCES.into_iter().filter(|source| source.name() == category).collect()
            }
            (None, Some("auditd")) => {
                vec![Self::AuditExecve, Self::AuditSyscall, Self::AuditPath]
            }
            (None, None) => vec![Self::ProcessCreation],
            (None, Some(_)) => Vec::new(),
        }
    }

    /// Its fields; those of numbered arguments (`a0`…) are in addition.
    pub fn fields(self) -> impl Iterator<Item = &'static str> {
        let process: &[&str] = match self {
            Self::AuditExecve | Self::AuditSyscall | Self::AuditPath => &[],
            _ => &PROCESS_FIELDS,
        };
        process.iter().chain(self.own_fields()).copied()
    }

    /// Its fields besides those of the process.
    #[must_use]
    pub const fn own_fields(self) -> &'static [&'static str] {
        match self {
            Self::ProcessCreation => &[],
            Self::NetworkConnection | Self::NetworkListen => &NETWORK_FIELDS,
            Self::DnsQuery => &DNS_FIELDS,
            Self::FileEvent
            | Self::FileDelete
            | Self::FileChange
            | Self::FileAccess
            | Self::FileActivity => &FILE_FIELDS,
            Self::PacketSocket => &PACKET_FIELDS,
            Self::ProcessActivity => &ACTIVITY_FIELDS,
            Self::AuditExecve => &audit::EXECVE_FIELDS,
            Self::AuditSyscall => &audit::SYSCALL_FIELDS,
            Self::AuditPath => &audit::PATH_FIELDS,
        }
    }

    /// Where keywords are looked for: the texts of people and programs, not ids and numbers.
    #[must_use]
    pub const fn keyword_fields(self) -> (&'static [&'static str], &'static [&'static str]) {
        match self {
            // The line: a keyword may reach over two arguments.
            Self::AuditExecve => (&[audit::LINE], &[]),
            Self::AuditSyscall => (&["exe", "comm"], &[]),
            Self::AuditPath => (&["name"], &[]),
            _ => (&KEYWORD_FIELDS, self.own_fields()),
        }
    }

    /// True when events of this source can have this field.
    #[must_use]
    pub fn has_field(self, field: &str) -> bool {
        self.fields().any(|own| own == field)
            || (self == Self::AuditExecve && audit::argument_number(field).is_some())
    }
}

/// One event, with what several log sources make of it.
pub struct Subject<'a> {
    /// What happened.
    pub body: &'a EventBody,
    /// Who did it.
    pub process: &'a ProcessInfo,
    /// Its ancestors, nearest first.
    pub parents: &'a [ProcessInfo],
    names: &'a Names,
    line: OnceCell<String>,
    parent_line: OnceCell<String>,
}

impl<'a> Subject<'a> {
    /// `None` for events that no rule looks at.
    pub fn of(body: &'a EventBody, names: &'a Names) -> Option<Self> {
        let (process, parents) = match body {
            EventBody::Exec(exec) => (&exec.process, exec.parents.as_slice()),
            EventBody::PacketSocket(socket) => (&socket.process, socket.parents.as_slice()),
            EventBody::Activity(activity) => (&activity.process, activity.parents.as_slice()),
            EventBody::Network(network) => (&network.process, network.parents.as_slice()),
            EventBody::File(file) => (&file.process, file.parents.as_slice()),
            EventBody::Proof(_)
            | EventBody::Isolation(_)
            | EventBody::Shell(_)
            | EventBody::Tampering(_)
            | EventBody::Malware(_)
            | EventBody::Model(_)
            | EventBody::Failure(_)
            | EventBody::Quarantine(_)
            | EventBody::Scan(_)
            | EventBody::AgentStarted(_)
            | EventBody::AgentStopped
            | EventBody::ProtectionGap(_)
            | EventBody::Bundle(_)
            | EventBody::Policy(_)
            | EventBody::Coverage(_)
            | EventBody::Loss(_) => return None,
        };
        let (line, parent_line) = (OnceCell::new(), OnceCell::new());
        Some(Self { body, process, parents, names, line, parent_line })
    }

    /// The log sources that this event speaks for.
    pub fn sources(&self) -> &'static [Source] {
        match self.body {
            EventBody::Exec(_) => &[
                Source::ProcessCreation,
                Source::AuditExecve,
                Source::AuditSyscall,
                Source::AuditPath,
            ],
            EventBody::PacketSocket(_) => &[Source::PacketSocket],
            EventBody::Activity(activity) => match activity.activity {
                Activity::Exit { .. } => &[Source::ProcessActivity],
                _ => &[Source::ProcessActivity, Source::AuditSyscall],
            },
            EventBody::Network(network) => match network.action.as_str() {
                "connect" => &[Source::NetworkConnection, Source::AuditSyscall],
                "accept" | "send" => &[Source::NetworkConnection],
                "bind" | "listen" => &[Source::NetworkListen],
                "dns_question" => &[Source::DnsQuery],
                _ => &[],
            },
            EventBody::File(file) => match file.action.as_str() {
                "read" => &[Source::FileAccess, Source::FileActivity, Source::AuditPath],
                "open_write" | "write" | "create" | "rename" => {
                    &[Source::FileEvent, Source::FileActivity, Source::AuditPath]
                }
                "delete" => &[Source::FileDelete, Source::FileActivity, Source::AuditPath],
                "attributes" => &[Source::FileChange, Source::FileActivity, Source::AuditPath],
                _ => &[Source::FileActivity],
            },
            _ => &[],
        }
    }

    /// As this source sees it.
    pub fn seen_as(&self, source: Source) -> View<'_> {
        View { source, subject: self }
    }

    /// The arguments with one space between them.
    pub fn line(&self) -> &str {
        self.line.get_or_init(|| self.process.args.join(" "))
    }

    fn parent_line(&self) -> Option<&str> {
        let parent = self.parents.first()?;
        Some(self.parent_line.get_or_init(|| parent.args.join(" ")))
    }

    fn parent(&self) -> Option<&ProcessInfo> {
        self.parents.first()
    }

    fn network(&self) -> Option<&NetworkEvent> {
        match self.body {
            EventBody::Network(network) => Some(network),
            _ => None,
        }
    }

    /// Address and port of who began, and of the other side.
    fn network_ends(&self) -> Option<[(&str, u16); 2]> {
        let event = self.network()?;
        let local = (event.local_address.as_str(), event.local_port);
        let remote = (event.remote_address.as_str(), event.remote_port);
        Some(if event.action == "accept" { [remote, local] } else { [local, remote] })
    }
}

fn process_fact(field: &str) -> Option<Fact> {
    Some(match field {
        "Image" => Fact::Of(|subject| text(&subject.process.exe)),
        "CommandLine" => Fact::Of(|subject| text(subject.line())),
        "User" => Fact::Of(|subject| text(&subject.process.user)),
        "UserId" => Fact::Of(|subject| number(subject.process.uid)),
        "EffectiveUserId" => Fact::Of(|subject| number(subject.process.euid)),
        "LogonId" => Fact::Of(|subject| number(subject.process.login_uid?)),
        "ProcessId" => Fact::Of(|subject| number(subject.process.key.pid)),
        "ProcessKey" => Fact::Of(|subject| key(subject.process.key)),
        "ProcessName" => Fact::Of(|subject| text(&subject.process.comm)),
        "CurrentDirectory" => Fact::Of(|subject| text(&subject.process.cwd)),
        "ContainerId" => Fact::Of(|subject| text(subject.process.container.as_deref()?)),
        "CGroup" => Fact::Of(|subject| text(&subject.process.cgroup)),
        "TTY" => Fact::Of(|subject| text(&subject.process.tty)),
        "SessionId" => Fact::Of(|subject| number(subject.process.session)),
        "Script" => Fact::Of(|subject| text(subject.process.script.as_deref()?)),
        "Hashes" => {
            Fact::Of(|subject| owned(format!("SHA256={}", subject.process.sha256.as_deref()?)))
        }
        "sha256" => Fact::Of(|subject| text(subject.process.sha256.as_deref()?)),
        "ParentImage" => Fact::Of(|subject| text(&subject.parent()?.exe)),
        "ParentCommandLine" => Fact::Of(|subject| text(subject.parent_line()?)),
        "ParentProcessId" => Fact::Of(|subject| number(subject.parent()?.key.pid)),
        "ParentProcessKey" => Fact::Of(|subject| key(subject.parent()?.key)),
        "ParentProcessName" => Fact::Of(|subject| text(&subject.parent()?.comm)),
        "ParentUser" => Fact::Of(|subject| text(&subject.parent()?.user)),
        "AncestorImage" => Fact::Of(|subject| {
            let all = subject.parents.iter().filter_map(|parent| text(&parent.exe));
            Some(EventValue::Array(all.collect()))
        }),
        "Count" => Fact::Of(|subject| match subject.body {
            EventBody::Exec(exec) => count(exec.count),
            EventBody::Activity(activity) => count(activity.count),
            EventBody::Network(network) => count(network.count),
            EventBody::File(file) => count(file.count),
            _ => None,
        }),
        _ => {
            let name = ENVIRONMENT_FIELDS.into_iter().find(|name| *name == field)?;
            Fact::Named(variable, name)
        }
    })
}

/// An empty value says something too: HISTFILE= keeps no history.
fn variable<'a>(subject: &'a Subject<'a>, name: &str) -> Option<EventValue<'a>> {
    Some(EventValue::Str(Cow::Borrowed(subject.process.environment.get(name)?)))
}

fn network_fact(field: &str) -> Option<Fact> {
    Some(match field {
        "Action" => Fact::Of(|subject| text(&subject.network()?.action)),
        "Protocol" => Fact::Of(|subject| text(&subject.network()?.protocol)),
        "SourceIp" => Fact::Of(|subject| text(subject.network_ends()?[0].0)),
        "SourcePort" => Fact::Of(|subject| number(subject.network_ends()?[0].1)),
        "DestinationIp" => Fact::Of(|subject| text(subject.network_ends()?[1].0)),
        "DestinationPort" => Fact::Of(|subject| number(subject.network_ends()?[1].1)),
        "DestinationIsIpv6" => Fact::Of(|subject| {
            let [_, to] = subject.network_ends()?;
            truth(to.0.contains(':'))
        }),
        "Initiated" => Fact::Of(|subject| truth(subject.network()?.action != "accept")),
        "DestinationHostname" => Fact::Of(|subject| {
            let named = text(&subject.network()?.dns_name);
            named.or_else(|| owned(subject.names.of(subject.network_ends()?[1].0)?))
        }),
        "QueryName" | "query" => Fact::Of(|subject| text(&subject.network()?.dns_name)),
        "record_type" => Fact::Of(|subject| text(&subject.network()?.dns_type)),
        "QueryResults" => Fact::Of(|subject| text_list(&subject.network()?.dns_answers)),
        _ => return None,
    })
}

fn file_field<'a>(subject: &'a Subject<'a>, field: &str) -> Option<EventValue<'a>> {
    let EventBody::File(event) = subject.body else { return None };
    match field {
        "Action" => text(&event.action),
        "TargetFilename" => text(&event.path),
        "SourceFilename" => text(event.from.as_deref()?),
        "FileClass" => text(&event.class),
        "Mode" => owned(format!("{:04o}", event.mode?)),
        "SetId" => truth(event.set_id),
        _ => None,
    }
}

fn packet_field<'a>(subject: &'a Subject<'a>, field: &str) -> Option<EventValue<'a>> {
    let EventBody::PacketSocket(event) = subject.body else { return None };
    match field {
        "Action" => text(&event.action),
        "SocketFamily" => text(&event.family),
        "SocketType" => text(&event.socket_type),
        "Protocol" => number(event.protocol),
        "Interface" => number(event.interface),
        _ => None,
    }
}

fn activity_field<'a>(subject: &'a Subject<'a>, field: &str) -> Option<EventValue<'a>> {
    let EventBody::Activity(event) = subject.body else { return None };
    match (field, &event.activity) {
        ("Activity", activity) => Some(EventValue::Str(Cow::Borrowed(activity.name()))),
        ("Namespaces", Activity::Fork { namespaces, .. })
        | ("Namespaces", Activity::Namespaces { namespaces, .. }) => text_list(namespaces),
        ("Request", Activity::Ptrace { request, .. }) => text(request),
        (
            "TargetImage" | "TargetCommandLine" | "TargetProcessId" | "TargetUser",
            Activity::Ptrace { target, .. }
            | Activity::MemoryWrite { target }
            | Activity::Signal { target, .. },
        ) => target_field(target, field),
        ("Signal", Activity::Signal { signal, .. }) => number(*signal),
        ("Signal", Activity::Exit { signal, .. }) => number((*signal)?),
        ("Call", Activity::Credentials { call, .. })
        | ("Call", Activity::Mount { call, .. })
        | ("Call", Activity::Namespaces { call, .. }) => text(call),
        ("OldUserId", Activity::Credentials { old_uid, .. }) => number(*old_uid),
        ("NewUserId", Activity::Credentials { new_uid, .. }) => number(*new_uid),
        ("NewEffectiveUserId", Activity::Credentials { new_euid, .. }) => number(*new_euid),
        (
            "Name",
            Activity::ModuleLoad { name, .. }
            | Activity::BpfLoad { name, .. }
            | Activity::Memfd { name },
        ) => text(name),
        ("Tainted", Activity::ModuleLoad { tainted, .. }) => truth(*tainted),
        ("ProgramType", Activity::BpfLoad { program_type, .. }) => text(program_type),
        ("MountTarget", Activity::Mount { target, .. }) => text(target),
        ("MountSource", Activity::Mount { source, .. }) => text(source),
        ("MountType", Activity::Mount { fs_type, .. }) => text(fs_type),
        _ => None,
    }
}

fn target_field<'a>(target: &'a ProcessInfo, field: &str) -> Option<EventValue<'a>> {
    match field {
        "TargetImage" => text(&target.exe),
        "TargetCommandLine" => owned(target.args.join(" ")),
        "TargetProcessId" => number(target.key.pid),
        "TargetUser" => text(&target.user),
        _ => None,
    }
}

type Get = for<'a> fn(&'a Subject<'a>) -> Option<EventValue<'a>>;
type GetNamed = for<'a> fn(&'a Subject<'a>, &str) -> Option<EventValue<'a>>;

/// How a field is taken from an event.
#[derive(Clone, Copy)]
pub(super) enum Fact {
    Of(Get),
    /// Rare ones, by their names.
    Named(GetNamed, &'static str),
    /// Of auditd's EXECVE record.
    Argument(usize),
}

impl Fact {
    /// `None` when no event of this source has such a field.
    pub(super) fn of(source: Source, field: &str) -> Option<Self> {
        let named = |get: GetNamed| {
            let name = source.own_fields().iter().find(|name| **name == field);
            name.map(|name| Self::Named(get, name))
        };
        let own = match source {
            Source::AuditExecve => return audit::execve_fact(field),
            Source::AuditSyscall => return audit::syscall_fact(field),
            Source::AuditPath => return audit::path_fact(field),
            Source::ProcessCreation => None,
            Source::NetworkConnection | Source::NetworkListen | Source::DnsQuery => {
                network_fact(field)
            }
            Source::FileEvent
            | Source::FileDelete
            | Source::FileChange
            | Source::FileAccess
            | Source::FileActivity => named(file_field),
            Source::PacketSocket => named(packet_field),
            Source::ProcessActivity => named(activity_field),
        };
        own.or_else(|| process_fact(field))
    }
}

/// An event as one log source sees it.
#[derive(Clone, Copy)]
pub struct View<'a> {
    /// Which.
    pub source: Source,
    subject: &'a Subject<'a>,
}

impl<'a> View<'a> {
    /// A field, or `None` when there is no such fact.
    pub fn field(&self, field: &str) -> Option<EventValue<'a>> {
        self.fact(Fact::of(self.source, field)?)
    }

    /// A field whose name was looked up before, for this source.
    pub(super) fn fact(&self, fact: Fact) -> Option<EventValue<'a>> {
        match fact {
            Fact::Of(get) => get(self.subject),
            Fact::Named(get, name) => get(self.subject, name),
            Fact::Argument(number) => audit::argument(self.subject, number),
        }
    }

    /// A field as text, lists joined by `, `.
    pub fn text(&self, field: &str) -> Option<String> {
        as_text(&self.field(field)?)
    }

    /// Calls `visit` with every text that keywords are looked for in, until it returns true.
    fn any_text(&self, visit: &mut dyn FnMut(&str) -> bool) -> bool {
        let (shared, own) = self.source.keyword_fields();
        shared.iter().chain(own).any(|field| match self.field(field) {
            Some(EventValue::Array(all)) => {
                all.iter().any(|one| one.as_str().is_some_and(|text| visit(&text)))
            }
            Some(value) => value.as_str().is_some_and(|text| visit(&text)),
            None => false,
        })
    }
}

impl SigmaEvent for View<'_> {
    fn get_field(&self, path: &str) -> Option<EventValue<'_>> {
        self.field(path)
    }

    fn any_string_value(&self, matches: &dyn Fn(&str) -> bool) -> bool {
        self.any_text(&mut |text| matches(text))
    }

    fn all_string_values(&self) -> Vec<Cow<'_, str>> {
        let mut all = Vec::new();
        self.any_text(&mut |text| {
            all.push(Cow::Owned(text.to_owned()));
            false
        });
        all
    }

    fn visit_string_values(&self, visit: &mut dyn FnMut(&str)) {
        self.any_text(&mut |text| {
            visit(text);
            false
        });
    }

    fn to_json(&self) -> Value {
        let mut fields = Map::new();
        for field in self.source.fields() {
            if let Some(value) = self.field(field) {
                fields.insert(field.to_owned(), value.to_json());
            }
        }
        if self.source == Source::AuditExecve {
            for (number, argument) in self.subject.process.args.iter().enumerate() {
                fields.insert(format!("a{number}"), argument.clone().into());
            }
            fields.insert(audit::LINE.to_owned(), self.subject.line().into());
        }
        Value::Object(fields)
    }
}

/// Empty is unknown.
pub(super) fn text(value: &str) -> Option<EventValue<'_>> {
    (!value.is_empty()).then_some(EventValue::Str(Cow::Borrowed(value)))
}

pub(super) fn number<'a>(value: impl Into<i64>) -> Option<EventValue<'a>> {
    Some(EventValue::Int(value.into()))
}

fn count<'a>(value: u64) -> Option<EventValue<'a>> {
    Some(EventValue::Int(i64::try_from(value).unwrap_or(i64::MAX)))
}

pub(super) fn owned<'a>(value: String) -> Option<EventValue<'a>> {
    Some(EventValue::Str(Cow::Owned(value)))
}

fn key<'a>(key: ProcessKey) -> Option<EventValue<'a>> {
    owned(format!("{}:{}", key.pid, key.start_ns))
}

fn truth<'a>(value: bool) -> Option<EventValue<'a>> {
    Some(EventValue::Str(Cow::Borrowed(if value { "true" } else { "false" })))
}

fn text_list(values: &[String]) -> Option<EventValue<'_>> {
    Some(EventValue::Array(values.iter().filter_map(|value| text(value)).collect()))
}

pub(super) fn as_text(value: &EventValue<'_>) -> Option<String> {
    match value {
        EventValue::Array(all) => {
            let all: Vec<_> = all.iter().filter_map(as_text).collect();
            Some(all.join(", "))
        }
        other => other.as_str().map(Cow::into_owned),
    }
}
