//! The licences of everything that we link: an SPDX expression each, against an allow-list.
//!
//! An expression is accepted when the allow-list satisfies it. A package without one is refused.

use std::path::Path;

use anyhow::bail;

use super::metadata;

/// Licences that an Apache-2.0 program may link to.
const ALLOWED: &[&str] = &[
    "0BSD",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CC0-1.0",
    "ISC",
    "MIT",
    "MIT-0",
    "MPL-2.0",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
];

/// Both workspaces.
pub(super) fn check(root: &Path) -> anyhow::Result<()> {
    let mut refused = Vec::new();
    for manifest in metadata::manifests(root) {
        for package in metadata::read(&manifest)?.packages {
            let licence = package.license.as_deref().unwrap_or("(none)");
            if !satisfied(licence) {
                refused.push(format!("  {} {}: {licence}", package.name, package.version));
            }
        }
    }
    refused.sort_unstable();
    refused.dedup();
    if refused.is_empty() { Ok(()) } else { bail!("licences not allowed:\n{}", refused.join("\n")) }
}

/// Whether the allow-list satisfies an SPDX expression. `/` is the old way to write `OR`.
fn satisfied(expression: &str) -> bool {
    let spaced = expression.replace('(', " ( ").replace(')', " ) ").replace('/', " OR ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let mut rest = words.as_slice();
    // A remainder means that the expression was not understood.
    alternatives(&mut rest) == Some(true) && rest.is_empty()
}

/// `term OR term …`; `None` when malformed.
fn alternatives(words: &mut &[&str]) -> Option<bool> {
    let mut any = terms(words)?;
    while words.first() == Some(&"OR") {
        *words = &words[1..];
        any |= terms(words)?;
    }
    Some(any)
}

/// `licence AND licence …`, which binds stronger than OR.
fn terms(words: &mut &[&str]) -> Option<bool> {
    let mut all = licence(words)?;
    while words.first() == Some(&"AND") {
        *words = &words[1..];
        all &= licence(words)?;
    }
    Some(all)
}

fn licence(words: &mut &[&str]) -> Option<bool> {
    let (&first, rest) = words.split_first()?;
    *words = rest;
    match first {
        "(" => {
            let inner = alternatives(words)?;
            let (&closing, rest) = words.split_first()?;
            *words = rest;
            (closing == ")").then_some(inner)
        }
        ")" | "AND" | "OR" | "WITH" => None,
        name => {
            let mut name = name.to_owned();
            if words.first() == Some(&"WITH") {
                name = format!("{name} WITH {}", words.get(1)?);
                *words = &words[2..];
            }
            Some(ALLOWED.contains(&name.as_str()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expressions_are_evaluated_as_spdx_binds_them() {
        for allowed in [
            "MIT",
            "MIT/Apache-2.0",
            "MIT OR GPL-3.0",
            "GPL-2.0-only OR MIT AND ISC",
            "(MIT OR GPL-3.0) AND ISC",
            "Apache-2.0 WITH LLVM-exception OR GPL-3.0",
            "(Apache-2.0 OR MIT) AND Unicode-3.0",
        ] {
            assert!(satisfied(allowed), "{allowed}");
        }
        for refused in [
            "GPL-3.0",
            "MIT AND GPL-3.0",
            "(MIT OR ISC) AND AGPL-3.0",
            "GPL-3.0 WITH MIT",
            "(none)",
            "",
            "MIT MIT",
            "(MIT",
            "MIT)",
            "MIT OR",
            "OR MIT",
            "MIT WITH",
        ] {
            assert!(!satisfied(refused), "{refused}");
        }
    }
}
