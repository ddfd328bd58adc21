//! `bpf(2)`: which programs hang on a hook. aya asks that for some hooks only.

use std::io;

/// `BPF_PROG_QUERY`
const PROG_QUERY: libc::c_long = 16;
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
