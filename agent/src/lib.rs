//! The agent: `holdfastd`, its scan workers and the CLI.
//!
//! Follow an `open()` by reading, in this order: [`sys::fanotify`] (the kernel's event),
//! [`on_access`] (hold, scan, decide, answer), [`scan`] (the worker pool), [`worker`] (the caged
//! process), [`respond`] (quarantine and report), [`journal`] (the line that stays).
//! [`daemon`] is the one place that knows all parts.

pub mod cli;
pub mod config;
pub mod control;
pub mod detect;
pub mod journal;
pub mod on_access;
pub mod quarantine;
pub mod respond;
pub mod scan;
pub mod sensor;
pub mod sys;
pub mod worker;
