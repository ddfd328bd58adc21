//! What the agent, its scan workers, the eBPF programs and the CLI must agree on.
//!
//! Types and their encodings only: nothing here opens a file, a socket or a clock
//! (but for the local time zone, in [`text`]).
//! Without the `std` feature only [`abi`], [`cut`] and [`guard`] are left, which the eBPF programs share.
#![cfg_attr(not(feature = "std"), no_std)]

pub mod abi;
pub mod cut;
#[cfg(feature = "std")]
pub mod denial;
mod fields;
pub mod guard;

#[cfg(feature = "std")]
pub mod config;
#[cfg(feature = "std")]
pub mod container;
#[cfg(feature = "std")]
pub mod control;
#[cfg(feature = "std")]
pub mod event;
#[cfg(feature = "std")]
pub mod link;
#[cfg(feature = "std")]
pub mod models;
#[cfg(feature = "pin")]
pub mod pin;
#[cfg(feature = "settings")]
pub mod policy;
#[cfg(feature = "std")]
pub mod process;
#[cfg(feature = "std")]
pub mod ruled;
#[cfg(feature = "std")]
pub mod scans;
#[cfg(feature = "settings")]
pub mod schedule;
#[cfg(feature = "settings")]
pub mod settings;
#[cfg(feature = "std")]
pub mod task;
#[cfg(feature = "text")]
pub mod text;
#[cfg(feature = "std")]
pub mod verdict;
#[cfg(feature = "std")]
pub mod wire;
