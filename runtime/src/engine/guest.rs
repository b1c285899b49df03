//! One running guest: a future that owns the store, polled by whoever waits for the answer.
//!
//! Nothing is spawned: dropping the guest drops the instance, and with it all that it held.

use super::store::{CpuMeter, GuestState};
use crate::host::batch::Batch;
use bytes::Bytes;
use http::{Response, StatusCode};
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::time::{Instant, Sleep, sleep_until};
use wasmtime::{Store, Trap};
use wasmtime_wasi::I32Exit;
use wasmtime_wasi_http::{Error as HttpError, WasiBody};

/// Why a guest gave no answer, or broke off in the middle of one.
#[derive(Debug)]
pub enum Stopped {
    /// It trapped.
    Trapped(wasmtime::Error),
    /// It called `exit`.
    Exited(i32),
    /// It returned without an answer.
    Silent,
    /// It returned before the end of its answer's body.
    Truncated,
    /// It answered with an error code.
    Refused(HttpError),
    /// Its answer is not valid HTTP, or no answer to what it was asked.
    Invalid(String),
    /// It used up its CPU time.
    OutOfCpu,
    /// It used up its time.
    OutOfTime,
    /// Its answer's body passed the limit.
    TooLarge,
    /// Its client did not take its answer.
    Abandoned,
    /// It could not be instantiated.
    NotStarted(wasmtime::Error),
    /// The host panicked in one of its calls.
    Panicked,
    /// The component does not export what would be called.
    NoHandler,
}

impl fmt::Display for Stopped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            // The cause alone: the backtrace is for `WRUN_LOG=debug`.
            Self::Trapped(error) => {
                write!(f, "guest trapped: {}", error.root_cause())?;
                // A stack lies at the lower end of its memory, so this is how one that is full shows.
                match error.downcast_ref() {
                    Some(Trap::MemoryOutOfBounds) => f.write_str(
                        "; if its stack was full: a Rust package sets `stack` in [package.metadata.wrun]",
                    ),
                    _ => Ok(()),
                }
            }
            Self::Exited(code) => write!(f, "guest exited with code {code}"),
            Self::Silent => f.write_str(
                "guest never set a response: its handler has to call response-outparam.set on every path",
            ),
            Self::Truncated => f.write_str("guest returned before the end of its response"),
            Self::Refused(error) => write!(f, "guest answered with an error: {error}"),
            Self::Invalid(what) => write!(f, "guest gave an invalid response: {what}"),
            Self::OutOfCpu => f.write_str("guest used up its CPU time"),
            Self::OutOfTime => f.write_str("guest used up its time"),
            Self::TooLarge => f.write_str("guest passed the limit on response bodies"),
            Self::Abandoned => f.write_str("the client does not take the response"),
            Self::NotStarted(error) => write!(f, "guest could not be started: {error:#}"),
            Self::Panicked => f.write_str("the host panicked in a call of the guest"),
            Self::NoHandler => f.write_str("the component has no handler for this"),
        }
    }
}

impl std::error::Error for Stopped {}

impl Stopped {
    /// Returns the status of the answer that the client gets instead.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::OutOfCpu | Self::OutOfTime | Self::Abandoned => StatusCode::GATEWAY_TIMEOUT,
            Self::Invalid(_) | Self::Truncated | Self::TooLarge => StatusCode::BAD_GATEWAY,
            Self::Refused(error) => status_of(error),
            Self::NoHandler => StatusCode::NOT_FOUND,
            Self::NotStarted(_)
            | Self::Trapped(_)
            | Self::Exited(_)
            | Self::Silent
            | Self::Panicked => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

/// Returns the status for an error code that a guest answered with: what an upstream did to it is a gateway's error.
fn status_of(error: &HttpError) -> StatusCode {
    match error {
        HttpError::HttpRequestBodySize(_) => StatusCode::PAYLOAD_TOO_LARGE,
        HttpError::DnsTimeout
        | HttpError::ConnectionTimeout
        | HttpError::ConnectionReadTimeout
        | HttpError::ConnectionWriteTimeout
        | HttpError::HttpResponseTimeout => StatusCode::GATEWAY_TIMEOUT,
        HttpError::InternalError(_) | HttpError::ConfigurationError => {
            StatusCode::INTERNAL_SERVER_ERROR
        }
        _ => StatusCode::BAD_GATEWAY,
    }
}

/// What a finished guest leaves: its store, alive until the body has been looked at, and how it ended.
pub(super) type Finished = (Store<GuestState>, wasmtime::Result<()>);

/// What a guest answers: the head, with a body that may still have to be made, or an error code.
type Answer = Result<Response<WasiBody>, HttpError>;

/// Where a guest puts its answer.
#[derive(Clone, Default)]
pub(super) struct Slot(Arc<Mutex<Option<Answer>>>);

impl Slot {
    pub(super) fn set(&self, answer: Answer) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(answer);
    }

    fn take(&self) -> Option<Answer> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// When a guest is stopped.
pub(super) enum Deadline {
    /// At this time.
    At(Instant),
    /// When the time of its deliveries is over, which it can extend.
    OfBatch(Arc<Batch>),
}

impl Deadline {
    /// Returns the deadline of a guest that starts now and has this much time.
    pub(super) fn after(time: Duration) -> Self {
        Self::At(Instant::now() + time)
    }

    fn at(&self) -> Instant {
        match self {
            Self::At(at) => *at,
            Self::OfBatch(batch) => batch.deadline(),
        }
    }
}

/// A guest that may still run.
pub(super) struct Guest {
    run: Pin<Box<dyn Future<Output = Finished> + Send>>,
    slot: Slot,
    cpu: Arc<CpuMeter>,
    deadline: Deadline,
    // Made at the first wait: most guests answer without one.
    timer: Option<Pin<Box<Sleep>>>,
}

impl Guest {
    pub(super) fn new(
        run: Pin<Box<dyn Future<Output = Finished> + Send>>,
        slot: Slot,
        cpu: Arc<CpuMeter>,
        deadline: Deadline,
    ) -> Self {
        Self {
            run,
            slot,
            cpu,
            deadline,
            timer: None,
        }
    }

    /// Runs the guest until it has to wait; `Ready` when it is over.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Store<GuestState>, Stopped>> {
        self.cpu.enter();
        // A fault of the host is one request's fault: its neighbours on the connection have theirs answered.
        let polled = catch_unwind(AssertUnwindSafe(|| self.run.as_mut().poll(cx)));
        self.cpu.leave();
        let Ok(polled) = polled else {
            return Poll::Ready(Err(Stopped::Panicked));
        };
        if let Poll::Ready((store, result)) = polled {
            return Poll::Ready(match result {
                Ok(()) => Ok(store),
                Err(error) => Err(stopped(error, &self.cpu)),
            });
        }
        let deadline = self.deadline.at();
        let timer = self
            .timer
            .get_or_insert_with(|| Box::pin(sleep_until(deadline)));
        if timer.deadline() != deadline {
            timer.as_mut().reset(deadline);
        }
        timer.as_mut().poll(cx).map(|()| Err(Stopped::OutOfTime))
    }

    /// Runs the guest until it has set its answer's head. Returns what is left of the guest with it: `None` when the
    /// guest is over, then with its store.
    pub(super) async fn head(mut self) -> Result<(Response<WasiBody>, Rest), Stopped> {
        let (answer, ended) = std::future::poll_fn(|cx| match self.poll(cx) {
            Poll::Ready(ended) => Poll::Ready((self.slot.take(), Some(ended))),
            Poll::Pending => match self.slot.take() {
                Some(answer) => Poll::Ready((Some(answer), None)),
                None => Poll::Pending,
            },
        })
        .await;
        let head = match answer {
            Some(Ok(head)) => head,
            Some(Err(error)) => return Err(Stopped::Refused(error)),
            None => return Err(ended.and_then(Result::err).unwrap_or(Stopped::Silent)),
        };
        let rest = match ended {
            None => Rest::Running(self),
            Some(ended) => ended.into(),
        };
        Ok((head, rest))
    }

    /// Runs the guest to its end.
    pub(super) async fn end(mut self) -> Result<Store<GuestState>, Stopped> {
        std::future::poll_fn(|cx| self.poll(cx)).await
    }

    /// Runs the guest to its end: work after the answer is its own business, within its limits.
    pub(super) async fn finish(self) {
        if let Err(stopped) = self.end().await {
            tracing::debug!(%stopped, "guest stopped after its response");
        }
    }
}

/// A guest whose answer has begun.
pub(super) enum Rest {
    /// It goes on.
    Running(Guest),
    /// It returned. The store keeps the sending side of the body alive: a body that never ended is told by that.
    Done { _store: Store<GuestState> },
    /// It was stopped; the reason until it has been reported.
    Stopped(Option<Stopped>),
}

impl From<Result<Store<GuestState>, Stopped>> for Rest {
    fn from(ended: Result<Store<GuestState>, Stopped>) -> Self {
        match ended {
            Ok(store) => Self::Done { _store: store },
            Err(stopped) => Self::Stopped(Some(stopped)),
        }
    }
}

/// Tells the ways in which wasmtime ends a guest apart.
fn stopped(error: wasmtime::Error, cpu: &CpuMeter) -> Stopped {
    if let Some(exit) = error.downcast_ref::<I32Exit>() {
        return Stopped::Exited(exit.0);
    }
    match error.downcast_ref::<Trap>() {
        Some(Trap::Interrupt) if cpu.is_exhausted() => Stopped::OutOfCpu,
        _ => {
            tracing::debug!(trap = format!("{error:?}"), "guest trapped");
            Stopped::Trapped(error)
        }
    }
}

/// A piece of a body.
pub(super) type Frame = http_body::Frame<Bytes>;

#[cfg(test)]
mod tests {
    use super::*;

    async fn panicking() -> Finished {
        panic!("as told")
    }

    #[test]
    fn panic_of_the_host_ends_the_guest_alone() {
        let guest = Guest::new(
            Box::pin(panicking()),
            Slot::default(),
            Arc::new(CpuMeter::new(Duration::from_secs(1))),
            Deadline::after(Duration::from_secs(1)),
        );
        let head = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap()
            .block_on(guest.head());
        let Err(stopped) = head else {
            panic!("it gave an answer");
        };
        assert_eq!(stopped.status(), StatusCode::INTERNAL_SERVER_ERROR);
        assert!(matches!(stopped, Stopped::Panicked), "{stopped}");
    }
}
