//! A connection's socket, for an event loop.
//!
//! Watched for reading alone. Were it watched for writing, too, the kernel would wake its process each time that the
//! peer has read: as often again as there are messages.

use crate::state::spin::Spin;
use crate::state_folder::Way;
use rustix::buffer::spare_capacity;
use rustix::io::Errno;
use rustix::net::{SendFlags, Shutdown};
use std::io;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::task::coop::consume_budget;
use tokio::task::yield_now;

/// One end of a connection. It neither blocks nor raises signals.
#[derive(Debug)]
pub struct Stream(AsyncFd<Arc<UnixStream>>);

impl Stream {
    /// Connects to the socket at the end of `way`.
    pub async fn connect(way: &Way) -> io::Result<Self> {
        Self::of(tokio::net::UnixStream::connect(way.path()).await?)
    }

    /// Returns the stream of a connection that was made or taken.
    pub fn of(stream: tokio::net::UnixStream) -> io::Result<Self> {
        Self::of_socket(Arc::new(stream.into_std()?))
    }

    /// Returns the stream of a socket that does not block.
    pub fn of_socket(socket: Arc<UnixStream>) -> io::Result<Self> {
        watch(socket, Interest::READABLE).map(Self)
    }

    /// Returns its socket, which no event loop watches any more.
    pub fn into_socket(self) -> Arc<UnixStream> {
        self.0.into_inner()
    }

    /// Reads what has arrived into the room that `buffer` has; 0 at the end. `spin` is the same for every read.
    pub async fn read(&self, buffer: &mut Vec<u8>, spin: &mut Spin) -> io::Result<usize> {
        // A peer that always has more to say must leave time for others.
        consume_budget().await;
        while spin.again() {
            match rustix::io::read(self.0.get_ref(), spare_capacity(buffer)) {
                Err(Errno::AGAIN | Errno::INTR) => yield_now().await,
                done => {
                    spin.came();
                    return Ok(done?);
                }
            }
        }
        loop {
            let mut ready = self.0.readable().await?;
            match rustix::io::read(self.0.get_ref(), spare_capacity(buffer)) {
                Ok(count) => {
                    spin.came();
                    if count > 0 && buffer.len() < buffer.capacity() {
                        // That was all: no need to have the kernel say so.
                        ready.clear_ready();
                    }
                    return Ok(count);
                }
                Err(Errno::AGAIN) => ready.clear_ready(),
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Writes what the socket takes now; `WouldBlock` if that is nothing.
    pub fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        send(self.0.get_ref(), bytes)
    }

    /// Waits until the socket takes more.
    pub async fn writable(&self) -> io::Result<()> {
        // For as long as it is waited for, and no longer.
        let watched = watch(Arc::new(self.0.get_ref().try_clone()?), Interest::WRITABLE)?;
        let _ = watched.writable().await?;
        Ok(())
    }

    /// Sends nothing more, whoever else holds this; what the peer has to say still arrives.
    pub fn hang_up(&self) {
        let _ = rustix::net::shutdown(self.0.get_ref(), Shutdown::Write);
    }

    /// Ends the connection for both sides, whoever else holds this.
    pub fn shut_down(&self) {
        shut_down(self.0.get_ref());
    }
}

/// Writes what a socket takes now; `WouldBlock` if that is nothing.
pub(super) fn send(socket: &UnixStream, bytes: &[u8]) -> io::Result<usize> {
    Ok(rustix::net::send(socket, bytes, SendFlags::NOSIGNAL)?)
}

/// Ends a connection for both sides.
pub(super) fn shut_down(socket: &UnixStream) {
    // It may have ended by itself.
    let _ = rustix::net::shutdown(socket, Shutdown::Both);
}

fn watch(stream: Arc<UnixStream>, interest: Interest) -> io::Result<AsyncFd<Arc<UnixStream>>> {
    // SAFETY: the stream owns its descriptor, and the `AsyncFd` keeps the stream from here on.
    Ok(unsafe { AsyncFd::register_with_interest(stream, interest) }?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair() -> (Stream, Stream) {
        let (a, b) = tokio::net::UnixStream::pair().unwrap();
        (Stream::of(a).unwrap(), Stream::of(b).unwrap())
    }

    #[tokio::test]
    async fn everything_arrives_through_a_socket_that_is_full_at_times() {
        let (ours, theirs) = pair();
        let all: Vec<u8> = (0..4 << 20_u32).map(|n| (n % 251) as u8).collect();
        let sending = async {
            let mut rest = &all[..];
            while !rest.is_empty() {
                match ours.write(rest) {
                    Ok(count) => rest = &rest[count..],
                    Err(error) => {
                        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
                        ours.writable().await.unwrap();
                    }
                }
            }
            ours.shut_down();
        };
        let receiving = async {
            let (mut got, mut spin) = (Vec::new(), Spin::default());
            loop {
                got.reserve(10_000);
                if theirs.read(&mut got, &mut spin).await.unwrap() == 0 {
                    return got;
                }
            }
        };
        let ((), got) = tokio::join!(sending, receiving);
        assert!(got == all);
    }

    #[tokio::test]
    async fn writing_to_a_peer_that_is_gone_is_an_error() {
        let (ours, theirs) = pair();
        drop(theirs);
        let error = ours.write(b"x").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
    }
}
