//! Answers `hello` to every request.

use wrun_test_services::{ErrorCode, Request, Response, service, text};

service!(handle);

async fn handle(_request: Request) -> Result<Response, ErrorCode> {
    Ok(text("hello\n"))
}
