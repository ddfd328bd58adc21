//! `holdfast quarantine unseal`: opens a raw container on any machine, without an agent.
//!
//! The only command that reads a key. What it writes is malicious content: root-only, never
//! over another file, and gone again when the container turns out to be broken.

use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};

use super::quarantine::NewFile;
use super::text::safe;
use super::{CliError, Session};
use crate::quarantine::{self, HostKey};

pub(super) fn unseal(
    session: &mut Session,
    container: &Path,
    key: &Path,
    output: Option<PathBuf>,
) -> Result<u8, CliError> {
    let refused = |path: &Path, error: &dyn std::error::Error| {
        CliError::Data(format!("{}: {}", path.display(), chain(error)))
    };
    let key = HostKey::load(key).map_err(|error| refused(key, &error))?;
    let sealed = File::open(container).map_err(|error| refused(container, &error))?;
    let path = output.unwrap_or_else(|| {
        let mut name = container.as_os_str().to_owned();
        name.push(".content");
        name.into()
    });
    let mut file = NewFile::create(&path)?;
    let metadata = quarantine::unseal(BufReader::new(sealed), &key, &mut file.file)
        .map_err(|error| refused(container, &error))?;
    file.keep()?;
    if session.out.json {
        session.out.json(&metadata)?;
    } else {
        let (to, from) = (path.to_string_lossy(), safe(&metadata.path));
        let signature = safe(&metadata.signature.name);
        session.out.line(&format!("Wrote {} ({signature}, once {from}).", safe(&to)))?;
    }
    Ok(0)
}

/// An error with its causes.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    text
}
