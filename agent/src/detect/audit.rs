//! Our events as auditd would have written them: one exec becomes its `EXECVE`, `SYSCALL` and
//! `PATH` records, a system call that the sensor sees a `SYSCALL`, a touched file a `PATH`.
//!
//! A field without a fact is absent; a record type that nothing here makes (`SERVICE_STOP`,
//! `ADD_USER`, `TTY`…) never appears. `key` is what the two published configurations that SigmaHQ's
//! rules name give to an event (Neo23x0's auditd: `susp_activity`, `network_connect_4`).

use std::borrow::Cow;

use holdfast_common::event::{Activity, EventBody};
use rsigma_eval::event::EventValue;

use super::view::{Fact, Source, Subject, number, owned, text};

/// All arguments with one space between them: no field of auditd's, for keywords alone.
pub(super) const LINE: &str = "line";

/// Besides the numbered arguments.
pub(super) const EXECVE_FIELDS: [&str; 2] = ["type", "argc"];
pub(super) const SYSCALL_FIELDS: [&str; 14] = [
    "type", "SYSCALL", "comm", "exe", "pid", "ppid", "uid", "euid", "auid", "tty", "ses",
    "success", "key", "cwd",
];
pub(super) const PATH_FIELDS: [&str; 4] = ["type", "name", "nametype", "mode"];

/// Record types that appear.
pub(super) const TYPES: [&str; 3] = ["EXECVE", "SYSCALL", "PATH"];
/// System calls that appear.
pub(super) const CALLS: [&str; 19] = [
    "execve",
    "execveat",
    "connect",
    "ptrace",
    "process_vm_writev",
    "kill",
    "finit_module",
    "bpf",
    "memfd_create",
    "mount",
    "move_mount",
    "umount",
    "umount2",
    "setns",
    "unshare",
    "setuid",
    "setreuid",
    "setresuid",
    "clone",
];
pub(super) const NAME_TYPES: [&str; 3] = ["NORMAL", "CREATE", "DELETE"];
pub(super) const KEYS: [&str; 2] = ["susp_activity", "network_connect_4"];

/// `-w PATH -p x -k susp_activity` in the configuration that SigmaHQ's rule f7158a64 names.
const SUSPICIOUS: [&str; 22] = [
    "/usr/bin/wget",
    "/usr/bin/curl",
    "/usr/bin/base64",
    "/bin/nc",
    "/bin/netcat",
    "/usr/bin/ncat",
    "/usr/bin/ss",
    "/usr/bin/netstat",
    "/usr/bin/ssh",
    "/usr/bin/scp",
    "/usr/bin/sftp",
    "/usr/bin/ftp",
    "/usr/bin/socat",
    "/usr/bin/wireshark",
    "/usr/bin/tshark",
    "/usr/bin/rawshark",
    "/usr/bin/rdesktop",
    "/usr/local/bin/rdesktop",
    "/usr/bin/wlfreerdp",
    "/usr/bin/xfreerdp",
    "/usr/local/bin/xfreerdp",
    "/usr/bin/nmap",
];

fn fixed<'a>(value: &'static str) -> Option<EventValue<'a>> {
    Some(EventValue::Str(Cow::Borrowed(value)))
}

/// The number in `a0`, `a1`…
pub(super) fn argument_number(field: &str) -> Option<usize> {
    field.strip_prefix('a')?.parse().ok()
}

pub(super) fn argument<'a>(subject: &'a Subject<'a>, number: usize) -> Option<EventValue<'a>> {
    Some(EventValue::Str(Cow::Borrowed(subject.process.args.get(number)?)))
}

pub(super) fn execve_fact(field: &str) -> Option<Fact> {
    Some(match field {
        "type" => Fact::Of(|_| fixed("EXECVE")),
        LINE => Fact::Of(|subject| text(subject.line())),
        "argc" => Fact::Of(|subject| {
            number(i64::try_from(subject.process.args.len()).unwrap_or(i64::MAX))
        }),
        argument => Fact::Argument(argument_number(argument)?),
    })
}

pub(super) fn syscall_fact(field: &str) -> Option<Fact> {
    Some(match field {
        "type" => Fact::Of(|_| fixed("SYSCALL")),
        "SYSCALL" => Fact::Of(call),
        "comm" => Fact::Of(|subject| text(&subject.process.comm)),
        "exe" => Fact::Of(|subject| text(&subject.process.exe)),
        "pid" => Fact::Of(|subject| number(subject.process.key.pid)),
        "ppid" => Fact::Of(|subject| number(subject.parents.first()?.key.pid)),
        "uid" => Fact::Of(|subject| number(subject.process.uid)),
        "euid" => Fact::Of(|subject| number(subject.process.euid)),
        "auid" => Fact::Of(|subject| number(subject.process.login_uid?)),
        "tty" => Fact::Of(|subject| text(&subject.process.tty)),
        "ses" => Fact::Of(|subject| number(subject.process.session)),
        "success" => Fact::Of(|_| fixed("yes")),
        "cwd" => Fact::Of(|subject| text(&subject.process.cwd)),
        "key" => Fact::Of(rule_key),
        _ => return None,
    })
}

fn call<'a>(subject: &'a Subject<'a>) -> Option<EventValue<'a>> {
    match subject.body {
        EventBody::Exec(_) => fixed("execve"),
        EventBody::Network(network) => text(&network.action),
        EventBody::Activity(activity) => match &activity.activity {
            Activity::Fork { .. } => fixed("clone"),
            Activity::Exit { .. } => None,
            Activity::Credentials { call, .. }
            | Activity::Mount { call, .. }
            | Activity::Namespaces { call, .. } => text(call),
            Activity::Ptrace { .. } => fixed("ptrace"),
            Activity::MemoryWrite { .. } => fixed("process_vm_writev"),
            Activity::Signal { .. } => fixed("kill"),
            Activity::ModuleLoad { .. } => fixed("finit_module"),
            Activity::BpfLoad { .. } => fixed("bpf"),
            Activity::Memfd { .. } => fixed("memfd_create"),
        },
        _ => None,
    }
}

fn rule_key<'a>(subject: &'a Subject<'a>) -> Option<EventValue<'a>> {
    match subject.body {
        EventBody::Exec(exec) if SUSPICIOUS.contains(&exec.process.exe.as_str()) => fixed(KEYS[0]),
        EventBody::Network(network) if !network.remote_address.contains(':') => fixed(KEYS[1]),
        _ => None,
    }
}

pub(super) fn path_fact(field: &str) -> Option<Fact> {
    Some(match field {
        "type" => Fact::Of(|_| fixed("PATH")),
        "name" => Fact::Of(|subject| match subject.body {
            // The program's file is the first name that execve looks up.
            EventBody::Exec(exec) => text(&exec.process.exe),
            EventBody::File(file) => text(&file.path),
            _ => None,
        }),
        "nametype" => Fact::Of(|subject| match subject.body {
            EventBody::Exec(_) => fixed("NORMAL"),
            EventBody::File(file) => match file.action.as_str() {
                "create" | "rename" => fixed("CREATE"),
                "delete" => fixed("DELETE"),
                _ => fixed("NORMAL"),
            },
            _ => None,
        }),
        "mode" => Fact::Of(|subject| match subject.body {
            EventBody::File(file) => owned(format!("{:o}", file.mode?)),
            _ => None,
        }),
        _ => return None,
    })
}

/// A record's type, the same in all of them.
pub(super) fn record_type(source: Source) -> Option<&'static str> {
    match source {
        Source::AuditExecve => Some(TYPES[0]),
        Source::AuditSyscall => Some(TYPES[1]),
        Source::AuditPath => Some(TYPES[2]),
        _ => None,
    }
}
