//! Works for `?rounds=N`, and answers what came of it.

use wrun_test_guests::toil::toil;
use wrun_test_guests::{IncomingRequest, ResponseOutparam, handler, query, response};

handler!(handle);

fn handle(request: IncomingRequest, out: ResponseOutparam) {
    let rounds = query::number(&request, "rounds").unwrap_or(0);
    response::text(out, &format!("{}\n", toil(rounds)));
}
