//! A file that comes from the manager: streamed, checked, in its place whole or not at all.
//!
//! INVARIANT: 0600 from its first byte on; what is there already stays, unless it may be replaced.

use std::io::Write;
use std::path::{Path, PathBuf};

use holdfast_common::wire::hex;
use reqwest::Response;
use serde_json::json;
use sha2::{Digest, Sha256};
use tempfile::NamedTempFile;

use crate::{CtlError, Session};

/// Where it goes.
pub(crate) struct Target {
    path: PathBuf,
    force: bool,
    part: NamedTempFile,
}

impl Target {
    /// Before anything is asked for, so that nothing is asked for in vain.
    pub(crate) fn new(path: &Path, force: bool) -> Result<Self, CtlError> {
        if !force && path.symlink_metadata().is_ok() {
            return Err(there(path));
        }
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        let folder = folder.unwrap_or(Path::new("."));
        // Beside it, so that it can be renamed; 0600 by itself.
        let part = NamedTempFile::new_in(folder)
            .map_err(|error| CtlError::Failed(format!("{}: {error}", folder.display())))?;
        Ok(Self { path: path.to_owned(), force, part })
    }

    /// Everything of an answer, whose SHA-256 must be this one.
    pub(crate) async fn fill(
        mut self,
        session: &Session,
        mut response: Response,
        sha256: Option<&str>,
    ) -> Result<(), CtlError> {
        let shown = self.path.display().to_string();
        let failed = |error: &dyn std::fmt::Display| CtlError::Failed(format!("{shown}: {error}"));
        let (mut hash, mut size) = (Sha256::new(), 0_u64);
        loop {
            let part =
                response.chunk().await.map_err(|error| session.client.unreachable(&error))?;
            let Some(part) = part else { break };
            hash.update(&part);
            size += part.len() as u64;
            self.part.write_all(&part).map_err(|error| failed(&error))?;
        }
        let found = hex(&hash.finalize());
        if let Some(wanted) = sha256.filter(|wanted| !wanted.eq_ignore_ascii_case(&found)) {
            return Err(failed(&format!("what came has the SHA-256 {found}, not {wanted}")));
        }
        self.part.as_file().sync_all().map_err(|error| failed(&error))?;
        let persisted = if self.force {
            self.part.persist(&self.path)
        } else {
            self.part.persist_noclobber(&self.path)
        };
        persisted.map_err(|error| match error.error.kind() {
            std::io::ErrorKind::AlreadyExists => there(&self.path),
            _ => failed(&error.error),
        })?;
        let told = json!({ "file": shown, "size": size, "sha256": found });
        session.done(&format!("{shown}: {size} bytes, SHA-256 {found}"), &told)?;
        Ok(())
    }
}

fn there(path: &Path) -> CtlError {
    CtlError::Failed(format!("{} is there already; --force replaces it", path.display()))
}
