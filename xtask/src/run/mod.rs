//! The demonstration: a manager, and the agent in the foreground, enrolled there and protecting a
//! file system of our own.
//!
//! Invariant: nothing of the machine's own is protected unless `--protect` or `--protect-all` says
//! so, and nothing is left behind; what a kill -9 left is cleared by the next run.

mod lab;
mod manager;
mod web;

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command as StdCommand;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use clap::Args;
use tokio::process::{Child, Command};
use tokio::signal::unix::{SignalKind, signal};

use self::lab::{AGENT, Lab, Part};
use self::manager::Manager;
use crate::shell::{self, Unfit};

/// How long the agent may take to answer on its socket.
const START: Duration = Duration::from_secs(60);

/// How long it may take to stop.
const STOP: Duration = Duration::from_secs(15);

/// `cargo xtask run`
#[derive(Args)]
pub(crate) struct Options {
    /// Protect the file system that holds this path instead of one of our own; repeatable.
    #[arg(long, value_name = "PATH", conflicts_with = "protect_all")]
    protect: Vec<PathBuf>,
    /// Protect every local file system.
    #[arg(long)]
    protect_all: bool,
    /// Set when a user's run has called itself again as root.
    #[arg(long, hide = true)]
    inside_sudo: bool,
}

impl Options {
    /// Whether everything is already built, by the user who called sudo.
    pub(crate) fn inside_sudo(&self) -> bool {
        self.inside_sudo
    }
}

/// Until Ctrl-C, SIGTERM or the agent's end.
pub(crate) fn foreground(root: &Path, options: &Options) -> anyhow::Result<()> {
    if !shell::is_root() {
        // Everything from here on needs root; what was built before belongs to the user.
        let mut again = shell::as_root_with_environment(std::env::current_exe()?);
        again.args(std::env::args_os().skip(1)).arg("--inside-sudo");
        return Err(again.exec()).context("start sudo");
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(run(root, options))
}

async fn run(root: &Path, options: &Options) -> anyhow::Result<()> {
    // From here on signals end the run in order; mount and mkfs below are short.
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let place = Place::new(root)?;
    let lab = Lab::prepare(&place.folder)?;
    let protected = match (options.protect_all, options.protect.as_slice()) {
        (true, _) => Protected::All,
        (false, []) => Protected::Paths(vec![lab.mount()?.to_owned()]),
        (false, paths) => Protected::Paths(absolute(paths)?),
    };
    place.write_config(&protected)?;
    let web = web::serve()?;
    let mut processes = Processes::default();
    let outcome = tokio::select! {
        outcome = demonstrate(root, &place, &protected, web, &mut processes) => outcome,
        _ = interrupt.recv() => Ok(()),
        _ = terminate.recv() => Ok(()),
    };
    let stopped = processes.stop().await;
    outcome.and(stopped)
}

/// What runs. The manager ends last, so that it hears of the agent's end.
#[derive(Default)]
struct Processes {
    agent: Option<Child>,
    manager: Option<Child>,
}

impl Processes {
    /// Both are stopped, whatever comes of the first.
    async fn stop(self) -> anyhow::Result<()> {
        let mut outcome = Ok(());
        for (part, process) in [(AGENT, self.agent), (lab::MANAGER, self.manager)] {
            if let Some(mut process) = process {
                outcome = outcome.and(stop(&part, &mut process).await);
            }
        }
        outcome
    }
}

/// Starts both, says what to try, and waits for the end of either.
async fn demonstrate(
    root: &Path,
    place: &Place,
    protected: &Protected,
    web: std::net::SocketAddr,
    processes: &mut Processes,
) -> anyhow::Result<()> {
    let manager_process = processes.manager.insert(manager::start(root, &place.folder)?);
    let manager = manager::ready(manager_process).await?;
    manager::enroll(root, place, &manager).await?;
    let agent = processes.agent.insert(place.start(root)?);
    place.ready(root, agent).await?;
    introduce(place, protected, web, &manager);
    tokio::select! {
        status = agent.wait() => bail!("holdfastd ended by itself: {}", status?),
        status = manager_process.wait() => bail!("holdfast-manager ended by itself: {}", status?),
    }
}

/// What the agent is told to protect.
enum Protected {
    All,
    Paths(Vec<PathBuf>),
}

fn absolute(paths: &[PathBuf]) -> anyhow::Result<Vec<PathBuf>> {
    let resolve = |path: &PathBuf| {
        path.canonicalize()
            .map_err(|error| Unfit(format!("--protect {}: {error}", path.display())).into())
    };
    paths.iter().map(resolve).collect()
}

/// `target/run` and the files in it.
struct Place {
    folder: PathBuf,
    config: PathBuf,
    socket: PathBuf,
}

impl Place {
    fn new(root: &Path) -> anyhow::Result<Self> {
        let folder = root.join("target/run");
        let socket = folder.join("holdfast.sock");
        // sun_path, unix(7): 108 bytes with the closing NUL.
        if socket.as_os_str().len() > 107 {
            return Err(Unfit(format!("{} is too long for a Unix socket", socket.display())).into());
        }
        fs::create_dir_all(&folder).with_context(|| format!("create {}", folder.display()))?;
        Ok(Self { config: folder.join("holdfast.toml"), socket, folder })
    }

    fn write_config(&self, protected: &Protected) -> anyhow::Result<()> {
        let protect = match protected {
            Protected::All => "\"all\"".to_owned(),
            // TOML's basic strings have JSON's escapes.
            Protected::Paths(paths) => {
                serde_json::to_string(paths).context("a path is not UTF-8")?
            }
        };
        let text = format!(
            "state_dir = {}\nsocket = {}\n\n[on_access]\nprotect = {protect}\nmode = \"block\"\n",
            serde_json::to_string(&self.folder.join("state"))?,
            serde_json::to_string(&self.socket)?,
        );
        fs::write(&self.config, text).with_context(|| format!("write {}", self.config.display()))
    }

    fn start(&self, root: &Path) -> anyhow::Result<Child> {
        let mut command = part_command(root, &AGENT);
        command.arg("--config").arg(&self.config);
        part_start(&self.folder, &AGENT, command)
    }

    /// Wait until the control socket answers.
    async fn ready(&self, root: &Path, agent: &mut Child) -> anyhow::Result<()> {
        let end = Instant::now() + START;
        loop {
            if let Some(status) = agent.try_wait()? {
                bail!("holdfastd ended before it was ready: {status}");
            }
            let mut holdfast = Command::new(root.join("target/release/holdfast"));
            holdfast.arg("--socket").arg(&self.socket).arg("status").kill_on_drop(true);
            if self.socket.exists() && holdfast.output().await?.status.success() {
                return Ok(());
            }
            if Instant::now() > end {
                bail!(
                    "holdfastd does not answer on {} after {} s",
                    self.socket.display(),
                    START.as_secs()
                );
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

/// A program that ends with us: the kernel ends it when we are killed, so that an agent never
/// protects alone.
fn part_command(root: &Path, part: &Part) -> StdCommand {
    let mut command = StdCommand::new("setpriv");
    command.args(["--pdeathsig", "TERM", "--"]).arg(root.join("target/release").join(part.program));
    // A group of its own: Ctrl-C reaches us alone, and we stop it in order.
    command.process_group(0);
    command
}

fn part_start(folder: &Path, part: &Part, command: StdCommand) -> anyhow::Result<Child> {
    let mut command = Command::from(command);
    let child = command.spawn().with_context(|| format!("start {}", part.program))?;
    let pid = child.id().with_context(|| format!("{} ended at once", part.program))?;
    fs::write(folder.join(part.pid), pid.to_string())?;
    Ok(child)
}

/// SIGTERM, and after its time SIGKILL.
async fn stop(part: &Part, process: &mut Child) -> anyhow::Result<()> {
    let name = part.program;
    if let Some(pid) = process.id() {
        let pid = nix::unistd::Pid::from_raw(i32::try_from(pid)?);
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM)?;
    }
    match tokio::time::timeout(STOP, process.wait()).await {
        Ok(status) if status.as_ref().is_ok_and(std::process::ExitStatus::success) => Ok(()),
        Ok(status) => bail!("{name} did not stop cleanly: {}", status?),
        Err(_) => {
            process.kill().await?;
            bail!("{name} did not stop in {} s and was killed", STOP.as_secs())
        }
    }
}

/// Commands to try.
fn introduce(place: &Place, protected: &Protected, web: std::net::SocketAddr, manager: &Manager) {
    let folder = match protected {
        Protected::Paths(paths) => paths.first().map_or(Path::new("/tmp"), PathBuf::as_path),
        Protected::All => Path::new("/tmp"),
    };
    let sudo = if std::env::var_os("SUDO_USER").is_some() { "sudo " } else { "" };
    println!(
        "\nHoldfast protects {what}.\n\
         Its manager is at {url}: user admin, one-time password {password}\n\
         Try, in another terminal:\n\n  \
         {sudo}wget -P {folder} http://{web}/eicar.com\n  \
         {sudo}target/release/holdfast --socket {socket} quarantine list\n  \
         {sudo}timeout 5 tcpdump -c 5 -nni lo; \
         {sudo}target/release/holdfast --socket {socket} events\n  \
         export HOLDFAST_MANAGER={url} HOLDFAST_CA_FINGERPRINT={fingerprint}\n  \
         export HOLDFAST_TOKEN=$(target/release/holdfast-ctl sign-in admin)\n  \
         target/release/holdfast-ctl alerts list\n\n\
         Ctrl-C stops it and leaves nothing behind but {state}.\n",
        what = match protected {
            Protected::All => "every local file system".to_owned(),
            Protected::Paths(paths) =>
                paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", "),
        },
        url = manager.url,
        password = manager.password,
        fingerprint = manager.fingerprint,
        folder = folder.display(),
        socket = place.socket.display(),
        state = place.folder.join("state").display(),
    );
}
