//! What the attributes of this crate expand to: entry points, and how they are exported. Not for use by hand.

use crate::bindings::exports::wrun::queue::consumer;
use crate::http::{IntoResponse, Request};
use crate::queue::{Delivery, IntoOutcome, handle_all};

pub use crate::bindings::export_consumer;
pub use crate::bindings::exports::wrun::queue::consumer::Guest as Consumer;
pub use wasip2;
pub use wasip2::exports::http::incoming_handler::Guest as IncomingHandler;
pub use wasip2::http::types::{IncomingRequest, ResponseOutparam};

pub type Batch = Vec<Delivery>;
pub type Outcomes = Vec<consumer::Outcome>;

pub fn http<R: IntoResponse>(
    handle: impl Fn(Request) -> R,
    request: IncomingRequest,
    out: ResponseOutparam,
) {
    crate::http::answer(handle, &request, out);
}

pub fn consumer<O: IntoOutcome>(handle: impl Fn(Delivery) -> O, batch: Batch) -> Outcomes {
    handle_all(handle, batch)
}
