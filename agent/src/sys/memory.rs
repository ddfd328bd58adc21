//! Keeps the agent's pages in memory, and its signals out of the way.

use std::io;

/// Locks pages as they are touched (`MCL_ONFAULT`, Linux 4.4): the held path must not wait for
/// swap, and untouched stacks cost nothing.
///
/// # Errors
/// `ENOMEM` or `EPERM` under a small RLIMIT_MEMLOCK without CAP_IPC_LOCK.
pub fn lock_touched_pages() -> io::Result<()> {
    // SAFETY: takes flags only.
    let status =
        unsafe { libc::mlockall(libc::MCL_CURRENT | libc::MCL_FUTURE | libc::MCL_ONFAULT) };
    if status == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Gives the allocator's free memory back to the kernel.
pub fn give_back() {
    // SAFETY: takes a number only; glibc's allocator locks itself (malloc_trim(3)).
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Gives every signal its first meaning, for a program that is to begin as any other: what we, or
/// whoever started us (`nohup`), ignore would stay ignored over `exec`.
pub fn heed_signals() {
    for number in 1..=libc::SIGRTMAX() {
        // SAFETY: SIG_DFL runs no code of ours. SIGKILL, SIGSTOP and glibc's own are refused.
        unsafe { libc::signal(number, libc::SIG_DFL) };
    }
}

/// Ignores SIGIO, which a lease that breaks while we look for writers would send, and SIGPIPE.
pub fn ignore_stray_signals() {
    // SAFETY: SIG_IGN runs no code of ours.
    unsafe { libc::signal(libc::SIGIO, libc::SIG_IGN) };
    // SAFETY: as above.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_IGN) };
}
