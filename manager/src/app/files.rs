//! Files that tasks deliver, on the manager's disk.
//!
//! A file grows as `ID.part` and becomes `ID` once its hash is right; the name is the task's id,
//! nothing in it comes from a host. With several managers the data folder must be a shared one.

use std::collections::HashSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use holdfast_common::link::CHUNK;
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::change::Change;
use super::secret::hex;
use super::{App, AppError, StoreError, audit};
use crate::store::tasks as store;

const FOLDER: &str = "files";
/// What a zip adds to its content, at most, beside a thousandth of it.
const ZIP: u64 = 64 << 10;
/// Largest file of a task that names no limit.
const UNLIMITED: u64 = 1 << 30;

/// Answer to a part of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChunkAnswer {
    /// The next byte that is wanted.
    Next(u64),
    /// All is there and its hash is right; its size.
    Complete(u64),
    /// Give up, for this reason.
    Refused(String),
}

/// Tasks whose file is being written to now.
#[derive(Debug, Default)]
pub(super) struct Uploads(Mutex<HashSet<Uuid>>);

struct Upload<'a>(&'a Uploads, Uuid);

impl Uploads {
    fn begin(&self, task: Uuid) -> Option<Upload<'_>> {
        let mut open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        open.insert(task).then_some(Upload(self, task))
    }
}

impl Drop for Upload<'_> {
    fn drop(&mut self) {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.1);
    }
}

/// Makes the data folder and what belongs into it, for this user alone.
pub(super) fn folders_make(data_dir: &Path) -> Result<(), AppError> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true).mode(0o700);
    builder
        .create(data_dir.join(FOLDER))
        .and_then(|()| super::shells::folder_make(data_dir))
        .map_err(|source| AppError::File { operation: "make the data folder", source })
}

/// Replaces a small file as a whole, and on disk when it returns.
pub(super) fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    let beside = path.with_extension("new");
    let mut file =
        OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
    file.write_all(content)?;
    file.sync_all()?;
    fs::rename(&beside, path)?;
    match path.parent() {
        Some(folder) => File::open(folder)?.sync_all(),
        None => Ok(()),
    }
}

impl App {
    /// A part of the file that a task delivers; `sha256` (of the whole file) with the last part.
    /// Parts that are there already are answered with what is wanted next, so that a broken
    /// transfer goes on where it was: ask by an empty part at offset 0 without a hash.
    ///
    /// # Errors
    /// [`StoreError`]; the part is not there then, send it again.
    pub async fn task_chunk(
        &self,
        host: Uuid,
        task: Uuid,
        offset: u64,
        data: Bytes,
        sha256: Option<[u8; 32]>,
    ) -> Result<ChunkAnswer, StoreError> {
        let refused = |why: &str| Ok(ChunkAnswer::Refused(why.to_owned()));
        let Some(known) = self.store().task_get(task).await?.filter(|known| known.host == host)
        else {
            return refused("this host has no such task");
        };
        if let Some(size) = known.file_size {
            return Ok(ChunkAnswer::Complete(u64::try_from(size).unwrap_or(0)));
        }
        if known.stage.is_end() {
            return refused("the task is at its end");
        }
        let Some(limit) = file_limit(&known.name, &known.action) else {
            return refused("this task delivers no file");
        };
        if data.len() > CHUNK * 4 {
            return refused("a part is too large");
        }
        let Some(upload) = self.0.uploads.begin(task) else {
            return refused("another stream delivers this file");
        };
        let part = Part {
            folder: self.0.settings.data_dir.join(FOLDER),
            task,
            offset,
            data,
            sha256,
            limit,
            all: self.0.settings.max_files,
        };
        let answer = tokio::task::spawn_blocking(move || part.write())
            .await
            .map_err(|error| file_failed(&error))?
            .map_err(|error| file_failed(&error))?;
        if let (ChunkAnswer::Complete(size), Some(sha256)) = (&answer, sha256) {
            let mut tx = self.store().begin().await?;
            if let Some(mut known) = store::task_lock(&mut tx, task).await? {
                known.file_size = Some(i64::try_from(*size).unwrap_or(i64::MAX));
                known.file_sha256 = Some(hex(&sha256));
                store::task_update(&mut tx, &known).await?;
                self.commit(tx, &[Change::Task { host, task }]).await?;
            }
        }
        drop(upload);
        Ok(answer)
    }

    /// The file that a task delivered, open for reading, and its size. Noted in the audit log.
    ///
    /// # Errors
    /// [`AppError`]
    pub async fn task_file_open(&self, task: Uuid, actor: &str) -> Result<(File, u64), AppError> {
        let known = self.task_get(task).await?;
        if known.file_size.is_none() {
            return Err(AppError::NotFound("file of this task"));
        }
        let mut tx = self.store().begin().await?;
        let (action, target) = ("task.download", task.to_string());
        let detail = serde_json::json!({ "host": known.host, "sha256": known.file_sha256 });
        let head = audit::append(&mut tx, actor, action, &target, &detail).await?;
        self.commit(tx, &[]).await?;
        self.audit_remember(&head);
        let path = self.0.settings.data_dir.join(FOLDER).join(task.to_string());
        let open = tokio::task::spawn_blocking(move || {
            let file = File::open(path)?;
            let size = file.metadata()?.len();
            Ok((file, size))
        });
        match open.await {
            Ok(Ok(open)) => Ok(open),
            Ok(Err(error)) if io::Error::kind(&error) == io::ErrorKind::NotFound => {
                Err(AppError::NotFound("file of this task any more"))
            }
            Ok(Err(source)) => Err(AppError::File { operation: "open a task's file", source }),
            Err(error) => Err(AppError::File {
                operation: "open a task's file",
                source: io::Error::other(error),
            }),
        }
    }

    /// Removes files and parts that nobody wrote to for this long; how many.
    pub(super) fn files_expire(&self, older_than: std::time::Duration) -> io::Result<usize> {
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

fn file_failed(error: &dyn std::fmt::Display) -> StoreError {
    StoreError::Failed { operation: "keep a part of a file", message: error.to_string() }
}

/// Most bytes of the file that this action delivers; nothing when it delivers none.
fn file_limit(name: &str, action: &str) -> Option<u64> {
    match name {
        "collect" => {
            let action: serde_json::Value = serde_json::from_str(action).ok()?;
            let limit = action.get("limit")?.as_u64()?;
            Some(limit.saturating_add(limit / 1000).saturating_add(ZIP))
        }
        "download" | "diagnostics" => Some(UNLIMITED),
        _ => None,
    }
}

struct Part {
    folder: PathBuf,
    task: Uuid,
    offset: u64,
    data: Bytes,
    sha256: Option<[u8; 32]>,
    limit: u64,
    all: u64,
}

impl Part {
    fn write(self) -> io::Result<ChunkAnswer> {
        let done = self.folder.join(self.task.to_string());
        let path = self.folder.join(format!("{}.part", self.task));
        let mut file =
            OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(&path)?;
        let there = file.metadata()?.len();
        if self.offset != there {
            return Ok(ChunkAnswer::Next(there));
        }
        let size = there.saturating_add(self.data.len() as u64);
        let refuse = |why: &str| {
            fs::remove_file(&path)?;
            Ok(ChunkAnswer::Refused(why.to_owned()))
        };
        if size > self.limit {
            return refuse("the file is larger than the task allows");
        }
        if there == 0 && !self.data.is_empty() && folder_size(&self.folder)? > self.all {
            return refuse("the manager has no room for more files");
        }
        file.write_all(&self.data)?;
        let Some(expected) = self.sha256 else { return Ok(ChunkAnswer::Next(size)) };
        file.sync_all()?;
        if hash_file(&path)? != expected {
            return refuse("what arrived has another hash");
        }
        fs::rename(&path, &done)?;
        File::open(&self.folder)?.sync_all()?;
        Ok(ChunkAnswer::Complete(size))
    }
}

pub(super) fn hash_file(path: &Path) -> io::Result<[u8; 32]> {
    let mut file = File::open(path)?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 256 << 10];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hash.finalize().into()),
            n => hash.update(&buffer[..n]),
        }
    }
}

fn folder_size(folder: &Path) -> io::Result<u64> {
    let mut sum = 0;
    for entry in fs::read_dir(folder)? {
        sum += entry?.metadata()?.len();
    }
    Ok(sum)
}
