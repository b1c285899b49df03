//! A connection that is lent to the engine for one transaction: the thread that serves it reads the calls and writes the
//! answers itself, and nobody hands them on.
//!
//! It is given back with the last answer. What else may come over a connection, and what it is used for between two
//! transactions, is for `server` to say.

use super::serving::{self, Serving};
use super::session::End;
use super::ticket::Ticket;
use crate::state::db::{DbError, TX_IDLE_MAX};
use crate::state::protocol::{Call, Exchange, Reply, Request};
use crate::state::queue::{Message, QueueError};
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;
use tokio::sync::oneshot;

/// Tells whether a transaction may send to a queue.
pub type MaySend = Box<dyn Fn(&str) -> Result<(), QueueError> + Send>;

/// The connection, for as long as the transaction waits.
type Slot = Arc<Mutex<Option<Exchange>>>;

/// A connection that comes back.
#[derive(Debug)]
pub struct Returned {
    pub exchange: Exchange,
    /// Why the transaction has ended, if no call of its own has ended it: what further calls are told.
    pub why: Option<DbError>,
}

/// What the engine borrows.
pub(super) struct Loan {
    slot: Slot,
    may_send: MaySend,
    back: Back,
}

type Back = oneshot::Sender<io::Result<Returned>>;

/// The lender's part.
pub(super) struct Lender {
    ticket: Ticket,
    slot: Slot,
    back: oneshot::Receiver<io::Result<Returned>>,
}

/// Why the conversation is over.
enum Last {
    /// A call with this id.
    Commit(u64),
    Rollback(u64),
    /// No call: the clock, or a failure.
    End(DbError),
    Broken(io::Error),
}

/// Lends a connection for a transaction that waits for its turn.
pub(super) fn lend(ticket: Ticket, exchange: Exchange, may_send: MaySend) -> (Loan, Lender) {
    let slot = Arc::new(Mutex::new(Some(exchange)));
    let (back, comes_back) = oneshot::channel();
    let loan = Loan {
        slot: Arc::clone(&slot),
        may_send,
        back,
    };
    let lender = Lender {
        ticket,
        slot,
        back: comes_back,
    };
    (loan, lender)
}

impl Lender {
    /// Waits until the connection comes back. It is over if it does not.
    pub(super) async fn wait(self) -> io::Result<Returned> {
        if let Some(returned) = self.ticket.wait(self.back).await {
            return returned;
        }
        // Whoever did not begin has not taken it.
        match (take(&self.slot), self.ticket.not_started()) {
            (Some(exchange), why) => Ok(Returned { exchange, why }),
            (None, _) => Err(io::ErrorKind::ConnectionAborted.into()),
        }
    }
}

fn take(slot: &Slot) -> Option<Exchange> {
    slot.lock().unwrap_or_else(PoisonError::into_inner).take()
}

impl Serving<'_, '_> {
    /// Serves the transaction to its end, and gives the connection back.
    pub(super) fn serve_loan(mut self, loan: Loan) {
        let Loan {
            slot,
            may_send,
            back,
        } = loan;
        let Some(mut exchange) = take(&slot) else {
            return;
        };
        let watch = &self.statements.connection.watch;
        let last = match self.begin() {
            Ok(()) => {
                watch.set_peer(Some(exchange.socket()));
                let last = self.converse(&mut exchange, &may_send);
                watch.set_peer(None);
                last
            }
            Err(error) => Last::End(error),
        };
        match last {
            Last::Commit(id) => self.commit_loan(id, exchange, back),
            Last::Rollback(id) => {
                self.rollback();
                give_back(exchange, id, Reply::Done, back);
            }
            Last::End(error) => {
                self.rollback();
                let why = Some(error);
                // Nobody may wait for it any more.
                let _ = back.send(Ok(Returned { exchange, why }));
            }
            Last::Broken(error) => {
                self.rollback();
                let _ = back.send(Err(error));
            }
        }
    }

    /// Serves calls until one of them, or the clock, ends the transaction.
    fn converse(&mut self, exchange: &mut Exchange, may_send: &MaySend) -> Last {
        loop {
            let left = match self.left() {
                Ok(left) => left,
                Err(error) => return Last::End(error),
            };
            let until = Instant::now() + left.min(TX_IDLE_MAX);
            let Request { id, call } = match exchange.next(until) {
                Ok(Some(request)) => request,
                Ok(None) if left > TX_IDLE_MAX => return Last::End(serving::did_nothing()),
                // Its whole time is used up.
                Ok(None) => continue,
                Err(error) => return Last::Broken(error),
            };
            let (reply, end) = match call {
                Call::Commit { .. } => return Last::Commit(id),
                Call::Rollback { .. } => return Last::Rollback(id),
                call => match self.carry_out(call, may_send) {
                    Ok(done) => done,
                    Err(error) => return Last::Broken(error),
                },
            };
            if let Err(error) = exchange.answer(id, reply) {
                return Last::Broken(error);
            }
            match end {
                None => {}
                Some(End::Failed(error)) => return Last::End(error),
                Some(End::RolledBack | End::Committed) => return Last::End(DbError::Closed),
            }
        }
    }

    /// Carries out a call; returns its answer, and how the transaction has ended with it, if it has. An error says that it is
    /// no call of a transaction.
    fn carry_out(&mut self, call: Call, may_send: &MaySend) -> io::Result<(Reply, Option<End>)> {
        Ok(match call {
            Call::Run {
                statement, want, ..
            } => {
                let step = self.run(&statement, want);
                self.reply_to(step, |step| Reply::Steps(vec![step]))
            }
            Call::OpenCursor {
                cursor, statement, ..
            } => {
                let columns = self.open_cursor(cursor, &statement);
                self.reply_to(columns, Reply::Columns)
            }
            Call::Next {
                cursor, max_rows, ..
            } => {
                let rows = self.next(cursor, max_rows);
                self.reply_to(rows, Reply::Page)
            }
            Call::CloseCursor { cursor, .. } => {
                self.close_cursor(cursor);
                (Reply::Done, None)
            }
            Call::MarkProcessed { id, .. } => {
                let first = self.mark_processed(&id);
                self.reply_to(first, Reply::First)
            }
            Call::SendIn {
                queue, messages, ..
            } => self.send_if_it_may(&queue, &messages, may_send),
            _ => {
                let what = "this is asked for while its connection is a transaction's";
                return Err(io::Error::new(io::ErrorKind::InvalidData, what));
            }
        })
    }

    fn reply_to<T>(
        &self,
        result: Result<T, DbError>,
        reply: impl FnOnce(T) -> Reply,
    ) -> (Reply, Option<End>) {
        let end = self.ended_by(&result);
        (result.map_or_else(Reply::Db, reply), end)
    }

    fn send_if_it_may(
        &mut self,
        queue: &str,
        messages: &[Message],
        may_send: &MaySend,
    ) -> (Reply, Option<End>) {
        let ids = may_send(queue).and_then(|()| self.send(queue, messages));
        let end = self.ended_by_sqlite();
        (ids.map_or_else(Reply::Queue, Reply::Ids), end)
    }

    fn commit_loan(&mut self, id: u64, exchange: Exchange, back: Back) {
        self.close_cursors();
        let Some(writer) = &mut self.writer else {
            self.rollback();
            give_back(exchange, id, Reply::Done, back);
            return;
        };
        match writer.commit() {
            Ok(()) => {
                let ack = move || give_back(exchange, id, Reply::Done, back);
                writer.acknowledge(self.durable, vec![Box::new(ack)]);
            }
            Err(error) => give_back(exchange, id, Reply::Db(error), back),
        }
    }
}

/// Answers the last call, and gives the connection back.
fn give_back(mut exchange: Exchange, id: u64, reply: Reply, back: Back) {
    let returned = match exchange.answer(id, reply) {
        Ok(()) => Ok(Returned {
            exchange,
            why: None,
        }),
        Err(error) => Err(error),
    };
    // The session may have ended.
    let _ = back.send(returned);
}
