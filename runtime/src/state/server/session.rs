//! One connection: who it is, what it has open, and how its calls are carried out and answered.
//!
//! Knows frames and calls, and leaves what they mean to the files beside this one. A session's end, however it comes,
//! gives back all that it held.

mod db;
mod flight;
mod lending;
mod lock;
mod operator;
mod queue;

use super::outbox::Outbox;
use super::stores::Stores;
use crate::config::shared::Shared;
use crate::state::BoxFuture;
use crate::state::db::Transaction;
use crate::state::lock::{Locks as _, SessionId};
use crate::state::protocol::{Call, Incoming, Reply, Request, Stream};
use crate::state::spin::Spin;
use db::{Batches, Transactions};
use flight::Flight;
use lending::Loan;
use std::cell::RefCell;
use std::collections::HashSet;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

/// Bytes that wait for a peer: above this it is not read from, and if it takes none for ten seconds it is cut off.
const WAITING_MAX: usize = 64 << 20;
const WAITING_TIME_MAX: Duration = Duration::from_secs(10);

/// Bytes that wait for a peer at which its connection ends at once.
const WAITING_LIMIT: usize = 4 * WAITING_MAX;

/// What a session may do.
#[derive(Clone, Debug)]
pub(super) enum Rights {
    /// What the manifest of a worker's generation grants.
    Guest(Arc<Shared>),
    /// Only to have transactions, of which the engine may serve each by itself.
    Transactions(Arc<Shared>),
    /// To look and to mend, as a `wrun` command.
    Operator,
}

/// A connection that has said who it is.
pub(super) struct Session {
    id: SessionId,
    rights: Rights,
    stores: Rc<Stores>,
    outbox: Rc<Outbox>,
    transactions: Transactions,
    batches: Batches,
    /// The queues that it was given messages of, or may have been.
    consumed: RefCell<HashSet<String>>,
    flight: Rc<Flight>,
    /// A transaction that the connection is to be lent for.
    loan: Option<Loan>,
    /// Calls that are given up when the session ends.
    tasks: JoinSet<()>,
}

/// What carries a call out.
enum Answer {
    Now(Reply),
    /// To be given up when the session ends.
    Later(BoxFuture<'static, Reply>),
    /// To be carried out to the end, because others must not act before.
    Surely(BoxFuture<'static, Reply>),
}

/// Why a session ended that its peer did not end.
#[derive(Debug, thiserror::Error)]
pub(super) enum Fault {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("it does not read what it is sent")]
    Stalled,
    #[error("{0}")]
    Refused(&'static str),
}

impl Session {
    pub(super) fn new(
        id: SessionId,
        rights: Rights,
        stores: Rc<Stores>,
        outbox: Rc<Outbox>,
    ) -> Self {
        Self {
            id,
            rights,
            stores,
            outbox,
            transactions: Transactions::default(),
            batches: Batches::default(),
            consumed: RefCell::default(),
            flight: Rc::default(),
            loan: None,
            tasks: JoinSet::new(),
        }
    }

    /// Serves the connection until it ends. `incoming` may hold what came right behind the introduction.
    pub(super) async fn serve(
        mut self,
        mut stream: Stream,
        mut incoming: Incoming,
    ) -> Result<(), Fault> {
        let mut progress = Instant::now();
        let mut spin = Spin::default();
        loop {
            let taken = self.take(&mut incoming);
            let waited = self.outbox.len();
            self.outbox.write(&stream)?;
            taken?;
            if let Some(loan) = self.loan.take() {
                (stream, incoming) = self.lend(loan, stream, incoming).await?;
                progress = Instant::now();
                continue;
            }
            while self.tasks.try_join_next().is_some() {}
            let waiting = self.outbox.len();
            if waiting < waited || waiting == 0 {
                progress = Instant::now();
            }
            if waiting > WAITING_LIMIT {
                return Err(Fault::Stalled);
            }
            let full = waiting > WAITING_MAX;
            tokio::select! {
                biased;
                () = sleep_until(progress + WAITING_TIME_MAX), if full => return Err(Fault::Stalled),
                // Others may have an answer, too: one write takes them all.
                () = self.outbox.notified() => {
                    spin.came();
                    tokio::task::yield_now().await;
                }
                ready = stream.writable(), if waiting > 0 => ready?,
                read = stream.read(incoming.room(), &mut spin), if !full => if read? == 0 {
                    return Ok(());
                },
            }
        }
    }

    /// Carries out every call that has arrived in whole, up to one that the connection is to be lent for.
    fn take(&mut self, incoming: &mut Incoming) -> Result<(), Fault> {
        while self.loan.is_none() {
            let before = incoming.len();
            let Some(request) = incoming.take::<Request>()? else {
                return Ok(());
            };
            self.handle(request, before - incoming.len())?;
        }
        Ok(())
    }

    fn handle(&mut self, request: Request, bytes: usize) -> Result<(), Fault> {
        let Request { id, call } = request;
        let answer = match self.flight.refusal(&call) {
            Some(refusal) => Ok(Answer::Now(refusal)),
            None => self.dispatch(id, call),
        };
        let (mut work, sure) = match answer {
            Ok(Answer::Now(reply)) => {
                self.outbox.answer(id, reply);
                return Ok(());
            }
            Ok(Answer::Later(work)) => (work, false),
            Ok(Answer::Surely(work)) => (work, true),
            Err(fault) => {
                self.outbox.answer(id, Reply::Refused(fault.to_string()));
                return Err(fault);
            }
        };
        // Most are done at once: then there is no need for a task.
        let mut nobody = Context::from_waker(Waker::noop());
        if let Poll::Ready(reply) = work.as_mut().poll(&mut nobody) {
            self.outbox.answer(id, reply);
            return Ok(());
        }
        let (outbox, place) = (self.outbox.clone(), self.flight.clone().enter(bytes));
        let task = async move {
            outbox.answer(id, work.await);
            outbox.notify();
            drop(place);
        };
        if sure {
            tokio::task::spawn_local(task);
        } else {
            self.tasks.spawn_local(task);
        }
        Ok(())
    }

    fn dispatch(&mut self, id: u64, call: Call) -> Result<Answer, Fault> {
        match (&self.rights, call) {
            (Rights::Operator, Call::Operator(call)) => Ok(self.operate(call)),
            (Rights::Operator, _) => {
                Err(Fault::Refused("an operator may not ask what workers ask"))
            }
            (_, Call::Operator(_)) => {
                Err(Fault::Refused("a worker may not ask what operators ask"))
            }
            (_, Call::Hello { .. }) => Err(Fault::Refused("it has introduced itself before")),
            (Rights::Transactions(granted), call) => self.serve_lane(&granted.clone(), id, call),
            (Rights::Guest(granted), call) => self.serve_guests(&granted.clone(), id, call),
        }
    }

    /// Carries out a call of a worker; `id` is its request's.
    fn serve_guests(&self, granted: &Shared, id: u64, call: Call) -> Result<Answer, Fault> {
        Ok(match call {
            Call::Acquire { guard, request } => self.acquire(granted, guard, request),
            Call::Extend { guard, ttl_ms } => self.extend(guard, ttl_ms),
            Call::Release { guard } => self.release(guard),
            Call::DropGuard { guard } => self.drop_guard(guard),
            Call::Batch {
                db,
                statements,
                options,
                fences,
            } => self.batch(id, self.database(granted, &db), statements, options, fences),
            Call::GiveUp { batch } => self.give_up(batch),
            Call::Begin {
                tx,
                db,
                options,
                fences,
            } => self.begin(granted, tx, db, options, fences)?,
            Call::Run {
                tx,
                statement,
                want,
            } => {
                let one = |step| Reply::Steps(vec![step]);
                self.in_transaction(tx, move |open| open.run(statement, want), one)
            }
            Call::OpenCursor {
                tx,
                cursor,
                statement,
            } => {
                let open = move |open: &dyn Transaction| open.open_cursor(cursor, statement);
                self.in_transaction(tx, open, Reply::Columns)
            }
            Call::Next {
                tx,
                cursor,
                max_rows,
            } => self.in_transaction(tx, move |open| open.next(cursor, max_rows), Reply::Page),
            Call::CloseCursor { tx, cursor } => self.close_cursor(tx, cursor),
            Call::MarkProcessed { tx, id } => {
                self.in_transaction(tx, move |open| open.mark_processed(id), Reply::First)
            }
            Call::SendIn {
                tx,
                queue,
                messages,
            } => self.send_in(granted, tx, queue, messages),
            Call::Commit { tx } => self.commit(tx),
            Call::Rollback { tx } => self.rollback(tx),
            Call::Send { queue, messages } => self.send(granted, &queue, messages),
            Call::Credit {
                queue,
                batch,
                batches,
            } => self.credit(granted, &queue, batch, batches),
            Call::Leave { queue } => self.leave(granted, &queue),
            Call::Settle { queue, settled } => self.settle(granted, &queue, settled),
            Call::ExtendDelivery {
                queue,
                delivery,
                ms,
            } => self.extend_delivery(granted, &queue, &delivery, ms),
            Call::Heartbeat => self.heartbeat(),
            // Refused before; here, so that a call cannot be forgotten.
            Call::Hello { .. } | Call::Operator(_) => Answer::Now(Reply::Done),
        })
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // In this order: who gets a lock next must not find a transaction of its last holder open.
        self.tasks.abort_all();
        self.transactions.clear();
        self.batches.give_up_all();
        self.stores.locks.end_session(self.id);
        for queue in self.consumed.take() {
            if let Some(queue) = self.stores.queue(&queue) {
                queue.leave(self.id, true);
            }
        }
    }
}
