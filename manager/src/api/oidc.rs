//! Signing in by another party's word, as browsers go through it.
//!
//! The cookie of a sign-in that has begun is `SameSite=Lax`: the provider's page leads back here.
//! INVARIANT: nothing that the provider or an address says is shown; a refusal is one word of a
//! fixed list.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, Query, State};
use axum::http::{Extensions, HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::Api;
use super::limits::peer;
use super::problem::Problem;
use super::session::cookie;
use crate::app::OidcRefusal;

/// Name of the cookie of a sign-in that has begun.
const COOKIE: &str = "__Host-holdfast-oidc";
/// Seconds that it lives.
const AGE_S: u32 = 600;

/// Whom people may sign in by.
#[derive(Serialize, ToSchema)]
pub(super) struct ProviderView {
    /// Its name: the last part of `/api/v1/session/oidc/{provider}`.
    name: String,
}

/// What a provider sends people back with.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct CallbackQuery {
    /// What is given for tokens.
    code: Option<String>,
    /// As it was sent.
    #[serde(default)]
    state: String,
    /// Why there is no code.
    error: Option<String>,
}

/// Whom people may sign in by, beside passwords.
#[utoipa::path(get, path = "/api/v1/session/providers", tag = "session",
    responses((status = 200, body = Vec<ProviderView>)))]
pub(super) async fn provider_list(State(api): State<Arc<Api>>) -> Json<Vec<ProviderView>> {
    let names = api.app.oidc_providers();
    Json(names.into_iter().map(|name| ProviderView { name: name.to_owned() }).collect())
}

/// Go to a provider to sign in.
#[utoipa::path(get, path = "/api/v1/session/oidc/{provider}", tag = "session",
    params(("provider" = String, Path, description = "Its name")),
    responses((status = 303, description = "To the provider, or to the page for signing in"),
              (status = 429, body = Problem)))]
pub(super) async fn oidc_begin(
    State(api): State<Arc<Api>>,
    Path(provider): Path<String>,
    extensions: Extensions,
) -> Result<Response, Problem> {
    api.limits.sign_in(peer(&extensions))?;
    Ok(match api.app.oidc_begin(&provider).await {
        Ok((url, sealed)) => to(&url, kept(&sealed, AGE_S)),
        Err(refusal) => refused(&refusal),
    })
}

/// Come back from a provider.
#[utoipa::path(get, path = "/api/v1/session/oidc/{provider}/callback", tag = "session",
    params(("provider" = String, Path, description = "Its name"), CallbackQuery),
    responses((status = 303, description = "To the console, signed in, or to the page for signing in"),
              (status = 429, body = Problem)))]
pub(super) async fn oidc_callback(
    State(api): State<Arc<Api>>,
    Path(provider): Path<String>,
    Query(query): Query<CallbackQuery>,
    headers: HeaderMap,
    extensions: Extensions,
) -> Result<Response, Problem> {
    let from = peer(&extensions);
    api.limits.sign_in(from)?;
    let kept_before = brought(&headers).unwrap_or_default();
    let code = query.code.ok_or_else(|| query.error.unwrap_or_default());
    let done =
        api.app.oidc_finish(&provider, kept_before, &query.state, code, &from.to_string()).await;
    Ok(match done {
        Ok(signed_in) => {
            let mut headers = kept("", 0);
            for (name, value) in cookie(&signed_in.secret, 7 * 86_400) {
                if let Some(name) = name {
                    headers.append(name, value);
                }
            }
            to("/", headers)
        }
        Err(refusal) => refused(&refusal),
    })
}

fn to(place: &str, mut headers: HeaderMap) -> Response {
    match HeaderValue::from_str(place) {
        Ok(place) => {
            headers.insert(header::LOCATION, place);
            // The code stands in the address: it is worth nothing any more, and goes nowhere.
            let policy = HeaderValue::from_static("no-referrer");
            headers.insert(header::REFERRER_POLICY, policy);
            (StatusCode::SEE_OTHER, headers).into_response()
        }
        Err(_) => Problem::bad("an address that cannot be one").into_response(),
    }
}

fn refused(refusal: &OidcRefusal) -> Response {
    let chain: &(dyn std::error::Error + 'static) = refusal;
    tracing::warn!(error = chain, "a sign-in by a provider was refused");
    to(&format!("/sign-in?refused={}", refusal.word()), kept("", 0))
}

fn kept(value: &str, age_s: u32) -> HeaderMap {
    let text = format!("{COOKIE}={value}; Path=/; Secure; HttpOnly; SameSite=Lax; Max-Age={age_s}");
    let mut headers = HeaderMap::new();
    // Base64 and the text above: it cannot fail.
    if let Ok(value) = HeaderValue::from_str(&text) {
        headers.insert(header::SET_COOKIE, value);
    }
    headers
}

fn brought(headers: &HeaderMap) -> Option<&str> {
    headers
        .get_all(header::COOKIE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .find(|(name, _)| *name == COOKIE)
        .map(|(_, value)| value)
}
