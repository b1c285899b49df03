//! The page that browsers get while `wrun dev` has an error to show: the last good version goes on for everybody else.

use crate::engine::ResponseBody;
use bytes::Bytes;
use http::header::{ACCEPT, CACHE_CONTROL, CONTENT_TYPE, HeaderName, HeaderValue, USER_AGENT};
use http::request::Parts;
use http::{HeaderMap, Method, Response, StatusCode};
use std::sync::{Mutex, PoisonError};

const FETCH_DEST: HeaderName = HeaderName::from_static("sec-fetch-dest");

/// Says that the answer is not the component's.
const DEV_ERROR: HeaderName = HeaderName::from_static("x-wrun-dev-error");

/// The page, while there is one.
#[derive(Debug, Default)]
pub(super) struct ErrorPage {
    html: Mutex<Option<Bytes>>,
}

impl ErrorPage {
    /// Shows `html` from now on, or nothing.
    pub(super) fn set(&self, html: Option<String>) {
        *self.html.lock().unwrap_or_else(PoisonError::into_inner) = html.map(Bytes::from);
    }

    /// Returns the answer to a browser that goes to a page, if there is an error to show.
    pub(super) fn answer(&self, request: &Parts) -> Option<Response<ResponseBody>> {
        let html = self
            .html
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
            .filter(|_| is_navigation(request))?;
        let mut response = Response::new(ResponseBody::Full(Some(html)));
        *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
        let headers = response.headers_mut();
        for (name, value) in [
            (CONTENT_TYPE, "text/html; charset=utf-8"),
            (CACHE_CONTROL, "no-store"),
            (DEV_ERROR, "the last good version serves all other requests"),
        ] {
            headers.insert(name, HeaderValue::from_static(value));
        }
        Some(response)
    }
}

/// Tells whether a person is about to see the answer, and not a program.
fn is_navigation(request: &Parts) -> bool {
    let headers = &request.headers;
    request.method == Method::GET
        && match text(headers, FETCH_DEST) {
            Some(destination) => destination == "document",
            // Browsers send it to origins that they trust: HTTPS, and this machine.
            None => wants_html(headers),
        }
}

/// Tells whether HTML is what is wanted first, as it is by every browser.
fn wants_html(headers: &HeaderMap) -> bool {
    let accepts = text(headers, ACCEPT).is_some_and(|accept| accept.starts_with("text/html"));
    accepts && !text(headers, USER_AGENT).is_some_and(|agent| agent.starts_with("curl/"))
}

fn text(headers: &HeaderMap, name: HeaderName) -> Option<&str> {
    headers.get(name)?.to_str().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_shown(method: &str, headers: &[(&str, &str)]) -> bool {
        let page = ErrorPage::default();
        let mut request = http::Request::builder().method(method);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let (request, ()) = request.body(()).unwrap().into_parts();
        assert!(page.answer(&request).is_none(), "there is no error yet");
        page.set(Some("<h1>no</h1>".to_owned()));
        let is_shown = page.answer(&request).is_some();
        page.set(None);
        assert!(page.answer(&request).is_none(), "the error is gone");
        is_shown
    }

    #[test]
    fn page_is_for_people_alone() {
        let html = ("accept", "text/html,application/xhtml+xml,*/*;q=0.8");
        for (shown, method, headers) in [
            (true, "GET", &[html, ("sec-fetch-dest", "document")][..]),
            (true, "GET", &[html]),
            (false, "POST", &[html, ("sec-fetch-dest", "document")]),
            (false, "GET", &[html, ("sec-fetch-dest", "empty")]),
            (false, "GET", &[("sec-fetch-dest", "image")]),
            (false, "GET", &[html, ("user-agent", "curl/8.5.0")]),
            (false, "GET", &[("accept", "*/*")]),
            (false, "GET", &[("accept", "application/json, text/html")]),
            (false, "GET", &[]),
        ] {
            assert_eq!(is_shown(method, headers), shown, "{method} {headers:?}");
        }
    }
}
