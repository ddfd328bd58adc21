//! The kernel's own functions, as they return: every way in is seen (64 and 32 bits, io_uring),
//! other system calls cost nothing, and what is reported was not refused.
//!
//! Needs BPF trampolines, which a locked-down kernel refuses; `calls.rs` then does what it can.
//! Each hook carries the prototype that it reads; arguments that later kernels add come behind.

use aya_ebpf::helpers::generated::{bpf_get_current_task_btf, bpf_task_pt_regs};
use aya_ebpf::macros::fexit;
use aya_ebpf::programs::FExitContext;
use holdfast_common::abi::{Field, Kind, PATH_MAX, call};

use crate::activity::{aim, report};
use crate::calls::{X32_BIT, is_compat, namespace_of, regs};
use crate::kernel::{Address, at, current, field, file_of, kernel_text, process};
use crate::maps::{ActivityScratch, agent, offset};
use crate::path::Tail;

const PTRACE_MODE_ATTACH: u64 = 2;
const PTRACE_MODE_FSCREDS: u64 = 8;
const BPF_PROG_LOAD: u64 = 5;

/// What the function returned, as an `int`.
#[inline(always)]
fn returned(context: &FExitContext) -> i32 {
    context.ret::<i32>().unwrap_or(-1)
}

/// `int security_task_fix_setuid(struct cred *new, const struct cred *old, int flags)`
#[fexit]
pub fn hook_setuid(context: FExitContext) -> i32 {
    let (new, old): (Address, Address) = (context.arg(0), context.arg(1));
    let id = |cred: Address, of: Field| u64::from(field::<u32>(cred, of));
    let values = [
        id(new, Field::CredUid),
        id(new, Field::CredEuid),
        id(old, Field::CredUid),
        id(old, Field::CredEuid),
    ];
    if returned(&context) != 0 || (values[0] == values[2] && values[1] == values[3]) {
        return 0;
    }
    // LSM_SETID_*, include/linux/security.h
    let call = match context.arg::<u64>(2) as u32 {
        2 => call::SETREUID,
        4 => call::SETRESUID,
        8 => call::SETFSUID,
        _ => call::SETUID,
    };
    report(Kind::Credentials, call, false, |scratch| scratch.record.values = values);
    0
}

/// `int security_ptrace_access_check(struct task_struct *child, unsigned int mode)`
#[fexit]
pub fn hook_attach(context: FExitContext) -> i32 {
    let child: Address = context.arg(0);
    let mode: u64 = context.arg(1);
    if mode & PTRACE_MODE_ATTACH == 0 || returned(&context) != 0 {
        return 0;
    }
    let task = current();
    if field::<u32>(task, Field::TaskTgid) == process(child).0 {
        return 0;
    }
    // SAFETY: both take a task and give a pointer that is only read through a helper.
    let registers = unsafe { bpf_task_pt_regs(bpf_get_current_task_btf()) } as u64;
    let number: u64 = at(registers.wrapping_add(regs::ORIG_AX));
    let first: u64 = at(registers.wrapping_add(regs::DI));
    let first_32: u64 = at(registers.wrapping_add(regs::BX));
    let (kind, call, value) = match (is_compat(task), number & !X32_BIT) {
        (false, 101 | 521) => (Kind::Ptrace, call::PTRACE, first),
        (true, 26) => (Kind::Ptrace, call::PTRACE, first_32 & 0xffff_ffff),
        (false, 310 | 539) | (true, 347) => (Kind::Ptrace, call::MEMORY_READ, 0),
        (false, 311 | 540) | (true, 348) => (Kind::MemoryWrite, call::MEMORY_WRITE, 0),
        _ if mode & PTRACE_MODE_FSCREDS != 0 => (Kind::Ptrace, call::MEMORY_OPEN, 0),
        (_, number) => (Kind::Ptrace, call::ATTACH, number),
    };
    report(kind, call, false, |scratch| {
        scratch.record.values[0] = value;
        aim(scratch, child);
    });
    0
}

/// `int security_ptrace_traceme(struct task_struct *parent)`
#[fexit]
pub fn hook_traceme(context: FExitContext) -> i32 {
    let parent: Address = context.arg(0);
    if returned(&context) == 0 {
        report(Kind::Ptrace, call::PTRACE, false, |scratch| aim(scratch, parent));
    }
    0
}

/// `ssize_t mem_write(struct file *file, const char __user *buf, size_t count, loff_t *ppos)`,
/// the write to `/proc/PID/mem`.
#[fexit]
pub fn hook_memory_file(context: FExitContext) -> i32 {
    let file: Address = context.arg(0);
    let written = context.ret::<i64>().unwrap_or(-1);
    let mm: Address = field(file, Field::FilePrivate);
    let owner: Address = field(mm, Field::MmOwner);
    if written > 0 && process(owner).0 != field::<u32>(current(), Field::TaskTgid) {
        report(Kind::MemoryWrite, call::MEMORY_FILE, false, |scratch| aim(scratch, owner));
    }
    0
}

/// `int security_bpf(int cmd, union bpf_attr *attr, unsigned int size, …)`, with a copy of the
/// caller's attributes. Later hooks see the program itself, but have other names in each version.
#[fexit]
pub fn hook_bpf(context: FExitContext) -> i32 {
    /// In `union bpf_attr`, part of the interface to programs.
    const PROG_NAME: u64 = 48;
    let attributes: Address = context.arg(1);
    let load = context.arg::<u64>(0) & 0xffff_ffff == BPF_PROG_LOAD;
    let by_agent = field::<u32>(current(), Field::TaskTgid) == agent();
    if !load || by_agent || returned(&context) != 0 {
        return 0;
    }
    report(Kind::BpfLoad, call::BPF_LOAD, true, |scratch| {
        scratch.record.values[0] = u64::from(at::<u32>(attributes));
        scratch.record.texts[0][16] = 0;
        let name: [u8; 16] = at(attributes.wrapping_add(PROG_NAME));
        scratch.record.texts[0][..16].copy_from_slice(&name);
    });
    0
}

/// `int security_sb_mount(const char *dev_name, const struct path *path, const char *type,
/// unsigned long flags, void *data)`
#[fexit]
pub fn hook_mount(context: FExitContext) -> i32 {
    let (source, path): (Address, Address) = (context.arg(0), context.arg(1));
    let (kind, flags): (Address, u64) = (context.arg(2), context.arg(3));
    if returned(&context) == 0 {
        report(Kind::Mount, call::MOUNT, false, |scratch| {
            scratch.record.values[0] = flags;
            kernel_text(&mut scratch.record.texts[0], source);
            kernel_text(&mut scratch.record.texts[2], kind);
            place(scratch, field(path, Field::PathDentry), field(path, Field::PathMount));
        });
    }
    0
}

/// `int security_move_mount(const struct path *from_path, const struct path *to_path)`
#[fexit]
pub fn hook_move_mount(context: FExitContext) -> i32 {
    let (from, to): (Address, Address) = (context.arg(0), context.arg(1));
    if returned(&context) == 0 {
        report(Kind::Mount, call::MOVE_MOUNT, false, |scratch| {
            what(scratch, field(from, Field::PathMount));
            place(scratch, field(to, Field::PathDentry), field(to, Field::PathMount));
        });
    }
    0
}

/// `int security_sb_umount(struct vfsmount *mnt, int flags)`
#[fexit]
pub fn hook_umount(context: FExitContext) -> i32 {
    // A copy as a number: the verifier does not let its own pointers be calculated with.
    let mount: Address = core::hint::black_box(context.arg(0));
    if returned(&context) == 0 {
        report(Kind::Mount, call::UMOUNT, false, |scratch| {
            scratch.record.values[0] = context.arg::<u64>(1) & 0xffff_ffff;
            what(scratch, mount);
            place(scratch, field(mount, Field::VfsmountRoot), mount);
        });
    }
    0
}

/// `int ksys_unshare(unsigned long unshare_flags)`
#[fexit]
pub fn hook_unshare(context: FExitContext) -> i32 {
    let flags: u64 = context.arg(0);
    if returned(&context) == 0 && flags & crate::calls::NAMESPACES != 0 {
        report(Kind::Namespaces, call::UNSHARE, false, |scratch| scratch.record.values[0] = flags);
    }
    0
}

/// `long __x64_sys_setns(const struct pt_regs *regs)`
#[fexit]
pub fn hook_setns(context: FExitContext) -> i32 {
    let registers: Address = context.arg(0);
    let descriptor: u64 = at(registers.wrapping_add(regs::DI));
    let flags: u64 = at(registers.wrapping_add(regs::SI));
    setns(&context, descriptor, flags)
}

/// `long __ia32_sys_setns(const struct pt_regs *regs)`
#[fexit]
pub fn hook_setns_32(context: FExitContext) -> i32 {
    let registers: Address = context.arg(0);
    let descriptor: u64 = at(registers.wrapping_add(regs::BX));
    let flags: u64 = at(registers.wrapping_add(regs::CX));
    setns(&context, descriptor, flags)
}

#[inline(always)]
fn setns(context: &FExitContext, descriptor: u64, flags: u64) -> i32 {
    if returned(context) == 0 {
        report(Kind::Namespaces, call::SETNS, false, |scratch| {
            scratch.record.values[0] = flags & 0xffff_ffff;
            kernel_text(&mut scratch.record.texts[0], namespace_of(descriptor as u32));
        });
    }
    0
}

/// `long __x64_sys_memfd_create(const struct pt_regs *regs)`
#[fexit]
pub fn hook_memfd(context: FExitContext) -> i32 {
    memfd(&context)
}

/// `long __ia32_sys_memfd_create(const struct pt_regs *regs)`
#[fexit]
pub fn hook_memfd_32(context: FExitContext) -> i32 {
    memfd(&context)
}

/// The name is the file's own (`memfd:NAME`), not what the caller's memory says by now.
#[inline(always)]
fn memfd(context: &FExitContext) -> i32 {
    let descriptor = returned(context);
    if descriptor >= 0 {
        let file = file_of(current(), descriptor as u32);
        let dentry: Address = field(file, Field::FileDentry);
        report(Kind::Memfd, call::MEMFD, false, |scratch| {
            kernel_text(&mut scratch.record.texts[0], field(dentry, Field::DentryName));
        });
    }
    0
}

/// Source and type of a mount.
#[inline(always)]
fn what(scratch: &mut ActivityScratch, mount: Address) {
    let super_block: Address = field(mount, Field::VfsmountSuper);
    let kind: Address = field(super_block, Field::SuperType);
    kernel_text(&mut scratch.record.texts[2], field(kind, Field::TypeName));
    if let Some(inside) = offset(Field::MountMnt) {
        let holder = mount.wrapping_sub(inside as u64);
        kernel_text(&mut scratch.record.texts[0], field(holder, Field::MountSource));
    }
}

/// The path of a mount point.
#[inline(always)]
fn place(scratch: &mut ActivityScratch, dentry: Address, mount: Address) {
    let mut tail = Tail { data: scratch.data.as_mut_ptr(), used: &raw mut scratch.record.path_len };
    tail.walk(dentry, mount, PATH_MAX);
}
