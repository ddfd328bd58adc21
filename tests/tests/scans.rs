//! Scans that run inside the agent: in the background, hostile trees, late finds, schedules.
//!
//! The scanned file systems are scratch ones and, but for the test that says otherwise, not
//! protected, so that it is the scan that finds what lies there.

mod common;

use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use common::{SOON, failures, wait_event, workers};
use holdfast_tests::agent::{Agent, PATIENCE, Setup};
use holdfast_tests::manager::Manager;
use holdfast_tests::scratch::Scratch;
use holdfast_tests::{eicar, require_root, until};
use serde_json::{Value, json};

/// A minute to come, and what it is late by on a busy machine.
const NEXT_MINUTE: Duration = Duration::from_secs(150);

/// A protected file system for the agent's sake, and one to scan.
struct World {
    agent: Agent,
    scanned: Scratch,
    _protected: Scratch,
}

impl World {
    fn new(prepare: impl FnOnce(&Scratch) -> String) -> Self {
        require_root();
        let scanned = Scratch::tmpfs(512 << 20).expect("scratch");
        Self::on(scanned, prepare)
    }

    fn on(scanned: Scratch, prepare: impl FnOnce(&Scratch) -> String) -> Self {
        require_root();
        let protected = Scratch::tmpfs(16 << 20).expect("scratch");
        let tables = prepare(&scanned);
        let agent = Setup::protect([protected.path()])
            .tables(&format!("[sensor]\nenabled = false\n{tables}"))
            .start()
            .expect("agent");
        Self { agent, scanned, _protected: protected }
    }

    fn path(&self) -> &str {
        self.scanned.path().to_str().expect("text")
    }

    /// Starts a scan in the background; its id.
    fn background(&self, arguments: &[&str]) -> String {
        let arguments = [&["scan", "--background"], arguments].concat();
        let records = self.agent.json(&arguments).expect("begun");
        records[0]["scan_id"].as_str().expect("id").to_owned()
    }

    fn show(&self, id: &str) -> Value {
        self.agent.json(&["scans", "show", id]).expect("show").remove(0)
    }

    fn wait(&self, id: &str, state: &str) -> Value {
        self.agent
            .wait_for(&["scans", "show", id], |record| record["state"] == state)
            .unwrap_or_else(|error| panic!("never {state}: {} {error}", self.show(id)))
    }
}

/// How many were left out for a reason, and the first of them.
fn left_out(record: &Value, reason: &str) -> (u64, String) {
    let list = record["left_out"].as_array().expect("list");
    let one = list.iter().find(|one| one["reason"] == reason);
    one.map_or_else(Default::default, |one| {
        let example = one["examples"][0].as_str().unwrap_or_default().to_owned();
        (one["count"].as_u64().expect("count"), example)
    })
}

fn hash_of(path: &Path) -> String {
    let output = Command::new("sha256sum").arg(path).output().expect("sha256sum");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.trim_start_matches('\\').split(' ').next().expect("hash").to_owned()
}

fn code(agent: &Agent, arguments: &[&str]) -> (i32, String) {
    let output = agent.cli(arguments).expect("holdfast");
    let said = [output.stdout, output.stderr].concat();
    (output.status.code().unwrap_or(-1), String::from_utf8_lossy(&said).into_owned())
}

/// A bundle with a hash list, so that files are read to their end.
fn rules(line: &str) -> tempfile::TempDir {
    let rules = tempfile::Builder::new().prefix("rules").tempdir_in("/root").expect("rules");
    fs::set_permissions(rules.path(), fs::Permissions::from_mode(0o755)).expect("mode");
    fs::write(rules.path().join("list.sha256"), format!("{line}\n")).expect("list");
    rules
}

/// Of nothing.
fn unknown() -> String {
    format!("{} Old.Rule", "ab".repeat(32))
}

/// Content that compresses badly and takes a while.
fn heavy(path: &Path, mebibytes: usize) {
    let chunk: Vec<u8> =
        (0..1_u32 << 20).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    let mut file = File::create(path).expect("create");
    for _ in 0..mebibytes {
        std::io::Write::write_all(&mut file, &chunk).expect("write");
    }
}

fn many(folder: &Path, files: usize) {
    fs::create_dir_all(folder).expect("folder");
    for number in 0..files {
        fs::write(folder.join(format!("file-{number}")), format!("clean {number}")).expect("write");
    }
}

#[test]
fn what_lay_there_is_found_late_and_the_new_rule_is_named() {
    let rules = rules(&unknown());
    let list = |name: &str, line: &str| fs::write(rules.path().join(name), line).expect("list");
    let tables = format!("[scan]\nbundle = {:?}", rules.path());
    let mut world = World::new(|scanned| {
        fs::write(scanned.join("sleeper"), "lies here for years\n").expect("write");
        tables
    });
    let path = world.path().to_owned();
    assert_eq!(code(&world.agent, &["scan", &path]).0, 0, "no rule knows it yet");
    let hash = hash_of(&world.scanned.join("sleeper"));
    list("new.sha256", &format!("{hash} New.Rule\n"));
    assert_eq!(code(&world.agent, &["bundle", "reload"]).0, 0);
    // The origin of the rule is the bundle that brought it, through a restart too.
    world.agent.stop().expect("stop");
    world.agent.start().expect("start");
    let (exit, said) = code(&world.agent, &["scan", &path]);
    assert_eq!(exit, 1, "{said}");
    assert!(said.contains("lay there unchanged for") && said.contains("by ctime"), "{said}");
    assert!(said.contains("New.Rule") && said.contains("newer than the file"), "{said}");
    let event = wait_event(&world.agent, "malware", |event| event["scan_type"] == "on_demand");
    let late = &event["late"];
    assert_eq!((&late["by"], &late["rule"]["newer_than_file"]), (&"ctime".into(), &true.into()));
    assert_eq!(late["rule"]["name"], "New.Rule");
    let newest = world.agent.json(&["scans", "list", "--limit", "1"]).expect("list").remove(0);
    assert_eq!(newest["finds"][0]["late"]["rule"]["name"], "New.Rule", "{newest}");
    assert_eq!(newest["finds"][0]["disposition"], "quarantined");
    assert_ne!(newest["bundle"], "");
    assert_eq!(newest["started_by"], "root on this host");
    let id = newest["scan_id"].as_str().expect("id");
    let (exit, said) = code(&world.agent, &["scans", "show", id]);
    assert!(exit == 0 && said.contains("FOUND") && said.contains("lay there"), "{said}");
}

#[test]
fn a_scan_in_the_background_is_paused_resumed_cancelled_and_remembered_through_a_kill() {
    let mut world = World::new(|scanned| {
        many(&scanned.join("many"), 3000);
        String::new()
    });
    let path = world.path().to_owned();
    // A first one, which tells how many there are.
    let first = world.background(&["--cpu-share", "100", &path]);
    let done = world.wait(&first, "done");
    assert_eq!(done["progress"]["files"], 3000, "{done}");
    assert!(done["running_ms"].as_u64() > Some(0) && done["ended_ms"].is_i64());

    let id = world.background(&["--cpu-share", "1", &path]);
    let running = world
        .agent
        .wait_for(&["scans", "show", &id], |one| one["estimate"]["left_s"].is_u64())
        .expect("progress with an estimate");
    assert_eq!(running["estimate"]["basis"], "last scan", "{running}");
    assert_eq!(code(&world.agent, &["scans", "pause", &id[..13]]).0, 0);
    let paused = world.wait(&id, "paused");
    let files = world.show(&id)["progress"]["files"].clone();
    assert_eq!(paused["progress"]["files"], files, "it waits");
    let (_, listed) = code(&world.agent, &["scans"]);
    assert!(listed.contains("paused"), "{listed}");
    // Another one waits in line behind it, and is cancelled there.
    let behind = world.background(&[&path]);
    assert_eq!(world.show(&behind)["state"], "waiting");
    assert_eq!(code(&world.agent, &["scans", "cancel", &behind]).0, 0);
    assert_eq!(world.wait(&behind, "cancelled")["progress"]["files"], 0);
    assert_eq!(code(&world.agent, &["scans", "resume", &id]).0, 0);
    world
        .agent
        .wait_for(&["scans", "show", &id], |one| one["progress"]["files"].as_u64() > files.as_u64())
        .expect("it goes on");

    world.agent.kill().expect("kill -9");
    world.agent.start().expect("start");
    let record = world.show(&id);
    assert_eq!(record["state"], "interrupted", "{record}");
    assert!(record["note"].as_str().expect("note").contains("while the scan was"), "{record}");
    wait_event(&world.agent, "scan", |event| event["state"] == "interrupted");
    assert_eq!(world.show(&first)["progress"], done["progress"], "what was stays");
    let (exit, said) = code(&world.agent, &["scans", "cancel", &id]);
    assert!(exit == 1 && said.contains("interrupted already"), "{said}");

    let id = world.background(&["--cpu-share", "1", &path]);
    world.wait(&id, "running");
    assert_eq!(code(&world.agent, &["scans", "cancel", &id]).0, 0);
    let cancelled = world.wait(&id, "cancelled");
    assert_eq!(cancelled["note"], "by an operator");
    // An orderly stop says so as well.
    let id = world.background(&["--cpu-share", "1", &path]);
    world.wait(&id, "running");
    assert!(world.agent.stop().expect("stop").success());
    world.agent.start().expect("start");
    assert_eq!(world.show(&id)["note"], "the agent was stopped");
}

#[test]
fn a_share_of_the_processor_is_kept_in_the_middle_of_a_file() {
    let rules = rules(&unknown());
    let world = World::new(|scanned| {
        heavy(&scanned.join("large"), 400);
        format!("[scan]\nbundle = {:?}", rules.path())
    });
    let id = world.background(&["--cpu-share", "10", world.path()]);
    let running = || world.show(&id)["state"] == "running";
    until(SOON, || (running() && !workers(&world.agent).is_empty()).then_some(())).expect("begun");
    // The scan's own worker is the idle one; those for held opens are not.
    let policy = |pid: i32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let rest = stat.rsplit_once(')').map(|(_, rest)| rest.to_owned()).unwrap_or_default();
        rest.split_whitespace().nth(38).map(str::to_owned)
    };
    let idle = || {
        let all = workers(&world.agent);
        let idle: Vec<i32> = all
            .iter()
            .map(|pid| pid.as_raw())
            .filter(|pid| policy(*pid).as_deref() == Some("5"))
            .collect();
        (idle.len() == 1 && all.len() > 1).then(|| idle[0])
    };
    let worker = until(SOON, idle).expect("one idle worker beside the others");
    let ticks = || {
        let stat = fs::read_to_string(format!("/proc/{worker}/stat")).unwrap_or_default();
        let rest = stat.rsplit_once(')').map(|(_, rest)| rest.to_owned()).unwrap_or_default();
        let fields: Vec<u64> =
            rest.split_whitespace().skip(11).take(2).filter_map(|one| one.parse().ok()).collect();
        fields.iter().sum::<u64>()
    };
    let (begun, before) = (Instant::now(), ticks());
    let used = until(PATIENCE, || {
        let (used, passed) = (ticks().checked_sub(before)?, begun.elapsed());
        (passed > Duration::from_millis(1500) || !running()).then_some((used, passed))
    })
    .expect("watched");
    // A hundred ticks a second.
    let share = used.0 as f64 / 100.0 / used.1.as_secs_f64();
    println!("share {share:.3} of a core, asked for 0.10");
    assert!(share < 0.2, "{share}");
    assert_eq!(code(&world.agent, &["scans", "cancel", &id]).0, 0);
    world.wait(&id, "cancelled");
}

#[test]
fn held_opens_do_not_wait_for_a_scan() {
    require_root();
    // Here the scanned file system is the protected one.
    let scratch = Scratch::tmpfs(512 << 20).expect("scratch");
    many(&scratch.join("many"), 4000);
    heavy(&scratch.join("large"), 300);
    let rules = rules(&unknown());
    let agent = Setup::protect([scratch.path()])
        .tables(&format!("[sensor]\nenabled = false\n[scan]\nbundle = {:?}", rules.path()))
        .start()
        .expect("agent");
    let mut number = 0;
    let mut opens = |count: usize| {
        let mut times: Vec<Duration> = (0..count)
            .map(|_| {
                number += 1;
                let path = scratch.join(format!("held-{number}"));
                fs::write(&path, format!("fresh {number}")).expect("write");
                let begun = Instant::now();
                fs::read(&path).expect("clean");
                begun.elapsed()
            })
            .collect();
        times.sort();
        (times[count / 2], times[count * 95 / 100])
    };
    let alone = opens(300);
    let path = scratch.path().to_str().expect("text");
    let begun =
        agent.json(&["scan", "--background", "--cpu-share", "100", path]).expect("begun").remove(0);
    let id = begun["scan_id"].as_str().expect("id");
    let running = || agent.json(&["scans", "show", id]).expect("show")[0]["state"] == "running";
    until(SOON, || running().then_some(())).expect("it runs");
    let beside = opens(300);
    println!("median and p95 alone {alone:?}, beside a scan {beside:?}; still runs: {}", running());
    assert_eq!(failures(&agent, "deadline"), 0);
    assert_eq!(failures(&agent, "overload"), 0);
    // What a wait for the scan's own work would cost: the large file takes a second and more.
    assert!(beside.1 < Duration::from_millis(100), "{beside:?}");
    let ended = agent.wait_for(&["scans", "show", id], |one| one["state"] == "done").expect("ends");
    assert!(ended["progress"]["files"].as_u64() >= Some(4001), "{ended}");
}

#[test]
fn a_hostile_tree_is_walked_once_and_what_is_left_out_is_told() {
    let rules = rules(&unknown());
    let world = World::new(|scanned| {
        let root = scanned.path();
        fs::write(root.join("clean"), "clean").expect("write");
        symlink("/etc", root.join("link")).expect("link");
        symlink(root, root.join("loop")).expect("link");
        for name in ["pipe", "pipe2"] {
            let made = Command::new("mkfifo").arg(root.join(name)).status().expect("mkfifo");
            assert!(made.success());
        }
        for number in 0..5 {
            fs::hard_link(root.join("clean"), root.join(format!("again-{number}"))).expect("link");
        }
        let odd = std::ffi::OsStr::from_bytes(b"new\nline\xff\x1b[2J");
        fs::write(root.join(odd), eicar()).expect("write");
        File::create(root.join("sparse")).expect("create").set_len(4 << 30).expect("sparse");
        format!("[scan]\nrescan_limit_s = 3\nbundle = {:?}", rules.path())
    });
    let deep = Command::new("python3")
        .arg("-c")
        .arg("import os,sys\nos.chdir(sys.argv[1])\nfor _ in range(400):\n os.mkdir('d'); os.chdir('d')")
        .arg(world.path())
        .status();
    assert!(deep.expect("python3").success());
    let mounted = world.scanned.join("proc");
    fs::create_dir(&mounted).expect("folder");
    nix::mount::mount(
        Some("proc"),
        &mounted,
        Some("proc"),
        nix::mount::MsFlags::empty(),
        None::<&str>,
    )
    .expect("mount");
    let (exit, said) = code(&world.agent, &["scan", world.path()]);
    nix::mount::umount(&mounted).expect("umount");
    assert_eq!(exit, 1, "{said}");
    assert!(!said.contains('\x1b') && said.contains("new\\"), "{said}");
    let record = world.agent.json(&["scans", "list", "--limit", "1"]).expect("list").remove(0);
    assert_eq!(left_out(&record, "symlink").0, 2, "{record}");
    assert_eq!(left_out(&record, "special").0, 2);
    assert_eq!(left_out(&record, "hard_link").0, 5);
    assert_eq!(left_out(&record, "pseudo_file_system").0, 1);
    let (deep, example) = left_out(&record, "too_deep");
    assert!(deep == 1 && example.ends_with("/d/d"), "{record}");
    assert_eq!(record["progress"]["found"], 1);
    let sparse = left_out(&record, "too_slow").0;
    // Four gibibytes of nothing: read to the end or given up at the limit, never in between.
    assert_eq!(record["progress"]["files"].as_u64(), Some(3 - sparse), "{record}");
    assert_eq!(record["progress"]["failed"].as_u64(), Some(1 + sparse));
}

#[test]
fn a_folder_of_a_million_entries_takes_no_memory_to_walk() {
    const ENTRIES: usize = 1_000_000;
    let world = World::new(|scanned| {
        let folder = scanned.join("million");
        fs::create_dir(&folder).expect("folder");
        fs::write(folder.join("0"), "clean").expect("write");
        let names = File::open(&folder).expect("folder");
        for number in 1..ENTRIES {
            let name = number.to_string();
            rustix::fs::linkat(&names, "0", &names, name.as_str(), rustix::fs::AtFlags::empty())
                .expect("another name");
        }
        String::new()
    });
    let resident = || {
        let status =
            fs::read_to_string(format!("/proc/{}/status", world.agent.pid())).expect("status");
        let line = status.lines().find(|line| line.starts_with("VmHWM:")).expect("line").to_owned();
        line.split_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok()).expect("number")
    };
    let before = resident();
    let begun = Instant::now();
    let id = world.background(&["--cpu-share", "100", world.path()]);
    let done = world.wait(&id, "done");
    let grown = resident().saturating_sub(before);
    println!("{ENTRIES} entries in {:?}, {grown} KiB more at the highest", begun.elapsed());
    assert_eq!(left_out(&done, "hard_link").0, ENTRIES as u64 - 1);
    assert_eq!(done["progress"]["files"], 1);
    assert!(grown < 16 << 10, "{grown} KiB");
}

#[test]
fn a_quick_scan_finds_a_program_that_runs_even_when_its_file_is_gone() {
    let programs = Scratch::tmpfs(64 << 20).expect("scratch");
    let program = programs.join("implant");
    let mut content = fs::read("/bin/sleep").expect("sleep");
    content.extend_from_slice(b"implanted");
    fs::write(&program, content).expect("write");
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("mode");
    let rules = rules(&format!("{} Implant.Test", hash_of(&program)));
    let world = World::new(|scanned| {
        fs::write(scanned.join("download"), eicar()).expect("write");
        format!("[scan]\nbundle = {:?}\nquick = [{:?}]", rules.path(), scanned.path())
    });
    let mut child = Command::new(&program).arg("600").spawn().expect("runs");
    fs::remove_file(&program).expect("gone");
    let (exit, said) = code(&world.agent, &["scan", "--quick", "--json"]);
    child.kill().expect("kill");
    child.wait().expect("end");
    assert_eq!(exit, 1, "{said}");
    assert!(said.contains("Implant.Test"), "{said}");
    assert!(said.contains("Eicar-Test-File"), "and the download: {said}");
    assert!(!world.scanned.join("download").exists());
    let record = world.agent.json(&["scans", "list", "--limit", "1"]).expect("list").remove(0);
    assert_eq!((&record["scope"], &record["progress"]["found"]), (&"quick".into(), &2.into()));
}

#[test]
fn a_full_scan_looks_at_each_file_system_once_and_not_at_what_lies_elsewhere() {
    let scanned = Scratch::ext4().expect("scratch");
    let inner = scanned.join("inner");
    let again = scanned.join("again");
    for folder in [&inner, &again] {
        fs::create_dir(folder).expect("folder");
    }
    let flags = nix::mount::MsFlags::empty();
    nix::mount::mount(Some("tmpfs"), &inner, Some("tmpfs"), flags, Some("size=1m")).expect("tmpfs");
    fs::write(inner.join("evil"), eicar()).expect("write");
    fs::write(scanned.join("clean"), "clean").expect("write");
    nix::mount::mount(
        Some(&inner),
        &again,
        None::<&str>,
        nix::mount::MsFlags::MS_BIND,
        None::<&str>,
    )
    .expect("bind");
    let world = World::on(scanned, |scanned| format!("[scan]\nfull = [{:?}]", scanned.path()));
    let (exit, said) = code(&world.agent, &["scan", "--full"]);
    for mount in [&again, &inner] {
        nix::mount::umount(mount).expect("umount");
    }
    assert_eq!(exit, 1, "{said}");
    let record = world.agent.json(&["scans", "list", "--limit", "1"]).expect("list").remove(0);
    assert_eq!(record["progress"]["found"], 1, "{record}");
    let places: Vec<&str> =
        record["places"].as_array().expect("places").iter().filter_map(Value::as_str).collect();
    assert_eq!(places.len(), 2, "{places:?}");
    assert!(places.contains(&inner.to_str().expect("text")), "{places:?}");
    // In the walk from above, and as a second view of the same.
    assert_eq!(left_out(&record, "other_mount").0, 3, "{record}");
}

#[test]
fn schedules_are_kept_run_skipped_and_forgotten() {
    let mut world = World::new(|scanned| {
        many(&scanned.join("many"), 500);
        format!(
            "[[scan.schedule]]\nname = \"from config\"\npaths = [{:?}]\nevery = \"3 days at 01:00\"\n\
             jitter = \"30m\"\ncatch_up = true\n",
            scanned.path()
        )
    });
    let path = world.path().to_owned();
    let add = ["scan", &path, "--schedule", "* * * * *", "--name", "minutely", "--cpu-share", "1"];
    let (exit, said) = code(&world.agent, &add);
    assert_eq!(exit, 0, "{said}");
    let (exit, said) = code(&world.agent, &add);
    assert!(exit == 2 && said.contains("there is one of this name"), "{said}");
    let (exit, said) = code(&world.agent, &["scan", "--full", "--schedule", "0 1 * 13 *"]);
    assert!(exit == 64 && said.contains("field 4 (month)"), "{said}");
    world.agent.kill().expect("kill -9");
    world.agent.start().expect("start");
    let all = world.agent.json(&["scans", "schedules", "list"]).expect("list");
    assert_eq!(all.len(), 2, "{all:?}");
    let added = all.iter().find(|one| one["name"] == "minutely").expect("kept");
    assert!(added["origin"] == "added" && added["next_ms"].is_i64(), "{added}");

    let of = |state: &str| {
        let all = world.agent.json(&["scans", "list", "--limit", "0"]).expect("list");
        all.into_iter().find(|one| one["schedule"] == "minutely" && one["state"] == state)
    };
    let run = until(NEXT_MINUTE, || of("running")).expect("it comes");
    assert!(run["started_by"].as_str().expect("by").starts_with("schedule minutely"), "{run}");
    let id = run["scan_id"].as_str().expect("id");
    assert_eq!(code(&world.agent, &["scans", "pause", id]).0, 0);
    let skipped = until(NEXT_MINUTE, || of("skipped")).expect("the next is due meanwhile");
    assert!(skipped["note"].as_str().expect("note").contains("still going"), "{skipped}");
    wait_event(&world.agent, "scan", |event| event["state"] == "skipped");
    assert_eq!(code(&world.agent, &["scans", "schedules", "delete", "minutely"]).0, 0);
    let (exit, said) = code(&world.agent, &["scans", "schedules", "delete", "from config"]);
    assert!(exit == 1 && said.contains("stands in the config"), "{said}");
    assert_eq!(world.agent.json(&["scans", "schedules", "list"]).expect("list").len(), 1);
}

#[test]
fn a_config_with_a_bad_schedule_is_refused_with_file_line_and_place() {
    require_root();
    let scratch = Scratch::tmpfs(16 << 20).expect("scratch");
    for (line, named) in [
        ("cron = \"0 25 * * *\"", "field 2 (hour)"),
        ("every = \"3 days\"", "at what time"),
        ("cron = \"0 1 * * *\"\nevery = \"day at 01:00\"", "either cron or every"),
        ("cron = \"0 1 * * *\"\njitter = \"2 days\"", "jitter"),
        ("cron = \"0 1 * * *\"\ntimezone = \"Mars/Olympus\"", "Mars/Olympus"),
        ("cron = \"0 1 * * *\"\ncpu_share = 0", "1 to 100"),
    ] {
        let table = format!("[[scan.schedule]]\nname = \"x\"\nkind = \"full\"\n{line}\n");
        let started = Setup::protect([scratch.path()])
            .tables(&format!("[sensor]\nenabled = false\n{table}"))
            .start();
        let error = format!("{:#}", started.expect_err(line));
        assert!(error.contains("78") && error.contains(named), "{line}: {error}");
        assert!(error.contains("holdfast.toml") && error.contains("line "), "{line}: {error}");
    }
}

#[test]
fn a_managers_scan_tells_how_far_it_is_and_is_cancelled() {
    require_root();
    let scratch = Scratch::tmpfs(256 << 20).expect("scratch");
    many(&scratch.join("many"), 3000);
    let agent = Setup::protect([scratch.path()])
        .tables("[sensor]\nenabled = false")
        .start()
        .expect("agent");
    let manager = Manager::start().expect("manager");
    let host = manager.enroll(&agent, &[]).expect("enrolled");
    let paths: [PathBuf; 1] = [scratch.path().to_owned()];
    let slow = json!({ "action": "scan", "paths": paths, "cpu_share": 1 });
    let task = manager.file(&host, &slow).expect("filed");
    let told = until(PATIENCE, || {
        let now = manager.get(&format!("/api/v1/tasks/{task}")).ok()?;
        let observed = now["observed"].as_str()?;
        (now["stage"] == "delivered" && observed.contains("running")).then(|| observed.to_owned())
    });
    println!("{}", told.expect("its progress reaches the manager"));
    manager.cancel(&task).expect("cancelled");
    let ended = manager.ended(&task).expect("ended");
    assert_eq!(ended["stage"], "cancelled", "{ended}");
    let record = agent.json(&["scans", "list", "--limit", "1"]).expect("list").remove(0);
    assert_eq!(record["state"], "cancelled", "{record}");
    assert!(record["started_by"].as_str().expect("by").starts_with("task "), "{record}");
    // The whole, and its record as an event for the manager's history.
    let task = manager
        .file(&host, &json!({ "action": "scan", "paths": paths, "cpu_share": 100 }))
        .expect("filed");
    let ended = manager.ended(&task).expect("ended");
    assert_eq!(ended["stage"], "verified", "{ended}");
    assert_eq!(ended["result"]["scan"]["files"], 3000, "{ended}");
    let id = ended["result"]["scan_id"].clone();
    let event =
        wait_event(&agent, "scan", |event| event["scan_id"] == id && event["state"] == "done");
    let arrived = until(PATIENCE, || {
        let ids = manager.events(Some("scan")).ok()?;
        ids.iter().any(|one| *one == event["id"] || one["id"] == event["id"]).then_some(())
    });
    assert!(arrived.is_some(), "its record reaches the manager");
}
