//! Greets whoever asks.

use wrun_sdk::http::{self, Request, Response, StatusCode};

#[wrun_sdk::http]
fn main(request: Request) -> Response {
    respond(request.method().as_str(), request.uri().path())
}

fn respond(method: &str, path: &str) -> Response {
    let path: Vec<&str> = path.split('/').skip(1).collect();
    match (method, path.as_slice()) {
        ("GET", [""]) => http::text(StatusCode::OK, "Hello from {{name}}!\n"),
        ("GET", ["hello", person]) => http::text(StatusCode::OK, format!("Hello, {person}!\n")),
        _ => http::text(StatusCode::NOT_FOUND, "not found\n"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn greets_by_name() {
        let response = respond("GET", "/hello/Ada");
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(response.body(), b"Hello, Ada!\n");
    }

    #[test]
    fn knows_no_other_path() {
        for path in ["/hello", "/hello/Ada/twice", "/bye"] {
            assert_eq!(respond("GET", path).status(), StatusCode::NOT_FOUND);
        }
    }
}
