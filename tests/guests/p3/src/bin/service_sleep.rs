//! Sleeps for `?ms=N` as an async task, then answers.

use wasip3::clocks::monotonic_clock;
use wrun_test_services::{ErrorCode, Request, Response, ms, service, text};

service!(handle);

async fn handle(request: Request) -> Result<Response, ErrorCode> {
    let ms = ms(&request).unwrap_or(0);
    monotonic_clock::wait_for(ms * 1_000_000).await;
    Ok(text(format!("slept {ms} ms\n")))
}
