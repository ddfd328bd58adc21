//! `manager`: what one manager takes, and how soon it acts.
//!
//! The manager is the real `holdfast-manager serve` in a process of its own, set up as a user does
//! it. INVARIANT: nothing of this machine's own network is cut off; isolation happens in a lab.
//! Simulated agents and the load that is sent run in this process, on the same processors as the
//! manager: a figure is what both together reach.

mod agents;
mod content;
mod count;
mod events;
mod fleet;
mod respond;
mod rest;
mod search;
mod serve;

use anyhow::{Context, Result};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::runtime::Runtime;

use crate::figures::Figures;

/// What `--only` takes, in their order.
pub const PARTS: &[&str] =
    &["alert", "isolate", "collect", "agents", "sqlite", "postgres", "search"];

/// Runs the bench, or one part of it. Rounds and sizes are fixed but for `rounds`, of which each
/// of the ingest parts makes so many and tells the median.
///
/// # Errors
/// When something does not start or does not come.
pub fn run(rounds: usize, only: Option<&str>) -> Result<Figures> {
    let mut figures = Figures::default();
    descriptors()?;
    let runtime = Runtime::new().context("start the runtime")?;
    for part in PARTS.iter().filter(|part| only.is_none_or(|only| only == **part)) {
        eprintln!("{part}");
        match *part {
            "alert" => runtime.block_on(respond::alert(&mut figures))?,
            "isolate" => runtime.block_on(respond::isolate(&mut figures))?,
            "collect" => runtime.block_on(respond::collect(&mut figures))?,
            "agents" => runtime.block_on(agents::measure(&mut figures))?,
            "sqlite" => runtime.block_on(events::sqlite(rounds, &mut figures))?,
            "postgres" => runtime.block_on(events::postgres(rounds, &mut figures))?,
            _ => runtime.block_on(search::measure(&mut figures))?,
        }
    }
    Ok(figures)
}

/// As many descriptors as this process and those that it starts may have.
fn descriptors() -> Result<()> {
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
    Ok(setrlimit(Resource::RLIMIT_NOFILE, most, most)?)
}

/// Milliseconds since the epoch.
fn now_ms() -> i64 {
    holdfast_manager::app::now_ms()
}
