//! Rules of the house that no other tool knows.
//!
//! Reads every source file of the repository; changes nothing. All findings are shown at once,
//! each with its file and line.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

use super::metadata;

/// Lines of one file.
const MAX_LINES: usize = 800;

/// Words that never reach the main branch. Written in two halves, so that this file passes.
const UNFINISHED: &[&str] = &[concat!("TO", "DO"), concat!("FIX", "ME"), concat!("#[ig", "nore")];

/// Every rule.
pub(super) fn check(root: &Path) -> anyhow::Result<()> {
    let mut findings = Vec::new();
    let mut sources = Vec::new();
    rust_files(root, &mut sources)?;
    for path in &sources {
        let text = fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
        let name = path.strip_prefix(root).unwrap_or(path).display().to_string();
        findings.extend(source(&text).into_iter().map(|finding| format!("{name}{finding}")));
    }
    findings.extend(manifests(root)?);
    findings.extend(hosts(root)?);
    if findings.is_empty() { Ok(()) } else { bail!("{}", findings.join("\n")) }
}

/// Rules of one Rust source; each finding starts with `:line: `.
fn source(text: &str) -> Vec<String> {
    let mut findings = Vec::new();
    if !text.starts_with("//!") {
        findings
            .push(":1: does not open with `//!`: what it is for, what it does not do".to_owned());
    }
    let lines = text.lines().count();
    if lines > MAX_LINES {
        findings.push(format!(":{lines}: longer than {MAX_LINES} lines; split it by noun"));
    }
    for (index, line) in text.lines().enumerate() {
        for word in UNFINISHED.iter().filter(|word| line.contains(**word)) {
            findings.push(format!(":{}: holds {word}", index + 1));
        }
    }
    findings
}

/// All `.rs` files but build output and hidden folders.
fn rust_files(folder: &Path, found: &mut Vec<PathBuf>) -> anyhow::Result<()> {
    for entry in fs::read_dir(folder).with_context(|| format!("read {}", folder.display()))? {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if entry.file_type()?.is_dir() {
            if name != "target" && name != "node_modules" && !name.starts_with('.') {
                rust_files(&entry.path(), found)?;
            }
        } else if name.ends_with(".rs") {
            found.push(entry.path());
        }
    }
    Ok(())
}

/// Each direct dependency has its row in the README; each member inherits the lints.
fn manifests(root: &Path) -> anyhow::Result<Vec<String>> {
    let readme = fs::read_to_string(root.join("README.md")).context("read README.md")?;
    let rows = table_names(&readme);
    let mut findings = Vec::new();
    let mut direct = BTreeSet::new();
    for manifest in metadata::manifests(root) {
        for package in metadata::read(&manifest)?.packages {
            if package.source.is_some() || !package.manifest_path.starts_with(root) {
                continue;
            }
            direct.extend(
                package.dependencies.into_iter().filter(|d| d.source.is_some()).map(|d| d.name),
            );
            let text = fs::read_to_string(&package.manifest_path)?;
            // The eBPF programs are a workspace of their own and cannot inherit.
            let inherits = text.contains("[lints]\nworkspace = true");
            if !inherits && !package.manifest_path.starts_with(root.join("ebpf")) {
                let name =
                    package.manifest_path.strip_prefix(root).unwrap_or(&package.manifest_path);
                findings
                    .push(format!("{}: does not inherit the workspace's lints", name.display()));
            }
        }
    }
    for name in direct.iter().filter(|name| !rows.contains(name.as_str())) {
        findings.push(format!("README.md: the dependency table has no row for {name}"));
    }
    Ok(findings)
}

/// Names in backquotes in the first column of the README's tables.
fn table_names(readme: &str) -> BTreeSet<&str> {
    readme
        .lines()
        .filter_map(|line| line.trim().strip_prefix('|')?.split('|').next())
        .flat_map(|cell| cell.split('`').skip(1).step_by(2))
        .collect()
}

/// Nothing in the repository names the host that packages come from: that is the machine's matter.
fn hosts(root: &Path) -> anyhow::Result<Vec<String>> {
    let mut findings = Vec::new();
    let ours = "registry+https://github.com/rust-lang/crates.io-index";
    for lock in ["Cargo.lock", "ebpf/Cargo.lock"] {
        let Ok(text) = fs::read_to_string(root.join(lock)) else { continue };
        for (index, line) in text.lines().enumerate() {
            if line.strip_prefix("source = \"").is_some_and(|s| s.trim_end_matches('"') != ours) {
                findings.push(format!("{lock}:{}: another registry: {line}", index + 1));
            }
        }
    }
    let lock = "manager/console/package-lock.json";
    let text = fs::read_to_string(root.join(lock)).with_context(|| format!("read {lock}"))?;
    for (index, line) in text.lines().enumerate() {
        // Where packages ask for money, and what they are called, are no sources.
        if line.trim_start().starts_with("\"resolved\"") {
            findings.push(format!("{lock}:{}: names a registry", index + 1));
        }
    }
    for config in [
        "Cargo.toml",
        ".cargo/config.toml",
        "ebpf/Cargo.toml",
        "ebpf/.cargo/config.toml",
        ".ci/run",
        "manager/console/.npmrc",
    ] {
        let Ok(text) = fs::read_to_string(root.join(config)) else { continue };
        for (index, line) in text.lines().enumerate() {
            // Links for people are no sources of packages.
            let link = ["#", "repository", "homepage", "documentation"];
            if link.iter().any(|start| line.trim_start().starts_with(start)) {
                continue;
            }
            let setting = ["registry", "replace-with", "index", "git ="];
            if line.contains("://") || setting.iter().any(|key| line.trim_start().starts_with(key))
            {
                findings.push(format!("{config}:{}: names a host or a registry", index + 1));
            }
        }
    }
    Ok(findings)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_without_a_header_or_with_unfinished_words_is_named_by_line() {
        assert!(source("//! Fine.\nfn main() {}\n").is_empty());
        let text = format!("fn main() {{}}\n// {} later\n", UNFINISHED[0]);
        let findings = source(&text);
        assert_eq!(findings.len(), 2);
        assert!(findings[0].starts_with(":1: ") && findings[1].starts_with(":2: "));
    }

    #[test]
    fn a_source_of_801_lines_is_too_long() {
        assert!(source(&"//!\n".repeat(800)).is_empty());
        assert_eq!(source(&"//!\n".repeat(801)).len(), 1);
    }

    #[test]
    fn the_dependency_table_is_read_by_its_first_column() {
        let names = table_names("| `aya`, `aya-log` | eBPF, not `libbpf` |\n| plain | `x` |\n");
        assert_eq!(names.into_iter().collect::<Vec<_>>(), ["aya", "aya-log"]);
    }
}
