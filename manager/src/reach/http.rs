//! One HTTP/1.1 request to one address, and the beginning of its answer.
//!
//! INVARIANT: unencrypted only to loopback, and only where [`Allowed`] has it. No redirect is
//! followed; heads and bodies are bounded.

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper::header::{HOST, HeaderValue, USER_AGENT};
use hyper::rt::{Read, Write};
use hyper::{Request, Response, Uri};
use hyper_util::rt::TokioIo;

use super::address::{Allowed, connect};
use super::{SendError, tls};

/// Bytes of an address.
const URL: usize = 2048;

/// Where a request goes, taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    secure: bool,
    host: String,
    port: u16,
    path: String,
    authority: String,
}

impl Target {
    /// Takes an address apart, and refuses what has more in it than one.
    ///
    /// # Errors
    /// What may stand there.
    pub fn of(url: &str) -> Result<Self, String> {
        let error = || "https://HOST[:PORT]/PATH, without user, password and fragment".to_owned();
        if url.len() > URL || url.contains('#') {
            return Err(error());
        }
        let uri: Uri = url.parse().map_err(|_| error())?;
        let secure = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err(error()),
        };
        let authority = uri.authority().ok_or_else(error)?;
        if authority.as_str().contains('@') || authority.host().is_empty() {
            return Err(error());
        }
        Ok(Self {
            secure,
            host: authority.host().to_owned(),
            port: authority.port_u16().unwrap_or(if secure { 443 } else { 80 }),
            path: uri.path_and_query().map_or("/", |path| path.as_str()).to_owned(),
            authority: authority.as_str().to_owned(),
        })
    }

    /// Whether it is encrypted.
    #[must_use]
    pub const fn is_secure(&self) -> bool {
        self.secure
    }

    /// Sends a request, whose address and host are set here, and reads at most `most` bytes of the
    /// answer's body; what comes behind is left.
    ///
    /// # Errors
    /// [`SendError`]; an answer with an error status is an answer.
    pub async fn call(
        &self,
        mut request: Request<Full<Bytes>>,
        authority: Option<&str>,
        allowed: &Allowed,
        most: usize,
    ) -> Result<Response<Vec<u8>>, SendError> {
        let unfit = |what: String| SendError::never(format!("make a request: {what}"));
        let host = HeaderValue::from_str(&self.authority);
        *request.uri_mut() = self.path.parse().map_err(|error| unfit(format!("{error}")))?;
        request.headers_mut().insert(HOST, host.map_err(|error| unfit(error.to_string()))?);
        let agent = HeaderValue::from_static(concat!("Holdfast/", env!("CARGO_PKG_VERSION")));
        request.headers_mut().insert(USER_AGENT, agent);
        let stream = connect(&self.host, self.port, allowed).await?;
        let loopback = stream.peer_addr().is_ok_and(|peer| peer.ip().to_canonical().is_loopback());
        if self.secure {
            let stream = tls::secure(stream, &self.host, authority).await?;
            exchange(TokioIo::new(stream), request, most).await
        } else if loopback && allowed.loopback {
            exchange(TokioIo::new(stream), request, most).await
        } else {
            Err(SendError::never("http:// to loopback only".to_owned()))
        }
    }
}

async fn exchange<T>(
    stream: T,
    request: Request<Full<Bytes>>,
    most: usize,
) -> Result<Response<Vec<u8>>, SendError>
where
    T: Read + Write + Unpin + Send + 'static,
{
    let failed = |error: hyper::Error| SendError::later(format!("HTTP: {error}"));
    let (mut sender, connection) = http1::Builder::new()
        .max_buf_size(64 << 10)
        .max_headers(64)
        .handshake(stream)
        .await
        .map_err(failed)?;
    // The connection lives as long as the answer is read, and no longer than an attempt.
    let mut tasks = tokio::task::JoinSet::new();
    tasks.spawn(connection);
    let response = sender.send_request(request).await.map_err(failed)?;
    Ok(answer(response, most).await)
}

async fn answer(response: Response<Incoming>, most: usize) -> Response<Vec<u8>> {
    let (head, mut body) = response.into_parts();
    let mut bytes = Vec::new();
    while bytes.len() < most {
        match body.frame().await {
            Some(Ok(frame)) => {
                let data = frame.into_data().unwrap_or_default();
                bytes.extend_from_slice(&data[..data.len().min(most - bytes.len())]);
            }
            Some(Err(_)) | None => break,
        }
    }
    Response::from_parts(head, bytes)
}
