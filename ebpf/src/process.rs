//! Programs that start, processes that are made and processes that end.

use aya_ebpf::helpers::generated::{bpf_probe_read_kernel_str, bpf_probe_read_user};
use aya_ebpf::macros::raw_tracepoint;
use aya_ebpf::programs::RawTracePointContext;
use holdfast_common::abi::{
    ARGS_MAX, ExecRecord, ExitRecord, Field, ForkRecord, Kind, PATH_DEPTH, PATH_MAX, flags,
};

use crate::kernel::{Address, field, field_or, has, head, parent};
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
        head: head(Kind::Exec, task),
        parent_start_ns,
        parent,
        login_uid: field_or(task, Field::TaskLoginUid, u32::MAX),
        path_len: 0,
        args_len: 0,
        args_total: 0,
        flags: 0,
    };
    let mm: Address = field(task, Field::TaskMm);
    let path_len = path(scratch, field(mm, Field::MmExeFile));
    if path_len > PATH_MAX + NAME_MAX {
        return None;
    }
    let args_len = arguments(scratch, mm, path_len);
    if args_len > ARGS_MAX {
        return None;
    }
    scratch.record.path_len = path_len as u32;
    scratch.record.args_len = args_len as u32;
    let length = size_of::<ExecRecord>() + path_len + args_len;
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
    let Some(inside) = offset(Field::MountMnt) else {
        scratch.record.flags |= flags::PATH_TRUNCATED;
        return 0;
    };
    // Kept in the scratch memory and read again in each round: the verifier then knows nothing of
    // it, and sees that all rounds are alike.
    let path_len = &raw mut scratch.record.path_len;
    let mut dentry: Address = field(file, Field::FileDentry);
    let mut mount: Address = field(file, Field::FileMount);
    if has(Field::DentryHash) && field::<Address>(dentry, Field::DentryHash) == 0 {
        scratch.record.flags |= flags::PATH_DELETED;
    }
    for _ in 0..PATH_DEPTH {
        let root: Address = field(mount, Field::VfsmountRoot);
        if dentry == root {
            // `struct mount` holds the `struct vfsmount` that paths point to.
            let holder = mount.wrapping_sub(inside as u64);
            let outer: Address = field(holder, Field::MountParent);
            if outer == holder {
                return length_of(path_len);
            }
            dentry = field(holder, Field::MountPoint);
            mount = outer.wrapping_add(inside as u64);
            continue;
        }
        let length = length_of(path_len);
        if length >= PATH_MAX {
            break;
        }
        let name: Address = field(dentry, Field::DentryName);
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
        // SAFETY: a field of this CPU's scratch memory.
        unsafe { path_len.write_volatile((length + written as usize) as u32) };
        let up: Address = field(dentry, Field::DentryParent);
        if dentry == up {
            // A file without a place in any tree (memfd), or a root that is not mounted here.
            return length_of(path_len);
        }
        dentry = up;
    }
    scratch.record.flags |= flags::PATH_TRUNCATED;
    length_of(path_len)
}

#[inline(always)]
fn length_of(path_len: *const u32) -> usize {
    // SAFETY: a field of this CPU's scratch memory.
    unsafe { path_len.read_volatile() as usize }
}

/// Copies the argument vector behind the path; returns the bytes copied.
#[inline(always)]
fn arguments(scratch: &mut ExecScratch, mm: Address, path_len: usize) -> usize {
    let start: u64 = field(mm, Field::MmArgStart);
    let total = field::<u64>(mm, Field::MmArgEnd).wrapping_sub(start);
    scratch.record.args_total = if total > u64::from(u32::MAX) { u32::MAX } else { total as u32 };
    let wanted = if total > ARGS_MAX as u64 { ARGS_MAX } else { total as usize };
    // Through the scratch memory for the same reason: before 6.4 the verifier keeps impossible
    // bounds of two joined branches.
    let args_len = &raw mut scratch.record.args_len;
    // SAFETY: a field of this CPU's scratch memory.
    unsafe { args_len.write_volatile(wanted as u32) };
    let wanted = length_of(args_len);
    if wanted > ARGS_MAX {
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
    if failed != 0 || !has(Field::MmArgStart) || !has(Field::MmArgEnd) {
        scratch.record.flags |= flags::ARGS_UNREADABLE;
        return 0;
    }
    wanted
}

/// `TP_PROTO(struct task_struct *parent, struct task_struct *child)`; threads are left out.
#[raw_tracepoint(tracepoint = "sched_process_fork")]
pub fn process_fork(context: RawTracePointContext) -> i32 {
    let child: Address = context.arg(1);
    let process: u32 = field(child, Field::TaskTgid);
    if field_or(child, Field::TaskPid, process) != process {
        return 0;
    }
    let head = head(Kind::Fork, child);
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
    let signal: Address = field(task, Field::TaskSignal);
    if field::<u32>(signal, Field::SignalLive) == 0 {
        send_process(Kind::Exit, &ExitRecord { head: head(Kind::Exit, task) });
    }
    0
}
