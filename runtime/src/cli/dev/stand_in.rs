//! Answers on the address while there is no version that could: with what went wrong.

use super::fault::Fault;
use crate::exit_code::ExitCode;
use crate::failure::{Failure, OrFail as _};
use crate::listener::Listener;
use bytes::Bytes;
use http::header::{ACCEPT, CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use http::{HeaderMap, Response, StatusCode};
use http_body_util::Full;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// How long a client may take for the head of its request.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);

/// How long to wait when the system has no descriptor for a connection.
const PAUSE: Duration = Duration::from_millis(100);

/// The loops that take connections. Dropped, they take no more; what was taken is answered.
pub(super) struct StandIn {
    loops: Vec<JoinHandle<()>>,
}

impl StandIn {
    /// Answers everything on `listeners` with `fault`.
    pub(super) fn start(listeners: &[Listener], fault: Fault) -> Result<Self, Failure> {
        let fault = Arc::new(fault);
        let start = |listener: &Listener| {
            let listener = TcpListener::from_std(listener.duplicate()?)?;
            Ok::<_, io::Error>(tokio::spawn(accept(listener, Arc::clone(&fault))))
        };
        let loops = listeners.iter().map(start).collect::<Result<_, _>>();
        Ok(Self {
            loops: loops.or_fail(ExitCode::System, || "cannot accept connections".to_owned())?,
        })
    }
}

impl Drop for StandIn {
    fn drop(&mut self) {
        self.loops.iter().for_each(JoinHandle::abort);
    }
}

async fn accept(listener: TcpListener, fault: Arc<Fault>) {
    loop {
        match listener.accept().await {
            Ok((socket, _)) => drop(tokio::spawn(answer(socket, Arc::clone(&fault)))),
            Err(_) => tokio::time::sleep(PAUSE).await,
        }
    }
}

/// Answers one request and closes the connection, so that the next one finds what is served by then.
async fn answer(socket: TcpStream, fault: Arc<Fault>) {
    let service = service_fn(|request: http::Request<hyper::body::Incoming>| {
        let response = respond(request.headers(), &fault);
        async { Ok::<_, Infallible>(response) }
    });
    // A client that goes away or sends no HTTP has nobody here to tell.
    let _ = http1::Builder::new()
        .keep_alive(false)
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .serve_connection(TokioIo::new(socket), service)
        .await;
}

fn respond(headers: &HeaderMap, fault: &Fault) -> Response<Full<Bytes>> {
    let accept = headers.get(ACCEPT).and_then(|accept| accept.to_str().ok());
    let (kind, body) = match accept {
        Some(accept) if accept.contains("text/html") => ("text/html", fault.html()),
        _ => ("text/plain", fault.text()),
    };
    let mut response = Response::new(Full::from(body));
    *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
    let headers = response.headers_mut();
    if let Ok(kind) = HeaderValue::from_str(&format!("{kind}; charset=utf-8")) {
        headers.insert(CONTENT_TYPE, kind);
    }
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
