//! Finds the eBPF objects that the agent embeds, and refuses those that are not made from these
//! sources. Builds nothing itself: that is `cargo xtask build`.
//!
//! `HOLDFAST_BPF_OBJECT`, `HOLDFAST_ISOLATION_OBJECT` and `HOLDFAST_GUARD_OBJECT` name others, which
//! are taken as they are.

use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

/// Each object's variable and its file in target/bpf.
const OBJECTS: [(&str, &str); 3] = [
    ("HOLDFAST_BPF_OBJECT", "holdfast.o"),
    ("HOLDFAST_ISOLATION_OBJECT", "isolation.o"),
    ("HOLDFAST_GUARD_OBJECT", "guard.o"),
];

fn main() {
    for (variable, file) in OBJECTS {
        println!("cargo:rerun-if-env-changed={variable}");
        match object(variable, file) {
            Ok(path) => {
                println!("cargo:rerun-if-changed={}", path.display());
                println!("cargo:rustc-env={variable}={}", path.display());
            }
            Err(why) => println!("cargo::error={why}; run: cargo xtask build"),
        }
    }
}

fn object(variable: &str, file: &str) -> Result<PathBuf, String> {
    if let Some(path) = std::env::var_os(variable) {
        let path = PathBuf::from(path);
        return path
            .canonicalize()
            .map_err(|error| format!("{variable}: {}: {error}", path.display()));
    }
    let manifest = std::env::var_os("CARGO_MANIFEST_DIR").ok_or("no CARGO_MANIFEST_DIR")?;
    let root = Path::new(&manifest).parent().ok_or("the agent has no workspace folder")?;
    let folder = root.join("target/bpf");
    let object = folder.join(file);
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

/// SHA-256 over everything that the objects are made from. `xtask/src/ebpf.rs` computes the same.
fn inputs_digest(root: &Path) -> Result<String, String> {
    let sources = root.join("ebpf/src");
    println!("cargo:rerun-if-changed={}", sources.display());
    let mut files = vec![
        root.join("common/src/abi.rs"),
        root.join("common/src/cut.rs"),
        root.join("common/src/guard.rs"),
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
