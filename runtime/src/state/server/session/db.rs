//! Calls about databases, and the transactions that a session has open.

use super::{Answer, Session};
use crate::config::shared::Shared;
use crate::state::BoxFuture;
use crate::state::db::{
    Database, DbError, GivenUp, Statement, TX_TIME_MAX, Transaction, TxOptions, Want,
};
use crate::state::keyvalue;
use crate::state::lock::GuardId;
use crate::state::protocol::Reply;
use std::cell::RefCell;
use std::collections::HashMap;
use std::convert::Infallible;
use std::rc::Rc;
use tokio::sync::oneshot;

/// Transactions that one session may have open or wait for.
const TRANSACTIONS_MAX: usize = 1024;

/// The transactions of a session by their numbers.
#[derive(Clone, Default)]
pub(super) struct Transactions(Rc<RefCell<HashMap<u64, Slot>>>);

enum Slot {
    /// It waits to begin; dropping this gives that up.
    Beginning(#[expect(dead_code, reason = "held for its drop")] oneshot::Sender<Infallible>),
    Open(Open),
}

/// An open transaction.
pub(super) struct Open {
    pub(super) transaction: Box<dyn Transaction>,
    /// The label of its database.
    pub(super) db: String,
    fences: Vec<GuardId>,
}

impl Transactions {
    /// Does something with an open transaction.
    pub(super) fn with<T>(&self, tx: u64, act: impl FnOnce(&Open) -> T) -> Result<T, DbError> {
        match self.0.borrow().get(&tx) {
            Some(Slot::Open(open)) => Ok(act(open)),
            Some(Slot::Beginning(_)) | None => Err(DbError::Closed),
        }
    }

    /// Rolls all of them back.
    pub(super) fn clear(&self) {
        let slots = self.0.take();
        drop(slots);
    }

    /// Takes an open transaction out.
    fn take(&self, tx: u64) -> Option<Open> {
        let mut slots = self.0.borrow_mut();
        match slots.remove(&tx)? {
            Slot::Open(open) => Some(open),
            beginning @ Slot::Beginning(_) => {
                slots.insert(tx, beginning);
                None
            }
        }
    }

    /// Makes a place for a transaction that begins; the returned end closes when it is given up.
    fn reserve(&self, tx: u64) -> Result<oneshot::Receiver<Infallible>, DbError> {
        let mut slots = self.0.borrow_mut();
        if slots.contains_key(&tx) {
            return Err(DbError::Invalid("the number is taken".to_owned()));
        }
        if slots.len() >= TRANSACTIONS_MAX {
            let what = format!("more than {TRANSACTIONS_MAX} transactions of one worker");
            return Err(DbError::Unavailable(what));
        }
        let (given_up, wait) = oneshot::channel();
        slots.insert(tx, Slot::Beginning(given_up));
        Ok(wait)
    }

    /// Puts a transaction that has begun in its place, unless it was given up.
    fn fill(&self, tx: u64, open: Open) -> Result<(), DbError> {
        match self.0.borrow_mut().get_mut(&tx) {
            Some(slot) => {
                *slot = Slot::Open(open);
                Ok(())
            }
            None => Err(DbError::Closed),
        }
    }

    fn remove(&self, tx: u64) -> Option<Slot> {
        self.0.borrow_mut().remove(&tx)
    }
}

/// The batches of a session that have no answer yet, by the ids of their requests.
#[derive(Clone, Default)]
pub(super) struct Batches(Rc<RefCell<HashMap<u64, GivenUp>>>);

impl Batches {
    /// Has all of them stopped.
    pub(super) fn give_up_all(&self) {
        self.0.borrow().values().for_each(GivenUp::give_up);
    }

    fn begin(&self, id: u64) -> GivenUp {
        let given_up = GivenUp::default();
        self.0.borrow_mut().insert(id, given_up.clone());
        given_up
    }

    fn end(&self, id: u64) {
        self.0.borrow_mut().remove(&id);
    }

    fn give_up(&self, id: u64) {
        if let Some(given_up) = self.0.borrow().get(&id) {
            given_up.give_up();
        }
    }
}

impl Session {
    pub(super) fn batch(
        &self,
        id: u64,
        database: Result<impl Database + 'static, DbError>,
        statements: Vec<(Statement, Want)>,
        options: TxOptions,
        fences: Vec<u64>,
    ) -> Answer {
        let database = match database {
            Ok(database) => database,
            Err(error) => return Answer::Now(Reply::Db(error)),
        };
        let Ok(pinned) = self.pin(&self.guards(fences)) else {
            return Answer::Now(Reply::Db(DbError::LostFence));
        };
        let options = bounded(options);
        let (batches, given_up) = (self.batches.clone(), self.batches.begin(id));
        Answer::Surely(Box::pin(async move {
            let batch = database.batch_unless(statements, options, given_up);
            let done = batch.await;
            batches.end(id);
            drop(pinned);
            done.map_or_else(Reply::Db, Reply::Steps)
        }))
    }

    pub(super) fn give_up(&self, batch: u64) -> Answer {
        self.batches.give_up(batch);
        Answer::Now(Reply::Done)
    }

    pub(super) fn begin(
        &self,
        granted: &Shared,
        tx: u64,
        db: String,
        options: TxOptions,
        fences: Vec<u64>,
    ) -> Answer {
        let reserved = self.database(granted, &db);
        let reserved = reserved.and_then(|database| Ok((database, self.transactions.reserve(tx)?)));
        let (database, given_up) = match reserved {
            Ok(reserved) => reserved,
            Err(error) => return Answer::Now(Reply::Db(error)),
        };
        let (transactions, fences) = (self.transactions.clone(), self.guards(fences));
        Answer::Later(Box::pin(async move {
            let begun = tokio::select! {
                begun = database.begin(bounded(options)) => begun,
                Err(_) = given_up => Err(DbError::Closed),
            };
            let open = |transaction| Open {
                transaction,
                db,
                fences,
            };
            match begun.and_then(|begun| transactions.fill(tx, open(begun))) {
                Ok(()) => Reply::Done,
                Err(error) => {
                    transactions.remove(tx);
                    Reply::Db(error)
                }
            }
        }))
    }

    /// Carries out an operation of an open transaction. It is called at once, so that operations keep their order.
    pub(super) fn in_transaction<T: 'static>(
        &self,
        tx: u64,
        operation: impl FnOnce(&dyn Transaction) -> BoxFuture<'static, Result<T, DbError>>,
        reply: impl FnOnce(T) -> Reply + 'static,
    ) -> Answer {
        let called = |open: &Open| operation(&*open.transaction);
        match self.transactions.with(tx, called) {
            Ok(result) => Answer::Later(Box::pin(async {
                result.await.map_or_else(Reply::Db, reply)
            })),
            Err(error) => Answer::Now(Reply::Db(error)),
        }
    }

    pub(super) fn close_cursor(&self, tx: u64, cursor: u64) -> Answer {
        // With its transaction, a cursor is closed.
        let _ = self
            .transactions
            .with(tx, |open| open.transaction.close_cursor(cursor));
        Answer::Now(Reply::Done)
    }

    pub(super) fn commit(&self, tx: u64) -> Answer {
        let Some(open) = self.transactions.take(tx) else {
            return Answer::Now(Reply::Db(DbError::Closed));
        };
        let Ok(pinned) = self.pin(&open.fences) else {
            return Answer::Later(Box::pin(async move {
                open.transaction.rollback().await;
                Reply::Db(DbError::LostFence)
            }));
        };
        Answer::Surely(Box::pin(async move {
            let committed = open.transaction.commit().await;
            drop(pinned);
            committed.map_or_else(Reply::Db, |()| Reply::Done)
        }))
    }

    pub(super) fn rollback(&self, tx: u64) -> Answer {
        match self.transactions.remove(tx) {
            Some(Slot::Open(open)) => Answer::Later(Box::pin(async move {
                open.transaction.rollback().await;
                Reply::Done
            })),
            Some(Slot::Beginning(_)) | None => Answer::Now(Reply::Done),
        }
    }

    pub(super) fn database(
        &self,
        granted: &Shared,
        label: &str,
    ) -> Result<impl Database + use<>, DbError> {
        let is_granted = match keyvalue::label(label) {
            Some(label) => granted.keyvalue.contains_key(label),
            None => granted.databases.contains_key(label),
        };
        let database = self.stores.database(label);
        database
            .filter(|_| is_granted)
            .ok_or_else(|| DbError::Denied(format!("no database is called {label}")))
    }
}

fn bounded(options: TxOptions) -> TxOptions {
    TxOptions {
        timeout: options.timeout.min(TX_TIME_MAX),
        ..options
    }
}
