//! Policies on both databases: versions, stages, what stops a roll-out, and going back.

use std::time::Duration;

use holdfast_common::link::CapabilityState::{Ok as Fine, Red};
use holdfast_common::ruled::{PolicyRefusal, PolicyRun, PolicyState};
use holdfast_manager::app::{
    Admitted, App, AppError, Content, Course, PolicyDetail, RolloutState, Steer, now_ms,
};
use holdfast_manager::store::alerts::AlertFilter;
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::world::{On, World, heartbeat, on_both};

const DETECT: &str = "[on_access]\nmode = \"detect\"\n";
const BLOCK: &str = "[on_access]\nmode = \"block\"\n";

/// A host as a test plays it.
#[derive(Clone, Copy)]
struct Host {
    admitted: Admitted,
}

impl World {
    /// A policy for the hosts of tests, whose stages last as long as they must.
    async fn policy(&self, stages: &[u32], roll_back: bool) -> Uuid {
        let course = Course { stages: stages.to_vec(), soak_s: 0, roll_back };
        let made = self.app.policy_create("web", &course, "anna").await.expect("policy");
        let groups = ["test".to_owned()];
        let id = made.policy.id;
        self.app.policy_assign(id, &groups, "a test", "anna").await.expect("assigned");
        id
    }

    async fn put(&self, id: Uuid, document: &str) -> i64 {
        let content = Content::Document(document.to_owned());
        let put = self.app.policy_put(id, content, false, "a test", "anna").await;
        put.expect("put").version.version
    }

    async fn hosts(&self, count: usize) -> Vec<Host> {
        self.more_hosts(0..count).await
    }

    async fn more_hosts(&self, numbers: std::ops::Range<usize>) -> Vec<Host> {
        let mut hosts = Vec::new();
        for number in numbers {
            let mut admitted = self.connected(&format!("web{number}")).await;
            // Of a hundred hosts one would be in each first stage by its own place.
            for attempt in 0.. {
                let hash = Sha256::digest(admitted.host.as_bytes());
                let place = u32::from_be_bytes([hash[0], hash[1], hash[2], hash[3]]) % 10_000;
                if place >= 100 {
                    break;
                }
                self.app.host_revoke(admitted.host, "test", "its place").await.expect("revoke");
                admitted = self.connected(&format!("web{number}-{attempt}")).await;
            }
            let host = Host { admitted };
            self.beat(host, true, PolicyState { accepts: true, ..PolicyState::default() }).await;
            hosts.push(host);
        }
        hosts
    }

    async fn beat(&self, host: Host, fine: bool, policy: PolicyState) {
        let state = if fine { Fine } else { Red };
        let mut heartbeat = heartbeat(&[("on access: /", Fine), ("sensor", state)]);
        heartbeat.status.policy = policy;
        self.app.heartbeat_store(host.admitted, heartbeat).await.expect("heartbeat");
        // The manager does so in its own time.
        self.app.policies_look(now_ms()).await.expect("look");
    }

    /// What the host is given now, and whether it is to run none.
    async fn given(&self, host: Host) -> Option<i64> {
        let wanted = self.app.policy_for(host.admitted.host).await.expect("wanted");
        wanted.map(|wanted| wanted.version)
    }

    /// The host takes what it is given.
    async fn obey(&self, host: Host) -> Option<i64> {
        let wanted = self.app.policy_for(host.admitted.host).await.expect("wanted")?;
        let id = wanted.policy.map(|id| id.to_string());
        let version = wanted.version.unsigned_abs();
        let run = |id| PolicyRun { id, version, ..PolicyRun::default() };
        let running = id.map(run);
        self.beat(host, true, PolicyState { accepts: true, running, ..PolicyState::default() })
            .await;
        Some(wanted.version)
    }

    async fn refuse(&self, host: Host, id: Uuid, version: i64) {
        let refused = PolicyRefusal {
            id: id.to_string(),
            version: version.unsigned_abs(),
            why: "line 2: not here".to_owned(),
            ..PolicyRefusal::default()
        };
        let state = PolicyState { accepts: true, refused: Some(refused), ..PolicyState::default() };
        self.beat(host, false, state).await;
    }

    async fn detail(&self, id: Uuid) -> PolicyDetail {
        self.app.policy_get(id).await.expect("policy")
    }

    async fn rollout(&self, id: Uuid) -> RolloutState {
        self.app.policy_rollout(id).await.expect("roll-out")
    }

    /// Hosts that were given this version.
    async fn holding(&self, hosts: &[Host], version: i64) -> Vec<Host> {
        let mut holding = Vec::new();
        for host in hosts {
            if self.given(*host).await == Some(version) {
                holding.push(*host);
            }
        }
        holding
    }

    async fn policy_alerts(&self) -> Vec<String> {
        let filter = AlertFilter { until_ms: i64::MAX, limit: 100, ..AlertFilter::default() };
        let alerts = self.app.alert_list(&filter).await.expect("alerts");
        alerts.into_iter().filter(|one| one.kind == "policy").map(|one| one.title).collect()
    }
}

on_both! {
    async fn versions_only_grow_and_going_back_is_a_new_one(world: World) {
        let id = world.policy(&[100], true).await;
        assert_eq!(world.put(id, DETECT).await, 1);
        assert_eq!(world.put(id, BLOCK).await, 2);
        let back = world.app.policy_put(id, Content::CopyOf(1), true, "back", "anna").await;
        let back = back.expect("put");
        assert_eq!((back.version.version, back.version.document.as_str()), (3, DETECT));
        assert!(back.warnings[0].contains("nothing is denied"), "{:?}", back.warnings);
        let diff = world.app.policy_diff(id, 1, 2).await.expect("diff");
        assert!(diff.contains("-mode = \"detect\"\n+mode = \"block\""), "{diff}");
        assert!(diff.starts_with("--- version 1\n+++ version 2\n"), "{diff}");
        assert_eq!(world.app.policy_diff(id, 1, 3).await.expect("diff"), "");
        let from_nothing = world.app.policy_diff(id, 0, 1).await.expect("diff");
        assert!(from_nothing.contains("+[on_access]"), "{from_nothing}");
        let versions = world.app.policy_versions(id, None, 10).await.expect("versions");
        let numbers: Vec<i64> = versions.iter().map(|one| one.version).collect();
        assert_eq!(numbers, [3, 2, 1]);
        assert_eq!(versions[0].author, "anna");
        let missing = world.app.policy_put(id, Content::CopyOf(9), true, "x", "anna").await;
        assert!(matches!(missing, Err(AppError::NotFound(_))));
    }

    async fn what_is_no_policy_is_refused_with_its_place_and_nothing_changes(world: World) {
        let id = world.policy(&[100], true).await;
        for (bad, named) in [
            ("[on_access]\nmod = 1", "line 2"),
            ("state_dir = \"/tmp\"", "no policy can set it"),
            ("[manager]\nproxy = \"http://evil\"", "no policy can set it"),
            ("[self_proof]\nenabled = false", "no policy can set it"),
        ] {
            let content = Content::Document(bad.to_owned());
            let refused = world.app.policy_put(id, content, false, "x", "anna").await;
            let Err(AppError::Invalid(why)) = refused else { panic!("{refused:?}") };
            assert!(why.contains(named), "{why}");
        }
        let huge = Content::Document("#".repeat(100_000));
        assert!(world.app.policy_put(id, huge, false, "x", "anna").await.is_err());
        assert_eq!(world.detail(id).await.newest, None);
        let all = Content::Document("[on_access.exclude]\npaths = [\"/**\"]".to_owned());
        let put = world.app.policy_put(id, all, false, "x", "anna").await.expect("allowed");
        assert!(put.warnings[0].contains("covers every file"), "{:?}", put.warnings);
        for stages in [vec![], vec![5, 25], vec![50, 20, 100], vec![0, 100]] {
            let course = Course { stages, ..Course::default() };
            assert!(world.app.policy_create("other", &course, "anna").await.is_err());
        }
        let twice = world.app.policy_create("web", &Course::default(), "anna").await;
        assert!(matches!(twice, Err(AppError::Conflict(_))));
    }

    async fn a_version_goes_from_stage_to_stage_and_newcomers_get_the_last_good_one(world: World) {
        let hosts = world.hosts(8).await;
        let id = world.policy(&[1, 100], true).await;
        let version = world.put(id, DETECT).await;
        let first = world.holding(&hosts, version).await;
        assert_eq!(first.len(), 1, "one host goes first");
        assert_eq!(world.rollout(id).await.version.state, "rolling");
        // It comes while nobody has tried it: nothing is known to be good.
        let late = world.more_hosts(8..9).await[0];
        world.app.policies_look(now_ms()).await.expect("look");
        assert_eq!(world.given(late).await, None);
        world.obey(first[0]).await.expect("given");
        let mut all = hosts.clone();
        all.push(late);
        assert_eq!(world.holding(&all, version).await.len(), 8, "all but the one that runs it");
        for host in &all {
            world.obey(*host).await;
        }
        let state = world.rollout(id).await;
        assert_eq!((state.version.state.as_str(), state.version.stage), ("done", 1));
        assert_eq!(world.detail(id).await.policy.stable, version);
        let newcomer = world.more_hosts(9..10).await[0];
        world.app.policies_look(now_ms()).await.expect("look");
        assert_eq!(world.obey(newcomer).await, Some(version));
        assert_eq!(world.given(newcomer).await, None, "it runs it");
    }

    async fn hosts_that_are_away_get_it_when_they_come(world: World) {
        let hosts = world.hosts(2).await;
        world.app.host_left(hosts[1].admitted).await;
        let id = world.policy(&[100], true).await;
        let version = world.put(id, DETECT).await;
        world.obey(hosts[0]).await.expect("given");
        assert_eq!(world.rollout(id).await.version.state, "done", "nobody waits for it");
        let facts = crate::world::facts("web1");
        let admitted = world.app.host_admit("web1", &facts, 2).await.expect("it comes");
        assert_eq!(world.obey(Host { admitted }).await, Some(version));
    }

    async fn a_host_that_refuses_stops_the_roll_out_and_all_go_back(world: World) {
        let hosts = world.hosts(4).await;
        let id = world.policy(&[1, 100], true).await;
        let good = world.put(id, BLOCK).await;
        for _ in 0..2 {
            for host in &hosts {
                world.obey(*host).await;
            }
        }
        assert_eq!(world.detail(id).await.policy.stable, good);
        let bad = world.put(id, DETECT).await;
        let first = world.holding(&hosts, bad).await;
        assert_eq!(first.len(), 1);
        world.refuse(first[0], id, bad).await;
        let versions = world.app.policy_versions(id, None, 10).await.expect("versions");
        assert_eq!(versions[1].state, "stopped");
        assert_eq!(versions[1].host, Some(first[0].admitted.host));
        assert!(versions[1].why.contains("line 2: not here"), "{}", versions[1].why);
        assert_eq!((versions[0].version, versions[0].document.as_str()), (bad + 1, BLOCK));
        assert_eq!(versions[0].author, "manager");
        assert_eq!(world.holding(&hosts, bad + 1).await.len(), 4, "all are to run it");
        let alerts = world.policy_alerts().await;
        assert!(alerts.len() == 1 && alerts[0].contains("it refuses"), "{alerts:?}");
        for host in &hosts {
            world.obey(*host).await;
        }
        world.app.policies_look(now_ms()).await.expect("look");
        assert_eq!(world.app.policy_versions(id, None, 10).await.expect("versions").len(), 3);
    }

    async fn a_host_that_turns_red_stops_it_and_without_going_back_it_stays(world: World) {
        let hosts = world.hosts(4).await;
        let id = world.policy(&[1, 100], false).await;
        let version = world.put(id, DETECT).await;
        let first = world.holding(&hosts, version).await[0];
        // Any other host may be red.
        for host in &hosts {
            if host.admitted != first.admitted {
                world.beat(*host, false, PolicyState { accepts: true, ..PolicyState::default() })
                    .await;
            }
        }
        assert_eq!(world.rollout(id).await.version.state, "rolling");
        world.beat(first, false, PolicyState { accepts: true, ..PolicyState::default() }).await;
        world.app.policies_look(now_ms()).await.expect("look");
        let state = world.rollout(id).await;
        assert_eq!((state.version.version, state.version.state.as_str()), (version, "stopped"));
        assert!(state.version.why.contains("turned red: sensor"), "{}", state.version.why);
        assert_eq!(state.version.host, Some(first.admitted.host));
        assert_eq!(world.policy_alerts().await.len(), 1);
        // Nobody else gets it, and it cannot go on.
        world.app.policies_look(now_ms()).await.expect("look");
        assert!(world.holding(&hosts, version).await.len() == 1);
        let on = world.app.policy_steer(id, Steer::Resume, "x", "anna").await;
        assert!(matches!(on, Err(AppError::Conflict(_))));
    }

    async fn a_host_that_was_red_before_stops_it_only_for_what_is_new(world: World) {
        let hosts = world.hosts(1).await;
        world.beat(hosts[0], false, PolicyState { accepts: true, ..PolicyState::default() }).await;
        crate::world::until("time passes", || async {
            let host = world.app.host_get(hosts[0].admitted.host).await.expect("host");
            now_ms() > host.health_ms + 1
        })
        .await;
        let id = world.policy(&[100], true).await;
        let version = world.put(id, DETECT).await;
        assert_eq!(world.given(hosts[0]).await, Some(version));
        world.app.policies_look(now_ms()).await.expect("look");
        assert_eq!(world.rollout(id).await.version.state, "rolling");
        // But for what is new.
        let mut heartbeat = heartbeat(&[("on access: /", Red), ("sensor", Red), ("x", Fine)]);
        heartbeat.status.policy.accepts = true;
        world.app.heartbeat_store(hosts[0].admitted, heartbeat).await.expect("heartbeat");
        world.app.policies_look(now_ms()).await.expect("look");
        let stopped = world.app.policy_version(id, version).await.expect("version");
        assert_eq!(stopped.state, "stopped");
        assert!(stopped.why.contains("on access"), "{}", stopped.why);
    }

    async fn a_roll_out_waits_goes_on_and_ends_as_people_say(world: World) {
        let hosts = world.hosts(4).await;
        let id = world.policy(&[1, 100], true).await;
        let version = world.put(id, DETECT).await;
        let first = world.holding(&hosts, version).await[0];
        let paused = world.app.policy_steer(id, Steer::Pause, "wait", "anna").await;
        assert_eq!(paused.expect("paused").version.state, "paused");
        world.obey(first).await.expect("it was given it");
        world.app.policies_look(now_ms()).await.expect("look");
        assert!(world.holding(&hosts, version).await.is_empty(), "nobody else");
        world.app.policy_steer(id, Steer::Resume, "go", "anna").await.expect("resumed");
        assert_eq!(world.holding(&hosts, version).await.len(), 3);
        world.app.policy_steer(id, Steer::Stop, "no", "anna").await.expect("stopped");
        // There was none before: a version that rules nothing.
        let newest = world.detail(id).await.newest.expect("a version");
        assert_eq!((newest.version, newest.document.as_str()), (version + 1, ""));
        assert_eq!(world.holding(&hosts, version + 1).await.len(), 4);
        let filter = (0, i64::MAX);
        let audit = world.app.audit_list(None, filter, 100, "").await.expect("audit");
        let actions: Vec<&str> = audit.iter().map(|row| row.entry.action.as_str()).collect();
        for action in ["policy.create", "policy.assign", "policy.put", "policy.pause",
            "policy.resume", "policy.stop"] {
            assert!(actions.contains(&action), "{action}: {actions:?}");
        }
    }

    async fn a_newer_version_takes_the_place_of_one_that_is_under_way(world: World) {
        let hosts = world.hosts(4).await;
        let id = world.policy(&[1, 100], true).await;
        let one = world.put(id, DETECT).await;
        let first = world.holding(&hosts, one).await[0];
        world.app.policy_steer(id, Steer::Pause, "wait", "anna").await.expect("paused");
        world.obey(first).await.expect("given");
        let two = world.put(id, BLOCK).await;
        assert_eq!(world.app.policy_version(id, one).await.expect("one").state, "superseded");
        assert_eq!(world.given(first).await, Some(two), "the same host goes first");
        for _ in 0..2 {
            for host in &hosts {
                world.obey(*host).await;
            }
        }
        assert_eq!(world.detail(id).await.policy.stable, two);
    }

    async fn who_leaves_a_group_and_who_takes_none_are_told_so(world: World) {
        let hosts = world.hosts(2).await;
        let id = world.policy(&[100], true).await;
        // Whose config takes none is nobody to wait for.
        world.beat(hosts[1], true, PolicyState::default()).await;
        let version = world.put(id, DETECT).await;
        assert_eq!(world.obey(hosts[0]).await, Some(version));
        assert_eq!(world.rollout(id).await.version.state, "done");
        world.app.policy_assign(id, &[], "nobody", "anna").await.expect("assigned");
        assert_eq!(world.obey(hosts[0]).await, Some(0), "it is to run none");
        assert_eq!(world.given(hosts[0]).await, None);
        let host = world.app.host_get(hosts[0].admitted.host).await.expect("host");
        let states = world.app.policy_states(host.number, host.number).await.expect("states");
        assert_eq!((states[0].0.policy, states[0].0.running), (None, 0));
        // A group has one policy: the last that was given it.
        let course = Course { soak_s: 0, ..Course::default() };
        let other = world.app.policy_create("db", &course, "anna").await.expect("policy");
        let groups = ["test".to_owned()];
        for id in [id, other.policy.id] {
            world.app.policy_assign(id, &groups, "x", "anna").await.expect("assigned");
        }
        assert!(world.detail(id).await.groups.is_empty());
    }

    async fn a_policy_is_renamed_and_deleted_and_no_group_loses_it_by_the_way(world: World) {
        let hosts = world.hosts(1).await;
        let id = world.policy(&[100], true).await;
        let version = world.put(id, DETECT).await;
        assert_eq!(world.obey(hosts[0]).await, Some(version));
        let course = Course { soak_s: 0, ..Course::default() };
        let other = world.app.policy_create("db", &course, "anna").await.expect("policy");
        let other = other.policy.id;
        // Names are unique, and a policy can be called what it is called.
        let taken = world.app.policy_rename(id, "db", "anna").await.expect_err("taken");
        assert!(matches!(taken, AppError::Conflict(_)), "{taken}");
        for name in ["www", "www"] {
            let renamed = world.app.policy_rename(id, name, "anna").await.expect("renamed");
            assert_eq!(renamed.policy.name, "www");
        }
        assert!(world.app.policy_rename(id, "a\nb", "anna").await.is_err());
        // What rules a group is refused, with its name; so is a place that is none.
        let delete = |id, to| world.app.policy_delete(id, to, "no more use", "anna");
        let refused = delete(id, None).await.expect_err("assigned");
        assert!(refused.to_string().contains("assigned to test"), "{refused}");
        assert!(delete(id, Some(id)).await.is_err(), "to itself");
        let nowhere = delete(id, Some(Uuid::now_v7())).await.expect_err("nowhere");
        assert!(matches!(nowhere, AppError::NotFound(_)), "{nowhere}");
        assert_eq!(world.detail(id).await.groups, ["test"]);
        delete(id, Some(other)).await.expect("deleted");
        let gone = world.app.policy_get(id).await.expect_err("gone");
        assert!(matches!(gone, AppError::NotFound(_)), "{gone}");
        assert_eq!(world.detail(other).await.groups, ["test"]);
        assert_eq!(world.obey(hosts[0]).await, Some(0), "the other one holds nothing yet");
        let version = world.put(other, BLOCK).await;
        assert_eq!(world.obey(hosts[0]).await, Some(version));
        // One without groups just goes; who runs it is told that there is none.
        world.app.policy_assign(other, &[], "nobody", "anna").await.expect("assigned");
        delete(other, None).await.expect("deleted");
        assert_eq!(world.obey(hosts[0]).await, Some(0));
        assert!(world.app.policy_list().await.expect("list").is_empty());
        let again = world.app.policy_create("www", &course, "anna").await;
        assert!(again.is_ok(), "its name is free");
    }

    async fn a_hostile_host_says_what_it_likes_about_itself_alone(world: World) {
        let hosts = world.hosts(2).await;
        let id = world.policy(&[100], true).await;
        let version = world.put(id, DETECT).await;
        let refused = PolicyRefusal {
            id: "\0x".repeat(100_000),
            version: u64::MAX,
            why: "\u{1b}[2J\0".repeat(10_000),
            ..PolicyRefusal::default()
        };
        let run = PolicyRun { id: "' OR 1=1".to_owned(), version: u64::MAX, ..PolicyRun::default() };
        let state = PolicyState {
            accepts: true,
            running: Some(run),
            refused: Some(refused),
            problem: Some("x".to_owned()),
        };
        world.beat(hosts[0], true, state).await;
        assert_eq!(world.rollout(id).await.version.state, "rolling", "no version of ours");
        assert_eq!(world.given(hosts[1]).await, Some(version));
        assert_eq!(world.given(hosts[0]).await, Some(version));
    }
}

#[test]
fn what_is_put_at_one_manager_wakes_an_agents_stream_at_another() {
    crate::world::run(On::Postgres, |world| async move {
        let host = world.hosts(1).await[0];
        let other = App::start(world.settings.clone()).await.expect("second manager");
        let mut signal = other.task_signal(host.admitted.host);
        let id = world.policy(&[100], true).await;
        let version = world.put(id, DETECT).await;
        let given = async {
            loop {
                assert!(signal.changed().await, "the manager ends");
                let wanted = other.policy_for(host.admitted.host).await.expect("wanted");
                if wanted.is_some_and(|wanted| wanted.version == version) {
                    return;
                }
            }
        };
        // Where it began to listen only after, it looks when it does.
        tokio::time::timeout(Duration::from_secs(20), given).await.expect("heard");
        other.stop().await;
    });
}
