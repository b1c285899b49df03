//! The engine as a [`Database`]: which thread runs what a guest asks for.

use super::Sqlite;
use super::loan::{self, MaySend, Returned};
use super::serving;
use super::session::{self, Begin, Calls};
use super::statement::{Rules, Statements};
use super::ticket::{Ticket, stopped};
use super::tokens;
use super::work::{Manner, OneShot};
use super::writer::{Job, Writer};
use crate::state::BoxFuture;
use crate::state::db::{
    Database, DbError, Fence, GivenUp, RESULT_MAX, Statement, Step, Transaction, TxOptions, Want,
    check_batch,
};
use crate::state::protocol::Exchange;
use std::future::ready;
use std::io;
use std::sync::atomic::Ordering;
use tokio::sync::oneshot;

impl Sqlite {
    /// Begins a transaction whose calls come over a connection, which is lent until it has ended. What calls are told that
    /// come after its end, and why, is then the lender's to say.
    pub fn begin_on(
        &self,
        exchange: Exchange,
        options: TxOptions,
        may_send: MaySend,
    ) -> BoxFuture<'static, io::Result<Returned>> {
        let ticket = Ticket::new(options.timeout);
        let (loan, lender) = loan::lend(ticket.clone(), exchange, may_send);
        let begin = Begin::new(ticket, self.is_durable(), Calls::Loan(loan));
        self.serve(begin, options);
        Box::pin(lender.wait())
    }

    fn serve(&self, begin: Begin, options: TxOptions) {
        if options.read_only {
            self.inner.readers.read(Box::new(move |statements| {
                serving::serve(statements, None, begin)
            }));
        } else {
            self.inner.shared.waiting.fetch_add(1, Ordering::Relaxed);
            self.ask(Job::Begin(begin));
        }
    }

    /// Has a reader run statements that seem to read; if they do not, the writer does.
    fn read_batch(
        &self,
        statements: Vec<(Statement, Want)>,
        options: TxOptions,
        given_up: GivenUp,
    ) -> BoxFuture<'static, Result<Vec<Step>, DbError>> {
        let ticket = Ticket::new(options.timeout).unless(given_up);
        let (answer, answered) = oneshot::channel();
        let (reading, durable) = (ticket.clone(), self.is_durable());
        let writer = self.inner.jobs.borrow().clone();
        self.inner.readers.read(Box::new(move |reader| {
            let all_read = options.read_only
                || statements.iter().all(|(statement, _)| {
                    // What cannot be prepared fails when it is run.
                    reader
                        .is_read(&statement.sql, reading.deadline)
                        .unwrap_or(true)
                });
            if all_read {
                if reading.start() {
                    let _ = answer.send(read_all(reader, &statements, &reading));
                }
            } else if let Some(writer) = writer {
                let work = write_all(reading, durable, statements, answer);
                // It fails only if the writer has ended.
                let _ = writer.send(work);
            }
        }));
        Box::pin(ticket.answer(answered))
    }
}

impl Database for Sqlite {
    fn dialect(&self) -> &'static str {
        "sqlite"
    }

    fn batch_unless(
        &self,
        statements: Vec<(Statement, Want)>,
        options: TxOptions,
        // Nobody but this process writes to it, which knows its locks.
        _: Vec<Fence>,
        given_up: GivenUp,
    ) -> BoxFuture<'_, Result<Vec<Step>, DbError>> {
        if let Err(error) = check_batch(&statements) {
            return Box::pin(ready(Err(error)));
        }
        let seems_to_read = statements
            .iter()
            .all(|(statement, _)| tokens::looks_like_read(&statement.sql));
        if options.read_only || seems_to_read {
            return self.read_batch(statements, options, given_up);
        }
        let ticket = Ticket::new(options.timeout).unless(given_up);
        let (answer, answered) = oneshot::channel();
        self.ask(write_all(
            ticket.clone(),
            self.is_durable(),
            statements,
            answer,
        ));
        Box::pin(ticket.answer(answered))
    }

    fn begin_fenced(
        &self,
        options: TxOptions,
        _: Vec<Fence>,
    ) -> BoxFuture<'_, Result<Box<dyn Transaction>, DbError>> {
        let ticket = Ticket::new(options.timeout);
        let (begin, session) = session::new(ticket, self.is_durable());
        self.serve(begin, options);
        Box::pin(ready(Ok(Box::new(session) as Box<dyn Transaction>)))
    }
}

/// Returns the job that runs statements in one transaction that may write.
fn write_all(
    ticket: Ticket,
    durable: bool,
    statements: Vec<(Statement, Want)>,
    answer: oneshot::Sender<Result<Vec<Step>, DbError>>,
) -> Job {
    let manner = Manner {
        atomic: statements.len() == 1,
        durable,
    };
    let run = move |writer: &mut Writer<'_>, ticket: &Ticket| {
        run_all(&writer.statements, &statements, false, ticket)
    };
    Job::Work(Box::new(OneShot::new(ticket, manner, answer, run)))
}

/// Runs statements on one snapshot.
fn read_all(
    reader: &Statements<'_>,
    statements: &[(Statement, Want)],
    ticket: &Ticket,
) -> Result<Vec<Step>, DbError> {
    if statements.len() == 1 {
        return run_all(reader, statements, true, ticket);
    }
    reader.execute("BEGIN", [])?;
    let steps = run_all(reader, statements, true, ticket);
    // Whatever became of them, there is nothing to undo.
    reader.execute("ROLLBACK", [])?;
    steps
}

fn run_all(
    on: &Statements<'_>,
    statements: &[(Statement, Want)],
    read_only: bool,
    ticket: &Ticket,
) -> Result<Vec<Step>, DbError> {
    let rules = Rules {
        read_only,
        deadline: ticket.deadline,
    };
    if ticket.given_up.is_given_up() {
        return Err(stopped());
    }
    let watch = &on.connection.watch;
    watch.set_given_up(ticket.given_up.clone());
    let mut room = RESULT_MAX;
    let steps = statements
        .iter()
        .map(|(statement, want)| on.run(statement, *want, rules, &mut room))
        .collect();
    watch.set_given_up(GivenUp::default());
    steps
}
