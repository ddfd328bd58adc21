//! A shell's terminal as a test uses it: a WebSocket to the manager, read and written by turns.

use std::fmt::Debug;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustls::pki_types::ServerName;
use rustls::{ClientConnection, StreamOwned};
use serde_json::Value;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{self, Message, WebSocket};

use crate::agent::PATIENCE;
use crate::rest::{Place, trust};

/// Between two looks.
const LOOK: Duration = Duration::from_millis(20);

trait Stream: Read + Write + Send {}
impl<T: Read + Write + Send> Stream for T {}

/// A terminal.
pub struct Terminal {
    socket: WebSocket<Box<dyn Stream>>,
    /// Everything that it showed.
    pub shown: Vec<u8>,
    /// Everything that the manager said beside.
    pub told: Vec<Value>,
    ended: bool,
}

impl Debug for Terminal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Terminal").field("told", &self.told).finish_non_exhaustive()
    }
}

impl Terminal {
    /// Joins a shell, with these headers besides.
    ///
    /// # Errors
    /// The status and what is said, when it is refused.
    pub fn join(place: &Place, shell: &str, headers: &[(&'static str, &str)]) -> Result<Self> {
        let url = format!("ws://manager/api/v1/shells/{shell}/terminal");
        let mut request = url.into_client_request()?;
        for (name, value) in headers {
            request.headers_mut().insert(*name, HeaderValue::from_str(value)?);
        }
        let stream: Box<dyn Stream> = match place {
            Place::Https(address, authority) => {
                let stream = TcpStream::connect(address).context("connect")?;
                stream.set_read_timeout(Some(PATIENCE))?;
                let name = ServerName::from(address.ip());
                let tls = ClientConnection::new(Arc::new(trust(authority)?), name)?;
                let stream = StreamOwned::new(tls, stream);
                let looking = stream.sock.try_clone()?;
                let joined = Self::greet(request, Box::new(stream));
                looking.set_read_timeout(Some(LOOK))?;
                return joined;
            }
            Place::Socket(path) => {
                let stream = UnixStream::connect(path).context("connect")?;
                stream.set_read_timeout(Some(LOOK))?;
                Box::new(stream)
            }
        };
        Self::greet(request, stream)
    }

    fn greet(request: impl IntoClientRequest, stream: Box<dyn Stream>) -> Result<Self> {
        let config = WebSocketConfig::default().write_buffer_size(0);
        match tungstenite::client::client_with_config(request, stream, Some(config)) {
            Ok((socket, _)) => {
                Ok(Self { socket, shown: Vec::new(), told: Vec::new(), ended: false })
            }
            Err(tungstenite::HandshakeError::Failure(tungstenite::Error::Http(response))) => {
                let body = response.body().clone().unwrap_or_default();
                bail!("{}: {}", response.status(), String::from_utf8_lossy(&body))
            }
            Err(error) => bail!("no WebSocket: {error}"),
        }
    }

    /// Types.
    ///
    /// # Errors
    /// When the connection is gone.
    pub fn write(&mut self, bytes: impl AsRef<[u8]>) -> Result<()> {
        Ok(self.socket.send(Message::Binary(bytes.as_ref().to_vec().into()))?)
    }

    /// Says something beside what is typed.
    ///
    /// # Errors
    /// When the connection is gone.
    pub fn tell(&mut self, text: &Value) -> Result<()> {
        Ok(self.socket.send(Message::Text(text.to_string().into()))?)
    }

    /// Reads for one look; false when it has ended.
    pub fn look(&mut self) -> bool {
        match self.socket.read() {
            Ok(Message::Binary(bytes)) => self.shown.extend_from_slice(&bytes),
            Ok(Message::Text(text)) => {
                self.told.push(serde_json::from_str(&text).unwrap_or_default());
            }
            Ok(Message::Close(_)) => self.ended = true,
            Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_)) => {}
            Err(tungstenite::Error::Io(error))
                if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(_) => self.ended = true,
        }
        !self.ended
    }

    /// What it showed, as text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.shown).into_owned()
    }

    /// Reads until what it showed holds this; what came before it is forgotten.
    ///
    /// # Errors
    /// When it does not in time.
    pub fn wait(&mut self, wanted: &str) -> Result<String> {
        let end = Instant::now() + PATIENCE;
        loop {
            let text = self.text();
            if let Some(at) = text.find(wanted) {
                self.shown.drain(..);
                let (until, rest) = text.split_at(at + wanted.len());
                self.shown.extend_from_slice(rest.as_bytes());
                return Ok(until.to_owned());
            }
            if Instant::now() >= end || !self.look() && !self.text().contains(wanted) {
                bail!("{wanted:?} was never shown; {:?}, told {:?}", self.text(), self.told);
            }
        }
    }

    /// Reads until the manager says why it is closed.
    ///
    /// # Errors
    /// When it does not in time.
    pub fn closed(&mut self) -> Result<String> {
        let end = Instant::now() + PATIENCE;
        loop {
            if let Some(why) = self.told.iter().find_map(|told| told["closed"].as_str()) {
                return Ok(why.to_owned());
            }
            if Instant::now() >= end || !self.look() && !self.told_closed() {
                bail!("it was never closed; {:?}, told {:?}", self.text(), self.told);
            }
        }
    }

    fn told_closed(&self) -> bool {
        self.told.iter().any(|told| !told["closed"].is_null())
    }
}
