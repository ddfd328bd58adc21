//! What a caged worker cannot do: seen from inside (one forbidden call each) and from outside
//! (what the kernel says about the process). Needs root.

use std::io::{BufRead, BufReader, Read};
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use holdfast_agent::config;
use holdfast_agent::scan::{Worker, WorkerFactory};
use holdfast_agent::worker::Limits;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use rustix::process::{Pid, Signal, kill_process};

const WORKER: &str = env!("CARGO_BIN_EXE_holdfast-scan");

fn probe() -> PathBuf {
    let test = std::env::current_exe().expect("own path");
    test.ancestors().nth(2).expect("target folder").join("examples/scan_cage_probe")
}

fn worker() -> Worker {
    let factory = WorkerFactory::new(&config::Scan::default(), WORKER.into()).expect("factory");
    factory.spawn().expect("worker")
}

fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(10);
    while !condition() {
        assert!(Instant::now() < end, "not within 10 s: {what}");
        std::thread::yield_now();
    }
}

/// Signal that ended the probe, and what it said.
fn run_probe(call: &str) -> (Option<i32>, String) {
    let (_ours, theirs): (OwnedFd, OwnedFd) =
        socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
            .expect("socket pair");
    let limits = Limits { memory: 1 << 30, seconds: 5, uid: 65534, gid: 65534 };
    let output = Command::new(probe())
        .args(limits.to_args())
        .arg(call)
        .env_clear()
        .stdin(Stdio::from(theirs))
        .output()
        .expect("probe");
    (output.status.signal(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn what_the_scan_loop_needs_is_allowed() {
    for call in ["mmap", "write-stderr"] {
        let (signal, said) = run_probe(call);
        assert_eq!(signal, None, "{call}: {said}");
        assert!(said.contains("came back") && !said.contains("came back: -1"), "{call}: {said}");
    }
}

#[test]
fn every_other_call_kills_the_worker() {
    let mut calls = vec![
        "open",
        "socket",
        "connect",
        "execve",
        "execveat",
        "kill",
        "tgkill",
        "ptrace",
        "process_vm_readv",
        "clone",
        "clone3",
        "mmap-exec",
        "mmap-file",
        "mprotect-exec",
        "write-other",
        "close-socket",
        "close-stderr",
        "sendmsg",
        "sendto-other",
        "recvmsg-other",
        "dup",
        "ftruncate",
        "fchmod",
        "ioctl",
        "setresuid",
        "unshare",
        "setns",
        "mount",
        "chroot",
        "prctl",
        "prlimit",
        "bpf",
        "io_uring_setup",
        "memfd_create",
        "userfaultfd",
        "keyctl",
    ];
    if cfg!(target_arch = "x86_64") {
        calls.push("x32");
    }
    for call in calls {
        let (signal, said) = run_probe(call);
        assert_eq!(signal, Some(libc::SIGSYS), "{call}: {said}");
    }
}

#[test]
fn the_kernel_says_that_a_worker_has_no_privileges() {
    let worker = worker();
    let status = std::fs::read_to_string(format!("/proc/{}/status", worker.pid())).expect("status");
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).expect(name);
        line.trim_start_matches(':').split_whitespace().collect::<Vec<_>>()
    };
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert_eq!(field(set), ["0000000000000000"], "{set}");
    }
    assert_eq!(field("NoNewPrivs"), ["1"]);
    assert_eq!(field("Seccomp"), ["2"]);
    assert_eq!(field("Threads"), ["1"]);
    assert!(field("Uid").iter().chain(&field("Gid")).all(|id| *id != "0"), "{status}");
    assert!(field("Groups").is_empty(), "{status}");
    // First process of a pid namespace of its own.
    assert_eq!(field("NSpid").len(), 2);
    assert_eq!(field("NSpid")[1], "1");
}

#[test]
fn a_worker_sees_no_files_no_network_and_no_other_process() {
    let worker = worker();
    let proc = PathBuf::from(format!("/proc/{}", worker.pid()));
    assert_eq!(std::fs::read_dir(proc.join("root")).expect("root").count(), 0, "root is empty");
    let mounts = std::fs::read_to_string(proc.join("mountinfo")).expect("mounts");
    assert_eq!(mounts.lines().count(), 1, "{mounts}");
    assert!(mounts.contains(" / ro,nosuid,nodev,noexec"), "{mounts}");
    let devices = std::fs::read_to_string(proc.join("net/dev")).expect("devices");
    assert_eq!(devices.lines().count(), 3, "two lines of heading, then loopback: {devices}");
    for namespace in ["mnt", "net", "ipc", "uts", "pid", "user"] {
        let of = |proc: &Path| std::fs::read_link(proc.join("ns").join(namespace)).expect("ns");
        assert_ne!(of(&proc), of(Path::new("/proc/self")), "{namespace}");
    }
}

#[test]
fn a_worker_holds_its_socket_and_nothing_else() {
    // Left open on purpose, as a careless library would.
    let leaked = std::fs::File::open("/etc/passwd").expect("file");
    rustix::io::fcntl_setfd(&leaked, rustix::io::FdFlags::empty()).expect("inheritable");
    let worker = worker();
    let folder = format!("/proc/{}/fd", worker.pid());
    let mut held: Vec<_> = std::fs::read_dir(folder)
        .expect("descriptors")
        .map(|entry| {
            let path = entry.expect("entry").path();
            let target = std::fs::read_link(&path).expect("target");
            (path.file_name().expect("name").to_owned(), target)
        })
        .collect();
    held.sort();
    assert_eq!(held.len(), 3, "{held:?}");
    assert!(held[0].1.to_string_lossy().starts_with("socket:"), "{held:?}");
    assert!(held[1..].iter().all(|entry| entry.1 == Path::new("/dev/null")), "{held:?}");
    let environment =
        std::fs::read(format!("/proc/{}/environ", worker.pid())).expect("environment");
    assert!(environment.is_empty());
}

#[test]
fn the_limits_of_a_worker_are_set() {
    let worker = worker();
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", worker.pid())).expect("limits");
    for (name, value) in [
        ("Max address space", "1073741824"),
        ("Max core file size", "0"),
        ("Max file size", "0"),
        ("Max processes", "0"),
        ("Max open files", "8"),
    ] {
        let line = limits.lines().find_map(|line| line.strip_prefix(name)).expect(name);
        let values: Vec<_> = line.split_whitespace().take(2).collect();
        assert_eq!(values, [value, value], "{name}");
    }
}

#[test]
fn no_worker_outlives_its_agent_not_even_a_stopped_one() {
    let mut agent = Command::new(probe())
        .args(["agent", WORKER])
        .stdout(Stdio::piped())
        .spawn()
        .expect("agent");
    let mut line = String::new();
    let mut output = BufReader::new(agent.stdout.take().expect("output"));
    output.read_line(&mut line).expect("pid");
    let raw: i32 = line.trim().parse().expect("pid");
    let pid = Pid::from_raw(raw).expect("pid");
    kill_process(pid, Signal::STOP).expect("stop");
    agent.kill().expect("kill");
    agent.wait().expect("wait");
    until("the worker is dead", || match std::fs::read_to_string(format!("/proc/{raw}/stat")) {
        Ok(stat) => stat.contains(") Z "),
        Err(_) => true,
    });
    let mut rest = String::new();
    output.read_to_string(&mut rest).expect("end");
}
