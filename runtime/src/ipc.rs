//! The messages between supervisor, workers, state process and the `wrun` commands, and the socket that carries them.
//!
//! One message is one packet of a Unix SOCK_SEQPACKET socket: JSON, at most [`PACKET_MAX`] bytes. Nothing here decides
//! anything, and nothing that a worker says is believed beyond its own life signs.

use crate::config::shared::Shared;
use crate::failure::Failure;
use nix::errno::Errno;
use nix::sys::socket::{self, AddressFamily, MsgFlags, SockFlag, SockType};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

/// The largest message in bytes; a larger one is an error of its sender.
pub const PACKET_MAX: usize = 64 * 1024;

/// What the supervisor tells a worker.
#[derive(Debug, Serialize, Deserialize)]
pub enum ToWorker {
    /// Finish what is in flight and exit: for `grace_ms` every answer closes its connection, after `deadline_ms`
    /// whatever is left is cut off.
    Drain {
        /// How long idle connections are still answered.
        grace_ms: u64,
        /// When the worker gives up.
        deadline_ms: u64,
    },
    /// Show browsers this page of HTML in place of what they navigate to, or no longer. Only in a server that
    /// `wrun dev` started.
    ShowError(Option<String>),
    /// Close so many HTTP/1.1 connections, each after an answer, so that their clients come to workers that have less to do. Holds until
    /// the next heartbeat.
    Release {
        /// At least 1.
        connections: u64,
    },
}

/// What a worker tells the supervisor.
#[derive(Debug, Serialize, Deserialize)]
pub enum ToSupervisor {
    /// It serves: sent once, after a trial instance was made.
    Ready,
    /// It is alive; sent from the worker's event loop every [`HEARTBEAT_MS`].
    Heartbeat(Vitals),
    /// It cannot serve this component; it exits with the failure's code.
    Failed(Failure),
}

/// What the supervisor tells the state process.
#[derive(Debug, Serialize, Deserialize)]
pub enum ToState {
    /// Serve this generation's workers: open what it needs, apply its migrations, grant what it may use. Answered by
    /// [`StateReport::Configured`] or [`StateReport::Failed`].
    Configure {
        /// Its number.
        generation: u64,
        /// What it may use.
        shared: Shared,
        /// The workers, of whatever generation, that were alive when this state process was started: until each has
        /// connected or died, what the process before granted may still be believed in. Empty at the first start.
        live: Vec<i32>,
    },
    /// No worker of this generation is left.
    Forget {
        /// Its number.
        generation: u64,
    },
    /// Finish what is in flight and exit.
    Stop,
}

/// What the state process tells the supervisor.
#[derive(Debug, Serialize, Deserialize)]
pub enum StateReport {
    /// The workers of this generation can connect.
    Configured {
        /// Its number.
        generation: u64,
    },
    /// This generation cannot be served; the others are as before.
    Failed {
        /// Its number.
        generation: u64,
        /// Why.
        failure: Failure,
    },
    /// It is alive; sent from its event loop every [`HEARTBEAT_MS`].
    Heartbeat(StateVitals),
}

/// What the state process knows of itself.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct StateVitals {
    /// Connections of workers and of `wrun` commands.
    pub sessions: u64,
    /// The servers that labels are bound to, by names such as `db.default`.
    pub bound: BTreeMap<String, Reach>,
}

/// Whether what a label is bound to can be reached.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub enum Reach {
    Here,
    /// It can, though some of its servers cannot, for this reason.
    Partly(String),
    /// It cannot, for this reason.
    Away(String),
}

impl Reach {
    /// Returns the reason.
    pub fn why(&self) -> Option<&str> {
        match self {
            Self::Here => None,
            Self::Partly(why) | Self::Away(why) => Some(why),
        }
    }

    /// Says the reason in other words.
    pub fn map(self, say: impl FnOnce(String) -> String) -> Self {
        match self {
            Self::Here => Self::Here,
            Self::Partly(why) => Self::Partly(say(why)),
            Self::Away(why) => Self::Away(say(why)),
        }
    }
}

/// How often a worker, or the state process, says that it is alive, in milliseconds.
pub const HEARTBEAT_MS: u64 = 250;

/// What a worker counts about itself.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Vitals {
    /// Requests answered since it started.
    pub requests: u64,
    /// Requests being handled now.
    pub in_flight: u64,
    /// Open connections.
    pub connections: u64,
    /// For how much of the time since the last heartbeat its event loop had something to do, in percent.
    pub busy: u8,
    /// Requests answered since the last heartbeat.
    pub recent: u64,
}

/// What a `wrun` command asks of a running server.
#[derive(Debug, Serialize, Deserialize)]
pub enum ControlRequest {
    /// What processes there are.
    Ps,
    /// Load the component and the manifest again; the answer comes when the new generation serves, or failed.
    Reload,
    /// Run this many workers.
    Scale {
        /// At least 1.
        workers: usize,
    },
    /// Drain and end; the answer comes at once, the end is the end of the connection.
    Stop,
    /// Show browsers this page of HTML in place of what they navigate to, until another generation serves. For
    /// `wrun dev` alone.
    ShowError(String),
}

/// What the server answers.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum ControlReply {
    /// To [`ControlRequest::Ps`].
    Processes(Processes),
    /// To [`ControlRequest::Reload`]: the generation that serves now.
    Reloaded {
        /// Its number.
        generation: u64,
    },
    /// To the others.
    Done,
    /// The request was not carried out.
    Failed(Failure),
}

/// The processes of a server, as `wrun ps --json` prints them.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Processes {
    /// The supervisor.
    pub supervisor: SupervisorStatus,
    /// The state process; `None` if nothing is shared.
    pub state: Option<StateStatus>,
    /// The labels that are bound to a server, by name.
    pub bindings: Vec<BindingStatus>,
    /// One per worker process, also those that start or drain; by slot, then generation.
    pub workers: Vec<WorkerStatus>,
}

/// The supervisor in [`Processes`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SupervisorStatus {
    /// Its process id.
    pub pid: i32,
    /// The version of wrun that it runs.
    pub version: String,
    /// The URLs that it listens on.
    pub urls: Vec<String>,
    /// What it serves, as given on the command line.
    pub path: String,
    /// The generation that serves.
    pub generation: u64,
    /// `starting`, `serving`, `reloading`, `degraded` or `stopping`.
    pub state: String,
    /// How many workers there should be.
    pub workers: usize,
    /// Seconds since it started.
    pub uptime_s: u64,
}

/// The state process in [`Processes`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct StateStatus {
    /// Its process id; `None` between two of them.
    pub pid: Option<i32>,
    /// `starting`, `ready`, `restarting`, `hung` or `stopping`.
    pub state: String,
    /// How often it ended without being asked to.
    pub restarts: u64,
    /// Its resident memory in bytes.
    pub rss_bytes: u64,
    /// Seconds since it was started.
    pub uptime_s: u64,
}

/// A label that is bound to a server, in [`Processes`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct BindingStatus {
    /// Its kind and label: `db.default`.
    pub name: String,
    /// The kind of the server: `postgres`, `mysql` or `redis`.
    pub backend: String,
    /// Its URL, without user, password and parameters.
    pub url: String,
    /// Whether it can be reached; `None` while there is no state process that knows.
    pub reachable: Option<bool>,
    /// Why it cannot, or some of its servers cannot.
    pub why: Option<String>,
}

/// One worker in [`Processes`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct WorkerStatus {
    /// Its place, from 0: a replacement keeps it.
    pub slot: usize,
    /// Its process id.
    pub pid: i32,
    /// The generation of the component that it serves.
    pub generation: u64,
    /// `starting`, `ready`, `draining` or `hung`.
    pub state: String,
    /// Requests that it has answered.
    pub requests: u64,
    /// Requests that it is handling.
    pub in_flight: u64,
    /// Its open connections.
    pub connections: u64,
    /// How often the worker in this slot ended without being asked to.
    pub restarts: u64,
    /// Its resident memory in bytes.
    pub rss_bytes: u64,
    /// Seconds since it was started.
    pub uptime_s: u64,
}

/// One end of a packet socket.
#[derive(Debug)]
pub struct Channel {
    socket: OwnedFd,
}

impl Channel {
    /// Returns the two ends of a new socket, both non-blocking and closed on exec.
    pub fn pair() -> io::Result<(Self, Self)> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let (a, b) = socket::socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags)?;
        Ok((Self { socket: a }, Self { socket: b }))
    }

    /// Sends one message. `WouldBlock` says that the other side does not read.
    pub fn send<T: Serialize>(&self, message: &T) -> io::Result<()> {
        let packet = serde_json::to_vec(message)?;
        if packet.len() > PACKET_MAX {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "message too large",
            ));
        }
        socket::send(self.socket.as_raw_fd(), &packet, MsgFlags::MSG_NOSIGNAL)?;
        Ok(())
    }

    /// Receives one message: `None` at the end of the stream, `WouldBlock` when there is none yet, `InvalidData` for a
    /// packet that is no message.
    pub fn recv<T: DeserializeOwned>(&self) -> io::Result<Option<T>> {
        let mut packet = vec![0; PACKET_MAX + 1];
        let len = loop {
            match socket::recv(self.socket.as_raw_fd(), &mut packet, MsgFlags::empty()) {
                Err(Errno::EINTR) => {}
                // The peer is gone with our packets unread: that is an end, too.
                Err(Errno::ECONNRESET) => return Ok(None),
                other => break other?,
            }
        };
        if len == 0 {
            return Ok(None);
        }
        if len > PACKET_MAX {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "message too large",
            ));
        }
        Ok(Some(serde_json::from_slice(&packet[..len])?))
    }
}

impl From<OwnedFd> for Channel {
    fn from(socket: OwnedFd) -> Self {
        Self { socket }
    }
}

impl From<Channel> for OwnedFd {
    fn from(channel: Channel) -> Self {
        channel.socket
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl AsRawFd for Channel {
    fn as_raw_fd(&self) -> i32 {
        self.socket.as_raw_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn message_arrives_as_it_was_sent() {
        let (a, b) = Channel::pair().unwrap();
        a.send(&ControlRequest::Scale { workers: 3 }).unwrap();
        assert!(matches!(
            b.recv().unwrap(),
            Some(ControlRequest::Scale { workers: 3 })
        ));
    }

    #[test]
    fn garbage_packet_is_invalid_data_and_the_next_message_still_arrives() {
        let (a, b) = Channel::pair().unwrap();
        socket::send(a.as_raw_fd(), b"\xff{", MsgFlags::empty()).unwrap();
        a.send(&ControlRequest::Ps).unwrap();
        assert_eq!(
            b.recv::<ControlRequest>().unwrap_err().kind(),
            io::ErrorKind::InvalidData
        );
        assert!(matches!(b.recv().unwrap(), Some(ControlRequest::Ps)));
    }

    #[test]
    fn closed_peer_is_the_end() {
        let (a, b) = Channel::pair().unwrap();
        drop(a);
        assert!(b.recv::<ControlRequest>().unwrap().is_none());
    }

    #[test]
    fn oversized_message_is_refused_by_its_sender() {
        let (a, _b) = Channel::pair().unwrap();
        let error = a.send(&"x".repeat(PACKET_MAX)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    }
}
