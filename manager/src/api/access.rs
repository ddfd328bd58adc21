//! Who may call what: one table, one gate.
//!
//! INVARIANT: the gate stands before every route. A route that the table does not name is refused
//! to everybody, and a test fails for it.

use std::sync::Arc;

use axum::extract::{FromRequestParts, MatchedPath, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::Response;

use super::Api;
use super::problem::Problem;
use crate::app::{Principal, Role, Scope};

/// Name of the cookie of a sign-in.
pub(super) const COOKIE: &str = "__Host-holdfast";

/// What a caller needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// Nothing.
    Nothing,
    /// A sign-in, even while its password must be changed.
    SignIn,
    /// A sign-in whose password is one's own; no token.
    Person,
    /// A role, and for a token a scope.
    Role(Role, Scope),
}

/// A row of the table.
#[derive(Debug, Clone, Copy)]
pub struct Endpoint {
    /// GET, POST …
    pub method: &'static str,
    /// As in OpenAPI.
    pub path: &'static str,
    /// What its caller needs.
    pub need: Need,
}

const fn row(method: &'static str, path: &'static str, need: Need) -> Endpoint {
    Endpoint { method, path, need }
}

const LOOK: Need = Need::Role(Role::Viewer, Scope::Read);
const RESPOND: Need = Need::Role(Role::Operator, Scope::Respond);
const ADMIN: Need = Need::Role(Role::Admin, Scope::Administer);

/// Every endpoint.
pub const ENDPOINTS: &[Endpoint] = &[
    row("GET", "/healthz", Need::Nothing),
    row("GET", "/readyz", Need::Nothing),
    row("GET", "/metrics", Need::Role(Role::Viewer, Scope::Metrics)),
    row("GET", "/api/v1/openapi.json", Need::Nothing),
    row("POST", "/api/v1/session", Need::Nothing),
    row("GET", "/api/v1/session", Need::SignIn),
    row("DELETE", "/api/v1/session", Need::SignIn),
    row("POST", "/api/v1/session/password", Need::SignIn),
    row("GET", "/api/v1/session/providers", Need::Nothing),
    row("GET", "/api/v1/session/oidc/{provider}", Need::Nothing),
    row("GET", "/api/v1/session/oidc/{provider}/callback", Need::Nothing),
    row("GET", "/api/v1/session/totp", Need::Person),
    row("POST", "/api/v1/session/totp", Need::Person),
    row("POST", "/api/v1/session/totp/confirm", Need::Person),
    row("POST", "/api/v1/session/totp/remove", Need::Person),
    row("POST", "/api/v1/session/totp/recovery-codes", Need::Person),
    row("GET", "/api/v1/overview", LOOK),
    row("GET", "/api/v1/hosts", LOOK),
    row("GET", "/api/v1/hosts/{id}", LOOK),
    row("POST", "/api/v1/hosts/{id}/revoke", ADMIN),
    row("GET", "/api/v1/hosts/{id}/processes/{process}", LOOK),
    row("GET", "/api/v1/models", LOOK),
    row("GET", "/api/v1/models/{id}", LOOK),
    row("GET", "/api/v1/events", LOOK),
    row("GET", "/api/v1/events/{number}", LOOK),
    row("GET", "/api/v1/alerts", LOOK),
    row("GET", "/api/v1/alerts/{id}", LOOK),
    row("PATCH", "/api/v1/alerts/{id}", RESPOND),
    row("GET", "/api/v1/alerts/{id}/events", LOOK),
    row("POST", "/api/v1/alerts/{id}/notes", RESPOND),
    row("GET", "/api/v1/quarantine", LOOK),
    row("GET", "/api/v1/quarantine/{host}/{item}", LOOK),
    row("GET", "/api/v1/tasks", LOOK),
    row("POST", "/api/v1/tasks", RESPOND),
    row("GET", "/api/v1/tasks/{id}", LOOK),
    row("POST", "/api/v1/tasks/{id}/cancel", RESPOND),
    row("GET", "/api/v1/tasks/{id}/file", RESPOND),
    row("GET", "/api/v1/live", LOOK),
    row("GET", "/api/v1/enrollment-tokens", ADMIN),
    row("POST", "/api/v1/enrollment-tokens", ADMIN),
    row("DELETE", "/api/v1/enrollment-tokens/{id}", ADMIN),
    row("GET", "/api/v1/users", ADMIN),
    row("POST", "/api/v1/users", ADMIN),
    row("PATCH", "/api/v1/users/{id}", ADMIN),
    row("DELETE", "/api/v1/users/{id}/totp", ADMIN),
    row("GET", "/api/v1/api-tokens", Need::Person),
    row("POST", "/api/v1/api-tokens", Need::Person),
    row("DELETE", "/api/v1/api-tokens/{id}", Need::Person),
    row("GET", "/api/v1/audit", ADMIN),
    row("GET", "/api/v1/notifications", ADMIN),
    row("POST", "/api/v1/notifications", ADMIN),
    row("GET", "/api/v1/notifications/{id}", ADMIN),
    row("PUT", "/api/v1/notifications/{id}", ADMIN),
    row("DELETE", "/api/v1/notifications/{id}", ADMIN),
    row("POST", "/api/v1/notifications/{id}/test", ADMIN),
    row("GET", "/api/v1/findings", LOOK),
];

/// Every address that nothing else has.
pub(super) const ANY: &str = "/{*path}";

/// The web page, which shows nothing but what the API lets its reader see. No part of the API, and
/// so of its description.
pub const PAGES: &[Endpoint] = &[row("GET", "/", Need::Nothing), row("GET", ANY, Need::Nothing)];

/// What an endpoint needs; nothing when the table does not name it.
#[must_use]
pub fn need(method: &Method, path: &str) -> Option<Need> {
    let method = if method == Method::HEAD { "GET" } else { method.as_str() };
    let mut rows = ENDPOINTS.iter().chain(PAGES);
    rows.find(|row| row.method == method && row.path == path).map(|row| row.need)
}

/// Whether a caller may; pure.
fn decide(need: Need, caller: Option<&Principal>) -> Result<(), Problem> {
    let Some(caller) = caller else {
        return match need {
            Need::Nothing => Ok(()),
            Need::SignIn | Need::Person | Need::Role(..) => {
                Err(Problem::new(StatusCode::UNAUTHORIZED, "sign in, or bring a token"))
            }
        };
    };
    let forbidden = |why: &str| Err(Problem::new(StatusCode::FORBIDDEN, why));
    match need {
        Need::Nothing => Ok(()),
        Need::SignIn | Need::Person if caller.scopes.is_some() => {
            forbidden("not with an API token")
        }
        Need::SignIn => Ok(()),
        Need::Person | Need::Role(..) if caller.must_change => {
            forbidden("change the password first: POST /api/v1/session/password")
        }
        Need::Person => Ok(()),
        Need::Role(role, _) if caller.role < role => {
            forbidden(&format!("needs the role {}", role.name()))
        }
        Need::Role(_, scope) => match &caller.scopes {
            Some(scopes) if !scopes.contains(&scope) => {
                forbidden(&format!("this token has no scope {}", scope.name()))
            }
            _ => Ok(()),
        },
    }
}

/// The gate.
pub(super) async fn gate(
    State(api): State<Arc<Api>>,
    mut request: Request,
    next: Next,
) -> Result<Response, Problem> {
    api.limits.request(super::limits::peer(request.extensions()))?;
    let path = request.extensions().get::<MatchedPath>().map_or("", MatchedPath::as_str);
    let Some(need) = need(request.method(), path) else {
        if path == ANY {
            return Err(super::no_route().await);
        }
        return Err(Problem::new(StatusCode::FORBIDDEN, "nobody may call this"));
    };
    let caller = match secret(request.headers()) {
        Some((_, cookie)) if cookie && forged(request.method(), request.headers()) => {
            return Err(Problem::new(StatusCode::FORBIDDEN, "this comes from another site"));
        }
        // Open endpoints need no look into the database.
        Some((secret, _)) if need != Need::Nothing => {
            let secret = secret.to_owned();
            api.app.principal(&secret).await?
        }
        _ => None,
    };
    decide(need, caller.as_ref())?;
    if let Some(caller) = caller {
        request.extensions_mut().insert(Caller(caller));
    }
    Ok(next.run(request).await)
}

/// The secret that a request brings, and whether by cookie.
fn secret(headers: &HeaderMap) -> Option<(&str, bool)> {
    if let Some(value) = headers.get(header::AUTHORIZATION) {
        return value.to_str().ok()?.strip_prefix("Bearer ").map(|secret| (secret.trim(), false));
    }
    headers
        .get_all(header::COOKIE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .find(|(name, _)| *name == COOKIE)
        .map(|(_, secret)| (secret, true))
}

/// Whether a browser says that another site made it send this. The cookie is `SameSite=Strict`;
/// this is the second lock.
fn forged(method: &Method, headers: &HeaderMap) -> bool {
    if method.is_safe() {
        return false;
    }
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    if let Some(site) = text("sec-fetch-site") {
        return site != "same-origin" && site != "none";
    }
    match text("origin") {
        None => false,
        Some(origin) => {
            let authority = origin.split_once("://").map_or("", |(_, authority)| authority);
            text("host") != Some(authority)
        }
    }
}

/// Who calls. Only where the gate let somebody in by name.
#[derive(Debug, Clone)]
pub(super) struct Caller(pub(super) Principal);

impl<S: Send + Sync> FromRequestParts<S> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let caller = parts.extensions.get::<Self>().cloned();
        caller.ok_or_else(|| Problem::new(StatusCode::UNAUTHORIZED, "sign in, or bring a token"))
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn principal(role: Role, scopes: Option<Vec<Scope>>, must_change: bool) -> Principal {
        let (user, credential) = (Uuid::nil(), Uuid::nil());
        let (name, actor) = ("x".to_owned(), "x".to_owned());
        Principal { user, name, actor, role, scopes, credential, must_change }
    }

    #[test]
    fn a_token_can_do_no_more_than_its_scopes_and_its_users_role() {
        let viewer = principal(Role::Viewer, Some(vec![Scope::Read, Scope::Administer]), false);
        assert!(decide(LOOK, Some(&viewer)).is_ok());
        assert!(decide(ADMIN, Some(&viewer)).is_err());
        let admin = principal(Role::Admin, Some(vec![Scope::Metrics]), false);
        assert!(decide(LOOK, Some(&admin)).is_err());
        assert!(decide(Need::SignIn, Some(&admin)).is_err());
    }

    #[test]
    fn a_password_that_must_be_changed_opens_nothing_else() {
        let admin = principal(Role::Admin, None, true);
        assert!(decide(Need::SignIn, Some(&admin)).is_ok());
        assert!(decide(LOOK, Some(&admin)).is_err());
    }

    #[test]
    fn what_another_site_sends_by_cookie_is_forged() {
        let mut headers = HeaderMap::new();
        headers.insert("host", "manager:8443".parse().expect("value"));
        assert!(!forged(&Method::POST, &headers));
        headers.insert("origin", "https://manager:8443".parse().expect("value"));
        assert!(!forged(&Method::POST, &headers));
        headers.insert("origin", "https://evil.example".parse().expect("value"));
        assert!(forged(&Method::POST, &headers) && !forged(&Method::GET, &headers));
        headers.insert("sec-fetch-site", "cross-site".parse().expect("value"));
        assert!(forged(&Method::DELETE, &headers));
    }
}
