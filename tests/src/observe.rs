//! What tests look at and wait for in a running agent, on the host and in guests.
//!
//! These functions assert: each panics, with what it saw, when it is not as it should be.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::agent::{Agent, PATIENCE};
use crate::until;

/// How long the agent may take to do what follows by itself.
pub const SOON: Duration = Duration::from_secs(30);

/// An open must fail: denied, or the file is in quarantine already.
#[track_caller]
pub fn assert_blocked(path: &Path) {
    match File::open(path) {
        Err(error) if matches!(error.kind(), ErrorKind::PermissionDenied | ErrorKind::NotFound) => {
        }
        other => panic!("{}: expected to be blocked, got {other:?}", path.display()),
    }
}

/// The file is gone from its folder and lies in quarantine under its path.
#[track_caller]
pub fn assert_quarantined(agent: &Agent, path: &Path) -> Value {
    until(PATIENCE, || (!path.exists()).then_some(()))
        .unwrap_or_else(|| panic!("{} is still there\n{}", path.display(), agent.log()));
    agent
        .wait_for(&["quarantine", "list"], |item| {
            item["path"].as_str().is_some_and(|stored| same_name(stored, path))
        })
        .expect("item in quarantine")
}

/// On an overlay the kernel may name the file in its layer: the last part is what is compared.
fn same_name(stored: &str, path: &Path) -> bool {
    Path::new(stored).file_name() == path.file_name()
}

/// Waits for an event of this kind that fits.
#[track_caller]
pub fn wait_event(agent: &Agent, kind: &str, fits: impl Fn(&Value) -> bool) -> Value {
    agent.wait_for(&["events", "--kind", kind], fits).expect("event")
}

/// A number of `holdfast status`.
#[track_caller]
pub fn counter(agent: &Agent, name: &str) -> u64 {
    let status = agent.json(&["status"]).expect("status");
    status[0]["on_access"][name].as_u64().unwrap_or_else(|| panic!("no counter {name}: {status:?}"))
}

/// How often the failure table was asked for this reason.
#[track_caller]
pub fn failures(agent: &Agent, reason: &str) -> u64 {
    let status = agent.json(&["status"]).expect("status");
    let rows = status[0]["on_access"]["failures"].as_array().expect("failures").clone();
    rows.iter().find(|row| row[0] == reason).and_then(|row| row[1].as_u64()).expect("row")
}

/// A `holdfast-scan` process below the agent.
pub fn workers(agent: &Agent) -> Vec<Pid> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").expect("/proc").flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        let comm = fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
        if comm.trim() == "holdfast-scan" && descends(pid, agent.pid()) {
            found.push(Pid::from_raw(i32::try_from(pid).expect("pid")));
        }
    }
    found
}

pub fn signal_workers(agent: &Agent, signal: Signal) -> usize {
    let workers = workers(agent);
    for worker in &workers {
        // One may have ended since.
        let _ = kill(*worker, signal);
    }
    workers.len()
}

fn descends(mut pid: u32, from: u32) -> bool {
    while pid > 1 {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let parent = stat
            .rsplit_once(')')
            .and_then(|(_, rest)| rest.split_whitespace().nth(1)?.parse().ok())
            .unwrap_or(0);
        if parent == from {
            return true;
        }
        pid = parent;
    }
    false
}

/// Lets a file rest until its clean verdict may be kept.
pub fn settle(path: &Path) {
    let fresh = || {
        let changed = fs::metadata(path).expect("metadata");
        let changed = std::os::unix::fs::MetadataExt::ctime_nsec(&changed)
            + std::os::unix::fs::MetadataExt::ctime(&changed) * 1_000_000_000;
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("now");
        i128::try_from(now.as_nanos()).expect("now") - i128::from(changed) < 50_000_000
    };
    until(SOON, || (!fresh()).then_some(())).expect("the clock goes on");
}

/// Writes a file of a user who is not root: its verdict lives in user space.
pub fn write_as_user(path: &Path, content: &[u8]) -> PathBuf {
    fs::write(path, content).expect("write");
    std::os::unix::fs::chown(path, Some(1000), Some(1000)).expect("chown");
    path.to_owned()
}

/// The process of an event: root's, with a command line, below this test's own process.
#[track_caller]
pub fn assert_named(event: &Value) {
    let process = &event["process"];
    assert!(process["args"].as_array().is_some_and(|args| !args.is_empty()), "{process}");
    assert_eq!((&process["uid"], &process["user"]), (&0.into(), &"root".into()), "{process}");
    let parents = event["parents"].as_array().map_or(&[][..], Vec::as_slice);
    let own = parents.iter().any(|parent| parent["key"]["pid"] == std::process::id());
    assert!(own, "this test is not among the ancestors: {parents:?}");
}
