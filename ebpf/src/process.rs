//! Programs that start, processes that are made and processes that end.

use aya_ebpf::helpers::generated::{bpf_probe_read_user, bpf_probe_read_user_str};
use aya_ebpf::macros::raw_tracepoint;
use aya_ebpf::programs::RawTracePointContext;
use aya_log_ebpf::error;
use holdfast_common::abi::{
    ARGS_MAX, ExecRecord, ExitRecord, Field, ForkRecord, Kind, PATH_MAX, VARIABLE_MAX, VARIABLES,
    flags,
};

use crate::kernel::{Address, at, field, field_or, has, head, parent};
use crate::maps::{
    ARGS_START_MAX, EXEC_DATA, ExecScratch, count_lost, exec_scratch, offset, send_process,
};
use crate::path::Tail;

/// `TP_PROTO(struct task_struct *p, pid_t old_pid, struct linux_binprm *bprm)`
///
/// The arguments are those of the image that runs: nothing of it has run yet, and no other
/// thread is left that could change them.
#[raw_tracepoint(tracepoint = "sched_process_exec")]
pub fn process_exec(context: RawTracePointContext) -> i32 {
    if exec(context.arg(0), context.arg(2)).is_none() {
        count_lost(Kind::Exec);
        // Cannot happen by what is written here: worth a line of the log when it does.
        error!(&context, "an exec record could not be put together");
    }
    0
}

#[inline(always)]
fn exec(task: Address, binary: Address) -> Option<()> {
    let scratch = exec_scratch()?;
    let mm: Address = field(task, Field::TaskMm);
    fill(scratch, task, mm);
    let done = paths(scratch, task, mm);
    scratch.record.path_len = done[0];
    scratch.record.cwd_len = done[1] - done[0];
    scratch.record.cgroup_len = done[2] - done[1];
    script(scratch, binary);
    scratch.record.script_len = used(scratch) as u32 - done[2];
    let before = used(scratch) as u32;
    environment(scratch, mm);
    scratch.record.environment_len = used(scratch) as u32 - before;
    arguments(scratch, mm);
    let used = used(scratch);
    if used > EXEC_DATA {
        return None;
    }
    let length = size_of::<ExecRecord>() + used;
    // SAFETY: `length` is within the scratch memory, which is initialised as a map value.
    let bytes =
        unsafe { core::slice::from_raw_parts(core::ptr::from_ref(scratch).cast::<u8>(), length) };
    send_process(Kind::Exec, bytes);
    Some(())
}

/// All of the record that has a fixed size.
#[inline(always)]
fn fill(scratch: &mut ExecScratch, task: Address, mm: Address) {
    let (parent, parent_start_ns) = parent(task);
    let file: Address = field(mm, Field::MmExeFile);
    let inode: Address = field(file, Field::FileInode);
    let super_block: Address = field(inode, Field::InodeSuper);
    let signal: Address = field(task, Field::TaskSignal);
    let terminal: Address = field(signal, Field::SignalTty);
    let groups: Address = field(task, Field::TaskCgroups);
    let group: Address = field(groups, Field::CssSetDefault);
    let node: Address = field(group, Field::CgroupNode);
    let device: u32 = field(super_block, Field::SuperDevice);
    scratch.used = 0;
    scratch.record = ExecRecord {
        head: head(Kind::Exec, task),
        parent_start_ns,
        inode: field(inode, Field::InodeNumber),
        size: field(inode, Field::InodeSize),
        changed_s: field(inode, Field::InodeChanged),
        cgroup_id: field(node, Field::NodeId),
        cgroup_set: groups,
        changed_ns: field(inode, Field::InodeChangedNs),
        device,
        parent,
        login_uid: field_or(task, Field::TaskLoginUid, u32::MAX),
        session: session(signal),
        flags: 0,
        terminal: field(terminal, Field::TtyName),
        path_len: 0,
        cwd_len: 0,
        cgroup_len: 0,
        script_len: 0,
        environment_len: 0,
        args_len: 0,
        args_total: 0,
        reserved: 0,
    };
}

/// The session's id in the initial pid namespace.
#[inline(always)]
fn session(signal: Address) -> u32 {
    /// `PIDTYPE_SID` (linux/pid.h, 4.19 on).
    const SESSION: u64 = 3;
    let (Some(pids), Some(numbers)) = (offset(Field::SignalPids), offset(Field::PidNumbers)) else {
        return 0;
    };
    let pid: Address = at(signal.wrapping_add(pids as u64 + SESSION * 8));
    at(pid.wrapping_add(numbers as u64))
}

/// Executable, working directory and control group; returns where each ends.
#[inline(always)]
fn paths(scratch: &mut ExecScratch, task: Address, mm: Address) -> [u32; 3] {
    let mut tail = Tail { data: scratch.data.as_mut_ptr(), used: &raw mut scratch.used };
    let file: Address = field(mm, Field::MmExeFile);
    let dentry: Address = field(file, Field::FileDentry);
    if is_unhashed(dentry) {
        scratch.record.flags |= flags::PATH_DELETED;
    }
    if !tail.walk(dentry, field(file, Field::FileMount), PATH_MAX) {
        scratch.record.flags |= flags::PATH_TRUNCATED;
    }
    let path = tail.used() as u32;
    let fs: Address = field(task, Field::TaskFs);
    let dentry: Address = field(fs, Field::FsPwdDentry);
    if is_unhashed(dentry) && field::<Address>(dentry, Field::DentryParent) != dentry {
        scratch.record.flags |= flags::CWD_DELETED;
    }
    if !tail.walk(dentry, field(fs, Field::FsPwdMount), 2 * PATH_MAX) {
        scratch.record.flags |= flags::CWD_TRUNCATED;
    }
    let cwd = tail.used() as u32;
    let groups: Address = field(task, Field::TaskCgroups);
    let group: Address = field(groups, Field::CssSetDefault);
    if !tail.nodes(field(group, Field::CgroupNode), 3 * PATH_MAX) {
        scratch.record.flags |= flags::CGROUP_TRUNCATED;
    }
    [path, cwd, tail.used() as u32]
}

#[inline(always)]
fn is_unhashed(dentry: Address) -> bool {
    has(Field::DentryHash) && field::<Address>(dentry, Field::DentryHash) == 0
}

/// What the caller named, where another program runs it.
#[inline(always)]
fn script(scratch: &mut ExecScratch, binary: Address) {
    let named: Address = field(binary, Field::BinprmFilename);
    let runs: Address = field(binary, Field::BinprmInterp);
    if named == runs || !has(Field::BinprmInterp) {
        return;
    }
    let mut tail = Tail { data: scratch.data.as_mut_ptr(), used: &raw mut scratch.used };
    tail.push(named, VARIABLE_MAX as u32, 4 * PATH_MAX);
}

/// Keeps the variables whose names begin like one that is watched; the agent looks again.
#[inline(always)]
fn environment(scratch: &mut ExecScratch, mm: Address) {
    const LIMIT: usize = 9 << 10;
    let end: u64 = field(mm, Field::MmEnvEnd);
    let used = &raw mut scratch.used;
    let position = &raw mut scratch.position;
    // Both through the scratch memory, see `path`.
    // SAFETY: a field of this CPU's scratch memory.
    unsafe { position.write_volatile(field(mm, Field::MmEnvStart)) };
    let mut whole = true;
    for _ in 0..VARIABLES {
        // SAFETY: as above.
        let (next, at) = unsafe { (position.read_volatile(), used.read_volatile() as usize) };
        if next >= end {
            return;
        }
        if at >= LIMIT {
            break;
        }
        // SAFETY: `at` is below LIMIT, behind which VARIABLE_MAX bytes follow.
        let place = unsafe { scratch.data.as_mut_ptr().add(at) };
        // SAFETY: see above; the helper checks the user's address.
        let read =
            unsafe { bpf_probe_read_user_str(place.cast(), VARIABLE_MAX as u32, next as *const _) };
        if read <= 0 || read > VARIABLE_MAX as i64 {
            break;
        }
        // SAFETY: VARIABLE_MAX bytes follow, whatever was read.
        let name = unsafe { place.cast::<[u8; 4]>().read_unaligned() };
        if whole && is_watched_name(name) {
            // SAFETY: as above.
            unsafe { used.write_volatile((at + read as usize) as u32) };
        }
        // What did not fit goes on in the next round, and is no name there.
        whole = read < VARIABLE_MAX as i64;
        let step = if whole { read as u64 } else { VARIABLE_MAX as u64 - 1 };
        // SAFETY: as above.
        unsafe { position.write_volatile(next + step) };
    }
    scratch.record.flags |= flags::ENVIRONMENT_TRUNCATED;
}

/// A superset of `WATCHED_ENVIRONMENT` in `common/src/process.rs`.
#[inline(always)]
fn is_watched_name(name: [u8; 4]) -> bool {
    matches!(
        &name,
        b"LD_P" | b"LD_L" | b"LD_A" | b"LD_D" | b"HIST" | b"PROM" | b"BASH" | b"PYTH" | b"SSH_"
    )
}

#[inline(always)]
fn used(scratch: &ExecScratch) -> usize {
    // SAFETY: a field of this CPU's scratch memory; volatile, so that the verifier knows nothing
    // of it and sees the checks that follow.
    unsafe { (&raw const scratch.used).read_volatile() as usize }
}

/// Copies the argument vector behind all else.
#[inline(always)]
fn arguments(scratch: &mut ExecScratch, mm: Address) {
    let start: u64 = field(mm, Field::MmArgStart);
    let total = field::<u64>(mm, Field::MmArgEnd).wrapping_sub(start);
    scratch.record.args_total = if total > u64::from(u32::MAX) { u32::MAX } else { total as u32 };
    let wanted = if total > ARGS_MAX as u64 { ARGS_MAX } else { total as usize };
    // Through the scratch memory: before 6.4 the verifier keeps impossible bounds of two joined
    // branches.
    let args_len = &raw mut scratch.record.args_len;
    // SAFETY: a field of this CPU's scratch memory.
    unsafe { args_len.write_volatile(wanted as u32) };
    let at = used(scratch);
    // SAFETY: as above.
    let wanted = unsafe { args_len.read_volatile() as usize };
    if wanted > ARGS_MAX || at > ARGS_START_MAX {
        scratch.record.args_len = 0;
        return;
    }
    // SAFETY: `at` + `wanted` is within `data`; the helper checks the user's address.
    let failed = unsafe {
        bpf_probe_read_user(
            scratch.data.as_mut_ptr().add(at).cast(),
            wanted as u32,
            start as *const _,
        )
    };
    if failed != 0 || !has(Field::MmArgStart) || !has(Field::MmArgEnd) {
        scratch.record.flags |= flags::ARGS_UNREADABLE;
        scratch.record.args_len = 0;
        return;
    }
    scratch.used = (at + wanted) as u32;
}

/// `TP_PROTO(struct task_struct *task, unsigned long clone_flags)`; threads are left out.
#[raw_tracepoint(tracepoint = "task_newtask")]
pub fn process_fork(context: RawTracePointContext) -> i32 {
    let child: Address = context.arg(0);
    let process: u32 = field(child, Field::TaskTgid);
    if field_or(child, Field::TaskPid, process) != process {
        return 0;
    }
    let head = head(Kind::Fork, child);
    let (parent, parent_start_ns) = parent(child);
    let clone_flags = context.arg(1);
    let record = ForkRecord { head, parent_start_ns, clone_flags, parent, reserved: 0 };
    send_process(Kind::Fork, &record);
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
        // Set for every process that ends, from 5.17 on (`synchronize_group_exit`).
        let own = field(task, Field::TaskExitCode);
        let code = field_or(signal, Field::SignalExitCode, own);
        let head = head(Kind::Exit, task);
        send_process(Kind::Exit, &ExitRecord { head, code, reserved: 0 });
    }
    0
}
