//! Reading kernel structures at offsets from the offset table, and what all records share.
//!
//! Every read is a `bpf_probe_read_kernel`: a wrong pointer gives zeros, never a fault. Reads do
//! not branch on failure, since each branch would double the verifier's work.

use aya_ebpf::helpers::generated::{
    bpf_get_current_task, bpf_probe_read_kernel_str, bpf_probe_read_user, bpf_probe_read_user_str,
};
use holdfast_common::abi::{Field, Head, Kind};

use crate::maps::offset;
pub use crate::read::{Address, at};

/// True when this kernel has the field. Decided when the program is loaded.
#[inline(always)]
pub fn has(field: Field) -> bool {
    offset(field).is_some()
}

/// Reads a field of the structure at `base`; zeros when there is no such field here, or `base`
/// is no kernel address.
#[inline(always)]
pub fn field<T: Copy + Default>(base: Address, field: Field) -> T {
    match offset(field) {
        Some(offset) => at(base.wrapping_add(offset as u64)),
        None => T::default(),
    }
}

/// As [`field`], with another value for a field that this kernel does not have.
#[inline(always)]
pub fn field_or<T: Copy + Default>(base: Address, of: Field, absent: T) -> T {
    if has(of) { field(base, of) } else { absent }
}

/// Reads a user's words; `None` when they are not there.
#[inline(always)]
pub fn user<T: Copy + Default>(address: u64) -> Option<T> {
    let mut value = T::default();
    // SAFETY: `value` has the size that is given; the helper checks the user's address.
    let failed = unsafe {
        bpf_probe_read_user(
            core::ptr::from_mut(&mut value).cast(),
            size_of::<T>() as u32,
            address as *const _,
        )
    };
    (failed == 0).then_some(value)
}

/// Copies a name of the kernel's into `text`; leaves an empty one when there is none.
#[inline(always)]
pub fn kernel_text<const N: usize>(text: &mut [u8; N], address: Address) {
    text[0] = 0;
    // SAFETY: `text` has N bytes; the helper checks the address.
    unsafe {
        bpf_probe_read_kernel_str(text.as_mut_ptr().cast(), N as u32, address as *const _);
    }
}

/// Copies a name of the caller's into `text`; leaves an empty one when it is not there.
#[inline(always)]
pub fn user_text<const N: usize>(text: &mut [u8; N], address: u64) {
    text[0] = 0;
    // SAFETY: `text` has N bytes; the helper checks the address.
    unsafe {
        bpf_probe_read_user_str(text.as_mut_ptr().cast(), N as u32, address as *const _);
    }
}

/// The thread that runs.
#[inline(always)]
pub fn current() -> Address {
    // SAFETY: takes nothing and cannot fail.
    unsafe { bpf_get_current_task() }
}

/// The `struct file` behind a descriptor of a thread, 0 for none.
#[inline(always)]
pub fn file_of(task: Address, descriptor: u32) -> Address {
    let files: Address = field(task, Field::TaskFiles);
    let table: Address = field(files, Field::FilesFdt);
    if descriptor >= field::<u32>(table, Field::FdtableMax) {
        return 0;
    }
    let slots: Address = field(table, Field::FdtableFd);
    at(slots.wrapping_add(u64::from(descriptor) * 8))
}

/// The process that a thread belongs to: pid and start time.
#[inline(always)]
pub fn process(task: Address) -> (u32, u64) {
    let leader: Address = field(task, Field::TaskLeader);
    (field(task, Field::TaskTgid), field(leader, Field::TaskStart))
}

/// Who a record is about; `task` may be any thread of the group.
#[inline(always)]
pub fn head(kind: Kind, task: Address) -> Head {
    let leader: Address = field(task, Field::TaskLeader);
    let cred: Address = field(task, Field::TaskCred);
    Head {
        kind: kind as u32,
        pid: field(task, Field::TaskTgid),
        start_ns: field(leader, Field::TaskStart),
        uid: field_or(cred, Field::CredUid, u32::MAX),
        euid: field_or(cred, Field::CredEuid, u32::MAX),
        comm: field(leader, Field::TaskComm),
    }
}

/// The parent's pid and start time, zeros when unknown.
#[inline(always)]
pub fn parent(task: Address) -> (u32, u64) {
    let parent: Address = field(task, Field::TaskParent);
    let leader: Address = field(parent, Field::TaskLeader);
    (field(leader, Field::TaskTgid), field(leader, Field::TaskStart))
}
