//! Says of each request, once all of its body has come, what it saw: to the log in one line, to the client with the fields.

use wrun_test_guests::request::{self, RequestBody};
use wrun_test_guests::{IncomingRequest, ResponseOutparam, handler, response};

const PIECE_LEN_MAX: u64 = 64 * 1024;

/// How much of a body is shown, and of a target or method: a line of the log has its limit, too.
const SHOWN_MAX: usize = 60;

handler!(handle);

/// `saw METHOD TARGET AUTHORITY LENGTH BODY`.
fn handle(request: IncomingRequest, out: ResponseOutparam) {
    let from = RequestBody::of(&request);
    let mut body = Vec::new();
    loop {
        match from.next(PIECE_LEN_MAX) {
            Ok(Some(piece)) => body.extend(piece),
            Ok(None) => break,
            // A request that is not whole was not seen.
            Err(_) => return,
        }
    }
    let shown = String::from_utf8_lossy(&body[..body.len().min(SHOWN_MAX)]).into_owned();
    let line = format!(
        "saw {} {} {} {} {shown}",
        short(request::method(&request)),
        short(request.path_with_query().unwrap_or_default()),
        request.authority().unwrap_or_default(),
        body.len(),
    );
    let line = plain(line.trim_end());
    println!("{line}");
    let mut lines = line + "\n";
    for (name, value) in request.headers().entries() {
        lines += &format!("{name}: {}\n", value.escape_ascii());
    }
    response::text(out, &lines);
}

/// Cuts a long text and says how long it was.
fn short(text: String) -> String {
    match text.char_indices().nth(SHOWN_MAX) {
        Some((at, _)) if text.len() > 2 * SHOWN_MAX => format!("{}..{}", &text[..at], text.len()),
        _ => text,
    }
}

/// Escapes what is not printable ASCII.
fn plain(text: &str) -> String {
    let mut plain = String::new();
    for char in text.chars() {
        match char {
            ' '..='~' => plain.push(char),
            _ => plain.extend(char.escape_default()),
        }
    }
    plain
}
