//! The 32-bit call table of x86-64, by `int 0x80`: what a 32-bit program does, without one.
#![allow(unsafe_code, reason = "there is no other way to make such a call")]

use std::io;

/// `socket` and `connect` of the 32-bit table.
const SOCKET: u32 = 359;
const CONNECT: u32 = 362;

/// Connects a TCP socket to a port of 127.0.0.1, and leaves it open.
///
/// # Errors
/// As `connect(2)`; `ENOSYS` where the kernel has no such table.
pub fn connect(port: u16) -> io::Result<()> {
    let socket = call(SOCKET, [2, 1, 0])?;
    // Addresses of 32-bit calls have 32 bits.
    // SAFETY: a fresh private mapping.
    let page = unsafe {
        libc::mmap(
            std::ptr::null_mut(),
            4096,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_32BIT,
            -1,
            0,
        )
    };
    if page == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    let mut address = [0_u8; 16];
    address[..2].copy_from_slice(&2_u16.to_ne_bytes());
    address[2..4].copy_from_slice(&port.to_be_bytes());
    address[4..8].copy_from_slice(&[127, 0, 0, 1]);
    // SAFETY: the mapping has room for it, and nobody else knows it.
    unsafe { page.cast::<[u8; 16]>().write(address) };
    let page = u32::try_from(page.addr()).map_err(|_| io::Error::other("no 32-bit address"))?;
    call(CONNECT, [socket, page, 16]).map(drop)
}

#[cfg(target_arch = "x86_64")]
fn call(number: u32, arguments: [u32; 3]) -> io::Result<u32> {
    let [first, second, third] = arguments.map(u64::from);
    let result: i64;
    // SAFETY: the kernel keeps all registers but the result's; rbx, which Rust does not hand out,
    // is put back.
    unsafe {
        std::arch::asm!(
            "xchg rbx, {first}",
            "int 0x80",
            "xchg rbx, {first}",
            first = inout(reg) first => _,
            inlateout("rax") i64::from(number) => result,
            in("rcx") second,
            in("rdx") third,
            out("r8") _,
            out("r9") _,
            out("r10") _,
            out("r11") _,
        );
    }
    // Sign-extended from 32 bits.
    let result = result as i32;
    if result < 0 { Err(io::Error::from_raw_os_error(-result)) } else { Ok(result as u32) }
}

#[cfg(not(target_arch = "x86_64"))]
fn call(_: u32, _: [u32; 3]) -> io::Result<u32> {
    Err(io::Error::from_raw_os_error(libc::ENOSYS))
}
