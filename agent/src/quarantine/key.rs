//! The host's key: 32 random bytes in a root-only file, the one secret that opens this host's
//! containers. Made once, whole or not at all, and never replaced.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use holdfast_common::container::{Key, Secrets};
use rustix::io::Errno;
use rustix::rand::{GetRandomFlags, getrandom};
use zeroize::Zeroizing;

use super::error::VaultError;

/// First bytes of the key's file; the last one is its version.
const MAGIC: [u8; 8] = *b"HFKEY\x1a\x00\x01";
const LENGTH: usize = MAGIC.len() + 32;

/// A host's key.
pub struct HostKey(pub(super) Key);

impl HostKey {
    /// Reads a key's file.
    ///
    /// # Errors
    /// [`VaultError::Own`] when it cannot be read, [`VaultError::BadKey`] when it is none.
    pub fn load(path: &Path) -> Result<Self, VaultError> {
        let failed = |source| VaultError::own("read host key", path, source);
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
            .open(path)
            .map_err(failed)?;
        let mut bytes = Zeroizing::new(Vec::with_capacity(LENGTH + 1));
        file.take(LENGTH as u64 + 1).read_to_end(&mut bytes).map_err(failed)?;
        let mut key = Zeroizing::new([0; 32]);
        match bytes.split_at_checked(MAGIC.len()) {
            Some((magic, rest)) if magic == MAGIC && rest.len() == key.len() => {
                key.copy_from_slice(rest);
            }
            _ => return Err(VaultError::BadKey { path: path.to_owned() }),
        }
        Ok(Self(Key::new(key)))
    }

    /// Makes a key at `path`, on disk before this returns. `folder` is the open parent.
    pub(super) fn create(path: &Path, folder: &File) -> Result<Self, VaultError> {
        let failed = |source| VaultError::own("create host key", path, source);
        let secret = random_key().map_err(|errno| failed(errno.into()))?;
        let draft = draft_of(path);
        match std::fs::remove_file(&draft) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(failed(error));
            }
            _ => {}
        }
        let mut options = OpenOptions::new();
        let mut file =
            options.write(true).create_new(true).mode(0o600).open(&draft).map_err(failed)?;
        let mut bytes = Zeroizing::new(MAGIC.to_vec());
        bytes.reserve_exact(32);
        bytes.extend_from_slice(secret.expose());
        file.write_all(&bytes).and_then(|()| file.sync_all()).map_err(failed)?;
        // A link, unlike a rename, never takes an existing key's place.
        std::fs::hard_link(&draft, path).map_err(failed)?;
        std::fs::remove_file(&draft).and_then(|()| folder.sync_all()).map_err(failed)?;
        Ok(Self(secret))
    }
}

/// Where a new key is written before it gets its name.
pub(super) fn draft_of(path: &Path) -> PathBuf {
    path.with_extension("new")
}

/// What a new container needs from the kernel's random generator.
pub(super) fn secrets() -> Result<Secrets, Errno> {
    let file_key = random_key()?;
    let mut wrap_nonce = [0; 12];
    fill_random(&mut wrap_nonce)?;
    Ok(Secrets { file_key, wrap_nonce })
}

fn random_key() -> Result<Key, Errno> {
    let mut key = Zeroizing::new([0; 32]);
    fill_random(key.as_mut_slice())?;
    Ok(Key::new(key))
}

/// Up to 256 bytes come whole or not at all (getrandom(2)).
fn fill_random(bytes: &mut [u8]) -> Result<(), Errno> {
    let length = bytes.len();
    let filled = rustix::io::retry_on_intr(|| getrandom(&mut *bytes, GetRandomFlags::empty()))?;
    if filled == length { Ok(()) } else { Err(Errno::IO) }
}
