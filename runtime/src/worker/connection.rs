//! One connection: its protocol, its requests one after the other or side by side, and its end.
//!
//! A guest runs inside the future that hyper polls for its request, so a client that goes away takes its guest with it.

use super::Worker;
use super::answer::{Access, AnswerBody, Source, Turn, plain};
use super::attended::Attended;
use super::framing::BodyFraming;
use super::gate::{self, REQUEST_ID};
use super::pace::Pace;
use super::request_body::{Fault, RequestBody, Watch};
use super::wire::{ActiveRequest, Activity, Protocol, Timeouts, Wire};
use crate::config::Limits;
use crate::engine::{ResponseBody, Stopped};
use http::header::{CONNECTION, HeaderValue};
use http::request::Parts;
use http::uri::Authority;
use http::{HeaderMap, Request, Response, StatusCode, Version};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::net::TcpStream;

/// HTTP/2: requests of one connection at a time.
const STREAMS_MAX: u32 = 100;
/// HTTP/2: streams that a client may reset before they are taken, and errors of its own making, before the connection is
/// ended (the limits against "rapid reset", CVE-2023-44487).
const PENDING_RESETS_MAX: usize = 20;
const LOCAL_RESETS_MAX: usize = 1024;
/// HTTP/2: windows and buffers in bytes.
const STREAM_WINDOW: u32 = 256 << 10;
const CONNECTION_WINDOW: u32 = 1 << 20;
const SEND_BUFFER_MAX: usize = 64 << 10;
/// HTTP/2: how often a silent client is asked whether it is there, and how long it may take to say so.
const PING_INTERVAL: Duration = Duration::from_secs(20);

/// What all requests of a connection share.
struct Shared {
    worker: Arc<Worker>,
    activity: Arc<Activity>,
    local: Authority,
    opened: Instant,
}

/// Serves a connection to its end.
pub(super) async fn serve(socket: TcpStream, worker: Arc<Worker>) {
    let Ok(local) = socket.local_addr() else {
        return;
    };
    let Ok(local) = local.to_string().parse() else {
        return;
    };
    let _ = socket.set_nodelay(true);
    let activity = Arc::new(Activity::new(worker.admission.waits()));
    let limits = &worker.limits;
    let timeouts = Timeouts {
        header: limits.header_timeout,
        idle: limits.idle_timeout,
        stall: limits.stall_timeout,
    };
    let mut closing = worker.drain.closing();
    let wire = tokio::select! {
        wire = Wire::open(socket, activity.clone(), timeouts) => wire,
        // Nothing has come on it, so nothing is lost.
        () = closing.wait() => None,
    };
    let Some(wire) = wire else {
        return;
    };
    let shared = Arc::new(Shared {
        worker,
        activity,
        local,
        opened: Instant::now(),
    });
    match wire.protocol() {
        Protocol::Http1 => serve_http1(wire, shared).await,
        Protocol::Http2 => serve_http2(wire, shared).await,
    }
}

async fn serve_http1(wire: Wire, shared: Arc<Shared>) {
    let limits = &shared.worker.limits;
    let service = service_fn(|request| answer(shared.clone(), shared.begin(&request), request));
    let mut connection = http1(limits).serve_connection(TokioIo::new(wire), service);
    let mut closing = shared.worker.drain.closing();
    let served = tokio::select! {
        served = &mut connection => served,
        () = closing.wait() => {
            std::pin::Pin::new(&mut connection).graceful_shutdown();
            (&mut connection).await
        }
    };
    if let Err(error) = served {
        tracing::debug!(error = error_chain(&error), "connection broken off");
    }
}

/// Returns HTTP/1.1 as it is spoken on every connection.
pub(super) fn http1(limits: &Limits) -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder
        .max_headers(limits.headers as usize)
        .max_buf_size(usize::try_from(limits.header_bytes).unwrap_or(usize::MAX));
    builder
}

async fn serve_http2(wire: Wire, shared: Arc<Shared>) {
    let limits = &shared.worker.limits;
    let service = service_fn(|request| answer(shared.clone(), shared.begin(&request), request));
    let mut connection = pin!(
        http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .max_concurrent_streams(STREAMS_MAX)
            .max_header_list_size(u32::try_from(limits.header_bytes).unwrap_or(u32::MAX))
            .max_pending_accept_reset_streams(PENDING_RESETS_MAX)
            .max_local_error_reset_streams(LOCAL_RESETS_MAX)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_send_buf_size(SEND_BUFFER_MAX)
            .keep_alive_interval(PING_INTERVAL)
            .keep_alive_timeout(PING_INTERVAL)
            .serve_connection(TokioIo::new(wire), service)
    );
    let mut retiring = shared.worker.drain.retiring();
    let served = tokio::select! {
        served = &mut connection => served,
        () = shared.worn_out(&mut retiring) => {
            // Unlike in HTTP/1.1 this loses nothing: the client is told which requests will still be answered.
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = served {
        tracing::debug!(error = error_chain(&error), "connection broken off");
    }
}

/// A request that has begun, and how its body is delimited.
struct Begun {
    active: ActiveRequest,
    framing: Result<BodyFraming, gate::Refusal>,
}

/// Answers one request. Never fails: whatever goes wrong is an answer, too.
async fn answer(
    shared: Arc<Shared>,
    begun: Begun,
    request: Request<Incoming>,
) -> Result<Response<AnswerBody>, Infallible> {
    let worker = &shared.worker;
    let (mut head, body) = request.into_parts();
    let id: Arc<str> = match gate::request_id(&head.headers) {
        Some(id) => id.into(),
        None => worker.ids.next().into(),
    };
    let mut access = worker.access_log.then(|| {
        let (method, path) = (head.method.clone(), head.uri.path().to_owned());
        let status = StatusCode::OK;
        Box::new(Access {
            id: id.clone(),
            method,
            path,
            started: Instant::now(),
            status,
            bytes: 0,
        })
    });
    let version = head.version;
    let (response, close) = match shared.admit(&mut head, begun.framing) {
        Err(refusal) => {
            tracing::debug!(request_id = &*id, why = refusal.why, "request refused");
            (plain(refusal.status), true)
        }
        Ok(framing) => match worker.error_page.as_ref().and_then(|it| it.answer(&head)) {
            Some(page) => (page, false),
            None => shared.call_guest(head, body, framing, &id).await,
        },
    };
    let (mut head, inner) = response.into_parts();
    let close =
        version < Version::HTTP_2 && (close || shared.is_worn_out() || worker.parts_with_one());
    complete(&mut head.headers, &id, close);
    if let Some(access) = &mut access {
        access.status = head.status;
    }
    worker.count_request();
    let inner = match inner {
        ResponseBody::Guest(_) if version == Version::HTTP_2 => {
            let pace = Pace::new(worker.limits.stall_timeout, shared.activity.clone());
            Source::Attended(Attended::new(inner, pace))
        }
        inner => Source::Direct(inner),
    };
    Ok(Response::from_parts(
        head,
        AnswerBody {
            inner,
            id,
            access,
            turn: Turn::default(),
            _active: begun.active,
        },
    ))
}

/// Adds to an answer's fields those that are wrun's.
pub(super) fn complete(fields: &mut HeaderMap, id: &str, close: bool) {
    if let Ok(value) = HeaderValue::from_str(id) {
        fields.insert(&REQUEST_ID, value);
    }
    if close {
        fields.insert(CONNECTION, HeaderValue::from_static("close"));
    }
}

impl Shared {
    /// Begins a request. Called before anything is awaited: hyper reads on while the answer is being made, and the wire must
    /// know by then where the body ends.
    fn begin(&self, request: &Request<Incoming>) -> Begun {
        let framing = gate::framing(request.version(), request.headers());
        if let (Ok(framing), true) = (framing, request.version() < Version::HTTP_2) {
            self.activity.frame(framing);
        }
        Begun {
            active: self.activity.begin(),
            framing,
        }
    }

    /// Lets the head of a request in.
    fn admit(
        &self,
        head: &mut Parts,
        framing: Result<BodyFraming, gate::Refusal>,
    ) -> Result<BodyFraming, gate::Refusal> {
        let framing = framing?;
        gate::admit(head, &self.local, self.worker.limits.headers as usize)?;
        match framing {
            BodyFraming::Length(length) if length > self.worker.limits.request_body => {
                Err(gate::Refusal {
                    status: StatusCode::PAYLOAD_TOO_LARGE,
                    why: "the body is too large",
                })
            }
            framing => Ok(framing),
        }
    }

    /// Has a guest answer; returns whether the connection must be closed after it.
    async fn call_guest(
        &self,
        mut head: Parts,
        body: Incoming,
        framing: BodyFraming,
        id: &Arc<str>,
    ) -> (Response<ResponseBody>, bool) {
        let worker = &self.worker;
        let Some(permit) = worker.admission.enter().await else {
            return (plain(StatusCode::SERVICE_UNAVAILABLE), false);
        };
        let place = self.activity.place(permit);
        if let Ok(value) = HeaderValue::from_str(id) {
            head.headers.insert(&REQUEST_ID, value);
        }
        let empty = framing == BodyFraming::Length(0) && hyper::body::Body::is_end_stream(&body);
        let answered = if empty {
            let body = http_body_util::Empty::new()
                .map_err(|never: Infallible| match never {})
                .boxed_unsync();
            worker
                .handler
                .handle(Request::from_parts(head, body), id, place)
                .await
        } else {
            let watch = Arc::new(Watch::default());
            let limits = &worker.limits;
            let pace = Pace::new(limits.stall_timeout, self.activity.clone());
            let body = RequestBody::new(body, watch.clone(), limits.request_body, pace);
            let request = Request::from_parts(head, body.boxed_unsync());
            let answered = tokio::select! {
                biased;
                () = watch.fault() => None,
                answered = worker.handler.handle(request, id, place) => Some(answered),
            };
            // Whatever the guest made of it, the client is told what was wrong with its body.
            match (watch.get(), answered) {
                (None, Some(answered)) => answered,
                (fault, _) => {
                    let status = fault.map_or(StatusCode::BAD_REQUEST, Fault::status);
                    return (plain(status), true);
                }
            }
        };
        match answered {
            Ok(response) => (response, false),
            Err(stopped) => {
                report(&stopped, id);
                (plain(stopped.status()), false)
            }
        }
    }

    /// Tells whether the connection has had its share: of requests, of time, or of this worker.
    fn is_worn_out(&self) -> bool {
        let limits = &self.worker.limits;
        self.worker.drain.is_retiring()
            || self.activity.begun() >= u64::from(limits.connection_requests)
            || self.opened.elapsed() >= limits.connection_age
    }

    /// Waits until an HTTP/2 connection has had its share. Requests are counted when one begins, so its limit is looked at
    /// now and then rather than at each.
    async fn worn_out(&self, retiring: &mut super::drain::Stage) {
        let mut look = tokio::time::interval(Duration::from_secs(1));
        loop {
            tokio::select! {
                () = retiring.wait() => return,
                _ = look.tick() => if self.is_worn_out() { return },
            }
        }
    }
}

/// Logs why a guest gave no answer.
fn report(stopped: &Stopped, id: &Arc<str>) {
    tracing::warn!(request_id = &**id, %stopped, "request failed");
}

fn error_chain(error: &hyper::Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}
