//! The connections that there are: by which a lost guard or a delivery finds its way to its worker.

use super::outbox::Outbox;
use crate::state::lock::{GuardId, SessionId};
use crate::state::protocol::FromState;
use crate::state::queue::Delivery;
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use tokio::sync::Notify;

/// Connections at a time.
const SESSIONS_MAX: usize = 4096;

/// Connections beyond which no lanes are let in: a worker does without, but not without its first connection.
const LANES_UP_TO: usize = SESSIONS_MAX / 2;

/// The open connections by their ids.
#[derive(Debug, Default)]
pub(super) struct Sessions {
    open: RefCell<HashMap<SessionId, Rc<Outbox>>>,
    last: Cell<u64>,
    ended: Notify,
}

/// A connection's entry. Dropped, it is taken out.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) id: SessionId,
    pub(super) outbox: Rc<Outbox>,
    sessions: Rc<Sessions>,
}

impl Sessions {
    /// Makes an entry under a new id, unless there are too many.
    pub(super) fn enter(self: &Rc<Self>) -> Option<Entry> {
        let mut open = self.open.borrow_mut();
        if open.len() >= SESSIONS_MAX {
            return None;
        }
        self.last.set(self.last.get() + 1);
        let (id, outbox) = (SessionId(self.last.get()), Rc::<Outbox>::default());
        open.insert(id, outbox.clone());
        Some(Entry {
            id,
            outbox,
            sessions: self.clone(),
        })
    }

    /// Makes an entry for a lane, which leaves room for others.
    pub(super) fn enter_lane(self: &Rc<Self>) -> Option<Entry> {
        match self.len() < LANES_UP_TO {
            true => self.enter(),
            false => None,
        }
    }

    /// Returns how many there are.
    pub(super) fn len(&self) -> usize {
        self.open.borrow().len()
    }

    /// Waits until there is none.
    pub(super) async fn all_ended(&self) {
        while self.len() > 0 {
            self.ended.notified().await;
        }
    }

    /// Tells a session that a guard of its own was lost.
    pub(super) fn tell_lost(&self, guard: GuardId) {
        let message = FromState::Lost {
            guard: guard.number,
        };
        self.send(guard.session, &message);
    }

    /// Gives messages of a queue to a session.
    pub(super) fn deliver(&self, session: SessionId, queue: String, batch: Vec<Delivery>) {
        self.send(session, &FromState::Deliver { queue, batch });
    }

    /// Sends a message to a session, if it still exists.
    fn send(&self, session: SessionId, message: &FromState) {
        if let Some(outbox) = self.open.borrow().get(&session) {
            // All that is sent so fits: a batch has a limit of its own.
            let fits = outbox.push(message);
            debug_assert!(fits, "a message for {session:?} does not fit into a frame");
            outbox.notify();
        }
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.sessions.open.borrow_mut().remove(&self.id);
        self.sessions.ended.notify_one();
    }
}
