//! Syslog (RFC 5424) by UDP, TCP or TLS: one line an alert, as CEF, ECS or OCSF.
//!
//! Streams are framed by octet counting (RFC 6587, RFC 5425). Syslog has no receipt: by TCP and
//! TLS the sending side is closed and a message counts as taken when the other side closes too, or
//! does not break the connection for [`CLOSE`]; by UDP it counts as taken unless the other side's
//! kernel says at once that nobody listens. That is all that can be known.

use std::fmt::Write;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::UdpSocket;
use utoipa::ToSchema;

use super::notice::{Evidence, Notice};
use super::text::time;
use super::{Message, SendError, authority_check, cef, ecs, ocsf, server_check};
use crate::reach::address::{Allowed, connect, resolve};
use crate::reach::tls;
use crate::store::notifications::level_number;

/// For the other side to close.
const CLOSE: Duration = Duration::from_secs(3);
/// For the other side's kernel to say that nobody listens.
const REFUSAL: Duration = Duration::from_millis(200);
/// Bytes of a datagram's line; what is longer is told without its evidence.
const DATAGRAM: usize = 8192;
/// `local0`.
const FACILITY: i64 = 16;

/// Syslog.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SyslogConfig {
    /// Name or address of the receiver.
    pub server: String,
    /// Its port: usually 514, or 6514 with `tls`.
    pub port: u16,
    /// How lines travel.
    #[serde(default)]
    pub transport: SyslogTransport,
    /// What a line holds.
    #[serde(default)]
    pub format: SyslogFormat,
    /// PEM of the authority that the server's certificate must come from; the system's without it.
    #[serde(default)]
    pub authority: Option<String>,
}

/// How lines travel.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum SyslogTransport {
    /// TLS.
    #[default]
    Tls,
    /// TCP in the clear.
    Tcp,
    /// UDP in the clear; lines can be lost without a trace.
    Udp,
}

/// What a line holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum SyslogFormat {
    /// Common Event Format.
    #[default]
    Cef,
    /// JSON with names of the Elastic Common Schema.
    Ecs,
    /// JSON, an OCSF Detection Finding.
    Ocsf,
}

impl SyslogConfig {
    pub(super) fn check(&self, secret: Option<&str>) -> Result<(), String> {
        server_check(&self.server, self.port)?;
        authority_check(self.authority.as_deref())?;
        if secret.is_some() {
            return Err("secret: syslog has none".to_owned());
        }
        if self.transport == SyslogTransport::Udp && self.format == SyslogFormat::Ocsf {
            return Err("format: OCSF does not fit into datagrams; take tcp or tls".to_owned());
        }
        Ok(())
    }
}

/// The syslog line of an alert.
#[must_use]
pub fn line(format: SyslogFormat, notice: &Notice, manager: &str) -> String {
    // 2 critical, 3 error, 4 warning, 5 notice, 6 informational.
    let severity = 6 - level_number(&notice.level);
    let content = match format {
        SyslogFormat::Cef => cef::of_notice(notice),
        SyslogFormat::Ecs => ecs::of_notice(notice).to_string(),
        SyslogFormat::Ocsf => ocsf::of_notice(notice).to_string(),
    };
    let mut line = String::with_capacity(content.len() + 128);
    let (priority, stamp) = (FACILITY * 8 + severity, time(notice.last_ms));
    let stamp = if stamp.ends_with('Z') { stamp.as_str() } else { "-" };
    let _ = write!(line, "<{priority}>1 {stamp} {} holdfast - alert - {content}", name(manager));
    line
}

/// A header's name: printable ASCII without blanks, at most 255; `-` for none.
fn name(text: &str) -> String {
    let name: String = text.chars().filter(char::is_ascii_graphic).take(255).collect();
    if name.is_empty() { "-".to_owned() } else { name }
}

/// Sends a message; what is known of its arrival.
pub(super) async fn send(
    config: &SyslogConfig,
    allowed: &Allowed,
    message: &Message,
) -> Result<String, SendError> {
    let manager = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let lines = message.notices.iter().map(|notice| line(config.format, notice, &manager));
    let (server, port) = (&config.server, config.port);
    match config.transport {
        SyslogTransport::Udp => datagrams(config, allowed, message, &manager).await,
        SyslogTransport::Tcp => {
            let stream = connect(server, port, allowed).await?;
            framed(stream, lines).await
        }
        SyslogTransport::Tls => {
            let stream = connect(server, port, allowed).await?;
            let stream = tls::secure(stream, server, config.authority.as_deref()).await?;
            framed(stream, lines).await
        }
    }
}

async fn framed<S>(mut stream: S, lines: impl Iterator<Item = String>) -> Result<String, SendError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let failed = |error: std::io::Error| SendError::later(format!("write: {error}"));
    let mut bytes = 0;
    let mut count = 0;
    for line in lines {
        let frame = format!("{} {line}", line.len());
        stream.write_all(frame.as_bytes()).await.map_err(failed)?;
        (bytes, count) = (bytes + frame.len(), count + 1);
    }
    stream.shutdown().await.map_err(failed)?;
    let mut sink = [0; 512];
    let closed = tokio::time::timeout(CLOSE, async {
        let mut read = 0;
        while read < 65_536 {
            match stream.read(&mut sink).await {
                Ok(0) => break,
                Ok(more) => read += more,
                // A peer that closes without TLS's goodbye has still read what came before.
                Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => break,
                Err(error) => return Err(SendError::later(format!("read: {error}"))),
            }
        }
        Ok(())
    });
    match closed.await {
        Ok(done) => {
            done.map(|()| format!("{count} lines, {bytes} bytes; the other side closed in order"))
        }
        Err(_) => Ok(format!("{count} lines, {bytes} bytes sent; the other side stays open")),
    }
}

async fn datagrams(
    config: &SyslogConfig,
    allowed: &Allowed,
    message: &Message,
    manager: &str,
) -> Result<String, SendError> {
    let failed = |error: std::io::Error| SendError::later(format!("send: {error}"));
    let addresses = resolve(&config.server, config.port, allowed).await?;
    let Some(address) = addresses.first() else {
        return Err(SendError::later(format!("{}: no address", config.server)));
    };
    let own = if address.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let socket = UdpSocket::bind(own).await.map_err(failed)?;
    socket.connect(address).await.map_err(failed)?;
    let mut short = 0;
    for notice in &message.notices {
        let mut text = line(config.format, notice, manager);
        if text.len() > DATAGRAM {
            let bare = Notice { evidence: Evidence::LeftOut, ..notice.clone() };
            text = line(config.format, &bare, manager);
            short += 1;
        }
        socket.send(text.as_bytes()).await.map_err(failed)?;
    }
    let mut sink = [0; 16];
    if let Ok(Err(error)) = tokio::time::timeout(REFUSAL, socket.recv(&mut sink)).await {
        return Err(SendError::later(format!("{address}: {error}")));
    }
    let count = message.notices.len();
    Ok(format!(
        "{count} datagrams sent, {short} of them without evidence; UDP tells nothing of their \
         arrival"
    ))
}
