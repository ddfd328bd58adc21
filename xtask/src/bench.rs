//! The benches: built, then run as root, since they mount, mark and load.
//!
//! Measures nothing itself: `holdfast-bench` (tests/src/bin/holdfast-bench) does, and prints.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};

use crate::shell;

/// `cargo xtask bench`
#[derive(Args)]
pub(crate) struct Options {
    #[command(subcommand)]
    bench: Bench,
}

/// Which one. An unknown name is a usage error.
#[derive(Subcommand)]
enum Bench {
    /// What a held open costs, beside no protection and the smallest possible listener.
    OnAccess(Measure),
    /// What watching costs and loses, and how soon it tells.
    Sensor(Measure),
    /// How soon the manager acts, and how many hosts and events it takes.
    Manager(Measure),
    /// What people wait for in front of the console.
    Console(Measure),
}

#[derive(Args)]
struct Measure {
    /// Also write {"name": value, …} to this file.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// How often everything is measured; the medians count.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: Option<u32>,
    /// Only this part of `sensor` (idle, storm, account, sniff, isolation, sigma), `manager`
    /// (alert, isolate, collect, agents, sqlite, postgres, search) or `console` (paint, alert,
    /// isolate, scroll).
    #[arg(long)]
    only: Option<String>,
}

/// One bench, to its end.
pub(crate) fn run(root: &Path, options: &Options) -> anyhow::Result<()> {
    let (name, measure) = match &options.bench {
        Bench::OnAccess(measure) => ("on-access", measure),
        Bench::Sensor(measure) => ("sensor", measure),
        Bench::Manager(measure) => ("manager", measure),
        Bench::Console(measure) => ("console", measure),
    };
    let mut bench = shell::as_root_with_environment(root.join("target/release/holdfast-bench"));
    bench.arg(name);
    if let Some(file) = &measure.json {
        bench.arg("--json").arg(file);
    }
    if let Some(rounds) = measure.rounds {
        bench.arg("--rounds").arg(rounds.to_string());
    }
    if let Some(part) = &measure.only {
        bench.arg("--only").arg(part);
    }
    shell::run(&mut bench)
}
