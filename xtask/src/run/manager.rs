//! The demonstration's manager: on loopback ports that nobody else has, its data made anew.
//!
//! What it prints when it starts is all that is known of it: addresses, fingerprint, the first
//! password.

use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, bail};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

use super::lab::{DATA, MANAGER};
use super::{Place, part_command, part_start};

/// How long it may take to start.
const START: Duration = Duration::from_secs(60);

/// What it printed.
#[derive(Default)]
pub(super) struct Manager {
    /// For people and programs.
    pub(super) url: String,
    /// For agents.
    link: String,
    /// Of its authority.
    pub(super) fingerprint: String,
    /// The first one of the user admin.
    pub(super) password: String,
}

/// Writes its config and starts it.
pub(super) fn start(root: &Path, folder: &Path) -> anyhow::Result<Child> {
    let config = folder.join(MANAGER.config);
    // TOML's basic strings have JSON's escapes.
    let text = format!(
        "data_dir = {}\n\n[api]\nlisten = \"127.0.0.1:0\"\n\n[link]\nlisten = \"127.0.0.1:0\"\n\
         names = [\"127.0.0.1\", \"localhost\"]\n",
        serde_json::to_string(&folder.join(DATA))?,
    );
    fs::write(&config, text).with_context(|| format!("write {}", config.display()))?;
    let mut command = part_command(root, &MANAGER);
    command.arg("serve").arg("--config").arg(&config).stdout(Stdio::piped());
    if std::env::var_os("HOLDFAST_LOG").is_none() {
        command.env("HOLDFAST_LOG", "warn");
    }
    part_start(folder, &MANAGER, command)
}

/// Waits until it has printed where it is.
pub(super) async fn ready(process: &mut Child) -> anyhow::Result<Manager> {
    let stdout = process.stdout.take().context("its standard output is a pipe")?;
    let told = tokio::time::timeout(START, read(BufReader::new(stdout)));
    told.await.with_context(|| format!("holdfast-manager is silent after {} s", START.as_secs()))?
}

async fn read(stdout: BufReader<tokio::process::ChildStdout>) -> anyhow::Result<Manager> {
    let mut manager = Manager::default();
    let mut lines = stdout.lines();
    while let Some(line) = lines.next_line().await? {
        if let Some((_, password)) = line.split_once("one-time password ") {
            manager.password = password.to_owned();
        } else if let Some(rest) = line.strip_prefix("agents enroll at ") {
            let (link, rest) = rest.split_once(' ').context("an address")?;
            manager.link = format!("https://{link}");
            manager.fingerprint = rest.rsplit(' ').next().unwrap_or_default().to_owned();
        } else if let Some(url) = line.strip_prefix("people and programs call ") {
            manager.url = url.to_owned();
            // It prints nothing after this.
            return Ok(manager);
        }
    }
    bail!("holdfast-manager ended before it was ready")
}

/// Enrolls this host before the agent starts: it has one writer then.
pub(super) async fn enroll(root: &Path, place: &Place, manager: &Manager) -> anyhow::Result<()> {
    let release = root.join("target/release");
    let mut token = Command::new(release.join(MANAGER.program));
    token.args(["token", "create", "--config"]).arg(place.folder.join(MANAGER.config));
    let token = answer(token).await?;
    let mut enroll = Command::new(release.join("holdfast"));
    enroll.arg("--socket").arg(&place.socket).arg("enroll").arg("--config").arg(&place.config);
    enroll.args(["--manager", &manager.link, "--ca-fingerprint", &manager.fingerprint]);
    enroll.env("HOLDFAST_TOKEN", token);
    answer(enroll).await?;
    Ok(())
}

/// What a program printed, if it ended well.
async fn answer(mut command: Command) -> anyhow::Result<String> {
    let output = command.kill_on_drop(true).output().await?;
    if !output.status.success() {
        let program = command.as_std().get_program().display().to_string();
        bail!("{program}: {}\n{}", output.status, String::from_utf8_lossy(&output.stderr));
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
