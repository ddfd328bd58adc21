//! Every test: units and this host's kernel through `cargo test`'s binaries, then virtual machines.
//!
//! The binaries are run one by one so that what they list can be compared with what they report;
//! [`outcome::Tally`] has the last word.

mod binary;
pub(crate) mod outcome;

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Instant;

use anyhow::{Context, bail};
use clap::Args;
use serde::Deserialize;

use self::binary::Binary;
use self::outcome::{Ending, Outcome, Tally};
use crate::{setup, shell, vm};

/// `cargo xtask test`
#[derive(Args)]
pub(crate) struct Options {
    /// Leave the virtual machines out.
    #[arg(long)]
    no_vm: bool,
    /// Only tests and scenarios whose name holds this.
    #[arg(long)]
    filter: Option<String>,
}

/// Everything; the counts are the last line.
pub(crate) fn all(root: &Path, options: &Options) -> anyhow::Result<()> {
    let filter = options.filter.as_deref();
    let started = Instant::now();
    let binaries = compile(root)?;
    let mut tally = Tally::new(setup::is_ci());
    for binary in &binaries {
        let outcomes = binary.run(filter).unwrap_or_else(|error| {
            let result = Ending::Failed(format!("{error:#}"));
            vec![Outcome { name: binary.name.clone(), result }]
        });
        outcomes.into_iter().for_each(|outcome| tally.add(outcome));
    }
    binary::doc_tests(root, filter)?.into_iter().for_each(|outcome| tally.add(outcome));
    eprintln!("\ntests on this host's kernel took {} s", started.elapsed().as_secs());
    if options.no_vm {
        eprintln!("virtual machines left out: --no-vm");
    } else {
        vm::every(root, filter, &mut tally)?;
    }
    tally.close()
}

/// What cargo says of each artifact, as far as it matters here.
#[derive(Deserialize)]
struct Message {
    reason: String,
    target: Option<Target>,
    profile: Option<Profile>,
    executable: Option<PathBuf>,
    manifest_path: Option<PathBuf>,
}

#[derive(Deserialize)]
struct Target {
    name: String,
    kind: Vec<String>,
}

#[derive(Deserialize)]
struct Profile {
    test: bool,
}

/// Build all test binaries, in cargo's order of names.
fn compile(root: &Path) -> anyhow::Result<Vec<Binary>> {
    eprintln!("$ cargo test --release --workspace --locked --no-run");
    let output = shell::cargo(root)
        .args(["test", "--release", "--workspace", "--locked", "--no-run"])
        .arg("--message-format=json-render-diagnostics")
        .stderr(Stdio::inherit())
        .output()
        .context("start cargo test")?;
    if !output.status.success() {
        bail!("the tests do not compile");
    }
    let mut binaries = Vec::new();
    for line in output.stdout.split(|&byte| byte == b'\n').filter(|line| line.starts_with(b"{")) {
        let message: Message = serde_json::from_slice(line).context("read cargo's messages")?;
        binaries.extend(test_binary(message));
    }
    binaries.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(binaries)
}

fn test_binary(message: Message) -> Option<Binary> {
    let (target, manifest) = (message.target?, message.manifest_path?);
    if message.reason != "compiler-artifact" || !message.profile?.test {
        return None;
    }
    let folder = manifest.parent()?.to_owned();
    let package = folder.file_name()?.to_string_lossy().into_owned();
    let kind = target.kind.first().map_or("", String::as_str);
    Some(Binary {
        name: format!("{package} {kind} {}", target.name),
        executable: message.executable?,
        folder,
    })
}
