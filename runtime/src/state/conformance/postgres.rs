//! A real PostgreSQL, with a database, and a queue in it, for each case.

use super::{Backend, HasDatabase, HasOutbox, HasQueue, HasSharedOutbox};
use crate::config::shared;
use crate::state::db::{Database, Value};
use crate::state::lock::SessionId;
use crate::state::outbox::Outbox;
use crate::state::postgres::{Address, Postgres, PostgresQueue};
use crate::state::queue::{Delivery, Queue};
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::mpsc::{self, UnboundedReceiver};

/// The server, while there is one.
static SERVER: Mutex<Option<wrun_tests::postgres::Postgres>> = Mutex::new(None);

/// Tests have it one after the other.
static TURN: Mutex<()> = Mutex::new(());

/// Keeps the server up until it is dropped.
pub(super) struct Server {
    _turn: MutexGuard<'static, ()>,
}

impl Server {
    /// Starts it; `None`, which is said on stderr, if it is not installed.
    pub(super) fn start() -> Option<Self> {
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let server = wrun_tests::postgres::Postgres::for_test()?;
        *lock() = Some(server);
        Some(Self { _turn: turn })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        lock().take();
    }
}

pub(super) fn lock() -> MutexGuard<'static, Option<wrun_tests::postgres::Postgres>> {
    SERVER.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(super) struct Bound {
    database: String,
    postgres: Postgres,
    queue: PostgresQueue,
    delivered: UnboundedReceiver<(SessionId, Vec<Delivery>)>,
}

impl Bound {
    async fn open_again(database: String) -> Self {
        let url = lock().as_ref().unwrap().url(&database);
        let address = Address::parse(&url).unwrap();
        let postgres = Postgres::new("default", address.clone());
        postgres.prepare(None).await.unwrap();
        let (deliver, delivered) = mpsc::unbounded_channel();
        let queue = PostgresQueue::new(
            Self::QUEUE,
            &settings(),
            address,
            "server",
            Rc::new(move |session, batch| drop(deliver.send((session, batch)))),
        );
        assert!(postgres.know(Self::QUEUE, &queue));
        postgres.forward(Self::ELSEWHERE, Rc::default());
        Self {
            database,
            postgres,
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
    const NAME: &'static str = "postgres";

    async fn open() -> Self {
        static CASES: AtomicUsize = AtomicUsize::new(0);
        let database = format!("case_{}", CASES.fetch_add(1, Ordering::Relaxed));
        lock().as_ref().unwrap().create(&database);
        Self::open_again(database).await
    }

    async fn restart(self) -> Self {
        self.queue.close().await;
        self.postgres.close();
        if let Some(server) = lock().as_mut() {
            server.stop();
            server.start_again();
        }
        Self::open_again(self.database).await
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

impl HasOutbox for Bound {
    fn outbox(&self) -> Rc<dyn Outbox> {
        self.postgres.outbox()
    }
}

impl HasSharedOutbox for Bound {
    fn elsewhere(&self) -> Rc<dyn Outbox> {
        let url = lock().as_ref().unwrap().url(&self.database);
        Postgres::new("default", Address::parse(&url).unwrap()).outbox()
    }
}

impl HasDatabase for Bound {
    fn database(&self) -> &dyn Database {
        &self.postgres
    }

    fn declare(value: &Value) -> &'static str {
        match value {
            Value::Null | Value::Text(_) | Value::Other(..) => "TEXT",
            Value::Boolean(_) => "BOOLEAN",
            Value::Integer(_) => "BIGINT",
            Value::Real(_) => "DOUBLE PRECISION",
            Value::Blob(_) => "BYTEA",
            Value::Decimal(_) => "NUMERIC",
            Value::Date(_) => "DATE",
            Value::Time(_) => "TIME",
            Value::TimestampUs(_) => "TIMESTAMPTZ",
            Value::Uuid(..) => "UUID",
            Value::Json(_) => "JSONB",
        }
    }
}
