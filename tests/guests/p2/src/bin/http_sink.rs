//! Reads the request body and answers its length; `?slow_ms=N` between reads, `?ignore=1` not at all.

use std::thread;
use std::time::Duration;

use wrun_test_guests::request::RequestBody;
use wrun_test_guests::{IncomingRequest, ResponseOutparam, handler, query, response};

const PIECE_LEN_MAX: u64 = 64 * 1024;

handler!(handle);

fn handle(request: IncomingRequest, out: ResponseOutparam) {
    if query::flag(&request, "ignore") {
        return response::text(out, "ignored\n");
    }
    let slow_ms = query::number(&request, "slow_ms").unwrap_or(0);
    let body = RequestBody::of(&request);
    let mut len = 0_u64;
    loop {
        match body.next(PIECE_LEN_MAX) {
            Ok(Some(piece)) => len += piece.len() as u64,
            Ok(None) => return response::text(out, &format!("{len}\n")),
            Err(error) => {
                let line = format!("broke off after {len}: {error}\n");
                return response::respond(out, 400, &[], line.as_bytes());
            }
        }
        thread::sleep(Duration::from_millis(slow_ms));
    }
}
