//! `holdfast events`: one line an event, oldest first.

use holdfast_common::control::{Reply, Request};
use holdfast_common::event::{Activity, Event, EventBody, NetworkEvent, PolicyEvent, ShellEvent};
use holdfast_common::process::ProcessInfo;
use holdfast_common::verdict::{Decision, Disposition, ScanType};

use super::text::{duration, local_time, parse_since, safe};
use super::{CliError, Session, arguments, unexpected};

/// Every kind, to refuse a misspelt one (an empty answer would look like peace).
const KINDS: [&str; 21] = [
    "malware",
    "model",
    "failure",
    "quarantine",
    "scan",
    "exec",
    "packet_socket",
    "activity",
    "network",
    "file",
    "proof",
    "isolation",
    "shell",
    "tampering",
    "agent_started",
    "agent_stopped",
    "protection_gap",
    "bundle",
    "policy",
    "coverage",
    "loss",
];

pub(super) fn events(session: &mut Session, wanted: arguments::Events) -> Result<u8, CliError> {
    let now_ms = crate::now_ms();
    let since_ms = match &wanted.since {
        Some(since) => {
            let since = parse_since(since, now_ms);
            Some(since.map_err(|error| CliError::Usage(format!("--since: {error}")))?)
        }
        None => None,
    };
    if let Some(kind) = wanted.kind.as_deref().filter(|kind| !KINDS.contains(kind)) {
        let known = KINDS.join(", ");
        return Err(CliError::Usage(format!("--kind: {kind:?} is none of {known}")));
    }
    let (kind, follow) = (wanted.kind, wanted.follow);
    // Who follows wants what comes, and a little of what was; nothing is cut otherwise.
    let limit = wanted.limit.unwrap_or(if follow && since_ms.is_none() { 10 } else { 0 });
    let mut client = session.ask(&Request::Events { since_ms, kind, limit, follow })?;
    while let Some(reply) = client.next_reply()? {
        let Reply::Event(event) = reply else { return Err(unexpected(&reply)) };
        if session.out.json {
            session.out.json(&event)?;
        } else {
            session.out.line(&line(&event))?;
        }
    }
    Ok(0)
}

/// One event for people.
fn line(event: &Event) -> String {
    let what = what(&event.body);
    format!("{}  {:<14}  {}", local_time(event.time_ms), event.body.kind(), safe(&what))
}

fn what(body: &EventBody) -> String {
    match body {
        EventBody::Malware(found) => {
            let mut what = format!(
                "{} {} in {} ({}",
                disposition(found.disposition),
                found.signature.name,
                found.path,
                scan_type(found.scan_type),
            );
            if let Some(process) = &found.process {
                what.push_str(&format!(", {}", who(process)));
            }
            what.push(')');
            if let Some(item) = found.quarantine_id {
                what.push_str(&format!(", item {item}"));
            }
            if let Some(reason) = &found.reason {
                what.push_str(&format!(": {reason}"));
            }
            what
        }
        EventBody::Model(model) => {
            let simulated = if model.simulated { " (simulated)" } else { "" };
            format!(
                "{} [{}] {}{simulated}: {}",
                model.title,
                model.level,
                model.attack.join(" "),
                who(&model.process)
            )
        }
        EventBody::Failure(failure) => {
            let decision = match failure.decision {
                Some(Decision::Allow) => "allowed",
                Some(Decision::Deny) => "denied",
                None => "passed",
            };
            let rescan = if failure.rescan { ", rescan follows" } else { "" };
            let (count, reason) = (failure.count, failure.reason.name());
            format!(
                "{} {decision} without a verdict: {reason}, {count} times{rescan}",
                failure.path
            )
        }
        EventBody::Quarantine(action) => {
            format!("{} {} (item {})", action.action, action.path, action.item)
        }
        EventBody::Scan(scan) => super::scans::told(scan),
        EventBody::Exec(exec) => who(&exec.process),
        EventBody::PacketSocket(socket) => format!(
            "{} {} {} protocol {} interface {}: {}",
            socket.action,
            socket.family,
            socket.socket_type,
            socket.protocol,
            socket.interface,
            who(&socket.process)
        ),
        EventBody::Activity(event) => {
            format!("{}: {}{}", activity(&event.activity), who(&event.process), times(event.count))
        }
        EventBody::Network(event) => network(event),
        EventBody::File(event) => {
            let from = event.from.as_deref().map(|from| format!(" from {from}"));
            let (from, set_id) = (from.unwrap_or_default(), event.set_id);
            let set_id = if set_id { " (set-id)" } else { "" };
            format!(
                "{} {}{from}{set_id} [{}]: {}{}",
                event.action,
                event.path,
                event.class,
                who(&event.process),
                times(event.count)
            )
        }
        EventBody::Proof(proof) => {
            let word = if proof.ok { "proven" } else { "NOT PROVEN" };
            format!("{} {word}: {}", proof.capability, proof.evidence)
        }
        EventBody::Isolation(isolation) => {
            format!("{}: {}", isolation.action, isolation.reason)
        }
        EventBody::Shell(shell) => {
            let mode = if shell.restricted { "restricted shell" } else { "shell" };
            let ShellEvent { action, by, reason, .. } = shell;
            format!("{mode} {action}, of {by}: {reason} (task {})", shell.task)
        }
        EventBody::Tampering(event) => {
            let word = if event.denied { "denied" } else { "seen" };
            let by = event.process.as_ref().map(|process| format!(": {}", who(process)));
            let times =
                if event.count > 1 { format!(" {} times", event.count) } else { String::new() };
            let by = by.unwrap_or_default();
            format!("{} on {} {word}{times}{by}", event.action, event.target)
        }
        EventBody::AgentStarted(agent) => {
            format!("version {}, kernel {}, mode {}", agent.version, agent.kernel, agent.mode)
        }
        EventBody::AgentStopped => "in order".into(),
        EventBody::ProtectionGap(gap) => {
            let seconds = gap.until_ms.saturating_sub(gap.from_ms).max(0).unsigned_abs() / 1000;
            let (from, until) = (local_time(gap.from_ms), local_time(gap.until_ms));
            format!("nobody answered opens for {} ({from} to {until})", duration(seconds))
        }
        EventBody::Bundle(bundle) => match &bundle.error {
            Some(error) => format!("{} refused: {error}", bundle.path),
            None => format!(
                "{} loaded: {} hashes, {} YARA rules",
                bundle.path, bundle.hashes, bundle.yara_rules
            ),
        },
        EventBody::Policy(policy) => {
            let PolicyEvent { action, name, version, error, warnings } = policy;
            let why = error.iter().chain(warnings).map(|why| format!("; {why}"));
            format!("{name} version {version} {action}{}", why.collect::<String>())
        }
        EventBody::Coverage(coverage) => {
            let state = if coverage.protected { "protected" } else { "not protected" };
            let reason = coverage.reason.as_deref().map(|reason| format!(": {reason}"));
            let reason = reason.unwrap_or_default();
            format!("{} ({}) {state}{reason}", coverage.mount, coverage.fs_type)
        }
        EventBody::Loss(loss) => format!("{} lost in {}", loss.count, loss.queue),
    }
}

fn times(count: u64) -> String {
    if count > 1 { format!(" ({count} times)") } else { String::new() }
}

fn activity(activity: &Activity) -> String {
    match activity {
        Activity::Fork { child, namespaces } if namespaces.is_empty() => {
            format!("made process {}", child.pid)
        }
        Activity::Fork { child, namespaces } => {
            format!("made process {} in new namespaces {}", child.pid, namespaces.join(" "))
        }
        Activity::Exit { code, signal: None } => format!("ended with status {code}"),
        Activity::Exit { signal: Some(signal), .. } => format!("ended by signal {signal}"),
        Activity::Credentials { call, old_uid, old_euid, new_uid, new_euid } => {
            format!("{call}: user {old_uid}/{old_euid} became {new_uid}/{new_euid}")
        }
        Activity::Ptrace { request, target } => format!("ptrace {request} of {}", who(target)),
        Activity::MemoryWrite { target } => format!("wrote memory of {}", who(target)),
        Activity::Signal { signal, target } => format!("signal {signal} to {}", who(target)),
        Activity::ModuleLoad { name, tainted } => {
            format!("loaded kernel module {name}{}", if *tainted { " (taints)" } else { "" })
        }
        Activity::BpfLoad { program_type, name } => {
            format!("loaded eBPF program {name} of type {program_type}")
        }
        Activity::Memfd { name } => format!("memfd_create {name}"),
        Activity::Mount { call, target, source, fs_type } => {
            format!("{call} {source} ({fs_type}) at {target}")
        }
        Activity::Namespaces { call, namespaces } => format!("{call} {}", namespaces.join(" ")),
    }
}

fn network(event: &NetworkEvent) -> String {
    let what = match event.action.as_str() {
        "dns_question" => format!("asked for {} {}", event.dns_type, event.dns_name),
        "dns_answer" => format!("{} is {}", event.dns_name, event.dns_answers.join(", ")),
        _ => format!(
            "{} {} {} port {} to {} port {}",
            event.action,
            event.protocol,
            event.local_address,
            event.local_port,
            event.remote_address,
            event.remote_port
        ),
    };
    format!("{what}: {}{}", who(&event.process), times(event.count))
}

fn who(process: &ProcessInfo) -> String {
    let command = process.command_line();
    let command = if command.is_empty() { &process.exe } else { &command };
    let more = if process.args_truncated { " …" } else { "" };
    let container = process.container.as_deref().map(|id| format!(" container {id:.12}"));
    let container = container.unwrap_or_default();
    format!("{command}{more} by {} pid {}{container}", process.user, process.key.pid)
}

pub(super) fn disposition(disposition: Disposition) -> &'static str {
    match disposition {
        Disposition::Allowed => "allowed",
        Disposition::Blocked => "blocked",
        Disposition::Quarantined => "quarantined",
        Disposition::Restored => "restored",
        Disposition::Vanished => "vanished",
    }
}

pub(super) fn scan_type(scan_type: ScanType) -> &'static str {
    match scan_type {
        ScanType::OnOpen => "on open",
        ScanType::OnExec => "on exec",
        ScanType::OnClose => "on close",
        ScanType::Rescan => "rescan",
        ScanType::OnDemand => "on demand",
        ScanType::Scheduled => "scheduled",
    }
}

#[cfg(test)]
mod tests {
    use holdfast_common::event::ExecEvent;
    use uuid::Uuid;

    use super::*;

    #[test]
    fn a_hostile_command_line_stays_one_line() {
        let process = ProcessInfo {
            args: vec!["a\n\x1b]0;owned\x07".into(), "\u{202e}b".into()],
            user: "root".into(),
            ..ProcessInfo::default()
        };
        let body = EventBody::Exec(Box::new(ExecEvent { process, parents: Vec::new(), count: 1 }));
        let event = Event { id: Uuid::nil(), time_ms: 0, host: String::new(), body };
        let line = line(&event);
        assert!(!line.chars().any(|c| c.is_control() || c == '\u{202e}'), "{line}");
        assert!(line.contains(r"a\x0a\x1b]0;owned\x07") && line.ends_with("by root pid 0"));
    }
}
