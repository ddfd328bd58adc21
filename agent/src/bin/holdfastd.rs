//! The agent's daemon: see `holdfast_agent::daemon`.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;

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
    let mut line = std::env::args_os().skip(1);
    match line.next() {
        Some(word) if word == holdfast_agent::prove::PROBE => {
            return holdfast_agent::prove::probe_main(line);
        }
        Some(word) if word == holdfast_agent::guard::TRIAL => {
            return holdfast_agent::guard::trial_main(line);
        }
        Some(word) if word == holdfast_agent::shell::LEADER => {
            return holdfast_agent::shell::leader_main(line);
        }
        Some(_) | None => {}
    }
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            // Nothing to do when even standard error is gone.
            let _ = error.print();
            return if error.use_stderr() { ExitCode::from(64) } else { ExitCode::SUCCESS };
        }
    };
    if let Err(error) = holdfast_agent::daemon::log::start() {
        eprintln!("holdfastd: cannot start the log: {error}");
        return ExitCode::FAILURE;
    }
    holdfast_agent::daemon::main(&arguments.config)
}
