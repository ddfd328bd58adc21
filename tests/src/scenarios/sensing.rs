//! The sensor and the model in a guest: programs load, execs and sniffers are seen.

use std::net::UdpSocket;
use std::process::{Command, ExitCode, Stdio};

use serde_json::Value;

use super::{EXT4, text};
use crate::agent::{Agent, PATIENCE, Setup};
use crate::deeds;
use crate::observe::{assert_named, wait_event};
use crate::program32::EXIT;
use crate::{Owned, until};

/// Names the scratch folder of a deed.
const FOLDER: &str = "HOLDFAST_DEED_FOLDER";

/// What every kernel in a guest lets the sensor see.
const SEEN: [&str; 13] = [
    "exec",
    "fork",
    "exit",
    "packet and raw sockets",
    "credentials",
    "ptrace",
    "writes to other processes' memory",
    "signals to the agent",
    "kernel modules",
    "eBPF programs",
    "memfd",
    "mounts",
    "setns and unshare",
];

/// Nothing here is about speed, and the machine is emulated.
fn start() -> Result<Agent, String> {
    Setup::protect([EXT4]).on_access("deadline_ms = 20000").start().map_err(text)
}

pub(super) fn agent_starts_and_every_sensor_is_active() -> Result<(), String> {
    let mut agent = start()?;
    let status = agent.json(&["status"]).map_err(text)?;
    let sensors = status[0]["sensor"].as_array().ok_or("no list of sensors")?;
    let mut seen = Vec::new();
    for sensor in sensors {
        println!("{sensor}");
        let field = |name: &str| sensor[name].as_str().unwrap_or_default();
        if field("name").is_empty() || field("mechanism").is_empty() || sensor["active"] != true {
            return Err(format!("{sensor}"));
        }
        seen.push(field("name").to_owned());
    }
    for name in SEEN {
        if !seen.iter().any(|seen| seen == name) {
            return Err(format!("{name} is missing in {seen:?}"));
        }
    }
    // The agents of these scenarios run without it, which is said.
    if status[0]["problems"] != serde_json::json!(["self-proof is switched off in the config"]) {
        return Err(format!("problems: {}", status[0]["problems"]));
    }
    let status = agent.stop().map_err(text)?;
    if status.success() { Ok(()) } else { Err(format!("stopped with {status}")) }
}

pub(super) fn exec_is_seen_with_its_whole_command_line() -> Result<(), String> {
    let agent = start()?;
    let mark = format!("mark-{}", std::process::id());
    let long: Vec<String> = (0..60).map(|n| format!("{n}-{}", "x".repeat(100))).collect();
    let mut child = Command::new("/bin/true")
        .arg(&mark)
        .args(["", "two words", "caf\u{e9}"])
        .args(&long)
        .spawn()
        .map_err(text)?;
    let pid = child.id();
    child.wait().map_err(text)?;
    let event = wait_event(&agent, "exec", |event| event["process"]["args"][1] == mark.as_str());
    let mut expected = vec!["/bin/true".into(), mark, "".into(), "two words".into()];
    expected.push("caf\u{e9}".into());
    expected.extend(long);
    assert_eq!(event["process"]["args"], serde_json::json!(expected));
    assert_eq!(event["process"]["args_truncated"], false);
    assert_eq!(event["process"]["exe"], "/bin/busybox");
    assert_eq!(event["process"]["key"]["pid"], pid);
    assert_named(&event);
    Ok(())
}

/// Each deed by a process of its own; what it must be told as, in the fields of the event.
pub(super) fn deeds_are_seen_with_who_did_them() -> Result<(), String> {
    use serde_json::json;
    let agent = start()?;
    let folder = tempfile::tempdir().map_err(text)?;
    let moved = folder.path().join("moved");
    let sleep = json!(["/bin/sleep", "60"]);
    let nobody = json!({"call": "setresuid", "old_uid": 0, "new_uid": 65534, "new_euid": 65534});
    let told: [(&str, &[(&str, Value)]); 9] = [
        ("memfd", &[("memfd", json!({"name": "a name"}))]),
        ("setuid", &[("credentials", nobody.clone())]),
        ("attach", &[("ptrace", json!({"request": "attach", "target": {"args": sleep}}))]),
        ("traceme", &[("ptrace", json!({"request": "traceme"}))]),
        ("write-memory", &[("memory_write", json!({"target": {"args": sleep}}))]),
        ("write-memory-file", &[("memory_write", json!({"target": {"args": sleep}}))]),
        (
            "namespaces",
            &[
                ("namespaces", json!({"call": "unshare", "namespaces": ["uts", "ipc"]})),
                ("namespaces", json!({"call": "setns", "namespaces": ["uts"]})),
            ],
        ),
        (
            "mounts",
            &[
                ("namespaces", json!({"call": "unshare", "namespaces": ["mnt"]})),
                (
                    "mount",
                    json!({"call": "mount", "target": folder.path(), "source": "a source",
                        "fs_type": "tmpfs"}),
                ),
                ("mount", json!({"call": "move_mount", "target": moved, "fs_type": "tmpfs"})),
                ("mount", json!({"call": "umount", "target": moved})),
            ],
        ),
        (
            "calls-of-32-bits",
            &[
                ("memfd", json!({"name": "thirty-two"})),
                ("bpf_load", json!({"program_type": "socket_filter", "name": "harmless"})),
                ("fork", json!({"namespaces": ["uts"]})),
                ("namespaces", json!({"call": "unshare", "namespaces": ["mnt"]})),
                ("mount", json!({"call": "mount", "target": folder.path()})),
                ("mount", json!({"call": "umount", "target": folder.path()})),
                ("credentials", nobody),
            ],
        ),
    ];
    let own = std::env::current_exe().map_err(text)?;
    for (deed, told) in told {
        let mut command = Command::new(&own);
        command.args(["--act", deed]).env(FOLDER, folder.path());
        let mut child = command.spawn().map_err(text)?;
        let status = child.wait().map_err(text)?;
        if !status.success() && status.code() != i32::try_from(EXIT).ok() {
            return Err(format!("{deed}: {status}"));
        }
        for (activity, fields) in told {
            println!("{deed}: {activity} {fields}");
            let event = wait_event(&agent, "activity", |event| {
                event["activity"] == *activity
                    && event["process"]["key"]["pid"] == child.id()
                    && has(event, fields)
            });
            assert_eq!(event["parents"][0]["key"]["pid"], std::process::id());
        }
    }
    Ok(())
}

/// True when every field is there with its value, in whatever depth.
fn has(event: &Value, fields: &Value) -> bool {
    match fields {
        Value::Object(fields) => fields.iter().all(|(name, value)| has(&event[name], value)),
        value => event == value,
    }
}

/// The act: one of [`deeds`].
pub(super) fn act(deed: &str) -> ExitCode {
    if !deeds::DEEDS.contains(&deed) {
        return ExitCode::from(64);
    }
    let folder = std::env::var_os(FOLDER).unwrap_or_default();
    match deeds::run(deed, folder.as_ref()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("{deed}: {why}");
            ExitCode::FAILURE
        }
    }
}

pub(super) fn a_storm_of_execs_is_accounted_for() -> Result<(), String> {
    const STORM: usize = 500;
    let agent = start()?;
    for _ in 0..STORM {
        Command::new("/bin/true").status().map_err(text)?;
    }
    // Whatever else ran is accounted for, too, once nothing more comes.
    let even = until(PATIENCE, || {
        let status = agent.json(&["status"]).ok()?;
        let sensors = status[0]["sensor"].as_array()?.clone();
        let number = |sensor: &Value, name: &str| sensor[name].as_u64().unwrap_or_default();
        let even = sensors.iter().all(|sensor| {
            let told = number(sensor, "delivered") + number(sensor, "aggregated");
            number(sensor, "generated") == told + number(sensor, "lost")
        });
        let execs = sensors.into_iter().find(|sensor| sensor["name"] == "exec")?;
        (even && number(&execs, "generated") >= STORM as u64).then_some(execs)
    });
    let execs = even.ok_or("the account does not add up")?;
    println!("{execs}");
    if execs["aggregated"] == 0 && execs["lost"] == 0 {
        // Emulated machines may be too slow for a storm.
        println!("too slow to be put together");
    }
    Ok(())
}

pub(super) fn tcpdump_fires_network_sniffing() -> Result<(), String> {
    let agent = start()?;
    let mut tcpdump = Owned(
        Command::new("tcpdump")
            .args(["-c", "5", "-nni", "lo"])
            .stdout(Stdio::null())
            .spawn()
            .map_err(|error| format!("start tcpdump: {error}"))?,
    );
    let event = sniffing(&agent, tcpdump.0.id());
    assert_eq!(event["process"]["args"], serde_json::json!(["tcpdump", "-c", "5", "-nni", "lo"]));
    let exe = event["process"]["exe"].as_str().unwrap_or_default();
    assert!(exe.ends_with("/tcpdump"), "{exe}");
    // It sees only what comes after it has begun: send until it has seen enough.
    let socket = UdpSocket::bind("127.0.0.1:0").map_err(text)?;
    let ended = until(PATIENCE, || {
        // Nobody listens on the discard port; the refusal comes back here.
        let _ = socket.send_to(b"seen", "127.0.0.1:9");
        tcpdump.0.try_wait().transpose()
    });
    let status = ended.ok_or("tcpdump saw nothing")?.map_err(text)?;
    assert!(status.success(), "tcpdump itself is left alone: {status}");
    Ok(())
}

/// A sniffer that has no name.
pub(super) fn packet_socket_fires_network_sniffing() -> Result<(), String> {
    let agent = start()?;
    let own = std::env::current_exe().map_err(text)?;
    let child = Owned(
        Command::new(own)
            .args(["--act", "packet-socket"])
            .stdin(Stdio::piped())
            .spawn()
            .map_err(text)?,
    );
    let event = sniffing(&agent, child.0.id());
    assert_eq!(event["process"]["args"][2], "packet-socket");
    let socket = wait_event(&agent, "packet_socket", |event| {
        event["process"]["key"]["pid"] == child.0.id() && event["protocol"] == 3
    });
    assert_eq!(socket["family"], "AF_PACKET");
    // By the program, or by the poll when it was not attached yet.
    assert!(socket["action"] == "socket" || socket["action"] == "found", "{socket}");
    Ok(())
}

/// Waits for the model to fire for a process, and looks at what belongs to it.
fn sniffing(agent: &Agent, pid: u32) -> Value {
    let event = wait_event(agent, "model", |event| event["process"]["key"]["pid"] == pid);
    assert_eq!(event["title"], "Network Sniffing");
    assert_eq!(event["attack"], serde_json::json!(["T1040"]));
    assert_named(&event);
    event
}

/// The act: a packet socket for every protocol, until standard input ends.
pub(super) fn open_packet_socket() -> ExitCode {
    use nix::sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType, socket};
    let all = SockProtocol::EthAll;
    match socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC, all) {
        Ok(_socket) => {
            // Whatever ends the wait ends the act.
            let _ = std::io::stdin().read_line(&mut String::new());
            ExitCode::SUCCESS
        }
        Err(errno) => {
            eprintln!("socket: {errno}");
            ExitCode::FAILURE
        }
    }
}
