//! One sensor for all tests of a file, and everything that it has told so far.

#![allow(dead_code, reason = "each test binary uses its own part of it")]

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use holdfast_agent::config;
use holdfast_agent::sensor::{Needs, ProcessTable, Sensor};
use holdfast_common::event::{EventBody, FileEvent, NetworkEvent, PacketSocketEvent};

/// What every kernel shows that the tests run on.
const NAMES: [&str; 8] = [
    "packet and raw sockets",
    "connections made",
    "connections accepted",
    "binds",
    "listens",
    "UDP to new peers",
    "DNS by UDP",
    "files that matter",
];

pub const DEADLINE: Duration = Duration::from_secs(20);

/// A running sensor.
pub struct Watch {
    pub sensor: Sensor,
    told: Arc<(Mutex<Vec<EventBody>>, Condvar)>,
}

impl Watch {
    pub fn start(config: config::Sensor) -> Self {
        assert!(nix::unistd::geteuid().is_root(), "the sensor's tests need root");
        let told: Arc<(Mutex<Vec<EventBody>>, Condvar)> = Arc::default();
        let filled = Arc::clone(&told);
        let table = Arc::new(ProcessTable::from_proc());
        let sink = move |event| {
            filled.0.lock().unwrap_or_else(PoisonError::into_inner).push(event);
            filled.1.notify_all();
        };
        let waits = config.files.enabled;
        let (hashes, own_files) = (None, Vec::new());
        let sensor =
            Sensor::start(Needs { config, table, hashes, own_files, sink: Box::new(sink) });
        for state in sensor.states().iter().filter(|state| NAMES.contains(&state.name.as_str())) {
            assert!(state.active, "{state:?}");
        }
        if waits {
            let watched = || sensor.files_are_watched().then_some(());
            holdfast_tests::until(DEADLINE, watched).expect("files are watched");
        }
        Self { sensor, told }
    }

    /// Waits until something is found in what was told.
    #[track_caller]
    pub fn wait<T>(&self, what: &str, find: impl Fn(&[EventBody]) -> Option<T>) -> T {
        let end = Instant::now() + DEADLINE;
        let mut told = self.lock();
        loop {
            if let Some(found) = find(&told) {
                return found;
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                let last: Vec<String> = told.iter().rev().filter_map(brief).take(40).collect();
                drop(told);
                panic!("not seen within {DEADLINE:?}: {what}; last:\n{}", last.join("\n"));
            }
            let waited = self.told.1.wait_timeout(told, left);
            told = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    #[track_caller]
    pub fn file(&self, what: &str, is: impl Fn(&FileEvent) -> bool) -> FileEvent {
        self.wait(what, |told| told.iter().filter_map(as_file).find(|event| is(event)).cloned())
    }

    #[track_caller]
    pub fn network(&self, what: &str, is: impl Fn(&NetworkEvent) -> bool) -> NetworkEvent {
        let network = |event: &EventBody| match event {
            EventBody::Network(event) if is(event) => Some(NetworkEvent::clone(event)),
            _ => None,
        };
        self.wait(what, |told| told.iter().find_map(network))
    }

    #[track_caller]
    pub fn socket(&self, what: &str, is: impl Fn(&PacketSocketEvent) -> bool) -> PacketSocketEvent {
        let socket = |event: &EventBody| match event {
            EventBody::PacketSocket(event) if is(event) => Some(PacketSocketEvent::clone(event)),
            _ => None,
        };
        self.wait(what, |told| told.iter().find_map(socket))
    }

    /// All that was told so far and is wanted.
    pub fn all<T>(&self, wanted: impl Fn(&EventBody) -> Option<T>) -> Vec<T> {
        self.lock().iter().filter_map(wanted).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<EventBody>> {
        self.told.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All file events of a process so far.
    pub fn files_of(&self, pid: u32) -> Vec<FileEvent> {
        self.all(|event| as_file(event).filter(|event| event.process.key.pid == pid).cloned())
    }

    pub fn networks_of(&self, pid: u32) -> Vec<NetworkEvent> {
        self.all(|event| match event {
            EventBody::Network(event) if event.process.key.pid == pid => {
                Some(NetworkEvent::clone(event))
            }
            _ => None,
        })
    }
}

/// One line of an event that is not about processes.
fn brief(event: &EventBody) -> Option<String> {
    match event {
        EventBody::File(event) => Some(format!(
            "{} {} {} {} ×{}",
            event.process.key.pid, event.process.comm, event.action, event.path, event.count
        )),
        EventBody::Network(event) => Some(format!(
            "{} {} {} {} {}:{} {}:{} {} ×{}",
            event.process.key.pid,
            event.process.comm,
            event.action,
            event.protocol,
            event.local_address,
            event.local_port,
            event.remote_address,
            event.remote_port,
            event.dns_name,
            event.count
        )),
        _ => None,
    }
}

fn as_file(event: &EventBody) -> Option<&FileEvent> {
    match event {
        EventBody::File(event) => Some(event),
        _ => None,
    }
}

/// Runs a shell script with arguments to its end, and returns its pid.
#[track_caller]
pub fn shell(script: &str, arguments: &[&Path]) -> u32 {
    let mut child = Command::new("/bin/sh")
        .args(["-c", script, "sh"])
        .args(arguments)
        .stdin(Stdio::null())
        .spawn()
        .expect("shell");
    let pid = child.id();
    let status = child.wait().expect("wait");
    assert!(status.success(), "{script}: {status}");
    pid
}

/// Runs a Python script with arguments to its end, and returns its pid.
#[track_caller]
pub fn python(script: &str, arguments: &[&str]) -> u32 {
    let mut child = Command::new("python3")
        .args(["-c", script])
        .args(arguments)
        .stdin(Stdio::null())
        .spawn()
        .expect("python3");
    let pid = child.id();
    let status = child.wait().expect("wait");
    assert!(status.success(), "{script}: {status}");
    pid
}
