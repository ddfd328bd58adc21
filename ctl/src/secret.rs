//! Tokens and passwords on their way in and out.
//!
//! INVARIANT: a secret is never an argument that this program needs, and never in a file that others
//! may read.

use std::io::{self, BufRead, IsTerminal, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use reqwest::header::HeaderValue;

use crate::CtlError;
use crate::arguments::Place;

/// Longest secret, bytes.
const LONGEST: u64 = 4096;

/// The token, for `Authorization`.
pub(crate) fn token(place: &Place) -> Result<Option<HeaderValue>, CtlError> {
    // What a failed `export HOLDFAST_TOKEN=$(…)` left is no token.
    let given = place.token.as_deref().map(str::trim).filter(|token| !token.is_empty());
    let token = match (given, &place.token_file) {
        (Some(token), _) => token.to_owned(),
        (None, Some(file)) => from_file(file)?,
        (None, None) => return Ok(None),
    };
    Ok(Some(bearer(&token)?))
}

/// A token as `Authorization` has it.
pub(crate) fn bearer(token: &str) -> Result<HeaderValue, CtlError> {
    let wrong = || CtlError::Data("the token is not one: plain text, one line".to_owned());
    let plain = !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic());
    let value = HeaderValue::from_str(&format!("Bearer {token}")).ok().filter(|_| plain);
    let mut value = value.ok_or_else(wrong)?;
    value.set_sensitive(true);
    Ok(value)
}

fn from_file(path: &Path) -> Result<String, CtlError> {
    let wrong = |why: &dyn std::fmt::Display| CtlError::Data(format!("{}: {why}", path.display()));
    let file = std::fs::File::open(path).map_err(|error| wrong(&error))?;
    let facts = file.metadata().map_err(|error| wrong(&error))?;
    if facts.is_file() && facts.mode() & 0o077 != 0 {
        return Err(wrong(&"others can read this token: chmod 600"));
    }
    let mut text = String::new();
    file.take(LONGEST).read_to_string(&mut text).map_err(|error| wrong(&error))?;
    Ok(text.trim().to_owned())
}

/// Keeps a secret in a file for nobody else.
pub(crate) fn keep(path: &Path, secret: &str) -> Result<(), CtlError> {
    let failed = |error: io::Error| CtlError::Failed(format!("{}: {error}", path.display()));
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)
        .map_err(failed)?;
    // It may have been there.
    file.set_permissions(std::fs::Permissions::from_mode(0o600)).map_err(failed)?;
    writeln!(file, "{secret}").map_err(failed)
}

/// A password: asked for on a terminal, else the next line of standard input.
pub(crate) fn password(what: &str) -> Result<String, CtlError> {
    let failed = |error: io::Error| CtlError::Failed(format!("{what}: {error}"));
    if io::stdin().is_terminal() {
        return rpassword::prompt_password(format!("{what}: ")).map_err(failed);
    }
    let mut line = String::new();
    io::stdin().lock().take(LONGEST).read_line(&mut line).map_err(failed)?;
    let line = line.trim_end_matches(['\n', '\r']).to_owned();
    if line.is_empty() {
        return Err(CtlError::Usage(format!("{what}: nothing on standard input")));
    }
    Ok(line)
}

/// A new password, asked for twice on a terminal.
pub(crate) fn new_password(what: &str) -> Result<String, CtlError> {
    let new = password(what)?;
    if io::stdin().is_terminal() && password("once more")? != new {
        return Err(CtlError::Usage("these two are not the same".to_owned()));
    }
    Ok(new)
}
