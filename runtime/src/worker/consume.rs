//! Messages in: takes deliveries of the queues that the component handles, has guests handle them, and says what became of
//! them.
//!
//! How many come at a time is settled by credit with the state process; what happens to a message that was not handled is
//! the state process's business.

use super::Worker;
use crate::config::shared::Consumer;
use crate::state::client::{self, Client, Deliveries};
use crate::state::queue::Outcome;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::task::JoinSet;

/// The queues that a worker takes deliveries from.
pub(super) struct Consumers {
    client: Option<Client>,
    queues: JoinSet<()>,
}

impl Consumers {
    /// Starts to take deliveries from `queues`.
    pub(super) fn start(
        worker: &Arc<Worker>,
        client: Option<Client>,
        queues: &BTreeMap<String, Consumer>,
    ) -> Self {
        let mut tasks = JoinSet::new();
        if let Some(client) = &client {
            for (label, consumer) in queues {
                let queue = client.consume(label, consumer.batch, consumer.concurrency);
                tasks.spawn(take(worker.clone(), queue, consumer.concurrency));
            }
        }
        Self {
            client,
            queues: tasks,
        }
    }

    /// Asks for no more deliveries, and waits until those that are here are settled. May be cancelled and called again.
    pub(super) async fn end(&mut self) {
        if let Some(client) = &self.client {
            client.stop_consuming().await;
        }
        while self.queues.join_next().await.is_some() {}
    }
}

/// Handles what comes from one queue, up to `concurrency` batches at a time.
async fn take(worker: Arc<Worker>, mut queue: client::Consumer, concurrency: u32) {
    let mut running = JoinSet::new();
    loop {
        tokio::select! {
            Some(deliveries) = queue.next(), if running.len() < concurrency as usize => {
                running.spawn(handle(worker.clone(), deliveries));
            }
            Some(_) = running.join_next() => {}
            else => break,
        }
    }
}

/// Has a guest handle one batch. Dropped before its end, the batch counts as failed.
async fn handle(worker: Arc<Worker>, mut deliveries: Deliveries) {
    let _counted = Counted::begin(&worker.batches);
    let first = deliveries.batch.first().map_or("", |first| &first.id);
    let id: Arc<str> = format!("queue-{}-{first}", deliveries.queue).into();
    let Deliveries { queue, batch, .. } = &mut deliveries;
    let outcomes = match worker.handler.consume(queue, batch, &id).await {
        Ok(outcomes) => outcomes,
        Err(stopped) => {
            let messages = batch.len();
            tracing::warn!(request_id = &*id, messages, %stopped, "messages not handled");
            vec![Outcome::Failed(stopped.to_string()); messages]
        }
    };
    deliveries.settle(outcomes);
    worker.count_request();
}

/// Counts a batch until it is over, however that happens.
struct Counted<'a>(&'a AtomicUsize);

impl<'a> Counted<'a> {
    fn begin(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
