//! The body of a request on its way to the guest: counted, and not waited for without end.

use super::pace::Pace;
use crate::engine::BodyError;
use bytes::Bytes;
use http::StatusCode;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll};
use tokio::sync::Notify;

/// Why a body was cut off.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Fault {
    TooLarge = 1,
    TooSlow = 2,
    /// Its bytes are not what its framing says, or its client is gone.
    Broken = 3,
}

impl Fault {
    /// Returns the status that the client gets.
    pub(super) fn status(self) -> StatusCode {
        match self {
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::TooSlow => StatusCode::REQUEST_TIMEOUT,
            Self::Broken => StatusCode::BAD_REQUEST,
        }
    }
}

/// Tells whoever waits for the answer that its request's body was cut off.
#[derive(Debug, Default)]
pub(super) struct Watch {
    fault: AtomicU8,
    notify: Notify,
}

impl Watch {
    /// The first fault counts: what is read after it is its consequence.
    fn set(&self, fault: Fault) {
        let _ = self
            .fault
            .compare_exchange(0, fault as u8, Ordering::Relaxed, Ordering::Relaxed);
        self.notify.notify_one();
    }

    /// Returns why the body was cut off, if it was.
    pub(super) fn get(&self) -> Option<Fault> {
        match self.fault.load(Ordering::Relaxed) {
            1 => Some(Fault::TooLarge),
            2 => Some(Fault::TooSlow),
            3 => Some(Fault::Broken),
            _ => None,
        }
    }

    /// Waits until the body is cut off.
    pub(super) async fn fault(&self) {
        while self.get().is_none() {
            self.notify.notified().await;
        }
    }
}

/// The body of a request.
pub(super) struct RequestBody {
    inner: Incoming,
    watch: Arc<Watch>,
    left: u64,
    pace: Pace,
}

impl RequestBody {
    pub(super) fn new(inner: Incoming, watch: Arc<Watch>, max: u64, pace: Pace) -> Self {
        Self {
            inner,
            watch,
            left: max,
            pace,
        }
    }

    fn count(&mut self, frame: Frame<Bytes>) -> Result<Frame<Bytes>, BodyError> {
        let len = frame.data_ref().map_or(0, Bytes::len);
        self.pace.moved(len);
        match self.left.checked_sub(len as u64) {
            Some(left) => {
                self.left = left;
                Ok(frame)
            }
            None => {
                self.watch.set(Fault::TooLarge);
                Err(BodyError::HttpRequestBodySize(None))
            }
        }
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        match Pin::new(&mut this.inner).poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => Poll::Ready(Some(this.count(frame))),
            Poll::Ready(Some(Err(error))) => {
                this.watch.set(Fault::Broken);
                Poll::Ready(Some(Err(BodyError::Hyper(error))))
            }
            Poll::Ready(None) => Poll::Ready(None),
            Poll::Pending => this.pace.poll_stalled(cx).map(|()| {
                this.watch.set(Fault::TooSlow);
                Some(Err(BodyError::ConnectionReadTimeout))
            }),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
