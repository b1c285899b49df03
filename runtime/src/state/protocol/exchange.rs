//! A connection's socket, for a thread that does nothing but answer what comes over it.
//!
//! The same frames as those of a `Stream`, which it can be made from and into while the connection lasts.

use super::stream::{send, shut_down};
use super::{Incoming, Outgoing, Reply, Request, Stream};
use crate::state::spin::Spin;
use rustix::buffer::spare_capacity;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use std::io;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Instant;

/// One end of a connection.
#[derive(Debug)]
pub struct Exchange {
    socket: Arc<UnixStream>,
    incoming: Incoming,
    outgoing: Outgoing,
    spin: Spin,
}

/// A connection that somebody else serves. Dropped, it ends the connection, unless it was let go.
#[derive(Debug)]
pub struct Hold(Option<Arc<UnixStream>>);

impl Exchange {
    /// Takes a connection out of its event loop, with what has arrived and what waits to be written.
    pub fn of(stream: Stream, incoming: Incoming, outgoing: Outgoing) -> Self {
        Self {
            socket: stream.into_socket(),
            incoming,
            outgoing,
            spin: Spin::default(),
        }
    }

    /// Gives a connection back to an event loop.
    pub fn into_stream(self) -> io::Result<(Stream, Incoming, Outgoing)> {
        let stream = Stream::of_socket(self.socket)?;
        Ok((stream, self.incoming, self.outgoing))
    }

    /// Returns what ends the connection when it is dropped.
    pub fn hold(&self) -> Hold {
        Hold(Some(self.socket.clone()))
    }

    /// Returns its socket, to look whether the peer is gone.
    pub fn socket(&self) -> Arc<UnixStream> {
        self.socket.clone()
    }

    /// Waits for the next request until `until`, then for none; writes what waits meanwhile. An error, also for the end of the
    /// connection, says that nothing more will come.
    pub fn next(&mut self, until: Instant) -> io::Result<Option<Request>> {
        loop {
            self.write()?;
            if let Some(request) = self.incoming.take()? {
                self.spin.came();
                return Ok(Some(request));
            }
            match rustix::io::read(&self.socket, spare_capacity(self.incoming.room())) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(_) | Err(Errno::INTR) => {}
                Err(Errno::AGAIN) if self.spin.again() => {}
                Err(Errno::AGAIN) => {
                    let left = until.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        return Ok(None);
                    }
                    self.sleep(Timespec::try_from(left).ok())?;
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Answers a request, if that wants an answer. What the socket does not take now is written later.
    pub fn answer(&mut self, id: u64, reply: Reply) -> io::Result<()> {
        self.outgoing.answer(id, reply);
        self.write()
    }

    fn write(&mut self) -> io::Result<()> {
        self.outgoing.write(|bytes| send(&self.socket, bytes))
    }

    /// Sleeps until there is something to read, or room to write, or the time is up.
    fn sleep(&self, time: Option<Timespec>) -> io::Result<()> {
        let mut events = PollFlags::IN;
        if !self.outgoing.is_empty() {
            events |= PollFlags::OUT;
        }
        match poll(&mut [PollFd::new(&self.socket, events)], time.as_ref()) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

impl Hold {
    /// Leaves the connection as it is.
    pub fn let_go(mut self) {
        self.0 = None;
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        if let Some(socket) = &self.0 {
            shut_down(socket);
        }
    }
}

/// Tells whether the other end of a connection was closed, whether or not all that it sent was read.
pub fn is_gone(socket: &UnixStream) -> bool {
    let gone = PollFlags::RDHUP | PollFlags::HUP | PollFlags::ERR;
    let mut polled = [PollFd::new(socket, PollFlags::RDHUP)];
    let now = Timespec::default();
    poll(&mut polled, Some(&now)).is_ok() && polled[0].revents().intersects(gone)
}
