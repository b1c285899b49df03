//! Queues that are kept in a database of a server, so that its transactions can send to them.
//!
//! How one is kept, and who takes messages out of it, is for the engine.

use super::{Engine, Fault};
use crate::state::BoxFuture;
use crate::state::queue::{Message, QueueError};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

/// A queue as the transactions of its database know it.
pub(in crate::state) trait KeptQueue<E: Engine> {
    /// Checks messages and takes room for them, before they are added.
    fn admit<'a>(&'a self, messages: &'a [Message]) -> BoxFuture<'a, Result<(), QueueError>>;

    /// Adds messages in the transaction that a connection has open; returns their ids.
    fn insert<'a>(
        &'a self,
        on: &'a E::Connection,
        messages: &'a [Message],
    ) -> BoxFuture<'a, Result<Vec<String>, Fault>>;

    /// A transaction that added messages was committed, or may have been.
    fn committed(&self);
}

/// Those of one database, by label. Clones are the same.
pub(in crate::state) struct KeptQueues<E: Engine>(Rc<RefCell<Kept<E>>>);

type Kept<E> = BTreeMap<String, Rc<dyn KeptQueue<E>>>;

impl<E: Engine> Clone for KeptQueues<E> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<E: Engine> Default for KeptQueues<E> {
    fn default() -> Self {
        Self(Rc::default())
    }
}

impl<E: Engine> KeptQueues<E> {
    pub(in crate::state) fn add(&self, label: &str, queue: Rc<dyn KeptQueue<E>>) {
        self.0.borrow_mut().insert(label.to_owned(), queue);
    }

    pub(in crate::state) fn get(&self, label: &str) -> Option<Rc<dyn KeptQueue<E>>> {
        self.0.borrow().get(label).cloned()
    }

    /// Forgets all of them, so that they can end.
    pub(in crate::state) fn clear(&self) {
        self.0.take();
    }
}
