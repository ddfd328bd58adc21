//! bpf-linker: found, taken from the user's cache, or built once.
//!
//! It ends in `target/tools/bin`, so that a clone is complete in itself; the cache spares the next
//! clone the minute that building takes. One in PATH is used where it lies.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context;

use crate::shell;

/// The version that the eBPF crates are linked with.
const VERSION: &str = "0.13.0";

/// LLVM of Debian's `llvm-22-dev`.
const LLVM: &str = "/usr/lib/llvm-22";

/// Put bpf-linker into `target/tools/bin`.
pub(super) fn ensure(root: &Path) -> anyhow::Result<()> {
    let tools = root.join("target/tools");
    let linker = tools.join("bin/bpf-linker");
    if works(&linker) || shell::find("bpf-linker").is_some_and(|found| works(&found)) {
        return Ok(());
    }
    let cached = cache().map(|cache| cache.join(format!("bpf-linker-{VERSION}")));
    if let Some(cached) = cached.as_deref().filter(|cached| works(cached)) {
        return replace(cached, &linker);
    }
    eprintln!(
        "Missing: bpf-linker {VERSION}, links eBPF programs; building it takes about a minute"
    );
    let mut cargo = shell::cargo(root);
    cargo.args(["install", "bpf-linker", "--version", VERSION, "--locked", "--root"]).arg(&tools);
    // Its own target folder: ours has other profiles, and a lock that our caller may hold.
    cargo.arg("--target-dir").arg(tools.join("build"));
    // It would win over what is set below.
    cargo.env_remove("CARGO_ENCODED_RUSTFLAGS");
    if Path::new(LLVM).exists() {
        cargo.args(["--no-default-features", "--features", "llvm-22"]);
        cargo.env("LLVM_PREFIX", LLVM).env("RUSTFLAGS", format!("-L native={LLVM}/lib"));
    }
    shell::run(&mut cargo)?;
    // Only a cache: its sources are fetched again when they are needed again.
    let _ = fs::remove_dir_all(tools.join("build"));
    if let Some(cached) = cached
        && let Err(error) = replace(&linker, &cached)
    {
        eprintln!("bpf-linker is not cached for other clones: {error:#}");
    }
    Ok(())
}

/// Whether it is there, starts on this machine and has our version.
fn works(linker: &Path) -> bool {
    linker.is_file()
        && shell::output(Command::new(linker).arg("--version"))
            .is_ok_and(|version| version.trim().ends_with(VERSION))
}

/// Copy beside the target, then rename: two clones may do so at once.
fn replace(from: &Path, to: &Path) -> anyhow::Result<()> {
    let folder = to.parent().context("a tool lies in a folder")?;
    fs::create_dir_all(folder).with_context(|| format!("create {}", folder.display()))?;
    let beside = to.with_extension(std::process::id().to_string());
    fs::copy(from, &beside).with_context(|| format!("copy {}", from.display()))?;
    fs::rename(&beside, to).with_context(|| format!("place {}", to.display()))
}

/// Tools that all clones of this user share.
fn cache() -> Option<PathBuf> {
    crate::setup::cache().map(|cache| cache.join("tools"))
}

/// Whether a rustup nightly with the sources of `core` can build it for BPF.
pub(super) fn nightly_builds_core() -> bool {
    if shell::find("rustup").is_none() {
        return false;
    }
    let mut rustc = Command::new("rustc");
    // The toolchain that runs xtask must not decide which one is asked for.
    rustc.env_remove("RUSTUP_TOOLCHAIN").args(["+nightly", "--print", "sysroot"]);
    // Asked first, since `+nightly` alone can make rustup install one.
    let installed = shell::output(Command::new("rustup").args(["toolchain", "list"]))
        .is_ok_and(|list| list.lines().any(|line| line.starts_with("nightly")));
    installed
        && shell::output(&mut rustc).is_ok_and(|sysroot| {
            Path::new(sysroot.trim()).join("lib/rustlib/src/rust/library/core/Cargo.toml").exists()
        })
}
