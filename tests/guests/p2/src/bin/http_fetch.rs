//! Fetches `?url=…` through the host and answers `<status> <body>`, or `error <code>`.

use wasip2::http::outgoing_handler;
use wasip2::http::types::{ErrorCode, IncomingResponse, OutgoingBody, OutgoingRequest, Scheme};
use wasip2::io::streams::StreamError;
use wrun_test_guests::{IncomingRequest, ResponseOutparam, handler, query, response};

const PIECE_LEN_MAX: u64 = 64 * 1024;

handler!(handle);

fn handle(request: IncomingRequest, out: ResponseOutparam) {
    let url = query::text(&request, "url").expect("?url=… is given");
    let line = match fetch(&url) {
        Ok((status, body)) => format!("{status} {}\n", String::from_utf8_lossy(&body)),
        Err(code) => format!("error {code:?}\n"),
    };
    response::text(out, &line);
}

fn fetch(url: &str) -> Result<(u16, Vec<u8>), ErrorCode> {
    let future = outgoing_handler::handle(request_for(url)?, None)?;
    future.subscribe().block();
    let answer = future
        .get()
        .expect("the future is ready")
        .expect("the answer is taken once")?;
    Ok((answer.status(), body_of(&answer)?))
}

fn request_for(url: &str) -> Result<OutgoingRequest, ErrorCode> {
    let (scheme, rest) = url.split_once("://").unwrap_or(("http", url));
    let (authority, path) = match rest.find('/') {
        Some(slash) => rest.split_at(slash),
        None => (rest, "/"),
    };
    let scheme = match scheme {
        "http" => Scheme::Http,
        "https" => Scheme::Https,
        other => Scheme::Other(other.to_owned()),
    };
    let invalid = |()| ErrorCode::HttpRequestUriInvalid;
    let request = OutgoingRequest::new(response::fields(&[]));
    request.set_scheme(Some(&scheme)).map_err(invalid)?;
    request.set_authority(Some(authority)).map_err(invalid)?;
    request.set_path_with_query(Some(path)).map_err(invalid)?;
    let body = request.body().map_err(invalid)?;
    OutgoingBody::finish(body, None)?;
    Ok(request)
}

fn body_of(answer: &IncomingResponse) -> Result<Vec<u8>, ErrorCode> {
    let body = answer.consume().expect("the body is taken once");
    let stream = body.stream().expect("the body's stream is taken once");
    let mut bytes = Vec::new();
    loop {
        match stream.blocking_read(PIECE_LEN_MAX) {
            Ok(piece) => bytes.extend(piece),
            Err(StreamError::Closed) => return Ok(bytes),
            Err(StreamError::LastOperationFailed(error)) => {
                return Err(ErrorCode::InternalError(Some(error.to_debug_string())));
            }
        }
    }
}
