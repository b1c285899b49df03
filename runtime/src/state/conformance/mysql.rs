//! A real MariaDB, or MySQL if that is what tests are given, with a database for each case.

use super::{Backend, HasDatabase, HasOutbox, HasSharedOutbox};
use crate::state::db::{Database, Value};
use crate::state::mysql::{Address, Mysql};
use crate::state::outbox::Outbox;
use crate::state::text;
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use wrun_tests::mariadb::is_mysql;

/// The server, while there is one.
static SERVER: Mutex<Option<wrun_tests::mariadb::MariaDb>> = Mutex::new(None);

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
        let server = wrun_tests::mariadb::MariaDb::for_test()?;
        *lock() = Some(server);
        Some(Self { _turn: turn })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        lock().take();
    }
}

fn lock() -> MutexGuard<'static, Option<wrun_tests::mariadb::MariaDb>> {
    SERVER.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(super) struct Bound {
    database: String,
    mysql: Mysql,
}

impl Bound {
    async fn open_again(database: String) -> Self {
        let url = lock().as_ref().unwrap().url(&database);
        let mysql = Mysql::new("default", Address::parse(&url).unwrap());
        mysql.prepare(None).await.unwrap();
        mysql.forward(Self::ELSEWHERE, Rc::default());
        Self { database, mysql }
    }
}

impl Backend for Bound {
    const NAME: &'static str = "mariadb";

    fn name() -> &'static str {
        match is_mysql() {
            true => "mysql",
            false => Self::NAME,
        }
    }

    async fn open() -> Self {
        static CASES: AtomicUsize = AtomicUsize::new(0);
        let database = format!("case_{}", CASES.fetch_add(1, Ordering::Relaxed));
        lock().as_ref().unwrap().create(&database);
        Self::open_again(database).await
    }

    async fn restart(self) -> Self {
        self.mysql.close();
        if let Some(server) = lock().as_mut() {
            server.stop();
            server.start_again();
        }
        Self::open_again(self.database).await
    }
}

impl HasOutbox for Bound {
    fn outbox(&self) -> Rc<dyn Outbox> {
        self.mysql.outbox()
    }
}

impl HasSharedOutbox for Bound {
    fn elsewhere(&self) -> Rc<dyn Outbox> {
        let url = lock().as_ref().unwrap().url(&self.database);
        Mysql::new("default", Address::parse(&url).unwrap()).outbox()
    }
}

impl HasDatabase for Bound {
    fn database(&self) -> &dyn Database {
        &self.mysql
    }

    fn declare(value: &Value) -> &'static str {
        match value {
            Value::Null | Value::Text(_) | Value::Other(..) => "TEXT",
            Value::Boolean(_) => "BOOLEAN",
            Value::Integer(_) => "BIGINT",
            Value::Real(_) => "DOUBLE",
            Value::Blob(_) => "BLOB",
            Value::Decimal(_) => "DECIMAL(30, 2)",
            Value::Date(_) => "DATE",
            Value::Time(_) => "TIME",
            Value::TimestampUs(_) => "DATETIME(6)",
            Value::Uuid(..) if is_mysql() => "CHAR(36)",
            Value::Uuid(..) => "UUID",
            Value::Json(_) => "JSON",
        }
    }

    /// MySQL has no type for UUIDs: they are texts.
    fn comes_back(value: Value) -> Value {
        match value {
            Value::Uuid(high, low) if is_mysql() => Value::Text(text::uuid(high, low)),
            value => value,
        }
    }
}
