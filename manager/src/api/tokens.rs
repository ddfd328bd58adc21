//! Enrollment tokens.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::IntoResponse;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use super::Api;
use super::access::Caller;
use super::extract::{Body, Id};
use super::problem::Problem;
use crate::app::{Entrance, NewToken};
use crate::store::tokens::EnrollmentToken;

/// An enrollment token.
#[derive(Serialize, ToSchema)]
pub(super) struct TokenView {
    id: Uuid,
    group: String,
    note: String,
    /// Hosts that it may enroll in all.
    uses: i64,
    uses_left: i64,
    created_ms: i64,
    created_by: String,
    expires_ms: i64,
    revoked_ms: Option<i64>,
    /// What the host needs; shown when it is made only.
    #[serde(skip_serializing_if = "Option::is_none")]
    token: Option<String>,
    /// Where the host enrolls, one URL for each of the manager's names; with the token only.
    #[serde(skip_serializing_if = "Option::is_none")]
    urls: Option<Vec<String>>,
    /// By what the host knows the manager; with the token only.
    #[serde(skip_serializing_if = "Option::is_none")]
    ca_fingerprint: Option<String>,
}

impl TokenView {
    fn of(token: EnrollmentToken, secret: Option<String>, entrance: Option<&Entrance>) -> Self {
        Self {
            urls: entrance.map(|entrance| entrance.urls.clone()),
            ca_fingerprint: entrance.map(|entrance| entrance.fingerprint.clone()),
            id: token.id,
            group: token.group,
            note: token.note,
            uses: token.uses,
            uses_left: token.uses_left,
            created_ms: token.created_ms,
            created_by: token.created_by,
            expires_ms: token.expires_ms,
            revoked_ms: token.revoked_ms,
            token: secret,
        }
    }
}

/// A token that is wanted.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct TokenBody {
    /// Group of its hosts.
    group: String,
    /// For people.
    #[serde(default)]
    note: String,
    /// How many hosts; one without it.
    #[serde(default = "one")]
    uses: u32,
    /// How long, seconds; an hour without it.
    #[serde(default = "hour")]
    valid_s: u64,
}

const fn one() -> u32 {
    1
}

const fn hour() -> u64 {
    3600
}

/// All enrollment tokens, newest first.
#[utoipa::path(get, path = "/api/v1/enrollment-tokens", tag = "enrollment",
    responses((status = 200, body = Vec<TokenView>)))]
pub(super) async fn token_list(
    State(api): State<Arc<Api>>,
) -> Result<Json<Vec<TokenView>>, Problem> {
    let tokens = api.app.token_list().await?;
    Ok(Json(tokens.into_iter().map(|token| TokenView::of(token, None, None)).collect()))
}

/// Make an enrollment token.
#[utoipa::path(post, path = "/api/v1/enrollment-tokens", tag = "enrollment",
    request_body = TokenBody,
    responses((status = 201, body = TokenView), (status = 400, body = Problem)))]
pub(super) async fn token_create(
    State(api): State<Arc<Api>>,
    Caller(who): Caller,
    Body(body): Body<TokenBody>,
) -> Result<impl IntoResponse, Problem> {
    let new =
        NewToken { group: body.group, note: body.note, uses: body.uses, valid_s: body.valid_s };
    let (token, secret) = api.app.token_create(new, &who.actor).await?;
    Ok((StatusCode::CREATED, Json(TokenView::of(token, Some(secret), api.app.entrance()))))
}

/// Take an enrollment token back.
#[utoipa::path(delete, path = "/api/v1/enrollment-tokens/{id}", tag = "enrollment",
    params(("id" = Uuid, Path)),
    responses((status = 204), (status = 404, body = Problem)))]
pub(super) async fn token_revoke(
    State(api): State<Arc<Api>>,
    Caller(who): Caller,
    Id(id): Id<Uuid>,
) -> Result<StatusCode, Problem> {
    api.app.token_revoke(id, &who.actor).await?;
    Ok(StatusCode::NO_CONTENT)
}
