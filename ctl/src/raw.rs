//! `holdfast-ctl api`: any request, for what has no command of its own.

use std::io::Read;
use std::path::{Path, PathBuf};

use reqwest::Method;
use serde_json::Value;

use crate::{CtlError, Session, tasks};

/// Longest body that is sent, bytes.
const LONGEST: u64 = 1 << 20;

pub(crate) async fn raw(
    session: &mut Session,
    method: &str,
    path: &str,
    data: Option<&Path>,
    output: Option<(PathBuf, bool)>,
) -> Result<u8, CtlError> {
    let method = match method.to_ascii_uppercase().as_str() {
        "GET" => Method::GET,
        "POST" => Method::POST,
        "PATCH" => Method::PATCH,
        "PUT" => Method::PUT,
        "DELETE" => Method::DELETE,
        other => return Err(CtlError::Usage(format!("{other:?} is no method"))),
    };
    let body = data.map(read).transpose()?;
    if let Some((file, force)) = output {
        let file = tasks::file::Target::new(&file, force)?;
        let response = session.client.open(method, path, body.as_ref()).await?;
        file.fill(session, response, None).await?;
        return Ok(0);
    }
    let response = session.client.open(method, path, body.as_ref()).await?;
    let bytes = session.client.body(response).await?;
    if bytes.is_empty() {
        return Ok(0);
    }
    if let Ok(value) = serde_json::from_slice::<Value>(&bytes) {
        session.out.json(&value)?;
        return Ok(0);
    }
    match std::str::from_utf8(&bytes) {
        Ok(text) => text.lines().try_for_each(|line| session.out.line(line))?,
        Err(_) => return Err(CtlError::Usage("the answer is no text: --output FILE".to_owned())),
    }
    Ok(0)
}

fn read(path: &Path) -> Result<Value, CtlError> {
    let wrong = |why: &dyn std::fmt::Display| CtlError::Data(format!("{}: {why}", path.display()));
    let mut bytes = Vec::new();
    let read = if path == Path::new("-") {
        std::io::stdin().lock().take(LONGEST).read_to_end(&mut bytes)
    } else {
        std::fs::File::open(path).and_then(|file| file.take(LONGEST).read_to_end(&mut bytes))
    };
    read.map_err(|error| wrong(&error))?;
    serde_json::from_slice(&bytes).map_err(|error| wrong(&error))
}
