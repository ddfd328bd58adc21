//! Mail by SMTP with STARTTLS or TLS.
//!
//! INVARIANT: nothing that a host said stands in a header but the subject; the password goes only
//! over TLS whose certificate was checked. What a mail says is `letter`'s.

use std::fmt::Write;
use std::time::Duration;

use lettre::message::header::{Header, HeaderName, HeaderValue};
use lettre::message::{Mailbox, MultiPart};
use lettre::transport::smtp::authentication::Credentials;
use lettre::transport::smtp::client::{Certificate, CertificateStore, Tls, TlsParameters};
use lettre::transport::smtp::extension::ClientId;
use lettre::{AsyncSmtpTransport, AsyncTransport, Tokio1Executor};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::letter::{body_html, body_text, subject};
use super::{Message, SendError, authority_check, server_check};
use crate::reach::address::{Allowed, resolve};

/// For each step of the SMTP conversation.
const STEP: Duration = Duration::from_secs(10);

/// Mail by SMTP.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct EmailConfig {
    /// Name or address of the mail server.
    pub server: String,
    /// Its port: usually 587 with `starttls`, 465 with `tls`.
    pub port: u16,
    /// How the connection is encrypted.
    #[serde(default)]
    pub tls: MailTls,
    /// User to sign in as, with the channel's secret as password.
    #[serde(default)]
    pub user: Option<String>,
    /// Sender, e.g. `Holdfast <holdfast@example.org>`.
    pub from: String,
    /// Receivers, 1 to 50.
    pub to: Vec<String>,
    /// PEM of the authority that the server's certificate must come from; the system's without it.
    #[serde(default)]
    pub authority: Option<String>,
}

/// How a connection to a mail server is encrypted. Without encryption it is not left out: it
/// fails.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum MailTls {
    /// Begins in the clear and must change to TLS before anything is said.
    #[default]
    Starttls,
    /// TLS from the first byte.
    Tls,
    /// None; to a server at a loopback address only, and without a password.
    None,
}

/// Marks mail as a machine's, so that nobody's absence notice answers it (RFC 3834).
#[derive(Clone)]
struct AutoSubmitted;

impl Header for AutoSubmitted {
    fn name() -> HeaderName {
        HeaderName::new_from_ascii_str("Auto-Submitted")
    }

    fn parse(_: &str) -> Result<Self, Box<dyn std::error::Error + Send + Sync>> {
        Ok(Self)
    }

    fn display(&self) -> HeaderValue {
        HeaderValue::new(Self::name(), "auto-generated".to_owned())
    }
}

impl EmailConfig {
    pub(super) fn check(&self, secret: Option<&str>) -> Result<(), String> {
        server_check(&self.server, self.port)?;
        authority_check(self.authority.as_deref())?;
        mailbox("from", &self.from)?;
        if self.to.is_empty() || self.to.len() > 50 {
            return Err("to: 1 to 50 addresses".to_owned());
        }
        for to in &self.to {
            mailbox("to", to)?;
        }
        if self.user.is_some() != secret.is_some() {
            return Err("user and secret (the password) go together".to_owned());
        }
        if self.user.as_ref().is_some_and(|user| user.is_empty() || user.len() > 320) {
            return Err("user: 1 to 320 bytes".to_owned());
        }
        if self.tls == MailTls::None && self.user.is_some() {
            return Err("tls: a password is not sent without encryption".to_owned());
        }
        Ok(())
    }
}

fn mailbox(key: &str, text: &str) -> Result<Mailbox, String> {
    if text.len() > 320 || text.chars().any(char::is_control) {
        return Err(format!("{key}: not an e-mail address"));
    }
    text.parse().map_err(|error| format!("{key}: {error}"))
}

/// Sends a message; the server's answer.
pub(super) async fn send(
    config: &EmailConfig,
    secret: Option<&str>,
    allowed: &Allowed,
    message: &Message,
) -> Result<String, SendError> {
    let mail = compose(config, message).map_err(SendError::never)?;
    let addresses = resolve(&config.server, config.port, allowed).await?;
    let mut last = SendError::later(format!("{}: the name has no address", config.server));
    for address in addresses.into_iter().take(2) {
        if config.tls == MailTls::None && !address.ip().to_canonical().is_loopback() {
            return Err(SendError::never("without encryption to loopback only".to_owned()));
        }
        // The address that was judged; the certificate must have the name.
        let mut builder =
            AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous(address.ip().to_string())
                .port(config.port)
                .timeout(Some(STEP))
                .hello_name(hello())
                .tls(tls(config).await?);
        if let (Some(user), Some(password)) = (&config.user, secret) {
            builder = builder.credentials(Credentials::new(user.clone(), password.to_owned()));
        }
        let transport: AsyncSmtpTransport<Tokio1Executor> = builder.build();
        match transport.send(mail.clone()).await {
            Ok(response) => {
                let words: Vec<&str> = response.message().collect();
                return Ok(format!("{} {}", response.code(), words.join(" ")));
            }
            // A wrong password is permanent to SMTP, but people put it right at the server too.
            Err(error) => {
                let refused = error.is_permanent() && error.status().is_some_and(rejects_mail);
                last = SendError { refused, message: chain(&error) };
                if error.status().is_some() {
                    return Err(last);
                }
            }
        }
    }
    Err(last)
}

/// 550 to 556: this mail, or this receiver. Others (530, 535) are about the sign-in.
fn rejects_mail(code: lettre::transport::smtp::response::Code) -> bool {
    code.to_string().starts_with("55")
}

fn hello() -> ClientId {
    let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let fine = |c: char| c.is_ascii_alphanumeric() || "-.".contains(c);
    if name.is_empty() || !name.chars().all(fine) {
        return ClientId::Domain("localhost".to_owned());
    }
    ClientId::Domain(name)
}

async fn tls(config: &EmailConfig) -> Result<Tls, SendError> {
    if config.tls == MailTls::None {
        return Ok(Tls::None);
    }
    let (name, authority) = (config.server.clone(), config.authority.clone());
    // Reading the system's authorities is file work.
    let made = tokio::task::spawn_blocking(move || {
        let mut builder = TlsParameters::builder(name);
        if let Some(pem) = authority {
            builder = builder.certificate_store(CertificateStore::None);
            for der in super::tls::certificates(&pem) {
                builder = builder.add_root_certificate(Certificate::from_der(der.to_vec())?);
            }
        }
        builder.build_rustls()
    });
    let parameters = made.await.map_err(|error| SendError::later(format!("TLS: {error}")))?;
    let parameters = parameters.map_err(|error| SendError::later(chain(&error)))?;
    Ok(match config.tls {
        MailTls::Tls => Tls::Wrapper(parameters),
        MailTls::Starttls | MailTls::None => Tls::Required(parameters),
    })
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let more = error.to_string();
        if !text.contains(&more) {
            let _ = write!(text, ": {more}");
        }
        source = error.source();
    }
    text
}

fn compose(config: &EmailConfig, message: &Message) -> Result<lettre::Message, String> {
    let from = mailbox("from", &config.from)?;
    let domain = from.email.domain().to_owned();
    let mut builder = lettre::Message::builder()
        .from(from)
        .subject(subject(message))
        .message_id(Some(format!("<{}@{domain}>", message.id)))
        .date(std::time::SystemTime::now())
        .header(AutoSubmitted);
    for to in &config.to {
        builder = builder.to(mailbox("to", to)?);
    }
    builder
        .multipart(MultiPart::alternative_plain_html(body_text(message), body_html(message)))
        .map_err(|error| format!("compose a mail: {error}"))
}
