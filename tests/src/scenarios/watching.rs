//! The network and files that matter in a guest: what the agent tells of them.
//!
//! The scenario's own process does what is to be seen, or a tool of the guest.

use std::fs;
use std::io::Write;
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use super::{EXT4, text};
use crate::agent::{Agent, PATIENCE, Setup, finish};
use crate::until;
use crate::uring::{Request, Ring, op};

fn start(tables: &str) -> Result<Agent, String> {
    let setup = Setup::protect([EXT4]).on_access("deadline_ms = 20000").tables(tables);
    setup.start().map_err(text)
}

/// Waits for a network event of this process.
fn seen(agent: &Agent, action: &str, port: u16) -> Result<Value, String> {
    let own = std::process::id();
    let told = || agent.json(&["events", "--kind", "network"]).unwrap_or_default();
    let found = until(PATIENCE, || {
        told().into_iter().find(|event| {
            event["action"] == action
                && event["process"]["key"]["pid"] == own
                && (event["local_port"] == port || event["remote_port"] == port)
        })
    });
    found.ok_or_else(|| {
        format!("no {action} at {port} of {own} in {}\n{}", Value::Array(told()), agent.log())
    })
}

pub(super) fn network_is_seen() -> Result<(), String> {
    let agent = start("")?;
    for host in ["127.0.0.1", "::1"] {
        let listener = TcpListener::bind((host, 0)).map_err(text)?;
        let port = listener.local_addr().map_err(text)?.port();
        let _client = TcpStream::connect((host, port)).map_err(text)?;
        for action in ["listen", "connect", "accept"] {
            let event = seen(&agent, action, port)?;
            let side = if action == "listen" { "local_address" } else { "remote_address" };
            assert_eq!(event[side], host, "{event}");
            assert_eq!(event["protocol"], "tcp");
        }
    }
    let bound = UdpSocket::bind("127.0.0.1:4711").map_err(text)?;
    seen(&agent, "bind", 4711)?;
    // Nobody listens on the discard port.
    bound.send_to(b"x", "127.0.0.1:9").map_err(text)?;
    seen(&agent, "send", 9)?;

    let server = UdpSocket::bind("127.0.0.1:53").map_err(text)?;
    let query =
        b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x04leak\x04test\x00\x00\x01\x00\x01";
    bound.send_to(query, "127.0.0.1:53").map_err(text)?;
    let mut answer = [0; 512];
    let (length, peer) = server.recv_from(&mut answer).map_err(text)?;
    answer[7] = 1;
    let record = b"\xc0\x0c\x00\x01\x00\x01\x00\x00\x00\x3c\x00\x04\xc0\x00\x02\x07";
    answer[length..length + record.len()].copy_from_slice(record);
    server.send_to(&answer[..length + record.len()], peer).map_err(text)?;
    assert_eq!(seen(&agent, "dns_question", 53)?["dns_name"], "leak.test");
    assert_eq!(seen(&agent, "dns_answer", 53)?["dns_answers"], json!(["192.0.2.7"]));
    by_io_uring(&agent)
}

/// The same connection by io_uring, which no system call of its own shows.
fn by_io_uring(agent: &Agent) -> Result<(), String> {
    let mut ring = Ring::new().map_err(text)?;
    let listener = TcpListener::bind("127.0.0.1:0").map_err(text)?;
    let port = listener.local_addr().map_err(text)?.port();
    let mut address = [0_u8; 16];
    address[..2].copy_from_slice(&2_u16.to_ne_bytes());
    address[2..4].copy_from_slice(&port.to_be_bytes());
    address[4..8].copy_from_slice(&[127, 0, 0, 1]);
    let socket = Request { op: op::SOCKET, fd: 2, offset: 1, ..Request::default() };
    let fd = ring.run(socket).map_err(text)?;
    let address = address.as_ptr().addr() as u64;
    let connect = Request { op: op::CONNECT, fd, offset: 16, address, ..Request::default() };
    ring.run(connect).map_err(text)?;
    seen(agent, "connect", port)?;
    Ok(())
}

pub(super) fn files_that_matter_are_seen() -> Result<(), String> {
    let folder = Path::new(EXT4).join("secrets");
    fs::create_dir_all(&folder).map_err(text)?;
    let agent = start(
        "[[sensor.files.add]]\npath = \"/mnt/ext4/secrets/*\"\nclass = \"credentials\"\ntell = \"reads\"\n",
    )?;
    let (path, link) = (folder.join("key"), Path::new(EXT4).join("link"));
    let tool = |name: &str, arguments: &[&Path]| {
        let mut command = Command::new(name);
        finish(command.args(arguments), PATIENCE).map_err(text)
    };
    let told = |action: &str, by: &str| {
        let events = agent.json(&["events", "--kind", "file"]).unwrap_or_default();
        events.into_iter().find(|event| {
            event["action"] == action
                && event["path"] == "/mnt/ext4/secrets/key"
                && event["process"]["comm"] == by
        })
    };
    // Again until the marks stand, which nobody waits for.
    let read = until(PATIENCE, || {
        fs::write(&path, "key").ok()?;
        tool("/bin/cat", &[&path]).ok()?;
        until(std::time::Duration::from_secs(2), || {
            let events = agent.json(&["events", "--kind", "file"]).ok()?;
            events.into_iter().find(|event| {
                event["action"] == "read"
                    && event["path"] == "/mnt/ext4/secrets/key"
                    // A process that has ended before its start was heard of has none.
                    && event["process"]["args"] == json!(["/bin/cat", "/mnt/ext4/secrets/key"])
            })
        })
    });
    let read = read.ok_or_else(|| format!("no read was told\n{}", agent.log()))?;
    assert_eq!(read["class"], "credentials");

    fs::write(Path::new(EXT4).join("new"), "another").map_err(text)?;
    tool("/bin/mv", &[&Path::new(EXT4).join("new"), &path])?;
    tool("/bin/ln", &[&path, &link])?;
    tool("/bin/sed", &[Path::new("-i"), Path::new("s/a/b/"), &link])?;
    tool("/bin/chmod", &[Path::new("4755"), &path])?;
    tool("/bin/rm", &[&path])?;
    for (action, by) in [("rename", "mv"), ("attributes", "ln"), ("read", "sed"), ("delete", "rm")]
    {
        let event = until(PATIENCE, || told(action, by));
        event.ok_or_else(|| format!("{action} by {by} was not told\n{}", agent.log()))?;
    }
    let mode = until(PATIENCE, || told("attributes", "chmod")).ok_or("chmod was not told")?;
    assert!(mode["mode"].is_null() || mode["set_id"] == true, "{mode}");
    Ok(())
}

pub(super) fn mass_rewriting_is_seen() -> Result<(), String> {
    const FILES: usize = 60;
    let agent = start("")?;
    // Its response would kill this process, which plays the program that rewrites.
    let off = agent.cli(&["models", "disable", "Data Encrypted for Impact"]).map_err(text)?;
    assert!(off.status.success(), "{off:?}");
    let folder = Path::new(EXT4).join("documents");
    fs::create_dir_all(&folder).map_err(text)?;
    let paths: Vec<_> = (0..FILES).map(|number| folder.join(number.to_string())).collect();
    for path in &paths {
        fs::write(path, "a document, as people write them\n".repeat(100)).map_err(text)?;
    }
    let mut noise = vec![0; 4096];
    let mut random = fs::File::open("/dev/urandom").map_err(text)?;
    // New files do not count: again until they are old enough.
    let told = until(PATIENCE, || {
        for path in &paths {
            std::io::Read::read_exact(&mut random, &mut noise).ok()?;
            let mut file = fs::OpenOptions::new().write(true).open(path).ok()?;
            file.write_all(&noise).ok()?;
        }
        let events = agent.json(&["events", "--kind", "file"]).ok()?;
        events.into_iter().find(|event| event["action"] == "mass_rewrite")
    });
    let event = told.ok_or_else(|| format!("not told\n{}", agent.log()))?;
    assert_eq!(event["process"]["key"]["pid"], std::process::id());
    assert!(event["count"].as_u64().is_some_and(|count| count >= 50), "{event}");
    Ok(())
}
