//! What became of messages, on its way to the database.
//!
//! Nothing is lost when the database fails: it is asked again until it does its work. Whatever accumulates while it works
//! goes into one transaction.

use super::PAUSE;
use crate::state::sqlite::Sqlite;
use crate::state::sqlite::messages::Change;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::pin::pin;
use std::rc::Rc;
use tokio::sync::Notify;
use tokio::time::sleep;

/// Changes that are written in one transaction.
const WRITE_MAX: usize = 1000;

/// The changes of one queue that are not written yet.
pub(super) struct Journal {
    queue: String,
    sqlite: Sqlite,
    /// Those that are being written are the first of them.
    changes: RefCell<VecDeque<Change>>,
    more: Notify,
    /// All changes are written.
    written: Notify,
    /// Below zero while the answer about some dead letters is overtaken by another.
    dead: Cell<i64>,
}

impl Journal {
    pub(super) fn new(queue: String, sqlite: Sqlite) -> Self {
        Self {
            queue,
            sqlite,
            changes: RefCell::default(),
            more: Notify::new(),
            written: Notify::new(),
            dead: Cell::default(),
        }
    }

    pub(super) fn note(&self, change: Change) {
        self.changes.borrow_mut().push_back(change);
        self.more.notify_one();
    }

    /// Returns how many dead letters there are.
    pub(super) fn dead(&self) -> u64 {
        u64::try_from(self.dead.get()).unwrap_or(0)
    }

    /// So many dead letters were found, or if it is negative, are gone.
    pub(super) fn count_dead(&self, more: i64) {
        self.dead.set(self.dead.get() + more);
    }

    /// Waits until all that was noted is written.
    pub(super) async fn flush(&self) {
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
            let count = changes.len();
            let is_dead = |change: &&Change| matches!(change, Change::Dead { .. });
            let dead = changes.iter().filter(is_dead).count();
            match self.sqlite.settle(self.queue.clone(), changes).await {
                Ok(()) => {
                    self.changes.borrow_mut().drain(..count);
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
