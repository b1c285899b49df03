//! The control socket: where `wrun ps`, `reload`, `scale` and `stop` talk to the server.
//!
//! Takes requests in and gives answers out, and never waits for a client. What a request does is for the loop.

use super::policy::Ticket;
use crate::ipc::{Channel, ControlReply, ControlRequest};
use nix::errno::Errno;
use nix::sys::socket::{self, SockFlag, sockopt};
use nix::unistd::Uid;
use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};
use std::time::{Duration, Instant};

/// The most clients at a time; others wait to be accepted.
const CLIENTS_MAX: usize = 16;

/// How long a client may stay connected without asking for anything.
const IDLE_MAX: Duration = Duration::from_secs(2);

/// The socket and its clients.
#[derive(Debug)]
pub(super) struct Control {
    listener: OwnedFd,
    clients: BTreeMap<Ticket, Client>,
    /// The newest client's.
    last: u64,
    /// Set when the system had no descriptor for a client: the listener stays readable, and polling it would spin.
    is_deaf: bool,
}

#[derive(Debug)]
struct Client {
    channel: Channel,
    /// Whether it is owed an answer: until then all that it may do is hang up.
    waits: bool,
    /// When it is dropped, unless it waits; `None` for the one that stays.
    deadline: Option<Instant>,
}

impl Control {
    /// Answers on `listener`.
    pub(super) fn new(listener: OwnedFd) -> Self {
        Self {
            listener,
            clients: BTreeMap::new(),
            last: 0,
            is_deaf: false,
        }
    }

    /// Returns the listener if another client can be taken.
    pub(super) fn listener(&self) -> Option<BorrowedFd<'_>> {
        let has_room = self.clients.len() < CLIENTS_MAX && !self.is_deaf;
        has_room.then(|| self.listener.as_fd())
    }

    /// Returns every client's socket, and whether a request of it would be read.
    pub(super) fn clients(&self) -> impl Iterator<Item = (Ticket, BorrowedFd<'_>, bool)> {
        self.clients
            .iter()
            .map(|(&ticket, client)| (ticket, client.channel.as_fd(), !client.waits))
    }

    /// Takes a client that is waiting, if it may give orders.
    pub(super) fn accept(&mut self, now: Instant) {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let socket = match socket::accept4(self.listener.as_raw_fd(), flags) {
            // SAFETY: the descriptor was just returned by accept4, so it is open and nobody else's.
            Ok(fd) => unsafe { OwnedFd::from_raw_fd(fd) },
            Err(Errno::EAGAIN | Errno::EINTR | Errno::ECONNABORTED) => return,
            Err(error) => {
                tracing::warn!(error = %error, "control client could not be accepted");
                self.is_deaf = true;
                return;
            }
        };
        match socket::getsockopt(&socket, sockopt::PeerCredentials) {
            Ok(peer) if peer.uid() == 0 || peer.uid() == Uid::effective().as_raw() => {}
            Ok(peer) => {
                return tracing::warn!(
                    uid = peer.uid(),
                    pid = peer.pid(),
                    "control client refused"
                );
            }
            Err(error) => return tracing::warn!(error = %error, "control client refused"),
        }
        self.insert(Client {
            channel: Channel::from(socket),
            waits: false,
            deadline: Some(now + IDLE_MAX),
        });
    }

    /// Takes a client that was there from the start, stays, and is owed an answer.
    pub(super) fn adopt(&mut self, channel: Channel) -> Ticket {
        self.insert(Client {
            channel,
            waits: true,
            deadline: None,
        })
    }

    fn insert(&mut self, client: Client) -> Ticket {
        self.last += 1;
        let ticket = Ticket(self.last);
        self.clients.insert(ticket, client);
        ticket
    }

    /// Tells whether a client is still connected.
    pub(super) fn has(&self, ticket: Ticket) -> bool {
        self.clients.contains_key(&ticket)
    }

    /// Returns what a client asks for; it is then owed an answer. One that hung up or sent garbage is dropped.
    pub(super) fn read(&mut self, ticket: Ticket) -> Option<ControlRequest> {
        let client = self.clients.get_mut(&ticket)?;
        if client.waits {
            // It was polled for one thing only: that it hung up.
            self.clients.remove(&ticket);
            return None;
        }
        match client.channel.recv() {
            Ok(Some(request)) => {
                client.waits = true;
                Some(request)
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => None,
            Ok(None) | Err(_) => {
                self.clients.remove(&ticket);
                None
            }
        }
    }

    /// Answers a client; nothing happens if it is gone. One that does not read is dropped.
    pub(super) fn reply(&mut self, ticket: Ticket, reply: &ControlReply, now: Instant) {
        let Some(client) = self.clients.get_mut(&ticket) else {
            return;
        };
        match client.channel.send(reply) {
            Ok(()) => {
                client.waits = false;
                client.deadline = client.deadline.map(|_| now + IDLE_MAX);
            }
            Err(error) => {
                tracing::debug!(error = %error, "control client could not be answered");
                self.clients.remove(&ticket);
            }
        }
    }

    /// Keeps a client that was answered until this process ends: the end of the connection tells it so.
    pub(super) fn keep(&mut self, ticket: Ticket) {
        if let Some(client) = self.clients.get_mut(&ticket) {
            client.waits = true;
        }
    }

    /// Drops clients that ask for nothing. Called about once a second.
    pub(super) fn tidy(&mut self, now: Instant) {
        self.is_deaf = false;
        self.clients.retain(|_, client| {
            client.waits || client.deadline.is_none_or(|deadline| now < deadline)
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::StateFolder as Wanted;
    use crate::state_folder::{self, StateFolder};
    use nix::sys::socket::MsgFlags;

    struct Fixture {
        parent: tempfile::TempDir,
        control: Control,
        _folder: StateFolder,
    }

    impl Fixture {
        fn new() -> Self {
            let parent = tempfile::tempdir().unwrap();
            let wanted = Wanted {
                path: parent.path().to_path_buf(),
                named: true,
            };
            let folder = StateFolder::open(&wanted, None).unwrap();
            Self {
                control: Control::new(folder.listen().unwrap()),
                _folder: folder,
                parent,
            }
        }

        fn connect(&mut self) -> (Channel, Ticket) {
            let client = state_folder::connect(self.parent.path()).unwrap();
            self.control.accept(Instant::now());
            (client, Ticket(self.control.last))
        }
    }

    #[test]
    fn request_is_read_and_answered() {
        let mut fixture = Fixture::new();
        let (client, ticket) = fixture.connect();
        client.send(&ControlRequest::Ps).unwrap();
        assert!(matches!(
            fixture.control.read(ticket),
            Some(ControlRequest::Ps)
        ));
        fixture
            .control
            .reply(ticket, &ControlReply::Done, Instant::now());
        assert!(matches!(client.recv().unwrap(), Some(ControlReply::Done)));
    }

    #[test]
    fn client_that_sends_garbage_is_dropped() {
        let mut fixture = Fixture::new();
        let (client, ticket) = fixture.connect();
        socket::send(client.as_raw_fd(), b"{\"rm\":\"-rf\"}", MsgFlags::empty()).unwrap();
        assert!(fixture.control.read(ticket).is_none());
        assert!(client.recv::<ControlReply>().unwrap().is_none());
    }

    #[test]
    fn client_that_asks_nothing_is_dropped_and_one_that_waits_is_not() {
        let mut fixture = Fixture::new();
        let (_idle, _) = fixture.connect();
        let (waiting, ticket) = fixture.connect();
        waiting.send(&ControlRequest::Reload).unwrap();
        fixture.control.read(ticket).unwrap();
        fixture
            .control
            .tidy(Instant::now() + Duration::from_secs(600));
        let left: Vec<_> = fixture
            .control
            .clients()
            .map(|(ticket, ..)| ticket)
            .collect();
        assert_eq!(left, [ticket]);
    }

    #[test]
    fn client_from_the_start_is_never_dropped_until_it_hangs_up() {
        let mut fixture = Fixture::new();
        let (dev, ours) = Channel::pair().unwrap();
        let ticket = fixture.control.adopt(ours);
        let now = Instant::now();
        fixture.control.reply(ticket, &ControlReply::Done, now);
        fixture.control.tidy(now + Duration::from_secs(600));
        dev.send(&ControlRequest::Ps).unwrap();
        assert!(fixture.control.read(ticket).is_some());
        drop(dev);
        assert!(fixture.control.read(ticket).is_none());
        assert!(!fixture.control.has(ticket));
    }

    #[test]
    fn seventeenth_client_has_to_wait() {
        let mut fixture = Fixture::new();
        let clients: Vec<_> = (0..CLIENTS_MAX).map(|_| fixture.connect()).collect();
        assert!(fixture.control.listener().is_none());
        drop(clients);
        fixture
            .control
            .tidy(Instant::now() + Duration::from_secs(3));
        assert!(fixture.control.listener().is_some());
    }
}
