//! An interactive transaction as its user has it: a handle whose calls go to a thread of the engine.
//!
//! What becomes of the calls is in `serving`.

use super::connection::Watch;
use super::loan::Loan;
use super::ticket::{Ticket, stopped};
use crate::state::BoxFuture;
use crate::state::db::{Column, DbError, Row, Statement, Step, Transaction, Want};
use crate::state::queue::{Message, QueueError};
use std::cell::RefCell;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, OnceLock};
use tokio::sync::oneshot;

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

/// A transaction that is to begin when its turn has come.
pub(super) struct Begin {
    pub(super) number: u64,
    pub(super) ticket: Ticket,
    /// Whether its commit is acknowledged only when it is on the disk.
    pub(super) durable: bool,
    pub(super) calls: Calls,
}

/// Where its calls come from.
pub(super) enum Calls {
    /// A handle.
    Handle(Receiver<Op>, Arc<Course>),
    /// A connection, which is lent for it.
    Loan(Loan),
}

/// What the serving side tells of a transaction.
#[derive(Default)]
pub(super) struct Course {
    /// The clock of the connection that serves it; set before its ticket is.
    pub(super) watch: OnceLock<Arc<Watch>>,
    pub(super) end: OnceLock<End>,
}

/// A transaction's handle.
pub(super) struct Session {
    number: u64,
    ticket: Ticket,
    /// None once it was told to end.
    calls: RefCell<Option<Sender<Op>>>,
    course: Arc<Course>,
}

/// Returns a transaction that is to begin, and its handle. Calls can be made at once: they wait for its turn.
pub(super) fn new(ticket: Ticket, durable: bool) -> (Begin, Session) {
    let (calls, ops) = mpsc::channel();
    let course = Arc::<Course>::default();
    let source = Calls::Handle(ops, Arc::clone(&course));
    let begin = Begin::new(ticket.clone(), durable, source);
    let session = Session {
        number: begin.number,
        ticket,
        calls: RefCell::new(Some(calls)),
        course,
    };
    (begin, session)
}

impl Begin {
    pub(super) fn new(ticket: Ticket, durable: bool, calls: Calls) -> Self {
        static NUMBERS: AtomicU64 = AtomicU64::new(1);
        Self {
            number: NUMBERS.fetch_add(1, Ordering::Relaxed),
            ticket,
            durable,
            calls,
        }
    }
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
        self.answer(answered, stopped())
    }

    /// Sends its last call.
    fn last_call(&self, op: Op) {
        if let Some(calls) = self.calls.take() {
            drop(calls.send(op));
        }
    }

    /// Waits for an answer. There may be none, for a reason that the serving side has told, or else for `lost`.
    fn answer<T: 'static, E: From<DbError> + 'static>(
        &self,
        answered: oneshot::Receiver<Result<T, E>>,
        lost: DbError,
    ) -> BoxFuture<'static, Result<T, E>> {
        let (ticket, course) = (self.ticket.clone(), Arc::clone(&self.course));
        Box::pin(async move {
            if let Some(result) = ticket.wait(answered).await {
                return result;
            }
            Err(match course.end.get() {
                Some(End::Failed(error)) => error.clone(),
                Some(End::RolledBack) => DbError::Closed,
                Some(End::Committed) | None => ticket.not_started().unwrap_or(lost),
            }
            .into())
        })
    }

    /// It need not go on: what it still runs would be undone anyway, and others wait. True says that it never began.
    fn stop(&self) -> bool {
        let never = self.ticket.give_up();
        if let Some(watch) = self.course.watch.get() {
            watch.drop_transaction(self.number);
        }
        never
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if self.calls.get_mut().is_some() {
            self.stop();
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
        self.answer(answered, DbError::OutcomeUnknown)
    }

    fn rollback(&self) -> BoxFuture<'static, ()> {
        if self.calls.borrow().is_some() && self.stop() {
            // Nobody will serve its calls, and nobody need wait for them to be passed over.
            self.calls.take();
        }
        let (answer, answered) = oneshot::channel();
        self.last_call(Op::Rollback(answer));
        Box::pin(async move {
            // Without an answer it has ended already.
            let _ = answered.await;
        })
    }
}
