//! The system calls of the scan loop; anything else kills the process.
//!
//! What is absent is the point: nothing that opens, creates, connects, executes, signals,
//! traces, writes to a file or maps code. `sendto` without an address on the socket alone, so
//! that no descriptor can be sent back (that would take `sendmsg`).

use std::collections::BTreeMap;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen as Len, SeccompCmpOp as Op, SeccompCondition,
    SeccompFilter, SeccompRule,
};

/// Always allowed, whatever the arguments.
const PLAIN: [libc::c_long; 15] = [
    libc::SYS_brk,
    libc::SYS_clock_gettime,
    libc::SYS_sched_yield,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_fstat,
    libc::SYS_futex,
    libc::SYS_getrandom,
    libc::SYS_madvise,
    libc::SYS_mremap,
    libc::SYS_munmap,
    libc::SYS_pread64,
    libc::SYS_restart_syscall,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
];

/// The filter as the kernel takes it.
///
/// # Errors
/// A processor that seccompiler does not know.
pub fn program() -> Result<BpfProgram, seccompiler::BackendError> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> =
        PLAIN.into_iter().map(|call| (call, Vec::new())).collect();
    let exec = u64::from(libc::PROT_EXEC.unsigned_abs());
    let anonymous = u64::from(libc::MAP_ANONYMOUS.unsigned_abs());
    let not_executable = || SeccompCondition::new(2, Len::Dword, Op::MaskedEq(exec), 0);
    let on = |descriptor| SeccompCondition::new(0, Len::Dword, Op::Eq, descriptor);
    rules.insert(
        libc::SYS_mmap,
        vec![SeccompRule::new(vec![
            not_executable()?,
            SeccompCondition::new(3, Len::Dword, Op::MaskedEq(anonymous), anonymous)?,
        ])?],
    );
    rules.insert(libc::SYS_mprotect, vec![SeccompRule::new(vec![not_executable()?])?]);
    // Files only: with 2 closed, the next file would take its number, and `write` with it.
    let a_file = SeccompCondition::new(0, Len::Dword, Op::Ge, 3)?;
    rules.insert(libc::SYS_close, vec![SeccompRule::new(vec![a_file])?]);
    rules.insert(libc::SYS_recvmsg, vec![SeccompRule::new(vec![on(0)?])?]);
    rules.insert(
        libc::SYS_sendto,
        vec![SeccompRule::new(vec![on(0)?, SeccompCondition::new(4, Len::Qword, Op::Eq, 0)?])?],
    );
    // The last words of a panic; descriptor 2 is /dev/null.
    rules.insert(libc::SYS_write, vec![SeccompRule::new(vec![on(2)?])?]);
    SeccompFilter::new(
        rules,
        SeccompAction::KillProcess,
        SeccompAction::Allow,
        std::env::consts::ARCH.try_into()?,
    )?
    .try_into()
}
