//! MariaDB and MySQL as a [`Database`]: a database of a server that others run, and may share.
//!
//! All of it is in the state process and on its one thread. The language is the server's own; what differs from the
//! embedded engine is in docs/mariadb.md.

mod address;
mod connection;
mod convert;
mod cursor;
mod error;
mod fences;
mod inspect;
mod kinds;
mod migrate;
mod outbox;
mod statement;
mod tokens;
mod transaction;

#[cfg(test)]
mod tests;

pub use address::Address;
pub use inspect::{Inspection, inspect, inspect_replica};

use super::BoxFuture;
use super::db::{
    Database, DbError, Fence, GivenUp, Isolation, STATEMENT_TIME_MAX, Statement, Step, Transaction,
    TxOptions, Want, check_batch,
};
use super::outbox::Outbox;
use super::remote::kept::KeptQueues;
use super::remote::outbox::{Outgoing, RemoteOutbox};
use super::remote::pool::Pool;
use super::remote::route::Route;
use super::remote::{self, CONNECTIONS_MAX, Engine, GRACE, IDLE_MAX, batch};
use crate::ipc::Reach;
use connection::Connection;
use futures_util::future::join;
use std::future::ready;
use std::rc::Rc;
use tokio::sync::Notify;

/// A database. Clones are the same.
#[derive(Clone)]
pub struct Mysql {
    pool: Pool<Address>,
    /// Of a server that follows it, for what only reads.
    replica: Option<Pool<Address>>,
    queues: KeptQueues<Address>,
    outbox: RemoteOutbox<Address>,
    address: Address,
}

impl Mysql {
    /// Takes a database that is somewhere; nobody is asked yet whether it is there.
    pub fn new(label: &str, address: Address) -> Self {
        Self {
            pool: Pool::new(format!("db.{label}"), address.clone(), CONNECTIONS_MAX),
            replica: None,
            queues: KeptQueues::default(),
            outbox: RemoteOutbox::new(label, address.clone()),
            address,
        }
    }

    /// Has a replica of the server take the transactions that only read, while it can be reached.
    #[must_use]
    pub fn with_replica(mut self, label: &str, address: Address) -> Self {
        self.replica = Some(Pool::of_replica(label, address, CONNECTIONS_MAX));
        self
    }

    /// Lets transactions send to a queue that is kept elsewhere, by the outbox; the bell is then rung.
    pub fn forward(&self, label: &str, bell: Rc<Notify>) {
        let label = label.to_owned();
        self.queues
            .add(&label.clone(), Rc::new(Outgoing { label, bell }));
    }

    pub(in crate::state) fn outbox(&self) -> Rc<dyn Outbox> {
        Rc::new(self.outbox.clone())
    }

    /// Says why the server cannot be reached, if it cannot.
    pub fn why_away(&self) -> Option<String> {
        self.pool.why_away()
    }

    /// Connects to the replica, if there is one; returns why that cannot be.
    pub async fn meet_replica(&self) -> Option<String> {
        let met = self.replica.as_ref()?.connect().await;
        met.err().map(|error| error.to_string())
    }

    /// Tells whether the replica can be reached, if there is one.
    pub fn replica(&self) -> Option<Reach> {
        let why_away = self.replica.as_ref()?.why_away();
        Some(why_away.map_or(Reach::Here, Reach::Away))
    }

    /// Ends its connections. What is under way is rolled back by the server.
    pub fn close(&self) {
        self.queues.clear();
        self.outbox.close();
        self.pool.close();
        if let Some(replica) = &self.replica {
            replica.close();
        }
    }

    fn route(&self, options: TxOptions) -> Route<Address> {
        Route::new(self.pool.clone(), self.replica.as_ref(), options)
    }

    /// Watches for as long as it is polled.
    pub async fn watch(self) {
        match self.replica {
            Some(replica) => drop(join(self.pool.watch(), replica.watch()).await),
            None => self.pool.watch().await,
        }
    }
}

impl Engine for Address {
    const PRODUCT: &'static str = "MariaDB or MySQL";
    type Connection = Connection;

    async fn connect(&self) -> Result<Connection, String> {
        Connection::open(self).await
    }
}

impl Database for Mysql {
    fn dialect(&self) -> &'static str {
        match self.address.is_mariadb() {
            true => "mariadb",
            false => "mysql",
        }
    }

    fn batch_unless(
        &self,
        statements: Vec<(Statement, Want)>,
        options: TxOptions,
        fences: Vec<Fence>,
        given_up: GivenUp,
    ) -> BoxFuture<'_, Result<Vec<Step>, DbError>> {
        if let Err(error) = check_batch(&statements) {
            return Box::pin(ready(Err(error)));
        }
        Box::pin(
            async move { batch::run(self.route(options), &statements, &fences, &given_up).await },
        )
    }

    fn begin_fenced(
        &self,
        options: TxOptions,
        fences: Vec<Fence>,
    ) -> BoxFuture<'_, Result<Box<dyn Transaction>, DbError>> {
        let transaction =
            remote::transaction::new(self.route(options), self.queues.clone(), fences);
        Box::pin(ready(Ok(Box::new(transaction) as Box<dyn Transaction>)))
    }
}

/// What a transaction's statements may take, for the server to see to as well. Comments are for the one or the other:
/// MariaDB limits every statement and ends idle transactions, MySQL limits queries and ends idle connections.
fn limits(options: TxOptions) -> String {
    let statement = options.timeout.min(STATEMENT_TIME_MAX);
    let (seconds, millis) = (statement.as_secs_f64(), statement.as_millis().max(1));
    let wait = statement.as_secs().max(1);
    let idle = (IDLE_MAX + GRACE).as_secs();
    format!(
        "SET innodb_lock_wait_timeout={wait}, lock_wait_timeout={wait} /*M! , max_statement_time={seconds:.3}, \
         idle_transaction_timeout={idle} */ /*!50708 , max_execution_time={millis}, wait_timeout={idle} */"
    )
}

/// Returns what begins a transaction, with its limits. A savepoint tells later whether it is still the same one.
fn begin(options: TxOptions) -> String {
    let isolation = match options.isolation {
        Isolation::ReadCommitted => "READ COMMITTED",
        // Writers that are serializable hold what they read and wrote until they commit: what is committed at a moment is
        // serial, so that who only reads needs no locks.
        Isolation::Serializable if options.read_only => "REPEATABLE READ",
        Isolation::RepeatableRead => "REPEATABLE READ",
        Isolation::Serializable => "SERIALIZABLE",
    };
    let access = match (options.read_only, options.isolation) {
        (true, Isolation::ReadCommitted) => "READ ONLY",
        (true, _) => "WITH CONSISTENT SNAPSHOT, READ ONLY",
        (false, _) => "READ WRITE",
    };
    format!(
        "{}; SET TRANSACTION ISOLATION LEVEL {isolation}; START TRANSACTION {access}; SAVEPOINT _wrun",
        limits(options)
    )
}
