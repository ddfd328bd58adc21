//! What the tests of the cage run inside it: one forbidden system call, by name.
//!
//! `scan_cage_probe MEMORY SECONDS UID GID CALL`, socket as descriptor 0. Exits 0 when the call
//! came back. `scan_cage_probe agent WORKER` is an agent with one worker instead: it prints the
//! worker's pid and waits to be killed.
#![expect(unsafe_code, reason = "the calls must be made raw, past every wrapper")]

use std::io::Write;
use std::os::fd::AsFd;

use holdfast_agent::config;
use holdfast_agent::scan::WorkerFactory;
use holdfast_agent::worker::{Limits, cage};

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if let [mode, worker] = &args[..]
        && mode == "agent"
    {
        be_agent(worker);
        return;
    }
    let limits = Limits::from_args(args[..4].iter().cloned()).expect("limits");
    let stdin = std::io::stdin();
    let missing = cage::enter(&limits, stdin.as_fd());
    if let Err(error) = &missing {
        eprintln!("no cage: {error}");
        std::process::exit(3);
    }
    let (number, arguments) = call(&args[4]);
    let [a, b, c, d, e, f] = arguments;
    // SAFETY: the calls below either do not touch memory of ours or get valid pointers to
    // constants; each is expected to end the process.
    let result = unsafe { libc::syscall(number, a, b, c, d, e, f) };
    eprintln!("{} came back: {result}", args[4]);
    std::process::exit(0);
}

fn be_agent(worker: &str) {
    let factory = WorkerFactory::new(&config::Scan::default(), worker.into()).expect("factory");
    let worker = factory.spawn().expect("worker");
    println!("{}", worker.pid());
    std::io::stdout().flush().expect("flush");
    loop {
        std::thread::park();
    }
}

/// Number and arguments of a call.
fn call(name: &str) -> (libc::c_long, [i64; 6]) {
    let root = c"/".as_ptr() as i64;
    let anonymous = i64::from(libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
    let (rw, rx) = (
        i64::from(libc::PROT_READ | libc::PROT_WRITE),
        i64::from(libc::PROT_READ | libc::PROT_EXEC),
    );
    match name {
        // Allowed: they show that the probe itself works.
        "mmap" => (libc::SYS_mmap, [0, 4096, rw, anonymous, -1, 0]),
        "write-stderr" => (libc::SYS_write, [2, root, 1, 0, 0, 0]),
        // Forbidden.
        "open" => (libc::SYS_openat, [i64::from(libc::AT_FDCWD), root, 0, 0, 0, 0]),
        "socket" => (libc::SYS_socket, [2, 1, 0, 0, 0, 0]),
        "connect" => (libc::SYS_connect, [0, root, 2, 0, 0, 0]),
        "execve" => (libc::SYS_execve, [root, 0, 0, 0, 0, 0]),
        "execveat" => (libc::SYS_execveat, [0, root, 0, 0, 0, 0]),
        "kill" => (libc::SYS_kill, [-1, 9, 0, 0, 0, 0]),
        "tgkill" => (libc::SYS_tgkill, [1, 1, 6, 0, 0, 0]),
        "ptrace" => (libc::SYS_ptrace, [0, 0, 0, 0, 0, 0]),
        "process_vm_readv" => (libc::SYS_process_vm_readv, [1, 0, 0, 0, 0, 0]),
        "clone" => (libc::SYS_clone, [17, 0, 0, 0, 0, 0]),
        "clone3" => (libc::SYS_clone3, [0, 0, 0, 0, 0, 0]),
        "mmap-exec" => (libc::SYS_mmap, [0, 4096, rx, anonymous, -1, 0]),
        "mmap-file" => (libc::SYS_mmap, [0, 4096, 1, i64::from(libc::MAP_PRIVATE), 0, 0]),
        "mprotect-exec" => (libc::SYS_mprotect, [0, 4096, rx, 0, 0, 0]),
        "write-other" => (libc::SYS_write, [1, root, 1, 0, 0, 0]),
        "close-socket" => (libc::SYS_close, [0, 0, 0, 0, 0, 0]),
        "close-stderr" => (libc::SYS_close, [2, 0, 0, 0, 0, 0]),
        "sendmsg" => (libc::SYS_sendmsg, [0, 0, 0, 0, 0, 0]),
        "sendto-other" => (libc::SYS_sendto, [2, root, 1, 0, 0, 0]),
        "recvmsg-other" => (libc::SYS_recvmsg, [3, 0, 0, 0, 0, 0]),
        "dup" => (libc::SYS_dup, [0, 0, 0, 0, 0, 0]),
        "ftruncate" => (libc::SYS_ftruncate, [0, 0, 0, 0, 0, 0]),
        "fchmod" => (libc::SYS_fchmod, [0, 0, 0, 0, 0, 0]),
        "ioctl" => (libc::SYS_ioctl, [0, 0, 0, 0, 0, 0]),
        "setresuid" => (libc::SYS_setresuid, [0, 0, 0, 0, 0, 0]),
        "unshare" => (libc::SYS_unshare, [0, 0, 0, 0, 0, 0]),
        "setns" => (libc::SYS_setns, [0, 0, 0, 0, 0, 0]),
        "mount" => (libc::SYS_mount, [root, root, root, 0, 0, 0]),
        "chroot" => (libc::SYS_chroot, [root, 0, 0, 0, 0, 0]),
        "prctl" => (libc::SYS_prctl, [1, 0, 0, 0, 0, 0]),
        "prlimit" => (libc::SYS_prlimit64, [0, 0, 0, 0, 0, 0]),
        "bpf" => (libc::SYS_bpf, [0, 0, 0, 0, 0, 0]),
        "io_uring_setup" => (libc::SYS_io_uring_setup, [1, 0, 0, 0, 0, 0]),
        "memfd_create" => (libc::SYS_memfd_create, [root, 0, 0, 0, 0, 0]),
        "userfaultfd" => (libc::SYS_userfaultfd, [0, 0, 0, 0, 0, 0]),
        "keyctl" => (libc::SYS_keyctl, [0, 0, 0, 0, 0, 0]),
        // getpid of the x32 table: numbers beyond the native ones must not slip through.
        "x32" => (0x4000_0000 + 39, [0; 6]),
        other => panic!("no such probe: {other}"),
    }
}
