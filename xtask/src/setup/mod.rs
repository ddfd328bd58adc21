//! What this machine must have, and installing what is missing.
//!
//! Invariant: when nothing is missing, nothing is said and nothing runs but looks at files. What is
//! missing is named with its reason before anything is installed. Never removes a package.

mod linker;
mod packages;

use std::env;
use std::fmt::Write as _;
use std::fs;
use std::io::{IsTerminal, Write as _, stdin};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};

pub(crate) use self::packages::Need;
use self::packages::{PACKAGES, Package, dpkg_installed};
use crate::shell::{self, Unfit};

/// Whether installing needs a question first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Consent {
    /// `--yes`, or CI.
    Given,
    /// Ask on the terminal.
    Ask,
}

impl Consent {
    /// From the command line and the environment.
    pub(crate) fn new(yes: bool) -> Self {
        if yes || is_ci() { Self::Given } else { Self::Ask }
    }
}

/// Whether `CI=true`.
pub(crate) fn is_ci() -> bool {
    env::var_os("CI").is_some_and(|value| value == "true")
}

/// Install what is missing for these needs.
pub(crate) fn ensure(root: &Path, needs: &[Need], consent: Consent) -> anyhow::Result<()> {
    let own_bpf = needs.contains(&Need::Build) && !linker::nightly_builds_core();
    let missing: Vec<&Package> = PACKAGES
        .iter()
        .filter(|package| needs.contains(&package.need) || (own_bpf && package.need == Need::Bpf))
        .filter(|package| !package.present())
        .collect();
    if !missing.is_empty() {
        install(&missing, consent)?;
    }
    if needs.contains(&Need::Build) {
        linker::ensure(root)?;
    }
    if needs.contains(&Need::Check) {
        components()?;
    }
    Ok(())
}

/// `$XDG_CACHE_HOME/holdfast`, or below the home folder.
pub(crate) fn cache() -> Option<PathBuf> {
    env::var_os("XDG_CACHE_HOME")
        .filter(|cache| !cache.is_empty())
        .map(PathBuf::from)
        .or_else(|| Some(PathBuf::from(env::var_os("HOME")?).join(".cache")))
        .map(|cache| cache.join("holdfast"))
}

fn install(missing: &[&Package], consent: Consent) -> anyhow::Result<()> {
    eprintln!("Missing on this machine:");
    for package in missing {
        eprintln!("  {:<26} {}", package.name, package.why);
    }
    let names: Vec<&str> = missing.iter().map(|package| package.name).collect();
    let release = fs::read_to_string("/etc/os-release").unwrap_or_default();
    if !is_supported(&release) {
        return Err(Unfit(format!(
            "xtask installs packages on Debian 12 and 13 alone; install what these Debian \
             packages bring by other means: {}",
            names.join(" ")
        ))
        .into());
    }
    refuse_conflicts(missing)?;
    agree(consent)?;

    if !all_known(&names)? {
        shell::run(shell::as_root("apt-get").args(["-q", "update"]))?;
    }
    let mut apt = shell::as_root("env");
    apt.args(["DEBIAN_FRONTEND=noninteractive", "apt-get", "-qq", "-y", "--no-remove"]);
    shell::run(apt.args(["--no-install-recommends", "install"]).args(&names))?;

    let absent: Vec<_> = missing.iter().filter(|p| !p.present()).map(|p| p.name).collect();
    if !absent.is_empty() {
        bail!("installed, but what they should bring is not there: {}", absent.join(" "));
    }
    Ok(())
}

/// Debian 12 and 13, by os-release(5).
fn is_supported(os_release: &str) -> bool {
    let value = |key: &str| {
        os_release
            .lines()
            .find_map(|line| line.strip_prefix(key)?.strip_prefix('='))
            .map(|value| value.trim_matches('"'))
    };
    value("ID") == Some("debian") && matches!(value("VERSION_ID"), Some("12" | "13"))
}

/// Debian's `rustc` and `rustup` packages cannot stand beside `rustc-web`: apt would remove them.
fn refuse_conflicts(missing: &[&Package]) -> anyhow::Result<()> {
    let mut message = String::new();
    for package in missing {
        for other in package.conflicts.iter().filter(|other| dpkg_installed(other)) {
            let _ = writeln!(message, "{} conflicts with the installed {other}.", package.name);
        }
    }
    if message.is_empty() {
        return Ok(());
    }
    Err(Unfit(format!(
        "{message}Nothing was changed. Either remove those packages and install Rust with the rustup \
         installer, which lives in your home folder, or give rustup a nightly with the sources of \
         core: rustup toolchain install nightly --component rust-src"
    ))
    .into())
}

fn agree(consent: Consent) -> anyhow::Result<()> {
    if consent == Consent::Given {
        return Ok(());
    }
    if !stdin().is_terminal() {
        return Err(Unfit("packages are missing and nobody can be asked: give --yes".into()).into());
    }
    eprint!("Install them with apt-get{}? [Y/n] ", if shell::is_root() { "" } else { " (sudo)" });
    std::io::stderr().flush()?;
    let mut answer = String::new();
    stdin().read_line(&mut answer).context("read the answer")?;
    match answer.trim() {
        "" | "y" | "Y" | "yes" => Ok(()),
        _ => Err(Unfit("nothing was installed".into()).into()),
    }
}

/// Whether apt's lists know a version of each package.
fn all_known(names: &[&str]) -> anyhow::Result<bool> {
    let policy = shell::output(Command::new("apt-cache").arg("policy").args(names))?;
    let candidates = policy
        .lines()
        .filter_map(|line| line.trim().strip_prefix("Candidate: "))
        .filter(|candidate| *candidate != "(none)")
        .count();
    Ok(candidates == names.len())
}

/// rustfmt and clippy, which a minimal rustup profile lacks.
fn components() -> anyhow::Result<()> {
    for (program, component) in [("cargo-fmt", "rustfmt"), ("cargo-clippy", "clippy")] {
        let present = shell::find(program).is_some()
            && shell::output(Command::new(program).arg("--version")).is_ok();
        if present {
            continue;
        }
        if shell::find("rustup").is_none() {
            return Err(
                Unfit(format!("{program} is missing and there is no rustup to add it")).into()
            );
        }
        eprintln!("Missing: {component}, for cargo xtask check");
        shell::run(Command::new("rustup").args(["component", "add", component]))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debian_12_and_13_are_supported_and_nothing_else_is() {
        assert!(is_supported("ID=debian\nVERSION_ID=\"12\"\n"));
        assert!(is_supported("VERSION_ID=\"13\"\nID=debian\n"));
        assert!(!is_supported("ID=debian\nVERSION_ID=\"11\"\n"));
        assert!(!is_supported("ID=ubuntu\nID_LIKE=debian\nVERSION_ID=\"12\"\n"));
        assert!(!is_supported("ID=debian\n"));
        assert!(!is_supported(""));
    }

    #[test]
    fn every_package_says_why_and_stands_once() {
        for (index, package) in PACKAGES.iter().enumerate() {
            assert!(package.why.len() > 10, "{}", package.name);
            assert!(!PACKAGES[..index].iter().any(|other| other.name == package.name));
        }
    }
}
