//! The sensor on this host's kernel: what runs is seen as it runs, packet sockets are seen with
//! their process, and the account adds up.
//!
//! Needs root. One sensor serves all tests of this file; each looks only at processes that it
//! started itself.

use std::collections::HashSet;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Condvar, LazyLock, Mutex};
use std::time::{Duration, Instant};

use holdfast_agent::config;
use holdfast_agent::detect::models::Models;
use holdfast_agent::sensor::{Needs, ProcessTable, Sensor, Sink};
use holdfast_common::event::{EventBody, ExecEvent, PacketSocketEvent};
use nix::sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType, socket};

const DEADLINE: Duration = Duration::from_secs(20);
const ROLE: &str = "HOLDFAST_SENSOR_TEST_ROLE";

#[derive(Default)]
struct Seen {
    execs: Vec<ExecEvent>,
    sockets: Vec<PacketSocketEvent>,
}

struct Watch {
    sensor: Sensor,
    table: Arc<ProcessTable>,
    seen: Arc<(Mutex<Seen>, Condvar)>,
}

static WATCH: LazyLock<Watch> = LazyLock::new(|| {
    assert!(nix::unistd::geteuid().is_root(), "the sensor's tests need root");
    let seen: Arc<(Mutex<Seen>, Condvar)> = Arc::default();
    let filled = Arc::clone(&seen);
    let table = Arc::new(ProcessTable::from_proc());
    let sink = move |event| {
        let mut seen = filled.0.lock().expect("not poisoned");
        match event {
            EventBody::Exec(exec) => seen.execs.push(*exec),
            EventBody::PacketSocket(socket) => seen.sockets.push(*socket),
            other => panic!("not an event of the sensor: {other:?}"),
        }
        filled.1.notify_all();
    };
    let sensor = Sensor::start(needs(Arc::clone(&table), Box::new(sink)));
    for state in sensor.states() {
        assert!(state.active, "{state:?}");
    }
    Watch { sensor, table, seen }
});

fn needs(table: Arc<ProcessTable>, sink: Sink) -> Needs {
    let mut config = config::Sensor::default();
    config.files.enabled = false;
    Needs { config, table, hashes: None, own_files: Vec::new(), sink }
}

impl Watch {
    fn wait<T>(&self, what: &str, find: impl Fn(&Seen) -> Option<T>) -> T {
        let end = Instant::now() + DEADLINE;
        let mut seen = self.seen.0.lock().expect("not poisoned");
        loop {
            if let Some(found) = find(&seen) {
                return found;
            }
            let left = end.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "not seen within {DEADLINE:?}: {what}");
            seen = self.seen.1.wait_timeout(seen, left).expect("not poisoned").0;
        }
    }

    fn exec(&self, what: &str, is: impl Fn(&ExecEvent) -> bool) -> ExecEvent {
        self.wait(what, |seen| seen.execs.iter().find(|event| is(event)).cloned())
    }

    fn socket(&self, what: &str, is: impl Fn(&PacketSocketEvent) -> bool) -> PacketSocketEvent {
        self.wait(what, |seen| seen.sockets.iter().find(|event| is(event)).cloned())
    }
}

/// A process of a test; killed and waited for at the end.
struct Owned(Child);

impl Drop for Owned {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn role(name: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("own path"));
    command.args(["--exact", "helper_process", "--nocapture"]).env(ROLE, name);
    command.stdout(Stdio::null()).stderr(Stdio::null()).stdin(Stdio::null());
    command
}

/// Does nothing in an ordinary run; a helper process of another test takes its role here.
#[test]
fn helper_process() {
    let Ok(role) = std::env::var(ROLE) else { return };
    match role.as_str() {
        "exec_from_thread" => {
            let thread = std::thread::spawn(|| {
                panic!("{}", Command::new("/bin/true").arg("from-a-thread").exec());
            });
            let _ = thread.join();
        }
        "exec_memfd" => {
            let bytes = std::fs::read("/bin/true").expect("true");
            let memfd =
                nix::sys::memfd::memfd_create(c"not here", nix::sys::memfd::MFdFlags::MFD_CLOEXEC)
                    .expect("memfd");
            nix::unistd::write(&memfd, &bytes).expect("write");
            let args = [c"pretty\n\x1b[2Jname", c"in memory"];
            panic!("{:?}", nix::unistd::fexecve(memfd, &args, &[c"A=B"]));
        }
        "empty_argv" => {
            let none: [&std::ffi::CStr; 0] = [];
            panic!("{:?}", nix::unistd::execve(c"/bin/true", &none, &none));
        }
        "raw_icmp" => {
            let raw = SockProtocol::Icmp;
            let _socket =
                socket(AddressFamily::Inet, SockType::Raw, SockFlag::empty(), raw).expect("raw");
            let _ = std::io::stdin().read_line(&mut String::new());
        }
        "packet_all" => {
            let all = SockProtocol::EthAll;
            let _socket = socket(AddressFamily::Packet, SockType::Raw, SockFlag::empty(), all)
                .expect("packet");
            let _ = std::io::stdin().read_line(&mut String::new());
        }
        "packet_arp" => {
            use rustix::net::{AddressFamily, Protocol, SocketType, socket};
            let arp =
                std::num::NonZeroU32::new(u32::from(0x0806u16.to_be())).map(Protocol::from_raw);
            let _socket = socket(AddressFamily::PACKET, SocketType::DGRAM, arp).expect("packet");
            let _ = std::io::stdin().read_line(&mut String::new());
        }
        other => panic!("no such role: {other}"),
    }
}

#[test]
fn an_exec_is_seen_with_its_arguments_parent_and_user() {
    let watch = &*WATCH;
    let mark = format!("mark-{}", std::process::id());
    let child = Command::new("/bin/true").args([&mark, "", "two words"]).spawn();
    let child = Owned(child.expect("true"));
    let event = watch.exec("true", |event| event.process.args.contains(&mark));
    let process = &event.process;
    assert_eq!(process.key.pid, child.0.id());
    assert_eq!(process.args[1..], [mark.as_str(), "", "two words"]);
    assert!(!process.args_truncated);
    assert!(process.exe.ends_with("/true"), "{}", process.exe);
    assert_eq!((process.uid, process.euid, process.user.as_str()), (0, 0, "root"));
    assert_eq!(event.parents[0].key.pid, std::process::id());
    assert_eq!(process.parent, Some(event.parents[0].key));
}

#[test]
fn a_huge_argument_vector_is_cut_and_marked() {
    let watch = &*WATCH;
    let mark = format!("huge-{}", std::process::id());
    let _child = Owned(
        Command::new("/bin/true")
            .arg(&mark)
            .args(vec!["x".repeat(100_000); 15])
            .spawn()
            .expect("true"),
    );
    let event = watch.exec("huge", |event| event.process.args.contains(&mark));
    assert!(event.process.args_truncated);
    let bytes: usize = event.process.args.iter().map(|argument| argument.len() + 1).sum();
    assert_eq!(bytes, holdfast_common::abi::ARGS_MAX + 1);
}

#[test]
fn an_exec_by_a_thread_is_the_process_that_was() {
    let watch = &*WATCH;
    let child = Owned(role("exec_from_thread").spawn().expect("helper"));
    let pid = child.0.id();
    let event = watch.exec("exec by a thread", |event| {
        event.process.key.pid == pid
            && event.process.args.get(1).is_some_and(|a| a == "from-a-thread")
    });
    assert!(event.process.exe.ends_with("/true"), "{}", event.process.exe);
}

#[test]
fn a_program_without_a_file_is_seen_and_its_name_cannot_break_a_line() {
    let watch = &*WATCH;
    let child = Owned(role("exec_memfd").spawn().expect("helper"));
    let pid = child.0.id();
    let event = watch.exec("exec of a memfd", |event| {
        event.process.key.pid == pid && event.process.args.get(1).is_some_and(|a| a == "in memory")
    });
    assert_eq!(event.process.exe, "/memfd:not here (deleted)");
    assert_eq!(event.process.args[0], r"pretty\x0a\x1b[2Jname");
}

#[test]
fn an_empty_argument_vector_is_seen() {
    let watch = &*WATCH;
    let child = Owned(role("empty_argv").spawn().expect("helper"));
    let pid = child.0.id();
    let event = watch.exec("empty argv", |event| {
        event.process.key.pid == pid && event.process.exe.ends_with("/true")
    });
    // Linux 5.18 and later put an empty argument 0 where there is none.
    assert!(event.process.args.iter().all(String::is_empty), "{:?}", event.process.args);
}

#[test]
fn a_process_ends_in_the_table_and_stays_for_ancestry() {
    let watch = &*WATCH;
    let mark = format!("ends-{}", std::process::id());
    let script = format!("/bin/true {mark} & wait");
    let shell = Command::new("/bin/sh").args(["-c", &script]).spawn().expect("shell");
    let pid = shell.id();
    drop(Owned(shell).0.wait());
    let event = watch.exec("the shell's child", |event| {
        event.process.args.get(1).is_some_and(|argument| *argument == mark)
    });
    assert_eq!(event.parents[0].key.pid, pid);
    assert_eq!(event.parents[0].args[2], script);
    assert_eq!(watch.table.lookup(pid).map(|info| info.key), Some(event.parents[0].key));
}

#[test]
fn packet_and_raw_sockets_are_seen_with_their_process() {
    let watch = &*WATCH;
    for (name, family, protocol) in [("packet_all", "AF_PACKET", 3), ("raw_icmp", "AF_INET", 1)] {
        let child = Owned(role(name).stdin(Stdio::piped()).spawn().expect("helper"));
        let pid = child.0.id();
        let event = watch.socket(name, |event| event.process.key.pid == pid);
        assert_eq!((event.family.as_str(), event.protocol), (family, protocol));
        // By the program, or by the poll when it was not attached yet.
        assert!(["socket", "found"].contains(&event.action.as_str()), "{}", event.action);
        assert_eq!(event.socket_type, "SOCK_RAW");
        assert!(event.process.args.iter().any(|argument| argument == "helper_process"));
        assert_eq!(event.parents[0].key.pid, std::process::id());
    }
}

#[test]
fn a_process_that_only_forks_is_in_the_table_with_its_parents_image() {
    let watch = &*WATCH;
    let script = "(read line) <&0 & echo $!; wait";
    let shell = Command::new("/bin/sh")
        .args(["-c", script])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("shell");
    let mut shell = Owned(shell);
    let mut line = String::new();
    let mut output = std::io::BufReader::new(shell.0.stdout.take().expect("piped"));
    std::io::BufRead::read_line(&mut output, &mut line).expect("the child's pid");
    let pid: u32 = line.trim().parse().expect("a number");
    let end = Instant::now() + DEADLINE;
    let child = loop {
        if let Some(child) = watch.table.lookup(pid) {
            break child;
        }
        assert!(Instant::now() < end, "the fork was not seen");
        std::thread::yield_now();
    };
    assert_eq!(child.parent.map(|key| key.pid), Some(shell.0.id()));
    assert_eq!(child.args[2], script);
}

#[test]
fn a_socket_that_was_open_before_the_sensor_is_found() {
    let child = Owned(role("packet_all").stdin(Stdio::piped()).spawn().expect("helper"));
    let pid = child.0.id();
    let listing = || std::fs::read_to_string("/proc/net/packet").expect("listing").lines().count();
    let end = Instant::now() + DEADLINE;
    while listing() < 2 {
        assert!(Instant::now() < end, "the helper opened no socket");
        std::thread::yield_now();
    }
    let (found, wait) = std::sync::mpsc::channel();
    let sink = move |event| {
        if let EventBody::PacketSocket(event) = event
            && event.process.key.pid == pid
        {
            let _ = found.send(*event);
        }
    };
    let table = Arc::new(ProcessTable::from_proc());
    let _sensor = Sensor::start(needs(table, Box::new(sink)));
    let event = wait.recv_timeout(DEADLINE).expect("found");
    assert_eq!((event.action.as_str(), event.protocol), ("found", 3));
}

/// Runs a command until the model fired for it, and returns how often it fired.
fn fired(watch: &Watch, command: &mut Command, last: impl Fn(&PacketSocketEvent) -> bool) -> usize {
    let folder = tempfile::tempdir().expect("folder");
    let models = Models::load(folder.path(), &Default::default()).expect("models");
    let child = command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    let child = Owned(child.expect("spawn"));
    let pid = child.0.id();
    watch.socket("socket", |event| event.process.key.pid == pid && last(event));
    let seen = watch.seen.0.lock().expect("not poisoned");
    let own = seen.sockets.iter().filter(|event| event.process.key.pid == pid);
    let detections: Vec<_> = own
        .flat_map(|event| {
            models.evaluate(uuid::Uuid::nil(), &EventBody::PacketSocket(Box::new(event.clone())))
        })
        .collect();
    for detection in &detections {
        assert_eq!(detection.title, "Network Sniffing");
        assert_eq!(detection.process.user, "root");
        assert_eq!(detection.parents[0].key.pid, std::process::id());
        assert!(!detection.process.args.is_empty());
    }
    detections.len()
}

#[test]
fn tcpdump_and_python_fire_network_sniffing_and_near_misses_do_not() {
    let watch = &*WATCH;
    let all = |event: &PacketSocketEvent| event.protocol == 3;
    let have = |program: &str| Command::new(program).arg("--version").output().is_ok();
    if have("tcpdump") {
        let count = fired(watch, Command::new("tcpdump").args(["-i", "lo", "-n"]), all);
        assert_eq!(count, 1, "once for all that it does");
    } else {
        println!("left out: tcpdump is not installed");
    }
    if have("/usr/bin/python3") {
        let python = |text: &str| {
            let mut command = Command::new("/usr/bin/python3");
            command.args(["-c", text]);
            command
        };
        let at_socket = "import socket as s; x = s.socket(17, s.SOCK_RAW, s.htons(3)); input()";
        assert_eq!(fired(watch, &mut python(at_socket), all), 1);
        let at_bind =
            "import socket as s; x = s.socket(17, s.SOCK_RAW, 0); x.bind(('lo', 3)); input()";
        assert_eq!(fired(watch, &mut python(at_bind), all), 1);
    } else {
        println!("left out: python3 is not installed");
    }
    assert_eq!(fired(watch, &mut role("packet_all"), all), 1);
    assert_eq!(fired(watch, &mut role("packet_arp"), |event| event.protocol == 0x806), 0);
    assert_eq!(fired(watch, &mut role("raw_icmp"), |event| event.family == "AF_INET"), 0);
}

#[test]
fn the_account_adds_up_after_a_storm_of_execs() {
    let watch = &*WATCH;
    const STORM: usize = 3000;
    let mark = format!("storm-{}", std::process::id());
    // Emulated machines are slow: what was made in this time is storm enough there.
    let end = Instant::now() + DEADLINE;
    let mut made = 0;
    while made < STORM && Instant::now() < end {
        let (from, to) = (made, made + 100);
        let script =
            format!("i={from}; while [ $i -lt {to} ]; do /bin/true {mark} $i; i=$((i+1)); done");
        assert!(Command::new("/bin/sh").args(["-c", &script]).status().expect("shell").success());
        made = to;
    }
    let state = |name: &str| {
        let states = watch.sensor.states();
        states.into_iter().find(|state| state.name == name).expect("state")
    };
    let end = Instant::now() + DEADLINE;
    // Other tests' records are on their way at any moment: wait for one quiet look.
    while ["exec", "fork", "exit", "packet and raw sockets"].into_iter().any(|name| {
        let state = state(name);
        state.generated != state.delivered + state.aggregated + state.lost
    }) {
        assert!(Instant::now() < end, "{:?}", watch.sensor.states());
        std::thread::yield_now();
    }
    let seen = watch.seen.0.lock().expect("not poisoned");
    let numbers: HashSet<&str> = seen
        .execs
        .iter()
        .filter(|event| event.process.args.get(1) == Some(&mark))
        .filter_map(|event| event.process.args.get(2).map(String::as_str))
        .collect();
    let lost = usize::try_from(state("exec").lost).expect("small");
    assert!(numbers.len() + lost >= made, "{} of {made} seen, {lost} declared lost", numbers.len());
}
