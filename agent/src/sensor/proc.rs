//! What `/proc` says of one process, now.
//!
//! Invariant: everything is read through one descriptor of `/proc/PID`, so that all of it belongs
//! to one process even when the pid is reused meanwhile. Only [`ProcDir::arguments`]
//! and [`ProcDir::environment`] (and so [`observe`]) can block: the kernel reads them from the process's own memory, which may be a FUSE mapping or
//! under userfaultfd. Every read has a limit.

use std::collections::{BTreeMap, HashMap};
use std::io::Read;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use holdfast_common::abi::{ARGS_MAX, VARIABLE_MAX};
use holdfast_common::process::{ProcessInfo, ProcessKey, WATCHED_ENVIRONMENT, printable};
use rustix::fs::{Mode, OFlags};

/// `/proc/PID/stat` counts in ticks of 10 ms on every architecture that Linux still has
/// (`USER_HZ`).
pub const TICK_NS: u64 = 10_000_000;

const SMALL_FILE: u64 = 64 << 10;
const PASSWD: &str = "/etc/passwd";
const PASSWD_MAX: u64 = 8 << 20;
const ENVIRONMENT_MAX: u64 = 256 << 10;

/// One process's folder, held open.
pub struct ProcDir {
    fd: OwnedFd,
    /// pid and start time of the process that it belongs to.
    pub key: ProcessKey,
    /// Its parent's pid, 0 for none.
    pub parent: u32,
    stat: Stat,
}

/// What `/proc/PID/stat` says.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Stat {
    comm: String,
    parent: u32,
    session: u32,
    /// Number of the controlling terminal's device, 0 for none.
    terminal: u32,
    start_ns: u64,
}

/// From /proc now. Reads of cmdline can block on hostile memory (FUSE, userfaultfd): the caller
/// must be a thread that may block.
pub fn observe(pid: u32) -> Option<ProcessInfo> {
    let folder = ProcDir::open(pid)?;
    let mut info = folder.facts();
    (info.args, info.args_truncated) = folder.arguments();
    info.environment = folder.environment();
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
        let stat = parse_stat(&stat)?;
        let key = ProcessKey { pid, start_ns: stat.start_ns };
        Some(Self { fd, key, parent: stat.parent, stat })
    }

    /// The folder of exactly this process, `None` when it is gone. Does not block.
    pub fn open_key(key: ProcessKey) -> Option<Self> {
        Self::open(key.pid).filter(|folder| folder.key == key || key.start_ns == 0)
    }

    /// Everything but the arguments, the environment and the parent. Does not block.
    pub fn facts(&self) -> ProcessInfo {
        let (uid, euid) = self.users().unwrap_or((u32::MAX, u32::MAX));
        let login_uid = read_at(&self.fd, "loginuid", 64)
            .and_then(|text| String::from_utf8(text).ok()?.trim().parse().ok())
            .filter(|uid| *uid != u32::MAX);
        let (cgroup, container) = self.groups();
        ProcessInfo {
            key: self.key,
            exe: self.link("exe"),
            comm: self.stat.comm.clone(),
            uid,
            euid,
            login_uid,
            user: user_name(uid),
            cwd: self.link("cwd"),
            container,
            cgroup,
            session: self.stat.session,
            tty: terminal_name(self.stat.terminal),
            ..ProcessInfo::default()
        }
    }

    /// Real and effective user id. Does not block.
    pub fn users(&self) -> Option<(u32, u32)> {
        parse_uids(&read_at(&self.fd, "status", SMALL_FILE)?)
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

    /// The watched environment variables. **May block for ever**, as the arguments.
    pub fn environment(&self) -> BTreeMap<String, String> {
        let bytes = read_at(&self.fd, "environ", ENVIRONMENT_MAX).unwrap_or_default();
        let watched = bytes.split(|byte| *byte == 0).filter_map(|variable| {
            let at = variable.iter().position(|byte| *byte == b'=')?;
            let name = WATCHED_ENVIRONMENT.iter().find(|one| one.as_bytes() == &variable[..at])?;
            let value = &variable[at + 1..];
            Some(((*name).to_owned(), printable(&value[..value.len().min(VARIABLE_MAX)])))
        });
        watched.collect()
    }

    /// Path of the control group, and the container's id. Does not block.
    pub fn groups(&self) -> (String, Option<String>) {
        let listing = read_at(&self.fd, "cgroup", SMALL_FILE).unwrap_or_default();
        (cgroup_of(&listing), container_of(&listing))
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

/// comm may hold anything, `)` and line breaks too: what follows begins behind the last `)`.
fn parse_stat(stat: &[u8]) -> Option<Stat> {
    let open = stat.iter().position(|byte| *byte == b'(')?;
    let close = stat.iter().rposition(|byte| *byte == b')')?;
    let comm = printable(stat.get(open + 1..close)?);
    let rest = std::str::from_utf8(stat.get(close + 1..)?).ok()?;
    let mut fields = rest.split_ascii_whitespace();
    // Fields 4 (ppid), 6 (session), 7 (tty_nr) and 22 (starttime), counted from 1; `rest` begins
    // with field 3.
    let parent = fields.nth(1)?.parse().ok()?;
    let session = fields.nth(1)?.parse().unwrap_or(0);
    let terminal = fields.next()?.parse::<i32>().ok()?.cast_unsigned();
    let ticks: u64 = fields.nth(14)?.parse().ok()?;
    Some(Stat { comm, parent, session, terminal, start_ns: ticks.checked_mul(TICK_NS)? })
}

/// `pts/N`, `ttyN`, `ttySN` or `major:minor` for a device number as `/proc/PID/stat` packs it.
fn terminal_name(device: u32) -> String {
    let (major, minor) = (device >> 8 & 0xfff, device & 0xff | device >> 12 & 0xf_ff00);
    match (major, minor) {
        (0, _) => String::new(),
        (4, 0..64) => format!("tty{minor}"),
        (4, _) => format!("ttyS{}", minor - 64),
        // UNIX98_PTY_SLAVE_MAJOR, eight of them.
        (136..144, _) => format!("pts/{}", (major - 136) * 256 + minor),
        (5, 1) => "console".to_owned(),
        _ => format!("{major}:{minor}"),
    }
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

/// Path in the hierarchy of version 2; where that says nothing (`/` beside others), in systemd's or
/// the first of version 1.
fn cgroup_of(listing: &[u8]) -> String {
    let text = String::from_utf8_lossy(listing);
    let parts = || {
        text.lines().filter_map(|line| {
            let mut parts = line.splitn(3, ':').skip(1);
            Some((parts.next()?, parts.next()?))
        })
    };
    let of = |name: &str| parts().find(|(controllers, _)| *controllers == name);
    let named = of("").filter(|(_, path)| *path != "/");
    let found = named.or_else(|| of("name=systemd")).or_else(|| parts().next());
    found.map(|(_, path)| printable(path.as_bytes())).unwrap_or_default()
}

/// The id in a cgroup path: the 64 hex digits that Docker, containerd, CRI-O and Podman put
/// there, or the name behind LXC's `lxc.payload.`.
pub fn container_of(cgroup: &[u8]) -> Option<String> {
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
        let tail = "S 7 1 1 34817 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 4242 1 1";
        let stat = format!("31 (a) R 1\n) x) {tail}");
        let parsed = parse_stat(stat.as_bytes());
        let comm = r"a) R 1\x0a) x".to_owned();
        let expected =
            Stat { comm, parent: 7, session: 1, terminal: 34817, start_ns: 4242 * TICK_NS };
        assert_eq!(parsed, Some(expected));
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
    fn the_group_is_of_version_2_unless_only_another_hierarchy_says_something() {
        assert_eq!(cgroup_of(b"0::/user.slice/a.scope\n"), "/user.slice/a.scope");
        assert_eq!(cgroup_of(b"3:cpu:/x\n1:name=systemd:/y\n0::/\n"), "/y");
        assert_eq!(cgroup_of(b"3:cpu:/docker/a:b\n0::/\n"), "/docker/a:b");
        assert_eq!(cgroup_of(b"0::/\n"), "/");
        assert_eq!(cgroup_of(b""), "");
    }

    #[test]
    fn terminals_have_the_names_that_they_have_in_dev() {
        let name = |major: u32, minor: u32| {
            terminal_name(major << 8 | minor & 0xff | (minor & !0xff) << 12)
        };
        assert_eq!(terminal_name(0), "");
        assert_eq!(name(136, 3), "pts/3");
        assert_eq!(name(137, 4), "pts/260");
        assert_eq!(name(136, 300), "pts/300");
        assert_eq!((name(4, 1), name(4, 65)), ("tty1".to_owned(), "ttyS1".to_owned()));
        assert_eq!(name(229, 0), "229:0");
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
