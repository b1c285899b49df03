//! Sleeps for `?ms=N`, then answers.

use std::thread;
use std::time::Duration;

use wrun_test_guests::{IncomingRequest, ResponseOutparam, handler, query, response};

handler!(handle);

fn handle(request: IncomingRequest, out: ResponseOutparam) {
    let ms = query::number(&request, "ms").unwrap_or(0);
    thread::sleep(Duration::from_millis(ms));
    response::text(out, &format!("slept {ms} ms\n"));
}
