//! What a message tells of an alert, field by field, for people.
//!
//! Every detection has every field; what its event does not know is said to be not known. Values
//! are the host's words: whoever shows them escapes them.

use holdfast_common::event::{MalwareDetection, ModelDetection};
use holdfast_common::process::ProcessInfo;
use holdfast_common::verdict::{Disposition, Engine, ScanType};
use serde_json::Value;

use super::notice::{Evidence, Notice};
use super::text::time;

/// Said of a field that the event does not have.
const UNKNOWN: &str = "not known";

/// A field's name and its value.
pub type Field = (&'static str, String);

/// All fields of an alert.
#[must_use]
pub fn fields(notice: &Notice) -> Vec<Field> {
    let mut out = vec![
        ("Host", notice.host.clone()),
        ("Addresses", known(notice.addresses.join(", "))),
        ("Time", time(notice.last_ms)),
        ("Alert", notice.title.clone()),
        ("Severity", notice.level.clone()),
        ("Detections", detections(notice)),
    ];
    match (notice.evidence.malware(), notice.evidence.model()) {
        (Some(malware), _) => malware_fields(malware, &mut out),
        (_, Some(model)) => model_fields(model, &mut out),
        _ => other_fields(notice, &mut out),
    }
    if !notice.attack.is_empty() {
        out.push(("ATT&CK", notice.attack.join(", ")));
    }
    if notice.simulated {
        out.push(("Simulation", "yes: `holdfast simulate` made this".to_owned()));
    }
    out.push(("Alert id", notice.alert.to_string()));
    out
}

fn detections(notice: &Notice) -> String {
    let (first, last) = (time(notice.first_ms), time(notice.last_ms));
    match notice.count {
        1 => "1".to_owned(),
        count => format!("{count}, the first {first}, the last {last}"),
    }
}

fn malware_fields(malware: &MalwareDetection, out: &mut Vec<Field>) {
    let file = &malware.file;
    out.extend([
        ("Path", malware.path.clone()),
        ("MD5", known(malware.hashes.md5.clone())),
        ("SHA-1", known(malware.hashes.sha1.clone())),
        ("SHA-256", known(malware.hashes.sha256.clone())),
        ("Size", format!("{} bytes", file.size)),
        ("Scan type", scan_type(malware.scan_type).to_owned()),
        ("Disposition", disposition(malware)),
    ]);
    process_fields(malware.process.as_ref(), &malware.parents, out);
    out.extend([
        ("Creator", creator(malware)),
        (
            "Change time",
            format!("{} (content), {} (status)", time(file.modified_ms), time(file.changed_ms)),
        ),
        ("Signature", format!("{} ({})", malware.signature.name, engine(malware))),
        ("Family", family(&malware.signature.name)),
        ("Advice", malware_advice(malware).to_owned()),
    ]);
    if let Some(item) = malware.quarantine_id {
        out.push(("Quarantine item", item.to_string()));
    }
}

fn model_fields(model: &ModelDetection, out: &mut Vec<Field>) {
    let process = &model.process;
    let sha256 = process.sha256.clone().unwrap_or_default();
    out.extend([
        ("Path", known(process.exe.clone())),
        ("MD5", UNKNOWN.to_owned()),
        ("SHA-256", known(sha256)),
        ("Scan type", "behaviour (a detection model)".to_owned()),
    ]);
    process_fields(Some(process), &model.parents, out);
    let creator = model.parents.first().map_or_else(String::new, program);
    out.extend([
        ("Creator", known(creator)),
        ("Change time", UNKNOWN.to_owned()),
        ("Model", format!("{} ({})", model.title, model.model_id)),
        ("Family", model.title.clone()),
        ("Advice", known(model.advice.clone())),
    ]);
    if !model.responded.is_empty() {
        out.push(("Response", model.responded.clone()));
    }
    for (name, value) in model.evidence.iter().take(32) {
        out.push(("Evidence", format!("{name}: {value}")));
    }
}

fn process_fields(process: Option<&ProcessInfo>, parents: &[ProcessInfo], out: &mut Vec<Field>) {
    let Some(process) = process else {
        out.extend(
            ["Process id", "Program", "Command line", "User"].map(|name| (name, UNKNOWN.into())),
        );
        return;
    };
    out.extend([
        ("Process id", process.key.pid.to_string()),
        ("Program", known(program(process))),
        ("Command line", known(process.command_line())),
        ("User", format!("{} (uid {}, effective {})", process.user, process.uid, process.euid)),
    ]);
    if !parents.is_empty() {
        let names: Vec<String> = parents
            .iter()
            .take(8)
            .map(|parent| format!("{} ({})", program(parent), parent.key.pid))
            .collect();
        out.push(("Started by", names.join(" ← ")));
    }
}

fn other_fields(notice: &Notice, out: &mut Vec<Field>) {
    if let Some((process, parents)) = notice.evidence.process() {
        process_fields(Some(process), parents, out);
    }
    let evidence = match &notice.evidence {
        Evidence::LeftOut => "left out here; the alert has it".to_owned(),
        Evidence::Event(event) => serde_json::to_string(&event.body).unwrap_or_default(),
        Evidence::Other(Value::Null) => return,
        Evidence::Other(value) => value.to_string(),
    };
    out.push(("Evidence", evidence));
}

fn known(text: String) -> String {
    if text.is_empty() { UNKNOWN.to_owned() } else { text }
}

/// A process's script, executable or name.
pub(super) fn program(process: &ProcessInfo) -> String {
    let path = process.script.as_ref().unwrap_or(&process.exe);
    if path.is_empty() { process.comm.clone() } else { path.clone() }
}

/// Who made the file: its writer when that is who was seen, else its owner.
fn creator(malware: &MalwareDetection) -> String {
    let owner = format!("uid {}, gid {} (its owner)", malware.file.uid, malware.file.gid);
    match (&malware.process, malware.scan_type) {
        (Some(writer), ScanType::OnClose) => {
            format!("{} by user {}; {owner}", program(writer), writer.user)
        }
        _ => owner,
    }
}

/// A scan type in words.
#[must_use]
pub const fn scan_type(scan_type: ScanType) -> &'static str {
    match scan_type {
        ScanType::OnOpen => "real-time (open)",
        ScanType::OnExec => "real-time (exec)",
        ScanType::OnClose => "real-time (written)",
        ScanType::Rescan => "rescan",
        ScanType::OnDemand => "on demand",
        ScanType::Scheduled => "scheduled",
    }
}

const fn engine(malware: &MalwareDetection) -> &'static str {
    match malware.signature.engine {
        Engine::Eicar => "EICAR",
        Engine::Hash => "hash list",
        Engine::Yara => "YARA",
        Engine::SelfProof => "self-proof",
        Engine::DeniedPath => "denied path",
    }
}

/// A disposition's name.
#[must_use]
pub const fn disposition_name(disposition: Disposition) -> &'static str {
    match disposition {
        Disposition::Allowed => "allowed",
        Disposition::Blocked => "blocked",
        Disposition::Quarantined => "quarantined",
        Disposition::Restored => "restored",
        Disposition::Vanished => "vanished",
    }
}

fn disposition(malware: &MalwareDetection) -> String {
    let name = disposition_name(malware.disposition);
    match &malware.reason {
        Some(reason) => format!("{name}: {reason}"),
        None => name.to_owned(),
    }
}

/// The family that a signature's name tells: of `Unix.Trojan.Mirai-123-0` it is `Mirai`. A name
/// without such parts is its own family.
#[must_use]
pub fn family(signature: &str) -> String {
    let name = signature.strip_suffix(".UNOFFICIAL").unwrap_or(signature);
    let last = match name.split('.').collect::<Vec<_>>()[..] {
        [_, _, .., last] => last,
        _ => return name.to_owned(),
    };
    let family = last.split('-').next().unwrap_or(last);
    if family.is_empty() { name.to_owned() } else { family.to_owned() }
}

const fn malware_advice(malware: &MalwareDetection) -> &'static str {
    match malware.disposition {
        Disposition::Quarantined => {
            "The file is in quarantine. Find out how it came there; search the fleet for its hash; \
             delete it, or restore and allow it if it is clean."
        }
        Disposition::Blocked => {
            "The file was not opened, but it still lies there. Remove it, or find out why it could \
             not be quarantined."
        }
        Disposition::Allowed => {
            "The file was opened. Isolate the host if it ran, kill its process, and clean up."
        }
        Disposition::Restored => "The file was put back. Make sure that this was meant.",
        Disposition::Vanished => {
            "The file was gone before it could be quarantined. Look for who removed it and for \
             copies of it."
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_family_is_what_the_name_says() {
        for (name, expected) in [
            ("Unix.Trojan.Mirai-123-0", "Mirai"),
            ("Win.Test.EICAR_HDB-1", "EICAR_HDB"),
            ("Foo.Bar.Baz-1.UNOFFICIAL", "Baz"),
            ("EICAR", "EICAR"),
            ("rule_name", "rule_name"),
            ("..", ".."),
            ("", ""),
        ] {
            assert_eq!(family(name), expected);
        }
    }
}
