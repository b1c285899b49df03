//! Answers: whole ones from a slice, and bodies written piece by piece.

use wasip2::http::types::{Fields, OutgoingBody, OutgoingResponse};
use wasip2::io::streams::{OutputStream, StreamError};

use crate::ResponseOutparam;

/// Sends a complete answer with `content-length` and, unless `headers` has one, a `content-type`.
///
/// A client that went away is not the guest's concern, so nothing is returned.
pub fn respond(out: ResponseOutparam, status: u16, headers: &[(&str, &str)], body: &[u8]) {
    let fields = fields(headers);
    fields
        .set("content-length", &[body.len().to_string().into_bytes()])
        .expect("content-length may be set");
    if !fields.has("content-type") {
        fields
            .set("content-type", &[b"text/plain".to_vec()])
            .expect("content-type may be set");
    }
    let response = ResponseBody::start(out, status, fields);
    if response.write(body).is_ok() {
        let _ = response.finish(None);
    }
}

/// Sends a complete plain text answer with status 200.
pub fn text(out: ResponseOutparam, body: &str) {
    respond(out, 200, &[], body.as_bytes());
}

/// Builds headers; a name may occur more than once.
pub fn fields(headers: &[(&str, &str)]) -> Fields {
    let fields = Fields::new();
    for (name, value) in headers {
        fields
            .append(name, value.as_bytes())
            .unwrap_or_else(|error| panic!("failed to set header {name}: {error:?}"));
    }
    fields
}

/// The body of an answer whose status and headers are sent.
///
/// Dropped without [`finish`](Self::finish) it tells the host that the body is incomplete.
pub struct ResponseBody {
    // Before `body`: a stream must be dropped before the body it belongs to.
    stream: OutputStream,
    body: OutgoingBody,
}

impl ResponseBody {
    pub fn start(out: ResponseOutparam, status: u16, fields: Fields) -> Self {
        let response = OutgoingResponse::new(fields);
        response
            .set_status_code(status)
            .expect("the status is one the host takes");
        let body = response.body().expect("the body is taken once");
        let stream = body.write().expect("the body's stream is taken once");
        ResponseOutparam::set(out, Ok(response));
        Self { stream, body }
    }

    /// Writes all of `bytes`, waiting whenever the host has no room.
    pub fn write(&self, bytes: &[u8]) -> Result<(), StreamError> {
        let mut rest = bytes;
        while !rest.is_empty() {
            let room = usize::try_from(self.stream.check_write()?).unwrap_or(usize::MAX);
            if room == 0 {
                self.stream.subscribe().block();
                continue;
            }
            let (piece, left) = rest.split_at(rest.len().min(room));
            self.stream.write(piece)?;
            rest = left;
        }
        Ok(())
    }

    /// Waits until the host has passed on what was written.
    pub fn flush(&self) -> Result<(), StreamError> {
        self.stream.blocking_flush()
    }

    /// Ends the body; an error says that it does not match its `content-length`.
    pub fn finish(self, trailers: Option<Fields>) -> Result<(), String> {
        // What is still buffered counts as written only once it is flushed.
        let _ = self.flush();
        drop(self.stream);
        OutgoingBody::finish(self.body, trailers).map_err(|code| format!("{code:?}"))
    }
}
