//! The answers that wrun gives itself, and the body of every answer with what has to happen when it ends.

use super::attended::Attended;
use super::wire::ActiveRequest;
use crate::engine::{ResponseBody, Stopped};
use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use http::{Response, StatusCode};
use http_body::{Body, Frame, SizeHint};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

/// Returns an answer of wrun's own: the status in words, for a person.
pub(super) fn plain(status: StatusCode) -> Response<ResponseBody> {
    let text = format!(
        "{} {}\n",
        status.as_u16(),
        status.canonical_reason().unwrap_or("")
    );
    let mut response = Response::new(ResponseBody::Full(Some(text.into())));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(
        CONTENT_TYPE,
        HeaderValue::from_static("text/plain; charset=utf-8"),
    );
    if status == StatusCode::SERVICE_UNAVAILABLE {
        headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
    }
    response
}

/// Where the body of an answer comes from.
pub(super) enum Source {
    Direct(ResponseBody),
    /// Its client is watched apart from hyper.
    Attended(Attended),
}

/// How much of an answer is sent before the worker's other tasks have their turn, in bytes. A client that takes whatever comes
/// would keep them waiting for as long as tokio lets a task run, which is some megabytes.
const TURN: usize = 256 * 1024;

/// What was sent of an answer since others had their turn, in bytes.
#[derive(Debug, Default)]
pub(super) struct Turn(usize);

impl Turn {
    /// Tells whether others are next; this answer then comes after them.
    fn ends(&mut self, cx: &Context<'_>) -> bool {
        let ends = self.0 >= TURN;
        if ends {
            *self = Self::default();
            cx.waker().wake_by_ref();
        }
        ends
    }
}

/// The body of an answer, and the request that lasts as long as it does.
pub(super) struct AnswerBody {
    pub(super) inner: Source,
    pub(super) id: Arc<str>,
    pub(super) access: Option<Box<Access>>,
    pub(super) turn: Turn,
    pub(super) _active: ActiveRequest,
}

/// What the access log says of a request; logged when dropped, so also when the client goes away.
pub(super) struct Access {
    pub(super) id: Arc<str>,
    pub(super) method: http::Method,
    pub(super) path: String,
    pub(super) started: Instant,
    pub(super) status: StatusCode,
    pub(super) bytes: u64,
}

impl Drop for Access {
    fn drop(&mut self) {
        tracing::info!(
            target: "access",
            method = %self.method,
            path = self.path,
            status = self.status.as_u16(),
            bytes = self.bytes,
            duration_ms = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX),
            request_id = &*self.id,
            "request"
        );
    }
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = Stopped;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Stopped>>> {
        let this = self.get_mut();
        if this.turn.ends(cx) {
            return Poll::Pending;
        }
        let polled = match &mut this.inner {
            Source::Direct(body) => Pin::new(body).poll_frame(cx),
            Source::Attended(body) => Pin::new(body).poll_frame(cx),
        };
        match &polled {
            Poll::Ready(Some(Ok(frame))) => {
                let len = frame.data_ref().map_or(0, Bytes::len);
                this.turn.0 += len;
                if let Some(access) = &mut this.access {
                    access.bytes += len as u64;
                }
            }
            Poll::Ready(Some(Err(stopped))) => {
                tracing::warn!(request_id = &*this.id, %stopped, "response broken off");
            }
            Poll::Ready(None) => {}
            Poll::Pending => this.turn = Turn::default(),
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        match &self.inner {
            Source::Direct(body) => body.is_end_stream(),
            Source::Attended(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.inner {
            Source::Direct(body) => body.size_hint(),
            Source::Attended(body) => body.size_hint(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::{Wake, Waker};

    #[derive(Default)]
    struct Woken(AtomicUsize);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn after_so_much_of_an_answer_others_have_their_turn_and_then_it_goes_on() {
        let woken = Arc::new(Woken::default());
        let waker = Waker::from(woken.clone());
        let cx = Context::from_waker(&waker);
        let mut turn = Turn(TURN - 1);
        assert!(!turn.ends(&cx));
        turn.0 += 1;
        assert!(turn.ends(&cx));
        assert_eq!(woken.0.load(Ordering::Relaxed), 1, "it is not forgotten");
        assert!(!turn.ends(&cx));
    }
}
