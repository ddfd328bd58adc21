//! A PostgreSQL of a test's or bench's own, from the distribution's binaries and with its defaults: every
//! commit is flushed. A Unix socket in a folder of its own, no network, an unprivileged user; it
//! ends with the [`Cluster`].

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::until;
use anyhow::{Context, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

const PATIENCE: Duration = Duration::from_secs(60);

/// The running server.
pub struct Cluster {
    folder: TempDir,
    bin: PathBuf,
    server: Child,
}

impl Cluster {
    /// Makes it and waits until it answers.
    ///
    /// # Errors
    /// When PostgreSQL's server is not installed, or does not start.
    pub fn start() -> Result<Self> {
        let bin = newest_bin()?;
        // A socket's path is short.
        let folder = tempfile::Builder::new().prefix("holdfast-tests-pg-").tempdir_in("/tmp")?;
        run(Command::new("chown").arg("postgres").arg(folder.path()))?;
        let data = folder.path().join("data");
        run(as_postgres(&bin.join("initdb"))
            .args(["--username=holdfast", "--auth=trust", "--encoding=UTF8", "--no-locale"])
            .arg("--pgdata")
            .arg(&data))?;
        let server = as_postgres(&bin.join("postgres"))
            .arg("-D")
            .arg(&data)
            .arg("-k")
            .arg(folder.path())
            .args(["-c", "listen_addresses=", "-c", "log_min_messages=fatal"])
            .stdout(Stdio::null())
            .spawn()
            .context("start postgres")?;
        let cluster = Self { folder, bin, server };
        let ready = || {
            let mut ask = Command::new(cluster.bin.join("pg_isready"));
            ask.args(["--quiet", "--host"]).arg(cluster.folder.path());
            ask.status().is_ok_and(|status| status.success()).then_some(())
        };
        until(PATIENCE, ready).context("PostgreSQL did not start")?;
        Ok(cluster)
    }

    /// The address of a new, empty database.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn database(&self, name: &str) -> Result<String> {
        let folder = self.folder.path();
        run(Command::new(self.bin.join("createdb")).arg("--host").arg(folder).args([
            "--username",
            "holdfast",
            name,
        ]))?;
        let host = folder.to_string_lossy().replace('/', "%2F");
        Ok(format!("postgres://holdfast@{host}/{name}"))
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // At once, whoever is connected.
        let pid = i32::try_from(self.server.id()).unwrap_or_default();
        let _ = kill(Pid::from_raw(pid), Signal::SIGINT);
        let _ = self.server.wait();
    }
}

/// A command of the user `postgres`.
fn as_postgres(program: &Path) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups"]).arg(program);
    command.current_dir("/");
    command
}

fn run(command: &mut Command) -> Result<()> {
    let output = command.output().with_context(|| format!("{command:?}"))?;
    let error = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{command:?}: {error}");
    Ok(())
}

fn newest_bin() -> Result<PathBuf> {
    let all = std::fs::read_dir("/usr/lib/postgresql");
    let all = all.context("PostgreSQL's server: apt install postgresql")?;
    let newest = all.filter_map(|entry| {
        let path = entry.ok()?.path();
        Some((path.file_name()?.to_str()?.parse::<u32>().ok()?, path.join("bin")))
    });
    newest.max().map(|(_, bin)| bin).context("a version of PostgreSQL")
}
