//! OpenID Connect: who somebody is, in another party's words.
//!
//! ```text
//! begin ─▶ browser to the provider ─▶ callback with a code ─▶ tokens ─▶ claims that are verified
//! ```
//! The authorization code flow with PKCE, state and nonce (OpenID Connect Core 1.0, RFC 7636). The
//! ID token's signature, issuer, audience, time and nonce are verified; a name and groups come from
//! it or from the userinfo endpoint, of the same subject. INVARIANT: the provider's words decide
//! nothing here: what they are worth is `app`'s. Provider and keys are asked for anew each time: no
//! sign-in hangs on keys that were changed since.

mod claims;

use std::pin::Pin;
use std::time::Duration;

use http_body_util::Full;
use hyper::Request;
use hyper::body::Bytes;
use openidconnect::core::{
    CoreAuthenticationFlow, CoreClient, CoreGenderClaim, CoreProviderMetadata,
};
use openidconnect::{
    AuthorizationCode, ClientId, ClientSecret, CsrfToken, HttpRequest, HttpResponse, IssuerUrl,
    Nonce, OAuth2TokenResponse, PkceCodeChallenge, PkceCodeVerifier, RedirectUrl, Scope,
};
use serde::{Deserialize, Serialize};

use self::claims::ClaimClient;
pub use self::claims::{Claims, Identity};
use crate::notify::Secret;
use crate::reach::SendError;
use crate::reach::address::Allowed;
use crate::reach::http::Target;

/// Bytes of each of the provider's answers.
const ANSWER: usize = 512 << 10;
/// All requests of one step together.
const STEP: Duration = Duration::from_secs(20);

/// A provider, from the config file.
#[derive(Debug, Clone)]
pub struct Provider {
    /// Its name, in addresses and on the page for signing in.
    pub name: String,
    /// Its issuer.
    pub issuer: String,
    /// As the manager is known there.
    pub client_id: String,
    /// What the manager proves itself with there.
    pub client_secret: Secret,
    /// Where it sends people back to.
    pub callback: String,
    /// Asked for beside `openid`.
    pub scopes: Vec<String>,
    /// The claim that is the user's name.
    pub name_claim: String,
    /// The claim whose values give a role.
    pub role_claim: String,
    /// PEM of the authority that its certificate must come from; the system's without it.
    pub authority: Option<String>,
    /// Where the manager may connect to.
    pub allowed: Allowed,
}

/// A sign-in that has begun; for the browser to keep, sealed.
#[derive(Debug, Serialize, Deserialize)]
pub struct Attempt {
    /// The provider's name.
    pub provider: String,
    /// Comes back with the code.
    pub state: String,
    /// Comes back in the ID token.
    pub nonce: String,
    /// PKCE's verifier.
    pub verifier: String,
    /// Worth nothing after this, milliseconds since the epoch.
    pub until_ms: i64,
}

/// The provider could not be asked, or what it said does not hold.
#[derive(Debug, thiserror::Error)]
pub enum OidcError {
    /// It was not reached.
    #[error("reach the provider")]
    Reach(#[source] SendError),
    /// It answered within no bearable time.
    #[error("the provider does not answer within {} s", STEP.as_secs())]
    Slow,
    /// What it said cannot be used, or is forged.
    #[error("{what}: {message}")]
    Words {
        /// What of it.
        what: &'static str,
        /// Why not.
        message: String,
    },
}

type Boxed<T> = Pin<Box<dyn Future<Output = T> + Send>>;

fn words<E: std::error::Error>(what: &'static str) -> impl Fn(E) -> OidcError {
    move |error| {
        let mut message = error.to_string();
        let mut cause = error.source();
        while let Some(source) = cause {
            message = format!("{message}: {source}");
            cause = source.source();
        }
        OidcError::Words { what, message: crate::notify::text::plain(&message, 500) }
    }
}

impl Provider {
    /// Where to send the browser, and what it keeps meanwhile.
    ///
    /// # Errors
    /// [`OidcError`]
    pub async fn begin(&self, until_ms: i64) -> Result<(String, Attempt), OidcError> {
        let provider = self.clone();
        let metadata = in_time(async move { provider.discover().await }).await?;
        let client = CoreClient::from_provider_metadata(metadata, self.id(), None)
            .set_redirect_uri(self.redirect()?);
        let (challenge, verifier) = PkceCodeChallenge::new_random_sha256();
        let (url, state, nonce) = self
            .scopes
            .iter()
            .fold(
                client.authorize_url(
                    CoreAuthenticationFlow::AuthorizationCode,
                    CsrfToken::new_random,
                    Nonce::new_random,
                ),
                |request, scope| request.add_scope(Scope::new(scope.clone())),
            )
            .set_pkce_challenge(challenge)
            .url();
        // A browser that is sent somewhere by a provider's word is sent to a web page.
        Target::of(url.as_str()).map_err(|message| OidcError::Words {
            what: "the provider's address for signing in",
            message,
        })?;
        let attempt = Attempt {
            provider: self.name.clone(),
            state: state.into_secret(),
            nonce: nonce.secret().clone(),
            verifier: verifier.into_secret(),
            until_ms,
        };
        Ok((url.into(), attempt))
    }

    /// Who came back with this code.
    ///
    /// # Errors
    /// [`OidcError`]
    pub async fn finish(&self, attempt: Attempt, code: String) -> Result<Identity, OidcError> {
        let provider = self.clone();
        in_time(async move { provider.identify(attempt, code).await }).await
    }

    async fn identify(&self, attempt: Attempt, code: String) -> Result<Identity, OidcError> {
        let metadata = self.discover().await?;
        let secret = ClientSecret::new(self.client_secret.0.to_string());
        let client = ClaimClient::from_provider_metadata(metadata, self.id(), Some(secret))
            .set_redirect_uri(self.redirect()?);
        let http = self.http();
        let tokens = client
            .exchange_code(AuthorizationCode::new(code))
            .map_err(words("the provider's token endpoint"))?
            .set_pkce_verifier(PkceCodeVerifier::new(attempt.verifier))
            .request_async(&http)
            .await
            .map_err(words("the code"))?;
        let id_token = tokens.extra_fields().id_token().ok_or_else(|| OidcError::Words {
            what: "the ID token",
            message: "there is none".to_owned(),
        })?;
        let verified = id_token
            .claims(&client.id_token_verifier(), &Nonce::new(attempt.nonce))
            .map_err(words("the ID token"))?;
        let subject = verified.subject().clone();
        let mut all = serde_json::to_value(verified).unwrap_or_default();
        // Providers may tell names and groups there only.
        if let Ok(asked) = client.user_info(tokens.access_token().clone(), Some(subject.clone())) {
            let told: openidconnect::UserInfoClaims<Claims, CoreGenderClaim> =
                asked.request_async(&http).await.map_err(words("the userinfo"))?;
            claims::merge(&mut all, serde_json::to_value(&told).unwrap_or_default());
        }
        Ok(Identity::of(&subject, &all, &self.name_claim, &self.role_claim))
    }

    async fn discover(&self) -> Result<CoreProviderMetadata, OidcError> {
        let issuer = IssuerUrl::new(self.issuer.clone()).map_err(words("the issuer"))?;
        let http = self.http();
        CoreProviderMetadata::discover_async(issuer, &http)
            .await
            .map_err(words("the provider's description"))
    }

    fn id(&self) -> ClientId {
        ClientId::new(self.client_id.clone())
    }

    fn redirect(&self) -> Result<RedirectUrl, OidcError> {
        RedirectUrl::new(self.callback.clone()).map_err(words("the manager's own address"))
    }

    /// How the library asks: each request goes to an address that the provider named.
    fn http(&self) -> impl Fn(HttpRequest) -> Boxed<Result<HttpResponse, SendError>> + use<> {
        let (authority, allowed) = (self.authority.clone(), self.allowed.clone());
        move |request| {
            let (authority, allowed) = (authority.clone(), allowed.clone());
            Box::pin(async move {
                let target = Target::of(&request.uri().to_string()).map_err(SendError::never)?;
                let (head, body) = request.into_parts();
                let request = Request::from_parts(head, Full::new(Bytes::from(body)));
                target.call(request, authority.as_deref(), &allowed, ANSWER).await
            })
        }
    }
}

/// Runs a step, and gives it up after its time. Boxed: the library's own futures are many types
/// deep.
async fn in_time<T: Send + 'static>(
    step: impl Future<Output = Result<T, OidcError>> + Send + 'static,
) -> Result<T, OidcError> {
    let step: Boxed<Result<T, OidcError>> = Box::pin(step);
    tokio::time::timeout(STEP, step).await.unwrap_or(Err(OidcError::Slow))
}
