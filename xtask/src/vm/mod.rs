//! Tests in virtual machines: the distributions' own kernels, under QEMU's software emulation.
//!
//! The guest program (tests/src/bin/guest.rs) names its scenarios and reports each on the serial
//! line. Touches nothing of this machine but the cache and target/vm.

mod initramfs;
mod kernels;
mod machine;

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, bail};
use clap::Args;

use self::kernels::SOURCES;
use self::machine::Machine;
use crate::test::outcome::{Ending, Outcome, Tally};
use crate::{setup, shell};

/// `cargo xtask vm`
#[derive(Args)]
pub(crate) struct Options {
    /// Only this kernel: 6.1, 6.12 or newest; repeatable.
    #[arg(long)]
    kernel: Vec<String>,
    /// Only scenarios whose name holds this.
    #[arg(long)]
    filter: Option<String>,
}

/// The machines alone, with their own line of counts.
pub(crate) fn alone(root: &Path, options: &Options) -> anyhow::Result<()> {
    let mut tally = Tally::new(setup::is_ci());
    run(root, options, &mut tally)?;
    tally.close()
}

/// Every kernel for the full test run.
pub(crate) fn every(root: &Path, filter: Option<&str>, tally: &mut Tally) -> anyhow::Result<()> {
    run(root, &Options { kernel: Vec::new(), filter: filter.map(str::to_owned) }, tally)
}

fn run(root: &Path, options: &Options, tally: &mut Tally) -> anyhow::Result<()> {
    if let Some(unknown) = options.kernel.iter().find(|k| SOURCES.iter().all(|s| s.label != **k)) {
        bail!("no kernel is called {unknown}");
    }
    let filter = options.filter.as_deref();
    if filter.is_some_and(|f| !f.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')) {
        // Scenario names have no other characters; the kernel's command line would split them.
        return Ok(());
    }
    let expected = scenarios(root, filter)?;
    if expected.is_empty() {
        return Ok(());
    }
    for source in SOURCES {
        if !options.kernel.is_empty() && !options.kernel.iter().any(|k| k == source.label) {
            continue;
        }
        let outcomes = boot(root, *source, &expected, filter).unwrap_or_else(|error| {
            let result = Ending::Failed(format!("{error:#}"));
            vec![Outcome { name: format!("vm {}", source.label), result }]
        });
        outcomes.into_iter().for_each(|outcome| tally.add(outcome));
    }
    Ok(())
}

fn boot(
    root: &Path,
    source: kernels::Source,
    expected: &BTreeSet<String>,
    filter: Option<&str>,
) -> anyhow::Result<Vec<Outcome>> {
    let kernel = kernels::obtain(root, source)?;
    let initramfs = initramfs::build(root, &kernel).context("build the initramfs")?;
    let folder = root.join("target/vm").join(source.label);
    Machine { kernel: &kernel, folder, expected: expected.clone(), filter }.run(&initramfs)
}

/// What the guest will report, from its own mouth.
fn scenarios(root: &Path, filter: Option<&str>) -> anyhow::Result<BTreeSet<String>> {
    let list = shell::output(Command::new(root.join("target/release/guest")).arg("--list"))?;
    let wanted = |name: &&str| filter.is_none_or(|filter| name.contains(filter));
    Ok(list.lines().filter(wanted).map(str::to_owned).collect())
}
