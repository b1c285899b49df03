//! Calls itself until the stack ends.

use std::hint::black_box;

use wrun_test_guests::{IncomingRequest, ResponseOutparam, handler, response};

handler!(handle);

fn handle(_request: IncomingRequest, out: ResponseOutparam) {
    let depth = descend(0);
    response::text(out, &format!("came back from {depth}\n"));
}

#[expect(unconditional_recursion, reason = "the point of this guest")]
fn descend(depth: u64) -> u64 {
    // Used after the call too, so that this cannot become a loop.
    let frame = black_box([depth; 8]);
    black_box(descend(depth + 1)) + frame[0]
}
