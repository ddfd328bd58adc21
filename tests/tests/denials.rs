//! What is denied by order: paths under whatever name somebody opens them, on one host and on a
//! fleet, and what no order can deny.

use std::fs::{self, File};
use std::io::{ErrorKind, Read};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use holdfast_tests::agent::{Agent, PATIENCE, Setup, binary};
use holdfast_tests::manager::Manager;
use holdfast_tests::observe::{counter, settle};
use holdfast_tests::scratch::Scratch;
use holdfast_tests::{require_root, until};
use serde_json::{Value, json};

const QUIET: &str = "[sensor]\nenabled = false";

fn denied(path: &Path) -> bool {
    match File::open(path) {
        Ok(_) => false,
        Err(error) if error.kind() == ErrorKind::PermissionDenied => true,
        Err(error) => panic!("{}: {error}", path.display()),
    }
}

fn text(path: &Path) -> &str {
    path.to_str().expect("text")
}

fn deny(agent: &Agent, path: &str) -> Result<(), String> {
    let output = agent.cli(&["deny", "path", path, "--reason", "a test"]).expect("holdfast");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    if output.status.success() { Ok(()) } else { Err(said) }
}

/// In a mount namespace of its own, where the folder has another name.
fn denied_by_another_mount(folder: &Path, name: &str) -> bool {
    let other = tempfile::tempdir().expect("folder");
    let script = "mount --make-rprivate / && mount --bind \"$1\" \"$2\" && cat \"$2/$3\"";
    let output = Command::new("unshare")
        .args(["-m", "sh", "-c", script, "sh", text(folder), text(other.path()), name])
        .output()
        .expect("unshare");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() || said.contains("not permitted"), "{said}");
    !output.status.success()
}

#[test]
fn a_denied_path_is_denied_by_every_name_over_restarts_and_nothing_else_is() {
    require_root();
    let scratch = Scratch::ext4().expect("scratch");
    let mut agent = Setup::protect([scratch.path()]).tables(QUIET).start().expect("agent");
    let real = scratch.path().canonicalize().expect("real");
    let path = |name: &str| real.join(name);
    fs::create_dir(path("sub")).expect("folder");
    for name in ["tool", "other", "third"] {
        fs::write(path(name), "harmless").expect("write");
        // The kernel lets later opens pass by itself, where it may.
        (0..3).for_each(|_| assert!(!denied(&path(name)), "{name}"));
    }
    fs::hard_link(path("tool"), path("hard")).expect("link");
    symlink(path("tool"), path("soft")).expect("link");
    symlink(&real, path("sub/loop")).expect("link");
    deny(&agent, text(&path("tool"))).expect("denied");
    for name in ["tool", "hard", "soft", "sub/../tool", "sub/loop/tool"] {
        assert!(denied(&path(name)), "{name}");
    }
    assert!(denied_by_another_mount(&real, "tool") && !denied_by_another_mount(&real, "other"));
    assert!(!denied(&path("other")) && !denied(&path("third")));
    let blocked = agent
        .wait_for(&["events", "--kind", "malware"], |event| {
            event["signature"]["engine"] == "denied_path"
        })
        .expect("told");
    assert_eq!(
        (&blocked["path"], &blocked["disposition"], &blocked["quarantine_id"]),
        (&json!(text(&path("tool"))), &json!("blocked"), &Value::Null),
        "{blocked}"
    );
    assert!(blocked["process"]["key"]["pid"].is_u64(), "who: {blocked}");
    // Moved away it is the same file; what is put in its place is denied, too, also where the kernel
    // let it pass under its old name.
    fs::rename(path("tool"), path("away")).expect("rename");
    assert!(denied(&path("away")) && denied(&path("hard")));
    fs::rename(path("other"), path("tool")).expect("rename");
    assert!(denied(&path("tool")));
    // A place that is not there yet, by a folder that is a link.
    deny(&agent, text(&path("sub/loop/later/x"))).expect("denied");
    fs::create_dir(path("later")).expect("folder");
    fs::rename(path("third"), path("later/x")).expect("rename");
    assert!(denied(&path("later/x")));
    fs::write(path("later/y"), "harmless").expect("write");
    assert!(!denied(&path("later/y")));
    agent.kill().expect("kill");
    agent.start().expect("start");
    assert!(denied(&path("tool")) && denied(&path("later/x")) && !denied(&path("later/y")));
    let listed = agent.json(&["deny", "list"]).expect("list");
    let values: Vec<&str> = listed.iter().filter_map(|one| one["value"].as_str()).collect();
    assert_eq!(values, [text(&path("tool")), text(&path("sub/loop/later/x"))]);
    assert!(listed[0]["why"].as_str().is_some_and(|why| why.contains("a test")), "{listed:?}");
    for value in values {
        assert!(agent.cli(&["deny", "remove", value]).expect("holdfast").status.success());
    }
    assert!(!denied(&path("tool")) && !denied(&path("later/x")) && !denied(&path("away")));
    assert!(agent.json(&["deny", "list"]).expect("list").is_empty());
}

#[test]
fn what_the_kernel_let_pass_by_itself_is_denied_by_path_and_by_hash_and_open_files_go_on() {
    require_root();
    let scratch = Scratch::ext4().expect("scratch");
    let agent = Setup::protect([scratch.path()]).tables(QUIET).start().expect("agent");
    let real = scratch.path().canonicalize().expect("real");
    let marked = |name: &str| {
        let path = real.join(name);
        fs::write(&path, format!("the content of {name}")).expect("write");
        settle(&path);
        let passes = || {
            let before = counter(&agent, "held");
            assert!(!denied(&path));
            (counter(&agent, "held") == before).then_some(())
        };
        until(PATIENCE, passes).expect("an ignore mark");
        path
    };
    let (hashed, tool, moved) = (marked("hashed"), marked("tool"), marked("moved"));
    let hash = sha256(&hashed);
    let output = agent.cli(&["deny", "hash", &hash, "--reason", "a test"]).expect("holdfast");
    assert!(output.status.success(), "{output:?}");
    assert!(denied(&hashed));
    // A denial of content has dropped the marks: set them again.
    for path in [&tool, &moved] {
        until(PATIENCE, || {
            let before = counter(&agent, "held");
            assert!(!denied(path));
            (counter(&agent, "held") == before).then_some(())
        })
        .expect("an ignore mark");
    }
    let mut open = File::open(&tool).expect("open");
    deny(&agent, text(&tool)).expect("denied");
    assert!(denied(&tool));
    let mut content = String::new();
    open.read_to_string(&mut content).expect("what is open goes on");
    assert_eq!(content, "the content of tool");
    // Its mark is gone, too: no rename brings it to a denied path unseen.
    fs::rename(&moved, &tool).expect("rename");
    assert!(denied(&tool));
    assert!(counter(&agent, "denied_paths") >= 2);
    // Exec as well as open.
    let program = real.join("program");
    fs::copy("/usr/bin/true", &program).expect("copy");
    assert!(Command::new(&program).status().expect("runs").success());
    deny(&agent, text(&program)).expect("denied");
    let refused = Command::new(&program).status().expect_err("denied");
    assert_eq!(refused.kind(), ErrorKind::PermissionDenied);
}

#[test]
fn a_mount_namespace_of_ones_own_has_nobody_elses_file_denied() {
    require_root();
    let scratch = Scratch::ext4().expect("scratch");
    let agent = Setup::protect([scratch.path()]).tables(QUIET).start().expect("agent");
    let real = scratch.path().canonicalize().expect("real");
    for name in ["tool", "innocent"] {
        fs::write(real.join(name), name).expect("write");
    }
    deny(&agent, text(&real.join("tool"))).expect("denied");
    let script = "mount --make-rprivate / && mount --bind \"$1/innocent\" \"$1/tool\" && \
                  cat \"$1/tool\"";
    let output = Command::new("unshare")
        .args(["-m", "sh", "-c", script, "sh", text(&real)])
        .output()
        .expect("unshare");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains("not permitted"), "by its name: {said}");
    // Two looks at what lies at the path.
    let listed = || agent.json(&["deny", "list"]).expect("list").len();
    let since = std::time::Instant::now();
    until(PATIENCE, || (listed() == 1 && since.elapsed().as_secs() > 11).then_some(()))
        .expect("time passes");
    assert!(!denied(&real.join("innocent")) && denied(&real.join("tool")));
}

#[test]
fn a_denial_ends_at_its_time_and_damaged_ones_are_red_and_keep_nobody_unprotected() {
    require_root();
    let scratch = Scratch::ext4().expect("scratch");
    let mut agent = Setup::protect([scratch.path()]).tables(QUIET).start().expect("agent");
    let real = scratch.path().canonicalize().expect("real");
    let (brief, kept, hashed) = (real.join("brief"), real.join("kept"), real.join("hashed"));
    for path in [&brief, &kept, &hashed] {
        fs::write(path, format!("the content of {}", path.display())).expect("write");
    }
    let say = |arguments: &[&str]| {
        let output = agent.cli(arguments).expect("holdfast");
        assert!(output.status.success(), "{output:?}");
    };
    let hash = sha256(&hashed);
    say(&["deny", "hash", &hash, "--reason", "a test", "--for", "20s"]);
    say(&["deny", "path", text(&brief), "--reason", "a test", "--for", "10s"]);
    say(&["deny", "path", text(&kept), "--reason", "a test"]);
    let listed = agent.json(&["deny", "list"]).expect("list");
    assert!(listed.iter().filter(|one| one["until_ms"].is_i64()).count() == 2, "{listed:?}");
    assert!(denied(&brief) && denied(&kept));
    until(PATIENCE, || (!denied(&brief)).then_some(())).expect("it ends");
    let is_over = || agent.json(&["deny", "list"]).expect("list").len() == 1;
    until(PATIENCE, || is_over().then_some(())).expect("both end");
    assert!(denied(&kept));
    // Nobody opened it in that time: it is whole. The rules without it are in use for certain when a
    // reload of theirs has ended.
    let hashes = || agent.json(&["status"]).expect("status")[0]["bundle"]["hashes"].as_u64();
    until(PATIENCE, || (hashes() == Some(0)).then_some(())).expect("no rule any more");
    say(&["bundle", "reload"]);
    assert!(!denied(&hashed));
    agent.kill().expect("kill");
    fs::write(agent.state().join("denials.json"), "{\"through\":").expect("write");
    agent.start().expect("it starts all the same");
    let status = agent.json(&["status"]).expect("status");
    assert!(status[0]["problems"].to_string().contains("denials.json.damaged"), "{status:?}");
    assert!(!denied(&kept) && agent.json(&["deny", "list"]).expect("list").is_empty());
    let virus = real.join("virus");
    fs::write(&virus, holdfast_tests::eicar()).expect("write");
    until(PATIENCE, || (!virus.exists() || denied(&virus)).then_some(())).expect("protected");
    fs::remove_file(agent.state().join("denials.json.damaged")).expect("remove");
    let status = agent.json(&["status"]).expect("status");
    assert!(!status[0]["problems"].to_string().contains("denials"), "{status:?}");
}

#[test]
fn what_the_host_runs_on_is_refused_with_the_reason_and_proofs_go_on_where_all_is_denied() {
    require_root();
    let scratch = Scratch::ext4().expect("scratch");
    let tables = format!("{QUIET}\n[self_proof]\ninterval_s = 86400");
    let agent = Setup::protect([scratch.path()]).tables(&tables).start().expect("agent");
    let real = scratch.path().canonicalize().expect("real");
    let own = binary("holdfastd");
    let beside = own.with_file_name("*");
    let state = agent.state().join("**");
    symlink("/usr/bin", real.join("programs")).expect("link");
    let through = real.join("programs/bash");
    for (path, why) in [
        ("/", "names files"),
        ("/**", "run or be mended"),
        ("/usr/bin/bash", "run or be mended"),
        ("/etc/../etc/x", "without . and .."),
        (text(&own), "run or be mended"),
        (text(&beside), "run or be mended"),
        (text(&state), "run or be mended"),
        (text(&through), "run or be mended"),
        (text(&real), "it is a folder"),
    ] {
        let said = deny(&agent, path).expect_err(path);
        assert!(said.contains(why), "{path}: {said}");
    }
    let bash = sha256(Path::new("/usr/bin/bash"));
    let output = agent.cli(&["deny", "hash", &bash, "--reason", "a test"]).expect("holdfast");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && said.contains("run or be mended"), "{said}");
    assert!(agent.json(&["deny", "list"]).expect("list").is_empty());
    // Everything on the file system is denied: its protection is proven all the same.
    deny(&agent, &format!("{}/**", real.display())).expect("denied");
    fs::rename(elsewhere(&real), real.join("new")).expect("rename");
    assert!(denied(&real.join("new")));
    let lines = agent.json(&["doctor"]).expect("doctor");
    let is_proof = |check: &str| check.starts_with("proof: on access: ");
    let proofs: Vec<Value> =
        lines.into_iter().filter(|line| line["check"].as_str().is_some_and(is_proof)).collect();
    assert!(!proofs.is_empty() && proofs.iter().all(|line| line["ok"] == true), "{proofs:?}");
}

/// A file that was made before it could not be.
fn elsewhere(real: &Path) -> std::path::PathBuf {
    // A denied O_CREAT leaves an empty file.
    let made = real.join("made");
    assert!(fs::write(&made, "x").is_err());
    made
}

#[test]
fn in_detect_mode_a_denied_path_is_told_and_opened() {
    require_root();
    let scratch = Scratch::ext4().expect("scratch");
    let agent = Setup::protect([scratch.path()]).detect().tables(QUIET).start().expect("agent");
    let tool = scratch.path().canonicalize().expect("real").join("tool");
    fs::write(&tool, "harmless").expect("write");
    deny(&agent, text(&tool)).expect("taken");
    assert!(!denied(&tool));
    let told = agent.wait_for(&["events", "--kind", "malware"], |event| {
        event["signature"]["engine"] == "denied_path" && event["disposition"] == "allowed"
    });
    told.expect("told");
}

fn sha256(file: &Path) -> String {
    let output = Command::new("sha256sum").arg(file).output().expect("sha256sum");
    let text = String::from_utf8(output.stdout).expect("text");
    text.split_whitespace().next().expect("a hash").trim_start_matches('\\').to_owned()
}

struct Fleet<'a>(&'a Manager);

impl Fleet<'_> {
    fn add(&self, kind: &str, value: &str, group: Option<&str>) -> String {
        let body = json!({ "kind": kind, "value": value, "group": group, "reason": "a test" });
        let made = self.0.post("/api/v1/denials", &body).expect("denied");
        made["id"].as_str().expect("id").to_owned()
    }

    fn host(&self, denial: &str, host: &str, state: &str) -> Value {
        let path = format!("/api/v1/denials/{denial}/hosts");
        let of = |page: &Value| {
            let mut hosts = page["items"].as_array().into_iter().flatten();
            hosts.find(|one| one["id"] == host).cloned().unwrap_or_default()
        };
        let fits = |page: &Value| of(page)["state"] == state;
        of(&self.0.wait_for(&path, fits).unwrap_or_else(|error| panic!("{state}: {error}")))
    }
}

#[test]
fn one_order_reaches_all_hosts_also_those_that_are_away_or_come_later() {
    require_root();
    let scratch = Scratch::ext4().expect("scratch");
    let real = scratch.path().canonicalize().expect("real");
    let mut agent = Setup::protect([scratch.path()]).tables(QUIET).start().expect("agent");
    let manager = Manager::start().expect("manager");
    let fleet = Fleet(&manager);
    let host = manager.enroll(&agent, &[]).expect("enrolled");
    for name in ["tool", "virus", "spared"] {
        fs::write(real.join(name), format!("the content of {name}")).expect("write");
    }
    let hash = sha256(&real.join("virus"));
    let by_path = fleet.add("path", text(&real.join("tool")), None);
    let by_hash = fleet.add("hash", &hash.to_uppercase(), Some("tests"));
    let nobodys = fleet.add("path", text(&real.join("spared")), Some("another group"));
    for denial in [&by_path, &by_hash] {
        fleet.host(denial, &host, "applied");
    }
    assert!(denied(&real.join("tool")) && denied(&real.join("virus")));
    assert!(!denied(&real.join("spared")));
    let nobodys = manager.get(&format!("/api/v1/denials/{nobodys}")).expect("denial");
    assert_eq!((&nobodys["hosts"], &nobodys["by"]), (&json!(0), &json!("admin")), "{nobodys}");
    // The same again is the same order; what no host can do without is none.
    let again = fleet.add("path", text(&real.join("tool")), None);
    assert_eq!(again, by_path);
    let body = json!({ "kind": "path", "value": "/usr/**", "reason": "x" });
    let refused = manager.post("/api/v1/denials", &body).expect_err("refused");
    assert!(refused.to_string().contains("run or be mended"), "{refused}");
    // What the manager cannot know a host says.
    let own = fleet.add("path", &format!("{}/**", agent.state().display()), None);
    let why = fleet.host(&own, &host, "refused")["why"].as_str().expect("why").to_owned();
    assert!(why.contains("run or be mended"), "{why}");
    // On the host it is the manager's to take back.
    let local = agent.cli(&["deny", "remove", text(&real.join("tool"))]).expect("holdfast");
    assert!(String::from_utf8_lossy(&local.stderr).contains("manager"), "{local:?}");
    assert!(denied(&real.join("tool")));
    // One that is away, over a change in either direction.
    agent.stop().expect("stop");
    let late = fleet.add("path", text(&real.join("late")), None);
    fleet.host(&late, &host, "waiting");
    let removed = format!("/api/v1/denials/{by_path}?reason=over");
    manager.ask("DELETE", &removed, &Value::Null).expect("removed");
    agent.start().expect("start");
    fs::rename(real.join("spared"), real.join("late")).expect("rename");
    fleet.host(&late, &host, "applied");
    fleet.host(&by_path, &host, "applied");
    assert!(denied(&real.join("late")) && !denied(&real.join("tool")));
    // One that comes later.
    let other = Scratch::ext4().expect("scratch");
    let second = Setup::protect([other.path()]).tables(QUIET).start().expect("agent");
    let newcomer = manager.enroll(&second, &[]).expect("enrolled");
    fleet.host(&by_hash, &newcomer, "applied");
    let virus = other.join("virus");
    fs::write(&virus, "the content of virus").expect("write");
    until(PATIENCE, || (!virus.exists() || denied(&virus)).then_some(())).expect("denied");
    let listed = manager.get("/api/v1/denials").expect("list");
    let whole = listed["items"].as_array().expect("items");
    let row = whole.iter().find(|one| one["id"] == by_hash.as_str()).expect("it");
    assert_eq!((&row["hosts"], &row["applied"]), (&json!(2), &json!(2)), "{row}");
    let gone = manager.get("/api/v1/denials?removed=true").expect("list");
    assert_eq!(gone["items"][0]["removed_why"], "over", "{gone}");
    let audit = manager.get("/api/v1/audit?limit=100").expect("audit").to_string();
    assert!(audit.contains("denial.add") && audit.contains("denial.remove"), "{audit}");
}

#[test]
fn a_task_denies_a_path_on_one_host_for_a_time_and_another_lifts_it() {
    require_root();
    let scratch = Scratch::ext4().expect("scratch");
    let tool = scratch.path().canonicalize().expect("real").join("tool");
    let agent = Setup::protect([scratch.path()]).tables(QUIET).start().expect("agent");
    let manager = Manager::start().expect("manager");
    let host = manager.enroll(&agent, &[]).expect("enrolled");
    fs::write(&tool, "the content of tool").expect("write");
    let ends = |action: Value, stage: &str| {
        let task = manager.file(&host, &action).expect("filed");
        let ended = manager.ended(&task).expect("ended");
        assert_eq!(ended["stage"], stage, "{ended}");
        ended
    };
    let deny = json!({ "action": "deny_path", "path": text(&tool), "duration_s": 3600 });
    ends(deny, "verified");
    assert!(denied(&tool));
    let listed = agent.json(&["deny", "list"]).expect("list");
    assert!(listed[0]["until_ms"].is_i64() && listed[0]["why"].is_string(), "{listed:?}");
    // What only the host can know it runs on.
    let own = agent.state().join("*");
    let refused = ends(json!({ "action": "deny_path", "path": text(&own) }), "failed");
    assert!(refused.to_string().contains("run or be mended"), "{refused}");
    ends(json!({ "action": "undeny", "kind": "path", "value": text(&tool) }), "verified");
    assert!(!denied(&tool));
    let hash = sha256(Path::new("/usr/bin/bash"));
    let refused = ends(json!({ "action": "deny_hash", "sha256": hash }), "failed");
    assert!(refused.to_string().contains("run or be mended"), "{refused}");
}
