//! Signing in and out, and one's own password.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::{Extensions, HeaderMap, HeaderValue, StatusCode, header};
use axum::response::IntoResponse;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Api;
use super::access::{COOKIE, Caller};
use super::extract::Body;
use super::limits::peer;
use super::problem::Problem;
use crate::app::Principal;

/// A name, a password, and a code where there is a second factor.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct SignInBody {
    /// The user's name.
    name: String,
    /// The password.
    password: String,
    /// Six digits of the second factor, or a recovery code. Without it, and where it is needed, the
    /// problem has `second_factor: true`.
    #[serde(default)]
    code: Option<String>,
}

/// An old and a new password.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct PasswordBody {
    /// The password now.
    old: String,
    /// The password from now on.
    new: String,
}

/// Who is signed in.
#[derive(Serialize, ToSchema)]
pub(super) struct SessionView {
    /// The user's name.
    name: String,
    /// viewer, operator or admin.
    role: &'static str,
    /// May open remote shells; an API token needs the scope beside.
    may_shell: bool,
    /// Nothing but a new password is taken.
    must_change_password: bool,
    /// For `Authorization: Bearer`, shown when signing in only. Browsers have the cookie.
    #[serde(skip_serializing_if = "Option::is_none")]
    token: Option<String>,
}

impl SessionView {
    fn of(principal: &Principal, token: Option<String>) -> Self {
        Self {
            name: principal.name.clone(),
            role: principal.role.name(),
            may_shell: principal.may_shell,
            must_change_password: principal.must_change,
            token,
        }
    }
}

/// How far the manager's beginning is.
#[derive(Serialize, ToSchema)]
pub(super) struct BeginningView {
    /// Nobody has changed the password that the first start printed.
    waiting: bool,
}

pub(super) fn cookie(value: &str, age_s: u32) -> HeaderMap {
    let text =
        format!("{COOKIE}={value}; Path=/; Secure; HttpOnly; SameSite=Strict; Max-Age={age_s}");
    let mut headers = HeaderMap::new();
    // Hex digits and the text above: it cannot fail.
    if let Ok(value) = HeaderValue::from_str(&text) {
        headers.insert(header::SET_COOKIE, value);
    }
    headers
}

/// Sign in.
#[utoipa::path(post, path = "/api/v1/session", tag = "session", request_body = SignInBody,
    responses((status = 201, body = SessionView), (status = 401, body = Problem),
              (status = 429, body = Problem)))]
pub(super) async fn session_begin(
    State(api): State<Arc<Api>>,
    extensions: Extensions,
    Body(body): Body<SignInBody>,
) -> Result<impl IntoResponse, Problem> {
    let from = peer(&extensions);
    api.limits.sign_in(from)?;
    let code = body.code.as_deref();
    let from = from.to_string();
    let signed_in = api.app.sign_in_with_code(&body.name, &body.password, code, &from).await?;
    let view = SessionView::of(&signed_in.principal, Some(signed_in.secret.clone()));
    Ok((StatusCode::CREATED, cookie(&signed_in.secret, 7 * 86_400), Json(view)))
}

/// Who is signed in.
#[utoipa::path(get, path = "/api/v1/session", tag = "session",
    responses((status = 200, body = SessionView), (status = 401, body = Problem)))]
pub(super) async fn session_get(Caller(who): Caller) -> Json<SessionView> {
    Json(SessionView::of(&who, None))
}

/// Sign out.
#[utoipa::path(delete, path = "/api/v1/session", tag = "session", responses((status = 204)))]
pub(super) async fn session_end(
    State(api): State<Arc<Api>>,
    Caller(who): Caller,
) -> Result<impl IntoResponse, Problem> {
    api.app.sign_out(&who).await?;
    Ok((StatusCode::NO_CONTENT, cookie("", 0)))
}

/// Change one's own password. Other sign-ins end.
#[utoipa::path(post, path = "/api/v1/session/password", tag = "session",
    request_body = PasswordBody,
    responses((status = 204), (status = 400, body = Problem), (status = 401, body = Problem)))]
pub(super) async fn password_change(
    State(api): State<Arc<Api>>,
    Caller(who): Caller,
    Body(body): Body<PasswordBody>,
) -> Result<StatusCode, Problem> {
    api.app.password_change(&who, &body.old, &body.new).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Whether the manager still waits for its first sign-in. It says so to everybody.
#[utoipa::path(get, path = "/api/v1/session/beginning", tag = "session",
    responses((status = 200, body = BeginningView)))]
pub(super) async fn beginning(State(api): State<Arc<Api>>) -> Result<Json<BeginningView>, Problem> {
    Ok(Json(BeginningView { waiting: api.app.first_admin_waits().await? }))
}
