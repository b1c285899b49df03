//! The body of a request, read piece by piece.

use wasip2::http::types::{IncomingBody, Method};
use wasip2::io::streams::{InputStream, StreamError};

use crate::IncomingRequest;

/// A request's body. Dropping it leaves the rest unread.
pub struct RequestBody {
    // Before `_body`: a stream must be dropped before the body it belongs to.
    stream: InputStream,
    _body: IncomingBody,
}

impl RequestBody {
    pub fn of(request: &IncomingRequest) -> Self {
        let body = request.consume().expect("the body is taken once");
        let stream = body.stream().expect("the body's stream is taken once");
        Self {
            stream,
            _body: body,
        }
    }

    /// Waits for the next piece of at most `len_max` bytes; `None` at the end.
    ///
    /// An error means that the body broke off, for example because the client went away.
    pub fn next(&self, len_max: u64) -> Result<Option<Vec<u8>>, String> {
        loop {
            match self.stream.blocking_read(len_max) {
                // A host may wake a reader for nothing.
                Ok(piece) if piece.is_empty() => {}
                Ok(piece) => return Ok(Some(piece)),
                Err(StreamError::Closed) => return Ok(None),
                Err(StreamError::LastOperationFailed(error)) => {
                    return Err(error.to_debug_string());
                }
            }
        }
    }
}

/// Returns the method as it stands in the request line.
pub fn method(request: &IncomingRequest) -> String {
    match request.method() {
        Method::Get => "GET".to_owned(),
        Method::Head => "HEAD".to_owned(),
        Method::Post => "POST".to_owned(),
        Method::Put => "PUT".to_owned(),
        Method::Delete => "DELETE".to_owned(),
        Method::Connect => "CONNECT".to_owned(),
        Method::Options => "OPTIONS".to_owned(),
        Method::Trace => "TRACE".to_owned(),
        Method::Patch => "PATCH".to_owned(),
        Method::Other(name) => name,
    }
}

/// Returns the first header of this name.
pub fn header(request: &IncomingRequest, name: &str) -> Option<Vec<u8>> {
    request.headers().get(name).into_iter().next()
}
