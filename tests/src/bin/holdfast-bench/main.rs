//! The benches of `cargo xtask bench`: ratios measured in one run on one scratch file system.
//!
//! A figure is never asserted here: it is printed, and written to `--json FILE`. What is compared
//! runs in turns, round by round, and the median of the rounds' ratios counts, since the machine
//! is noisy.

mod clam;
mod console;
mod figures;
mod isolation;
mod listener;
mod manager;
mod on_access;
mod sensor;
mod sigma;
mod workload;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Result, bail};

const USAGE: &str = "usage: holdfast-bench on-access|sensor|manager|console [--json FILE] [--rounds N] [--only PART]";

fn main() -> ExitCode {
    match run(std::env::args().skip(1).collect()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("holdfast-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: Vec<String>) -> Result<()> {
    let mut arguments = arguments.into_iter();
    match arguments.next().as_deref() {
        Some(name @ ("on-access" | "sensor" | "manager" | "console")) => {
            let parts = match name {
                "sensor" => sensor::PARTS,
                "manager" => manager::PARTS,
                "console" => console::PARTS,
                _ => &[],
            };
            let options = Options::parse(arguments, parts)?;
            holdfast_tests::require_root();
            let only = options.only.as_deref();
            let figures = match name {
                "sensor" => sensor::run(options.rounds, only)?,
                "manager" => manager::run(options.rounds, only)?,
                "console" => console::run(options.rounds, only)?,
                _ => on_access::run(options.rounds)?,
            };
            figures.print();
            figures.write(options.json.as_deref())
        }
        // The senders of the isolation bench.
        Some("flood") => isolation::send_all_the_time(&arguments.next().unwrap_or_default()),
        // The process that the bench compares with: see `listener`.
        Some("listener") => match (arguments.next(), arguments.next()) {
            (Some(path), marks) => listener::run(&PathBuf::from(path), marks.is_some()),
            (None, _) => bail!(USAGE),
        },
        _ => bail!(USAGE),
    }
}

struct Options {
    json: Option<PathBuf>,
    rounds: usize,
    only: Option<String>,
}

impl Options {
    fn parse(mut arguments: impl Iterator<Item = String>, parts: &[&str]) -> Result<Self> {
        let mut options = Self { json: None, rounds: 5, only: None };
        while let Some(argument) = arguments.next() {
            match (argument.as_str(), arguments.next()) {
                ("--json", Some(file)) => options.json = Some(file.into()),
                ("--rounds", Some(rounds)) => options.rounds = rounds.parse()?,
                ("--only", Some(part)) if parts.contains(&part.as_str()) => {
                    options.only = Some(part);
                }
                ("--only", _) => bail!("--only: one of {parts:?}\n{USAGE}"),
                _ => bail!(USAGE),
            }
        }
        if options.rounds == 0 {
            bail!("--rounds: at least one");
        }
        Ok(options)
    }
}
