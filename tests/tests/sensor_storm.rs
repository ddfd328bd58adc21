//! A storm of execs: every record is told, put together with its like, or declared lost.
//!
//! Needs root. In a file of its own, since a storm changes what is told one by one.

use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use holdfast_agent::config;
use holdfast_agent::sensor::{Needs, ProcessTable, Sensor};
use holdfast_common::event::{EventBody, ExecEvent};

const STORM: usize = 5000;
/// Emulated machines are slow: what was made in this time is storm enough there.
const DEADLINE: Duration = Duration::from_secs(20);

/// Runs `true` with these arguments, from one shell each hundred; returns how often.
fn storm(arguments: impl Fn(usize) -> String) -> usize {
    let end = Instant::now() + DEADLINE;
    let mut made = 0;
    while made < STORM && Instant::now() < end {
        let script: String =
            (made..made + 100).map(|n| format!("/bin/true {}\n", arguments(n))).collect();
        assert!(Command::new("/bin/sh").args(["-c", &script]).status().expect("shell").success());
        made += 100;
    }
    made
}

#[test]
fn the_account_is_exact_after_a_storm_and_every_exec_is_counted() {
    assert!(nix::unistd::geteuid().is_root(), "the sensor's tests need root");
    let seen: Arc<Mutex<Vec<ExecEvent>>> = Arc::default();
    let filled = Arc::clone(&seen);
    let sink = move |event| {
        if let EventBody::Exec(exec) = event {
            filled.lock().expect("not poisoned").push(*exec);
        }
    };
    let table = Arc::new(ProcessTable::from_proc());
    let config = config::Sensor::default();
    let sensor = Sensor::start(Needs {
        config,
        table,
        hashes: None,
        own_files: Vec::new(),
        sink: Box::new(sink),
    });
    let mark = format!("storm-{}", std::process::id());
    let equal = storm(|_| mark.clone());
    let different = storm(|n| format!("{mark} {n}"));
    sensor.stop();
    for state in sensor.states() {
        let accounted = state.delivered + state.aggregated + state.lost;
        assert_eq!(state.generated, accounted, "{state:?}");
    }
    let states = sensor.states();
    let execs = states.iter().find(|state| state.name == "exec").expect("execs");
    let seen = seen.lock().expect("not poisoned");
    let counted: u64 = seen.iter().map(|event| event.count).sum();
    assert_eq!(counted, execs.delivered + execs.aggregated);
    // Of windows that had become coarse the first may be another program's start with `true`.
    let ours = |event: &&ExecEvent| event.process.args.get(1) == Some(&mark);
    let counted: u64 = seen.iter().filter(ours).map(|event| event.count).sum();
    let made = (equal + different) as u64;
    assert!(counted + execs.lost >= made, "{counted} of {made} seen, {} lost", execs.lost);
    assert!(execs.aggregated > 0, "no storm was put together: {execs:?}");
    assert!((seen.len() as u64) < execs.generated);
}
