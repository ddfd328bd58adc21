//! Connections that the manager makes to others: where to, how secured, one HTTP exchange.
//!
//! INVARIANT: where one goes is judged by [`address`] each time; no redirect is followed, no proxy
//! asked; what the other side says is hostile and bounded.

pub mod address;
pub mod http;
pub mod tls;

/// The other side was not reached, or did not do it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct SendError {
    /// It will not do it later either.
    pub refused: bool,
    /// How it failed, with the other side's words.
    pub message: String,
}

impl SendError {
    pub(crate) fn later(message: String) -> Self {
        Self { refused: false, message }
    }

    pub(crate) fn never(message: String) -> Self {
        Self { refused: true, message }
    }
}
