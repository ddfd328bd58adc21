//! On-access protection in a guest, with the real agent: denied, quarantined, let go.
//!
//! Files are written and opened by processes of their own, as a user's would be.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use nix::mount::{MsFlags, mount};
use nix::sys::signal::Signal;
use serde_json::Value;

use super::{EXT4, text};
use crate::agent::{Agent, PATIENCE, Setup, finish};
use crate::observe::{
    assert_blocked, assert_named, assert_quarantined, counter, settle, signal_workers, wait_event,
    workers,
};
use crate::scratch::Scratch;
use crate::{eicar, until};

const SHA256: &str = "275a021bbfb6489e54d471899f7db9d1663fc695ec2fe2a2c4538aabf651fd0f";

/// Not about speed, but for the ones that set a deadline of their own.
fn protect(path: &Path) -> Result<Agent, String> {
    Setup::protect([path]).on_access("deadline_ms = 20000").start().map_err(text)
}

/// The root of an initial ramfs cannot be pivoted away: the cage has another way there.
pub(super) fn worker_is_caged_on_an_initial_ramfs() -> Result<(), String> {
    let agent = protect(Path::new(EXT4))?;
    let workers = workers(&agent);
    assert!(!workers.is_empty());
    for worker in workers {
        let proc = Path::new("/proc").join(worker.to_string());
        let seen: Vec<_> = fs::read_dir(proc.join("root")).map_err(text)?.flatten().collect();
        assert!(seen.is_empty(), "a worker sees {seen:?}");
        let status = fs::read_to_string(proc.join("status")).map_err(text)?;
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            line.unwrap_or_default().split_whitespace().next().unwrap_or_default().to_owned()
        };
        assert_ne!(field("Uid:"), "0");
        assert_eq!(field("CapEff:"), "0000000000000000");
        assert_eq!((field("Seccomp:"), field("NoNewPrivs:")), ("2".into(), "1".into()));
    }
    Ok(())
}

pub(super) fn eicar_on_ext4() -> Result<(), String> {
    denied_quarantined_and_restored(Path::new(EXT4))
}

pub(super) fn eicar_on_tmpfs() -> Result<(), String> {
    let scratch = Scratch::tmpfs(16 << 20).map_err(text)?;
    denied_quarantined_and_restored(scratch.path())
}

fn denied_quarantined_and_restored(folder: &Path) -> Result<(), String> {
    let mut agent = protect(folder)?;
    let path = folder.join("eicar.com");
    let opened = written_and_opened(&path)?;
    assert!(!opened.status.success() && opened.stdout.is_empty(), "{opened:?}");
    let item = assert_quarantined(&agent, &path);
    let event = assert_reported(&agent, &path);
    assert_eq!(event["path"], path.to_str().unwrap_or_default());

    let id = item["id"].as_str().ok_or("an item without an id")?.to_owned();
    let restored = agent.cli(&["quarantine", "restore", &id]).map_err(text)?;
    assert!(restored.status.success(), "{restored:?}");
    assert!(path.exists(), "it is back");
    assert_blocked(&path);
    assert_quarantined(&agent, &path);
    assert_eq!(counter(&agent, "past_deadline"), 0);
    let status = agent.stop().map_err(text)?;
    if status.success() { Ok(()) } else { Err(format!("stopped with {status}")) }
}

/// With everything protected: a tmpfs that one thread alone sees, in a mount namespace of its own.
pub(super) fn eicar_in_another_namespace() -> Result<(), String> {
    let setup = Setup::all_of_a_guest().on_access("deadline_ms = 20000");
    let mut agent = setup.start().map_err(text)?;
    let folder = Path::new("/mnt/private");
    fs::create_dir_all(folder).map_err(text)?;
    let waited = std::thread::spawn(move || held_in_own_namespace(folder)).join();
    let waited = waited.map_err(|_| "the thread panicked")??;
    println!("denied after {waited:?}\n{}", agent.log());
    assert!(!folder.join("eicar-1").exists(), "nobody else sees that tmpfs");
    let status = agent.stop().map_err(text)?;
    if status.success() { Ok(()) } else { Err(format!("stopped with {status}")) }
}

/// How long it took until an open was denied on a fresh tmpfs.
fn held_in_own_namespace(folder: &Path) -> Result<Duration, String> {
    const NONE: Option<&str> = None;
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).map_err(text)?;
    mount(NONE, "/", NONE, MsFlags::MS_REC | MsFlags::MS_PRIVATE, NONE).map_err(text)?;
    mount(Some("private"), folder, Some("tmpfs"), MsFlags::empty(), NONE).map_err(text)?;
    let begun = Instant::now();
    let mut names = (1..).map(|number| folder.join(format!("eicar-{number}")));
    let denied = until(PATIENCE, || {
        let path = names.next()?;
        fs::write(&path, eicar()).ok()?;
        File::open(&path).is_err().then(|| begun.elapsed())
    });
    denied.ok_or_else(|| "never denied".to_owned())
}

/// Until 6.5 opens raise their events on the overlay itself, from then on below it.
pub(super) fn eicar_on_overlay() -> Result<(), String> {
    let layers = tempfile::Builder::new().prefix("layers-").tempdir_in(EXT4).map_err(text)?;
    let scratch = Scratch::overlay_on(layers.path()).map_err(text)?;
    let below = scratch.join("below");
    fs::write(scratch.lower().join("below"), eicar()).map_err(text)?;
    let mut agent = protect(scratch.path())?;
    let status = agent.json(&["status"]).map_err(text)?;
    println!("{}", status[0]["file_systems"]);

    let path = scratch.join("eicar.com");
    let opened = written_and_opened(&path)?;
    assert!(!opened.status.success() && opened.stdout.is_empty(), "{opened:?}");
    assert_quarantined(&agent, &path);
    assert_reported(&agent, &path);

    // The lower layer alone holds it. Where the overlay itself is marked it goes from the view;
    // where the layer is, from the layer, and what the overlay remembers of it stays unreadable.
    assert_blocked(&below);
    let in_layer = scratch.lower().join("below");
    let gone = until(PATIENCE, || (!below.exists() || !in_layer.exists()).then_some(()));
    assert!(gone.is_some(), "it lies where it was\n{}", agent.log());
    let listed = |item: &Value| item["path"].as_str().is_some_and(|path| path.ends_with("/below"));
    agent.wait_for(&["quarantine", "list"], listed).map_err(text)?;
    assert_blocked(&below);
    let clean = scratch.join("clean");
    fs::write(&clean, "clean").map_err(text)?;
    assert_eq!(fs::read(&clean).map_err(text)?, b"clean");
    let status = agent.stop().map_err(text)?;
    if status.success() { Ok(()) } else { Err(format!("stopped with {status}")) }
}

/// One process writes the test file and keeps it open, another opens it: by the open alone can it
/// be found. What the second one got.
fn written_and_opened(path: &Path) -> Result<Output, String> {
    let content = String::from_utf8(eicar()).map_err(text)?;
    let script = "exec 3>\"$1\"; printf %s \"$2\" >&3; /bin/cat \"$1\"; exit $?";
    let mut shell = Command::new("/bin/sh");
    shell.args(["-c", script, "writer"]).arg(path).arg(content);
    finish(&mut shell, PATIENCE).map_err(text)
}

/// The event of the denied open, with everything that belongs to it, and the one that says that
/// the file was quarantined.
fn assert_reported(agent: &Agent, path: &Path) -> Value {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let here = |event: &Value| event["path"].as_str().is_some_and(|path| path.ends_with(name));
    wait_event(agent, "malware", |event| here(event) && event["disposition"] == "quarantined");
    let event =
        wait_event(agent, "malware", |event| here(event) && event["scan_type"] == "on_open");
    assert_eq!(event["decision"], "deny");
    assert_eq!(event["sha256"], SHA256);
    assert_eq!(event["md5"], "44d88612fea8a8f36de82e1278abb02f");
    assert_eq!(event["signature"]["engine"], "eicar");
    assert_eq!(event["process"]["args"][0], "/bin/cat");
    assert_eq!(event["process"]["user"], "root");
    assert_eq!(event["parents"][0]["args"][1], "-c", "the shell: {event}");
    assert_named(&event);
    event
}

pub(super) fn later_open_stays_in_the_kernel() -> Result<(), String> {
    let agent = protect(Path::new(EXT4))?;
    let path = Path::new(EXT4).join("clean");
    fs::write(&path, "clean").map_err(text)?;
    settle(&path);
    let open = || finish(Command::new("/bin/cat").arg(&path), PATIENCE).map_err(text);
    assert_eq!(open()?.stdout, b"clean");
    let before = counter(&agent, "held");
    for _ in 0..5 {
        assert_eq!(open()?.stdout, b"clean");
    }
    assert_eq!(counter(&agent, "held"), before, "later opens were held again");
    // A change drops the mark.
    let opened = written_and_opened(&path)?;
    assert!(!opened.status.success() && opened.stdout.is_empty(), "{opened:?}");
    assert_quarantined(&agent, &path);
    Ok(())
}

pub(super) fn killed_agent_lets_held_opens_go() -> Result<(), String> {
    const OPENERS: usize = 20;
    let mut agent = protect(Path::new(EXT4))?;
    let path = Path::new(EXT4).join("held-by-a-dead-agent");
    // While somebody writes it, no verdict is kept: every open waits for a worker.
    let mut writer = File::create(&path).map_err(text)?;
    writer.write_all(b"clean").map_err(text)?;
    assert!(signal_workers(&agent, Signal::SIGSTOP) > 0, "workers to stop");
    let held = counter(&agent, "held");
    std::thread::scope(|scope| {
        let openers: Vec<_> = (0..OPENERS).map(|_| scope.spawn(|| File::open(&path))).collect();
        let all = held + OPENERS as u64;
        let waiting = until(PATIENCE, || (counter(&agent, "held") >= all).then_some(()));
        assert!(waiting.is_some(), "{} of {all} held", counter(&agent, "held"));
        assert!(openers.iter().all(|opener| !opener.is_finished()), "all wait");
        let begin = Instant::now();
        agent.kill().map_err(text)?;
        for opener in openers {
            let opened = opener.join().map_err(|_| "an opener panicked")?;
            assert!(opened.is_ok(), "{opened:?}");
        }
        let took = begin.elapsed();
        println!("let go after {took:?}");
        // Not by the deadline, but when the group was closed; the machine is emulated.
        assert!(took < Duration::from_secs(10), "took {took:?}");
        Ok::<(), String>(())
    })?;
    agent.start().map_err(text)?;
    wait_event(&agent, "protection_gap", |_| true);
    let opened = written_and_opened(&Path::new(EXT4).join("after-the-gap"))?;
    assert!(!opened.status.success(), "{opened:?}");
    Ok(())
}
