//! Remote shells: opened by people who may, carried to the host's stream, recorded.
//!
//! ```text
//!  open (task, recording) ─▶ the host's stream ⇄ live.rs ⇄ viewers (who opened it types)
//!                                                  └─▶ recording.rs     task's end ─▶ finish
//! ```
//!
//! INVARIANT: a shell has its recording before it has a task, and its hash in the audit log before
//! the recording has its final name. An open shell outlives this manager by what the host keeps: it
//! is taken up again from its recording.

mod live;
mod recording;

use std::collections::HashMap;
use std::fs::{self, File};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use holdfast_common::link::SHELL_PART;
use holdfast_common::link::wire::{ShellInput, ShellOutput};
use holdfast_common::task::{Action, Stage};
use serde_json::json;
use tokio::sync::Notify;
use uuid::Uuid;

pub use self::live::{Pen, Person, Shown, Viewer};

use self::live::{Live, REPLAY};
use self::recording::{FOLDER, Recording, folder_size};
use super::files::hash_file;
use super::secret::hex;
use super::tasks::NewOrder;
use super::{App, AppError, Principal, StoreError, audit};
use crate::store::hosts::host_manager;
use crate::store::tasks::{Task, TaskFilter};

/// The name of such tasks.
pub(crate) const NAME: &str = "shell";
/// A host that does not open it within so long does not open it.
const WAIT_S: u64 = 60;
/// Columns and rows, at most.
const LARGEST: u16 = 1000;

/// What somebody wants to open.
#[derive(Debug, Clone)]
pub struct NewShell {
    /// Where.
    pub host: Uuid,
    /// Why.
    pub reason: String,
    /// The fixed commands alone.
    pub restricted: bool,
    /// Columns and rows of the terminal.
    pub size: (u16, u16),
    /// The alert that it belongs to.
    pub alert: Option<Uuid>,
}

/// Why an agent's message about a shell was not taken.
#[derive(Debug, thiserror::Error)]
pub enum ShellError {
    /// It cannot be meant.
    #[error("{0}")]
    Garbled(&'static str),
    /// It may be sent again.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The shells and streams of this manager.
#[derive(Debug, Default)]
pub(super) struct Shells {
    live: Mutex<HashMap<Uuid, Arc<Live>>>,
    /// By host: its stream's waker, and how many streams it has (for a moment two).
    streams: Mutex<HashMap<Uuid, (Arc<Notify>, usize)>>,
    /// One is finished at a time.
    finishing: tokio::sync::Mutex<()>,
}

impl Shells {
    fn live(&self) -> MutexGuard<'_, HashMap<Uuid, Arc<Live>>> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn streams(&self) -> MutexGuard<'_, HashMap<Uuid, (Arc<Notify>, usize)>> {
        self.streams.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn of_host(&self, host: Uuid) -> Vec<Arc<Live>> {
        self.live().values().filter(|live| live.host == host).cloned().collect()
    }

    fn waker(&self, host: Uuid) -> Option<Arc<Notify>> {
        self.streams().get(&host).map(|(waker, _)| Arc::clone(waker))
    }
}

/// A host's stream, for its shells.
#[derive(Debug)]
pub struct ShellStream {
    app: App,
    host: Uuid,
    waker: Arc<Notify>,
}

impl ShellStream {
    /// The next message for the host. Safe to drop and call again.
    pub async fn next(&mut self) -> ShellInput {
        loop {
            let all = self.app.0.shells.of_host(self.host);
            if let Some(input) = all.iter().find_map(|live| live.next()) {
                return input;
            }
            self.waker.notified().await;
        }
    }
}

impl Drop for ShellStream {
    fn drop(&mut self) {
        let mut streams = self.app.0.shells.streams();
        if let Some((_, count)) = streams.get_mut(&self.host) {
            *count -= 1;
            if *count == 0 {
                streams.remove(&self.host);
            }
        }
    }
}

/// Makes the folder of the recordings.
pub(super) fn folder_make(data_dir: &std::path::Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    fs::DirBuilder::new().recursive(true).mode(0o700).create(data_dir.join(FOLDER))
}

impl App {
    /// Opens one: files its task. The one who opens it types on it.
    ///
    /// # Errors
    /// [`AppError`]; `Conflict` when the host has no stream here.
    pub async fn shell_open(&self, new: NewShell, who: &Principal) -> Result<Task, AppError> {
        let (columns, rows) = new.size;
        if columns == 0 || rows == 0 || columns > LARGEST || rows > LARGEST {
            return Err(AppError::Invalid(format!("columns, rows: 1 to {LARGEST}")));
        }
        let waker = self.shell_waker(new.host).await?;
        let host = self.host_get(new.host).await?;
        let (restricted, id) = (new.restricted, Uuid::now_v7());
        let order = NewOrder {
            host: new.host,
            action: Action::Shell { restricted, columns, rows },
            reason: new.reason,
            alert: new.alert,
            wait_s: Some(WAIT_S),
            key: None,
        };
        super::tasks::order_check(&order)?;
        let (data_dir, most) = (self.0.settings.data_dir.clone(), self.0.settings.max_files);
        let title = format!("{} on {} ({}): {}", who.actor, host.name, host.id, order.reason);
        let failed = |source| AppError::File { operation: "begin a shell's recording", source };
        let begun = tokio::task::spawn_blocking(move || {
            if folder_size(&data_dir)? > most {
                return Ok(None);
            }
            Recording::begin(&recording::part(&data_dir, id), &title, (columns, rows)).map(Some)
        });
        let begun = begun.await.map_err(|error| failed(io::Error::other(error)))?;
        let Some(recording) = begun.map_err(failed)? else {
            let message = "there is no room for more recordings: [retention] file_mib".to_owned();
            return Err(AppError::Conflict(message));
        };
        let live =
            Arc::new(Live::new((id, new.host), recording, (Vec::new(), 0), (columns, rows), waker));
        self.0.shells.live().insert(id, live);
        match self.task_file_as(id, order, &who.actor).await {
            Ok(filed) => Ok(filed.task),
            Err(error) => {
                self.0.shells.live().remove(&id);
                // Nothing was shown yet; what cannot be removed goes by its age.
                let _ = fs::remove_file(recording::part(&self.0.settings.data_dir, id));
                Err(error)
            }
        }
    }

    /// The waker of the host's stream, where that is here.
    async fn shell_waker(&self, host: Uuid) -> Result<Arc<Notify>, AppError> {
        if let Some(waker) = self.0.shells.waker(host) {
            return Ok(waker);
        }
        let known = self.host_get(host).await?;
        let message = match (known.session, host_manager(self.store(), host).await?) {
            (Some(_), Some(manager)) => {
                format!("the host is connected to the manager on {manager}: ask that one")
            }
            _ => "the host is not connected".to_owned(),
        };
        Err(AppError::Conflict(message))
    }

    /// Looks at a shell that is open, from what it showed last on; who opened it types.
    ///
    /// # Errors
    /// [`AppError`]; `Conflict` when it has ended, or its host's stream is not here.
    pub async fn shell_join(&self, id: Uuid, who: &Principal) -> Result<Viewer, AppError> {
        let task = self.shell_get(id).await?;
        let known = self.0.shells.live().get(&id).cloned();
        let live = match known {
            Some(live) => live,
            None if task.stage.is_end() => {
                return Err(AppError::Conflict(format!("the shell has ended: {}", task.observed)));
            }
            None => {
                self.shell_waker(task.host).await?;
                return Err(AppError::Conflict("the host tells nothing of it yet".to_owned()));
            }
        };
        // Tokens of the same user are the user too: a name has no blank in it.
        let opener = task.filed_by.split(" (token ").next() == Some(who.name.as_str());
        live.join(&who.actor, opener).map_err(|why| AppError::Conflict(why.to_owned()))
    }

    /// A shell's task.
    ///
    /// # Errors
    /// [`AppError`]
    pub async fn shell_get(&self, id: Uuid) -> Result<Task, AppError> {
        let task = self.store().task_get(id).await?.filter(|task| task.name == NAME);
        task.ok_or(AppError::NotFound("shell"))
    }

    /// Shells, those opened last first, with the bytes of each one's recording.
    ///
    /// # Errors
    /// [`AppError`]
    pub async fn shell_list(
        &self,
        filter: TaskFilter,
    ) -> Result<Vec<(Task, Option<u64>)>, AppError> {
        let tasks = self.task_list(&TaskFilter { name: NAME.to_owned(), ..filter }).await?;
        let data_dir = self.0.settings.data_dir.clone();
        let sized = tokio::task::spawn_blocking(move || {
            let size = |task: &Task| {
                let files =
                    [recording::done(&data_dir, task.id), recording::part(&data_dir, task.id)];
                files.iter().find_map(|file| Some(fs::metadata(file).ok()?.len()))
            };
            tasks
                .into_iter()
                .map(|task| (size(&task), task))
                .map(|(size, task)| (task, size))
                .collect()
        });
        sized.await.map_err(|error| AppError::File {
            operation: "look at recordings",
            source: io::Error::other(error),
        })
    }

    /// A recording, whole or as far as it is, and its size. Noted in the audit log.
    ///
    /// # Errors
    /// [`AppError`]
    pub async fn shell_recording(&self, id: Uuid, actor: &str) -> Result<(File, u64), AppError> {
        let task = self.shell_get(id).await?;
        let data_dir = self.0.settings.data_dir.clone();
        let opened = tokio::task::spawn_blocking(move || {
            let opened = File::open(recording::done(&data_dir, id))
                .or_else(|_| File::open(recording::part(&data_dir, id)))?;
            let size = opened.metadata()?.len();
            io::Result::Ok((opened, size))
        });
        let opened = match opened.await {
            Ok(Ok(opened)) => opened,
            Ok(Err(error)) if error.kind() == io::ErrorKind::NotFound => {
                return Err(AppError::NotFound("recording of this shell any more"));
            }
            Ok(Err(source)) => {
                return Err(AppError::File { operation: "open a recording", source });
            }
            Err(error) => {
                let source = io::Error::other(error);
                return Err(AppError::File { operation: "open a recording", source });
            }
        };
        let mut tx = self.store().begin().await?;
        let detail = json!({ "host": task.host });
        let head =
            audit::append(&mut tx, actor, "shell.download", &id.to_string(), &detail).await?;
        self.commit(tx, &[]).await?;
        self.audit_remember(&head);
        Ok(opened)
    }

    /// A host's stream begins: it carries the host's shells from now on.
    #[must_use]
    pub fn shell_stream(&self, host: Uuid) -> ShellStream {
        let waker = {
            let mut streams = self.0.shells.streams();
            let (waker, count) = streams.entry(host).or_default();
            *count += 1;
            Arc::clone(waker)
        };
        self.0.shells.of_host(host).iter().for_each(|live| live.rejoin());
        ShellStream { app: self.clone(), host, waker }
    }

    /// What a host's terminal shows. Recorded when this returns.
    ///
    /// # Errors
    /// [`ShellError`]
    pub async fn shell_output(&self, host: Uuid, output: ShellOutput) -> Result<(), ShellError> {
        if output.data.len() > SHELL_PART {
            return Err(ShellError::Garbled("a part of a terminal that is too large"));
        }
        let task = Uuid::try_parse(&output.task);
        let task = task.map_err(|_| ShellError::Garbled("a shell without an id"))?;
        let known = self.0.shells.live().get(&task).cloned();
        let live = match known {
            Some(live) if live.host == host => live,
            Some(_) => return Err(ShellError::Garbled("a shell of another host")),
            None => match self.shell_take_up(host, task, output.offset).await? {
                Some(live) => live,
                None => return Ok(()),
            },
        };
        // It does not fail; a manager that ends drops it.
        let _ = tokio::task::spawn_blocking(move || live.output(&output)).await;
        Ok(())
    }

    /// A shell that was opened before this manager began.
    async fn shell_take_up(
        &self,
        host: Uuid,
        id: Uuid,
        total: u64,
    ) -> Result<Option<Arc<Live>>, ShellError> {
        let task = self.store().task_get(id).await?;
        let Some(task) = task.filter(|task| task.host == host && task.name == NAME) else {
            return Err(ShellError::Garbled("a shell that was not asked for"));
        };
        // One that has ended here has nothing to say; one that came late may still be open.
        if task.stage.is_end() && task.stage != Stage::Expired {
            return Ok(None);
        }
        let path = recording::part(&self.0.settings.data_dir, id);
        let again = tokio::task::spawn_blocking(move || {
            let (mut recording, shown) = Recording::reopen(&path, REPLAY)?;
            recording
                .mark("the manager began anew; what follows may repeat what was shown last")?;
            io::Result::Ok((recording, shown))
        });
        let failed = |error: &dyn std::fmt::Display| StoreError::Failed {
            operation: "go on with a recording",
            message: error.to_string(),
        };
        let (recording, mut shown) =
            again.await.map_err(|error| failed(&error))?.map_err(|error| failed(&error))?;
        let Some(waker) = self.0.shells.waker(host) else { return Ok(None) };
        // It cannot show more than there was.
        let most = usize::try_from(total).unwrap_or(usize::MAX);
        let over = shown.len().saturating_sub(most);
        shown.drain(..over);
        // As it began: who types says anew how large it is.
        let action: serde_json::Value = serde_json::from_str(&task.action).unwrap_or_default();
        let cells = |key: &str| action[key].as_u64().and_then(|count| u16::try_from(count).ok());
        let screen = (cells("columns").unwrap_or(80), cells("rows").unwrap_or(24));
        let live = Arc::new(Live::new((id, host), recording, (shown, total), screen, waker));
        Ok(Some(Arc::clone(self.0.shells.live().entry(id).or_insert(live))))
    }

    /// A shell's task has ended: its recording is closed, its hash noted. Nothing when that was done.
    pub(super) async fn shell_finish(&self, task: &Task) -> Result<(), StoreError> {
        let _one = self.0.shells.finishing.lock().await;
        if let Some(live) = self.0.shells.live().remove(&task.id) {
            live.end(&task.observed);
        }
        let data_dir = &self.0.settings.data_dir;
        let (part, done) = (recording::part(data_dir, task.id), recording::done(data_dir, task.id));
        let of = part.clone();
        let hashed = tokio::task::spawn_blocking(move || {
            let size = match fs::metadata(&of) {
                Ok(facts) => facts.len(),
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
                Err(error) => return Err(error),
            };
            File::open(&of)?.sync_all()?;
            Ok(Some((size, hash_file(&of)?)))
        });
        let failed = |error: &dyn std::fmt::Display| StoreError::Failed {
            operation: "close a recording",
            message: error.to_string(),
        };
        let hashed =
            hashed.await.map_err(|error| failed(&error))?.map_err(|error| failed(&error))?;
        let Some((size, hash)) = hashed else { return Ok(()) };
        let open_ms = task.ended_ms.zip(task.delivered_ms).map(|(end, begin)| end - begin);
        let detail = json!({
            "host": task.host, "reason": task.reason, "how": task.observed, "open_ms": open_ms,
            "stage": crate::store::tasks::stage_name(task.stage),
            "recording_sha256": hex(&hash), "recording_bytes": size,
        });
        let mut tx = self.store().begin().await?;
        let target = task.id.to_string();
        let head = audit::append(&mut tx, &task.filed_by, "shell.close", &target, &detail).await?;
        self.commit(tx, &[]).await?;
        self.audit_remember(&head);
        fs::rename(&part, &done).map_err(|error| failed(&error))
    }

    /// Closes recordings of shells whose end this manager, or one before it, has missed.
    pub(super) async fn shells_look(&self) -> Result<(), StoreError> {
        let folder = self.0.settings.data_dir.join(FOLDER);
        let Ok(entries) = fs::read_dir(folder) else { return Ok(()) };
        for entry in entries.flatten() {
            let name = entry.file_name();
            let id = name.to_str().and_then(|name| name.strip_suffix(".part"));
            let Some(id) = id.and_then(|id| Uuid::try_parse(id).ok()) else { continue };
            match self.store().task_get(id).await? {
                Some(task) if task.stage.is_end() => self.shell_finish(&task).await?,
                Some(_) | None => {}
            }
        }
        Ok(())
    }

    /// Removes recordings that are older than this; how many.
    pub(super) fn recordings_expire(&self, older_than: std::time::Duration) -> io::Result<usize> {
        let mut removed = 0;
        for entry in fs::read_dir(self.0.settings.data_dir.join(FOLDER))? {
            let entry = entry?;
            let age = entry.metadata()?.modified()?.elapsed().unwrap_or_default();
            if age > older_than {
                fs::remove_file(entry.path())?;
                removed += 1;
            }
        }
        Ok(removed)
    }
}
