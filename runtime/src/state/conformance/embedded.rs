//! The embedded backends as the state process puts them together: one database, with the locks' tokens and a queue in it.

use super::{Backend, HasDatabase, HasLocks, HasOutbox, HasQueue};
use crate::config::shared::{self, Durability};
use crate::state::db::{Database, Value};
use crate::state::lock::embedded::{EmbeddedLocks, Outside, TOKEN_BLOCK};
use crate::state::lock::{Locks, SessionId};
use crate::state::outbox::Outbox;
use crate::state::queue::embedded::EmbeddedQueue;
use crate::state::queue::{Delivery, Queue};
use crate::state::sqlite::{Options, Sqlite};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;
use tokio::sync::mpsc::{self, UnboundedReceiver};
use tokio::task::AbortHandle;

pub(super) struct Embedded {
    sqlite: Sqlite,
    locks: EmbeddedLocks,
    queue: EmbeddedQueue,
    delivered: UnboundedReceiver<(SessionId, Vec<Delivery>)>,
    passing_on: AbortHandle,
    folder: TempDir,
}

impl Embedded {
    async fn open_in(folder: TempDir) -> Self {
        let (sender, mut sent) = mpsc::unbounded_channel();
        let options = Options {
            path: folder.path().join("default.db"),
            label: "default".to_owned(),
            max_size: 1 << 30,
            durability: Durability::Full,
            vfs: None,
            sync: None,
            fatal: Arc::new(|reason| panic!("{reason}")),
            queues: [(Self::QUEUE.to_owned(), Self::DEPTH_MAX)].into(),
        };
        let sqlite = Sqlite::open(options, sender).unwrap();
        sqlite.set_outgoing([Self::ELSEWHERE.to_owned()].into());
        let (deliver, delivered) = mpsc::unbounded_channel();
        let queue = EmbeddedQueue::new(
            Self::QUEUE.to_owned(),
            &settings(),
            sqlite.clone(),
            Rc::new(move |session, batch| drop(deliver.send((session, batch)))),
            sqlite.load().await.unwrap(),
        );
        let passing = queue.clone();
        let passing_on = tokio::task::spawn_local(async move {
            while let Some(stored) = sent.recv().await {
                passing.arrived(stored);
            }
        });
        Self {
            locks: locks(&sqlite).await,
            sqlite,
            queue,
            delivered,
            passing_on: passing_on.abort_handle(),
            folder,
        }
    }
}

fn settings() -> shared::Queue {
    shared::Queue {
        database: "default".to_owned(),
        max_depth: Embedded::DEPTH_MAX,
        max_attempts: Embedded::ATTEMPTS_MAX,
        visibility_timeout: Duration::from_secs(30),
        backoff: Embedded::BACKOFF,
        backoff_max: Embedded::BACKOFF,
        bound: None,
    }
}

async fn locks(sqlite: &Sqlite) -> EmbeddedLocks {
    let end = sqlite.reserve_tokens(TOKEN_BLOCK).await.unwrap();
    let more = sqlite.clone();
    let outside = Outside {
        on_lost: Box::new(|_| {}),
        reserve: Box::new(move || {
            let reserved = more.reserve_tokens(TOKEN_BLOCK);
            Box::pin(async { reserved.await.map_err(|error| error.to_string()) })
        }),
    };
    EmbeddedLocks::new((end - TOKEN_BLOCK).max(1)..end, outside)
}

impl Backend for Embedded {
    const NAME: &'static str = "embedded";

    async fn open() -> Self {
        Self::open_in(tempfile::tempdir().unwrap()).await
    }

    async fn restart(self) -> Self {
        self.queue.flush().await;
        self.passing_on.abort();
        self.sqlite.close().await;
        Self::open_in(self.folder).await
    }
}

impl HasDatabase for Embedded {
    fn database(&self) -> &dyn Database {
        &self.sqlite
    }

    fn declare(value: &Value) -> &'static str {
        match value {
            Value::Null | Value::Text(_) | Value::Other(..) => "TEXT",
            Value::Boolean(_) => "BOOLEAN",
            Value::Integer(_) => "INTEGER",
            Value::Real(_) => "REAL",
            Value::Blob(_) => "BLOB",
            Value::Decimal(_) => "DECIMAL TEXT",
            Value::Date(_) => "DATE",
            Value::Time(_) => "TIME",
            Value::TimestampUs(_) => "TIMESTAMP",
            Value::Uuid(..) => "UUID",
            Value::Json(_) => "JSON",
        }
    }
}

impl HasOutbox for Embedded {
    fn outbox(&self) -> Rc<dyn Outbox> {
        Rc::new(self.sqlite.clone())
    }
}

impl HasLocks for Embedded {
    fn locks(&self) -> &dyn Locks {
        &self.locks
    }
}

impl HasQueue for Embedded {
    fn queue(&self) -> &dyn Queue {
        &self.queue
    }

    async fn next_batch(&mut self) -> (SessionId, Vec<Delivery>) {
        self.delivered.recv().await.unwrap()
    }
}
