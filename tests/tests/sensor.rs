//! The sensor on this host's kernel: what runs is seen as it runs, packet sockets are seen with
//! their process, and the account adds up.
//!
//! Needs root. One sensor serves all tests of this file; each looks only at processes that it
//! started itself.

use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::sync::{Arc, Condvar, LazyLock, Mutex};
use std::time::{Duration, Instant};

use holdfast_agent::config;
use holdfast_agent::detect::models::Models;
use holdfast_agent::sensor::{Needs, ProcessTable, Sensor, Sink};
use holdfast_common::event::{Activity, ActivityEvent, EventBody, ExecEvent, PacketSocketEvent};
use holdfast_tests::Owned;
use holdfast_tests::deeds;
use holdfast_tests::program32::EXIT;
use nix::sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType, socket};

const DEADLINE: Duration = Duration::from_secs(20);
const ROLE: &str = "HOLDFAST_SENSOR_TEST_ROLE";
const FOLDER: &str = "HOLDFAST_SENSOR_TEST_FOLDER";

#[derive(Default)]
struct Seen {
    execs: Vec<ExecEvent>,
    sockets: Vec<PacketSocketEvent>,
    activities: Vec<ActivityEvent>,
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
            EventBody::Activity(activity) => seen.activities.push(*activity),
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

    fn activity(&self, pid: u32, what: &str, is: impl Fn(&Activity) -> bool) -> ActivityEvent {
        self.wait(what, |seen| {
            let mut own = seen.activities.iter().filter(|event| event.process.key.pid == pid);
            own.find(|event| is(&event.activity)).cloned()
        })
    }

    /// True when this kernel takes the program that sees so much.
    fn by(&self, name: &str, mechanism: &str) -> bool {
        let states = self.sensor.states();
        let state = states.iter().find(|state| state.name == name).expect("state");
        state.mechanism.contains(mechanism)
    }

    fn socket(&self, what: &str, is: impl Fn(&PacketSocketEvent) -> bool) -> PacketSocketEvent {
        self.wait(what, |seen| seen.sockets.iter().find(|event| is(event)).cloned())
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
        "signal_parent" => {
            let parent = nix::unistd::getppid();
            nix::sys::signal::kill(parent, nix::sys::signal::Signal::SIGURG).expect("signal");
        }
        deed => {
            let folder = std::env::var(FOLDER).expect("a folder");
            deeds::run(deed, std::path::Path::new(&folder)).expect("done");
        }
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

/// Does a deed in a process of its own, to its end; returns its pid.
fn done(deed: &str, folder: &std::path::Path) -> u32 {
    let child = role(deed).env(FOLDER, folder).spawn().expect("helper");
    let pid = child.id();
    let status = Owned(child).0.wait().expect("wait");
    assert!(status.success() || status.code() == Some(EXIT as i32), "{deed}: {status}");
    pid
}

fn is_sleep(info: &holdfast_common::process::ProcessInfo) -> bool {
    info.args.iter().any(|argument| argument == "60")
}

#[test]
fn who_made_a_memfd_changed_its_user_or_looked_into_another_is_seen() {
    let watch = &*WATCH;
    let folder = tempfile::tempdir().expect("folder");
    let pid = done("memfd", folder.path());
    watch.activity(
        pid,
        "memfd",
        |deed| matches!(deed, Activity::Memfd { name } if name == "a name"),
    );
    let pid = done("setuid", folder.path());
    watch.activity(pid, "setuid", |deed| {
        let expected = Activity::Credentials {
            call: "setresuid".to_owned(),
            old_uid: 0,
            old_euid: 0,
            new_uid: 65534,
            new_euid: 65534,
        };
        *deed == expected
    });
    let pid = done("attach", folder.path());
    let event = watch.activity(pid, "attach", |deed| {
        matches!(deed, Activity::Ptrace { request, target } if request == "attach" && is_sleep(target))
    });
    assert_eq!(event.parents[0].key.pid, std::process::id());
    let pid = done("traceme", folder.path());
    watch.activity(
        pid,
        "traceme",
        |deed| matches!(deed, Activity::Ptrace { request, .. } if request == "traceme"),
    );
    let wrote =
        |deed: &Activity| matches!(deed, Activity::MemoryWrite { target } if is_sleep(target));
    let pid = done("write-memory", folder.path());
    watch.activity(pid, "process_vm_writev", wrote);
    if watch.by("writes to other processes' memory", "mem_write") {
        let pid = done("write-memory-file", folder.path());
        watch.activity(pid, "/proc/PID/mem", wrote);
    } else {
        println!("left out: this kernel does not let writes through /proc/PID/mem be seen");
    }
}

#[test]
fn namespaces_and_mounts_are_seen() {
    let watch = &*WATCH;
    let folder = tempfile::tempdir().expect("folder");
    let changed = |call: &'static str, names: &'static [&'static str]| {
        move |deed: &Activity| {
            matches!(deed, Activity::Namespaces { call: seen, namespaces }
                if seen == call && namespaces == names)
        }
    };
    let pid = done("namespaces", folder.path());
    watch.activity(pid, "unshare", changed("unshare", &["uts", "ipc"]));
    watch.activity(pid, "setns", changed("setns", &["uts"]));
    let pid = done("mounts", folder.path());
    watch.activity(pid, "unshare", changed("unshare", &["mnt"]));
    let place = folder.path().to_str().expect("text").to_owned();
    watch.activity(pid, "mount", |deed| {
        matches!(deed, Activity::Mount { call, target, source, fs_type }
            if call == "mount" && *target == place && source == "a source" && fs_type == "tmpfs")
    });
    for expected in ["move_mount", "umount"] {
        let moved = format!("{place}/moved");
        watch.activity(pid, expected, |deed| {
            matches!(deed, Activity::Mount { call, target, .. } if call == expected && *target == moved)
        });
    }
}

#[test]
fn calls_of_32_bits_are_no_way_around() {
    let watch = &*WATCH;
    let folder = tempfile::tempdir().expect("folder");
    let pid = done("calls-of-32-bits", folder.path());
    let place = folder.path().to_str().expect("text").to_owned();
    watch.activity(
        pid,
        "memfd",
        |deed| matches!(deed, Activity::Memfd { name } if name == "thirty-two"),
    );
    watch.activity(pid, "bpf", |deed| {
        matches!(deed, Activity::BpfLoad { program_type, name }
            if program_type == "socket_filter" && name == "harmless")
    });
    watch.activity(
        pid,
        "clone",
        |deed| matches!(deed, Activity::Fork { namespaces, .. } if namespaces == &["uts"]),
    );
    watch.activity(
        pid,
        "unshare",
        |deed| matches!(deed, Activity::Namespaces { namespaces, .. } if namespaces == &["mnt"]),
    );
    watch.activity(pid, "mount", |deed| {
        matches!(deed, Activity::Mount { call, target, .. } if call == "mount" && *target == place)
    });
    watch.activity(
        pid,
        "umount",
        |deed| matches!(deed, Activity::Mount { call, .. } if call == "umount"),
    );
    watch.activity(pid, "setresuid", |deed| {
        matches!(deed, Activity::Credentials { call, new_uid: 65534, .. } if call == "setresuid")
    });
    let exe = format!("{place}/thirty-two");
    // The child of the clone ended, too, and may have been the first.
    watch.wait("exit", |seen| {
        seen.activities
            .iter()
            .find(|event| {
                event.process.exe == exe
                    && event.activity == Activity::Exit { code: EXIT, signal: None }
            })
            .cloned()
    });
}

#[test]
fn a_process_that_a_signal_ends_is_told_with_the_signal() {
    let watch = &*WATCH;
    let folder = tempfile::tempdir().expect("folder");
    let program = folder.path().join("sleeper");
    holdfast_tests::copy_program("/bin/sleep", &program);
    let mut child = Command::new(&program).arg("60").spawn().expect("sleep");
    let pid = child.id();
    watch.exec("sleeper", |event| event.process.key.pid == pid);
    child.kill().expect("kill");
    child.wait().expect("wait");
    watch.activity(pid, "exit", |deed| *deed == Activity::Exit { code: 0, signal: Some(9) });
}

#[test]
fn a_signal_to_the_agent_names_who_sent_it() {
    let watch = &*WATCH;
    let folder = tempfile::tempdir().expect("folder");
    let pid = done("signal_parent", folder.path());
    watch.activity(pid, "signal", |deed| {
        matches!(deed, Activity::Signal { signal, target }
            if *signal == nix::libc::SIGURG.cast_unsigned()
                && target.key.pid == std::process::id())
    });
}

#[test]
fn a_script_is_told_with_its_interpreter_folder_and_environment() {
    let watch = &*WATCH;
    let folder = tempfile::tempdir().expect("folder");
    let script = folder.path().join("a script");
    std::fs::write(&script, "#!/bin/sh -e\nexit 3\n").expect("write");
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&script, mode).expect("chmod");
    let junk = (0..100).map(|n| (format!("JUNK{n}"), "x".repeat(2000)));
    let mut child = Command::new("./a script")
        .arg("argument")
        .current_dir(folder.path())
        .env_clear()
        .envs(junk)
        .env("LD_LIBRARY_PATH", "/nowhere")
        .env("HISTFILE", "")
        .env("PYTHONPATH", "y".repeat(3000))
        .env("LD_BIND_NOW", "not watched")
        .spawn()
        .expect("script");
    let pid = child.id();
    child.wait().expect("wait");
    let event =
        watch.exec("script", |event| event.process.key.pid == pid && event.process.args.len() > 2);
    let process = &event.process;
    let place = folder.path().to_str().expect("text");
    assert_eq!(process.script, Some(format!("{place}/./a script")));
    assert_eq!(process.args[1..], ["-e", "./a script", "argument"]);
    assert_eq!(process.cwd, place);
    assert_eq!(process.environment["LD_LIBRARY_PATH"], "/nowhere");
    assert_eq!(process.environment["HISTFILE"], "");
    assert!(process.environment["PYTHONPATH"].ends_with('…'));
    assert_eq!(process.environment.len(), 3, "{:?}", process.environment.keys());
    let own = holdfast_agent::sensor::observe(std::process::id()).expect("own process");
    assert_eq!((process.session, &process.tty), (own.session, &own.tty));
    assert_eq!((&process.cgroup, &process.container), (&own.cgroup, &own.container));
}

#[test]
fn an_environment_that_is_too_long_is_marked() {
    let watch = &*WATCH;
    let mark = format!("cut-{}", std::process::id());
    let many = (0..400).map(|n| (format!("JUNK{n}"), String::new()));
    let _child = Owned(Command::new("/bin/true").arg(&mark).envs(many).spawn().expect("true"));
    let event = watch.exec("many variables", |event| event.process.args.contains(&mark));
    assert!(event.process.environment.contains_key("(cut)"), "{:?}", event.process.environment);
}

#[test]
fn the_arguments_are_those_that_ran_whatever_a_thread_does_meanwhile() {
    let watch = &*WATCH;
    let folder = tempfile::tempdir().expect("folder");
    let program = folder.path().join("liar");
    deeds::exec_while_a_thread_changes_the_argument().write(&program).expect("program");
    for _ in 0..20 {
        let child = Command::new(&program).stdout(Stdio::piped()).spawn().expect("liar");
        let pid = child.id();
        let output = child.wait_with_output().expect("output");
        let ran = String::from_utf8(output.stdout).expect("text");
        let event = watch
            .exec("echo", |event| event.process.key.pid == pid && event.process.args.len() == 2);
        assert_eq!(event.process.args[1], ran.trim_end());
    }
}
