//! Counts its requests, as a handler of `wstd`.

use wstd::http::{Body, Error, Request, Response};

#[wstd::http_server]
async fn main(_request: Request<Body>) -> Result<Response<Body>, Error> {
    Ok(Response::new(
        format!("{}\n", wrun_test_wstd::count()?).into(),
    ))
}
