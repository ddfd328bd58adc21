//! How each kind of program is loaded and attached.
//!
//! Invariant: the cgroup hooks go to the root of the cgroup v2 hierarchy and coexist with
//! everybody else's; no program of this table can deny anything.

use std::fmt;
use std::fs::File;
use std::path::PathBuf;

use aya::programs::raw_trace_point::RawTracePointLinkId;
use aya::programs::{
    CgroupAttachMode, CgroupSkb, CgroupSkbAttachType, CgroupSock, CgroupSockAddr, FExit,
    ProgramError, RawTracePoint,
};
use aya::{Btf, Ebpf};

use crate::sensor::proc::read_file;

/// Where a program is attached.
#[allow(dead_code, reason = "the tables choose what they need")]
pub(super) enum Attach {
    /// Raw tracepoint of this name.
    RawTracepoint(&'static str),
    /// After a kernel function returned: the first of these names that this kernel has. Needs
    /// BPF trampolines.
    Fexit(&'static [&'static str]),
    /// `connect4`, `sendmsg6`…, as in the program's section.
    CgroupSockAddr(&'static str),
    /// `sock_create`, `post_bind4`…, as in the program's section.
    CgroupSock(&'static str),
    /// Packets of sockets that belong to any cgroup.
    CgroupSkb(CgroupSkbAttachType),
}

/// What keeps a program attached. Those of aya's that nobody detaches by hand stay in the object.
pub(super) enum Link {
    /// Of a raw tracepoint, which can be taken off again.
    RawTracepoint(RawTracePointLinkId),
    /// Stays as long as the object.
    Object,
}

/// What several programs need to be attached, looked up once.
#[derive(Default)]
pub(super) struct Attacher {
    cgroup: Option<Result<File, String>>,
    btf: Option<Result<Btf, String>>,
    /// The kernel has refused a program of this kind altogether: no other is tried.
    trampolines: Option<String>,
}

impl Attacher {
    /// Loads and attaches one program.
    pub(super) fn attach(
        &mut self,
        object: &mut Ebpf,
        function: &str,
        to: &Attach,
    ) -> Result<Link, String> {
        let program = object.program_mut(function).ok_or("not in the object")?;
        match to {
            Attach::RawTracepoint(name) => {
                let program: &mut RawTracePoint = program.try_into().map_err(refused)?;
                program.load().map_err(refused)?;
                program.attach(name).map(Link::RawTracepoint).map_err(refused)
            }
            Attach::Fexit(names) => {
                if let Some(refused) = &self.trampolines {
                    return Err(refused.clone());
                }
                let program: &mut FExit = program.try_into().map_err(refused)?;
                let loaded = load_fexit(program, names, self.btf()?);
                let attached = loaded.and_then(|()| program.attach().map(drop));
                attached.map(|()| Link::Object).map_err(|error| {
                    if is_forbidden(&error) {
                        let why = "the kernel refuses BPF trampolines (EPERM)".to_owned();
                        self.trampolines = Some(why.clone());
                        return why;
                    }
                    chain(&error)
                })
            }
            Attach::CgroupSockAddr(_) => {
                let program: &mut CgroupSockAddr = program.try_into().map_err(refused)?;
                program.load().map_err(refused)?;
                program.attach(self.cgroup()?, CgroupAttachMode::Single).map_err(refused)?;
                Ok(Link::Object)
            }
            Attach::CgroupSock(_) => {
                let program: &mut CgroupSock = program.try_into().map_err(refused)?;
                program.load().map_err(refused)?;
                program.attach(self.cgroup()?, CgroupAttachMode::Single).map_err(refused)?;
                Ok(Link::Object)
            }
            Attach::CgroupSkb(direction) => {
                let program: &mut CgroupSkb = program.try_into().map_err(refused)?;
                program.load().map_err(refused)?;
                let mode = CgroupAttachMode::Single;
                program.attach(self.cgroup()?, *direction, mode).map_err(refused)?;
                Ok(Link::Object)
            }
        }
    }

    fn cgroup(&mut self) -> Result<&File, String> {
        self.cgroup.get_or_insert_with(open_root_cgroup).as_ref().map_err(Clone::clone)
    }

    fn btf(&mut self) -> Result<&Btf, String> {
        let read = || Btf::from_sys_fs().map_err(|error| chain(&error));
        self.btf.get_or_insert_with(read).as_ref().map_err(Clone::clone)
    }
}

impl Attach {
    /// Its program looks into the registers of x86-64.
    pub(super) fn reads_registers(&self) -> bool {
        matches!(self, Self::RawTracepoint("sys_enter" | "sys_exit"))
    }
}

impl fmt::Display for Attach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::RawTracepoint(name) => write!(f, "raw tracepoint {name}"),
            Self::Fexit(names) => write!(f, "fexit {}", names.first().unwrap_or(&"")),
            Self::CgroupSockAddr(hook) | Self::CgroupSock(hook) => write!(f, "cgroup hook {hook}"),
            Self::CgroupSkb(CgroupSkbAttachType::Ingress) => write!(f, "cgroup packets, in"),
            Self::CgroupSkb(CgroupSkbAttachType::Egress) => write!(f, "cgroup packets, out"),
        }
    }
}

/// Loads the program for the first function that this kernel has.
fn load_fexit(program: &mut FExit, names: &[&str], btf: &Btf) -> Result<(), ProgramError> {
    let mut absent = Err(ProgramError::NotLoaded);
    for name in names {
        match program.load(name, btf) {
            Err(ProgramError::Btf(error)) => absent = Err(ProgramError::Btf(error)),
            other => return other,
        }
    }
    absent
}

/// Not this program is refused, but all of its kind: a locked-down kernel.
fn is_forbidden(error: &ProgramError) -> bool {
    let errno = match error {
        ProgramError::LoadError { io_error, .. } => io_error.raw_os_error(),
        ProgramError::SyscallError(error) => error.io_error.raw_os_error(),
        _ => None,
    };
    errno == Some(rustix::io::Errno::PERM.raw_os_error())
}

/// The root of the cgroup v2 hierarchy, wherever it is mounted.
fn open_root_cgroup() -> Result<File, String> {
    const MOUNTINFO_MAX: u64 = 16 << 20;
    let mountinfo = read_file("/proc/self/mountinfo".as_ref(), MOUNTINFO_MAX)
        .ok_or("cannot read /proc/self/mountinfo")?;
    let path = root_cgroup(&mountinfo).ok_or("no cgroup v2 is mounted with its root")?;
    File::open(&path).map_err(|error| format!("{}: {error}", path.display()))
}

/// The first mount of type `cgroup2` that shows the hierarchy from its root.
fn root_cgroup(mountinfo: &[u8]) -> Option<PathBuf> {
    let text = String::from_utf8_lossy(mountinfo);
    text.lines().find_map(|line| {
        let (mount, kind) = line.split_once(" - ")?;
        let mut fields = mount.split(' ').skip(3);
        let (root, point) = (fields.next()?, fields.next()?);
        (root == "/" && kind.split(' ').next() == Some("cgroup2")).then(|| PathBuf::from(point))
    })
}

fn refused(error: ProgramError) -> String {
    chain(&error)
}

/// An error with its causes in one line, cut: a verifier's log may have a megabyte.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    const MOST: usize = 2000;
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text.push_str(": ");
        text.push_str(&inner.to_string());
        cause = inner.source();
    }
    // The end of a verifier's log says why.
    let start = text.len().saturating_sub(MOST);
    let start = (start..text.len()).find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    text[start..].replace('\n', " | ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_root_of_cgroup_v2_is_found_beside_version_1_and_partial_mounts() {
        let mountinfo = b"24 1 0:22 / /sys rw - sysfs sysfs rw\n\
            30 24 0:26 / /sys/fs/cgroup/cpu rw shared:9 - cgroup cgroup rw,cpu\n\
            31 24 0:27 /user.slice /run/part rw - cgroup2 cgroup2 rw\n\
            32 24 0:27 / /sys/fs/cgroup/unified rw shared:10 master:3 - cgroup2 cgroup2 rw\n";
        assert_eq!(root_cgroup(mountinfo), Some(PathBuf::from("/sys/fs/cgroup/unified")));
        assert_eq!(root_cgroup(b"broken\n1 2 3\n"), None);
    }
}
