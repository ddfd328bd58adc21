//! One's own second factor, and its reset by an admin.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use super::Api;
use super::access::Caller;
use super::extract::{Body, Id};
use super::problem::Problem;

/// How one's second factor stands.
#[derive(Serialize, ToSchema)]
pub(super) struct TotpView {
    /// Whether sign-ins need a code.
    enabled: bool,
    /// Since when, milliseconds since the epoch.
    since_ms: Option<i64>,
    /// Recovery codes that are left.
    recovery_codes: i64,
}

/// One's password.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct TotpBeginBody {
    /// The password.
    password: String,
}

/// A secret for an authenticator app. It is shown this once.
#[derive(Serialize, ToSchema)]
pub(super) struct TotpOfferView {
    /// In base32.
    secret: String,
    /// `otpauth://totp/…`, for a QR code.
    uri: String,
}

/// A code of the offered secret.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct TotpConfirmBody {
    /// Six digits.
    code: String,
}

/// One's password and a code.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct TotpProofBody {
    /// The password.
    password: String,
    /// Six digits, or a recovery code.
    code: String,
}

/// Recovery codes, each good for one sign-in. They are shown this once.
#[derive(Serialize, ToSchema)]
pub(super) struct RecoveryCodesView {
    recovery_codes: Vec<String>,
}

/// How one's second factor stands.
#[utoipa::path(get, path = "/api/v1/session/totp", tag = "session",
    responses((status = 200, body = TotpView)))]
pub(super) async fn totp_get(
    State(api): State<Arc<Api>>,
    Caller(who): Caller,
) -> Result<Json<TotpView>, Problem> {
    let state = api.app.totp_state(&who).await?;
    let (since_ms, recovery_codes) = (state.since_ms, state.recovery_codes);
    Ok(Json(TotpView { enabled: since_ms.is_some(), since_ms, recovery_codes }))
}

/// Get a secret for an authenticator app. Nothing changes until a code confirms it, within 15
/// minutes.
#[utoipa::path(post, path = "/api/v1/session/totp", tag = "session", request_body = TotpBeginBody,
    responses((status = 200, body = TotpOfferView), (status = 401, body = Problem),
              (status = 409, body = Problem), (status = 429, body = Problem)))]
pub(super) async fn totp_begin(
    State(api): State<Arc<Api>>,
    Caller(who): Caller,
    Body(body): Body<TotpBeginBody>,
) -> Result<Json<TotpOfferView>, Problem> {
    let offer = api.app.totp_begin(&who, &body.password).await?;
    Ok(Json(TotpOfferView { secret: offer.secret, uri: offer.uri }))
}

/// Confirm the secret by a code: sign-ins need one from now on. Other sign-ins end.
#[utoipa::path(post, path = "/api/v1/session/totp/confirm", tag = "session",
    request_body = TotpConfirmBody,
    responses((status = 200, body = RecoveryCodesView), (status = 400, body = Problem),
              (status = 409, body = Problem)))]
pub(super) async fn totp_confirm(
    State(api): State<Arc<Api>>,
    Caller(who): Caller,
    Body(body): Body<TotpConfirmBody>,
) -> Result<Json<RecoveryCodesView>, Problem> {
    let recovery_codes = api.app.totp_confirm(&who, &body.code).await?;
    Ok(Json(RecoveryCodesView { recovery_codes }))
}

/// Remove one's own second factor.
#[utoipa::path(post, path = "/api/v1/session/totp/remove", tag = "session",
    request_body = TotpProofBody,
    responses((status = 204), (status = 401, body = Problem), (status = 409, body = Problem),
              (status = 429, body = Problem)))]
pub(super) async fn totp_remove(
    State(api): State<Arc<Api>>,
    Caller(who): Caller,
    Body(body): Body<TotpProofBody>,
) -> Result<StatusCode, Problem> {
    api.app.totp_remove(&who, &body.password, &body.code).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Get new recovery codes; those before are worth nothing any more.
#[utoipa::path(post, path = "/api/v1/session/totp/recovery-codes", tag = "session",
    request_body = TotpProofBody,
    responses((status = 200, body = RecoveryCodesView), (status = 401, body = Problem),
              (status = 409, body = Problem), (status = 429, body = Problem)))]
pub(super) async fn recovery_codes_renew(
    State(api): State<Arc<Api>>,
    Caller(who): Caller,
    Body(body): Body<TotpProofBody>,
) -> Result<Json<RecoveryCodesView>, Problem> {
    let recovery_codes = api.app.recovery_codes_renew(&who, &body.password, &body.code).await?;
    Ok(Json(RecoveryCodesView { recovery_codes }))
}

/// Remove the second factor of a user who lost it. Its sign-ins end.
#[utoipa::path(delete, path = "/api/v1/users/{id}/totp", tag = "users",
    params(("id" = Uuid, Path)),
    responses((status = 204), (status = 404, body = Problem), (status = 409, body = Problem)))]
pub(super) async fn totp_reset(
    State(api): State<Arc<Api>>,
    Caller(who): Caller,
    Id(id): Id<Uuid>,
) -> Result<StatusCode, Problem> {
    api.app.totp_reset(id, &who).await?;
    Ok(StatusCode::NO_CONTENT)
}
