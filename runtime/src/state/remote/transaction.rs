//! A transaction: a task that has a connection, and carries out calls in their order, each to its end.
//!
//! The connection is taken, and the transaction begun, with the first call. A statement that fails does not take it along.

mod course;
mod cursors;

use super::Engine;
use super::kept::{KeptQueue, KeptQueues};
use super::route::Route;
use crate::state::BoxFuture;
use crate::state::db::{Column, DbError, Fence, Row, Statement, Step, Transaction, Want};
use crate::state::queue::{Message, QueueError};
use course::{Course, GivenUp, serve};
use cursors::Cursors;
use std::cell::RefCell;
use std::future::ready;
use std::rc::Rc;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

/// Why a transaction takes no more calls, for the task and the handle.
type Over = Rc<RefCell<Option<DbError>>>;

type Answer<T> = oneshot::Sender<Result<T, DbError>>;

enum Op<E: Engine> {
    Run(Statement, Want, Answer<Step>),
    OpenCursor(u64, Statement, Answer<Vec<Column>>),
    Next(u64, u32, Answer<Vec<Row>>),
    CloseCursor(u64),
    Mark(String, Answer<bool>),
    Send(
        Rc<dyn KeptQueue<E>>,
        Vec<Message>,
        oneshot::Sender<Result<Vec<String>, QueueError>>,
    ),
    Commit(Answer<()>),
    Rollback(oneshot::Sender<()>),
}

/// A transaction's handle.
pub(in crate::state) struct Handle<E: Engine> {
    /// What its database is bound as.
    name: String,
    queues: KeptQueues<E>,
    /// `None` once it was told to end.
    ops: RefCell<Option<mpsc::UnboundedSender<Op<E>>>>,
    /// Dropped before it said that the end is near, it stops what is under way.
    holder: RefCell<Option<oneshot::Sender<()>>>,
    /// Why there will be no answer.
    over: Over,
}

/// Returns the handle of a transaction that begins with its first call.
pub(in crate::state) fn new<E: Engine>(
    route: Route<E>,
    queues: KeptQueues<E>,
    fences: Vec<Fence>,
) -> Handle<E> {
    let (sender, ops) = mpsc::unbounded_channel();
    let (holder, given_up) = oneshot::channel();
    let over = Over::default();
    let handle = Handle {
        name: route.name().to_owned(),
        queues,
        ops: RefCell::new(Some(sender)),
        holder: RefCell::new(Some(holder)),
        over: over.clone(),
    };
    let course = Course {
        deadline: Instant::now() + route.options().timeout,
        route,
        fences,
        lent: None,
        over,
        cursors: Cursors::default(),
        sent: Vec::new(),
    };
    tokio::task::spawn_local(serve(course, ops, GivenUp(Some(given_up))));
    handle
}

impl<E: Engine> Handle<E> {
    fn call<T: 'static>(
        &self,
        op: impl FnOnce(Answer<T>) -> Op<E>,
    ) -> BoxFuture<'static, Result<T, DbError>> {
        let (answer, answered) = oneshot::channel();
        match &*self.ops.borrow() {
            // It fails only if the task is gone, and then so is the answer.
            Some(ops) => drop(ops.send(op(answer))),
            None => return Box::pin(ready(Err(DbError::Closed))),
        }
        let over = self.over.clone();
        Box::pin(async move {
            let gone = |_| Err(over.borrow().clone().unwrap_or(DbError::Closed));
            answered.await.unwrap_or_else(gone)
        })
    }

    /// No call comes after this one. What is under way, and this call, go on to their ends.
    fn end(&self) {
        self.ops.take();
        if let Some(holder) = self.holder.take() {
            // It fails only if the task is gone.
            let _ = holder.send(());
        }
    }

    /// An embedded queue is one server's own, and the outbox is everybody's.
    fn embedded(&self, queue: &str) -> QueueError {
        let (name, product) = (&self.name, E::PRODUCT);
        QueueError::Invalid(format!(
            "queue sends in a transaction need a queue that is bound: {name} is bound to {product}, queue.{queue} is \
             embedded; bind it, too, or send after the commit"
        ))
    }
}

impl<E: Engine> Transaction for Handle<E> {
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
        if let Some(ops) = &*self.ops.borrow() {
            let _ = ops.send(Op::CloseCursor(cursor));
        }
    }

    fn mark_processed(&self, id: String) -> BoxFuture<'static, Result<bool, DbError>> {
        self.call(|answer| Op::Mark(id, answer))
    }

    fn send(
        &self,
        queue: String,
        messages: Vec<Message>,
    ) -> BoxFuture<'static, Result<Vec<String>, QueueError>> {
        let Some(kept) = self.queues.get(&queue) else {
            return Box::pin(ready(Err(self.embedded(&queue))));
        };
        let (answer, answered) = oneshot::channel();
        match &*self.ops.borrow() {
            // It fails only if the task is gone, and then so is the answer.
            Some(ops) => drop(ops.send(Op::Send(kept, messages, answer))),
            None => return Box::pin(ready(Err(QueueError::Closed))),
        }
        let over = self.over.clone();
        Box::pin(async move {
            let gone = |_| Err(over.borrow().clone().unwrap_or(DbError::Closed).into());
            answered.await.unwrap_or_else(gone)
        })
    }

    fn commit(&self) -> BoxFuture<'static, Result<(), DbError>> {
        let committed = self.call(Op::Commit);
        self.end();
        committed
    }

    fn rollback(&self) -> BoxFuture<'static, ()> {
        let (answer, answered) = oneshot::channel();
        if let Some(ops) = &*self.ops.borrow() {
            let _ = ops.send(Op::Rollback(answer));
        }
        self.end();
        Box::pin(async { answered.await.unwrap_or(()) })
    }
}
