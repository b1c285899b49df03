//! A queue that is bound to PostgreSQL, which several servers of wrun's may share: its desk, with tables as the shelf.
//!
//! The lanes here know no more than the messages that this server has claimed. Key order among servers is kept by the
//! claims (`claim`): one at a time for each queue, and each takes a message only if no earlier one of its key is there,
//! and none in flight. A claim is good for as long as its server renews its lease (`lease`). A message that is to be
//! handled again is given back for any server to claim.

mod claim;
mod lease;
mod line;
mod look;
mod room;
mod send;
mod settle;
#[cfg(test)]
mod tests;

use super::address::Address;
use super::error::{is_broken, of_commit, to_db_error};
use super::migrate::make_ready;
use crate::config::shared;
use crate::failure::Failure;
use crate::state::BoxFuture;
use crate::state::db::DbError;
use crate::state::queue::desk::{Desk, Found, Shelf, Sink};
use crate::state::queue::lanes::{HandsBack, Lanes};
use crate::state::queue::sharing::{self, Bell, Room};
use crate::state::queue::stored::Change;
use crate::state::queue::{Message, Peeked, Queue, QueueError, QueueStatus};
use crate::state::remote::pool::Pool;
use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};
use tokio_postgres::{Client, Error};

/// Connections of one queue, beside the one that claims.
const CONNECTIONS_MAX: usize = 8;

/// How long wrun waits for an answer. The server stops what takes longer before that.
const ANSWER_MAX: Duration = Duration::from_secs(12);

/// What a session begins with: its statements depend on nothing that others do between two of them, and none waits long.
pub(super) const SETTINGS: &str = "-c default_transaction_isolation=read\\ committed -c statement_timeout=10s -c lock_timeout=5s \
    -c idle_in_transaction_session_timeout=5s";

/// A queue. Clones are the same.
#[derive(Clone)]
pub struct PostgresQueue {
    desk: Rc<Desk>,
    table: Rc<Table>,
    address: Rc<Address>,
    /// They end with the last clone.
    _tasks: Rc<JoinSet<()>>,
}

/// A queue's part of the tables, and what is known of it here.
struct Table {
    label: String,
    /// What this server of wrun's is known by; the same after its state process was replaced.
    server: String,
    pool: Pool<Address>,
    max_depth: Cell<u64>,
    room: RefCell<Room>,
    /// By what number its messages are held here, once that is registered.
    holder: Cell<Option<i64>>,
    /// Keys of which a message was settled: the next one may have to be let out.
    freed: RefCell<BTreeSet<String>>,
    /// How many messages, and in how many batches, are wanted here.
    wanted: Cell<(u64, u64)>,
    bell: Arc<Bell>,
}

impl PostgresQueue {
    /// Takes a queue that is somewhere; nobody is asked yet whether it is there. To be called within a `LocalSet`.
    pub fn new(
        label: &str,
        settings: &shared::Queue,
        address: Address,
        server: &str,
        sink: Sink,
    ) -> Self {
        let name = format!("queue.{label}");
        let with_settings = address.clone().with_settings(SETTINGS);
        let table = Rc::new(Table {
            label: label.to_owned(),
            server: server.to_owned(),
            pool: Pool::new(name, with_settings, CONNECTIONS_MAX),
            max_depth: Cell::new(settings.max_depth),
            room: RefCell::default(),
            holder: Cell::default(),
            freed: RefCell::default(),
            wanted: Cell::default(),
            bell: Arc::default(),
        });
        let (desk, mut tasks) = Desk::new(
            label.to_owned(),
            settings,
            Rc::new(Rows(table.clone())),
            sink,
            |lanes| lanes.handing_back(HandsBack::All),
        );
        tasks.spawn_local(line::keep(table.clone(), desk.clone()));
        Self {
            desk,
            table,
            address: Rc::new(address),
            _tasks: Rc::new(tasks),
        }
    }

    /// Makes wrun's tables, if they are missing.
    pub async fn prepare(&self) -> Result<(), Failure> {
        make_ready(&self.table.pool, "queue").await.map(drop)
    }

    /// Works by other settings from now on.
    pub fn configure(&self, settings: &shared::Queue) {
        self.table.max_depth.set(settings.max_depth);
        self.table.room.take();
        self.desk.configure(settings);
    }

    /// Says why the server cannot be reached, if it cannot.
    pub fn why_away(&self) -> Option<String> {
        self.table.pool.why_away()
    }

    pub(super) fn address(&self) -> &Address {
        &self.address
    }

    /// Writes down what was settled, gives back what is held here, and ends its connections.
    pub async fn close(&self) {
        self.desk.journal.flush().await;
        // If it fails, the lease runs out.
        let _ = self.table.release().await;
        self.table.pool.close();
    }
}

impl Table {
    /// Does something on a connection of the pool that leaves nothing behind if it succeeds.
    async fn ask<T>(
        &self,
        work: impl AsyncFnOnce(&Client) -> Result<T, Error>,
    ) -> Result<T, DbError> {
        self.ask_or(to_db_error, DbError::Unavailable(SILENT.to_owned()), work)
            .await
    }

    /// Does something that takes effect at once, and of which it may stay unknown whether it has.
    async fn change<T>(
        &self,
        work: impl AsyncFnOnce(&Client) -> Result<T, Error>,
    ) -> Result<T, DbError> {
        self.ask_or(of_commit, DbError::OutcomeUnknown, work).await
    }

    async fn ask_or<T>(
        &self,
        told: fn(&Error) -> DbError,
        silent: DbError,
        work: impl AsyncFnOnce(&Client) -> Result<T, Error>,
    ) -> Result<T, DbError> {
        let lent = self.pool.get(Instant::now() + ANSWER_MAX).await?;
        match timeout(ANSWER_MAX, work(&lent.client)).await {
            Ok(Ok(done)) => {
                lent.give_back_clean();
                Ok(done)
            }
            Ok(Err(error)) => {
                if !is_broken(&error) {
                    lent.give_back();
                }
                Err(told(&error))
            }
            Err(_) => Err(silent),
        }
    }

    /// Returns the id of a message that is known outside.
    fn outside(&self, id: i64) -> String {
        sharing::outside(&self.label, id)
    }

    /// Returns what begins a transaction beside which no other one claims messages of the queue, or lets them out.
    fn lock(&self) -> String {
        format!(
            "BEGIN; SELECT pg_advisory_xact_lock({LOCK}, hashtext('{}'))",
            self.label
        )
    }

    /// There are messages, or there may be.
    fn ring(&self) {
        self.bell.ring();
    }
}

/// What the locks of queues begin with: "wrun" as a number.
const LOCK: i32 = 2_003_989_870;

const SILENT: &str = "PostgreSQL: it does not answer";

/// The table as the desk knows it.
struct Rows(Rc<Table>);

impl Shelf for Rows {
    fn read(&self, ids: Vec<i64>) -> BoxFuture<'static, Result<Found, QueueError>> {
        let table = self.0.clone();
        Box::pin(async move { Ok(table.read(&ids).await?) })
    }

    fn write(&self, changes: Vec<Change>) -> BoxFuture<'static, Result<(), QueueError>> {
        let table = self.0.clone();
        Box::pin(async move { Ok(table.write(&changes).await?) })
    }

    fn outside(&self, id: i64) -> String {
        self.0.outside(id)
    }

    fn inside(&self, id: &str) -> Option<i64> {
        sharing::inside(&self.0.label, id)
    }

    fn dealt(&self, lanes: &mut Lanes) -> Vec<Change> {
        sharing::give_back(lanes, &self.0.wanted, &self.0.bell)
    }
}

impl Queue for PostgresQueue {
    fn desk(&self) -> &Desk {
        &self.desk
    }

    fn send(&self, messages: Vec<Message>) -> BoxFuture<'static, Result<Vec<String>, QueueError>> {
        let table = self.table.clone();
        Box::pin(async move { table.send(&messages).await })
    }

    fn status(&self) -> BoxFuture<'static, Result<QueueStatus, QueueError>> {
        let (desk, table) = (self.desk.clone(), self.table.clone());
        Box::pin(async move {
            let consumers = desk.lanes.borrow().counts().consumers as u64;
            let status = table.status().await?;
            Ok(QueueStatus {
                consumers,
                ..status
            })
        })
    }

    fn peek(&self, dead: bool, count: u32) -> BoxFuture<'static, Result<Vec<Peeked>, QueueError>> {
        let (desk, table) = (self.desk.clone(), self.table.clone());
        Box::pin(async move {
            let found = table.peek(dead, count).await?;
            Ok(found.into_iter().map(|it| desk.peeked(it)).collect())
        })
    }

    fn redrive(&self, count: u32) -> BoxFuture<'static, Result<u64, QueueError>> {
        let table = self.table.clone();
        Box::pin(async move { table.redrive(count).await })
    }

    fn purge(&self, dead: bool) -> BoxFuture<'static, Result<u64, QueueError>> {
        let table = self.table.clone();
        Box::pin(async move { Ok(table.purge(dead).await?) })
    }
}
