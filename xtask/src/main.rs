//! `cargo xtask`: builds and runs what cargo alone cannot.

mod ebpf;

use std::path::Path;

use anyhow::{Context, Result, bail};

fn main() -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("no workspace folder")?;
    match std::env::args().nth(1).as_deref() {
        Some("ebpf") => {
            println!("{}", ebpf::build(root)?.display());
            Ok(())
        }
        other => bail!("unknown subcommand {other:?}"),
    }
}
