//! The sockets that connections arrive on: bound here, or inherited from a service manager.
//!
//! One socket per address, which every worker inherits: a shared accept queue, so that the end of a worker loses
//! nothing that it has not accepted. Not SO_REUSEPORT, where a queue dies with its worker. Nothing here accepts.

use crate::exit_code::ExitCode;
use crate::failure::{Failure, OrFail as _};
use listenfd::ListenFd;
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use std::io;
use std::net::{SocketAddr, TcpListener};

/// How many connections may wait to be accepted; the kernel lowers it to net.core.somaxconn.
const BACKLOG: i32 = 4096;

/// How much of its answers a connection may hold that the kernel has not sent yet, in bytes. By default that is megabytes for
/// each client that is slower than its guest; what is under way to a client does not count, however far away it is.
const UNSENT_MAX: u32 = 128 * 1024;

/// A socket that listens on one address.
#[derive(Debug)]
pub struct Listener {
    socket: TcpListener,
    /// The address with its real port: a rebuilt socket takes the same.
    addr: SocketAddr,
}

impl Listener {
    /// Returns a listener for each of `addrs`, or the sockets in LISTEN_FDS if a service manager passed any.
    pub fn open(addrs: &[SocketAddr]) -> Result<Vec<Self>, Failure> {
        let inherited = Self::inherit(ListenFd::from_env())?;
        if inherited.is_empty() {
            return addrs.iter().map(|&addr| Self::bind(addr)).collect();
        }
        let urls: Vec<String> = inherited.iter().map(Self::url).collect();
        tracing::info!(?urls, "using inherited sockets, --addr is ignored");
        Ok(inherited)
    }

    /// Binds `addr`; port 0 takes a free one.
    pub fn bind(addr: SocketAddr) -> Result<Self, Failure> {
        listen(addr).map_err(|error| {
            let (code, why, hint) = match error.kind() {
                io::ErrorKind::AddrInUse => (
                    ExitCode::Unavailable,
                    "address in use".to_owned(),
                    "choose another with --addr, or end the process that has it (`ss -ltnp` names it)",
                ),
                io::ErrorKind::PermissionDenied => (
                    ExitCode::NoPermission,
                    "permission denied".to_owned(),
                    "ports under 1024 need root or CAP_NET_BIND_SERVICE; choose another with --addr",
                ),
                io::ErrorKind::AddrNotAvailable => (
                    ExitCode::Unavailable,
                    "this machine has no such address".to_owned(),
                    "choose another with --addr",
                ),
                _ => (ExitCode::System, error.to_string(), "choose another with --addr"),
            };
            Failure::new(code, format!("cannot listen on {addr}: {why}")).hint(hint)
        })
    }

    /// Takes over the sockets of socket activation, which are meant for this process (LISTEN_PID) or for any.
    fn inherit(mut passed: ListenFd) -> Result<Vec<Self>, Failure> {
        (0..passed.len())
            .filter_map(|index| passed.take_tcp_listener(index).transpose())
            .map(|socket| socket.and_then(Self::adopt))
            .collect::<io::Result<_>>()
            .or_fail(ExitCode::Config, || {
                "cannot use the sockets in LISTEN_FDS".to_owned()
            })
            .map_err(|failure| {
                failure.hint("pass listening TCP sockets, or unset LISTEN_FDS to use --addr")
            })
    }

    fn adopt(socket: TcpListener) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        hold_back(&SockRef::from(&socket))?;
        let listener = Self {
            addr: socket.local_addr()?,
            socket,
        };
        if !listener.is_listening() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "socket does not listen",
            ));
        }
        Ok(listener)
    }

    /// Returns the address with its real port as a URL.
    pub fn url(&self) -> String {
        format!("http://{}/", self.addr)
    }

    /// Tells whether connections still arrive. Any process that holds the socket can shut it down for all.
    pub fn is_listening(&self) -> bool {
        SockRef::from(&self.socket).is_listener().unwrap_or(false)
    }

    /// Replaces a socket that no longer listens by a new one on the same address.
    pub fn rebuild(&mut self) -> Result<(), Failure> {
        // A socket that was shut down holds its port, but SO_REUSEADDR lets another one listen there.
        *self = Self::bind(self.addr)?;
        Ok(())
    }

    /// Returns another descriptor of the socket, for a worker. That it does not block is a property they share.
    pub fn duplicate(&self) -> io::Result<TcpListener> {
        self.socket.try_clone()
    }
}

/// Binds `addr` and listens on it, non-blocking and closed on exec.
fn listen(addr: SocketAddr) -> io::Result<Listener> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    // A restart must not wait for the old server's connections to leave TIME_WAIT.
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    hold_back(&socket)?;
    socket.bind(&addr.into())?;
    socket.listen(BACKLOG)?;
    let socket = TcpListener::from(socket);
    Ok(Listener {
        addr: socket.local_addr()?,
        socket,
    })
}

/// Has the connections that are accepted here take no more than is soon sent. They inherit it from the listening socket.
fn hold_back(socket: &Socket) -> io::Result<()> {
    socket.set_tcp_notsent_lowat(UNSENT_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpStream;

    fn loopback() -> SocketAddr {
        "127.0.0.1:0".parse().unwrap()
    }

    #[test]
    fn port_zero_becomes_a_real_port_in_the_url() {
        let listener = Listener::bind(loopback()).unwrap();
        let port = listener.addr.port();
        assert_ne!(port, 0);
        assert_eq!(listener.url(), format!("http://127.0.0.1:{port}/"));
        TcpStream::connect(listener.addr).unwrap();
    }

    #[test]
    fn accepting_without_a_client_does_not_block() {
        let listener = Listener::bind(loopback()).unwrap();
        let accepted = listener.duplicate().unwrap().accept();
        assert_eq!(accepted.unwrap_err().kind(), io::ErrorKind::WouldBlock);
    }

    #[test]
    fn connections_take_no_more_than_is_soon_sent() {
        let inherited = Listener::adopt(TcpListener::bind(loopback()).unwrap()).unwrap();
        for listener in [Listener::bind(loopback()).unwrap(), inherited] {
            let _client = TcpStream::connect(listener.addr).unwrap();
            listener.socket.set_nonblocking(false).unwrap();
            let (accepted, _) = listener.socket.accept().unwrap();
            let unsent = SockRef::from(&accepted).tcp_notsent_lowat().unwrap();
            assert_eq!(unsent, UNSENT_MAX);
        }
    }

    #[test]
    fn port_in_use_is_a_failure_that_names_the_address_and_the_flag() {
        let first = Listener::bind(loopback()).unwrap();
        let failure = Listener::bind(first.addr).unwrap_err();
        assert_eq!(failure.code, ExitCode::Unavailable);
        assert_eq!(
            failure.message,
            format!("cannot listen on {}: address in use", first.addr)
        );
        assert!(failure.hint.unwrap().contains("--addr"));
    }

    #[test]
    fn socket_that_a_worker_shut_down_is_noticed_and_rebuilt_on_its_port() {
        let mut listener = Listener::bind(loopback()).unwrap();
        assert!(listener.is_listening());
        let worker = listener.duplicate().unwrap();
        SockRef::from(&worker)
            .shutdown(std::net::Shutdown::Both)
            .unwrap();
        assert!(!listener.is_listening());
        let addr = listener.addr;
        listener.rebuild().unwrap();
        assert!(listener.is_listening());
        assert_eq!(listener.addr, addr);
        TcpStream::connect(addr).unwrap();
    }

    #[test]
    fn address_of_another_machine_is_unavailable() {
        let failure = Listener::bind("192.0.2.1:0".parse().unwrap()).unwrap_err();
        assert_eq!(failure.code, ExitCode::Unavailable);
    }
}
