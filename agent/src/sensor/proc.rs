//! What `/proc` says of one process, now.
//!
//! Invariant: everything is read through one descriptor of `/proc/PID`, so that all of it belongs
//! to one process even when the pid is reused meanwhile. Only [`arguments`] (and so [`observe`])
//! can block: the kernel reads them from the process's own memory, which may be a FUSE mapping or
//! under userfaultfd. Every read has a limit.

use std::collections::HashMap;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use holdfast_common::abi::ARGS_MAX;
use holdfast_common::process::{ProcessInfo, ProcessKey, printable};
use rustix::fs::{Mode, OFlags};

/// `/proc/PID/stat` counts in ticks of 10 ms on every architecture that Linux still has
/// (`USER_HZ`).
pub const TICK_NS: u64 = 10_000_000;

const SMALL_FILE: u64 = 64 << 10;
const PASSWD: &str = "/etc/passwd";
const PASSWD_MAX: u64 = 8 << 20;

/// One process's folder, held open.
pub struct ProcDir {
    fd: OwnedFd,
    /// pid and start time of the process that it belongs to.
    pub key: ProcessKey,
    /// Its parent's pid, 0 for none.
    pub parent: u32,
    comm: String,
}

/// From /proc now. Reads of cmdline can block on hostile memory (FUSE, userfaultfd): the caller
/// must be a thread that may block.
pub fn observe(pid: u32) -> Option<ProcessInfo> {
    let folder = ProcDir::open(pid)?;
    let mut info = folder.facts();
    (info.args, info.args_truncated) = folder.arguments();
    let parent = ProcDir::open(folder.parent).map(|parent| parent.key);
    info.parent = parent;
    Some(info)
}

impl ProcDir {
    /// Opens the folder of the process that has this pid now. Does not block.
    pub fn open(pid: u32) -> Option<Self> {
        if pid == 0 {
            return None;
        }
        let flags = OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::RDONLY;
        let fd = rustix::fs::open(format!("/proc/{pid}"), flags, Mode::empty()).ok()?;
        let stat = read_at(&fd, "stat", SMALL_FILE)?;
        let (comm, parent, start_ns) = parse_stat(&stat)?;
        Some(Self { fd, key: ProcessKey { pid, start_ns }, parent, comm })
    }

    /// The folder of exactly this process, `None` when it is gone. Does not block.
    pub fn open_key(key: ProcessKey) -> Option<Self> {
        Self::open(key.pid).filter(|folder| folder.key == key || key.start_ns == 0)
    }

    /// Everything but the arguments and the parent. Does not block.
    pub fn facts(&self) -> ProcessInfo {
        let (uid, euid) = read_at(&self.fd, "status", SMALL_FILE)
            .and_then(|status| parse_uids(&status))
            .unwrap_or((u32::MAX, u32::MAX));
        let login_uid = read_at(&self.fd, "loginuid", 64)
            .and_then(|text| String::from_utf8(text).ok()?.trim().parse().ok())
            .filter(|uid| *uid != u32::MAX);
        ProcessInfo {
            key: self.key,
            parent: None,
            exe: self.link("exe"),
            comm: self.comm.clone(),
            args: Vec::new(),
            args_truncated: false,
            uid,
            euid,
            login_uid,
            user: user_name(uid),
            cwd: self.link("cwd"),
            container: self.container(),
            ..ProcessInfo::default()
        }
    }

    /// The argument vector and whether it is cut. **May block for ever**, see the module.
    pub fn arguments(&self) -> (Vec<String>, bool) {
        match read_at(&self.fd, "cmdline", ARGS_MAX as u64 + 1) {
            Some(bytes) => split_arguments(&bytes[..bytes.len().min(ARGS_MAX)], bytes.len()),
            None => (Vec::new(), false),
        }
    }

    /// `exe` or `cwd`, empty when unknown. Does not block.
    pub fn link(&self, name: &str) -> String {
        rustix::fs::readlinkat(&self.fd, name, Vec::new())
            .map(|target| printable(target.as_bytes()))
            .unwrap_or_default()
    }

    /// The container's id. Does not block.
    pub fn container(&self) -> Option<String> {
        container_of(&read_at(&self.fd, "cgroup", SMALL_FILE)?)
    }
}

/// Splits the bytes between `arg_start` and `arg_end`. `total` is the length that the vector has;
/// more than is given means that it is cut.
pub fn split_arguments(bytes: &[u8], total: usize) -> (Vec<String>, bool) {
    if bytes.is_empty() {
        return (Vec::new(), total > 0);
    }
    let truncated = total > bytes.len();
    let whole = bytes.strip_suffix(&[0]).unwrap_or(bytes);
    (whole.split(|byte| *byte == 0).map(printable).collect(), truncated)
}

/// A start time as [`ProcessKey`] has it.
pub fn cut_to_tick(start_ns: u64) -> u64 {
    start_ns / TICK_NS * TICK_NS
}

/// Name of a uid in the host's passwd file, the number when it has none. The file is read again
/// when it is a minute old, or a name is missing; no name service is asked, since that may wait
/// for the network.
pub fn user_name(uid: u32) -> String {
    static USERS: Mutex<Option<(Instant, HashMap<u32, String>)>> = Mutex::new(None);
    let mut users = USERS.lock().unwrap_or_else(PoisonError::into_inner);
    let name = |users: &Option<(Instant, HashMap<u32, String>)>, most: Duration| {
        let (read, names) = users.as_ref().filter(|(read, _)| read.elapsed() < most)?;
        let missing = (read.elapsed() < Duration::from_secs(1)).then(|| uid.to_string());
        names.get(&uid).cloned().or(missing)
    };
    if let Some(name) = name(&users, Duration::from_secs(60)) {
        return name;
    }
    let names = read_file(Path::new(PASSWD), PASSWD_MAX).map(|text| parse_passwd(&text));
    let names = names.unwrap_or_default();
    let found = names.get(&uid).cloned().unwrap_or_else(|| uid.to_string());
    *users = Some((Instant::now(), names));
    found
}

/// Reads a file up to a limit.
pub fn read_file(path: &Path, limit: u64) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    std::fs::File::open(path).ok()?.take(limit).read_to_end(&mut bytes).ok()?;
    Some(bytes)
}

fn read_at(folder: &OwnedFd, name: &str, limit: u64) -> Option<Vec<u8>> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let fd = rustix::fs::openat(folder, name, flags, Mode::empty()).ok()?;
    let mut bytes = Vec::new();
    std::fs::File::from(fd).take(limit).read_to_end(&mut bytes).ok()?;
    Some(bytes)
}

/// comm, parent's pid and start time. comm may hold anything, `)` and line breaks too: what
/// follows begins behind the last `)`.
fn parse_stat(stat: &[u8]) -> Option<(String, u32, u64)> {
    let open = stat.iter().position(|byte| *byte == b'(')?;
    let close = stat.iter().rposition(|byte| *byte == b')')?;
    let comm = printable(stat.get(open + 1..close)?);
    let rest = std::str::from_utf8(stat.get(close + 1..)?).ok()?;
    let mut fields = rest.split_ascii_whitespace();
    // Fields 4 (ppid) and 22 (starttime), counted from 1; `rest` begins with field 3.
    let parent = fields.nth(1)?.parse().ok()?;
    let ticks: u64 = fields.nth(17)?.parse().ok()?;
    Some((comm, parent, ticks.checked_mul(TICK_NS)?))
}

fn parse_uids(status: &[u8]) -> Option<(u32, u32)> {
    // The kernel escapes line breaks in the name, so no other line can begin so.
    let line = status.split(|byte| *byte == b'\n').find_map(|line| line.strip_prefix(b"Uid:"))?;
    let mut fields = std::str::from_utf8(line).ok()?.split_ascii_whitespace();
    Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
}

fn parse_passwd(text: &[u8]) -> HashMap<u32, String> {
    let mut names = HashMap::new();
    for line in text.split(|byte| *byte == b'\n') {
        let mut fields = line.split(|byte| *byte == b':');
        let (Some(name), Some(uid)) = (fields.next(), fields.nth(1)) else { continue };
        if let Some(uid) = std::str::from_utf8(uid).ok().and_then(|uid| uid.parse().ok()) {
            names.entry(uid).or_insert_with(|| printable(name));
        }
    }
    names
}

/// The id in a cgroup path: the 64 hex digits that Docker, containerd, CRI-O and Podman put
/// there, or the name behind LXC's `lxc.payload.`.
fn container_of(cgroup: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(cgroup);
    for line in text.lines() {
        let path = line.splitn(3, ':').nth(2).unwrap_or("");
        for part in path.rsplit('/') {
            let id = part.split(|c: char| !c.is_ascii_hexdigit()).find(|run| run.len() == 64);
            if let Some(id) = id {
                return Some(id.to_owned());
            }
            if let Some(name) = part.strip_prefix("lxc.payload.").filter(|name| !name.is_empty()) {
                return Some(printable(name.as_bytes()));
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_full_of_brackets_and_line_breaks_does_not_shift_the_fields() {
        let tail = "S 7 1 1 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 4242 1 1";
        let stat = format!("31 (a) R 1\n) x) {tail}");
        let parsed = parse_stat(stat.as_bytes());
        assert_eq!(parsed, Some((r"a) R 1\x0a) x".to_owned(), 7, 4242 * TICK_NS)));
        for cut in 0..stat.len() - " 4242 1 1".len() {
            assert!(parse_stat(&stat.as_bytes()[..cut]).is_none(), "cut at {cut}");
        }
    }

    #[test]
    fn arguments_are_split_at_their_ends_alone() {
        let split = |bytes: &[u8]| split_arguments(bytes, bytes.len());
        assert_eq!(split(b""), (vec![], false));
        assert_eq!(split(b"\0"), (vec![String::new()], false));
        assert_eq!(split(b"a\0\0b c\0"), (vec!["a".into(), String::new(), "b c".into()], false));
        assert_eq!(split(b"no end"), (vec!["no end".into()], false));
        assert_eq!(
            split(b"\x1b[2J\0\xff\n\0"),
            (vec![r"\x1b[2J".into(), r"\xff\x0a".into()], false)
        );
        assert_eq!(split_arguments(b"a\0long", 9000), (vec!["a".into(), "long".into()], true));
        assert_eq!(split_arguments(b"", 5), (vec![], true));
    }

    #[test]
    fn container_ids_are_found_in_the_usual_paths() {
        let id = "0123456789abcdef".repeat(4);
        for path in [
            format!("0::/system.slice/docker-{id}.scope\n"),
            format!("12:pids:/docker/{id}\n0::/\n"),
            format!("0::/kubepods.slice/kubepods-pod1.slice/cri-containerd-{id}.scope/init\n"),
        ] {
            assert_eq!(container_of(path.as_bytes()).as_deref(), Some(id.as_str()), "{path}");
        }
        assert_eq!(container_of(b"0::/lxc.payload.web/x\n").as_deref(), Some("web"));
        assert_eq!(container_of(b"0::/user.slice/user-0.slice\n"), None);
        assert_eq!(container_of(b"\xff\xfe"), None);
    }

    #[test]
    fn the_first_name_of_a_uid_counts_and_broken_lines_do_not() {
        let names = parse_passwd(b"root:x:0:0::/:/bin/sh\ntoor:x:0:0::/:\nbroken\nx:y:z\na:x:7\n");
        assert_eq!(names.get(&0).map(String::as_str), Some("root"));
        assert_eq!(names.get(&7).map(String::as_str), Some("a"));
        assert_eq!(names.len(), 2);
    }

    #[test]
    fn this_process_is_observed_with_its_arguments_and_parent() {
        let me = observe(std::process::id()).expect("own process");
        assert_eq!(me.args, std::env::args().collect::<Vec<_>>());
        assert_eq!(me.parent.map(|key| key.pid), Some(std::os::unix::process::parent_id()));
        assert!(me.key.start_ns > 0 && me.exe.starts_with('/'));
    }
}
