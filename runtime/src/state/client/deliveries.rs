//! Messages that the state process has handed to this worker, and the credit by which it gets more.
//!
//! Whatever happens to a batch settles it, once: then the worker can take another.

use super::link::Link;
use super::locked;
use crate::state::protocol::Call;
use crate::state::queue::{Delivery, Outcome, Settled};
use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use tokio::sync::mpsc;

/// What is said of a batch whose call ended without outcomes.
const NO_OUTCOMES: &str = "the call that handled it ended without an outcome";

/// Gets the batches of one queue.
#[derive(Debug)]
pub struct Consumer {
    batches: mpsc::UnboundedReceiver<Deliveries>,
}

/// A batch of messages to handle. Dropped without being settled, all of it failed.
#[derive(Debug)]
pub struct Deliveries {
    pub queue: String,
    pub batch: Vec<Delivery>,
    link: Arc<Link>,
    lanes: Arc<Consuming>,
    settled: bool,
}

/// The queues that this worker takes messages from.
#[derive(Debug, Default)]
pub(super) struct Consuming {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    link: Option<Arc<Link>>,
    queues: HashMap<String, Lane>,
}

#[derive(Debug)]
struct Lane {
    batch: u32,
    concurrency: u32,
    /// Batches that were delivered and are not settled, also those of connections that broke: their calls still run.
    busy: u32,
    /// It takes no more: there is no further credit.
    leaving: bool,
    batches: mpsc::UnboundedSender<Deliveries>,
}

impl Consumer {
    /// Returns the next batch; `None` once the worker has stopped consuming and all batches were returned.
    pub async fn next(&mut self) -> Option<Deliveries> {
        loop {
            let deliveries = self.batches.recv().await?;
            // What a connection that broke had delivered is delivered again to somebody.
            if deliveries.link.is_open() {
                return Some(deliveries);
            }
        }
    }
}

impl Deliveries {
    /// Says what became of each delivery, in their order.
    pub fn settle(mut self, outcomes: Vec<Outcome>) {
        self.finish(outcomes);
    }

    fn finish(&mut self, outcomes: Vec<Outcome>) {
        if std::mem::replace(&mut self.settled, true) {
            return;
        }
        let complete = outcomes.len() == self.batch.len();
        let mut outcomes = outcomes.into_iter().filter(|_| complete);
        let settle = |delivery: Delivery| Settled {
            id: delivery.id,
            receipt: delivery.receipt,
            outcome: outcomes
                .next()
                .unwrap_or_else(|| Outcome::Failed(NO_OUTCOMES.to_owned())),
        };
        let settled = self.batch.drain(..).map(settle).collect();
        self.link.tell(Call::Settle {
            queue: self.queue.clone(),
            settled,
        });
        self.lanes.take_another(&self.queue);
    }
}

impl Drop for Deliveries {
    fn drop(&mut self) {
        self.finish(Vec::new());
    }
}

impl Consuming {
    /// Takes messages of a queue from now on: up to `concurrency` batches at a time.
    pub(super) fn consume(&self, queue: &str, batch: u32, concurrency: u32) -> Consumer {
        let (sender, batches) = mpsc::unbounded_channel();
        let lane = Lane {
            batch,
            concurrency,
            busy: 0,
            leaving: false,
            batches: sender,
        };
        let mut state = locked(&self.state);
        if let Some(link) = &state.link {
            lane.credit(link, queue, concurrency);
        }
        state.queues.insert(queue.to_owned(), lane);
        Consumer { batches }
    }

    /// There is a new connection: gives it credit for what this worker can take.
    pub(super) fn connect(&self, link: &Arc<Link>) {
        let mut state = locked(&self.state);
        state.link = Some(link.clone());
        for (queue, lane) in &state.queues {
            lane.credit(link, queue, lane.concurrency.saturating_sub(lane.busy));
        }
    }

    pub(super) fn disconnect(&self) {
        locked(&self.state).link = None;
    }

    /// Hands a batch over.
    pub(super) fn deliver(self: &Arc<Self>, link: &Arc<Link>, queue: String, batch: Vec<Delivery>) {
        let mut state = locked(&self.state);
        let Some(lane) = state.queues.get_mut(&queue) else {
            // Nothing was asked for, and what is not settled comes back to others with the end of the connection.
            return;
        };
        lane.busy += 1;
        let unread = lane.batches.send(Deliveries {
            queue,
            batch,
            link: link.clone(),
            lanes: self.clone(),
            settled: false,
        });
        // Dropping it settles it, which takes this lock.
        drop(state);
        drop(unread);
    }

    fn take_another(&self, queue: &str) {
        let mut state = locked(&self.state);
        let State { link, queues } = &mut *state;
        if let Some(lane) = queues.get_mut(queue) {
            lane.busy = lane.busy.saturating_sub(1);
            if let Some(link) = link {
                lane.credit(link, queue, 1);
            }
        }
    }

    /// Gives no more credit; returns the queues that are to be told.
    pub(super) fn leave(&self) -> Vec<String> {
        let mut state = locked(&self.state);
        for lane in state.queues.values_mut() {
            lane.leaving = true;
        }
        state.queues.keys().cloned().collect()
    }

    /// Hands over no more batches: consumers end after those that they have.
    pub(super) fn stop(&self) {
        locked(&self.state).queues.retain(|_, lane| !lane.leaving);
    }
}

impl Lane {
    fn credit(&self, link: &Link, queue: &str, batches: u32) {
        if batches > 0 && !self.leaving {
            link.tell(Call::Credit {
                queue: queue.to_owned(),
                batch: self.batch,
                batches,
            });
        }
    }
}
