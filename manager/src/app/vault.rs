//! Secrets that the manager must be able to read again (of notification channels, of second
//! factors), sealed by a key in its data folder.
//!
//! AES-256-GCM under a random 256-bit key that stands in one file of the data folder, for the
//! manager's user alone; a random nonce for each secret; whose it is is bound in. Whoever has
//! the database alone reads nothing. Whoever has the data folder too (or a backup, which holds
//! both) reads all of them: there is no hardware behind it.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use aes_gcm::aead::{Aead, Payload};
use aes_gcm::{Aes256Gcm, KeyInit, Nonce};
use uuid::Uuid;
use zeroize::Zeroizing;

/// Name of the key's file.
const KEY: &str = "secrets.key";
/// Bytes of a nonce.
const NONCE: usize = 12;

/// A secret was not sealed or opened.
#[derive(Debug, thiserror::Error)]
pub enum VaultError {
    /// The key could not be read or made.
    #[error("the key of sealed secrets ({KEY} in the data folder)")]
    Key(#[source] io::Error),
    /// The secret was sealed by another key, or for somebody else, or changed.
    #[error("the secret does not open with this manager's key; give it again")]
    Sealed,
}

/// Opens and seals. Shows nothing of the key.
pub struct Vault(Aes256Gcm);

impl std::fmt::Debug for Vault {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Vault")
    }
}

impl Vault {
    /// Reads the key, or makes it the first time. Managers that share a data folder get one key,
    /// whichever makes it first.
    ///
    /// # Errors
    /// [`VaultError::Key`]
    pub fn open(data_dir: &Path) -> Result<Self, VaultError> {
        let path = data_dir.join(KEY);
        let key = match read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                make(data_dir, &path).and_then(|()| read(&path)).map_err(VaultError::Key)?
            }
            other => other.map_err(VaultError::Key)?,
        };
        let cipher = Aes256Gcm::new_from_slice(&key);
        cipher.map(Self).map_err(|_| VaultError::Key(io::ErrorKind::InvalidData.into()))
    }

    /// Seals a secret of a channel or user.
    ///
    /// # Errors
    /// [`VaultError`]
    pub fn seal(&self, owner: Uuid, secret: &str) -> Result<Vec<u8>, VaultError> {
        let mut nonce = [0; NONCE];
        random(&mut nonce).map_err(VaultError::Key)?;
        let payload = Payload { msg: secret.as_bytes(), aad: owner.as_bytes() };
        let sealed = self.0.encrypt(&Nonce::from(nonce), payload);
        let sealed = sealed.map_err(|_| VaultError::Sealed)?;
        Ok([&nonce[..], &sealed].concat())
    }

    /// Opens it.
    ///
    /// # Errors
    /// [`VaultError::Sealed`]
    pub fn unseal(&self, owner: Uuid, sealed: &[u8]) -> Result<Zeroizing<String>, VaultError> {
        let (nonce, sealed) = sealed.split_first_chunk::<NONCE>().ok_or(VaultError::Sealed)?;
        let payload = Payload { msg: sealed, aad: owner.as_bytes() };
        let open = self.0.decrypt(&Nonce::from(*nonce), payload);
        let open = Zeroizing::new(open.map_err(|_| VaultError::Sealed)?);
        let text = std::str::from_utf8(&open).map_err(|_| VaultError::Sealed)?;
        Ok(Zeroizing::new(text.to_owned()))
    }
}

fn read(path: &Path) -> io::Result<Zeroizing<Vec<u8>>> {
    let key = Zeroizing::new(fs::read(path)?);
    if key.len() == 32 { Ok(key) } else { Err(io::ErrorKind::InvalidData.into()) }
}

fn make(data_dir: &Path, path: &Path) -> io::Result<()> {
    let mut key = Zeroizing::new([0; 32]);
    random(&mut *key)?;
    let beside = data_dir.join(format!("{KEY}.{}", Uuid::now_v7()));
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&beside)?;
    file.write_all(&*key)?;
    file.sync_all()?;
    // Never over a key that is there.
    let linked = fs::hard_link(&beside, path);
    fs::remove_file(&beside)?;
    match linked {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    File::open(data_dir)?.sync_all()
}

fn random(bytes: &mut [u8]) -> io::Result<()> {
    getrandom::fill(bytes).map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_secret_opens_for_its_owner_with_this_key_alone() {
        let folder = tempfile::tempdir().expect("folder");
        let vault = Vault::open(folder.path()).expect("vault");
        let (one, two) = (Uuid::now_v7(), Uuid::now_v7());
        let sealed = vault.seal(one, "hunter2").expect("seal");
        assert!(!sealed.windows(7).any(|window| window == b"hunter2"));
        let again = Vault::open(folder.path()).expect("again");
        assert_eq!(&*again.unseal(one, &sealed).expect("open"), "hunter2");
        assert!(again.unseal(two, &sealed).is_err());
        let mut changed = sealed.clone();
        changed[20] ^= 1;
        assert!(again.unseal(one, &changed).is_err());
        assert!(again.unseal(one, &[]).is_err());
        let other = tempfile::tempdir().expect("folder");
        assert!(Vault::open(other.path()).expect("other").unseal(one, &sealed).is_err());
        let mode = fs::metadata(folder.path().join(KEY)).expect("key").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(fs::read_dir(folder.path()).expect("list").count(), 1);
    }
}
