//! The mock cluster of Kafka's library, or one's own cluster, with topics of their own for each case.
//!
//! They have one partition, so that messages without a key are in an order, too, and come in one batch: where there are several,
//! that is by nature not so.

use super::{Backend, DedupIds, HasQueue};
use crate::config::shared;
use crate::state::kafka::{Address, KafkaQueue};
use crate::state::lock::SessionId;
use crate::state::queue::{Delivery, Queue};
use std::rc::Rc;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::mpsc::{self, UnboundedReceiver};
use wrun_tests::kafka::Kafka;

/// The cluster, while there is one.
static SERVER: Mutex<Option<Kafka>> = Mutex::new(None);

/// Keeps the cluster up until it is dropped.
pub(super) struct Server;

impl Server {
    pub(super) fn start() -> Self {
        *lock() = Some(Kafka::for_test());
        Self
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        lock().take();
    }
}

fn lock() -> MutexGuard<'static, Option<Kafka>> {
    SERVER.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(super) struct Bound {
    url: String,
    queue: KafkaQueue,
    delivered: UnboundedReceiver<(SessionId, Vec<Delivery>)>,
}

impl Bound {
    async fn open_again(url: String) -> Self {
        let (deliver, delivered) = mpsc::unbounded_channel();
        let queue = KafkaQueue::new(
            Self::QUEUE,
            &settings(),
            Address::parse(&url).unwrap(),
            Rc::new(move |session, batch| drop(deliver.send((session, batch)))),
        );
        queue.prepare(false).await.unwrap();
        Self {
            url,
            queue,
            delivered,
        }
    }
}

fn settings() -> shared::Queue {
    shared::Queue {
        database: "default".to_owned(),
        max_depth: Bound::DEPTH_MAX,
        max_attempts: Bound::ATTEMPTS_MAX,
        visibility_timeout: Duration::from_secs(30),
        backoff: Bound::BACKOFF,
        backoff_max: Bound::BACKOFF,
        bound: None,
    }
}

impl Backend for Bound {
    const NAME: &'static str = "kafka";

    async fn open() -> Self {
        let url = lock().as_ref().unwrap().with_jobs(1);
        Self::open_again(url).await
    }

    async fn restart(self) -> Self {
        self.queue.close().await;
        Self::open_again(self.url).await
    }
}

impl HasQueue for Bound {
    const DEDUP_IDS: DedupIds = DedupIds::AreIds;

    fn queue(&self) -> &dyn Queue {
        &self.queue
    }

    async fn next_batch(&mut self) -> (SessionId, Vec<Delivery>) {
        self.delivered.recv().await.unwrap()
    }
}
