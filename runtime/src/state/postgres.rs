//! PostgreSQL as a [`Database`]: a database of a server that others run, and may share.
//!
//! All of it is in the state process and on its one thread. The language is PostgreSQL's own; what differs from the
//! embedded engine is in docs/postgresql.md.

mod address;
mod connection;
mod convert;
mod error;
mod inspect;
mod locks;
mod migrate;
mod outbox;
mod queue;
mod tls;
mod tokens;
mod transaction;

#[cfg(test)]
mod tests;

pub use address::Address;
pub use inspect::{Inspection, inspect, inspect_replica};
pub(in crate::state) use locks::PostgresLocks;
pub use queue::PostgresQueue;

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
use tokio_postgres::Notification;

/// A database. Clones are the same.
#[derive(Clone)]
pub struct Postgres {
    pool: Pool<Address>,
    /// Of a server that follows it, for what only reads.
    replica: Option<Pool<Address>>,
    queues: KeptQueues<Address>,
    outbox: RemoteOutbox<Address>,
}

impl Postgres {
    /// Takes a database that is somewhere; nobody is asked yet whether it is there.
    pub fn new(label: &str, address: Address) -> Self {
        let quiet = address.clone().with_settings(queue::SETTINGS);
        Self {
            outbox: RemoteOutbox::new(label, quiet),
            pool: Pool::new(format!("db.{label}"), address, CONNECTIONS_MAX),
            replica: None,
            queues: KeptQueues::default(),
        }
    }

    /// Has a replica of the server take the transactions that only read, while it can be reached.
    #[must_use]
    pub fn with_replica(mut self, label: &str, address: Address) -> Self {
        self.replica = Some(Pool::of_replica(label, address, CONNECTIONS_MAX));
        self
    }

    /// Lets transactions send to a queue, if it is kept in the same database; false if it is not.
    pub fn know(&self, label: &str, queue: &PostgresQueue) -> bool {
        let is_here = self.pool.engine().is_same_database(queue.address());
        if is_here {
            self.queues.add(label, Rc::new(queue.clone()));
        }
        is_here
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
    const PRODUCT: &'static str = "PostgreSQL";
    type Connection = Connection;

    async fn connect(&self) -> Result<Connection, String> {
        self.connect_and_hear(|_| {}).await
    }
}

impl Address {
    /// Makes a connection that has `hear` told what others notify it of.
    async fn connect_and_hear(
        &self,
        hear: impl Fn(&Notification) + Send + 'static,
    ) -> Result<Connection, String> {
        let connected = self.tls.connect(&self.config, hear).await;
        let (client, driver) = connected.map_err(|error| error::whole(&error))?;
        Ok(Connection::new(client, driver, self.tls.clone()))
    }
}

impl Database for Postgres {
    fn dialect(&self) -> &'static str {
        "postgres"
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

/// Returns what begins a transaction, with its limits.
fn begin(options: TxOptions) -> String {
    let isolation = match options.isolation {
        Isolation::ReadCommitted => "READ COMMITTED",
        Isolation::RepeatableRead => "REPEATABLE READ",
        Isolation::Serializable => "SERIALIZABLE",
    };
    let access = if options.read_only {
        "READ ONLY"
    } else {
        "READ WRITE"
    };
    let statement = options.timeout.min(STATEMENT_TIME_MAX).as_millis().max(1);
    let idle = (IDLE_MAX + GRACE).as_millis();
    format!(
        "BEGIN ISOLATION LEVEL {isolation} {access}; SET LOCAL statement_timeout = {statement}; \
         SET LOCAL idle_in_transaction_session_timeout = {idle}"
    )
}
