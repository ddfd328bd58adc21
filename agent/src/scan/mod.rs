//! The agent's side of the scan core: rules in, caged workers out, one order at a time to each.
//!
//! [`bundle`] reads a rules folder, [`factory`] keeps the current one and starts workers with it,
//! [`keeper`] is the thread that all of them are children of, [`link`] the messages, [`process`]
//! one worker. No content is interpreted on this side of the socket; which file goes to which
//! worker, and what a failure means, is decided by the caller.

pub mod bundle;
pub mod factory;
mod keeper;
mod last_good;
pub mod link;
pub mod process;

pub use bundle::{BundleError, BundleSource};
pub use factory::{ScanError, WorkerFactory, default_binary};
pub use link::{ScanFailed, Scanned, WorkerDied};
pub use process::Worker;
