//! A policy's roll-out: who is in a stage, what stops it, when the next stage begins. Pure.
//!
//! INVARIANT: a host's place is its own, the same in every roll-out, so that the same hosts go
//! first; a stage that nobody has tried is not over.

use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::cut;
use super::health::Reason;
use crate::store::policies::{Member, Version};

/// Bytes of a why.
const WHY: usize = 500;

/// Percents of a version's stages.
pub(super) fn stages(version: &Version) -> Vec<u32> {
    serde_json::from_str(&version.stages).unwrap_or_else(|_| vec![100])
}

/// 0 to 9,999.
fn place(host: Uuid) -> u32 {
    let hash = Sha256::digest(host.as_bytes());
    let mut number = [0; 4];
    number.copy_from_slice(&hash[..4]);
    u32::from_be_bytes(number) % 10_000
}

/// It can be given something now.
fn is_there(member: &Member) -> bool {
    member.connected && member.state.accepts
}

/// Numbers of the hosts of a stage. One that is there is always among them, if there is any; who
/// tries it already goes on, whoever comes later.
pub(super) fn chosen(members: &[Member], percent: u32, version: &Version) -> Vec<i64> {
    let inside = |member: &&Member| place(member.id) < percent * 100;
    let mut chosen: Vec<&Member> = members.iter().filter(inside).collect();
    if !chosen.iter().any(|member| is_there(member)) {
        let there = members.iter().filter(|member| is_there(member));
        let order = |member: &&Member| (!is_in(member, version), place(member.id), member.id);
        chosen.extend(there.min_by_key(order));
    }
    chosen.into_iter().map(|member| member.state.number).collect()
}

/// It is to run this version.
pub(super) fn is_in(member: &Member, version: &Version) -> bool {
    member.state.policy == Some(version.policy) && member.state.wanted == version.version
}

fn reasons(json: &str) -> Vec<Reason> {
    serde_json::from_str(json).unwrap_or_default()
}

/// What stops it: a host that refuses it, or is red for a reason that it had not when it was given it.
pub(super) fn fault<'a>(members: &'a [Member], version: &Version) -> Option<(&'a Member, String)> {
    let id = version.policy.to_string();
    members.iter().filter(|member| is_in(member, version)).find_map(|member| {
        let state = &member.state;
        if state.refused == version.version && state.refused_id == id {
            return Some((member, format!("it refuses: {}", cut(&state.why, WHY))));
        }
        if state.given != version.version {
            return None;
        }
        // A host that was red already is looked at, too: for what is new.
        let before = reasons(&state.given_reasons);
        let known = |one: &Reason| before.iter().any(|old| old.name == one.name);
        let new = reasons(&member.reasons).into_iter().find(|one| !known(one))?;
        let why = format!("it has turned red: {}: {}", new.name, new.evidence);
        Some((member, cut(&why, WHY).to_owned()))
    })
}

/// Whether all hosts of the stage that are connected run it: one at least.
pub(super) fn is_settled(members: &[Member], version: &Version) -> bool {
    let id = version.policy.to_string();
    let runs = |one: &Member| one.state.running == version.version && one.state.running_id == id;
    let mut there = members.iter().filter(|one| is_in(one, version) && is_there(one)).peekable();
    there.peek().is_some() && there.all(runs)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::policies::HostPolicy;

    fn version() -> Version {
        Version {
            policy: Uuid::from_u128(9),
            version: 3,
            document: String::new(),
            author: String::new(),
            reason: String::new(),
            created_ms: 0,
            state: "rolling".to_owned(),
            stages: "[5, 25, 100]".to_owned(),
            soak_ms: 0,
            stage: 0,
            settled_ms: None,
            changed_ms: 0,
            why: String::new(),
            host: None,
        }
    }

    fn member(number: i64) -> Member {
        let state = HostPolicy {
            number,
            policy: Some(version().policy),
            wanted: 3,
            given: 3,
            given_ms: 100,
            given_reasons: "[]".to_owned(),
            accepts: true,
            ..HostPolicy::default()
        };
        Member {
            id: Uuid::from_u128(number.unsigned_abs().into()),
            name: format!("host{number}"),
            red_ms: None,
            reasons: "[]".to_owned(),
            connected: true,
            state,
        }
    }

    #[test]
    fn stages_grow_keep_their_hosts_and_are_about_as_large_as_they_say() {
        let all: Vec<Member> = (1..=2000).map(member).collect();
        let stages: Vec<Vec<i64>> =
            [5, 25, 100].iter().map(|percent| chosen(&all, *percent, &version())).collect();
        assert!((60..140).contains(&stages[0].len()), "{}", stages[0].len());
        assert!((400..600).contains(&stages[1].len()), "{}", stages[1].len());
        assert_eq!(stages[2].len(), 2000);
        assert!(stages[0].iter().all(|host| stages[1].contains(host)));
    }

    #[test]
    fn one_host_that_is_there_is_always_in_the_first_stage() {
        let mut all: Vec<Member> = (1..=3).map(member).collect();
        assert_eq!(chosen(&all, 1, &version()).len(), 1);
        assert_eq!(chosen(&all, 1, &version()), chosen(&all, 1, &version()), "always the same");
        let first = chosen(&all, 1, &version())[0];
        all.iter_mut().find(|one| one.state.number == first).expect("it").connected = false;
        assert_ne!(chosen(&all, 1, &version())[0], first, "one that is there");
        for one in &mut all {
            one.connected = true;
            one.state.wanted = 2;
        }
        let usual = chosen(&all, 1, &version())[0];
        let tries = all.iter_mut().find(|one| one.state.number != usual).expect("another");
        tries.state.wanted = 3;
        let tries = tries.state.number;
        assert_eq!(chosen(&all, 1, &version()), [tries], "a newcomer takes nobody's place");
        for one in &mut all {
            one.state.accepts = false;
        }
        assert!(chosen(&all, 1, &version()).is_empty());
        assert!(!is_settled(&all, &version()));
    }

    #[test]
    fn a_refusal_and_a_host_that_turned_red_stop_it_and_one_that_was_red_does_not() {
        let mut host = member(1);
        assert!(fault(&[host.clone()], &version()).is_none());
        let sensor = r#"{"name":"sensor","evidence":"blind"}"#;
        host.state.given_reasons = format!("[{sensor}]");
        host.reasons = format!("[{sensor}]");
        assert!(fault(&[host.clone()], &version()).is_none(), "red before");
        host.reasons = format!(r#"[{sensor},{{"name":"on access: /","evidence":"opens pass"}}]"#);
        let (_, why) = fault(std::slice::from_ref(&host), &version()).expect("red after");
        assert!(why.contains("opens pass"), "{why}");
        host.state.given = 2;
        assert!(fault(&[host.clone()], &version()).is_none(), "it was not given it yet");
        host.state.given = 3;
        host.state.wanted = 2;
        assert!(fault(&[host.clone()], &version()).is_none(), "not in the stage");
        host = member(1);
        (host.state.refused, host.state.refused_id) = (3, version().policy.to_string());
        host.state.why = "line 3".to_owned();
        let (_, why) = fault(std::slice::from_ref(&host), &version()).expect("refused");
        assert!(why.contains("line 3"), "{why}");
        host.state.refused_id = Uuid::nil().to_string();
        assert!(fault(&[host], &version()).is_none(), "another policy's version");
    }

    #[test]
    fn hosts_that_are_away_are_not_waited_for_and_one_has_to_run_it() {
        let (mut one, mut other) = (member(1), member(2));
        assert!(!is_settled(&[one.clone(), other.clone()], &version()));
        (one.state.running, one.state.running_id) = (3, version().policy.to_string());
        assert!(!is_settled(&[one.clone(), other.clone()], &version()));
        other.connected = false;
        assert!(is_settled(&[one.clone(), other.clone()], &version()));
        one.connected = false;
        assert!(!is_settled(&[one, other], &version()));
        assert!(!is_settled(&[], &version()), "nobody has tried it");
    }
}
