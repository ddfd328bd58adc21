//! How a task shares the processor and the disk with others: `sched_setscheduler(2)` and
//! `ioprio_set(2)`. Neither asks for more than others have; both are taken back the same way.

use std::io;

/// `IOPRIO_WHO_PROCESS`: one task.
const ONE_TASK: libc::c_int = 1;
/// Bits below the class (linux/ioprio.h).
const CLASS_SHIFT: libc::c_int = 13;

/// How a task's reads and writes wait for those of others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Disk {
    /// As everybody's.
    Normal,
    /// The last of the ordinary ones.
    Low,
    /// Only where nobody else wants the disk. Schedulers that know no classes leave it at that.
    Idle,
}

impl Disk {
    const fn value(self) -> libc::c_int {
        match self {
            // IOPRIO_CLASS_NONE: follows the nice value.
            Self::Normal => 0,
            // IOPRIO_CLASS_BE, the lowest of eight.
            Self::Low => (2 << CLASS_SHIFT) | 7,
            // IOPRIO_CLASS_IDLE
            Self::Idle => 3 << CLASS_SHIFT,
        }
    }
}

/// For one task: a thread's id, a process's for its first thread, 0 for the calling thread.
///
/// # Errors
/// `ESRCH` when it is gone.
pub fn set_disk(task: u32, disk: Disk) -> io::Result<()> {
    let value = libc::c_long::from(disk.value());
    // SAFETY: takes numbers only.
    let status = unsafe {
        libc::syscall(libc::SYS_ioprio_set, libc::c_long::from(ONE_TASK), i64::from(task), value)
    };
    if status == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// The processor only when nobody else wants it (`SCHED_IDLE`, sched(7)), for one process's first
/// thread.
///
/// # Errors
/// `ESRCH` when it is gone.
pub fn set_idle(task: u32) -> io::Result<()> {
    let task = libc::pid_t::try_from(task).map_err(io::Error::other)?;
    let parameters = libc::sched_param { sched_priority: 0 };
    // SAFETY: the parameters live while the call does, and it only reads them.
    let status = unsafe { libc::sched_setscheduler(task, libc::SCHED_IDLE, &raw const parameters) };
    if status == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_becomes_idle_in_both_ways() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().expect("sleep");
        set_idle(child.id()).expect("processor");
        set_disk(child.id(), Disk::Idle).expect("disk");
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", child.id())).expect("stat");
        let after = stat.rsplit_once(')').expect("name").1;
        // Field 41 of proc_pid_stat(5); the first after the name is field 3.
        let policy = after.split_whitespace().nth(38);
        assert_eq!(policy, Some("5"), "SCHED_IDLE");
        // SAFETY: takes numbers only.
        let disk = unsafe { libc::syscall(libc::SYS_ioprio_get, 1, child.id()) };
        assert_eq!(disk, 3 << 13);
        child.kill().expect("kill");
        child.wait().expect("end");
        assert!(set_idle(child.id()).is_err());
    }
}
