//! How alerts are told: e-mail, webhooks, syslog; and their words: CEF, ECS, OCSF.
//!
//! This module knows messages, not the database: the queue is `app`'s. Invariants: where a message
//! goes is judged by [`crate::reach::address`] at each attempt; an answer of the other side is hostile text, cut,
//! and never holds the channel's secret; each attempt ends within [`ATTEMPT`].

use std::fmt;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;
use zeroize::Zeroizing;

pub mod cef;
pub mod ecs;
pub mod email;
pub mod fields;
pub mod letter;
pub mod notice;
pub mod ocsf;
pub mod syslog;
pub mod text;
pub mod webhook;

pub use self::email::EmailConfig;
use self::notice::Notice;
pub use self::syslog::SyslogConfig;
pub use self::webhook::WebhookConfig;
pub use crate::reach::SendError;
use crate::reach::address::Allowed;
use crate::reach::tls;

/// Longest attempt.
pub const ATTEMPT: Duration = Duration::from_secs(20);
/// Bytes of an answer that are kept.
const ANSWER: usize = 500;

/// Where a channel leads. Nothing in it is secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum ChannelConfig {
    /// Mail by SMTP; the secret is the password.
    Email(EmailConfig),
    /// JSON by HTTPS, signed; the secret is the key.
    Webhook(WebhookConfig),
    /// Syslog, RFC 5424; no secret.
    Syslog(SyslogConfig),
}

impl ChannelConfig {
    /// What is wrong with it.
    ///
    /// # Errors
    /// What is wrong, for people.
    pub fn check(&self, secret: Option<&str>, allowed: &Allowed) -> Result<(), String> {
        match self {
            Self::Email(config) => config.check(secret),
            Self::Webhook(config) => config.check(secret, allowed),
            Self::Syslog(config) => config.check(secret),
        }
    }

    /// Whom a secret would be shown to: when that changes, the secret must be given again.
    #[must_use]
    pub fn destination(&self) -> String {
        match self {
            Self::Email(config) => format!(
                "{}:{} {:?} {:?} {:?}",
                config.server, config.port, config.tls, config.user, config.authority
            ),
            Self::Webhook(config) => format!("{} {:?}", config.url, config.authority),
            Self::Syslog(config) => format!("{}:{}", config.server, config.port),
        }
    }

    /// How a secret looks on its way: as it is, and as mail servers are sent it. The longest first.
    fn spellings(&self, secret: &str) -> Vec<Zeroizing<String>> {
        let user = match self {
            Self::Email(config) => config.user.as_deref(),
            Self::Webhook(_) | Self::Syslog(_) => None,
        };
        let plain = Zeroizing::new(format!("\0{}\0{secret}", user.unwrap_or_default()));
        [STANDARD.encode(plain.as_bytes()), STANDARD.encode(secret), secret.to_owned()]
            .map(Zeroizing::new)
            .to_vec()
    }

    /// Alerts of a message whose evidence is told too.
    #[must_use]
    pub const fn details(&self) -> usize {
        match self {
            Self::Email(_) => letter::SHOWN,
            Self::Webhook(_) | Self::Syslog(_) => usize::MAX,
        }
    }
}

/// What is sent: one or more alerts.
#[derive(Debug, Clone, PartialEq)]
pub struct Message {
    /// The same at each attempt, so that receivers know what they have already.
    pub id: Uuid,
    /// When it was made, milliseconds since the epoch.
    pub created_ms: i64,
    /// A test that somebody asked for.
    pub test: bool,
    /// The alerts; never empty.
    pub notices: Vec<Notice>,
}

impl Message {
    /// Detections of all alerts.
    #[must_use]
    pub fn total(&self) -> i64 {
        self.notices.iter().fold(0, |sum, notice| sum.saturating_add(notice.count))
    }
}

/// A channel's secret. Shows nothing of itself.
#[derive(Clone)]
pub struct Secret(pub Zeroizing<String>);

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self(Zeroizing::new(text))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Secret")
    }
}

/// Sends a message; the other side's answer.
///
/// # Errors
/// [`SendError`]
pub async fn send(
    config: &ChannelConfig,
    secret: Option<&Secret>,
    allowed: &Allowed,
    message: &Message,
) -> Result<String, SendError> {
    let secret = secret.map(|secret| secret.0.as_str());
    let attempt = async {
        match config {
            ChannelConfig::Email(config) => email::send(config, secret, allowed, message).await,
            ChannelConfig::Webhook(config) => webhook::send(config, secret, allowed, message).await,
            ChannelConfig::Syslog(config) => syslog::send(config, allowed, message).await,
        }
    };
    let done = tokio::time::timeout(ATTEMPT, attempt).await.unwrap_or_else(|_| {
        Err(SendError::later(format!("no answer within {} s", ATTEMPT.as_secs())))
    });
    let spellings = secret.map(|secret| config.spellings(secret)).unwrap_or_default();
    match done {
        Ok(answer) => Ok(harmless(&answer, &spellings)),
        Err(error) => Err(SendError { message: harmless(&error.message, &spellings), ..error }),
    }
}

/// What the other side said, without the secret that it may repeat as it was sent.
fn harmless(answer: &str, spellings: &[Zeroizing<String>]) -> String {
    let mut answer = answer.to_owned();
    for spelling in spellings.iter().filter(|spelling| !spelling.is_empty()) {
        answer = answer.replace(spelling.as_str(), "[secret]");
    }
    text::plain(&answer, ANSWER)
}

/// The next attempt after so many failures, in milliseconds: 1 s, doubled each time, to a limit.
#[must_use]
pub fn back_off(failures: i64, most: Duration) -> i64 {
    let most = i64::try_from(most.as_millis()).unwrap_or(i64::MAX);
    let doublings = u32::try_from(failures.saturating_sub(1).clamp(0, 40)).unwrap_or(40);
    (1000_i64 << doublings).min(most)
}

/// A server's name or address without anything around it.
fn server_check(server: &str, port: u16) -> Result<(), String> {
    let fine = |c: char| c.is_ascii_alphanumeric() || "-._:[]".contains(c);
    if server.is_empty() || server.len() > 253 || !server.chars().all(fine) {
        return Err("server: a name or an address".to_owned());
    }
    if port == 0 {
        return Err("port: 1 to 65535".to_owned());
    }
    Ok(())
}

fn authority_check(authority: Option<&str>) -> Result<(), String> {
    let fine = |pem: &str| pem.len() <= 65_536 && !tls::certificates(pem).is_empty();
    match authority {
        Some(pem) if !fine(pem) => Err("authority: certificates in PEM, at most 64 KiB".to_owned()),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_back_off_doubles_to_its_limit() {
        let most = Duration::from_secs(300);
        let waits: Vec<i64> = [0, 1, 2, 3, 9, 10, 1000].map(|n| back_off(n, most)).into();
        assert_eq!(waits, [1000, 1000, 2000, 4000, 256_000, 300_000, 300_000]);
    }

    #[test]
    fn an_answer_that_repeats_the_secret_is_shown_without_it() {
        let config = ChannelConfig::Email(EmailConfig {
            server: "mail.example.org".to_owned(),
            port: 587,
            tls: email::MailTls::Starttls,
            user: Some("me".to_owned()),
            from: "me@example.org".to_owned(),
            to: Vec::new(),
            authority: None,
        });
        let spellings = config.spellings("hunter2");
        let said = harmless("535 hunter2\r\naHVudGVyMg== AG1lAGh1bnRlcjI= no", &spellings);
        assert_eq!(said, r"535 [secret]\u{d}\u{a}[secret] [secret] no");
        let shown = format!("{:?}", Secret(Zeroizing::new("hunter2".to_owned())));
        assert!(!shown.contains("hunter2"));
    }
}
