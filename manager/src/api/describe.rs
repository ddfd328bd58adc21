//! What operations of the OpenAPI document have in common and no handler names: who may call them,
//! and the errors of the gate, the limits and the extractors.
//!
//! Invariant: an operation answers with no status that the document does not name for it; a test
//! sends hostile values and fails otherwise. Only describes.

use axum::http::{Method, StatusCode};
use utoipa::openapi::path::Operation;
use utoipa::openapi::response::ResponseBuilder;
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityRequirement, SecurityScheme};
use utoipa::openapi::{Content, OpenApi as Document, Ref, RefOr, Response, Schema};

use super::access::{Need, need};

/// Name of the security scheme.
const BEARER: &str = "bearer";

/// Names them.
pub(super) fn complete(document: &mut Document) {
    for (path, item) in &mut document.paths.paths {
        for (method, operation) in [
            (Method::GET, &mut item.get),
            (Method::POST, &mut item.post),
            (Method::PATCH, &mut item.patch),
            (Method::PUT, &mut item.put),
            (Method::DELETE, &mut item.delete),
        ] {
            let Some(operation) = operation else { continue };
            errors_add(path, need(&method, path), operation);
        }
    }
    let scheme = SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer));
    document.components.get_or_insert_default().add_security_scheme(BEARER, scheme);
}

fn errors_add(path: &str, need: Option<Need>, operation: &mut Operation) {
    let mut codes = vec![
        StatusCode::TOO_MANY_REQUESTS,
        StatusCode::INTERNAL_SERVER_ERROR,
        StatusCode::SERVICE_UNAVAILABLE,
    ];
    if need != Some(Need::Nothing) {
        codes.extend([StatusCode::UNAUTHORIZED, StatusCode::FORBIDDEN]);
        operation.security = Some(vec![SecurityRequirement::new(BEARER, [""; 0])]);
    }
    if path.contains('{') || operation.parameters.as_ref().is_some_and(|list| !list.is_empty()) {
        codes.push(StatusCode::BAD_REQUEST);
    }
    if path.contains('{') {
        codes.push(StatusCode::NOT_FOUND);
    }
    if operation.request_body.is_some() {
        codes.extend([
            StatusCode::BAD_REQUEST,
            StatusCode::PAYLOAD_TOO_LARGE,
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            StatusCode::UNPROCESSABLE_ENTITY,
        ]);
    }
    let responses = &mut operation.responses.responses;
    // Handlers name the type; what it is sent as stands here.
    for (code, response) in responses.iter_mut() {
        if code.starts_with(['4', '5']) {
            *response = RefOr::T(problem(code));
        }
    }
    for code in codes {
        let code = code.as_u16().to_string();
        responses.entry(code.clone()).or_insert_with(|| RefOr::T(problem(&code)));
    }
}

fn problem(code: &str) -> Response {
    let status = code.parse::<u16>().ok().and_then(|code| StatusCode::from_u16(code).ok());
    let words = status.and_then(|status| status.canonical_reason()).unwrap_or("Error");
    let schema = RefOr::<Schema>::Ref(Ref::from_schema_name("Problem"));
    ResponseBuilder::new()
        .description(words)
        .content("application/problem+json", Content::new(Some(schema)))
        .build()
}
