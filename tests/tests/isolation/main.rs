//! Isolation, end to end on this host's kernel: a lab's host is cut off by its agent, and what
//! still arrives outside is observed there.
//!
//! Nothing here touches this machine's own network: see `holdfast_tests::lab`.

mod world;

use std::fs;
use std::process::Command;
use std::time::Duration;

use holdfast_tests::agent::{Agent, PATIENCE, Setup, binary, finish};
use holdfast_tests::observe::{SOON, wait_event};
use holdfast_tests::require_root;
use holdfast_tests::scratch::Scratch;
use serde_json::Value;

use world::{ALLOW, World, covered_after, soon};

/// Ways out of the host that end when it is cut off.
const DROPPED: &[&str] = &[
    "udp4",
    "udp6",
    "manager_udp4",
    "dns_tunnel4",
    "dns_tunnel6",
    "big_udp4",
    "big_udp6",
    "icmp4",
    "icmp6",
    "tcp4_new",
    "tcp6_new",
    "tcp4_manager_host",
    "tcp4_established",
    "tcp6_established",
    "multicast4",
    "multicast6",
    "broadcast4",
    "link_local6",
    "fragment4",
    "raw_ip4",
    "neighbour_tunnel6",
    "dhcp_unknown",
    "packet",
    "packet_lie",
    "packet_arp_tunnel",
    "packet_other",
    "packet_vlan",
    "packet_slow",
    "packet_bypass",
    "packet_bypass_lie",
    "packet_bypass_vlan",
    "packet_bypass_arp",
    "ring",
    "ring_bypass",
];

/// What the host's container can no longer send.
const FORWARDED: &[&str] =
    &["udp4", "udp6", "icmp4", "icmp6", "tcp4_new", "tcp6_new", "tcp4_established", "dns_tunnel4"];

/// What goes on.
const LET_THROUGH: &[&str] =
    &["manager4_new", "manager6_new", "manager4_established", "dhcp_known"];

fn everything_arrives(world: &mut World) {
    for kind in DROPPED.iter().chain(LET_THROUGH) {
        world.arrives("host", kind);
    }
    for from in ["container", "guest"] {
        for kind in FORWARDED.iter().chain(&["manager4_new"]) {
            world.arrives(from, kind);
        }
    }
    world.works("outside", "inward4", true);
    world.works("host", "loopback", true);
}

fn only_management_arrives(world: &mut World) {
    // The way to the manager is found anew: ARP and neighbour discovery work.
    let host = world.lab.side("host");
    holdfast_tests::lab::ip(&["-n", &host, "neigh", "flush", "dev", "hp0"]).expect("flush");
    for kind in DROPPED {
        world.is_dropped("host", kind);
    }
    for kind in FORWARDED {
        world.is_dropped("container", kind);
        world.is_dropped("guest", kind);
    }
    for kind in LET_THROUGH {
        world.arrives("host", kind);
    }
    world.works("outside", "inward4", false);
    world.works("host", "loopback", true);
}

fn state(agent: &Agent) -> Value {
    agent.json(&["isolation", "status"]).expect("status").remove(0)
}

fn layer(state: &Value, name: &str) -> Value {
    let layers = state["layers"].as_array().expect("layers");
    layers.iter().find(|layer| layer["name"] == name).expect("layer").clone()
}

#[test]
fn nothing_but_management_leaves_an_isolated_host() {
    let mut world = World::new();
    let mut agent = world.agent(ALLOW);
    everything_arrives(&mut world);

    println!("-- isolated");
    let isolated = agent.json(&["isolate", "--reason", "a test"]).expect("isolate").remove(0);
    println!("{isolated:#}");
    assert_eq!(isolated["isolated"], true);
    assert_eq!(isolated["proven"], true);
    for name in ["sockets", "interfaces", "egress"] {
        assert_eq!(layer(&isolated, name)["standing"], true, "{isolated:#}");
    }
    only_management_arrives(&mut world);
    let counts = state(&agent)["counts"].as_array().expect("counts").clone();
    for (at, reason, dropped) in [
        ("socket_out", "ipv4", true),
        ("socket_out", "ipv6", true),
        ("socket_out", "fragment", true),
        ("socket_out", "management", false),
        ("socket_out", "loopback", false),
        ("interface_in", "ipv4", true),
        ("interface_in", "neighbour", false),
        ("interface_out", "neighbour", false),
        ("egress", "other", true),
    ] {
        let found = counts.iter().any(|count| {
            count["at"] == at
                && count["reason"] == reason
                && count["dropped"] == dropped
                && count["packets"].as_u64() > Some(0)
        });
        assert!(found, "{at} {reason} in {counts:#?}");
    }

    println!("-- killed");
    agent.kill().expect("kill");
    only_management_arrives(&mut world);

    println!("-- started again");
    agent.start().expect("start");
    wait_event(&agent, "isolation", |event| event["action"] == "restored");
    assert_eq!(state(&agent)["reason"], "a test");
    only_management_arrives(&mut world);

    println!("-- its programs replaced");
    agent.replace_programs().expect("replace");
    only_management_arrives(&mut world);

    println!("-- stopped for the upgrade");
    agent.stop().expect("clean stop");
    only_management_arrives(&mut world);

    println!("-- upgraded");
    agent.start().expect("start");
    wait_event(&agent, "isolation", |event| event["action"] == "restored");
    only_management_arrives(&mut world);

    println!("-- released");
    let released = agent.json(&["release"]).expect("release").remove(0);
    assert_eq!(released["isolated"], false);
    everything_arrives(&mut world);
    for action in ["isolated", "released"] {
        wait_event(&agent, "isolation", |event| event["action"] == action);
    }
}

#[test]
fn rules_and_programs_of_others_are_as_before() {
    let world = World::new();
    let on_host = |program: &str, words: &[&str]| {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", world.lab.namespace("host").display()));
        let output = finish(command.arg(program).args(words), PATIENCE).expect("start");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{program} {words:?}: {said}");
    };
    on_host(
        "nft",
        &["add table inet others { chain out { type filter hook output priority 0; \
                      counter; ip daddr 192.0.2.1 drop; }; set s { type ipv4_addr; elements = { \
                      192.0.2.9 }; }; }"],
    );
    on_host(
        "nft",
        &["add table netdev others { chain in { type filter hook ingress device hp0 \
                      priority 0; ip saddr 192.0.2.7 drop; }; }"],
    );
    on_host("tc", &["qdisc", "add", "dev", "hp0", "clsact"]);
    for way in ["ingress", "egress"] {
        on_host(
            "tc",
            &[
                "filter",
                "add",
                "dev",
                "hp0",
                way,
                "prio",
                "7",
                "protocol",
                "ip",
                "u32",
                "match",
                "ip",
                "dst",
                "192.0.2.3/32",
                "flowid",
                "1:1",
            ],
        );
    }
    on_host("tc", &["qdisc", "add", "dev", "hc0", "root", "pfifo", "limit", "77"]);

    let mut agent = world.agent(ALLOW);
    // Counters of packets would differ: nothing is sent but by the agent itself.
    let counterless = |text: String| {
        let mut out = String::new();
        let mut words = text.split(' ').peekable();
        while let Some(word) = words.next() {
            out.push_str(word);
            out.push(' ');
            if matches!(word, "packets" | "bytes") {
                words.next();
            }
        }
        out
    };
    let before = counterless(world.others());
    agent.json(&["isolate"]).expect("isolate");
    let during = counterless(world.others());
    assert_ne!(during, before);
    assert!(during.contains("table inet others") && during.contains("limit 77"), "{during}");
    agent.kill().expect("kill");
    agent.start().expect("start");
    agent.json(&["release"]).expect("release");
    let after = counterless(world.others());
    assert_eq!(after, before);
    assert!(!world.lab.pins().exists(), "pins are left");
    assert!(!agent.state().join("isolation.json").exists(), "the record is left");
}

#[test]
fn a_new_interface_is_cut_off_within_100_ms() {
    let world = World::new();
    let agent = world.agent(ALLOW);
    agent.json(&["isolate"]).expect("isolate");
    let mut times: Vec<Duration> = (0..10)
        .map(|round| {
            let (one, two) = (format!("new{round}"), format!("other{round}"));
            let lab = &world.lab;
            std::thread::scope(|scope| {
                let covered = scope.spawn(|| covered_after(lab, &one));
                lab.pair(("host", &one), ("outside", &two)).expect("pair");
                covered.join().expect("watched")
            })
        })
        .collect();
    times.sort();
    println!("{times:?}");
    // One in ten may meet a machine that is busy with other things.
    assert!(times[8] < Duration::from_millis(100), "{times:?}");
    assert!(layer(&state(&agent), "interfaces")["note"].to_string().contains("new9"));
    // Interfaces that go leave nothing behind.
    let host = world.lab.side("host");
    for round in 0..10 {
        holdfast_tests::lab::ip(&["-n", &host, "link", "del", &format!("new{round}")])
            .expect("delete");
    }
    soon(SOON, "pins of gone interfaces go", || {
        fs::read_dir(world.lab.pins()).expect("pins").count() == 7
    });
    agent.json(&["release"]).expect("release");
}

#[test]
fn an_isolation_that_nobody_answers_is_undone_with_the_reason() {
    let mut world = World::new();
    let agent = world.agent(r#"allow = ["10.77.0.2:9"]"#);
    let before = world.others();
    let output = agent.cli(&["isolate"]).expect("cli");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("no management endpoint answers") && said.contains("refused"), "{said}");
    assert_eq!(world.others(), before);
    assert_eq!(state(&agent)["isolated"], false);
    wait_event(&agent, "isolation", |event| event["action"] == "refused");
    world.arrives("host", "udp4");

    let agent = world.agent(r#"allow = ["no-such-host.invalid:443"]"#);
    let said = agent.cli(&["isolate"]).expect("cli").stderr;
    let said = String::from_utf8_lossy(&said).into_owned();
    assert!(said.contains("cannot be resolved") && said.contains("nothing was cut"), "{said}");
    assert_eq!(world.others(), before);
}

#[test]
fn without_an_endpoint_the_loopback_alone_is_left() {
    let mut world = World::new();
    let agent = world.agent("dhcp = []");
    let isolated = agent.json(&["isolate"]).expect("isolate").remove(0);
    assert!(isolated["warnings"].to_string().contains("names no endpoint"), "{isolated}");
    assert_eq!(isolated["proven"], false);
    world.works("host", "loopback", true);
    world.works("host", "manager4_new", false);
    world.works("outside", "inward4", false);
    agent.json(&["release"]).expect("release");
    world.works("host", "manager4_new", true);
}

#[test]
fn what_somebody_takes_away_is_put_back_and_told() {
    let mut world = World::new();
    let mut agent = world.agent(ALLOW);
    agent.json(&["isolate"]).expect("isolate");
    let whole: Vec<usize> = world.programs().iter().map(Vec::len).collect();
    let lengths = |world: &World| -> Vec<usize> { world.programs().iter().map(Vec::len).collect() };
    let told = |agent: &Agent, part: &str| {
        wait_event(agent, "isolation", |event| {
            event["action"] == "broken"
                && event["reason"].as_str().is_some_and(|reason| reason.contains(part))
        });
    };
    fs::remove_file(world.lab.pins().join("socket_out")).expect("unpin");
    told(&agent, "cut_socket_out");
    for entry in fs::read_dir(world.lab.pins()).expect("pins").flatten() {
        if entry.file_name().to_string_lossy().starts_with("link_") {
            fs::remove_file(entry.path()).expect("unpin");
        }
    }
    told(&agent, "hp0");
    let mut flush = Command::new("nsenter");
    flush.arg(format!("--net={}", world.lab.namespace("host").display()));
    assert!(flush.args(["nft", "flush", "ruleset"]).status().expect("nft").success());
    told(&agent, "egress");
    soon(SOON, "all programs are back", || lengths(&world) == whole);
    world.is_dropped("host", "udp4");
    world.is_dropped("host", "packet_bypass");
    world.is_dropped("container", "icmp4");
    // What went while no agent was there is put back by the next.
    agent.kill().expect("kill");
    fs::remove_file(world.lab.pins().join("socket_in")).expect("unpin");
    agent.start().expect("start");
    soon(SOON, "all programs are back", || lengths(&world) == whole);
    agent.json(&["release"]).expect("release");
}

#[test]
fn an_isolation_ends_by_itself_even_when_the_agent_was_away() {
    let mut world = World::new();
    let mut agent = world.agent(ALLOW);
    agent.json(&["isolate", "--for", "2s"]).expect("isolate");
    wait_event(&agent, "isolation", |event| event["action"] == "expired");
    assert_eq!(state(&agent)["isolated"], false);
    world.arrives("host", "udp4");

    let isolated = agent.json(&["isolate", "--for", "2s"]).expect("isolate").remove(0);
    let until_ms = isolated["until_ms"].as_i64().expect("until");
    agent.kill().expect("kill");
    world.is_dropped("host", "udp4");
    let now = || {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("now");
        i64::try_from(now.as_millis()).expect("now")
    };
    soon(SOON, "the time is over", || now() > until_ms);
    world.is_dropped("host", "udp4");
    agent.start().expect("start");
    world.arrives("host", "udp4");
    let expired = || {
        let events = agent.json(&["events", "--kind", "isolation"]).expect("events");
        events.iter().filter(|event| event["action"] == "expired").count()
    };
    soon(SOON, "it is told", || expired() == 2);
}

#[test]
fn a_reboot_is_cut_off_before_an_agent_runs() {
    let mut world = World::new();
    let mut agent = world.agent(ALLOW);
    agent.json(&["isolate"]).expect("isolate");
    agent.kill().expect("kill");
    // What a reboot takes: pins, and with them the programs; the rules.
    fs::remove_dir_all(world.lab.pins()).expect("unpin");
    let config = agent.config();
    let config = config.to_str().expect("path");
    let on_host = |world: &World, words: &[&str]| {
        let cli = binary("holdfast");
        let mut command = world.lab.command("host", cli.to_str().expect("path"));
        command.env("HOLDFAST_ISOLATION", "namespace");
        finish(command.args(words).args(["--config", config]), PATIENCE).expect("start")
    };
    let mut gone = world.lab.command("host", "nft");
    assert!(gone.args(["flush", "ruleset"]).status().expect("nft").success());
    let restored = on_host(&world, &["isolation", "restore"]);
    assert!(restored.status.success(), "{restored:?}");
    world.is_dropped("host", "udp4");
    world.is_dropped("container", "udp6");
    world.is_dropped("host", "packet_bypass");
    world.arrives("host", "manager6_new");

    let released = on_host(&world, &["release", "--without-agent"]);
    assert!(released.status.success(), "{released:?}");
    world.arrives("host", "udp4");
    agent.start().expect("start");
    assert_eq!(state(&agent)["isolated"], false);
    let refused = on_host(&world, &["release", "--without-agent"]);
    assert!(String::from_utf8_lossy(&refused.stderr).contains("an agent is running"));
}

#[test]
fn this_machine_is_refused() {
    require_root();
    let scratch = Scratch::tmpfs(16 << 20).expect("scratch");
    let agent = Setup::protect([scratch.path()])
        .tables("[sensor]\nenabled = false\n[isolation]\ndhcp = []")
        .start()
        .expect("agent");
    let output = agent.cli(&["isolate"]).expect("cli");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("this is the machine's own network namespace"), "{said}");
    assert_eq!(state(&agent)["isolated"], false);
}
