//! The two builds: the eBPF object, then the workspace that embeds it.
//!
//! The order is the invariant: cargo never sees a missing object. Installs nothing.

use std::path::Path;

use anyhow::Context;

use crate::{ebpf, shell};

/// The eBPF objects.
pub(crate) fn object(root: &Path) -> anyhow::Result<()> {
    let folder = ebpf::build(root).context("build the eBPF objects")?;
    eprintln!("eBPF objects: {}", folder.display());
    Ok(())
}

/// Everything that is shipped, in target/release.
pub(crate) fn all(root: &Path) -> anyhow::Result<()> {
    object(root)?;
    shell::run(shell::cargo(root).args(["build", "--release", "--workspace", "--locked"]))
}
