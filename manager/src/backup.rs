//! Backups: the database as of one moment, and the rest of the data folder.
//!
//! A backup is a folder with a list of its files and their hashes. It holds the manager's keys:
//! keep it as safe as the manager. Restoring checks every hash first and overwrites nothing.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::store::backup::{POSTGRES_FILE, SQLITE_FILE, restore as database_restore};
use crate::store::{Place, SCHEMA, Store, StoreError};

const LIST: &str = "backup.json";
const DATA: &str = "data";

/// What is in a backup.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct List {
    /// The database's schema.
    schema: i64,
    /// SHA-256 in hex by the path within the backup.
    files: BTreeMap<String, String>,
}

/// Why there is no backup, or nothing was restored.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// A file or folder.
    #[error("{operation} {path}")]
    File {
        /// What was to be done.
        operation: &'static str,
        /// With what.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The backup is not whole, or another place's.
    #[error("{0}")]
    Refused(String),
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
}

fn at(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> BackupError {
    let path = path.to_owned();
    move |source| BackupError::File { operation, path, source }
}

/// Makes a backup in a folder that is not there yet.
///
/// # Errors
/// [`BackupError`]; what was written so far stays, without its list.
pub async fn backup(store: &Store, data_dir: &Path, to: &Path) -> Result<(), BackupError> {
    folder_make(to)?;
    // The data folder first: what it knows of the database (the audit log's last hash) must be in
    // the copy of that.
    copy(data_dir, &to.join(DATA))?;
    store.backup(to).await?;
    let mut files = BTreeMap::new();
    list(to, to, &mut files)?;
    let text = serde_json::to_string_pretty(&List { schema: SCHEMA, files })
        .map_err(|error| BackupError::Refused(error.to_string()))?;
    let path = to.join(LIST);
    fs::write(&path, text).map_err(at("write", &path))?;
    File::open(&path).and_then(|file| file.sync_all()).map_err(at("write", &path))
}

/// Puts a backup back: into a data folder that is empty or not there, and an empty database.
///
/// # Errors
/// [`BackupError`]
pub fn restore(place: &Place, data_dir: &Path, from: &Path) -> Result<(), BackupError> {
    let path = from.join(LIST);
    let text = fs::read_to_string(&path).map_err(at("read", &path))?;
    let expected: List = serde_json::from_str(&text)
        .map_err(|error| BackupError::Refused(format!("{}: {error}", path.display())))?;
    if expected.schema > SCHEMA {
        let message = format!("a newer manager's backup: schema {}", expected.schema);
        return Err(BackupError::Refused(message));
    }
    let mut there = BTreeMap::new();
    list(from, from, &mut there)?;
    there.remove(LIST);
    if there != expected.files {
        let differs = |(name, hash): &(&String, &String)| there.get(*name) != Some(*hash);
        let first = expected.files.iter().find(differs).map(|(name, _)| name.as_str());
        let name = first.unwrap_or("a file that does not belong to it");
        return Err(BackupError::Refused(format!("the backup is not whole: {name}")));
    }
    if data_dir.exists() {
        let mut entries = fs::read_dir(data_dir).map_err(at("read", data_dir))?;
        if entries.next().is_some() {
            let message = format!("{} is not empty; move it away", data_dir.display());
            return Err(BackupError::Refused(message));
        }
    }
    copy(&from.join(DATA), data_dir)?;
    database_restore(place, from)?;
    Ok(())
}

fn folder_make(path: &Path) -> Result<(), BackupError> {
    fs::DirBuilder::new().mode(0o700).create(path).map_err(at("make", path))
}

/// Copies a folder but for the database, which is copied as of one moment elsewhere.
fn copy(from: &Path, to: &Path) -> Result<(), BackupError> {
    if !to.exists() {
        folder_make(to)?;
    }
    for entry in fs::read_dir(from).map_err(at("read", from))? {
        let entry = entry.map_err(at("read", from))?;
        let (path, name) = (entry.path(), entry.file_name());
        let target = to.join(&name);
        let kind = entry.file_type().map_err(at("read", &path))?;
        let text = name.to_string_lossy();
        if text.starts_with(SQLITE_FILE) || text.starts_with(POSTGRES_FILE) {
            continue;
        }
        if kind.is_dir() {
            copy(&path, &target)?;
        } else if kind.is_file() {
            match fs::copy(&path, &target) {
                Ok(_) => {}
                // A part of a delivery that ended meanwhile.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(at("copy", &path)(error)),
            }
            let mode = fs::Permissions::from_mode(0o600);
            fs::set_permissions(&target, mode).map_err(at("write", &target))?;
            File::open(&target).and_then(|f| f.sync_all()).map_err(at("write", &target))?;
        }
    }
    Ok(())
}

fn list(
    root: &Path,
    folder: &Path,
    files: &mut BTreeMap<String, String>,
) -> Result<(), BackupError> {
    for entry in fs::read_dir(folder).map_err(at("read", folder))? {
        let entry = entry.map_err(at("read", folder))?;
        let path = entry.path();
        if entry.file_type().map_err(at("read", &path))?.is_dir() {
            list(root, &path, files)?;
            continue;
        }
        let name = path.strip_prefix(root).unwrap_or(&path).to_string_lossy().into_owned();
        files.insert(name, hash(&path).map_err(at("read", &path))?);
    }
    Ok(())
}

fn hash(path: &Path) -> io::Result<String> {
    let mut file = File::open(path)?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 256 << 10];
    loop {
        match file.read(&mut buffer)? {
            0 => break,
            n => hash.update(&buffer[..n]),
        }
    }
    Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}
