//! The network on this host's kernel: who connects, listens, accepts, sends and asks, by which
//! way ever, and what listens to the wire.
//!
//! Needs root. One sensor serves all tests; each looks at processes of its own. Everything happens
//! on the loopback, or in network namespaces of the tests' own.

mod watch;

use std::io::{BufRead, BufReader};
use std::net::{TcpListener, UdpSocket};
use std::process::{Command, Stdio};
use std::sync::{Arc, LazyLock};
use std::time::Instant;

use holdfast_agent::config;
use holdfast_agent::sensor::{Needs, ProcessTable, Sensor};
use holdfast_common::event::{EventBody, NetworkEvent};
use holdfast_tests::uring::{Request, Ring, op};
use holdfast_tests::{Owned, until};
use watch::{DEADLINE, Watch, python};

const ROLE: &str = "HOLDFAST_NETWORK_TEST_ROLE";

static WATCH: LazyLock<Watch> = LazyLock::new(|| Watch::start(quiet()));

/// Without the files.
fn quiet() -> config::Sensor {
    let mut config = config::Sensor::default();
    config.files.enabled = false;
    config
}

fn role(name: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("own path"));
    command.args(["--exact", "helper_process", "--nocapture"]).env(ROLE, name);
    command
}

/// Runs a role to its end, and returns its pid.
#[track_caller]
fn run(name: &str) -> u32 {
    let mut child = role(name).stdin(Stdio::null()).spawn().expect("helper");
    let pid = child.id();
    assert!(child.wait().expect("wait").success(), "{name}");
    pid
}

/// Does nothing in an ordinary run; a helper process of another test takes its role here.
#[test]
fn helper_process() {
    let Ok(role) = std::env::var(ROLE) else { return };
    let (what, port) = role.split_once(' ').expect("role");
    let port: u16 = port.parse().expect("port");
    match what {
        "uring-connect" => {
            let (socket, mut ring) = uring_socket(1);
            let address = address(port);
            ring.run(to(op::CONNECT, socket, &address)).expect("connect");
        }
        "uring-listen" => {
            let (socket, mut ring) = uring_socket(1);
            let address = address(port);
            // As `connect`, but the length lies in the second address.
            if let Err(error) = ring.run(to(op::BIND, socket, &address)) {
                assert_eq!(error.raw_os_error(), Some(libc::EINVAL), "bind by io_uring (6.11)");
                std::process::exit(77);
            }
            let listen = Request { op: op::LISTEN, fd: socket, length: 5, ..Request::default() };
            ring.run(listen).expect("listen");
        }
        "uring-send" => {
            let (socket, mut ring) = uring_socket(2);
            let address = address(port);
            let content = *b"sent";
            let mut parts = libc::iovec {
                iov_base: content.as_ptr().cast_mut().cast(),
                iov_len: content.len(),
            };
            let message = libc::msghdr {
                msg_name: address.as_ptr().cast_mut().cast(),
                msg_namelen: 16,
                msg_iov: &raw mut parts,
                msg_iovlen: 1,
                msg_control: std::ptr::null_mut(),
                msg_controllen: 0,
                msg_flags: 0,
            };
            let address = (&raw const message).addr() as u64;
            let send =
                Request { op: op::SENDMSG, fd: socket, address, length: 1, ..Request::default() };
            ring.run(send).expect("send");
        }
        "compat-connect" => holdfast_tests::compat::connect(port).expect("32-bit connect"),
        "promiscuous" => become_promiscuous(),
        other => panic!("no such role: {other}"),
    }
}

fn uring_socket(kind: u64) -> (i32, Ring) {
    let mut ring = Ring::new().expect("ring");
    let request = Request { op: op::SOCKET, fd: 2, offset: kind, ..Request::default() };
    (ring.run(request).expect("socket"), ring)
}

/// `struct sockaddr_in` of 127.0.0.1.
fn address(port: u16) -> [u8; 16] {
    let mut address = [0; 16];
    address[..2].copy_from_slice(&2_u16.to_ne_bytes());
    address[2..4].copy_from_slice(&port.to_be_bytes());
    address[4..8].copy_from_slice(&[127, 0, 0, 1]);
    address
}

fn to(op: u8, fd: i32, address: &[u8; 16]) -> Request {
    Request { op, fd, offset: 16, address: address.as_ptr().addr() as u64, ..Request::default() }
}

#[track_caller]
fn told(pid: u32, action: &str, is: impl Fn(&NetworkEvent) -> bool) -> NetworkEvent {
    WATCH.network(&format!("{action} by {pid}"), |event| {
        event.process.key.pid == pid && event.action == action && is(event)
    })
}

#[test]
fn a_connection_is_told_on_both_sides() {
    LazyLock::force(&WATCH);
    for (any, host) in [("0.0.0.0", "127.0.0.1"), ("::", "::1"), ("::", "127.0.0.1")] {
        let family = if any == "::" { "AF_INET6" } else { "AF_INET" };
        let script = format!(
            "import socket as s; x = s.socket(s.{family}); x.bind(('{any}', 0)); x.listen(); \
             print(x.getsockname()[1], flush=True); input()"
        );
        let mut server = Command::new("python3")
            .args(["-c", &script])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("server");
        let mut line = String::new();
        let output = server.stdout.take().expect("piped");
        BufReader::new(output).read_line(&mut line).expect("port");
        let server = Owned(server);
        let port: u16 = line.trim().parse().expect("port");
        let connect =
            "import socket as s, sys; s.create_connection((sys.argv[1], int(sys.argv[2])))";
        let client = python(connect, &[host, &port.to_string()]);

        let listener = server.0.id();
        let bind = told(listener, "bind", |_| true);
        assert_eq!((bind.protocol.as_str(), bind.local_address.as_str()), ("tcp", any));
        let listen = told(listener, "listen", |event| event.local_port == port);
        assert_eq!((listen.local_address.as_str(), listen.remote_port), (any, 0));
        let out = told(client, "connect", |event| event.remote_port == port);
        assert_eq!((out.remote_address.as_str(), out.protocol.as_str()), (host, "tcp"));
        assert!(out.process.args[0].ends_with("python3"), "{:?}", out.process.args);
        assert_eq!(out.parents[0].key.pid, std::process::id());
        let accept = told(listener, "accept", |event| event.local_port == port);
        assert_eq!(accept.remote_address, host);
        assert!(accept.remote_port > 0 && accept.process.args[0].ends_with("python3"));
    }
}

#[test]
fn a_datagram_is_told_once_for_each_peer() {
    LazyLock::force(&WATCH);
    let first = UdpSocket::bind("127.0.0.1:0").expect("peer");
    let second = UdpSocket::bind("[::1]:0").expect("peer");
    let port = |socket: &UdpSocket| socket.local_addr().expect("address").port();
    let script = "import socket as s, sys\nx = s.socket(s.AF_INET, s.SOCK_DGRAM); y = s.socket(s.AF_INET6, s.SOCK_DGRAM)\nfor i in range(50): x.sendto(b'x', ('127.0.0.1', int(sys.argv[1]))); y.sendto(b'y', ('::1', int(sys.argv[2])))\nz = s.socket(s.AF_INET, s.SOCK_DGRAM); z.connect(('127.0.0.9', int(sys.argv[1]))); z.send(b'z')\n";
    let pid = python(script, &[&port(&first).to_string(), &port(&second).to_string()]);
    let connect = told(pid, "connect", |_| true);
    assert_eq!((connect.protocol.as_str(), connect.remote_address.as_str()), ("udp", "127.0.0.9"));
    let sent: Vec<_> =
        WATCH.networks_of(pid).into_iter().filter(|event| event.action == "send").collect();
    let peers: Vec<_> =
        sent.iter().map(|event| (event.remote_address.as_str(), event.count)).collect();
    assert_eq!(peers, [("127.0.0.1", 1), ("::1", 1)]);
}

/// Asks a server of its own, which answers with the question, a CNAME and an address.
const DNS: &str = r"
import socket as s, sys, threading
family, host = (s.AF_INET6, '::1') if sys.argv[1] == '6' else (s.AF_INET, sys.argv[1])
server = s.socket(family, s.SOCK_DGRAM); server.setsockopt(s.SOL_SOCKET, s.SO_REUSEADDR, 1); server.bind((host, 53))
client = s.socket(family, s.SOCK_DGRAM); client.settimeout(10)
if sys.argv[2] == 'connected': client.connect((host, 53))
name = b'\x04leak\x07example\x04test\x00'
query = b'\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00' + name + b'\x00\x01\x00\x01'
if sys.argv[2] == 'garbage': query = bytes(range(200, 256)) * 20
if sys.argv[2] == 'connected': client.send(query)
else: client.sendto(query, (host, 53))
got, peer = server.recvfrom(4096)
answer = got[:2] + b'\x81\x80\x00\x01\x00\x02\x00\x00\x00\x00' + got[12:] + b'\xc0\x0c\x00\x05\x00\x01\x00\x00\x00\x3c\x00\x07\x04edge\xc0\x11' + b'\xc0\x0c\x00\x01\x00\x01\x00\x00\x00\x3c\x00\x04\xc0\x00\x02\x07'
if sys.argv[2] == 'garbage': answer = got[::-1]
server.sendto(answer, peer); client.recvfrom(4096)
";

#[test]
fn a_name_that_is_asked_for_is_told_with_its_answer() {
    LazyLock::force(&WATCH);
    for (host, how) in [("127.53.0.1", "connected"), ("127.53.0.2", "each"), ("6", "each")] {
        let pid = python(DNS, &[host, how]);
        let question = told(pid, "dns_question", |_| true);
        assert_eq!(question.dns_name, "leak.example.test", "{host}");
        assert_eq!((question.dns_type.as_str(), question.remote_port), ("A", 53));
        let answer = told(pid, "dns_answer", |_| true);
        assert_eq!(answer.dns_name, "leak.example.test");
        assert_eq!(answer.dns_answers, ["edge.example.test", "192.0.2.7"]);
        assert!(answer.process.args[0].ends_with("python3"));
    }
}

#[test]
fn garbage_on_the_port_of_dns_is_told_as_such() {
    LazyLock::force(&WATCH);
    let pid = python(DNS, &["127.53.0.3", "garbage"]);
    let question = told(pid, "dns_question", |_| true);
    assert_eq!((question.dns_name.as_str(), question.dns_type.as_str()), ("", "malformed"));
    assert_eq!(told(pid, "dns_answer", |_| true).dns_type, "malformed");
}

#[test]
fn io_uring_is_no_way_around() {
    LazyLock::force(&WATCH);
    if let Err(error) = Ring::new() {
        let off = std::fs::read_to_string("/proc/sys/kernel/io_uring_disabled").unwrap_or_default();
        assert_ne!(off.trim(), "0", "io_uring is there and gave {error}");
        return holdfast_tests::skip("io_uring_is_no_way_around", "kernel lacks io_uring");
    }
    let listener = TcpListener::bind("127.0.0.1:0").expect("listener");
    let port = listener.local_addr().expect("address").port();
    let pid = run(&format!("uring-connect {port}"));
    told(pid, "connect", |event| event.remote_port == port);

    let peer = UdpSocket::bind("127.0.0.1:0").expect("peer");
    let port = peer.local_addr().expect("address").port();
    let pid = run(&format!("uring-send {port}"));
    told(pid, "send", |event| event.remote_port == port);

    let free = TcpListener::bind("127.0.0.1:0").expect("port").local_addr().expect("port").port();
    let mut child = role(&format!("uring-listen {free}")).spawn().expect("helper");
    let pid = child.id();
    match child.wait().expect("wait").code() {
        Some(0) => {
            told(pid, "bind", |event| event.local_port == free);
            told(pid, "listen", |event| event.local_port == free);
        }
        code => assert_eq!(code, Some(77), "bind by io_uring came with 6.11"),
    }
}

#[test]
fn a_32_bit_call_is_seen_like_any_other() {
    LazyLock::force(&WATCH);
    let listener = TcpListener::bind("127.0.0.1:0").expect("listener");
    let port = listener.local_addr().expect("address").port();
    let pid = run(&format!("compat-connect {port}"));
    told(pid, "connect", |event| event.remote_port == port);
}

#[test]
fn a_storm_of_connections_is_counted_to_the_last() {
    const STORM: u64 = 5000;
    let watch = &*WATCH;
    let refused =
        TcpListener::bind("127.0.0.1:0").expect("port").local_addr().expect("port").port();
    let script = "import socket as s, sys\nfor i in range(int(sys.argv[2])): s.socket().connect_ex(('127.0.0.1', int(sys.argv[1])))";
    let pid = python(script, &[&refused.to_string(), &STORM.to_string()]);
    let sum = || {
        let events = watch.networks_of(pid);
        let own = events.iter().filter(|event| event.remote_port == refused);
        (own.clone().map(|event| event.count).sum::<u64>(), own.count())
    };
    let end = Instant::now() + DEADLINE;
    loop {
        let states = watch.sensor.states();
        let state = states.iter().find(|state| state.name == "connections made").expect("state");
        let (sum, events) = sum();
        // Others' connections may be on their way: wait for one quiet look.
        let adds_up = state.generated == state.delivered + state.aggregated + state.lost;
        if adds_up && sum + state.lost >= STORM {
            assert!(events < 60, "{events} events");
            return assert!(sum <= STORM);
        }
        assert!(Instant::now() < end, "{state:?}, {sum}");
        std::thread::yield_now();
    }
}

#[test]
fn who_listened_before_the_sensor_came_is_known() {
    let script = "import socket as s; x = s.socket(); x.bind(('127.0.0.1', 0)); x.listen(); \
                  print(x.getsockname()[1], flush=True); input()";
    let mut server = Command::new("python3")
        .args(["-c", script])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("server");
    let mut line = String::new();
    let output = server.stdout.take().expect("piped");
    BufReader::new(output).read_line(&mut line).expect("port");
    let server = Owned(server);
    let port: u16 = line.trim().parse().expect("port");
    let (found, wait) = std::sync::mpsc::channel();
    let sink = move |event| {
        if let EventBody::Network(event) = event
            && event.action == "accept"
            && event.local_port == port
            && event.process.key.pid != 0
        {
            let _ = found.send(event.process.key.pid);
        }
    };
    let table = Arc::new(ProcessTable::from_proc());
    let _sensor = Sensor::start(Needs {
        config: quiet(),
        table,
        hashes: None,
        own_files: Vec::new(),
        sink: Box::new(sink),
    });
    let end = Instant::now() + DEADLINE;
    let by = loop {
        drop(std::net::TcpStream::connect(("127.0.0.1", port)).expect("connect"));
        // Until the listing has been read.
        if let Ok(pid) = wait.recv_timeout(std::time::Duration::from_millis(1200)) {
            break pid;
        }
        assert!(Instant::now() < end, "nobody was named");
    };
    assert_eq!(by, server.0.id());
}

/// A Python process that does something and waits.
fn staying(script: &str) -> Owned {
    let script = format!("import socket as s\n{script}\ninput()");
    let child = Command::new("python3").args(["-c", &script]).stdin(Stdio::piped()).spawn();
    Owned(child.expect("python3"))
}

#[test]
fn a_socket_for_xdp_is_seen() {
    let watch = &*WATCH;
    let protocols = std::fs::read_to_string("/proc/net/protocols").expect("protocols");
    if !protocols.lines().any(|line| line.starts_with("XDP ")) {
        return holdfast_tests::skip("a_socket_for_xdp_is_seen", "kernel lacks AF_XDP");
    }
    let child = staying("x = s.socket(44, s.SOCK_RAW, 0)");
    let event = watch.socket("AF_XDP", |event| {
        event.process.key.pid == child.0.id() && event.family == "AF_XDP"
    });
    assert!(["socket", "found"].contains(&event.action.as_str()), "{}", event.action);
}

#[test]
fn a_listener_to_the_firewalls_log_is_seen() {
    let watch = &*WATCH;
    if !std::path::Path::new("/proc/net/netfilter/nfnetlink_log").exists() {
        return holdfast_tests::skip(
            "a_listener_to_the_firewalls_log_is_seen",
            "kernel lacks nflog",
        );
    }
    let child = staying(
        "import struct\nx = s.socket(s.AF_NETLINK, s.SOCK_RAW, 12); x.bind((0, 0))\n\
         x.send(struct.pack('=IHHIIBBHHHB3x', 28, 4 << 8 | 1, 5, 1, 0, 0, 0, s.htons(7701), 5, 1, 1))\n\
         assert struct.unpack_from('=i', x.recv(99), 16)[0] == 0",
    );
    let event = watch.socket("nflog", |event| {
        event.process.key.pid == child.0.id() && event.family == "AF_NETLINK"
    });
    assert_eq!((event.action.as_str(), event.protocol, event.interface), ("found", 12, 7701));
}

#[test]
fn an_interface_made_promiscuous_without_a_packet_socket_is_told() {
    let mut child = role("promiscuous 0").spawn().expect("helper");
    assert!(child.wait().expect("wait").success());
}

/// Flags by ioctl.
const PROMISCUOUS: &str = "import fcntl, socket as s, struct\n\
    def promiscuous():\n x = s.socket(s.AF_INET, s.SOCK_DGRAM)\n \
    r = fcntl.ioctl(x, 0x8913, struct.pack('16sh22x', b'lo', 0))\n \
    f = struct.unpack('16sh22x', r)[1] | 0x100\n \
    fcntl.ioctl(x, 0x8914, struct.pack('16sh22x', b'lo', f))\n";

/// In a network namespace of its own, with a sensor of its own.
fn become_promiscuous() {
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).expect("namespace");
    let watch = Watch::start(quiet());
    let child = staying(&format!("{PROMISCUOUS}promiscuous()"));
    // Other tests do the same elsewhere.
    let here = namespace_of("thread-self").expect("namespace");
    let event = watch.socket("promiscuous", |event| {
        event.action == "promiscuous" && event.network_namespace == here
    });
    assert_eq!((event.interface, event.family.as_str()), (1, ""));
    // Before 6.14 the kernel does not tell who uses a capability.
    let states = watch.sensor.states();
    if states.iter().any(|state| state.name == "use of CAP_NET_RAW") {
        assert_eq!(event.process.key.pid, child.0.id());
    }
}

fn namespace_of(process: &str) -> Option<u64> {
    use std::os::unix::fs::MetadataExt;
    Some(std::fs::metadata(format!("/proc/{process}/ns/net")).ok()?.ino())
}

/// Starts `script` in a network namespace of its own, whose inode it returns.
fn elsewhere(script: &str) -> (Owned, u64) {
    let all = format!("import ctypes\nassert ctypes.CDLL(None).unshare(0x40000000) == 0\n{script}");
    let child = staying(&all);
    let here = namespace_of("thread-self");
    let moved = until(DEADLINE, || {
        namespace_of(&child.0.id().to_string()).filter(|there| Some(*there) != here)
    });
    (child, moved.expect("another namespace"))
}

#[test]
fn an_interface_that_is_promiscuous_in_another_namespace_is_found() {
    LazyLock::force(&WATCH);
    let (_child, place) = elsewhere(&format!("{PROMISCUOUS}promiscuous()"));
    let event = WATCH.socket("promiscuous elsewhere", |event| {
        event.action == "promiscuous" && event.network_namespace == place
    });
    assert_eq!((event.interface, event.family.as_str()), (1, ""));
}

#[test]
fn an_interface_that_becomes_promiscuous_in_a_known_namespace_is_told_at_once() {
    LazyLock::force(&WATCH);
    // A packet socket calls the poll: with it the namespace is known.
    let script = format!(
        "{PROMISCUOUS}x = s.socket(s.AF_PACKET, s.SOCK_RAW, s.htons(3))\n\
         import time, threading\nthreading.Timer(1, promiscuous).start()"
    );
    let (child, place) = elsewhere(&script);
    let event = WATCH.socket("promiscuous elsewhere", |event| {
        event.action == "promiscuous" && event.network_namespace == place
    });
    // Before 6.14 the kernel does not tell who uses a capability.
    let states = WATCH.sensor.states();
    if states.iter().any(|state| state.name == "use of CAP_NET_RAW") {
        assert_eq!(event.process.key.pid, child.0.id());
    }
}
