//! The eBPF programs that the agent loads: one module per subject, maps in one place.
//!
//! Most are raw tracepoints, which load without BTF, kprobes or a mounted tracefs on every kernel
//! from 5.8 on; the fexit programs of [`hooks`] need BPF trampolines. They observe and never change
//! what the kernel does. Kernel memory is read with `bpf_probe_read_kernel` at offsets that the agent found in the running kernel's BTF.
#![no_std]
#![no_main]

mod activity;
mod calls;
mod end;
mod hooks;
mod kernel;
mod maps;
mod network;
mod path;
mod process;
mod read;
mod traffic;
