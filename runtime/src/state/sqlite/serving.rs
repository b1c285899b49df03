//! Serves the calls of an interactive transaction, on the thread that it has for itself.
//!
//! So it must go on: one second without a call, or its whole time used up, and it is rolled back. A statement that fails does
//! not end it, unless SQLite has rolled it back with that.

use super::schema;
use super::session::{Answer, Begin, Calls, End, Op};
use super::statement::{Cursor, Rules, Statements, read_only};
use super::writer::Writer;
use crate::state::db::{
    CURSORS_MAX, Column, DbError, RESULT_MAX, Row, Statement, Step, TX_IDLE_MAX, Want,
};
use crate::state::queue::{Message, QueueError};
use crate::state::spin::Spin;
use std::collections::HashMap;
use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

/// Serves a transaction to its end: on the writer, or on a reader if there is none.
pub(super) fn serve<'c>(
    statements: &Statements<'c>,
    writer: Option<&mut Writer<'c>>,
    begin: Begin,
) {
    let Begin {
        number,
        ticket,
        durable,
        calls,
    } = begin;
    let watch = &statements.connection.watch;
    let serving = Serving {
        statements,
        writer,
        deadline: ticket.deadline,
        durable,
        cursors: HashMap::new(),
    };
    match calls {
        Calls::Handle(ops, course) => {
            // Before it starts, because whoever drops it from then on must find it.
            watch.set_serving(number);
            let _ = course.watch.set(Arc::clone(watch));
            if ticket.start() {
                serving.serve_handle(ops, &course.end);
            }
            watch.set_serving(0);
        }
        Calls::Loan(loan) => {
            if ticket.start() {
                serving.serve_loan(loan);
            }
        }
    }
}

/// A transaction that is served.
pub(super) struct Serving<'s, 'c> {
    pub(super) statements: &'s Statements<'c>,
    pub(super) writer: Option<&'s mut Writer<'c>>,
    pub(super) deadline: Instant,
    pub(super) durable: bool,
    cursors: HashMap<u64, Cursor<'c>>,
}

impl<'c> Serving<'_, 'c> {
    fn serve_handle(mut self, ops: Receiver<Op>, end: &OnceLock<End>) {
        let ended = match self.begin() {
            Ok(()) => self.serve_ops(&ops, end),
            Err(error) => End::Failed(error),
        };
        self.statements.connection.watch.set_serving(0);
        // Before `ops` goes, and with it the answers to those who then look here.
        let _ = end.set(ended);
        self.rollback();
    }

    pub(super) fn begin(&mut self) -> Result<(), DbError> {
        if let Some(writer) = &mut self.writer {
            writer.shared.check()?;
            return writer.begin();
        }
        self.statements.execute("BEGIN", [])?;
        // Its snapshot is of now, not of when it reads first.
        self.statements
            .own("SELECT 1 FROM sqlite_schema LIMIT 1")?
            .query([])
            .and_then(|mut rows| rows.next().map(drop))
            .map_err(|error| self.statements.error(&error))
    }

    /// Returns how long the transaction may go on.
    pub(super) fn left(&self) -> Result<Duration, DbError> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        match left.is_zero() {
            true => Err(timed_out("the transaction took too long")),
            false => Ok(left),
        }
    }

    /// Serves calls until one of them, or the clock, ends the transaction.
    fn serve_ops(&mut self, ops: &Receiver<Op>, end: &OnceLock<End>) -> End {
        let mut spin = Spin::default();
        loop {
            let left = match self.left() {
                Ok(left) => left,
                Err(error) => return End::Failed(error),
            };
            let next = loop {
                match ops.try_recv() {
                    Err(TryRecvError::Empty) if spin.again() => {}
                    Err(_) => break ops.recv_timeout(left.min(TX_IDLE_MAX)),
                    Ok(op) => break Ok(op),
                }
            };
            spin.came();
            match next {
                Ok(Op::Commit(answer)) => return self.commit(answer, end),
                Ok(Op::Rollback(answer)) => {
                    self.rollback();
                    let _ = answer.send(Ok(()));
                    return End::RolledBack;
                }
                Ok(op) => {
                    if let Some(end) = self.serve_op(op) {
                        return end;
                    }
                }
                Err(RecvTimeoutError::Disconnected) => return End::RolledBack,
                Err(RecvTimeoutError::Timeout) if left > TX_IDLE_MAX => {
                    return End::Failed(did_nothing());
                }
                // Its whole time is used up.
                Err(RecvTimeoutError::Timeout) => {}
            }
        }
    }

    /// Serves a call; returns how the transaction has ended, if it has.
    fn serve_op(&mut self, op: Op) -> Option<End> {
        match op {
            Op::Run(statement, want, answer) => {
                let step = self.run(&statement, want);
                self.reply(answer, step)
            }
            Op::OpenCursor(number, statement, answer) => {
                let columns = self.open_cursor(number, &statement);
                self.reply(answer, columns)
            }
            Op::Next(number, max_rows, answer) => {
                let rows = self.next(number, max_rows);
                self.reply(answer, rows)
            }
            Op::CloseCursor(number) => {
                self.close_cursor(number);
                None
            }
            Op::MarkProcessed(id, answer) => {
                let first = self.mark_processed(&id);
                self.reply(answer, first)
            }
            Op::Send(queue, messages, answer) => {
                let ids = self.send(&queue, &messages);
                let end = self.ended_by_sqlite();
                let _ = answer.send(ids);
                end
            }
            // Both end the loop.
            Op::Commit(_) | Op::Rollback(_) => None,
        }
    }

    /// Answers a call. After an error the transaction may be over.
    fn reply<T>(&self, answer: Answer<T>, result: Result<T, DbError>) -> Option<End> {
        let end = self.ended_by(&result);
        let _ = answer.send(result);
        end
    }

    /// Returns how the transaction has ended with a call, if it has.
    pub(super) fn ended_by<T>(&self, result: &Result<T, DbError>) -> Option<End> {
        match result {
            Ok(_) => None,
            // SQLite was stopped in the middle of something.
            Err(error @ DbError::Timeout(_)) => Some(End::Failed(error.clone())),
            Err(_) => self.ended_by_sqlite(),
        }
    }

    pub(super) fn ended_by_sqlite(&self) -> Option<End> {
        let is_over = self.statements.connection.sqlite.is_autocommit();
        is_over.then_some(End::RolledBack)
    }

    fn rules(&self) -> Rules {
        Rules {
            read_only: self.writer.is_none(),
            deadline: self.deadline,
        }
    }

    pub(super) fn run(&self, statement: &Statement, want: Want) -> Result<Step, DbError> {
        let rules = self.rules();
        self.statements
            .run(statement, want, rules, &mut { RESULT_MAX })
    }

    pub(super) fn mark_processed(&self, id: &str) -> Result<bool, DbError> {
        match self.writer {
            Some(_) => schema::mark_processed(self.statements, id),
            None => Err(read_only()),
        }
    }

    pub(super) fn close_cursor(&mut self, number: u64) {
        if let Some(cursor) = self.cursors.remove(&number) {
            self.statements.close(cursor);
        }
    }

    pub(super) fn open_cursor(
        &mut self,
        number: u64,
        statement: &Statement,
    ) -> Result<Vec<Column>, DbError> {
        if self.cursors.contains_key(&number) {
            return Err(DbError::Invalid(format!("cursor {number} is open")));
        }
        if self.cursors.len() >= CURSORS_MAX {
            return Err(DbError::Invalid(format!(
                "more than {CURSORS_MAX} cursors are open"
            )));
        }
        let cursor = self.statements.open(statement, self.rules())?;
        let columns = cursor.columns();
        self.cursors.insert(number, cursor);
        Ok(columns)
    }

    pub(super) fn next(&mut self, number: u64, max_rows: u32) -> Result<Vec<Row>, DbError> {
        let cursor = self.cursors.get_mut(&number).ok_or(DbError::Closed)?;
        let rows = self.statements.next(cursor, max_rows, self.deadline);
        if rows.is_err() {
            self.cursors.remove(&number);
        }
        rows
    }

    pub(super) fn send(
        &mut self,
        queue: &str,
        messages: &[Message],
    ) -> Result<Vec<String>, QueueError> {
        let Some(writer) = &mut self.writer else {
            return Err(read_only().into());
        };
        let mark = writer.mark();
        writer.savepoint()?;
        match writer.insert(queue, messages) {
            Ok(ids) => {
                writer.release()?;
                Ok(ids)
            }
            Err(error) => {
                if !self.statements.connection.sqlite.is_autocommit() {
                    writer.undo_savepoint(mark)?;
                }
                Err(error)
            }
        }
    }

    fn commit(&mut self, answer: Answer<()>, end: &OnceLock<End>) -> End {
        self.close_cursors();
        let Some(writer) = &mut self.writer else {
            self.rollback();
            let _ = answer.send(Ok(()));
            return End::Committed;
        };
        match writer.commit() {
            Ok(()) => {
                // Before it can be acknowledged, or fail to be.
                let _ = end.set(End::Committed);
                let ack = move || drop(answer.send(Ok(())));
                writer.acknowledge(self.durable, vec![Box::new(ack)]);
                End::Committed
            }
            Err(error) => {
                let _ = answer.send(Err(error));
                End::RolledBack
            }
        }
    }

    pub(super) fn rollback(&mut self) {
        self.close_cursors();
        match &mut self.writer {
            Some(writer) => writer.rollback(),
            None if self.statements.connection.sqlite.is_autocommit() => {}
            None => {
                if let Err(error) = self.statements.execute("ROLLBACK", []) {
                    tracing::warn!(%error, "a snapshot could not be given up");
                }
            }
        }
    }

    pub(super) fn close_cursors(&mut self) {
        for (_, cursor) in self.cursors.drain() {
            self.statements.close(cursor);
        }
    }
}

/// What a transaction is told to which nobody said anything for too long.
pub(super) fn did_nothing() -> DbError {
    let time = TX_IDLE_MAX.as_secs();
    timed_out(&format!("the transaction did nothing for {time} s"))
}

fn timed_out(reason: &str) -> DbError {
    DbError::Timeout(format!("{reason} and was rolled back"))
}
