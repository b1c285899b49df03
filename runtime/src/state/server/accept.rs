//! Takes connections, and finds out who they are before anything else.

use super::outbox::Outbox;
use super::peer::Peer;
use super::returning::Returning;
use super::session::{Fault, Rights, Session};
use super::sessions::Sessions;
use super::stores::Stores;
use crate::state::protocol::{Call, Incoming, Reply, Request, Role, Stream};
use crate::state::spin::Spin;
use std::io;
use std::rc::Rc;
use std::time::Duration;
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinSet;
use tokio::time::timeout;

/// How long a peer may take to introduce itself.
const HELLO_MAX: Duration = Duration::from_secs(5);

/// How long a worker waits for its generation to be made known, after a restart, and an operator for any.
const GRANT_MAX: Duration = Duration::from_secs(30);

/// How long to wait when the system has no more descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

const NO_HELLO: &str = "it does not introduce itself";
const UNKNOWN: &str = "its generation is not known";

/// What every connection needs.
pub(super) struct Reception {
    pub(super) stores: Rc<Stores>,
    pub(super) sessions: Rc<Sessions>,
    pub(super) returning: Rc<Returning>,
    /// The supervisor's pid: its children are no operators.
    pub(super) supervisor: i32,
}

/// Takes connections for as long as it is polled. Dropped, all of them end.
pub(super) async fn accept(
    listener: &UnixListener,
    reception: Rc<Reception>,
    open: &mut JoinSet<()>,
) {
    loop {
        while open.try_join_next().is_some() {}
        match listener.accept().await {
            Ok((stream, _)) => {
                let reception = reception.clone();
                open.spawn_local(async move { reception.receive(stream).await });
            }
            Err(error) => {
                tracing::warn!(%error, "cannot take a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

impl Reception {
    async fn receive(&self, stream: UnixStream) {
        let peer = match Peer::of(&stream) {
            Ok(peer) => peer,
            Err(error) => {
                tracing::warn!(%error, "a connection was refused");
                return;
            }
        };
        match self.converse(stream, peer).await {
            Ok(()) => {}
            // It died, or was killed, with something on the way: no news.
            Err(Fault::Io(error)) if error.kind() != io::ErrorKind::InvalidData => {
                tracing::debug!(pid = peer.pid, %error, "a connection broke");
            }
            Err(fault) => {
                tracing::warn!(pid = peer.pid, error = %fault, "a connection was cut off");
            }
        }
    }

    async fn converse(&self, stream: UnixStream, peer: Peer) -> Result<(), Fault> {
        let stream = Stream::of(stream)?;
        let mut incoming = Incoming::default();
        let hello = timeout(HELLO_MAX, first(&stream, &mut incoming)).await;
        let Some(Request { id, call }) = hello.map_err(|_| Fault::Refused(NO_HELLO))?? else {
            return Ok(());
        };
        let rights = match self.rights(call, peer).await {
            Ok(rights) => rights,
            Err(why) => return Err(turn_away(&stream, id, why)),
        };
        let entry = match rights {
            Rights::Transactions(_) => self.sessions.enter_lane(),
            Rights::Guest(_) | Rights::Operator => self.sessions.enter(),
        };
        let Some(entry) = entry else {
            return Err(turn_away(&stream, id, "there are too many connections"));
        };
        if let Rights::Guest(_) = rights {
            self.returning.connected(peer.pid);
            self.stores.locks.begin_session(entry.id, peer.pid);
        }
        entry.outbox.answer(id, Reply::Done);
        let (stores, outbox) = (self.stores.clone(), entry.outbox.clone());
        let session = Session::new(entry.id, rights, stores, outbox);
        session.serve(stream, incoming).await
    }

    /// Returns what a peer may do that introduces itself like this, or why it may do nothing.
    async fn rights(&self, call: Call, peer: Peer) -> Result<Rights, &'static str> {
        match call {
            Call::Hello {
                role: Role::Worker { generation },
            } => match timeout(GRANT_MAX, self.stores.granted(generation)).await {
                Ok(granted) => Ok(Rights::Guest(granted)),
                Err(_) => Err(UNKNOWN),
            },
            Call::Hello {
                role: Role::Lane { generation },
            } => match timeout(GRANT_MAX, self.stores.granted(generation)).await {
                Ok(granted) => Ok(Rights::Transactions(granted)),
                Err(_) => Err(UNKNOWN),
            },
            Call::Hello {
                role: Role::Operator,
            } => match peer.parent() {
                Some(parent) if parent != self.supervisor => {
                    // What cannot be opened is not shown.
                    let _ = timeout(GRANT_MAX, self.stores.ready()).await;
                    Ok(Rights::Operator)
                }
                _ => Err("a worker is no operator"),
            },
            _ => Err(NO_HELLO),
        }
    }
}

/// Reads the first message; `None` if there is none.
async fn first(stream: &Stream, incoming: &mut Incoming) -> io::Result<Option<Request>> {
    loop {
        if let Some(request) = incoming.take()? {
            return Ok(Some(request));
        }
        if stream.read(incoming.room(), &mut Spin::default()).await? == 0 {
            return Ok(None);
        }
    }
}

/// Answers a peer that is not let in.
fn turn_away(stream: &Stream, id: u64, why: &'static str) -> Fault {
    let outbox = Outbox::default();
    outbox.answer(id, Reply::Refused(why.to_owned()));
    // It is the first thing that is written, so there is room for it; a peer that is gone needs no answer.
    let _ = outbox.write(stream);
    Fault::Refused(why)
}
