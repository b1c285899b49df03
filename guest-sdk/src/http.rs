//! HTTP: whole requests and whole responses, in the types of the crate [`http`].
//!
//! A handler that streams bodies is better served by another crate, such as `wstd`.

mod wire;

pub use ::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, header};
pub(crate) use wire::answer;

use serde::Serialize;
use std::fmt::Display;

/// A request with its body.
pub type Request = ::http::Request<Vec<u8>>;

/// A response with its body.
pub type Response = ::http::Response<Vec<u8>>;

/// Returns a response of plain text.
pub fn text(status: StatusCode, text: impl Into<String>) -> Response {
    response(
        status,
        "text/plain; charset=utf-8",
        text.into().into_bytes(),
    )
}

/// Returns a response with a value as JSON.
///
/// ```
/// use wrun_sdk::http::{self, StatusCode};
///
/// # fn main() -> Result<(), serde_json::Error> {
/// let response = http::json(StatusCode::NOT_FOUND, &serde_json::json!({ "error": "no such order" }))?;
/// assert_eq!(response.body(), br#"{"error":"no such order"}"#);
/// # Ok(())
/// # }
/// ```
pub fn json(status: StatusCode, value: &impl Serialize) -> Result<Response, serde_json::Error> {
    let body = serde_json::to_vec(value)?;
    Ok(response(status, "application/json", body))
}

fn response(status: StatusCode, content_type: &'static str, body: Vec<u8>) -> Response {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let content_type = HeaderValue::from_static(content_type);
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, content_type);
    response
}

/// What an HTTP handler may return.
pub trait IntoResponse {
    /// Returns the response.
    fn into_response(self) -> Response;
}

impl IntoResponse for Response {
    fn into_response(self) -> Response {
        self
    }
}

/// An error is written to the log and answers 500.
impl<R: IntoResponse, E: Display> IntoResponse for Result<R, E> {
    fn into_response(self) -> Response {
        match self {
            Ok(response) => response.into_response(),
            Err(error) => {
                eprintln!("failed to answer: {error:#}");
                text(StatusCode::INTERNAL_SERVER_ERROR, "Internal error\n")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_answers_500_and_keeps_its_reason_to_itself() {
        let response = Err::<Response, _>("secret").into_response();
        assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
        assert_eq!(response.body(), b"Internal error\n");
    }
}
