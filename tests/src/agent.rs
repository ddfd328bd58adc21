//! `holdfastd` as a test runs it: its own config, state and socket in a temporary folder.
//!
//! Works on the host and in a guest. Its log is kept, and shown when the test fails. Whatever
//! happens, the process is gone when the [`Agent`] is dropped.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::{Arc, Mutex, Once, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tempfile::TempDir;

use crate::lab::Lab;
use crate::{copy_program, until};

/// How long a start, a stop or one CLI call may take; an emulated machine is slow.
pub const PATIENCE: Duration = Duration::from_secs(90);

/// Folders of agents start so, followed by the pid of their test.
const PREFIX: &str = "holdfast-agent-";

/// Folder of an agent's own programs, in its home.
const PROGRAMS: &str = "bin";
const ALL_PROGRAMS: [&str; 3] = ["holdfastd", "holdfast", "holdfast-scan"];

/// Where the built binaries lie: `HOLDFAST_BIN`, the folder above this test's own, or `/usr/bin`.
#[must_use]
pub fn binary(name: &str) -> PathBuf {
    if let Some(folder) = std::env::var_os("HOLDFAST_BIN") {
        return PathBuf::from(folder).join(name);
    }
    let own = std::env::current_exe().unwrap_or_default();
    own.ancestors()
        .skip(1)
        .take(2)
        .map(|folder| folder.join(name))
        .find(|candidate| candidate.is_file())
        .unwrap_or_else(|| Path::new("/usr/bin").join(name))
}

/// What the config says, before the agent starts.
#[derive(Debug, Clone)]
pub struct Setup {
    protect: Vec<PathBuf>,
    all: bool,
    mode: &'static str,
    on_access: String,
    tables: String,
    environment: Vec<(String, String)>,
    home_in: PathBuf,
    own_programs: bool,
    /// Network namespace and cgroup to run in.
    place: Option<(PathBuf, PathBuf)>,
}

impl Setup {
    /// Protect these paths, in block mode.
    pub fn protect<P: Into<PathBuf>>(paths: impl IntoIterator<Item = P>) -> Self {
        Self {
            protect: paths.into_iter().map(Into::into).collect(),
            all: false,
            mode: "block",
            on_access: String::new(),
            tables: String::new(),
            // No test cuts this machine off.
            environment: vec![("HOLDFAST_ISOLATION".to_owned(), "namespace".to_owned())],
            home_in: std::env::temp_dir(),
            own_programs: false,
            place: None,
        }
    }

    /// Protect every local file system, in block mode.
    ///
    /// # Panics
    /// Outside of a guest: it would hold the machine's own files.
    #[must_use]
    pub fn all_of_a_guest() -> Self {
        let init = fs::read_link("/proc/1/exe").unwrap_or_default();
        assert_eq!(init, Path::new("/init"), "only a guest may be protected whole");
        Self { all: true, ..Self::protect::<PathBuf>([]) }
    }

    /// Report only.
    #[must_use]
    pub fn detect(mut self) -> Self {
        self.mode = "detect";
        self
    }

    /// One more line of `[on_access]`, for example `deadline_ms = 500`.
    #[must_use]
    pub fn on_access(mut self, line: &str) -> Self {
        self.on_access.push_str(line);
        self.on_access.push('\n');
        self
    }

    /// Whole tables, for example `[scan]\nworkers = 1`.
    #[must_use]
    pub fn tables(mut self, text: &str) -> Self {
        self.tables.push_str(text);
        self.tables.push('\n');
        self
    }

    /// A variable of the agent's environment, for example `RUST_LOG`.
    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Run on a lab's host, with its `[isolation]` table and these lines in it.
    #[must_use]
    pub fn on_host_of(mut self, lab: &Lab, lines: &str) -> Self {
        self.place = Some((lab.namespace("host"), lab.cgroup().to_owned()));
        self.tables(&lab.config(lines))
    }

    /// This machine may be cut off: for guests alone, which are nobody's.
    #[must_use]
    pub fn whole_machine(mut self) -> Self {
        self.environment.retain(|(name, _)| name != "HOLDFAST_ISOLATION");
        self
    }

    /// Keep config, state and socket below this folder.
    #[must_use]
    pub fn home_in(mut self, folder: &Path) -> Self {
        self.home_in = folder.to_owned();
        self
    }

    /// Run copies of the programs, which the test may replace.
    #[must_use]
    pub fn own_programs(mut self) -> Self {
        self.own_programs = true;
        self
    }

    /// Write the config, start the agent, wait until it is ready.
    ///
    /// # Errors
    /// When it ends or stays silent; the error holds its log.
    pub fn start(self) -> Result<Agent> {
        sweep();
        let prefix = format!("{PREFIX}{}-", std::process::id());
        let home = tempfile::Builder::new().prefix(&prefix).tempdir_in(&self.home_in)?;
        fs::write(home.path().join("holdfast.toml"), self.config(home.path())?)?;
        if self.own_programs {
            fs::create_dir(home.path().join(PROGRAMS))?;
            for name in ALL_PROGRAMS {
                copy_program(binary(name), home.path().join(PROGRAMS).join(name));
            }
        }
        let mut agent = Agent { setup: self, home, process: None, log: Arc::default() };
        agent.start()?;
        Ok(agent)
    }

    fn config(&self, home: &Path) -> Result<String> {
        // Markers would come between a test and what it counts.
        let proof = if self.tables.contains("[self_proof]") {
            ""
        } else {
            "[self_proof]\nenabled = false\n"
        };
        // Tests stop, look into and break agents on purpose.
        let protection = if self.tables.contains("[self_protection]") {
            ""
        } else {
            "[self_protection]\nenabled = false\n"
        };
        // TOML's basic strings have JSON's escapes.
        Ok(format!(
            "state_dir = {}\nsocket = {}\n\n[on_access]\nprotect = {}\nmode = \"{}\"\n{}\n{}\n{proof}{protection}",
            serde_json::to_string(&home.join("state"))?,
            serde_json::to_string(&home.join("socket"))?,
            if self.all { "\"all\"".to_owned() } else { serde_json::to_string(&self.protect)? },
            self.mode,
            self.on_access,
            self.tables,
        ))
    }
}

/// A running agent, or one that was stopped and keeps its state.
#[derive(Debug)]
pub struct Agent {
    setup: Setup,
    home: TempDir,
    process: Option<Child>,
    log: Arc<Mutex<String>>,
}

impl Agent {
    /// Start it, again after [`Agent::stop`] or [`Agent::kill`], with the same config and state.
    ///
    /// # Errors
    /// As [`Setup::start`]; when it runs already.
    pub fn start(&mut self) -> Result<()> {
        ensure!(self.process.is_none(), "the agent runs already");
        let before = self.log().len();
        let daemon = self.program("holdfastd");
        let mut command = match &self.setup.place {
            None => Command::new(daemon),
            Some((namespace, cgroup)) => {
                // Everything replaces the shell: the child's pid is the agent's.
                let script = r#"echo $$ > "$0/cgroup.procs" && exec "$@""#;
                let mut command = Command::new("nsenter");
                command.arg(format!("--net={}", namespace.display()));
                command.args(["sh", "-c", script]).arg(cgroup).arg(daemon);
                command
            }
        };
        let mut child = command
            .arg("--config")
            .arg(self.home.path().join("holdfast.toml"))
            .envs(self.setup.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("start {}", self.program("holdfastd").display()))?;
        let stderr = child.stderr.take().context("its standard error is a pipe")?;
        let logged = keep_log(stderr, Arc::clone(&self.log));
        self.process = Some(child);
        let ready = until(PATIENCE, || {
            let ended = self.process.as_mut()?.try_wait().ok()?.map(|status| status.to_string());
            let ready = self.log()[before..].lines().any(|line| line.contains("ready"));
            if ready { Some(Ok(())) } else { ended.map(Err) }
        });
        match ready {
            Some(Ok(())) => Ok(()),
            Some(Err(status)) => {
                // Its last words may still be in the pipe.
                until(PATIENCE, || logged.is_finished().then_some(()));
                bail!("holdfastd ended before it was ready: {status}\n{}", self.log())
            }
            None => bail!("holdfastd is not ready after {PATIENCE:?}\n{}", self.log()),
        }
    }

    /// Puts other files in the place of its own programs while it runs, as a package manager does:
    /// written beside, renamed over. They do the same, but are not the same content.
    ///
    /// # Errors
    /// When it has none ([`Setup::own_programs`]).
    pub fn replace_programs(&self) -> Result<()> {
        ensure!(self.setup.own_programs, "this agent runs the programs of all");
        for name in ALL_PROGRAMS {
            let (old, new) = (self.program(name), self.program(&format!("{name}.new")));
            fs::copy(&old, &new)?;
            // Behind what an ELF file's headers speak of.
            fs::OpenOptions::new().append(true).open(&new)?.write_all(b"the next version")?;
            fs::rename(&new, &old)?;
        }
        Ok(())
    }

    fn program(&self, name: &str) -> PathBuf {
        if self.setup.own_programs {
            self.home.path().join(PROGRAMS).join(name)
        } else {
            binary(name)
        }
    }

    /// SIGTERM; waits for the end. A clean stop is exit 0.
    ///
    /// # Errors
    /// When it does not run, or does not end in time (it is then killed).
    pub fn stop(&mut self) -> Result<ExitStatus> {
        self.end(Signal::SIGTERM)
    }

    /// SIGKILL; waits for the end.
    ///
    /// # Errors
    /// When it does not run.
    pub fn kill(&mut self) -> Result<ExitStatus> {
        self.end(Signal::SIGKILL)
    }

    /// Its pid.
    ///
    /// # Panics
    /// When it does not run.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.process.as_ref().expect("the agent runs").id()
    }

    /// What it wrote to standard error so far, over all starts.
    #[must_use]
    pub fn log(&self) -> String {
        self.log.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The control socket.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.home.path().join("socket")
    }

    /// The state folder.
    #[must_use]
    pub fn state(&self) -> PathBuf {
        self.home.path().join("state")
    }

    /// The config file, which a test may rewrite between two starts.
    #[must_use]
    pub fn config(&self) -> PathBuf {
        self.home.path().join("holdfast.toml")
    }

    /// `holdfast --socket S ARGUMENTS…`, to its end.
    ///
    /// # Errors
    /// When it cannot be started or does not end in time.
    pub fn cli(&self, arguments: &[&str]) -> Result<Output> {
        let mut command = Command::new(self.program("holdfast"));
        command.arg("--socket").arg(self.socket()).args(arguments);
        // cargo sets it, and with it a simulation is not excused: it could be anybody's code.
        command.env_remove("LD_LIBRARY_PATH");
        finish(&mut command, PATIENCE)
    }

    /// `holdfast --socket S --json ARGUMENTS…`: the JSON values that it printed, lists flattened.
    ///
    /// # Errors
    /// When it fails or prints something else.
    pub fn json(&self, arguments: &[&str]) -> Result<Vec<Value>> {
        let output = self.cli(&[&["--json"], arguments].concat())?;
        let said = String::from_utf8_lossy(&output.stderr);
        // Red is an answer, too.
        let told = matches!(arguments.first(), Some(&("status" | "doctor")));
        let answered = output.status.success() || (told && output.status.code() == Some(1));
        ensure!(answered, "holdfast {arguments:?}: {}\n{said}", output.status);
        let mut values = Vec::new();
        for value in serde_json::Deserializer::from_slice(&output.stdout).into_iter() {
            match value.with_context(|| format!("holdfast {arguments:?} printed JSON"))? {
                Value::Array(list) => values.extend(list),
                value => values.push(value),
            }
        }
        Ok(values)
    }

    /// Wait until `holdfast --json ARGUMENTS…` prints a value that fits, and return it.
    ///
    /// # Errors
    /// After [`PATIENCE`], with the agent's log.
    pub fn wait_for(&self, arguments: &[&str], fits: impl Fn(&Value) -> bool) -> Result<Value> {
        let found = until(PATIENCE, || self.json(arguments).ok()?.into_iter().find(|v| fits(v)));
        found.with_context(|| format!("holdfast {arguments:?} never showed it\n{}", self.log()))
    }

    fn end(&mut self, signal: Signal) -> Result<ExitStatus> {
        let mut child = self.process.take().context("the agent does not run")?;
        kill(Pid::from_raw(i32::try_from(child.id())?), signal)?;
        match until(PATIENCE, || child.try_wait().transpose()) {
            Some(status) => Ok(status?),
            None => {
                let threads = threads_of(child.id());
                child.kill()?;
                child.wait()?;
                bail!(
                    "holdfastd did not end {PATIENCE:?} after {signal}; it waits in {threads:?}\n{}",
                    self.log()
                )
            }
        }
    }
}

/// What each thread of a process waits in: its name, its system call (proc_pid_syscall(5)), the
/// kernel's function.
fn threads_of(pid: u32) -> Vec<String> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let read = |task: &fs::DirEntry, name: &str| {
        fs::read_to_string(task.path().join(name)).unwrap_or_default().trim().to_owned()
    };
    tasks.map(|task| ["comm", "syscall", "wchan"].map(|name| read(&task, name)).join(" ")).collect()
}

impl Drop for Agent {
    fn drop(&mut self) {
        if let Some(mut child) = self.process.take() {
            // It may have ended by itself.
            let _ = child.kill();
            let _ = child.wait();
        }
        if thread::panicking() {
            eprintln!("---- holdfastd ----\n{}---- end ----", self.log());
        }
    }
}

/// Run a program to its end, within a time; the output of both kinds is kept.
///
/// # Errors
/// When it cannot be started or does not end in time (it is then killed).
pub fn finish(command: &mut Command, patience: Duration) -> Result<Output> {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().with_context(|| format!("start {command:?}"))?;
    let stdout = drain(child.stdout.take().context("a pipe")?);
    let stderr = drain(child.stderr.take().context("a pipe")?);
    let Some(status) = until(patience, || child.try_wait().transpose()) else {
        child.kill()?;
        child.wait()?;
        bail!("{command:?} did not end in {patience:?}");
    };
    let read = |reader: thread::JoinHandle<Vec<u8>>| reader.join().unwrap_or_default();
    Ok(Output { status: status?, stdout: read(stdout), stderr: read(stderr) })
}

/// End the agents whose test was killed, known by the config on their command line.
fn sweep() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
            let Ok(pid) = entry.file_name().to_string_lossy().parse::<i32>() else { continue };
            let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
            if is_orphan(&String::from_utf8_lossy(&line)) {
                // It may end between the look and the call.
                let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
            }
        }
    });
}

/// Whether a command line (NUL between its words) is of an agent whose test is gone.
fn is_orphan(line: &str) -> bool {
    let [program, "--config", config, ..] = line.split('\0').collect::<Vec<_>>()[..] else {
        return false;
    };
    let owner = config
        .rsplit_once(PREFIX)
        .and_then(|(_, rest)| rest.split('-').next()?.parse::<u32>().ok());
    program.ends_with("/holdfastd")
        && owner.is_some_and(|pid| !Path::new("/proc").join(pid.to_string()).exists())
}

fn drain(mut pipe: impl Read + Send + 'static) -> thread::JoinHandle<Vec<u8>> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        // What was read before an error is what there is.
        let _ = pipe.read_to_end(&mut bytes);
        bytes
    })
}

/// The thread ends when nobody has the other end any more.
fn keep_log(stderr: impl Read + Send + 'static, log: Arc<Mutex<String>>) -> JoinHandle<()> {
    thread::spawn(move || {
        let mut stderr = BufReader::new(stderr);
        let mut line = Vec::new();
        while stderr.read_until(b'\n', &mut line).is_ok_and(|read| read > 0) {
            log.lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push_str(&String::from_utf8_lossy(&line));
            line.clear();
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_agents_of_gone_tests_are_ended() {
        let line = |program: &str, pid: u32| {
            format!("{program}\0--config\0/tmp/{PREFIX}{pid}-abc/holdfast.toml\0")
        };
        assert!(is_orphan(&line("/usr/bin/holdfastd", 4_294_967_290)));
        assert!(!is_orphan(&line("/usr/bin/holdfastd", std::process::id())));
        assert!(!is_orphan(&line("/bin/cat", 4_294_967_290)));
        assert!(!is_orphan("/usr/bin/holdfastd\0--config\0/etc/holdfast.toml\0"));
        assert!(!is_orphan(""));
    }
}
