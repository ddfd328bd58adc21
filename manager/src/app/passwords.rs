//! Passwords: argon2id, a few at a time, since each takes memory and a processor.

use argon2::Argon2;
use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{PasswordHasher, PasswordVerifier};
use tokio::sync::{OnceCell, Semaphore};

use super::{App, AppError};

/// Hashes that are made at once (19 MiB each).
const AT_ONCE: usize = 4;

#[derive(Debug)]
pub(super) struct Passwords {
    permits: Semaphore,
    /// Compared with when there is no such user, so that the time does not tell.
    nobody: OnceCell<String>,
}

impl Passwords {
    pub(super) fn new() -> Self {
        Self { permits: Semaphore::new(AT_ONCE), nobody: OnceCell::new() }
    }
}

impl App {
    /// The hash that is kept.
    pub(super) async fn password_hash(&self, password: &str) -> Result<String, AppError> {
        let password = password.to_owned();
        self.password_work(move || {
            Argon2::default()
                .hash_password(password.as_bytes())
                .map(|hash| hash.to_string())
                .map_err(|error| std::io::Error::other(error.to_string()))
        })
        .await
    }

    /// Whether a password belongs to a hash; without one it is false, after the same time.
    pub(super) async fn password_verify(
        &self,
        password: &str,
        hash: Option<&str>,
    ) -> Result<bool, AppError> {
        let nobody = || self.password_hash("nobody has this password");
        let known = hash.is_some();
        let hash = match hash {
            Some(hash) => hash.to_owned(),
            None => self.0.passwords.nobody.get_or_try_init(nobody).await?.clone(),
        };
        let password = password.to_owned();
        let right = self
            .password_work(move || {
                let hash = PasswordHash::new(&hash)
                    .map_err(|error| std::io::Error::other(error.to_string()))?;
                Ok(Argon2::default().verify_password(password.as_bytes(), &hash).is_ok())
            })
            .await?;
        Ok(right && known)
    }

    async fn password_work<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> std::io::Result<T> + Send + 'static,
    ) -> Result<T, AppError> {
        let operation = "hash a password";
        let closed = |_| AppError::Store(super::StoreError::Closed);
        let _permit = self.0.passwords.permits.acquire().await.map_err(closed)?;
        tokio::task::spawn_blocking(work)
            .await
            .map_err(|error| AppError::File { operation, source: std::io::Error::other(error) })?
            .map_err(|source| AppError::File { operation, source })
    }
}
