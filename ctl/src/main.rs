//! `holdfast-ctl`, the command line of a manager.
//!
//! ```text
//!  arguments (what can be asked) ─▶ a module for each noun ─▶ client (REST) ─▶ manager
//!                                             └─▶ out (tables, JSON lines)
//! ```
//!
//! INVARIANT: nothing that came from the manager is printed but through [`out`], which lets no
//! control character through; the one exception is a terminal ([`shell`]). Decides nothing: what may be done is the manager's word.

mod accounts;
mod alerts;
mod arguments;
mod client;
mod denials;
mod events;
mod hosts;
mod live;
mod out;
mod pages;
mod policies;
mod quarantine;
mod raw;
mod secret;
mod session;
mod shell;
mod tasks;
mod trust;

use std::io::{self, Write};
use std::process::ExitCode;

use clap::Parser;
use holdfast_common::text;

use crate::arguments::{Arguments, Command};
use crate::client::Client;
use crate::out::Out;

/// Wrong usage (`EX_USAGE` of sysexits.h).
const USAGE: u8 = 64;
/// A file that is not what it should be (`EX_CONFIG`).
const DATA: u8 = 78;
/// A task did not end within the time that was given for it.
const UNDER_WAY: u8 = 2;

/// Why a command ends without success.
#[derive(Debug, thiserror::Error)]
enum CtlError {
    /// The arguments cannot be meant.
    #[error("{0}")]
    Usage(String),
    /// A token, certificate or other file that was given is not what it should be.
    #[error("{0}")]
    Data(String),
    /// Nobody answers, or not who was meant.
    #[error("cannot reach the manager at {manager}: {why}")]
    Unreachable {
        /// As it was given.
        manager: String,
        /// Why, with what to do.
        why: String,
    },
    /// The manager refuses.
    #[error("{0}")]
    Refused(client::Problem),
    /// Something else went wrong.
    #[error("{0}")]
    Failed(String),
    /// Standard output is gone.
    #[error("cannot write the output: {0}")]
    Output(#[from] io::Error),
}

/// What a command needs.
struct Session {
    client: Client,
    out: Out,
}

fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { USAGE } else { 0 });
        }
    };
    match start(arguments) {
        Ok(code) => ExitCode::from(code),
        // `holdfast-ctl events list | head`
        Err(CtlError::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => {
            ExitCode::FAILURE
        }
        Err(error) => {
            let _ = writeln!(io::stderr(), "holdfast-ctl: {}", text::safe(&error.to_string()));
            ExitCode::from(match error {
                CtlError::Usage(_) => USAGE,
                CtlError::Data(_) => DATA,
                CtlError::Unreachable { .. }
                | CtlError::Refused(_)
                | CtlError::Failed(_)
                | CtlError::Output(_) => 1,
            })
        }
    }
}

fn start(arguments: Arguments) -> Result<u8, CtlError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| CtlError::Failed(error.to_string()))?;
    let out = Out::stdout(arguments.json);
    let client = Client::new(&arguments.place)?;
    let mut session = Session { client, out };
    runtime.block_on(run(&mut session, arguments.command))
}

async fn run(session: &mut Session, command: Command) -> Result<u8, CtlError> {
    match command {
        Command::SignIn { user, save } => session::sign_in(session, &user, save.as_deref()).await,
        Command::SignOut => session::sign_out(session).await,
        Command::Whoami => session::whoami(session).await,
        Command::Password => session::password(session).await,
        Command::Quarantine(command) => quarantine::quarantine(session, command).await,
        Command::Hosts(command) => hosts::hosts(session, command).await,
        Command::Alerts(command) => alerts::alerts(session, command).await,
        Command::Events(command) => events::events(session, command).await,
        Command::Search(search) => events::list(session, search).await,
        Command::Tasks(command) => tasks::tasks(session, command).await,
        Command::Denials(command) => denials::denials(session, command).await,
        Command::Shell(wanted) => shell::shell(session, wanted).await,
        Command::Shells(command) => shell::shells(session, command).await,
        Command::Policies(command) => policies::policies(session, command).await,
        Command::Users(command) => accounts::users(session, command).await,
        Command::ApiTokens(command) => accounts::api_tokens(session, command).await,
        Command::EnrollmentTokens(command) => accounts::enrollment_tokens(session, command).await,
        Command::Audit { period, limit } => accounts::audit(session, &period, limit).await,
        Command::Api { method, path, data, output, force } => {
            let output = output.map(|path| (path, force));
            raw::raw(session, &method, &path, data.as_deref(), output).await
        }
    }
}
