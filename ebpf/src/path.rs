//! Paths of files and control groups, as the kernel keeps them: names linked to their parents.
//!
//! Written leaf first, each name ended by NUL, behind what is there already. The count of bytes is
//! kept in map memory and read again in each round: the verifier then knows nothing of it, and
//! sees that all rounds are alike. Every user of a [`Tail`] gives it memory that goes on for at
//! least [`NAME_MAX`] bytes (or the size that it pushes) behind every limit that it names.

use aya_ebpf::helpers::generated::bpf_probe_read_kernel_str;
use holdfast_common::abi::{CGROUP_DEPTH, Field, PATH_DEPTH};

use crate::kernel::{Address, field};
use crate::maps::offset;

/// Longest name of a file with its NUL; room for one beyond each limit, since the last one is
/// copied before it is counted.
pub const NAME_MAX: usize = 256;

/// Map memory that names are put into.
pub struct Tail {
    /// Its first byte.
    pub data: *mut u8,
    /// Bytes in use.
    pub used: *mut u32,
}

impl Tail {
    /// Bytes in use.
    #[inline(always)]
    pub fn used(&self) -> usize {
        // SAFETY: a field of a map's value, see `Tail`.
        unsafe { self.used.read_volatile() as usize }
    }

    /// Adds one name of at most `most` bytes, unless `limit` bytes are in use. False when it was
    /// not added.
    #[inline(always)]
    pub fn push(&mut self, name: Address, most: u32, limit: usize) -> bool {
        let at = self.used();
        if at >= limit {
            return false;
        }
        // SAFETY: `at` is below the limit, behind which `most` bytes follow.
        let written =
            unsafe { bpf_probe_read_kernel_str(self.data.add(at).cast(), most, name as *const _) };
        if written <= 0 || written > i64::from(most) {
            return false;
        }
        // SAFETY: a field of a map's value, see `Tail`.
        unsafe { self.used.write_volatile((at + written as usize) as u32) };
        true
    }

    /// The names from a file up to the root of its mount namespace's tree. False when they were
    /// too many.
    #[inline(always)]
    pub fn walk(&mut self, mut dentry: Address, mut mount: Address, limit: usize) -> bool {
        let Some(inside) = offset(Field::MountMnt) else { return false };
        for _ in 0..PATH_DEPTH {
            let root: Address = field(mount, Field::VfsmountRoot);
            if dentry == root {
                // `struct mount` holds the `struct vfsmount` that paths point to.
                let holder = mount.wrapping_sub(inside as u64);
                let outer: Address = field(holder, Field::MountParent);
                if outer == holder {
                    return true;
                }
                dentry = field(holder, Field::MountPoint);
                mount = outer.wrapping_add(inside as u64);
                continue;
            }
            if !self.push(field(dentry, Field::DentryName), NAME_MAX as u32, limit) {
                return false;
            }
            let up: Address = field(dentry, Field::DentryParent);
            if dentry == up {
                // A file without a place in any tree (memfd), or a root that is not mounted here.
                return true;
            }
            dentry = up;
        }
        false
    }

    /// The names from a kernfs node up to its root.
    #[inline(always)]
    pub fn nodes(&mut self, mut node: Address, limit: usize) -> bool {
        for _ in 0..CGROUP_DEPTH {
            let up: Address = field(node, Field::NodeParent);
            if up == 0 {
                return true;
            }
            if !self.push(field(node, Field::NodeName), NAME_MAX as u32, limit) {
                return false;
            }
            node = up;
        }
        false
    }
}
