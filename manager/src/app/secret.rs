//! Random secrets and their hashes.
//!
//! A secret is 256 random bits, so a plain hash of it is all that need be kept. The database looks
//! it up by that hash: what a comparison's time could tell is the hash of a guess, not the secret.

use std::fmt::Write;

use sha2::{Digest, Sha256};

use super::AppError;

/// Longest secret that is looked at.
const LONGEST: usize = 128;

/// A new secret; the prefix tells people (and scanners for leaked secrets) what it is.
pub(super) fn new(prefix: &str) -> Result<String, AppError> {
    let mut bytes = [0; 32];
    random(&mut bytes)?;
    Ok(format!("{prefix}{}", hex(&bytes)))
}

/// A password that can be typed: 20 letters and digits that are not mistaken for each other.
pub(super) fn password() -> Result<String, AppError> {
    // 32 signs: 5 bits each, without bias.
    const SIGNS: &[u8; 32] = b"abcdefghjkmnpqrstuvwxyz23456789-";
    let mut bytes = [0; 20];
    random(&mut bytes)?;
    Ok(bytes.iter().map(|byte| char::from(SIGNS[usize::from(byte & 31)])).collect())
}

/// So many letters and digits that are not mistaken for each other, 5 random bits each.
pub(super) fn signs(count: usize) -> Result<String, AppError> {
    const SIGNS: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";
    let mut bytes = vec![0; count];
    random(&mut bytes)?;
    Ok(bytes.iter().map(|byte| char::from(SIGNS[usize::from(byte & 31)])).collect())
}

/// A number for this process.
pub(super) fn number() -> Result<i64, AppError> {
    let mut bytes = [0; 8];
    random(&mut bytes)?;
    Ok(i64::from_be_bytes(bytes) & i64::MAX)
}

pub(super) fn random(bytes: &mut [u8]) -> Result<(), AppError> {
    getrandom::fill(bytes).map_err(|source| AppError::File {
        operation: "get random bytes",
        source: std::io::Error::other(source),
    })
}

/// The hash that is kept; nothing for what cannot be a secret.
pub(super) fn hash(prefix: &str, secret: &str) -> Option<Vec<u8>> {
    (secret.len() <= LONGEST && secret.starts_with(prefix))
        .then(|| Sha256::digest(secret.as_bytes()).to_vec())
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
