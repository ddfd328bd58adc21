//! What the guest's kernel has that everything else builds on: no agent runs here.

use std::fs::{self, File};
use std::io::Read;
use std::net::UdpSocket;
use std::os::fd::AsFd;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;

use nix::sys::fanotify::{
    EventFFlags, Fanotify, FanotifyResponse, InitFlags, MarkFlags, MaskFlags, Response,
};
use rustix::fs::statfs;

use super::{EXT4, text};
use crate::agent::{PATIENCE, binary, finish};
use crate::scratch::Scratch;
use crate::until;

/// `BPF_FS_MAGIC`, linux/magic.h.
const BPF_FS_MAGIC: u64 = 0xcafe_4a11;

pub(super) fn shipped_binaries_start() -> Result<(), String> {
    for name in ["holdfastd", "holdfast"] {
        let output = finish(Command::new(binary(name)).arg("--help"), PATIENCE).map_err(text)?;
        if !output.status.success() {
            return Err(format!("{name}: {}", String::from_utf8_lossy(&output.stderr).trim()));
        }
    }
    Ok(())
}

pub(super) fn kernel_describes_its_types() -> Result<(), String> {
    let mut magic = [0; 2];
    File::open("/sys/kernel/btf/vmlinux")
        .and_then(|mut f| f.read_exact(&mut magic))
        .map_err(text)?;
    // BTF_MAGIC, in the machine's byte order.
    if u16::from_ne_bytes(magic) == 0xeb9f { Ok(()) } else { Err(format!("magic {magic:x?}")) }
}

pub(super) fn bpffs_can_be_written() -> Result<(), String> {
    let kind = statfs("/sys/fs/bpf").map_err(text)?.f_type;
    if kind.cast_unsigned() != BPF_FS_MAGIC {
        return Err(format!("/sys/fs/bpf is of type {kind:#x}"));
    }
    fs::create_dir("/sys/fs/bpf/holdfast-test").map_err(text)?;
    fs::remove_dir("/sys/fs/bpf/holdfast-test").map_err(text)
}

pub(super) fn open_on_ext4_is_held_and_answered() -> Result<(), String> {
    held_and_answered(Path::new(EXT4))
}

pub(super) fn open_on_tmpfs_is_held_and_answered() -> Result<(), String> {
    let scratch = Scratch::tmpfs(16 << 20).map_err(text)?;
    held_and_answered(scratch.path())
}

/// A real sniffer runs here: what the sensor is to see.
pub(super) fn tcpdump_sees_the_loopback() -> Result<(), String> {
    let mut tcpdump = Command::new("tcpdump")
        .args(["-c", "1", "-nni", "lo"])
        .stdout(Stdio::null())
        .spawn()
        .map_err(|error| format!("start tcpdump: {error}"))?;
    let socket = UdpSocket::bind("127.0.0.1:0").map_err(text)?;
    // It sees only what comes after it has begun: send until it has seen one.
    let ended = until(PATIENCE, || {
        // Nobody listens on the discard port; the refusal comes back here.
        let _ = socket.send_to(b"seen", "127.0.0.1:9");
        tcpdump.try_wait().transpose()
    });
    match ended {
        Some(Ok(status)) if status.success() => Ok(()),
        Some(Ok(status)) => Err(format!("tcpdump: {status}")),
        Some(Err(error)) => Err(format!("wait for tcpdump: {error}")),
        None => {
            tcpdump.kill().map_err(text)?;
            Err("tcpdump saw nothing".into())
        }
    }
}

/// The smallest listener: one open is allowed, the next is denied.
fn held_and_answered(folder: &Path) -> Result<(), String> {
    let file = folder.join("held");
    fs::write(&file, b"content").map_err(text)?;
    let group = Fanotify::init(
        InitFlags::FAN_CLASS_CONTENT | InitFlags::FAN_CLOEXEC | InitFlags::FAN_UNLIMITED_QUEUE,
        EventFFlags::O_RDONLY | EventFFlags::O_CLOEXEC,
    )
    .map_err(|errno| format!("fanotify_init: {errno}"))?;
    group
        .mark(
            MarkFlags::FAN_MARK_ADD | MarkFlags::FAN_MARK_FILESYSTEM,
            MaskFlags::FAN_OPEN_PERM,
            rustix::fs::CWD,
            Some(folder),
        )
        .map_err(|errno| format!("fanotify_mark: {errno}"))?;
    for (response, allowed) in [(Response::FAN_ALLOW, true), (Response::FAN_DENY, false)] {
        let path = file.clone();
        let opener = thread::spawn(move || File::open(path).map(drop));
        let events = group.read_events().map_err(|errno| format!("read: {errno}"))?;
        let [event] = events.as_slice() else { return Err(format!("{} events", events.len())) };
        let descriptor = event.fd().ok_or("an event without a descriptor")?;
        group
            .write_response(FanotifyResponse::new(descriptor.as_fd(), response))
            .map_err(|errno| format!("answer: {errno}"))?;
        let opened = opener.join().map_err(|_| "the opener panicked")?;
        if opened.is_ok() != allowed {
            return Err(format!("answered {response:?}, and the opener got {opened:?}"));
        }
    }
    fs::remove_file(&file).map_err(text)
}
