//! From `wasi:http` to the types of the crate `http` and back.

use super::{IntoResponse, Request, Response, StatusCode, header, text};
use ::http::uri::{Builder, PathAndQuery};
use ::http::{HeaderName, HeaderValue, Uri};
use wasip2::http::types::{
    Fields, IncomingRequest, Method, OutgoingBody, OutgoingResponse, ResponseOutparam, Scheme,
};
use wasip2::io::streams::{OutputStream, StreamError};

/// Bytes of a body that are read at a time.
const PIECE_LEN: u64 = 64 << 10;

/// Has `handle` answer a request.
pub(crate) fn answer<R: IntoResponse>(
    handle: impl Fn(Request) -> R,
    request: &IncomingRequest,
    out: ResponseOutparam,
) {
    let response = match read(request) {
        Ok(request) => handle(request).into_response(),
        Err(error) => text(StatusCode::BAD_REQUEST, format!("{error}\n")),
    };
    match head(&response) {
        Ok(fields) => send(out, response.status(), fields, response.body()),
        Err(error) => {
            eprintln!("failed to answer: {error}");
            send(out, StatusCode::INTERNAL_SERVER_ERROR, Fields::new(), b"");
        }
    }
}

fn read(incoming: &IncomingRequest) -> Result<Request, String> {
    let mut request = Request::new(body(incoming)?);
    let method = incoming.method();
    *request.method_mut() = name(&method).parse().map_err(|_| "bad method")?;
    *request.uri_mut() = uri(incoming).map_err(|error| error.to_string())?;
    for (name, value) in incoming.headers().entries() {
        let name: HeaderName = name.parse().map_err(|_| "bad header name")?;
        let value = HeaderValue::from_maybe_shared(value).map_err(|_| "bad header value")?;
        request.headers_mut().append(name, value);
    }
    Ok(request)
}

/// Reads a whole body; its size is limited by the host.
fn body(incoming: &IncomingRequest) -> Result<Vec<u8>, String> {
    let taken = |()| "the body is gone".to_owned();
    let body = incoming.consume().map_err(taken)?;
    let stream = body.stream().map_err(taken)?;
    let mut bytes = Vec::new();
    loop {
        match stream.blocking_read(PIECE_LEN) {
            Ok(piece) => bytes.extend(piece),
            Err(StreamError::Closed) => return Ok(bytes),
            Err(StreamError::LastOperationFailed(error)) => return Err(error.to_debug_string()),
        }
    }
}

fn uri(incoming: &IncomingRequest) -> Result<Uri, ::http::Error> {
    let path = incoming.path_with_query();
    let path: PathAndQuery = path.as_deref().unwrap_or("/").parse()?;
    let builder = Builder::new().path_and_query(path);
    match (incoming.scheme(), incoming.authority()) {
        (Some(scheme), Some(authority)) => {
            let scheme = match &scheme {
                Scheme::Http => "http",
                Scheme::Https => "https",
                Scheme::Other(name) => name,
            };
            builder.scheme(scheme).authority(authority).build()
        }
        _ => builder.build(),
    }
}

fn name(method: &Method) -> &str {
    match method {
        Method::Get => "GET",
        Method::Head => "HEAD",
        Method::Post => "POST",
        Method::Put => "PUT",
        Method::Delete => "DELETE",
        Method::Connect => "CONNECT",
        Method::Options => "OPTIONS",
        Method::Trace => "TRACE",
        Method::Patch => "PATCH",
        Method::Other(name) => name,
    }
}

/// Returns the fields of a response; an error says that it has some that the host does not let through.
fn head(response: &Response) -> Result<Fields, String> {
    let fields = Fields::new();
    for (name, value) in response.headers() {
        fields
            .append(name.as_str(), value.as_bytes())
            .map_err(|error| format!("header {name}: {error:?}"))?;
    }
    let status = response.status();
    let may_have_body = status != StatusCode::NO_CONTENT && status != StatusCode::NOT_MODIFIED;
    if may_have_body && !response.headers().contains_key(header::CONTENT_LENGTH) {
        let length = response.body().len().to_string();
        fields
            .append(header::CONTENT_LENGTH.as_str(), length.as_bytes())
            .map_err(|error| format!("header content-length: {error:?}"))?;
    }
    Ok(fields)
}

/// Sends a response. A client that went away is not the guest's concern.
fn send(out: ResponseOutparam, status: StatusCode, fields: Fields, bytes: &[u8]) {
    let response = OutgoingResponse::new(fields);
    // The host is the judge of what it sends: what it refuses is answered by 500, as if nothing had been set.
    if response.set_status_code(status.as_u16()).is_err() {
        eprintln!("failed to answer: the status {status} is refused");
        return;
    }
    let Ok(body) = response.body() else { return };
    ResponseOutparam::set(out, Ok(response));
    let written = body
        .write()
        .is_ok_and(|stream| write(&stream, bytes).is_ok());
    if written {
        let _ = OutgoingBody::finish(body, None);
    }
}

/// Writes all of `bytes`, waiting whenever the host has no room.
fn write(stream: &OutputStream, bytes: &[u8]) -> Result<(), StreamError> {
    let mut rest = bytes;
    while !rest.is_empty() {
        let room = usize::try_from(stream.check_write()?).unwrap_or(usize::MAX);
        if room == 0 {
            stream.subscribe().block();
            continue;
        }
        let (piece, left) = rest.split_at(rest.len().min(room));
        stream.write(piece)?;
        rest = left;
    }
    // What is still buffered counts as written only once it is flushed.
    stream.blocking_flush()
}
