//! `holdfast isolate`, `release` and `isolation`: cutting this host off and letting it go.
//!
//! The agent does it, but for `release --without-agent` and `isolation restore`, which root runs
//! where no agent is.

use std::path::Path;

use holdfast_common::control::{IsolationState, Reply, Request};

use super::arguments::{Isolate, Isolation, Release};
use super::out::Tone;
use super::text::{local_time, safe, size};
use super::{CliError, Session, parse_limit, unexpected};
use crate::config::Config;
use crate::isolate::{self, IsolateError};

/// Cuts the host off.
pub(super) fn isolate(session: &mut Session, asked: Isolate) -> Result<u8, CliError> {
    let duration_s = asked.limit.as_deref().map(parse_limit).transpose()?;
    show(session, &Request::Isolate { reason: asked.reason, duration_s })
}

/// Lets it go.
pub(super) fn release(session: &mut Session, asked: Release) -> Result<u8, CliError> {
    if !asked.without_agent {
        return show(session, &Request::Release { reason: asked.reason });
    }
    let stood = isolate::release_without_agent(&load(&asked.config)?).map_err(failed)?;
    let said = if stood { "The host is released." } else { "The host was not cut off." };
    if session.out.json {
        session.out.json(&serde_json::json!({ "released": stood }))?;
    } else {
        session.out.line(said)?;
    }
    Ok(0)
}

/// `holdfast isolation …`
pub(super) fn isolation(session: &mut Session, command: Isolation) -> Result<u8, CliError> {
    match command {
        Isolation::Status => show(session, &Request::IsolationStatus),
        Isolation::Restore { config, stay } => {
            let ready = || {
                // Nobody listens outside systemd.
                let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
            };
            let cut = isolate::restore(&load(&config)?, stay, ready).map_err(failed)?;
            if session.out.json {
                session.out.json(&serde_json::json!({ "isolated": cut }))?;
            } else if cut {
                session.out.line("The host is cut off again.")?;
            }
            Ok(0)
        }
    }
}

fn load(config: &Path) -> Result<Config, CliError> {
    Config::load(config).map_err(|error| CliError::Data(crate::error_chain(&error)))
}

fn failed(error: IsolateError) -> CliError {
    CliError::Failed(crate::error_chain(&error))
}

fn show(session: &mut Session, request: &Request) -> Result<u8, CliError> {
    for reply in session.all(request)? {
        let Reply::Isolation(state) = reply else { return Err(unexpected(&reply)) };
        if session.out.json {
            session.out.json(&state)?;
        } else {
            print(session, &state)?;
        }
    }
    Ok(0)
}

fn print(session: &mut Session, state: &IsolationState) -> Result<(), CliError> {
    let out = &mut session.out;
    if !state.isolated {
        out.line("not isolated")?;
        for warning in &state.warnings {
            let warning = out.paint(Tone::Bad, &format!("WARNING  {}", safe(warning)));
            out.line(&warning)?;
        }
        return Ok(());
    }
    let isolated = out.paint(Tone::Bad, "ISOLATED");
    out.line(&isolated)?;
    for warning in &state.warnings {
        let warning = out.paint(Tone::Bad, &format!("WARNING  {}", safe(warning)));
        out.line(&warning)?;
    }
    let none = || "nothing".to_owned();
    let list = |all: &[String]| if all.is_empty() { none() } else { all.join(", ") };
    let proven = if state.proven { "it answered under the rules" } else { "NOT PROVEN" };
    let facts = [
        ("since", state.since_ms.map(local_time).unwrap_or_default()),
        ("until", state.until_ms.map_or_else(|| "it is released".to_owned(), local_time)),
        ("reason", state.reason.clone()),
        ("reachable", format!("{} ({proven})", list(&state.allowed))),
        ("DHCP servers", list(&state.dhcp)),
    ];
    for (name, value) in &facts {
        out.line(&format!("{name:12}  {}", safe(value)))?;
    }
    out.line("")?;
    let layers = state.layers.iter().map(|layer| {
        let standing = if layer.standing { "yes" } else { "NO" };
        [&layer.name, &layer.mechanism, standing, &layer.note].map(ToString::to_string).to_vec()
    });
    out.table(&["LAYER", "BY", "STANDS", "NOTE"], &layers.collect::<Vec<_>>())?;
    out.line("")?;
    let counts = state.counts.iter().map(|count| {
        let what = if count.dropped { "dropped" } else { "let through" };
        let mut row = [&count.at, &count.reason, what].map(ToString::to_string).to_vec();
        row.extend([count.packets.to_string(), size(count.bytes)]);
        row
    });
    Ok(out.table(&["AT", "REASON", "WHAT", "PACKETS", "BYTES"], &counts.collect::<Vec<_>>())?)
}
