//! HTTP as a test speaks it to the manager: one request a connection, over TLS by the manager's
//! own authority or over its Unix socket. JSON in, JSON out.
//!
//! Not a client for anybody else: it knows no chunks, no redirects, no keep-alive.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use serde_json::Value;

/// Longest wait for a part of an answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// Where the manager is asked.
#[derive(Debug, Clone)]
pub enum Place {
    /// HTTPS, trusting this authority (PEM).
    Https(SocketAddr, PathBuf),
    /// A Unix socket.
    Socket(PathBuf),
}

/// What a test asks.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// GET, POST …
    pub method: &'a str,
    /// With its query.
    pub path: &'a str,
    /// For `Authorization: Bearer`; empty for none.
    pub token: &'a str,
    /// Null for no body.
    pub body: &'a Value,
}

impl Place {
    /// Status and body of the answer; null when it has none.
    ///
    /// # Errors
    /// When there is no whole answer of JSON.
    pub fn ask(&self, request: &Request<'_>) -> Result<(u16, Value)> {
        let (status, body) = match self {
            Self::Https(address, authority) => {
                let stream = TcpStream::connect(address).context("connect")?;
                stream.set_read_timeout(Some(PATIENCE))?;
                let name = ServerName::from(address.ip());
                let tls = ClientConnection::new(Arc::new(trust(authority)?), name)?;
                exchange(StreamOwned::new(tls, stream), request)?
            }
            Self::Socket(path) => {
                let stream = UnixStream::connect(path).context("connect")?;
                stream.set_read_timeout(Some(PATIENCE))?;
                exchange(stream, request)?
            }
        };
        if body.is_empty() {
            return Ok((status, Value::Null));
        }
        let shown = String::from_utf8_lossy(&body);
        Ok((status, serde_json::from_slice(&body).with_context(|| format!("{status}: {shown}"))?))
    }
}

pub(crate) fn trust(authority: &Path) -> Result<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(authority)?)?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config =
        ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    Ok(config?.with_root_certificates(roots).with_no_client_auth())
}

fn exchange(mut stream: impl Read + Write, request: &Request<'_>) -> Result<(u16, Vec<u8>)> {
    let mut head = format!(
        "{} {} HTTP/1.1\r\nhost: manager\r\nconnection: close\r\n",
        request.method, request.path
    );
    if !request.token.is_empty() {
        head.push_str(&format!("authorization: Bearer {}\r\n", request.token));
    }
    let body = if request.body.is_null() { String::new() } else { request.body.to_string() };
    if !body.is_empty() {
        let length = body.len();
        head.push_str(&format!("content-type: application/json\r\ncontent-length: {length}\r\n"));
    }
    stream.write_all(format!("{head}\r\n{body}").as_bytes()).context("send")?;
    stream.flush()?;
    let mut answer = Vec::new();
    match stream.read_to_end(&mut answer) {
        // The length tells whether it is whole.
        Err(error) if error.kind() != ErrorKind::UnexpectedEof => return Err(error.into()),
        _ => {}
    }
    parse(&answer)
}

fn parse(answer: &[u8]) -> Result<(u16, Vec<u8>)> {
    let end = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n").context("no answer")?;
    let head = String::from_utf8_lossy(&answer[..end]).to_ascii_lowercase();
    let status = head.split(' ').nth(1).context("no status")?.parse()?;
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    let body = answer[end + 4..].to_vec();
    let length = length.map_or(Ok(0), |length| length.trim().parse::<usize>())?;
    ensure!(body.len() == length, "{} bytes of {length}: {head}", body.len());
    Ok((status, body))
}
