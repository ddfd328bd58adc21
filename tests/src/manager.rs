//! A manager as a test of the link runs it: `link-manager` (see `bin/link-manager.rs`) on a
//! loopback port or in a namespace of a lab, with its own folder.
//!
//! Whatever happens, the process is gone when the [`Manager`] is dropped.

use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::agent::{Agent, PATIENCE, binary};
use crate::lab::Lab;
use crate::until;

/// A running manager, or one that was killed and keeps its folder.
#[derive(Debug)]
pub struct Manager {
    folder: TempDir,
    address: SocketAddr,
    name: String,
    life_s: u64,
    namespace: Option<PathBuf>,
    fingerprint: String,
    process: Option<(Child, ChildStdin, BufReader<ChildStdout>)>,
}

impl Manager {
    /// On a loopback port.
    ///
    /// # Errors
    /// When it does not start.
    pub fn start() -> Result<Self> {
        Self::with_life(90 * 86_400)
    }

    /// The same, with certificates of so many seconds.
    ///
    /// # Errors
    /// When it does not start.
    pub fn with_life(life_s: u64) -> Result<Self> {
        Self::new("127.0.0.1:0".parse()?, "127.0.0.1", life_s, None)
    }

    /// Outside of a lab's host.
    ///
    /// # Errors
    /// When it does not start.
    pub fn outside(lab: &Lab) -> Result<Self> {
        Self::new("10.77.0.2:0".parse()?, "10.77.0.2", 3600, Some(lab.namespace("outside")))
    }

    fn new(
        address: SocketAddr,
        name: &str,
        life_s: u64,
        namespace: Option<PathBuf>,
    ) -> Result<Self> {
        let mut manager = Self {
            folder: tempfile::Builder::new().prefix("holdfast-manager-").tempdir()?,
            address,
            name: name.to_owned(),
            life_s,
            namespace,
            fingerprint: String::new(),
            process: None,
        };
        manager.run()?;
        Ok(manager)
    }

    /// Starts it, again after [`Manager::kill`], at the same address with the same folder.
    ///
    /// # Errors
    /// When it does not start.
    pub fn run(&mut self) -> Result<()> {
        ensure!(self.process.is_none(), "the manager runs already");
        let program = binary("link-manager");
        let mut command = match &self.namespace {
            None => Command::new(program),
            Some(namespace) => {
                let mut command = Command::new("nsenter");
                command.arg(format!("--net={}", namespace.display())).arg(program);
                command
            }
        };
        let mut child = command
            .arg(self.folder.path())
            .args([self.address.to_string(), self.life_s.to_string(), "1".to_owned()])
            .arg(&self.name)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("start link-manager")?;
        let stdin = child.stdin.take().context("a pipe")?;
        let mut stdout = BufReader::new(child.stdout.take().context("a pipe")?);
        let mut line = String::new();
        stdout.read_line(&mut line)?;
        let first: Value = serde_json::from_str(&line)
            .with_context(|| format!("link-manager does not start, see above: {line:?}"))?;
        self.address = first["address"].as_str().context("an address")?.parse()?;
        self.fingerprint = first["fingerprint"].as_str().context("a fingerprint")?.to_owned();
        self.process = Some((child, stdin, stdout));
        Ok(())
    }

    /// SIGKILL; waits for the end.
    ///
    /// # Errors
    /// When it does not run.
    pub fn kill(&mut self) -> Result<()> {
        let (mut child, ..) = self.process.take().context("the manager does not run")?;
        child.kill()?;
        child.wait()?;
        Ok(())
    }

    /// One question.
    ///
    /// # Errors
    /// What the manager says.
    pub fn ask(&mut self, asked: &Value) -> Result<Value> {
        let (_, stdin, stdout) = self.process.as_mut().context("the manager does not run")?;
        writeln!(stdin, "{asked}")?;
        let mut line = String::new();
        stdout.read_line(&mut line)?;
        let answer: Value = serde_json::from_str(&line).with_context(|| format!("{line:?}"))?;
        match answer["error"].as_str() {
            Some(error) => bail!("{asked}: {error}"),
            None => Ok(answer),
        }
    }

    /// Waits until an answer fits.
    ///
    /// # Errors
    /// When none does in time.
    pub fn wait_for(&mut self, asked: &Value, fits: impl Fn(&Value) -> bool) -> Result<Value> {
        let mut last = Value::Null;
        let found = until(PATIENCE, || {
            last = self.ask(asked).ok()?;
            fits(&last).then(|| last.clone())
        });
        found.with_context(|| format!("{asked} never fitted; last {last}"))
    }

    /// Its URL.
    #[must_use]
    pub fn url(&self) -> String {
        format!("https://{}", self.address)
    }

    /// Its authority's fingerprint.
    #[must_use]
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// Where it listens.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its folder.
    #[must_use]
    pub fn folder(&self) -> &std::path::Path {
        self.folder.path()
    }

    /// A token for so many hosts.
    ///
    /// # Errors
    /// What the manager says.
    pub fn token(&mut self, uses: u32) -> Result<String> {
        let answer = self.ask(&json!({ "do": "token", "uses": uses }))?;
        Ok(answer["token"].as_str().context("a token")?.to_owned())
    }

    /// Enrolls an agent and waits until it is connected. Returns the host's id.
    ///
    /// # Errors
    /// When it is not.
    pub fn enroll(&mut self, agent: &Agent, more: &[&str]) -> Result<String> {
        let token = self.token(1)?;
        let (url, fingerprint) = (self.url(), self.fingerprint.clone());
        let words = ["enroll", "--manager", &url, "--token", &token];
        let words = [&words[..], &["--ca-fingerprint", &fingerprint], more].concat();
        let host = agent.json(&words)?.pop().context("an answer")?;
        let host = host["host"].as_str().context("a host")?.to_owned();
        self.wait_for(&json!({ "do": "host", "host": host }), |host| host["connected"] == true)
            .with_context(|| agent.log())?;
        Ok(host)
    }

    /// Files a task.
    ///
    /// # Errors
    /// What the manager says.
    pub fn file(&mut self, host: &str, action: &Value) -> Result<String> {
        let answer = self.ask(&json!({ "do": "file", "host": host, "action": action }))?;
        Ok(answer["id"].as_str().context("an id")?.to_owned())
    }

    /// Waits for the end of a task.
    ///
    /// # Errors
    /// When it does not end in time.
    pub fn ended(&mut self, task: &str) -> Result<Value> {
        self.wait_for(&json!({ "do": "task", "id": task }), |task| !task["ended_ms"].is_null())
    }

    /// Ids of the events of a kind, or of all.
    ///
    /// # Errors
    /// What the manager says.
    pub fn events(&mut self, kind: Option<&str>) -> Result<Vec<Value>> {
        let answer = self.ask(&json!({ "do": "events", "kind": kind }))?;
        Ok(answer["events"].as_array().context("a list")?.clone())
    }
}

impl Drop for Manager {
    fn drop(&mut self) {
        if let Some((mut child, ..)) = self.process.take() {
            // It may have ended by itself.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
