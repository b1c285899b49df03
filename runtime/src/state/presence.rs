//! Whether a server is there: the connection to it, numbered, or why there is none. Who connects is not known here.

use std::cell::{Cell, RefCell};
use tokio::sync::Notify;

/// A server's presence.
pub(in crate::state) struct Presence<C> {
    /// `Err` says why there is none.
    connection: RefCell<Result<C, String>>,
    /// There is one again, or none any more.
    change: Notify,
    /// How many there were. A server that forgot something has ended the one before.
    count: Cell<u64>,
}

impl<C: Clone> Presence<C> {
    /// Returns the presence of a server to which nobody has connected yet.
    pub(in crate::state) fn new() -> Self {
        Self {
            connection: RefCell::new(Err("nobody has connected yet".to_owned())),
            change: Notify::new(),
            count: Cell::new(0),
        }
    }

    pub(in crate::state) fn connection(&self) -> Result<C, String> {
        self.connection.borrow().clone()
    }

    /// Says why the server cannot be reached, if it cannot.
    pub(in crate::state) fn why_away(&self) -> Option<String> {
        self.connection.borrow().as_ref().err().cloned()
    }

    /// Returns the number of the connection that there is.
    pub(in crate::state) fn number(&self) -> Option<u64> {
        let is_here = self.connection.borrow().is_ok();
        is_here.then(|| self.count.get())
    }

    /// Waits until there is another connection than this, or none where there was one.
    pub(in crate::state) async fn is_other_than(&self, number: Option<u64>) {
        loop {
            let change = self.change.notified();
            if self.number() != number {
                return;
            }
            change.await;
        }
    }

    /// Waits until the server can be reached.
    pub(in crate::state) async fn back(&self) {
        loop {
            let change = self.change.notified();
            if self.why_away().is_none() {
                return;
            }
            change.await;
        }
    }

    /// Takes a connection as the one that there is. Tells whether the server was away after it had been there.
    pub(in crate::state) fn is_here(&self, connection: C) -> bool {
        let before = self.connection.replace(Ok(connection));
        let count = self.count.get();
        if before.is_err() {
            self.count.set(count + 1);
        }
        self.change.notify_waiters();
        before.is_err() && count > 0
    }

    /// Notes why there is none any more. Tells whether that is news.
    pub(in crate::state) fn is_away(&self, why: String) -> bool {
        let was_here = self.connection.replace(Err(why)).is_ok();
        self.change.notify_waiters();
        was_here
    }
}

/// The numbers of connections to several servers, always in the same order.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(in crate::state) struct Connections(pub(in crate::state) Vec<Option<u64>>);

impl Connections {
    /// Returns how many of these there still are.
    pub(in crate::state) fn alive(&self, now: &Self) -> usize {
        let both = self.0.iter().zip(&now.0);
        both.filter(|(said_on, now)| said_on.is_some() && said_on == now)
            .count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_connection_that_is_still_the_same_counts() {
        let said_on = Connections(vec![Some(1), Some(2), None, Some(4)]);
        let now = Connections(vec![Some(1), Some(3), None, None]);
        assert_eq!(said_on.alive(&now), 1);
        assert_eq!(said_on.alive(&said_on), 3);
    }

    #[test]
    fn numbers_grow_with_each_connection_after_the_server_was_away() {
        let presence = Presence::new();
        assert_eq!(presence.number(), None);
        assert!(!presence.is_here("first"));
        assert_eq!(presence.number(), Some(1));
        assert!(presence.is_away("gone".to_owned()));
        assert!(!presence.is_away("still".to_owned()));
        assert_eq!(presence.connection(), Err("still".to_owned()));
        assert!(presence.is_here("second"));
        assert_eq!(presence.number(), Some(2));
    }
}
