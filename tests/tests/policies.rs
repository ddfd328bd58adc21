//! A real agent under a real manager's policy: what it comes to on the host, while files are being
//! opened, over kills, and what it can never do.

use std::fs::{self, File};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use holdfast_tests::agent::{Agent, PATIENCE, Setup};
use holdfast_tests::manager::Manager;
use holdfast_tests::scratch::Scratch;
use holdfast_tests::{eicar, require_root, until};
use serde_json::{Value, json};

const QUIET: &str = "[sensor]\nenabled = false";

fn agent_on(scratch: &Scratch, tables: &str) -> Agent {
    Setup::protect([scratch.path()]).tables(&format!("{QUIET}\n{tables}")).start().expect("agent")
}

fn status(agent: &Agent) -> Value {
    agent.json(&["status"]).expect("status").pop().expect("a status")
}

fn report(agent: &Agent) -> Value {
    agent.json(&["policy"]).expect("policy").pop().expect("a report")
}

/// Waits until the agent says that it runs this version.
fn runs(agent: &Agent, version: u64) {
    let found = until(PATIENCE, || {
        (status(agent)["policy"]["running"]["version"] == version).then_some(())
    });
    found.unwrap_or_else(|| panic!("{}\n{}", status(agent)["policy"], agent.log()));
}

/// A policy for the hosts of tests.
struct Policy<'a> {
    manager: &'a Manager,
    path: String,
}

impl<'a> Policy<'a> {
    fn new(manager: &'a Manager) -> Self {
        let body = json!({ "name": "web", "stages": [100], "soak_s": 0 });
        let made = manager.post("/api/v1/policies", &body).expect("policy");
        let path = format!("/api/v1/policies/{}", made["id"].as_str().expect("id"));
        let body = json!({ "groups": ["tests"], "reason": "a test" });
        manager.ask("PUT", &format!("{path}/groups"), &body).expect("assigned");
        Self { manager, path }
    }

    fn put(&self, document: &str) -> u64 {
        let body = json!({ "document": document, "reason": "a test" });
        let put = self.manager.post(&format!("{}/versions", self.path), &body).expect("put");
        put["version"].as_u64().expect("a number")
    }

    /// Waits until its roll-out has ended so.
    fn ended(&self, version: u64, how: &str) -> Value {
        let path = format!("{}/versions/{version}", self.path);
        self.manager.wait_for(&path, |one| one["state"] == how).expect(how)
    }
}

fn mode(mode: &str) -> String {
    format!("[on_access]\nmode = \"{mode}\"\n")
}

/// Whether a malicious file can be read.
fn readable(path: &Path) -> bool {
    File::open(path).is_ok()
}

#[test]
fn the_mode_changes_while_files_are_opened_and_no_open_is_lost_or_waits() {
    require_root();
    let scratch = Scratch::ext4().expect("scratch");
    let agent = agent_on(&scratch, "");
    let manager = Manager::start().expect("manager");
    let host = manager.enroll(&agent, &[]).expect("enrolled");
    let policy = Policy::new(&manager);
    let clean: Vec<_> = (0..32).map(|number| scratch.join(format!("clean{number}"))).collect();
    for path in &clean {
        fs::write(path, "a harmless file").expect("write");
    }
    let (stop, opens) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let openers: Vec<_> = (0..2)
        .map(|_| {
            let (stop, opens, clean) = (Arc::clone(&stop), Arc::clone(&opens), clean.clone());
            thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    for path in &clean {
                        // Written anew: no verdict is remembered for it.
                        fs::write(path, "another harmless file").expect("write");
                        File::open(path).expect("a clean file opens under any policy");
                        opens.fetch_add(1, Ordering::Relaxed);
                    }
                }
            })
        })
        .collect();
    let malicious = scratch.join("malicious");
    for round in 0..3_u64 {
        let detect = policy.put(&mode("detect"));
        assert_eq!(detect, 2 * round + 1);
        runs(&agent, detect);
        assert_eq!(status(&agent)["mode"], "detect");
        fs::write(&malicious, eicar()).expect("write");
        assert!(readable(&malicious), "in detect mode nothing is denied");
        let block = policy.put(&mode("block"));
        runs(&agent, block);
        assert_eq!(status(&agent)["mode"], "block");
        assert!(!readable(&malicious), "at the very next open");
        let _ = until(PATIENCE, || (!malicious.exists()).then_some(()));
    }
    stop.store(true, Ordering::Relaxed);
    openers.into_iter().for_each(|opener| opener.join().expect("opener"));
    assert!(opens.load(Ordering::Relaxed) > 100);
    let held = status(&agent)["on_access"].clone();
    assert_eq!(held["past_deadline"], 0, "{held}");
    manager
        .wait_for(&format!("/api/v1/hosts/{host}"), |host| {
            host["policy"]["running"] == 6 && host["policy"]["wanted"] == 6
        })
        .expect("told");
    let events = agent.json(&["events", "--kind", "policy", "--limit", "0"]).expect("events");
    assert_eq!(events.iter().filter(|event| event["action"] == "applied").count(), 6);
}

#[test]
fn what_is_protected_changes_without_an_unmarked_moment() {
    require_root();
    let (first, other) = (Scratch::ext4().expect("one"), Scratch::ext4().expect("other"));
    let agent = agent_on(&first, "");
    let manager = Manager::start().expect("manager");
    manager.enroll(&agent, &[]).expect("enrolled");
    let policy = Policy::new(&manager);
    let protect = |paths: &[&Path]| format!("[on_access]\nprotect = {paths:?}\n");
    let [here, there] = [&first, &other].map(|scratch| scratch.join("malicious"));
    fs::write(&there, eicar()).expect("write");
    assert!(readable(&there), "not protected");
    runs(&agent, policy.put(&protect(&[first.path(), other.path()])));
    assert!(!readable(&there));
    runs(&agent, policy.put(&protect(&[other.path()])));
    fs::write(&here, eicar()).expect("write");
    assert!(readable(&here), "let go");
    let second = other.join("second");
    fs::write(&second, eicar()).expect("write");
    assert!(!readable(&second));
    // Nothing: as the host's own config has it.
    runs(&agent, policy.put(""));
    assert!(!readable(&here));
    fs::write(&second, eicar()).expect("write");
    assert!(readable(&second));
    let systems = status(&agent)["file_systems"].clone();
    assert_eq!(systems.as_array().map(Vec::len), Some(1), "{systems}");
}

#[test]
fn every_ruled_key_is_changed_in_the_running_agent() {
    require_root();
    let scratch = Scratch::ext4().expect("scratch");
    let agent = agent_on(&scratch, "");
    let manager = Manager::start().expect("manager");
    manager.enroll(&agent, &[]).expect("enrolled");
    let policy = Policy::new(&manager);
    let [cache, large] = ["cache", "large"].map(|name| scratch.join(name));
    fs::create_dir(&cache).expect("folder");
    runs(
        &agent,
        policy.put(&format!(
            "[on_access]\nmax_file_size = 1000\nstrict = true\ndeadline_ms = 700\n\
         [on_access.exclude]\npaths = [\"{}/**\"]\n\
         [scan]\ncpu_share = 7\n\
         [[scan.schedule]]\nname = \"nightly\"\nkind = \"full\"\nevery = \"day at 03:00\"\n\
         [quarantine]\nmax_size = \"1 MiB\"\n\
         [models]\noff = [\"Cron\"]\n[models.response]\n\"Network Sniffing\" = [\"kill\"]\n\
         [isolation]\nallow = [\"192.0.2.7:443\"]\n",
            cache.display()
        )),
    );
    let excluded = cache.join("malicious");
    fs::write(&excluded, eicar()).expect("write");
    assert!(readable(&excluded), "excluded");
    fs::write(&large, vec![b'x'; 2000]).expect("write");
    assert!(!readable(&large), "too large, and strict");
    let schedules = agent.json(&["scans", "schedules", "list"]).expect("schedules");
    assert!(schedules[0]["name"] == "nightly" && schedules[0]["origin"] == "policy");
    let models = agent.json(&["models", "list"]).expect("models");
    let model = |title: &str| models.iter().find(|one| one["title"] == title).expect("model");
    assert_eq!(model("Cron")["enabled"], false);
    assert_eq!(model("Network Sniffing")["response"], "kill");
    assert!(!agent.cli(&["models", "enable", "Cron"]).expect("run").status.success());
    let settings = report(&agent)["settings"].clone();
    for (key, value) in [
        ("on_access.deadline_ms", "700"),
        ("scan.cpu_share", "7"),
        ("quarantine.max_size", "1048576 bytes"),
        ("isolation.allow", "192.0.2.7:443"),
    ] {
        let mut rows = settings.as_array().expect("rows").iter();
        let row = rows.find(|row| row["key"] == key).expect(key);
        assert_eq!((&row["value"], &row["by_policy"]), (&json!(value), &json!(true)), "{row}");
    }
    let shown = agent.cli(&["policy"]).expect("run");
    let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
    assert!(shown.contains("web version 1") && shown.contains("policy"), "{shown}");
    // And all of it back.
    runs(&agent, policy.put(""));
    assert!(!readable(&excluded));
    assert!(readable(&large));
    assert!(agent.json(&["scans", "schedules", "list"]).expect("schedules").is_empty());
}

#[test]
fn what_cannot_be_put_in_force_is_refused_whole_and_the_one_before_stays() {
    require_root();
    let scratch = Scratch::tmpfs(16 << 20).expect("scratch");
    let mut agent = agent_on(&scratch, "");
    let manager = Manager::start().expect("manager");
    let host = manager.enroll(&agent, &[]).expect("enrolled");
    let policy = Policy::new(&manager);
    let good = policy.put(&mode("detect"));
    runs(&agent, good);
    policy.ended(good, "done");
    // The manager cannot know that these are not there.
    for bad in [
        "[on_access]\nmode = \"block\"\nprotect = [\"/nowhere/at/all\"]\n",
        "[on_access]\nmode = \"block\"\n[models]\noff = [\"No Such Model\"]\n",
    ] {
        let version = policy.put(bad);
        let stopped = policy.ended(version, "stopped");
        assert_eq!(stopped["host"], host.as_str());
        assert!(stopped["why"].as_str().expect("why").contains("it refuses"), "{stopped}");
        // Back by a version of its own.
        runs(&agent, version + 1);
        assert_eq!(status(&agent)["mode"], "detect", "nothing of it was put in force");
        assert_eq!(status(&agent)["policy"]["refused"], Value::Null);
    }
    manager
        .wait_for("/api/v1/alerts?kind=policy", |page| {
            page["items"].as_array().map(Vec::len) == Some(2)
        })
        .expect("alerts");
    // Without a manager the last good one runs.
    let mut manager = manager;
    manager.kill().expect("killed");
    agent.kill().expect("killed");
    agent.start().expect("again");
    assert_eq!(status(&agent)["mode"], "detect");
    assert_eq!(status(&agent)["policy"]["running"]["version"], 5);
}

#[test]
fn a_host_keeps_what_its_config_keeps_and_takes_none_where_it_says_so() {
    require_root();
    let scratch = Scratch::tmpfs(16 << 20).expect("scratch");
    let agent = agent_on(&scratch, "[policy]\nkeep = [\"on_access\"]");
    let manager = Manager::start().expect("manager");
    manager.enroll(&agent, &[]).expect("enrolled");
    let policy = Policy::new(&manager);
    runs(&agent, policy.put(&format!("{}[scan]\ncpu_share = 3\n", mode("detect"))));
    assert_eq!(status(&agent)["mode"], "block");
    assert_eq!(status(&agent)["policy"]["running"]["kept"], json!(["on_access.mode"]));
    let other = Scratch::tmpfs(16 << 20).expect("scratch");
    let closed = agent_on(&other, "[policy]\naccept = false");
    let host = manager.enroll(&closed, &[]).expect("enrolled");
    let version = policy.put(&mode("detect"));
    runs(&agent, version);
    let shown = manager
        .wait_for(&format!("/api/v1/hosts/{host}"), |host| host["policy"]["accepts"] == false);
    assert_eq!(shown.expect("told")["policy"]["running"], 0);
    // Nobody waits for it.
    policy.ended(version, "done");
    assert_eq!(status(&closed)["mode"], "block");
}

#[test]
fn an_agent_killed_while_it_takes_a_policy_runs_one_or_the_other_whole() {
    require_root();
    let scratch = Scratch::tmpfs(16 << 20).expect("scratch");
    let mut agent = agent_on(&scratch, "");
    let manager = Manager::start().expect("manager");
    manager.enroll(&agent, &[]).expect("enrolled");
    let policy = Policy::new(&manager);
    let kept = agent.state().join("policy.json");
    for round in 0..4_u64 {
        let detect = round % 2 == 0;
        let version = policy.put(&mode(if detect { "detect" } else { "block" }));
        // As soon as it is on disk, whatever has it by then.
        let there = until(PATIENCE, || {
            let text = fs::read_to_string(&kept).ok()?;
            let json: Value = serde_json::from_str(&text).expect("whole at any time");
            (json["version"] == version).then_some(())
        });
        assert!(there.is_some(), "{}", agent.log());
        agent.kill().expect("killed");
        agent.start().expect("again");
        let now = status(&agent);
        assert_eq!(now["policy"]["running"]["version"], version);
        assert_eq!(now["mode"], if detect { "detect" } else { "block" });
        assert_eq!(now["policy"]["problem"], Value::Null);
    }
    // What a crash left beside it is nobody's policy.
    agent.kill().expect("killed");
    fs::write(agent.state().join("policy.json.new"), "{").expect("write");
    agent.start().expect("again");
    assert_eq!(status(&agent)["policy"]["running"]["version"], 4);
    // A damaged one is not run, and said to be so.
    agent.kill().expect("killed");
    fs::write(&kept, "{\"id\":").expect("write");
    agent.start().expect("again");
    assert!(status(&agent)["policy"]["problem"].as_str().expect("red").contains("damaged"));
    // The manager gives it again.
    runs(&agent, 4);
    assert_eq!(status(&agent)["policy"]["problem"], Value::Null);
}

/// Nothing is against a host, but for what a kernel without BPF LSM cannot do.
fn proven(host: &Value) -> bool {
    let reasons = host["reasons"].as_array().map_or(&[][..], Vec::as_slice);
    let name = |reason: &Value| reason["name"].as_str().unwrap_or_default().to_owned();
    host["health"] != "new" && reasons.iter().all(|one| name(one).starts_with("self-protection"))
}

#[test]
fn a_policy_that_leaves_everything_out_is_shown_loudly_and_turns_the_host_red() {
    require_root();
    let scratch = Scratch::ext4().expect("scratch");
    let agent = agent_on(&scratch, "[self_proof]\nenabled = true");
    let manager = Manager::start().expect("manager");
    let host = manager.enroll(&agent, &[]).expect("enrolled");
    manager.wait_for(&format!("/api/v1/hosts/{host}"), proven).expect("proven");
    let policy = Policy::new(&manager);
    let body = json!({ "stages": [100], "soak_s": 86_400 });
    manager.ask("PATCH", &policy.path, &body).expect("edited");
    let document = "[on_access.exclude]\npaths = [\"/**\"]\n";
    let body = json!({ "document": document, "reason": "a test" });
    let put = manager.post(&format!("{}/versions", policy.path), &body).expect("put");
    assert!(put["warnings"][0].as_str().expect("loud").contains("covers every file"), "{put}");
    runs(&agent, 1);
    let shown = agent.cli(&["policy"]).expect("run");
    let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
    assert!(shown.contains("WARNING") && shown.contains("covers every file"), "{shown}");
    // The proof that follows finds what it does to the host, and the roll-out ends there.
    let stopped = policy.ended(1, "stopped");
    let why = stopped["why"].as_str().expect("why");
    assert!(why.contains("turned red") && stopped["host"] == host.as_str(), "{stopped}");
    runs(&agent, 2);
    manager.wait_for(&format!("/api/v1/hosts/{host}"), proven).expect("proven again");
}
