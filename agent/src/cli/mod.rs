//! `holdfast`, the operator's command line.
//!
//! Each command asks the agent over its socket ([`crate::control::client`]) and prints; none
//! decides anything. [`text`] keeps hostile names from the terminal, [`out`] prints.

mod arguments;
mod denials;
mod enroll;
mod events;
mod isolation;
mod metrics;
mod models;
mod out;
mod policy;
mod quarantine;
mod scan;
mod scans;
mod simulate;
mod state;
mod unseal;

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use holdfast_common::control::{Reply, Request};
use holdfast_common::task::LONGEST_S;
use holdfast_common::text;

use crate::control::Client;
use crate::control::client::ClientError;
use arguments::{Arguments, Bundle, Command};
use out::Out;

/// Wrong usage (`EX_USAGE` of sysexits.h).
const USAGE: u8 = 64;
/// A key or container that is not one (`EX_CONFIG`).
const DATA: u8 = 78;

/// Why a command ends without success.
#[derive(Debug, thiserror::Error)]
enum CliError {
    /// The agent did not do it.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The arguments cannot be meant.
    #[error("{0}")]
    Usage(String),
    /// A file that was given is not what it should be.
    #[error("{0}")]
    Data(String),
    /// Something else went wrong.
    #[error("{0}")]
    Failed(String),
    /// Standard output is gone.
    #[error("cannot write the output: {0}")]
    Output(#[from] io::Error),
}

/// What a command needs.
struct Session {
    socket: PathBuf,
    out: Out,
}

impl Session {
    fn ask(&self, request: &Request) -> Result<Client, ClientError> {
        Client::ask(&self.socket, request)
    }

    /// All replies to a request.
    fn all(&self, request: &Request) -> Result<Vec<Reply>, ClientError> {
        let mut client = self.ask(request)?;
        let mut replies = Vec::new();
        while let Some(reply) = client.next_reply()? {
            replies.push(reply);
        }
        Ok(replies)
    }
}

/// Runs the command line of this process.
#[must_use]
pub fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { USAGE } else { 0 });
        }
    };
    let mut session = Session { socket: arguments.socket, out: Out::stdout(arguments.json) };
    // A scan that fails exits 2, since 1 says that something was found.
    let failure = if matches!(arguments.command, Command::Scan(_)) { scan::ERROR } else { 1 };
    match run(&mut session, arguments.command) {
        Ok(code) => ExitCode::from(code),
        // `holdfast events | head`
        Err(CliError::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => {
            ExitCode::from(failure)
        }
        Err(error) => {
            let _ = writeln!(io::stderr(), "holdfast: {}", text::safe(&error.to_string()));
            ExitCode::from(match error {
                CliError::Usage(_) => USAGE,
                CliError::Data(_) => DATA,
                CliError::Client(_) | CliError::Failed(_) | CliError::Output(_) => failure,
            })
        }
    }
}

fn run(session: &mut Session, command: Command) -> Result<u8, CliError> {
    match command {
        Command::Status => state::status(session),
        Command::Metrics => metrics::metrics(session),
        Command::Doctor => state::doctor(session),
        Command::Scan(order) => scan::scan(session, &order),
        Command::Scans(command) => scans::scans(session, command),
        Command::Events(events) => events::events(session, events),
        Command::Quarantine(command) => quarantine::quarantine(session, command),
        Command::Models(command) => models::models(session, command),
        Command::Simulate(command) => simulate::simulate(session, command),
        Command::Bundle(Bundle::Reload) => state::reload(session),
        Command::Policy { document } => policy::policy(session, document),
        Command::Deny(command) => denials::deny(session, command),
        Command::Isolate(isolate) => isolation::isolate(session, isolate),
        Command::Release(release) => isolation::release(session, release),
        Command::Isolation(command) => isolation::isolation(session, command),
        Command::Enroll(enroll) => enroll::enroll(session, enroll),
    }
}

/// The agent sent something else than the request asks for.
fn unexpected(reply: &Reply) -> CliError {
    let json = text::json_line(reply).unwrap_or_default();
    CliError::Failed(format!("the agent answers {json:.200}; do the versions match?"))
}

/// Seconds of `--for`: `45s`, `30m`, `2h`, `3d`.
fn parse_limit(text: &str) -> Result<u64, CliError> {
    let wrong = || CliError::Usage(format!("{text:?} is no time such as 45s, 30m, 2h or 3d"));
    match text::span_s(text).ok_or_else(wrong)? {
        seconds @ 1..=LONGEST_S => Ok(seconds),
        _ => Err(CliError::Usage(format!("{text:?} is not between 1s and 366d"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_spans_of_a_second_to_a_year() {
        for (text, seconds) in [("45s", 45), ("30m", 1800), ("2h", 7200), ("366d", LONGEST_S)] {
            assert_eq!(parse_limit(text).ok(), Some(seconds), "{text}");
        }
        for bad in
            ["", "h", "2", "0s", "-2h", "2 h", "2x", "1.5h", "367d", "99999999999999999d", "é"]
        {
            assert!(parse_limit(bad).is_err(), "{bad}");
        }
    }
}
