//! The sockets of AMQP connections: wrun's own, so that they trust whom its other connections trust, and end when they are to.

use super::address::{Address, Socket};
use async_compat::Compat;
use async_rs::traits::Reactor;
use async_rs::util::RuntimeParts;
use async_rs::{Runtime, Tokio};
use futures_util::Stream;
use lapin::{AsyncTcpStream, Connection, ConnectionProperties};
use std::future::{Ready, ready};
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::watch;

/// Keeps a connection's sockets open; they break when it is dropped.
pub(super) type Guard = watch::Sender<()>;

/// Connects. The sockets break when the guard is dropped, which also ends an attempt that hangs.
pub(super) async fn connect(
    address: &Address,
    name: &str,
    guard: &Guard,
) -> lapin::Result<Connection> {
    let runtime = Runtime::new(RuntimeParts::new(
        Tokio::current(),
        Sockets(Tokio::current()),
    ));
    let (place, guarded) = (address.clone(), guard.subscribe());
    let open = async move |_, _| {
        let socket = place.connect().await?;
        Ok(AsyncTcpStream::Plain(Compat::new(Guarded::new(
            socket,
            guarded.clone(),
        ))))
    };
    let properties = ConnectionProperties::default().with_connection_name(name.into());
    Connection::connector(address.uri.clone(), runtime, open, properties).await
}

/// A socket that breaks when its guard is dropped.
pub(super) struct Guarded {
    socket: Box<dyn Socket>,
    broken: Pin<Box<dyn Future<Output = ()> + Send>>,
}

impl Guarded {
    fn new(socket: Box<dyn Socket>, mut guard: watch::Receiver<()>) -> Self {
        let broken = Box::pin(async move { while guard.changed().await.is_ok() {} });
        Self { socket, broken }
    }
}

impl AsyncRead for Guarded {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.broken.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        Pin::new(&mut self.socket).poll_read(cx, buf)
    }
}

impl AsyncWrite for Guarded {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}

/// What makes time pass for AMQP connections; sockets come from elsewhere.
#[derive(Clone, Debug)]
struct Sockets(Tokio);

impl Reactor for Sockets {
    type TcpStream = Compat<Guarded>;
    type Sleep = <Tokio as Reactor>::Sleep;

    fn register<H: Read + Write + Send + 'static>(
        &self,
        _: H,
    ) -> io::Result<impl futures_io::AsyncRead + futures_io::AsyncWrite + Send + Unpin + 'static>
    {
        Err::<Compat<Guarded>, _>(io::ErrorKind::Unsupported.into())
    }

    fn sleep(&self, time: Duration) -> Self::Sleep {
        self.0.sleep(time)
    }

    fn interval(&self, time: Duration) -> impl Stream<Item = Instant> + Send + 'static {
        self.0.interval(time)
    }

    #[expect(refining_impl_trait, reason = "it is always ready")]
    fn tcp_connect_addr(&self, _: SocketAddr) -> Ready<io::Result<Self::TcpStream>> {
        ready(Err(io::ErrorKind::Unsupported.into()))
    }
}
