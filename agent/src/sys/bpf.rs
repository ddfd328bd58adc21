//! `bpf(2)`: which programs hang on a hook, and taking a pinned link off its hook at once. aya
//! does the first for some hooks only, the second not at all.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// `BPF_PROG_QUERY`
const PROG_QUERY: libc::c_long = 16;
/// `BPF_OBJ_GET`
const OBJ_GET: libc::c_long = 7;
/// `BPF_LINK_DETACH`, from 5.9 on.
const LINK_DETACH: libc::c_long = 34;
/// More than the kernel lets hang on one hook (`BPF_CGROUP_MAX_PROGS` and `BPF_MPROG_MAX` are 64).
const MOST: usize = 64;

/// `BPF_CGROUP_INET_INGRESS`, `BPF_CGROUP_INET_EGRESS`, `BPF_TCX_INGRESS`, `BPF_TCX_EGRESS` of
/// linux/bpf.h; the last two from 6.6 on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "named in the line above")]
#[repr(u32)]
pub enum Hook {
    CgroupIngress = 0,
    CgroupEgress = 1,
    TcxIngress = 46,
    TcxEgress = 47,
}

/// The `query` part of `union bpf_attr`.
#[repr(C)]
#[derive(Default)]
struct Query {
    target: u32,
    attach_type: u32,
    query_flags: u32,
    attach_flags: u32,
    programs: u64,
    count: u32,
    pad: u32,
    program_flags: u64,
    links: u64,
    link_flags: u64,
    revision: u64,
}

/// Ids of the programs at a hook, in the order in which they run. `target` is the descriptor of
/// a cgroup's folder, or the number of an interface of this network namespace.
///
/// # Errors
/// The kernel's refusal; `EINVAL` where it does not know the hook.
pub fn attached_programs(target: u32, hook: Hook) -> io::Result<Vec<u32>> {
    let mut ids = [0u32; MOST];
    let mut query = Query {
        target,
        attach_type: hook as u32,
        programs: ids.as_mut_ptr() as u64,
        count: MOST as u32,
        ..Query::default()
    };
    // SAFETY: `query` has the size that is given, and `ids` as many places as it says; both
    // outlive the call.
    let failed = unsafe {
        libc::syscall(libc::SYS_bpf, PROG_QUERY, std::ptr::from_mut(&mut query), size_of::<Query>())
    };
    if failed != 0 {
        return Err(io::Error::last_os_error());
    }
    let count = usize::try_from(query.count).unwrap_or(MOST).min(MOST);
    Ok(ids[..count].to_vec())
}

/// The part of `union bpf_attr` that names a pinned object.
#[repr(C)]
#[derive(Default)]
struct Pinned {
    path: u64,
    descriptor: u32,
    flags: u32,
}

/// Takes the link that is pinned here off its hook. It is off when this returns; a removed pin
/// alone takes it off some time later.
///
/// # Errors
/// The kernel's refusal: `EOPNOTSUPP` for kinds of links that only go with their last holder.
pub fn detach_pinned(path: &Path) -> io::Result<()> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let mut pinned = Pinned { path: path.as_ptr() as u64, ..Pinned::default() };
    // SAFETY: `pinned` has the size that is given, and the path outlives the call.
    let raw = unsafe {
        libc::syscall(libc::SYS_bpf, OBJ_GET, std::ptr::from_mut(&mut pinned), size_of::<Pinned>())
    };
    if raw < 0 {
        return Err(io::Error::last_os_error());
    }
    let raw = i32::try_from(raw).map_err(io::Error::other)?;
    // SAFETY: just made, and nobody else's.
    let link = unsafe { OwnedFd::from_raw_fd(raw) };
    let mut descriptor = [u32::try_from(link.as_raw_fd()).map_err(io::Error::other)?, 0];
    // SAFETY: the attribute has the size that is given.
    let failed = unsafe {
        libc::syscall(libc::SYS_bpf, LINK_DETACH, descriptor.as_mut_ptr(), size_of::<u32>())
    };
    if failed == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
