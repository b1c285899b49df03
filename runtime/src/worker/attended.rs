//! An answer of HTTP/2 that its guest is still making: ended if its client takes nothing of it.
//!
//! A client of HTTP/1.1 that takes nothing blocks its socket. In HTTP/2 it leaves the window of one stream closed, and hyper
//! then waits for it without asking the guest for more, so that nobody would look at the time.

use super::pace::Pace;
use crate::engine::{ResponseBody, Stopped};
use bytes::Bytes;
use http_body::{Body, Frame};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};

/// The body of such an answer.
pub(super) struct Attended(Arc<Mutex<Answer>>);

struct Answer {
    /// `None` once it was ended.
    body: Option<ResponseBody>,
    pace: Pace,
    /// How long the piece was that the client is taking; `None` while the guest makes one.
    taking: Option<usize>,
    attendant: Option<Waker>,
    over: bool,
}

fn lock(answer: &Mutex<Answer>) -> MutexGuard<'_, Answer> {
    answer.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Attended {
    /// Watches over `body`.
    pub(super) fn new(body: ResponseBody, pace: Pace) -> Self {
        let answer = Arc::new(Mutex::new(Answer {
            body: Some(body),
            pace,
            // Its client may not even let it begin.
            taking: Some(0),
            attendant: None,
            over: false,
        }));
        let attended = answer.clone();
        tokio::spawn(std::future::poll_fn(move |cx| {
            lock(&attended).poll_attend(cx)
        }));
        Self(answer)
    }
}

impl Answer {
    /// `Ready` when there is nothing more to look after.
    fn poll_attend(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.over {
            return Poll::Ready(());
        }
        self.attendant = Some(cx.waker().clone());
        if self.taking.is_none() {
            return Poll::Pending;
        }
        ready!(self.pace.poll_stalled(cx));
        // And with it the guest, its place and its instance.
        self.body = None;
        Poll::Ready(())
    }

    fn wake(&mut self) {
        if let Some(attendant) = self.attendant.take() {
            attendant.wake();
        }
    }
}

impl Body for Attended {
    type Data = Bytes;
    type Error = Stopped;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Stopped>>> {
        let mut answer = lock(&self.0);
        if let Some(len) = answer.taking.take() {
            answer.pace.moved(len);
        }
        let Some(body) = &mut answer.body else {
            return Poll::Ready(Some(Err(Stopped::Abandoned)));
        };
        let polled = Pin::new(body).poll_frame(cx);
        if let Poll::Ready(Some(Ok(frame))) = &polled {
            answer.taking = Some(frame.data_ref().map_or(0, Bytes::len));
            answer.wake();
        }
        polled
    }
}

impl Drop for Attended {
    fn drop(&mut self) {
        let mut answer = lock(&self.0);
        answer.over = true;
        answer.body = None;
        answer.wake();
    }
}
