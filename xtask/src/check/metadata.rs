//! `cargo metadata`, as far as the checks read it.

use std::path::{Path, PathBuf};

use anyhow::Context;
use serde::Deserialize;

use crate::shell;

/// The answer.
#[derive(Deserialize)]
pub(super) struct Metadata {
    pub(super) packages: Vec<Package>,
}

/// One package.
#[derive(Deserialize)]
pub(super) struct Package {
    pub(super) name: String,
    pub(super) version: String,
    /// SPDX expression.
    pub(super) license: Option<String>,
    /// `None` for our own.
    pub(super) source: Option<String>,
    pub(super) manifest_path: PathBuf,
    pub(super) dependencies: Vec<Dependency>,
}

/// One line of a package's dependencies.
#[derive(Deserialize)]
pub(super) struct Dependency {
    pub(super) name: String,
    /// `None` for our own.
    pub(super) source: Option<String>,
}

/// Of one workspace, with everything that it depends on, for the target that is shipped.
pub(super) fn read(manifest: &Path) -> anyhow::Result<Metadata> {
    let folder = manifest.parent().context("a manifest lies in a folder")?;
    let mut cargo = shell::cargo(folder);
    cargo.args(["metadata", "--format-version=1", "--locked", "--manifest-path"]).arg(manifest);
    let text = shell::output(cargo.args(["--filter-platform", "x86_64-unknown-linux-gnu"]))?;
    serde_json::from_str(&text).context("read cargo's metadata")
}

/// The manifests of the two workspaces: the shipped one, and the eBPF programs'.
pub(super) fn manifests(root: &Path) -> impl Iterator<Item = PathBuf> {
    ["Cargo.toml", "ebpf/Cargo.toml"].map(|name| root.join(name)).into_iter().filter(|m| m.exists())
}
