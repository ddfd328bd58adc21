//! Tests of [`super`]: what fires, what is kept back, what survives a restart.

use holdfast_common::event::{ExecEvent, PacketSocketEvent};

use super::*;

const SNIFFING: &str = "Network Sniffing";

fn models() -> (tempfile::TempDir, Models) {
    let folder = tempfile::tempdir().expect("folder");
    let models = Models::load(folder.path(), &config::Models::default()).expect("shipped models");
    (folder, models)
}

fn sniffing(models: &Models) -> ModelState {
    models.list().into_iter().find(|model| model.title == SNIFFING).expect("the model")
}

fn process(pid: u32, exe: &str) -> ProcessInfo {
    ProcessInfo {
        key: ProcessKey { pid, start_ns: 10_000_000 },
        exe: exe.to_owned(),
        args: vec![exe.to_owned(), "-i".to_owned(), "eth0".to_owned()],
        user: "root".to_owned(),
        ..ProcessInfo::default()
    }
}

fn socket(pid: u32, exe: &str, action: &str, family: &str, protocol: u32) -> EventBody {
    EventBody::PacketSocket(Box::new(PacketSocketEvent {
        process: process(pid, exe),
        parents: vec![process(1, "/bin/bash")],
        action: action.to_owned(),
        family: family.to_owned(),
        socket_type: "SOCK_RAW".to_owned(),
        protocol,
        interface: 2,
    }))
}

#[test]
fn tcpdump_fires_once_for_all_that_it_does_to_its_socket() {
    let (_folder, models) = models();
    let mut fired = Vec::new();
    for (action, protocol) in
        [("socket", 0), ("bind", 0), ("promiscuous", 0), ("ring", 0), ("bind", 3)]
    {
        let event = socket(77, "/usr/bin/tcpdump", action, "AF_PACKET", protocol);
        fired.extend(models.evaluate(Uuid::nil(), &event));
    }
    assert_eq!(fired.len(), 1);
    let detection = &fired[0];
    assert_eq!((detection.title.as_str(), detection.level.as_str()), (SNIFFING, "medium"));
    assert_eq!(detection.attack, ["T1040"]);
    assert_eq!(detection.evidence["CommandLine"], "/usr/bin/tcpdump -i eth0");
    assert_eq!(detection.evidence["Action"], "promiscuous");
    assert!(!detection.simulated);
    assert_eq!(sniffing(&models).fired, 1);
}

#[test]
fn every_way_to_receive_every_protocol_fires() {
    let ways = [("socket", 3), ("bind", 3), ("found", 3), ("ring", 3), ("promiscuous", 0x800)];
    for (action, protocol) in ways {
        let (_folder, models) = models();
        let event = socket(5, "/usr/bin/python3.13", action, "AF_PACKET", protocol);
        assert_eq!(models.evaluate(Uuid::nil(), &event).len(), 1, "{action} {protocol}");
    }
}

#[test]
fn near_misses_do_not_fire() {
    let (_folder, models) = models();
    for (exe, action, family, protocol) in [
        ("/usr/lib/systemd/systemd-networkd", "bind", "AF_PACKET", 0x0800),
        ("/usr/sbin/NetworkManager", "socket", "AF_PACKET", 0x0800),
        ("/usr/sbin/arping", "bind", "AF_PACKET", 0x0806),
        ("/usr/sbin/lldpd", "bind", "AF_PACKET", 0x88cc),
        ("/usr/sbin/dhclient", "socket", "AF_PACKET", 3),
        ("/usr/bin/ping", "socket", "AF_INET", 1),
        ("/usr/bin/ping", "socket", "AF_INET6", 58),
        // IPPROTO 3 (GGP) is not ETH_P_ALL.
        ("/usr/bin/odd", "socket", "AF_INET", 3),
        ("/usr/bin/tcpdump", "socket", "AF_PACKET", 0),
    ] {
        let event = socket(9, exe, action, family, protocol);
        assert!(
            models.evaluate(Uuid::nil(), &event).is_empty(),
            "{exe} {action} {family} {protocol}"
        );
    }
    let exec = ExecEvent { process: process(3, "/usr/bin/tcpdump"), parents: Vec::new(), count: 1 };
    assert!(models.evaluate(Uuid::nil(), &EventBody::Exec(Box::new(exec))).is_empty());
    assert!(models.evaluate(Uuid::nil(), &EventBody::AgentStopped).is_empty());
}

#[test]
fn a_sniffer_under_the_name_of_a_dhcp_client_fires_when_it_goes_promiscuous() {
    let (_folder, models) = models();
    for exe in ["/tmp/dhclient", "/tmp/usr/sbin/dhclient"] {
        let event = socket(exe.len() as u32, exe, "socket", "AF_PACKET", 3);
        assert_eq!(models.evaluate(Uuid::nil(), &event).len(), 1, "{exe}");
    }
    let event = socket(3, "/usr/sbin/dhclient", "promiscuous", "AF_PACKET", 3);
    assert_eq!(models.evaluate(Uuid::nil(), &event).len(), 1);
}

#[test]
fn a_repetition_is_kept_back_for_a_minute_and_then_counted() {
    let (_folder, models) = models();
    let event = socket(5, "/usr/bin/tcpdump", "bind", "AF_PACKET", 3);
    let start = Instant::now();
    assert_eq!(models.evaluate_at(Uuid::nil(), &event, start).len(), 1);
    for second in 1..60 {
        let now = start + Duration::from_secs(second);
        assert!(models.evaluate_at(Uuid::nil(), &event, now).is_empty());
    }
    let again = models.evaluate_at(Uuid::nil(), &event, start + QUIET);
    assert_eq!(again[0].evidence["repeated"], "59");
    let other = socket(6, "/usr/bin/tcpdump", "bind", "AF_PACKET", 3);
    assert_eq!(models.evaluate_at(Uuid::nil(), &other, start + QUIET).len(), 1, "another process");
}

#[test]
fn a_model_that_is_off_stays_off_after_a_restart() {
    let (folder, models) = models();
    let event = socket(5, "/usr/bin/tcpdump", "bind", "AF_PACKET", 3);
    assert!(!models.switch(SNIFFING, false).expect("switch").enabled);
    assert!(models.evaluate(Uuid::nil(), &event).is_empty());
    let models = Models::load(folder.path(), &config::Models::default()).expect("again");
    assert!(models.evaluate(Uuid::nil(), &event).is_empty());
    let id = sniffing(&models).id.to_string();
    assert!(models.switch(&id, true).expect("switch").enabled);
    assert_eq!(models.evaluate(Uuid::nil(), &event).len(), 1);
    assert!(matches!(models.switch("network sniffing", true), Err(ModelsError::Unknown(_))));
}

#[test]
fn only_our_own_program_is_a_simulation() {
    let (_folder, models) = models();
    let ours = models.cli.clone().expect("own path").display().to_string();
    let run = |pid, exe: &str, args: &[&str]| {
        let mut process = process(pid, exe);
        process.args = args.iter().map(|argument| (*argument).to_owned()).collect();
        models.is_simulation(&process)
    };
    assert!(run(1, &ours, &["holdfast", "simulate", "run", "network-sniffing"]));
    assert!(!run(2, "/tmp/holdfast", &["holdfast", "simulate", "run", "network-sniffing"]));
    assert!(!run(3, &ours, &["holdfast", "status"]));
}
