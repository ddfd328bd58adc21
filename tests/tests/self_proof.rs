//! The protection proves itself; broken in one place at a time, it says which.
//!
//! What breaks it here is done to a running agent from outside, as somebody with root would.

mod common;

use std::fs::{self, File};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use common::{signal_workers, wait_event};
use holdfast_tests::agent::{Agent, Setup, binary};
use holdfast_tests::scratch::Scratch;
use holdfast_tests::{require_root, until};
use nix::sys::signal::Signal;
use serde_json::Value;

/// What the issue promises for each of them.
const RED_WITHIN: Duration = Duration::from_secs(60);

/// Takes a descriptor of another process (pidfd_getfd, Linux 5.6) that names a fanotify group, and
/// removes its file system marks over and over.
const UNMARK: &str = r"
import ctypes, os, sys, time
libc = ctypes.CDLL(None, use_errno=True)
pid = int(sys.argv[1])
fds = [int(n) for n in os.listdir(f'/proc/{pid}/fd')
       if os.readlink(f'/proc/{pid}/fd/{n}') == 'anon_inode:[fanotify]']
pidfd = libc.syscall(434, pid, 0)
groups = [libc.syscall(438, pidfd, fd, 0) for fd in fds]
assert groups and min(groups) >= 0, groups
while os.getppid() != 1:
    for group in groups:
        libc.fanotify_mark(group, 0x80 | 0x100, ctypes.c_uint64(0), -100, None)
    time.sleep(0.05)
";

/// Makes another process close one of its descriptors: stops it where it waits in a system call,
/// and has it run that instruction once more as close().
const CLOSE: &str = r"
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
pid, fd = int(sys.argv[1]), int(sys.argv[2])
class Regs(ctypes.Structure):
    _fields_ = [(n, ctypes.c_ulonglong) for n in
        'r15 r14 r13 r12 rbp rbx r11 r10 r9 r8 rax rcx rdx rsi rdi orig_rax rip cs eflags rsp ss fs_base gs_base ds es fs gs'.split()]
def ptrace(request, address=None, data=None):
    if libc.ptrace(request, pid, address, data) < 0:
        raise OSError(ctypes.get_errno(), f'ptrace {request}')
ptrace(16); os.waitpid(pid, 0)
saved, regs = Regs(), Regs()
ptrace(12, None, ctypes.addressof(saved)); ptrace(12, None, ctypes.addressof(regs))
with open(f'/proc/{pid}/mem', 'rb') as memory:
    memory.seek(saved.rip - 2)
    assert memory.read(2) == b'\x0f\x05', 'it does not wait in a system call'
regs.rip, regs.rax, regs.orig_rax, regs.rdi = saved.rip - 2, 3, 2**64 - 1, fd
ptrace(13, None, ctypes.addressof(regs)); ptrace(9); os.waitpid(pid, 0)
ptrace(12, None, ctypes.addressof(regs))
saved.orig_rax = 2**64 - 1; saved.rip -= 2; saved.rax = saved.orig_rax
saved.rax = 232 if saved.rdi < 4096 else saved.rax
ptrace(13, None, ctypes.addressof(saved)); ptrace(17)
assert regs.rax == 0, regs.rax
";

fn setup(scratch: &Scratch, tables: &str) -> Setup {
    Setup::protect([scratch.path()]).tables("[self_proof]\ninterval_s = 5").tables(tables)
}

/// `holdfast status`, healthy or not.
fn proof(agent: &Agent) -> Value {
    let output = agent.cli(&["--json", "status"]).expect("status");
    let status: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    status["proof"].clone()
}

fn line(agent: &Agent, capability: &str) -> Option<Value> {
    let proof = proof(agent);
    let lines = proof["lines"].as_array()?;
    lines.iter().find(|line| line["capability"] == capability).cloned()
}

#[track_caller]
fn wait_green(agent: &Agent) {
    let green = until(RED_WITHIN, || {
        let proof = proof(agent);
        let lines = proof["lines"].as_array()?;
        (!lines.is_empty() && lines.iter().all(|line| line["ok"] == true)).then_some(())
    });
    green.unwrap_or_else(|| panic!("not proven: {:#}\n{}", proof(agent), agent.log()));
}

#[track_caller]
fn wait_red(agent: &Agent, capability: &str) -> Value {
    let red = until(RED_WITHIN, || line(agent, capability).filter(|line| line["ok"] == false));
    let red = red.unwrap_or_else(|| panic!("{capability} is not red: {:#}", proof(agent)));
    println!("{capability}: {}", red["evidence"]);
    let told = wait_event(agent, "proof", |event| {
        event["capability"] == capability && event["ok"] == false
    });
    assert!(!told["evidence"].as_str().expect("text").is_empty());
    red
}

/// Does something again and again until dropped.
struct Again {
    stop: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Again {
    fn and_again(mut act: impl FnMut() + Send + 'static) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            while !told.load(Ordering::Relaxed) {
                act();
                std::thread::yield_now();
            }
        });
        Self { stop, thread: Some(thread) }
    }
}

impl Drop for Again {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().expect("thread");
        }
    }
}

/// A child that is killed when dropped.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn folder_of(scratch: &Scratch) -> String {
    format!("on access: {}", scratch.path().display())
}

#[test]
fn a_whole_host_is_proven_on_each_file_system_and_nothing_of_it_stays() {
    require_root();
    let (ext4, tmpfs, overlay) = (
        Scratch::ext4().expect("ext4"),
        Scratch::tmpfs(32 << 20).expect("tmpfs"),
        Scratch::overlay().expect("overlay"),
    );
    let paths = [ext4.path(), tmpfs.path(), overlay.path()];
    let mut agent =
        Setup::protect(paths).tables("[self_proof]\ninterval_s = 5").start().expect("agent");
    wait_green(&agent);
    let lines = proof(&agent)["lines"].as_array().expect("lines").clone();
    let named = |name: &str| lines.iter().any(|line| line["capability"] == name);
    for path in paths {
        assert!(named(&format!("on access: {}", path.display())), "{lines:#?}");
    }
    for name in [
        "on access: fresh mount namespace",
        "scan core",
        "rules",
        "quarantine",
        "quarantine: room",
        "journal",
        "sensor: exec",
        "sensor: capture",
        "sensor: programs",
        "detection models",
    ] {
        assert!(named(name), "{name}: {lines:#?}");
    }
    let text = agent.cli(&["status"]).expect("status");
    let text = String::from_utf8_lossy(&text.stdout).into_owned();
    assert!(text.contains("last proven"), "{text}");
    // Doctor proves it now, and explains each line.
    let doctor = agent.cli(&["doctor"]).expect("doctor");
    let doctor = String::from_utf8_lossy(&doctor.stdout).into_owned();
    assert!(doctor.contains("proof: scan core"), "{doctor}");
    let before = agent.pid();
    agent.stop().expect("clean stop");
    for path in paths {
        let left: Vec<_> = fs::read_dir(path).expect("list").flatten().collect();
        let left = left.iter().map(fs::DirEntry::file_name).collect::<Vec<_>>();
        assert!(!left.iter().any(|name| name.to_string_lossy().contains("proof")), "{left:?}");
    }
    agent.start().expect("again");
    let told = agent.json(&["events"]).expect("events");
    for event in told {
        assert!(event["kind"] != "malware", "{event:#}");
        // Other tests' agents prove themselves on the same host.
        let ours = event["process"]["parent"]["pid"] == before
            || event["process"]["parent"]["pid"] == agent.pid();
        let told =
            ["model", "packet_socket", "exec"].contains(&event["kind"].as_str().unwrap_or(""));
        assert!(!(ours && told), "{event:#}");
    }
    assert!(agent.json(&["quarantine", "list"]).expect("list").is_empty());
}

#[test]
fn a_mark_that_was_removed_is_red_by_the_name_of_its_file_system() {
    require_root();
    let scratch = Scratch::tmpfs(32 << 20).expect("scratch");
    let mut agent = setup(&scratch, "").start().expect("agent");
    wait_green(&agent);
    let unmark = Command::new("python3")
        .args(["-c", UNMARK, &agent.pid().to_string()])
        .stdin(Stdio::null())
        .spawn()
        .expect("python3");
    let unmark = Running(unmark);
    let red = wait_red(&agent, &folder_of(&scratch));
    assert!(red["evidence"].as_str().expect("text").contains("let through"), "{red:#}");
    drop(unmark);
    wait_green(&agent);
    agent.stop().expect("clean stop");
}

#[test]
fn stopped_scanners_are_red_as_the_scan_core_within_a_minute_of_the_default_interval() {
    require_root();
    let scratch = Scratch::tmpfs(32 << 20).expect("scratch");
    let setup = Setup::protect([scratch.path()])
        .on_access("deadline_ms = 500")
        .tables("[self_proof]\nenabled = true");
    let agent = Arc::new(setup.start().expect("agent"));
    wait_green(&agent);
    let stopped = Arc::clone(&agent);
    let again = Again::and_again(move || {
        signal_workers(&stopped, Signal::SIGSTOP);
    });
    wait_red(&agent, "scan core");
    drop(again);
    signal_workers(&agent, Signal::SIGCONT);
    wait_green(&agent);
}

#[test]
fn rules_that_were_emptied_are_red_and_markers_are_found_by_yara_before() {
    require_root();
    let scratch = Scratch::tmpfs(32 << 20).expect("scratch");
    let bundle = tempfile::tempdir().expect("bundle");
    let rule = bundle.path().join("one.yar");
    fs::write(&rule, "rule one { strings: $a = \"needle-needle\" condition: $a }").expect("rule");
    let tables = format!("[scan]\nbundle = {:?}", bundle.path());
    let agent = setup(&scratch, &tables).start().expect("agent");
    wait_green(&agent);
    let core = line(&agent, "scan core").expect("line");
    assert!(core["evidence"].as_str().expect("text").contains("yara"), "{core:#}");
    fs::write(&rule, "// nothing\n").expect("rule");
    agent.json(&["bundle", "reload"]).expect("reload");
    wait_red(&agent, "rules");
}

#[test]
fn the_model_switched_off_is_red() {
    require_root();
    let scratch = Scratch::tmpfs(32 << 20).expect("scratch");
    let agent = setup(&scratch, "").start().expect("agent");
    wait_green(&agent);
    agent.json(&["models", "disable", "Holdfast Self-Proof"]).expect("disable");
    wait_red(&agent, "detection models");
    agent.json(&["models", "enable", "Holdfast Self-Proof"]).expect("enable");
    wait_green(&agent);
}

#[test]
fn an_ebpf_program_that_was_detached_is_red() {
    require_root();
    let scratch = Scratch::tmpfs(32 << 20).expect("scratch");
    let agent = setup(&scratch, "").start().expect("agent");
    wait_green(&agent);
    let pid = agent.pid();
    let link = fs::read_dir(format!("/proc/{pid}/fdinfo"))
        .expect("fdinfo")
        .flatten()
        .find(|entry| {
            fs::read_to_string(entry.path())
                .is_ok_and(|text| text.contains("tp_name:\tsched_process_exec"))
        })
        .expect("the link of exec");
    let number = link.file_name().into_string().expect("number");
    let output = Command::new("python3")
        .args(["-c", CLOSE, &pid.to_string(), &number])
        .output()
        .expect("python3");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    wait_red(&agent, "sensor: exec");
}

#[test]
fn a_full_quarantine_disk_is_red() {
    require_root();
    let scratch = Scratch::tmpfs(32 << 20).expect("scratch");
    let disk = Scratch::tmpfs(160 << 20).expect("disk");
    let agent = setup(&scratch, "").home_in(disk.path()).start().expect("agent");
    wait_green(&agent);
    fill(&disk.join("ballast"), 120 << 20);
    wait_red(&agent, "quarantine: room");
    fs::remove_file(disk.join("ballast")).expect("remove");
    wait_green(&agent);
}

fn fill(path: &Path, bytes: u64) {
    let file = File::create(path).expect("create");
    nix::fcntl::fallocate(&file, nix::fcntl::FallocateFlags::empty(), 0, bytes.cast_signed())
        .expect("fallocate");
}

#[test]
fn a_unit_that_is_not_enabled_at_boot_is_red() {
    require_root();
    let scratch = Scratch::tmpfs(32 << 20).expect("scratch");
    let unit = format!("holdfast-test-{}.service", std::process::id());
    let wants = Path::new("/run/systemd/system/holdfast-test.target.wants");
    fs::create_dir_all(wants).expect("folder");
    std::os::unix::fs::symlink("/nonexistent", wants.join(&unit)).expect("link");
    let tables = format!("unit = {unit:?}");
    let agent = setup(&scratch, &tables).start().expect("agent");
    wait_green(&agent);
    fs::remove_file(wants.join(&unit)).expect("disable");
    wait_red(&agent, "start at boot");
    // Only when no other run uses it.
    let _ = fs::remove_dir(wants);
}

#[test]
fn markers_of_an_agent_that_was_killed_are_swept_by_the_next() {
    require_root();
    let scratch = Scratch::tmpfs(32 << 20).expect("scratch");
    let mut agent = setup(&scratch, "").start().expect("agent");
    wait_green(&agent);
    agent.kill().expect("killed");
    let left = scratch.join(".holdfast-proof-left");
    fs::write(&left, "HOLDFAST-SELF-PROOF-MARKER 0\n").expect("marker");
    agent.start().expect("again");
    wait_green(&agent);
    assert!(!left.exists());
    let told = agent.json(&["events", "--kind", "malware"]).expect("events");
    assert!(told.is_empty(), "{told:#?}");
}

#[test]
fn somebody_elses_marker_and_probe_are_reported_like_anything_else() {
    require_root();
    let scratch = Scratch::tmpfs(32 << 20).expect("scratch");
    let agent = setup(&scratch, "").start().expect("agent");
    wait_green(&agent);
    fs::write(scratch.join("mine"), "HOLDFAST-SELF-PROOF-MARKER mine\n").expect("write");
    wait_event(&agent, "malware", |event| {
        event["path"].as_str().is_some_and(|path| path.ends_with("/mine"))
    });
    let status = Command::new(binary("holdfastd")).args(["probe", "secret"]).status();
    assert!(status.expect("probe").success());
    wait_event(&agent, "model", |event| event["title"] == "Holdfast Self-Proof");
}
