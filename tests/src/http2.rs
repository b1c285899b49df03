//! A client of cleartext HTTP/2 with prior knowledge, driven step by step.

use crate::response::Response;
use bytes::Bytes;
use h2::client::{ResponseFuture, SendRequest};
use http::{HeaderMap, Request};
use std::net::SocketAddr;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::runtime::{Builder, Runtime};

/// How long one step may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// One connection.
#[derive(Debug)]
pub struct Http2 {
    runtime: Runtime,
    requests: SendRequest<Bytes>,
}

/// A request whose answer was not awaited yet.
#[derive(Debug)]
pub struct Pending(ResponseFuture);

impl Http2 {
    /// Connects and shakes hands.
    ///
    /// # Panics
    ///
    /// If the server does not speak HTTP/2.
    #[track_caller]
    pub fn connect(addr: SocketAddr) -> Self {
        let runtime = Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        let requests = runtime.block_on(async {
            let stream = TcpStream::connect(addr).await.expect("the server accepts");
            let (requests, connection) = h2::client::handshake(stream)
                .await
                .expect("the server speaks HTTP/2");
            // Its end shows in the requests.
            tokio::spawn(connection);
            requests
        });
        Self { runtime, requests }
    }

    /// Sends a GET and returns the answer.
    ///
    /// # Panics
    ///
    /// If the stream is reset.
    #[track_caller]
    pub fn get(&mut self, target: &str) -> Response {
        self.exchange("GET", target, &[], &[])
            .expect("a whole answer")
    }

    /// Sends a request and returns the answer.
    pub fn exchange(
        &mut self,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Result<Response, h2::Error> {
        let pending = self.start(method, target, headers, body)?;
        self.finish(pending)
    }

    /// Sends a request and does not wait for its answer.
    ///
    /// # Panics
    ///
    /// If the request is not one that HTTP/2 can express.
    pub fn start(
        &mut self,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Result<Pending, h2::Error> {
        let mut request = Request::builder()
            .method(method)
            .uri(format!("http://test.example{target}"));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(()).expect("a valid request");
        let body = Bytes::copy_from_slice(body);
        self.runtime.block_on(within(async {
            let mut requests = self.requests.clone().ready().await?;
            let (response, mut stream) = requests.send_request(request, body.is_empty())?;
            if !body.is_empty() {
                // The server may reset the stream while it answers; then the answer counts.
                let _ = stream.send_data(body, true);
            }
            // Lets the connection write the frames now.
            tokio::task::yield_now().await;
            Ok(Pending(response))
        }))
    }

    /// Waits for the answer.
    pub fn finish(&mut self, pending: Pending) -> Result<Response, h2::Error> {
        self.runtime.block_on(within(async {
            let response = pending.0.await?;
            let (head, mut stream) = response.into_parts();
            let mut body = Vec::new();
            while let Some(piece) = stream.data().await {
                let piece = piece?;
                stream.flow_control().release_capacity(piece.len())?;
                body.extend_from_slice(&piece);
            }
            let trailers = stream.trailers().await?;
            Ok(Response {
                status: head.status.as_u16(),
                headers: fields(&head.headers),
                body,
                trailers: trailers.as_ref().map(fields).unwrap_or_default(),
            })
        }))
    }

    /// Gives a request up, as a client does whose user went away.
    pub fn cancel(&mut self, pending: Pending) {
        self.runtime.block_on(async {
            drop(pending);
            // Lets the connection write the RST_STREAM.
            tokio::task::yield_now().await;
        });
    }
}

async fn within<T>(step: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, step)
        .await
        .expect("the server answers in time")
}

fn fields(map: &HeaderMap) -> Vec<(String, String)> {
    let text = |value: &http::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    map.iter()
        .map(|(name, value)| (name.as_str().to_owned(), text(value)))
        .collect()
}
