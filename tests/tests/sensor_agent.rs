//! The sensor in a running agent: hashes of programs, and what `doctor` says.
//!
//! Needs root. The agent protects a file system of its own.

use std::process::Command;

use holdfast_tests::agent::{PATIENCE, Setup};
use holdfast_tests::observe::wait_event;
use holdfast_tests::scratch::Scratch;
use holdfast_tests::{copy_program, require_root, until};

#[test]
fn a_program_is_told_with_the_hash_of_the_file_that_was_held() {
    require_root();
    let scratch = Scratch::tmpfs(16 << 20).expect("scratch");
    let program = scratch.path().join("program");
    copy_program("/bin/true", &program);
    let sum = Command::new("sha256sum").arg("/bin/true").output().expect("sha256sum");
    let sum = String::from_utf8(sum.stdout).expect("text");
    let expected = sum.split(' ').next().expect("a hash");
    let agent = Setup::protect([scratch.path()]).start().expect("agent");
    // The first start may come before its hash.
    let told = until(PATIENCE, || {
        assert!(Command::new(&program).status().expect("start").success());
        let events = agent.json(&["events", "--kind", "exec"]).expect("events");
        let ours = |event: &&serde_json::Value| {
            event["process"]["exe"].as_str() == program.to_str()
                && !event["process"]["sha256"].is_null()
        };
        events.iter().find(ours).cloned()
    });
    let told = told.expect("no start was told with a hash");
    assert_eq!(told["process"]["sha256"], expected);
    // Another content under the same name is another program.
    copy_program("/bin/false", &program);
    assert!(!Command::new(&program).status().expect("start").success());
    wait_event(&agent, "exec", |event| {
        event["process"]["exe"].as_str() == program.to_str()
            && event["process"]["sha256"] != *expected
    });
}

#[test]
fn doctor_names_what_is_seen_by_which_mechanism_and_what_is_not() {
    require_root();
    let scratch = Scratch::tmpfs(16 << 20).expect("scratch");
    let setup = Setup::protect([scratch.path()]);
    let agent = setup.tables("[sensor]\nsystem_calls = false").start().expect("agent");
    let lines = agent.json(&["doctor"]).expect("doctor");
    let line = |start: &str| {
        let mut with = lines
            .iter()
            .filter(|line| line["check"].as_str().is_some_and(|check| check.starts_with(start)));
        with.next().cloned().unwrap_or_else(|| panic!("no line {start}: {lines:?}"))
    };
    for name in ["exec", "fork", "exit", "signals to the agent", "packet and raw sockets"] {
        let line = line(&format!("sensor: {name} (raw tracepoint "));
        assert_eq!(line["ok"], true, "{line}");
    }
    for name in ["ptrace", "memfd", "mounts", "setns and unshare", "eBPF programs", "credentials"] {
        let line = line(&format!("sensor: {name} ("));
        let by_hooks = line["check"].as_str().is_some_and(|check| check.contains("(fexit "));
        assert!(by_hooks, "{line}");
        // Where the hooks are refused, the other way is switched off here, and that is said.
        let evidence = line["evidence"].as_str().unwrap_or_default();
        assert!(line["ok"] == true || evidence.contains("switched off (system_calls)"), "{line}");
    }
    line("sensor: SHA-256 of programs");
}
