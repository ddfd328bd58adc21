//! System calls that no well-kept crate wraps, each behind a safe function.
//!
//! The only module of the agent with `unsafe`. No policy lives here.
#![allow(unsafe_code, reason = "the one module where system calls without a safe wrapper are made")]

pub mod attributes;
pub mod bpf;
pub mod bpf_probe;
pub mod close_range;
pub mod descriptors;
pub mod fanotify;
pub mod identity;
pub mod inode;
pub mod memory;
pub mod netlink;
pub mod notice;
pub mod packet;
pub mod priority;
