//! Connections for transactions: each has one to itself while it is open, so that the state process can leave its calls to
//! the thread that serves it.
//!
//! They are kept for the next transaction, and end with the worker's first connection. A transaction that gets none, or that
//! stands or falls with locks, uses the first one.

use super::link::Link;
use super::{Line, locked};
use crate::state::protocol::{Call, FromState, Incoming, Reply, Role, Stream};
use crate::state::spin::Spin;
use std::io;
use std::pin::pin;
use std::sync::{Arc, Mutex};

/// Lanes of one worker.
pub(super) const LANES_MAX: usize = 32;

/// The lanes of a worker.
#[derive(Debug, Default)]
pub(super) struct Lanes(Mutex<Table>);

#[derive(Debug, Default)]
struct Table {
    /// Those that the state process may not have let go of yet.
    count: usize,
    connected: Vec<Arc<Link>>,
    /// Those that no transaction has. The last that was used is used first.
    free: Vec<Arc<Link>>,
}

/// A lane that a transaction has. Dropped, it ends, and with it what is open there.
#[derive(Debug)]
pub(super) struct Lane {
    lanes: Arc<Lanes>,
    link: Arc<Link>,
    /// Nothing is open there.
    clean: bool,
}

/// The place of a lane. Dropped, it is free.
struct Place(Arc<Lanes>);

impl Lanes {
    /// Returns a lane, kept or new; `None` if there are too many, or the state process cannot be reached.
    pub(super) async fn take(self: &Arc<Self>, line: &Line) -> Option<Lane> {
        let first = line.open_link()?;
        let lane = match self.take_free() {
            Some(link) => self.lane(link),
            None => self.connect(line).await?,
        };
        // A lane that came too late to end with its first connection ends now.
        first.is_open().then_some(lane)
    }

    /// Ends all of them.
    pub(super) fn close(&self) {
        let mut table = locked(&self.0);
        table.free.clear();
        for link in table.connected.drain(..) {
            link.close();
        }
    }

    fn take_free(&self) -> Option<Arc<Link>> {
        let mut table = locked(&self.0);
        while let Some(link) = table.free.pop() {
            if link.is_open() {
                return Some(link);
            }
        }
        None
    }

    fn lane(self: &Arc<Self>, link: Arc<Link>) -> Lane {
        Lane {
            lanes: self.clone(),
            link,
            clean: false,
        }
    }

    async fn connect(self: &Arc<Self>, line: &Line) -> Option<Lane> {
        let place = self.reserve()?;
        let stream = Stream::connect(&line.way).await.ok()?;
        let link = Arc::new(Link::new(stream));
        let role = Role::Lane {
            generation: line.generation,
        };
        let hello = link.ask(Call::Hello { role }).ok()?;
        locked(&self.0).connected.push(link.clone());
        tokio::spawn(attend(link.clone(), place));
        let lane = self.lane(link);
        // It may have too many of all workers.
        matches!(hello.reply().await, Ok(Reply::Done)).then_some(lane)
    }

    fn reserve(self: &Arc<Self>) -> Option<Place> {
        let mut table = locked(&self.0);
        if table.count >= LANES_MAX {
            return None;
        }
        table.count += 1;
        Some(Place(self.clone()))
    }

    fn forget(&self, link: &Arc<Link>) {
        let mut table = locked(&self.0);
        table.connected.retain(|other| !Arc::ptr_eq(other, link));
        table.free.retain(|other| !Arc::ptr_eq(other, link));
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        locked(&self.0.0).count -= 1;
    }
}

impl Lane {
    pub(super) fn link(&self) -> Arc<Link> {
        self.link.clone()
    }

    /// Keeps it for the next transaction: this one has ended, and all that was asked is answered.
    pub(super) fn keep(mut self) {
        self.clean = true;
        locked(&self.lanes.0).free.push(self.link());
    }
}

impl Drop for Lane {
    fn drop(&mut self) {
        if !self.clean {
            self.link.hang_up();
        }
    }
}

/// Hands out what comes over a lane until the state process ends it.
async fn attend(link: Arc<Link>, place: Place) {
    let end = read(&link).await;
    tracing::debug!(reason = %end, "a connection for transactions ended");
    link.close();
    place.0.forget(&link);
}

async fn read(link: &Link) -> io::Error {
    let mut incoming = Incoming::default();
    // A turn may take long to come, and a transaction's next answer not: what is learned of the one says nothing of the other.
    let (mut turn, mut served) = (Spin::default(), Spin::default());
    let mut behind = pin!(link.catch_up());
    loop {
        let spin = match link.is_served() {
            true => &mut served,
            false => &mut turn,
        };
        let read = tokio::select! {
            biased;
            error = &mut behind => return error,
            read = link.read(incoming.room(), spin) => read,
        };
        match read {
            Ok(0) => return io::ErrorKind::UnexpectedEof.into(),
            Ok(_) => loop {
                match incoming.take() {
                    Ok(Some(FromState::Reply { id, reply })) => link.answer(id, reply),
                    // Nothing else is sent to who only has transactions.
                    Ok(Some(FromState::Lost { .. } | FromState::Deliver { .. })) => {}
                    Ok(None) => break,
                    Err(error) => return error,
                }
            },
            Err(error) => return error,
        }
    }
}
