//! What waits to be written to one connection.
//!
//! Answers are collected and written together: those that come of one read, or of one sync of a database, are one
//! write.

use crate::state::protocol::{FromState, Outgoing, Reply, Stream};
use std::cell::RefCell;
use std::io;
use tokio::sync::Notify;

/// The way out of a session, for everything that has something to tell its peer.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    frames: RefCell<Outgoing>,
    added: Notify,
}

impl Outbox {
    /// Adds an answer, if one is wanted. Whoever adds it on the session's own time needs no [`Outbox::notify`].
    pub(super) fn answer(&self, id: u64, reply: Reply) {
        self.frames.borrow_mut().answer(id, reply);
    }

    /// Adds a message; false says that it is too large.
    pub(super) fn push(&self, message: &FromState) -> bool {
        self.frames.borrow_mut().push(message).is_ok()
    }

    /// Tells the session that something was added.
    pub(super) fn notify(&self) {
        self.added.notify_one();
    }

    /// Waits for [`Outbox::notify`].
    pub(super) async fn notified(&self) {
        self.added.notified().await;
    }

    /// Returns what waits, for somebody else to write it.
    pub(super) fn take(&self) -> Outgoing {
        self.frames.take()
    }

    /// Has what somebody else has not written wait here, where nothing does.
    pub(super) fn put_back(&self, frames: Outgoing) {
        debug_assert!(self.len() == 0, "what waits would be lost");
        self.frames.replace(frames);
    }

    /// Returns how many bytes wait.
    pub(super) fn len(&self) -> usize {
        self.frames.borrow().len()
    }

    /// Writes what `stream` takes now.
    pub(super) fn write(&self, stream: &Stream) -> io::Result<()> {
        let mut frames = self.frames.borrow_mut();
        frames.write(|bytes| stream.write(bytes))
    }
}
