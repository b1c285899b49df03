//! What one request to another server may take: fields, bytes and time.
//!
//! Past a limit there is an error for the guest that sent the request, and for nobody else.

use crate::config::Limits;
use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, Sleep, sleep_until};
use wasmtime_wasi_http::{Error, RequestOptions, WasiBody};

/// How long one request may take for what: as long as the limits say, or less if its guest says so.
#[derive(Clone, Copy, Debug)]
pub(super) struct Times {
    pub(super) connect: Duration,
    pub(super) first_byte: Duration,
    between_bytes: Duration,
    /// When all of it must be over.
    pub(super) until: Instant,
}

impl Times {
    /// Returns the times of a request that begins now.
    pub(super) fn of(limits: &Limits, options: Option<RequestOptions>) -> Self {
        let options = options.unwrap_or_default();
        let least =
            |limit: Duration, wish: Option<Duration>| wish.map_or(limit, |it| it.min(limit));
        Self {
            connect: least(limits.outbound_connect, options.connect_timeout),
            first_byte: least(limits.outbound_first_byte, options.first_byte_timeout),
            between_bytes: least(limits.outbound_between_bytes, options.between_bytes_timeout),
            until: Instant::now() + limits.outbound_timeout,
        }
    }
}

/// Checks the fields of a request before it is sent.
pub(super) fn check_request(fields: &HeaderMap, limits: &Limits) -> Result<(), Error> {
    match too_large(fields, limits) {
        Some(size) => Err(Error::HttpRequestHeaderSectionSize(Some(size))),
        None => Ok(()),
    }
}

/// Checks the fields of an answer before its guest sees it.
pub(super) fn check_answer(fields: &HeaderMap, limits: &Limits) -> Result<(), Error> {
    match too_large(fields, limits) {
        Some(size) => Err(Error::HttpResponseHeaderSectionSize(Some(size))),
        None => Ok(()),
    }
}

/// Returns the size of fields that are too large or too many.
fn too_large(fields: &HeaderMap, limits: &Limits) -> Option<u32> {
    // As lines: a colon, a space and the end.
    let size: usize = fields
        .iter()
        .map(|(name, value)| name.as_str().len() + value.len() + 4)
        .sum();
    let over = size as u64 > limits.outbound_header_bytes
        || fields.len() > limits.outbound_headers as usize;
    over.then(|| u32::try_from(size).unwrap_or(u32::MAX))
}

/// Bytes that are counted against a limit.
#[derive(Clone, Copy, Debug)]
struct Count {
    passed: u64,
    max: u64,
}

impl Count {
    fn new(max: u64) -> Self {
        Self { passed: 0, max }
    }

    /// Counts a piece; returns how many bytes there have been when that is too many.
    fn take(&mut self, frame: &Frame<Bytes>) -> Result<(), u64> {
        let len = frame.data_ref().map_or(0, Bytes::len) as u64;
        self.passed = self.passed.saturating_add(len);
        if self.passed > self.max {
            return Err(self.passed);
        }
        Ok(())
    }
}

/// The body of a request, on its way out.
pub(super) struct RequestBody {
    inner: WasiBody,
    count: Count,
}

impl RequestBody {
    pub(super) fn new(inner: WasiBody, limits: &Limits) -> Self {
        Self {
            inner,
            count: Count::new(limits.outbound_request_body),
        }
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let this = self.get_mut();
        let frame = match ready!(Pin::new(&mut this.inner).poll_frame(cx)) {
            Some(Ok(frame)) => frame,
            other => return Poll::Ready(other),
        };
        let counted = this.count.take(&frame);
        let too_large = |size| Error::HttpRequestBodySize(Some(size));
        Poll::Ready(Some(counted.map(|()| frame).map_err(too_large)))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// The body of an answer, on its way in.
pub(super) struct AnswerBody {
    /// `None` once there was an error.
    inner: Option<Incoming>,
    count: Count,
    times: Times,
    /// Set while the server is waited for.
    timer: Option<Pin<Box<Sleep>>>,
    _place: OwnedSemaphorePermit,
}

impl AnswerBody {
    /// Returns `inner`; `place` is held until it is over.
    pub(super) fn new(
        inner: Incoming,
        limits: &Limits,
        times: Times,
        place: OwnedSemaphorePermit,
    ) -> Self {
        Self {
            inner: Some(inner),
            count: Count::new(limits.outbound_response_body),
            times,
            timer: None,
            _place: place,
        }
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let Some(inner) = &mut self.inner else {
            return Poll::Ready(None);
        };
        let Poll::Ready(frame) = Pin::new(inner).poll_frame(cx) else {
            return self.poll_overdue(cx).map(|error| Some(Err(error)));
        };
        self.timer = None;
        Poll::Ready(match frame {
            // A server that is never waited for may still never end.
            Some(Ok(_)) if Instant::now() >= self.times.until => {
                Some(Err(Error::HttpResponseTimeout))
            }
            Some(Ok(frame)) => {
                let counted = self.count.take(&frame);
                let too_large = |size| Error::HttpResponseBodySize(Some(size));
                Some(counted.map(|()| frame).map_err(too_large))
            }
            Some(Err(error)) => Some(Err(Error::Hyper(error))),
            None => None,
        })
    }

    /// The server is waited for; `Ready` when that took too long.
    fn poll_overdue(&mut self, cx: &mut Context<'_>) -> Poll<Error> {
        let Times {
            between_bytes,
            until,
            ..
        } = self.times;
        let timer = self.timer.get_or_insert_with(|| {
            Box::pin(sleep_until(until.min(Instant::now() + between_bytes)))
        });
        ready!(timer.as_mut().poll(cx));
        Poll::Ready(if timer.deadline() == until {
            Error::HttpResponseTimeout
        } else {
            Error::ConnectionReadTimeout
        })
    }
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let this = self.get_mut();
        let polled = this.poll_next(cx);
        if matches!(polled, Poll::Ready(Some(Err(_)))) {
            // The connection goes with it.
            this.inner = None;
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.inner.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.inner
            .as_ref()
            .map_or_else(SizeHint::default, Body::size_hint)
    }
}
