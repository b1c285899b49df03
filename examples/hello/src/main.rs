//! The smallest handler: `GET /` answers a greeting, everything else 404.
//!
//! Knows nothing of wrun: any host of wasi:http 0.2 can run it.

use wstd::http::{Body, Error, Method, Request, Response, StatusCode};

#[wstd::http_server]
async fn main(request: Request<Body>) -> Result<Response<Body>, Error> {
    let (status, text) = match (request.method(), request.uri().path()) {
        (&Method::GET | &Method::HEAD, "/") => (StatusCode::OK, "Hello from wrun!\n"),
        _ => (StatusCode::NOT_FOUND, "Not found\n"),
    };
    let response = Response::builder()
        .status(status)
        .header("content-type", "text/plain")
        .body(text.into())?;
    Ok(response)
}
