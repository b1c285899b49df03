//! A real PostgreSQL, with a database for each case.

use super::{Backend, HasDatabase};
use crate::state::db::{Database, Value};
use crate::state::postgres::{Address, Postgres};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The server, while there is one.
static SERVER: Mutex<Option<wrun_tests::postgres::Postgres>> = Mutex::new(None);

/// Keeps the server up until it is dropped.
pub(super) struct Server;

impl Server {
    /// Starts it; `None`, which is said on stderr, if it is not installed.
    pub(super) fn start() -> Option<Self> {
        let server = wrun_tests::postgres::Postgres::for_test()?;
        *lock() = Some(server);
        Some(Self)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        lock().take();
    }
}

fn lock() -> MutexGuard<'static, Option<wrun_tests::postgres::Postgres>> {
    SERVER.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(super) struct Bound {
    database: String,
    postgres: Postgres,
}

impl Bound {
    async fn open_again(database: String) -> Self {
        let url = lock().as_ref().unwrap().url(&database);
        let postgres = Postgres::new("default", Address::parse(&url).unwrap());
        postgres.prepare(None).await.unwrap();
        Self { database, postgres }
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
        self.postgres.close();
        if let Some(server) = lock().as_mut() {
            server.stop();
            server.start_again();
        }
        Self::open_again(self.database).await
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
