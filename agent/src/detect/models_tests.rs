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
        network_namespace: 0,
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

/// Models of a text of its own.
fn own(text: &str) -> (tempfile::TempDir, Models) {
    let mut collected = crate::detect::rules::Collected::default();
    collected.add("test", text);
    let book = Book::new(collected);
    assert_eq!(book.refused, []);
    let folder = tempfile::tempdir().expect("folder");
    let models = Models::with_book(folder.path(), book).expect("models");
    (folder, models)
}

const TOOLS: &str = "
title: A
id: 11111111-1111-4111-8111-111111111111
name: a
logsource: {product: linux, category: process_creation}
detection: {s: {Image: /a}, condition: s}
---
title: B
id: 22222222-2222-4222-8222-222222222222
name: b
logsource: {product: linux, category: process_creation}
detection: {s: {Image: /b}, condition: s}
---
title: Together
correlation: {type: TYPE, rules: [a, b], group-by: [User], timespan: 10s CONDITION}
";

fn together(kind: &str, condition: &str) -> (tempfile::TempDir, Models) {
    own(&TOOLS.replace("TYPE", kind).replace("CONDITION", condition))
}

fn exec(pid: u32, exe: &str, user: &str) -> EventBody {
    let mut process = process(pid, exe);
    process.user = user.to_owned();
    EventBody::Exec(Box::new(ExecEvent { process, parents: Vec::new(), count: 1 }))
}

/// Which of these (seconds, program, user) complete it, and how many events it then names.
fn completes(models: &Models, steps: &[(u64, &str, &str)]) -> Vec<(usize, usize)> {
    let start = Instant::now();
    let mut fired = Vec::new();
    for (number, (second, exe, user)) in steps.iter().enumerate() {
        let now = start + Duration::from_secs(*second);
        let event = exec(1000 + number as u32, exe, user);
        for detection in models.evaluate_at(Uuid::now_v7(), &event, now) {
            assert_eq!(detection.title, "Together");
            assert_eq!(detection.evidence["User"], *user);
            fired.push((number, detection.events.len()));
        }
    }
    fired
}

#[test]
fn events_are_counted_by_group_within_the_span() {
    let (_folder, models) = together("event_count", ", condition: {gte: 3}");
    let steps = [(0, "/a", "u"), (1, "/b", "u"), (2, "/a", "v"), (9, "/a", "u"), (10, "/a", "u")];
    assert_eq!(completes(&models, &steps), [(3, 3)]);
    let (_folder, models) = together("event_count", ", condition: {gte: 3}");
    let late = [(0, "/a", "u"), (1, "/a", "u"), (10, "/a", "u"), (11, "/a", "u"), (12, "/a", "u")];
    assert_eq!(completes(&models, &late), [(4, 3)], "the span is ten seconds and not eleven");
    assert_eq!(models.list().len(), 1, "rules that only feed a correlation are no models");
}

#[test]
fn different_values_are_counted_and_equal_ones_are_not() {
    let (_folder, models) = together("value_count", ", condition: {field: Image, gte: 2}");
    let steps = [(0, "/a", "u"), (1, "/a", "u"), (2, "/b", "v"), (3, "/b", "u")];
    assert_eq!(completes(&models, &steps), [(3, 2)]);
}

#[test]
fn together_means_all_of_them_in_any_order_and_ordered_means_in_order() {
    let forward = [(0, "/a", "u"), (1, "/a", "u"), (2, "/b", "u")];
    let backward = [(0, "/b", "u"), (1, "/b", "u"), (2, "/a", "u")];
    let apart = [(0, "/a", "u"), (10, "/b", "u")];
    let strangers = [(0, "/a", "u"), (1, "/b", "v")];
    for (kind, steps, expected) in [
        ("temporal", &forward[..], vec![(2, 2)]),
        ("temporal", &backward, vec![(2, 2)]),
        ("temporal", &apart, vec![]),
        ("temporal", &strangers, vec![]),
        ("temporal_ordered", &forward, vec![(2, 2)]),
        ("temporal_ordered", &backward, vec![]),
        ("temporal_ordered", &apart, vec![]),
    ] {
        let (_folder, models) = together(kind, "");
        assert_eq!(completes(&models, steps), expected, "{kind} {steps:?}");
    }
    let (_folder, models) = together("temporal", ", condition: a and not b");
    assert_eq!(completes(&models, &forward), [(0, 1)]);
}

#[test]
fn a_flood_of_groups_and_hits_stays_bounded_and_is_counted() {
    let (_folder, models) = together("event_count", ", condition: {gte: 1000}");
    let start = Instant::now();
    for number in 0..20_000u32 {
        let user = format!("user{number}");
        let now = start + Duration::from_micros(u64::from(number));
        models.evaluate_at(Uuid::nil(), &exec(number, "/a", &user), now);
    }
    let forgotten = models.state().windows.forgotten;
    assert!(forgotten > 10_000, "{forgotten}");
    let (_folder, models) =
        own(&TOOLS.replace("TYPE", "event_count").replace("CONDITION", ", condition: {lt: 1}"));
    for number in 0..3000 {
        assert!(models.evaluate_at(Uuid::nil(), &exec(number, "/a", "u"), start).is_empty());
    }
    assert!(models.state().windows.forgotten > 1900);
    let mut collected = crate::detect::rules::Collected::default();
    let text =
        TOOLS.replace("TYPE", "event_count").replace("CONDITION", ", condition: {gte: 1025}");
    collected.add("test", &text);
    let refused = Book::new(collected).refused;
    assert!(refused[0].reason.contains("counts to more than 1024"), "{refused:?}");
}

#[test]
fn one_model_does_not_flood_the_journal_unless_it_acts() {
    let text = "
title: Busy
id: 11111111-1111-4111-8111-111111111111
logsource: {product: linux, category: process_creation}
detection: {s: {Image: /a}, condition: s}
RESPONSE
";
    let start = Instant::now();
    let fired = |text: &str| {
        let (_folder, models) = own(text);
        let each =
            (0..200).map(|pid| models.evaluate_at(Uuid::nil(), &exec(pid, "/a", "u"), start));
        let fired = each.map(|detections| detections.len()).sum::<usize>();
        let later = models.evaluate_at(Uuid::nil(), &exec(999, "/a", "u"), start + QUIET);
        (fired, later[0].evidence.get("repeated").cloned())
    };
    assert_eq!(fired(&text.replace("RESPONSE", "")), (60, Some("140".to_owned())));
    assert_eq!(fired(&text.replace("RESPONSE", "holdfast: {response: kill}")), (200, None));
}

#[test]
fn a_suppression_keeps_back_what_fits_counts_it_and_ends_by_itself() {
    let (folder, models) = models();
    let event = socket(5, "/usr/bin/tcpdump", "bind", "AF_PACKET", 3);
    let other = socket(6, "/usr/bin/tshark", "bind", "AF_PACKET", 3);
    let what = ("Image", "*/tcpdump");
    let refused = |what, until, reason| models.suppress(SNIFFING, what, until, reason).is_err();
    let hour = now_ms() + 3_600_000;
    assert!(refused(what, now_ms() - 1, "x") && refused(what, hour, " "));
    assert!(refused(("Image", "**"), hour, "x") && refused(("", "x"), hour, "x"));
    assert!(models.suppress("no such", what, hour, "x").is_err());
    let new = models.suppress(SNIFFING, what, hour, " the network team ").expect("suppress");
    assert_eq!(new.reason, "the network team");
    assert!(models.evaluate(Uuid::nil(), &event).is_empty());
    assert_eq!(models.evaluate(Uuid::nil(), &other).len(), 1, "another value");
    assert_eq!((sniffing(&models).suppressed, models.suppressions()[0].kept_back), (1, 1));
    let again = Models::load(folder.path(), &config::Models::default()).expect("again");
    assert!(again.evaluate(Uuid::nil(), &event).is_empty(), "after a restart");
    again.end_suppression(new.id).expect("end");
    assert!(again.end_suppression(new.id).is_err());
    assert_eq!(again.evaluate(Uuid::nil(), &event).len(), 1);
    again.suppress(SNIFFING, ("CommandLine", "x*y"), now_ms() + 30, "soon over").expect("short");
    let end = Instant::now() + Duration::from_secs(10);
    while !again.suppressions().is_empty() {
        assert!(Instant::now() < end, "it did not end by itself");
        std::thread::yield_now();
    }
}

#[test]
fn a_star_stands_for_any_text_and_nothing_else_does() {
    for (pattern, value, expected) in [
        ("/a", "/a", true),
        ("/a", "/ab", false),
        ("/a*", "/ab", true),
        ("*b", "/ab", true),
        ("*a*c", "/abc", true),
        ("*a*c*", "/acd", true),
        ("a*a", "a", false),
        ("[a]?", "[a]?", true),
        ("[a]?", "ax", false),
    ] {
        assert_eq!(fits(pattern, value), expected, "{pattern} {value}");
    }
}

#[test]
fn the_policys_responses_take_the_place_of_the_models_own() {
    let folder = tempfile::tempdir().expect("folder");
    let config = |text: &str| toml::from_str::<config::Models>(text).expect("config");
    let models = Models::load(folder.path(), &config("")).expect("models");
    let response = |models: &Models, title: &str| {
        models.list().into_iter().find(|model| model.title == title).expect("model").response
    };
    assert_eq!(response(&models, "Data Encrypted for Impact"), "alert, kill, deny");
    for model in models.list().iter().filter(|model| model.attack != ["T1486"]) {
        assert_eq!(model.response, "alert", "{}", model.title);
    }
    let policy = "response.\"Data Encrypted for Impact\" = \"none\"\nresponse.Cron = [\"kill\"]";
    let models = Models::load(folder.path(), &config(policy)).expect("models");
    assert_eq!(response(&models, "Data Encrypted for Impact"), "none");
    assert_eq!(response(&models, "Cron"), "kill");
    let unknown = Models::load(folder.path(), &config("response.Corn = \"kill\""));
    assert!(matches!(unknown, Err(ModelsError::Unknown(name)) if name == "Corn"));
}

#[test]
fn rules_come_and_go_while_models_run_and_what_they_have_off_is_not_switched_on() {
    let folder = tempfile::tempdir().expect("folder");
    let config = |text: &str| toml::from_str::<config::Models>(text).expect("config");
    let models = Models::load(folder.path(), &config("")).expect("models");
    let cron = || models.list().into_iter().find(|model| model.title == "Cron").expect("model");
    models.rule(&config("off = [\"Cron\"]\nresponse.Cron = \"isolate\"")).expect("rules");
    assert_eq!((cron().enabled, cron().response.as_str()), (false, "isolate"));
    assert!(matches!(models.switch("Cron", true), Err(ModelsError::Refused(_))));
    assert!(models.check(&config("off = [\"Corn\"]")).is_err());
    assert!(models.rule(&config("off = [\"Corn\"]")).is_err());
    assert_eq!(cron().response, "isolate", "nothing has changed");
    models.rule(&config("")).expect("none");
    assert_eq!((cron().enabled, cron().response.as_str()), (true, "alert"));
    // What an operator has switched off stays off.
    models.switch("Cron", false).expect("off");
    models.rule(&config("")).expect("none");
    assert!(!cron().enabled);
}

#[test]
fn a_folder_is_taken_as_it_is_and_bad_rules_are_left_out_by_name() {
    let state = tempfile::tempdir().expect("folder");
    let rules = tempfile::tempdir().expect("folder");
    let good = "title: Good\nlogsource: {category: process_creation, product: linux}\n\
                detection: {s: {Image|endswith: /good}, condition: s}\n";
    std::fs::create_dir(rules.path().join("below")).expect("folder");
    std::fs::write(rules.path().join("below/good.yml"), good).expect("write");
    std::fs::write(rules.path().join("bad.yml"), "title: [").expect("write");
    std::fs::write(rules.path().join("odd.yml"), good.replace("endswith", "no_such"))
        .expect("write");
    std::fs::write(rules.path().join("notes.txt"), "x").expect("write");
    std::os::unix::fs::symlink("/etc/passwd", rules.path().join("link.yml")).expect("link");
    std::fs::write(rules.path().join("others.yml"), good).expect("write");
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o666);
    std::fs::set_permissions(rules.path().join("others.yml"), mode).expect("chmod");
    let config = config::Models { folder: Some(rules.path().to_owned()), ..Default::default() };
    let models = Models::load(state.path(), &config).expect("models");
    let names: Vec<_> = models
        .refused()
        .iter()
        .filter_map(|one| one.origin.rsplit('/').next().map(str::to_owned))
        .collect();
    for bad in ["bad.yml", "odd.yml", "link.yml", "others.yml"] {
        assert!(names.iter().any(|name| name == bad), "{bad}: {names:?}");
    }
    let good = models.list().into_iter().find(|model| model.title == "Good").expect("model");
    assert!(good.origin.ends_with("below/good.yml") && good.can_fire && !good.id.is_nil());
    assert_eq!(models.evaluate(Uuid::nil(), &exec(1, "/usr/bin/good", "u")).len(), 1);
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o777);
    std::fs::set_permissions(rules.path(), mode).expect("chmod");
    assert!(matches!(Models::load(state.path(), &config), Err(ModelsError::Folder(_))));
}

#[test]
fn every_modifier_of_the_specification_is_understood() {
    let matches = |field: &str, line: &str| {
        let text = format!(
            "title: T\nlogsource: {{category: process_creation, product: linux}}\n\
             detection:\n  s:\n    {field}\n  condition: s\n"
        );
        let (_folder, models) = own(&text);
        let mut process = process(41, "/usr/bin/Tool");
        process.args = line.split(' ').map(str::to_owned).collect();
        process.user = "Tool".to_owned();
        let parent = ProcessInfo { exe: "/usr/bin/tool".to_owned(), ..ProcessInfo::default() };
        let body = ExecEvent { process, parents: vec![parent], count: 7 };
        !models.evaluate(Uuid::nil(), &EventBody::Exec(Box::new(body))).is_empty()
    };
    for (field, line, expected) in [
        ("CommandLine: 'A *'", "a b", true),
        ("CommandLine: 'a ?'", "a bc", false),
        ("CommandLine: 'a\\*'", "a*", true),
        ("CommandLine|contains|all: [a, c]", "a b c", true),
        ("CommandLine|contains|all: [a, d]", "a b c", false),
        ("CommandLine|contains: 'a*c'", "x a b c x", true),
        ("CommandLine|cased: 'A b'", "a b", false),
        ("CommandLine|re: '^a +b$'", "a b", true),
        ("CommandLine|re: '^A'", "a b", false),
        ("CommandLine|re|i: '^A'", "a b", true),
        ("CommandLine|startswith: [x, a]", "a b", true),
        ("CommandLine|endswith: B", "a b", true),
        ("CommandLine|base64|contains: hello", "echo aGVsbG8=", true),
        ("CommandLine|base64offset|contains: password", "echo eHBhc3N3b3Jk", true),
        ("CommandLine|wide|base64offset|contains: ping", "-e cABpAG4AZwA=", true),
        ("CommandLine|windash|contains: ' -f '", "x /f y", true),
        ("TTY|exists: false", "a", true),
        ("Image|exists: false", "a", false),
        ("Count|gt: 6", "a", true),
        ("Count|gte: 8", "a", false),
        ("Count|lt: 8", "a", true),
        ("Count|lte: 6", "a", false),
        ("Count: 7", "a", true),
        ("Count|neq: 7", "a", false),
        ("Image|fieldref: ParentImage", "a", true),
        ("Image|fieldref|endswith: User", "a", true),
        ("TTY: null", "a", true),
        ("CommandLine|expand: '%User%'", "tool", true),
    ] {
        assert_eq!(matches(field, line), expected, "{field} on {line}");
    }
}
