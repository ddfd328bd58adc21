//! What is left when managers and agents are killed at any moment, when a manager's clock is set,
//! and when one of two managers is gone in the middle of a task.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use holdfast_tests::agent::{Agent, PATIENCE, Setup};
use holdfast_tests::manager::Manager;
use holdfast_tests::postgres::Cluster;
use holdfast_tests::scratch::Scratch;
use holdfast_tests::{eicar, require_root, until};
use serde_json::{Value, json};

/// How long everybody is killed again and again.
const KILLED: Duration = Duration::from_secs(120);
/// Most opens that one test makes malicious.
const BAITS: usize = 2000;
const QUIET: &str = "[sensor]\nenabled = false";

fn agent_on(scratch: &Scratch) -> Agent {
    Setup::protect([scratch.path()]).tables(QUIET).start().expect("agent")
}

/// Ids and paths of what a list holds.
fn paths(events: &[Value]) -> BTreeMap<String, String> {
    let text = |event: &Value, key: &str| Some(event[key].as_str()?.to_owned());
    events.iter().filter_map(|event| Some((text(event, "id")?, text(event, "path")?))).collect()
}

/// The host's detections, and those at the manager, where none may be twice.
fn detections(agent: &Agent, manager: &Manager) -> Option<[BTreeMap<String, String>; 2]> {
    let kind = ["events", "--kind", "malware", "--limit", "0"];
    let journal = paths(&agent.json(&kind).ok()?);
    let events = manager.events(Some("malware")).ok()?;
    let bodies: Vec<Value> = events.iter().map(body).collect();
    let stored = paths(&bodies);
    assert_eq!(stored.len(), events.len(), "an event is there twice");
    Some([journal, stored])
}

/// An event as its host told it.
fn body(event: &Value) -> Value {
    match event.get("event") {
        Some(told) if told.is_object() => told.clone(),
        _ => event.clone(),
    }
}

/// Numbers that nobody expects; the seed is shown.
struct Chance(u64);

impl Chance {
    fn new() -> Self {
        let seed = Instant::now();
        let seed = std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), seed);
        println!("seed {seed}");
        Self(seed | 1)
    }

    fn below(&mut self, most: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % most
    }
}

#[test]
fn minutes_of_kills_at_any_moment_lose_and_double_no_detection() {
    require_root();
    let scratch = Scratch::ext4().expect("scratch");
    let mut agent = agent_on(&scratch);
    let mut manager = Manager::start().expect("manager");
    manager.enroll(&agent, &[]).expect("enrolled");
    let mut chance = Chance::new();
    let (mut kills, mut baits, mut denied) = (0, 0, BTreeSet::new());
    let end = Instant::now() + KILLED;
    while Instant::now() < end {
        // Some malicious files, for as long as nobody expects.
        let moment = Instant::now() + Duration::from_millis(chance.below(1500));
        while Instant::now() < moment && baits < BAITS {
            let path = scratch.join(format!("bait-{baits}"));
            baits += 1;
            fs::write(&path, eicar()).expect("write");
            // A denied open has been judged: its detection may not be lost, whoever is killed now.
            let opened = fs::File::open(&path);
            if opened.is_err_and(|error| error.raw_os_error() == Some(libc::EPERM)) {
                denied.insert(path.to_str().expect("text").to_owned());
            }
        }
        let who = chance.below(3);
        if who != 0 {
            agent.kill().expect("kill the agent");
        }
        if who != 1 {
            manager.kill().expect("kill the manager");
            manager.run().expect("the manager again");
        }
        if who != 0 {
            agent.start().expect("the agent again");
        }
        kills += 1;
    }
    let mut last = String::new();
    let found = until(PATIENCE, || {
        let [journal, stored] = detections(&agent, &manager)?;
        last = format!("{} on the host, {} at the manager", journal.len(), stored.len());
        (journal == stored).then_some(journal)
    });
    let found = found.unwrap_or_else(|| panic!("{last}\n{}", agent.log()));
    let told: BTreeSet<&String> = found.values().collect();
    println!("{kills} kills, {baits} files, {} denied, {} detections", denied.len(), found.len());
    assert!(kills >= 20 && found.len() >= 20, "too little happened");
    // What was denied in the moment of a kill is still there and denied, or sealed and told of.
    for path in denied.iter().filter(|path| !told.contains(path)) {
        assert!(Path::new(path).exists(), "{path} is gone, and nobody told of it");
    }
}

/// Sets the clock of a manager alone.
struct Clock {
    file: tempfile::NamedTempFile,
}

impl Clock {
    fn new() -> Self {
        let clock = Self { file: tempfile::NamedTempFile::new().expect("file") };
        clock.set("+0");
        clock
    }

    fn environment(&self) -> Vec<(&'static str, String)> {
        let library = "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1";
        assert!(Path::new(library).exists(), "{library}: apt install faketime");
        let file = self.file.path().to_str().expect("text").to_owned();
        vec![
            ("LD_PRELOAD", library.to_owned()),
            ("FAKETIME_TIMESTAMP_FILE", file),
            ("FAKETIME_NO_CACHE", "1".to_owned()),
            // Clocks that cannot be set on a real host either.
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
        ]
    }

    fn set(&self, offset: &str) {
        fs::write(self.file.path(), format!("{offset}\n")).expect("set the clock");
    }
}

#[test]
fn a_manager_whose_clock_is_set_loses_nothing_and_goes_on() {
    require_root();
    let scratch = Scratch::tmpfs(64 << 20).expect("scratch");
    let agent = agent_on(&scratch);
    let clock = Clock::new();
    let manager = Manager::with_environment(clock.environment()).expect("manager");
    let host = manager.enroll(&agent, &[]).expect("enrolled");
    for (round, offset) in ["+0", "+2h", "-2h", "+6h", "+0"].into_iter().enumerate() {
        clock.set(offset);
        let path = scratch.join(format!("bait-{round}"));
        fs::write(&path, eicar()).expect("write");
        let arrived = until(PATIENCE, || {
            let [journal, stored] = detections(&agent, &manager)?;
            (journal.len() == round + 1 && journal == stored).then_some(())
        });
        assert!(arrived.is_some(), "at {offset}: {}", manager.log());
        // Tasks are filed, told of and verified by whatever clock.
        let task = manager.file(&host, &json!({ "action": "process_list" })).expect("filed");
        let ended = manager.ended(&task).expect("ended");
        assert_eq!(ended["stage"], "verified", "at {offset}: {ended}");
        // The host's stream is the same one: a clock is no silence.
        let seen = manager.wait_for(&format!("/api/v1/hosts/{host}"), |host| {
            host["connected"] == true && !host["reasons"].to_string().contains("silent")
        });
        seen.unwrap_or_else(|error| panic!("at {offset}: {error:#}"));
        // A clock that differs by hours is said, since times of events cannot be compared.
        let differs = offset != "+0";
        let said = manager.wait_for(&format!("/api/v1/hosts/{host}"), |host| {
            host["reasons"].to_string().contains("clock") == differs
        });
        said.unwrap_or_else(|error| panic!("at {offset}: {error:#}"));
    }
}

/// One address for several managers, like a balancer in front of them: each connection goes to
/// whom it leads now.
struct Door {
    address: SocketAddr,
    leads: Arc<Mutex<SocketAddr>>,
}

impl Door {
    fn to(first: SocketAddr) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("listen");
        let address = listener.local_addr().expect("address");
        let leads = Arc::new(Mutex::new(first));
        let now = Arc::clone(&leads);
        thread::spawn(move || {
            for one in listener.incoming().map_while(Result::ok) {
                let to = *now.lock().unwrap_or_else(PoisonError::into_inner);
                let Ok(other) = TcpStream::connect(to) else { continue };
                for (mut from, mut to) in
                    [(one.try_clone(), other.try_clone()), (other.try_clone(), one.try_clone())]
                        .map(|(from, to)| (from.expect("clone"), to.expect("clone")))
                {
                    thread::spawn(move || {
                        let _ = io::copy(&mut from, &mut to);
                        let _ = to.shutdown(std::net::Shutdown::Both);
                    });
                }
            }
        });
        Self { address, leads }
    }

    fn lead(&self, to: SocketAddr) {
        *self.leads.lock().unwrap_or_else(PoisonError::into_inner) = to;
    }
}

#[test]
fn of_two_managers_one_is_killed_in_the_middle_of_a_task_and_the_other_ends_it() {
    require_root();
    let scratch = Scratch::ext4().expect("scratch");
    let agent = agent_on(&scratch);
    let cluster = Cluster::start().expect("PostgreSQL");
    let url = cluster.database("two").expect("database");
    let mut first = Manager::on_database(&url).expect("manager");
    let second = first.second().expect("another manager");
    let door = Door::to(first.address());
    let host =
        first.enroll_by(&format!("https://{}", door.address), &agent, &[]).expect("enrolled");
    let large = scratch.join("large");
    let noise = Command::new("head").args(["-c", "41943040", "/dev/urandom"]).output();
    fs::write(&large, noise.expect("noise").stdout).expect("write");

    // Filed at one, it reaches the agent at the other.
    let action = json!({
        "action": "collect", "path": large, "password": "infected", "limit": 100 << 20,
    });
    let task = second.file(&host, &action).expect("filed");
    let part = first.folder().join("files").join(format!("{task}.part"));
    let begun = until(PATIENCE, || (fs::metadata(&part).ok()?.len() > 1 << 20).then_some(()));
    begun.expect("the file is on its way");
    first.kill().expect("kill");
    door.lead(second.address());
    fs::write(scratch.join("bait"), eicar()).expect("write");
    let ended = second.ended(&task).expect("ended");
    assert_eq!(ended["stage"], "verified", "{ended}\n{}", agent.log());
    let zip = second.folder().join("files").join(&task);
    let mut unzip = Command::new("bsdtar");
    unzip.args(["--passphrase", "infected", "-xOf"]).arg(&zip);
    let content = unzip.stderr(Stdio::inherit()).output().expect("bsdtar").stdout;
    assert!(content == fs::read(&large).expect("read"), "{} bytes", content.len());
    let arrived = until(PATIENCE, || {
        let [journal, stored] = detections(&agent, &second)?;
        (journal.len() == 1 && journal == stored).then_some(())
    });
    arrived.expect("the detection arrives once");

    // The first one comes back, and what is filed there reaches the agent at the second.
    first.run().expect("again");
    let task = first.file(&host, &json!({ "action": "process_list" })).expect("filed");
    assert_eq!(first.ended(&task).expect("ended")["stage"], "verified");
    let all = second.get("/api/v1/tasks?from_ms=0&until_ms=9000000000000000").expect("tasks");
    let stages: Vec<_> = all["items"].as_array().expect("list").iter().collect();
    assert!(stages.len() == 2 && stages.iter().all(|task| task["stage"] == "verified"), "{all}");
}
