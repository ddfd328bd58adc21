//! `holdfast models`: lists, switches and suppresses detection models.

use holdfast_common::control::{ModelState, Reply, Request, Suppression};

use super::arguments::{Models, Suppressions};
use super::text::{local_time, parse_since, safe};
use super::{CliError, Session, unexpected};

pub(super) fn models(session: &mut Session, command: Models) -> Result<u8, CliError> {
    match command {
        Models::List => list(session),
        Models::Enable { model } => switch_model(session, &model, true),
        Models::Disable { model } => switch_model(session, &model, false),
        Models::Suppress { model, what, span, reason } => {
            suppress(session, &model, &what, &span, reason)
        }
        Models::Suppressions(Suppressions::List) => suppressions(session),
        Models::Suppressions(Suppressions::Remove { id }) => remove(session, &id),
    }
}

/// Prints all models.
fn list(session: &mut Session) -> Result<u8, CliError> {
    let models = ask_models(session)?;
    if session.out.json {
        for model in &models {
            session.out.json(model)?;
        }
        return Ok(0);
    }
    let rows: Vec<_> = models
        .iter()
        .map(|model| {
            let fires = if model.can_fire {
                "yes".into()
            } else {
                format!("NO: {}", model.why_not.as_deref().unwrap_or("no reason given"))
            };
            vec![
                model.title.clone(),
                if model.enabled { "on" } else { "OFF" }.into(),
                model.level.clone(),
                model.attack.join(" "),
                fires,
                model.response.clone(),
                model.fired.to_string(),
                model.last_fired_ms.map(local_time).unwrap_or_default(),
                model.id.to_string(),
            ]
        })
        .collect();
    let header =
        ["MODEL", "STATE", "LEVEL", "ATT&CK", "CAN FIRE", "RESPONSE", "FIRED", "LAST", "ID"];
    session.out.table(&header, &rows)?;
    Ok(0)
}

fn ask_models(session: &Session) -> Result<Vec<ModelState>, CliError> {
    let model = |reply| match reply {
        Reply::Model(model) => Ok(model),
        reply => Err(unexpected(&reply)),
    };
    session.all(&Request::ModelList)?.into_iter().map(model).collect()
}

/// Switches one model.
fn switch_model(session: &mut Session, wanted: &str, enabled: bool) -> Result<u8, CliError> {
    let models = ask_models(session)?;
    let model = find_model(&models, wanted)?.id.to_string();
    for reply in session.all(&Request::ModelSwitch { model, enabled })? {
        let Reply::Model(model) = reply else { return Err(unexpected(&reply)) };
        if session.out.json {
            session.out.json(&model)?;
        } else {
            let state = if model.enabled { "on" } else { "off" };
            session.out.line(&format!("{}: {state}", safe(&model.title)))?;
        }
    }
    Ok(0)
}

/// By id, title, or a beginning of the id that fits one model alone.
fn find_model<'a>(models: &'a [ModelState], wanted: &str) -> Result<&'a ModelState, CliError> {
    let exact = models.iter().find(|model| {
        model.title.eq_ignore_ascii_case(wanted)
            || model.id.to_string().eq_ignore_ascii_case(wanted)
    });
    if let Some(model) = exact {
        return Ok(model);
    }
    let prefix = wanted.to_ascii_lowercase();
    let mut fitting = models
        .iter()
        .filter(|model| !prefix.is_empty() && model.id.to_string().starts_with(&prefix));
    match (fitting.next(), fitting.next()) {
        (Some(model), None) => Ok(model),
        (None, _) => Err(CliError::Failed(format!("there is no model {wanted:?}"))),
        (Some(_), Some(_)) => {
            Err(CliError::Failed(format!("{wanted:?} fits several models; give more of the id")))
        }
    }
}

/// Keeps a model from firing for a while.
fn suppress(
    session: &mut Session,
    wanted: &str,
    what: &str,
    span: &str,
    reason: String,
) -> Result<u8, CliError> {
    let wrong = |message: String| CliError::Usage(message);
    let (field, value) =
        what.split_once('=').ok_or_else(|| wrong(format!("{what:?} is not FIELD=VALUE")))?;
    let now = crate::now_ms();
    // A span back from now, turned around.
    let since = parse_since(span, now).map_err(wrong)?;
    if since >= now || since == 0 || !span.trim().ends_with(['s', 'm', 'h', 'd', 'w']) {
        return Err(wrong(format!("{span:?} is not a span such as 30m, 2h or 7d")));
    }
    let models = ask_models(session)?;
    let model = find_model(&models, wanted)?.id.to_string();
    let request = Request::ModelSuppress {
        model,
        field: field.to_owned(),
        value: value.to_owned(),
        until_ms: now.saturating_add(now - since),
        reason,
    };
    for reply in session.all(&request)? {
        let Reply::Suppression(new) = reply else { return Err(unexpected(&reply)) };
        if session.out.json {
            session.out.json(&new)?;
        } else {
            let until = local_time(new.until_ms);
            session.out.line(&format!("{}: suppressed until {until}", new.id))?;
        }
    }
    Ok(0)
}

fn ask_suppressions(session: &Session) -> Result<Vec<Suppression>, CliError> {
    let one = |reply| match reply {
        Reply::Suppression(one) => Ok(one),
        reply => Err(unexpected(&reply)),
    };
    session.all(&Request::SuppressionList)?.into_iter().map(one).collect()
}

fn suppressions(session: &mut Session) -> Result<u8, CliError> {
    let standing = ask_suppressions(session)?;
    if session.out.json {
        for one in &standing {
            session.out.json(one)?;
        }
        return Ok(0);
    }
    let models = ask_models(session)?;
    let rows: Vec<_> = standing
        .iter()
        .map(|one| {
            let model = models.iter().find(|model| model.id == one.model);
            vec![
                model.map_or_else(|| one.model.to_string(), |model| model.title.clone()),
                format!("{}={}", one.field, one.value),
                local_time(one.until_ms),
                one.kept_back.to_string(),
                one.reason.clone(),
                one.id.to_string(),
            ]
        })
        .collect();
    session.out.table(&["MODEL", "FIELD", "UNTIL", "KEPT BACK", "REASON", "ID"], &rows)?;
    Ok(0)
}

fn remove(session: &mut Session, wanted: &str) -> Result<u8, CliError> {
    let standing = ask_suppressions(session)?;
    let wanted = wanted.to_ascii_lowercase();
    let mut fitting =
        standing.iter().filter(|one| !wanted.is_empty() && one.id.to_string().starts_with(&wanted));
    let id = match (fitting.next(), fitting.next()) {
        (Some(one), None) => one.id,
        (None, _) => return Err(CliError::Failed(format!("there is no suppression {wanted:?}"))),
        (Some(_), Some(_)) => {
            let message = format!("{wanted:?} fits several suppressions; give more of the id");
            return Err(CliError::Failed(message));
        }
    };
    session.all(&Request::SuppressionRemove { id })?;
    if session.out.json {
        session.out.json(&serde_json::json!({ "removed": id }))?;
    } else {
        session.out.line(&safe(&format!("{id}: ended")))?;
    }
    Ok(0)
}
