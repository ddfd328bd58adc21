//! Finds the eBPF object that the agent embeds, and refuses one that is not made from these
//! sources. Builds nothing itself: that is `cargo xtask build`.
//!
//! `HOLDFAST_BPF_OBJECT` names another object, which is then taken as it is.

use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

fn main() {
    println!("cargo:rerun-if-env-changed=HOLDFAST_BPF_OBJECT");
    match object() {
        Ok(path) => {
            println!("cargo:rerun-if-changed={}", path.display());
            println!("cargo:rustc-env=HOLDFAST_BPF_OBJECT={}", path.display());
        }
        Err(why) => println!("cargo::error={why}; run: cargo xtask build"),
    }
}

fn object() -> Result<PathBuf, String> {
    if let Some(path) = std::env::var_os("HOLDFAST_BPF_OBJECT") {
        let path = PathBuf::from(path);
        return path
            .canonicalize()
            .map_err(|error| format!("HOLDFAST_BPF_OBJECT: {}: {error}", path.display()));
    }
    let manifest = std::env::var_os("CARGO_MANIFEST_DIR").ok_or("no CARGO_MANIFEST_DIR")?;
    let root = Path::new(&manifest).parent().ok_or("the agent has no workspace folder")?;
    let folder = root.join("target/bpf");
    let object = folder.join("holdfast.o");
    let stamp = folder.join("holdfast.stamp");
    println!("cargo:rerun-if-changed={}", stamp.display());
    let digest = inputs_digest(root)?;
    let made_from = std::fs::read_to_string(&stamp)
        .map_err(|_| format!("the eBPF object {} is not built", object.display()))?;
    if made_from.trim() != digest || !object.is_file() {
        return Err(format!("the eBPF object {} is older than its sources", object.display()));
    }
    Ok(object)
}

/// SHA-256 over everything that the object is made from. `xtask/src/ebpf.rs` computes the same.
fn inputs_digest(root: &Path) -> Result<String, String> {
    let sources = root.join("ebpf/src");
    println!("cargo:rerun-if-changed={}", sources.display());
    let mut files = vec![
        root.join("common/src/abi.rs"),
        root.join("ebpf/Cargo.lock"),
        root.join("ebpf/Cargo.toml"),
    ];
    let entries = std::fs::read_dir(&sources).map_err(|e| format!("{}: {e}", sources.display()))?;
    for entry in entries {
        files.push(entry.map_err(|e| format!("{}: {e}", sources.display()))?.path());
    }
    files.sort();
    let mut hasher = Sha256::new();
    for file in &files {
        println!("cargo:rerun-if-changed={}", file.display());
        let content = std::fs::read(file).map_err(|e| format!("{}: {e}", file.display()))?;
        let name = file.strip_prefix(root).unwrap_or(file);
        hasher.update(format!("{} {}\n", name.display(), content.len()));
        hasher.update(&content);
    }
    Ok(hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}
