//! Counts its requests, as a route of axum.

use axum::Router;
use axum::http::StatusCode;
use axum::routing::post;

#[wstd_axum::http_server]
fn main() -> Router {
    Router::new().route("/count", post(count))
}

async fn count() -> Result<String, (StatusCode, String)> {
    match wrun_test_wstd::count() {
        Ok(sum) => Ok(format!("{sum}\n")),
        Err(error) => Err((StatusCode::INTERNAL_SERVER_ERROR, error.to_string())),
    }
}
