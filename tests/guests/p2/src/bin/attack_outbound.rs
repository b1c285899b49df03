//! Requests that should not be sent, and answers that should not be read: `/` is harmless.

use std::thread;
use std::time::Duration;

use wasip2::http::outgoing_handler;
use wasip2::http::types::{
    ErrorCode, Fields, FutureIncomingResponse, IncomingResponse, Method, OutgoingBody,
    OutgoingRequest, RequestOptions, Scheme, http_error_code,
};
use wasip2::io::streams::StreamError;
use wrun_test_guests::{IncomingRequest, ResponseOutparam, handler, query, response};

const PIECE_LEN_MAX: u64 = 64 * 1024;

handler!(handle);

/// `/send?scheme=&authority=&path=&name=&value=` tells what came of one request, `/many?count=` of many at a time. A request
/// has `fields=` more fields of `size=` bytes and a body of `upload=` bytes, and waits for `first_byte_ms=`.
fn handle(request: IncomingRequest, out: ResponseOutparam) {
    let text = match query::path(&request).as_str() {
        "/send" => match send(&request).and_then(|sent| answer(&sent)) {
            Ok((status, fields, len)) => format!("answer {status} {fields} {len}\n"),
            Err(code) => format!("error {code:?}\n"),
        },
        "/many" => many(&request),
        "/leave" => leave(&request),
        _ => "harmless\n".to_owned(),
    };
    response::text(out, &text);
}

fn send(request: &IncomingRequest) -> Result<FutureIncomingResponse, ErrorCode> {
    let text = |name| query::text(request, name).unwrap_or_default();
    let scheme = match text("scheme").as_str() {
        "" | "http" => Scheme::Http,
        "https" => Scheme::Https,
        other => Scheme::Other(other.to_owned()),
    };
    let fields = Fields::new();
    if let Some(name) = query::text(request, "name") {
        let refused = |error| ErrorCode::InternalError(Some(format!("{error:?}")));
        fields
            .append(&name, text("value").as_bytes())
            .map_err(refused)?;
    }
    let value = "v".repeat(query::number(request, "size").unwrap_or(1));
    for number in 0..query::number::<u32>(request, "fields").unwrap_or(0) {
        let refused = |error| ErrorCode::InternalError(Some(format!("{error:?}")));
        fields
            .append(&format!("x-{number}"), value.as_bytes())
            .map_err(refused)?;
    }
    let path = query::text(request, "path").unwrap_or_else(|| "/".to_owned());
    let invalid = |()| ErrorCode::HttpRequestUriInvalid;
    let made = OutgoingRequest::new(fields);
    made.set_scheme(Some(&scheme)).map_err(invalid)?;
    made.set_authority(Some(&text("authority")))
        .map_err(invalid)?;
    made.set_path_with_query(Some(&path)).map_err(invalid)?;
    let length = query::number(request, "upload").unwrap_or(0);
    if length > 0 {
        made.set_method(&Method::Post).map_err(invalid)?;
    }
    let body = made.body().map_err(invalid)?;
    let options = RequestOptions::new();
    if let Some(ms) = query::number::<u64>(request, "first_byte_ms") {
        options
            .set_first_byte_timeout(Some(ms * 1_000_000))
            .map_err(invalid)?;
    }
    let sent = outgoing_handler::handle(made, Some(options))?;
    upload(&body, length);
    OutgoingBody::finish(body, None)?;
    Ok(sent)
}

/// Writes a body, or as much of it as is taken.
fn upload(body: &OutgoingBody, mut left: usize) {
    let stream = body.write().expect("the stream is taken once");
    let piece = [b'x'; 4096];
    while left > 0 {
        let len = left.min(piece.len());
        if stream.blocking_write_and_flush(&piece[..len]).is_err() {
            return;
        }
        left -= len;
    }
}

/// Returns status, number of fields and length of the body.
fn answer(sent: &FutureIncomingResponse) -> Result<(u16, usize, u64), ErrorCode> {
    sent.subscribe().block();
    let answer = sent
        .get()
        .expect("it is ready")
        .expect("it is taken once")?;
    Ok((
        answer.status(),
        answer.headers().entries().len(),
        length(&answer)?,
    ))
}

fn length(answer: &IncomingResponse) -> Result<u64, ErrorCode> {
    let body = answer.consume().expect("the body is taken once");
    let stream = body.stream().expect("the stream is taken once");
    let mut len = 0;
    loop {
        match stream.blocking_read(PIECE_LEN_MAX) {
            Ok(piece) => len += piece.len() as u64,
            Err(StreamError::Closed) => return Ok(len),
            Err(StreamError::LastOperationFailed(error)) => {
                let other = || ErrorCode::InternalError(Some(error.to_debug_string()));
                return Err(http_error_code(&error).unwrap_or_else(other));
            }
        }
    }
}

/// Sends many and then waits for all.
fn many(request: &IncomingRequest) -> String {
    let count: usize = query::number(request, "count").unwrap_or(1);
    let sent: Vec<_> = (0..count).map(|_| send(request)).collect();
    let answered = sent
        .iter()
        .filter(|one| one.as_ref().is_ok_and(|sent| answer(sent).is_ok()));
    format!("answered {} of {count}\n", answered.count())
}

/// Sends many, waits for none and stays.
fn leave(request: &IncomingRequest) -> String {
    let sent: Vec<_> = (0..60).map(|_| send(request)).collect();
    thread::sleep(Duration::from_secs(3600));
    format!("{} sent\n", sent.len())
}
