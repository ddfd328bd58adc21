//! The watch of all system calls, for kernels that refuse the programs of `hooks.rs`.
//!
//! It sees attempts, through the caller's memory, as both call tables of x86-64 number them. Every
//! system call of the host comes by here: the number is the tracepoint's second argument, and a
//! call that is none of ours leaves after comparing it, before any helper is called. The numbers
//! of the 32-bit table that mean something else in the other one cost those a look at the task.

use aya_ebpf::macros::raw_tracepoint;
use aya_ebpf::programs::RawTracePointContext;
use holdfast_common::abi::{Field, Kind, call};

use crate::activity::report;
use crate::kernel::{Address, at, current, field, file_of, kernel_text, user, user_text};
use crate::maps::{agent, is_watched};

/// Offsets in the x86-64 `struct pt_regs`, fixed by the ptrace ABI.
pub mod regs {
    pub const R10: u64 = 56;
    pub const BX: u64 = 40;
    pub const CX: u64 = 88;
    pub const DX: u64 = 96;
    pub const SI: u64 = 104;
    pub const DI: u64 = 112;
    pub const ORIG_AX: u64 = 120;
}

/// Set in the numbers of the x32 table.
pub const X32_BIT: u64 = 0x4000_0000;
/// `CLONE_NEW*` (linux/sched.h).
pub const NAMESPACES: u64 = 0x7e02_0080;
const TS_COMPAT: u32 = 2;
const BPF_PROG_LOAD: u64 = 5;
const OPEN_TREE_CLONE: u64 = 1;

/// Which call, and its first four arguments.
struct Call {
    call: u32,
    args: [u64; 4],
}

/// `TP_PROTO(struct pt_regs *regs, long id)`
#[raw_tracepoint(tracepoint = "sys_enter")]
pub fn activity_calls(context: RawTracePointContext) -> i32 {
    let number: u64 = context.arg(1);
    if call_64(number) == 0 && call_32(number) == 0 {
        return 0;
    }
    let registers: Address = context.arg(0);
    let task = current();
    let call = if is_compat(task) {
        let low = |which| at::<u64>(registers.wrapping_add(which)) & 0xffff_ffff;
        let args = [low(regs::BX), low(regs::CX), low(regs::DX), low(regs::SI)];
        Call { call: call_32(number), args }
    } else {
        let whole = |which| at::<u64>(registers.wrapping_add(which));
        let args = [whole(regs::DI), whole(regs::SI), whole(regs::DX), whole(regs::R10)];
        Call { call: call_64(number), args }
    };
    if call.call != 0 {
        attempt(task, call);
    }
    0
}

/// True while the thread is in a call of the 32-bit table.
#[inline(always)]
pub fn is_compat(task: Address) -> bool {
    field::<u32>(task, Field::TaskStatus) & TS_COMPAT != 0
}

/// Name of the kind of namespace behind a descriptor of the thread that runs (an address).
#[inline(always)]
pub fn namespace_of(descriptor: u32) -> Address {
    /// `NSFS_MAGIC`, linux/magic.h
    const NSFS: u64 = 0x6e73_6673;
    let inode: Address = field(file_of(current(), descriptor), Field::FileInode);
    let super_block: Address = field(inode, Field::InodeSuper);
    if field::<u64>(super_block, Field::SuperMagic) != NSFS {
        return 0;
    }
    let namespace: Address = field(inode, Field::InodePrivate);
    field(field(namespace, Field::NamespaceOps), Field::NamespaceName)
}

/// Numbers of the 64-bit and x32 tables.
#[inline(always)]
fn call_64(number: u64) -> u32 {
    match number & !X32_BIT {
        101 | 521 => call::PTRACE,
        105 => call::SETUID,
        113 => call::SETREUID,
        117 => call::SETRESUID,
        155 => call::PIVOT_ROOT,
        165 => call::MOUNT,
        166 => call::UMOUNT,
        272 => call::UNSHARE,
        308 => call::SETNS,
        310 | 539 => call::MEMORY_READ,
        311 | 540 => call::MEMORY_WRITE,
        319 => call::MEMFD,
        321 => call::BPF_LOAD,
        428 => call::OPEN_TREE,
        429 => call::MOVE_MOUNT,
        432 => call::FSMOUNT,
        _ => 0,
    }
}

/// Numbers of the 32-bit table.
#[inline(always)]
fn call_32(number: u64) -> u32 {
    match number {
        26 => call::PTRACE,
        23 | 213 => call::SETUID,
        70 | 203 => call::SETREUID,
        164 | 208 => call::SETRESUID,
        21 => call::MOUNT,
        22 | 52 => call::UMOUNT,
        217 => call::PIVOT_ROOT,
        310 => call::UNSHARE,
        346 => call::SETNS,
        347 => call::MEMORY_READ,
        348 => call::MEMORY_WRITE,
        356 => call::MEMFD,
        357 => call::BPF_LOAD,
        428 => call::OPEN_TREE,
        429 => call::MOVE_MOUNT,
        432 => call::FSMOUNT,
        _ => 0,
    }
}

#[inline(always)]
fn kind_of(call: u32) -> Kind {
    match call {
        call::PTRACE | call::MEMORY_READ => Kind::Ptrace,
        call::MEMORY_WRITE => Kind::MemoryWrite,
        call::SETUID | call::SETREUID | call::SETRESUID => Kind::Credentials,
        call::MEMFD => Kind::Memfd,
        call::BPF_LOAD => Kind::BpfLoad,
        call::UNSHARE | call::SETNS => Kind::Namespaces,
        _ => Kind::Mount,
    }
}

#[inline(always)]
fn attempt(task: Address, Call { call, args }: Call) {
    let kind = kind_of(call);
    if !is_watched(kind) || !is_told(task, call, args) {
        return;
    }
    report(kind, call, true, |scratch| {
        let record = &mut scratch.record;
        match call {
            call::PTRACE => {
                record.values[0] = args[0];
                record.target = named(task, args[1]);
            }
            call::MEMORY_READ | call::MEMORY_WRITE => record.target = named(task, args[0]),
            call::SETUID | call::SETREUID | call::SETRESUID => {
                record.values[0] = args[0] & 0xffff_ffff;
                record.values[1] = args[1] & 0xffff_ffff;
            }
            call::MEMFD => user_text(&mut record.texts[0], args[0]),
            call::BPF_LOAD => {
                record.values[0] = u64::from(user::<u32>(args[1]).unwrap_or(u32::MAX));
                // prog_name in `union bpf_attr`; at most 15 bytes before its NUL.
                user_text(&mut record.texts[0], args[1].wrapping_add(48));
            }
            call::UNSHARE => record.values[0] = args[0],
            call::SETNS => {
                record.values[0] = args[1];
                kernel_text(&mut record.texts[0], namespace_of(args[0] as u32));
            }
            call::MOUNT => {
                record.values[0] = args[3];
                user_text(&mut record.texts[0], args[0]);
                user_text(&mut record.texts[1], args[1]);
                user_text(&mut record.texts[2], args[2]);
            }
            call::MOVE_MOUNT => {
                user_text(&mut record.texts[0], args[1]);
                user_text(&mut record.texts[1], args[3]);
            }
            call::OPEN_TREE => {
                record.values[0] = args[2];
                user_text(&mut record.texts[0], args[1]);
            }
            call::PIVOT_ROOT => {
                user_text(&mut record.texts[0], args[0]);
                user_text(&mut record.texts[1], args[1]);
            }
            call::UMOUNT => {
                record.values[0] = args[1];
                user_text(&mut record.texts[1], args[0]);
            }
            _ => {}
        }
    });
}

/// Leaves out what changes nothing, and the agent's own loading.
#[inline(always)]
fn is_told(task: Address, call: u32, args: [u64; 4]) -> bool {
    match call {
        // TRACEME, POKETEXT, POKEDATA, ATTACH, SEIZE
        call::PTRACE => matches!(args[0], 0 | 4 | 5 | 16 | 0x4206),
        call::BPF_LOAD => {
            args[0] & 0xffff_ffff == BPF_PROG_LOAD && field::<u32>(task, Field::TaskTgid) != agent()
        }
        call::UNSHARE => args[0] & NAMESPACES != 0,
        call::OPEN_TREE => args[2] & OPEN_TREE_CLONE != 0,
        _ => true,
    }
}

/// The pid that the caller named; 0 where it counts in a namespace of its own.
#[inline(always)]
fn named(task: Address, pid: u64) -> u32 {
    let level: u32 = field(field(task, Field::TaskThreadPid), Field::PidLevel);
    if level == 0 { pid as u32 } else { 0 }
}
