//! Tampering that was seen and could not be denied, out of what the sensor tells; pure.
//!
//! Invariant: nothing that process 1, the agent, its children or (for signals) whoever started it
//! does is tampering.

use holdfast_common::event::{Activity, ActivityEvent, EventBody, FileEvent, TamperingEvent};
use holdfast_common::process::{ProcessInfo, ProcessKey};

/// The agent loads its rules again.
const SIGHUP: u32 = 1;

/// Who the agent is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Own {
    /// Its process id.
    pub pid: u32,
    /// Who started it; process 1 under systemd.
    pub parent: ProcessKey,
}

impl Own {
    /// This process.
    #[must_use]
    pub fn current() -> Self {
        let parent = nix::unistd::getppid().as_raw().cast_unsigned();
        let key = crate::sensor::proc::ProcDir::open(parent).map(|folder| folder.key);
        let unknown = ProcessKey { pid: parent, start_ns: 0 };
        Self { pid: std::process::id(), parent: key.unwrap_or(unknown) }
    }

    /// The agent or a child of it.
    fn is_own(self, process: &ProcessInfo) -> bool {
        process.key.pid == self.pid || process.parent.is_some_and(|parent| parent.pid == self.pid)
    }
}

/// What an event tells of tampering, `None` when nothing.
#[must_use]
pub fn tampering_of(event: &EventBody, own: &Own) -> Option<TamperingEvent> {
    match event {
        EventBody::Activity(event) => of_activity(event, *own),
        EventBody::File(event) => of_file(event, *own),
        EventBody::Malware(_)
        | EventBody::Model(_)
        | EventBody::Failure(_)
        | EventBody::Quarantine(_)
        | EventBody::Scan(_)
        | EventBody::Exec(_)
        | EventBody::PacketSocket(_)
        | EventBody::Network(_)
        | EventBody::Proof(_)
        | EventBody::Isolation(_)
        | EventBody::Shell(_)
        | EventBody::Tampering(_)
        | EventBody::AgentStarted(_)
        | EventBody::AgentStopped
        | EventBody::ProtectionGap(_)
        | EventBody::Bundle(_)
        | EventBody::Policy(_)
        | EventBody::Coverage(_)
        | EventBody::Loss(_) => None,
    }
}

fn of_activity(event: &ActivityEvent, own: Own) -> Option<TamperingEvent> {
    let (action, target, detail) = match &event.activity {
        // Signal 0 only asks whether somebody is there.
        Activity::Signal { signal: 0, .. } => return None,
        Activity::Signal { signal, target } => {
            let reloads = *signal == SIGHUP && target.key.pid == own.pid;
            if event.process.key == own.parent || reloads {
                return None;
            }
            ("signal", target, format!(", signal {signal}"))
        }
        Activity::Ptrace { request, target } => ("ptrace", target, format!(", {request}")),
        Activity::MemoryWrite { target } => ("ptrace", target, ", memory written".to_owned()),
        Activity::Fork { .. }
        | Activity::Exit { .. }
        | Activity::Credentials { .. }
        | Activity::ModuleLoad { .. }
        | Activity::BpfLoad { .. }
        | Activity::Memfd { .. }
        | Activity::Mount { .. }
        | Activity::Namespaces { .. } => return None,
    };
    if !own.is_own(target) || is_exempt(&event.process, own) {
        return None;
    }
    Some(TamperingEvent {
        process: Some(event.process.clone()),
        parents: event.parents.clone(),
        action: action.to_owned(),
        target: format!("{}{detail}", process_name(target.key.pid, own.pid)),
        denied: false,
        count: event.count,
    })
}

fn of_file(event: &FileEvent, own: Own) -> Option<TamperingEvent> {
    let action = match event.action.as_str() {
        "open_write" | "write" => "write",
        "delete" => "unlink",
        action @ ("create" | "rename" | "attributes") => action,
        // Reading changes nothing.
        _ => return None,
    };
    if event.class != "agent" || is_exempt(&event.process, own) {
        return None;
    }
    Some(TamperingEvent {
        process: Some(event.process.clone()),
        parents: event.parents.clone(),
        action: action.to_owned(),
        target: event.path.clone(),
        denied: false,
        count: event.count,
    })
}

fn is_exempt(process: &ProcessInfo, own: Own) -> bool {
    process.key.pid == 1 || own.is_own(process)
}

/// For people.
pub(super) fn process_name(pid: u32, own: u32) -> String {
    let name = if pid == own { "holdfastd" } else { "holdfast-scan" };
    format!("{name} (pid {pid})")
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: Own = Own { pid: 100, parent: ProcessKey { pid: 50, start_ns: 5 } };

    fn process(pid: u32, start_ns: u64, parent: u32) -> ProcessInfo {
        ProcessInfo {
            key: ProcessKey { pid, start_ns },
            parent: Some(ProcessKey { pid: parent, start_ns: 1 }),
            ..ProcessInfo::default()
        }
    }

    fn does(process: ProcessInfo, activity: Activity) -> Option<TamperingEvent> {
        let event = ActivityEvent { process, parents: Vec::new(), activity, count: 3 };
        tampering_of(&EventBody::Activity(Box::new(event)), &OWN)
    }

    fn kills(by: ProcessInfo, target: ProcessInfo, signal: u32) -> Option<TamperingEvent> {
        does(by, Activity::Signal { signal, target: Box::new(target) })
    }

    #[test]
    fn a_signal_to_the_agent_or_a_worker_is_told_with_who_sent_it() {
        let told = kills(process(7, 7, 2), process(100, 9, 50), 9).expect("told");
        assert_eq!((told.action.as_str(), told.denied, told.count), ("signal", false, 3));
        assert_eq!(told.target, "holdfastd (pid 100), signal 9");
        assert_eq!(told.process.expect("who").key.pid, 7);
        let told = kills(process(7, 7, 2), process(101, 9, 100), 19).expect("told");
        assert_eq!(told.target, "holdfast-scan (pid 101), signal 19");
    }

    #[test]
    fn the_agent_process_1_and_who_started_it_may_send_signals() {
        let agent = || process(100, 9, 50);
        assert_eq!(kills(process(1, 1, 0), agent(), 15), None);
        assert_eq!(kills(agent(), process(101, 9, 100), 9), None);
        assert_eq!(kills(process(50, 5, 1), agent(), 15), None);
        assert!(kills(process(50, 6, 1), agent(), 15).is_some(), "its number is used again");
        assert_eq!(kills(process(7, 7, 2), agent(), 0), None, "only asks");
        assert_eq!(kills(process(7, 7, 2), agent(), 1), None, "loads the rules");
        assert!(kills(process(7, 7, 2), process(101, 9, 100), 1).is_some(), "ends a worker");
        assert_eq!(kills(process(7, 7, 2), process(8, 8, 2), 9), None, "of no concern");
    }

    #[test]
    fn who_started_the_agent_may_not_look_into_it() {
        let target = || Box::new(process(100, 9, 50));
        let attach = Activity::Ptrace { request: "attach".to_owned(), target: target() };
        let told = does(process(50, 5, 1), attach).expect("told");
        assert_eq!(told.target, "holdfastd (pid 100), attach");
        assert!(does(process(7, 7, 2), Activity::MemoryWrite { target: target() }).is_some());
        let memfd = Activity::Memfd { name: "x".to_owned() };
        assert_eq!(does(process(7, 7, 2), memfd), None);
    }

    #[test]
    fn changes_of_the_agents_files_by_others_are_told() {
        let event = |action: &str, class: &str, by: ProcessInfo| FileEvent {
            process: by,
            parents: Vec::new(),
            action: action.to_owned(),
            path: "/var/lib/holdfast/version".to_owned(),
            from: None,
            class: class.to_owned(),
            mode: None,
            set_id: false,
            count: 1,
        };
        let told = |event| tampering_of(&EventBody::File(Box::new(event)), &OWN);
        let seen = told(event("delete", "agent", process(7, 7, 2))).expect("told");
        assert_eq!(
            (seen.action.as_str(), seen.target.as_str()),
            ("unlink", "/var/lib/holdfast/version")
        );
        assert!(told(event("open_write", "agent", process(50, 5, 1))).is_some());
        assert_eq!(told(event("read", "agent", process(7, 7, 2))), None);
        assert_eq!(told(event("delete", "cron", process(7, 7, 2))), None);
        assert_eq!(told(event("write", "agent", process(100, 9, 50))), None);
        assert_eq!(told(event("write", "agent", process(1, 1, 0))), None);
    }
}
