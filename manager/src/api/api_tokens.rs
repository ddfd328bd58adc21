//! One's own API tokens.

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
use crate::app::{AppError, Scope};
use crate::store::users::Credential;

/// An API token.
#[derive(Serialize, ToSchema)]
pub(super) struct ApiTokenView {
    id: Uuid,
    name: String,
    scopes: Vec<String>,
    created_ms: i64,
    /// To the minute.
    used_ms: i64,
    expires_ms: i64,
    /// For `Authorization: Bearer`; shown when it is made only.
    #[serde(skip_serializing_if = "Option::is_none")]
    token: Option<String>,
}

impl ApiTokenView {
    fn of(credential: Credential, token: Option<String>) -> Self {
        Self {
            id: credential.id,
            name: credential.name,
            scopes: credential.scopes.split_whitespace().map(str::to_owned).collect(),
            created_ms: credential.created_ms,
            used_ms: credential.used_ms,
            expires_ms: credential.expires_ms,
            token,
        }
    }
}

/// A token that is wanted.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ApiTokenBody {
    name: String,
    /// read, respond, administer, metrics, shell. It can do no more than its user.
    scopes: Vec<String>,
    /// Seconds.
    valid_s: u64,
}

/// One's own API tokens, newest first.
#[utoipa::path(get, path = "/api/v1/api-tokens", tag = "api tokens",
    responses((status = 200, body = Vec<ApiTokenView>)))]
pub(super) async fn api_token_list(
    State(api): State<Arc<Api>>,
    Caller(who): Caller,
) -> Result<Json<Vec<ApiTokenView>>, Problem> {
    let tokens = api.app.api_token_list(&who).await?;
    Ok(Json(tokens.into_iter().map(|token| ApiTokenView::of(token, None)).collect()))
}

/// Make an API token. Needs a sign-in: a token makes none.
#[utoipa::path(post, path = "/api/v1/api-tokens", tag = "api tokens",
    request_body = ApiTokenBody,
    responses((status = 201, body = ApiTokenView), (status = 400, body = Problem),
              (status = 403, body = Problem)))]
pub(super) async fn api_token_create(
    State(api): State<Arc<Api>>,
    Caller(who): Caller,
    Body(body): Body<ApiTokenBody>,
) -> Result<impl IntoResponse, Problem> {
    let mut scopes = Vec::new();
    for name in &body.scopes {
        let scope = Scope::ALL.into_iter().find(|scope| scope.name() == name);
        let invalid = || AppError::Invalid("scopes: read, respond, administer, metrics".to_owned());
        scopes.push(scope.ok_or_else(invalid)?);
    }
    let made = api.app.api_token_create(&who, &body.name, &scopes, body.valid_s).await?;
    Ok((StatusCode::CREATED, Json(ApiTokenView::of(made.0, Some(made.1)))))
}

/// End an API token.
#[utoipa::path(delete, path = "/api/v1/api-tokens/{id}", tag = "api tokens",
    params(("id" = Uuid, Path)),
    responses((status = 204), (status = 404, body = Problem)))]
pub(super) async fn api_token_delete(
    State(api): State<Arc<Api>>,
    Caller(who): Caller,
    Id(id): Id<Uuid>,
) -> Result<StatusCode, Problem> {
    api.app.api_token_delete(&who, id).await?;
    Ok(StatusCode::NO_CONTENT)
}
