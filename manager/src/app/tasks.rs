//! Response tasks, as the link sees them.

use bytes::Bytes;
use holdfast_common::task::{Action, Progress};
use tokio::sync::watch;
use uuid::Uuid;

use super::{App, StoreError};

/// A task for an agent.
#[derive(Debug, Clone, PartialEq)]
pub struct TaskOrder {
    /// Which.
    pub id: Uuid,
    /// What to do.
    pub action: Action,
    /// Not to be begun after this, milliseconds since the epoch.
    pub expires_ms: i64,
    /// Who filed it.
    pub filed_by: String,
    /// Why.
    pub reason: String,
    /// Taken back: send a cancel, not the task.
    pub cancelled: bool,
}

/// Tells that a host's tasks changed.
#[derive(Debug)]
pub struct TaskSignal(watch::Receiver<u64>);

impl TaskSignal {
    /// Returns once something changed since the last call (at once when it already has); then ask
    /// [`App::tasks_waiting`] again. False when the manager ends. Safe to drop and call again.
    pub async fn changed(&mut self) -> bool {
        self.0.changed().await.is_ok()
    }
}

/// Answer to a part of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChunkAnswer {
    /// The next byte that is wanted.
    Next(u64),
    /// All is there and its hash is right.
    Complete(u64),
    /// Give up, for this reason.
    Refused(String),
}

impl App {
    /// Tasks of a host that its agent does not have yet, oldest first, and those that were
    /// cancelled after it had them (`cancelled`), until it tells their end. Cheap when there are
    /// none; the same task comes again until a progress tells that it was delivered.
    ///
    /// # Errors
    /// [`StoreError`]
    pub async fn tasks_waiting(&self, host: Uuid) -> Result<Vec<TaskOrder>, StoreError> {
        let _ = host;
        Err(StoreError::Closed)
    }

    /// Wakes when a host's tasks change, whichever manager they were filed at.
    #[must_use]
    pub fn task_signal(&self, host: Uuid) -> TaskSignal {
        let _ = host;
        TaskSignal(watch::channel(0).1)
    }

    /// What the agent tells of a task. Of a task of another host, or after its end, it is counted
    /// and dropped.
    ///
    /// # Errors
    /// [`StoreError`]
    pub async fn task_progress(
        &self,
        host: Uuid,
        task: Uuid,
        progress: Progress,
    ) -> Result<(), StoreError> {
        let _ = (host, task, progress);
        Err(StoreError::Closed)
    }

    /// A part of the file that a task delivers; `sha256` (32 bytes, of the whole file) with the
    /// last part. Parts that are there already are answered with what is wanted next, so that a
    /// broken transfer goes on where it was: ask by an empty part at offset 0.
    ///
    /// # Errors
    /// [`StoreError`]
    pub async fn task_chunk(
        &self,
        host: Uuid,
        task: Uuid,
        offset: u64,
        data: Bytes,
        sha256: Option<[u8; 32]>,
    ) -> Result<ChunkAnswer, StoreError> {
        let _ = (host, task, offset, data, sha256);
        Err(StoreError::Closed)
    }
}
