//! Answers the `x-request-id` that the guest saw, or `none`.

use wrun_test_guests::{IncomingRequest, ResponseOutparam, handler, request, response};

handler!(handle);

fn handle(request: IncomingRequest, out: ResponseOutparam) {
    let id = request::header(&request, "x-request-id").unwrap_or_else(|| b"none".to_vec());
    response::text(out, &format!("{}\n", String::from_utf8_lossy(&id)));
}
