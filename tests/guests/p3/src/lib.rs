//! What the 0.3 guests share: answering with a body that a spawned task writes.
//!
//! A guest that misbehaves does so in its own file.

pub use wasip3;
pub use wasip3::http::types::{ErrorCode, Request, Response};

use wasip3::http::types::{Fields, Trailers};
use wasip3::wit_bindgen::rt::async_support::{FutureWriter, StreamWriter};
use wasip3::{spawn_local, wit_future, wit_stream};

/// Exports an `async fn(Request) -> Result<Response, ErrorCode>` as the component's `wasi:http/handler`.
#[macro_export]
macro_rules! service {
    ($handle:path) => {
        struct Service;

        impl $crate::wasip3::exports::http::handler::Guest for Service {
            async fn handle(request: $crate::Request) -> Result<$crate::Response, $crate::ErrorCode> {
                $handle(request).await
            }
        }

        $crate::wasip3::http::service::export!(Service with_types_in $crate::wasip3);

        // A binary needs one; the host calls the handler instead.
        fn main() {
            unreachable!("the host calls `handle`, never `run`")
        }
    };
}

/// The body of an answer, written after the answer is returned.
pub struct ResponseBody {
    pub stream: StreamWriter<u8>,
    pub end: FutureWriter<Result<Option<Trailers>, ErrorCode>>,
}

impl ResponseBody {
    /// Ends the body, well or with an error that the host makes visible to the client.
    pub async fn finish(self, end: Result<Option<Trailers>, ErrorCode>) {
        drop(self.stream);
        let _ = self.end.write(end).await; // The host need not be waiting for it any more.
    }
}

/// Returns an answer and the body to write.
pub fn streamed(status: u16, content_type: &[u8]) -> (Response, ResponseBody) {
    let fields = Fields::new();
    fields
        .set("content-type", &[content_type.to_vec()])
        .expect("content-type may be set");
    let (stream, stream_reader) = wit_stream::new();
    let (end, end_reader) = wit_future::new(|| Ok(None));
    let (response, _sent) = Response::new(fields, Some(stream_reader), end_reader);
    response
        .set_status_code(status)
        .expect("the status is one the host takes");
    (response, ResponseBody { stream, end })
}

/// Returns a complete plain text answer with status 200.
pub fn text(body: impl Into<Vec<u8>>) -> Response {
    let (response, mut out) = streamed(200, b"text/plain");
    let body = body.into();
    spawn_local(async move {
        out.stream.write_all(body).await;
        out.finish(Ok(None)).await;
    });
    response
}

/// Returns the path without the query.
pub fn path(request: &Request) -> String {
    let full = request.get_path_with_query().unwrap_or_default();
    full.split('?').next().unwrap_or_default().to_owned()
}

/// Returns `?ms=N`.
pub fn ms(request: &Request) -> Option<u64> {
    let full = request.get_path_with_query()?;
    let (_, value) = full.split_once("?ms=")?;
    Some(value.parse().expect("?ms= is a whole number"))
}
