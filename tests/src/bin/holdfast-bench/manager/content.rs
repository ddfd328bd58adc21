//! What simulated agents say: heartbeats and telemetry of the shape and size that real ones have.

use bytes::Bytes;
use holdfast_common::event::{Event, EventBody, ExecEvent, FileEvent, NetworkEvent};
use holdfast_common::link::{HostFacts, heartbeat_pack};
use holdfast_common::process::{ProcessInfo, ProcessKey};
use serde_json::{Value, json};
use uuid::Uuid;

/// Lines of the sensor's account: with 80 the whole is 16 KB, as a real agent's.
const SENSOR_LINES: usize = 80;
/// Stands for a number in what is written once and filled in often.
const ID: &str = "00000000-0000-0000-0000-00000000feed";
const TIME: i64 = 1_111_111_111_111;
const SERIAL: &str = "serial-7777777777";

/// What a host says of itself.
pub fn facts(index: usize) -> Bytes {
    let facts = HostFacts {
        host: format!("host{index}"),
        machine_id: format!("{index:032x}"),
        kernel: "6.12.43+deb13-amd64".to_owned(),
        system: "Debian GNU/Linux 13 (trixie)".to_owned(),
        architecture: "x86_64".to_owned(),
        addresses: vec![format!("10.{}.{}.7", index / 256, index % 256), "fd00::7".to_owned()],
        version: "0.1.0".to_owned(),
    };
    serde_json::to_vec(&facts).unwrap_or_default().into()
}

/// A green heartbeat: 20 capabilities and a status as long as a real agent's.
pub fn heartbeat(now_ms: i64) -> Bytes {
    let names = ["on access: /", "on access: /srv", "on access: /home", "scan core", "rules"];
    let more = ["quarantine", "quarantine: room", "journal", "sensor: exec", "sensor: capture"];
    let rest = ["sensor: programs", "detection models", "start at boot", "isolation", "outbox"];
    let last = ["clock", "link", "self-protection", "bundle age", "on access: fresh mount"];
    let capabilities: Vec<Value> = [names, more, rest, last]
        .concat()
        .iter()
        .map(|name| {
            let evidence = "the marker's open was denied and reported, 41 s ago";
            json!({ "name": name, "state": "ok", "evidence": evidence, "time_ms": now_ms })
        })
        .collect();
    let kinds = ["exec", "fork", "exit", "connect", "accept", "bind", "listen", "send", "dns"];
    let sensor: Vec<Value> = (0..SENSOR_LINES)
        .map(|line| {
            let name = format!("{} {line}", kinds[line % kinds.len()]);
            json!({ "name": name, "mechanism": "raw tracepoint", "active": true, "note": null,
                    "generated": 1_234_567, "delivered": 1_200_000, "aggregated": 34_567,
                    "lost": 0 })
        })
        .collect();
    let failures: [Value; 0] = [];
    let beat = json!({
        "time_ms": now_ms,
        "capabilities": capabilities,
        "outbox": { "events": 0, "bytes": 0, "oldest_s": 0, "dropped": 0 },
        "status": {
            "version": "0.1.0", "host": "host", "pid": 812, "uptime_s": 86_400, "mode": "block",
            "problems": failures, "file_systems": failures, "workers": 2, "sensor": sensor,
            "journal_events": 81_112, "journal_dropped": 0,
            "on_access": { "held": 9_182_733, "allowed": 9_182_733, "denied": 0, "own": 81_723,
                "cached": 8_123_221, "excluded": 0, "closed_scanned": 9_211,
                "closed_skipped": 82_111, "failures": failures, "past_deadline": 0,
                "longest_held_us": 21_223, "rescans_waiting": 0, "rescans_done": 0,
                "rescans_dropped": 0 },
            "bundle": { "path": "/etc/holdfast/rules", "digest": "ab".repeat(32),
                "loaded_ms": now_ms, "hashes": 812_222, "yara_rules": 4_127, "refused": null },
            "quarantine": { "items": 3, "bytes": 81_223 }
        }
    });
    heartbeat_pack(beat.to_string().as_bytes())
}

/// Telemetry as text, to be filled in: three of five are execs, the rest connections and files.
pub struct Telemetry(Vec<Vec<Piece>>);

enum Piece {
    Text(String),
    Id,
    Time,
    Serial,
}

impl Telemetry {
    /// Of a host of this name.
    pub fn new(host: &str) -> Self {
        let bodies = [exec(), network(), exec(), file(), exec()];
        let texts = bodies.map(|body| {
            let id = ID.parse().unwrap_or_default();
            let event = Event { id, time_ms: TIME, host: host.to_owned(), body };
            pieces(&serde_json::to_string(&event).unwrap_or_default())
        });
        Self(texts.into())
    }

    /// The event of this number.
    pub fn event(&self, serial: u64, id: Uuid, time_ms: i64) -> String {
        let pieces = &self.0[usize::try_from(serial).unwrap_or_default() % self.0.len()];
        let mut text = String::with_capacity(1536);
        for piece in pieces {
            match piece {
                Piece::Text(part) => text.push_str(part),
                Piece::Id => text.push_str(&id.to_string()),
                Piece::Time => text.push_str(&time_ms.to_string()),
                Piece::Serial => text.push_str(&serial_word(serial)),
            }
        }
        text
    }
}

/// The word that stands in the command line of one event alone.
pub fn serial_word(serial: u64) -> String {
    format!("serial-{serial:010}")
}

fn pieces(text: &str) -> Vec<Piece> {
    let time = TIME.to_string();
    let mut pieces = Vec::new();
    let mut rest = text;
    loop {
        let next = [(ID, Piece::Id), (&time, Piece::Time), (SERIAL, Piece::Serial)]
            .into_iter()
            .filter_map(|(mark, piece)| Some((rest.find(mark)?, mark.len(), piece)))
            .min_by_key(|(at, ..)| *at);
        let Some((at, length, piece)) = next else {
            pieces.push(Piece::Text(rest.to_owned()));
            return pieces;
        };
        pieces.push(Piece::Text(rest[..at].to_owned()));
        pieces.push(piece);
        rest = &rest[at + length..];
    }
}

fn process(exe: &str, args: &[&str]) -> ProcessInfo {
    ProcessInfo {
        key: ProcessKey { pid: 48_112, start_ns: 9_812_273_330_000_000 },
        parent: Some(ProcessKey { pid: 48_001, start_ns: 9_812_271_110_000_000 }),
        exe: exe.to_owned(),
        comm: exe.rsplit('/').next().unwrap_or_default().to_owned(),
        args: args.iter().map(|argument| (*argument).to_owned()).collect(),
        uid: 33,
        euid: 33,
        login_uid: Some(1000),
        user: "www-data".to_owned(),
        cwd: "/srv/www/releases/current".to_owned(),
        cgroup: "/system.slice/php8.4-fpm.service".to_owned(),
        session: 48_001,
        ..ProcessInfo::default()
    }
}

fn exec() -> EventBody {
    let args = ["/usr/bin/convert", "-resize", "640x480", "-quality", "82", SERIAL, "out.jpeg"];
    EventBody::Exec(Box::new(ExecEvent {
        process: process("/usr/bin/convert", &args),
        parents: vec![process("/usr/sbin/php-fpm8.4", &["php-fpm: pool www"])],
        count: 1,
    }))
}

fn network() -> EventBody {
    EventBody::Network(Box::new(NetworkEvent {
        process: process("/usr/sbin/php-fpm8.4", &["php-fpm: pool www", SERIAL]),
        parents: Vec::new(),
        action: "connect".to_owned(),
        protocol: "tcp".to_owned(),
        local_address: "10.1.2.3".to_owned(),
        local_port: 0,
        remote_address: "10.1.9.20".to_owned(),
        remote_port: 5432,
        dns_name: String::new(),
        dns_type: String::new(),
        dns_answers: Vec::new(),
        count: 1,
    }))
}

fn file() -> EventBody {
    EventBody::File(Box::new(FileEvent {
        process: process("/usr/bin/rsync", &["rsync", "-a", "--delete", SERIAL, "/srv/www/"]),
        parents: Vec::new(),
        action: "write".to_owned(),
        path: "/srv/www/releases/current/public/index.php".to_owned(),
        from: None,
        class: "web_root".to_owned(),
        mode: Some(0o644),
        set_id: false,
        count: 1,
    }))
}
