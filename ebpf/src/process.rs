//! Programs that start, processes that are made and processes that end.

use aya_ebpf::helpers::generated::{bpf_probe_read_kernel_str, bpf_probe_read_user};
use aya_ebpf::macros::raw_tracepoint;
use aya_ebpf::programs::RawTracePointContext;
use holdfast_common::abi::{
    ARGS_MAX, ExecRecord, ExitRecord, Field, ForkRecord, Kind, PATH_DEPTH, PATH_MAX, flags,
};

use crate::kernel::{Address, field, head, parent};
use crate::maps::{ExecScratch, NAME_MAX, count_lost, exec_scratch, offset, send_process};

/// `TP_PROTO(struct task_struct *p, pid_t old_pid, struct linux_binprm *bprm)`
///
/// The arguments are those of the image that runs: nothing of it has run yet, and no other
/// thread is left that could change them.
#[raw_tracepoint(tracepoint = "sched_process_exec")]
pub fn process_exec(context: RawTracePointContext) -> i32 {
    if exec(context.arg(0)).is_none() {
        count_lost(Kind::Exec);
    }
    0
}

#[inline(always)]
fn exec(task: Address) -> Option<()> {
    let scratch = exec_scratch()?;
    let (parent, parent_start_ns) = parent(task);
    scratch.record = ExecRecord {
        head: head(Kind::Exec, task)?,
        parent_start_ns,
        parent,
        login_uid: field(task, Field::TaskLoginUid).unwrap_or(u32::MAX),
        path_len: 0,
        args_len: 0,
        args_total: 0,
        flags: 0,
    };
    let mm: Address = field(task, Field::TaskMm).unwrap_or(0);
    let path_len = path(scratch, field(mm, Field::MmExeFile).unwrap_or(0));
    let args_len = arguments(scratch, mm, path_len);
    scratch.record.path_len = path_len as u32;
    scratch.record.args_len = args_len as u32;
    let length = size_of::<ExecRecord>() + path_len + args_len;
    if length > size_of::<ExecScratch>() {
        return None;
    }
    // SAFETY: `length` is within the scratch memory, which is initialised as a map value.
    let bytes =
        unsafe { core::slice::from_raw_parts(core::ptr::from_ref(scratch).cast::<u8>(), length) };
    send_process(Kind::Exec, bytes);
    Some(())
}

/// Writes the names from the executable up to the root of its mount namespace's tree, leaf
/// first; returns their bytes.
#[inline(always)]
fn path(scratch: &mut ExecScratch, file: Address) -> usize {
    let mut length = 0usize;
    let (Some(mut dentry), Some(mut mount)) = (
        field::<Address>(file, Field::FileDentry),
        field::<Address>(file, Field::FileMount),
    ) else {
        scratch.record.flags |= flags::PATH_TRUNCATED;
        return 0;
    };
    let Some(inside) = offset(Field::MountMnt) else {
        scratch.record.flags |= flags::PATH_TRUNCATED;
        return 0;
    };
    if field::<u64>(dentry, Field::DentryHash) == Some(0) {
        scratch.record.flags |= flags::PATH_DELETED;
    }
    for _ in 0..PATH_DEPTH {
        let root: Address = field(mount, Field::VfsmountRoot).unwrap_or(0);
        let up: Address = field(dentry, Field::DentryParent).unwrap_or(0);
        if dentry == root {
            // `struct mount` holds the `struct vfsmount` that paths point to.
            let holder = mount - inside as u64;
            let outer: Address = field(holder, Field::MountParent).unwrap_or(0);
            if outer == 0 || outer == holder {
                return length;
            }
            dentry = field(holder, Field::MountPoint).unwrap_or(0);
            mount = outer + inside as u64;
            continue;
        }
        if length >= PATH_MAX {
            break;
        }
        let name: Address = field(dentry, Field::DentryName).unwrap_or(0);
        // SAFETY: `length` is below PATH_MAX, behind which NAME_MAX bytes follow.
        let written = unsafe {
            bpf_probe_read_kernel_str(
                scratch.data.as_mut_ptr().add(length).cast(),
                NAME_MAX as u32,
                name as *const _,
            )
        };
        if written <= 0 || written > NAME_MAX as i64 {
            break;
        }
        length += written as usize;
        if dentry == up {
            // A file without a place in any tree (memfd), or a root that is not mounted here.
            return length;
        }
        dentry = up;
    }
    scratch.record.flags |= flags::PATH_TRUNCATED;
    length
}

/// Copies the argument vector behind the path; returns the bytes copied.
#[inline(always)]
fn arguments(scratch: &mut ExecScratch, mm: Address, path_len: usize) -> usize {
    let (Some(start), Some(end)) =
        (field::<u64>(mm, Field::MmArgStart), field::<u64>(mm, Field::MmArgEnd))
    else {
        scratch.record.flags |= flags::ARGS_UNREADABLE;
        return 0;
    };
    let total = end.wrapping_sub(start);
    scratch.record.args_total = if total > u64::from(u32::MAX) { u32::MAX } else { total as u32 };
    if total == 0 {
        return 0;
    }
    let wanted = if total > ARGS_MAX as u64 { ARGS_MAX } else { total as usize };
    if path_len > PATH_MAX + NAME_MAX {
        return 0;
    }
    // SAFETY: path_len + wanted is within `data`; the helper checks the user's address.
    let failed = unsafe {
        bpf_probe_read_user(
            scratch.data.as_mut_ptr().add(path_len).cast(),
            wanted as u32,
            start as *const _,
        )
    };
    if failed != 0 {
        scratch.record.flags |= flags::ARGS_UNREADABLE;
        return 0;
    }
    wanted
}

/// `TP_PROTO(struct task_struct *parent, struct task_struct *child)`; threads are left out.
#[raw_tracepoint(tracepoint = "sched_process_fork")]
pub fn process_fork(context: RawTracePointContext) -> i32 {
    let child: Address = context.arg(1);
    let thread: Option<u32> = field(child, Field::TaskPid);
    if thread.is_some() && thread != field(child, Field::TaskTgid) {
        return 0;
    }
    let Some(head) = head(Kind::Fork, child) else {
        count_lost(Kind::Fork);
        return 0;
    };
    let (parent, parent_start_ns) = parent(child);
    send_process(Kind::Fork, &ForkRecord { head, parent_start_ns, parent, reserved: 0 });
    0
}

/// `TP_PROTO(struct task_struct *p)`, with `bool group_dead` behind it from 6.16 on.
///
/// Called for each thread; the group's count of live threads is already taken down (`do_exit`),
/// so the last one sees 0. Two that end at once may both: the agent takes the first.
#[raw_tracepoint(tracepoint = "sched_process_exit")]
pub fn process_exit(context: RawTracePointContext) -> i32 {
    let task: Address = context.arg(0);
    let signal: Address = field(task, Field::TaskSignal).unwrap_or(0);
    if field::<u32>(signal, Field::SignalLive).unwrap_or(0) != 0 {
        return 0;
    }
    match head(Kind::Exit, task) {
        Some(head) => send_process(Kind::Exit, &ExitRecord { head }),
        None => count_lost(Kind::Exit),
    }
    0
}

