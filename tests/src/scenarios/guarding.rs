//! Self-protection in a guest: what another process of root tries against the agent is denied and
//! told, and what must go on working does.
//!
//! The attacker is a process of its own (`guest --act tamper`), since whoever started the agent may
//! signal it. It says what it met by its exit code.

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io::{self, IoSlice, IoSliceMut, Read};
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use nix::mount::{MntFlags, umount2};
use nix::sys::uio::{RemoteIoVec, process_vm_readv, process_vm_writev};
use rustix::process::{
    Pid, PidfdFlags, PidfdGetfdFlags, Resource, Rlimit, Signal, kill_process, pidfd_getfd,
    pidfd_open, pidfd_send_signal, prlimit, setpriority_process,
};
use serde_json::Value;

use super::{EXT4, text};
use crate::agent::{Agent, PATIENCE, Setup};
use crate::observe::workers;
use crate::until;

/// The acts' exit codes.
const DONE: u8 = 0;
const DENIED: u8 = 13;
const OTHER: u8 = 14;

const VERB: &str = "HOLDFAST_TAMPER_VERB";
const TARGET: &str = "HOLDFAST_TAMPER_TARGET";

/// A file that the tests' package manager is a copy of.
const UPGRADER: &str = "/tmp/upgrader/package-manager";

fn start() -> Result<Agent, String> {
    fs::create_dir_all("/tmp/upgrader").map_err(text)?;
    fs::copy("/proc/self/exe", UPGRADER).map_err(text)?;
    let table = format!("[self_protection]\nenabled = true\npackage_managers = [{UPGRADER:?}]");
    let agent = Setup::protect([EXT4])
        .on_access("deadline_ms = 20000")
        .tables(&table)
        .start()
        .map_err(text)?;
    let line = until(PATIENCE, || {
        let line = guard_line(&agent).ok()?;
        (line["evidence"] != "still loading").then_some(line)
    });
    line.ok_or("the self-protection is still loading")?;
    // A hook that the kernel refused has a line of its own.
    let lines = guard_lines(&agent)?;
    println!("{lines:#?}");
    let fine = lines.iter().all(|line| line["ok"] == true);
    if fine { Ok(agent) } else { Err(format!("{lines:#?}\n{}", agent.log())) }
}

fn guard_line(agent: &Agent) -> Result<Value, String> {
    let mut lines = guard_lines(agent)?.into_iter();
    lines
        .find(|line| line["check"].as_str().is_some_and(|check| check.contains("BPF LSM")))
        .ok_or_else(|| "doctor has no line for it".to_owned())
}

fn guard_lines(agent: &Agent) -> Result<Vec<Value>, String> {
    // It exits 1 when any line is not fine.
    let output = agent.cli(&["--json", "doctor"]).map_err(text)?;
    Ok(serde_json::Deserializer::from_slice(&output.stdout)
        .into_iter::<Value>()
        .flatten()
        .filter(|line| {
            line["check"].as_str().is_some_and(|check| check.starts_with("self-protection"))
        })
        .collect())
}

/// What another process of root tries: verb, target, and the action that is told of it.
fn attacks(agent: &Agent) -> Vec<(&'static str, String, &'static str)> {
    let pid = agent.pid().to_string();
    let worker = workers(agent).first().map(ToString::to_string).unwrap_or_default();
    let state = agent.state();
    let inside = |name: &str| state.join(name).display().to_string();
    let config = agent.config().display().to_string();
    let mut attacks = Vec::new();
    let mut add = |verb, target: &str, action| attacks.push((verb, target.to_owned(), action));
    add("kill", &pid, "signal");
    add("pidfd-kill", &pid, "signal");
    add("kill", &worker, "signal");
    add("attach", &pid, "ptrace");
    add("read-memory", &pid, "ptrace");
    add("vm-read", &pid, "ptrace");
    add("vm-write", &worker, "ptrace");
    add("getfd", &pid, "ptrace");
    add("write-memory", &pid, "process_file");
    add("oom", &worker, "process_file");
    add("prlimit", &pid, "limits");
    add("nice", &pid, "scheduling");
    add("affinity", &pid, "scheduling");
    add("write", &config, "write");
    add("unlink", &config, "unlink");
    add("rename-over", &config, "rename");
    add("write", &inside("version"), "write");
    add("truncate", &inside("version"), "attributes");
    add("chmod", &inside("version"), "attributes");
    add("chown", &inside("version"), "attributes");
    add("unlink", &inside("version"), "unlink");
    add("rename", &inside("version"), "rename");
    add("link", &inside("version"), "link");
    add("create", &inside("new"), "create");
    add("mkdir", &inside("folder"), "create");
    add("symlink", &inside("symlink"), "create");
    add("rename", &state.display().to_string(), "rename");
    let home = state.parent().unwrap_or(Path::new("/")).display().to_string();
    add("rename", &home, "rename");
    add("unlink", "/usr/bin/holdfastd", "unlink");
    add("rename-over", "/usr/bin/holdfast-scan", "rename");
    add("unlink", &agent.socket().display().to_string(), "unlink");
    add("umount", "/sys/fs/bpf", "unmount");
    add("link-by-id", &pid, "bpf");
    add("map-by-id", &pid, "bpf");
    attacks
}

pub(super) fn another_process_of_root_is_denied_and_told() -> Result<(), String> {
    let mut agent = start()?;
    let before = fs::read(agent.config()).map_err(text)?;
    let mut wrong = Vec::new();
    let mut told = Vec::new();
    for (verb, target, action) in attacks(&agent) {
        let (pid, code, said) = tamper(OsStr::new("/proc/self/exe"), verb, &target)?;
        println!("{verb} {target}: {code} {said}");
        if code != DENIED {
            wrong.push(format!("{verb} {target}: {code} {said}"));
        } else {
            told.push((pid, verb, action));
        }
    }
    for name in ["cgroup.freeze", "cgroup.kill", "memory.high"] {
        frozen(&agent, name, &mut wrong, &mut told)?;
    }
    assert!(wrong.is_empty(), "not denied: {wrong:#?}\n{}", agent.log());
    assert_told(&agent, &told);
    assert_eq!(fs::read(agent.config()).map_err(text)?, before);
    looking_goes_on(&agent)?;
    the_exempt_go_on(&agent)?;
    // The guest's own process has started it, and may stop it; then nothing is left behind.
    let status = agent.stop().map_err(text)?;
    assert!(status.success(), "{status}\n{}", agent.log());
    let version = agent.state().join("version").display().to_string();
    let (_, code, said) = tamper(OsStr::new("/proc/self/exe"), "chmod", &version)?;
    assert_eq!(code, DONE, "the protection outlives the agent: {said}");
    Ok(())
}

/// Each attempt is an event, with the process that made it.
#[track_caller]
fn assert_told(agent: &Agent, told: &[(u32, &str, &str)]) {
    let mut missing = Vec::new();
    let all = until(PATIENCE, || {
        let events = agent.json(&["events", "--kind", "tampering", "--limit", "1000"]).ok()?;
        let is_missing = |(pid, _, action): &&(u32, &str, &str)| {
            !events.iter().any(|event| {
                let process = &event["process"];
                process["key"]["pid"] == *pid
                    && event["action"] == *action
                    && event["denied"] == true
                    && process["uid"] == 0
                    && process["args"][2] == "tamper"
            })
        };
        missing = told.iter().filter(is_missing).map(|(_, verb, _)| *verb).collect();
        missing.is_empty().then_some(())
    });
    assert!(all.is_some(), "denied and not told: {missing:?}\n{}", agent.log());
}

/// The agent is moved into a cgroup, whose files then are its own.
fn frozen(
    agent: &Agent,
    name: &str,
    wrong: &mut Vec<String>,
    told: &mut Vec<(u32, &'static str, &'static str)>,
) -> Result<(), String> {
    let folder = Path::new("/sys/fs/cgroup/guarded");
    let file = folder.join(name);
    if !folder.exists() {
        fs::create_dir(folder).map_err(text)?;
        fs::write(folder.join("cgroup.procs"), agent.pid().to_string()).map_err(text)?;
    }
    if !file.exists() {
        // Its controller is not switched on below the root.
        return if name.starts_with("cgroup.") { Err(format!("no {name}")) } else { Ok(()) };
    }
    let target = file.display().to_string();
    let (pid, code, said) = tamper(OsStr::new("/proc/self/exe"), "write", &target)?;
    if code == DENIED {
        told.push((pid, "write", "cgroup"));
    } else {
        wrong.push(format!("write {target}: {code} {said}"));
    }
    Ok(())
}

/// Nothing here needs more than to be root.
fn looking_goes_on(agent: &Agent) -> Result<(), String> {
    let folder = PathBuf::from(format!("/proc/{}", agent.pid()));
    for name in ["status", "stat", "maps", "cmdline", "environ", "smaps_rollup", "limits", "io"] {
        let mut bytes = Vec::new();
        File::open(folder.join(name))
            .and_then(|mut file| file.read_to_end(&mut bytes))
            .map_err(|error| format!("{name}: {error}"))?;
        assert!(!bytes.is_empty(), "{name} is empty");
    }
    assert!(fs::read_dir(folder.join("fd")).map_err(text)?.count() > 3);
    assert!(fs::read_link(folder.join("exe")).map_err(text)?.ends_with("holdfastd"));
    for (verb, target) in [
        ("ask", agent.pid().to_string()),
        ("reload", agent.pid().to_string()),
        ("read", agent.config().display().to_string()),
        ("write", "/tmp/upgrader/other".to_owned()),
    ] {
        let (_, code, said) = tamper(OsStr::new("/proc/self/exe"), verb, &target)?;
        assert_eq!(code, DONE, "{verb} {target}: {said}");
    }
    Ok(())
}

/// A package manager is known by its file, under whatever name; what it starts is exempt too.
fn the_exempt_go_on(agent: &Agent) -> Result<(), String> {
    let version = agent.state().join("version").display().to_string();
    let twin = "/tmp/upgrader/twin";
    fs::copy(UPGRADER, twin).map_err(text)?;
    let (_, code, said) = tamper(OsStr::new(twin), "chmod", &version)?;
    assert_eq!(code, DENIED, "the same content under another inode: {said}");
    let renamed = "/tmp/upgrader/renamed";
    fs::rename(UPGRADER, renamed).map_err(text)?;
    let (_, code, said) = tamper(OsStr::new(renamed), "chmod", &version)?;
    assert_eq!(code, DONE, "the package manager: {said}");
    let (_, code, said) = tamper(OsStr::new(renamed), "child-chmod", &version)?;
    assert_eq!(code, DONE, "what the package manager starts: {said}");
    Ok(())
}

/// Runs an act; its pid, its exit code, what it said.
fn tamper(program: &OsStr, verb: &str, target: &str) -> Result<(u32, u8, String), String> {
    let mut command = Command::new(program);
    command.args(["--act", "tamper"]).env(VERB, verb).env(TARGET, target);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let child = command.spawn().map_err(text)?;
    let pid = child.id();
    let output = child.wait_with_output().map_err(text)?;
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    let code = output.status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(OTHER);
    Ok((pid, code, said))
}

/// The act: one attempt, named by the environment.
pub(super) fn act() -> ExitCode {
    let variable = |name: &str| std::env::var(name).unwrap_or_default();
    let (verb, target) = (variable(VERB), variable(TARGET));
    match attempt(&verb, &target) {
        Ok(()) => ExitCode::from(DONE),
        Err(error) => {
            eprintln!("{error}");
            let denied = error.kind() == io::ErrorKind::PermissionDenied;
            ExitCode::from(if denied { DENIED } else { OTHER })
        }
    }
}

fn attempt(verb: &str, target: &str) -> io::Result<()> {
    if let Some(done) = at_process(verb, target).or_else(|| at_file(verb, Path::new(target))) {
        return done;
    }
    Err(io::Error::other(format!("no such verb: {verb}")))
}

fn at_process(verb: &str, target: &str) -> Option<io::Result<()>> {
    let number: i32 = target.parse().unwrap_or(0);
    let pid = Pid::from_raw(number)?;
    let old = nix::unistd::Pid::from_raw(number);
    let open = |name: &str, write: bool| {
        OpenOptions::new().read(!write).write(write).open(format!("/proc/{number}/{name}"))
    };
    let pidfd = || pidfd_open(pid, PidfdFlags::empty());
    // Where the program lies; the call is refused before it is looked at.
    let there = [RemoteIoVec { base: 0x40_0000, len: 1 }];
    Some(match verb {
        "kill" => kill_process(pid, Signal::KILL).map_err(Into::into),
        "reload" => kill_process(pid, Signal::HUP).map_err(Into::into),
        "ask" => rustix::process::test_kill_process(pid).map_err(Into::into),
        "pidfd-kill" => {
            pidfd().and_then(|fd| pidfd_send_signal(fd, Signal::STOP)).map_err(Into::into)
        }
        "attach" => nix::sys::ptrace::attach(old).map_err(Into::into),
        "read-memory" => open("mem", false).map(drop),
        "write-memory" => open("mem", true).map(drop),
        "oom" => open("oom_score_adj", true).map(drop),
        "vm-read" => process_vm_readv(old, &mut [IoSliceMut::new(&mut [0])], &there)
            .map(drop)
            .map_err(Into::into),
        "vm-write" => {
            process_vm_writev(old, &[IoSlice::new(&[0])], &there).map(drop).map_err(Into::into)
        }
        "getfd" => pidfd()
            .and_then(|fd| pidfd_getfd(fd, 0, PidfdGetfdFlags::empty()))
            .map(drop)
            .map_err(Into::into),
        "prlimit" => {
            let none = Rlimit { current: Some(0), maximum: Some(0) };
            prlimit(Some(pid), Resource::Nofile, none).map(drop).map_err(Into::into)
        }
        "nice" => setpriority_process(Some(pid), 19).map_err(Into::into),
        "affinity" => {
            let mut set = nix::sched::CpuSet::new();
            set.set(0).and_then(|()| nix::sched::sched_setaffinity(old, &set)).map_err(Into::into)
        }
        "link-by-id" => links(number),
        "map-by-id" => maps(number),
        _ => return None,
    })
}

fn at_file(verb: &str, path: &Path) -> Option<io::Result<()>> {
    let other = Path::new(EXT4).join("elsewhere");
    let beside = path.with_extension("away");
    Some(match verb {
        "read" => fs::read(path).map(drop),
        "write" => OpenOptions::new()
            .write(true)
            .create(!path.starts_with("/sys"))
            .truncate(false)
            .open(path)
            .map(drop),
        "truncate" => nix::unistd::truncate(path, 0).map_err(Into::into),
        "create" => File::create_new(path).map(drop),
        "mkdir" => fs::create_dir(path),
        "symlink" => symlink("/etc/passwd", path),
        "unlink" => fs::remove_file(path),
        "rename" => fs::rename(path, beside),
        "rename-over" => {
            let new = path.with_extension("new");
            fs::write(&new, "new").and_then(|()| fs::rename(new, path))
        }
        "link" => fs::hard_link(path, beside).or_else(|error| match error.kind() {
            io::ErrorKind::CrossesDevices => fs::hard_link(path, other),
            _ => Err(error),
        }),
        "chmod" => fs::set_permissions(path, fs::Permissions::from_mode(0o600)),
        "chown" => chown(path, Some(0), Some(0)),
        "umount" => umount2(path, MntFlags::MNT_DETACH).map_err(Into::into),
        "child-chmod" => {
            let child = tamper(OsStr::new("/init"), "chmod", &path.display().to_string());
            match child {
                Ok((_, DONE, _)) => Ok(()),
                Ok((_, _, said)) => Err(io::Error::new(io::ErrorKind::PermissionDenied, said)),
                Err(error) => Err(io::Error::other(error)),
            }
        }
        _ => return None,
    })
}

/// Takes every link by its id; the agent's among them.
fn links(_agent: i32) -> io::Result<()> {
    for link in aya::programs::loaded_links() {
        link.map_err(|error| kernel_error(&error))?;
    }
    Ok(())
}

/// Takes the first map of the agent that its descriptors name.
fn maps(agent: i32) -> io::Result<()> {
    for entry in fs::read_dir(format!("/proc/{agent}/fdinfo"))?.flatten() {
        let facts = fs::read_to_string(entry.path()).unwrap_or_default();
        let id = facts.lines().find_map(|line| line.strip_prefix("map_id:")?.trim().parse().ok());
        if let Some(id) = id {
            return aya::maps::MapData::from_id(id).map(drop).map_err(|e| kernel_error(&e));
        }
    }
    Err(io::Error::other("the agent has no maps"))
}

/// The errno behind an error of aya.
fn kernel_error(error: &(dyn std::error::Error + 'static)) -> io::Error {
    let mut cause = Some(error);
    while let Some(inner) = cause {
        if let Some(code) = inner.downcast_ref::<io::Error>().and_then(io::Error::raw_os_error) {
            return io::Error::from_raw_os_error(code);
        }
        cause = inner.source();
    }
    io::Error::other(error.to_string())
}
