//! An interactive transaction as its user has it: a handle whose calls go to a thread of the engine.
//!
//! What becomes of the calls is in `serving`.

use super::connection::Watch;
use super::ticket::{Ticket, stopped};
use crate::state::BoxFuture;
use crate::state::db::{Column, DbError, Row, Statement, Step, Transaction, Want};
use crate::state::queue::{Message, QueueError};
use std::cell::RefCell;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, OnceLock};
use tokio::sync::oneshot;

/// Ready when the transaction has begun.
type Begun = BoxFuture<'static, Result<Box<dyn Transaction>, DbError>>;

pub(super) type Answer<T, E = DbError> = oneshot::Sender<Result<T, E>>;

/// A call of a transaction.
pub(super) enum Op {
    Run(Statement, Want, Answer<Step>),
    OpenCursor(u64, Statement, Answer<Vec<Column>>),
    Next(u64, u32, Answer<Vec<Row>>),
    CloseCursor(u64),
    MarkProcessed(String, Answer<bool>),
    Send(String, Vec<Message>, Answer<Vec<String>, QueueError>),
    Commit(Answer<()>),
    Rollback(Answer<()>),
}

/// How a transaction ended.
#[derive(Clone, Debug)]
pub(super) enum End {
    /// It was committed; whether that is on the disk its own answer says.
    Committed,
    RolledBack,
    /// It was rolled back against its will.
    Failed(DbError),
}

/// A transaction that is to begin.
pub(super) struct Begin {
    pub(super) number: u64,
    pub(super) ticket: Ticket,
    /// Whether its commit is acknowledged only when it is on the disk.
    pub(super) durable: bool,
    pub(super) answer: Answer<Arc<Watch>>,
    pub(super) ops: Receiver<Op>,
    pub(super) end: Arc<OnceLock<End>>,
}

/// Returns a transaction that is to begin, and what waits for it.
pub(super) fn new(ticket: Ticket, durable: bool) -> (Begin, Begun) {
    static NUMBERS: AtomicU64 = AtomicU64::new(1);
    let number = NUMBERS.fetch_add(1, Ordering::Relaxed);
    let (answer, answered) = oneshot::channel();
    let (calls, ops) = mpsc::channel();
    let end = Arc::new(OnceLock::new());
    let begin = Begin {
        number,
        ticket: ticket.clone(),
        durable,
        answer,
        ops,
        end: Arc::clone(&end),
    };
    let begun = async move {
        let watch = match ticket.answer(answered).await {
            // That it began, nobody has seen.
            Err(DbError::OutcomeUnknown) => return Err(stopped()),
            other => other?,
        };
        let session: Box<dyn Transaction> = Box::new(Session {
            number,
            calls: RefCell::new(Some(calls)),
            end,
            watch,
        });
        Ok(session)
    };
    (begin, Box::pin(begun))
}

/// A transaction's handle.
struct Session {
    number: u64,
    /// None once it was told to end.
    calls: RefCell<Option<Sender<Op>>>,
    end: Arc<OnceLock<End>>,
    watch: Arc<Watch>,
}

impl Session {
    /// Sends a call and returns its answer. The call is sent now, and not when the future is polled.
    fn call<T: 'static, E: From<DbError> + 'static>(
        &self,
        op: impl FnOnce(Answer<T, E>) -> Op,
    ) -> BoxFuture<'static, Result<T, E>> {
        let (answer, answered) = oneshot::channel();
        match &*self.calls.borrow() {
            None => return Box::pin(std::future::ready(Err(DbError::Closed.into()))),
            // Dropped unsent, it is as if it was dropped unserved.
            Some(calls) => drop(calls.send(op(answer))),
        }
        let end = Arc::clone(&self.end);
        Box::pin(async move {
            answered.await.unwrap_or_else(|_| {
                Err(match end.get() {
                    Some(End::Failed(error)) => error.clone(),
                    Some(End::Committed | End::RolledBack) => DbError::Closed,
                    None => stopped(),
                }
                .into())
            })
        })
    }

    /// Sends its last call.
    fn last_call(&self, op: Op) {
        if let Some(calls) = self.calls.take() {
            drop(calls.send(op));
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if self.calls.get_mut().is_some() {
            self.watch.drop_transaction(self.number);
        }
    }
}

impl Transaction for Session {
    fn run(&self, statement: Statement, want: Want) -> BoxFuture<'static, Result<Step, DbError>> {
        self.call(|answer| Op::Run(statement, want, answer))
    }

    fn open_cursor(
        &self,
        cursor: u64,
        statement: Statement,
    ) -> BoxFuture<'static, Result<Vec<Column>, DbError>> {
        self.call(|answer| Op::OpenCursor(cursor, statement, answer))
    }

    fn next(&self, cursor: u64, max_rows: u32) -> BoxFuture<'static, Result<Vec<Row>, DbError>> {
        self.call(|answer| Op::Next(cursor, max_rows, answer))
    }

    fn close_cursor(&self, cursor: u64) {
        if let Some(calls) = &*self.calls.borrow() {
            drop(calls.send(Op::CloseCursor(cursor)));
        }
    }

    fn mark_processed(&self, id: String) -> BoxFuture<'static, Result<bool, DbError>> {
        self.call(|answer| Op::MarkProcessed(id, answer))
    }

    fn send(
        &self,
        queue: String,
        messages: Vec<Message>,
    ) -> BoxFuture<'static, Result<Vec<String>, QueueError>> {
        self.call(|answer| Op::Send(queue, messages, answer))
    }

    fn commit(&self) -> BoxFuture<'static, Result<(), DbError>> {
        if self.calls.borrow().is_none() {
            return Box::pin(std::future::ready(Err(DbError::Closed)));
        }
        let (answer, answered) = oneshot::channel();
        self.last_call(Op::Commit(answer));
        let end = Arc::clone(&self.end);
        Box::pin(async move {
            answered.await.unwrap_or_else(|_| {
                Err(match end.get() {
                    Some(End::Failed(error)) => error.clone(),
                    Some(End::RolledBack) => DbError::Closed,
                    Some(End::Committed) | None => DbError::OutcomeUnknown,
                })
            })
        })
    }

    fn rollback(&self) -> BoxFuture<'static, ()> {
        // What it still runs would be undone anyway, and others wait.
        if self.calls.borrow().is_some() {
            self.watch.drop_transaction(self.number);
        }
        let (answer, answered) = oneshot::channel();
        self.last_call(Op::Rollback(answer));
        Box::pin(async move {
            // Without an answer it has ended already.
            let _ = answered.await;
        })
    }
}
