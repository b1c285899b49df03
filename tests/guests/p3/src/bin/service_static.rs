//! Counts its calls in a `static`: 1 in a fresh instance.

use std::sync::atomic::{AtomicU32, Ordering};

use wrun_test_services::{ErrorCode, Request, Response, service, text};

static CALLS: AtomicU32 = AtomicU32::new(0);

service!(handle);

async fn handle(_request: Request) -> Result<Response, ErrorCode> {
    let calls = CALLS.fetch_add(1, Ordering::Relaxed) + 1;
    Ok(text(format!("calls {calls}\n")))
}
