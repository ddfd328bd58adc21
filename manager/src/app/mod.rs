//! What the manager does, by noun. The only caller of the store.
//!
//! Invariant: what is answered as stored is on disk. It knows nothing of HTTP or gRPC.

use std::sync::Arc;

mod hosts;
mod link;
mod tasks;

pub use hosts::{AdmitError, Admitted, EnrollError};
pub use link::StoreError;
pub use tasks::{ChunkAnswer, TaskOrder, TaskSignal};

/// The manager's whole state. Cloning shares it.
#[derive(Clone, Debug)]
pub struct App(Arc<Inner>);

#[derive(Debug)]
struct Inner {}
