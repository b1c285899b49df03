//! The connection on which a server claims messages, hears of new ones, and renews its lease, for as long as there is a
//! PostgreSQL; and while there is none, the tries to make it anew.
//!
//! Whoever has sent or given back messages rings. That is told elsewhere only if something is left here, and apart from the
//! transactions: those that notify would commit one after the other.

use super::claim::Statements;
use super::{SILENT, Table, make_ready, to_db_error};
use crate::state::db::DbError;
use crate::state::postgres::Address;
use crate::state::postgres::connection::Connection;
use crate::state::queue::desk::Desk;
use crate::state::queue::sharing::{CLAIMS_MAX, PAUSE, POLL, RENEW, SWEEP, is_due};
use std::cell::{Cell, RefCell};
use std::convert::Infallible;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout};
use tokio_postgres::Notification;

/// How often dedup ids are forgotten that are too old.
const TIDY: Duration = Duration::from_secs(60);

/// A server that does not answer for so long is taken to be away.
const SILENCE_MAX: Duration = Duration::from_secs(7);

/// The channel of all queues of a database.
const CHANNEL: &str = "wrun_queue";

const FORGET: &str = "DELETE FROM wrun.dedup WHERE at < clock_timestamp() - interval '5 min'";

/// The connection, and what is due on it.
pub(super) struct Line {
    pub(super) connection: Connection,
    pub(super) statements: Statements,
    renew_at: Cell<Instant>,
    sweep_at: Cell<Instant>,
    tidy_at: Cell<Instant>,
    /// What was claimed while it was being written what became of it before.
    late: RefCell<Vec<i64>>,
}

/// Keeps up a line for as long as it is polled.
pub(super) async fn keep(table: Rc<Table>, desk: Rc<Desk>) {
    let is_first = Cell::new(true);
    loop {
        let Err(error) = live(&table, &desk, &is_first).await;
        if !matches!(error, DbError::Unavailable(_)) {
            tracing::warn!(queue = table.label, %error, "messages cannot be claimed, trying again");
        }
        sleep(PAUSE).await;
    }
}

/// Opens a line and works on it, until that fails.
async fn live(
    table: &Rc<Table>,
    desk: &Desk,
    is_first: &Cell<bool>,
) -> Result<Infallible, DbError> {
    if is_first.get() {
        let made = make_ready(&table.pool, "queue").await;
        made.map_err(|failure| DbError::Unavailable(failure.to_string()))?;
        // What this server held before its state process was replaced.
        table.release().await?;
        is_first.set(false);
    }
    let line = Line::open(table).await?;
    loop {
        let round = timeout(SILENCE_MAX, line.round(table, desk)).await;
        let next = round.unwrap_or_else(|_| Err(table.pool.is_away(SILENT.to_owned())))?;
        table.pool.is_here();
        // Both ways there is something to look at.
        let _ = timeout(next.min(POLL), table.bell.work.notified()).await;
    }
}

impl Line {
    async fn open(table: &Rc<Table>) -> Result<Self, DbError> {
        let (bell, label) = (table.bell.clone(), table.label.clone());
        let own = Arc::new(std::sync::atomic::AtomicI32::new(0));
        let own_id = own.clone();
        let hear = move |heard: &Notification| {
            let is_own = heard.process_id() == own_id.load(Ordering::Relaxed);
            if heard.payload() == label && !is_own {
                bell.wake();
            }
        };
        let listening = async |address: &Address| address.connect_and_hear(hear).await;
        let connection = table.pool.connect_by(listening).await?;
        let client = &connection.client;
        let opened = async {
            client.batch_execute(&format!("LISTEN {CHANNEL}")).await?;
            let row = client.query_one("SELECT pg_backend_pid()", &[]).await?;
            own.store(row.try_get(0)?, Ordering::Relaxed);
            Statements::prepare(client).await
        };
        let statements = opened.await.map_err(|error| to_db_error(&error))?;
        let now = Instant::now();
        Ok(Self {
            connection,
            statements,
            renew_at: Cell::new(now),
            sweep_at: Cell::new(now),
            tidy_at: Cell::new(now + TIDY),
            late: RefCell::default(),
        })
    }

    /// Does what is due, and claims what is wanted. Returns when to look again if nobody rings.
    async fn round(&self, table: &Table, desk: &Desk) -> Result<Duration, DbError> {
        let failed = |error| to_db_error(&error);
        let holder = self.hold(table, desk).await?;
        let reaped = self.reap(table).await.map_err(failed)?;
        if !reaped.is_empty() {
            table.freed.borrow_mut().extend(reaped);
        }
        if is_due(&self.sweep_at, SWEEP) {
            self.sweep(table, desk, holder).await.map_err(failed)?;
        }
        if is_due(&self.tidy_at, TIDY) {
            let client = &self.connection.client;
            client.batch_execute(FORGET).await.map_err(failed)?;
        }
        let tells = table.bell.tells();
        let mut next = None;
        if tells || table.wanted.get().0 > 0 || !table.freed.borrow().is_empty() {
            next = self.claim_all(table, desk, holder).await?;
            if tells && next.is_some() {
                self.tell(table).await.map_err(failed)?;
            }
        }
        // What nobody here wants is not waited for.
        let is_wanted = table.wanted.get().0 > 0;
        let to_sweep = self
            .sweep_at
            .get()
            .saturating_duration_since(Instant::now());
        let next = next.filter(|_| is_wanted).unwrap_or(POLL);
        Ok(next.min(to_sweep))
    }

    /// Sees to what was left behind: by a server that ended before it let out what waits behind the last message that it
    /// settled, by a connection that broke before it told what was claimed, or by a claim that was beside an outcome.
    async fn sweep(
        &self,
        table: &Table,
        desk: &Desk,
        holder: i64,
    ) -> Result<(), tokio_postgres::Error> {
        let known = desk.known();
        self.give_up_unknown(table, holder, &known).await?;
        self.let_all_out(table).await?;
        let mut late = self.late.borrow_mut();
        late.retain(|id| known.contains(id));
        if !late.is_empty() {
            self.sweep_at.set(Instant::now() + PAUSE);
        }
        Ok(())
    }

    /// Sees to it that there is a holder whose lease is good.
    async fn hold(&self, table: &Table, desk: &Desk) -> Result<i64, DbError> {
        if let Some(holder) = table.holder.get() {
            if !is_due(&self.renew_at, RENEW) {
                return Ok(holder);
            }
            let renewed = self.renew(holder).await;
            if renewed.map_err(|error| to_db_error(&error))? {
                return Ok(holder);
            }
            tracing::warn!(
                queue = table.label,
                "the lease ran out: others handle what was handled here"
            );
            table.holder.set(None);
            desk.lose();
        }
        let holder = self.register(table).await?;
        self.renew_at.set(Instant::now() + RENEW);
        table.holder.set(Some(holder));
        Ok(holder)
    }

    /// Claims until there is no more, or no more is wanted. Returns how long until there may be some.
    async fn claim_all(
        &self,
        table: &Table,
        desk: &Desk,
        holder: i64,
    ) -> Result<Option<Duration>, DbError> {
        let mut next = None;
        for _ in 0..CLAIMS_MAX {
            let freed: Vec<String> = table.freed.take().into_iter().collect();
            let claimed = match self.claim(table, holder, &freed).await {
                Ok(claimed) => claimed,
                Err(error) => {
                    table.freed.borrow_mut().extend(freed);
                    return Err(to_db_error(&error));
                }
            };
            let has_more = !claimed.entries.is_empty() || claimed.parked > 0;
            next = claimed.next;
            let late = desk.add_claimed(claimed.entries);
            if !late.is_empty() {
                self.sweep_at.set(Instant::now() + PAUSE);
                self.late.borrow_mut().extend(late);
            }
            let is_wanted = table.wanted.get().0 > 0;
            if !is_wanted || next != Some(Duration::ZERO) {
                break;
            }
            if !has_more {
                // Somebody else has it locked.
                return Ok(Some(PAUSE));
            }
        }
        Ok(next)
    }

    /// Tells those who wait elsewhere. It need not be durable.
    async fn tell(&self, table: &Table) -> Result<(), tokio_postgres::Error> {
        let tell = format!(
            "BEGIN; SET LOCAL synchronous_commit = off; SELECT pg_notify('{CHANNEL}', '{}'); COMMIT",
            table.label
        );
        self.connection.client.batch_execute(&tell).await
    }
}
