//! Who this host is to its manager: the private key, its certificate, whom to trust, where to call.
//!
//! Lies in the state folder, root's alone. INVARIANT: the private key is made here and goes nowhere
//! else. The generation is on disk before it is told to the manager, so that no two connections
//! ever tell the same one.

use std::fmt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::proxy::Proxy;

/// The identity of an enrolled host.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Identity {
    /// `https://host:port`.
    pub(super) manager: String,
    /// The proxy to go through.
    pub(super) proxy: Option<Proxy>,
    /// The id that the manager gave this host.
    pub(super) host: String,
    /// PEM, the host's own certificate first.
    pub(super) chain: String,
    /// PEM of the private key.
    pub(super) key: String,
    /// PEM of the authorities to trust.
    pub(super) authorities: String,
    /// The certificate's life, milliseconds since the epoch.
    pub(super) begins_ms: i64,
    pub(super) ends_ms: i64,
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity")
            .field("manager", &self.manager)
            .field("host", &self.host)
            .finish_non_exhaustive()
    }
}

/// Why the identity could not be read or written.
#[derive(Debug, thiserror::Error)]
pub(super) enum IdentityError {
    /// A system call failed.
    #[error("cannot {action} {path}")]
    Io {
        action: &'static str,
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    /// What stands there is no identity.
    #[error("{path} is damaged: enroll this host again")]
    Damaged {
        path: PathBuf,
        #[source]
        source: serde_json::Error,
    },
    /// Without its count a host cannot be told from a copy of it.
    #[error("{0} is missing or damaged: enroll this host again")]
    Generation(PathBuf),
}

/// The file of a state folder.
pub(super) fn file(state_dir: &Path) -> PathBuf {
    state_dir.join("manager.json")
}

fn generation_file(state_dir: &Path) -> PathBuf {
    state_dir.join("manager.generation")
}

/// The identity; `None` for a host that is not enrolled.
pub(super) fn load(state_dir: &Path) -> Result<Option<Identity>, IdentityError> {
    let path = file(state_dir);
    match std::fs::read(&path) {
        Ok(text) => serde_json::from_slice(&text)
            .map(Some)
            .map_err(|source| IdentityError::Damaged { path, source }),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(IdentityError::Io { action: "read", path, source }),
    }
}

/// Puts it in the place of an older one.
pub(super) fn store(state_dir: &Path, identity: &Identity) -> Result<(), IdentityError> {
    let path = file(state_dir);
    let failed = |source| IdentityError::Io { action: "write", path: path.clone(), source };
    let text = serde_json::to_vec_pretty(identity).map_err(|error| failed(error.into()))?;
    crate::durable::replace(&path, &[&text, b"\n"]).map_err(failed)
}

/// A host that was enrolled just now begins to count.
pub(super) fn begin_generations(state_dir: &Path) -> Result<(), IdentityError> {
    write_generation(state_dir, 0)
}

/// The next generation; it is on disk when this returns.
pub(super) fn next_generation(state_dir: &Path) -> Result<u64, IdentityError> {
    let path = generation_file(state_dir);
    let damaged = || IdentityError::Generation(path.clone());
    let text = std::fs::read_to_string(&path).map_err(|_| damaged())?;
    let last: u64 = text.trim().parse().map_err(|_| damaged())?;
    let next = last.checked_add(1).ok_or_else(damaged)?;
    write_generation(state_dir, next)?;
    Ok(next)
}

fn write_generation(state_dir: &Path, generation: u64) -> Result<(), IdentityError> {
    let path = generation_file(state_dir);
    crate::durable::replace(&path, &[format!("{generation}\n").as_bytes()])
        .map_err(|source| IdentityError::Io { action: "write", path, source })
}

impl Identity {
    /// True from two thirds of the certificate's life on.
    pub(super) fn is_due(&self, now_ms: i64) -> bool {
        let life = self.ends_ms.saturating_sub(self.begins_ms);
        now_ms >= self.begins_ms.saturating_add(life / 3 * 2)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn identity() -> Identity {
        Identity {
            manager: "https://manager.example:8442".to_owned(),
            proxy: None,
            host: "h".to_owned(),
            chain: "c".to_owned(),
            key: "secret".to_owned(),
            authorities: "a".to_owned(),
            begins_ms: 1000,
            ends_ms: 4000,
        }
    }

    #[test]
    fn an_identity_is_roots_alone_and_never_printed_and_renewed_at_two_thirds() {
        let folder = tempfile::tempdir().expect("folder");
        assert_eq!(load(folder.path()).expect("none"), None);
        store(folder.path(), &identity()).expect("stored");
        assert_eq!(load(folder.path()).expect("read"), Some(identity()));
        let mode = std::fs::metadata(file(folder.path())).expect("facts").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert!(!format!("{:?}", identity()).contains("secret"));
        assert!(!identity().is_due(2999) && identity().is_due(3000));
        std::fs::write(file(folder.path()), "{").expect("write");
        assert!(matches!(load(folder.path()), Err(IdentityError::Damaged { .. })));
    }

    #[test]
    fn no_generation_is_told_twice_and_a_lost_count_is_not_begun_again() {
        let folder = tempfile::tempdir().expect("folder");
        assert!(matches!(next_generation(folder.path()), Err(IdentityError::Generation(_))));
        begin_generations(folder.path()).expect("begun");
        let told: Vec<u64> =
            (0..3).map(|_| next_generation(folder.path()).expect("next")).collect();
        assert_eq!(told, [1, 2, 3]);
        std::fs::write(generation_file(folder.path()), "").expect("write");
        assert!(matches!(next_generation(folder.path()), Err(IdentityError::Generation(_))));
    }
}
