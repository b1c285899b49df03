//! Calls about databases, and the transactions that a session has open.

use super::lock::pin;
use super::{Answer, Fault, Session};
use crate::config::shared::Shared;
use crate::state::BoxFuture;
use crate::state::db::{
    Database, DbError, GivenUp, Statement, TX_TIME_MAX, Transaction, TxOptions, Want,
};
use crate::state::keyvalue;
use crate::state::lock::{GuardId, Locks as _};
use crate::state::protocol::{Reply, TRANSACTIONS_MAX};
use std::cell::RefCell;
use std::collections::HashMap;
use std::convert::Infallible;
use std::future::ready;
use std::rc::Rc;
use tokio::sync::oneshot;

/// Calls that may wait for one transaction to begin.
const CALLS_MAX: usize = 1024;

/// The transactions of a session by their numbers.
#[derive(Clone, Default)]
pub(super) struct Transactions(Rc<RefCell<HashMap<u64, Slot>>>);

enum Slot {
    Beginning(Beginning),
    Open(Open),
    /// It could not begin, which its first call is told.
    Failed(DbError),
    /// It has ended, which every further call is told.
    Over(DbError),
}

/// A transaction that waits to begin. Dropped, it is given up.
struct Beginning {
    _given_up: oneshot::Sender<Infallible>,
    /// The calls that came meanwhile, in their order.
    calls: Vec<Call>,
    /// The last of them ends it.
    ends: bool,
}

impl Beginning {
    fn takes_calls(&self) -> bool {
        !self.ends && self.calls.len() < CALLS_MAX
    }
}

/// A call that waits for its transaction to begin.
type Call = Box<dyn FnOnce(Result<&Open, DbError>)>;

/// An open transaction.
pub(super) struct Open {
    pub(super) transaction: Box<dyn Transaction>,
    /// The label of its database.
    pub(super) db: String,
    fences: Vec<GuardId>,
}

impl Transactions {
    /// Calls an operation of a transaction: now, so that operations keep their order, or as soon as it has begun.
    pub(super) fn call<T: 'static, E: From<DbError> + 'static>(
        &self,
        tx: u64,
        operation: impl FnOnce(&Open) -> BoxFuture<'static, Result<T, E>> + 'static,
    ) -> BoxFuture<'static, Result<T, E>> {
        let mut slots = self.0.borrow_mut();
        match slots.get_mut(&tx) {
            Some(Slot::Open(open)) => operation(open),
            Some(Slot::Beginning(beginning)) if beginning.takes_calls() => {
                let (called, call) = oneshot::channel();
                beginning.calls.push(Box::new(|begun| {
                    // Nobody may wait for it any more.
                    let _ = called.send(begun.map(operation));
                }));
                Box::pin(async {
                    match call.await {
                        Ok(Ok(result)) => result.await,
                        Ok(Err(error)) => Err(error.into()),
                        Err(_) => Err(DbError::Closed.into()),
                    }
                })
            }
            Some(Slot::Failed(_)) => {
                let failed = slots.remove(&tx);
                let error = match failed {
                    Some(Slot::Failed(error)) => error,
                    _ => DbError::Closed,
                };
                Box::pin(ready(Err(error.into())))
            }
            Some(Slot::Over(error)) => Box::pin(ready(Err(error.clone().into()))),
            Some(Slot::Beginning(_)) | None => Box::pin(ready(Err(DbError::Closed.into()))),
        }
    }

    /// Calls the operation that ends a transaction.
    fn last_call<T: 'static>(
        &self,
        tx: u64,
        operation: impl FnOnce(&Open) -> BoxFuture<'static, Result<T, DbError>> + 'static,
    ) -> BoxFuture<'static, Result<T, DbError>> {
        let result = self.call(tx, operation);
        let mut slots = self.0.borrow_mut();
        if let Some(Slot::Beginning(beginning)) = slots.get_mut(&tx) {
            beginning.ends = true;
        } else {
            slots.remove(&tx);
        }
        result
    }

    /// Rolls all of them back.
    pub(super) fn clear(&self) {
        let slots = self.0.take();
        drop(slots);
    }

    /// Makes a place for a transaction that begins; the returned end closes when it is given up.
    fn reserve(&self, tx: u64) -> Result<oneshot::Receiver<Infallible>, Fault> {
        let mut slots = self.0.borrow_mut();
        if slots.contains_key(&tx) {
            return Err(Fault::Refused("the number of a transaction is taken"));
        }
        if slots.len() >= TRANSACTIONS_MAX {
            return Err(Fault::Refused("there are too many transactions"));
        }
        let (given_up, wait) = oneshot::channel();
        let beginning = Beginning {
            _given_up: given_up,
            calls: Vec::new(),
            ends: false,
        };
        slots.insert(tx, Slot::Beginning(beginning));
        Ok(wait)
    }

    /// A transaction has begun, or could not: its calls are carried out, unless it was given up.
    fn begun(&self, tx: u64, begun: Result<Open, DbError>) {
        let mut slots = self.0.borrow_mut();
        let Some(Slot::Beginning(Beginning { calls, ends, .. })) = slots.remove(&tx) else {
            return;
        };
        match begun {
            Ok(open) => {
                calls.into_iter().for_each(|call| call(Ok(&open)));
                if !ends {
                    slots.insert(tx, Slot::Open(open));
                }
            }
            Err(error) => {
                let is_told = !calls.is_empty();
                let mut calls = calls.into_iter();
                if let Some(first) = calls.next() {
                    first(Err(error.clone()));
                }
                calls.for_each(|call| call(Err(DbError::Closed)));
                if !is_told {
                    slots.insert(tx, Slot::Failed(error));
                }
            }
        }
    }

    /// Tells whether none is open, or waits.
    pub(super) fn none_is_open(&self) -> bool {
        let slots = self.0.borrow();
        let mut slots = slots.values();
        slots.all(|slot| matches!(slot, Slot::Over(_)))
    }

    /// A transaction has ended, and not by its last call: further ones are told why. Only one such is remembered.
    pub(super) fn over(&self, tx: u64, why: DbError) {
        let mut slots = self.0.borrow_mut();
        slots.retain(|_, slot| !matches!(slot, Slot::Over(_)));
        slots.insert(tx, Slot::Over(why));
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
        database: Result<Rc<dyn Database>, DbError>,
        statements: Vec<(Statement, Want)>,
        options: TxOptions,
        fences: Vec<u64>,
    ) -> Answer {
        let database = match database {
            Ok(database) => database,
            Err(error) => return Answer::Now(Reply::Db(error)),
        };
        let guards = self.guards(fences);
        let Ok(pinned) = pin(&self.stores, &guards) else {
            return Answer::Now(Reply::Db(DbError::LostFence));
        };
        let fences = self.stores.locks.fences(&guards);
        let options = bounded(options);
        let (batches, given_up) = (self.batches.clone(), self.batches.begin(id));
        Answer::Surely(Box::pin(async move {
            let batch = database.batch_unless(statements, options, fences, given_up);
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
    ) -> Result<Answer, Fault> {
        let given_up = self.transactions.reserve(tx)?;
        let database = match self.database(granted, &db) {
            Ok(database) => database,
            Err(error) => {
                self.transactions.begun(tx, Err(error));
                return Ok(Answer::Now(Reply::Done));
            }
        };
        let (transactions, fences) = (self.transactions.clone(), self.guards(fences));
        let tokens = self.stores.locks.fences(&fences);
        Ok(Answer::Later(Box::pin(async move {
            let begun = tokio::select! {
                begun = database.begin_fenced(bounded(options), tokens) => begun,
                Err(_) = given_up => Err(DbError::Closed),
            };
            let open = |transaction| Open {
                transaction,
                db,
                fences,
            };
            transactions.begun(tx, begun.map(open));
            Reply::Done
        })))
    }

    /// Carries out an operation of a transaction.
    pub(super) fn in_transaction<T: 'static>(
        &self,
        tx: u64,
        operation: impl FnOnce(&dyn Transaction) -> BoxFuture<'static, Result<T, DbError>> + 'static,
        reply: impl FnOnce(T) -> Reply + 'static,
    ) -> Answer {
        let called = |open: &Open| operation(&*open.transaction);
        let result = self.transactions.call(tx, called);
        Answer::Later(Box::pin(async {
            result.await.map_or_else(Reply::Db, reply)
        }))
    }

    pub(super) fn close_cursor(&self, tx: u64, cursor: u64) -> Answer {
        // With its transaction, a cursor is closed.
        drop(self.transactions.call(tx, move |open| {
            open.transaction.close_cursor(cursor);
            Box::pin(ready(Ok::<_, DbError>(())))
        }));
        Answer::Now(Reply::Done)
    }

    pub(super) fn commit(&self, tx: u64) -> Answer {
        let stores = self.stores.clone();
        let committed = self.transactions.last_call(tx, move |open| {
            let Ok(pinned) = pin(&stores, &open.fences) else {
                let undone = open.transaction.rollback();
                return Box::pin(async {
                    undone.await;
                    Err(DbError::LostFence)
                });
            };
            let committed = open.transaction.commit();
            Box::pin(async {
                let committed = committed.await;
                drop(pinned);
                committed
            })
        });
        Answer::Surely(Box::pin(async {
            committed.await.map_or_else(Reply::Db, |()| Reply::Done)
        }))
    }

    pub(super) fn rollback(&self, tx: u64) -> Answer {
        match self.transactions.remove(tx) {
            Some(Slot::Open(open)) => Answer::Later(Box::pin(async move {
                open.transaction.rollback().await;
                Reply::Done
            })),
            Some(Slot::Beginning(_) | Slot::Failed(_) | Slot::Over(_)) | None => {
                Answer::Now(Reply::Done)
            }
        }
    }

    pub(super) fn database(
        &self,
        granted: &Shared,
        label: &str,
    ) -> Result<Rc<dyn Database>, DbError> {
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

pub(super) fn bounded(options: TxOptions) -> TxOptions {
    TxOptions {
        timeout: options.timeout.min(TX_TIME_MAX),
        ..options
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::db::{Column, Row, Step};
    use crate::state::queue::{Message, QueueError};

    /// A transaction that is only there.
    struct Idle;

    impl Transaction for Idle {
        fn run(&self, _: Statement, _: Want) -> BoxFuture<'static, Result<Step, DbError>> {
            unreachable!()
        }

        fn open_cursor(
            &self,
            _: u64,
            _: Statement,
        ) -> BoxFuture<'static, Result<Vec<Column>, DbError>> {
            unreachable!()
        }

        fn next(&self, _: u64, _: u32) -> BoxFuture<'static, Result<Vec<Row>, DbError>> {
            unreachable!()
        }

        fn close_cursor(&self, _: u64) {}

        fn mark_processed(&self, _: String) -> BoxFuture<'static, Result<bool, DbError>> {
            unreachable!()
        }

        fn send(
            &self,
            _: String,
            _: Vec<Message>,
        ) -> BoxFuture<'static, Result<Vec<String>, QueueError>> {
            unreachable!()
        }

        fn commit(&self) -> BoxFuture<'static, Result<(), DbError>> {
            unreachable!()
        }

        fn rollback(&self) -> BoxFuture<'static, ()> {
            unreachable!()
        }
    }

    fn open() -> Open {
        Open {
            transaction: Box::new(Idle),
            db: "default".to_owned(),
            fences: Vec::new(),
        }
    }

    /// Notes when it is called, and answers what it was called with.
    fn note(
        called: &Rc<RefCell<Vec<u32>>>,
        what: u32,
    ) -> impl FnOnce(&Open) -> BoxFuture<'static, Result<u32, DbError>> + use<> {
        let called = called.clone();
        move |_| {
            called.borrow_mut().push(what);
            Box::pin(ready(Ok(what)))
        }
    }

    #[tokio::test]
    async fn calls_wait_for_the_transaction_to_begin_and_keep_their_order() {
        let (transactions, called) = (Transactions::default(), Rc::default());
        let given_up = transactions.reserve(1).unwrap();
        let first = transactions.call(1, note(&called, 1));
        drop(transactions.call(1, note(&called, 2)));
        let last = transactions.last_call(1, note(&called, 3));
        let late = transactions.call(1, note(&called, 4));
        assert!(called.borrow().is_empty());
        transactions.begun(1, Ok(open()));
        assert_eq!(*called.borrow(), [1, 2, 3]);
        assert_eq!((first.await, last.await), (Ok(1), Ok(3)));
        assert_eq!(late.await, Err(DbError::Closed));
        assert_eq!(
            transactions.call(1, note(&called, 5)).await,
            Err(DbError::Closed)
        );
        drop(given_up);
    }

    #[tokio::test]
    async fn first_call_is_told_why_it_could_not_begin_and_the_next_ones_that_it_has_ended() {
        let (transactions, called) = (Transactions::default(), Rc::default());
        let error = DbError::Unavailable("away".to_owned());
        for waits in [true, false] {
            let given_up = transactions.reserve(1).unwrap();
            let early = waits.then(|| transactions.call(1, note(&called, 1)));
            transactions.begun(1, Err(error.clone()));
            let first = early.unwrap_or_else(|| transactions.call(1, note(&called, 1)));
            assert_eq!(first.await, Err(error.clone()));
            let next = transactions.call(1, note(&called, 2));
            assert_eq!(next.await, Err(DbError::Closed));
            drop(given_up);
        }
        assert!(called.borrow().is_empty());
    }

    #[tokio::test]
    async fn rollback_gives_up_what_waits_to_begin() {
        let (transactions, called) = (Transactions::default(), Rc::default());
        let given_up = transactions.reserve(1).unwrap();
        let waiting = transactions.call(1, note(&called, 1));
        drop(transactions.remove(1));
        assert!(given_up.await.is_err());
        assert_eq!(waiting.await, Err(DbError::Closed));
        transactions.begun(1, Ok(open()));
        assert!(transactions.remove(1).is_none());
    }
}
