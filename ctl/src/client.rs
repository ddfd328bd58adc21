//! The manager's REST interface, as it is asked: JSON in, JSON out, errors as problems.
//!
//! INVARIANT: the token goes to the manager that was named and nowhere else: over TLS, the loopback
//! or a Unix socket, and never along a redirect. An answer's size and the pauses in it are bounded.

use std::fmt;
use std::time::Duration;

use reqwest::header::{HeaderMap, HeaderValue};
use reqwest::{Method, Response, StatusCode, Upgraded, Url, redirect};
use serde_json::Value;

use crate::arguments::Place;
use crate::{CtlError, secret, trust};

/// Longest wait for a connection, and for the next part of an answer. The manager lives up to 15 s
/// of silence in a live view.
const CONNECT: Duration = Duration::from_secs(10);
const SILENCE: Duration = Duration::from_secs(75);
/// Largest answer that is taken into memory, bytes.
const LARGEST: usize = 64 << 20;

/// A request with a key is repeated so often when the connection breaks.
const TRIES: u32 = 3;

/// What the manager says is wrong (RFC 9457).
#[derive(Debug)]
pub(crate) struct Problem {
    /// The HTTP status.
    pub(crate) status: StatusCode,
    detail: String,
    position: Option<u64>,
    retry_after: Option<String>,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.status, self.detail)?;
        if let Some(position) = self.position {
            write!(f, " (at character {})", position + 1)?;
        }
        if let Some(seconds) = &self.retry_after {
            write!(f, "; try again in {seconds} s")?;
        }
        if self.status == StatusCode::UNAUTHORIZED {
            write!(f, "; holdfast-ctl sign-in, or HOLDFAST_TOKEN, or --token-file")?;
        }
        Ok(())
    }
}

/// A manager, and who asks it.
pub(crate) struct Client {
    http: reqwest::Client,
    base: Url,
    token: Option<HeaderValue>,
    shown: String,
}

impl Client {
    /// Connects to nobody yet.
    pub(crate) fn new(place: &Place) -> Result<Self, CtlError> {
        let failed = |error: reqwest::Error| CtlError::Failed(chain(&error));
        let mut builder = reqwest::Client::builder()
            .user_agent(concat!("holdfast-ctl/", env!("CARGO_PKG_VERSION")))
            .redirect(redirect::Policy::none())
            .connect_timeout(CONNECT)
            .read_timeout(SILENCE);
        let (base, shown) = match &place.socket {
            Some(socket) => {
                builder = builder.unix_socket(socket.clone());
                ("http://localhost".to_owned(), socket.display().to_string())
            }
            None => (place.manager.clone(), place.manager.clone()),
        };
        let base = base_url(&base)?;
        // Without TLS, too: reqwest wants to know whose.
        let tls = if base.scheme() == "https" { trust::config(place)? } else { trust::nobody()? };
        builder = builder.tls_backend_preconfigured(tls);
        let token = secret::token(place)?;
        Ok(Self { http: builder.build().map_err(failed)?, base, token, shown })
    }

    /// Asks with this token from now on.
    pub(crate) fn bear(&mut self, token: &str) -> Result<(), CtlError> {
        self.token = Some(secret::bearer(token)?);
        Ok(())
    }

    /// GET.
    pub(crate) async fn get(
        &self,
        path: &str,
        query: &[(&str, String)],
    ) -> Result<Value, CtlError> {
        let mut url = self.url(path)?;
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        let response = self.send(Method::GET, url, None, None).await?;
        self.json(response).await
    }

    /// Any other method, with a JSON body or none; null for an answer without one.
    pub(crate) async fn call(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Value, CtlError> {
        let response = self.send(method, self.url(path)?, body, None).await?;
        self.json(response).await
    }

    /// DELETE, with what is to be said of it.
    pub(crate) async fn delete(
        &self,
        path: &str,
        query: &[(&str, String)],
    ) -> Result<Value, CtlError> {
        let mut url = self.url(path)?;
        url.query_pairs_mut().extend_pairs(query);
        let response = self.send(Method::DELETE, url, None, None).await?;
        self.json(response).await
    }

    /// POST that may be repeated, since its key makes it one request; it is, when the connection
    /// breaks.
    pub(crate) async fn post_once(
        &self,
        path: &str,
        body: &Value,
        key: &str,
    ) -> Result<Value, CtlError> {
        let key = HeaderValue::from_str(key)
            .map_err(|_| CtlError::Usage("--key: plain text".to_owned()))?;
        let mut tries = 1;
        loop {
            let sent = self.send(Method::POST, self.url(path)?, Some(body), Some(&key)).await;
            let answer = match sent {
                Ok(response) => self.json(response).await,
                Err(error) => Err(error),
            };
            match answer {
                Err(CtlError::Unreachable { .. }) if tries < TRIES => tries += 1,
                other => return other,
            }
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
    }

    /// The beginning of an answer; its body is the caller's to read.
    pub(crate) async fn open(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Response, CtlError> {
        self.send(method, self.url(path)?, body, None).await
    }

    /// GET, answered by a WebSocket.
    pub(crate) async fn upgrade(&self, path: &str) -> Result<Upgraded, CtlError> {
        let key = tokio_tungstenite::tungstenite::handshake::client::generate_key();
        let mut headers = HeaderMap::new();
        if let Some(token) = &self.token {
            headers.insert("authorization", token.clone());
        }
        let wanted = [("connection", "Upgrade"), ("upgrade", "websocket")];
        for (name, value) in wanted.into_iter().chain([("sec-websocket-version", "13")]) {
            headers.insert(name, HeaderValue::from_static(value));
        }
        headers.extend(
            HeaderValue::from_str(&key).map(|key| (reqwest::header::SEC_WEBSOCKET_KEY, key)),
        );
        let request = self.http.request(Method::GET, self.url(path)?).headers(headers);
        let response = request.send().await.map_err(|error| self.unreachable(&error))?;
        let accept = tokio_tungstenite::tungstenite::handshake::derive_accept_key(key.as_bytes());
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            return Err(self.problem(response).await);
        }
        let shown = response.headers().get(reqwest::header::SEC_WEBSOCKET_ACCEPT);
        if shown.is_none_or(|shown| shown.as_bytes() != accept.as_bytes()) {
            let why = "the answer is no WebSocket; is this a manager?".to_owned();
            return Err(CtlError::Failed(why));
        }
        response.upgrade().await.map_err(|error| self.unreachable(&error))
    }

    async fn send(
        &self,
        method: Method,
        url: Url,
        body: Option<&Value>,
        key: Option<&HeaderValue>,
    ) -> Result<Response, CtlError> {
        let mut headers = HeaderMap::new();
        if let Some(token) = &self.token {
            headers.insert("authorization", token.clone());
        }
        if let Some(key) = key {
            headers.insert("idempotency-key", key.clone());
        }
        let mut request = self.http.request(method, url).headers(headers);
        if let Some(body) = body {
            request = request.json(body);
        }
        let response = request.send().await.map_err(|error| self.unreachable(&error))?;
        if response.status().is_success() {
            Ok(response)
        } else {
            Err(self.problem(response).await)
        }
    }

    /// An error on the way, with what may help.
    pub(crate) fn unreachable(&self, error: &reqwest::Error) -> CtlError {
        let mut why = chain(error);
        if why.contains("UnknownIssuer") {
            why.push_str("; is it the manager's own authority? then --ca or --ca-fingerprint");
        }
        CtlError::Unreachable { manager: self.shown.clone(), why }
    }

    /// The body of an answer, as far as it is taken.
    pub(crate) async fn body(&self, mut response: Response) -> Result<Vec<u8>, CtlError> {
        let mut bytes = Vec::new();
        while let Some(part) = response.chunk().await.map_err(|error| self.unreachable(&error))? {
            if bytes.len() + part.len() > LARGEST {
                return Err(CtlError::Failed(format!("the answer is larger than {LARGEST} bytes")));
            }
            bytes.extend_from_slice(&part);
        }
        Ok(bytes)
    }

    async fn json(&self, response: Response) -> Result<Value, CtlError> {
        let bytes = self.body(response).await?;
        if bytes.is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_slice(&bytes).map_err(|error| {
            CtlError::Failed(format!("the answer is no JSON ({error}); is this a manager?"))
        })
    }

    async fn problem(&self, response: Response) -> CtlError {
        let status = response.status();
        let header = response.headers().get("retry-after").cloned();
        let retry_after = header.and_then(|value| Some(value.to_str().ok()?.to_owned()));
        let bytes = self.body(response).await.unwrap_or_default();
        let said: Value = serde_json::from_slice(&bytes).unwrap_or_default();
        let detail = said["detail"].as_str();
        let detail = detail.unwrap_or("the answer says no more; is this a manager?").to_owned();
        let position = said["position"].as_u64();
        CtlError::Refused(Problem { status, detail, position, retry_after })
    }

    fn url(&self, path: &str) -> Result<Url, CtlError> {
        let wrong = || CtlError::Usage(format!("{path:?} is no path such as /api/v1/hosts"));
        // Nothing may lead to another host: //elsewhere/ is no path.
        if !path.starts_with('/') || path.starts_with("//") || path.contains('\\') {
            return Err(wrong());
        }
        self.base.join(path).map_err(|_| wrong())
    }
}

fn base_url(text: &str) -> Result<Url, CtlError> {
    let wrong = |why: &str| CtlError::Usage(format!("--manager {text}: {why}"));
    let url = Url::parse(text).map_err(|error| wrong(&error.to_string()))?;
    let host = url.host_str().ok_or_else(|| wrong("no host"))?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err(wrong("no user or password here; see --token-file"));
    }
    let loopback = host == "localhost"
        || host.trim_matches(['[', ']']).parse::<std::net::IpAddr>().is_ok_and(|a| a.is_loopback());
    match url.scheme() {
        "https" => Ok(url),
        "http" if loopback => Ok(url),
        "http" => Err(wrong("the token would go over the network as it is; use https")),
        _ => Err(wrong("https://host[:port]")),
    }
}

/// The whole chain of an error on one line, without the URL.
fn chain(error: &reqwest::Error) -> String {
    let mut parts: Vec<String> = Vec::new();
    let mut next = std::error::Error::source(error);
    while let Some(error) = next {
        let part = error.to_string();
        // Wrappers repeat what they wrap.
        if parts.last().is_none_or(|last| !last.contains(&part)) {
            parts.push(part);
        }
        next = error.source();
    }
    if parts.is_empty() { error.to_string() } else { parts.join(": ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_never_goes_over_a_network_in_the_clear() {
        for fine in
            ["https://m.example:8443", "http://127.0.0.1:1", "http://[::1]", "http://localhost"]
        {
            assert!(base_url(fine).is_ok(), "{fine}");
        }
        for bad in [
            "http://m.example",
            "http://127.0.0.1.example",
            "http://localhost.example",
            "https://user:secret@m.example",
            "ftp://localhost",
            "manager",
            "",
        ] {
            assert!(matches!(base_url(bad), Err(CtlError::Usage(_))), "{bad}");
        }
    }

    #[test]
    fn a_path_leads_to_no_other_host() {
        let client = Client {
            http: reqwest::Client::builder()
                .tls_backend_preconfigured(trust::nobody().expect("TLS"))
                .build()
                .expect("client"),
            base: base_url("http://localhost:1").expect("url"),
            token: None,
            shown: String::new(),
        };
        for bad in ["//evil.example/", "https://evil.example/", "\\\\evil.example", "hosts", "/\\e"]
        {
            assert!(client.url(bad).is_err(), "{bad}");
        }
        let url = client.url("/api/v1/hosts?limit=1").expect("url");
        assert_eq!(url.as_str(), "http://localhost:1/api/v1/hosts?limit=1");
    }
}
