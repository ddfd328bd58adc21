//! What CI checks without running anything: format, lints, house rules, licences.
//!
//! Every step runs and says what it found, so that one run shows everything. Advisories are left
//! out: their database needs the network, and a check must give the same answer twice.

mod licences;
mod metadata;
mod tidy;

use std::path::Path;
use std::time::Instant;

use anyhow::bail;

use crate::{build, shell};

/// One step: what it is called, what it does.
type Step = (&'static str, fn(&Path) -> anyhow::Result<()>);

const STEPS: &[Step] = &[
    ("fmt", format),
    ("tidy", tidy::check),
    ("licences", licences::check),
    ("ebpf", build::object),
    ("console", build::console),
    ("clippy", lint),
];

/// All steps; fails with the names of those that failed.
pub(crate) fn all(root: &Path) -> anyhow::Result<()> {
    let mut failed = Vec::new();
    for (name, step) in STEPS {
        let started = Instant::now();
        let result = step(root);
        let seconds = started.elapsed().as_secs_f64();
        match result {
            Ok(()) => eprintln!("check {name}: ok ({seconds:.1} s)"),
            Err(error) => {
                eprintln!("check {name}: failed ({seconds:.1} s)\n{error:#}");
                failed.push(*name);
            }
        }
    }
    eprintln!("check advisories: left out, they need the network");
    if failed.is_empty() { Ok(()) } else { bail!("failed: {}", failed.join(", ")) }
}

fn format(root: &Path) -> anyhow::Result<()> {
    for manifest in metadata::manifests(root) {
        let mut cargo = shell::cargo(root);
        cargo.args(["fmt", "--all", "--check", "--manifest-path"]).arg(manifest);
        shell::run(&mut cargo)?;
    }
    Ok(())
}

fn lint(root: &Path) -> anyhow::Result<()> {
    let mut cargo = shell::cargo(root);
    cargo.args(["clippy", "--release", "--workspace", "--all-targets", "--locked", "--"]);
    shell::run(cargo.args(["-D", "warnings"]))
}
