//! `holdfast enroll`: this host gets its certificate from a manager.
//!
//! The agent does it where one runs, so that the state folder has one writer; else this process
//! does, and the agent finds the identity when it starts.

use std::io::BufRead;
use std::os::unix::fs::DirBuilderExt;

use holdfast_common::control::{Reply, Request};

use super::arguments::Enroll;
use super::text::safe;
use super::{CliError, Session, unexpected};
use crate::config::Config;
use crate::control::client::ClientError;
use crate::report::{self, Invitation};

/// Longest token on standard input, bytes.
const LONGEST: u64 = 4096;

pub(super) fn enroll(session: &mut Session, asked: Enroll) -> Result<u8, CliError> {
    let token = match asked.token.as_str() {
        "-" => {
            let mut line = String::new();
            let mut input = std::io::Read::take(std::io::stdin().lock(), LONGEST);
            input.read_line(&mut line).map_err(|error| CliError::Failed(error.to_string()))?;
            line.trim().to_owned()
        }
        token => token.to_owned(),
    };
    let request = Request::Enroll {
        manager: asked.manager.clone(),
        token: token.clone(),
        fingerprint: asked.ca_fingerprint.clone(),
        proxy: asked.proxy.clone(),
    };
    let host = match session.all(&request) {
        Ok(replies) => match replies.as_slice() {
            [Reply::Enrolled { host }] => host.clone(),
            [other, ..] => return Err(unexpected(other)),
            [] => return Err(CliError::Failed("the agent does not answer".to_owned())),
        },
        Err(ClientError::Unreachable { .. }) => {
            let config = Config::load(&asked.config)
                .map_err(|error| CliError::Data(crate::error_chain(&error)))?;
            let mut folder = std::fs::DirBuilder::new();
            folder.recursive(true).mode(0o700).create(&config.state_dir)?;
            let Enroll { manager, ca_fingerprint: fingerprint, proxy, .. } = asked;
            let invitation = Invitation { manager, token, fingerprint, proxy };
            report::enroll(&config.state_dir, &invitation)
                .map_err(|error| CliError::Failed(crate::error_chain(&error)))?
        }
        Err(error) => return Err(error.into()),
    };
    if session.out.json {
        session.out.json(&serde_json::json!({ "enrolled": true, "host": host }))?;
    } else {
        session.out.line(&format!("This host is enrolled as {}.", safe(&host)))?;
    }
    Ok(0)
}
