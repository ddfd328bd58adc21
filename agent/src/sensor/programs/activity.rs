//! The programs that see what processes do beside.
//!
//! First the kernel's own functions, where BPF trampolines are allowed; last the watch of all
//! system calls, for what those do not see.

use holdfast_common::abi::{Field, Kind};

use super::attach::Attach;
use super::{Program, Role};

const WHO: &[Field] = &[Field::TaskTgid, Field::TaskLeader, Field::TaskStart];

const PATH: &[Field] = &[
    Field::PathMount,
    Field::PathDentry,
    Field::MountMnt,
    Field::MountParent,
    Field::MountPoint,
    Field::VfsmountRoot,
    Field::DentryName,
    Field::DentryParent,
];

/// A row for a function that has a name of its own on every kernel.
const fn hook(
    kinds: &'static [Kind],
    function: &'static str,
    names: &'static [&'static str],
    role: Role,
    wants: &'static [Field],
) -> Program {
    Program { kinds, function, attach: Attach::Fexit(names), role, needs: WHO, wants }
}

pub(super) static PROGRAMS: [Program; 16] = [
    Program {
        kinds: &[Kind::Signal],
        function: "activity_signal",
        attach: Attach::RawTracepoint("signal_generate"),
        role: Role::Main,
        needs: &[Field::TaskTgid, Field::TaskLeader, Field::TaskStart, Field::TaskParent],
        wants: &[],
    },
    Program {
        kinds: &[Kind::ModuleLoad],
        function: "activity_module",
        attach: Attach::RawTracepoint("module_load"),
        role: Role::Main,
        needs: WHO,
        wants: &[Field::ModuleName, Field::ModuleTaints],
    },
    hook(
        &[Kind::Credentials],
        "hook_setuid",
        &["security_task_fix_setuid"],
        Role::Main,
        &[Field::CredUid, Field::CredEuid],
    ),
    hook(
        &[Kind::Ptrace, Kind::MemoryWrite],
        "hook_attach",
        &["security_ptrace_access_check"],
        Role::Main,
        &[Field::TaskStatus],
    ),
    hook(&[Kind::Ptrace], "hook_traceme", &["security_ptrace_traceme"], Role::Main, &[]),
    hook(
        &[Kind::MemoryWrite],
        "hook_memory_file",
        &["mem_write"],
        Role::More,
        &[Field::FilePrivate, Field::MmOwner],
    ),
    hook(&[Kind::BpfLoad], "hook_bpf", &["security_bpf"], Role::Main, &[]),
    hook(&[Kind::Mount], "hook_mount", &["security_sb_mount"], Role::Main, PATH),
    hook(&[Kind::Mount], "hook_move_mount", &["security_move_mount"], Role::Main, PATH),
    hook(&[Kind::Mount], "hook_umount", &["security_sb_umount"], Role::Main, PATH),
    hook(&[Kind::Namespaces], "hook_unshare", &["ksys_unshare"], Role::Main, &[]),
    hook(
        &[Kind::Namespaces],
        "hook_setns",
        &["__x64_sys_setns"],
        Role::Main,
        &[Field::InodePrivate, Field::NamespaceOps, Field::NamespaceName],
    ),
    hook(&[Kind::Namespaces], "hook_setns_32", &["__ia32_sys_setns"], Role::More, &[]),
    hook(
        &[Kind::Memfd],
        "hook_memfd",
        &["__x64_sys_memfd_create"],
        Role::Main,
        &[Field::TaskFiles, Field::FilesFdt, Field::FdtableFd, Field::FdtableMax],
    ),
    hook(&[Kind::Memfd], "hook_memfd_32", &["__ia32_sys_memfd_create"], Role::More, &[]),
    Program {
        kinds: &[
            Kind::Credentials,
            Kind::Ptrace,
            Kind::MemoryWrite,
            Kind::BpfLoad,
            Kind::Mount,
            Kind::Namespaces,
            Kind::Memfd,
        ],
        function: "activity_calls",
        attach: Attach::RawTracepoint("sys_enter"),
        role: Role::Instead,
        needs: WHO,
        wants: &[Field::TaskStatus, Field::TaskThreadPid, Field::PidLevel],
    },
];
