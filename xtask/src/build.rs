//! The three builds: the eBPF objects and the console, then the workspace that embeds them.
//!
//! The order is the invariant: cargo never sees a missing object or page. Installs nothing.

use std::path::Path;

use anyhow::Context;

use crate::{console as page, ebpf, shell};

/// The eBPF objects.
pub(crate) fn object(root: &Path) -> anyhow::Result<()> {
    let folder = ebpf::build(root).context("build the eBPF objects")?;
    eprintln!("eBPF objects: {}", folder.display());
    Ok(())
}

/// The manager's web page.
pub(crate) fn console(root: &Path) -> anyhow::Result<()> {
    let folder = page::build(root).context("build the console")?;
    eprintln!("console: {}", folder.display());
    Ok(())
}

/// Everything that is shipped, in target/release.
pub(crate) fn all(root: &Path) -> anyhow::Result<()> {
    object(root)?;
    console(root)?;
    shell::run(shell::cargo(root).args(["build", "--release", "--workspace", "--locked"]))
}
