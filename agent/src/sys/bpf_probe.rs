//! Loads the smallest eBPF program there is, for a simulation. It is attached to nothing.

use std::io;
use std::os::fd::{FromRawFd, OwnedFd};

/// `BPF_PROG_LOAD`, bpf(2).
const PROG_LOAD: libc::c_long = 5;
/// `BPF_PROG_TYPE_RAW_TRACEPOINT`
const RAW_TRACEPOINT: u32 = 17;
/// `r0 = 0; exit`
const PROGRAM: [u64; 2] = [0xb7, 0x95];

/// The beginning of `union bpf_attr`; the kernel takes what is missing as zero.
#[repr(C)]
struct Attributes {
    program_type: u32,
    instructions: u32,
    program: u64,
    licence: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
    kernel_version: u32,
    flags: u32,
    name: [u8; 16],
}

/// The program is unloaded when the descriptor is dropped.
///
/// # Errors
/// `EPERM` without `CAP_BPF` and `CAP_PERFMON`.
pub fn load_nothing() -> io::Result<OwnedFd> {
    let attributes = Attributes {
        program_type: RAW_TRACEPOINT,
        instructions: 2,
        program: PROGRAM.as_ptr() as u64,
        licence: c"GPL".as_ptr() as u64,
        log_level: 0,
        log_size: 0,
        log: 0,
        kernel_version: 0,
        flags: 0,
        name: *b"holdfast_simul\0\0",
    };
    // SAFETY: the kernel reads as many bytes as the structure has, and what it points to, all of
    // which live until the call returns; it writes nothing without a log.
    let descriptor = unsafe {
        libc::syscall(libc::SYS_bpf, PROG_LOAD, &raw const attributes, size_of::<Attributes>())
    };
    if descriptor < 0 {
        return Err(io::Error::last_os_error());
    }
    let descriptor = i32::try_from(descriptor).map_err(io::Error::other)?;
    // SAFETY: the kernel just gave it to us, and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}
