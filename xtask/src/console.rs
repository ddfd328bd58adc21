//! Builds the manager's web page with npm: types from the API's document, checks, tests, bundle.
//!
//! Leaves `target/console/files`, and beside them a stamp of their sources, which `manager/build.rs`
//! compares. What npm fetches is named with its hash in `package-lock.json`; no script of a package
//! is run. Installs nothing on the machine.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};

use crate::shell;

/// What lies beside the console's sources and is none: `manager/build.rs` has the same.
const MADE: [&str; 2] = ["node_modules", "schema.ts"];

/// Builds it unless it is up to date, and returns its folder.
///
/// # Errors
/// When npm is missing, what it would fetch cannot be had, or a check finds something.
pub(crate) fn build(root: &Path) -> Result<PathBuf> {
    let (sources, built) = (root.join("manager/console"), root.join("target/console"));
    let (files, stamp) = (built.join("files"), built.join("stamp"));
    let digest = inputs_digest(&sources)?;
    let fresh = std::fs::read_to_string(&stamp).is_ok_and(|text| text.trim() == digest);
    if fresh && files.join("index.html").is_file() {
        return Ok(files);
    }
    shell::require("npm")?;
    packages(&sources)?;
    for script in ["types", "typecheck", "lint", "test", "build"] {
        shell::run(npm(&sources).args(["run", "--silent", script]))
            .with_context(|| format!("the console's {script}"))?;
    }
    std::fs::write(&stamp, format!("{digest}\n")).context("write the console's stamp")?;
    Ok(files)
}

/// What the lock file names, unless it is there.
fn packages(sources: &Path) -> Result<()> {
    let lock =
        std::fs::read(sources.join("package-lock.json")).context("read package-lock.json")?;
    let digest = hex(&Sha256::digest(&lock));
    let stamp = sources.join("node_modules/.holdfast");
    if std::fs::read_to_string(&stamp).is_ok_and(|text| text == digest) {
        return Ok(());
    }
    shell::run(npm(sources).args(["ci", "--ignore-scripts", "--no-audit", "--no-fund"]))?;
    std::fs::write(&stamp, digest).context("write the packages' stamp")
}

fn npm(sources: &Path) -> Command {
    let mut npm = Command::new("npm");
    // Nobody is told that a build runs, and nothing asks for a newer npm.
    npm.current_dir(sources).env("NPM_CONFIG_UPDATE_NOTIFIER", "false");
    npm
}

/// SHA-256 over the console's sources. `manager/build.rs` computes the same.
fn inputs_digest(console: &Path) -> Result<String> {
    let mut files = Vec::new();
    walk(console, &mut files)?;
    files.sort();
    let mut hasher = Sha256::new();
    for file in &files {
        let content =
            std::fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
        let name = file.strip_prefix(console).unwrap_or(file);
        hasher.update(format!("{} {}\n", name.display(), content.len()));
        hasher.update(&content);
    }
    Ok(hex(&hasher.finalize()))
}

fn walk(folder: &Path, found: &mut Vec<PathBuf>) -> Result<()> {
    let listing = || format!("cannot list {}", folder.display());
    for entry in std::fs::read_dir(folder).with_context(listing)? {
        let entry = entry.with_context(listing)?;
        if MADE.iter().any(|made| entry.file_name() == *made) {
            continue;
        }
        if entry.file_type().with_context(listing)?.is_dir() {
            walk(&entry.path(), found)?;
        } else {
            found.push(entry.path());
        }
    }
    Ok(())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
