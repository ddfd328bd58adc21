//! The link between the real agent and a real manager: enrollment, events, tasks, and what is left
//! of them when either side is killed.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use holdfast_tests::agent::{Agent, PATIENCE, Setup, binary};
use holdfast_tests::manager::Manager;
use holdfast_tests::scratch::Scratch;
use holdfast_tests::{eicar, require_root, skip, until};
use serde_json::{Value, json};

fn agent_on(scratch: &Scratch, tables: &str) -> Agent {
    Setup::protect([scratch.path()]).tables(tables).start().expect("agent")
}

fn status(agent: &Agent) -> Value {
    agent.json(&["status"]).expect("status").pop().expect("a status")
}

fn problem_of(agent: &Agent, part: &str) -> String {
    let found = until(PATIENCE, || {
        let problem = status(agent)["manager"]["problem"].as_str()?.to_owned();
        problem.contains(part).then_some(problem)
    });
    found.unwrap_or_else(|| panic!("no problem with {part:?}\n{}", agent.log()))
}

fn connected(agent: &Agent) {
    let found = until(PATIENCE, || (status(agent)["manager"]["connected"] == true).then_some(()));
    found.unwrap_or_else(|| panic!("not connected\n{}", agent.log()));
}

/// A malicious file is closed after it was written: its event is in the journal, its item in
/// quarantine.
fn detect(agent: &Agent, scratch: &Scratch, name: &str) -> Value {
    let path = scratch.join(name);
    fs::write(&path, eicar()).expect("write");
    let shown = path.to_str().expect("text").to_owned();
    let kind = ["events", "--kind", "malware", "--limit", "0"];
    agent.wait_for(&kind, |event| event["path"] == shown.as_str()).expect("an event");
    agent
        .wait_for(&["quarantine", "list"], |item| item["path"] == shown.as_str())
        .expect("quarantined")
}

/// Every event of the agent's journal is at the manager once, within the patience. Returns how
/// many.
fn all_arrive_once(agent: &Agent, manager: &Manager) -> usize {
    let mut missing = Vec::new();
    let found = until(PATIENCE, || {
        // What happens while we look comes later.
        let journal: Vec<String> = ids(&agent.json(&["events", "--limit", "0"]).ok()?);
        let mut at_manager: BTreeMap<String, usize> = BTreeMap::new();
        for id in ids(&manager.events(None).ok()?) {
            *at_manager.entry(id).or_default() += 1;
        }
        if let Some((id, count)) = at_manager.iter().find(|(_, count)| **count > 1) {
            panic!("event {id} is there {count} times");
        }
        missing = journal.iter().filter(|id| !at_manager.contains_key(*id)).cloned().collect();
        missing.is_empty().then_some(journal.len())
    });
    found.unwrap_or_else(|| {
        panic!("{} events are missing: {missing:?}\n{}", missing.len(), agent.log())
    })
}

fn ids(events: &[Value]) -> Vec<String> {
    events.iter().filter_map(|event| Some(event["id"].as_str()?.to_owned())).collect()
}

/// Without the sensor the journal holds only what the test does.
const QUIET: &str = "[sensor]\nenabled = false";

#[test]
fn nothing_is_sent_to_a_manager_with_another_fingerprint() {
    require_root();
    let scratch = Scratch::tmpfs(16 << 20).expect("scratch");
    let agent = agent_on(&scratch, QUIET);
    let manager = Manager::start().expect("manager");
    let token = manager.token(1).expect("token");
    let url = manager.url();
    let wrong = "ab".repeat(32);
    let words =
        ["enroll", "--manager", &url, "--token", &token, "--ca-fingerprint", wrong.as_str()];
    let output = agent.cli(&words).expect("run");
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("nothing was sent") && said.contains(manager.fingerprint()), "{said}");
    assert!(!agent.state().join("manager.json").exists());
    assert_eq!(status(&agent)["manager"]["enrolled"], false);
    // The token is unused, so it was not told.
    let right = manager.fingerprint().to_owned();
    let words =
        ["enroll", "--manager", &url, "--token", &token, "--ca-fingerprint", right.as_str()];
    assert!(agent.cli(&words).expect("run").status.success());
    connected(&agent);
    // It is used up now.
    let output = agent.cli(&words).expect("run");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("the enrollment token is not valid"), "{said}");
    connected(&agent);
}

#[test]
fn an_expired_token_enrolls_nobody() {
    require_root();
    let scratch = Scratch::tmpfs(16 << 20).expect("scratch");
    let agent = agent_on(&scratch, QUIET);
    let manager = Manager::start().expect("manager");
    let token = manager.token_for(1, 1).expect("token");
    let (url, print) = (manager.url(), manager.fingerprint().to_owned());
    let began = std::time::Instant::now();
    let _ =
        until(Duration::from_millis(1100), || (began.elapsed().as_millis() > 1050).then_some(()));
    let words = ["enroll", "--manager", &url, "--token", &token, "--ca-fingerprint", &print];
    let output = agent.cli(&words).expect("run");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("the enrollment token is not valid"), "{said}");
    assert!(!agent.state().join("manager.json").exists());
}

#[test]
fn detections_arrive_at_once_and_those_from_before_the_enrollment_too() {
    require_root();
    let scratch = Scratch::ext4().expect("scratch");
    let agent = agent_on(&scratch, QUIET);
    detect(&agent, &scratch, "before");
    let manager = Manager::start().expect("manager");
    let host = manager.enroll(&agent, &[]).expect("enrolled");
    detect(&agent, &scratch, "after");
    let events = until(PATIENCE, || {
        let events = manager.events(Some("malware")).ok()?;
        (events.len() == 2).then_some(events)
    });
    let events = events.expect("both");
    let late =
        events[0]["received_ms"].as_i64().expect("ms") - events[0]["time_ms"].as_i64().expect("ms");
    assert!(late < 1000, "{late} ms");
    all_arrive_once(&agent, &manager);
    // The heartbeat tells each capability.
    let host = manager
        .wait_for(&format!("/api/v1/hosts/{host}"), |host| host["heartbeat"].is_object())
        .expect("heartbeat");
    let capabilities = host["heartbeat"]["capabilities"].as_array().expect("list").clone();
    let names: Vec<&str> = capabilities.iter().filter_map(|one| one["name"].as_str()).collect();
    let mount = format!("on access: {}", scratch.path().display());
    for name in [
        mount.as_str(),
        "outbox",
        "self-proof",
        "rule bundle",
        "quarantine: space",
        "isolation",
        "sensor",
        "agent",
    ] {
        assert!(names.contains(&name), "{name} is not in {names:?}");
    }
    let mode = fs::metadata(agent.state().join("manager.json")).expect("facts");
    assert_eq!(std::os::unix::fs::PermissionsExt::mode(&mode.permissions()) & 0o777, 0o600);
}

#[test]
fn whoever_is_killed_each_event_arrives_once() {
    require_root();
    let scratch = Scratch::ext4().expect("scratch");
    let mut agent = agent_on(&scratch, "[sensor]\nsystem_calls = false");
    let mut manager = Manager::start().expect("manager");
    manager.enroll(&agent, &[]).expect("enrolled");
    for round in 0..6 {
        let before = manager.events(Some("malware")).map_or(0, |events| events.len());
        for file in 0..4 {
            detect(&agent, &scratch, &format!("{round}-{file}"));
        }
        // In the middle: some may have arrived, some not.
        let _ = until(Duration::from_millis(20 * round), || {
            (manager.events(Some("malware")).ok()?.len() > before).then_some(())
        });
        if round % 2 == 0 {
            manager.kill().expect("kill");
            detect(&agent, &scratch, &format!("{round}-away"));
            manager.run().expect("again");
        } else {
            agent.kill().expect("kill");
            agent.start().expect("again");
        }
    }
    connected(&agent);
    let count = all_arrive_once(&agent, &manager);
    let malware = manager.events(Some("malware")).expect("events").len();
    assert_eq!(malware, 6 * 4 + 3, "of {count} events");
}

#[test]
fn a_full_outbox_gives_up_telemetry_first_counts_it_and_no_detection() {
    require_root();
    let scratch = Scratch::ext4().expect("scratch");
    let tables = "[journal]\nmax_telemetry = 50\n[sensor]\nsystem_calls = false";
    let agent = agent_on(&scratch, tables);
    let mut manager = Manager::start().expect("manager");
    manager.enroll(&agent, &[]).expect("enrolled");
    all_arrive_once(&agent, &manager);
    manager.kill().expect("kill");
    problem_of(&agent, "");
    for number in 0..5 {
        detect(&agent, &scratch, &format!("away-{number}"));
    }
    let given_up = until(PATIENCE, || {
        for _ in 0..20 {
            Command::new("true").status().ok()?;
        }
        let outbox = &status(&agent)["manager"]["outbox"];
        outbox["dropped"].as_u64().filter(|dropped| *dropped > 100)
    });
    let given_up = given_up.expect("telemetry is given up");
    manager.run().expect("again");
    connected(&agent);
    all_arrive_once(&agent, &manager);
    assert_eq!(manager.events(Some("malware")).expect("events").len(), 5);
    let told = until(PATIENCE, || {
        let losses = agent.json(&["events", "--kind", "loss"]).ok()?;
        losses.into_iter().find(|loss| loss["queue"] == "outbox")
    });
    assert!(told.expect("a loss event")["count"].as_u64() > Some(0));
    assert!(status(&agent)["manager"]["outbox"]["dropped"].as_u64() >= Some(given_up));
}

#[test]
fn a_revoked_host_is_put_out_and_says_so() {
    require_root();
    let scratch = Scratch::tmpfs(16 << 20).expect("scratch");
    let mut agent = agent_on(&scratch, QUIET);
    let manager = Manager::start().expect("manager");
    let host = manager.enroll(&agent, &[]).expect("enrolled");
    manager.revoke(&host).expect("revoked");
    problem_of(&agent, "this certificate is revoked");
    // Not by a restart either.
    agent.stop().expect("stop");
    agent.start().expect("start");
    problem_of(&agent, "this certificate is revoked");
    let problems = status(&agent)["problems"].to_string();
    assert!(problems.contains("revoked"), "a red line: {problems}");
    // It protects all the same.
    detect(&agent, &scratch, "x");
    assert!(manager.events(Some("malware")).expect("events").is_empty());
}

#[test]
fn a_copy_of_a_hosts_disk_is_refused() {
    require_root();
    let scratch = Scratch::tmpfs(16 << 20).expect("scratch");
    let mut agent = agent_on(&scratch, QUIET);
    let manager = Manager::start().expect("manager");
    let host = manager.enroll(&agent, &[]).expect("enrolled");
    let count = agent.state().join("manager.generation");
    let copied = fs::read(&count).expect("read");
    agent.stop().expect("stop");
    agent.start().expect("start");
    connected(&agent);
    agent.stop().expect("stop");
    // The disk as it was when it was copied.
    fs::write(&count, copied).expect("write");
    agent.start().expect("start");
    problem_of(&agent, "used twice");
    let host = manager.host(&host).expect("host");
    assert!(!host["cloned_ms"].is_null(), "{host}");
}

#[test]
fn certificates_renew_themselves_with_a_new_key() {
    require_root();
    let scratch = Scratch::tmpfs(16 << 20).expect("scratch");
    let agent = agent_on(&scratch, QUIET);
    let manager = Manager::with_life(6).expect("manager");
    let host = manager.enroll(&agent, &[]).expect("enrolled");
    let read = || -> Value {
        let text = fs::read(agent.state().join("manager.json")).expect("read");
        serde_json::from_slice(&text).expect("json")
    };
    let mut last = read();
    for _ in 0..2 {
        let next = until(PATIENCE, || Some(read()).filter(|now| now["chain"] != last["chain"]));
        let next = next.unwrap_or_else(|| panic!("not renewed\n{}", agent.log()));
        assert_ne!(next["key"], last["key"]);
        last = next;
        connected(&agent);
    }
    detect(&agent, &scratch, "x");
    until(PATIENCE, || (manager.events(Some("malware")).ok()?.len() == 1).then_some(()))
        .expect("it arrives with the new certificate");
    let host = manager.host(&host).expect("host");
    assert!(host["generation"].as_i64() >= Some(3), "{host}");
}

/// tinyproxy with a user, from Debian's package.
struct Proxy {
    process: Child,
    address: SocketAddr,
    log: PathBuf,
    _folder: tempfile::TempDir,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn proxy() -> Option<Proxy> {
    let folder = tempfile::tempdir().expect("folder");
    // Nobody else takes it so soon.
    let free = TcpListener::bind("127.0.0.1:0").expect("port").local_addr().expect("address");
    let (config, log) = (folder.path().join("tinyproxy.conf"), folder.path().join("log"));
    let text = format!(
        "Port {}\nListen 127.0.0.1\nTimeout 600\nMaxClients 20\nLogFile \"{}\"\nLogLevel Connect\n\
         BasicAuth agent password\n",
        free.port(),
        log.display()
    );
    fs::write(&config, text).expect("write");
    let mut command = Command::new("tinyproxy");
    let started = command.arg("-d").arg("-c").arg(&config).stdout(Stdio::null()).spawn();
    let process = match started {
        Ok(process) => process,
        Err(error) => {
            assert_eq!(error.kind(), std::io::ErrorKind::NotFound, "{error}");
            return None;
        }
    };
    until(PATIENCE, || std::net::TcpStream::connect(free).ok()).expect("the proxy listens");
    Some(Proxy { process, address: free, log, _folder: folder })
}

#[test]
fn an_agent_goes_through_a_proxy_with_user_and_password() {
    require_root();
    let Some(proxy) = proxy() else {
        return skip(
            "an_agent_goes_through_a_proxy_with_user_and_password",
            "tinyproxy is not installed",
        );
    };
    let scratch = Scratch::tmpfs(16 << 20).expect("scratch");
    let agent = agent_on(&scratch, QUIET);
    let manager = Manager::start().expect("manager");
    let token = manager.token(1).expect("token");
    let (url, print) = (manager.url(), manager.fingerprint().to_owned());
    let wrong = format!("http://agent:wrong@{}", proxy.address);
    let words = ["enroll", "--manager", &url, "--token", &token, "--ca-fingerprint", &print];
    let output = agent.cli(&[&words[..], &["--proxy", &wrong]].concat()).expect("run");
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("cannot connect") && !said.contains("wrong@"), "{said}");
    let right = format!("http://agent:pass%77ord@{}", proxy.address);
    manager.enroll(&agent, &["--proxy", &right]).expect("enrolled");
    detect(&agent, &scratch, "x");
    until(PATIENCE, || (manager.events(Some("malware")).ok()?.len() == 1).then_some(()))
        .expect("it arrives");
    let tunnels = fs::read_to_string(&proxy.log).expect("log");
    let asked = format!("CONNECT {} ", manager.address());
    assert!(tunnels.contains(&asked), "{tunnels}");
    // Without the proxy there is no way, and that is red.
    drop(proxy);
    problem_of(&agent, "");
}

#[test]
fn tasks_are_done_once_and_verified_by_what_is_seen() {
    require_root();
    let scratch = Scratch::ext4().expect("scratch");
    let agent = agent_on(&scratch, QUIET);
    let manager = Manager::start().expect("manager");
    let host = manager.enroll(&agent, &[]).expect("enrolled");
    let verified = |manager: &Manager, action: Value| -> Value {
        let task = manager.file(&host, &action).expect("filed");
        let ended = manager.ended(&task).expect("ended");
        assert_eq!(ended["stage"], "verified", "{action}: {ended}\n{}", agent.log());
        assert!(ended["delivered_ms"].as_i64() <= ended["ended_ms"].as_i64());
        ended
    };
    // A process is killed, and another under its pid would not be.
    let mut child = Command::new("sleep").arg("1000").spawn().expect("child");
    let listed = verified(&manager, json!({ "action": "process_list" }));
    let processes = listed["result"]["processes"].as_array().expect("list").clone();
    let key = processes
        .iter()
        .find(|one| one["key"]["pid"] == child.id())
        .map(|one| one["key"].clone())
        .expect("the child is listed");
    let other = json!({ "pid": key["pid"], "start_ns": 1 });
    let gone = verified(&manager, json!({ "action": "kill", "process": other }));
    assert!(gone["observed"].as_str().expect("text").contains("nobody to kill"), "{gone}");
    assert!(child.try_wait().expect("wait").is_none(), "another process");
    verified(&manager, json!({ "action": "kill", "process": key }));
    assert!(!child.wait().expect("wait").success());
    // Quarantined items.
    let first = detect(&agent, &scratch, "first");
    let restore = json!({ "action": "restore", "item": first["id"], "allow": true });
    let restored = verified(&manager, restore);
    assert_eq!(fs::read(scratch.join("first")).expect("it is back"), eicar(), "{restored}");
    // Content of its own is denied from now on.
    let denied = scratch.join("denied");
    fs::write(&denied, "harmless so far").expect("write");
    let sha256 = "3f5f09b7d5ff4e7c59b58ae6b2f0ea3bcd17ed0b5b53a2f4a8e7f0f0f0f0f0f0";
    verified(&manager, json!({ "action": "deny_hash", "sha256": sha256 }));
    let real = sha256_of(&denied);
    verified(&manager, json!({ "action": "deny_hash", "sha256": real }));
    assert!(until(PATIENCE, || fs::read(&denied).is_err().then_some(())).is_some());
    let item = agent
        .wait_for(&["quarantine", "list"], |item| item["path"] == denied.to_str().expect("text"))
        .expect("quarantined");
    let download = json!({ "action": "download", "item": item["id"], "password": "infected" });
    let downloaded = verified(&manager, download);
    assert!(downloaded["file_size"].as_u64() > Some(0), "{downloaded}");
    verified(&manager, json!({ "action": "delete", "item": item["id"] }));
    // Not there any more.
    let again = manager.file(&host, &json!({ "action": "delete", "item": item["id"] }));
    let again = manager.ended(&again.expect("filed")).expect("ended");
    assert_eq!(again["stage"], "failed", "{again}");
    // A scan, and what a person needs for help.
    fs::write(scratch.join("clean"), "clean").expect("write");
    let paths = json!({ "action": "scan", "paths": [scratch.path()] });
    let scanned = verified(&manager, paths);
    assert!(scanned["result"]["scan"]["files"].as_u64() > Some(0), "{scanned}");
    let diagnostics = verified(&manager, json!({ "action": "diagnostics" }));
    assert!(diagnostics["file_size"].as_u64() > Some(100), "{diagnostics}");
}

fn sha256_of(path: &Path) -> String {
    let output = Command::new("sha256sum").arg(path).output().expect("sha256sum");
    String::from_utf8_lossy(&output.stdout).split(' ').next().expect("hash").to_owned()
}

/// Content that does not become smaller.
fn noise(path: &Path, bytes: usize) {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut file = std::io::BufWriter::new(fs::File::create(path).expect("create"));
    for _ in 0..bytes / 8 {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        file.write_all(&state.to_le_bytes()).expect("write");
    }
    file.flush().expect("flush");
}

#[test]
fn a_collected_file_goes_on_where_it_broke_off() {
    require_root();
    let scratch = Scratch::ext4().expect("scratch");
    let mut agent = agent_on(&scratch, QUIET);
    let mut manager = Manager::start().expect("manager");
    let host = manager.enroll(&agent, &[]).expect("enrolled");
    let path = scratch.join("large");
    noise(&path, 40 << 20);
    let action = json!({
        "action": "collect", "path": path, "password": "infected", "limit": 100 << 20,
    });
    let task = manager.file(&host, &action).expect("filed");
    let part = manager.folder().join("files").join(format!("{task}.part"));
    // Whoever is killed in the middle.
    for round in 1..3_u64 {
        let size = until(PATIENCE, || {
            let size = fs::metadata(&part).ok()?.len();
            (size > round << 20).then_some(size)
        });
        assert!(size.is_some() || manager.folder().join("files").join(&task).exists());
        if round == 1 {
            manager.kill().expect("kill");
            manager.run().expect("again");
        } else {
            agent.kill().expect("kill");
            agent.start().expect("again");
        }
    }
    let ended = manager.ended(&task).expect("ended");
    assert_eq!(ended["stage"], "verified", "{ended}\n{}", agent.log());
    let zip = manager.folder().join("files").join(&task);
    assert_eq!(sha256_of(&zip), ended["file_sha256"].as_str().expect("hash"));
    let mut unzip = Command::new("bsdtar");
    unzip.args(["--passphrase", "infected", "-xOf"]).arg(&zip);
    let content = unzip.stderr(Stdio::inherit()).output().expect("bsdtar").stdout;
    assert!(content == fs::read(&path).expect("read"), "{} bytes", content.len());
    assert_eq!(fs::read_dir(agent.state().join("spool")).expect("spool").count(), 0);
    // What is too large, not there, or no file is refused in words.
    for (path, limit, why) in [
        (path.clone(), 1 << 20, "more than"),
        (scratch.join("none"), 1 << 20, "No such file"),
        (scratch.path().to_owned(), 1 << 20, "not a regular file"),
        (PathBuf::from("/proc/kallsyms"), 1 << 20, "made by the kernel"),
    ] {
        let action =
            json!({ "action": "collect", "path": path, "password": "infected", "limit": limit });
        let task = manager.file(&host, &action).expect("filed");
        let ended = manager.ended(&task).expect("ended");
        assert_eq!(ended["stage"], "failed", "{ended}");
        assert!(ended["observed"].as_str().expect("text").contains(why), "{ended}");
    }
}

#[test]
fn tasks_filed_while_the_agent_is_away_are_taken_up_or_have_expired() {
    require_root();
    let scratch = Scratch::tmpfs(16 << 20).expect("scratch");
    let mut agent = agent_on(&scratch, QUIET);
    let manager = Manager::start().expect("manager");
    let host = manager.enroll(&agent, &[]).expect("enrolled");
    agent.stop().expect("stop");
    let list = json!({ "action": "process_list" });
    let kept = manager.file(&host, &list).expect("filed");
    let taken_back = manager.file(&host, &list).expect("filed");
    manager.cancel(&taken_back).expect("cancelled");
    let late = manager.file_for(&host, &list, Some(1)).expect("filed");
    let expired = manager.ended(&late).expect("ended");
    assert_eq!(expired["stage"], "expired", "{expired}");
    agent.start().expect("start");
    assert_eq!(manager.ended(&kept).expect("ended")["stage"], "verified");
    assert_eq!(manager.ended(&taken_back).expect("ended")["stage"], "cancelled");
}

#[test]
fn a_manager_that_is_down_is_a_red_line_and_nothing_waits_for_it() {
    require_root();
    let scratch = Scratch::ext4().expect("scratch");
    let mut agent = agent_on(&scratch, QUIET);
    let mut manager = Manager::start().expect("manager");
    manager.enroll(&agent, &[]).expect("enrolled");
    manager.kill().expect("kill");
    problem_of(&agent, "");
    // Somebody who takes connections and says nothing is as bad.
    let listener = TcpListener::bind(manager.address()).expect("bind");
    detect(&agent, &scratch, "x");
    let began = std::time::Instant::now();
    agent.stop().expect("stop");
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    agent.start().expect("start");
    detect(&agent, &scratch, "y");
    drop(listener);
    manager.run().expect("again");
    connected(&agent);
    all_arrive_once(&agent, &manager);
}

#[test]
fn without_an_agent_a_host_is_enrolled_by_its_config() {
    require_root();
    let scratch = Scratch::tmpfs(16 << 20).expect("scratch");
    let mut agent = agent_on(&scratch, QUIET);
    agent.stop().expect("stop");
    let manager = Manager::start().expect("manager");
    let token = manager.token(1).expect("token");
    let config = agent.config().to_str().expect("text").to_owned();
    let mut enroll = Command::new(binary("holdfast"));
    enroll.arg("--socket").arg(agent.socket());
    enroll.args(["enroll", "--manager", &manager.url(), "--token", "-"]);
    enroll.args(["--ca-fingerprint", manager.fingerprint(), "--config", &config]);
    let mut child = enroll.stdin(Stdio::piped()).spawn().expect("start");
    child.stdin.take().expect("stdin").write_all(token.as_bytes()).expect("type");
    assert!(child.wait().expect("wait").success());
    agent.start().expect("start");
    connected(&agent);
}
