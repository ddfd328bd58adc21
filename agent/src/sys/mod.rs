//! sys
#![allow(unsafe_code, reason = "the one module where system calls without a safe wrapper are made")]
pub mod close_range;
pub mod inode;
