//! The first process of a virtual machine: mounts, runs every scenario, reports, powers off.
//!
//! Each scenario is a child of its own with a deadline, so that a crash or a hang costs one. On the
//! serial console: `HOLDFAST-OUTCOME name pass|fail|skip reason` for each, and `HOLDFAST-END` last.
//! A scenario that needs a reboot ends the first run with `HOLDFAST-REBOOT`; its second half is
//! all that runs then.
//! Outside a machine it only lists its scenarios (`--list`).

use std::fs;
use std::panic::catch_unwind;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use holdfast_tests::scenarios::{EXT4, SCENARIOS, SKIP, act, is_rebooted};
use holdfast_tests::until;
use nix::mount::{MsFlags, mount};
use rustix::system::{RebootCommand, reboot};

/// Time of one scenario.
const DEADLINE: Duration = Duration::from_secs(150);

/// Where a scenario's process leaves its reason.
const REASON: &str = "/run/reason";

/// Modules for what init itself needs; in some kernels they are built in. Others load on demand.
const MODULES: &[&str] =
    &["virtio_pci", "virtio_blk", "loop", "overlay", "xfs", "veth", "tun", "fuse"];

/// Type and place of the kernel's own file systems.
const MOUNTS: &[(&str, &str)] = &[
    ("proc", "/proc"),
    ("sysfs", "/sys"),
    ("devtmpfs", "/dev"),
    ("tmpfs", "/run"),
    ("tmpfs", "/tmp"),
    ("bpf", "/sys/fs/bpf"),
    ("cgroup2", "/sys/fs/cgroup"),
    ("securityfs", "/sys/kernel/security"),
    ("tracefs", "/sys/kernel/tracing"),
];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["--list"] => {
            SCENARIOS.iter().for_each(|(name, _)| println!("{name}"));
            ExitCode::SUCCESS
        }
        ["--scenario", name] => scenario(name),
        ["--act", name] => act(name),
        // The kernel hands unknown words of its command line to init.
        _ if std::process::id() == 1 => {
            init();
            // Not reached unless the power-off fails; the kernel then panics, which is seen.
            ExitCode::FAILURE
        }
        _ => {
            eprintln!("usage: guest --list | --scenario NAME");
            ExitCode::from(64)
        }
    }
}

fn init() {
    prepare();
    let line = fs::read_to_string("/proc/cmdline").unwrap_or_default();
    let filter = line.split_whitespace().find_map(|word| word.strip_prefix("holdfast.filter="));
    let rebooted = is_rebooted();
    let first = if rebooted { SCENARIOS.len() - 1 } else { 0 };
    for (name, _) in &SCENARIOS[first..] {
        if filter.is_none_or(|filter| name.contains(filter)) {
            println!("\nscenario {name}");
            let outcome = run(name);
            if !rebooted && is_rebooted() {
                println!("\nHOLDFAST-REBOOT");
                end(RebootCommand::Restart);
            }
            println!("\nHOLDFAST-OUTCOME {name} {outcome}");
        }
    }
    println!("\nHOLDFAST-END");
    end(RebootCommand::PowerOff);
}

fn end(how: RebootCommand) {
    rustix::fs::sync();
    if let Err(errno) = reboot(how) {
        eprintln!("reboot: {errno}");
    }
}

/// Mounts, modules, the host's name, the loopback, the disk. What fails is said; the scenarios then fail by it.
fn prepare() {
    for &(kind, target) in MOUNTS {
        attach(kind, kind, target);
    }
    for module in MODULES {
        call("modprobe", &["-q", module]);
    }
    if let Err(errno) = rustix::system::sethostname(b"guest") {
        eprintln!("sethostname: {errno}");
    }
    call("ip", &["link", "set", "lo", "up"]);
    // The disk appears once its driver has found it.
    let found = until(Duration::from_secs(20), || Path::new("/dev/vda").exists().then_some(()));
    if found.is_none() {
        eprintln!("no /dev/vda");
    }
    attach("/dev/vda", "ext4", EXT4);
}

fn attach(source: &str, kind: &str, target: &str) {
    // The kernel's own mount points are there already, and cannot be made.
    let _ = fs::create_dir_all(target);
    if let Err(errno) = mount(Some(source), target, Some(kind), MsFlags::empty(), None::<&str>) {
        eprintln!("mount {kind} on {target}: {errno}");
    }
}

/// A busybox tool; modules that are built in make modprobe fail, which is fine.
fn call(program: &str, arguments: &[&str]) {
    if let Err(error) = Command::new(program).args(arguments).env("PATH", "/sbin:/bin").status() {
        eprintln!("{program}: {error}");
    }
}

/// One scenario in its own process; the rest of its outcome line.
fn run(name: &str) -> String {
    // None when the scenario before left none.
    let _ = fs::remove_file(REASON);
    let child = Command::new("/init")
        .args(["--scenario", name])
        .env("PATH", "/usr/bin:/usr/sbin:/bin:/sbin")
        .env("HOLDFAST_BIN", "/usr/bin")
        .env("HOME", "/root")
        .env("RUST_BACKTRACE", "1")
        .stdin(Stdio::null())
        .spawn();
    let mut child = match child {
        Ok(child) => child,
        Err(error) => return format!("fail start: {error}"),
    };
    let Some(status) = until(DEADLINE, || child.try_wait().transpose()) else {
        // It may be beyond SIGKILL: not waited for.
        let _ = child.kill();
        return format!("fail still running after {} s", DEADLINE.as_secs());
    };
    let reason = fs::read_to_string(REASON).unwrap_or_default().replace(['\r', '\n'], " ");
    match status {
        Ok(status) if status.success() => "pass".to_owned(),
        Ok(status) if status.code() == Some(1) => match reason.strip_prefix(SKIP) {
            Some(reason) => format!("skip {reason}"),
            None => format!("fail {reason}"),
        },
        Ok(status) => format!("fail {status}"),
        Err(error) => format!("fail wait: {error}"),
    }
}

/// In the child: do it, leave the reason.
fn scenario(name: &str) -> ExitCode {
    let Some((_, function)) = SCENARIOS.iter().find(|(known, _)| *known == name) else {
        eprintln!("no scenario {name}");
        return ExitCode::from(64);
    };
    let outcome = catch_unwind(function).unwrap_or_else(|panic| {
        let message = panic.downcast_ref::<String>().map(String::as_str);
        Err(message.or(panic.downcast_ref::<&str>().copied()).unwrap_or("panicked").to_owned())
    });
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            if let Err(error) = fs::write(REASON, &reason) {
                eprintln!("{REASON}: {error}");
            }
            eprintln!("{reason}");
            ExitCode::from(1)
        }
    }
}
