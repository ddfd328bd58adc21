//! The web page: the files that the build embedded, and the head of the page for every other address
//! outside the API, since the page itself knows its addresses.
//!
//! INVARIANT: no answer lets a script run that is not one of these files. The page's head gets a
//! number, new in each answer, by which the component library may add style sheets; nothing else is
//! let in. It knows nothing of who is signed in: all that it shows comes through the API.

use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};

use super::problem::Problem;

/// One file of the console.
struct File {
    path: &'static str,
    etag: &'static str,
    plain: &'static [u8],
    /// The same by Brotli, where that is smaller.
    brotli: Option<&'static [u8]>,
}

static FILES: &[File] = include!(concat!(env!("OUT_DIR"), "/console.rs"));

/// Stands in `index.html` where the number goes.
const PLACE: &str = "HOLDFAST-NONCE";

/// Addresses that are not the page's.
const OTHERS: [&str; 4] = ["/api", "/metrics", "/healthz", "/readyz"];

/// The page, or one of its files.
pub(super) async fn page(uri: Uri, headers: HeaderMap) -> Result<Response, Problem> {
    let path = uri.path();
    if !is_page(path) {
        return Err(super::no_route().await);
    }
    match FILES.iter().find(|file| file.path == path && path != "/index.html") {
        Some(file) => Ok(whole(file, &headers)),
        // A file that a page of an older manager asks for: it must not get the page for a script.
        None if path.starts_with("/assets/") => Err(super::no_route().await),
        None => head(),
    }
}

/// Whether an address is the page's.
pub(super) fn is_page(path: &str) -> bool {
    !OTHERS.iter().any(|other| path.strip_prefix(other).is_some_and(is_end))
}

fn is_end(rest: &str) -> bool {
    rest.is_empty() || rest.starts_with('/')
}

fn whole(file: &'static File, headers: &HeaderMap) -> Response {
    let text = |name: HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    let mut response = if text(header::IF_NONE_MATCH).is_some_and(|etags| etags.contains(file.etag))
    {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        let packed = file.brotli.filter(|_| takes_brotli(text(header::ACCEPT_ENCODING)));
        let mut response =
            Body::from(Bytes::from_static(packed.unwrap_or(file.plain))).into_response();
        if packed.is_some() {
            let brotli = HeaderValue::from_static("br");
            response.headers_mut().insert(header::CONTENT_ENCODING, brotli);
        }
        response
    };
    // The bundler writes a hash of the content into the names below /assets.
    let fixed = file.path.starts_with("/assets/");
    let kept = if fixed { "public, max-age=31536000, immutable" } else { "no-cache" };
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind(file.path)));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static(kept));
    headers.insert(header::ETAG, HeaderValue::from_static(file.etag));
    headers.insert(header::VARY, HeaderValue::from_static("accept-encoding"));
    response
}

fn takes_brotli(accepted: Option<&str>) -> bool {
    accepted.is_some_and(|list| {
        list.split(',').any(|one| {
            let mut parts = one.split(';').map(str::trim);
            parts.next() == Some("br") && parts.all(|part| part != "q=0")
        })
    })
}

/// The page's head, under a policy of its own.
fn head() -> Result<Response, Problem> {
    let failed = || Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "there is no console");
    let file = FILES.iter().find(|file| file.path == "/index.html").ok_or_else(failed)?;
    let mut number = [0_u8; 16];
    getrandom::fill(&mut number).map_err(|_| failed())?;
    let number: String = number.iter().map(|byte| format!("{byte:02x}")).collect();
    let text = std::str::from_utf8(file.plain).map_err(|_| failed())?.replace(PLACE, &number);
    let policy = HeaderValue::from_str(&policy(&number)).map_err(|_| failed())?;
    let mut response = text.into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind(file.path)));
    headers.insert(header::CONTENT_SECURITY_POLICY, policy);
    let alone = HeaderValue::from_static("same-origin");
    headers.insert(HeaderName::from_static("cross-origin-opener-policy"), alone.clone());
    headers.insert(HeaderName::from_static("cross-origin-resource-policy"), alone);
    let none = "camera=(), geolocation=(), microphone=(), payment=(), usb=()";
    headers.insert(HeaderName::from_static("permissions-policy"), HeaderValue::from_static(none));
    Ok(response)
}

fn policy(number: &str) -> String {
    format!(
        "default-src 'none'; script-src 'self'; style-src 'self' 'nonce-{number}'; \
         img-src 'self'; font-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; \
         frame-ancestors 'none'"
    )
}

fn kind(path: &str) -> &'static str {
    match path.rsplit('.').next() {
        Some("html") => "text/html; charset=utf-8",
        Some("js") => "text/javascript; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("svg") => "image/svg+xml",
        Some("woff2") => "font/woff2",
        _ => "application/octet-stream",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_script_is_let_in_by_its_text() {
        let policy = policy("ab");
        assert!(!policy.contains("unsafe") && policy.contains("script-src 'self';"));
    }

    #[test]
    fn brotli_goes_to_whom_takes_it() {
        assert!(takes_brotli(Some("gzip, deflate, br")) && takes_brotli(Some("br;q=0.5")));
        assert!(!takes_brotli(Some("br;q=0")) && !takes_brotli(Some("gzip")));
        assert!(!takes_brotli(None));
    }

    #[test]
    fn the_page_and_its_scripts_are_embedded_and_the_number_has_its_place() {
        let index = FILES.iter().find(|file| file.path == "/index.html").expect("a page");
        let text = std::str::from_utf8(index.plain).expect("text");
        assert!(text.contains(PLACE) && !text.contains("<style") && !text.contains("onload="));
        assert!(FILES.iter().any(|file| file.path.ends_with(".js") && file.brotli.is_some()));
        for script in text.split("<script").skip(1) {
            assert!(script.contains("src=\"/assets/"), "{script}");
        }
    }
}
