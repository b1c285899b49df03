//! Answers `hello` to every request.

use wrun_test_guests::{IncomingRequest, ResponseOutparam, handler, response};

handler!(handle);

fn handle(_request: IncomingRequest, out: ResponseOutparam) {
    response::text(out, "hello\n");
}
