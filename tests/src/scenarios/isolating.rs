//! Isolation in a guest: a lab's host is cut off on this kernel, by the mechanisms that it has;
//! then the guest itself, at last over a real reboot.

use std::io::{Read, Write};
use std::net::{Ipv6Addr, SocketAddrV6, TcpListener, TcpStream, UdpSocket};
use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::Duration;

use holdfast_agent::sys::packet::Sender;
use serde_json::Value;

use super::{EXT4, text};
use crate::agent::{Agent, PATIENCE, Setup, binary, finish};
use crate::lab::{HOST_INTERFACE, Lab, udp_frame};
use crate::observe::wait_event;
use crate::until;

/// What is sent, one act each; the act's name is what arrives.
const DROPPED: &[&str] = &["send-udp4", "send-udp6", "send-frame", "send-frame-past-queues"];
const TARGET4: &str = "10.77.0.3:7001";
const TARGET6: SocketAddrV6 =
    SocketAddrV6::new(Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, 3), 7001, 0, 0);
const MANAGER: &str = "10.77.0.2:8443";

/// Whether the kernel runs security programs.
fn security_programs_run() -> bool {
    std::fs::read_to_string("/sys/kernel/security/lsm")
        .is_ok_and(|list| list.trim().split(',').any(|name| name == "bpf"))
}

fn agent(setup: Setup) -> Result<Agent, String> {
    setup
        .on_access("deadline_ms = 20000")
        .tables("[sensor]\nenabled = false\n[scan]\nworkers = 1")
        .start()
        .map_err(text)
}

/// What listens outside.
struct Outside {
    lab: Lab,
    four: UdpSocket,
    six: UdpSocket,
}

impl Outside {
    fn new() -> Result<Self, String> {
        let lab = Lab::new().map_err(text)?;
        let (four, six, manager) = lab
            .inside("outside", || {
                let bound = (UdpSocket::bind(TARGET4)?, UdpSocket::bind(TARGET6)?);
                Ok((bound.0, bound.1, TcpListener::bind(MANAGER)?))
            })
            .map_err(text)?;
        for socket in [&four, &six] {
            socket.set_nonblocking(true).map_err(text)?;
        }
        std::thread::spawn(move || {
            for client in manager.incoming().flatten() {
                echo(client);
            }
        });
        Ok(Self { lab, four, six })
    }

    fn act(&self, name: &str) -> bool {
        let own = std::env::current_exe().unwrap_or_default();
        let mut command = self.lab.command("host", &own.to_string_lossy());
        let output = finish(command.args(["--act", name]), PATIENCE).expect("the act runs");
        print!("{}", String::from_utf8_lossy(&output.stderr));
        output.status.success()
    }

    fn arrived(&self, name: &str) -> bool {
        let mut buffer = [0; 2048];
        for socket in [&self.four, &self.six] {
            while let Ok(length) = socket.recv(&mut buffer) {
                if &buffer[..length] == name.as_bytes() {
                    return true;
                }
            }
        }
        false
    }

    fn expect(&self, arrives: bool, when: &str) {
        for name in DROPPED {
            self.act(name);
            if arrives {
                let arrived = until(PATIENCE, || self.arrived(name).then_some(()));
                assert!(arrived.is_some(), "{name} did not arrive {when}");
            } else {
                // What was sent before is there before.
                assert!(self.act("send-manager"), "the manager cannot be reached {when}");
                assert!(!self.arrived(name), "{name} arrived {when}");
            }
        }
        assert!(self.act("send-manager"), "the manager cannot be reached {when}");
    }

    fn queues(&self) -> String {
        let mut command = Command::new("tc");
        command.args(["-n", &self.lab.side("host"), "qdisc", "show"]);
        let output = finish(&mut command, PATIENCE).expect("tc");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }
}

fn echo(mut client: TcpStream) {
    let mut buffer = [0; 64];
    // A client that goes away ends it.
    while let Ok(length @ 1..) = client.read(&mut buffer) {
        if client.write_all(&buffer[..length]).is_err() {
            return;
        }
    }
}

fn standing(state: &Value, name: &str) -> bool {
    let layers = state["layers"].as_array().expect("layers");
    layers.iter().find(|layer| layer["name"] == name).expect("layer")["standing"] == true
}

pub(super) fn isolated_host_reaches_its_manager_alone() -> Result<(), String> {
    let outside = Outside::new()?;
    let lines = format!("allow = [\"{MANAGER}\"]\ndhcp = []");
    let mut agent = agent(Setup::protect([EXT4]).on_host_of(&outside.lab, &lines))?;
    let queues = outside.queues();
    outside.expect(true, "before");
    let isolated = agent.json(&["isolate"]).map_err(text)?.remove(0);
    println!("{isolated:#}");
    assert_eq!(isolated["proven"], true);
    for name in ["sockets", "interfaces", "egress"] {
        assert!(standing(&isolated, name), "{name}");
    }
    assert_eq!(standing(&isolated, "new sockets"), security_programs_run());
    outside.expect(false, "while isolated");
    assert_eq!(outside.act("make-xdp-socket"), !security_programs_run());
    agent.kill().map_err(text)?;
    outside.expect(false, "after a kill");
    assert_eq!(outside.act("make-xdp-socket"), !security_programs_run());
    agent.start().map_err(text)?;
    wait_event(&agent, "isolation", |event| event["action"] == "restored");
    outside.expect(false, "after a restart");
    agent.json(&["release"]).map_err(text)?;
    outside.expect(true, "after the release");
    // The security hook goes with its pin, a moment later.
    let again = until(PATIENCE, || outside.act("make-xdp-socket").then_some(()));
    assert!(again.is_some(), "sockets are still denied");
    assert_eq!(outside.queues(), queues);
    Ok(())
}

/// The guest itself, with its root cgroup and the usual places.
pub(super) fn isolated_guest_is_cut_off_again_without_an_agent() -> Result<(), String> {
    let setup = Setup::protect([EXT4]).whole_machine().tables("[isolation]\ndhcp = []");
    let mut agent = agent(setup)?;
    let isolated = agent.json(&["isolate"]).map_err(text)?.remove(0);
    println!("{isolated:#}");
    assert_eq!(standing(&isolated, "new sockets"), security_programs_run());
    agent.kill().map_err(text)?;
    // What a reboot takes: the pins.
    std::fs::remove_dir_all("/sys/fs/bpf/holdfast/isolation").map_err(text)?;
    let again = until(PATIENCE, || (!xdp_socket_denied()).then_some(()));
    assert!(again.is_some(), "sockets are still denied");
    let config = agent.config();
    let cli = |words: &[&str]| {
        let mut command = Command::new(binary("holdfast"));
        command.args(words).arg("--config").arg(&config);
        finish(&mut command, PATIENCE).map_err(text)
    };
    let restored = cli(&["isolation", "restore"])?;
    assert!(restored.status.success(), "{restored:?}");
    assert_eq!(xdp_socket_denied(), security_programs_run());
    let released = cli(&["release", "--without-agent"])?;
    assert!(released.status.success(), "{released:?}");
    let again = until(PATIENCE, || (!xdp_socket_denied()).then_some(()));
    assert!(again.is_some(), "sockets are still denied");
    assert!(!Path::new("/sys/fs/bpf/holdfast/isolation").exists());
    Ok(())
}

/// What stands over a reboot: the agent's folder, and a word that the second half is due.
const KEPT: &str = "/mnt/ext4/over-a-reboot";
const PENDING: &str = "/mnt/ext4/over-a-reboot/pending";
/// Whether the guest was started again by its own scenario.
#[must_use]
pub fn is_rebooted() -> bool {
    Path::new(PENDING).exists()
}

/// Two halves, with the guest's reboot between them, which its first process makes.
pub(super) fn isolated_guest_stays_cut_off_over_a_reboot() -> Result<(), String> {
    if is_rebooted() { after_the_reboot() } else { before_the_reboot() }
}

fn before_the_reboot() -> Result<(), String> {
    let outside = Outside::new()?;
    std::fs::create_dir_all(KEPT).map_err(text)?;
    let lines = format!("allow = [\"{MANAGER}\"]\ndhcp = []");
    let setup = Setup::protect([EXT4]).home_in(Path::new(KEPT));
    let mut agent = agent(setup.on_host_of(&outside.lab, &lines))?;
    outside.expect(true, "before");
    let isolated = agent.json(&["isolate"]).map_err(text)?.remove(0);
    assert_eq!(isolated["proven"], true, "{isolated:#}");
    outside.expect(false, "while isolated");
    // A machine that loses its power asks nobody.
    agent.kill().map_err(text)?;
    // Its folder stays for the second half.
    std::mem::forget(agent);
    std::fs::write(PENDING, "").map_err(text)
}

fn after_the_reboot() -> Result<(), String> {
    std::fs::remove_file(PENDING).map_err(text)?;
    let outside = Outside::new()?;
    outside.expect(true, "before the restore");
    let config = kept_config(&outside.lab)?;
    let holdfast = |words: &[&str]| {
        let mut command = outside.lab.command("host", &binary("holdfast").to_string_lossy());
        command.args(words).arg("--config").arg(&config);
        command
    };
    // As the boot unit does.
    let mut unit = holdfast(&["isolation", "restore", "--stay"]).spawn().map_err(text)?;
    let cut = until(PATIENCE, || {
        // It may also fail.
        outside.act("send-frame-past-queues");
        let sent = outside.act("send-manager");
        (sent && !outside.arrived("send-frame-past-queues")).then_some(())
    });
    assert!(cut.is_some(), "nothing was restored");
    outside.expect(false, "after the reboot");
    assert_eq!(outside.act("make-xdp-socket"), !security_programs_run());
    unit.kill().map_err(text)?;
    unit.wait().map_err(text)?;
    outside.expect(false, "without the unit");
    let mut release = holdfast(&["release", "--without-agent"]);
    let released = finish(&mut release, PATIENCE).map_err(text)?;
    assert!(released.status.success(), "{released:?}");
    outside.expect(true, "after the release");
    Ok(())
}

/// The config of before, with the places of this lab: those of the other went with the reboot.
fn kept_config(lab: &Lab) -> Result<std::path::PathBuf, String> {
    let mut folders = std::fs::read_dir(KEPT).map_err(text)?;
    let config = folders
        .find_map(|entry| Some(entry.ok()?.path().join("holdfast.toml")).filter(|c| c.is_file()))
        .ok_or("no config was kept")?;
    let places = lab.config("");
    let line = |key: &str| places.lines().find(|line| line.starts_with(key)).unwrap_or_default();
    let (cgroup, pins) = (line("cgroup = "), line("pins = "));
    let old = std::fs::read_to_string(&config).map_err(text)?;
    let new: Vec<&str> = old
        .lines()
        .map(|line| match line.split(" = ").next() {
            Some("cgroup") => cgroup,
            Some("pins") => pins,
            _ => line,
        })
        .collect();
    std::fs::write(&config, new.join("\n")).map_err(text)?;
    Ok(config)
}

/// Whether an `AF_XDP` socket is denied to this process.
fn xdp_socket_denied() -> bool {
    xdp_socket().err() == Some(rustix::io::Errno::PERM)
}

fn xdp_socket() -> rustix::io::Result<()> {
    use rustix::net::{AddressFamily, SocketType, socket};
    socket(AddressFamily::XDP, SocketType::RAW, None).map(drop)
}

/// The acts: one packet each, or one socket.
pub(super) fn act(name: &str) -> ExitCode {
    match send(name) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{name}: {error}");
            ExitCode::FAILURE
        }
    }
}

fn send(name: &str) -> std::io::Result<()> {
    match name {
        "send-udp4" => UdpSocket::bind("0.0.0.0:0")?.send_to(name.as_bytes(), TARGET4).map(drop),
        "send-udp6" => UdpSocket::bind("[::]:0")?.send_to(name.as_bytes(), TARGET6).map(drop),
        "send-frame" | "send-frame-past-queues" => {
            let any = UdpSocket::bind("127.0.0.1:0")?;
            let index = rustix::net::netdevice::name_to_index(any, HOST_INTERFACE)?;
            Sender::open(index, name != "send-frame")?.send(&udp_frame(name.as_bytes()))
        }
        "send-manager" => {
            let address = MANAGER.parse().map_err(std::io::Error::other)?;
            let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(10))?;
            stream.set_read_timeout(Some(Duration::from_secs(10)))?;
            stream.write_all(b"hello")?;
            stream.read_exact(&mut [0; 5])
        }
        "make-xdp-socket" => Ok(xdp_socket()?),
        _ => Err(std::io::Error::other("no such act")),
    }
}

/// The names of the acts.
pub(super) fn knows(name: &str) -> bool {
    DROPPED.contains(&name) || ["send-manager", "make-xdp-socket"].contains(&name)
}
