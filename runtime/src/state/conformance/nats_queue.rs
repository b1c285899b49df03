//! A real NATS server with JetStream, with an account of its own for each case of queues.

use super::{Backend, HasQueue};
use crate::config::shared;
use crate::state::lock::SessionId;
use crate::state::nats::{Address, NatsQueue};
use crate::state::queue::{Delivery, Queue};
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::mpsc::{self, UnboundedReceiver};
use wrun_tests::nats::Nats;

/// The server, while there is one.
static SERVER: Mutex<Option<Nats>> = Mutex::new(None);

/// Keeps the server up until it is dropped.
pub(super) struct Server;

impl Server {
    /// Starts one; `None`, which is said on stderr, if it is not installed.
    pub(super) fn start() -> Option<Self> {
        *lock() = Some(Nats::for_test()?);
        Some(Self)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        lock().take();
    }
}

fn lock() -> MutexGuard<'static, Option<Nats>> {
    SERVER.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(super) struct Bound {
    account: usize,
    queue: NatsQueue,
    delivered: UnboundedReceiver<(SessionId, Vec<Delivery>)>,
}

impl Bound {
    async fn open_again(account: usize) -> Self {
        let url = lock().as_ref().unwrap().account(account);
        let (deliver, delivered) = mpsc::unbounded_channel();
        let queue = NatsQueue::new(
            Self::QUEUE,
            &settings(),
            Address::parse(&url).unwrap(),
            "server",
            Rc::new(move |session, batch| drop(deliver.send((session, batch)))),
        );
        queue.prepare(false).await.unwrap();
        Self {
            account,
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
    const NAME: &'static str = "nats";

    async fn open() -> Self {
        static CASES: AtomicUsize = AtomicUsize::new(0);
        // A server has 64.
        Self::open_again(CASES.fetch_add(1, Ordering::Relaxed) % 64).await
    }

    async fn restart(self) -> Self {
        self.queue.close().await;
        if let Some(server) = lock().as_mut() {
            server.kill();
            server.start_again();
        }
        Self::open_again(self.account).await
    }
}

impl HasQueue for Bound {
    fn queue(&self) -> &dyn Queue {
        &self.queue
    }

    async fn next_batch(&mut self) -> (SessionId, Vec<Delivery>) {
        self.delivered.recv().await.unwrap()
    }
}
