//! Webhooks: JSON by POST, signed as Standard Webhooks says (HMAC-SHA256 over id, time and body).
//!
//! One request to the one address that an admin named, as [`crate::reach::http`] has it; at most
//! [`ANSWER`] bytes of the answer are read.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use http_body_util::Full;
use hyper::body::Bytes;
use hyper::header::CONTENT_TYPE;
use hyper::{Method, Request, Response};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::Sha256;
use utoipa::ToSchema;

use super::notice::{Evidence, Notice};
use super::{Message, SendError, authority_check, ocsf};
use crate::reach::address::Allowed;
use crate::reach::http::Target;

/// Bytes of an answer that are read.
const ANSWER: usize = 4096;
/// Bytes of a key, at least.
const KEY: usize = 16;
/// How a key begins that is given in base64, as Standard Webhooks has it.
const PREFIX: &str = "whsec_";

/// JSON by HTTPS, signed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct WebhookConfig {
    /// `https://…`, without user and password. Redirects are not followed.
    pub url: String,
    /// What the body is.
    #[serde(default)]
    pub format: WebhookFormat,
    /// PEM of the authority that the server's certificate must come from; the system's without it.
    #[serde(default)]
    pub authority: Option<String>,
}

/// What a webhook's body is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum WebhookFormat {
    /// `{"id", "type", "timestamp", "detections", "alerts": […]}`.
    #[default]
    Holdfast,
    /// A list of OCSF Detection Findings (class 2004).
    Ocsf,
}

impl WebhookConfig {
    pub(super) fn check(&self, secret: Option<&str>, allowed: &Allowed) -> Result<(), String> {
        authority_check(self.authority.as_deref())?;
        let target = Target::of(&self.url).map_err(|what| format!("url: {what}"))?;
        if !target.is_secure() && !allowed.loopback {
            return Err("url: https://…; http:// is for loopback, when the config file says \
                        notify.allow_loopback"
                .to_owned());
        }
        key(secret.ok_or("secret: a webhook needs a key to sign with")?).map(|_| ())
    }
}

fn key(secret: &str) -> Result<Vec<u8>, String> {
    let key = match secret.strip_prefix(PREFIX) {
        Some(coded) => {
            STANDARD.decode(coded).map_err(|_| format!("secret: after {PREFIX} comes base64"))?
        }
        None => secret.as_bytes().to_vec(),
    };
    if key.len() < KEY || key.len() > 256 {
        return Err(format!("secret: {KEY} to 256 bytes"));
    }
    Ok(key)
}

/// The value of `webhook-signature`.
fn signature(key: &[u8], id: &str, time_s: i64, body: &[u8]) -> Result<String, SendError> {
    let mac = Hmac::<Sha256>::new_from_slice(key);
    let mut mac = mac.map_err(|_| SendError::never("the key does not fit".to_owned()))?;
    for part in [id.as_bytes(), b".", time_s.to_string().as_bytes(), b".", body] {
        mac.update(part);
    }
    Ok(format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes())))
}

/// Sends a message; the server's answer.
pub(super) async fn send(
    config: &WebhookConfig,
    secret: Option<&str>,
    allowed: &Allowed,
    message: &Message,
) -> Result<String, SendError> {
    let target = Target::of(&config.url).map_err(SendError::never)?;
    let key = key(secret.unwrap_or_default()).map_err(SendError::never)?;
    let body = body(config.format, message);
    let request = request(&key, message, body)?;
    answer(&target.call(request, config.authority.as_deref(), allowed, ANSWER).await?)
}

fn request(key: &[u8], message: &Message, body: String) -> Result<Request<Full<Bytes>>, SendError> {
    let id = message.id.to_string();
    // Of this attempt: receivers refuse old ones.
    let time_s = crate::app::now_ms().div_euclid(1000);
    let signature = signature(key, &id, time_s, body.as_bytes())?;
    Request::builder()
        .method(Method::POST)
        .header(CONTENT_TYPE, "application/json")
        .header("webhook-id", id)
        .header("webhook-timestamp", time_s)
        .header("webhook-signature", signature)
        .body(Full::new(Bytes::from(body)))
        .map_err(|error| SendError::never(format!("make a request: {error}")))
}

fn answer(response: &Response<Vec<u8>>) -> Result<String, SendError> {
    let status = response.status();
    let said = format!("{status} {}", String::from_utf8_lossy(response.body()));
    let said = said.trim().to_owned();
    if status.is_success() {
        return Ok(said);
    }
    let refused =
        status.is_client_error() && ![401, 403, 404, 408, 425, 429].contains(&status.as_u16());
    Err(SendError { refused, message: said })
}

fn body(format: WebhookFormat, message: &Message) -> String {
    match format {
        WebhookFormat::Ocsf => {
            let list: Vec<Value> = message.notices.iter().map(ocsf::of_notice).collect();
            Value::Array(list).to_string()
        }
        WebhookFormat::Holdfast => json!({
            "id": message.id,
            "type": if message.test { "test" } else { "alerts" },
            "timestamp": super::text::time(message.created_ms),
            "detections": message.total(),
            "alerts": message.notices.iter().map(notice).collect::<Vec<_>>(),
        })
        .to_string(),
    }
}

fn notice(notice: &Notice) -> Value {
    json!({
        "id": notice.alert,
        "host": notice.host,
        "addresses": notice.addresses,
        "kind": notice.kind,
        "model": notice.model,
        "title": notice.title,
        "level": notice.level,
        "attack": notice.attack,
        "simulated": notice.simulated,
        "count": notice.count,
        "first_ms": notice.first_ms,
        "last_ms": notice.last_ms,
        "fields": super::fields::fields(notice)
            .into_iter()
            .map(|(name, value)| json!({ "name": name, "value": value }))
            .collect::<Vec<_>>(),
        "evidence": match &notice.evidence {
            Evidence::Event(event) => serde_json::to_value(event).unwrap_or_default(),
            Evidence::Other(value) => value.clone(),
            Evidence::LeftOut => Value::Null,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

    #[test]
    fn the_signature_is_that_of_the_standards_example() {
        let key = key(SECRET).expect("key");
        let (id, time_s) = ("msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330);
        let signed = signature(&key, id, time_s, br#"{"test": 2432232314}"#).expect("sign");
        assert_eq!(signed, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn only_encrypted_addresses_without_credentials_are_taken() {
        let config = |url: &str| WebhookConfig {
            url: url.to_owned(),
            format: WebhookFormat::Holdfast,
            authority: None,
        };
        let strict = Allowed::default();
        let loopback = Allowed { loopback: true, ..Allowed::default() };
        assert_eq!(config("https://example.org/x?y=1").check(Some(SECRET), &strict), Ok(()));
        assert_eq!(config("http://127.0.0.1/x").check(Some(SECRET), &loopback), Ok(()));
        for url in [
            "http://example.org/",
            "ftp://example.org/",
            "https://user:password@example.org/",
            "https:///x",
            "https://example.org/#x",
            "/x",
            "https://exa mple.org/",
            "https://example.org/\r\nx: y",
        ] {
            assert!(config(url).check(Some(SECRET), &strict).is_err(), "{url}");
        }
        for secret in [None, Some("short"), Some("whsec_***")] {
            assert!(config("https://example.org").check(secret, &strict).is_err());
        }
    }
}
