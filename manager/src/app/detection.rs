//! Which events are detections, and which alert each counts on. Pure.
//!
//! An alert stands for one host, one model and one cause: the executable (or script) for models
//! and tampering, the content for malware.

use holdfast_common::event::{Event, EventBody};
use holdfast_common::process::ProcessInfo;
use holdfast_common::verdict::Engine;
use sha2::{Digest, Sha256};

use super::cut;
use crate::store::alerts::Raise;

/// Bytes of a title, a model and a cause.
const TEXT: usize = 500;

/// Hash of what an alert stands for.
pub(super) fn group_key(host: i64, kind: &str, model: &str, cause: &str) -> Vec<u8> {
    let mut hash = Sha256::new();
    hash.update(host.to_be_bytes());
    for part in [kind, model, cause] {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    hash.finalize().to_vec()
}

struct Found {
    kind: &'static str,
    model: String,
    cause: String,
    title: String,
    level: String,
    attack: Vec<String>,
    simulated: bool,
}

/// What an event raises, if anything.
pub(super) fn raise(event: &Event, host: i64, body: &str) -> Option<Raise> {
    let found = found(&event.body)?;
    Some(Raise {
        host,
        kind: found.kind,
        group_key: group_key(host, found.kind, &found.model, &found.cause),
        model: cut(&found.model, TEXT).to_owned(),
        cause: cut(&found.cause, TEXT).to_owned(),
        title: cut(&found.title, TEXT).to_owned(),
        level: found.level,
        attack: found.attack.join(" "),
        simulated: found.simulated,
        count: 1,
        first_ms: event.time_ms,
        last_ms: event.time_ms,
        evidence: body.to_owned(),
    })
}

fn found(body: &EventBody) -> Option<Found> {
    match body {
        EventBody::Malware(malware) if malware.signature.engine == Engine::SelfProof => None,
        EventBody::Malware(malware) => Some(Found {
            kind: "malware",
            model: malware.signature.name.clone(),
            cause: malware.hashes.sha256.clone(),
            title: format!("{} in {}", malware.signature.name, malware.path),
            level: "high".to_owned(),
            attack: Vec::new(),
            simulated: false,
        }),
        // The policy says: it is in the journal, and that is all.
        EventBody::Model(model) if model.response == "none" => None,
        EventBody::Model(model) => Some(Found {
            kind: "model",
            model: model.model_id.to_string(),
            cause: program(&model.process),
            title: format!("{}: {}", model.title, program(&model.process)),
            level: level(&model.level),
            attack: model
                .attack
                .iter()
                .take(16)
                .map(|id| cut(id, 32).replace(char::is_whitespace, ""))
                .collect(),
            simulated: model.simulated,
        }),
        EventBody::Tampering(tampering) => {
            let who = tampering.process.as_ref().map_or_else(|| "unknown".to_owned(), program);
            let denied = if tampering.denied { "denied" } else { "not denied" };
            Some(Found {
                kind: "tampering",
                model: tampering.action.clone(),
                title: format!("{} on {} by {who}, {denied}", tampering.action, tampering.target),
                cause: who,
                level: "high".to_owned(),
                attack: vec!["T1562.001".to_owned()],
                simulated: false,
            })
        }
        EventBody::ProtectionGap(gap) => Some(Found {
            kind: "gap",
            model: "protection_gap".to_owned(),
            cause: String::new(),
            title: format!("nothing was held for {} ms", gap.until_ms.saturating_sub(gap.from_ms)),
            level: "medium".to_owned(),
            attack: Vec::new(),
            simulated: false,
        }),
        EventBody::Isolation(cut_off) if cut_off.action == "broken" => Some(Found {
            kind: "isolation",
            model: "isolation_broken".to_owned(),
            cause: String::new(),
            title: format!("the isolation was broken: {}", cut_off.reason),
            level: "critical".to_owned(),
            attack: vec!["T1562.001".to_owned()],
            simulated: false,
        }),
        EventBody::Failure(_)
        | EventBody::Quarantine(_)
        | EventBody::Scan(_)
        | EventBody::Exec(_)
        | EventBody::PacketSocket(_)
        | EventBody::Activity(_)
        | EventBody::Network(_)
        | EventBody::File(_)
        | EventBody::Proof(_)
        | EventBody::Isolation(_)
        | EventBody::Shell(_)
        | EventBody::AgentStarted(_)
        | EventBody::AgentStopped
        | EventBody::Bundle(_)
        | EventBody::Policy(_)
        | EventBody::Coverage(_)
        | EventBody::Loss(_) => None,
    }
}

fn program(process: &ProcessInfo) -> String {
    let path = process.script.as_ref().unwrap_or(&process.exe);
    if path.is_empty() { process.comm.clone() } else { path.clone() }
}

/// A known level; what is unknown is not made light of.
fn level(level: &str) -> String {
    let known = ["informational", "low", "medium", "high", "critical"];
    (*known.iter().find(|known| **known == level).unwrap_or(&"high")).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_of_a_group_do_not_run_into_each_other() {
        assert_ne!(group_key(1, "model", "ab", "c"), group_key(1, "model", "a", "bc"));
        assert_ne!(group_key(1, "model", "a", "b"), group_key(2, "model", "a", "b"));
        assert_eq!(group_key(1, "model", "a", "b"), group_key(1, "model", "a", "b"));
    }
}
