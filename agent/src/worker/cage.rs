//! The cage that a worker builds around itself before it reads a byte of anybody else's.
//!
//! INVARIANT: the order. Limits and namespaces need privileges, the empty root needs a mount
//! namespace, the user id goes before the parent-death signal (a change of ids clears it), and
//! seccomp comes last because it forbids all of the others. Every layer must stand, or the
//! worker refuses to work; two that some kernels lack are reported as missing instead.
//! The pid namespace is made by the agent, since only a child can be born into one.

use std::os::fd::BorrowedFd;

use landlock::{
    ABI, Access, AccessFs, AccessNet, Ruleset, RulesetAttr, RulesetError, RulesetStatus, Scope,
};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::unistd::{Gid, Uid, chdir, chroot, pivot_root, setgroups, setresgid, setresuid};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{DumpableBehavior, Signal};
use rustix::thread::{CapabilitySet, CapabilitySets};

use super::{Limits, seccomp};

/// How the text of a refusal begins when not the bundle but the cage is the reason.
pub const REFUSAL: &str = "cage: ";

/// Bit of [`enter`]'s answer: no landlock (kernel before 5.13, or not in its LSM list).
pub const MISSING_LANDLOCK: u8 = 1;
/// Bit of [`enter`]'s answer: no user namespace (switched off on this host).
pub const MISSING_USER_NAMESPACE: u8 = 2;

/// A layer that must stand and does not.
#[derive(Debug, thiserror::Error)]
pub enum CageError {
    /// A system call failed.
    #[error("{layer}: {source}")]
    Call {
        /// Which layer.
        layer: &'static str,
        /// What the kernel said.
        source: std::io::Error,
    },
    /// Landlock is there and refused.
    #[error("landlock: {0}")]
    Landlock(#[from] RulesetError),
    /// The filter could not be made.
    #[error("seccomp: {0}")]
    Filter(#[from] seccompiler::BackendError),
    /// The filter could not be installed.
    #[error("seccomp: {0}")]
    Seccomp(#[from] seccompiler::Error),
    /// The agent died while we started.
    #[error("the agent is gone")]
    Orphaned,
}

/// Closes the cage around this process, which must have one thread and be root.
/// Gives the bits of what this kernel lacks.
///
/// # Errors
/// The layer that could not be built; the caller must not go on.
pub fn enter(limits: &Limits, socket: BorrowedFd<'_>) -> Result<u8, CageError> {
    // Worth a try only: the agent may be protected from the OOM killer, its workers must not be.
    let _ = std::fs::write("/proc/self/oom_score_adj", "500");
    crate::sys::close_range::close_from(3).map_err(failed("close_range"))?;
    limit_resources(limits)?;
    leave_namespaces()?;
    leave_file_system()?;
    let mut missing = drop_privileges(limits)?;
    rustix::thread::set_no_new_privs(true).map_err(failed("no_new_privs"))?;
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)
        .map_err(failed("dumpable"))?;
    die_with_agent(socket)?;
    if !restrict_by_landlock()? {
        missing |= MISSING_LANDLOCK;
    }
    let filter = seccomp::program()?;
    // glibc 2.41 (Debian 13) blocks signals around a thread's first random bytes, a call that the
    // filter kills. Later ones come without it.
    std::hint::black_box(std::hash::RandomState::new());
    seccompiler::apply_filter(&filter)?;
    Ok(missing)
}

fn failed<E: Into<std::io::Error>>(layer: &'static str) -> impl FnOnce(E) -> CageError {
    move |error| CageError::Call { layer, source: error.into() }
}

fn limit_resources(limits: &Limits) -> Result<(), CageError> {
    for (resource, most) in [
        (Resource::RLIMIT_AS, limits.memory),
        (Resource::RLIMIT_CORE, 0),
        (Resource::RLIMIT_FSIZE, 0),
        (Resource::RLIMIT_MEMLOCK, 0),
        (Resource::RLIMIT_MSGQUEUE, 0),
        // Socket, twice /dev/null, the file; the rest is slack.
        (Resource::RLIMIT_NOFILE, 8),
        (Resource::RLIMIT_NPROC, 0),
    ] {
        // A lower limit of the agent's own stays: raising it may be forbidden.
        let (_, hard) = getrlimit(resource).map_err(failed("rlimits"))?;
        let most = most.min(hard);
        setrlimit(resource, most, most).map_err(failed("rlimits"))?;
    }
    Ok(())
}

fn leave_namespaces() -> Result<(), CageError> {
    unshare(
        CloneFlags::CLONE_NEWNS
            | CloneFlags::CLONE_NEWNET
            | CloneFlags::CLONE_NEWIPC
            | CloneFlags::CLONE_NEWUTS,
    )
    .map_err(failed("namespaces"))
}

/// Puts an empty read-only tmpfs where the root was, and lets go of everything else.
fn leave_file_system() -> Result<(), CageError> {
    const NONE: Option<&str> = None;
    let layer = "empty root";
    mount(NONE, "/", NONE, MsFlags::MS_REC | MsFlags::MS_PRIVATE, NONE).map_err(failed(layer))?;
    let flags = MsFlags::MS_RDONLY | MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    // Any folder would do; this one is on every Linux system.
    mount(Some("none"), "/proc", Some("tmpfs"), flags, Some("size=4k,nr_inodes=1,mode=0555"))
        .map_err(failed(layer))?;
    chdir("/proc").map_err(failed(layer))?;
    match pivot_root(".", ".") {
        Ok(()) => umount2(".", MntFlags::MNT_DETACH).map_err(failed(layer))?,
        // The initial ramfs cannot be pivoted away (pivot_root(2)): cover it instead.
        Err(nix::errno::Errno::EINVAL) => {
            mount(Some("."), "/", NONE, MsFlags::MS_MOVE, NONE).map_err(failed(layer))?;
            chroot(".").map_err(failed(layer))?;
        }
        Err(error) => return Err(failed(layer)(error)),
    }
    chdir("/").map_err(failed(layer))
}

fn drop_privileges(limits: &Limits) -> Result<u8, CageError> {
    let layer = "privileges";
    drop_bounding_set()?;
    let (uid, gid) = (Uid::from_raw(limits.uid), Gid::from_raw(limits.gid));
    setgroups(&[]).map_err(failed(layer))?;
    setresgid(gid, gid, gid).map_err(failed(layer))?;
    setresuid(uid, uid, uid).map_err(failed(layer))?;
    // A new user namespace gives all capabilities inside itself: they go at once.
    let missing = match unshare(CloneFlags::CLONE_NEWUSER) {
        Ok(()) => {
            drop_bounding_set()?;
            0
        }
        Err(_) => MISSING_USER_NAMESPACE,
    };
    rustix::thread::clear_ambient_capability_set().map_err(failed(layer))?;
    let none = CapabilitySet::empty();
    rustix::thread::set_capabilities(
        None,
        CapabilitySets { effective: none, permitted: none, inheritable: none },
    )
    .map_err(failed(layer))?;
    Ok(missing)
}

/// Every capability that this kernel knows, whether or not we know its name.
fn drop_bounding_set() -> Result<(), CageError> {
    for number in 0..64 {
        let capability = CapabilitySet::from_bits_retain(1 << number);
        match rustix::thread::remove_capability_from_bounding_set(capability) {
            Ok(()) => {}
            Err(rustix::io::Errno::INVAL) if number > 0 => break,
            Err(error) => return Err(failed("bounding set")(error)),
        }
    }
    Ok(())
}

/// From now on the kernel kills us when the agent's thread that started us ends.
fn die_with_agent(socket: BorrowedFd<'_>) -> Result<(), CageError> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))
        .map_err(failed("parent death signal"))?;
    // It may have died before that; then nobody holds the other end of the socket. (The parent's
    // pid says nothing: from inside a pid namespace it is always 0.)
    let mut ends = [PollFd::new(&socket, PollFlags::empty())];
    let now = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
    poll(&mut ends, Some(&now)).map_err(failed("parent death signal"))?;
    if ends[0].revents().contains(PollFlags::HUP) { Err(CageError::Orphaned) } else { Ok(()) }
}

/// Handles every right that the newest known kernel has, and grants none.
fn restrict_by_landlock() -> Result<bool, CageError> {
    let newest = ABI::V6;
    let status = Ruleset::default()
        .handle_access(AccessFs::from_all(newest))?
        .handle_access(AccessNet::from_all(newest))?
        .scope(Scope::from_all(newest))?
        .create()?
        .restrict_self()?;
    Ok(status.ruleset != RulesetStatus::NotEnforced)
}
