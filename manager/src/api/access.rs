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
    /// A user who may open remote shells, at least an operator, and for a token that scope.
    Shell,
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
    row("GET", "/api/v1/session/beginning", Need::Nothing),
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
    row("GET", "/api/v1/denials", LOOK),
    row("POST", "/api/v1/denials", RESPOND),
    row("GET", "/api/v1/denials/{id}", LOOK),
    row("DELETE", "/api/v1/denials/{id}", RESPOND),
    row("GET", "/api/v1/denials/{id}/hosts", LOOK),
    row("GET", "/api/v1/shells", LOOK),
    row("POST", "/api/v1/shells", Need::Shell),
    row("GET", "/api/v1/shells/{id}/recording", Need::Shell),
    row("GET", "/api/v1/shells/{id}/terminal", Need::Shell),
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
    row("GET", "/api/v1/policies", LOOK),
    row("POST", "/api/v1/policies", ADMIN),
    row("POST", "/api/v1/policies/check", ADMIN),
    row("GET", "/api/v1/policies/{id}", LOOK),
    row("PATCH", "/api/v1/policies/{id}", ADMIN),
    row("DELETE", "/api/v1/policies/{id}", ADMIN),
    row("PUT", "/api/v1/policies/{id}/groups", ADMIN),
    row("GET", "/api/v1/policies/{id}/versions", LOOK),
    row("POST", "/api/v1/policies/{id}/versions", ADMIN),
    row("GET", "/api/v1/policies/{id}/versions/{version}", LOOK),
    row("GET", "/api/v1/policies/{id}/diff", LOOK),
    row("GET", "/api/v1/policies/{id}/rollout", LOOK),
    row("POST", "/api/v1/policies/{id}/rollout", ADMIN),
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
            Need::SignIn | Need::Person | Need::Role(..) | Need::Shell => {
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
        Need::Person | Need::Role(..) | Need::Shell if caller.must_change => {
            forbidden("change the password first: POST /api/v1/session/password")
        }
        Need::Person => Ok(()),
        Need::Role(role, _) if caller.role < role => {
            forbidden(&format!("needs the role {}", role.name()))
        }
        Need::Role(_, scope) => in_scope(caller, scope),
        Need::Shell if caller.role < Role::Operator => {
            forbidden(&format!("needs the role {}", Role::Operator.name()))
        }
        Need::Shell if !caller.may_shell => {
            forbidden("this user may not open shells; an admin can change that")
        }
        Need::Shell => in_scope(caller, Scope::Shell),
    }
}

fn in_scope(caller: &Principal, scope: Scope) -> Result<(), Problem> {
    match &caller.scopes {
        Some(scopes) if !scopes.contains(&scope) => {
            let why = format!("this token has no scope {}", scope.name());
            Err(Problem::new(StatusCode::FORBIDDEN, why))
        }
        Some(_) | None => Ok(()),
    }
}

/// Whether who brought this may still open shells: a terminal is open for long.
pub(super) async fn still_shell(api: &Api, headers: &HeaderMap) -> bool {
    let Some((secret, _)) = secret(headers) else { return false };
    match api.app.principal(secret).await {
        Ok(caller) => decide(Need::Shell, caller.as_ref()).is_ok(),
        // A database that does not answer now and then ends no terminal.
        Err(_) => true,
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
        Some((_, cookie)) if forged(request.method(), request.headers(), cookie) => {
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
/// this is the second lock. A WebSocket goes where no page's policy reaches: it must name its origin
/// with the cookie, and no other one without.
fn forged(method: &Method, headers: &HeaderMap, cookie: bool) -> bool {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let origin = headers.get("origin").map(|_| {
        let authority = text("origin").and_then(|origin| origin.split_once("://"));
        text("host").is_some() && authority.map(|(_, authority)| authority) == text("host")
    });
    if headers.contains_key(header::UPGRADE) {
        return !origin.unwrap_or(!cookie);
    }
    if !cookie || method.is_safe() {
        return false;
    }
    if let Some(site) = text("sec-fetch-site") {
        return site != "same-origin" && site != "none";
    }
    !origin.unwrap_or(true)
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
        let may_shell = false;
        Principal { user, name, actor, role, may_shell, scopes, credential, must_change }
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
        assert!(!forged(&Method::POST, &headers, true));
        headers.insert("origin", "https://manager:8443".parse().expect("value"));
        assert!(!forged(&Method::POST, &headers, true));
        headers.insert("origin", "https://evil.example".parse().expect("value"));
        assert!(forged(&Method::POST, &headers, true) && !forged(&Method::GET, &headers, true));
        assert!(!forged(&Method::POST, &headers, false), "a token is nothing that browsers add");
        headers.insert("sec-fetch-site", "cross-site".parse().expect("value"));
        assert!(forged(&Method::DELETE, &headers, true));
    }

    #[test]
    fn a_websocket_with_a_cookie_names_its_own_origin_and_one_without_no_other() {
        let headers = |origin: Option<&str>| {
            let mut headers = HeaderMap::new();
            headers.insert("host", "manager:8443".parse().expect("value"));
            headers.insert("upgrade", "websocket".parse().expect("value"));
            if let Some(origin) = origin {
                headers.insert("origin", origin.parse().expect("value"));
            }
            headers
        };
        for (origin, by_cookie, by_token) in [
            (None, true, false),
            (Some("https://manager:8443"), false, false),
            (Some("https://manager:8443.evil.example"), true, true),
            (Some("https://evil.example"), true, true),
            (Some("null"), true, true),
        ] {
            let headers = headers(origin);
            assert_eq!(forged(&Method::GET, &headers, true), by_cookie, "{origin:?}");
            assert_eq!(forged(&Method::GET, &headers, false), by_token, "{origin:?}");
        }
    }

    #[test]
    fn a_shell_needs_the_users_own_permission_beside_role_and_scope() {
        let may = |role, scopes: Option<Vec<Scope>>, may_shell| {
            let caller = Principal { may_shell, ..principal(role, scopes, false) };
            decide(Need::Shell, Some(&caller)).is_ok()
        };
        assert!(may(Role::Operator, None, true));
        assert!(!may(Role::Admin, None, false), "admins too");
        assert!(!may(Role::Viewer, None, true));
        assert!(!may(Role::Admin, Some(vec![Scope::Respond, Scope::Administer]), true));
        assert!(may(Role::Operator, Some(vec![Scope::Shell]), true));
        assert!(!may(Role::Operator, Some(vec![Scope::Shell]), false));
        assert!(decide(Need::Shell, None).is_err());
    }
}
