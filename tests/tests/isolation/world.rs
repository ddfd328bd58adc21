//! The lab with what sends and observes in it.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use holdfast_tests::agent::{Agent, PATIENCE, Setup, finish};
use holdfast_tests::lab::{HOST_INTERFACE, Lab, OUTSIDE_INTERFACE};
use holdfast_tests::scratch::Scratch;
use holdfast_tests::{require_root, until};

const PROBE: &str = include_str!("probe.py");

/// What the manager's endpoints are in these tests.
pub const ALLOW: &str = r#"allow = ["10.77.0.2:8443", "[fd77::2]:8443"]
dhcp = ["10.77.0.2"]"#;

/// Between two attempts to get something through.
const AGAIN: Duration = Duration::from_secs(8);

/// A probe's process.
pub struct Actor {
    child: Child,
    orders: ChildStdin,
    lines: Receiver<String>,
}

impl Actor {
    fn start(lab: &Lab, side: &str, role: &str, interface: &str, outside: &str) -> Self {
        let mut child = lab
            .command(side, "python3")
            .args(["-u", "-c", PROBE, role, interface])
            .env("OUTSIDE_LINK_LOCAL", outside)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("start a probe");
        let (sender, lines) = channel();
        let output = BufReader::new(child.stdout.take().expect("a pipe"));
        std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        let actor = Self { orders: child.stdin.take().expect("a pipe"), child, lines };
        assert_eq!(actor.line(), "ready", "{role} on {side}");
        actor
    }

    fn line(&self) -> String {
        self.lines.recv_timeout(PATIENCE).expect("the probe says something")
    }

    /// Sends a marker some way; what the sender was told.
    fn send(&mut self, kind: &str, marker: u32) -> Result<(), String> {
        writeln!(self.orders, "{kind} {marker}").expect("the probe listens");
        match self.line() {
            line if line == format!("sent {marker}") => Ok(()),
            line => Err(line),
        }
    }
}

impl Drop for Actor {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Everything.
pub struct World {
    pub host: Actor,
    pub container: Actor,
    /// Where the container is, but in no cgroup of the host, as a virtual machine's traffic.
    pub guest: Actor,
    pub outside: Actor,
    observer: Actor,
    seen: BTreeSet<u32>,
    next: u32,
    pub scratch: Scratch,
    // Last: the others live in it.
    pub lab: Lab,
}

impl World {
    pub fn new() -> Self {
        require_root();
        let lab = Lab::new().expect("lab");
        let outside = link_local(&lab);
        let start = |side, role, interface| Actor::start(&lab, side, role, interface, &outside);
        Self {
            observer: start("outside", "observe", OUTSIDE_INTERFACE),
            outside: start("outside", "send", OUTSIDE_INTERFACE),
            host: start("host", "send", HOST_INTERFACE),
            container: start("container", "send", "c0"),
            guest: start("guest", "send", "c0"),
            seen: BTreeSet::new(),
            next: 1,
            scratch: Scratch::tmpfs(16 << 20).expect("scratch"),
            lab,
        }
    }

    /// An agent on the host, with these lines under `[isolation]`.
    pub fn agent(&self, lines: &str) -> Agent {
        Setup::protect([self.scratch.path()])
            .tables("[sensor]\nenabled = false\n[scan]\nworkers = 1")
            .on_host_of(&self.lab, lines)
            .own_programs()
            .start()
            .expect("agent")
    }

    fn observed(&mut self, marker: u32) -> bool {
        while let Ok(line) = self.observer.lines.try_recv() {
            let number = line.strip_prefix("seen ").and_then(|number| number.parse().ok());
            self.seen.insert(number.unwrap_or_else(|| panic!("the observer says {line:?}")));
        }
        self.seen.contains(&marker)
    }

    fn send(&mut self, from: &str, kind: &str) -> (u32, Result<(), String>) {
        let marker = self.next;
        self.next += 1;
        (marker, self.send_as(marker, from, kind))
    }

    fn send_as(&mut self, marker: u32, from: &str, kind: &str) -> Result<(), String> {
        let actor = match from {
            "host" => &mut self.host,
            "container" => &mut self.container,
            "guest" => &mut self.guest,
            _ => &mut self.outside,
        };
        actor.send(kind, marker)
    }

    /// What is sent so arrives outside.
    #[track_caller]
    pub fn arrives(&mut self, from: &str, kind: &str) {
        let (marker, told) = self.send(from, kind);
        // A connection that was cut sends again after a while; a datagram that is lost on a busy
        // machine is sent again here.
        let patience = Duration::from_secs(40);
        let mut sent = Instant::now();
        let arrived = until(patience, || {
            if sent.elapsed() > AGAIN {
                sent = Instant::now();
                // Told by its arrival.
                let _ = self.send_as(marker, from, kind);
            }
            self.observed(marker).then_some(())
        });
        assert!(arrived.is_some(), "{kind} of the {from} never arrived; told {told:?}");
    }

    /// What is sent so does not arrive: what is sent to the manager afterwards is there before.
    #[track_caller]
    pub fn is_dropped(&mut self, from: &str, kind: &str) {
        let (marker, told) = self.send(from, kind);
        self.arrives("host", "manager4_new");
        assert!(!self.observed(marker), "{kind} of the {from} arrived; told {told:?}");
    }

    /// What the sender itself sees: an answer, or none.
    #[track_caller]
    pub fn works(&mut self, from: &str, kind: &str, expected: bool) {
        let (_, told) = self.send(from, kind);
        assert_eq!(told.is_ok(), expected, "{kind} of the {from}: {told:?}");
    }

    /// Everything of others that could be changed by accident, as their own tools and the kernel
    /// show it.
    pub fn others(&self) -> String {
        let mut all = String::new();
        let mut show = |program: &str, words: &[&str]| {
            let mut command = self.lab.command("outside", program);
            // The same namespace tools, but on the host, and never in the cgroup that is cut off.
            command = {
                let mut on_host = Command::new(command.get_program());
                on_host.arg(format!("--net={}", self.lab.namespace("host").display()));
                on_host.arg(program);
                on_host
            };
            let output = finish(command.args(words), PATIENCE).expect("start");
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{program} {words:?}: {said}");
            all.push_str(&format!("== {program} {words:?}\n"));
            all.push_str(&String::from_utf8_lossy(&output.stdout));
        };
        show("nft", &["-a", "list", "ruleset"]);
        show("tc", &["qdisc", "show"]);
        for interface in [HOST_INTERFACE, "hc0"] {
            show("tc", &["filter", "show", "dev", interface, "ingress"]);
            show("tc", &["filter", "show", "dev", interface, "egress"]);
        }
        all.push_str(&format!("{:?}", self.programs()));
        all
    }

    /// Programs at the cgroup and at the host's interfaces.
    pub fn programs(&self) -> Vec<Vec<u32>> {
        use holdfast_agent::sys::bpf::{Hook, attached_programs};
        use std::os::fd::AsRawFd;
        let cgroup = std::fs::File::open(self.lab.cgroup()).expect("cgroup");
        let target = u32::try_from(cgroup.as_raw_fd()).expect("descriptor");
        let mut all: Vec<Vec<u32>> = [Hook::CgroupIngress, Hook::CgroupEgress]
            .map(|hook| attached_programs(target, hook).expect("query"))
            .to_vec();
        for name in [HOST_INTERFACE, "hc0"] {
            all.extend(self.at_interface(name));
        }
        all
    }

    /// Programs at one of the host's interfaces, in and out.
    pub fn at_interface(&self, name: &str) -> [Vec<u32>; 2] {
        use holdfast_agent::sys::bpf::{Hook, attached_programs};
        let look = || {
            let family = rustix::net::AddressFamily::INET;
            let any = rustix::net::socket(family, rustix::net::SocketType::DGRAM, None)?;
            let index = rustix::net::netdevice::name_to_index(any, name)?;
            Ok([Hook::TcxIngress, Hook::TcxEgress]
                .map(|hook| attached_programs(index, hook).unwrap_or_default()))
        };
        self.lab.inside("host", look).expect("interface")
    }
}

/// How long a new interface of the host was there before both its programs were.
pub fn covered_after(lab: &Lab, name: &str) -> Duration {
    use holdfast_agent::sys::bpf::{Hook, attached_programs};
    let watch = || {
        let family = rustix::net::AddressFamily::INET;
        let any = rustix::net::socket(family, rustix::net::SocketType::DGRAM, None)?;
        let there = || rustix::net::netdevice::name_to_index(&any, name).ok();
        let index = eager(there);
        let appeared = Instant::now();
        eager(|| {
            let covered = [Hook::TcxIngress, Hook::TcxEgress].iter().all(|hook| {
                attached_programs(index, *hook).is_ok_and(|programs| !programs.is_empty())
            });
            covered.then_some(())
        });
        Ok(appeared.elapsed())
    };
    lab.inside("host", watch).expect("interface")
}

/// Looks all the time: a pause between looks would be part of what is measured.
fn eager<T>(mut look: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        match look() {
            Some(value) => return value,
            None => assert!(Instant::now() < end, "never within {PATIENCE:?}"),
        }
        std::thread::yield_now();
    }
}

/// How long until something is so.
#[track_caller]
pub fn soon(limit: Duration, what: &str, condition: impl FnMut() -> bool) -> Duration {
    let mut condition = condition;
    let begin = Instant::now();
    assert!(until(limit, || condition().then_some(())).is_some(), "not within {limit:?}: {what}");
    begin.elapsed()
}

fn link_local(lab: &Lab) -> String {
    let mut command = Command::new("ip");
    command.args(["-n", &lab.side("outside"), "-6", "-o", "addr", "show", "dev"]);
    let shown = until(PATIENCE, || {
        let output = command.args([OUTSIDE_INTERFACE, "scope", "link"]).output().ok()?;
        let text = String::from_utf8(output.stdout).ok()?;
        let address = text.split_whitespace().nth(3)?.split('/').next()?.to_owned();
        (!text.contains("tentative")).then_some(address)
    });
    shown.expect("a link-local address")
}
