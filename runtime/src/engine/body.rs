//! The body of an answer: bytes that are all there, or a guest that is still making them.
//!
//! Polling the body is what runs the guest on, so a slow client slows its guest down and nothing piles up between them.

use super::guest::{Frame, Rest, Stopped};
use super::handler::BodyError;
use bytes::Bytes;
use http_body::{Body, SizeHint};
use http_body_util::{BodyExt as _, Full};
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use tokio::sync::oneshot;
use tokio::task::coop::unconstrained;
use wasmtime_wasi_http::WasiBody;

/// The body of an answer.
pub enum ResponseBody {
    /// All of it, taken when it is sent.
    Full(Option<Bytes>),
    /// As the guest goes.
    Guest(Box<GuestBody>),
}

/// A body that is still being made.
pub struct GuestBody {
    inner: WasiBody,
    rest: Rest,
    left: u64,
}

impl GuestBody {
    pub(super) fn new(inner: WasiBody, rest: Rest, max: u64) -> Self {
        Self {
            inner,
            rest,
            left: max,
        }
    }

    fn is_running(&self) -> bool {
        matches!(self.rest, Rest::Running(_))
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame, Stopped>>> {
        self.run(cx);
        match self.poll_inner(cx) {
            Poll::Ready(Some(Ok(frame))) => Poll::Ready(Some(self.count(frame))),
            Poll::Ready(Some(Err(error))) => {
                Poll::Ready(Some(Err(self.reason(Stopped::Invalid(error.to_string())))))
            }
            Poll::Ready(None) => {
                // Most guests have nothing left to do by now.
                self.run(cx);
                Poll::Ready(self.end())
            }
            // Nothing to come any more, and no end: the guest left in the middle of its body.
            Poll::Pending if !self.is_running() => {
                Poll::Ready(Some(Err(self.reason(Stopped::Truncated))))
            }
            Poll::Pending => Poll::Pending,
        }
    }

    /// Returns what the guest has written. Outside of tokio's budget: a task that has used its own up would be told that there
    /// is nothing yet, which of a guest that has returned is taken for the truth.
    fn poll_inner(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame, BodyError>>> {
        let inner = &mut self.inner;
        let next = poll_fn(|cx| Pin::new(&mut *inner).poll_frame(cx));
        pin!(unconstrained(next)).poll(cx)
    }

    /// Runs the guest until it has to wait.
    fn run(&mut self, cx: &mut Context<'_>) {
        if let Rest::Running(guest) = &mut self.rest
            && let Poll::Ready(ended) = guest.poll(cx)
        {
            self.rest = ended.into();
        }
    }

    fn count(&mut self, frame: Frame) -> Result<Frame, Stopped> {
        let len = frame.data_ref().map_or(0, Bytes::len) as u64;
        self.left = self.left.checked_sub(len).ok_or(Stopped::TooLarge)?;
        Ok(frame)
    }

    /// The body has ended, but only a guest that was not stopped has ended it.
    fn end(&mut self) -> Option<Result<Frame, Stopped>> {
        match std::mem::replace(&mut self.rest, Rest::Stopped(None)) {
            Rest::Running(guest) => {
                tokio::spawn(guest.finish());
                None
            }
            Rest::Done { .. } | Rest::Stopped(None) => None,
            Rest::Stopped(Some(stopped)) => Some(Err(stopped)),
        }
    }

    /// Runs the guest on and drops what it writes: for answers that have no body on the wire.
    pub(super) fn discard(mut self) {
        tokio::spawn(
            async move { while let Some(Ok(_)) = poll_fn(|cx| self.poll_next(cx)).await {} },
        );
    }

    /// Returns why the guest was stopped, or `otherwise`.
    fn reason(&mut self, otherwise: Stopped) -> Stopped {
        match std::mem::replace(&mut self.rest, Rest::Stopped(None)) {
            Rest::Stopped(Some(stopped)) => stopped,
            _ => otherwise,
        }
    }
}

impl ResponseBody {
    /// Returns the body of a guest whose answer has begun: in one piece when the guest has returned already, which is
    /// the common case and costs the client's connection a single write.
    pub(super) async fn of(mut body: GuestBody) -> Result<Self, Stopped> {
        if body.is_running() {
            return Ok(Self::Guest(Box::new(body)));
        }
        let mut whole = Bytes::new();
        loop {
            match poll_fn(|cx| body.poll_next(cx)).await {
                None => return Ok(Self::Full(Some(whole))),
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) if whole.is_empty() => whole = data,
                    Ok(data) => whole = [whole, data].concat().into(),
                    Err(trailers) => {
                        let inner = with_trailers(whole, trailers);
                        return Ok(Self::Guest(Box::new(GuestBody { inner, ..body })));
                    }
                },
                Some(Err(stopped)) => return Err(stopped),
            }
        }
    }
}

/// A body that tells when it is over: read to its end, or dropped.
pub(super) struct Watched {
    inner: WasiBody,
    over: Option<oneshot::Sender<()>>,
}

impl Watched {
    /// Returns `inner` and what ends with it.
    pub(super) fn watch(inner: WasiBody) -> (WasiBody, oneshot::Receiver<()>) {
        let (over, ended) = oneshot::channel();
        (
            Self {
                inner,
                over: Some(over),
            }
            .boxed_unsync(),
            ended,
        )
    }
}

impl Body for Watched {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame, BodyError>>> {
        let polled = Pin::new(&mut self.inner).poll_frame(cx);
        if matches!(polled, Poll::Ready(None | Some(Err(_)))) {
            self.over = None;
        }
        polled
    }
}

/// Puts back what was read ahead of trailers.
fn with_trailers(data: Bytes, trailers: Frame) -> WasiBody {
    let trailers = trailers.into_trailers().ok().map(Ok);
    Full::new(data)
        .map_err(|never| match never {})
        .with_trailers(std::future::ready(trailers))
        .boxed_unsync()
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = Stopped;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame, Stopped>>> {
        match &mut *self {
            Self::Full(bytes) => Poll::Ready(
                bytes
                    .take()
                    .filter(|bytes| !bytes.is_empty())
                    .map(Frame::data)
                    .map(Ok),
            ),
            Self::Guest(body) => body.poll_next(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::Full(bytes) if bytes.as_ref().is_none_or(Bytes::is_empty))
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Full(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, Bytes::len) as u64),
            Self::Guest(_) => SizeHint::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::{StreamExt as _, stream};
    use http_body_util::StreamBody;
    use std::iter::repeat_with;
    use tokio::sync::mpsc::unbounded_channel;

    /// More than a task may take before it has to let others run.
    const PIECES: usize = 1000;

    /// As the host has them: in a channel.
    fn pieces() -> WasiBody {
        let (sender, mut receiver) = unbounded_channel();
        for frame in repeat_with(|| Frame::data(Bytes::from_static(b"x"))).take(PIECES) {
            sender.send(frame).unwrap();
        }
        StreamBody::new(stream::poll_fn(move |cx| receiver.poll_recv(cx)).map(Ok)).boxed_unsync()
    }

    /// Takes what there is without letting go of the thread; returns how many pieces there were, and what came then.
    fn take<E>(
        mut next: impl FnMut(&mut Context<'_>) -> Poll<Option<Result<Frame, E>>> + Unpin,
    ) -> (usize, Poll<Option<E>>) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        runtime.block_on(async {
            tokio::task::yield_now().await;
            let mut count = 0;
            poll_fn(|cx| {
                loop {
                    match next(cx) {
                        Poll::Ready(Some(Ok(_))) => count += 1,
                        other => {
                            let other = other.map(|end| end.and_then(Result::err));
                            return Poll::Ready((count, other));
                        }
                    }
                }
            })
            .await
        })
    }

    #[test]
    fn all_that_a_guest_has_written_comes_however_much_the_task_has_done_already() {
        let mut body = GuestBody::new(pieces(), Rest::Stopped(None), u64::MAX);
        let (count, then) = take(|cx| body.poll_next(cx));
        assert_eq!(count, PIECES);
        assert!(matches!(then, Poll::Ready(None)), "{then:?}");
    }

    #[test]
    fn within_its_budget_a_task_would_be_told_that_there_is_nothing_more() {
        let mut pieces = pieces();
        let (count, then) = take(|cx| Pin::new(&mut pieces).poll_frame(cx));
        assert!(count < PIECES && then.is_pending(), "{count} {then:?}");
    }
}
