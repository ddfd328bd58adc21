//! The HTTP proxy on the way to the manager (CONNECT, RFC 9110 section 9.3.6), with Basic
//! authentication. The proxy sees the manager's name and port, and then TLS.

use std::fmt;

use base64::Engine;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use tonic::codegen::http::{HeaderValue, Uri};

/// A proxy, written `http://[user:password@]host[:port]`.
#[derive(Clone, PartialEq, Eq)]
pub struct Proxy {
    text: String,
    uri: Uri,
    authorization: Option<HeaderValue>,
    endpoint: String,
}

impl Proxy {
    /// # Errors
    /// What is wrong with it, without the password.
    pub fn parse(text: &str) -> Result<Self, String> {
        let rest = text.strip_prefix("http://").ok_or("a proxy begins with http://")?;
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let (user, place) = match rest.rsplit_once('@') {
            Some((user, place)) => (Some(user), place),
            None => (None, rest),
        };
        let uri: Uri = format!("http://{place}")
            .parse()
            .map_err(|_| format!("{place:?} is no host and port"))?;
        let host = uri.host().filter(|_| uri.path() == "/" && uri.query().is_none());
        let host = host.ok_or_else(|| format!("{place:?} is no host and port"))?;
        let port = uri.port_u16().unwrap_or(80);
        let endpoint = format!("{host}:{port}");
        let uri = format!("http://{endpoint}").parse().map_err(|_| "no host and port")?;
        let authorization = user
            .map(|user| {
                let decoded = decode(user).ok_or("user or password is not percent-encoded")?;
                if !decoded.contains(&b':') {
                    return Err("a user has a password: user:password@");
                }
                let coded = base64::engine::general_purpose::STANDARD.encode(decoded);
                let mut value = HeaderValue::from_str(&format!("Basic {coded}"))
                    .map_err(|_| "user or password cannot be sent")?;
                value.set_sensitive(true);
                Ok(value)
            })
            .transpose()?;
        Ok(Self { text: text.to_owned(), uri, authorization, endpoint })
    }

    /// Where it listens.
    pub(super) const fn uri(&self) -> &Uri {
        &self.uri
    }

    /// `Proxy-Authorization`.
    pub(super) const fn authorization(&self) -> Option<&HeaderValue> {
        self.authorization.as_ref()
    }

    /// `host:port`.
    pub(super) fn endpoint(&self) -> &str {
        &self.endpoint
    }
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Proxy({})", self.endpoint)
    }
}

impl Serialize for Proxy {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.text.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Proxy {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::parse(&String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

/// `%41` and so on (RFC 3986 section 2.1).
fn decode(text: &str) -> Option<Vec<u8>> {
    let mut bytes = text.bytes();
    let mut decoded = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'%' => {
                let digit = |byte: u8| char::from(byte).to_digit(16);
                let (high, low) = (digit(bytes.next()?)?, digit(bytes.next()?)?);
                u8::try_from(high << 4 | low).ok()?
            }
            byte => byte,
        });
    }
    Some(decoded)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proxy_has_a_place_and_perhaps_a_user_whose_password_is_not_shown() {
        let proxy = Proxy::parse("http://al%40ice:s%3Acret@proxy.example:3128/").expect("proxy");
        assert_eq!(proxy.endpoint(), "proxy.example:3128");
        assert_eq!(proxy.uri(), "http://proxy.example:3128/");
        let coded = proxy.authorization().expect("user").to_str().expect("text").to_owned();
        assert_eq!(coded, "Basic YWxAaWNlOnM6Y3JldA==");
        assert!(!format!("{proxy:?}").contains("cret"));
        assert_eq!(Proxy::parse("http://[::1]:8080").expect("address").endpoint(), "[::1]:8080");
        assert_eq!(Proxy::parse("http://proxy").expect("default port").endpoint(), "proxy:80");
        for wrong in
            ["proxy:3128", "https://proxy", "http://", "http://a@b", "http://b/c", "http://a:%zz@b"]
        {
            let error = Proxy::parse(wrong).expect_err(wrong);
            assert!(!error.contains("%zz"), "{error}");
        }
    }
}
