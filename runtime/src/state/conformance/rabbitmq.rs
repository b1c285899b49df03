//! A real RabbitMQ, with a queue of its own for each case.

use super::{Backend, DedupIds, HasQueue};
use crate::config::shared;
use crate::state::lock::SessionId;
use crate::state::queue::{Delivery, Queue};
use crate::state::rabbitmq::{Address, RabbitQueue};
use std::rc::Rc;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::mpsc::{self, UnboundedReceiver};
use wrun_tests::rabbitmq::Rabbit;

/// The server, while there is one.
static SERVER: Mutex<Option<Rabbit>> = Mutex::new(None);

/// Keeps the server up until it is dropped.
pub(super) struct Server;

impl Server {
    /// Starts one; `None`, which is said on stderr, if it is not installed.
    pub(super) fn start() -> Option<Self> {
        *lock() = Some(Rabbit::for_test()?);
        Some(Self)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        lock().take();
    }
}

fn lock() -> MutexGuard<'static, Option<Rabbit>> {
    SERVER.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(super) struct Bound {
    queue: RabbitQueue,
    delivered: UnboundedReceiver<(SessionId, Vec<Delivery>)>,
}

impl Bound {
    fn new() -> Self {
        let url = lock().as_ref().unwrap().url("/");
        let (deliver, delivered) = mpsc::unbounded_channel();
        let queue = RabbitQueue::new(
            Self::QUEUE,
            &settings(),
            Address::parse(&url).unwrap(),
            Rc::new(move |session, batch| drop(deliver.send((session, batch)))),
        );
        Self { queue, delivered }
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
    const NAME: &'static str = "rabbitmq";

    async fn open() -> Self {
        let bound = Self::new();
        bound.queue.delete().await;
        bound.queue.prepare(false).await.unwrap();
        bound
    }

    async fn restart(self) -> Self {
        self.queue.close().await;
        let bound = Self::new();
        bound.queue.prepare(false).await.unwrap();
        bound
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
