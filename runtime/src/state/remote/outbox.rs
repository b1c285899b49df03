//! Outboxes of databases of servers: whoever leads has a connection for it, and a lock that ends with that.
//!
//! How messages are kept there, and what the lock is, is for the engine.

use super::kept::KeptQueue;
use super::pool::{Lent, Pool};
use super::{Connection, Engine, Fault};
use crate::state::BoxFuture;
use crate::state::db::DbError;
use crate::state::outbox::{Lead, Letter, Outbox, Waiting, check, stamp};
use crate::state::queue::{Message, QueueError};
use std::rc::Rc;
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout};

/// Connections of one outbox.
const CONNECTIONS_MAX: usize = 8;

/// How long the server may take to answer.
const ANSWER_MAX: Duration = Duration::from_secs(12);

/// What is done with an outbox on a connection.
pub(in crate::state) trait Letters: Connection {
    /// Adds messages in the transaction that is open. Others that have messages of the same keys wait for its end, from
    /// before these get their numbers.
    async fn put(&self, queue: &str, messages: &[Message]) -> Result<(), Fault>;

    /// Tells whether messages wait for a queue.
    async fn waits(&self, queue: &str) -> Result<bool, Fault>;

    /// Returns how many do.
    async fn count(&self, queue: &str) -> Result<u64, Fault>;

    /// Takes the lock of a queue, for as long as the connection lives; false if somebody else has it.
    async fn lock(&self, queue: &str) -> Result<bool, Fault>;

    async fn unlock(&self, queue: &str) -> Result<(), Fault>;

    /// Returns the first messages in their order, without their content.
    async fn look(&self, queue: &str, most: usize) -> Result<Vec<Waiting>, Fault>;

    /// Returns those of these messages that are there, in their order.
    async fn read(&self, rows: &[i64]) -> Result<Vec<Letter>, Fault>;

    /// Removes messages, in a transaction of its own.
    async fn remove(&self, rows: &[i64]) -> Result<(), Fault>;
}

/// The outbox of one database. Clones are the same.
pub(in crate::state) struct RemoteOutbox<E: Engine>(Pool<E>);

impl<E: Engine> Clone for RemoteOutbox<E> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<E: Engine> RemoteOutbox<E>
where
    E::Connection: Letters,
{
    /// Takes that of the database that is bound by a label.
    pub(in crate::state) fn new(label: &str, engine: E) -> Self {
        Self(Pool::new(
            format!("outbox.{label}"),
            engine,
            CONNECTIONS_MAX,
        ))
    }

    /// Ends its connections.
    pub(in crate::state) fn close(&self) {
        self.0.close();
    }

    /// Does something on a connection that leaves nothing behind if it succeeds.
    fn ask<T: 'static>(
        &self,
        work: impl AsyncFnOnce(&E::Connection) -> Result<T, Fault> + 'static,
    ) -> BoxFuture<'static, Result<T, DbError>> {
        let pool = self.0.clone();
        Box::pin(async move {
            let lent = pool.get(Instant::now() + ANSWER_MAX).await?;
            let done = within::<E, _>(work(&lent)).await?;
            lent.give_back_clean();
            Ok(done)
        })
    }
}

impl<E: Engine> Outbox for RemoteOutbox<E>
where
    E::Connection: Letters,
{
    fn is_shared(&self) -> bool {
        true
    }

    fn waits(&self, queue: &str) -> BoxFuture<'static, Result<bool, DbError>> {
        let queue = queue.to_owned();
        self.ask(async move |on: &E::Connection| on.waits(&queue).await)
    }

    fn count(&self, queue: &str) -> BoxFuture<'static, Result<u64, DbError>> {
        let queue = queue.to_owned();
        self.ask(async move |on: &E::Connection| on.count(&queue).await)
    }

    fn lead(&self, queue: &str) -> BoxFuture<'static, Result<Option<Box<dyn Lead>>, DbError>> {
        let (pool, queue) = (self.0.clone(), queue.to_owned());
        Box::pin(async move {
            let lent = pool.get(Instant::now() + ANSWER_MAX).await?;
            if !within::<E, _>(lent.lock(&queue)).await? {
                lent.give_back_clean();
                return Ok(None);
            }
            Ok(Some(Box::new(Leading { lent, queue }) as Box<dyn Lead>))
        })
    }
}

/// The lead, with its connection. Dropped, the server ends the lock when it notices.
struct Leading<E: Engine> {
    lent: Lent<E>,
    queue: String,
}

impl<E: Engine> Lead for Leading<E>
where
    E::Connection: Letters,
{
    fn look(&self, most: usize) -> BoxFuture<'_, Result<Vec<Waiting>, DbError>> {
        Box::pin(within::<E, _>(self.lent.look(&self.queue, most)))
    }

    fn read(&self, rows: Vec<i64>) -> BoxFuture<'_, Result<Vec<Letter>, DbError>> {
        Box::pin(async move { within::<E, _>(self.lent.read(&rows)).await })
    }

    fn remove(&self, rows: Vec<i64>) -> BoxFuture<'_, Result<(), DbError>> {
        Box::pin(async move { within::<E, _>(self.lent.remove(&rows)).await })
    }

    fn resign(self: Box<Self>) -> BoxFuture<'static, ()> {
        Box::pin(async move {
            let Self { lent, queue } = *self;
            if within::<E, _>(lent.unlock(&queue)).await.is_ok() {
                lent.give_back_clean();
            }
        })
    }
}

/// A queue that is kept elsewhere, as the transactions of a database know it.
pub(in crate::state) struct Outgoing {
    pub(in crate::state) label: String,
    /// Wakes the relay.
    pub(in crate::state) bell: Rc<Notify>,
}

impl<E: Engine> KeptQueue<E> for Outgoing
where
    E::Connection: Letters,
{
    fn admit<'a>(&'a self, messages: &'a [Message]) -> BoxFuture<'a, Result<(), QueueError>> {
        Box::pin(async move { check(messages) })
    }

    fn insert<'a>(
        &'a self,
        on: &'a E::Connection,
        messages: &'a [Message],
    ) -> BoxFuture<'a, Result<Vec<String>, Fault>> {
        Box::pin(async move {
            let (stamped, ids) = stamp(messages)?;
            on.put(&self.label, &stamped).await?;
            Ok(ids)
        })
    }

    fn committed(&self) {
        self.bell.notify_one();
    }
}

/// Waits for an answer, but not for ever. After an error the connection is not to be used again.
async fn within<E: Engine, T>(work: impl Future<Output = Result<T, Fault>>) -> Result<T, DbError> {
    match timeout(ANSWER_MAX, work).await {
        Ok(done) => done.map_err(|fault| fault.told),
        Err(_) => Err(DbError::Unavailable(format!(
            "{}: it does not answer",
            E::PRODUCT
        ))),
    }
}
