//! The CLI's side of the control socket: one request, then replies until `Done`.
//!
//! The agent is trusted to be the agent (the socket is root's), not to be alive or well: every
//! line is bounded, and an end without a last reply is an error.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use holdfast_common::control::{Reply, Request};

/// Longest reply line, in bytes.
const MAX_REPLY: u64 = 64 << 20;

/// Why a request got no proper answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody answers there.
    #[error("cannot reach the agent at {path}: {source}. Is holdfastd running?")]
    Unreachable {
        /// The socket.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The socket is root's.
    #[error("permission denied at {path}: only root may talk to the agent (try sudo)")]
    Forbidden {
        /// The socket.
        path: PathBuf,
    },
    /// The connection broke off.
    #[error("the agent's answer broke off: {0}")]
    Broken(io::Error),
    /// What came is no reply.
    #[error("the agent's answer is not understood: {0}; do the versions match?")]
    Garbled(serde_json::Error),
    /// The agent says why it did not carry the request out.
    #[error("{0}")]
    Refused(String),
}

/// One request's connection.
#[derive(Debug)]
pub struct Client {
    stream: BufReader<UnixStream>,
}

impl Client {
    /// Connects and sends the request.
    ///
    /// # Errors
    /// [`ClientError`]
    pub fn ask(socket: &Path, request: &Request) -> Result<Self, ClientError> {
        let mut stream = UnixStream::connect(socket).map_err(|source| {
            let path = socket.to_owned();
            if source.kind() == io::ErrorKind::PermissionDenied {
                ClientError::Forbidden { path }
            } else {
                ClientError::Unreachable { path, source }
            }
        })?;
        let mut line = serde_json::to_vec(request).map_err(ClientError::Garbled)?;
        line.push(b'\n');
        match stream.write_all(&line) {
            // The agent may have refused before it read all: its word is there to be read.
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
                Err(ClientError::Broken(error))
            }
            Ok(()) | Err(_) => Ok(Self { stream: BufReader::new(stream) }),
        }
    }

    /// The next reply; `None` after the last one.
    ///
    /// # Errors
    /// [`ClientError`], also [`ClientError::Refused`] for [`Reply::Error`].
    pub fn next_reply(&mut self) -> Result<Option<Reply>, ClientError> {
        let mut line = Vec::new();
        let mut bounded = (&mut self.stream).take(MAX_REPLY);
        bounded.read_until(b'\n', &mut line).map_err(ClientError::Broken)?;
        if line.last() != Some(&b'\n') {
            return Err(ClientError::Broken(io::ErrorKind::UnexpectedEof.into()));
        }
        match serde_json::from_slice(&line).map_err(ClientError::Garbled)? {
            Reply::Done => Ok(None),
            Reply::Error { message } => Err(ClientError::Refused(message)),
            reply => Ok(Some(reply)),
        }
    }

    /// Copies the bytes that [`Reply::Data`] announced. The outer error is the agent's side, the
    /// inner one that of `out`.
    ///
    /// # Errors
    /// [`ClientError::Broken`] when they end early.
    pub fn copy_data(
        &mut self,
        length: u64,
        out: &mut dyn Write,
    ) -> Result<io::Result<()>, ClientError> {
        let mut left = length;
        let mut chunk = vec![0; 64 << 10];
        while left > 0 {
            let want = usize::try_from(left).unwrap_or(usize::MAX).min(chunk.len());
            let read = match self.stream.read(&mut chunk[..want]) {
                Ok(0) => return Err(ClientError::Broken(io::ErrorKind::UnexpectedEof.into())),
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(ClientError::Broken(error)),
            };
            if let Err(error) = out.write_all(&chunk[..read]) {
                return Ok(Err(error));
            }
            left -= read as u64;
        }
        Ok(Ok(()))
    }
}
