//! Builds the eBPF objects with whichever of two toolchains is here.
//!
//! Either a rustup nightly with `rust-src` (builds `core` itself), or the distribution's rustc
//! with its compiled `core` for BPF (Debian: `rustc-web` + `libstd-rust-web-dev-bpf`). Leaves
//! `target/bpf/holdfast.o`, `isolation.o` and `guard.o`, and beside them a stamp of their sources,
//! which `agent/build.rs` compares. Installs nothing.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use sha2::{Digest, Sha256};

const TARGET: &str = "bpfel-unknown-none";

/// What is built: the programs of the sensor, of the isolation, of the self-protection.
const OBJECTS: [&str; 3] = ["holdfast", "isolation", "guard"];

/// A compiler that can build for BPF.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Toolchain {
    /// `cargo +nightly -Z build-std=core`.
    Nightly,
    /// This rustc, which has a compiled `core` for the target in its sysroot.
    Distribution(PathBuf),
}

/// Builds the objects unless they are up to date, and returns their folder.
///
/// # Errors
/// When no toolchain or linker is here (the message says what to install), or the build fails.
pub(crate) fn build(root: &Path) -> Result<PathBuf> {
    let folder = root.join("target/bpf");
    let object = |name: &str| folder.join(format!("{name}.o"));
    let stamp = folder.join("holdfast.stamp");
    let digest = inputs_digest(root)?;
    let fresh = std::fs::read_to_string(&stamp).is_ok_and(|text| text.trim() == digest);
    if fresh && OBJECTS.iter().all(|name| object(name).is_file()) {
        return Ok(folder);
    }
    let linker = linker(root).context(
        "bpf-linker 0.13 is neither in target/tools/bin, nor in PATH, nor in ~/.cargo/bin",
    )?;
    let toolchain = toolchain().context(
        "no Rust toolchain for BPF: install Debian's rustc-web and libstd-rust-web-dev-bpf, \
         or run: rustup toolchain install nightly --component rust-src",
    )?;
    std::fs::create_dir_all(&folder).context("cannot create target/bpf")?;
    compile(root, &toolchain, &linker)?;
    for name in OBJECTS {
        let (built, object) = (folder.join(TARGET).join("release").join(name), object(name));
        std::fs::copy(&built, &object)
            .with_context(|| format!("cannot copy {} to {}", built.display(), object.display()))?;
    }
    std::fs::write(&stamp, format!("{digest}\n")).context("cannot write the objects' stamp")?;
    Ok(folder)
}

/// Looks for a compiler; a nightly with `rust-src` first, as it is the usual one.
#[must_use]
pub(crate) fn toolchain() -> Option<Toolchain> {
    if let Some(sysroot) = sysroot(Command::new("rustc").arg("+nightly"))
        && sysroot.join("lib/rustlib/src/rust/library/core/src/lib.rs").is_file()
    {
        return Some(Toolchain::Nightly);
    }
    ["/usr/bin/rustc"].into_iter().map(PathBuf::from).find_map(|rustc| {
        let target = sysroot(&mut Command::new(&rustc))?.join("lib/rustlib").join(TARGET);
        target.join("lib").is_dir().then_some(Toolchain::Distribution(rustc))
    })
}

/// Looks for bpf-linker.
#[must_use]
pub(crate) fn linker(root: &Path) -> Option<PathBuf> {
    let mut folders = vec![root.join("target/tools/bin")];
    folders.extend(std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()));
    folders.extend(std::env::var_os("HOME").map(|home| Path::new(&home).join(".cargo/bin")));
    folders.into_iter().map(|folder| folder.join("bpf-linker")).find(|path| path.is_file())
}

fn sysroot(rustc: &mut Command) -> Option<PathBuf> {
    let output = rustc.args(["--print", "sysroot"]).env_remove("RUSTUP_TOOLCHAIN").output().ok()?;
    output.status.success().then(|| PathBuf::from(String::from_utf8_lossy(&output.stdout).trim()))
}

fn compile(root: &Path, toolchain: &Toolchain, linker: &Path) -> Result<()> {
    let mut cargo = Command::new("cargo");
    // What cargo sets for the xtask itself must not reach the other toolchain.
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("CARGO_ENCODED") || text.starts_with("RUSTC") || text == "RUSTFLAGS" {
            cargo.env_remove(&name);
        }
    }
    cargo.env_remove("CARGO").env_remove("RUSTUP_TOOLCHAIN");
    match toolchain {
        Toolchain::Nightly => {
            cargo.args(["+nightly", "build", "-Z", "build-std=core"]);
        }
        Toolchain::Distribution(rustc) => {
            cargo.arg("build").env("RUSTC", rustc).env("RUSTC_BOOTSTRAP", "1");
        }
    }
    let flags = [
        "-Clink-arg=--btf".to_owned(),
        format!("-Clinker={}", linker.display()),
        format!("--cfg=bpf_target_arch=\"{}\"", std::env::consts::ARCH),
    ];
    let status = cargo
        .current_dir(root.join("ebpf"))
        .args(["--release", "--locked", "--target", TARGET, "--target-dir"])
        .arg(root.join("target/bpf"))
        .env("CARGO_ENCODED_RUSTFLAGS", OsString::from(flags.join("\u{1f}")))
        .env("PATH", path_with(linker)?)
        .status()
        .context("cannot run cargo")?;
    ensure!(status.success(), "building the eBPF objects failed ({toolchain:?})");
    Ok(())
}

fn path_with(linker: &Path) -> Result<OsString> {
    let Some(folder) = linker.parent() else { bail!("{} has no folder", linker.display()) };
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::iter::once(folder.to_owned()).chain(std::env::split_paths(&path));
    std::env::join_paths(folders).context("PATH holds a folder with a colon")
}

/// SHA-256 over everything that the objects are made from. `agent/build.rs` computes the same.
fn inputs_digest(root: &Path) -> Result<String> {
    let mut files = vec![
        root.join("common/src/abi.rs"),
        root.join("common/src/cut.rs"),
        root.join("common/src/guard.rs"),
        root.join("ebpf/Cargo.lock"),
        root.join("ebpf/Cargo.toml"),
    ];
    for entry in std::fs::read_dir(root.join("ebpf/src")).context("cannot list ebpf/src")? {
        files.push(entry.context("cannot list ebpf/src")?.path());
    }
    files.sort();
    let mut hasher = Sha256::new();
    for file in &files {
        let content =
            std::fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
        let name = file.strip_prefix(root).unwrap_or(file);
        hasher.update(format!("{} {}\n", name.display(), content.len()));
        hasher.update(&content);
    }
    Ok(hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}
