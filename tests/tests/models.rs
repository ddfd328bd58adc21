//! Detection models with a running agent: simulations fire them, near misses do not, responses
//! are carried out, decisions of operators survive a restart.
//!
//! Needs root. Programs that are killed here are started here.

use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use holdfast_tests::agent::{Agent, PATIENCE, Setup, binary};
use holdfast_tests::observe::wait_event;
use holdfast_tests::scratch::Scratch;
use holdfast_tests::{Owned, require_root, until};
use serde_json::Value;

/// A detection comes within a second; a busy machine may take longer.
const SOON: Duration = Duration::from_secs(10);

struct Row {
    simulation: &'static str,
    model: &'static str,
    /// Run by `sh -c`, with `MARK` in the arguments.
    near_miss: &'static str,
}

const fn row(simulation: &'static str, model: &'static str, near_miss: &'static str) -> Row {
    Row { simulation, model, near_miss }
}

const ROWS: [Row; 23] = [
    row("network-sniffing", "Network Sniffing", "cat /proc/net/packet"),
    row("credential-files", "/etc/passwd and /etc/shadow", "cat /etc/passwd; id root"),
    row("proc-filesystem", "Proc Filesystem", "cat /proc/cpuinfo /proc/self/status"),
    row("reverse-shell", "Unix Shell", "bash -c 'exec 3</dev/null; echo hello'"),
    row("web-shell", "Web Shell", "sh -c 'id; whoami'"),
    row("cron", "Cron", "ls /etc/cron.d; cat /etc/crontab"),
    row("systemd-service", "Systemd Service", "ls /etc/systemd/system"),
    row("ssh-authorized-keys", "SSH Authorized Keys", "ls -d /root"),
    row("shell-profile", "Unix Shell Configuration Modification", "cat /etc/profile"),
    row("linker-hijacking", "Dynamic Linker Hijacking", "LD_PRELOAD= cat /etc/ld.so.conf"),
    row("kernel-module", "Kernel Modules and Extensions", "cat /proc/modules"),
    row("rootkit", "Rootkit", "ls /sys/fs/bpf"),
    row("memfd-execution", "Reflective Code Loading", "cp /bin/true /tmp/MARK; rm /tmp/MARK"),
    row("process-injection", "Ptrace System Calls", "cat /proc/self/maps"),
    row("setuid", "Setuid and Setgid", "cp /bin/true /tmp/MARK; chmod 755 /tmp/MARK; rm /tmp/MARK"),
    row("clear-logs", "Clear Linux or Mac System Logs", "tail -n 1 /var/log/dpkg.log"),
    row("clear-history", "Clear Command History", "history=1; cat /root/.profile"),
    row("disable-tools", "Disable or Modify Tools", "echo systemctl status holdfast"),
    row("crypto-mining", "Resource Hijacking", "echo local stratum 10"),
    row("discovery", "System Information Discovery", "id; uname; ps; df"),
    row("exfiltration", "Exfiltration Over Alternative Protocol", "tar cf /dev/null /etc/hosts"),
    row("container-escape", "Escape to Host", "ls -l /proc/self/ns"),
    row(
        "ransomware",
        "Data Encrypted for Impact",
        "for i in 1 2 3; do echo x > /tmp/MARK$i; done; rm /tmp/MARK*",
    ),
];

/// Every agent sees the whole host, the other tests' processes too: one at a time.
static ALONE: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn agent(tables: &str) -> (Scratch, Agent) {
    require_root();
    let scratch = Scratch::tmpfs(64 << 20).expect("scratch file system");
    let agent = Setup::protect([scratch.path()]).tables(tables).start().expect("agent");
    (scratch, agent)
}

fn fired(agent: &Agent) -> Vec<Value> {
    agent.json(&["events", "--kind", "model"]).expect("events")
}

fn mentions(event: &Value, mark: &str) -> bool {
    event["process"].to_string().contains(mark) || event["parents"].to_string().contains(mark)
}

#[test]
fn every_model_fires_by_its_simulation_and_not_by_its_near_miss() {
    let _alone = alone();
    let (scratch, agent) = agent("");
    let folder = scratch.path().to_str().expect("text").to_owned();
    let mut silent = Vec::new();
    for row in ROWS {
        let mark = format!("near-miss-{}-{}", row.simulation, std::process::id());
        let script = row.near_miss.replace("MARK", &mark);
        let status = Command::new("sh")
            .args(["-c", &format!("{script}; :"), &mark])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        status.expect("near miss");
        let run =
            agent.cli(&["simulate", "run", row.simulation, "--folder", &folder]).expect("run");
        let is = |event: &Value| event["title"] == row.model && event["simulated"] == true;
        let found = until(SOON, || fired(&agent).into_iter().find(|event| is(event)));
        let Some(event) = found else {
            let said = String::from_utf8_lossy(&run.stderr).trim().to_owned();
            silent.push(format!("{} ({said})", row.simulation));
            continue;
        };
        assert_eq!(event["responded"], "nothing: this was a simulation", "{event}");
        assert!(!event["advice"].as_str().unwrap_or_default().is_empty(), "{event}");
        let first = event["events"][0].as_str().expect("the event that made it").to_owned();
        let made = agent.json(&["events"]).expect("events");
        assert!(made.iter().any(|event| event["id"] == first), "{first} is in the journal");
    }
    for event in fired(&agent) {
        let row = ROWS.iter().find(|row| {
            row.model == event["title"]
                && mentions(&event, &format!("near-miss-{}", row.simulation))
        });
        assert!(row.is_none(), "a near miss fired: {event}");
    }
    assert!(left_behind().is_empty(), "{:?}", left_behind());
    assert!(silent.is_empty(), "simulations that fired nothing: {silent:#?}");
}

/// Whatever a simulation left where it should not.
fn left_behind() -> Vec<PathBuf> {
    let folders = [
        "/var/tmp",
        "/etc/cron.d",
        "/etc/systemd/system",
        "/etc/profile.d",
        "/etc/ld.so.conf.d",
        "/var/log",
    ];
    let entries = folders.iter().filter_map(|folder| std::fs::read_dir(folder).ok()).flatten();
    let ours = |path: &PathBuf| path.to_string_lossy().contains("/holdfast-simulation-");
    entries.flatten().map(|entry| entry.path()).filter(ours).collect()
}

#[test]
fn an_interrupted_simulation_undoes_itself_and_a_killed_one_is_swept() {
    let _alone = alone();
    require_root();
    let start = || {
        let mut command = Command::new(binary("holdfast"));
        command.args(["simulate", "run", "ransomware"]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let child = Owned(command.spawn().expect("start"));
        let folder = Path::new("/var/tmp").join(format!("holdfast-simulation-{}", child.0.id()));
        until(PATIENCE, || folder.exists().then_some(())).expect("it has begun");
        (child, folder)
    };
    let signal = |child: &Child, signal| {
        let pid = nix::unistd::Pid::from_raw(i32::try_from(child.id()).expect("pid"));
        nix::sys::signal::kill(pid, signal).expect("signal");
    };
    let (mut child, folder) = start();
    signal(&child.0, nix::sys::signal::Signal::SIGINT);
    let status = until(PATIENCE, || child.0.try_wait().expect("wait")).expect("it ends");
    assert_eq!(status.code(), Some(1), "an end in order");
    assert!(!folder.exists());
    let (mut child, folder) = start();
    signal(&child.0, nix::sys::signal::Signal::SIGKILL);
    child.0.wait().expect("wait");
    assert!(folder.exists());
    let next = Command::new(binary("holdfast")).args(["simulate", "run", "clear-history"]).output();
    assert!(next.expect("next").status.success());
    assert!(!folder.exists(), "the next one takes it away");
}

#[test]
fn a_dry_run_says_everything_and_does_nothing() {
    require_root();
    let output = Command::new(binary("holdfast"))
        .args(["--json", "simulate", "run", "--all", "--dry-run"])
        .output()
        .expect("run");
    let text = String::from_utf8(output.stdout).expect("text");
    assert_eq!(text.lines().filter(|line| line.contains("\"would\"")).count(), ROWS.len());
    let wrong = Command::new(binary("holdfast")).args(["simulate", "run", "x", "--all"]).output();
    assert_eq!(wrong.expect("run").status.code(), Some(64));
}

/// A shell under the name of systemctl, whose arguments say that it stops what protects.
fn stopper(folder: &Path, mark: &str) -> (PathBuf, Owned) {
    let program = folder.join("systemctl");
    // A program that runs cannot be written.
    if !program.exists() {
        holdfast_tests::copy_program("/bin/sh", &program);
    }
    let script = format!("sleep 100; : stop auditd {mark}");
    let child = Command::new(&program).args(["-c", &script]).spawn().expect("start");
    (program, Owned(child))
}

const POLICY: &str = "[models.response]\n\"Disable or Modify Tools\" = [\"kill\", \"deny\"]\n";

#[test]
fn a_response_kills_the_process_tree_and_denies_its_program() {
    let _alone = alone();
    let (scratch, agent) = agent(POLICY);
    let (program, mut child) = stopper(scratch.path(), "to-be-killed");
    let event = wait_event(&agent, "model", |event| mentions(event, "to-be-killed"));
    let responded = event["responded"].as_str().expect("text");
    assert!(responded.contains("killed 2 processes"), "{responded}");
    assert!(responded.contains("denied"), "{responded}");
    assert_eq!(
        (event["response"].as_str(), event["simulated"].as_bool()),
        (Some("kill, deny"), Some(false))
    );
    let status = until(PATIENCE, || child.0.try_wait().expect("wait")).expect("it has ended");
    assert_eq!(status.signal(), Some(9));
    let again = || Command::new(&program).args(["-c", ":"]).status();
    until(PATIENCE, || again().is_err().then_some(())).expect("its content is denied");
    let malware = wait_event(&agent, "malware", |event| {
        event["signature"]["name"].as_str().is_some_and(|name| name.starts_with("Holdfast.Denied"))
    });
    assert_eq!(malware["disposition"], "quarantined", "{malware}");
}

#[test]
fn isolation_that_is_refused_is_said_honestly() {
    let policy = POLICY.replace("[\"kill\", \"deny\"]", "[\"isolate\", \"deny\"]");
    let _alone = alone();
    let (_scratch, agent) = agent(&policy);
    let folder = tempfile::tempdir().expect("folder");
    let (_, child) = stopper(folder.path(), "honest-words");
    let event = wait_event(&agent, "model", |event| mentions(event, "honest-words"));
    let responded = event["responded"].as_str().expect("text");
    assert!(responded.contains("not isolated: refused: this is a trial"), "{responded}");
    drop(child);
}

#[test]
fn what_operators_decide_and_what_has_fired_survive_a_restart() {
    let _alone = alone();
    let (_scratch, mut agent) = agent("");
    let model = |agent: &Agent| {
        let models = agent.json(&["models", "list"]).expect("models");
        models.into_iter().find(|model| model["title"] == "Disable or Modify Tools").expect("it")
    };
    let folder = tempfile::tempdir().expect("folder");
    let first = stopper(folder.path(), "first-one");
    wait_event(&agent, "model", |event| mentions(event, "first-one"));
    drop(first);
    let suppress = [
        "models",
        "suppress",
        "Disable or Modify Tools",
        "CommandLine=*second-one*",
        "--for",
        "1h",
        "--reason",
        "a test",
    ];
    assert!(agent.cli(&suppress).expect("suppress").status.success());
    // Whoever stops the agent makes the model fire, too: how often is what the journal says.
    let told = |agent: &Agent| {
        let all = fired(agent);
        all.iter().filter(|event| event["title"] == "Disable or Modify Tools").count() as u64
    };
    agent.stop().expect("stop");
    agent.start().expect("start");
    let before = model(&agent);
    let so_far = told(&agent);
    assert!(so_far >= 1);
    assert_eq!(before["fired"], so_far, "{before}");
    assert!(before["last_fired_ms"].is_i64(), "{before}");
    let second = stopper(folder.path(), "second-one");
    let third = stopper(folder.path(), "third-one");
    wait_event(&agent, "model", |event| mentions(event, "third-one"));
    drop((second, third));
    assert!(!fired(&agent).iter().any(|event| mentions(event, "second-one")));
    let after = model(&agent);
    assert_eq!(
        (after["fired"].as_u64(), after["suppressed"].as_u64()),
        (Some(so_far + 1), Some(1))
    );
    let standing = agent.json(&["models", "suppressions", "list"]).expect("list");
    assert_eq!((standing.len(), standing[0]["kept_back"].as_u64()), (1, Some(1)));
    let id = standing[0]["id"].as_str().expect("id");
    assert!(agent.cli(&["models", "suppressions", "remove", id]).expect("remove").status.success());
    assert!(agent.json(&["models", "suppressions", "list"]).expect("list").is_empty());
}
