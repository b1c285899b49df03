//! What the 0.2 guests share: reading a request, answering, streaming with backpressure.
//!
//! A guest here shows one behaviour, right or wrong, to the tests. This library only does the right
//! ones: a guest that misbehaves does so in its own file.

pub mod query;
pub mod request;
pub mod response;
pub mod toil;

pub use wasip2;
pub use wasip2::http::types::{IncomingRequest, ResponseOutparam};

/// Exports a `fn(IncomingRequest, ResponseOutparam)` as the component's `wasi:http/incoming-handler`.
#[macro_export]
macro_rules! handler {
    ($handle:path) => {
        struct Handler;

        impl $crate::wasip2::exports::http::incoming_handler::Guest for Handler {
            fn handle(request: $crate::IncomingRequest, out: $crate::ResponseOutparam) {
                $handle(request, out)
            }
        }

        $crate::wasip2::http::proxy::export!(Handler with_types_in $crate::wasip2);

        // A binary needs one; the host calls the handler instead.
        fn main() {
            unreachable!("the host calls `handle`, never `run`")
        }
    };
}
