//! Queues that are bound to a server: opened, and made known to the databases whose transactions can send to them.

use super::{Configurator, wrong_url};
use crate::config::shared::{self, Bound, Shared};
use crate::exit_code::ExitCode;
use crate::failure::Failure;
use crate::state::keyvalue;
use crate::state::outbox::Outbox;
use crate::state::server::bound::queue::BoundQueue;
use std::rc::Rc;

impl Configurator {
    /// Opens those that a generation needs.
    pub(super) async fn open_bound_queues(
        &self,
        shared: &Shared,
        is_again: bool,
    ) -> Result<(), Failure> {
        for (label, settings) in &shared.queues {
            if let Some(bound) = &settings.bound {
                self.open_bound_queue(label, bound, settings, is_again)
                    .await?;
            }
        }
        self.introduce();
        Ok(())
    }

    /// Takes a queue of a server; the server may be away if it `is_again`, as for databases.
    async fn open_bound_queue(
        &self,
        label: &str,
        bound: &Bound,
        settings: &shared::Queue,
        is_again: bool,
    ) -> Result<(), Failure> {
        if let Some(queue) = self.stores.bound_queues.borrow().get(label) {
            queue.configure(settings);
            return Ok(());
        }
        let place = self.servers.queue(label);
        let place = place.map_err(|why| wrong_url("queue", label, bound, &why))?;
        let (identity, sink) = (&self.servers.identity, self.sink(label));
        let queue = BoundQueue::new(label, settings, place, identity, sink);
        match queue.prepare(is_again).await {
            Err(failure) if is_again && failure.code == ExitCode::Unavailable => {
                tracing::warn!(queue = label, error = %failure, "goes on without its server");
            }
            prepared => prepared?,
        }
        let mut open = self.stores.bound_queues.borrow_mut();
        open.insert(label.to_owned(), queue);
        Ok(())
    }

    /// Tells each database of the queues, and has relays lead from all databases to all of them: in an outbox there may be
    /// something from before a binding was another one.
    fn introduce(&self) {
        let (relays, queues) = (&self.stores.relays, self.stores.bound_queues.borrow());
        for (db, database) in &*self.stores.bound.borrow() {
            for (label, queue) in &*queues {
                let outbox = || database.outbox();
                let bell = relays.start((db, false), label, outbox, || queue.queue());
                database.know(label, queue, bell);
            }
        }
        let databases = self.stores.databases.borrow();
        let databases = databases.iter();
        for (db, sqlite) in databases.filter(|(label, _)| keyvalue::label(label).is_none()) {
            sqlite.set_outgoing(queues.keys().cloned().collect());
            for (label, queue) in &*queues {
                let outbox = || Rc::new(sqlite.clone()) as Rc<dyn Outbox>;
                relays.start((db, true), label, outbox, || queue.queue());
            }
        }
    }
}

/// Returns the queues that no server keeps.
pub(super) fn embedded_queues(shared: &Shared) -> impl Iterator<Item = (&String, &shared::Queue)> {
    let all = shared.queues.iter();
    all.filter(|(_, settings)| settings.bound.is_none())
}
