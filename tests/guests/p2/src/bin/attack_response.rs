//! Answers that would put a connection out of step if they went out as they are. `/` is harmless.

use std::thread;
use std::time::Duration;

use wasip2::http::types::{Fields, OutgoingBody, OutgoingResponse};
use wrun_test_guests::response::ResponseBody;
use wrun_test_guests::{IncomingRequest, ResponseOutparam, handler, query, response};

handler!(handle);

/// `/send?status=&name=&value=&also=&trailer=&body=` sends exactly that, or says what was refused.
fn handle(request: IncomingRequest, out: ResponseOutparam) {
    match query::path(&request).as_str() {
        "/" => response::text(out, "harmless\n"),
        "/send" => match fields(&request) {
            Ok(fields) => send(&request, out, fields),
            Err(refused) => response::text(out, &format!("refused {refused}\n")),
        },
        "/many-fields" => many_fields(&request, out),
        "/silent" => {}
        "/late" => thread::sleep(Duration::from_secs(3600)),
        "/after-finish" => after_finish(out),
        "/no-finish" => no_finish(out),
        "/pieces" => pieces(&request, out),
        "/stalls" => stalls(out),
        other => response::respond(out, 404, &[], other.as_bytes()),
    }
}

/// Makes the fields that the query asks for; an error names the first that the host refuses.
fn fields(request: &IncomingRequest) -> Result<Fields, String> {
    let text = |name| query::text(request, name);
    let fields = Fields::new();
    for (name, value) in [("name", "value"), ("name2", "value2")] {
        let (Some(name), Some(value)) = (text(name), text(value)) else {
            continue;
        };
        let pair = (name.clone(), value.clone().into_bytes());
        if Fields::from_list(&[pair]).is_ok() != fields.append(&name, value.as_bytes()).is_ok() {
            return Err("in one way and not in the other".to_owned());
        }
        if !fields.has(&name) {
            return Err(name.escape_debug().to_string());
        }
    }
    Ok(fields)
}

fn send(request: &IncomingRequest, out: ResponseOutparam, fields: Fields) {
    let status = query::number(request, "status").unwrap_or(200);
    if OutgoingResponse::new(Fields::new())
        .set_status_code(status)
        .is_err()
    {
        return response::text(out, &format!("refused {status}\n"));
    }
    let body = ResponseBody::start(out, status, fields);
    let _ = body.write(query::text(request, "body").unwrap_or_default().as_bytes());
    let trailers = query::text(request, "trailer").map(|name| {
        let fields = Fields::new();
        let _ = fields.append(&name, b"7");
        fields
    });
    let _ = body.finish(trailers);
}

/// Makes `?count=` fields of `?size=` bytes each.
fn many_fields(request: &IncomingRequest, out: ResponseOutparam) {
    let count = query::number(request, "count").unwrap_or(0);
    let value = vec![b'v'; query::number(request, "size").unwrap_or(0)];
    let fields = Fields::new();
    for index in 0..count {
        if fields.append(&format!("x-{index}"), &value).is_err() {
            return response::text(out, &format!("refused at {index}\n"));
        }
    }
    let _ = ResponseBody::start(out, 200, fields).finish(None);
}

/// Ends the body and writes on.
fn after_finish(out: ResponseOutparam) {
    let made = OutgoingResponse::new(Fields::new());
    let body = made.body().expect("the body is taken once");
    let stream = body.write().expect("the stream is taken once");
    ResponseOutparam::set(out, Ok(made));
    let _ = stream.blocking_write_and_flush(b"whole\n");
    // The stream is a child of the body, which ends without it.
    let _ = OutgoingBody::finish(body, None);
    for _ in 0..10 {
        let _ = stream.blocking_write_and_flush(b"HTTP/1.1 200 OK\r\n\r\n");
    }
}

/// Returns in the middle of the body.
fn no_finish(out: ResponseOutparam) {
    let body = ResponseBody::start(out, 200, Fields::new());
    let _ = body.write(b"half");
}

/// Writes `?count=` pieces of `?size=` bytes.
fn pieces(request: &IncomingRequest, out: ResponseOutparam) {
    let piece = vec![b'p'; query::number(request, "size").unwrap_or(1)];
    let body = ResponseBody::start(out, 200, Fields::new());
    for _ in 0..query::number(request, "count").unwrap_or(u64::MAX) {
        if body.write(&piece).is_err() {
            return;
        }
    }
    let _ = body.finish(None);
}

/// Writes a piece and never another one.
fn stalls(out: ResponseOutparam) {
    let body = ResponseBody::start(out, 200, Fields::new());
    let _ = body.write(b"a piece\n");
    let _ = body.flush();
    thread::sleep(Duration::from_secs(3600));
}
