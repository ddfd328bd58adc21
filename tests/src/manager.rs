//! The manager as a test runs it: `holdfast-manager serve` on loopback ports, or in a namespace of
//! a lab, with its own folder; asked over its HTTP interface by the first admin.
//!
//! Whatever happens, the process is gone when the [`Manager`] is dropped; its log is shown when the
//! test fails.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::agent::{Agent, PATIENCE, binary};
use crate::lab::{self, Lab};
use crate::rest::{Place, Request};
use crate::until;

/// The password that the first one is changed to.
pub const PASSWORD: &str = "a password of tests";

/// Every time that there is.
const ALWAYS: &str = "from_ms=0&until_ms=9000000000000000";

/// A running manager, or one that was killed and keeps its folder.
#[derive(Debug)]
pub struct Manager {
    folder: TempDir,
    /// Its data folder; another manager's, where two share one.
    data: PathBuf,
    /// PostgreSQL's address; SQLite without it.
    database: Option<String>,
    /// More of its config.
    tables: String,
    /// For its process alone.
    environment: Vec<(&'static str, String)>,
    /// Of the link.
    address: SocketAddr,
    place: Place,
    life_s: u64,
    namespace: Option<PathBuf>,
    fingerprint: String,
    token: String,
    said: Arc<Mutex<String>>,
    process: Option<Child>,
}

impl Manager {
    /// On loopback ports.
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
        Self::https(life_s)?.begun()
    }

    /// On loopback ports, with such an environment.
    ///
    /// # Errors
    /// When it does not start.
    pub fn with_environment(environment: Vec<(&'static str, String)>) -> Result<Self> {
        let mut manager = Self::https(90 * 86_400)?;
        manager.environment = environment;
        manager.begun()
    }

    /// On loopback ports and a PostgreSQL.
    ///
    /// # Errors
    /// When it does not start.
    pub fn on_database(url: &str) -> Result<Self> {
        let mut manager = Self::https(90 * 86_400)?;
        manager.database = Some(url.to_owned());
        manager.begun()
    }

    /// Another one on the same database and data folder.
    ///
    /// # Errors
    /// When it does not start.
    pub fn second(&self) -> Result<Self> {
        let mut other = Self::https(self.life_s)?;
        other.data.clone_from(&self.data);
        other.place = Place::Https("127.0.0.1:0".parse()?, self.data.join("authority/ca.pem"));
        other.database.clone_from(&self.database);
        other.token.clone_from(&self.token);
        other.run()?;
        Ok(other)
    }

    fn https(life_s: u64) -> Result<Self> {
        let any = "127.0.0.1:0".parse()?;
        let folder = tempfile::Builder::new().prefix("holdfast-manager-").tempdir()?;
        let place = Place::Https(any, folder.path().join("data/authority/ca.pem"));
        Ok(Self::new(folder, any, place, life_s, None))
    }

    fn begun(mut self) -> Result<Self> {
        self.run()?;
        self.sign_in()?;
        Ok(self)
    }

    /// Outside of a lab's host; asked over a Unix socket.
    ///
    /// # Errors
    /// When it does not start.
    pub fn outside(lab: &Lab) -> Result<Self> {
        Self::with_socket("10.77.0.2:0".parse()?, Some(lab.namespace("outside")))
    }

    /// Outside of a lab's host, for browsers too; asked from there.
    ///
    /// # Errors
    /// When it does not start.
    pub fn outside_by_https(lab: &Lab) -> Result<Self> {
        let mut manager = Self::https(90 * 86_400)?;
        manager.address = "10.77.0.2:0".parse()?;
        manager.place = Place::Https(manager.address, manager.data.join("authority/ca.pem"));
        manager.namespace = Some(lab.namespace("outside"));
        manager.begun()
    }

    /// On loopback ports, with these tables in its config.
    ///
    /// # Errors
    /// When it does not start.
    pub fn with_tables(tables: &str) -> Result<Self> {
        let mut manager = Self::https(90 * 86_400)?;
        manager.tables = tables.to_owned();
        manager.begun()
    }

    /// On a loopback port; asked over a Unix socket.
    ///
    /// # Errors
    /// When it does not start.
    pub fn local() -> Result<Self> {
        Self::with_socket("127.0.0.1:0".parse()?, None)
    }

    fn with_socket(address: SocketAddr, namespace: Option<PathBuf>) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("holdfast-manager-").tempdir()?;
        let place = Place::Socket(folder.path().join("api.sock"));
        Self::new(folder, address, place, 3600, namespace).begun()
    }

    fn new(
        folder: TempDir,
        address: SocketAddr,
        place: Place,
        life_s: u64,
        namespace: Option<PathBuf>,
    ) -> Self {
        Self {
            data: folder.path().join("data"),
            folder,
            database: None,
            tables: String::new(),
            environment: Vec::new(),
            address,
            place,
            life_s,
            namespace,
            fingerprint: String::new(),
            token: String::new(),
            said: Arc::default(),
            process: None,
        }
    }

    /// The first password opens nothing but its change.
    fn sign_in(&mut self) -> Result<()> {
        let log = self.log();
        let (_, first) = log.split_once("one-time password ").context("no first password")?;
        let first = first.lines().next().unwrap_or_default().to_owned();
        let body = json!({ "name": "admin", "password": first });
        let session = self.post("/api/v1/session", &body)?;
        self.token = session["token"].as_str().context("no token")?.to_owned();
        let body = json!({ "old": first, "new": PASSWORD });
        self.post("/api/v1/session/password", &body)?;
        Ok(())
    }

    /// Starts it, again after [`Manager::kill`], at the same addresses with the same folder.
    ///
    /// # Errors
    /// When it does not start.
    pub fn run(&mut self) -> Result<()> {
        ensure!(self.process.is_none(), "the manager runs already");
        let config = self.config();
        fs::write(&config, self.config_text()?)?;
        let program = binary("holdfast-manager");
        let mut command = match &self.namespace {
            None => Command::new(program),
            Some(namespace) => {
                let mut command = Command::new("nsenter");
                command.arg(format!("--net={}", namespace.display())).arg(program);
                command
            }
        };
        let mut child = command
            .arg("serve")
            .arg("--config")
            .arg(&config)
            .env_remove("HOLDFAST_LOG")
            .env("NO_COLOR", "1")
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("start holdfast-manager")?;
        let before = self.log().len();
        keep(child.stdout.take().context("a pipe")?, Arc::clone(&self.said));
        keep(child.stderr.take().context("a pipe")?, Arc::clone(&self.said));
        self.process = Some(child);
        let places = until(PATIENCE, || {
            if let Some(places) = places(&self.log()[before..]) {
                return Some(Some(places));
            }
            self.process.as_mut()?.try_wait().ok()?.map(|_| None)
        });
        let Some(Some((address, fingerprint, api))) = places else {
            bail!("holdfast-manager does not start:\n{}", self.log())
        };
        (self.address, self.fingerprint) = (address, fingerprint);
        if let Place::Https(address, _) = &mut self.place {
            *address = api.parse().with_context(|| api.clone())?;
        }
        Ok(())
    }

    fn config_text(&self) -> Result<String> {
        let api = match &self.place {
            Place::Https(address, _) => format!("listen = \"{address}\""),
            Place::Socket(path) => format!("socket = {}", serde_json::to_string(path)?),
        };
        let database = match &self.database {
            Some(url) => format!("[database]\nurl = \"{url}\"\n"),
            None => String::new(),
        };
        Ok(format!(
            "data_dir = {}\n{database}[api]\n{api}\n[link]\nlisten = \"{}\"\nnames = [\"{}\"]\n\
             heartbeat_s = 1\ncertificate_life_s = {}\n{}",
            serde_json::to_string(&self.data)?,
            self.address,
            self.address.ip(),
            self.life_s,
            self.tables,
        ))
    }

    /// SIGKILL; waits for the end.
    ///
    /// # Errors
    /// When it does not run.
    pub fn kill(&mut self) -> Result<()> {
        let mut child = self.process.take().context("the manager does not run")?;
        child.kill()?;
        child.wait()?;
        Ok(())
    }

    /// What it wrote so far, over all starts.
    #[must_use]
    pub fn log(&self) -> String {
        self.said.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Any request, by the first admin.
    ///
    /// # Errors
    /// What the manager says.
    pub fn ask(&self, method: &str, path: &str, body: &Value) -> Result<Value> {
        let request = Request { method, path, token: &self.token, body };
        // Whoever asks too often is told to come again.
        let answer = until(PATIENCE, || match self.answer(&request) {
            Ok((429, _)) => None,
            other => Some(other),
        });
        let (status, answer) = answer.context("too many requests")??;
        ensure!(status < 300, "{method} {path}: {answer}");
        Ok(answer)
    }

    /// One request, by whom it says.
    ///
    /// # Errors
    /// When there is no whole answer.
    pub fn answer(&self, request: &Request<'_>) -> Result<(u16, Value)> {
        match &self.namespace {
            None => self.place.ask(request),
            Some(namespace) => lab::within(namespace, || self.place.ask(request)),
        }
    }

    /// A user who has signed in and has this password of his own.
    ///
    /// # Errors
    /// What the manager says.
    pub fn person(&self, name: &str, role: &str, password: &str) -> Result<()> {
        let first = "a one-time password";
        self.post("/api/v1/users", &json!({ "name": name, "role": role, "password": first }))?;
        let ask = |path: &str, token: &str, body: &Value| -> Result<Value> {
            let (status, answer) = self.answer(&Request { method: "POST", path, token, body })?;
            ensure!(status < 300, "{path}: {answer}");
            Ok(answer)
        };
        let session = ask("/api/v1/session", "", &json!({ "name": name, "password": first }))?;
        let token = session["token"].as_str().context("no token")?;
        ask("/api/v1/session/password", token, &json!({ "old": first, "new": password }))?;
        Ok(())
    }

    /// GET, by the first admin.
    ///
    /// # Errors
    /// What the manager says.
    pub fn get(&self, path: &str) -> Result<Value> {
        self.ask("GET", path, &Value::Null)
    }

    /// POST, by the first admin.
    ///
    /// # Errors
    /// What the manager says.
    pub fn post(&self, path: &str, body: &Value) -> Result<Value> {
        self.ask("POST", path, body)
    }

    /// Waits until what is there fits.
    ///
    /// # Errors
    /// When it never does in time.
    pub fn wait_for(&self, path: &str, fits: impl Fn(&Value) -> bool) -> Result<Value> {
        let mut last = String::new();
        let found = until(PATIENCE, || match self.get(path) {
            Ok(value) => {
                last = value.to_string();
                fits(&value).then_some(value)
            }
            Err(error) => {
                last = format!("{error:#}");
                None
            }
        });
        found.with_context(|| format!("{path} never fitted; last {last}"))
    }

    /// Its URL for agents.
    #[must_use]
    pub fn url(&self) -> String {
        format!("https://{}", self.address)
    }

    /// The network namespace that it is in, where that is none of the machine's own.
    #[must_use]
    pub fn namespace(&self) -> Option<&Path> {
        self.namespace.as_deref()
    }

    /// Where browsers find it.
    ///
    /// # Panics
    /// When it is asked over a Unix socket.
    #[must_use]
    pub fn page(&self) -> String {
        let Place::Https(address, _) = &self.place else { panic!("not by HTTPS") };
        format!("https://{address}")
    }

    /// Where it is asked.
    #[must_use]
    pub const fn place(&self) -> &Place {
        &self.place
    }

    /// What the first admin is known by.
    #[must_use]
    pub fn secret(&self) -> &str {
        &self.token
    }

    /// Its authority's fingerprint.
    #[must_use]
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// Where it listens for agents.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its data folder.
    #[must_use]
    pub fn folder(&self) -> PathBuf {
        self.data.clone()
    }

    /// Its config.
    #[must_use]
    pub fn config(&self) -> PathBuf {
        self.folder.path().join("manager.toml")
    }

    /// A folder that ends with it.
    #[must_use]
    pub fn beside(&self) -> &Path {
        self.folder.path()
    }

    /// A token for so many hosts, valid for ten minutes.
    ///
    /// # Errors
    /// What the manager says.
    pub fn token(&self, uses: u32) -> Result<String> {
        self.token_for(uses, 600)
    }

    /// A token for so many hosts, valid for so many seconds.
    ///
    /// # Errors
    /// What the manager says.
    pub fn token_for(&self, uses: u32, valid_s: u64) -> Result<String> {
        let body = json!({ "group": "tests", "uses": uses, "valid_s": valid_s });
        let answer = self.post("/api/v1/enrollment-tokens", &body)?;
        Ok(answer["token"].as_str().context("a token")?.to_owned())
    }

    /// Enrolls an agent and waits until it is connected. Returns the host's id.
    ///
    /// # Errors
    /// When it is not.
    pub fn enroll(&self, agent: &Agent, more: &[&str]) -> Result<String> {
        self.enroll_by(&self.url(), agent, more)
    }

    /// The same, by another address that leads here.
    ///
    /// # Errors
    /// When it is not.
    pub fn enroll_by(&self, url: &str, agent: &Agent, more: &[&str]) -> Result<String> {
        let (token, fingerprint) = (self.token(1)?, self.fingerprint.clone());
        let words = ["enroll", "--manager", url, "--token", &token];
        let words = [&words[..], &["--ca-fingerprint", &fingerprint], more].concat();
        let host = agent.json(&words)?.pop().context("an answer")?;
        let host = host["host"].as_str().context("a host")?.to_owned();
        self.wait_for(&format!("/api/v1/hosts/{host}"), |host| host["connected"] == true)
            .with_context(|| agent.log())?;
        Ok(host)
    }

    /// A host, with its last heartbeat.
    ///
    /// # Errors
    /// What the manager says.
    pub fn host(&self, host: &str) -> Result<Value> {
        self.get(&format!("/api/v1/hosts/{host}"))
    }

    /// Takes a host back.
    ///
    /// # Errors
    /// What the manager says.
    pub fn revoke(&self, host: &str) -> Result<()> {
        self.post(&format!("/api/v1/hosts/{host}/revoke"), &json!({ "reason": "a test" }))?;
        Ok(())
    }

    /// Files a task.
    ///
    /// # Errors
    /// What the manager says.
    pub fn file(&self, host: &str, action: &Value) -> Result<String> {
        self.file_for(host, action, None)
    }

    /// Files a task that waits so many seconds for its host.
    ///
    /// # Errors
    /// What the manager says.
    pub fn file_for(&self, host: &str, action: &Value, wait_s: Option<u64>) -> Result<String> {
        let body = json!({ "host": host, "action": action, "reason": "a test", "wait_s": wait_s });
        let answer = self.post("/api/v1/tasks", &body)?;
        Ok(answer["id"].as_str().context("an id")?.to_owned())
    }

    /// Takes a task back.
    ///
    /// # Errors
    /// What the manager says.
    pub fn cancel(&self, task: &str) -> Result<Value> {
        self.post(&format!("/api/v1/tasks/{task}/cancel"), &json!({ "reason": "a test" }))
    }

    /// Waits for the end of a task.
    ///
    /// # Errors
    /// When it does not end in time.
    pub fn ended(&self, task: &str) -> Result<Value> {
        self.wait_for(&format!("/api/v1/tasks/{task}"), |task| !task["ended_ms"].is_null())
    }

    /// The events of a kind, or all, newest first.
    ///
    /// # Errors
    /// What the manager says.
    pub fn events(&self, kind: Option<&str>) -> Result<Vec<Value>> {
        let query = kind.map(|kind| format!("&query=kind:{kind}")).unwrap_or_default();
        let (mut found, mut next) = (Vec::new(), String::new());
        loop {
            let page = self.get(&format!("/api/v1/events?{ALWAYS}&limit=500{query}{next}"))?;
            found.extend(page["items"].as_array().context("a list")?.iter().cloned());
            let Some(cursor) = page["next"].as_str() else { return Ok(found) };
            next = format!("&cursor={cursor}");
        }
    }
}

/// The link's address, the fingerprint and where the HTTP interface is, once all are told.
fn places(log: &str) -> Option<(SocketAddr, String, String)> {
    let after = |what: &str| log.lines().find_map(|line| line.strip_prefix(what));
    let (address, fingerprint) = after("agents enroll at ")?.split_once(' ')?;
    let fingerprint = fingerprint.rsplit(' ').next()?;
    let api = after("people and programs call ")?.rsplit('/').next()?;
    Some((address.parse().ok()?, fingerprint.to_owned(), api.to_owned()))
}

fn keep(pipe: impl Read + Send + 'static, said: Arc<Mutex<String>>) {
    thread::spawn(move || {
        for line in BufReader::new(pipe).lines().map_while(Result::ok) {
            let mut said = said.lock().unwrap_or_else(PoisonError::into_inner);
            said.push_str(&line);
            said.push('\n');
        }
    });
}

impl Drop for Manager {
    fn drop(&mut self) {
        if let Some(mut child) = self.process.take() {
            // It may have ended by itself.
            let _ = child.kill();
            let _ = child.wait();
        }
        if thread::panicking() {
            eprintln!("---- holdfast-manager ----\n{}---- end ----", self.log());
        }
    }
}
