//! Reading kernel structures at offsets from the offset table, and what all records share.
//!
//! Every read is a `bpf_probe_read_kernel`: a wrong pointer is an error value, never a fault.

use aya_ebpf::helpers::bpf_probe_read_kernel;
use holdfast_common::abi::{Field, Head, Kind};

use crate::maps::offset;

/// A kernel address; 0 is "none".
pub type Address = u64;

/// Reads a field of the structure at `base`. `None`: no such field here, null, or unreadable.
#[inline(always)]
pub fn field<T: Copy>(base: Address, field: Field) -> Option<T> {
    if base == 0 {
        return None;
    }
    at(base + offset(field)? as u64)
}

/// Reads from an address.
#[inline(always)]
pub fn at<T: Copy>(address: Address) -> Option<T> {
    // SAFETY: the helper checks the address.
    unsafe { bpf_probe_read_kernel(address as *const T) }.ok()
}

/// Who a record is about; `task` may be any thread of the group.
#[inline(always)]
pub fn head(kind: Kind, task: Address) -> Option<Head> {
    let leader: Address = field(task, Field::TaskLeader)?;
    let cred: Address = field(task, Field::TaskCred).unwrap_or(0);
    Some(Head {
        kind: kind as u32,
        pid: field(task, Field::TaskTgid)?,
        start_ns: field(leader, Field::TaskStart).unwrap_or(0),
        uid: field(cred, Field::CredUid).unwrap_or(u32::MAX),
        euid: field(cred, Field::CredEuid).unwrap_or(u32::MAX),
        comm: field(leader, Field::TaskComm).unwrap_or([0; 16]),
    })
}

/// The parent's pid and start time, zeros when unknown.
#[inline(always)]
pub fn parent(task: Address) -> (u32, u64) {
    let parent: Address = field(task, Field::TaskParent).unwrap_or(0);
    let leader: Address = field(parent, Field::TaskLeader).unwrap_or(0);
    (
        field(leader, Field::TaskTgid).unwrap_or(0),
        field(leader, Field::TaskStart).unwrap_or(0),
    )
}
