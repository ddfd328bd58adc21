//! Alerts by the field names of the Elastic Common Schema (8.11), one JSON object each.

use holdfast_common::process::ProcessInfo;
use serde_json::{Map, Value, json};

use super::fields::{disposition_name, family, program, scan_type};
use super::notice::Notice;
use super::text::time;

/// Bytes of one text: lines stay below what log collectors take.
const TEXT: usize = 2000;

fn text(text: &str) -> String {
    // JSON escapes line breaks and control characters itself; bytes stay as they were seen.
    crate::app::cut(text, TEXT).to_owned()
}

fn process(process: &ProcessInfo) -> Value {
    json!({
        "pid": process.key.pid,
        "name": text(&process.comm),
        "executable": text(&program(process)),
        "command_line": text(&process.command_line()),
        "user": { "id": process.uid.to_string(), "name": text(&process.user) },
        "working_directory": text(&process.cwd),
    })
}

/// The object of an alert.
#[must_use]
pub fn of_notice(notice: &Notice) -> Value {
    let malware = notice.evidence.malware();
    let category = match notice.kind.as_str() {
        "malware" => "malware",
        "model" | "tampering" => "intrusion_detection",
        _ => "host",
    };
    let mut out = json!({
        "@timestamp": time(notice.last_ms),
        "ecs": { "version": "8.11" },
        "message": text(&notice.title),
        "event": {
            "kind": "alert",
            "category": [category],
            "type": [if malware.is_some_and(denied) { "denied" } else { "info" }],
            "id": notice.alert,
            "module": "holdfast",
            "dataset": format!("holdfast.{}", notice.kind),
            "severity": crate::store::notifications::level_number(&notice.level),
            "start": time(notice.first_ms),
            "end": time(notice.last_ms),
        },
        "observer": { "vendor": "Holdfast", "product": "Holdfast",
            "version": env!("CARGO_PKG_VERSION") },
        "host": { "name": text(&notice.host), "ip": notice.addresses },
        "rule": { "name": text(&notice.model), "category": notice.kind },
        "holdfast": { "count": notice.count, "level": notice.level,
            "simulated": notice.simulated },
    });
    let Some(fields) = out.as_object_mut() else { return out };
    if !notice.attack.is_empty() {
        let threat = json!({ "framework": "MITRE ATT&CK", "technique": { "id": notice.attack } });
        fields.insert("threat".to_owned(), threat);
    }
    if let Some((one, parents)) = notice.evidence.process() {
        let mut value = process(one);
        if let (Some(parent), Some(value)) = (parents.first(), value.as_object_mut()) {
            value.insert("parent".to_owned(), process(parent));
        }
        fields.insert("process".to_owned(), value);
        let user = json!({ "id": one.uid.to_string(), "name": text(&one.user) });
        fields.insert("user".to_owned(), user);
    }
    if malware.is_some() {
        malware_fields(notice, fields);
    }
    out
}

fn denied(malware: &holdfast_common::event::MalwareDetection) -> bool {
    malware.decision == Some(holdfast_common::verdict::Decision::Deny)
}

fn malware_fields(notice: &Notice, fields: &mut Map<String, Value>) {
    let Some(malware) = notice.evidence.malware() else { return };
    let file = json!({
        "path": text(&malware.path),
        "name": text(malware.path.rsplit('/').next().unwrap_or_default()),
        "size": malware.file.size,
        "uid": malware.file.uid.to_string(),
        "gid": malware.file.gid.to_string(),
        "mode": format!("{:04o}", malware.file.mode & 0o7777),
        "inode": malware.file.inode.to_string(),
        "mtime": time(malware.file.modified_ms),
        "ctime": time(malware.file.changed_ms),
        "hash": { "md5": malware.hashes.md5, "sha1": malware.hashes.sha1,
            "sha256": malware.hashes.sha256 },
    });
    fields.insert("file".to_owned(), file);
    if let Some(event) = fields.get_mut("event").and_then(Value::as_object_mut) {
        event.insert("action".to_owned(), json!(disposition_name(malware.disposition)));
        event.insert("reason".to_owned(), json!(malware.reason.as_deref().map(text)));
    }
    if let Some(own) = fields.get_mut("holdfast").and_then(Value::as_object_mut) {
        own.insert("family".to_owned(), json!(text(&family(&malware.signature.name))));
        own.insert("scan_type".to_owned(), json!(scan_type(malware.scan_type)));
        own.insert("quarantine_id".to_owned(), json!(malware.quarantine_id));
    }
}
