//! `holdfast deny`: what is denied on this host by order, whoever ordered it.

use holdfast_common::control::{Reply, Request};
use holdfast_common::denial::DenialKind;

use super::arguments::Deny;
use super::out::Tone;
use super::text::{local_time, safe};
use super::{CliError, Session, parse_limit, unexpected};

pub(super) fn deny(session: &mut Session, command: Deny) -> Result<u8, CliError> {
    let request = match command {
        Deny::List => return list(session),
        Deny::Hash { sha256, reason, limit } => {
            order(DenialKind::Hash, sha256, &reason, limit.as_deref())?
        }
        Deny::Path { path, reason, limit } => {
            order(DenialKind::Path, path, &reason, limit.as_deref())?
        }
        Deny::Remove { value } => {
            // A path begins with a slash, and a hash has none.
            let path = value.starts_with('/');
            let kind = if path { DenialKind::Path } else { DenialKind::Hash };
            Request::Undeny { kind, value }
        }
    };
    session.all(&request)?;
    Ok(0)
}

fn order(
    kind: DenialKind,
    value: String,
    reason: &str,
    limit: Option<&str>,
) -> Result<Request, CliError> {
    let duration_s = limit.map(parse_limit).transpose()?;
    let reason = format!("root on this host: {reason}");
    Ok(Request::Deny { kind, value, reason, duration_s })
}

fn list(session: &mut Session) -> Result<u8, CliError> {
    let mut rows = Vec::new();
    for reply in session.all(&Request::DenialList)? {
        let Reply::Denial(line) = reply else { return Err(unexpected(&reply)) };
        if session.out.json {
            session.out.json(&line)?;
            continue;
        }
        let denial = line.denial;
        if let Some(why) = line.refused {
            let text = format!("NOT IN FORCE  {}: {why}", denial.value);
            let text = session.out.paint(Tone::Bad, &safe(&text));
            session.out.line(&text)?;
        }
        let whose = if denial.id.is_some() { "manager" } else { "this host" };
        rows.push(vec![
            local_time(denial.since_ms),
            denial.until_ms.map_or_else(|| "-".to_owned(), local_time),
            denial.kind.name().to_owned(),
            denial.value,
            whose.to_owned(),
            denial.why,
        ]);
    }
    if !session.out.json {
        session.out.table(&["SINCE", "UNTIL", "KIND", "VALUE", "BY", "WHY"], &rows)?;
    }
    Ok(0)
}
