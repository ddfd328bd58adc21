//! File systems that only another mount namespace sees, made below a protected path: found and
//! held soon, whoever made them, and nothing in a namespace can stop the looking.
//!
//! Each test protects a scratch file system of its own; what it mounts in namespaces goes with
//! the process that it starts.

mod common;

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use common::{SOON, counter, protect, wait_event};
use holdfast_tests::agent::Agent;
use holdfast_tests::scratch::Scratch;
use holdfast_tests::{eicar, require_root, until};
use serde_json::Value;

/// Until an open is denied in a file system that was mounted a moment ago. Half a second and a
/// pass are promised; other work shares this machine.
const STATED: f64 = 5.0;

/// What the children do: libc's calls, and writing the test file until it can no longer be read.
const TOOLS: &str = r#"
import ctypes, os, sys, threading, time
libc = ctypes.CDLL(None, use_errno=True)
NEWNS, REC, PRIVATE, BIND = 0x20000, 0x4000, 1 << 18, 4096
def check(result):
    if result: raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
def mount(kind, point, flags=0, options=None, source=None):
    text = lambda value: value if value is None else value.encode()
    check(libc.mount(text(source or kind), text(point), text(kind), flags, text(options)))
def leave():
    check(libc.unshare(NEWNS))
    mount(None, "/", REC | PRIVATE, None, "none")
content = bytes.fromhex(sys.argv[1])
def readable(path):
    with open(path, "wb") as file: file.write(content)
    try:
        with open(path, "rb") as file: return file.read() == content
    except (PermissionError, FileNotFoundError): return False
def denied(point):
    begin = time.monotonic()
    while time.monotonic() - begin < 60:
        if not readable(f"{point}/eicar-{time.monotonic_ns()}"): return time.monotonic() - begin
        time.sleep(0.01)
    return 1000
def say(*words):
    print(*words, flush=True)
"#;

/// A child in namespaces of its own, alive until it is dropped.
struct Inhabitant {
    child: Child,
    lines: BufReader<std::process::ChildStdout>,
}

impl Inhabitant {
    /// Runs a script behind [`TOOLS`], `wrapper` around it; `arguments` begin at `sys.argv[2]`.
    fn start(wrapper: &[&str], script: &str, arguments: &[&Path]) -> Self {
        let content: String = eicar().iter().map(|byte| format!("{byte:02x}")).collect();
        let script = format!("{TOOLS}\n{script}\nsys.stdin.read()\n");
        let words = [wrapper, &["/usr/bin/python3", "-c", &script, &content]].concat();
        let mut child = Command::new(words[0])
            .args(&words[1..])
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("start");
        let lines = BufReader::new(child.stdout.take().expect("a pipe"));
        Self { child, lines }
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.lines.read_line(&mut line).expect("a line");
        line.trim().to_owned()
    }

    /// The next line is how long it took until an open was denied.
    #[track_caller]
    fn assert_denied_soon(&mut self, agent: &Agent) {
        let line = self.line();
        let seconds: f64 = line.parse().unwrap_or_else(|_| panic!("{line:?}\n{}", agent.log()));
        println!("denied after {seconds:.3} s");
        assert!(seconds < STATED, "denied after {seconds} s\n{}", agent.log());
    }
}

impl Drop for Inhabitant {
    fn drop(&mut self) {
        // Its mounts and namespaces go with it.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A protected tmpfs that everybody may enter, and a folder in it.
fn scene() -> (Scratch, Agent, std::path::PathBuf) {
    require_root();
    let scratch = Scratch::tmpfs(64 << 20).expect("scratch");
    let folder = scratch.path().parent().expect("its folder");
    let everybody = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(folder, everybody).expect("mode");
    let agent = protect(&scratch).start().expect("agent");
    let inner = scratch.join("inner");
    fs::create_dir(&inner).expect("folder");
    (scratch, agent, inner)
}

/// What status says of mounts at this point in other namespaces.
fn states(agent: &Agent, point: &Path) -> Vec<Value> {
    let status = agent.cli(&["--json", "status"]).expect("status").stdout;
    let status: Value = serde_json::from_slice(&status).expect("JSON");
    let all = status["file_systems"].as_array().expect("list").clone();
    let start = format!("{} (mount namespace ", point.display());
    all.into_iter()
        .filter(|fs| fs["mount"].as_str().is_some_and(|m| m.starts_with(&start)))
        .collect()
}

/// The one state of mounts at this point; it is told a moment after the file system is held.
#[track_caller]
fn known(agent: &Agent, point: &Path) -> Value {
    let named = until(SOON, || Some(states(agent, point)).filter(|named| !named.is_empty()));
    let named = named.unwrap_or_else(|| panic!("{} is not named", point.display()));
    assert_eq!(named.len(), 1, "{named:?}");
    named[0].clone()
}

#[test]
fn tmpfs_in_a_private_mount_namespace_is_held_named_and_forgotten_when_it_is_gone() {
    let (_scratch, agent, inner) = scene();
    let script = "leave()\nmount('tmpfs', sys.argv[2])\nsay(denied(sys.argv[2]))";
    let mut inhabitant = Inhabitant::start(&["env"], script, &[&inner]);
    inhabitant.assert_denied_soon(&agent);
    let named = known(&agent, &inner);
    assert_eq!((&named["protected"], &named["fs_type"]), (&true.into(), &"tmpfs".into()));
    wait_event(&agent, "malware", |event| {
        event["path"].as_str().is_some_and(|path| path.starts_with(&inner.display().to_string()))
    });
    drop(inhabitant);
    until(SOON, || states(&agent, &inner).is_empty().then_some(())).expect("forgotten");
    wait_event(&agent, "coverage", |event| {
        event["protected"] == false
            && event["mount"] == named["mount"]
            && event["reason"].as_str().is_some_and(|reason| reason.contains("no mount namespace"))
    });
}

#[test]
fn tmpfs_that_a_user_mounts_in_a_user_namespace_is_held() {
    let (_scratch, agent, inner) = scene();
    let user = ["setpriv", "--reuid", "1000", "--regid", "1000", "--clear-groups"];
    let wrapper = [&user[..], &["unshare", "--user", "--map-root-user", "--mount"]].concat();
    let script = "mount('tmpfs', sys.argv[2])\nsay(denied(sys.argv[2]))";
    let mut inhabitant = Inhabitant::start(&wrapper, script, &[&inner]);
    inhabitant.assert_denied_soon(&agent);
}

#[test]
fn namespace_of_a_single_thread_is_found() {
    let (_scratch, agent, inner) = scene();
    let script = "def body():\n  leave()\n  mount('tmpfs', sys.argv[2])\n  say(denied(sys.argv[2]))\n\
                  thread = threading.Thread(target=body)\nthread.start()\nthread.join()";
    let mut inhabitant = Inhabitant::start(&["env"], script, &[&inner]);
    inhabitant.assert_denied_soon(&agent);
}

#[test]
fn a_mount_counts_by_what_it_lies_on_and_others_of_the_namespace_are_left_alone() {
    let (_scratch, agent, inner) = scene();
    let other = Scratch::tmpfs(1 << 20).expect("scratch");
    for name in ["bound", "apart"] {
        fs::create_dir(other.join(name)).expect("folder");
    }
    fs::create_dir(inner.join("sub")).expect("folder");
    // As containers do: a protected folder, bound to another name, and a tmpfs on it.
    let script = "leave()\n\
                  inner, bound, apart = sys.argv[2:5]\n\
                  mount('tmpfs', apart)\n\
                  mount(None, bound, BIND, None, inner)\n\
                  mount('tmpfs', bound + '/sub')\n\
                  say(denied(bound + '/sub'))\n\
                  say(readable(apart + '/eicar'))";
    let (bound, apart) = (other.join("bound"), other.join("apart"));
    let mut inhabitant = Inhabitant::start(&["env"], script, &[&inner, &bound, &apart]);
    inhabitant.assert_denied_soon(&agent);
    assert_eq!(inhabitant.line(), "True", "what is not protected is not touched");
    assert_eq!(known(&agent, &bound.join("sub"))["protected"], true);
    assert!(states(&agent, &apart).is_empty());
}

#[test]
fn server_that_never_answers_in_a_namespace_does_not_stop_the_looking() {
    let (scratch, agent, inner) = scene();
    let other = scratch.join("other");
    fs::create_dir(&other).expect("folder");
    fs::create_dir(inner.join("below")).expect("folder");
    // Nobody reads the requests of this FUSE. A tmpfs that lies below it is out of reach.
    let script = "leave()\n\
                  inner, other = sys.argv[2:4]\n\
                  mount('tmpfs', inner + '/below')\n\
                  fuse = os.open('/dev/fuse', os.O_RDWR)\n\
                  mount('fuse', inner, 0, f'fd={fuse},rootmode=40000,user_id=0,group_id=0')\n\
                  mount('tmpfs', other)\n\
                  say(denied(other))\n\
                  mount('tmpfs', other)\n\
                  say(denied(other))";
    let mut inhabitant = Inhabitant::start(&["env"], script, &[&inner, &other]);
    inhabitant.assert_denied_soon(&agent);
    inhabitant.assert_denied_soon(&agent);
    let refused = known(&agent, &inner);
    assert_eq!((&refused["protected"], &refused["fs_type"]), (&false.into(), &"fuse".into()));
    known(&agent, &inner.join("below"));
    // And the agent ends as it should.
    let mut agent = agent;
    agent.stop().expect("clean stop");
}

#[test]
fn hundred_namespaces_at_once_are_all_held_and_do_not_flood_the_journal() {
    let (_scratch, agent, inner) = scene();
    let script = "children = []\n\
                  for _ in range(100):\n  \
                    pid = os.fork()\n  \
                    if pid == 0:\n    \
                      leave()\n    \
                      mount('tmpfs', sys.argv[2])\n    \
                      os._exit(0 if denied(sys.argv[2]) < 30 else 1)\n  \
                    children.append(pid)\n\
                  failed = sum(os.waitpid(pid, 0)[1] != 0 for pid in children)\n\
                  say(failed)";
    let mut inhabitant = Inhabitant::start(&["env"], script, &[&inner]);
    assert_eq!(inhabitant.line(), "0", "some were never held\n{}", agent.log());
    until(Duration::from_secs(60), || states(&agent, &inner).is_empty().then_some(()))
        .expect("all forgotten");
    let told = agent.json(&["events", "--kind", "coverage"]).expect("events");
    let theirs = told.iter().filter(|event| {
        event["mount"].as_str().is_some_and(|mount| mount.contains("(mount namespace "))
    });
    let theirs = theirs.count();
    assert!(theirs > 0 && theirs <= 120, "{theirs} coverage events in less than two minutes");
    assert!(counter(&agent, "coverage_untold") > 0, "what was not told is counted");
}
