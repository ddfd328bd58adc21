//! The control socket: how the CLI reaches the agent.
//!
//! [`Server`] listens, admits root alone and frames; an [`Operator`] carries a request out; the
//! CLI's side is [`client`]. One JSON line asks, JSON lines answer (`holdfast_common::control`).
//!
//! INVARIANT: nothing of a request is acted on before the peer's credentials were checked, and
//! no peer can make the agent hold more than a bounded line, or wait without bound.

pub mod client;
mod connection;
mod listen;
mod server;
#[cfg(test)]
mod tests;

use std::io;
use std::path::PathBuf;

use holdfast_common::control::{Reply, Request};

pub use client::Client;
pub use server::Server;

/// Why the control socket could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// Another agent answers there.
    #[error("another agent already listens at {path}")]
    InUse {
        /// The socket.
        path: PathBuf,
    },
    /// Something that is no socket lies there; it was left alone.
    #[error("{path} exists and is not a socket")]
    NotASocket {
        /// The path.
        path: PathBuf,
    },
    /// The socket or its folder could not be made.
    #[error("cannot listen at {path}")]
    Listen {
        /// The socket.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The server's thread or runtime could not be started.
    #[error("cannot start the control server")]
    Start(#[source] io::Error),
}

/// Carries requests out, each on a thread where it may block.
pub trait Operator: Send + Sync + 'static {
    /// Carries one request out and sends its replies, without the last one: `Ok` becomes
    /// [`Reply::Done`], an error text becomes [`Reply::Error`].
    ///
    /// # Errors
    /// What went wrong, and where, for people.
    fn carry_out(&self, request: Request, answer: &mut dyn Answerer) -> Result<(), String>;
}

/// Where an operator's replies go.
pub trait Answerer {
    /// Sends one reply.
    ///
    /// # Errors
    /// When the peer is gone or does not read; the request should then be given up.
    fn reply(&mut self, reply: Reply) -> io::Result<()>;

    /// Sends raw bytes; they must add up to what [`Reply::Data`] announced just before.
    ///
    /// # Errors
    /// As [`Answerer::reply`]; also when they are more than announced.
    fn data(&mut self, bytes: &[u8]) -> io::Result<()>;

    /// Whether the peer went away, or the agent stops: nobody waits for the answer.
    fn gone(&self) -> bool;
}
