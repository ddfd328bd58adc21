//! Lists the console's files for embedding, and refuses those that are not made from these sources.
//! Builds nothing itself: that is `cargo xtask console`.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

/// What lies beside the console's sources and is none: `xtask/src/console.rs` has the same.
const MADE: [&str; 2] = ["node_modules", "schema.ts"];

fn main() {
    if let Err(why) = embed() {
        println!("cargo::error={why}; run: cargo xtask console");
    }
}

fn embed() -> Result<(), String> {
    let manifest = std::env::var_os("CARGO_MANIFEST_DIR").ok_or("no CARGO_MANIFEST_DIR")?;
    let manifest = Path::new(&manifest);
    let root = manifest.parent().ok_or("the manager has no workspace folder")?;
    let (built, stamp) = (root.join("target/console/files"), root.join("target/console/stamp"));
    println!("cargo:rerun-if-changed={}", stamp.display());
    let digest = inputs_digest(&manifest.join("console"))?;
    let made_from =
        std::fs::read_to_string(&stamp).map_err(|_| "the console is not built".to_owned())?;
    if made_from.trim() != digest {
        return Err("the console is older than its sources".to_owned());
    }
    let mut files = Vec::new();
    walk(&built, &mut files)?;
    files.sort();
    let mut text = "&[\n".to_owned();
    for file in &files {
        let name = file.strip_prefix(&built).unwrap_or(file).display().to_string();
        if name.ends_with(".br") {
            continue;
        }
        let content = std::fs::read(file).map_err(|e| format!("{}: {e}", file.display()))?;
        let packed = PathBuf::from(format!("{}.br", file.display()));
        let packed = packed.is_file().then(|| format!("include_bytes!({packed:?})"));
        let packed = packed.map_or_else(|| "None".to_owned(), |bytes| format!("Some({bytes})"));
        let _ = writeln!(
            text,
            "File {{ path: {:?}, etag: \"\\\"{}\\\"\", plain: include_bytes!({file:?}), \
             brotli: {packed} }},",
            format!("/{name}"),
            &hex(&Sha256::digest(&content))[..32],
        );
    }
    text.push_str("]\n");
    let out = std::env::var_os("OUT_DIR").ok_or("no OUT_DIR")?;
    std::fs::write(Path::new(&out).join("console.rs"), text).map_err(|e| format!("OUT_DIR: {e}"))
}

/// SHA-256 over the console's sources. `xtask/src/console.rs` computes the same.
fn inputs_digest(console: &Path) -> Result<String, String> {
    let mut files = Vec::new();
    println!("cargo:rerun-if-changed={}", console.join("package-lock.json").display());
    walk(console, &mut files)?;
    files.sort();
    let mut hasher = Sha256::new();
    for file in &files {
        println!("cargo:rerun-if-changed={}", file.display());
        let content = std::fs::read(file).map_err(|e| format!("{}: {e}", file.display()))?;
        let name = file.strip_prefix(console).unwrap_or(file);
        hasher.update(format!("{} {}\n", name.display(), content.len()));
        hasher.update(&content);
    }
    Ok(hex(&hasher.finalize()))
}

/// All files below a folder, but what is made.
fn walk(folder: &Path, found: &mut Vec<PathBuf>) -> Result<(), String> {
    let failed = |error: std::io::Error| format!("{}: {error}", folder.display());
    let mut folders = false;
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        if MADE.iter().any(|made| entry.file_name() == *made) {
            continue;
        }
        if entry.file_type().map_err(failed)?.is_dir() {
            folders = true;
            walk(&entry.path(), found)?;
        } else {
            found.push(entry.path());
        }
    }
    // New files show by their folder; one with other folders in it may hold node_modules, whose
    // change is none of ours.
    if !folders {
        println!("cargo:rerun-if-changed={}", folder.display());
    }
    Ok(())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
