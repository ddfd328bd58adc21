//! Records that cross from the eBPF programs to the agent, `repr(C)` and `no_std`.
//!
//! Invariant: no implicit padding, so that a record can be read from any aligned byte slice.
