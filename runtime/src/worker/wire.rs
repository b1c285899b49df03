//! The socket of one connection, with what hyper leaves to its user: strict framing, and timeouts that cost nothing while
//! bytes flow.
//!
//! One timer per connection, set again only when it fires; one more while a client takes no bytes.

use super::framing::{BodyFraming, Framing, Violation};
use super::pace::Pace;
use super::waits::{Wait, Waits};
use bytes::{Buf as _, BytesMut};
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, sleep_until};

/// How a connection begins that speaks HTTP/2 without TLS (RFC 9113 §3.4).
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Which protocol a connection speaks.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Protocol {
    Http1,
    Http2,
}

/// How long a connection may take for what.
#[derive(Clone, Copy, Debug)]
pub(super) struct Timeouts {
    pub(super) header: Duration,
    pub(super) idle: Duration,
    pub(super) stall: Duration,
}

/// What the requests of a connection tell its wire, and the other way round.
#[derive(Debug, Default)]
pub(super) struct Activity {
    requests: AtomicU32,
    /// Requests that have begun, ever; tells an idle connection from one that waits for its first request.
    begun: AtomicU64,
    framing: Mutex<Option<BodyFraming>>,
    /// When the last one ended, `None` before that.
    ended: Mutex<Option<Instant>>,
    /// Guests that its requests keep, each with its place.
    places: Arc<AtomicU32>,
    waits: Arc<Waits>,
}

impl Activity {
    /// Returns what goes on on a connection that has just begun. `waits` are told of its client.
    pub(super) fn new(waits: Arc<Waits>) -> Self {
        Self {
            waits,
            ..Self::default()
        }
    }

    /// A request has a place, held until the guard is dropped.
    pub(super) fn place<T>(&self, permit: T) -> Place<T> {
        self.places.fetch_add(1, Ordering::Relaxed);
        Place {
            places: self.places.clone(),
            _permit: permit,
        }
    }

    /// A request has begun. It lasts until the guard is dropped.
    pub(super) fn begin(self: &Arc<Self>) -> ActiveRequest {
        self.begun.fetch_add(1, Ordering::Relaxed);
        self.requests.fetch_add(1, Ordering::Relaxed);
        ActiveRequest(self.clone())
    }

    /// Its client has been waited for since then.
    pub(super) fn wait(&self, since: Instant) -> Wait {
        self.waits.begin(&self.places, since)
    }

    /// Tells how the body of the request that has begun is delimited.
    pub(super) fn frame(&self, framing: BodyFraming) {
        *lock(&self.framing) = Some(framing);
    }

    /// Returns how many requests have begun.
    pub(super) fn begun(&self) -> u64 {
        self.begun.load(Ordering::Relaxed)
    }

    fn is_busy(&self) -> bool {
        self.requests.load(Ordering::Relaxed) > 0
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A request that is being handled.
#[derive(Debug)]
pub(super) struct ActiveRequest(Arc<Activity>);

impl Drop for ActiveRequest {
    fn drop(&mut self) {
        *lock(&self.0.ended) = Some(Instant::now());
        self.0.requests.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A place that a request of the connection has.
#[derive(Debug)]
pub(super) struct Place<T> {
    places: Arc<AtomicU32>,
    _permit: T,
}

impl<T> Drop for Place<T> {
    fn drop(&mut self) {
        self.places.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The socket.
pub(super) struct Wire {
    socket: TcpStream,
    activity: Arc<Activity>,
    timeouts: Timeouts,
    protocol: Protocol,
    framing: Framing,
    /// Bytes that were read and are not passed on yet.
    held: BytesMut,
    /// What is wrong with them: nothing more is read then.
    violation: Option<Violation>,
    opened: Instant,
    /// When part of a head was first waited on.
    head_since: Option<Instant>,
    timer: Pin<Box<Sleep>>,
    /// Set while the client does not take what it is sent.
    blocked: Option<Pace>,
}

impl Wire {
    /// Reads enough to tell the protocol. `None` when the client went away or took too long.
    pub(super) async fn open(
        socket: TcpStream,
        activity: Arc<Activity>,
        timeouts: Timeouts,
    ) -> Option<Self> {
        let opened = Instant::now();
        let deadline = opened + timeouts.header;
        let mut wire = Self {
            socket,
            activity,
            timeouts,
            protocol: Protocol::Http1,
            framing: Framing::default(),
            held: BytesMut::new(),
            violation: None,
            opened,
            head_since: None,
            timer: Box::pin(sleep_until(deadline)),
            blocked: None,
        };
        match tokio::time::timeout_at(deadline, wire.sniff()).await {
            Ok(Ok(true)) => Some(wire),
            Ok(_) => None,
            Err(_) => {
                if !wire.held.is_empty() {
                    wire.refuse("408 Request Timeout");
                }
                None
            }
        }
    }

    /// Reads until the protocol is clear; returns whether the client still sends.
    async fn sniff(&mut self) -> io::Result<bool> {
        use tokio::io::AsyncReadExt as _;
        while self.held.len() < PREFACE.len() && PREFACE.starts_with(&self.held) {
            self.held.reserve(4096);
            if self.socket.read_buf(&mut self.held).await? == 0 {
                return Ok(false);
            }
        }
        if self.held.starts_with(PREFACE) {
            self.protocol = Protocol::Http2;
        }
        Ok(true)
    }

    pub(super) fn protocol(&self) -> Protocol {
        self.protocol
    }

    /// Answers what hyper is not to see, past hyper. Nothing is sent behind an answer that the client has not taken whole.
    fn refuse(&self, status: &str) {
        if self.blocked.is_none() && !self.activity.is_busy() {
            let answer =
                format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
            // The connection ends either way.
            let _ = self.socket.try_write(answer.as_bytes());
        }
    }

    /// Returns how many of `bytes` may be passed on now, or notes what is wrong with them.
    fn scan(&mut self, bytes: &[u8]) -> usize {
        if self.protocol == Protocol::Http2 {
            return bytes.len();
        }
        if let Some(framing) = lock(&self.activity.framing).take() {
            self.framing.body(framing);
        }
        match self.framing.scan(bytes) {
            Ok(len) => len,
            Err(violation) => {
                self.violation = Some(violation);
                0
            }
        }
    }

    /// Ends a connection whose bytes are not understood. If they come after a request that is being answered, it is
    /// answered first: hyper reads on after that.
    fn poll_violation(&self, violation: Violation) -> Poll<io::Result<()>> {
        let is_next = self.framing.is_before_head_end();
        if self.activity.is_busy() && is_next {
            return Poll::Pending;
        }
        tracing::debug!(%violation, "request refused");
        // One inside a body is answered by whoever reads the body.
        self.refuse("400 Bad Request");
        Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, violation)))
    }

    /// Reads from the socket, or from what is held, and holds back what belongs to the next message.
    fn poll_bytes(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        if self.violation.is_some() {
            // There is nothing more to read.
        } else if self.held.is_empty() {
            ready!(Pin::new(&mut self.socket).poll_read(cx, buf))?;
            let len = self.scan(&buf.filled()[before..]);
            self.held.extend_from_slice(&buf.filled()[before + len..]);
            buf.set_filled(before + len);
        } else {
            let mut held = std::mem::take(&mut self.held);
            let len = self.scan(&held[..held.len().min(buf.remaining())]);
            buf.put_slice(&held[..len]);
            held.advance(len);
            self.held = held;
        }
        match self.violation {
            Some(violation) => self.poll_violation(violation),
            None => Poll::Ready(Ok(())),
        }
    }

    /// Tells whether a connection without a request has waited too long.
    fn poll_overdue(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let now = Instant::now();
        let ended = *lock(&self.activity.ended);
        let deadline = if self.activity.is_busy() {
            // To be looked at again later: hyper may not read again when the request ends.
            now + self.timeouts.idle
        } else if self.framing.in_head() {
            let first = if ended.is_none() { self.opened } else { now };
            *self.head_since.get_or_insert(first) + self.timeouts.header
        } else {
            self.head_since = None;
            ended.map_or(self.opened + self.timeouts.header, |at| {
                at + self.timeouts.idle
            })
        };
        while self.timer.as_mut().poll(cx).is_ready() || self.timer.deadline() > deadline {
            if deadline <= now {
                return Poll::Ready(());
            }
            self.timer.as_mut().reset(deadline);
        }
        Poll::Pending
    }

    fn wrote(
        &mut self,
        polled: Poll<io::Result<usize>>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        match (polled, &mut self.blocked) {
            (Poll::Pending, _) => {
                let (stall, activity) = (self.timeouts.stall, &self.activity);
                let pace = self
                    .blocked
                    .get_or_insert_with(|| Pace::new(stall, activity.clone()));
                pace.poll_stalled(cx)
                    .map(|()| Err(io::ErrorKind::TimedOut.into()))
            }
            (Poll::Ready(Ok(len)), Some(pace)) => {
                pace.moved(len);
                Poll::Ready(Ok(len))
            }
            (polled, _) => polled,
        }
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if let Poll::Ready(read) = this.poll_bytes(cx, buf) {
            return Poll::Ready(read);
        }
        ready!(this.poll_overdue(cx));
        if this.framing.in_head() {
            this.refuse("408 Request Timeout");
        }
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl AsyncWrite for Wire {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.socket).poll_write(cx, bytes);
        this.wrote(polled, cx)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.socket).poll_write_vectored(cx, bytes);
        this.wrote(polled, cx)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let flushed = Pin::new(&mut this.socket).poll_flush(cx);
        if flushed.is_ready() {
            this.blocked = None;
        }
        flushed
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().socket).poll_shutdown(cx)
    }
}
