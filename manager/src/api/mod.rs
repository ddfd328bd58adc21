//! The HTTP interface: REST under `/api/v1`, described by an OpenAPI document made from this code.
//!
//! Invariants: every route stands behind `access::gate`; nothing here touches the database, only
//! `App`. Bodies, time and frequency of requests are bounded.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{DefaultBodyLimit, MatchedPath};
use axum::http::{HeaderName, HeaderValue, StatusCode, Uri, header};
use axum::middleware::{from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::set_header::SetResponseHeaderLayer;
use tower_http::timeout::TimeoutLayer;
use utoipa::OpenApi;
use utoipa::openapi::OpenApi as Document;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use self::problem::Problem;
use crate::app::App;

pub mod access;
mod alerts;
mod api_tokens;
mod audit;
mod console;
mod denials;
mod describe;
mod events;
mod extract;
mod hosts;
mod limits;
mod live;
mod metrics;
mod models;
mod notifications;
mod oidc;
mod overview;
mod policies;
pub mod problem;
mod processes;
mod quarantine;
pub mod serve;
mod session;
mod shells;
mod status;
mod tasks;
mod tokens;
mod totp;
mod users;

pub use limits::Peer;

/// Bytes of a request's body.
const BODY: usize = 1 << 20;
/// Time until an answer begins.
const ANSWER: Duration = Duration::from_secs(60);

/// What every request reaches.
pub(crate) struct Api {
    pub(crate) app: App,
    limits: limits::Limits,
    document: String,
    metrics: metrics::Metrics,
}

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Holdfast manager",
        description = "Hosts, events, alerts and response tasks. Sign in by POST \
                       /api/v1/session, or send `Authorization: Bearer TOKEN`. Times are \
                       milliseconds since the epoch. Errors are application/problem+json."
    ),
    components(schemas(Problem))
)]
struct Head;

/// Every route, and the document that describes them.
fn routes() -> (Router<Arc<Api>>, Document) {
    let (router, mut document) = OpenApiRouter::with_openapi(Head::openapi())
        .routes(routes!(status::healthz))
        .routes(routes!(status::readyz))
        .routes(routes!(status::metrics))
        .routes(routes!(status::document))
        .routes(routes!(session::session_begin, session::session_get, session::session_end))
        .routes(routes!(session::password_change))
        .routes(routes!(session::beginning))
        .routes(routes!(oidc::provider_list))
        .routes(routes!(oidc::oidc_begin))
        .routes(routes!(oidc::oidc_callback))
        .routes(routes!(totp::totp_get, totp::totp_begin))
        .routes(routes!(totp::totp_confirm))
        .routes(routes!(totp::totp_remove))
        .routes(routes!(totp::recovery_codes_renew))
        .routes(routes!(totp::totp_reset))
        .routes(routes!(overview::overview))
        .routes(routes!(hosts::host_list))
        .routes(routes!(hosts::host_get))
        .routes(routes!(hosts::host_revoke))
        .routes(routes!(processes::process_profile))
        .routes(routes!(events::event_list))
        .routes(routes!(events::event_get))
        .routes(routes!(alerts::alert_list))
        .routes(routes!(alerts::alert_get, alerts::alert_edit))
        .routes(routes!(alerts::alert_events))
        .routes(routes!(alerts::alert_note))
        .routes(routes!(models::model_list))
        .routes(routes!(models::model_get))
        .routes(routes!(quarantine::item_list))
        .routes(routes!(quarantine::item_get))
        .routes(routes!(tasks::task_list, tasks::task_file))
        .routes(routes!(tasks::task_get))
        .routes(routes!(tasks::task_cancel))
        .routes(routes!(tasks::task_download))
        .routes(routes!(denials::denial_list, denials::denial_add))
        .routes(routes!(denials::denial_get, denials::denial_remove))
        .routes(routes!(denials::denial_hosts))
        .routes(routes!(shells::shell_list, shells::shell_open))
        .routes(routes!(shells::shell_recording))
        .routes(routes!(shells::shell_terminal))
        .routes(routes!(live::live))
        .routes(routes!(tokens::token_list, tokens::token_create))
        .routes(routes!(tokens::token_revoke))
        .routes(routes!(users::user_list, users::user_create))
        .routes(routes!(users::user_edit))
        .routes(routes!(api_tokens::api_token_list, api_tokens::api_token_create))
        .routes(routes!(api_tokens::api_token_delete))
        .routes(routes!(audit::audit_list))
        .routes(routes!(notifications::notification_list, notifications::notification_create))
        .routes(routes!(
            notifications::notification_get,
            notifications::notification_edit,
            notifications::notification_delete
        ))
        .routes(routes!(notifications::notification_test))
        .routes(routes!(notifications::finding_list))
        .routes(routes!(policies::policy_list, policies::policy_create))
        .routes(routes!(policies::policy_check))
        .routes(routes!(policies::policy_get, policies::policy_edit, policies::policy_delete))
        .routes(routes!(policies::policy_assign))
        .routes(routes!(policies::version_list, policies::version_put))
        .routes(routes!(policies::version_get))
        .routes(routes!(policies::version_diff))
        .routes(routes!(policies::rollout_get, policies::rollout_steer))
        .split_for_parts();
    describe::complete(&mut document);
    (router, document)
}

/// The OpenAPI document.
#[must_use]
pub fn document() -> Document {
    routes().1
}

/// The whole interface.
pub fn router(app: App) -> Router {
    let (router, document) = routes();
    let api = Arc::new(Api {
        app,
        limits: limits::Limits::new(),
        document: document.to_json().unwrap_or_default(),
        metrics: metrics::Metrics::new(),
    });
    let fixed = |name: HeaderName, value: &'static str| {
        SetResponseHeaderLayer::if_not_present(name, HeaderValue::from_static(value))
    };
    router
        .route("/", get(console::page))
        .route(access::ANY, get(console::page))
        .route_layer(from_fn_with_state(Arc::clone(&api), access::gate))
        .method_not_allowed_fallback(no_method)
        .fallback(no_route)
        .layer(DefaultBodyLimit::max(BODY))
        .layer(TimeoutLayer::with_status_code(StatusCode::SERVICE_UNAVAILABLE, ANSWER))
        .layer(CatchPanicLayer::custom(panicked))
        .layer(from_fn(problems))
        .layer(fixed(header::CACHE_CONTROL, "no-store"))
        .layer(fixed(header::X_CONTENT_TYPE_OPTIONS, "nosniff"))
        .layer(fixed(header::X_FRAME_OPTIONS, "DENY"))
        .layer(fixed(header::REFERRER_POLICY, "no-referrer"))
        .layer(fixed(header::CONTENT_SECURITY_POLICY, "default-src 'none'; sandbox"))
        .with_state(api)
}

async fn no_route() -> Problem {
    Problem::new(StatusCode::NOT_FOUND, "there is no such address")
}

async fn no_method(matched: Option<MatchedPath>, uri: Uri) -> Problem {
    let is_pages = matched.is_some_and(|matched| matched.as_str() == access::ANY);
    if is_pages && !console::is_page(uri.path()) {
        return no_route().await;
    }
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, "this address does not take this method")
}

/// Errors that a layer made become problems too.
async fn problems(request: axum::extract::Request, next: axum::middleware::Next) -> Response {
    let response = next.run(request).await;
    let status = response.status();
    let plain = !response.headers().contains_key(header::CONTENT_TYPE);
    if (status.is_client_error() || status.is_server_error()) && plain {
        return Problem::new(status, "the request was not carried out").into_response();
    }
    response
}

fn panicked(_: Box<dyn std::any::Any + Send>) -> Response {
    tracing::error!("a request panicked; that is a bug");
    Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "a bug in the manager").into_response()
}
