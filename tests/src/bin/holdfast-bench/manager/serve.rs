//! The manager under measure: `holdfast-manager serve`, set up as its first user does it.
//!
//! Whatever happens, the process is gone when the [`Served`] is dropped.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};
use holdfast_tests::agent::{Agent, binary};
use holdfast_tests::lab::Lab;
use holdfast_tests::until;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;
use tempfile::TempDir;

use super::rest::Rest;

const PATIENCE: Duration = Duration::from_secs(60);

/// A manager that runs.
pub struct Served {
    folder: TempDir,
    process: Child,
    address: SocketAddr,
    fingerprint: String,
    rest: Rest,
}

/// How it is set up.
#[derive(Default)]
pub struct Setting<'a> {
    /// In the outside namespace of this lab.
    pub lab: Option<&'a Lab>,
    /// `postgres://…`; SQLite without it.
    pub database: Option<String>,
    /// With this folder, in which `data` may hold a database.
    pub folder: Option<TempDir>,
}

impl Setting<'_> {
    /// Starts it and signs in.
    ///
    /// # Errors
    /// When it does not start.
    pub async fn start(self) -> Result<Served> {
        let folder = match self.folder {
            Some(folder) => folder,
            None => folder()?,
        };
        let address = match self.lab {
            Some(_) => "10.77.0.2:8442".parse()?,
            // Free a moment ago; nobody else asks for it.
            None => TcpListener::bind("127.0.0.1:0")?.local_addr()?,
        };
        let home = folder.path().display();
        let database =
            self.database.map(|url| format!("[database]\nurl = \"{url}\"\n")).unwrap_or_default();
        let config = folder.path().join("manager.toml");
        let text = format!(
            "data_dir = \"{home}/data\"\n[api]\nsocket = \"{home}/api.sock\"\n\
             [link]\nlisten = \"{address}\"\nnames = [\"{}\"]\n{database}",
            address.ip()
        );
        fs::write(&config, text)?;
        let program = binary("holdfast-manager");
        let mut command = match self.lab {
            None => Command::new(program),
            Some(lab) => lab.command("outside", program.to_str().context("a path")?),
        };
        let mut process = command
            .args(["serve", "--config"])
            .arg(&config)
            .env("HOLDFAST_LOG", "warn")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .context("start holdfast-manager")?;
        let mut lines = BufReader::new(process.stdout.take().context("a pipe")?).lines();
        let mut last_word = || -> Result<String> {
            let line = lines.next().context("the manager ended, see above")??;
            Ok(line.rsplit(' ').next().unwrap_or_default().to_owned())
        };
        let (password, fingerprint) = (last_word()?, last_word()?);
        let socket = folder.path().join("api.sock");
        let listens = || std::os::unix::net::UnixStream::connect(&socket).ok();
        until(PATIENCE, listens).context("the manager never listened")?;
        let rest = Rest::new(&socket).sign_in(&password).await?;
        Ok(Served { folder, process, address, fingerprint, rest })
    }
}

/// A folder for a manager.
///
/// # Errors
/// When there is no room for one.
pub fn folder() -> Result<TempDir> {
    Ok(tempfile::Builder::new().prefix("holdfast-bench-manager-").tempdir()?)
}

impl Served {
    /// Where agents call.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its HTTP interface.
    pub fn rest(&self) -> &Rest {
        &self.rest
    }

    /// Its authority's certificate, PEM.
    ///
    /// # Errors
    /// When it is not there.
    pub fn authority(&self) -> Result<String> {
        Ok(fs::read_to_string(self.folder.path().join("data/authority/ca.pem"))?)
    }

    /// SQLite's file.
    pub fn database(&self) -> PathBuf {
        self.folder.path().join("data/manager.db")
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// A token for so many hosts.
    ///
    /// # Errors
    /// What it says.
    pub async fn token(&self, uses: usize) -> Result<String> {
        let wish = json!({ "group": "bench", "uses": uses, "valid_s": 3600 });
        let made = self.rest.post("/api/v1/enrollment-tokens", &wish).await?;
        Ok(made["token"].as_str().context("a token")?.to_owned())
    }

    /// Enrolls an agent as its user does, and waits until it is connected; the host's id.
    ///
    /// # Errors
    /// When it is not.
    pub async fn enroll(&self, agent: &Agent) -> Result<String> {
        let token = self.token(1).await?;
        let url = format!("https://{}", self.address);
        let words = ["enroll", "--manager", &url, "--token", &token, "--ca-fingerprint"];
        let host = agent.json(&[&words[..], &[self.fingerprint.as_str()]].concat())?;
        let host = host.first().and_then(|host| host["host"].as_str()).context("a host")?;
        let path = format!("/api/v1/hosts/{host}");
        let heard = self.rest.wait(&path, PATIENCE, |host| !host["heartbeat"].is_null()).await;
        heard.with_context(|| agent.log())?;
        Ok(host.to_owned())
    }

    /// Resident memory of its process, KiB.
    ///
    /// # Errors
    /// When it has ended.
    pub fn resident_kib(&self) -> Result<f64> {
        let text = fs::read_to_string(format!("/proc/{}/status", self.pid()))?;
        let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("VmRSS")?;
        Ok(line.trim().trim_end_matches(" kB").parse()?)
    }

    /// Processor time that it has used, seconds.
    ///
    /// # Errors
    /// When it has ended.
    pub fn processor_s(&self) -> Result<f64> {
        let text = fs::read_to_string(format!("/proc/{}/stat", self.pid()))?;
        let (_, rest) = text.rsplit_once(") ").context("stat")?;
        let ticks = rest.split(' ').skip(11).take(2).map(str::parse::<f64>);
        // The kernel's USER_HZ is 100.
        Ok(ticks.sum::<Result<f64, _>>()? / 100.0)
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let pid = Pid::from_raw(i32::try_from(self.process.id()).unwrap_or_default());
        // It may have ended by itself.
        let _ = kill(pid, Signal::SIGTERM);
        let ended = until(Duration::from_secs(30), || self.process.try_wait().transpose());
        if ended.is_none() {
            let _ = self.process.kill();
            let _ = self.process.wait();
        }
    }
}
