//! Users, for admins.

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
use crate::app::{AppError, Role, UserEdit};
use crate::store::users::User;

/// A user.
#[derive(Serialize, ToSchema)]
pub(super) struct UserView {
    id: Uuid,
    name: String,
    /// viewer, operator or admin.
    role: String,
    must_change_password: bool,
    disabled: bool,
    /// May open remote shells.
    may_shell: bool,
    /// Signs in with a code too.
    second_factor: bool,
    /// No password is taken until then.
    locked_until_ms: i64,
    created_ms: i64,
    changed_ms: i64,
}

impl UserView {
    fn of(user: User) -> Self {
        Self {
            id: user.id,
            name: user.name,
            role: user.role,
            must_change_password: user.must_change,
            disabled: user.disabled,
            may_shell: user.may_shell,
            second_factor: user.totp.is_some(),
            locked_until_ms: user.locked_until_ms,
            created_ms: user.created_ms,
            changed_ms: user.changed_ms,
        }
    }
}

/// A user that is wanted; the password is to be changed at the first sign-in.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct UserBody {
    name: String,
    /// viewer, operator or admin.
    role: String,
    password: String,
}

/// What changes on a user; what is left out stays.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct UserEditBody {
    /// viewer, operator or admin.
    role: Option<String>,
    disabled: Option<bool>,
    /// Whether it may open remote shells.
    may_shell: Option<bool>,
    /// To be changed at the next sign-in.
    password: Option<String>,
}

fn role(name: &str) -> Result<Role, Problem> {
    let invalid = || AppError::Invalid("role: viewer, operator or admin".to_owned());
    Ok(Role::of_name(name).ok_or_else(invalid)?)
}

/// All users by name.
#[utoipa::path(get, path = "/api/v1/users", tag = "users",
    responses((status = 200, body = Vec<UserView>)))]
pub(super) async fn user_list(State(api): State<Arc<Api>>) -> Result<Json<Vec<UserView>>, Problem> {
    let users = api.app.user_list().await?;
    Ok(Json(users.into_iter().map(UserView::of).collect()))
}

/// Make a user.
#[utoipa::path(post, path = "/api/v1/users", tag = "users", request_body = UserBody,
    responses((status = 201, body = UserView), (status = 400, body = Problem),
              (status = 409, body = Problem)))]
pub(super) async fn user_create(
    State(api): State<Arc<Api>>,
    Caller(who): Caller,
    Body(body): Body<UserBody>,
) -> Result<impl IntoResponse, Problem> {
    let role = role(&body.role)?;
    let user = api.app.user_create(&body.name, role, &body.password, &who.actor).await?;
    Ok((StatusCode::CREATED, Json(UserView::of(user))))
}

/// Change a user's role, password or permission for shells, or disable it. Its sign-ins end.
#[utoipa::path(patch, path = "/api/v1/users/{id}", tag = "users",
    params(("id" = Uuid, Path)), request_body = UserEditBody,
    responses((status = 200, body = UserView), (status = 400, body = Problem),
              (status = 404, body = Problem), (status = 409, body = Problem)))]
pub(super) async fn user_edit(
    State(api): State<Arc<Api>>,
    Caller(who): Caller,
    Id(id): Id<Uuid>,
    Body(body): Body<UserEditBody>,
) -> Result<Json<UserView>, Problem> {
    let role = body.role.as_deref().map(role).transpose()?;
    let UserEditBody { disabled, may_shell, password, .. } = body;
    let edit = UserEdit { role, disabled, may_shell, password };
    Ok(Json(UserView::of(api.app.user_edit(id, edit, &who.actor).await?)))
}
