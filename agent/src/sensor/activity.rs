//! Records of what processes do beside become events.

use std::time::Instant;

use holdfast_common::abi::{Kind, call};
use holdfast_common::event::Activity;
use holdfast_common::process::{ProcessInfo, printable};

use super::decode::activity::Record;
use super::decode::path_text;
use super::gather::Alike;
use super::proc::ProcDir;
use super::shared::Shared;

/// `CLONE_NEW*` (linux/sched.h) and the names under `/proc/PID/ns`.
const NAMESPACES: [(u64, &str); 8] = [
    (0x0002_0000, "mnt"),
    (0x2000_0000, "pid"),
    (0x4000_0000, "net"),
    (0x1000_0000, "user"),
    (0x0400_0000, "uts"),
    (0x0800_0000, "ipc"),
    (0x0200_0000, "cgroup"),
    (0x0000_0080, "time"),
];

/// `enum bpf_prog_type`, in order.
const PROGRAM_TYPES: [&str; 33] = [
    "unspec",
    "socket_filter",
    "kprobe",
    "sched_cls",
    "sched_act",
    "tracepoint",
    "xdp",
    "perf_event",
    "cgroup_skb",
    "cgroup_sock",
    "lwt_in",
    "lwt_out",
    "lwt_xmit",
    "sock_ops",
    "sk_skb",
    "cgroup_device",
    "sk_msg",
    "raw_tracepoint",
    "cgroup_sock_addr",
    "lwt_seg6local",
    "lirc_mode2",
    "sk_reuseport",
    "flow_dissector",
    "cgroup_sysctl",
    "raw_tracepoint_writable",
    "cgroup_sockopt",
    "tracing",
    "struct_ops",
    "ext",
    "lsm",
    "sk_lookup",
    "syscall",
    "netfilter",
];

/// Taints that a module brings when it is not one of the kernel's own: proprietary, forced, staging,
/// out of tree, unsigned (bits of `TAINT_*`, linux/panic.h).
const SUSPICIOUS_TAINTS: u64 = 1 | 1 << 1 | 1 << 10 | 1 << 12 | 1 << 13;

impl Shared {
    /// True when it was told; else it was put together with others.
    pub(super) fn activity(&self, record: Record<'_>) -> bool {
        let key = record.who.key;
        if record.kind == Kind::Credentials {
            return self.users_changed(&record);
        }
        self.note_users(&record.who, "another call");
        if self.table.image(key).is_none()
            && let Some(folder) = ProcDir::open_key(key)
        {
            self.table.executed(&folder.facts());
        }
        let image = self.table.image(key).unwrap_or_default();
        let alike = Alike {
            kind: record.kind,
            key: self.storms.hash_of((key, record.call, record.target, record.texts, record.path)),
            coarse: self.storms.hash_of((&image.exe, record.call)),
            variant: None,
        };
        let activity = self.deed(&record);
        self.gathered(alike, Instant::now(), key, image, activity)
    }

    /// What really came of a call that changes user ids: the hook's record knows, for an attempt
    /// the process is asked, and if it is too early, the next record will show it.
    fn users_changed(&self, record: &Record<'_>) -> bool {
        let name = match record.call {
            call::SETREUID => "setreuid",
            call::SETRESUID => "setresuid",
            call::SETFSUID => "setfsuid",
            _ => "setuid",
        };
        let who = record.who;
        self.storms.try_call(who.key, name);
        let now = if record.attempt {
            ProcDir::open_key(who.key).and_then(|folder| folder.users())
        } else {
            Some((low(record.values[0]), low(record.values[1])))
        };
        if let Some((uid, euid)) = now {
            self.note_users(&super::decode::Who { uid, euid, ..who }, name);
        }
        true
    }

    fn deed(&self, record: &Record<'_>) -> Activity {
        let text = |which: usize| printable(record.texts[which]);
        let value = record.values[0];
        match record.kind {
            Kind::MemoryWrite => Activity::MemoryWrite { target: self.target(record) },
            Kind::Signal => Activity::Signal { signal: low(value), target: self.target(record) },
            Kind::ModuleLoad => {
                Activity::ModuleLoad { name: text(0), tainted: value & SUSPICIOUS_TAINTS != 0 }
            }
            Kind::BpfLoad => Activity::BpfLoad { program_type: program_type(value), name: text(0) },
            Kind::Memfd => {
                let name = text(0);
                let name = name.strip_prefix("memfd:").map(str::to_owned).unwrap_or(name);
                Activity::Memfd { name }
            }
            Kind::Mount => self.mount(record),
            Kind::Namespaces => namespaces_changed(record),
            Kind::Ptrace
            | Kind::Exec
            | Kind::Fork
            | Kind::Exit
            | Kind::Socket
            | Kind::Capability
            | Kind::Connect
            | Kind::Accept
            | Kind::Bind
            | Kind::Listen
            | Kind::Send
            | Kind::Dns
            | Kind::Credentials => {
                Activity::Ptrace { request: request(record), target: self.target(record) }
            }
        }
    }

    fn target(&self, record: &Record<'_>) -> Box<ProcessInfo> {
        let Some(key) = record.target else { return Box::default() };
        let known =
            if key.start_ns == 0 { self.table.lookup(key.pid) } else { self.table.get(key) };
        let known = known.or_else(|| ProcDir::open_key(key).map(|folder| folder.facts()));
        Box::new(known.unwrap_or_else(|| ProcessInfo { key, ..ProcessInfo::default() }))
    }

    fn mount(&self, record: &Record<'_>) -> Activity {
        let call = match record.call {
            call::MOVE_MOUNT => "move_mount",
            call::UMOUNT => "umount",
            call::FSMOUNT => "fsmount",
            call::OPEN_TREE => "open_tree",
            call::PIVOT_ROOT => "pivot_root",
            _ => "mount",
        };
        let named = printable(record.texts[1]);
        let target = match record.path {
            [] if named.is_empty() && !record.attempt => "/".to_owned(),
            [] => named,
            path => path_text(path),
        };
        Activity::Mount {
            call: call.to_owned(),
            target,
            source: printable(record.texts[0]),
            fs_type: printable(record.texts[2]),
        }
    }
}

/// Names of the namespaces that flags of `clone`, `unshare` or `setns` stand for.
pub(super) fn namespaces(flags: u64) -> Vec<String> {
    let named = NAMESPACES.iter().filter(|(bit, _)| flags & bit != 0);
    named.map(|(_, name)| (*name).to_owned()).collect()
}

fn namespaces_changed(record: &Record<'_>) -> Activity {
    let mut names = namespaces(record.values[0]);
    if names.is_empty() && !record.texts[0].is_empty() {
        names.push(printable(record.texts[0]));
    }
    let call = if record.call == call::SETNS { "setns" } else { "unshare" };
    Activity::Namespaces { call: call.to_owned(), namespaces: names }
}

fn request(record: &Record<'_>) -> String {
    match (record.call, record.values[0]) {
        (call::MEMORY_READ, _) => "process_vm_readv".to_owned(),
        (call::MEMORY_OPEN, _) => "open /proc/PID/mem".to_owned(),
        (call::ATTACH, number) => format!("system call {number}"),
        (_, 0) => "traceme".to_owned(),
        (_, 4 | 5) => "poke".to_owned(),
        (_, 16) => "attach".to_owned(),
        (_, 0x4206) => "seize".to_owned(),
        (_, other) => other.to_string(),
    }
}

fn program_type(number: u64) -> String {
    let known = usize::try_from(number).ok().and_then(|number| PROGRAM_TYPES.get(number));
    known.map_or_else(|| number.to_string(), |name| (*name).to_owned())
}

/// The low half, where a number of 32 bits was put.
#[expect(clippy::cast_possible_truncation, reason = "it was put there as 32 bits")]
const fn low(value: u64) -> u32 {
    value as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clone_flags_name_their_namespaces() {
        assert!(namespaces(0x11).is_empty(), "a signal and a shared address space");
        assert_eq!(namespaces(0x5002_0011), ["mnt", "net", "user"]);
        assert_eq!(namespaces(0x80), ["time"]);
    }

    #[test]
    fn program_types_stand_at_their_numbers() {
        assert_eq!(program_type(2), "kprobe");
        assert_eq!(program_type(17), "raw_tracepoint");
        assert_eq!(program_type(29), "lsm");
        assert_eq!(program_type(4_294_967_295), "4294967295");
    }
}
