//! A copy of the database as of one moment, and back.
//!
//! SQLite copies itself (`VACUUM INTO`) while it is written to; PostgreSQL's own `pg_dump` and
//! `pg_restore` do it there.

use std::path::Path;
use std::process::Command;

use super::{Place, Store, StoreError, failed};

/// Name of SQLite's copy in a backup.
pub const SQLITE_FILE: &str = "manager.db";
/// Name of PostgreSQL's.
pub const POSTGRES_FILE: &str = "manager.pgdump";

impl Store {
    /// Copies the database into a folder; the file's name.
    ///
    /// # Errors
    /// [`StoreError`]
    pub async fn backup(&self, folder: &Path) -> Result<&'static str, StoreError> {
        match &self.place {
            Place::File(_) => {
                let to = folder.join(SQLITE_FILE);
                let Some(to) = to.to_str() else {
                    return Err(StoreError::corrupt("back up", "a folder name that is no text"));
                };
                sqlx::query("VACUUM INTO $1")
                    .bind(to.to_owned())
                    .execute(&self.writer)
                    .await
                    .map_err(failed("back up"))?;
                Ok(SQLITE_FILE)
            }
            Place::Server(url) => {
                let mut command = Command::new("pg_dump");
                command.args(["--format=custom", "--no-owner", "--file"]);
                run(command.arg(folder.join(POSTGRES_FILE)).arg("--dbname").arg(url))?;
                Ok(POSTGRES_FILE)
            }
        }
    }
}

/// Fills an empty place from a backup's file.
///
/// # Errors
/// [`StoreError`]; also when the place is not empty.
pub fn restore(place: &Place, folder: &Path) -> Result<(), StoreError> {
    let error = |message: String| StoreError::Failed { operation: "restore", message };
    match place {
        Place::File(path) => {
            let mut beside = path.clone().into_os_string();
            beside.push("-wal");
            if path.exists() || Path::new(&beside).exists() {
                return Err(error(format!("{} is there already; move it away", path.display())));
            }
            std::fs::copy(folder.join(SQLITE_FILE), path)
                .and_then(|_| std::fs::File::open(path)?.sync_all())
                .map_err(|source| error(format!("{}: {source}", path.display())))
        }
        Place::Server(url) => {
            // Fails at the first table that is there already, and changes nothing then.
            let mut command = Command::new("pg_restore");
            command.args(["--single-transaction", "--exit-on-error", "--no-owner", "--dbname"]);
            run(command.arg(url).arg(folder.join(POSTGRES_FILE)))
        }
    }
}

fn run(command: &mut Command) -> Result<(), StoreError> {
    let name = command.get_program().to_string_lossy().into_owned();
    let error = |message: String| StoreError::Failed { operation: "back up or restore", message };
    let output = command.output().map_err(|source| error(format!("start {name}: {source}")))?;
    if output.status.success() {
        return Ok(());
    }
    Err(error(format!("{name}: {}", String::from_utf8_lossy(&output.stderr).trim())))
}
