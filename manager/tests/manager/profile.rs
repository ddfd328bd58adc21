//! A process's profile: what stored events say of it, of what is above it and of what is below.

use holdfast_common::event::{Activity, ActivityEvent, Event, EventBody, ExecEvent, NetworkEvent};
use holdfast_common::process::{ProcessInfo, ProcessKey};
use holdfast_manager::app::profile::{Deed, Kin, Profile};
use holdfast_manager::app::{AppError, now_ms};
use serde_json::json;
use uuid::Uuid;

use crate::world::{World, event, model, on_both, process};

const ALWAYS: (i64, i64) = (0, i64::MAX);

const fn key(pid: u32, start_ns: u64) -> ProcessKey {
    ProcessKey { pid, start_ns }
}

/// A process below another one, which is known to it with all above.
fn child(pid: u32, args: &[&str], parents: &[ProcessInfo]) -> ProcessInfo {
    let parent = parents.first().map(|parent| parent.key);
    ProcessInfo { key: key(pid, u64::from(pid) * 10), parent, ..process(args) }
}

fn started(process: &ProcessInfo, parents: &[ProcessInfo]) -> Event {
    event(EventBody::Exec(Box::new(ExecEvent {
        process: process.clone(),
        parents: parents.to_vec(),
        count: 1,
    })))
}

fn connected(process: &ProcessInfo, parents: &[ProcessInfo], count: u64) -> Event {
    event(EventBody::Network(Box::new(NetworkEvent {
        process: process.clone(),
        parents: parents.to_vec(),
        action: "connect".to_owned(),
        protocol: "tcp".to_owned(),
        local_address: String::new(),
        local_port: 0,
        remote_address: "2001:db8::1".to_owned(),
        remote_port: 443,
        dns_name: String::new(),
        dns_type: String::new(),
        dns_answers: Vec::new(),
        count,
    })))
}

fn touched(process: &ProcessInfo, path: &str) -> Event {
    let body = json!({ "id": Uuid::now_v7(), "time_ms": now_ms(), "host": "web1", "kind": "file",
        "process": process, "parents": [], "action": "write", "path": path, "class": "cron" });
    serde_json::from_value(body).expect("event")
}

fn ended(process: &ProcessInfo, time_ms: i64) -> Event {
    let body = EventBody::Activity(Box::new(ActivityEvent {
        process: process.clone(),
        parents: Vec::new(),
        activity: Activity::Exit { code: 0, signal: None },
        count: 1,
    }));
    Event { time_ms, ..event(body) }
}

fn pids(profile: &Profile) -> Vec<(u32, Option<u32>)> {
    let pid = |key: ProcessKey| key.pid;
    profile.nodes.iter().map(|node| (node.key.pid, node.parent.map(pid))).collect()
}

on_both! {
    async fn a_profile_is_the_tree_above_and_below_with_what_each_did(world: World) {
        let (host, other) = (world.host("web1").await, world.host("web2").await);
        let init = child(1, &["init"], &[]);
        let sshd = child(10, &["sshd"], std::slice::from_ref(&init));
        let shell = child(20, &["bash"], &[sshd.clone(), init.clone()]);
        let above = [shell.clone(), sshd.clone(), init.clone()];
        let curl = child(30, &["curl", "-s"], &above);
        let grand = child(40, &["sh", "-c", "id"], &[curl.clone(), shell.clone()]);
        // The pid is used again, by nobody's child of these.
        let stranger = ProcessInfo { key: key(20, 9_999), ..child(20, &["cat"], &[]) };
        let of_stranger = child(50, &["ps"], std::slice::from_ref(&stranger));
        let end = now_ms() + 500;
        let mut fired = model("Sniffing", "curl");
        if let EventBody::Model(one) = &mut fired.body {
            one.process = curl.clone();
        }
        world.store(host, &[
            started(&shell, &above[1..]),
            touched(&shell, "/etc/cron.d/x"),
            started(&curl, &above),
            connected(&curl, &above, 3),
            fired,
            started(&grand, &[curl.clone(), shell.clone()]),
            ended(&grand, end),
            started(&stranger, &[]),
            started(&of_stranger, std::slice::from_ref(&stranger)),
        ]).await;
        world.store(other, &[started(&child(60, &["ls"], &above), &above)]).await;

        let profile = world.app.process_profile(host, shell.key, ALWAYS).await.expect("profile");
        assert!(!profile.truncated);
        let tree = [(1, None), (10, Some(1)), (20, Some(10)), (30, Some(20)), (40, Some(30))];
        assert_eq!(pids(&profile), tree);
        let kin: Vec<_> = profile.nodes.iter().map(|node| node.kin).collect();
        assert_eq!(kin, [Kin::Ancestor, Kin::Ancestor, Kin::Own, Kin::Descendant, Kin::Descendant]);
        let [_, sshd, own, of_curl, of_grand] = profile.nodes.as_slice() else { panic!("five") };
        assert_eq!((sshd.first_ms, sshd.process.comm.as_str()), (None, "sshd"));
        // Events of one millisecond are in no order.
        let file = own.items.iter().find(|item| item.deed == Deed::File).expect("a file");
        assert_eq!((own.counts.files, file.what.as_str()), (1, "/etc/cron.d/x"));
        assert_eq!((of_curl.counts.connections, of_curl.counts.detections), (3, 1));
        let peers = of_curl.items.iter().filter(|item| item.deed == Deed::Connection);
        assert_eq!(peers.map(|item| &*item.what).collect::<Vec<_>>(), ["tcp [2001:db8::1]:443"]);
        let number = of_curl.items[0].number;
        assert_eq!(world.app.event_get(number).await.expect("event").host, host);
        assert_eq!((of_grand.ended_ms, of_grand.items.len()), (Some(end), 1));

        // What no event of its own tells of is known by its children.
        let of_sshd = world.app.process_profile(host, sshd.key, ALWAYS).await.expect("profile");
        assert_eq!(pids(&of_sshd), tree);
        assert_eq!(of_sshd.nodes[1].kin, Kin::Own);
        // Nobody in another period, on another host, or of another start.
        for (host, key, period) in [
            (host, shell.key, (0, 1_000)),
            (other, grand.key, ALWAYS),
            (host, key(20, 5), ALWAYS),
            (Uuid::now_v7(), shell.key, ALWAYS),
        ] {
            let refused = world.app.process_profile(host, key, period).await;
            assert!(matches!(refused, Err(AppError::NotFound(_))), "{refused:?}");
        }
    }

    async fn parents_that_go_in_circles_make_a_tree_all_the_same(world: World) {
        let host = world.host("web1").await;
        let mut one = child(1, &["a"], &[]);
        let mut two = child(2, &["b"], std::slice::from_ref(&one));
        one.parent = Some(two.key);
        let itself = ProcessInfo { parent: Some(key(3, 30)), ..child(3, &["c"], &[]) };
        two.parent = Some(one.key);
        world.store(host, &[
            started(&one, &[two.clone(), one.clone(), two.clone()]),
            started(&two, &[one.clone(), two.clone()]),
            started(&itself, &[itself.clone(), itself.clone()]),
        ]).await;
        let profile = world.app.process_profile(host, one.key, ALWAYS).await.expect("profile");
        assert_eq!(pids(&profile), [(1, None), (2, Some(1))]);
        let profile = world.app.process_profile(host, itself.key, ALWAYS).await.expect("profile");
        assert_eq!(pids(&profile), [(3, None)]);
    }

    async fn what_does_not_fit_is_left_out_and_said(world: World) {
        let host = world.host("web1").await;
        let top = child(1, &["make"], &[]);
        let long = "x".repeat(3_000);
        let many: Vec<_> = (0..400)
            .map(|number| child(1_000 + number, &["cc", &long, &long], std::slice::from_ref(&top)))
            .map(|process| started(&process, std::slice::from_ref(&top)))
            .collect();
        world.store(host, &many).await;
        let profile = world.app.process_profile(host, top.key, ALWAYS).await.expect("profile");
        assert!(profile.truncated);
        assert_eq!(profile.nodes.len(), 300);
        let process = &profile.nodes[1].process;
        assert!(process.args_truncated && process.args.concat().len() <= 4_096);

        // So is a process that did more than is listed: it is counted whole.
        let busy = child(7, &["wget"], &[]);
        let events: Vec<_> = (0..50).map(|_| connected(&busy, &[], 2)).collect();
        world.store(host, &events).await;
        let profile = world.app.process_profile(host, busy.key, ALWAYS).await.expect("profile");
        let node = &profile.nodes[0];
        assert!(node.more && node.items.len() == 40 && node.counts.connections == 100);
        assert!(!profile.truncated);
        let events: Vec<_> = (0..1_001).map(|_| connected(&busy, &[], 1)).collect();
        world.store(host, &events).await;
        let profile = world.app.process_profile(host, busy.key, ALWAYS).await.expect("profile");
        assert!(profile.truncated);
    }
}
