//! A browser for a test: a script of `manager/console/browser`, run by node in Chromium against a
//! manager. The script asks for what it cannot do itself, a line each; the test does it and answers.
//!
//! Whatever happens, node is gone when the [`Browser`] is dropped. Screenshots stay in
//! `target/console-shots`.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use anyhow::{Context, Result, ensure};

use crate::manager::Manager;

/// Names of the browser on the systems that it is installed on.
const BROWSERS: [&str; 2] = ["/usr/bin/chromium", "/usr/bin/chromium-browser"];

/// A script that runs.
#[derive(Debug)]
pub struct Browser {
    child: Child,
    answers: ChildStdin,
    steps: BufReader<ChildStdout>,
}

impl Browser {
    /// Starts a script against a manager, beside it, with its words in `CONSOLE_…`.
    ///
    /// # Errors
    /// When there is no browser or no node.
    pub fn start(manager: &Manager, script: &str, words: &[(&str, &str)]) -> Result<Self> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("a workspace")?;
        let browser = BROWSERS.into_iter().find(|path| Path::new(path).exists());
        let browser = browser.context("no chromium: cargo xtask setup")?;
        let path: PathBuf = root.join("manager/console/browser").join(script);
        let mut command = match manager.namespace() {
            None => Command::new("node"),
            Some(namespace) => {
                let mut command = Command::new("nsenter");
                command.arg(format!("--net={}", namespace.display())).arg("node");
                command
            }
        };
        let shots = script.trim_end_matches(".mjs");
        let mut child = command
            .arg(path)
            .current_dir(root.join("manager/console"))
            .env("CONSOLE_BROWSER", browser)
            .env("CONSOLE_URL", manager.page())
            .env("CONSOLE_SHOTS", root.join("target/console-shots").join(shots))
            .envs(words.iter().map(|(name, word)| (format!("CONSOLE_{name}"), word)))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("start node")?;
        let answers = child.stdin.take().context("a pipe")?;
        let steps = BufReader::new(child.stdout.take().context("a pipe")?);
        Ok(Self { child, answers, steps })
    }

    /// Does what the script asks for until it ends.
    ///
    /// # Errors
    /// When the script failed; it has said why on standard error.
    pub fn run(mut self, mut act: impl FnMut(&str) -> Result<String>) -> Result<()> {
        let mut line = String::new();
        while self.steps.read_line(&mut line).context("read a step")? > 0 {
            if let Some(step) = line.trim_end().strip_prefix("> ") {
                let answer = act(step).with_context(|| step.to_owned())?;
                writeln!(self.answers, "{answer}").context("answer")?;
            } else {
                print!("{line}");
            }
            line.clear();
        }
        let status = self.child.wait().context("wait for node")?;
        ensure!(status.success(), "the script failed: {status}");
        Ok(())
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // It may have ended by itself; the browser ends with its pipe.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
