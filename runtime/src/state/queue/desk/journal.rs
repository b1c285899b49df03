//! What became of messages, on its way to where they are kept.
//!
//! Nothing is lost when writing fails: it is tried again until it succeeds. Whatever accumulates meanwhile goes into one
//! transaction.

use super::{PAUSE, Shelf};
use crate::state::queue::stored::Change;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::pin::pin;
use std::rc::Rc;
use tokio::sync::Notify;
use tokio::time::sleep;

/// Changes that are written in one transaction.
const WRITE_MAX: usize = 1000;

/// The changes of one queue that are not written yet.
pub(in crate::state) struct Journal {
    queue: String,
    shelf: Rc<dyn Shelf>,
    /// Those that are being written are the first of them.
    changes: RefCell<VecDeque<Change>>,
    more: Notify,
    /// Counts how often they were cleared.
    clearings: Cell<u64>,
    /// All changes are written.
    written: Notify,
    /// Below zero while the answer about some dead letters is overtaken by another.
    dead: Cell<i64>,
}

impl Journal {
    pub(super) fn new(queue: String, shelf: Rc<dyn Shelf>) -> Self {
        Self {
            queue,
            shelf,
            changes: RefCell::default(),
            more: Notify::new(),
            clearings: Cell::default(),
            written: Notify::new(),
            dead: Cell::default(),
        }
    }

    pub(super) fn note(&self, change: Change) {
        self.changes.borrow_mut().push_back(change);
        self.more.notify_one();
    }

    /// Returns how many dead letters there are.
    pub(in crate::state) fn dead(&self) -> u64 {
        u64::try_from(self.dead.get()).unwrap_or(0)
    }

    /// So many dead letters were found, or if it is negative, are gone.
    pub(in crate::state) fn count_dead(&self, more: i64) {
        self.dead.set(self.dead.get() + more);
    }

    /// Returns the messages whose changes are not written.
    pub(in crate::state) fn ids(&self) -> Vec<i64> {
        self.changes.borrow().iter().map(Change::id).collect()
    }

    /// Forgets what is not written: it is not this process's to say any more.
    pub(super) fn clear(&self) {
        self.changes.borrow_mut().clear();
        self.clearings.set(self.clearings.get() + 1);
        self.written.notify_waiters();
    }

    /// Waits until all that was noted is written.
    pub(in crate::state) async fn flush(&self) {
        // Made before the look, so that no news comes between.
        let mut written = pin!(self.written.notified());
        while !self.changes.borrow().is_empty() {
            written.as_mut().await;
            written.set(self.written.notified());
        }
    }

    /// Writes for as long as it is polled.
    pub(super) async fn write(self: Rc<Self>) {
        loop {
            let changes: Vec<_> = self
                .changes
                .borrow()
                .iter()
                .take(WRITE_MAX)
                .cloned()
                .collect();
            if changes.is_empty() {
                self.written.notify_waiters();
                self.more.notified().await;
                continue;
            }
            let (count, clearings) = (changes.len(), self.clearings.get());
            let is_dead = |change: &&Change| matches!(change, Change::Dead { .. });
            let dead = changes.iter().filter(is_dead).count();
            match self.shelf.write(changes).await {
                Ok(()) => {
                    if self.clearings.get() == clearings {
                        self.changes.borrow_mut().drain(..count);
                    }
                    self.count_dead(dead as i64);
                }
                Err(error) => {
                    tracing::warn!(queue = self.queue, %error, "outcomes cannot be written, trying again");
                    sleep(PAUSE).await;
                }
            }
        }
    }
}
