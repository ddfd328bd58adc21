//! A caller of the manager's HTTP interface, over its Unix socket, as one user with a token.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use axum::body::{Body, Bytes, to_bytes};
use axum::http::{Method, Request, StatusCode, Uri, header};
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::Value;
use tokio::net::UnixStream;
use tower::util::BoxCloneSyncService;

/// The longest answer, bytes.
const LONGEST: usize = 64 << 20;
/// Between two looks at something that is waited for. 100 requests a second are answered.
const LOOK: Duration = Duration::from_millis(11);

type Connect = BoxCloneSyncService<Uri, TokioIo<UnixStream>, std::io::Error>;

/// The caller.
#[derive(Clone)]
pub struct Rest {
    client: Client<Connect, Body>,
    token: Arc<str>,
}

impl Rest {
    /// Of the manager behind this socket.
    pub fn new(socket: &Path) -> Self {
        let socket: Arc<PathBuf> = Arc::new(socket.to_owned());
        let connect = tower::service_fn(move |_: Uri| {
            let socket = Arc::clone(&socket);
            async move { UnixStream::connect(&*socket).await.map(TokioIo::new) }
        });
        let client = Client::builder(TokioExecutor::new()).build(Connect::new(connect));
        Self { client, token: "".into() }
    }

    /// Signs in with a one-time password, and makes another.
    ///
    /// # Errors
    /// What the manager says.
    pub async fn sign_in(mut self, password: &str) -> Result<Self> {
        let who = serde_json::json!({ "name": "admin", "password": password });
        let session = self.post("/api/v1/session", &who).await?;
        self.token = session["token"].as_str().context("a token")?.into();
        let change = serde_json::json!({ "old": password, "new": "a bench of the manager" });
        self.post("/api/v1/session/password", &change).await?;
        Ok(self)
    }

    /// Reads.
    ///
    /// # Errors
    /// What the manager says.
    pub async fn get(&self, path: &str) -> Result<Value> {
        let (status, body) = self.call(Method::GET, path, Body::empty()).await?;
        ensure!(status.is_success(), "{path}: {status} {}", String::from_utf8_lossy(&body));
        Ok(serde_json::from_slice(&body)?)
    }

    /// Reads what is no JSON.
    ///
    /// # Errors
    /// What the manager says.
    pub async fn bytes(&self, path: &str) -> Result<Bytes> {
        let (status, body) = self.call(Method::GET, path, Body::empty()).await?;
        ensure!(status.is_success(), "{path}: {status} {}", String::from_utf8_lossy(&body));
        Ok(body)
    }

    /// Makes something.
    ///
    /// # Errors
    /// What the manager says.
    pub async fn post(&self, path: &str, value: &Value) -> Result<Value> {
        let body = Body::from(serde_json::to_vec(value)?);
        let (status, body) = self.call(Method::POST, path, body).await?;
        ensure!(status.is_success(), "{path}: {status} {}", String::from_utf8_lossy(&body));
        Ok(serde_json::from_slice(&body).unwrap_or(Value::Null))
    }

    /// A number of `/metrics`, without its prefix and `_total`.
    ///
    /// # Errors
    /// When it is not there.
    pub async fn metric(&self, name: &str) -> Result<f64> {
        let text = String::from_utf8(self.bytes("/metrics").await?.to_vec())?;
        let value = text.lines().find_map(|line| {
            let (found, value) = line.split_once(' ')?;
            let found = found.strip_prefix("holdfast_")?;
            (found.strip_suffix("_total").unwrap_or(found) == name).then_some(value)
        });
        Ok(value.with_context(|| format!("no metric {name} in\n{text}"))?.parse()?)
    }

    /// Asks again until the answer fits.
    ///
    /// # Errors
    /// When none does in time.
    pub async fn wait(
        &self,
        path: &str,
        patience: Duration,
        fits: impl Fn(&Value) -> bool,
    ) -> Result<Value> {
        let end = tokio::time::Instant::now() + patience;
        loop {
            let answer = self.get(path).await?;
            if fits(&answer) {
                return Ok(answer);
            }
            if tokio::time::Instant::now() > end {
                bail!("{path} never fitted; last {answer}");
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    async fn call(&self, method: Method, path: &str, body: Body) -> Result<(StatusCode, Bytes)> {
        let request = Request::builder()
            .method(method)
            .uri(format!("http://manager{path}"))
            .header(header::AUTHORIZATION, format!("Bearer {}", self.token))
            .header(header::CONTENT_TYPE, "application/json")
            .body(body)?;
        let answer = self.client.request(request).await.with_context(|| path.to_owned())?;
        let status = answer.status();
        Ok((status, to_bytes(Body::new(answer.into_body()), LONGEST).await?))
    }
}
