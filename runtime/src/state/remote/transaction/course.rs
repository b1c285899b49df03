//! The course of a transaction: from the first call, which begins it, to its end, however that comes.

use super::cursors::Cursors;
use super::{Answer, Op, Over};
use crate::state::db::{DbError, Fence, RESULT_MAX, check_work_id};
use crate::state::queue::{Message, QueueError};
use crate::state::remote::batch::commit;
use crate::state::remote::kept::KeptQueue;
use crate::state::remote::pool::Lent;
use crate::state::remote::route::Route;
use crate::state::remote::{Connection as _, Engine, Fault, IDLE_MAX, Opening, Then};
use std::future::pending;
use std::pin::pin;
use std::rc::Rc;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until, timeout_at};

/// A transaction as its task has it.
pub(super) struct Course<E: Engine> {
    pub(super) route: Route<E>,
    /// Checked when it begins; what holds them then holds them until its end.
    pub(super) fences: Vec<Fence>,
    pub(super) deadline: Instant,
    /// `None` before the first call, and once it is over.
    pub(super) lent: Option<Lent<E>>,
    pub(super) over: Over,
    pub(super) cursors: Cursors,
    /// The queues that it has sent to.
    pub(super) sent: Vec<Rc<dyn KeptQueue<E>>>,
}

/// Knows whether the handle was dropped before the end.
pub(super) struct GivenUp(pub(super) Option<oneshot::Receiver<()>>);

impl GivenUp {
    /// Waits until that is so.
    async fn wait(&mut self) {
        if let Some(receiver) = &mut self.0 {
            if receiver.await.is_err() {
                self.0 = Some(oneshot::channel().1);
                return;
            }
            self.0 = None;
        }
        pending().await
    }
}

/// Carries out calls until there are no more.
pub(super) async fn serve<E: Engine>(
    mut course: Course<E>,
    mut ops: mpsc::UnboundedReceiver<Op<E>>,
    mut given_up: GivenUp,
) {
    loop {
        let is_over = course.over.borrow().is_some();
        let next = match is_over {
            true => Ok(ops.recv().await),
            false => timeout_at(course.patience(), ops.recv()).await,
        };
        match next {
            Ok(None) => break,
            Ok(Some(op)) if is_over => course.refuse(op),
            Ok(Some(Op::Commit(answer))) => drop(answer.send(course.commit().await)),
            Ok(Some(op)) => course.carry_out_unless(op, &mut given_up).await,
            Err(_) => course.stop(course.out_of_time()).await,
        }
    }
    if let Some(lent) = course.lent.take() {
        lent.give_back();
    }
}

impl<E: Engine> Course<E> {
    /// Returns until when it waits for a call.
    fn patience(&self) -> Instant {
        match self.lent {
            Some(_) => self.deadline.min(Instant::now() + IDLE_MAX),
            None => self.deadline,
        }
    }

    fn out_of_time(&self) -> DbError {
        DbError::Timeout(match Instant::now() >= self.deadline {
            true => "the transaction took too long and was rolled back".to_owned(),
            false => format!("the transaction did nothing for {IDLE_MAX:?} and was rolled back"),
        })
    }

    /// Carries out a call, unless its time is over or nobody wants it any more.
    async fn carry_out_unless(&mut self, op: Op<E>, given_up: &mut GivenUp) {
        let deadline = self.deadline;
        let why = {
            let mut work = pin!(self.carry_out(op));
            tokio::select! {
                biased;
                () = &mut work => return,
                () = given_up.wait() => DbError::Closed,
                () = sleep_until(deadline) => {
                    DbError::Timeout("the transaction took too long and was rolled back".to_owned())
                }
            }
        };
        self.stop(why).await;
    }

    async fn carry_out(&mut self, op: Op<E>) {
        match op {
            Op::Run(statement, want, answer) => {
                let run = async |on: &E::Connection| {
                    let mut room = RESULT_MAX;
                    on.run(&statement, want, &mut room).await
                };
                reply(answer, self.guarded(run).await);
            }
            Op::OpenCursor(cursor, statement, answer) => {
                reply(answer, self.open_cursor(cursor, &statement).await);
            }
            Op::Next(cursor, max_rows, answer) => {
                reply(answer, self.next_page(cursor, max_rows).await);
            }
            Op::CloseCursor(cursor) => self.close_cursor(cursor).await,
            Op::Mark(id, answer) => {
                let noted = match check_work_id(&id) {
                    Ok(()) => {
                        self.guarded(async |on: &E::Connection| on.note(&id).await)
                            .await
                    }
                    Err(error) => Err(error),
                };
                reply(answer, noted);
            }
            Op::Send(queue, messages, answer) => {
                // Nobody may wait for it any more.
                let _ = answer.send(self.send(queue, &messages).await);
            }
            Op::Rollback(answer) => {
                self.over.replace(Some(DbError::Closed));
                if let Some(lent) = self.lent.take() {
                    lent.rollback().await;
                    lent.give_back();
                }
                let _ = answer.send(());
            }
            // It is not to be stopped.
            Op::Commit(answer) => reply(answer, self.commit().await),
        }
    }

    /// Answers a call that comes too late.
    fn refuse(&self, op: Op<E>) {
        let over = self.over.borrow().clone().unwrap_or(DbError::Closed);
        match op {
            Op::Run(_, _, answer) => reply(answer, Err(over)),
            Op::OpenCursor(_, _, answer) => reply(answer, Err(over)),
            Op::Next(_, _, answer) => reply(answer, Err(over)),
            Op::Mark(_, answer) => reply(answer, Err(over)),
            Op::Send(_, _, answer) => drop(answer.send(Err(over.into()))),
            Op::Commit(answer) => reply(answer, Err(over)),
            Op::Rollback(answer) => drop(answer.send(())),
            Op::CloseCursor(_) => {}
        }
    }

    /// Does something in the transaction, after which that goes on whether or not it succeeded.
    pub(super) async fn guarded<T>(
        &mut self,
        work: impl AsyncFn(&E::Connection) -> Result<T, Fault>,
    ) -> Result<T, DbError> {
        let mut is_first_try = true;
        loop {
            let opening = match self.lent {
                Some(_) => Opening::Next,
                None if self.is_fenced() => {
                    self.begin_within().await?;
                    Opening::First
                }
                None => {
                    self.lent = Some(self.lend().await?);
                    Opening::Begin(self.route.options())
                }
            };
            let Some(lent) = &self.lent else {
                return Err(DbError::Closed);
            };
            let fault = match lent.guarded(opening, &work).await {
                Ok(done) => return Ok(done),
                Err(fault) => fault,
            };
            let is_first = matches!(opening, Opening::Begin(_));
            if is_first && self.leaves_replica(&fault) {
                continue;
            }
            match fault.then {
                Then::ConnectionIsBroken => return Err(self.lose(&fault)),
                Then::TransactionIsOver => return Err(self.end(fault.told)),
                Then::PrepareAnew if is_first_try => {
                    if let Some(lent) = &self.lent {
                        lent.forget();
                    }
                    is_first_try = false;
                }
                Then::PrepareAnew | Then::GoesOn => {
                    if matches!(fault.told, DbError::Timeout(_)) {
                        self.stop(fault.told.clone()).await;
                    }
                    return Err(fault.told);
                }
            }
        }
    }

    /// Adds messages to a queue that is kept in the same database.
    async fn send(
        &mut self,
        queue: Rc<dyn KeptQueue<E>>,
        messages: &[Message],
    ) -> Result<Vec<String>, QueueError> {
        queue.admit(messages).await?;
        let add = async |on: &E::Connection| queue.insert(on, messages).await;
        let ids = self.guarded(add).await?;
        self.sent.push(queue);
        Ok(ids)
    }

    /// Goes over to the primary if its first statement has found the replica away: nothing was read there.
    fn leaves_replica(&mut self, fault: &Fault) -> bool {
        let leaves = matches!(fault.told, DbError::Unavailable(_)) && self.route.leave_replica();
        if leaves {
            self.lent = None;
        }
        leaves
    }

    /// Tells whether there is something to check before its first statement.
    fn is_fenced(&self) -> bool {
        !self.fences.is_empty() && !self.route.options().read_only
    }

    /// Begins within its fences, or ends it.
    async fn begin_within(&mut self) -> Result<(), DbError> {
        let lent = self.lend().await?;
        let begun = lent.begin_within(self.route.options(), &self.fences).await;
        let Err(fault) = begun else {
            self.lent = Some(lent);
            return Ok(());
        };
        if fault.is_broken() {
            return Err(self.lose(&fault));
        }
        self.lent = Some(lent);
        Err(self.end(fault.told))
    }

    /// Takes a connection, or ends it.
    async fn lend(&mut self) -> Result<Lent<E>, DbError> {
        let lent = self.route.lend(self.deadline).await;
        lent.inspect_err(|_| {
            self.over.replace(Some(DbError::Closed));
        })
    }

    /// Ends it because its connection cannot go on.
    fn lose(&mut self, fault: &Fault) -> DbError {
        let told = match &fault.told {
            DbError::Unavailable(why) => {
                DbError::Unavailable(format!("{why}; the transaction was rolled back"))
            }
            told => told.clone(),
        };
        // Dropped: the server rolls back what it finds nobody at.
        self.lent = None;
        self.over.replace(Some(told.clone()));
        told
    }

    /// Ends it because the server has; the connection can go on.
    fn end(&mut self, told: DbError) -> DbError {
        self.over.replace(Some(told.clone()));
        if let Some(lent) = self.lent.take() {
            lent.give_back();
        }
        told
    }

    /// Ends it in the middle of whatever it does.
    async fn stop(&mut self, why: DbError) {
        self.over.replace(Some(why));
        if let Some(lent) = self.lent.take() {
            lent.cancel().await;
            lent.give_back();
        }
    }

    async fn commit(&mut self) -> Result<(), DbError> {
        self.over.replace(Some(DbError::Closed));
        match self.lent.take() {
            Some(lent) => {
                let committed = commit(lent, self.route.options().read_only).await;
                // Also if nobody knows: there may be messages.
                self.sent.iter().for_each(|queue| queue.committed());
                committed
            }
            None => Ok(()),
        }
    }
}

fn reply<T>(answer: Answer<T>, result: Result<T, DbError>) {
    // Nobody may wait for it any more.
    let _ = answer.send(result);
}
