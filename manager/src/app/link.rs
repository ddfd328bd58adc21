//! What agents send: events and heartbeats.

use bytes::Bytes;
use holdfast_common::link::Heartbeat;
use uuid::Uuid;

use super::{Admitted, App};

/// The database did not do it; nothing was changed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// The manager is ending.
    #[error("the store is closed")]
    Closed,
    /// The operation that failed, and how.
    #[error("{operation}: {message}")]
    Failed {
        /// What was to be done.
        operation: &'static str,
        /// The database's words.
        message: String,
    },
}

impl App {
    /// Stores events (JSON of `event::Event` each). When it returns they are on disk, each once,
    /// and detections among them are alerts. What is no event is counted on the host and dropped.
    ///
    /// # Errors
    /// [`StoreError`]; do not acknowledge, send again.
    pub async fn events_store(&self, host: Uuid, events: Vec<Bytes>) -> Result<(), StoreError> {
        let _ = (host, events);
        Err(StoreError::Closed)
    }

    /// Stores a sign of life and judges it.
    ///
    /// # Errors
    /// [`StoreError`]
    pub async fn heartbeat_store(
        &self,
        admitted: Admitted,
        heartbeat: Heartbeat,
    ) -> Result<(), StoreError> {
        let _ = (admitted, heartbeat);
        Err(StoreError::Closed)
    }
}
