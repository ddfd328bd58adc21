//! How many descriptors the process may have, and who gets how many.
//!
//! INVARIANT: all bounded queues that hold files take a share each, and the shares leave room:
//! a listener out of descriptors makes the kernel deny opens (`EPERM`).

use rustix::process::{Resource, getrlimit};

/// One part in so many of the limit in force (RLIMIT_NOFILE), at least 8.
#[must_use]
pub fn share(parts: u64) -> usize {
    let limit = getrlimit(Resource::Nofile).current.unwrap_or(1 << 20);
    usize::try_from(limit / parts).unwrap_or(usize::MAX).clamp(8, 16_384)
}
