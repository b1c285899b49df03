//! Streams `?bytes=N` of a pattern, or `?forever=1`, waiting whenever the host has no room.

use wrun_test_guests::response::{self, ResponseBody};
use wrun_test_guests::{IncomingRequest, ResponseOutparam, handler, query};

const PIECE_LEN: usize = 64 * 1024;
/// Coprime to the piece length, so that a lost or doubled piece shows.
const PATTERN_LEN: usize = 251;

handler!(handle);

/// Byte `i` of the body is `i % 251`. With `?length=1` the answer has a `content-length`.
fn handle(request: IncomingRequest, out: ResponseOutparam) {
    let forever = query::flag(&request, "forever");
    let bytes = query::number(&request, "bytes").unwrap_or(0);
    let fields = response::fields(&[("content-type", "application/octet-stream")]);
    if query::flag(&request, "length") && !forever {
        fields
            .set("content-length", &[bytes.to_string().into_bytes()])
            .expect("content-length may be set");
    }
    let response = ResponseBody::start(out, 200, fields);
    let len = if forever { usize::MAX } else { bytes };
    if write_pattern(&response, len) {
        let _ = response.finish(None);
    }
}

/// Returns false if the client went away first.
fn write_pattern(response: &ResponseBody, len: usize) -> bool {
    let pattern: Vec<u8> = (0..=250).cycle().take(PATTERN_LEN + PIECE_LEN).collect();
    let mut rest = len;
    let mut position = 0;
    while rest > 0 {
        let piece_len = rest.min(PIECE_LEN);
        if response
            .write(&pattern[position..position + piece_len])
            .is_err()
        {
            return false;
        }
        position = (position + piece_len) % PATTERN_LEN;
        rest -= piece_len;
    }
    true
}
