//! Outbound HTTP: who a guest may call.
//!
//! Denied unless granted. A granted name is resolved once, addresses that are not public are dropped, and the address
//! that was checked is the one that is dialled, so no resolver can answer differently the second time. Redirects are the
//! guest's business: each hop is a request of its own.

#[cfg(feature = "fuzz")]
pub(crate) mod fuzz;
mod measure;
mod stream;

use crate::config::{Grant, Limits, bare};
use http::{HeaderName, Request, Response, Uri};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::capture_connection;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use measure::{AnswerBody, RequestBody, Times};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::pin::{Pin, pin};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;
use stream::Stream;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::time::{timeout, timeout_at};
use tokio_rustls::TlsConnector;
use wasmtime_wasi_http::{
    DEFAULT_FORBIDDEN_HEADERS, Error, ForbiddenHeaderFilter, RequestOptions, WasiBody,
    WasiHttpHooks,
};

/// Idle connections that are kept for the next request to the same place.
pub(crate) const IDLE_PER_HOST: usize = 8;

/// What a worker's guests may call, and the connections that they share.
pub(crate) struct Outbound {
    grants: Vec<Grant>,
    limits: Limits,
    /// One for each request that may be under way.
    places: Arc<Semaphore>,
    forbidden: ForbiddenHeaderFilter,
    client: OnceLock<Client<Connector, RequestBody>>,
}

impl Outbound {
    pub(crate) fn new(grants: Vec<Grant>, limits: Limits) -> Self {
        let forbidden: ForbiddenHeaderFilter = Arc::new(is_forbidden);
        Self {
            grants,
            places: Arc::new(Semaphore::new(limits.outbound_parallel as usize)),
            limits,
            forbidden,
            client: OnceLock::new(),
        }
    }

    /// Sends a request that `grant` covers.
    async fn send(
        &self,
        request: Request<WasiBody>,
        options: Option<RequestOptions>,
    ) -> Result<Response<WasiBody>, Error> {
        if !self.covers(request.uri()) {
            return Err(Error::HttpRequestDenied);
        }
        let Ok(place) = self.places.clone().try_acquire_owned() else {
            return Err(Error::ConnectionLimitReached);
        };
        let limits = &self.limits;
        measure::check_request(request.headers(), limits)?;
        let times = Times::of(limits, options);
        let request = request.map(|body| RequestBody::new(body, limits));
        let response = timeout_at(times.until, self.answer(request, times))
            .await
            .map_err(|_| Error::HttpResponseTimeout)??;
        measure::check_answer(response.headers(), limits)?;
        Ok(response.map(|body| AnswerBody::new(body, limits, times, place).boxed_unsync()))
    }

    /// Sends a request and waits for the head of its answer.
    async fn answer(
        &self,
        mut request: Request<RequestBody>,
        times: Times,
    ) -> Result<Response<Incoming>, Error> {
        let mut connection = capture_connection(&mut request);
        let mut answer = pin!(self.client().request(request));
        let connected = async { drop(connection.wait_for_connection_metadata().await) };
        tokio::select! {
            biased;
            answer = &mut answer => return answer.map_err(client_error),
            connected = timeout(times.connect, connected) => {
                connected.map_err(|_| Error::ConnectionTimeout)?;
            }
        }
        match timeout(times.first_byte, answer).await {
            Ok(answer) => answer.map_err(client_error),
            Err(_) => Err(Error::HttpResponseTimeout),
        }
    }

    fn client(&self) -> &Client<Connector, RequestBody> {
        self.client.get_or_init(|| {
            let connector = Connector {
                grants: self.grants.clone().into(),
                tls: Arc::new(tls()),
                timeout: self.limits.outbound_connect,
            };
            let header_bytes = usize::try_from(self.limits.outbound_header_bytes);
            Client::builder(TokioExecutor::new())
                .pool_timer(TokioTimer::new())
                .pool_max_idle_per_host(IDLE_PER_HOST)
                .http1_max_headers(self.limits.outbound_headers as usize)
                .http1_max_buf_size(header_bytes.unwrap_or(usize::MAX))
                .build(connector)
        })
    }

    fn covers(&self, uri: &Uri) -> bool {
        place(uri).is_some_and(|(https, host, port)| {
            self.grants
                .iter()
                .any(|grant| grant.covers(https, host, port))
        })
    }
}

/// Returns scheme, host and port of a request's target.
fn place(uri: &Uri) -> Option<(bool, &str, u16)> {
    let https = match uri.scheme_str()? {
        "https" => true,
        "http" => false,
        _ => return None,
    };
    let port = uri.port_u16().unwrap_or(if https { 443 } else { 80 });
    let authority = uri.authority()?;
    // A user name in front of the host is a favourite of those who want two parsers to disagree.
    (!authority.as_str().contains('@')).then_some((https, uri.host()?, port))
}

/// Finds the error that the connector or a body gave inside what the client made of it.
fn client_error(error: hyper_util::client::legacy::Error) -> Error {
    let mut source: Option<&(dyn std::error::Error + 'static)> = Some(&error);
    while let Some(error) = source {
        if let Some(refused) = error.downcast_ref::<Refused>() {
            return refused.to_error();
        }
        if let Some(Error::HttpRequestBodySize(size)) = error.downcast_ref() {
            return Error::HttpRequestBodySize(*size);
        }
        if let Some(error) = error.downcast_ref::<hyper::Error>()
            && error.is_parse_too_large()
        {
            return Error::HttpResponseHeaderSectionSize(None);
        }
        if let Some(error) = error.downcast_ref::<io::Error>() {
            return match error.kind() {
                io::ErrorKind::ConnectionRefused => Error::ConnectionRefused,
                io::ErrorKind::TimedOut => Error::ConnectionTimeout,
                kind => Error::Connect(kind.into()),
            };
        }
        source = error.source();
    }
    Error::ConnectionTerminated
}

/// The hooks of one request.
pub(crate) struct Egress {
    outbound: Arc<Outbound>,
    left: u32,
}

impl Egress {
    pub(crate) fn new(outbound: Arc<Outbound>, max: u32) -> Self {
        Self {
            outbound,
            left: max,
        }
    }
}

type Sent = Result<
    (
        Response<WasiBody>,
        Box<dyn Future<Output = Result<(), Error>> + Send>,
    ),
    Error,
>;

impl WasiHttpHooks for Egress {
    fn is_forbidden_header(&mut self, name: &HeaderName) -> bool {
        is_forbidden(name)
    }

    fn forbidden_header_filter(&mut self) -> ForbiddenHeaderFilter {
        self.outbound.forbidden.clone()
    }

    fn p2_outgoing_body_chunk_size(&mut self) -> usize {
        64 << 10
    }

    fn p3_outgoing_body_chunk_size(&mut self) -> usize {
        64 << 10
    }

    fn send_request(
        &mut self,
        request: Request<WasiBody>,
        options: Option<RequestOptions>,
        _processed: Box<dyn Future<Output = Result<(), Error>> + Send>,
    ) -> Box<dyn Future<Output = Sent> + Send> {
        let Some(left) = self.left.checked_sub(1) else {
            return Box::new(std::future::ready(Err(Error::ConnectionLimitReached)));
        };
        self.left = left;
        let outbound = self.outbound.clone();
        Box::new(async move {
            let response = outbound.send(request, options).await?;
            let done: Box<dyn Future<Output = Result<(), Error>> + Send> =
                Box::new(std::future::ready(Ok(())));
            Ok((response, done))
        })
    }
}

/// Tells whether guests may not set, and do not see, a header: those that concern one connection only.
fn is_forbidden(name: &HeaderName) -> bool {
    DEFAULT_FORBIDDEN_HEADERS.contains(name)
}

/// Why a connection was not made.
#[derive(Debug, thiserror::Error)]
enum Refused {
    #[error("no such host")]
    NoSuchHost,
    #[error("the name leads to an address that is not public")]
    NotPublic,
    #[error("connecting took too long")]
    Timeout,
    #[error("no TLS session: {0}")]
    Tls(io::Error),
    #[error("connection failed: {0}")]
    Io(io::ErrorKind),
}

impl Refused {
    fn to_error(&self) -> Error {
        match self {
            Self::NoSuchHost => Error::DnsError {
                rcode: None,
                info_code: None,
            },
            Self::NotPublic => Error::DestinationIpProhibited,
            Self::Timeout => Error::ConnectionTimeout,
            Self::Tls(_) => Error::TlsProtocolError,
            Self::Io(io::ErrorKind::ConnectionRefused) => Error::ConnectionRefused,
            Self::Io(kind) => Error::Connect((*kind).into()),
        }
    }
}

/// Opens connections to places that are granted.
#[derive(Clone)]
struct Connector {
    grants: Arc<[Grant]>,
    tls: Arc<ClientConfig>,
    timeout: Duration,
}

impl Connector {
    async fn connect(self, uri: Uri) -> Result<Stream, Refused> {
        let (https, host, port) = place(&uri).ok_or(Refused::NoSuchHost)?;
        let private = self
            .grants
            .iter()
            .any(|grant| grant.names_address() && grant.covers(https, host, port));
        let host = bare(host);
        let found = tokio::net::lookup_host((host, port))
            .await
            .map_err(|_| Refused::NoSuchHost)?;
        let (mut last, mut any) = (Refused::NoSuchHost, false);
        for address in found {
            if !private && !is_public(address.ip()) {
                if !any {
                    last = Refused::NotPublic;
                }
                continue;
            }
            any = true;
            match TcpStream::connect(address).await {
                Ok(stream) => return self.greet(stream, https, host).await,
                Err(error) => last = Refused::Io(error.kind()),
            }
        }
        Err(last)
    }

    async fn greet(self, stream: TcpStream, https: bool, host: &str) -> Result<Stream, Refused> {
        stream
            .set_nodelay(true)
            .map_err(|error| Refused::Io(error.kind()))?;
        if !https {
            return Ok(Stream::Plain(stream));
        }
        let name = ServerName::try_from(host.to_owned()).map_err(|_| Refused::NoSuchHost)?;
        let stream = TlsConnector::from(self.tls)
            .connect(name, stream)
            .await
            .map_err(Refused::Tls)?;
        Ok(Stream::Tls(Box::new(stream)))
    }
}

impl tower_service::Service<Uri> for Connector {
    type Response = TokioIo<Stream>;
    type Error = Refused;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Refused>> + Send>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Refused>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let (limit, connect) = (self.timeout, self.clone().connect(uri));
        Box::pin(async move {
            match timeout(limit, connect).await {
                Ok(stream) => stream.map(TokioIo::new),
                Err(_) => Err(Refused::Timeout),
            }
        })
    }
}

/// Returns the settings of TLS clients: Mozilla's roots, which need no file of the host.
fn tls() -> ClientConfig {
    let roots = RootCertStore {
        roots: webpki_roots::TLS_SERVER_ROOTS.to_vec(),
    };
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder =
        ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    #[expect(
        clippy::expect_used,
        reason = "the versions are the provider's own defaults"
    )]
    let builder = builder.expect("default versions of the default provider");
    builder.with_root_certificates(roots).with_no_client_auth()
}

/// Tells whether an address is one that the whole internet shares: neither this machine's, nor its network's, nor reserved
/// (IANA's special-purpose address registries), nor one of them in IPv6 disguise.
fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    !matches!(
        address.octets(),
        [0 | 10 | 127 | 224..=255, ..]
            | [100, 64..=127, ..]
            | [169, 254, ..]
            | [172, 16..=31, ..]
            | [192, 0, 0 | 2, _]
            | [192, 88, 99, _]
            | [192, 168, ..]
            | [198, 18 | 19, ..]
            | [198, 51, 100, _]
            | [203, 0, 113, _]
    )
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    // Only 2000::/3 is handed out; within it: Teredo and other 2001::/23, documentation, 6to4, and 3fff::/20.
    match address.segments() {
        [0x2001, 0..=0x1ff | 0xdb8, ..] | [0x2002, ..] | [0x3fff, 0..=0xfff, ..] => false,
        [first, ..] => (0x2000..=0x3fff).contains(&first),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_that_are_not_public_are_told_in_every_disguise() {
        for address in [
            "0.0.0.0",
            "10.1.2.3",
            "100.64.0.1",
            "127.0.0.1",
            "169.254.169.254",
            "172.16.0.1",
            "192.0.0.8",
            "192.168.1.1",
            "198.18.0.1",
            "224.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::ffff:127.0.0.1",
            "64:ff9b::7f00:1",
            "fc00::1",
            "fe80::1",
            "ff02::1",
            "2001:db8::1",
            "2001::1",
            "2002:7f00:1::",
        ] {
            assert!(!is_public(address.parse().unwrap()), "{address}");
        }
        for address in [
            "1.1.1.1",
            "172.32.0.1",
            "100.128.0.1",
            "2606:4700::1111",
            "2a00::1",
        ] {
            assert!(is_public(address.parse().unwrap()), "{address}");
        }
    }

    #[test]
    fn only_granted_places_are_covered() {
        let grant = "https://api.example.com".parse().unwrap();
        let outbound = Outbound::new(vec![grant], Limits::default());
        let covers = |uri: &str| outbound.covers(&uri.parse().unwrap());
        assert!(covers("https://api.example.com/path"));
        assert!(covers("https://API.EXAMPLE.COM:443/"));
        assert!(!covers("http://api.example.com/"));
        assert!(!covers("https://api.example.com:8443/"));
        assert!(!covers("https://user@api.example.com/"));
        assert!(!covers("https://api.example.com.evil.org/"));
    }
}
