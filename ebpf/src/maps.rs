//! Every map and global of the object, and the one way in which records leave it.
//!
//! Invariant: each record is counted as generated exactly once, and as lost exactly when its ring
//! buffer did not take it.

use aya_ebpf::macros::map;
use aya_ebpf::maps::{PerCpuArray, RingBuf};
use holdfast_common::abi::{
    ABSENT, ARGS_MAX, Counters, ExecRecord, FIELD_COUNT, Field, KINDS, Kind, NETWORK_RING,
    PATH_MAX, PROCESS_RING,
};

/// Room for one name beyond the path limit, since the last one is copied before it is counted.
pub const NAME_MAX: usize = 256;

/// Where an exec record is put together: too large for the 512 bytes of a BPF stack.
#[repr(C)]
pub struct ExecScratch {
    pub record: ExecRecord,
    pub data: [u8; PATH_MAX + NAME_MAX + ARGS_MAX],
}

#[map]
static PROCESS_EVENTS: RingBuf = RingBuf::with_byte_size(PROCESS_RING, 0);

#[map]
static NETWORK_EVENTS: RingBuf = RingBuf::with_byte_size(NETWORK_RING, 0);

#[map]
static COUNTERS: PerCpuArray<Counters> = PerCpuArray::with_max_entries(KINDS as u32, 0);

#[map]
static EXEC_SCRATCH: PerCpuArray<ExecScratch> = PerCpuArray::with_max_entries(1, 0);

/// Offsets of [`Field`]s, written by the agent before the programs are loaded; frozen, so that
/// the verifier knows them and drops the branches of absent fields.
#[unsafe(no_mangle)]
static OFFSETS: [u32; FIELD_COUNT] = [ABSENT; FIELD_COUNT];

/// Offset of a field, `None` when this kernel does not have it.
#[inline(always)]
pub fn offset(field: Field) -> Option<usize> {
    // SAFETY: in bounds, as `Field` numbers `FIELDS`; volatile, since the loader replaces it.
    let offset = unsafe { core::ptr::read_volatile(OFFSETS.as_ptr().add(field as usize)) };
    if offset == ABSENT { None } else { Some(offset as usize) }
}

/// This CPU's scratch memory for exec records.
#[inline(always)]
pub fn exec_scratch() -> Option<&'static mut ExecScratch> {
    // SAFETY: one program uses it, and the kernel does not enter a program again on one CPU.
    EXEC_SCRATCH.get_ptr_mut(0).map(|scratch| unsafe { &mut *scratch })
}

/// Sends an exec, fork or exit record.
#[inline(always)]
pub fn send_process<T: ?Sized>(kind: Kind, record: &T) {
    count(kind, PROCESS_EVENTS.output::<T>(record, 0).is_err());
}

/// Sends a socket record.
#[inline(always)]
pub fn send_network<T>(kind: Kind, record: &T) {
    count(kind, NETWORK_EVENTS.output::<T>(record, 0).is_err());
}

/// Counts a record that could not even be put together.
#[inline(always)]
pub fn count_lost(kind: Kind) {
    count(kind, true);
}

#[inline(always)]
fn count(kind: Kind, lost: bool) {
    if let Some(counters) = COUNTERS.get_ptr_mut(kind as u32) {
        // SAFETY: this CPU's own element of a per-CPU array.
        let counters = unsafe { &mut *counters };
        counters.generated += 1;
        counters.lost += u64::from(lost);
    }
}
