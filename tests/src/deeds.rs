//! Things that processes do and the sensor must see, each harmless and undone by its end.
//!
//! A test runs one in a process of its own, here and in guests, and looks for what the sensor
//! says about that process. No product code.

use std::fs::{self, File};
use std::io::{IoSlice, Read, Seek, SeekFrom, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::ptrace;
use nix::sys::uio::{RemoteIoVec, process_vm_writev};
use nix::sys::wait::waitpid;
use nix::unistd::{Pid, Uid, setresuid};

use crate::program32::Program32;
use crate::until;

/// All of them.
pub const DEEDS: [&str; 9] = [
    "memfd",
    "setuid",
    "attach",
    "traceme",
    "write-memory",
    "write-memory-file",
    "namespaces",
    "mounts",
    "calls-of-32-bits",
];

/// Does one. `folder` is a scratch folder of the caller's.
///
/// # Errors
/// The name is unknown, or the kernel refused: then there is nothing to be seen.
pub fn run(name: &str, folder: &Path) -> Result<(), String> {
    match name {
        "memfd" => memfd_create(c"a name", MFdFlags::MFD_CLOEXEC).map(drop).map_err(text),
        "setuid" => {
            let nobody = Uid::from_raw(65534);
            setresuid(nobody, nobody, nobody).map_err(text)
        }
        "attach" => {
            let target = Target::start()?;
            ptrace::attach(target.pid()).map_err(text)?;
            waitpid(target.pid(), None).map_err(text)?;
            ptrace::detach(target.pid(), None).map_err(text)
        }
        "traceme" => {
            // By a process of one thread, which its parent can wait for as ever.
            let program = folder.join("traced");
            let mut code = Program32::default();
            code.call(26, &[0, 0, 0, 0]);
            code.write(&program).map_err(text)?;
            Err(Command::new(program).exec().to_string())
        }
        "write-memory" => {
            let target = Target::start()?;
            let (base, byte) = target.writable()?;
            let remote = [RemoteIoVec { base, len: 1 }];
            process_vm_writev(target.pid(), &[IoSlice::new(&[byte])], &remote)
                .map(drop)
                .map_err(text)
        }
        "write-memory-file" => {
            let target = Target::start()?;
            let (base, byte) = target.writable()?;
            let mut memory = fs::OpenOptions::new()
                .write(true)
                .open(format!("/proc/{}/mem", target.0.id()))
                .map_err(text)?;
            memory.seek(SeekFrom::Start(base as u64)).map_err(text)?;
            memory.write_all(&[byte]).map_err(text)
        }
        "namespaces" => {
            unshare(CloneFlags::CLONE_NEWUTS | CloneFlags::CLONE_NEWIPC).map_err(text)?;
            let own = File::open("/proc/self/ns/uts").map_err(text)?;
            setns(own, CloneFlags::empty()).map_err(text)
        }
        "mounts" => mounts(folder),
        "calls-of-32-bits" => {
            let program = folder.join("thirty-two");
            calls_of_32_bits(folder).write(&program).map_err(text)?;
            Err(Command::new(program).exec().to_string())
        }
        other => Err(format!("no such deed: {other}")),
    }
}

fn mounts(folder: &Path) -> Result<(), String> {
    unshare(CloneFlags::CLONE_NEWNS).map_err(text)?;
    let none = None::<&str>;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).map_err(text)?;
    mount(Some("a source"), folder, Some("tmpfs"), MsFlags::empty(), none).map_err(text)?;
    let moved = folder.join("moved");
    fs::create_dir(&moved).map_err(text)?;
    let tree = rustix::mount::open_tree(
        rustix::fs::CWD,
        folder,
        rustix::mount::OpenTreeFlags::OPEN_TREE_CLONE,
    )
    .map_err(text)?;
    rustix::mount::move_mount(
        tree,
        "",
        rustix::fs::CWD,
        &moved,
        rustix::mount::MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH,
    )
    .map_err(text)?;
    umount2(&moved, MntFlags::MNT_DETACH).map_err(text)?;
    umount2(folder, MntFlags::MNT_DETACH).map_err(text)
}

/// What the deeds do, through the other call table: a memfd, an eBPF program, namespaces by
/// `clone` and `unshare`, a mount, user ids.
fn calls_of_32_bits(folder: &Path) -> Program32 {
    const CLONE_NEWUTS: u32 = 0x0400_0000;
    const CLONE_NEWNS: u32 = 0x0002_0000;
    const SIGCHLD: u32 = 17;
    let mut program = Program32::default();
    let name = program.data(b"thirty-two\0");
    program.call(356, &[name, 0]);
    // r0 = 0; exit. A socket filter (type 1), two instructions, a licence, a name at byte 48.
    let code = program.data(&[0xb7, 0, 0, 0, 0, 0, 0, 0, 0x95, 0, 0, 0, 0, 0, 0, 0]);
    let licence = program.data(b"GPL\0");
    let mut attributes = Vec::new();
    for word in [1, 2, code, 0, licence, 0, 0, 0, 0, 0, 0, 0] {
        attributes.extend(word.to_le_bytes());
    }
    attributes.extend(b"harmless\0\0\0\0\0\0\0\0");
    let attributes = program.data(&attributes);
    program.call(357, &[5, attributes, 64]);
    program.call(120, &[CLONE_NEWUTS | SIGCHLD, 0, 0, 0, 0]);
    program.call(310, &[CLONE_NEWNS]);
    let mut path = folder.as_os_str().as_encoded_bytes().to_vec();
    path.push(0);
    let path = program.data(&path);
    let root = program.data(b"/\0");
    // MS_REC | MS_PRIVATE
    program.call(21, &[root, root, 0, 0x4_4000, 0]);
    let kind = program.data(b"tmpfs\0");
    program.call(21, &[name, path, kind, 0, 0]);
    program.call(52, &[path, 0]);
    program.call(208, &[65534, 65534, 65534]);
    program
}

/// A program that runs `echo` with one argument while a thread of it changes that argument's
/// first letter for ever.
#[must_use]
pub fn exec_while_a_thread_changes_the_argument() -> Program32 {
    let mut program = Program32::default();
    let path = program.data(b"/bin/echo\0");
    let argument = program.data(b"Argument-of-a-liar\0");
    let mut vector = Vec::new();
    for word in [path, argument, 0] {
        vector.extend(word.to_le_bytes());
    }
    let vector = program.data(&vector);
    program.flip_case_in_a_thread(argument);
    program.spin(100_000);
    program.call(11, &[path, vector, 0]);
    program
}

/// A process that sleeps, to be looked into.
struct Target(Child);

impl Target {
    /// Started, and asleep: before that its exec may still be under way, which others see.
    fn start() -> Result<Self, String> {
        const PATIENCE: Duration = Duration::from_secs(20);
        let child = Command::new("/bin/sleep").arg("60").stdin(Stdio::null()).spawn();
        let target = Self(child.map_err(text)?);
        let stat = format!("/proc/{}/stat", target.0.id());
        let asleep = || fs::read_to_string(&stat).ok()?.contains("(sleep) S").then_some(());
        until(PATIENCE, asleep).ok_or("it never slept")?;
        Ok(target)
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(self.0.id().cast_signed())
    }

    /// An address that can be written, and the byte that is there.
    fn writable(&self) -> Result<(usize, u8), String> {
        let maps = fs::read_to_string(format!("/proc/{}/maps", self.0.id())).map_err(text)?;
        let stack = maps.lines().find(|line| line.contains("[stack]")).ok_or("no stack")?;
        let (_, range) = stack.split_once('-').ok_or("no range")?;
        let end = range.split(' ').next().ok_or("no end")?;
        let base = u64::from_str_radix(end, 16).map_err(text)? - 64;
        let mut memory = File::open(format!("/proc/{}/mem", self.0.id())).map_err(text)?;
        memory.seek(SeekFrom::Start(base)).map_err(text)?;
        let mut byte = [0];
        memory.read_exact(&mut byte).map_err(text)?;
        Ok((usize::try_from(base).map_err(text)?, byte[0]))
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}
