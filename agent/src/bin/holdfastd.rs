//! The agent's daemon: see `holdfast_agent::daemon`.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// Realtime protection for this host, in the foreground.
///
/// Ends in order on SIGTERM or SIGINT; SIGHUP loads the rule bundle again.
/// Exit status: 0 stopped, 1 failed, 64 usage, 78 the config or the state folder is wrong.
#[derive(Parser)]
#[command(
    name = "holdfastd",
    version,
    after_help = "Example:\n  holdfastd --config /etc/holdfast/holdfast.toml"
)]
struct Arguments {
    /// The local config file (TOML).
    #[arg(long, value_name = "FILE", default_value = "/etc/holdfast/holdfast.toml")]
    config: PathBuf,
}

fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            // Nothing to do when even standard error is gone.
            let _ = error.print();
            return if error.use_stderr() { ExitCode::from(64) } else { ExitCode::SUCCESS };
        }
    };
    start_log();
    holdfast_agent::daemon::main(&arguments.config)
}

/// To journald under systemd, else to standard error. `HOLDFAST_LOG` chooses what.
fn start_log() {
    let filter = tracing_subscriber::EnvFilter::try_from_env("HOLDFAST_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    let registry = tracing_subscriber::registry().with(filter);
    match std::env::var_os("JOURNAL_STREAM").and_then(|_| tracing_journald::layer().ok()) {
        Some(journald) => registry.with(journald).init(),
        None => {
            let plain = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
            registry.with(plain.with_target(false)).init();
        }
    }
}
