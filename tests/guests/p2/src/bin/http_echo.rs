//! Sends the request body back piece by piece, never holding more than one; `/request` describes the
//! request instead.

use wasip2::http::types::Scheme;
use wrun_test_guests::request::{self, RequestBody};
use wrun_test_guests::response::{self, ResponseBody};
use wrun_test_guests::{IncomingRequest, ResponseOutparam, handler, query};

const PIECE_LEN_MAX: u64 = 64 * 1024;

handler!(handle);

fn handle(request: IncomingRequest, out: ResponseOutparam) {
    if query::path(&request) == "/request" {
        response::text(out, &describe(&request));
    } else {
        echo(&request, out);
    }
}

fn echo(request: &IncomingRequest, out: ResponseOutparam) {
    let fields = response::fields(&[]);
    if let Some(content_type) = request::header(request, "content-type") {
        fields
            .set("content-type", &[content_type])
            .expect("content-type may be set");
    }
    let from = RequestBody::of(request);
    let to = ResponseBody::start(out, 200, fields);
    loop {
        match from.next(PIECE_LEN_MAX) {
            Ok(Some(piece)) if to.write(&piece).is_ok() => {}
            Ok(None) => break,
            // Returning without `finish` lets the client see that the echo is incomplete.
            Ok(Some(_)) | Err(_) => return,
        }
    }
    let _ = to.finish(None);
}

fn describe(request: &IncomingRequest) -> String {
    let scheme = match request.scheme() {
        Some(Scheme::Http) => "http".to_owned(),
        Some(Scheme::Https) => "https".to_owned(),
        Some(Scheme::Other(name)) => name,
        None => "-".to_owned(),
    };
    let mut lines = format!(
        "method {}\nscheme {}\nauthority {}\npath-with-query {}\n",
        request::method(request),
        scheme,
        request.authority().as_deref().unwrap_or("-"),
        request.path_with_query().as_deref().unwrap_or("-"),
    );
    for (name, value) in request.headers().entries() {
        lines += &format!("{name}: {}\n", String::from_utf8_lossy(&value));
    }
    lines
}
