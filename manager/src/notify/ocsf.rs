//! Alerts as OCSF Detection Findings (category 2, class 2004), version 1.3.0, with the profiles
//! `host` and `security_control`.

use holdfast_common::process::ProcessInfo;
use holdfast_common::verdict::{Decision, Disposition};
use serde_json::{Map, Value, json};

use super::fields::{disposition_name, family, program};
use super::notice::{Evidence, Notice};
use crate::store::alerts::Alert;
use crate::store::notifications::level_number;

/// What an alert's life adds to a finding.
struct Life<'a> {
    created_ms: i64,
    modified_ms: i64,
    state: &'a str,
    resolution: Option<&'a str>,
    activity: i64,
}

/// The finding that a message tells.
#[must_use]
pub fn of_notice(notice: &Notice) -> Value {
    let life = Life {
        created_ms: notice.first_ms,
        modified_ms: notice.last_ms,
        state: "new",
        resolution: None,
        activity: 1,
    };
    finding(notice, &life)
}

/// The finding of an alert as it stands.
#[must_use]
pub fn of_alert(alert: &Alert) -> Value {
    let notice = Notice {
        alert: alert.id,
        host: alert.host_name.clone(),
        addresses: Vec::new(),
        kind: alert.kind.clone(),
        model: alert.model.clone(),
        title: alert.title.clone(),
        level: alert.level.clone(),
        attack: alert.attack.split_whitespace().map(str::to_owned).collect(),
        simulated: alert.simulated,
        count: alert.count,
        first_ms: alert.first_ms,
        last_ms: alert.last_ms,
        evidence: Evidence::of_json(&alert.evidence),
    };
    let life = Life {
        created_ms: alert.created_ms,
        modified_ms: alert.updated_ms,
        state: &alert.state,
        resolution: alert.resolution.as_deref(),
        activity: match alert.state.as_str() {
            "resolved" => 3,
            _ if alert.updated_ms > alert.created_ms => 2,
            _ => 1,
        },
    };
    let mut value = finding(&notice, &life);
    if let Some(device) = value.get_mut("device").and_then(Value::as_object_mut) {
        device.insert("uid".to_owned(), json!(alert.host));
    }
    value
}

fn finding(notice: &Notice, life: &Life<'_>) -> Value {
    let (severity_id, severity) = match level_number(&notice.level) {
        0 => (1, "Informational"),
        1 => (2, "Low"),
        2 => (3, "Medium"),
        4 => (5, "Critical"),
        _ => (4, "High"),
    };
    let (status_id, status) = match (life.state, life.resolution) {
        ("in_progress", _) => (2, "In Progress"),
        ("resolved", Some("ignored" | "false_positive" | "allowed")) => (3, "Suppressed"),
        ("resolved", _) => (4, "Resolved"),
        _ => (1, "New"),
    };
    let mut out = json!({
        "category_uid": 2,
        "category_name": "Findings",
        "class_uid": 2004,
        "class_name": "Detection Finding",
        "activity_id": life.activity,
        "activity_name": (["Unknown", "Create", "Update", "Close"])
            [usize::try_from(life.activity).unwrap_or(0).min(3)],
        "type_uid": 200_400 + life.activity,
        "severity_id": severity_id,
        "severity": severity,
        "status_id": status_id,
        "status": status,
        "time": notice.last_ms,
        "start_time": notice.first_ms,
        "end_time": notice.last_ms,
        "count": notice.count,
        "message": notice.title,
        "is_alert": true,
        "metadata": {
            "version": "1.3.0",
            "uid": notice.alert,
            "profiles": ["host", "security_control"],
            "product": { "name": "Holdfast", "vendor_name": "Holdfast",
                "version": env!("CARGO_PKG_VERSION") },
        },
        "finding_info": {
            "uid": notice.alert,
            "title": notice.title,
            "types": [notice.kind],
            "created_time": life.created_ms,
            "modified_time": life.modified_ms,
            "first_seen_time": notice.first_ms,
            "last_seen_time": notice.last_ms,
            "analytic": { "name": notice.model, "type_id": 1, "type": "Rule" },
            "attacks": attacks(notice),
        },
        "device": { "hostname": notice.host, "type_id": 0, "type": "Unknown",
            "ip": notice.addresses.first() },
        "unmapped": { "simulated": notice.simulated },
    });
    if let Some(fields) = out.as_object_mut() {
        detection(notice, fields);
    }
    out
}

fn attacks(notice: &Notice) -> Vec<Value> {
    notice
        .attack
        .iter()
        .map(|id| match id.split_once('.') {
            Some((technique, _)) => json!({ "version": "16",
                "technique": { "uid": technique }, "sub_technique": { "uid": id } }),
            None => json!({ "version": "16", "technique": { "uid": id } }),
        })
        .collect()
}

fn detection(notice: &Notice, fields: &mut Map<String, Value>) {
    let mut evidence = Map::new();
    if let Some((one, parents)) = notice.evidence.process() {
        let mut value = process(one);
        if let (Some(parent), Some(value)) = (parents.first(), value.as_object_mut()) {
            value.insert("parent_process".to_owned(), process(parent));
        }
        evidence.insert("process".to_owned(), value);
        let user = json!({ "name": one.user, "uid": one.uid.to_string() });
        evidence.insert("actor".to_owned(), json!({ "user": user }));
    }
    if let Some(malware) = notice.evidence.malware() {
        let hash = |id: i64, name: &str, value: &str| json!({ "algorithm_id": id, "algorithm": name, "value": value });
        let hashes = &malware.hashes;
        let known =
            [(1, "MD5", &hashes.md5), (2, "SHA-1", &hashes.sha1), (3, "SHA-256", &hashes.sha256)];
        let known = known.iter().filter(|(_, _, value)| !value.is_empty());
        evidence.insert(
            "file".to_owned(),
            json!({
                "path": malware.path,
                "name": malware.path.rsplit('/').next().unwrap_or_default(),
                "type_id": 1,
                "size": malware.file.size,
                "modified_time": malware.file.modified_ms,
                "owner": { "uid": malware.file.uid.to_string() },
                "hashes": known.map(|(id, name, value)| hash(*id, name, value))
                    .collect::<Vec<_>>(),
            }),
        );
        let id = disposition_id(malware.disposition);
        fields.insert("disposition_id".to_owned(), json!(id));
        let name = disposition_name(malware.disposition);
        fields.insert("disposition".to_owned(), json!(name));
        let action = match malware.decision {
            Some(Decision::Allow) => 1,
            Some(Decision::Deny) => 2,
            None => 0,
        };
        fields.insert("action_id".to_owned(), json!(action));
        let family = family(&malware.signature.name);
        fields.insert(
            "malware".to_owned(),
            json!([{ "name": family, "uid": malware.signature.name, "classification_ids": [0] }]),
        );
        fields.insert("status_detail".to_owned(), json!(malware.reason));
    }
    if let Evidence::Event(event) = &notice.evidence {
        let data = serde_json::to_string(event).unwrap_or_default();
        fields.insert("raw_data".to_owned(), Value::String(data));
    }
    if let Some(model) = notice.evidence.model() {
        fields.insert("remediation".to_owned(), json!({ "desc": model.advice }));
    }
    if !evidence.is_empty() {
        fields.insert("evidences".to_owned(), json!([evidence]));
    }
}

const fn disposition_id(disposition: Disposition) -> i64 {
    match disposition {
        Disposition::Allowed => 1,
        // Gone before it could be sealed: blocked, and no more.
        Disposition::Blocked | Disposition::Vanished => 2,
        Disposition::Quarantined => 3,
        Disposition::Restored => 9,
    }
}

fn process(process: &ProcessInfo) -> Value {
    json!({
        "pid": process.key.pid,
        "name": process.comm,
        "cmd_line": process.command_line(),
        "file": { "path": program(process), "type_id": 1,
            "name": program(process).rsplit('/').next().unwrap_or_default() },
        "user": { "name": process.user, "uid": process.uid.to_string() },
    })
}
