//! The relays: one from each database to each queue of a server, which take on what transactions send to a queue that is not
//! in their database.

use crate::state::db::DbError;
use crate::state::outbox::Outbox;
use crate::state::outbox::relay::Relay;
use crate::state::queue::Queue;
use futures_util::future::try_join_all;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use tokio::sync::Notify;

/// Where one comes from and where it leads, by label. Beside a database that is bound there may be an embedded one.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
struct Way {
    queue: String,
    database: String,
    is_embedded: bool,
}

/// Those that are at work.
#[derive(Default)]
pub(super) struct Relays(RefCell<BTreeMap<Way, Rc<Relay>>>);

impl Relays {
    /// Starts one, unless it is there; returns its bell. To be called within a `LocalSet`.
    pub(super) fn start(
        &self,
        (database, is_embedded): (&str, bool),
        label: &str,
        outbox: impl FnOnce() -> Rc<dyn Outbox>,
        queue: impl FnOnce() -> Rc<dyn Queue>,
    ) -> Rc<Notify> {
        let way = Way {
            queue: label.to_owned(),
            database: database.to_owned(),
            is_embedded,
        };
        let mut relays = self.0.borrow_mut();
        let relay = relays
            .entry(way)
            .or_insert_with(|| Rc::new(Relay::start(database, outbox(), label, queue())));
        relay.bell()
    }

    /// Has those from embedded databases look that lead to a queue.
    pub(super) fn wake(&self, label: &str) {
        for (way, relay) in &*self.0.borrow() {
            if way.queue == label && way.is_embedded {
                relay.bell().notify_one();
            }
        }
    }

    /// Returns how many messages wait for a queue, in whichever outbox.
    pub(super) async fn count(&self, label: &str) -> Result<u64, DbError> {
        let relays: Vec<_> = {
            let relays = self.0.borrow();
            let leading = relays.iter().filter(|(way, _)| way.queue == label);
            leading.map(|(_, relay)| relay.clone()).collect()
        };
        let counts = relays.iter().map(|relay| relay.count());
        Ok(try_join_all(counts).await?.into_iter().sum())
    }

    /// Ends all of them.
    pub(super) fn clear(&self) {
        self.0.take();
    }
}
