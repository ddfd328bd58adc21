//! Every map and global of the object, and the one way in which records leave it.
//!
//! Invariant: each record is counted as generated exactly once, and as lost exactly when its ring
//! buffer did not take it.

use aya_ebpf::helpers::generated::bpf_ktime_get_ns;
use aya_ebpf::macros::map;
use aya_ebpf::maps::{Array, LruHashMap, PerCpuArray, RingBuf};
use holdfast_common::abi::{
    ABSENT, ACTIVITY_RING, ARGS_MAX, ActivityRecord, Counters, DnsRecord, ExecRecord, FIELD_COUNT,
    Field, Head, KINDS, Kind, NETWORK_RING, PATH_MAX, PROCESS_RING, TRAFFIC_MEMORY, TRAFFIC_RING,
    WAKE_EXEC_NS, WAKE_OTHER_NS,
};

use crate::path::NAME_MAX;

/// Bytes in front of the arguments that parts of an exec record may begin at.
pub const ARGS_START_MAX: usize = 10 << 10;
/// Bytes behind an exec record.
pub const EXEC_DATA: usize = ARGS_START_MAX + ARGS_MAX;

const BPF_RB_NO_WAKEUP: u64 = 1;
const BPF_RB_FORCE_WAKEUP: u64 = 2;

/// Where an exec record is put together: too large for the 512 bytes of a BPF stack.
#[repr(C)]
pub struct ExecScratch {
    pub record: ExecRecord,
    pub data: [u8; EXEC_DATA],
    /// Bytes of `data` in use.
    pub used: u32,
    pub reserved: u32,
    /// The next environment variable.
    pub position: u64,
}

/// The same for activity records.
#[repr(C)]
pub struct ActivityScratch {
    pub record: ActivityRecord,
    pub data: [u8; PATH_MAX + NAME_MAX],
}

#[map]
static PROCESS_EVENTS: RingBuf = RingBuf::with_byte_size(PROCESS_RING, 0);

#[map]
static NETWORK_EVENTS: RingBuf = RingBuf::with_byte_size(NETWORK_RING, 0);

#[map]
static TRAFFIC_EVENTS: RingBuf = RingBuf::with_byte_size(TRAFFIC_RING, 0);

/// Where a DNS record is put together: one for what leaves and one for what comes, which may
/// interrupt the other.
#[map]
static DNS_SCRATCH: PerCpuArray<DnsRecord> = PerCpuArray::with_max_entries(2, 0);

/// A place to listen at.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Place {
    pub namespace: u32,
    pub port: u16,
    pub family: u16,
    pub address: [u8; 16],
}

/// A process and whom it talks to.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Peer {
    pub start_ns: u64,
    pub pid: u32,
    pub port: u16,
    pub family: u16,
    pub address: [u8; 16],
}

/// Who began to listen where.
#[map]
pub static LISTENERS: LruHashMap<Place, Head> = LruHashMap::with_max_entries(TRAFFIC_MEMORY, 0);

/// Who uses a socket of datagrams, by its cookie.
#[map]
pub static OWNERS: LruHashMap<u64, Head> = LruHashMap::with_max_entries(TRAFFIC_MEMORY, 0);

/// Peers of datagrams that were told.
#[map]
pub static PEERS: LruHashMap<Peer, u32> = LruHashMap::with_max_entries(TRAFFIC_MEMORY, 0);

#[map]
static COUNTERS: PerCpuArray<Counters> = PerCpuArray::with_max_entries(KINDS as u32, 0);

#[map]
static EXEC_SCRATCH: PerCpuArray<ExecScratch> = PerCpuArray::with_max_entries(1, 0);

#[map]
static ACTIVITY_EVENTS: RingBuf = RingBuf::with_byte_size(ACTIVITY_RING, 0);

#[map]
static ACTIVITY_SCRATCH: PerCpuArray<ActivityScratch> = PerCpuArray::with_max_entries(1, 0);

/// When this CPU last woke the reader of process records.
#[map]
static WOKEN: PerCpuArray<u64> = PerCpuArray::with_max_entries(1, 0);

/// One bit a [`Kind`] that the watch of all system calls is to report.
#[map]
static WATCHED: Array<u64> = Array::with_max_entries(1, 0);

/// The agent's process, written before the programs are loaded.
#[unsafe(no_mangle)]
static AGENT: u32 = 0;

/// The agent's process.
#[inline(always)]
pub fn agent() -> u32 {
    // SAFETY: a static; volatile, since the loader replaces it.
    unsafe { core::ptr::read_volatile(&raw const AGENT) }
}

/// True when the watch of all system calls is to report this kind.
#[inline(always)]
pub fn is_watched(kind: Kind) -> bool {
    WATCHED.get(0).is_some_and(|bits| *bits & (1 << kind as u32) != 0)
}

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

/// This CPU's scratch memory for activity records. Programs that are not of one kind may be
/// entered one within another on one CPU (a signal within a system call): the texts of the outer
/// one are then the inner one's, which is why every record is filled just before it is sent.
#[inline(always)]
pub fn activity_scratch() -> Option<&'static mut ActivityScratch> {
    // SAFETY: an element of a map; see above.
    ACTIVITY_SCRATCH.get_ptr_mut(0).map(|scratch| unsafe { &mut *scratch })
}

/// Sends an exec, fork or exit record.
///
/// The reader is woken at most every few milliseconds: a wake-up for each record would cost a
/// storm more than all that the programs do. INVARIANT: the reader drains again, until it finds
/// nothing, [`WAKE_EXEC_NS`] after it found something, so that no exec waits for the next.
#[inline(always)]
pub fn send_process<T: ?Sized>(kind: Kind, record: &T) {
    let quiet = if matches!(kind, Kind::Exec) { WAKE_EXEC_NS } else { WAKE_OTHER_NS };
    count(kind, PROCESS_EVENTS.output::<T>(record, wake(quiet)).is_err());
}

/// Sends the record in the scratch memory, with `path_len` bytes behind it.
#[inline(always)]
pub fn send_activity(kind: Kind, scratch: &ActivityScratch) {
    // SAFETY: a field of a map's value; volatile, so that the verifier sees the check below.
    let path_len = unsafe { (&raw const scratch.record.path_len).read_volatile() } as usize;
    if path_len > PATH_MAX + NAME_MAX {
        return count(kind, true);
    }
    let length = size_of::<ActivityRecord>() + path_len;
    // SAFETY: `length` is within the scratch memory, which is initialised as a map value.
    let bytes =
        unsafe { core::slice::from_raw_parts(core::ptr::from_ref(scratch).cast::<u8>(), length) };
    // Who somebody is belongs in between the starts and ends of processes.
    let sent = if matches!(kind, Kind::Credentials) {
        PROCESS_EVENTS.output::<[u8]>(bytes, wake(WAKE_EXEC_NS))
    } else {
        ACTIVITY_EVENTS.output::<[u8]>(bytes, 0)
    };
    count(kind, sent.is_err());
}

#[inline(always)]
fn wake(quiet: u64) -> u64 {
    let Some(woken) = WOKEN.get_ptr_mut(0) else { return BPF_RB_FORCE_WAKEUP };
    // SAFETY: takes nothing and cannot fail.
    let now = unsafe { bpf_ktime_get_ns() };
    // SAFETY: this CPU's own element of a per-CPU array.
    let woken = unsafe { &mut *woken };
    if now.wrapping_sub(*woken) < quiet {
        return BPF_RB_NO_WAKEUP;
    }
    *woken = now;
    BPF_RB_FORCE_WAKEUP
}

/// Sends a socket record.
#[inline(always)]
pub fn send_network<T>(kind: Kind, record: &T) {
    count(kind, NETWORK_EVENTS.output::<T>(record, 0).is_err());
}

/// Sends a record of connections or DNS.
#[inline(always)]
pub fn send_traffic<T>(kind: Kind, record: &T) {
    count(kind, TRAFFIC_EVENTS.output::<T>(record, 0).is_err());
}

/// This CPU's scratch memory for DNS records.
#[inline(always)]
pub fn dns_scratch(incoming: bool) -> Option<&'static mut DnsRecord> {
    // SAFETY: one program uses each; a second packet on this CPU in the middle of the first could
    // only mix their bytes, which are nobody's but that network's.
    DNS_SCRATCH.get_ptr_mut(u32::from(incoming)).map(|scratch| unsafe { &mut *scratch })
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
